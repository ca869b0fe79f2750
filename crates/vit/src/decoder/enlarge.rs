//! Square maps with their channels last, enlarged bilinearly as PyTorch's `interpolate(…, align_corners=False)` does.

/// Where an output position lies between two of the input: both, and the share of the second.
fn between(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let place = |at: usize| {
        let centre = ((at as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let first = (centre as usize).min(from - 1);
        (first, (first + 1).min(from - 1), (centre - first as f64) as f32)
    };
    (0..to).map(place).collect()
}

/// A map `[from, from, channels]` as `[to, to, channels]`.
///
/// # Panics
/// If `map` is of another length, or a side is 0.
pub fn enlarge(map: &[f32], channels: usize, from: usize, to: usize) -> Vec<f32> {
    assert_eq!(map.len(), from * from * channels, "length of [{from}, {from}, {channels}]");
    if from == to {
        return map.to_vec();
    }
    let places = between(from, to);
    let line = from * channels;
    let (mut enlarged, mut mixed) = (Vec::with_capacity(to * to * channels), vec![0.0; line]);
    for &(above, below, share) in &places {
        let lines = map[above * line..][..line].iter().zip(&map[below * line..][..line]);
        mixed.iter_mut().zip(lines).for_each(|(mixed, (a, b))| *mixed = a + share * (b - a));
        for &(left, right, share) in &places {
            let pixels = mixed[left * channels..][..channels].iter().zip(&mixed[right * channels..][..channels]);
            enlarged.extend(pixels.map(|(a, b)| a + share * (b - a)));
        }
    }
    enlarged
}

/// The gradient of a map for that of what [`enlarge`] made of it, `d [to, to, channels]`.
///
/// # Panics
/// If `d` is of another length, or a side is 0.
pub fn enlarge_backward(d: &[f32], channels: usize, from: usize, to: usize) -> Vec<f32> {
    assert_eq!(d.len(), to * to * channels, "length of [{to}, {to}, {channels}]");
    if from == to {
        return d.to_vec();
    }
    let places = between(from, to);
    let line = from * channels;
    let (mut d_map, mut d_mixed) = (vec![0.0; from * line], vec![0.0; line]);
    for (&(above, below, share), d) in places.iter().zip(d.chunks_exact(to * channels)) {
        d_mixed.fill(0.0);
        for (&(left, right, share), d) in places.iter().zip(d.chunks_exact(channels)) {
            for (channel, d) in d.iter().enumerate() {
                d_mixed[left * channels + channel] += (1.0 - share) * d;
                d_mixed[right * channels + channel] += share * d;
            }
        }
        for (at, d) in d_mixed.iter().enumerate() {
            d_map[above * line + at] += (1.0 - share) * d;
            d_map[below * line + at] += share * d;
        }
    }
    d_map
}
