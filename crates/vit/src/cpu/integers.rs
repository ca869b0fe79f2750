//! Which layers are computed in 8-bit integers: those whose error, measured on an image that everyone can make, is small.
//!
//! Weights say little of it. What decides is whether the activations of a token are of one size: where one in a thousand is a
//! hundred times as large as the others, rounding to 127 steps of the largest leaves nothing of the rest.

use super::buffers::{BlockTape, Buffers};
use super::packed::Packed;
use crate::engine::LayerError;
use crate::self_test::SelfTest;
use crate::weights::{Block, Layer};
use melo_kernels::{Kernels, PackedWeight};
use std::borrow::Cow;

/// A layer whose results are off by more than this, in parts of their Euclidean length, is not computed in integers.
const BOUND: f32 = 0.1;
/// Patches along a side of the image, at most: rows enough for an average, few enough for every start.
const GRID: usize = 8;

/// The weight of a layer in both forms; no integers where they cannot hold it.
pub(crate) struct Both {
    exact: PackedWeight,
    integers: Option<PackedWeight>,
}

impl Both {
    /// From a dense matrix `[out, in]`.
    pub(crate) fn new(kernels: &Kernels, weight: Cow<'_, [f32]>, (out, input): (usize, usize)) -> Self {
        let integers = kernels.pack_int8(&weight, out, input);
        Both { exact: kernels.pack(weight, out, input), integers }
    }
}

impl Packed {
    /// Gives a network that has no blocks yet these, each layer in the form that is near enough; tells how near integers are.
    pub(crate) fn add_measured(&mut self, blocks: Vec<Block<Both>>) -> Vec<LayerError> {
        let config = self.config.clone();
        let size = config.patch * GRID.min(config.image_size / config.patch);
        let positions = self.positions(size);
        let mut images = SelfTest::images(size).data;
        images.truncate(3 * size * size);
        let mut buffers = Buffers { images, ..Buffers::default() };
        self.embed(self.group_shape(1, size, None, &positions), &mut buffers);
        let mut errors = Vec::new();
        for (index, block) in blocks.into_iter().enumerate() {
            let mut integers = Vec::new();
            let exact = block.map(|_, both| {
                integers.push(both.integers);
                both.exact
            });
            self.weights.blocks.push(exact);
            let mut tape = BlockTape::default();
            // With the tables of the blocks that are there by now.
            let positions = self.positions(size);
            self.block(index, self.group_shape(1, size, None, &positions), &[], true, &mut buffers, &mut tape);
            let measured: Vec<_> = integers
                .into_iter()
                .zip(Layer::ALL)
                .map(|(integers, layer)| {
                    let error =
                        integers.as_ref().map_or(f32::INFINITY, |weight| self.error(index, layer, weight, &tape));
                    errors.push(LayerError { block: index, layer, error, integers: error <= BOUND });
                    integers.filter(|_| error <= BOUND)
                })
                .collect();
            let exact = self.weights.blocks.pop().into_iter();
            let mut measured = measured.into_iter();
            let chosen = exact.map(|block| block.map(|_, exact| measured.next().flatten().unwrap_or(exact)));
            self.weights.blocks.extend(chosen);
        }
        errors
    }

    /// How far a layer in integers is from itself on what the tape says that it read.
    fn error(&self, index: usize, layer: Layer, integers: &PackedWeight, tape: &BlockTape) -> f32 {
        let block = &self.weights.blocks[index];
        let mut read = Vec::new();
        let (read, exact) = match layer {
            Layer::Qkv => {
                self.layernorm(&block.norm1, &tape.x, &mut read);
                (&read, &block.qkv.weight)
            }
            Layer::Proj => {
                let read = match &block.attn_norm {
                    Some(norm) => {
                        self.layernorm(norm, &tape.o, &mut read);
                        &read
                    }
                    None => &tape.o,
                };
                (read, &block.proj.weight)
            }
            Layer::Fc1 => {
                self.layernorm(&block.norm2, &tape.x_mid, &mut read);
                (&read, &block.fc1.weight)
            }
            Layer::Fc2 => {
                read.resize(tape.h.len() / self.config.fc1_out() * self.config.mlp_hidden, 0.0);
                self.fc2_input(block, &tape.h, &mut read, &mut Vec::new());
                (&read, &block.fc2.weight)
            }
        };
        let [expected, found] = [exact, integers].map(|weight| {
            let mut y = vec![0.0; read.len() / weight.in_features() * weight.out_features()];
            self.kernels.linear(read, weight, &[], &mut y);
            y
        });
        let length = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let apart = length(&mut expected.iter().zip(&found).map(|(a, b)| a - b));
        (apart / length(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)) as f32
    }
}
