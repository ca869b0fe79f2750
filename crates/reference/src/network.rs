//! A Vision Transformer in f64, as the papers write it (arXiv 2010.11929, equations 1 to 4), and the slopes of its logits.

use melo_vit::{
    Activation, Dropout, FeatureKind, Features, LoraConfig, PluginRef, Pool, RotaryPairs, Target, VitConfig, Weights,
    relative_index,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

pub(crate) type Row = Vec<f64>;

/// Step of the central differences: in f64 it leaves `1e-16 · |logit| / 1e-5` of rounding and `1e-10 · logit'''` of
/// truncation.
const STEP: f64 = 1e-5;

/// Parameters by name, so that any of them can be moved.
pub(crate) struct Network {
    config: VitConfig,
    lora: LoraConfig,
    /// Layers of patches that come embedded, where images are of that kind.
    pub(crate) layers: Option<usize>,
    /// The blocks whose patch tokens the head reads; none where it reads the pooled feature.
    read: Option<Vec<usize>>,
    parameters: BTreeMap<String, Row>,
    /// Dropout on low-rank updates.
    pub(crate) dropout: Option<Dropout>,
}

/// One image's way through a network.
pub(crate) struct Pass {
    /// Index in the batch.
    index: usize,
    /// `[3, s, s]`, or embedded patches.
    image: Row,
    /// The residual stream before every block, and after the last.
    residuals: Vec<Vec<Row>>,
    /// The pooled feature.
    pub(crate) features: Row,
    /// What the head gives, see [`melo_vit::Head::outputs`].
    pub(crate) logits: Row,
}

/// Where a low-rank update is applied.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    block: usize,
    target: Target,
}

impl Network {
    /// A network for images of the side that `config` says.
    pub(crate) fn new(config: VitConfig, weights: &Weights, PluginRef { adapter, head }: PluginRef<'_>) -> Self {
        let shapes = config.tensor_shapes().into_iter().chain(head.shapes());
        let shapes = shapes.chain(adapter.map_or_else(Vec::new, |adapter| adapter.tensor_shapes(&config)));
        let adapted = adapter.map_or_else(Vec::new, |adapter| adapter.tensors());
        let values = weights.tensors().into_iter().chain(head.tensors()).chain(adapted);
        let parameters = shapes.zip(values).map(|((name, shape), values)| {
            assert_eq!(values.len(), shape.iter().product::<usize>(), "length of `{name}`");
            (name, values.iter().map(|&x| f64::from(x)).collect())
        });
        let lora = adapter.map_or_else(LoraConfig::none, |adapter| adapter.config.clone());
        let read = head.blocks().map(<[usize]>::to_vec);
        Network { parameters: parameters.collect(), config, lora, layers: None, read, dropout: None }
    }

    /// The forward pass of one image `[3, s, s]`, `index` of its batch.
    pub(crate) fn pass(&self, index: usize, image: Vec<f32>) -> Pass {
        let image: Row = image.into_iter().map(f64::from).collect();
        let mut residuals = vec![self.embed(&image)];
        for block in 0..self.config.depth {
            residuals.push(self.block(index, block, residuals[block].clone()));
        }
        let (features, logits) = (self.features(&residuals[self.config.depth]), self.outputs(&residuals));
        Pass { index, image, residuals, features, logits }
    }

    /// The slope of `d_logits · logits` by every value of a parameter.
    pub(crate) fn slopes(&mut self, name: &str, pass: &Pass, d_logits: &[f64]) -> Row {
        let count = self.parameters[name].len();
        let mut moved = |at: usize, by: f64| -> f64 {
            let value = &mut self.parameters.get_mut(name).expect("named alike")[at];
            let kept = std::mem::replace(value, *value + by);
            let logits = self.logits_again(name, pass);
            self.parameters.get_mut(name).expect("named alike")[at] = kept;
            dot(&logits, d_logits)
        };
        (0..count).map(|at| (moved(at, STEP) - moved(at, -STEP)) / (2.0 * STEP)).collect()
    }

    /// The slope of `d_logits · logits` by every value of embedded patches.
    pub(crate) fn patch_slopes(&self, pass: &Pass, d_logits: &[f64]) -> Row {
        let moved = |at: usize, by: f64| {
            let mut image = pass.image.clone();
            image[at] += by;
            let mut residuals = vec![self.embed(&image)];
            for block in 0..self.config.depth {
                residuals.push(self.block(pass.index, block, residuals[block].clone()));
            }
            dot(&self.outputs(&residuals), d_logits)
        };
        (0..pass.image.len()).map(|at| (moved(at, STEP) - moved(at, -STEP)) / (2.0 * STEP)).collect()
    }

    /// Attention of a block, `[h, t, t]`.
    pub(crate) fn attention(&self, block: usize, pass: &Pass) -> Row {
        self.attended(pass.index, block, &pass.residuals[block]).1
    }

    /// The slope of `d_logits · logits` by every entry of [`Network::attention`].
    pub(crate) fn attention_slopes(&mut self, block: usize, pass: &Pass, d_logits: &[f64]) -> Row {
        let (name, tokens) = (shift(block), pass.residuals[block].len());
        self.parameters.insert(name.clone(), vec![0.0; self.config.heads * tokens * tokens]);
        let slopes = self.slopes(&name, pass, d_logits);
        self.parameters.remove(&name);
        slopes
    }

    /// Logits of a pass after this parameter has moved: computed from where it first comes in.
    fn logits_again(&self, name: &str, pass: &Pass) -> Row {
        let first = match name.split('.').collect::<Vec<_>>()[..] {
            ["blocks", block, ..] => Some(block.parse().expect("a block's number")),
            ["head" | "norm" | "fc_norm" | "attn_pool", ..] => Some(self.config.depth),
            _ => None,
        };
        let mut residuals = match first {
            Some(block) => pass.residuals[..block + 1].to_vec(),
            None => vec![self.embed(&pass.image)],
        };
        for block in first.unwrap_or(0)..self.config.depth {
            residuals.push(self.block(pass.index, block, residuals[block].clone()));
        }
        self.outputs(&residuals)
    }

    /// What the head gives of the residual stream before every block and after the last.
    fn outputs(&self, residuals: &[Vec<Row>]) -> Row {
        let Some(blocks) = &self.read else {
            return self.linear("head", &[self.features(&residuals[self.config.depth])]).swap_remove(0);
        };
        let norm = ["norm", "fc_norm"].into_iter().zip([self.config.norm, self.config.fc_norm]);
        let norm = norm.filter(|(_, present)| *present).map(|(name, _)| name).next();
        let mut read = vec![Row::new(); residuals[0].len() - self.config.prefix_tokens()];
        for block in blocks {
            let patches = &residuals[block + 1][self.config.prefix_tokens()..];
            let patches = norm.map_or_else(|| patches.to_vec(), |norm| self.norm(norm, patches));
            read.iter_mut().zip(patches).for_each(|(read, patch)| read.extend(patch));
        }
        self.linear("head", &read).concat()
    }

    /// Patches projected, positions added, class tokens and registers in front.
    fn embed(&self, image: &[f64]) -> Vec<Row> {
        let VitConfig { patch: p, image_size: side, width: d, .. } = self.config;
        let pixel = |channel: usize, y: usize, x: usize| image[(channel * side + y) * side + x];
        let patch = |at: usize| {
            let (top, left) = (at / (side / p) * p, at % (side / p) * p);
            (0..3 * p * p).map(|i| pixel(i / (p * p), top + i / p % p, left + i % p)).collect()
        };
        let patches: Vec<Row> = match self.layers {
            None => self.linear("patch_embed.proj", &(0..(side / p).pow(2)).map(patch).collect::<Vec<Row>>()),
            Some(_) => image.chunks_exact(d).map(<[f64]>::to_vec).collect(),
        };
        let class = ["cls_token", "dist_token"].into_iter().filter_map(|name| self.parameters.get(name).cloned());
        let mut tokens: Vec<Row> = class.chain(patches).collect();
        let class = self.config.class_tokens();
        let first = if self.config.pos_embed_prefix { 0 } else { class };
        let positions = |tokens: &mut Vec<Row>| {
            let rows = || self.parameters.get("pos_embed").into_iter().flat_map(|rows| rows.chunks_exact(d));
            // Every layer has the positions of an image.
            let before = rows().count().saturating_sub((side / p).pow(2));
            let layers = (0..self.layers.unwrap_or(1)).flat_map(|_| rows().skip(before));
            let positions = rows().take(before).chain(layers);
            for (x, position) in tokens[first..].iter_mut().zip(positions) {
                add(x, position);
            }
        };
        let registers = self.parameters.get("reg_token").into_iter().flat_map(|rows| rows.chunks_exact(d));
        let registers = registers.map(<[f64]>::to_vec);
        if self.config.register_positions {
            tokens.splice(class..class, registers);
            positions(&mut tokens);
        } else {
            positions(&mut tokens);
            tokens.splice(class..class, registers);
        }
        if self.config.pre_norm { self.norm("norm_pre", &tokens) } else { tokens }
    }

    /// The residual stream through one block.
    fn block(&self, image: usize, block: usize, mut tokens: Vec<Row>) -> Vec<Row> {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let place = |target| Place { image, block, target };
        let (o, _) = self.attended(image, block, &tokens);
        let o = if self.config.attn_norm { self.norm(&name("attn.norm"), &o) } else { o };
        let mut a = self.linear(&name("attn.proj"), &o);
        self.adapt(place(Target::O), &o, &mut a, 0);
        self.join(&mut tokens, &name("ls1.gamma"), &a);

        let normed = self.norm(&name("norm2"), &tokens);
        let mut hidden = self.linear(&name("mlp.fc1"), &normed);
        self.adapt(place(Target::Fc1), &normed, &mut hidden, 0);
        for hidden in &mut hidden {
            if self.config.swiglu {
                let up = hidden.split_off(self.config.mlp_hidden);
                hidden.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up / (1.0 + (-*gate).exp()));
            } else {
                hidden.iter_mut().for_each(|h| *h = gelu(self.config.activation, *h));
            }
        }
        let hidden = if self.config.mlp_norm { self.norm(&name("mlp.norm"), &hidden) } else { hidden };
        let mut f = self.linear(&name("mlp.fc2"), &hidden);
        self.adapt(place(Target::Fc2), &hidden, &mut f, 0);
        self.join(&mut tokens, &name("ls2.gamma"), &f);

        if self.parameters.contains_key(&name("adapter.down.weight")) {
            let mut z = self.linear(&name("adapter.down"), &f);
            z.iter_mut().flatten().for_each(|z| *z = gelu(Activation::Erf, *z));
            let up = self.linear(&name("adapter.up"), &z);
            tokens.iter_mut().zip(up).for_each(|(x, up)| add(x, &up));
        }
        tokens
    }

    /// What attention gives of the residual stream before its projection, `[t, d]`, and its probabilities `[h, t, t]`.
    fn attended(&self, image: usize, block: usize, tokens: &[Row]) -> (Vec<Row>, Row) {
        let (d, t) = (self.config.width, tokens.len());
        let width = d / self.config.heads;
        let normed = self.norm(&format!("blocks.{block}.norm1"), tokens);
        let mut qkv = self.linear(&format!("blocks.{block}.attn.qkv"), &normed);
        for (part, target) in [Target::Q, Target::K, Target::V].into_iter().enumerate() {
            self.adapt(Place { image, block, target }, &normed, &mut qkv, part * d);
        }
        for (part, name) in ["q_norm", "k_norm"].into_iter().enumerate().filter(|_| self.config.qk_norm) {
            for qkv in &mut qkv {
                for head in qkv[part * d..(part + 1) * d].chunks_exact_mut(width) {
                    let normed = self.norm(&format!("blocks.{block}.attn.{name}"), &[head.to_vec()]);
                    head.copy_from_slice(&normed[0]);
                }
            }
        }
        self.turn(&mut qkv);
        let bias = self.parameters.get(&format!("blocks.{block}.attn.relative_position_bias_table"));
        let rows = relative_index(self.config.image_size / self.config.patch);
        let bias = |head: usize, query: usize, key: usize| {
            bias.map_or(0.0, |table| table[rows[query * t + key] as usize * self.config.heads + head])
        };
        let part = |token: usize, part: usize, head: usize| &qkv[token][part * d + head * width..][..width];
        let mut probabilities = Row::new();
        for (head, query) in (0..self.config.heads).flat_map(|head| (0..t).map(move |query| (head, query))) {
            let score = |key: usize| {
                dot(part(query, 0, head), part(key, 1, head)) / (width as f64).sqrt() + bias(head, query, key)
            };
            let powers: Row = (0..t).map(|key| score(key).exp()).collect();
            let total: f64 = powers.iter().sum();
            probabilities.extend(powers.iter().map(|power| power / total));
        }
        if let Some(shift) = self.parameters.get(&shift(block)) {
            add(&mut probabilities, shift);
        }
        let mix = |query: usize, i: usize| -> f64 {
            let row = &probabilities[(i / width * t + query) * t..][..t];
            row.iter().zip(&qkv).map(|(p, qkv)| p * qkv[2 * d + i]).sum()
        };
        let mixed = (0..t).map(|query| (0..d).map(|i| mix(query, i)).collect()).collect();
        (mixed, probabilities)
    }

    /// Features of a block's output.
    pub(crate) fn features_of(&self, pass: &Pass, Features { kind, block, norm }: Features) -> Row {
        let tokens = &pass.residuals[block + 1];
        if kind == FeatureKind::Pooled {
            return self.features(tokens);
        }
        let tokens = if norm && self.config.norm { self.norm("norm", tokens) } else { tokens.clone() };
        let patches = &tokens[self.config.prefix_tokens()..];
        let mean = |i: usize| patches.iter().map(|x| x[i]).sum::<f64>() / patches.len() as f64;
        match kind {
            FeatureKind::Class => tokens[0].clone(),
            FeatureKind::Grid => patches.concat(),
            FeatureKind::Mean | FeatureKind::Pooled => (0..self.config.width).map(mean).collect(),
        }
    }

    /// Queries and keys of patches turned by where these stand: pairs of values as complex numbers, times `e^(i · angle)`.
    fn turn(&self, qkv: &mut [Row]) {
        let VitConfig { width: d, heads, patch, image_size, .. } = self.config;
        let (Some(rotary), width) = (self.config.rotary, d / heads) else { return };
        let angles = rotary.angles(image_size / patch, width);
        for (qkv, angles) in qkv[self.config.prefix_tokens()..].iter_mut().zip(angles.chunks_exact(width / 2).cycle()) {
            for head in qkv[..2 * d].chunks_exact_mut(width) {
                for (i, angle) in angles.iter().enumerate() {
                    let (a, b) = match rotary.pairs {
                        RotaryPairs::Halves => (i, i + width / 2),
                        RotaryPairs::Neighbours => (2 * i, 2 * i + 1),
                    };
                    let (x, y) = (head[a], head[b]);
                    head[a] = x * angle.cos() - y * angle.sin();
                    head[b] = y * angle.cos() + x * angle.sin();
                }
            }
        }
    }

    /// The residual stream after the last block to what heads read: last norm and pooling.
    fn features(&self, tokens: &[Row]) -> Row {
        let config = &self.config;
        let tokens = if config.norm { self.norm("norm", tokens) } else { tokens.to_vec() };
        let class = config.class_tokens();
        let patches = &tokens[class + config.registers..];
        let mean = |i: usize| patches.iter().map(|x| x[i]).sum::<f64>() / patches.len() as f64;
        let mean: Row = (0..config.width).map(mean).collect();
        let pooled: Vec<Row> = match config.pool {
            Pool::Token => tokens[..class].to_vec(),
            Pool::Avg => vec![mean],
            Pool::TokenAvg => vec![tokens[0].clone(), mean],
            Pool::Map => vec![self.attention_pool(patches).0],
        };
        if config.fc_norm { self.norm("fc_norm", &pooled).concat() } else { pooled.concat() }
    }

    /// What attention pooling makes of the patches, `[d]`, and its probabilities `[h, p]`.
    fn attention_pool(&self, patches: &[Row]) -> (Row, Row) {
        let (d, width) = (self.config.width, self.config.width / self.config.heads);
        let latent = [self.parameters["attn_pool.latent"].clone()];
        let query = self.linear("attn_pool.q", &latent).swap_remove(0);
        let kv = self.linear("attn_pool.kv", patches);
        let mut probabilities = Row::new();
        for head in (0..d).step_by(width) {
            let score = |kv: &Row| dot(&query[head..head + width], &kv[head..head + width]) / (width as f64).sqrt();
            let powers: Row = kv.iter().map(|kv| score(kv).exp()).collect();
            let total: f64 = powers.iter().sum();
            probabilities.extend(powers.iter().map(|power| power / total));
        }
        if let Some(shift) = self.parameters.get(POOL_SHIFT) {
            add(&mut probabilities, shift);
        }
        let mix = |i: usize| -> f64 {
            let row = &probabilities[i / width * kv.len()..][..kv.len()];
            row.iter().zip(&kv).map(|(p, kv)| p * kv[d + i]).sum()
        };
        let mut y = self.linear("attn_pool.proj", &[(0..d).map(mix).collect()]);
        let mut hidden = self.linear("attn_pool.mlp.fc1", &self.norm("attn_pool.norm", &y));
        hidden.iter_mut().flatten().for_each(|h| *h = gelu(self.config.activation, *h));
        add(&mut y[0], &self.linear("attn_pool.mlp.fc2", &hidden)[0]);
        (y.swap_remove(0), probabilities)
    }

    /// How much attention pooling read of each patch: the mean of the heads' probabilities, or, with `d_logits`, of those times the slope
    /// of `d_logits · logits` by them, positive parts only.
    pub(crate) fn pool_relevance(&mut self, pass: &Pass, d_logits: Option<&[f64]>) -> Row {
        let tokens = &pass.residuals[self.config.depth];
        let tokens = if self.config.norm { self.norm("norm", tokens) } else { tokens.clone() };
        let patches = tokens.len() - self.config.prefix_tokens();
        let (_, probabilities) = self.attention_pool(&tokens[self.config.prefix_tokens()..]);
        let slopes = d_logits.map_or_else(Row::new, |d_logits| {
            self.parameters.insert(POOL_SHIFT.to_owned(), vec![0.0; probabilities.len()]);
            let slopes = self.slopes(POOL_SHIFT, pass, d_logits);
            self.parameters.remove(POOL_SHIFT);
            slopes
        });
        let entry = |at: usize| slopes.get(at).map_or(probabilities[at], |slope| (slope * probabilities[at]).max(0.0));
        let heads = self.config.heads;
        let mean = |patch: usize| (0..heads).map(|head| entry(head * patches + patch)).sum::<f64>() / heads as f64;
        (0..patches).map(mean).collect()
    }

    /// `x += gamma · f` where there is such a parameter, else `x += f`.
    fn join(&self, x: &mut [Row], gamma: &str, f: &[Row]) {
        for (x, f) in x.iter_mut().zip(f) {
            match self.parameters.get(gamma) {
                Some(gamma) => x.iter_mut().zip(f).zip(gamma).for_each(|((x, f), gamma)| *x += gamma * f),
                None => add(x, f),
            }
        }
    }

    /// `W x + b`, row by row.
    fn linear(&self, name: &str, x: &[Row]) -> Vec<Row> {
        let (weight, bias) =
            (&self.parameters[&format!("{name}.weight")], self.parameters.get(&format!("{name}.bias")));
        let row = |x: &Row| {
            let mut y = product(weight, x);
            bias.into_iter().for_each(|bias| add(&mut y, bias));
            y
        };
        x.iter().map(row).collect()
    }

    /// Adds `(alpha / r) · B (A (m ∘ x))` to the columns of `y` from `column` on, where the projection is adapted.
    fn adapt(&self, place: Place, x: &[Row], y: &mut [Row], column: usize) {
        let Place { block, target, .. } = place;
        let matrix = |m: &str| self.parameters.get(&format!("blocks.{block}.{target}.lora_{m}"));
        let (Some(a), Some(b)) = (matrix("a"), matrix("b")) else {
            return;
        };
        for (token, (x, y)) in x.iter().zip(y).enumerate() {
            let rank = (a.len() / x.len()) as f64;
            let scale = f64::from(self.lora.alpha) / if self.lora.rslora { rank.sqrt() } else { rank };
            let update = product(b, &product(a, &self.dropped(place, token, x)));
            y[column..].iter_mut().zip(update).for_each(|(y, update)| *y += scale * update);
        }
    }

    /// `m ∘ x`: the ChaCha key is seed, step, image, and block and target in the two lowest bytes of the last word; an
    /// input is dropped where the next 32 bits, row by row, are below `p · 2³²`.
    fn dropped(&self, Place { image, block, target }: Place, token: usize, x: &Row) -> Row {
        let Some(Dropout { probability, seed, step }) = self.dropout else {
            return x.clone();
        };
        let words = [seed, step, image as u64, 256 * block as u64 + target as u64];
        let key: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut rng = ChaCha8Rng::from_seed(key.try_into().expect("four words are 32 bytes"));
        rng.set_word_pos((token * x.len()) as u128);
        let keep = |x: &f64| {
            if f64::from(rng.next_u32()) < (probability * 2f64.powi(32)).floor() {
                0.0
            } else {
                x / (1.0 - probability)
            }
        };
        x.iter().map(keep).collect()
    }

    /// LayerNorm, row by row.
    fn norm(&self, name: &str, x: &[Row]) -> Vec<Row> {
        let (gamma, beta) = (&self.parameters[&format!("{name}.weight")], &self.parameters[&format!("{name}.bias")]);
        let row = |x: &Row| {
            let d = x.len() as f64;
            let mean = x.iter().sum::<f64>() / d;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d;
            let deviation = (variance + f64::from(self.config.eps)).sqrt();
            (0..x.len()).map(|i| (x[i] - mean) / deviation * gamma[i] + beta[i]).collect()
        };
        x.iter().map(row).collect()
    }
}

/// Name of what is added to the attention of pooling, as [`shift`].
const POOL_SHIFT: &str = "attn_pool.shift";

/// Name of what is added to the attention of a block: a parameter that no file has.
fn shift(block: usize) -> String {
    format!("blocks.{block}.attn.shift")
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// `W x` for `W [out, in]`.
fn product(w: &[f64], x: &[f64]) -> Row {
    w.chunks_exact(x.len()).map(|w| dot(w, x)).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn gelu(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Erf => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::Tanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::Quick => x / (1.0 + (-1.702 * x).exp()),
    }
}
