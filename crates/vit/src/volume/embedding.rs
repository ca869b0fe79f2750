//! The embedding of a volume's patches, forward and backward.
//!
//! Of voxels `v [depth, s, s]` in patches of `k · p · p`, with the depth position `z` of their layer:
//!
//! ```text
//! e[l, y, x] = W v[l·k.., y·p.., x·p..] + b + z[l]          W [d, k·p·p], z [depth / k, d]
//! ```
//!
//! It begins inflated (Carreira and Zisserman 2017): of a volume whose layers are all the same grey image it gives, in every layer, what the
//! backbone gives of that image. With `W₂ [d, 3·p·p]` and `b₂` the backbone's, `m` and `σ` what voxels are normalised by, `z` zero:
//!
//! ```text
//! W = Σ_c W₂_c · σ / σ_c / k in each of the k layers        b = b₂ + Σ_c (m - m_c) / σ_c · Σ_ij W₂_cij
//! ```

use crate::backbone::Backbone;
use crate::config::VitConfig;
use crate::error::Error;
use crate::invalid::Invalid;
use crate::preprocess::Preprocess;
use melo_kernels::{Kernels, Mat, MatMut, Precision};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Rows of the weight whose gradients are summed by one thread.
const ROWS: usize = 48;

/// How volumes are embedded; in cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Voxels `k` of a patch along the depth; across it, it has the backbone's side.
    pub patch_depth: usize,
}

impl VolumeConfig {
    /// Checks it against how volumes become input.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self, preprocess: &Preprocess) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("volume", format!("volume: {reason}")));
        let Some(depth) = preprocess.depth else { return wrong("the preprocessing is of images".to_owned()) };
        if self.patch_depth == 0 || !depth.is_multiple_of(self.patch_depth) {
            let patch = self.patch_depth;
            return wrong(format!("a depth of {depth} voxels is not a multiple of the patch's {patch}"));
        }
        Ok(())
    }

    /// Layers of patches of what this preprocessing gives.
    pub fn layers(&self, preprocess: &Preprocess) -> usize {
        preprocess.depth.unwrap_or(0) / self.patch_depth.max(1)
    }
}

/// What makes patches of voxels, or the gradients of it.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeEmbedding {
    /// Settings.
    pub config: VolumeConfig,
    /// `W [d, k·p·p]`.
    pub weight: Vec<f32>,
    /// `b [d]`.
    pub bias: Vec<f32>,
    /// `z [layers, d]`.
    pub positions: Vec<f32>,
    /// Side `p` of a patch, pixels.
    patch: usize,
    /// Side `s` of the volume, voxels.
    size: usize,
}

impl VolumeEmbedding {
    /// All zeros, for what a preprocessing gives.
    pub fn zeros(config: VolumeConfig, preprocess: &Preprocess, vit: &VitConfig) -> Self {
        let (d, patch) = (vit.width, vit.patch);
        VolumeEmbedding {
            config,
            weight: vec![0.0; d * config.patch_depth * patch * patch],
            bias: vec![0.0; d],
            positions: vec![0.0; config.layers(preprocess) * d],
            patch,
            size: preprocess.size,
        }
    }

    /// One of the same shape, all zeros.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.tensors_mut().into_iter().for_each(|tensor| tensor.fill(0.0));
        zeros
    }

    /// A backbone's own, inflated.
    ///
    /// # Errors
    /// [`Error::Volume`] for settings that do not fit each other, and as [`VitConfig::check_volume`].
    pub fn inflated(config: VolumeConfig, preprocess: &Preprocess, backbone: &Backbone) -> Result<Self, Error> {
        config.check(preprocess).map_err(|invalid| Error::Volume { reason: invalid.reason })?;
        let vit = backbone.info().config();
        vit.check_volume(preprocess.size, config.layers(preprocess))?;
        let mut embedding = VolumeEmbedding::zeros(config, preprocess, vit);
        let (own, area) = (&backbone.weights().patch_embed, vit.patch * vit.patch);
        let (mean, std) = preprocess.of_voxels();
        let scale = |c: usize| f64::from(std / preprocess.std[c]);
        let shift = |c: usize| f64::from((mean - preprocess.mean[c]) / preprocess.std[c]);
        let rows = own.weight.chunks_exact(3 * area).zip(embedding.weight.chunks_exact_mut(config.patch_depth * area));
        for (row, ((own_row, weight), bias)) in rows.zip(&mut embedding.bias).enumerate() {
            let of = |c: usize, at: usize| f64::from(own_row[c * area + at]);
            let share = config.patch_depth as f64;
            for (at, w) in weight.iter_mut().enumerate() {
                *w = ((0..3).map(|c| of(c, at % area) * scale(c)).sum::<f64>() / share) as f32;
            }
            let moved = (0..3).map(|c| shift(c) * (0..area).map(|at| of(c, at)).sum::<f64>()).sum::<f64>();
            *bias = (own.bias.get(row).map_or(0.0, |&b| f64::from(b)) + moved) as f32;
        }
        Ok(embedding)
    }

    /// Name and shape of every tensor, in the order of [`VolumeEmbedding::tensors`], for what a preprocessing gives.
    pub fn tensor_shapes(config: VolumeConfig, preprocess: &Preprocess, vit: &VitConfig) -> Vec<(String, Vec<usize>)> {
        let (d, p) = (vit.width, vit.patch);
        vec![
            ("volume_embed.proj.weight".to_owned(), vec![d, 1, config.patch_depth, p, p]),
            ("volume_embed.proj.bias".to_owned(), vec![d]),
            ("volume_embed.depth_pos".to_owned(), vec![config.layers(preprocess), d]),
        ]
    }

    /// Weight, bias, depth positions.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        vec![&self.weight, &self.bias, &self.positions]
    }

    /// As [`VolumeEmbedding::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        vec![&mut self.weight, &mut self.bias, &mut self.positions]
    }

    /// Layers of patches.
    pub fn layers(&self) -> usize {
        self.positions.len() / self.bias.len()
    }

    /// Numbers of a volume, `depth · s · s`.
    pub fn voxels(&self) -> usize {
        self.layers() * self.config.patch_depth * self.size * self.size
    }

    /// Patches of a layer.
    fn layer(&self) -> usize {
        (self.size / self.patch).pow(2)
    }

    /// Voxels `[depth, s, s]`, normalised, to patches `out [layers, (s / p)², d]`.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn forward(&self, voxels: &[f32], out: &mut [f32]) {
        let (d, rows, columns) = (self.bias.len(), self.layers() * self.layer(), self.columns());
        let patches = self.unfold(voxels);
        let (patches, weight) = (Mat::new(&patches, rows, columns), Mat::new(&self.weight, d, columns).t());
        Kernels::detect(Precision::F32).matmul(MatMut::new(out, rows, d), 0.0, 1.0, patches, weight);
        let layers = out.chunks_exact_mut(self.layer() * d).zip(self.positions.chunks_exact(d));
        for (layer, position) in layers {
            for patch in layer.chunks_exact_mut(d) {
                patch.iter_mut().zip(&self.bias).zip(position).for_each(|((e, b), z)| *e += b + z);
            }
        }
    }

    /// Adds to a gradient that of some volumes, in their order: of each its [`VolumeEmbedding::unfold`]ed voxels and the gradient of its
    /// patches.
    pub(super) fn backward(&self, volumes: &[(Vec<f32>, Vec<f32>)], gradient: &mut VolumeEmbedding) {
        let (d, rows, columns) = (self.bias.len(), self.layers() * self.layer(), self.columns());
        let kernels = Kernels::detect(Precision::F32);
        gradient.weight.par_chunks_mut(ROWS * columns).enumerate().for_each(|(chunk, weight)| {
            let (first, count) = (chunk * ROWS, weight.len() / columns);
            for (patches, d_patches) in volumes {
                let d_patches = Mat::strided(&d_patches[first..], rows, count, d).t();
                let weight = MatMut::new(weight, count, columns);
                kernels.matmul(weight, 1.0, 1.0, d_patches, Mat::new(patches, rows, columns));
            }
        });
        for (_, d_patches) in volumes {
            let layers = d_patches.chunks_exact(self.layer() * d).zip(gradient.positions.chunks_exact_mut(d));
            for (layer, d_position) in layers {
                for patch in layer.chunks_exact(d) {
                    let sums = gradient.bias.iter_mut().zip(&mut *d_position).zip(patch);
                    sums.for_each(|((b, z), d)| (*b, *z) = (*b + d, *z + d));
                }
            }
        }
    }

    fn columns(&self) -> usize {
        self.config.patch_depth * self.patch * self.patch
    }

    /// Voxels `[depth, s, s]` to patches `[layers · (s / p)², k·p·p]`, in the order of the weight.
    pub(super) fn unfold(&self, voxels: &[f32]) -> Vec<f32> {
        assert_eq!(voxels.len(), self.voxels(), "voxels of a volume of another size");
        let (k, p, s) = (self.config.patch_depth, self.patch, self.size);
        let mut patches = Vec::with_capacity(voxels.len());
        for layer in voxels.chunks_exact(k * s * s) {
            for (top, left) in (0..s / p).flat_map(|y| (0..s / p).map(move |x| (y * p, x * p))) {
                for line in (0..k * p).map(|line| (line / p * s + top + line % p) * s + left) {
                    patches.extend_from_slice(&layer[line..line + p]);
                }
            }
        }
        patches
    }
}
