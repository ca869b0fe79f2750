//! Pre-training of a small ViT on formula-driven images: every parameter, no photograph.
//!
//! The task is to name the formula in each patch (Shinoda et al., SegRCDB, ICCV 2023); what it leaves in the blocks serves others.

use crate::examples::Examples;
use melo_data::{EpochAugment, Labels};
use melo_imaging::normalise;
use melo_synthetic::{FormulaScene, formula_scene};
use melo_vit::{Checkpoint, ImageError, ImageSource, Pool, Preprocess, VitConfig, Weights, truncated_normal};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Pictures of formulas, drawn when asked for: new ones in every epoch of training, the same ones for validation. Their masks are of
/// patches: 0 is ground, 1 + c formula c.
pub struct FormulaSet {
    images: usize,
    formulas: usize,
    spec: Preprocess,
    patch: usize,
}

/// Instances that validation never shares with training: training counts up from 0.
const VALIDATION_INSTANCES: u64 = 1 << 40;

/// What an image without labels has.
const NO_LABEL: Labels = Labels::Single(0);

impl FormulaSet {
    /// `images` images of `formulas` formulas, at most 253, for a network with patches of side `patch`.
    pub fn new(images: usize, formulas: usize, spec: Preprocess, patch: usize) -> Self {
        FormulaSet { images, formulas, spec, patch }
    }

    fn scene(&self, order: &[usize], augment: Option<EpochAugment<'_>>, index: usize) -> FormulaScene {
        let first = augment.map_or(VALIDATION_INSTANCES, |pass| pass.epoch * self.images as u64);
        formula_scene(self.formulas, first + order[index] as u64, self.spec.size, self.patch)
    }
}

impl Examples for FormulaSet {
    fn len(&self) -> usize {
        self.images
    }

    fn labels(&self, _index: usize) -> &Labels {
        &NO_LABEL
    }

    fn size(&self) -> usize {
        self.spec.size
    }

    fn mask_side(&self) -> usize {
        self.spec.size / self.patch
    }

    fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
        Box::new(FormulaView { set: self, order, augment })
    }

    fn mask(
        &self,
        order: &[usize],
        augment: Option<EpochAugment<'_>>,
        index: usize,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        out.copy_from_slice(&self.scene(order, augment, index).patches);
        Ok(())
    }
}

struct FormulaView<'a> {
    set: &'a FormulaSet,
    order: &'a [usize],
    augment: Option<EpochAugment<'a>>,
}

impl ImageSource for FormulaView<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        normalise(&self.set.scene(self.order, self.augment, index).pixels, &self.set.spec, out);
        Ok(())
    }
}

/// The shape of the embedded default backbone: 1.6 M parameters, 64 patches of 12 × 12 pixels.
pub fn small_vit() -> (VitConfig, Preprocess) {
    let config = VitConfig {
        depth: 8,
        width: 128,
        heads: 4,
        mlp_hidden: 512,
        patch: 12,
        image_size: 96,
        pool: Pool::Avg,
        ..VitConfig::base()
    };
    let preprocess = Preprocess::base(config.image_size);
    (config, preprocess)
}

/// Random weights as the original ViT's (arXiv 2010.11929): matrices normal with variance
/// `2 / (in + out)`, tokens and positions with deviation 0.02, all cut at two deviations; norms 1 and 0, biases 0. Then positions and
/// attention begin as those of trained ViTs look (Trockman and Kolter, "Mimetic initialization of self-attention layers", ICML 2023).
pub fn initial_checkpoint(name: &str, config: VitConfig, preprocess: Preprocess, seed: u64) -> Checkpoint {
    let mut weights = Weights::zeros(&config);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for ((name, shape), tensor) in config.tensor_shapes().iter().zip(weights.tensors_mut()) {
        let deviation = match shape.as_slice() {
            [1, _, _] => 0.02,
            [out, input @ ..] if !input.is_empty() => (2.0 / (out + input.iter().product::<usize>()) as f32).sqrt(),
            _ => 0.0,
        };
        if name.contains("norm") && name.ends_with("weight") {
            tensor.fill(1.0);
        } else if deviation > 0.0 {
            tensor.iter_mut().for_each(|x| *x = deviation * truncated_normal(&mut rng));
        }
    }
    let grid = config.image_size / config.patch;
    let of_tokens = weights.pos_embed.len() - grid * grid * config.width;
    add_waves(&mut weights.pos_embed[of_tokens..], grid, config.width);
    weights
        .blocks
        .iter_mut()
        .for_each(|block| look_trained(&mut block.qkv.weight, &mut block.proj.weight, config.width));
    Checkpoint { name: name.to_owned(), config, preprocess, weights, classifier: None }
}

/// Adds to the positions `[grid², width]` sines and cosines of their columns and rows: neighbours are alike from the first step on.
fn add_waves(positions: &mut [f32], grid: usize, width: usize) {
    let quarter = width / 4;
    for (place, values) in positions.chunks_exact_mut(width).enumerate() {
        let (row, column) = ((place / grid) as f32, (place % grid) as f32);
        for wave in 0..quarter {
            let frequency = 1.0 / 100.0f32.powf(wave as f32 / quarter as f32);
            values[wave] += (column * frequency).sin();
            values[wave + quarter] += (column * frequency).cos();
            values[wave + 2 * quarter] += (row * frequency).sin();
            values[wave + 3 * quarter] += (row * frequency).cos();
        }
    }
}

/// Makes keys like queries, so that a token looks at what is like it, and the output projection like minus the values' transpose, in
/// `qkv [3d, d]` and `proj [d, d]`.
fn look_trained(qkv: &mut [f32], proj: &mut [f32], d: usize) {
    let (queries, rest) = qkv.split_at_mut(d * d);
    let (keys, values) = rest.split_at_mut(d * d);
    for (key, query) in keys.iter_mut().zip(queries) {
        *query *= 2f32.sqrt();
        *key = 0.7 * *query + 0.5 * *key;
    }
    for (row, out) in proj.chunks_exact_mut(d).enumerate() {
        out.iter_mut().enumerate().for_each(|(column, out)| *out = 0.7 * *out - 0.6 * values[column * d + row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_data::Augment;
    use melo_synthetic::GROUND;

    #[test]
    fn masks_are_those_of_the_pictures_and_new_in_every_epoch() {
        let (vit, spec) = small_vit();
        let set = FormulaSet::new(8, 20, spec.clone(), vit.patch);
        let augment = Augment::none();
        let pass = |epoch| Some(EpochAugment { augment: &augment, seed: 0, epoch });
        let picture = |pass: Option<EpochAugment<'_>>| {
            let mut pixels = vec![0.0; 3 * spec.size * spec.size];
            set.epoch(&[5, 2], pass).load(1, &mut pixels).expect("drawn");
            let mut mask = vec![0; set.mask_side() * set.mask_side()];
            set.mask(&[5, 2], pass, 1, &mut mask).expect("drawn");
            (pixels, mask)
        };
        let scene = formula_scene(20, 3 * 8 + 2, spec.size, vit.patch);
        let mut pixels = vec![0.0; 3 * spec.size * spec.size];
        normalise(&scene.pixels, &spec, &mut pixels);
        assert_eq!(picture(pass(3)), (pixels, scene.patches));
        assert!(picture(None).1.iter().any(|&patch| patch > GROUND));
        assert_ne!(picture(pass(0)), picture(pass(1)));
        assert_ne!(picture(pass(0)), picture(None), "validation has pictures of its own");
    }

    /// Positions that are near are alike, queries look at keys like them, and values come back with the other sign.
    #[test]
    fn first_weights_look_trained() {
        let (vit, spec) = small_vit();
        let Checkpoint { weights, .. } = initial_checkpoint("first", vit.clone(), spec, 0);
        let d = vit.width;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let positions: Vec<&[f32]> = weights.pos_embed.chunks_exact(d).skip(1).collect();
        assert_eq!(positions.len(), 64);
        assert!(dot(positions[27], positions[28]) > dot(positions[27], positions[31]), "along a row");
        assert!(dot(positions[27], positions[35]) > dot(positions[27], positions[59]), "along a column");
        for block in &weights.blocks {
            let (queries, rest) = block.qkv.weight.split_at(d * d);
            let (keys, values) = rest.split_at(d * d);
            let alike = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(alike(queries, keys) > 0.7, "{}", alike(queries, keys));
            let turned: Vec<f32> = (0..d * d).map(|at| values[at % d * d + at / d]).collect();
            assert!(alike(&block.proj.weight, &turned) < -0.5, "{}", alike(&block.proj.weight, &turned));
        }
    }
}
