//! The shape of a Vision Transformer, and the tensors that it calls for.

use crate::attention_pool::AttentionPool;
use crate::error::Error;
use crate::invalid::Invalid;
use crate::relative;
use crate::rotary::Rotary;
use melo_kernels::Gelu;
use serde::{Deserialize, Serialize};

/// Most tokens of an image: 1440 px in patches of 16. Attention takes their square in time, and heat maps in memory.
pub const MAX_TOKENS: usize = 8192;

/// Most multiplications and additions of one image's pass through all blocks, in thousands of millions: four times a ViT-g/14's at
/// 518 px.
pub const MAX_GIGAFLOPS: usize = 16_000;

/// GELU kinds by their names in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exact GELU.
    Erf,
    /// The tanh approximation.
    Tanh,
    /// `x · σ(1.702 x)`.
    Quick,
}

impl From<Activation> for Gelu {
    fn from(kind: Activation) -> Gelu {
        match kind {
            Activation::Erf => Gelu::Erf,
            Activation::Tanh => Gelu::Tanh,
            Activation::Quick => Gelu::Quick,
        }
    }
}

/// Which tokens become the feature that heads read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The class token; with a distillation token, both side by side.
    Token,
    /// The mean of the patch tokens.
    Avg,
    /// The class token and the mean of the patch tokens, side by side: Hugging Face's DINOv2 classifiers.
    TokenAvg,
    /// What a learnt query reads of the patch tokens, see [`AttentionPool`](crate::AttentionPool): SigLIP.
    Map,
}

/// How position embeddings are interpolated to another image size, both bicubic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionFilter {
    /// Antialiased, Keys' a = -0.5: timm.
    #[default]
    Antialiased,
    /// Four taps whatever the scale, a = -0.75: PyTorch's plain `bicubic`, as Hugging Face.
    Plain,
}

/// Architecture of a Vision Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Blocks.
    pub depth: usize,
    /// Width `d` of the residual stream.
    pub width: usize,
    /// Attention heads `h`; `d` is a multiple of it.
    pub heads: usize,
    /// Width of the MLP's hidden layer.
    pub mlp_hidden: usize,
    /// Side of a square patch, pixels.
    pub patch: usize,
    /// Side of the square image that `pos_embed` was trained for, pixels.
    pub image_size: usize,
    /// Epsilon of every LayerNorm.
    pub eps: f32,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Feature for heads.
    pub pool: Pool,
    /// LayerNorm right after the position embedding (`norm_pre`), as CLIP.
    pub pre_norm: bool,
    /// Final LayerNorm over tokens (`norm`).
    pub norm: bool,
    /// LayerNorm over the pooled feature (`fc_norm`).
    pub fc_norm: bool,
    /// A distillation token stands after the class token.
    pub distilled: bool,
    /// `pos_embed` has rows for the class and distillation tokens too.
    pub pos_embed_prefix: bool,
    /// The patch projection has a bias.
    pub patch_bias: bool,
    /// The fused q, k, v projection has a bias.
    pub qkv_bias: bool,
    /// Register tokens between the class token and the patches; they have no positions and no head reads them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub registers: usize,
    /// Both branches of a block are scaled by a vector `[d]` (`ls1`, `ls2`) before they join the residual stream.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layer_scale: bool,
    /// The MLP is a SwiGLU: `fc1` gives `[gate, up]`, `2 · mlp_hidden` wide, and `fc2` reads `silu(gate) · up`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub swiglu: bool,
    /// How positions become those of another image size.
    #[serde(default, skip_serializing_if = "is_default")]
    pub position_filter: PositionFilter,
    /// A class token stands in front of the patches.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub class_token: bool,
    /// Where `pos_embed` has rows for tokens in front of the patches, registers have theirs too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub register_positions: bool,
    /// LayerNorm over every head's query and key (`attn.q_norm`, `attn.k_norm`) before they meet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub qk_norm: bool,
    /// Tokens have a position embedding (`pos_embed`).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub pos_embed: bool,
    /// Queries and keys of patches are turned by where these stand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rotary: Option<Rotary>,
    /// Every block adds to its scores a bias by how far apart tokens stand (`attn.relative_position_bias_table`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub relative_positions: bool,
    /// LayerNorm over what attention gives, in front of its projection (`attn.norm`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub attn_norm: bool,
    /// LayerNorm over what `fc2` reads (`mlp.norm`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub mlp_norm: bool,
}

/// Fields that came later are left out where they say nothing, so that digests of older backbones stay what they were.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl VitConfig {
    /// Class token and distillation token, as far as there are any: what heads with token pooling read.
    pub fn class_tokens(&self) -> usize {
        usize::from(self.class_token) + usize::from(self.distilled)
    }

    /// Class, distillation and register tokens: all that stand in front of the patches.
    pub fn prefix_tokens(&self) -> usize {
        self.class_tokens() + self.registers
    }

    /// Rows of `pos_embed` in front of those of the patches.
    pub fn position_prefix(&self) -> usize {
        match (self.pos_embed && self.pos_embed_prefix, self.register_positions) {
            (false, _) => 0,
            (true, false) => self.class_tokens(),
            (true, true) => self.prefix_tokens(),
        }
    }

    /// Rows of `pos_embed`.
    pub(crate) fn position_rows(&self) -> usize {
        if self.pos_embed { self.position_prefix() + (self.image_size / self.patch).pow(2) } else { 0 }
    }

    /// Rows of a block's table of relative positions.
    pub(crate) fn relative_rows(&self) -> usize {
        if self.relative_positions { relative::distances(self.image_size / self.patch) } else { 0 }
    }

    /// Width of an attention head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Rows of `fc1`.
    pub fn fc1_out(&self) -> usize {
        self.mlp_hidden * if self.swiglu { 2 } else { 1 }
    }

    /// Tokens `t` of an image of side `size`.
    pub fn tokens(&self, size: usize) -> usize {
        self.volume_tokens(size, 1)
    }

    /// Tokens `t` of a volume of so many layers of patches, each of an image of side `size`.
    pub fn volume_tokens(&self, size: usize, layers: usize) -> usize {
        self.prefix_tokens() + layers * (size / self.patch).pow(2)
    }

    /// Checks that images of side `size` can be tiled by patches, and that a pass is no more than [`MAX_TOKENS`] and
    /// [`MAX_GIGAFLOPS`]: before anything is allocated by that size, whoever asks for it.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::ImageWork`].
    pub fn check_size(&self, size: usize) -> Result<(), Error> {
        let patch = self.patch;
        if size == 0 || !size.is_multiple_of(patch) {
            return Err(Error::ImageSize { size, patch });
        }
        self.check_work(size, 1)
    }

    /// Checks the same of volumes of so many layers of patches, and that the network's positions are of a kind that layers can share.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::ImageWork`], [`Error::Volume`].
    pub fn check_volume(&self, size: usize, layers: usize) -> Result<(), Error> {
        if self.relative_positions {
            let reason = "the backbone's relative positions (BEiT) are of two dimensions alone".to_owned();
            return Err(Error::Volume { reason });
        }
        self.check_size(size)?;
        self.check_work(size, layers)
    }

    fn check_work(&self, size: usize, layers: usize) -> Result<(), Error> {
        let refused = |what, asked, most| Err(Error::ImageWork { size, what, asked, most });
        let patches = (size / self.patch).saturating_pow(2).saturating_mul(layers);
        let tokens = patches.saturating_add(self.prefix_tokens());
        if tokens > MAX_TOKENS {
            return refused("tokens", tokens, MAX_TOKENS);
        }
        let gigaflops = (self.blocks_flops(tokens) / 1_000_000_000) as usize;
        if gigaflops > MAX_GIGAFLOPS {
            return refused("thousand million operations", gigaflops, MAX_GIGAFLOPS);
        }
        Ok(())
    }

    /// Length of the feature that heads read: `d`, or `2 d` where two tokens stand side by side.
    pub fn feature_width(&self) -> usize {
        match self.pool {
            Pool::Token => self.width * self.class_tokens(),
            Pool::Avg | Pool::Map => self.width,
            Pool::TokenAvg => self.width * 2,
        }
    }

    /// Length of what a block gives of an image in short: its class token, where there is one, and the mean of its patch tokens.
    pub fn intermediate_width(&self) -> usize {
        self.width * (1 + self.class_tokens().min(1))
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let wrong = |field, reason: String| Err(Invalid::new(field, reason));
        let VitConfig { depth, width, heads, mlp_hidden, patch, image_size, eps, registers, .. } = *self;
        // Far beyond every published ViT, and small enough that no product of two of them wraps around.
        const MOST: usize = 1 << 16;
        let sizes = [("depth", depth), ("width", width), ("mlp_hidden", mlp_hidden), ("patch", patch)];
        if let Some((name, size)) =
            sizes.into_iter().chain([("image_size", image_size)]).find(|(_, size)| !(1..=MOST).contains(size))
        {
            return wrong(name, format!("{name} {size} is not in 1 to {MOST}"));
        }
        if heads == 0 || !width.is_multiple_of(heads) {
            return wrong("heads", format!("width {width} is not a multiple of {heads} heads"));
        }
        if !image_size.is_multiple_of(patch) {
            return wrong("image_size", format!("image_size {image_size} is not a multiple of patch {patch}"));
        }
        if !(eps.is_finite() && eps > 0.0) {
            return wrong("eps", format!("eps {eps} is not positive"));
        }
        if registers > MOST {
            return wrong("registers", format!("{registers} registers are more than {MOST}"));
        }
        if self.norm && self.fc_norm {
            return wrong("fc_norm", "norm and fc_norm exclude each other".into());
        }
        if let Some(rotary) = self.rotary {
            rotary.check(self.head_width())?;
        }
        if self.relative_positions && self.prefix_tokens() != 1 {
            let reason =
                format!("relative positions go with one token before the patches, not {}", self.prefix_tokens());
            return wrong("relative_positions", reason);
        }
        if self.pool == Pool::TokenAvg && (self.fc_norm || self.distilled) {
            return wrong("pool", "pooling tokenavg goes with neither fc_norm nor a distillation token".into());
        }
        if !self.class_token && (self.distilled || matches!(self.pool, Pool::Token | Pool::TokenAvg)) {
            let reason = "a distillation token, and pooling token or tokenavg, go with a class token only";
            return wrong("class_token", reason.into());
        }
        if self.pool == Pool::Map && (self.fc_norm || self.swiglu) {
            return wrong("pool", "pooling map goes with neither fc_norm nor a SwiGLU".into());
        }
        Ok(())
    }

    /// Name and shape of every tensor of the backbone, in the order of `Weights::tensors`; names as timm's.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (d, hidden) = (self.width, self.mlp_hidden);
        let mut shapes = Vec::new();
        let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));
        if self.class_token {
            add("cls_token", &[1, 1, d]);
        }
        if self.distilled {
            add("dist_token", &[1, 1, d]);
        }
        if self.registers > 0 {
            add("reg_token", &[1, self.registers, d]);
        }
        if self.pos_embed {
            add("pos_embed", &[1, self.position_rows(), d]);
        }
        add("patch_embed.proj.weight", &[d, 3, self.patch, self.patch]);
        if self.patch_bias {
            add("patch_embed.proj.bias", &[d]);
        }
        let mut norm = |name: &str, present: bool| {
            if present {
                add(&format!("{name}.weight"), &[d]);
                add(&format!("{name}.bias"), &[d]);
            }
        };
        norm("norm_pre", self.pre_norm);
        norm("norm", self.norm);
        norm("fc_norm", self.fc_norm);
        if self.pool == Pool::Map {
            AttentionPool::tensor_shapes(self).iter().for_each(|(name, shape)| add(name, shape));
        }
        for block in 0..self.depth {
            let mut add = |name: &str, shape: &[usize]| add(&format!("blocks.{block}.{name}"), shape);
            add("norm1.weight", &[d]);
            add("norm1.bias", &[d]);
            add("attn.qkv.weight", &[3 * d, d]);
            if self.qkv_bias {
                add("attn.qkv.bias", &[3 * d]);
            }
            for side in ["q", "k"].into_iter().filter(|_| self.qk_norm) {
                add(&format!("attn.{side}_norm.weight"), &[self.head_width()]);
                add(&format!("attn.{side}_norm.bias"), &[self.head_width()]);
            }
            if self.relative_positions {
                add("attn.relative_position_bias_table", &[self.relative_rows(), self.heads]);
            }
            if self.attn_norm {
                add("attn.norm.weight", &[d]);
                add("attn.norm.bias", &[d]);
            }
            add("attn.proj.weight", &[d, d]);
            add("attn.proj.bias", &[d]);
            if self.layer_scale {
                add("ls1.gamma", &[d]);
            }
            add("norm2.weight", &[d]);
            add("norm2.bias", &[d]);
            add("mlp.fc1.weight", &[self.fc1_out(), d]);
            add("mlp.fc1.bias", &[self.fc1_out()]);
            if self.mlp_norm {
                add("mlp.norm.weight", &[hidden]);
                add("mlp.norm.bias", &[hidden]);
            }
            add("mlp.fc2.weight", &[d, hidden]);
            add("mlp.fc2.bias", &[d]);
            if self.layer_scale {
                add("ls2.gamma", &[d]);
            }
        }
        shapes
    }

    /// Parameters of the backbone, without any classifier.
    pub fn parameters(&self) -> usize {
        self.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}
