//! How the methods do with less training data.

use melo_report::Element;
use melo_report::chart::{Axis, Line, LineChart};

use super::legend::{legend, panel};
use super::part::{Part, note};
use super::view::{arms_on, backbones, overlaid, series, task_on_backbone};
use super::words::{level, share};
use crate::{Arm, Results, TaskResults};

pub(super) fn part(results: &Results) -> Option<Part> {
    let mut panels = Vec::new();
    let mut shown: Vec<&Arm> = Vec::new();
    for task in &results.tasks {
        for backbone in backbones(results) {
            let arms = overlaid(results, &arms_on(results, task, backbone));
            if let Some(drawn) = chart(results, task, backbone, &arms) {
                panels.push(drawn);
                for arm in arms {
                    if shown.iter().all(|known| known.method != arm.method) {
                        shown.push(arm);
                    }
                }
            }
        }
    }
    if panels.is_empty() {
        return None;
    }
    let text = format!(
        "Test macro AUC by share of the training split (logarithmic), with {} intervals; validation and test splits stay whole.",
        level(results.study.level)
    );
    let content = vec![note(text), legend(results, &shown), Element::new("div").class("panels large").children(panels)];
    Some(Part { id: "fractions", heading: "Less training data", content })
}

fn chart(results: &Results, task: &TaskResults, backbone: &str, arms: &[&Arm]) -> Option<Element> {
    let of_method = |method: &str| {
        let mut found: Vec<_> = task
            .arms
            .iter()
            .filter(|arm| arm.backbone == backbone && arm.method == method)
            .filter_map(|arm| Some((arm.data_fraction, arm.auc?)))
            .collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    };
    let curves: Vec<_> =
        arms.iter().map(|arm| (&*arm.method, of_method(&arm.method))).filter(|(_, found)| found.len() > 1).collect();
    let mut fractions: Vec<_> =
        curves.iter().flat_map(|(_, found)| found.iter().map(|(fraction, _)| *fraction)).collect();
    fractions.sort_by(f64::total_cmp);
    fractions.dedup();
    let ends = curves.iter().flat_map(|(_, found)| found).flat_map(|(_, auc)| [auc.low, auc.value, auc.high]);
    let name = task_on_backbone(results, task, backbone);
    let chart = LineChart {
        title: format!("{name}: test macro AUC by share of the training data"),
        description: curves
            .iter()
            .filter_map(|(method, found)| {
                let ((few, low), (most, high)) = (found.first()?, found.last()?);
                Some(format!("{method}: {:.3} at {}, {:.3} at {}", low.value, share(*few), high.value, share(*most)))
            })
            .collect::<Vec<_>>()
            .join("; "),
        width: 340.0,
        height: 230.0,
        x: Axis::logarithmic(
            "share of the training data",
            fractions.iter().map(|fraction| (*fraction, share(*fraction))).collect(),
        )?,
        y: Axis::around("test macro AUC", ends, 4)?,
        guide: Vec::new(),
        lines: curves
            .iter()
            .map(|(method, found)| Line {
                marks: true,
                whiskers: found.iter().map(|(fraction, auc)| (*fraction, auc.low, auc.high)).collect(),
                ..Line::new(series(results, method), found.iter().map(|(at, auc)| (*at, auc.value)).collect())
            })
            .collect(),
    };
    Some(panel(&name, None, chart.draw()?))
}
