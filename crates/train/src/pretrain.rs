//! Pre-training of a small ViT on formula-driven images: every parameter, no photograph.
//!
//! The task is to name the formula (Kataoka et al., FractalDB, ACCV 2020); what it leaves in the blocks serves others.

use crate::examples::Examples;
use melo_data::{EpochAugment, Labels};
use melo_imaging::normalise;
use melo_synthetic::formula_image;
use melo_vit::{Checkpoint, ImageError, ImageSource, Pool, Preprocess, VitConfig, Weights, truncated_normal};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Images of formulas, drawn when asked for: new ones in every epoch of training, the same ones for validation.
pub struct FormulaSet {
    labels: Vec<Labels>,
    spec: Preprocess,
}

/// Instances that validation never shares with training: training counts up from 0.
const VALIDATION_INSTANCES: u64 = 1 << 40;

impl FormulaSet {
    /// `images` images spread evenly over `classes` formulas.
    pub fn new(images: usize, classes: usize, spec: Preprocess) -> Self {
        FormulaSet { labels: (0..images).map(|index| Labels::Single(index % classes)).collect(), spec }
    }
}

impl Examples for FormulaSet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn labels(&self, index: usize) -> &Labels {
        &self.labels[index]
    }

    fn size(&self) -> usize {
        self.spec.size
    }

    fn epoch<'a>(&'a self, order: &'a [usize], augment: Option<EpochAugment<'a>>) -> Box<dyn ImageSource + 'a> {
        let first = augment.map_or(VALIDATION_INSTANCES, |pass| pass.epoch * self.len() as u64);
        Box::new(FormulaView { set: self, order, first })
    }
}

struct FormulaView<'a> {
    set: &'a FormulaSet,
    order: &'a [usize],
    first: u64,
}

impl ImageSource for FormulaView<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let index = self.order[index];
        if let Labels::Single(class) = self.set.labels[index] {
            let pixels = formula_image(class, self.first + index as u64, self.set.spec.size);
            normalise(&pixels, &self.set.spec, out);
        }
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
        norm: false,
        fc_norm: true,
        ..VitConfig::base()
    };
    let preprocess = Preprocess::base(config.image_size);
    (config, preprocess)
}

/// Random weights as the original ViT's (arXiv 2010.11929): matrices normal with variance
/// `2 / (in + out)`, tokens and positions with deviation 0.02, all cut at two deviations; norms 1 and 0, biases 0.
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
    Checkpoint { name: name.to_owned(), config, preprocess, weights, classifier: None }
}
