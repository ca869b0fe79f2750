//! Where a plug-in looked, laid over the image.

use crate::error::Error;
use crate::predictor::Predictor;
use crate::prepared::Prepared;
use melo_imaging::Pixels;
use melo_imaging::heatmap::overlay_within;
use melo_vit::{BoundPlugin, ExplainMethod, Explanation, Plugin};
use rayon::prelude::*;
use std::sync::Arc;

/// How heat maps are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawing {
    /// How relevance is computed.
    pub method: ExplainMethod,
    /// Share of the colour at the hottest place, 0 to 1.
    pub opacity: f32,
    /// Longest side of the picture, pixels.
    pub longest: usize,
}

/// A heat map.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The class that is explained.
    pub class: usize,
    /// Relevance of every patch.
    pub explanation: Explanation,
    /// Relevance in colours over the image.
    pub picture: Pixels,
}

impl Predictor {
    /// The heat map of one class under the plug-in that is task number `task` of a prepared image; under one that answers for bags, of the
    /// image as a bag of its own.
    ///
    /// # Errors
    /// [`Error::Engine`], [`Error::NoPixels`].
    ///
    /// # Panics
    /// If the image was prepared for fewer tasks, or the plug-in has no such class.
    pub fn explain(
        &self,
        image: &Prepared,
        task: usize,
        plugin: &Plugin,
        class: usize,
        drawing: Drawing,
    ) -> Result<Drawn, Error> {
        plugin.refuse_volumes()?;
        let pixels = image.pixels.get(task).ok_or(Error::NoPixels)?;
        let spec = &plugin.card.preprocess;
        let explanation = self.explanation(&image.inputs[task], plugin, class, drawing.method)?;
        let Drawing { opacity, longest, .. } = drawing;
        let picture = overlay_within(pixels, spec, explanation.grid, &explanation.values, opacity, longest);
        Ok(Drawn { class, explanation, picture })
    }

    /// The relevance of an input's patches to a class, of an ensemble the mean of what its members find, each of sum 1.
    fn explanation(
        &self,
        input: &[f32],
        plugin: &Plugin,
        class: usize,
        method: ExplainMethod,
    ) -> Result<Explanation, Error> {
        let size = plugin.card.preprocess.size;
        let of = |member| self.engine().explain(input, size, member, class, method);
        if plugin.further.is_empty() {
            return Ok(of(plugin.into())?);
        }
        let members = plugin.members().map(of).collect::<Result<Vec<Explanation>, _>>()?;
        let mut mean = Explanation {
            logits: members.iter().flat_map(|member| &member.logits).copied().collect(),
            values: vec![0.0; members[0].values.len()],
            prefix: vec![0.0; members[0].prefix.len()],
            grid: members[0].grid,
        };
        for member in &members {
            let total: f32 = member.values.iter().chain(&member.prefix).sum();
            let share = 1.0 / (total.max(f32::MIN_POSITIVE) * members.len() as f32);
            mean.values.iter_mut().zip(&member.values).for_each(|(mean, x)| *mean += share * x);
            mean.prefix.iter_mut().zip(&member.prefix).for_each(|(mean, x)| *mean += share * x);
        }
        Ok(mean)
    }

    /// The heat maps of many images, on all threads: `wanted[image][task]` are the classes to explain, and `take` gets each
    /// one as it is drawn, with the numbers of image and task and its place among the classes.
    ///
    /// # Errors
    /// As [`Predictor::explain`] and `take`.
    ///
    /// # Panics
    /// As [`Predictor::explain`].
    pub fn explain_each<E: From<Error> + Send>(
        &self,
        images: &[&Prepared],
        plugins: &[Arc<BoundPlugin>],
        wanted: &[Vec<Vec<usize>>],
        drawing: Drawing,
        take: impl Fn([usize; 3], Drawn) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        images.par_iter().zip(wanted).enumerate().try_for_each(|(image, (prepared, wanted))| {
            for (task, (plugin, classes)) in plugins.iter().zip(wanted).enumerate() {
                for (place, &class) in classes.iter().enumerate() {
                    take([image, task, place], self.explain(prepared, task, plugin, class, drawing)?)?;
                }
            }
            Ok(())
        })
    }
}
