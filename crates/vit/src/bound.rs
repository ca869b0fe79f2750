//! A plug-in on an engine: the one place where logits become answers.

use crate::calibration::{Calibration, ComputedOn};
use crate::decision::Decision;
use crate::engine::Engine;
use crate::ensemble::mean_logits;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::scope::Given;
use std::ops::Deref;

/// A plug-in that is bound to an engine, with the calibration that its answers there are read by.
///
/// Nothing else decides: a plug-in alone has numbers for several engines and precisions, and no way to use any of them.
#[derive(Clone, Debug)]
pub struct BoundPlugin {
    plugin: Plugin,
    on: ComputedOn,
    calibration: Calibration,
}

impl Deref for BoundPlugin {
    type Target = Plugin;

    fn deref(&self) -> &Plugin {
        &self.plugin
    }
}

impl Plugin {
    /// Binds the plug-in to an engine, with the calibration of [`crate::TaskCard::calibration_for`]. One that was not made on
    /// this kind of engine in this precision has to prove itself first: the plug-in's answers to the self-test must be the same
    /// within what both allow. A card without a self-test can prove nothing, and is bound as it is.
    ///
    /// # Errors
    /// [`Error::MeaningChanged`]; [`Error::NotCalibrated`]; [`Error::ImageSize`].
    pub fn bind(self, engine: &dyn Engine) -> Result<BoundPlugin, Error> {
        let bound = self.chosen(engine)?;
        if let Some(test) = bound.calibration.self_test.as_ref().filter(|_| !bound.is_at_home()) {
            let answers = test.check_answers(engine, &bound.plugin);
            answers.map_err(|error| bound.blamed(error))?;
        }
        Ok(bound)
    }

    /// As [`Plugin::bind`], with the whole self-test, wherever the calibration was made: for a plug-in that is to be relied on.
    ///
    /// # Errors
    /// [`Error::NoSelfTest`], [`Error::MeaningChanged`], [`Error::AdapterInactive`]; [`Error::NotCalibrated`] where another engine or precision has other
    /// answers, [`Error::SelfTestDiffers`] where the same has; [`Error::ImageSize`].
    pub fn prove(self, engine: &dyn Engine) -> Result<BoundPlugin, Error> {
        let bound = self.chosen(engine)?;
        let Some(test) = &bound.calibration.self_test else {
            return Err(Error::NoSelfTest { task: bound.plugin.card.task });
        };
        test.run(engine, &bound.plugin).map_err(|error| bound.blamed(error))?;
        Ok(bound)
    }

    fn chosen(self, engine: &dyn Engine) -> Result<BoundPlugin, Error> {
        let on = ComputedOn::from(&engine.info());
        let calibration = self.card.calibration_for(&on);
        if let Some(test) = &calibration.self_test {
            test.check_meaning(&self.card, &calibration)?;
        }
        Ok(BoundPlugin { plugin: self, on, calibration })
    }
}

impl BoundPlugin {
    /// How its answers are read.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// True where the engine is of the kind and precision that it is bound to.
    pub fn is_on(&self, engine: &dyn Engine) -> bool {
        self.on == ComputedOn::from(&engine.info())
    }

    /// True where the calibration was made on this kind of engine in this precision.
    pub fn is_at_home(&self) -> bool {
        self.calibration.made == self.on
    }

    /// What the logits `[c]` of one image, or `[k, c]` of an ensemble's members, come to: the one place where a probability becomes an answer.
    ///
    /// # Panics
    /// If there are not as many logits as classes, or as many of each member.
    pub fn decide(&self, logits: &[f32]) -> Decision {
        let (classes, members) = (self.plugin.card.classes.len(), self.plugin.card.members());
        let whole = self.plugin.head.decoder.is_some() || [classes, members * classes].contains(&logits.len());
        assert!(whole, "logits of another task");
        self.calibration.decide(self.plugin.card.kind, logits)
    }

    /// What a plug-in gave of one image comes to: as [`BoundPlugin::decide`], and whether the image is one for it.
    ///
    /// # Panics
    /// If there are not as many logits as classes.
    pub fn answer(&self, given: &Given) -> Decision {
        self.calibration.answer(self.plugin.card.kind, given)
    }

    /// Logits `[c]` of the answer of one image whose logits are `[c]`, or `[k, c]` of an ensemble's members: see [`mean_logits`]. Scores of
    /// masks stay as they are.
    ///
    /// # Panics
    /// As [`BoundPlugin::decide`].
    pub fn mean_logits(&self, logits: Vec<f32>) -> Vec<f32> {
        match self.plugin.card.members() {
            1 => logits,
            _ => {
                let (kind, classes) = (self.plugin.card.kind, self.plugin.card.classes.len());
                mean_logits(kind, self.calibration.temperature, &logits, classes)
            }
        }
    }

    /// Logits `[c]` of one image to calibrated probabilities, in place.
    pub fn probabilities(&self, logits: &mut [f32]) {
        self.calibration.probabilities(self.plugin.card.kind, logits);
    }

    /// A difference in answers is that of engine or precision, where these are others.
    fn blamed(&self, error: Error) -> Error {
        match error {
            Error::SelfTestDiffers { task, image, class, expected, found, tolerance, .. } if !self.is_at_home() => {
                let (made, on) = (self.calibration.made.clone().into(), self.on.clone().into());
                Error::NotCalibrated { task, made, on, image, class, expected, found, tolerance }
            }
            other => other,
        }
    }
}
