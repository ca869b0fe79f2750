//! What follows a head that reads patch tokens: scores of every pixel, forward and backward.
//!
//! ```text
//! tokens [p, rows]  patch by patch, what the head gives                    (an engine's)
//! cells  [g u, g u, k]  every patch cut into u × u cells
//!        linear: k = classes, the cells are the scores
//!        else:   enlarged to [m, m, k], the image beside them [m, m, k + 3]
//!                -> 3 × 3 convolution -> GELU [m, m, h] -> 3 × 3 convolution [m, m, c]
//! ```
//!
//! Maps have their channels last. It is computed by one thread, in f32, whatever engine gave the tokens.

mod convolution;
mod enlarge;

pub use enlarge::{enlarge, enlarge_backward};

use crate::config::VitConfig;
use crate::invalid::Invalid;
use crate::random::truncated_normal;
use convolution::Convolution;
use melo_kernels::{Gelu, Kernels, Precision};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The form of a decoder: in the card of a plug-in that gives masks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// The blocks, from 0 and ascending, whose patch tokens are read side by side.
    pub blocks: Vec<usize>,
    /// Cells `u` a side that a patch is cut into.
    pub cells: usize,
    /// Numbers `k` of a cell; of a linear decoder the classes.
    pub channels: usize,
    /// Numbers `h` between the two convolutions; 0 of a linear decoder, which has none.
    pub hidden: usize,
    /// Pixels of the input a side for each score; of a linear decoder nothing, 1.
    pub stride: usize,
}

impl DecoderConfig {
    /// Most numbers of a patch, and most numbers of a pixel between layers: what a card may ask for.
    const MOST_ROWS: usize = 4096;
    const MOST_CHANNELS: usize = 256;

    /// The one that is trained where nothing is asked for: four blocks spread over the depth, cells of a quarter of a patch.
    pub fn upsampling(vit: &VitConfig) -> Self {
        let mut blocks: Vec<usize> = (1..=4).map(|part| (vit.depth * part).div_ceil(4).saturating_sub(1)).collect();
        blocks.dedup();
        DecoderConfig { blocks, cells: 4, channels: 8, hidden: 16, stride: 1 }
    }

    /// Scores of patches alone, of the last block's tokens, as DINOv2's linear evaluation (arXiv 2304.07193) has it.
    pub fn linear(vit: &VitConfig, classes: usize) -> Self {
        DecoderConfig { blocks: vec![vit.depth.saturating_sub(1)], cells: 1, channels: classes, hidden: 0, stride: 1 }
    }

    /// Side `m` of the map of scores of an image of side `size`, of a network with patches of side `patch`, pixels.
    pub fn side(&self, patch: usize, size: usize) -> usize {
        match self.hidden {
            0 => size / patch * self.cells,
            _ => size / self.stride,
        }
    }

    /// Rows of the head.
    pub fn rows(&self) -> usize {
        self.cells * self.cells * self.channels
    }

    /// Checks that it fits a network and a number of classes.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that does not.
    pub fn check(&self, vit: &VitConfig, classes: usize) -> Result<(), Invalid> {
        let wrong =
            |field: &'static str, reason: String| Err(Invalid::new(field, format!("decoder.{field}: {reason}")));
        let DecoderConfig { blocks, cells, channels, hidden, stride } = self;
        if blocks.is_empty() || !blocks.is_sorted_by(|a, b| a < b) || blocks.last().is_some_and(|&b| b >= vit.depth) {
            return wrong("blocks", format!("{blocks:?}, expected ascending numbers from 0 to {}", vit.depth - 1));
        }
        let sides = [
            ("cells", *cells, vit.patch),
            ("channels", *channels, Self::MOST_CHANNELS),
            ("stride", *stride, vit.patch),
        ];
        if let Some((field, found, most)) = sides.into_iter().find(|(_, found, most)| !(1..=*most).contains(found)) {
            return wrong(field, format!("{found}, expected 1 to {most}"));
        }
        if *hidden > Self::MOST_CHANNELS {
            return wrong("hidden", format!("{hidden}, expected at most {}", Self::MOST_CHANNELS));
        }
        if *hidden == 0 && *channels != classes {
            return wrong("channels", format!("{channels}, expected the {classes} classes, whose scores they are"));
        }
        if self.rows() > Self::MOST_ROWS {
            return wrong("cells", format!("{} numbers a patch, expected at most {}", self.rows(), Self::MOST_ROWS));
        }
        if !vit.patch.is_multiple_of(*stride) {
            return wrong("stride", format!("{stride} does not divide patches of {} pixels", vit.patch));
        }
        Ok(())
    }
}

/// What makes scores of patches, or the gradients of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// Its form.
    pub config: DecoderConfig,
    /// Classes `c`.
    classes: usize,
    /// Pixels a side of a patch.
    patch: usize,
    /// Both convolutions; nothing where it is linear.
    layers: Option<[Convolution; 2]>,
}

/// What the backward pass reads of a forward pass.
#[derive(Debug, Default)]
pub struct DecoderTape {
    /// Cells and image, `[m, m, k + 3]`.
    joined: Vec<f32>,
    /// The hidden layer before and after GELU, `[m, m, h]`.
    hidden: Vec<f32>,
    activated: Vec<f32>,
}

impl Decoder {
    /// What the names of its tensors begin with.
    pub const PREFIX: &'static str = "decoder.";

    /// One for images of a network, with the weight `[rows, width]` of its head: a linear one begins with zeros, another with scores of
    /// zero and everything before them normal.
    pub(crate) fn init(
        config: &DecoderConfig,
        classes: usize,
        vit: &VitConfig,
        (rows, width): (usize, usize),
        seed: u64,
    ) -> (Vec<f32>, Self) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(Self::STREAM);
        let mut normal = |count: usize, inputs: usize| -> Vec<f32> {
            let deviation = (inputs as f32).sqrt().recip();
            (0..count).map(|_| deviation * truncated_normal(&mut rng)).collect()
        };
        let mut decoder = Decoder::zeros(config, classes, vit.patch);
        let Some([first, _]) = &mut decoder.layers else { return (vec![0.0; rows * width], decoder) };
        first.weight = normal(first.weight.len(), first.weight.len() / first.bias.len());
        (normal(rows * width, width), decoder)
    }

    /// The stream of random numbers that it begins with: that of no other tensor.
    const STREAM: u64 = u64::MAX - 1;

    /// All zeros.
    pub(crate) fn zeros(config: &DecoderConfig, classes: usize, patch: usize) -> Self {
        let (inputs, hidden) = (config.channels + 3, config.hidden);
        let layers = (hidden > 0).then(|| [Convolution::zeros(inputs, hidden), Convolution::zeros(hidden, classes)]);
        Decoder { config: config.clone(), classes, patch, layers }
    }

    /// One of the same form, all zeros.
    pub fn zeros_like(&self) -> Self {
        Decoder::zeros(&self.config, self.classes, self.patch)
    }

    /// Classes `c`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Name and shape of every tensor.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let layers = self.layers.iter().flatten().zip(["hidden", "scores"]);
        layers
            .flat_map(|(layer, name)| {
                let (out, inputs) = (layer.bias.len(), layer.inputs());
                let name = |tensor: &str| format!("{}{name}.{tensor}", Self::PREFIX);
                [(name("weight"), vec![out, 3, 3, inputs]), (name("bias"), vec![out])]
            })
            .collect()
    }

    /// Every tensor, in the order of [`Decoder::tensor_shapes`].
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        self.layers.iter().flatten().flat_map(|layer| [&layer.weight, &layer.bias]).collect()
    }

    /// As [`Decoder::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        self.layers.iter_mut().flatten().flat_map(|layer| [&mut layer.weight, &mut layer.bias]).collect()
    }

    /// False of a linear one, which is given no image.
    pub fn reads_pixels(&self) -> bool {
        self.layers.is_some()
    }

    /// Side `m` of the map of scores of an image of this side.
    pub fn side(&self, size: usize) -> usize {
        self.config.side(self.patch, size)
    }

    /// Scores `[m, m, c]` of an image `[3, size, size]`, as it went into the network, of what the head gave of it, `tokens [p, rows]`;
    /// a linear decoder does not look at the image.
    ///
    /// # Panics
    /// If a length is not what it says.
    pub fn scores(&self, tokens: &[f32], image: &[f32], size: usize) -> Vec<f32> {
        self.forward(tokens, image, size, &mut DecoderTape::default())
    }

    /// As [`Decoder::scores`]; leaves in `tape` what [`Decoder::backward`] reads.
    ///
    /// # Panics
    /// As [`Decoder::scores`].
    pub fn forward(&self, tokens: &[f32], image: &[f32], size: usize, tape: &mut DecoderTape) -> Vec<f32> {
        let (grid, m) = (size / self.patch, self.side(size));
        let DecoderConfig { cells, channels, stride, .. } = self.config;
        assert_eq!(tokens.len(), grid * grid * self.config.rows(), "length of [{grid}², {}]", self.config.rows());
        let map = cells_of(tokens, grid, cells, channels);
        let Some([hidden, scores]) = &self.layers else { return map };
        assert_eq!(image.len(), 3 * size * size, "length of [3, {size}, {size}]");
        let enlarged = enlarge(&map, channels, grid * cells, m);
        let DecoderTape { joined, hidden: before, activated } = tape;
        join(&enlarged, image, (size, stride), joined);
        let kernels = Kernels::detect(Precision::F32);
        *before = hidden.forward(kernels, joined, m);
        activated.resize(before.len(), 0.0);
        kernels.gelu(Gelu::Erf, before, activated);
        scores.forward(kernels, activated, m)
    }

    /// From the gradient of the scores `[m, m, c]` to that of the tokens, `[p, rows]`, which is returned; adds to the decoder's own.
    ///
    /// # Panics
    /// If a length is not what it says.
    pub fn backward(&self, tape: &DecoderTape, size: usize, d_scores: &[f32], gradient: &mut Decoder) -> Vec<f32> {
        let (grid, m) = (size / self.patch, self.side(size));
        let DecoderConfig { cells, channels, .. } = self.config;
        let (Some([hidden, scores]), Some([d_hidden, d_last])) = (&self.layers, &mut gradient.layers) else {
            return tokens_of(d_scores, grid, cells, channels);
        };
        let kernels = Kernels::detect(Precision::F32);
        let mut d = scores.backward(kernels, &tape.activated, m, d_scores, d_last);
        kernels.gelu_backward(Gelu::Erf, &tape.hidden, &mut d);
        let d_joined = hidden.backward(kernels, &tape.joined, m, &d, d_hidden);
        let d_enlarged: Vec<f32> =
            d_joined.chunks_exact(channels + 3).flat_map(|pixel| &pixel[..channels]).copied().collect();
        tokens_of(&enlarge_backward(&d_enlarged, channels, grid * cells, m), grid, cells, channels)
    }
}

/// The class of each pixel by its scores `[.., c]`: the largest, of equal ones the first; a score that is no number is never the largest.
pub fn classes_of(scores: &[f32], classes: usize) -> impl Iterator<Item = usize> {
    scores.chunks_exact(classes).map(move |pixel| {
        let better =
            |best: usize, class: usize| if pixel[class] > pixel[best] || pixel[best].is_nan() { class } else { best };
        (1..classes).fold(0, better)
    })
}

/// Scores `[pixels, c]` as planes, `[c, pixels]`.
pub fn planes(scores: &[f32], classes: usize) -> Vec<f32> {
    (0..classes).flat_map(|class| scores.iter().skip(class).step_by(classes).copied()).collect()
}

/// The share of each class `[c]` in the pixels of a map of scores `[.., c]`.
pub(crate) fn shares(scores: &[f32], classes: usize) -> Vec<f32> {
    let mut counts = vec![0usize; classes];
    classes_of(scores, classes).for_each(|class| counts[class] += 1);
    let pixels = scores.len() / classes;
    counts.into_iter().map(|count| count as f32 / pixels.max(1) as f32).collect()
}

/// Tokens `[g · g, u · u · k]` as a map of cells `[g u, g u, k]`.
fn cells_of(tokens: &[f32], grid: usize, u: usize, k: usize) -> Vec<f32> {
    let mut cells = vec![0.0; tokens.len()];
    for_cells(grid, u, k, |token, cell| cells[cell..cell + k].copy_from_slice(&tokens[token..token + k]));
    cells
}

/// The way back of [`cells_of`].
fn tokens_of(cells: &[f32], grid: usize, u: usize, k: usize) -> Vec<f32> {
    let mut tokens = vec![0.0; cells.len()];
    for_cells(grid, u, k, |token, cell| tokens[token..token + k].copy_from_slice(&cells[cell..cell + k]));
    tokens
}

/// Where each cell begins among tokens and in the map.
fn for_cells(grid: usize, u: usize, k: usize, mut each: impl FnMut(usize, usize)) {
    for patch in 0..grid * grid {
        let (top, left) = (patch / grid * u, patch % grid * u);
        for cell in 0..u * u {
            let (row, column) = (top + cell / u, left + cell % u);
            each((patch * u * u + cell) * k, (row * grid * u + column) * k);
        }
    }
}

/// A map `[m, m, k]` with the image `[3, size, size]` beside it, the mean of `stride` × `stride` pixels each: `[m, m, k + 3]`.
fn join(map: &[f32], image: &[f32], (size, stride): (usize, usize), joined: &mut Vec<f32>) {
    let m = size / stride;
    let k = map.len() / (m * m);
    let share = 1.0 / (stride * stride) as f32;
    joined.clear();
    for (at, pixel) in map.chunks_exact(k).enumerate() {
        joined.extend_from_slice(pixel);
        let (top, left) = (at / m * stride, at % m * stride);
        for plane in image.chunks_exact(size * size) {
            let lines = (top..top + stride).flat_map(|line| &plane[line * size + left..][..stride]);
            joined.push(share * lines.sum::<f32>());
        }
    }
}
