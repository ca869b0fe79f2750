//! Position embeddings for another image size: bicubic with antialiasing, as timm's `resample_abs_pos_embed`, or without,
//! as Hugging Face's `interpolate_pos_encoding`.

use crate::config::{PositionFilter, VitConfig};

/// `pos_embed [prefix + old², d]` to `[prefix + new², d]` for images of side `image_size`; prefix rows are kept.
pub(crate) fn resample(pos_embed: &[f32], config: &VitConfig, image_size: usize) -> Vec<f32> {
    let d = config.width;
    let (old, new) = (config.image_size / config.patch, image_size / config.patch);
    if old == new || !config.pos_embed {
        return pos_embed.to_vec();
    }
    let (kept, grid) = pos_embed.split_at(config.position_prefix() * d);
    let taps = match config.position_filter {
        PositionFilter::Antialiased => antialiased(old, new),
        PositionFilter::Plain => plain(old, new),
    };
    let mut rows = vec![0.0f64; new * old * d];
    for (y, row) in taps.iter().enumerate() {
        for &(source, weight) in row {
            for i in 0..old * d {
                rows[y * old * d + i] += weight * f64::from(grid[source * old * d + i]);
            }
        }
    }
    let mut out = kept.to_vec();
    for row in rows.chunks_exact(old * d) {
        for column in &taps {
            out.extend((0..d).map(|i| column.iter().map(|&(s, w)| w * row[s * d + i]).sum::<f64>() as f32));
        }
    }
    out
}

/// For each of `new` output positions, the input positions and weights it mixes: PyTorch's antialiased bicubic filter,
/// whose parameter of Keys' is Pillow's.
fn antialiased(old: usize, new: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = old as f64 / new as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..new)
        .map(|i| {
            let center = scale * (i as f64 + 0.5);
            let first = ((center - support + 0.5).floor().max(0.0)) as usize;
            let last = ((center + support + 0.5).floor() as usize).min(old);
            let weights: Vec<f64> = (first..last).map(|j| cubic((j as f64 - center + 0.5) / stretch, -0.5)).collect();
            let total: f64 = weights.iter().sum();
            (first..last).zip(weights).map(|(j, w)| (j, w / total)).collect()
        })
        .collect()
}

/// As [`antialiased`], four taps whatever the scale; beyond the edge the last position is repeated.
fn plain(old: usize, new: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = old as f64 / new as f64;
    (0..new)
        .map(|i| {
            let source = scale * (i as f64 + 0.5) - 0.5;
            let first = source.floor() - 1.0;
            let tap = |j: f64| (j.clamp(0.0, (old - 1) as f64) as usize, cubic(j - source, -0.75));
            (0..4).map(|k| tap(first + f64::from(k))).collect()
        })
        .collect()
}

/// Keys' cubic convolution kernel with parameter `a` (IEEE Trans. ASSP 29, 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}
