//! From a plug-in to a folder that PEFT's `PeftModel.from_pretrained` loads.

use super::{CARD, CONFIG, PREFIX, TENSORS};
use crate::classifier;
use crate::error::Error;
use crate::folder::{write_folder, write_json};
use crate::layout::{Layout, Site};
use crate::updates::{Update, divisor};
use melo_vit::{LowRank, Plugin, Storage, Target, VitConfig, write_tensors};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

const Q_K_V: [Target; 3] = [Target::Q, Target::K, Target::V];

/// Writes a plug-in as a folder of PEFT's, atomically, with its card as `melo_card.json` beside.
///
/// timm's models have one module for query, key and value: their updates are written as one of the summed rank, each with its own
/// rows of `A` and columns of `B`, and alpha grown so that the scale stays the same. Values are copied, not computed.
///
/// # Errors
/// [`Error::Unwritable`] for what PEFT cannot hold, [`Error::Occupied`], [`melo_vit::Error::Io`].
pub fn write_peft(path: &Path, plugin: &Plugin, vit: &VitConfig, layout: Layout) -> Result<(), Error> {
    plugin.refuse_bags()?;
    plugin.refuse_volumes()?;
    plugin.refuse_ensembles()?;
    let refuse = |what: &str| Err(Error::Unwritable { format: "a PEFT folder", what: what.to_owned() });
    if plugin.adapter.bottlenecks.first_block().is_some() {
        return refuse("bottlenecks, only low-rank updates");
    }
    if plugin.head.decoder.is_some() {
        return refuse("a head that gives masks, only a classifier");
    }
    let lora = &plugin.adapter.config;
    if lora.rank == 0 {
        return refuse("a plug-in without low-rank updates (a linear probe)");
    }
    let mut modules: Vec<(String, Site, Update)> = Vec::new();
    for &block in &lora.blocks {
        for (site, update) in sites(plugin, block, layout, vit) {
            let Some(module) = layout.module(block, site, vit) else {
                return refuse("this architecture under Hugging Face's names");
            };
            modules.push((module, site, update));
        }
    }
    write_folder(path, |folder| {
        let name = |module: &str, side: &str| format!("{PREFIX}{module}.lora_{side}.weight");
        let head = classifier::tensors(&plugin.head, layout, vit);
        let mut tensors = Vec::new();
        for (module, site, update) in &modules {
            let (input, out) = site.features(vit);
            tensors.push((name(module, "A"), vec![update.rank, input], update.a.as_slice()));
            tensors.push((name(module, "B"), vec![out, update.rank], update.b.as_slice()));
        }
        tensors
            .extend(head.iter().map(|(n, shape, values)| (format!("{PREFIX}{n}"), shape.clone(), values.as_slice())));
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        write_tensors(&folder.join(TENSORS), &tensors, metadata, Storage::F32)?;
        write_json(&folder.join(CONFIG), &settings(&modules, lora.rslora, layout.classifiers(vit)))?;
        write_json(&folder.join(CARD), &card(plugin))
    })
}

/// The card as JSON.
pub(crate) fn card(plugin: &Plugin) -> Value {
    serde_json::to_value(&plugin.card).expect("a card is plain data")
}

/// A block's updates by module: where the layout has one for q, k and v, theirs as one.
fn sites(plugin: &Plugin, block: usize, layout: Layout, vit: &VitConfig) -> Vec<(Site, Update)> {
    let (lora, pairs) = (&plugin.adapter.config, &plugin.adapter.blocks[block]);
    let (rank, alpha) = (lora.rank_of(block), f64::from(lora.alpha));
    let pair = |target: Target| pairs[target as usize].as_ref();
    let one = |target: Target| {
        let LowRank { a, b } = pair(target)?;
        Some((Site::One(target), Update { rank, alpha, a: a.clone(), b: b.clone() }))
    };
    if layout != Layout::Timm {
        return Target::ALL.into_iter().filter_map(one).collect();
    }
    let fused: Vec<(Target, &LowRank)> = Q_K_V.into_iter().filter_map(|t| Some((t, pair(t)?))).collect();
    let mut sites = Vec::new();
    if !fused.is_empty() {
        sites.push((Site::Qkv, fuse(&fused, rank, alpha, (lora.rslora, vit.width))));
    }
    sites.extend([Target::O, Target::Fc1, Target::Fc2].into_iter().filter_map(one));
    sites
}

/// `A' = [A_q; A_v]`, and `B'` with the columns of `B_q` in the rows of q, those of `B_v` in the rows of v, zeros elsewhere; or
/// `A` itself where it is the same for q, k and v.
fn fuse(pairs: &[(Target, &LowRank)], rank: usize, alpha: f64, (rslora, d): (bool, usize)) -> Update {
    if pairs.len() == 3 && pairs.iter().all(|(_, pair)| pair.a == pairs[0].1.a) {
        let b = pairs.iter().flat_map(|(_, pair)| &pair.b).copied().collect();
        return Update { rank, alpha, a: pairs[0].1.a.clone(), b };
    }
    let summed = pairs.len() * rank;
    let mut b = vec![0.0; 3 * d * summed];
    for (index, (target, pair)) in pairs.iter().enumerate() {
        let first = *target as usize * d;
        let rows = b.chunks_exact_mut(summed).skip(first).zip(pair.b.chunks_exact(rank));
        rows.for_each(|(row, own)| row[index * rank..(index + 1) * rank].copy_from_slice(own));
    }
    let a = pairs.iter().flat_map(|(_, pair)| &pair.a).copied().collect();
    // alpha / r, or alpha / √r, stays what it is.
    Update { rank: summed, alpha: alpha * divisor(pairs.len() as f64, rslora), a, b }
}

/// `adapter_config.json`.
fn settings(modules: &[(String, Site, Update)], rslora: bool, classifiers: &[&str]) -> Value {
    let (rank, alpha) = modules.first().map_or((1, 1.0), |(_, _, update)| (update.rank, update.alpha));
    let mut ranks = Map::new();
    let mut alphas = Map::new();
    for (module, _, update) in modules {
        if update.rank != rank {
            ranks.insert(module.clone(), json!(update.rank));
        }
        if update.alpha != alpha {
            alphas.insert(module.clone(), number(update.alpha));
        }
    }
    let targets: Vec<&str> = modules.iter().map(|(module, ..)| module.as_str()).collect();
    json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": null,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": number(alpha),
        "use_rslora": rslora,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": targets,
        "modules_to_save": classifiers,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "use_dora": false,
        "layers_to_transform": null,
        "layers_pattern": null,
    })
}

/// Whole numbers as such: PEFT's alpha is one by default.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}
