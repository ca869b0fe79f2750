//! A backbone on the card: matrices in f32 or bfloat16, everything else in f32; and what it needs at an image size.

use crate::driver::Address;
use crate::gpu::{Buffer, Gpu};
use melo_vit::{BackboneInfo, Error, Precision, RotaryPairs, VitConfig, Weights, relative_index};

/// Widest attention head that the kernels hold in shared memory; `MOST` of `kernels/attention.cu`.
const MOST_HEAD_WIDTH: usize = 112;

/// A frozen linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Buffer,
    bias: Option<Buffer>,
    pub(crate) out: usize,
    pub(crate) input: usize,
    /// The weight is in bfloat16.
    pub(crate) bf16: bool,
}

/// A LayerNorm.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) gamma: Buffer,
    pub(crate) beta: Buffer,
    pub(crate) eps: f32,
}

/// A block, named as [`melo_vit::Block`].
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) norm1: Norm,
    pub(crate) qkv: Linear,
    pub(crate) qk_norm: Option<[Norm; 2]>,
    pub(crate) attn_norm: Option<Norm>,
    pub(crate) proj: Linear,
    pub(crate) ls1: Option<Buffer>,
    pub(crate) norm2: Norm,
    pub(crate) fc1: Linear,
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) fc2: Linear,
    pub(crate) ls2: Option<Buffer>,
}

/// Attention pooling, named as [`melo_vit::AttentionPool`].
#[derive(Debug)]
pub(crate) struct AttentionPool {
    /// What asks, after its projection, `[d]`: the same of every image.
    pub(crate) query: Buffer,
    pub(crate) kv: Linear,
    pub(crate) proj: Linear,
    pub(crate) norm: Norm,
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
}

/// All of a backbone.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: VitConfig,
    pub(crate) patch_embed: Linear,
    pub(crate) norm_pre: Option<Norm>,
    pub(crate) norm: Option<Norm>,
    pub(crate) fc_norm: Option<Norm>,
    pub(crate) attn_pool: Option<AttentionPool>,
    pub(crate) blocks: Vec<Block>,
    /// Tokens and positions in host memory, from which those of an image size are made; without matrices.
    small: Weights,
}

/// Side of images, pixels, and layers of what comes as embedded patches, where it does.
pub(crate) type Shape = (usize, Option<usize>);

/// Tokens and positions of images of a shape.
#[derive(Debug)]
pub(crate) struct Positions {
    pub(crate) size: usize,
    pub(crate) layers: Option<usize>,
    /// Class, distillation and register tokens with theirs, `[f, d]`.
    pub(crate) prefix: Buffer,
    /// Of patches, `[patches, d]`: those of an image again for each layer.
    pub(crate) patches: Option<Buffer>,
    /// Cosines and sines of an image, `[(s / p)², w / 2, 2]`.
    pub(crate) turns: Option<Buffer>,
    /// Every block's table of relative positions, and the index into them.
    relative: Option<(Vec<Buffer>, Buffer)>,
}

impl Linear {
    fn new(gpu: &Gpu, of: &melo_vit::Linear, [out, input]: [usize; 2], bf16: bool) -> Result<Self, Error> {
        let weight = match bf16 {
            false => gpu.buffer(&of.weight)?,
            true => gpu.buffer(&of.weight.iter().map(|&w| half::bf16::from_f32(w).to_bits()).collect::<Vec<u16>>())?,
        };
        Ok(Linear { weight, bias: present(gpu, &of.bias)?, out, input, bf16 })
    }

    pub(crate) fn bias(&self) -> Option<Address> {
        self.bias.as_ref().map(Buffer::at)
    }
}

/// What asks in attention pooling, after its projection, `[d]`.
fn query(pool: &melo_vit::AttentionPool) -> Vec<f32> {
    let rows = pool.q.weight.chunks_exact(pool.latent.len()).zip(&pool.q.bias);
    let dot = |row: &[f32]| row.iter().zip(&pool.latent).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    rows.map(|(row, &bias)| (dot(row) + f64::from(bias)) as f32).collect()
}

/// A vector, where there is one.
fn present(gpu: &Gpu, values: &[f32]) -> Result<Option<Buffer>, Error> {
    (!values.is_empty()).then(|| gpu.buffer(values)).transpose()
}

impl Network {
    /// Weights onto the card.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the name of what this engine does not compute; [`Error::Device`].
    pub(crate) fn new(gpu: &Gpu, info: &BackboneInfo, weights: &Weights, precision: Precision) -> Result<Self, Error> {
        let config = info.config().clone();
        check(&config, precision)?;
        let norm = |norm: &melo_vit::Norm| {
            Ok::<_, Error>(Norm { gamma: gpu.buffer(&norm.gamma)?, beta: gpu.buffer(&norm.beta)?, eps: config.eps })
        };
        let maybe = |of: &Option<melo_vit::Norm>| of.as_ref().map(norm).transpose();
        let bf16 = precision == Precision::Bf16;
        let linear = |of: &melo_vit::Linear, out: usize, input: usize| Linear::new(gpu, of, [out, input], bf16);
        let (d, hidden) = (config.width, config.mlp_hidden);
        let block = |of: &melo_vit::Block| {
            let qk_norm = of.qk_norm.as_ref().map(|[q, k]| Ok::<_, Error>([norm(q)?, norm(k)?])).transpose()?;
            Ok::<_, Error>(Block {
                norm1: norm(&of.norm1)?,
                qkv: linear(&of.qkv, 3 * d, d)?,
                qk_norm,
                attn_norm: maybe(&of.attn_norm)?,
                proj: linear(&of.proj, d, d)?,
                ls1: present(gpu, &of.ls1)?,
                norm2: norm(&of.norm2)?,
                fc1: linear(&of.fc1, config.fc1_out(), d)?,
                mlp_norm: maybe(&of.mlp_norm)?,
                fc2: linear(&of.fc2, d, hidden)?,
                ls2: present(gpu, &of.ls2)?,
            })
        };
        let attention_pool = |of: &melo_vit::AttentionPool| {
            Ok::<_, Error>(AttentionPool {
                query: gpu.buffer(&query(of))?,
                kv: linear(&of.kv, 2 * d, d)?,
                proj: linear(&of.proj, d, d)?,
                norm: norm(&of.norm)?,
                fc1: linear(&of.fc1, hidden, d)?,
                fc2: linear(&of.fc2, d, hidden)?,
            })
        };
        Ok(Network {
            patch_embed: linear(&weights.patch_embed, d, 3 * config.patch * config.patch)?,
            norm_pre: maybe(&weights.norm_pre)?,
            norm: maybe(&weights.norm)?,
            fc_norm: maybe(&weights.fc_norm)?,
            attn_pool: weights.attn_pool.as_ref().map(attention_pool).transpose()?,
            blocks: weights.blocks.iter().map(block).collect::<Result<_, Error>>()?,
            small: small(&config, weights),
            config,
        })
    }

    /// What images of this shape need.
    pub(crate) fn positions(&self, gpu: &Gpu, (size, layers): Shape) -> Result<Positions, Error> {
        let (mut config, mut weights) = (self.config.clone(), self.small.clone());
        weights.resize_positions(&mut config, size);
        let (grid, d, rows) = (size / config.patch, config.width, config.position_prefix());
        let Weights { cls_token, dist_token, reg_token, pos_embed, .. } = &weights;
        let (of_prefix, of_patches) = pos_embed.split_at(rows * d);
        let mut prefix = [&cls_token[..], dist_token, reg_token].concat();
        prefix.iter_mut().zip(of_prefix).for_each(|(x, position)| *x += position);
        let turns = config.rotary.map(|rotary| {
            let angles = rotary.angles(grid, config.head_width());
            angles.iter().flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect::<Vec<f32>>()
        });
        let relative = config.relative_positions.then(|| {
            let tables = weights
                .blocks
                .iter()
                .map(|block| gpu.buffer(&block.relative))
                .collect::<Result<Vec<Buffer>, Error>>()?;
            Ok((tables, gpu.buffer(&relative_index(grid))?))
        });
        Ok(Positions {
            size,
            layers,
            prefix: gpu.buffer(&prefix)?,
            patches: present(gpu, &of_patches.repeat(layers.unwrap_or(1)))?,
            turns: turns.map(|turns| gpu.buffer(&turns)).transpose()?,
            relative: relative.transpose()?,
        })
    }

    /// Queries and keys are turned in pairs of neighbours.
    pub(crate) fn turns_neighbours(&self) -> bool {
        self.config.rotary.is_some_and(|rotary| rotary.pairs == RotaryPairs::Neighbours)
    }
}

impl Positions {
    /// Numbers that a source gives of an image: `[3, s, s]`, or `[layers, (s / p)², d]`.
    pub(crate) fn loaded(&self, config: &VitConfig) -> usize {
        match self.layers {
            None => 3 * self.size * self.size,
            Some(layers) => layers * (self.size / config.patch).pow(2) * config.width,
        }
    }

    /// A block's table and the index into it.
    pub(crate) fn relative(&self, block: usize) -> Option<(Address, Address)> {
        self.relative.as_ref().map(|(tables, index)| (tables[block].at(), index.at()))
    }
}

/// Refuses by name what the kernels do not compute.
fn check(config: &VitConfig, precision: Precision) -> Result<(), Error> {
    let refused = |what: String| Err(Error::Unsupported { engine: crate::ENGINE, what });
    if !matches!(precision, Precision::F32 | Precision::Bf16) {
        return refused(format!("{precision}: f32 and bf16 are its precisions"));
    }
    match config.head_width() {
        width if width > MOST_HEAD_WIDTH => {
            refused(format!("attention heads of width {width}: at most {MOST_HEAD_WIDTH}"))
        }
        _ => Ok(()),
    }
}

/// The weights without what lies on the card.
fn small(config: &VitConfig, weights: &Weights) -> Weights {
    let mut small = Weights::zeros(&VitConfig { depth: 0, width: 0, mlp_hidden: 0, heads: 1, ..config.clone() });
    small.cls_token.clone_from(&weights.cls_token);
    small.dist_token.clone_from(&weights.dist_token);
    small.reg_token.clone_from(&weights.reg_token);
    small.pos_embed.clone_from(&weights.pos_embed);
    small.blocks = weights.blocks.iter().filter(|_| config.relative_positions).map(relative_alone).collect();
    small
}

/// A block of nothing but its relative positions.
fn relative_alone(block: &melo_vit::Block) -> melo_vit::Block {
    let linear = || melo_vit::Linear { weight: Vec::new(), bias: Vec::new() };
    let norm = || melo_vit::Norm { gamma: Vec::new(), beta: Vec::new() };
    melo_vit::Block {
        norm1: norm(),
        qkv: linear(),
        qk_norm: None,
        relative: block.relative.clone(),
        attn_norm: None,
        proj: linear(),
        ls1: Vec::new(),
        norm2: norm(),
        fc1: linear(),
        mlp_norm: None,
        fc2: linear(),
        ls2: Vec::new(),
    }
}
