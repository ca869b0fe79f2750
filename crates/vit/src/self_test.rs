//! The self-test of a plug-in: outputs on images that everyone can make, kept in its card.
//!
//! It proves at load that the adapter is active, and that plug-in, head, backbone and this processor give together what
//! they gave when the plug-in was finished. The images are specified in `docs/plugin-format.md`.

use crate::image::{ImageBatch, VoxelBatch};
use crate::invalid::Invalid;
use crate::task_kind::TaskKind;
use melo_kernels::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Images of the test.
pub(crate) const IMAGES: usize = 2;
/// Parts of a map of scores.
const QUARTERS: usize = 4;
/// Side of the squares of one value, pixels: two or more a patch, so that patches are not flat.
const SQUARE: usize = 8;

/// Outputs of a plug-in on the images of [`SelfTest::images`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// Kind of engine that gave them, see [`crate::EngineInfo::engine`].
    #[serde(default = "cpu", skip_serializing_if = "is_cpu")]
    pub engine: String,
    /// Numbers that they were computed in.
    pub precision: Precision,
    /// Logits of each image, `[c]`, as the head gives them: before the temperature; of an ensemble those of its members, `[k, c]`. Of a mask the mean score of each class in each
    /// quarter of the map, `[4, c]`: top left, top right, bottom left, bottom right.
    pub logits: [Vec<f32>; IMAGES],
    /// The same without the adapter: the bare backbone under the same head.
    pub bare_logits: [Vec<f32>; IMAGES],
    /// What the logits meant then: fields of the card, `classes`, `thresholds` and others, each as the first 16 digits of the SHA-256 of
    /// its JSON. Since format 8; empty before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meaning: BTreeMap<String, String>,
}

impl SelfTest {
    /// The two images `[3, size, size]`, as normalised input. With integers of 32 bits that wrap around, the value at
    /// image `i`, channel `c`, row `y`, column `x` is
    ///
    /// ```text
    /// k = (3 i + c) · 2^18 + ⌊y / 8⌋ · 2^9 + ⌊x / 8⌋
    /// k ^= k >> 16;  k *= 0x85ebca6b;  k ^= k >> 13;  k *= 0xc2b2ae35;  k ^= k >> 16      (MurmurHash3's finaliser)
    /// value = ((k >> 24) - 128) / 64
    /// ```
    pub fn images(size: usize) -> ImageBatch {
        let plane = |plane: usize| move |at: usize| value(plane, at / size, at % size);
        let data = (0..IMAGES * 3).flat_map(|channel| (0..size * size).map(plane(channel))).collect();
        ImageBatch { size, data }
    }

    /// The two volumes `[depth, size, size]`, as normalised voxels: as [`SelfTest::images`], with `⌊z / 8⌋ + 512 i` for `3 i + c` in layer
    /// `z` of volume `i`.
    pub fn volumes(depth: usize, size: usize) -> VoxelBatch {
        let plane = |plane: usize| move |at: usize| value(plane, at / size, at % size);
        let layers = (0..IMAGES).flat_map(|volume| (0..depth).map(move |z| z / SQUARE + 512 * volume));
        VoxelBatch { voxels: depth * size * size, data: layers.flat_map(|z| (0..size * size).map(plane(z))).collect() }
    }

    /// The mean score of each class in each quarter of a map `[m, m, c]`, `[4, c]`, summed in f64.
    pub(crate) fn quarters(scores: &[f32], side: usize) -> Vec<f32> {
        let classes = scores.len() / (side * side);
        let (mut sums, mut pixels) = (vec![0.0; QUARTERS * classes], [0usize; QUARTERS]);
        for (at, scores) in scores.chunks_exact(classes).enumerate() {
            let quarter = 2 * usize::from(at / side >= side / 2) + usize::from(at % side >= side / 2);
            pixels[quarter] += 1;
            let sums = sums[quarter * classes..].iter_mut();
            sums.zip(scores).for_each(|(sum, score)| *sum += f64::from(*score));
        }
        let counts = pixels.iter().flat_map(|&count| std::iter::repeat_n(count.max(1), classes));
        sums.iter().zip(counts).map(|(sum, count)| (sum / count as f64) as f32).collect()
    }

    /// Checks what it says against the number of classes, counted once a member.
    ///
    /// # Errors
    /// [`Invalid`] for the logits.
    pub(crate) fn check(&self, kind: TaskKind, classes: usize) -> Result<(), Invalid> {
        let numbers = if kind == TaskKind::Segmentation { QUARTERS * classes } else { classes };
        for (field, images) in [("logits", &self.logits), ("bare_logits", &self.bare_logits)] {
            if images.iter().any(|logits| logits.len() != numbers || logits.iter().any(|x| !x.is_finite())) {
                let reason = format!("self_test: {field} are not {IMAGES} times {numbers} finite numbers");
                return Err(Invalid::new(field, reason));
            }
        }
        Ok(())
    }
}

/// The value of a test's plane.
fn value(plane: usize, y: usize, x: usize) -> f32 {
    let mut k = (plane << 18 | (y / SQUARE) << 9 | (x / SQUARE)) as u32;
    k ^= k >> 16;
    k = k.wrapping_mul(0x85eb_ca6b);
    k ^= k >> 13;
    k = k.wrapping_mul(0xc2b2_ae35);
    k ^= k >> 16;
    ((k >> 24) as f32 - 128.0) / 64.0
}

/// Cards from before engines were told apart are a processor's, and a processor's go on saying nothing.
fn cpu() -> String {
    "cpu".to_owned()
}

fn is_cpu(engine: &String) -> bool {
    engine == "cpu"
}
