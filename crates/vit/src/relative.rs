//! Relative positions: a bias on the score of every two tokens by how far apart they stand, as BEiT.
//!
//! A block's table has a row a distance, `(2 g - 1)²` between the patches of a grid of side `g`, then class token to patch, patch to
//! class token, class token to itself; a column a head.

use crate::config::{PositionFilter, VitConfig};

/// Distances with the class token.
const OF_CLASS: usize = 3;

/// Rows of the table for a grid of `side²` patches.
pub(crate) fn distances(side: usize) -> usize {
    (2 * side - 1).pow(2) + OF_CLASS
}

/// The row of the table for every two tokens, `[t, t]` with the class token first.
pub fn relative_index(side: usize) -> Vec<u32> {
    let (of_class, t) = (distances(side) - OF_CLASS, 1 + side * side);
    let row = |query: usize, key: usize| match (query.checked_sub(1), key.checked_sub(1)) {
        (None, None) => of_class + 2,
        (None, Some(_)) => of_class,
        (Some(_), None) => of_class + 1,
        (Some(query), Some(key)) => {
            let apart = |query: usize, key: usize| query + side - 1 - key;
            apart(query / side, key / side) * (2 * side - 1) + apart(query % side, key % side)
        }
    };
    (0..t).flat_map(|query| (0..t).map(move |key| row(query, key) as u32)).collect()
}

/// The table `[distances, h]` for images of side `image_size`, interpolated linearly: for [`PositionFilter::Antialiased`] at distances
/// that grow geometrically, as timm after BEiT's authors, for [`PositionFilter::Plain`] at equal ones, as Hugging Face.
pub(crate) fn resample(table: &[f32], config: &VitConfig, image_size: usize) -> Vec<f32> {
    let heads = config.heads;
    let [old, new] = [config.image_size, image_size].map(|size| 2 * (size / config.patch) - 1);
    if old == new {
        return table.to_vec();
    }
    let taps = match config.position_filter {
        PositionFilter::Antialiased => geometric(old, new),
        PositionFilter::Plain => even(old, new),
    };
    let (apart, of_class) = table.split_at(old * old * heads);
    let mut out = Vec::with_capacity(distances(image_size / config.patch) * heads);
    for down in &taps {
        for across in &taps {
            out.extend((0..heads).map(|head| {
                let pairs = down.iter().flat_map(|&(y, v)| across.iter().map(move |&(x, w)| (y * old + x, v * w)));
                pairs.map(|(place, w)| w * f64::from(apart[place * heads + head])).sum::<f64>() as f32
            }));
        }
    }
    out.extend_from_slice(of_class);
    out
}

/// For each of `new` positions, the two of `old` that it lies between, with their shares: where `positions` stand, and it.
fn between(positions: &[f64], at: f64) -> [(usize, f64); 2] {
    let last = positions.len() - 1;
    let right = positions.iter().position(|&position| position >= at).unwrap_or(last);
    let left = right.saturating_sub(1);
    let (before, after) = ((at - positions[left]).max(0.0), (positions[right] - at).max(0.0));
    match before + after {
        0.0 => [(left, 0.5), (right, 0.5)],
        width => [(left, after / width), (right, before / width)],
    }
}

/// Old distances lie at `1, 1 + q, 1 + q + q², …` with the `q` by which they reach as far as the new ones.
fn geometric(old: usize, new: usize) -> Vec<[(usize, f64); 2]> {
    let (half, reach) = (old / 2, (new / 2) as f64);
    let (mut low, mut high, mut q) = (1.01f64, 1.5f64, 1.5f64);
    while high - low > 1e-6 {
        q = (low + high) / 2.0;
        if (1.0 - q.powi(half as i32)) / (1.0 - q) > reach { high = q } else { low = q }
    }
    let mut steps = Vec::with_capacity(half);
    let mut sum = 1.0;
    for i in 0..half {
        steps.push(sum);
        sum += q.powi(i as i32 + 1);
    }
    let positions: Vec<f64> = steps.iter().rev().map(|x| -x).chain([0.0]).chain(steps.iter().copied()).collect();
    (0..new).map(|i| between(&positions, i as f64 - reach)).collect()
}

/// Old distances lie evenly between the edges of the new ones; beyond the outermost middle it is repeated.
fn even(old: usize, new: usize) -> Vec<[(usize, f64); 2]> {
    let scale = old as f64 / new as f64;
    (0..new)
        .map(|i| {
            let source = (scale * (i as f64 + 0.5) - 0.5).clamp(0.0, (old - 1) as f64);
            let left = source.floor() as usize;
            let share = source - left as f64;
            [(left, 1.0 - share), ((left + 1).min(old - 1), share)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `gen_relative_position_index((2, 2))` of timm 1.0.31.
    #[test]
    fn the_index_is_timm_s() {
        #[rustfmt::skip]
        let expected = [
            11, 9, 9, 9, 9,
            10, 4, 3, 1, 0,
            10, 5, 4, 2, 1,
            10, 7, 6, 4, 3,
            10, 8, 7, 5, 4,
        ];
        assert_eq!(relative_index(2), expected);
        assert_eq!(distances(2), 12);
    }

    #[test]
    fn shares_of_a_distance_are_one_together() {
        for (old, new) in [(1, 3), (3, 1), (7, 11), (11, 7), (27, 47)] {
            for taps in [geometric(old, new), even(old, new)] {
                assert_eq!(taps.len(), new);
                assert!(taps.iter().all(|[(_, a), (_, b)]| (a + b - 1.0).abs() < 1e-12), "{old} to {new}");
            }
        }
    }
}
