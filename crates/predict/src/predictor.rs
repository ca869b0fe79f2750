//! Inputs and plug-ins to logits, and logits to decisions.

use crate::error::Error;
use crate::input::Input;
use crate::prepared::{Prepared, prepare_files};
use melo_imaging::{Restored, restore};
use melo_vit::{
    BoundPlugin, Decision, Engine, Given, ImageError, ImageSource, Plugin, Segment, VolumeEmbedding, planes,
};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What every input gives under each of its plug-ins, `given[input][plugin]`; of an ensemble logits `[k, c]`.
pub type AllGiven = Vec<Vec<Given>>;

/// What a plug-in says of an image.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Who says it.
    pub plugin: Arc<BoundPlugin>,
    /// Before calibration, `[c]`; of a mask the scores of each pixel, `[m, m, c]`.
    pub logits: Vec<f32>,
    /// Probabilities, class or findings; of a mask the share of each class.
    pub decision: Decision,
}

impl Prediction {
    /// The mask of the image of `width` × `height` pixels that was asked about; none of other tasks.
    ///
    /// # Panics
    /// If a side is zero.
    pub fn mask(&self, width: usize, height: usize) -> Option<Restored> {
        mask_of(&self.plugin, &self.logits, width, height)
    }
}

/// The mask that scores `[m, m, c]` of a plug-in come to on the image that they are of; none of one that gives no masks.
///
/// # Panics
/// If a side is zero, or the scores are another plug-in's.
pub fn mask_of(plugin: &Plugin, scores: &[f32], width: usize, height: usize) -> Option<Restored> {
    let (decoder, spec) = (plugin.head.decoder.as_ref()?, &plugin.card.preprocess);
    let (classes, side) = (decoder.classes(), decoder.side(spec.size));
    Some(restore(&planes(scores, classes), classes, side, width, height, spec))
}

/// An engine that is asked about images, by any number of plug-ins at a time.
#[derive(Clone, Debug)]
pub struct Predictor {
    engine: Arc<dyn Engine>,
}

impl Predictor {
    /// On an engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Predictor { engine }
    }

    /// What computes.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Reads a plug-in that belongs to this backbone, and binds it to the engine.
    ///
    /// # Errors
    /// As [`Plugin::load`] and [`Plugin::bind`].
    pub fn plugin(&self, path: impl AsRef<Path>) -> Result<Arc<BoundPlugin>, Error> {
        self.bind(Plugin::load(path.as_ref(), self.engine.backbone())?)
    }

    /// Binds a plug-in to the engine.
    ///
    /// # Errors
    /// As [`Plugin::bind`].
    pub fn bind(&self, plugin: Plugin) -> Result<Arc<BoundPlugin>, Error> {
        Ok(Arc::new(plugin.bind(&*self.engine)?))
    }

    /// What each of the plug-ins says of an image file, in their order.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::Engine`].
    pub fn predict(&self, image: impl AsRef<Path>, plugins: &[Arc<BoundPlugin>]) -> Result<Vec<Prediction>, Error> {
        let prepared = prepare_files(&[image.as_ref()], plugins, false).swap_remove(0)?;
        Ok(self.predict_prepared(&[&prepared], plugins)?.swap_remove(0))
    }

    /// What each of the plug-ins says of each of the images, image by image.
    ///
    /// # Errors
    /// [`Error::Engine`].
    ///
    /// # Panics
    /// If an image was prepared for other plug-ins, or a plug-in is bound to another engine.
    pub fn predict_prepared(
        &self,
        images: &[&Prepared],
        plugins: &[Arc<BoundPlugin>],
    ) -> Result<Vec<Vec<Prediction>>, Error> {
        let asked: Vec<_> = images.iter().map(|image| image.asking(plugins)).collect();
        let inputs: Vec<&Input> = asked.iter().flat_map(|(inputs, _)| inputs).collect();
        let mut given = self.infer(&inputs)?.into_iter();
        let of_image = |(inputs, places): &(Vec<Input>, Vec<(usize, usize)>)| {
            let mut given: AllGiven = given.by_ref().take(inputs.len()).collect();
            let predictions = plugins.iter().zip(places).map(|(plugin, &(input, place))| {
                let given = std::mem::take(&mut given[input][place]);
                let decision = plugin.answer(&given);
                Prediction { plugin: Arc::clone(plugin), decision, logits: plugin.mean_logits(given.logits) }
            });
            predictions.collect()
        };
        Ok(asked.iter().map(of_image).collect())
    }

    /// What inputs give, whoever asks: those of one size, or volumes of as many layers, are one batch, and neighbours with the same
    /// plug-ins one segment.
    ///
    /// # Errors
    /// [`Error::Engine`], also for a plug-in that answers for bags, which [`Predictor::predict_bag`] asks.
    ///
    /// # Panics
    /// If an input is not as long as its size says, or a plug-in is bound to another kind of engine or precision.
    pub fn infer(&self, inputs: &[&Input]) -> Result<AllGiven, Error> {
        let at_home = |plugin: &Arc<BoundPlugin>| plugin.is_on(&*self.engine);
        assert!(
            inputs.iter().flat_map(|input| &input.plugins).all(at_home),
            "a plug-in that is bound to another engine"
        );
        inputs.iter().flat_map(|input| &input.plugins).try_for_each(|plugin| plugin.refuse_bags())?;
        let mut given: AllGiven = inputs.iter().map(|input| vec![Given::default(); input.plugins.len()]).collect();
        let mut batches: BTreeMap<(usize, Option<usize>), Vec<Member>> = BTreeMap::new();
        for (input, asked) in inputs.iter().enumerate() {
            for member in Member::of(input, &asked.plugins) {
                let embedding = member.plugins(inputs).first().and_then(|plugin| plugin.volume.as_ref());
                batches.entry((asked.size, embedding.map(VolumeEmbedding::layers))).or_default().push(member);
            }
        }
        for ((size, layers), members) in batches {
            let mut segments: Vec<Segment<'_>> = Vec::new();
            for group in members.chunk_by(|a, b| same_plugins(a.plugins(inputs), b.plugins(inputs))) {
                let first = segments.last().map_or(0, |segment| segment.images.end);
                let plugins = group[0].plugins(inputs).iter().flat_map(|plugin| plugin.members()).collect();
                segments.push(Segment { images: first..first + group.len(), plugins });
            }
            let source = Members { inputs, members: &members, layers };
            let (vit, blocks) = (self.engine.backbone().config(), blocks_of(&members, inputs));
            let found = self.engine.forward_intermediates(&source, size, &segments, &blocks)?;
            for (segment, of_plugins) in segments.iter().zip(found) {
                let asked = segment.images.clone().next().map_or(&[][..], |image| members[image].plugins(inputs));
                let places = asked.iter().enumerate().flat_map(|(place, plugin)| plugin.members().map(move |_| place));
                for (place, (of_plugin, plugin)) in places.zip(of_plugins.into_iter().zip(&segment.plugins)) {
                    let outputs = plugin.head.outputs(vit, size);
                    let of_images = of_plugin.chunks_exact(outputs + blocks.len() * vit.intermediate_width());
                    segment.images.clone().zip(of_images).for_each(|(image, found)| {
                        let (logits, intermediates) = found.split_at(outputs);
                        let Member { input, plugins } = &members[image];
                        let place = plugins.start + place;
                        let scope = inputs[*input].plugins[place].scope.as_ref();
                        let given = &mut given[*input][place];
                        given.logits.extend_from_slice(logits);
                        given.distances = scope.map(|scope| scope.distances_among(&blocks, intermediates));
                    });
                }
            }
        }
        inputs.par_iter().zip(&mut given).for_each(|(input, given)| decode(input, given));
        Ok(given)
    }
}

/// Blocks that the descriptions of the plug-ins of a batch look at.
fn blocks_of(members: &[Member], inputs: &[&Input]) -> Vec<usize> {
    let scopes = members.iter().flat_map(|member| member.plugins(inputs)).filter_map(|plugin| plugin.scope.as_ref());
    let blocks: BTreeSet<usize> = scopes.flat_map(|scope| &scope.config.blocks).copied().collect();
    blocks.into_iter().collect()
}

/// What heads gave of patches to the scores of pixels, of the plug-ins of an input that give masks.
fn decode(input: &Input, given: &mut [Given]) {
    for (plugin, given) in input.plugins.iter().zip(given) {
        if let Some(decoder) = &plugin.head.decoder {
            given.logits = decoder.scores(&given.logits, &input.pixels, input.size);
        }
    }
}

fn same_plugins(a: &[Arc<BoundPlugin>], b: &[Arc<BoundPlugin>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// An image of a batch: an input with its plug-ins, or a volume with one of them, which embeds it.
struct Member {
    input: usize,
    plugins: Range<usize>,
}

impl Member {
    fn of(input: usize, plugins: &[Arc<BoundPlugin>]) -> Vec<Self> {
        match plugins.iter().any(|plugin| plugin.volume.is_some()) {
            true => (0..plugins.len()).map(|place| Member { input, plugins: place..place + 1 }).collect(),
            false => vec![Member { input, plugins: 0..plugins.len() }],
        }
    }

    fn plugins<'a>(&self, inputs: &[&'a Input]) -> &'a [Arc<BoundPlugin>] {
        &inputs[self.input].plugins[self.plugins.clone()]
    }
}

/// Some of the inputs, as the engine asks for them.
struct Members<'a> {
    inputs: &'a [&'a Input],
    members: &'a [Member],
    layers: Option<usize>,
}

impl ImageSource for Members<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let member = &self.members[index];
        let pixels = &self.inputs[member.input].pixels;
        match member.plugins(self.inputs).first().and_then(|plugin| plugin.volume.as_ref()) {
            None => out.copy_from_slice(pixels),
            Some(embedding) => embedding.forward(pixels, out),
        }
        Ok(())
    }

    fn layers(&self) -> Option<usize> {
        self.layers
    }
}
