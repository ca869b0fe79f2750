//! Which temperature and thresholds logits are read by: those fitted on the engine that gave them, or on one that gives the same.

use crate::card::TaskCard;
use crate::decision::Decision;
use crate::decoder::shares;
use crate::engine::EngineInfo;
use crate::ensemble::{mean_logits, spread};
use crate::invalid::Invalid;
use crate::scope::{Given, ScopeLimits};
use crate::self_test::SelfTest;
use crate::sets::SetRule;
use crate::task_kind::TaskKind;
use melo_kernels::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An engine and the numbers of its products: what answers depend on beside backbone and plug-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputedOn {
    /// Kind of engine, see [`EngineInfo::engine`].
    pub engine: String,
    /// Numbers in the matrix products.
    pub precision: Precision,
}

impl From<&EngineInfo> for ComputedOn {
    fn from(info: &EngineInfo) -> Self {
        ComputedOn { engine: info.engine.to_owned(), precision: info.precision }
    }
}

impl From<&SelfTest> for ComputedOn {
    fn from(test: &SelfTest) -> Self {
        ComputedOn { engine: test.engine.clone(), precision: test.precision }
    }
}

/// `int8`, on other engines than the processor `int8 on cuda`.
impl fmt::Display for ComputedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.engine.as_str() {
            "cpu" => write!(f, "{}", self.precision),
            engine => write!(f, "{} on {engine}", self.precision),
        }
    }
}

/// What turns logits into answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Where it was fitted.
    pub made: ComputedOn,
    /// Logits are divided by it before softmax or sigmoid.
    pub temperature: f32,
    /// As [`TaskCard::thresholds`], `[c]`.
    pub thresholds: Vec<f32>,
    /// How prediction sets are made; none where they are not.
    pub sets: Option<SetRule>,
    /// From which distances on an image is out of scope; none of a plug-in without a description.
    pub scope_limits: Option<ScopeLimits>,
    /// What the plug-in gave there; none in old cards.
    pub(crate) self_test: Option<SelfTest>,
}

impl Calibration {
    /// Logits `[c]` of one image to probabilities, in place: divided by the temperature, then softmax (one class) or a sigmoid each
    /// (findings). Numbers stay as they are: a regression's temperature is 1.
    pub(crate) fn probabilities(&self, kind: TaskKind, logits: &mut [f32]) {
        logits.iter_mut().for_each(|x| *x /= self.temperature);
        kind.probabilities(logits);
    }

    /// What logits `[c]` of one image come to, those `[k, c]` of an ensemble's members, or scores `[m, m, c]` of its pixels: their classes'
    /// shares.
    pub(crate) fn decide(&self, kind: TaskKind, logits: &[f32]) -> Decision {
        if kind == TaskKind::Segmentation {
            return Decision::new(kind, shares(logits, self.thresholds.len()), &self.thresholds);
        }
        let classes = self.thresholds.len();
        let mut probabilities = mean_logits(kind, self.temperature, logits, classes);
        self.probabilities(kind, &mut probabilities);
        let set = self.sets.as_ref().map(|rule| rule.set(kind, &probabilities));
        let mut decision = Decision::new(kind, probabilities, &self.thresholds);
        (decision.set, decision.spread) = (set, spread(kind, self.temperature, logits, classes));
        decision
    }

    /// As [`Calibration::decide`], and whether the image is one for the plug-in.
    pub(crate) fn answer(&self, kind: TaskKind, given: &Given) -> Decision {
        let scope = self.scope_limits.as_ref().zip(given.distances).and_then(|(limits, found)| limits.read(found));
        let mut decision = self.decide(kind, &given.logits);
        decision.scope = scope;
        decision
    }
}

/// A calibration that came after the training, for another engine or precision; since format 5 of a card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recalibration {
    /// As [`TaskCard::temperature`].
    pub temperature: f32,
    /// As [`TaskCard::thresholds`], `[c]`.
    pub thresholds: Vec<f32>,
    /// As [`TaskCard::sets`]. Since format 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<SetRule>,
    /// As [`TaskCard::scope_limits`]. Since format 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_limits: Option<ScopeLimits>,
    /// What the plug-in gave where it was fitted; names engine and precision.
    pub self_test: SelfTest,
    /// Images of the validation split that it was fitted on.
    pub images: usize,
    /// SHA-256 of the manifest's names, labels and splits.
    pub data_digest: String,
    /// SHA-256 of which images are in which split.
    pub split_digest: String,
    /// Name of the manifest or folder; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Day in UTC, `2026-11-28`; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub date: String,
    /// Software and version.
    pub software: String,
    /// Measured figures by name, such as `val_auc_macro`.
    pub metrics: BTreeMap<String, f64>,
}

impl Recalibration {
    /// Where it was made.
    pub fn made(&self) -> ComputedOn {
        ComputedOn::from(&self.self_test)
    }

    /// What turns logits from there into answers.
    pub fn calibration(&self) -> Calibration {
        Calibration {
            made: self.made(),
            temperature: self.temperature,
            thresholds: self.thresholds.clone(),
            sets: self.sets.clone(),
            scope_limits: self.scope_limits.clone(),
            self_test: Some(self.self_test.clone()),
        }
    }
}

impl TaskCard {
    /// The calibration that came with the training. A card without a self-test says where only by the training's precision.
    pub fn own_calibration(&self) -> Calibration {
        let trained = || ComputedOn { engine: "cpu".to_owned(), precision: self.provenance.precision };
        Calibration {
            made: self.self_test.as_ref().map_or_else(trained, ComputedOn::from),
            temperature: self.temperature,
            thresholds: self.thresholds.clone(),
            sets: self.sets.clone(),
            scope_limits: self.scope_limits.clone(),
            self_test: self.self_test.clone(),
        }
    }

    /// All calibrations: the training's own first, then those that came later.
    pub fn all_calibrations(&self) -> Vec<Calibration> {
        let later = self.calibrations.iter().map(Recalibration::calibration);
        std::iter::once(self.own_calibration()).chain(later).collect()
    }

    /// The calibration by which answers from there are read: one that was made there, the latest first; else one that was
    /// made in the same precision; else the card's own. Whether it holds there, [`crate::Plugin::bind`] finds out.
    pub fn calibration_for(&self, there: &ComputedOn) -> Calibration {
        let all = self.all_calibrations();
        let find = |fits: &dyn Fn(&Calibration) -> bool| all.iter().rev().find(|known| fits(known)).cloned();
        find(&|known| known.made == *there)
            .or_else(|| find(&|known| known.made.precision == there.precision))
            .unwrap_or_else(|| self.own_calibration())
    }

    /// Adds a calibration, in place of an earlier one of the same engine and precision.
    pub fn recalibrate(&mut self, new: Recalibration) {
        self.calibrations.retain(|known| known.made() != new.made());
        self.calibrations.push(new);
    }

    /// Checks the calibrations that came after the training.
    pub(crate) fn check_calibrations(&self) -> Result<(), Invalid> {
        for (place, known) in self.calibrations.iter().enumerate() {
            let whole = format!("calibrations[{place}]: ");
            check_fit(known.temperature, &known.thresholds, self.classes.len())
                .and_then(|()| known.sets.iter().try_for_each(|sets| sets.check(self.kind, self.classes.len())))
                .and_then(|()| known.self_test.check(self.kind, self.classes.len() * self.members()))
                .map_err(|error| error.within(&whole))?;
            let wrong = |reason: String| Err(Invalid::new("calibrations", format!("{whole}{reason}")));
            known.scope_limits.iter().try_for_each(ScopeLimits::check).map_err(|error| error.within(&whole))?;
            if known.scope_limits.is_some() != self.scope.is_some() {
                return wrong("scope_limits belong to a description, and to each calibration beside it".to_owned());
            }
            if let Some((name, value)) = known.metrics.iter().find(|(_, value)| !value.is_finite()) {
                return wrong(format!("metric `{name}` is {value}, which JSON cannot hold"));
            }
            if known.images == 0 {
                return wrong("fitted on no image".to_owned());
            }
            let made = known.made();
            if self.calibrations[..place].iter().any(|earlier| earlier.made() == made) {
                return wrong(format!("there is one for {made} already"));
            }
        }
        Ok(())
    }
}

/// Checks a temperature and thresholds against the number of classes.
pub(crate) fn check_fit(temperature: f32, thresholds: &[f32], classes: usize) -> Result<(), Invalid> {
    let wrong = |field, reason: String| Err(Invalid::new(field, reason));
    if thresholds.len() != classes || thresholds.iter().any(|t| !(0.0..=1.0).contains(t)) {
        return wrong("thresholds", format!("thresholds {thresholds:?}: expected {classes} values in [0, 1]"));
    }
    if !(temperature.is_finite() && temperature > 0.0) {
        return wrong("temperature", format!("temperature {temperature} is not positive"));
    }
    Ok(())
}
