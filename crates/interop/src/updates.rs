//! Low-rank updates as others hold them, each with a rank and a scale of its own, made into one adapter.

use crate::error::Error;
use melo_vit::{Adapter, LoraConfig, LowRank, Target, VitConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// `alpha / r · B A` (or `alpha / √r · B A`) on one projection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) rank: usize,
    /// In f64, so that the product of a folded scale is rounded once.
    pub(crate) alpha: f64,
    /// `[r, in]`.
    pub(crate) a: Vec<f32>,
    /// `[out, r]`.
    pub(crate) b: Vec<f32>,
}

/// Updates by block and target.
pub(crate) type Updates = BTreeMap<(usize, Target), Update>;

/// What divides alpha.
pub(crate) fn divisor(rank: f64, rslora: bool) -> f64 {
    if rslora { rank.sqrt() } else { rank }
}

/// One adapter with the product of every update, and a sentence for everything that is held in another way than there.
///
/// A plug-in has one alpha, one rank a block, and the same targets in all its blocks. A smaller rank is filled up with zeros, a
/// target that is missing in a block is all zeros, and what a scale differs by is multiplied into `B`: exact where it is a power
/// of two, else rounded once to f32.
///
/// # Errors
/// [`melo_vit::Error::Lora`] for ranks that the backbone cannot carry, [`Error::Module`] where a folded scale overflows.
pub(crate) fn assemble(
    path: &Path,
    updates: &Updates,
    rslora: bool,
    vit: &VitConfig,
) -> Result<(Adapter, Vec<String>), Error> {
    let mut notes = Vec::new();
    let config = settings(updates, rslora);
    config.check(vit)?;
    let mut adapter = Adapter::zeros(&config, vit);
    let (mut padded, mut folded, mut rounded, mut absent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (&block, &target) in config.blocks.iter().flat_map(|block| config.targets.iter().map(move |t| (block, t))) {
        let name = format!("blocks.{block}.{target}");
        let (input, out) = target.features(vit);
        let Some(update) = updates.get(&(block, target)) else {
            absent.push(name);
            continue;
        };
        let rank = config.rank_of(block);
        let ratio = ratio(update, f64::from(config.alpha), rank, rslora);
        if update.rank < rank {
            padded.push(name.clone());
        }
        if ratio != 1.0 {
            if is_power_of_two(ratio) { &mut folded } else { &mut rounded }.push(name.clone());
        }
        let mut pair = LowRank { a: update.a.clone(), b: vec![0.0; out * rank] };
        pair.a.resize(rank * input, 0.0);
        for (row, from) in pair.b.chunks_exact_mut(rank).zip(update.b.chunks_exact(update.rank)) {
            row.iter_mut().zip(from).for_each(|(b, &from)| *b = (f64::from(from) * ratio) as f32);
        }
        if !pair.b.iter().all(|b| b.is_finite()) {
            let reason = format!("its scale, {ratio} of the others', makes `B` overflow");
            return Err(Error::Module { path: path.to_owned(), name, reason });
        }
        Arc::make_mut(&mut adapter.blocks[block])[target as usize] = Some(pair);
    }
    for (names, what) in [
        (padded, "filled up with zeros to the rank of their block"),
        (folded, "scale of their own multiplied into B, exactly (a power of two)"),
        (rounded, "scale of their own multiplied into B, rounded once to f32"),
        (absent, "not adapted there, held as zeros"),
    ] {
        if !names.is_empty() {
            notes.push(format!("{}: {what}", names.join(", ")));
        }
    }
    Ok((adapter, notes))
}

/// The settings that the most updates need nothing folded for.
fn settings(updates: &Updates, rslora: bool) -> LoraConfig {
    let targets: BTreeSet<Target> = updates.keys().map(|&(_, target)| target).collect();
    let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
    for (&(block, _), update) in updates {
        let rank = ranks.entry(block).or_insert(0);
        *rank = update.rank.max(*rank);
    }
    let Some(rank) = most_frequent(ranks.values().copied()) else {
        return LoraConfig::none();
    };
    // What alpha would have to be for this update to be taken as it stands.
    let wanted = |(&(block, _), update): (&(usize, Target), &Update)| {
        (update.alpha * divisor(ranks[&block] as f64, rslora) / divisor(update.rank as f64, rslora)) as f32
    };
    let alpha = most_frequent(updates.iter().map(wanted).map(f32::to_bits)).map_or(1.0, f32::from_bits);
    LoraConfig {
        rank,
        alpha,
        targets: targets.into_iter().collect(),
        blocks: ranks.keys().copied().collect(),
        rslora,
        rank_pattern: ranks.into_iter().filter(|&(_, of_block)| of_block != rank).collect(),
    }
}

/// The scale of an update over the scale that its block has in the plug-in.
fn ratio(update: &Update, alpha: f64, rank: usize, rslora: bool) -> f64 {
    let ranks = rank as f64 / update.rank as f64;
    // alpha was rounded to f32 when it was chosen: one that agrees to that precision is the same.
    let alphas = update.alpha / alpha * divisor(ranks, rslora);
    if ((alphas - 1.0) as f32).abs() < f32::EPSILON { 1.0 } else { alphas }
}

fn is_power_of_two(x: f64) -> bool {
    x.is_normal() && x.to_bits() & ((1 << (f64::MANTISSA_DIGITS - 1)) - 1) == 0
}

/// The value that occurs most often, the smallest of several.
fn most_frequent<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().rev().max_by_key(|&(_, count)| count).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vit() -> VitConfig {
        VitConfig { depth: 3, width: 4, heads: 1, mlp_hidden: 8, patch: 2, image_size: 4, ..VitConfig::base() }
    }

    fn update(target: Target, rank: usize, alpha: f64) -> Update {
        let (input, out) = target.features(&vit());
        let values = |len: usize| (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
        Update { rank, alpha, a: values(rank * input), b: values(out * rank) }
    }

    /// `scale · B A`, `[out, in]`.
    fn product(a: &[f32], b: &[f32], rank: usize, scale: f64) -> Vec<f64> {
        let input = a.len() / rank;
        let rows = b.chunks_exact(rank);
        rows.flat_map(|b| {
            (0..input).map(move |column| {
                scale * (0..rank).map(|l| f64::from(b[l]) * f64::from(a[l * input + column])).sum::<f64>()
            })
        })
        .collect()
    }

    #[test]
    fn what_differs_within_a_block_has_the_same_product() {
        for rslora in [false, true] {
            let updates: Updates = [
                ((0, Target::Q), update(Target::Q, 2, 3.0)),
                ((0, Target::V), update(Target::V, 3, 5.0)),
                ((2, Target::Q), update(Target::Q, 2, 3.0)),
                ((2, Target::Fc1), update(Target::Fc1, 1, 0.7)),
            ]
            .into();
            let (adapter, notes) = assemble(Path::new("x"), &updates, rslora, &vit()).expect("it can be held");
            assert_eq!(adapter.config.blocks, [0, 2]);
            assert!(notes.iter().any(|note| note.contains("blocks.2.v") && note.contains("not adapted")), "{notes:?}");
            for ((block, target), update) in &updates {
                let pair = adapter.blocks[*block][*target as usize].as_ref().expect("adapted");
                let expected =
                    product(&update.a, &update.b, update.rank, update.alpha / divisor(update.rank as f64, rslora));
                let (rank, scale) = (adapter.config.rank_of(*block), adapter.config.scale_of(*block));
                let found = product(&pair.a, &pair.b, rank, f64::from(scale));
                for (found, expected) in found.iter().zip(&expected) {
                    // Two roundings to f32: of B, and of the scale.
                    assert!((found - expected).abs() <= 2e-7 * 3.0 * 5.0, "{found} {expected} {rslora}");
                }
            }
        }
    }

    #[test]
    fn what_agrees_is_taken_as_it_stands() {
        let updates: Updates = [0, 1]
            .into_iter()
            .flat_map(|block| [Target::Q, Target::V].map(|target| ((block, target), update(target, 2 + block, 3.0))))
            .collect();
        let (adapter, notes) = assemble(Path::new("x"), &updates, false, &vit()).expect("it can be held");
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!((adapter.config.rank, adapter.config.alpha), (2, 3.0));
        assert_eq!(adapter.config.rank_pattern, BTreeMap::from([(1, 3)]));
        for ((block, target), update) in &updates {
            let pair = adapter.blocks[*block][*target as usize].as_ref().expect("adapted");
            assert_eq!((&pair.a, &pair.b), (&update.a, &update.b));
        }
    }
}
