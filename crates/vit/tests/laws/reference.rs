//! A Vision Transformer in f64, one row at a time, as the papers write it (arXiv 2010.11929, equations 1 to 4).

use melo_vit::{Activation, Adapter, Dropout, Head, LoraConfig, Pool, Target, VitConfig, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

type Row = Vec<f64>;

/// Where a low-rank update is applied.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    block: usize,
    target: Target,
    token: usize,
}

/// Parameters by name, so that a test can move any of them.
pub(crate) struct Reference {
    config: VitConfig,
    lora: LoraConfig,
    pub(crate) parameters: BTreeMap<String, Row>,
    /// Probability, seed and step of the dropout on low-rank updates.
    pub(crate) dropout: Option<Dropout>,
}

impl Reference {
    pub(crate) fn new(config: &VitConfig, weights: &Weights, adapter: &Adapter, head: &Head) -> Self {
        let names = names(config, adapter, head);
        let values = adapter.tensors().into_iter().chain(head.tensors()).chain(weights.tensors());
        let wide = values.map(|values| values.iter().map(|&x| f64::from(x)).collect());
        Reference {
            config: config.clone(),
            lora: adapter.config.clone(),
            parameters: names.into_iter().zip(wide).collect(),
            dropout: None,
        }
    }

    /// Logits of one image `[3, s, s]`, `index` of its batch, at the size that the positions are for.
    pub(crate) fn logits(&self, index: usize, image: &[f32]) -> Row {
        let config = &self.config;
        let mut tokens = self.embed(image);
        for block in 0..config.depth {
            let name = |part: &str| format!("blocks.{block}.{part}");
            let normed: Vec<Row> = tokens.iter().map(|x| self.norm(&name("norm1"), x)).collect();
            let attended = self.attention(index, block, &normed);
            for (token, (x, o)) in tokens.iter_mut().zip(attended).enumerate() {
                let place = |target| Place { image: index, block, target, token };
                let mut a = self.linear(&name("attn.proj"), &o);
                self.adapt(place(Target::O), &o, &mut a);
                add(x, &self.scaled(&name("ls1.gamma"), &a));
                let normed = self.norm(&name("norm2"), x);
                let mut hidden = self.linear(&name("mlp.fc1"), &normed);
                self.adapt(place(Target::Fc1), &normed, &mut hidden);
                if config.swiglu {
                    let up = hidden.split_off(config.mlp_hidden);
                    hidden.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up / (1.0 + (-*gate).exp()));
                } else {
                    hidden.iter_mut().for_each(|h| *h = gelu(config.activation, *h));
                }
                let mut f = self.linear(&name("mlp.fc2"), &hidden);
                self.adapt(place(Target::Fc2), &hidden, &mut f);
                add(x, &self.scaled(&name("ls2.gamma"), &f));
                if self.parameters.contains_key(&name("adapter.down.weight")) {
                    let mut z = self.linear(&name("adapter.down"), &f);
                    z.iter_mut().for_each(|z| *z = gelu(Activation::Erf, *z));
                    add(x, &self.linear(&name("adapter.up"), &z));
                }
            }
        }
        if config.norm {
            tokens.iter_mut().for_each(|x| *x = self.norm("norm", x));
        }
        let (prefix, patches) = tokens.split_at(1 + usize::from(config.distilled) + config.registers);
        let mean = |i: usize| patches.iter().map(|x| x[i]).sum::<f64>() / patches.len() as f64;
        let mean: Row = (0..config.width).map(mean).collect();
        let pooled: Vec<Row> = match config.pool {
            Pool::Token => prefix[..prefix.len() - config.registers].to_vec(),
            Pool::Avg => vec![mean],
            Pool::TokenAvg => vec![prefix[0].clone(), mean],
        };
        let feature = pooled.into_iter().map(|x| if config.fc_norm { self.norm("fc_norm", &x) } else { x });
        self.linear("head", &feature.flatten().collect())
    }

    fn embed(&self, image: &[f32]) -> Vec<Row> {
        let VitConfig { patch: p, image_size: side, width: d, .. } = self.config;
        let pixel = |channel: usize, y: usize, x: usize| f64::from(image[(channel * side + y) * side + x]);
        let patches = (0..(side / p).pow(2)).map(|at| {
            let (top, left) = (at / (side / p) * p, at % (side / p) * p);
            let pixels = (0..3 * p * p).map(|i| pixel(i / (p * p), top + i / p % p, left + i % p));
            self.linear("patch_embed.proj", &pixels.collect())
        });
        let class = ["cls_token", "dist_token"].into_iter().filter_map(|name| self.parameters.get(name).cloned());
        let mut tokens: Vec<Row> = class.chain(patches).collect();
        let class = 1 + usize::from(self.config.distilled);
        let first = if self.config.pos_embed_prefix { 0 } else { class };
        for (x, position) in tokens[first..].iter_mut().zip(self.parameters["pos_embed"].chunks_exact(d)) {
            add(x, position);
        }
        let registers = self.parameters.get("reg_token").into_iter().flat_map(|rows| rows.chunks_exact(d));
        tokens.splice(class..class, registers.map(<[f64]>::to_vec));
        if self.config.pre_norm {
            tokens.iter_mut().for_each(|x| *x = self.norm("norm_pre", x));
        }
        tokens
    }

    fn attention(&self, image: usize, block: usize, normed: &[Row]) -> Vec<Row> {
        let d = self.config.width;
        let width = d / self.config.heads;
        let projected: Vec<[Row; 3]> = normed
            .iter()
            .enumerate()
            .map(|(token, x)| {
                let qkv = self.linear(&format!("blocks.{block}.attn.qkv"), x);
                let mut parts = [&qkv[..d], &qkv[d..2 * d], &qkv[2 * d..]].map(<[f64]>::to_vec);
                for (part, target) in parts.iter_mut().zip([Target::Q, Target::K, Target::V]) {
                    self.adapt(Place { image, block, target, token }, x, part);
                }
                parts
            })
            .collect();
        projected
            .iter()
            .map(|[q, _, _]| {
                let head = |start: usize| {
                    let columns = start..start + width;
                    let scores = projected
                        .iter()
                        .map(|[_, k, _]| columns.clone().map(|i| q[i] * k[i]).sum::<f64>() / (width as f64).sqrt());
                    let powers: Row = scores.map(f64::exp).collect();
                    let total: f64 = powers.iter().sum();
                    let mix =
                        |i: usize| powers.iter().zip(&projected).map(|(p, [_, _, v])| p / total * v[i]).sum::<f64>();
                    columns.map(mix).collect::<Row>()
                };
                (0..self.config.heads).flat_map(|h| head(h * width)).collect()
            })
            .collect()
    }

    /// `gamma · x` where there is such a parameter, else `x`.
    fn scaled(&self, name: &str, x: &Row) -> Row {
        match self.parameters.get(name) {
            Some(gamma) => x.iter().zip(gamma).map(|(x, gamma)| x * gamma).collect(),
            None => x.clone(),
        }
    }

    fn linear(&self, name: &str, x: &Row) -> Row {
        let mut y = product(&self.parameters[&format!("{name}.weight")], x);
        if let Some(bias) = self.parameters.get(&format!("{name}.bias")) {
            add(&mut y, bias);
        }
        y
    }

    /// `y += (alpha / r) · B (A (m ∘ x))` where the projection is adapted.
    fn adapt(&self, place: Place, x: &Row, y: &mut Row) {
        let Place { block, target, .. } = place;
        let matrix = |m: &str| self.parameters.get(&format!("blocks.{block}.{target}.lora_{m}"));
        if let (Some(a), Some(b)) = (matrix("a"), matrix("b")) {
            let rank = (a.len() / x.len()) as f64;
            let scale = f64::from(self.lora.alpha) / if self.lora.rslora { rank.sqrt() } else { rank };
            let update: Row = product(b, &product(a, &self.dropped(place, x))).iter().map(|u| scale * u).collect();
            add(y, &update);
        }
    }

    /// `m ∘ x`: the ChaCha key is seed, step, image, and block and target in the two lowest bytes of the last word; an
    /// input is dropped where the next 32 bits, row by row, are below `p · 2³²`.
    fn dropped(&self, Place { image, block, target, token }: Place, x: &Row) -> Row {
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

    fn norm(&self, name: &str, x: &Row) -> Row {
        let d = x.len() as f64;
        let mean = x.iter().sum::<f64>() / d;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d;
        let deviation = (variance + f64::from(self.config.eps)).sqrt();
        let (gamma, beta) = (&self.parameters[&format!("{name}.weight")], &self.parameters[&format!("{name}.bias")]);
        (0..x.len()).map(|i| (x[i] - mean) / deviation * gamma[i] + beta[i]).collect()
    }
}

/// Names of adapter, head and backbone tensors, in the order of `Gradients::tensors`.
pub(crate) fn names(config: &VitConfig, adapter: &Adapter, head: &Head) -> Vec<String> {
    let head = Head::tensor_shapes(head.classes(), config.feature_width());
    let shapes = adapter.tensor_shapes(config).into_iter().chain(head).chain(config.tensor_shapes());
    shapes.map(|(name, _)| name).collect()
}

/// `W x` for `W [out, in]`.
fn product(w: &[f64], x: &Row) -> Row {
    w.chunks_exact(x.len()).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn gelu(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Erf => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::Tanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::Quick => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// `2/√π · e^(-x²) · Σ 2^k x^(2k+1) / (2k+1)!!` (DLMF 7.6.2): terms of one sign, so nothing cancels.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        k += 1.0;
        term *= 2.0 * x * x / (2.0 * k + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}
