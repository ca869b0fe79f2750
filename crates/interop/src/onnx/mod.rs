//! ONNX: backbone with a plug-in merged in, classifier, and calibrated probabilities, as one graph.

mod external;
mod graph;
mod message;
mod protobuf;

use crate::error::Error;
use crate::merge::merge;
use graph::Graph;
use melo_vit::{
    Activation, AttentionPool, Block, Checkpoint, Plugin, Pool, RotaryPairs, TaskKind, VitConfig, relative_index,
    write_atomically,
};
use std::path::Path;

/// Bytes of weights from which on they lie in a file of their own: protobuf messages end at 2 GiB.
const MOST_INSIDE: usize = 1_500_000_000;

/// Where the weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnnxWeights {
    /// In the file itself, unless they are more than 1.5 GB.
    Auto,
    /// In `<name>.data` beside it (ONNX's external data): the two files belong together.
    Beside,
}

/// Writes a model that takes `pixels [n, 3, s, s]`, normalised as the card says, and gives `logits [n, c]` and `probabilities
/// [n, c]`: logits over the card's temperature, then softmax or sigmoids. Card and digests are in `metadata_props`.
///
/// # Errors
/// As [`merge`], [`Error::Unwritable`] for a file name that is not UTF-8, [`melo_vit::Error::Io`].
pub fn write_onnx(path: &Path, checkpoint: Checkpoint, plugin: &Plugin, weights: OnnxWeights) -> Result<(), Error> {
    plugin.refuse_bags()?;
    plugin.refuse_volumes()?;
    plugin.refuse_ensembles()?;
    let digest = checkpoint.digest();
    let beside = weights == OnnxWeights::Beside || 4 * checkpoint.config.parameters() > MOST_INSIDE;
    let merged = merge(checkpoint, plugin)?;
    let card = crate::peft::card(plugin).to_string();
    let properties =
        [("melo.card", card.as_str()), ("melo.backbone_digest", &digest), ("melo.plugin_digest", &plugin.digest)];
    let graph = build(&merged, plugin);
    drop(merged);
    if !beside {
        return Ok(write_atomically(path, &message::model(&graph, &properties, None))?);
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()).map(|name| format!("{name}.data")) else {
        let what = format!("weights beside {}, whose name is not UTF-8", path.display());
        return Err(Error::Unwritable { format: "an ONNX file", what });
    };
    external::write(&path.with_file_name(&name), &graph)?;
    Ok(write_atomically(path, &message::model(&graph, &properties, Some(&name)))?)
}

/// The graph of a merged backbone.
fn build(merged: &Checkpoint, plugin: &Plugin) -> Graph {
    let (vit, w) = (&merged.config, &merged.weights);
    let (d, patch, size) = (vit.width, vit.patch, vit.image_size);
    let mut g = Graph::new(("pixels", &[3, size, size]), plugin.card.classes.len());
    let x = embed(&mut g, merged, (d, patch, size));
    rotation(&mut g, vit);
    let mut x = match &w.norm_pre {
        Some(norm) => g.layernorm(&x, "norm_pre", norm, vit.eps),
        None => x,
    };
    for (index, block) in w.blocks.iter().enumerate() {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let normed = g.layernorm(&x, &name("norm1"), &block.norm1, vit.eps);
        let qkv = g.linear(&normed, &name("attn.qkv"), &block.qkv, d);
        let mixed = attention(&mut g, &name("attn"), &qkv, block, vit);
        let mixed = match &block.attn_norm {
            Some(norm) => g.layernorm(&mixed, &name("attn.norm"), norm, vit.eps),
            None => mixed,
        };
        let out = g.linear(&mixed, &name("attn.proj"), &block.proj, d);
        let out = g.layer_scale(&out, &name("ls1"), &block.ls1);
        x = g.node("Add", &[&x, &out], &name("add1"), &[]);
        let normed = g.layernorm(&x, &name("norm2"), &block.norm2, vit.eps);
        let hidden = g.linear(&normed, &name("mlp.fc1"), &block.fc1, d);
        let hidden = match vit.swiglu {
            true => swiglu(&mut g, &name("mlp.act"), &hidden, vit.mlp_hidden as i64),
            false => gelu(&mut g, &name("mlp.act"), &hidden, vit.activation),
        };
        let hidden = match &block.mlp_norm {
            Some(norm) => g.layernorm(&hidden, &name("mlp.norm"), norm, vit.eps),
            None => hidden,
        };
        let out = g.linear(&hidden, &name("mlp.fc2"), &block.fc2, vit.mlp_hidden);
        let out = g.layer_scale(&out, &name("ls2"), &block.ls2);
        x = g.node("Add", &[&x, &out], &name("add2"), &[]);
    }
    let feature = pool(&mut g, merged, &x);
    g.floats("head.weight", &[plugin.head.rows(), vit.feature_width()], &plugin.head.weight);
    g.floats("head.bias", &[plugin.head.rows()], &plugin.head.bias);
    g.output("Gemm", &[&feature, "head.weight", "head.bias"], "logits", &[("transB", 1.into())]);
    let (operation, settings) = match plugin.card.kind {
        // Its numbers are the logits.
        TaskKind::Regression => return g,
        TaskKind::Segmentation => unreachable!("plug-ins that give masks are not written"),
        TaskKind::SingleLabel | TaskKind::Ordinal => ("Softmax", &[("axis", (-1).into())][..]),
        TaskKind::MultiLabel => ("Sigmoid", &[][..]),
    };
    let calibrated = g.scaled("logits", "temperature", "Div", crate::merge::of_others(&plugin.card).temperature);
    g.output(operation, &[&calibrated], "probabilities", settings);
    g
}

/// Patches to tokens with their positions, prefix tokens first.
fn embed(g: &mut Graph, merged: &Checkpoint, (d, patch, size): (usize, usize, usize)) -> String {
    let (vit, w) = (&merged.config, &merged.weights);
    let side = [patch as i64; 2];
    g.floats("patch_embed.proj.weight", &[d, 3, patch, patch], &w.patch_embed.weight);
    let mut inputs = vec!["pixels", "patch_embed.proj.weight"];
    if vit.patch_bias {
        g.floats("patch_embed.proj.bias", &[d], &w.patch_embed.bias);
        inputs.push("patch_embed.proj.bias");
    }
    let x =
        g.node("Conv", &inputs, "patch_embed.proj", &[("kernel_shape", side[..].into()), ("strides", side[..].into())]);
    let grid = (size / patch).pow(2);
    let x = g.reshape(&x, "patch_embed.flatten", &[0, d as i64, grid as i64]);
    let x = g.node("Transpose", &[&x], "patch_embed.tokens", &[("perm", [0, 2, 1][..].into())]);
    let prefix = vit.prefix_tokens();
    let mut tokens = [w.cls_token.as_slice(), &w.dist_token, &w.reg_token].concat();
    let (of_tokens, positions) = w.pos_embed.split_at(vit.position_prefix() * d);
    tokens.iter_mut().zip(of_tokens).for_each(|(token, position)| *token += position);
    let x = if vit.pos_embed {
        g.floats("pos_embed", &[1, grid, d], positions);
        g.node("Add", &[&x, "pos_embed"], "patch_embed.positions", &[])
    } else {
        x
    };
    if prefix == 0 {
        return x;
    }
    g.floats("prefix_tokens", &[1, prefix, d], &tokens);
    // [n, 1, 1]: the batch is not known before it runs.
    let shape = g.node("Shape", &["pixels"], "images.shape", &[("start", 0.into()), ("end", 1.into())]);
    g.integers("images.ones", &[1, 1]);
    let shape = g.node("Concat", &[&shape, "images.ones"], "images.by_one", &[("axis", 0.into())]);
    let tokens = g.node("Expand", &["prefix_tokens", &shape], "prefix_tokens.expand", &[]);
    g.node("Concat", &[&tokens, &x], "tokens", &[("axis", 1.into())])
}

/// `cos` and `sin [t, d / h]` of rotary positions, where there are any; the sine with the sign of what it is multiplied with. Tokens in
/// front of the patches are turned by nothing.
fn rotation(g: &mut Graph, vit: &VitConfig) {
    let Some(rotary) = vit.rotary else { return };
    let width = vit.width / vit.heads;
    let angles = rotary.angles(vit.image_size / vit.patch, width);
    let rows = |of: fn(f64) -> f64, still: f64, negative: f64| -> Vec<f32> {
        let still = std::iter::repeat_n(still as f32, vit.prefix_tokens() * width);
        let turned = angles.chunks_exact(width / 2).flat_map(|angles| {
            (0..width).map(move |at| {
                let (pair, is_first) = match rotary.pairs {
                    RotaryPairs::Halves => (at % (width / 2), at < width / 2),
                    RotaryPairs::Neighbours => (at / 2, at % 2 == 0),
                };
                (of(angles[pair]) * if is_first { negative } else { 1.0 }) as f32
            })
        });
        still.chain(turned).collect()
    };
    let shape = [vit.prefix_tokens() + angles.len() / (width / 2), width];
    g.floats("rotary.cos", &shape, &rows(f64::cos, 1.0, 1.0));
    g.floats("rotary.sin", &shape, &rows(f64::sin, 0.0, -1.0));
    let other = |at: usize| match rotary.pairs {
        RotaryPairs::Halves => (at + width / 2) % width,
        RotaryPairs::Neighbours => at ^ 1,
    };
    g.integers("rotary.other", &(0..width).map(|at| other(at) as i64).collect::<Vec<_>>());
}

/// `x [n, h, t, d / h]` turned by [`rotation`]: `x cos + x' sin` with `x'` the other of each pair.
fn turned(g: &mut Graph, x: &str, name: &str) -> String {
    let at = |part: &str| format!("{name}.{part}");
    let other = g.node("Gather", &[x, "rotary.other"], &at("other"), &[("axis", 3.into())]);
    let other = g.node("Mul", &[&other, "rotary.sin"], &at("by_sin"), &[]);
    let own = g.node("Mul", &[x, "rotary.cos"], &at("by_cos"), &[]);
    g.node("Add", &[&own, &other], &at("turned"), &[])
}

/// `softmax(q kᵀ / √(d/h) + bias) v`, heads side by side.
fn attention(g: &mut Graph, name: &str, qkv: &str, block: &Block, vit: &VitConfig) -> String {
    let (h, width) = (vit.heads as i64, (vit.width / vit.heads) as i64);
    let at = |part: &str| format!("{name}.{part}");
    let x = g.reshape(qkv, &at("heads"), &[0, 0, 3, h, width]);
    let x = g.node("Transpose", &[&x], &at("heads.order"), &[("perm", [2, 0, 3, 1, 4][..].into())]);
    let q = g.pick(&x, &at("q"), 0, 0);
    let k = g.pick(&x, &at("k"), 1, 0);
    let v = g.pick(&x, &at("v"), 2, 0);
    let (q, k) = match &block.qk_norm {
        Some([q_norm, k_norm]) => {
            (g.layernorm(&q, &at("q_norm"), q_norm, vit.eps), g.layernorm(&k, &at("k_norm"), k_norm, vit.eps))
        }
        None => (q, k),
    };
    let (q, k) = match vit.rotary {
        Some(_) => (turned(g, &q, &at("q")), turned(g, &k, &at("k"))),
        None => (q, k),
    };
    let q = g.scaled(&q, &at("scale"), "Mul", (1.0 / (width as f64).sqrt()) as f32);
    let k = g.node("Transpose", &[&k], &at("k.t"), &[("perm", [0, 1, 3, 2][..].into())]);
    let scores = g.node("MatMul", &[&q, &k], &at("scores"), &[]);
    let scores = if vit.relative_positions {
        let index = relative_index(vit.image_size / vit.patch);
        let tokens = 1 + (vit.image_size / vit.patch).pow(2);
        let of_head = |head: usize| index.iter().map(move |&row| block.relative[row as usize * vit.heads + head]);
        let bias: Vec<f32> = (0..vit.heads).flat_map(of_head).collect();
        g.floats(&at("bias"), &[vit.heads, tokens, tokens], &bias);
        g.node("Add", &[&scores, &at("bias")], &at("biased"), &[])
    } else {
        scores
    };
    let scores = g.node("Softmax", &[&scores], &at("softmax"), &[("axis", (-1).into())]);
    let x = g.node("MatMul", &[&scores, &v], &at("mix"), &[]);
    let x = g.node("Transpose", &[&x], &at("mix.order"), &[("perm", [0, 2, 1, 3][..].into())]);
    g.reshape(&x, &at("mix.flatten"), &[0, 0, vit.width as i64])
}

/// GELU in its three forms, from operators of opset 17.
fn gelu(g: &mut Graph, name: &str, x: &str, kind: Activation) -> String {
    let at = |part: &str| format!("{name}.{part}");
    let half = |g: &mut Graph, inner: &str| {
        let sum = g.scaled(inner, &at("one"), "Add", 1.0);
        let product = g.node("Mul", &[x, &sum], &at("product"), &[]);
        g.scaled(&product, &at("half"), "Mul", 0.5)
    };
    match kind {
        Activation::Erf => {
            let inner = g.scaled(x, &at("root_half"), "Mul", std::f32::consts::FRAC_1_SQRT_2);
            let inner = g.node("Erf", &[&inner], &at("erf"), &[]);
            half(g, &inner)
        }
        Activation::Tanh => {
            let square = g.node("Mul", &[x, x], &at("square"), &[]);
            let cube = g.node("Mul", &[&square, x], &at("cube"), &[]);
            // Hendrycks and Gimpel, arXiv 1606.08415: tanh(√(2/π) (x + 0.044715 x³)).
            let cube = g.scaled(&cube, &at("cubic"), "Mul", 0.044715);
            let inner = g.node("Add", &[x, &cube], &at("sum"), &[]);
            let inner = g.scaled(&inner, &at("root"), "Mul", (2.0 / std::f64::consts::PI).sqrt() as f32);
            let inner = g.node("Tanh", &[&inner], &at("tanh"), &[]);
            half(g, &inner)
        }
        Activation::Quick => {
            let inner = g.scaled(x, &at("slope"), "Mul", 1.702);
            let inner = g.node("Sigmoid", &[&inner], &at("sigmoid"), &[]);
            g.node("Mul", &[x, &inner], &at("product"), &[])
        }
    }
}

/// `silu(gate) · up`, `[gate, up]` side by side.
fn swiglu(g: &mut Graph, name: &str, x: &str, hidden: i64) -> String {
    let at = |part: &str| format!("{name}.{part}");
    let gate = g.slice(x, &at("gate"), 2, (0, hidden));
    let up = g.slice(x, &at("up"), 2, (hidden, 2 * hidden));
    let open = g.node("Sigmoid", &[&gate], &at("sigmoid"), &[]);
    let gate = g.node("Mul", &[&gate, &open], &at("silu"), &[]);
    g.node("Mul", &[&gate, &up], &at("product"), &[])
}

/// What attention pooling makes of the patches, `[n, d]`.
fn attention_pool(g: &mut Graph, pool: &AttentionPool, patches: &str, vit: &VitConfig) -> String {
    let (d, h, width) = (vit.width, vit.heads as i64, vit.head_width() as i64);
    let at = |part: &str| format!("attn_pool.{part}");
    g.floats(&at("latent"), &[1, 1, d], &pool.latent);
    let q = g.linear(&at("latent"), &at("q"), &pool.q, d);
    let q = g.reshape(&q, &at("q.heads"), &[1, 1, h, width]);
    let q = g.node("Transpose", &[&q], &at("q.order"), &[("perm", [0, 2, 1, 3][..].into())]);
    let q = g.scaled(&q, &at("scale"), "Mul", (1.0 / (width as f64).sqrt()) as f32);
    let kv = g.linear(patches, &at("kv"), &pool.kv, d);
    let kv = g.reshape(&kv, &at("kv.heads"), &[0, 0, 2, h, width]);
    let kv = g.node("Transpose", &[&kv], &at("kv.order"), &[("perm", [2, 0, 3, 1, 4][..].into())]);
    let (k, v) = (g.pick(&kv, &at("k"), 0, 0), g.pick(&kv, &at("v"), 1, 0));
    let k = g.node("Transpose", &[&k], &at("k.t"), &[("perm", [0, 1, 3, 2][..].into())]);
    let scores = g.node("MatMul", &[&q, &k], &at("scores"), &[]);
    let scores = g.node("Softmax", &[&scores], &at("softmax"), &[("axis", (-1).into())]);
    let x = g.node("MatMul", &[&scores, &v], &at("mix"), &[]);
    let x = g.reshape(&x, &at("mix.flatten"), &[0, d as i64]);
    let y = g.linear(&x, &at("proj"), &pool.proj, d);
    let normed = g.layernorm(&y, &at("norm"), &pool.norm, vit.eps);
    let hidden = g.linear(&normed, &at("mlp.fc1"), &pool.fc1, d);
    let hidden = gelu(g, &at("mlp.act"), &hidden, vit.activation);
    let out = g.linear(&hidden, &at("mlp.fc2"), &pool.fc2, vit.mlp_hidden);
    g.node("Add", &[&y, &out], "feature", &[])
}

/// The feature that the classifier reads, `[n, feature width]`.
fn pool(g: &mut Graph, merged: &Checkpoint, x: &str) -> String {
    let (vit, w) = (&merged.config, &merged.weights);
    let x = match &w.norm {
        Some(norm) => g.layernorm(x, "norm", norm, vit.eps),
        None => x.to_owned(),
    };
    let patches = |g: &mut Graph| g.slice(&x, "pool.patches", 1, (vit.prefix_tokens() as i64, i64::MAX));
    if let Some(pool) = &w.attn_pool {
        let patches = patches(g);
        return attention_pool(g, pool, &patches, vit);
    }
    let mean = |g: &mut Graph| {
        let patches = patches(g);
        g.node("ReduceMean", &[&patches], "pool.mean", &[("axes", [1][..].into()), ("keepdims", 1.into())])
    };
    let tokens = |g: &mut Graph| g.slice(&x, "pool.tokens", 1, (0, vit.class_tokens() as i64));
    let pooled = match vit.pool {
        Pool::Token => tokens(g),
        Pool::Avg | Pool::Map => mean(g),
        Pool::TokenAvg => {
            let (token, mean) = (tokens(g), mean(g));
            g.node("Concat", &[&token, &mean], "pool.both", &[("axis", 1.into())])
        }
    };
    let pooled = match &w.fc_norm {
        Some(norm) => g.layernorm(&pooled, "fc_norm", norm, vit.eps),
        None => pooled,
    };
    g.reshape(&pooled, "feature", &[0, vit.feature_width() as i64])
}
