//! The exact Euclidean distance transform by lower envelopes of parabolas, one axis after the other (Felzenszwalb &
//! Huttenlocher, Distance Transforms of Sampled Functions, Theory of Computing 8, 2012), of pixels that need not be square.

/// Where pixels of a box lie: axis 0 is the slowest. A plane `[h, w]` is the box `[h, 1, w]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lattice {
    pub shape: [usize; 3],
    /// Distance of neighbours along each axis.
    pub spacing: [f64; 3],
}

/// From each pixel in `from`, in their order, the distance to the nearest one in `to`; infinite where there is none.
pub(super) fn distances(from: &[bool], to: &[bool], lattice: Lattice) -> Vec<f64> {
    let Lattice { shape: [outer, middle, width], spacing } = lattice;
    let mut squares = along_outer(to, outer, middle * width, spacing[0]);
    let mut envelope = Envelope::default();
    if middle > 1 {
        let mut line = vec![0.0; middle];
        for slab in squares.chunks_exact_mut(middle * width) {
            for x in 0..width {
                for (value, row) in line.iter_mut().zip(slab.chunks_exact(width)) {
                    *value = row[x];
                }
                envelope.build(&line, spacing[1]);
                let mut reader = envelope.reader();
                for (y, row) in slab.chunks_exact_mut(width).enumerate() {
                    row[x] = reader.at(y);
                }
            }
        }
    }
    let mut found = Vec::new();
    for (row, asked) in squares.chunks_exact(width).zip(from.chunks_exact(width)) {
        if !asked.contains(&true) {
            continue;
        }
        envelope.build(row, spacing[2]);
        let mut reader = envelope.reader();
        found.extend(asked.iter().enumerate().filter(|(_, asked)| **asked).map(|(x, _)| reader.at(x).sqrt()));
    }
    found
}

/// Squared distance of each pixel to the nearest one in `to` with the same place in its slab.
fn along_outer(to: &[bool], outer: usize, slab: usize, spacing: f64) -> Vec<f64> {
    let mut steps: Vec<f64> = to.iter().map(|inside| if *inside { 0.0 } else { f64::INFINITY }).collect();
    let nearer = |own: &mut [f64], other: &[f64]| {
        for (own, other) in own.iter_mut().zip(other) {
            *own = own.min(other + 1.0);
        }
    };
    for at in 1..outer {
        let (before, after) = steps.split_at_mut(at * slab);
        nearer(&mut after[..slab], &before[(at - 1) * slab..]);
    }
    for at in (1..outer).rev() {
        let (before, after) = steps.split_at_mut(at * slab);
        nearer(&mut before[(at - 1) * slab..], &after[..slab]);
    }
    // Steps are whole numbers, so that no rounding adds up.
    steps.iter_mut().for_each(|steps| *steps = (*steps * spacing).powi(2));
    steps
}

/// The lower envelope of the parabolas `height[q] + (spacing · (x - q))²` over a line of pixels.
#[derive(Default)]
struct Envelope {
    spacing: f64,
    /// Vertex and height of each parabola that is lowest somewhere.
    parabolas: Vec<(f64, f64)>,
    /// Where each parabola but the first becomes the lowest, in pixels.
    starts: Vec<f64>,
}

impl Envelope {
    fn build(&mut self, heights: &[f64], spacing: f64) {
        self.spacing = spacing;
        self.parabolas.clear();
        self.starts.clear();
        let square = spacing * spacing;
        for (q, &height) in heights.iter().enumerate() {
            if height == f64::INFINITY {
                continue;
            }
            let q = q as f64;
            while let Some(&(vertex, lowest)) = self.parabolas.last() {
                let start = (q + vertex) / 2.0 + (height - lowest) / (2.0 * square * (q - vertex));
                match self.starts.last() {
                    Some(&last) if start <= last => {
                        self.starts.pop();
                        self.parabolas.pop();
                    }
                    _ => {
                        self.starts.push(start);
                        break;
                    }
                }
            }
            self.parabolas.push((q, height));
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { envelope: self, at: 0 }
    }
}

/// Reads an envelope from left to right.
struct Reader<'a> {
    envelope: &'a Envelope,
    at: usize,
}

impl Reader<'_> {
    fn at(&mut self, x: usize) -> f64 {
        let Envelope { spacing, parabolas, starts } = self.envelope;
        let x = x as f64;
        while starts.get(self.at).is_some_and(|start| *start < x) {
            self.at += 1;
        }
        parabolas.get(self.at).map_or(f64::INFINITY, |(vertex, height)| height + (spacing * (x - vertex)).powi(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_pairs(from: &[bool], to: &[bool], Lattice { shape, spacing }: Lattice) -> Vec<f64> {
        let place = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
        let of = |mask: &[bool]| (0..mask.len()).filter(|i| mask[*i]).map(place).collect::<Vec<_>>();
        let targets = of(to);
        let between = |a: [usize; 3], b: [usize; 3]| {
            (0..3).map(|axis| (spacing[axis] * (a[axis] as f64 - b[axis] as f64)).powi(2)).sum::<f64>().sqrt()
        };
        of(from).into_iter().map(|a| targets.iter().fold(f64::INFINITY, |least, b| least.min(between(a, *b)))).collect()
    }

    proptest! {
        #[test]
        fn equals_the_nearest_of_all_pairs(
            shape in prop::array::uniform3(1usize..9), spacing in prop::array::uniform3(0.05f64..7.0),
            density in 0.0f64..0.6, seed in any::<u64>()
        ) {
            use rand::{RngExt, SeedableRng};
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut mask = || (0..shape.iter().product::<usize>()).map(|_| rng.random_bool(density)).collect::<Vec<bool>>();
            let (from, to, lattice) = (mask(), mask(), Lattice { shape, spacing });
            let (found, expected) = (distances(&from, &to, lattice), by_pairs(&from, &to, lattice));
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.into_iter().zip(expected) {
                // Sums of three squares; parabolas that are equal to the last bits may change places.
                prop_assert!(found == expected || (found - expected).abs() <= 1e-12 * expected, "{} {}", found, expected);
            }
        }
    }
}
