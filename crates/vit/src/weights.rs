//! The parameters of a backbone, named as the graph reads: with matrices in whatever form an engine wants them.

use crate::attention_pool::AttentionPool;
use crate::config::{Pool, VitConfig};
use crate::{positions, relative};
use std::fmt;

/// A linear layer; an empty bias is none.
#[derive(Clone, Debug)]
pub struct Linear<W = Vec<f32>> {
    /// Weight, `[out, in]`.
    pub weight: W,
    /// Bias, `[out]` or empty.
    pub bias: Vec<f32>,
}

/// A LayerNorm's parameters.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Scale, `[d]`.
    pub gamma: Vec<f32>,
    /// Shift, `[d]`.
    pub beta: Vec<f32>,
}

/// One transformer block.
#[derive(Clone, Debug)]
pub struct Block<W = Vec<f32>> {
    /// LayerNorm before attention.
    pub norm1: Norm,
    /// Fused projection, `[3d, d]`.
    pub qkv: Linear<W>,
    /// LayerNorms of a head's query and key, `[d / h]` each.
    pub qk_norm: Option<[Norm; 2]>,
    /// Bias of relative positions, `[distances, h]` or empty.
    pub relative: Vec<f32>,
    /// LayerNorm over what attention gives.
    pub attn_norm: Option<Norm>,
    /// Output projection, `[d, d]`.
    pub proj: Linear<W>,
    /// Layer scale of the attention branch, `[d]` or empty.
    pub ls1: Vec<f32>,
    /// LayerNorm before the MLP.
    pub norm2: Norm,
    /// First MLP layer, `[hidden, d]`; of a SwiGLU `[2 · hidden, d]`.
    pub fc1: Linear<W>,
    /// LayerNorm over what the second layer reads, `[hidden]`.
    pub mlp_norm: Option<Norm>,
    /// Second MLP layer, `[d, hidden]`.
    pub fc2: Linear<W>,
    /// Layer scale of the MLP branch, `[d]` or empty.
    pub ls2: Vec<f32>,
}

/// A matrix of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Fused projection.
    Qkv,
    /// Output projection.
    Proj,
    /// First MLP layer.
    Fc1,
    /// Second MLP layer.
    Fc2,
}

impl Layer {
    /// Every matrix of a block, in the order of computation.
    pub const ALL: [Layer; 4] = [Layer::Qkv, Layer::Proj, Layer::Fc1, Layer::Fc2];

    /// Output and input features.
    pub fn features(self, config: &VitConfig) -> (usize, usize) {
        let d = config.width;
        match self {
            Layer::Qkv => (3 * d, d),
            Layer::Proj => (d, d),
            Layer::Fc1 => (config.fc1_out(), d),
            Layer::Fc2 => (d, config.mlp_hidden),
        }
    }
}

/// As the graph names it: `qkv`, `proj`, `fc1`, `fc2`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Qkv => "qkv",
            Layer::Proj => "proj",
            Layer::Fc1 => "fc1",
            Layer::Fc2 => "fc2",
        })
    }
}

impl<W> Block<W> {
    /// The same block with its matrices, in the order of [`Layer::ALL`], in another form.
    pub(crate) fn map<V>(self, mut form: impl FnMut(Layer, W) -> V) -> Block<V> {
        let mut linear = |layer, Linear { weight, bias }| Linear { weight: form(layer, weight), bias };
        let Block { norm1, qkv, qk_norm, relative, attn_norm, proj, ls1, norm2, fc1, mlp_norm, fc2, ls2 } = self;
        let (qkv, proj) = (linear(Layer::Qkv, qkv), linear(Layer::Proj, proj));
        let (fc1, fc2) = (linear(Layer::Fc1, fc1), linear(Layer::Fc2, fc2));
        Block { norm1, qkv, qk_norm, relative, attn_norm, proj, ls1, norm2, fc1, mlp_norm, fc2, ls2 }
    }
}

/// All parameters of a backbone, or the gradients of them.
#[derive(Clone, Debug)]
pub struct Weights<W = Vec<f32>> {
    /// Class token, `[d]` or empty.
    pub cls_token: Vec<f32>,
    /// Distillation token, `[d]` or empty.
    pub dist_token: Vec<f32>,
    /// Register tokens, `[registers, d]` or empty.
    pub reg_token: Vec<f32>,
    /// Position embedding, `[prefix + grid², d]` or empty; registers mostly have none.
    pub pos_embed: Vec<f32>,
    /// Patch projection, `[d, 3·p·p]`.
    pub patch_embed: Linear<W>,
    /// LayerNorm before the first block.
    pub norm_pre: Option<Norm>,
    /// LayerNorm after the last block.
    pub norm: Option<Norm>,
    /// LayerNorm of the pooled feature.
    pub fc_norm: Option<Norm>,
    /// What reads the feature of the tokens, with pooling `map`.
    pub attn_pool: Option<AttentionPool<W>>,
    /// The blocks.
    pub blocks: Vec<Block<W>>,
}

impl Linear {
    pub(crate) fn zeros(out: usize, input: usize, bias: bool) -> Self {
        Linear { weight: vec![0.0; out * input], bias: vec![0.0; if bias { out } else { 0 }] }
    }

    pub(crate) fn by_ref(&self) -> Linear<&[f32]> {
        Linear { weight: &self.weight, bias: self.bias.clone() }
    }
}

impl Norm {
    pub(crate) fn zeros(d: usize) -> Self {
        Norm { gamma: vec![0.0; d], beta: vec![0.0; d] }
    }
}

impl Weights {
    /// All zeros, in the shapes of `config`.
    pub fn zeros(config: &VitConfig) -> Self {
        let (d, hidden) = (config.width, config.mlp_hidden);
        let norm = |present: bool| present.then(|| Norm::zeros(d));
        let scale = || vec![0.0; if config.layer_scale { d } else { 0 }];
        Weights {
            cls_token: vec![0.0; if config.class_token { d } else { 0 }],
            dist_token: vec![0.0; if config.distilled { d } else { 0 }],
            reg_token: vec![0.0; config.registers * d],
            pos_embed: vec![0.0; config.position_rows() * d],
            patch_embed: Linear::zeros(d, 3 * config.patch * config.patch, config.patch_bias),
            norm_pre: norm(config.pre_norm),
            norm: norm(config.norm),
            fc_norm: norm(config.fc_norm),
            attn_pool: (config.pool == Pool::Map).then(|| AttentionPool::zeros(config)),
            blocks: (0..config.depth)
                .map(|_| Block {
                    norm1: Norm::zeros(d),
                    qkv: Linear::zeros(3 * d, d, config.qkv_bias),
                    qk_norm: config.qk_norm.then(|| [(); 2].map(|()| Norm::zeros(config.head_width()))),
                    relative: vec![0.0; config.relative_rows() * config.heads],
                    attn_norm: config.attn_norm.then(|| Norm::zeros(d)),
                    proj: Linear::zeros(d, d, true),
                    ls1: scale(),
                    norm2: Norm::zeros(d),
                    fc1: Linear::zeros(config.fc1_out(), d, true),
                    mlp_norm: config.mlp_norm.then(|| Norm::zeros(hidden)),
                    fc2: Linear::zeros(d, hidden, true),
                    ls2: scale(),
                })
                .collect(),
        }
    }

    /// Every tensor, in the order of [`VitConfig::tensor_shapes`].
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        let mut all = vec![&self.cls_token, &self.dist_token, &self.reg_token, &self.pos_embed];
        all.extend([&self.patch_embed.weight, &self.patch_embed.bias]);
        for norm in [&self.norm_pre, &self.norm, &self.fc_norm].into_iter().flatten() {
            all.extend([&norm.gamma, &norm.beta]);
        }
        all.extend(self.attn_pool.iter().flat_map(AttentionPool::tensors));
        for Block { norm1, qkv, qk_norm, relative, attn_norm, proj, ls1, norm2, fc1, mlp_norm, fc2, ls2 } in
            &self.blocks
        {
            all.extend([&norm1.gamma, &norm1.beta, &qkv.weight, &qkv.bias]);
            all.extend(qk_norm.iter().flatten().flat_map(|norm| [&norm.gamma, &norm.beta]));
            all.push(relative);
            all.extend(attn_norm.iter().flat_map(|norm| [&norm.gamma, &norm.beta]));
            all.extend([&proj.weight, &proj.bias, ls1, &norm2.gamma, &norm2.beta, &fc1.weight, &fc1.bias]);
            all.extend(mlp_norm.iter().flat_map(|norm| [&norm.gamma, &norm.beta]));
            all.extend([&fc2.weight, &fc2.bias, ls2]);
        }
        all.retain(|tensor| !tensor.is_empty());
        all
    }

    /// As [`Weights::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let mut all = vec![&mut self.cls_token, &mut self.dist_token, &mut self.reg_token, &mut self.pos_embed];
        all.extend([&mut self.patch_embed.weight, &mut self.patch_embed.bias]);
        for norm in [&mut self.norm_pre, &mut self.norm, &mut self.fc_norm].into_iter().flatten() {
            all.extend([&mut norm.gamma, &mut norm.beta]);
        }
        all.extend(self.attn_pool.iter_mut().flat_map(AttentionPool::tensors_mut));
        for Block { norm1, qkv, qk_norm, relative, attn_norm, proj, ls1, norm2, fc1, mlp_norm, fc2, ls2 } in
            &mut self.blocks
        {
            all.extend([&mut norm1.gamma, &mut norm1.beta, &mut qkv.weight, &mut qkv.bias]);
            all.extend(qk_norm.iter_mut().flatten().flat_map(|norm| [&mut norm.gamma, &mut norm.beta]));
            all.push(relative);
            all.extend(attn_norm.iter_mut().flat_map(|norm| [&mut norm.gamma, &mut norm.beta]));
            all.extend([&mut proj.weight, &mut proj.bias, ls1, &mut norm2.gamma, &mut norm2.beta]);
            all.extend([&mut fc1.weight, &mut fc1.bias]);
            all.extend(mlp_norm.iter_mut().flat_map(|norm| [&mut norm.gamma, &mut norm.beta]));
            all.extend([&mut fc2.weight, &mut fc2.bias, ls2]);
        }
        all.retain(|tensor| !tensor.is_empty());
        all
    }

    /// The same parameters with the matrices, nearly all of them, borrowed.
    pub(crate) fn by_ref(&self) -> Weights<&[f32]> {
        fn block(block: &Block) -> Block<&[f32]> {
            Block {
                norm1: block.norm1.clone(),
                qkv: block.qkv.by_ref(),
                qk_norm: block.qk_norm.clone(),
                relative: block.relative.clone(),
                attn_norm: block.attn_norm.clone(),
                proj: block.proj.by_ref(),
                ls1: block.ls1.clone(),
                norm2: block.norm2.clone(),
                fc1: block.fc1.by_ref(),
                mlp_norm: block.mlp_norm.clone(),
                fc2: block.fc2.by_ref(),
                ls2: block.ls2.clone(),
            }
        }
        Weights {
            cls_token: self.cls_token.clone(),
            dist_token: self.dist_token.clone(),
            reg_token: self.reg_token.clone(),
            pos_embed: self.pos_embed.clone(),
            patch_embed: self.patch_embed.by_ref(),
            norm_pre: self.norm_pre.clone(),
            norm: self.norm.clone(),
            fc_norm: self.fc_norm.clone(),
            attn_pool: self.attn_pool.as_ref().map(AttentionPool::by_ref),
            blocks: self.blocks.iter().map(block).collect(),
        }
    }

    /// Positions interpolated for another image size, so that training can go on there.
    pub fn resize_positions(&mut self, config: &mut VitConfig, image_size: usize) {
        self.pos_embed = positions::resample(&self.pos_embed, config, image_size);
        if config.relative_positions {
            for block in &mut self.blocks {
                block.relative = relative::resample(&block.relative, config, image_size);
            }
        }
        config.image_size = image_size;
    }
}
