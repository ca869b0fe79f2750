//! Temperature and thresholds of a finished plug-in fitted again, on another engine or in another precision.

use crate::answers::Answers;
use crate::calibrate::{figures_of_masks, fit, reliability};
use crate::error::Error;
use crate::errors::mean_errors;
use crate::examples::measure;
use crate::job::{data_name, today};
use crate::scope::{ScopeSettings, fit_limits, flagged};
use crate::sets::{SetSettings, fit_sets};
use melo_data::Manifest;
use melo_vit::{Calibration, ComputedOn, Engine, Plugin, ReadBy, Recalibration, SelfTest, TaskCard, TaskKind};
use serde::Serialize;
use std::collections::BTreeMap;

/// How the answers of a validation split are read, and what comes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// What gave the answers.
    pub computed: ComputedOn,
    /// Where temperature and thresholds were fitted.
    pub calibration: ComputedOn,
    /// Logits are divided by it.
    pub temperature: f32,
    /// Of findings `[c]`; none for other tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f32>>,
    /// Figures by name: `auc_macro` where it is defined, `ece` (expected calibration error, in [0, 1]), `brier` (of findings their mean);
    /// of numbers `r2` and `mae`, the means over them; of masks `dice`; `scope_flagged`, the share out of scope, where there is one.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, f64>,
}

impl Reading {
    /// Answers that were `computed` there, read by a calibration.
    ///
    /// # Errors
    /// [`Error::Eval`].
    pub fn new(computed: ComputedOn, calibration: &Calibration, val: &Answers) -> Result<Self, Error> {
        let Calibration { made, temperature, thresholds, .. } = calibration;
        let figures = match val.kind {
            TaskKind::Regression => {
                let (r2, mae) = mean_errors(&val.logits, &val.numbers, val.classes)?;
                [("r2", r2), ("mae", mae), ("", None)]
            }
            TaskKind::Segmentation => {
                [("dice", figures_of_masks(&[], val)?.get("dice").map(|dice| dice.value)), ("", None), ("", None)]
            }
            _ => {
                let probabilities = val.probabilities(*temperature);
                let metrics = measure(val.kind, &probabilities, &val.labels, thresholds)?;
                let ece = reliability(val, &probabilities)?.ece;
                [("auc_macro", metrics.auc_macro), ("ece", Some(ece)), ("brier", Some(brier(val, &probabilities)?))]
            }
        };
        let flagged = calibration.scope_limits.as_ref().and_then(|limits| flagged(limits, val));
        let flagged = flagged.map(|share| ("scope_flagged", share.value));
        Ok(Reading {
            computed,
            calibration: made.clone(),
            temperature: *temperature,
            thresholds: (val.kind == TaskKind::MultiLabel).then(|| thresholds.clone()),
            figures: figures.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(flagged).collect(),
        })
    }
}

fn brier(val: &Answers, probabilities: &[f32]) -> Result<f64, Error> {
    Ok(match val.kind {
        TaskKind::SingleLabel | TaskKind::Ordinal => {
            melo_eval::brier_single_label(probabilities, &val.labels, val.classes)?
        }
        TaskKind::Regression | TaskKind::Segmentation => panic!("numbers and masks have no probabilities"),
        TaskKind::MultiLabel => {
            let of_classes = melo_eval::brier_multi_label(probabilities, &val.findings(), val.classes)?;
            of_classes.iter().sum::<f64>() / of_classes.len() as f64
        }
    })
}

/// Fits temperature, thresholds and, where they are asked for, prediction sets and the limits of a scope to what a plug-in answers on an engine, `val`, and takes its
/// self-test there: what
/// [`TaskCard::recalibrate`] adds to its card. `manifest` is where the images come from, as [`crate::manifest_for`] gives it.
///
/// # Errors
/// [`Error::Eval`]; [`Error::Setting`]; [`Error::Vit`].
pub fn recalibrate(
    engine: &dyn Engine,
    plugin: &Plugin,
    manifest: &Manifest,
    val: &Answers,
    (sets, scope): (Option<&SetSettings>, Option<&ScopeSettings>),
) -> Result<Recalibration, Error> {
    let (temperature, thresholds) = fit(val)?;
    let sets = sets.map(|asked| fit_sets(val, temperature, asked)).transpose()?.flatten();
    let scope_limits = scope.map(|asked| fit_limits(val, asked)).transpose()?.flatten();
    let self_test = SelfTest::take(engine, plugin)?;
    let by = ReadBy { temperature, thresholds: &thresholds, sets: sets.as_ref(), scope_limits: scope_limits.as_ref() };
    let mut new = Recalibration {
        self_test: self_test.read_by(&plugin.card, by),
        temperature,
        thresholds,
        sets,
        scope_limits,
        images: val.names.len(),
        data_digest: manifest.digest(),
        split_digest: manifest.split_digest(),
        data: data_name(&manifest.path),
        date: today(),
        software: crate::SOFTWARE.to_owned(),
        metrics: BTreeMap::new(),
    };
    let reading = Reading::new(new.made(), &new.calibration(), val)?;
    new.metrics.extend(reading.figures.into_iter().map(|(name, value)| (format!("val_{name}"), value)));
    Ok(new)
}

/// Whether a manifest has the splits that a plug-in was trained on, image by image; none where its card does not say.
pub fn has_splits_of(card: &TaskCard, manifest: &Manifest) -> Option<bool> {
    let known = &card.provenance.split_digest;
    (!known.is_empty()).then(|| *known == manifest.split_digest())
}
