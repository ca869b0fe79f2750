//! What each method costs: parameters, storage, memory, time.

use melo_report::Element;
use melo_report::chart::{Bar, Bars};

use super::headline::total;
use super::legend::panel;
use super::part::{Part, note};
use super::table::{Table, figure, figure_with, name_of_series};
use super::view::{arm, backbones, on_backbone, series};
use super::words::{NOTHING, bytes, count, range, short};
use crate::{Cost, Results};

/// Costs of one method on one backbone.
pub(super) struct MethodCosts {
    pub(super) name: String,
    pub(super) series: usize,
    /// One a task.
    pub(super) of_tasks: Vec<Cost>,
    /// Bytes to serve all tasks, where known.
    pub(super) storage: Option<u64>,
}

impl MethodCosts {
    fn values(&self, of: impl Fn(&Cost) -> f64 + Clone) -> impl Iterator<Item = f64> + Clone {
        self.of_tasks.iter().map(of)
    }

    fn mean(&self, of: impl Fn(&Cost) -> f64 + Clone) -> f64 {
        self.values(of).sum::<f64>() / self.of_tasks.len() as f64
    }

    fn peak(&self) -> f64 {
        self.values(|cost| cost.peak_rss_bytes as f64).fold(0.0, f64::max)
    }

    /// `1,000 – 1,200`, the range over tasks.
    pub(super) fn parameters(&self) -> String {
        range(self.values(|cost| cost.trainable_parameters as f64), |value| count(value as u64))
    }

    /// `0.17 %`, the range over tasks.
    pub(super) fn percent(&self) -> String {
        format!("{} %", range(self.values(|cost| cost.trainable_percent), short))
    }

    /// `1.2 MB`, the range over tasks.
    pub(super) fn stored(&self) -> String {
        range(self.values(|cost| cost.stored_bytes as f64), bytes)
    }

    /// Bytes to serve all tasks.
    pub(super) fn all_tasks(&self) -> String {
        self.storage.map_or(NOTHING.to_owned(), |value| bytes(value as f64))
    }

    /// The most memory of any task.
    pub(super) fn memory(&self) -> String {
        if self.peak() > 0.0 { bytes(self.peak()) } else { NOTHING.to_owned() }
    }

    /// Seconds an epoch, the range over tasks.
    pub(super) fn epoch_seconds(&self) -> String {
        range(self.values(|cost| cost.seconds_per_epoch), short)
    }

    /// Epochs run, the range over tasks.
    pub(super) fn epochs(&self) -> String {
        range(self.values(|cost| cost.epochs), |value| super::words::number(value, 0))
    }
}

/// Costs of every method on every backbone that has a result, in the study's order.
pub(super) fn of_methods(results: &Results) -> Vec<MethodCosts> {
    let mut all = Vec::new();
    for backbone in backbones(results) {
        for method in &results.methods {
            let of_tasks: Vec<_> =
                results.tasks.iter().filter_map(|task| arm(task, &method.name, backbone)).map(|arm| arm.cost).collect();
            if !of_tasks.is_empty() {
                let storage = total(results, &method.name, backbone).map(|total| total.storage_bytes);
                all.push(MethodCosts {
                    name: on_backbone(results, &method.name, backbone),
                    series: series(results, &method.name),
                    of_tasks,
                    storage: storage.filter(|bytes| *bytes > 0),
                });
            }
        }
    }
    all
}

pub(super) fn part(results: &Results) -> Option<Part> {
    let methods = of_methods(results);
    let caption = "Costs, from the cheapest to the dearest task where they differ";
    let columns =
        ["method", "trained parameters", "stored a task", "stored, all tasks", "peak memory", "s/epoch", "epochs"];
    let mut table = Table::new(caption, &columns);
    for method in &methods {
        let cells = [
            figure_with(method.parameters(), method.percent()),
            figure(method.stored()),
            figure(method.all_tasks()),
            figure(method.memory()),
            figure(method.epoch_seconds()),
            figure(method.epochs()),
        ];
        table.row(name_of_series(&method.name, method.series), cells);
    }
    let table = table.draw()?;
    let charts = charts(&methods);
    let charts = (!charts.is_empty()).then(|| Element::new("div").class("panels large").children(charts));
    let text = "A task needs its own plug-in besides the backbone, which all tasks share, or with full fine-tuning a whole \
                model of its own. Memory is the most that a training process held; seconds include validation and \
                depend on the machine and on what else ran on it.";
    let content = std::iter::once(table).chain(charts).chain([note(text)]).collect();
    Some(Part { id: "costs", heading: "Costs", content })
}

fn charts(methods: &[MethodCosts]) -> Vec<Element> {
    let chart = |title: &str, of: &dyn Fn(&MethodCosts) -> (f64, String)| {
        let bars: Vec<_> = methods
            .iter()
            .map(|method| {
                let (value, shown) = of(method);
                Bar { label: method.name.clone(), shown, series: method.series, value }
            })
            .filter(|bar| bar.value > 0.0)
            .collect();
        let described = bars.iter().map(|bar| format!("{}: {}", bar.label, bar.shown)).collect::<Vec<_>>();
        let bars = Bars { title: title.into(), description: described.join("; "), width: 340.0, bars };
        bars.draw().map(|drawn| panel(title, None, drawn))
    };
    [
        chart("Storage, all tasks", &|method| (method.storage.unwrap_or(0) as f64, method.all_tasks())),
        chart("Peak memory in training", &|method| (method.peak(), method.memory())),
        chart("Seconds an epoch, mean over tasks", &|method| {
            let mean = method.mean(|cost| cost.seconds_per_epoch);
            (mean, format!("{} s", short(mean)))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}
