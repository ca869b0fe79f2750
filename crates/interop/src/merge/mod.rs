//! A backbone with a plug-in's updates added to its weights, `W + scale · B A`, and the plug-in's classifier: a plain checkpoint.

mod hugging_face;
mod timm;

pub use hugging_face::write_hugging_face;
pub use timm::write_timm;

use crate::error::Error;
use melo_vit::{Calibration, Checkpoint, ComputedOn, Plugin, Precision, Target, TaskCard, VitConfig};

/// Adds the updates to the weights, in f64 with one rounding, and puts the plug-in's classifier and preprocessing in; positions are
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
    for index in 0..vit.depth {
        for target in Target::ALL {
            let Some(pair) = &plugin.adapter.blocks[index][target as usize] else { continue };
            let rank = plugin.adapter.config.rank_of(index);
            let scale = f64::from(plugin.adapter.config.scale_of(index));
            let (rows, first) = rows_of(&mut merged, index, target, &vit);
            let (input, _) = target.features(&vit);
            let rows = rows.chunks_exact_mut(input).skip(first);
            let mut sum = vec![0.0f64; input];
            for (weights, b) in rows.zip(pair.b.chunks_exact(rank)) {
                sum.fill(0.0);
                for (&b, a) in b.iter().zip(pair.a.chunks_exact(input)) {
                    sum.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
                }
                weights.iter_mut().zip(&sum).for_each(|(w, sum)| *w = (f64::from(*w) + scale * sum) as f32);
            }
        }
    }
    let size = plugin.card.preprocess.size;
    if size != vit.image_size {
        merged.weights.resize_positions(&mut merged.config, size);
    }
    merged.classifier = Some(plugin.head.clone());
    merged.preprocess = plugin.card.preprocess.clone();
    Ok(merged)
}

/// The weight that holds a target, and the first of the target's rows in it.
fn rows_of<'a>(
    checkpoint: &'a mut Checkpoint,
    block: usize,
    target: Target,
    vit: &VitConfig,
) -> (&'a mut Vec<f32>, usize) {
    let block = &mut checkpoint.weights.blocks[block];
    match target {
        Target::Q => (&mut block.qkv.weight, 0),
        Target::K => (&mut block.qkv.weight, vit.width),
        Target::V => (&mut block.qkv.weight, 2 * vit.width),
        Target::O => (&mut block.proj.weight, 0),
        Target::Fc1 => (&mut block.fc1.weight, 0),
        Target::Fc2 => (&mut block.fc2.weight, 0),
    }
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
