//! A backbone with a plug-in's updates added to its weights, `W + scale · B A`, and the plug-in's classifier: a plain checkpoint.

mod hugging_face;
mod timm;

pub use hugging_face::write_hugging_face;
pub use timm::write_timm;

use crate::error::Error;
use melo_vit::{Calibration, Checkpoint, ComputedOn, Plugin, Precision, TaskCard};

/// Adds the updates to the weights, see [`melo_vit::Adapter::merge_into`], and puts the plug-in's classifier and preprocessing in; positions are
/// resized to the plug-in's image size, as running it there does.
///
/// # Errors
/// [`Error::File`] for a plug-in that answers for bags; [`Error::Unwritable`] for bottlenecks, which no weight of the backbone can hold, and
/// for a head that gives masks.
pub fn merge(checkpoint: Checkpoint, plugin: &Plugin) -> Result<Checkpoint, Error> {
    plugin.refuse_bags()?;
    plugin.refuse_volumes()?;
    plugin.refuse_ensembles()?;
    let mut merged = checkpoint;
    if plugin.adapter.bottlenecks.first_block().is_some() {
        let what = "bottlenecks: they are layers of their own, not a change of its weights".to_owned();
        return Err(Error::Unwritable { format: "a plain checkpoint", what });
    }
    if plugin.head.decoder.is_some() {
        let what = "a head that gives masks, only a classifier".to_owned();
        return Err(Error::Unwritable { format: "a plain checkpoint", what });
    }
    let vit = merged.config.clone();
    plugin.adapter.merge_into(&mut merged.weights, &vit);
    let size = plugin.card.preprocess.size;
    if size != vit.image_size {
        merged.weights.resize_positions(&mut merged.config, size);
    }
    merged.classifier = Some(plugin.head.clone());
    merged.preprocess = plugin.card.preprocess.clone();
    Ok(merged)
}

/// The calibration for other software, which computes in f32.
pub(crate) fn of_others(card: &TaskCard) -> Calibration {
    card.calibration_for(&ComputedOn { engine: "cpu".to_owned(), precision: Precision::F32 })
}

/// What a plain checkpoint does not say of a plug-in, a sentence each.
fn left_behind(plugin: &Plugin) -> Vec<String> {
    let mut notes = Vec::new();
    let temperature = of_others(&plugin.card).temperature;
    if temperature != 1.0 {
        notes.push(format!(
            "the classifier gives logits before calibration: divide them by the temperature {temperature}"
        ));
    }
    notes
}
