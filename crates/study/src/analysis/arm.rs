//! One arm: figures of its cells, their means, their intervals.

use super::draws::{TaskDraws, Weights};
use super::samples::Samples;
use crate::calibration::calibration;
use crate::cell_result::CellResult;
use crate::error::Error;
use crate::plan::{Cell, Plan};
use crate::results::{Arm, ClassResults, Cost, Estimate, LearningPoint, Subgroup};
use crate::scores::{Scores, mean};
use crate::subgroup::Group;
use melo_eval::{mean_of_defined, percentile_interval};
use melo_vit::TaskKind;

/// Cases of a class, or without it, from which a figure is not called shaky.
const FEW: u64 = 10;

/// The cells of one arm.
pub(super) struct ArmCells<'a> {
    first: Cell,
    pub(super) cells: Vec<(Cell, &'a CellResult, Scores)>,
}

/// One draw's figures.
struct Figures {
    auc: Option<f64>,
    acc: f64,
    classes: Vec<Option<f64>>,
    groups: Vec<Option<f64>>,
    /// Sensitivity and specificity at each operating point of each class.
    points: Vec<(Option<f64>, Option<f64>)>,
}

impl<'a> ArmCells<'a> {
    pub(super) fn new(cell: &Cell, result: &'a CellResult) -> Self {
        let mut arm = ArmCells { first: *cell, cells: Vec::new() };
        arm.add(cell, result);
        arm
    }

    pub(super) fn holds(&self, cell: &Cell) -> bool {
        let key = |cell: &Cell| (cell.backbone, cell.method, cell.data_fraction);
        key(cell) == key(&self.first)
    }

    pub(super) fn add(&mut self, cell: &Cell, result: &'a CellResult) {
        self.cells.push((*cell, result, Scores::new(result)));
    }

    /// Where it stands in the report.
    pub(super) fn place(&self) -> (usize, f64, usize) {
        (self.first.backbone, -self.first.data_fraction, self.first.method)
    }

    /// Backbone and method, where all training data were used.
    pub(super) fn whole_data_key(&self) -> Option<(usize, usize)> {
        (self.first.data_fraction == 1.0).then_some((self.first.backbone, self.first.method))
    }

    /// Mean probability of the second of two classes, or of the only finding, over seeds; with the truth. None where the
    /// task is not binary or folds would mix scores of different models.
    pub(super) fn binary_scores(&self) -> Option<(Vec<f32>, Vec<bool>)> {
        let (_, result, _) = self.cells.first()?;
        let binary = if result.test.kind == TaskKind::MultiLabel {
            result.classes.len() == 1
        } else {
            result.classes.len() == 2
        };
        if !binary || self.first.fold.is_some() {
            return None;
        }
        let class = result.classes.len() - 1;
        let n = result.test.names.len();
        let scores =
            (0..n).map(|row| mean(self.cells.iter().map(|(_, _, s)| f64::from(s.probability(row, class)))) as f32);
        Some((scores.collect(), self.cells[0].2.truth(class)))
    }

    /// The arm, and its bootstrap samples.
    pub(super) fn describe(&self, plan: &Plan, draws: &TaskDraws, groups: &[Group]) -> Result<(Arm, Samples), Error> {
        let point = self.figures(&draws.once(), groups);
        let samples = draws.map(|weights| self.figures(weights, groups));
        let estimate = |value: Option<f64>, of: &dyn Fn(&Figures) -> Option<f64>| -> Option<Estimate> {
            let mut values: Vec<f64> = samples.iter().filter_map(of).collect();
            let (low, high) = (!values.is_empty()).then(|| percentile_interval(&mut values, plan.level))?;
            Some(Estimate { value: value?, low, high })
        };
        let (_, first, _) = &self.cells[0];
        let mut next_point = 0;
        let per_class = first.classes.iter().enumerate().map(|(class, name)| {
            let mut class_results = self.class_results(class, name);
            class_results.auc = estimate(point.classes[class], &|figures| figures.classes[class]);
            for operating in &mut class_results.operating_points {
                let index = next_point;
                operating.sensitivity = estimate(point.points[index].0, &|figures| figures.points[index].0);
                operating.specificity = estimate(point.points[index].1, &|figures| figures.points[index].1);
                next_point += 1;
            }
            class_results.operating_points.retain(|point| point.sensitivity.is_some() || point.specificity.is_some());
            class_results
        });
        let per_class = per_class.collect();
        let subgroups = groups.iter().enumerate().map(|(index, group)| Subgroup {
            column: group.column.clone(),
            value: group.value.clone(),
            images: group.images(),
            auc: estimate(point.groups[index], &|figures| figures.groups[index]),
            note: point.groups[index].is_none().then(|| "undefined: one class only in this group".to_owned()),
        });
        let arm = Arm {
            backbone: plan.backbones[self.first.backbone].name.clone(),
            method: plan.methods[self.first.method].name.clone(),
            data_fraction: self.first.data_fraction,
            auc: estimate(point.auc, &|figures| figures.auc),
            acc: estimate(Some(point.acc), &|figures| Some(figures.acc)),
            auc_per_cell: self.cells.iter().filter_map(|(_, _, scores)| scores.auc(None)).collect(),
            val_auc: mean(self.cells.iter().map(|(_, result, _)| best(result).val_auc_macro)),
            per_class,
            subgroups: subgroups.collect(),
            calibration: calibration(&self.cells.iter().map(|(_, result, _)| *result).collect::<Vec<_>>())?,
            confusion: self.confusion(),
            learning: self.learning(),
            cost: self.cost(),
        };
        let kept = Samples {
            auc: samples.iter().filter_map(|figures| figures.auc).collect(),
            acc: samples.iter().map(|figures| figures.acc).collect(),
        };
        Ok((arm, kept))
    }

    /// Figures under weights of the test images, means over cells.
    fn figures(&self, weights: &Weights, groups: &[Group]) -> Figures {
        let cells = || self.cells.iter().map(|(cell, _, scores)| (scores, weights[&cell.fold].as_slice(), cell.fold));
        let classes = self.cells[0].1.classes.len();
        let points = self.cells[0].2.operating_points();
        Figures {
            auc: mean_of_defined(cells().map(|(scores, weights, _)| scores.auc(Some(weights)))),
            acc: mean(cells().map(|(scores, weights, _)| scores.acc(weights))),
            classes: (0..classes)
                .map(|class| {
                    mean_of_defined(cells().map(|(scores, weights, _)| scores.class_auc(class, Some(weights))))
                })
                .collect(),
            groups: groups
                .iter()
                .map(|group| {
                    mean_of_defined(cells().map(|(scores, weights, fold)| scores.auc(Some(&group.mask(fold, weights)))))
                })
                .collect(),
            points: (0..points)
                .map(|point| {
                    let rates = || cells().map(|(scores, weights, _)| scores.rates(point, weights));
                    (mean_of_defined(rates().map(|rates| rates.0)), mean_of_defined(rates().map(|rates| rates.1)))
                })
                .collect(),
        }
    }

    fn class_results(&self, class: usize, name: &str) -> ClassResults {
        let by_seed = self.cells.iter().filter(|(cell, _, _)| cell.seed == self.first.seed);
        let positives: u64 = by_seed.clone().map(|(_, _, scores)| scores.positives(class)).sum();
        let cases: u64 = by_seed.map(|(_, result, _)| result.test.names.len() as u64).sum();
        let (mut all, mut truth) = (Vec::new(), Vec::new());
        for (_, _, scores) in &self.cells {
            all.extend(scores.class_scores(class));
            truth.extend(scores.truth(class));
        }
        ClassResults {
            class: name.to_owned(),
            positives,
            auc: None,
            note: melo_eval::why_undefined(positives, cases - positives, FEW),
            roc: melo_eval::roc_points(&all, &truth)
                .into_iter()
                .flatten()
                .map(|point| (point.false_positive_rate, point.true_positive_rate))
                .collect(),
            precision_recall: melo_eval::precision_recall_points(&all, &truth)
                .into_iter()
                .flatten()
                .map(|point| (point.recall, point.precision))
                .collect(),
            operating_points: crate::scores::operating_points_of(class, self.cells.iter().map(|(_, _, scores)| scores)),
        }
    }

    fn confusion(&self) -> Option<Vec<Vec<u64>>> {
        let mut tables = self.cells.iter().map(|(_, _, scores)| scores.confusion());
        let mut sum = tables.next()??;
        for table in tables.flatten() {
            for (sum, row) in sum.iter_mut().zip(table) {
                sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
            }
        }
        Some(sum)
    }

    fn learning(&self) -> Vec<LearningPoint> {
        let epochs = self.cells.iter().map(|(_, result, _)| result.history.len()).max().unwrap_or(0);
        (0..epochs)
            .map(|epoch| {
                let rows: Vec<_> = self.cells.iter().filter_map(|(_, result, _)| result.history.get(epoch)).collect();
                LearningPoint {
                    epoch: epoch + 1,
                    train_loss: mean(rows.iter().map(|row| row.train_loss)),
                    val_loss: mean(rows.iter().map(|row| row.val_loss)),
                    val_auc: mean(rows.iter().map(|row| row.val_auc_macro)),
                    cells: rows.len(),
                }
            })
            .collect()
    }

    fn cost(&self) -> Cost {
        let (_, first, _) = &self.cells[0];
        let over_cells = |of: &dyn Fn(&CellResult) -> f64| mean(self.cells.iter().map(|(_, result, _)| of(result)));
        let seconds = |result: &CellResult| result.history.iter().map(|row| row.seconds).sum::<f64>();
        Cost {
            trainable_parameters: first.trainable_parameters,
            trainable_percent: 100.0 * first.trainable_parameters as f64 / first.backbone_parameters as f64,
            stored_bytes: first.stored_bytes,
            peak_rss_bytes: self.cells.iter().filter_map(|(_, result, _)| result.peak_rss_bytes).max().unwrap_or(0),
            seconds_per_epoch: over_cells(&|result| seconds(result) / result.history.len() as f64),
            epochs: over_cells(&|result| result.history.len() as f64),
            best_epoch: over_cells(&|result| best(result).epoch as f64),
            seconds: over_cells(&seconds),
        }
    }
}

/// The epoch whose values were kept.
fn best(result: &CellResult) -> &melo_train::EpochRow {
    let kept = result.history.iter().rev().find(|row| row.best);
    kept.unwrap_or(&result.history[0])
}
