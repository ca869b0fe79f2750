//! Bottleneck adapters: `y = x + f + Up gelu(Down f + c) + e` after a block's MLP, where `f` is what the MLP adds to the
//! residual stream `x` (Pfeiffer et al., AdapterFusion, arXiv 2005.00247; Houlsby et al., arXiv 1902.00751, eq. 1).

use crate::config::VitConfig;
use crate::error::Error;
use melo_kernels::{Gelu, Kernels, Mat, MatMut};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Settings of the bottlenecks of a plug-in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BottleneckConfig {
    /// Width `b` of the hidden layer; 0 adapts nothing.
    pub width: usize,
    /// Adapted blocks, ascending.
    pub blocks: Vec<usize>,
}

impl BottleneckConfig {
    /// Adapts nothing.
    pub fn none() -> Self {
        BottleneckConfig::default()
    }

    /// Checks the settings against a backbone.
    ///
    /// # Errors
    /// [`Error::Bottleneck`] that names the setting.
    pub fn check(&self, vit: &VitConfig) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Bottleneck(what));
        match (self.width, self.blocks.as_slice()) {
            (0, []) => return Ok(()),
            (0, _) => return wrong(format!("width 0 adapts nothing, but blocks are {:?}", self.blocks)),
            (_, []) => return wrong("no block to adapt".into()),
            (width, _) if width > vit.width => {
                return wrong(format!("width {width} exceeds the backbone's width {}", vit.width));
            }
            _ => {}
        }
        if !self.blocks.is_sorted_by(|a, b| a < b) {
            return wrong(format!("blocks {:?} repeat or are out of order", self.blocks));
        }
        match self.blocks.iter().find(|&&block| block >= vit.depth) {
            Some(block) => wrong(format!("block {block} does not exist: the backbone has {} blocks", vit.depth)),
            None => Ok(()),
        }
    }
}

/// The two layers of one block's bottleneck, or the gradients of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Bottleneck {
    /// `Down [b, d]`.
    pub down: Vec<f32>,
    /// `c [b]`.
    pub down_bias: Vec<f32>,
    /// `Up [d, b]`.
    pub up: Vec<f32>,
    /// `e [d]`.
    pub up_bias: Vec<f32>,
}

/// Scratch of a bottleneck, `[m, b]` each.
#[derive(Debug, Default)]
pub(crate) struct BottleneckScratch {
    /// `Down f + c`.
    z: Vec<f32>,
    /// Its GELU, and in the backward pass its gradient.
    a: Vec<f32>,
}

impl Bottleneck {
    fn zeros(width: usize, d: usize) -> Self {
        let zeros = |len: usize| vec![0.0; len];
        Bottleneck { down: zeros(width * d), down_bias: zeros(width), up: zeros(d * width), up_bias: zeros(d) }
    }

    /// Adds `Up gelu(Down f + c) + e` to `y`; `f, y [m, d]`.
    pub(crate) fn forward(&self, k: &Kernels, f: &[f32], y: &mut [f32], scratch: &mut BottleneckScratch) {
        let (b, d) = (self.down_bias.len(), self.up_bias.len());
        let m = f.len() / d;
        self.hidden(k, f, scratch);
        y.chunks_exact_mut(d).for_each(|y| y.iter_mut().zip(&self.up_bias).for_each(|(y, e)| *y += e));
        k.matmul(MatMut::new(y, m, d), 1.0, 1.0, Mat::new(&scratch.a, m, b), Mat::new(&self.up, d, b).t());
    }

    /// Adds to the gradients of the parameters, and this path's share of the input gradient to `d_f`; `f, d_y, d_f [m, d]`.
    pub(crate) fn backward(
        &self,
        k: &Kernels,
        (f, d_y): (&[f32], &[f32]),
        gradient: &mut Bottleneck,
        d_f: &mut [f32],
        scratch: &mut BottleneckScratch,
    ) {
        let (b, d) = (self.down_bias.len(), self.up_bias.len());
        let m = f.len() / d;
        self.hidden(k, f, scratch);
        let BottleneckScratch { z, a } = scratch;
        k.linear_backward_weight(a, d_y, &mut gradient.up, &mut gradient.up_bias, d);
        k.matmul(MatMut::new(a, m, b), 0.0, 1.0, Mat::new(d_y, m, d), Mat::new(&self.up, d, b));
        k.gelu_backward(Gelu::Erf, z, a);
        k.linear_backward_weight(f, a, &mut gradient.down, &mut gradient.down_bias, b);
        k.matmul(MatMut::new(d_f, m, d), 1.0, 1.0, Mat::new(a, m, b), Mat::new(&self.down, b, d));
    }

    /// `z = Down f + c` and `a = gelu(z)`.
    fn hidden(&self, k: &Kernels, f: &[f32], BottleneckScratch { z, a }: &mut BottleneckScratch) {
        let (b, d) = (self.down_bias.len(), self.up_bias.len());
        let m = f.len() / d;
        z.resize(m * b, 0.0);
        a.resize(m * b, 0.0);
        z.chunks_exact_mut(b).for_each(|z| z.copy_from_slice(&self.down_bias));
        k.matmul(MatMut::new(z, m, b), 1.0, 1.0, Mat::new(f, m, d), Mat::new(&self.down, b, d).t());
        k.gelu(Gelu::Erf, z, a);
    }
}

/// The bottlenecks of a plug-in, or the gradients of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Bottlenecks {
    /// Settings.
    pub config: BottleneckConfig,
    /// For every block of the backbone its bottleneck; `None` where there is none.
    pub blocks: Vec<Option<Bottleneck>>,
}

impl Bottlenecks {
    /// All zeros; `config` must have passed [`BottleneckConfig::check`].
    pub fn zeros(config: &BottleneckConfig, vit: &VitConfig) -> Self {
        let bottleneck = |block: usize| {
            (config.width > 0 && config.blocks.contains(&block)).then(|| Bottleneck::zeros(config.width, vit.width))
        };
        Bottlenecks { config: config.clone(), blocks: (0..vit.depth).map(bottleneck).collect() }
    }

    /// `Down` uniform in ±1/√d (Kaiming-uniform with a = √5, as PyTorch's `Linear`); `Up` and both biases zero, so that
    /// nothing changes before the first step.
    pub fn init(config: &BottleneckConfig, vit: &VitConfig, seed: u64) -> Self {
        let mut bottlenecks = Bottlenecks::zeros(config, vit);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bound = 1.0 / (vit.width as f32).sqrt();
        for bottleneck in bottlenecks.blocks.iter_mut().flatten() {
            bottleneck.down.iter_mut().for_each(|x| *x = rng.random_range(-bound..bound));
        }
        bottlenecks
    }

    /// The first block with one.
    pub fn first_block(&self) -> Option<usize> {
        self.blocks.iter().position(Option::is_some)
    }

    /// Name and shape of every tensor, in the order of [`Bottlenecks::tensors`].
    pub fn tensor_shapes(&self, vit: &VitConfig) -> Vec<(String, Vec<usize>)> {
        let (b, d) = (self.config.width, vit.width);
        let layers =
            [("down.weight", vec![b, d]), ("down.bias", vec![b]), ("up.weight", vec![d, b]), ("up.bias", vec![d])];
        let blocks = self.blocks.iter().enumerate().filter(|(_, bottleneck)| bottleneck.is_some());
        let named =
            |block: usize| layers.clone().map(|(name, shape)| (format!("blocks.{block}.adapter.{name}"), shape));
        blocks.flat_map(|(block, _)| named(block)).collect()
    }

    /// Every tensor: by block, `Down`, its bias, `Up`, its bias.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        self.blocks.iter().flatten().flat_map(|b| [&b.down, &b.down_bias, &b.up, &b.up_bias]).collect()
    }

    /// As [`Bottlenecks::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let all = self.blocks.iter_mut().flatten();
        all.flat_map(|b| [&mut b.down, &mut b.down_bias, &mut b.up, &mut b.up_bias]).collect()
    }
}
