//! One arm: figures of its cells, their means, their intervals.

use super::draws::{TaskDraws, Weights};
use super::samples::Samples;
use crate::calibration::calibration;
use crate::cell_result::CellResult;
use crate::error::Error;
use crate::plan::{Cell, Plan};
use crate::results::{Arm, ClassResults, Cost, LearningPoint, Subgroup};
use crate::scores::{RULES, Scores, mean, mean_over_trainings};
use crate::subgroup::Group;
use melo_eval::{ClusteredAuc, ClusteredShare, Collapse, Counts, FEW_CASES, Metrics, mean_of_defined};
use melo_train::Cases;
use melo_vit::TaskKind;
use std::collections::BTreeMap;

/// The cells of one arm.
pub(super) struct ArmCells<'a> {
    first: Cell,
    pub(super) cells: Vec<(Cell, &'a CellResult, Scores)>,
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

    /// AUC of the mean scores over seeds, of the second of two classes or of the only finding. None where the task is not binary
    /// or folds would mix scores of different models.
    pub(super) fn binary_auc(&self) -> Option<ClusteredAuc> {
        let (_, result, first) = self.cells.first()?;
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
        let scores: Vec<f32> = (0..n)
            .map(|row| mean(self.cells.iter().map(|(_, _, s)| f64::from(s.probability(row, class)))) as f32)
            .collect();
        ClusteredAuc::new(&scores, &first.truth(class), first.judged.patients())
    }

    /// Whether all cells answer the same, to the last bit.
    pub(super) fn answers_as(&self, other: &Self) -> bool {
        let answers =
            |arm: &'_ Self| arm.cells.iter().map(|(.., s)| s.judged.probabilities().to_vec()).collect::<Vec<_>>();
        answers(self) == answers(other)
    }

    /// The arm, and what is kept of it.
    pub(super) fn describe(&self, plan: &Plan, draws: &TaskDraws, groups: &[Group]) -> Result<(Arm, Samples), Error> {
        let level = plan.level;
        let (_, first, _) = &self.cells[0];
        let per_class = first.classes.iter().enumerate().map(|(class, name)| {
            let mut found = self.class_results(class, name);
            found.auc = self.auc(plan, |_, scores| scores.judged.auc(class, None)).map(|auc| auc.estimate(level));
            for (rule, operating) in found.operating_points.iter_mut().enumerate() {
                let point = class * RULES.len() + rule;
                let rate = |has_it| self.share(plan, |scores| vec![scores.rate(point, has_it).unwrap_or_default()]);
                operating.sensitivity = rate(true).map(|share| share.estimate(level));
                operating.specificity = rate(false).map(|share| share.estimate(level));
            }
            found.operating_points.retain(|point| point.sensitivity.is_some() || point.specificity.is_some());
            found
        });
        let per_class = per_class.collect();
        let subgroups = groups.iter().map(|group| {
            let auc = self.auc(plan, |fold, scores| scores.judged.auc_macro(Some(group.members(fold))));
            let of_column = groups.iter().filter(|other| other.column == group.column);
            // The first of the largest ones.
            let largest = of_column.reduce(|a, b| if b.images() > a.images() { b } else { a });
            let other = largest.filter(|other| other.value != group.value);
            let alike = other
                .and_then(|other| Some([self.auc_of_both(plan, group, other)?, self.auc_of_both(plan, other, group)?]));
            let left_out = other.map_or(Vec::new(), |other| self.not_of_both(group, other));
            let left_out: Vec<&str> = left_out.into_iter().map(|class| first.classes[class].as_str()).collect();
            let note = match (&auc, &alike) {
                (None, _) => Some("undefined: one class only in this group".to_owned()),
                (_, Some(_)) if !left_out.is_empty() => Some(format!(
                    "the difference is without {}, which one of the two groups lacks",
                    left_out.join(", ")
                )),
                _ => None,
            };
            Subgroup {
                difference: alike.map(|[auc, other]| auc.difference(&other, level)),
                column: group.column.clone(),
                value: group.value.clone(),
                images: group.images(),
                note,
                auc: auc.map(|auc| auc.estimate(level)),
            }
        });
        let auc = self.auc(plan, |_, scores| scores.judged.auc_macro(None));
        let acc = self.share(plan, |scores| vec![scores.judged.accuracy()]);
        let metrics: Vec<Metrics> = self.cells.iter().map(|(.., scores)| scores.metrics()).collect::<Result<_, _>>()?;
        let arm = Arm {
            backbone: plan.backbones[self.first.backbone].name.clone(),
            method: plan.methods[self.first.method].name.clone(),
            data_fraction: self.first.data_fraction,
            auc: auc.as_ref().map(|auc| auc.estimate(level)),
            acc: acc.as_ref().map(|acc| acc.estimate(level)),
            balanced_acc: self.share(plan, |scores| scores.judged.balanced()).map(|share| share.estimate(level)),
            f1_macro: Some(mean(metrics.iter().map(|metrics| metrics.f1_macro))),
            collapse: Collapse::of(&summed(&metrics)),
            auc_per_cell: self
                .cells
                .iter()
                .filter_map(|(_, _, scores)| Some(scores.judged.auc_macro(None)?.value()))
                .collect(),
            val_auc: mean(self.cells.iter().map(|(_, result, _)| best(result).val_auc_macro.unwrap_or(f64::NAN))),
            per_class,
            subgroups: subgroups.collect(),
            calibration: calibration(&self.cells.iter().map(|(_, result, _)| *result).collect::<Vec<_>>())?,
            confusion: confusion(&metrics),
            learning: self.learning(),
            cost: self.cost(),
        };
        // Only arms of all training data are compared.
        let drawn = match self.whole_data_key() {
            None => Vec::new(),
            Some(_) => draws.map(|weights| self.drawn(weights)).into_iter().flatten().collect(),
        };
        Ok((arm, Samples { drawn, auc, acc }))
    }

    /// Macro AUC under weights of the test images, mean over cells.
    fn drawn(&self, weights: &Weights) -> Option<f64> {
        mean_of_defined(self.cells.iter().map(|(cell, _, scores)| scores.auc(&weights[&cell.fold])))
    }

    /// The mean of an AUC over cells; a patient's images in all of them are the same patient's.
    fn auc(&self, plan: &Plan, of: impl Fn(Option<usize>, &Scores) -> Option<ClusteredAuc>) -> Option<ClusteredAuc> {
        let cells = self.cells.iter();
        ClusteredAuc::mean(cells.map(|(cell, _, scores)| Some(of(cell.fold, scores)?.of_set(set(plan, cell)))))
    }

    /// The macro AUC of a group over the classes that have one in another group too: those of different classes are no difference of groups.
    fn auc_of_both(&self, plan: &Plan, group: &Group, other: &Group) -> Option<ClusteredAuc> {
        self.auc(plan, |fold, scores| {
            let of = |class, group: &Group| scores.judged.auc(class, Some(group.members(fold)));
            let classes = 0..scores.judged.classes();
            ClusteredAuc::mean(classes.map(|class| of(class, other).and_then(|_| of(class, group))))
        })
    }

    /// Classes that have an AUC in one group and not in the other, in some fold.
    fn not_of_both(&self, group: &Group, other: &Group) -> Vec<usize> {
        let (_, _, first) = &self.cells[0];
        let lacks = |class: &usize| {
            self.cells.iter().any(|(cell, _, scores)| {
                let has = |group: &Group| scores.judged.auc(*class, Some(group.members(cell.fold))).is_some();
                has(group) != has(other)
            })
        };
        (0..first.judged.classes()).filter(lacks).collect()
    }

    /// The mean over folds of a mean of shares, of what is right in each case on average over seeds.
    fn share(&self, plan: &Plan, of: impl Fn(&Scores) -> Vec<Cases>) -> Option<ClusteredShare> {
        let mut folds: BTreeMap<usize, Vec<Vec<Cases>>> = BTreeMap::new();
        for (cell, _, scores) in &self.cells {
            folds.entry(set(plan, cell)).or_default().push(of(scores));
        }
        let of_fold = |(set, seeds): (usize, Vec<Vec<Cases>>)| {
            let shares = (0..seeds[0].len()).map(|share| {
                mean_over_trainings(&seeds.iter().map(|of_seed| of_seed[share].clone()).collect::<Vec<_>>())
            });
            Some(melo_train::mean_share(shares)?.of_set(set))
        };
        ClusteredShare::mean(folds.into_iter().map(of_fold))
    }

    fn class_results(&self, class: usize, name: &str) -> ClassResults {
        let by_seed = self.cells.iter().filter(|(cell, _, _)| cell.seed == self.first.seed);
        let positives: u64 = by_seed.clone().map(|(_, _, scores)| scores.positives(class)).sum();
        let cases: u64 = by_seed.map(|(_, result, _)| result.test.names.len() as u64).sum();
        let percents: Vec<f64> = (1..100).map(|percent| f64::from(percent) / 100.0).collect();
        let (mut all, mut truth) = (Vec::new(), Vec::new());
        for (_, _, scores) in &self.cells {
            all.extend(scores.class_scores(class));
            truth.extend(scores.truth(class));
        }
        ClassResults {
            class: name.to_owned(),
            positives,
            auc: None,
            note: melo_eval::why_undefined(positives, cases - positives, FEW_CASES),
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
            decision_curve: melo_eval::decision_curve(&all, &truth, &percents).unwrap_or_default(),
            operating_points: crate::scores::operating_points_of(class, self.cells.iter().map(|(_, _, scores)| scores)),
        }
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
                    val_auc: mean(rows.iter().map(|row| row.val_auc_macro.unwrap_or(f64::NAN))),
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
            images_per_s: over_cells(&|result| mean(result.history.iter().map(|row| row.images_per_s))),
        }
    }
}

/// The number under which the patients of a cell's test split are known: others in every task and fold.
fn set(plan: &Plan, cell: &Cell) -> usize {
    cell.task * (plan.folds + 1) + cell.fold.map_or(0, |fold| 1 + fold)
}

/// Each class against the rest, summed over cells.
fn summed(metrics: &[Metrics]) -> Vec<Counts> {
    let classes = metrics.first().map_or(0, |metrics| metrics.counts_per_class.len());
    let sum = |class: usize| metrics.iter().map(|metrics| metrics.counts_per_class[class]).sum();
    (0..classes).map(sum).collect()
}

/// Images by true and predicted class, summed over cells; none for multi-label tasks.
fn confusion(metrics: &[Metrics]) -> Option<Vec<Vec<u64>>> {
    let mut tables = metrics.iter().map(|metrics| metrics.confusion.clone());
    let mut sum = tables.next()??;
    for table in tables.flatten() {
        for (sum, row) in sum.iter_mut().zip(table) {
            sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
    }
    Some(sum)
}

/// The epoch whose values were kept.
fn best(result: &CellResult) -> &melo_train::EpochRow {
    let kept = result.history.iter().rev().find(|row| row.best);
    kept.unwrap_or(&result.history[0])
}
