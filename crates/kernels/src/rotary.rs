//! Rotary positions: pairs of a head's queries and keys turned by angles of where their token stands (arXiv 2104.09864).
//!
//! `(x, y) → (x cos - y sin, y cos + x sin)`, in f32 whatever the precision of products.

/// Which values of a head are a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// One of the first half with the one at its place in the second.
    Halves,
    /// Neighbours.
    Neighbours,
}

/// The angles of every position, one a pair.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Pairs of a head.
    count: usize,
    pairs: Pairs,
}

impl Rotation {
    /// `angles [positions, count]` in radians, `count` half a head's width.
    pub fn new(angles: &[f64], count: usize, pairs: Pairs) -> Self {
        assert!(count > 0 && angles.len().is_multiple_of(count), "rotation shapes");
        let [cos, sin] = [f64::cos, f64::sin].map(|f| angles.iter().map(|&angle| f(angle) as f32).collect());
        Rotation { cos, sin, count, pairs }
    }

    /// Turns one token's heads `x [h · 2 count]` by the angles of a position; `back`, by the negative ones, which is the gradient.
    pub fn turn(&self, position: usize, x: &mut [f32], back: bool) {
        assert!(x.len().is_multiple_of(2 * self.count), "rotation shapes");
        let angles = position * self.count..(position + 1) * self.count;
        let (cos, sin) = (&self.cos[angles.clone()], &self.sin[angles]);
        let sign = if back { -1.0 } else { 1.0 };
        let turn = |x: &mut f32, y: &mut f32, cos: f32, sin: f32| {
            let (a, b) = (*x, *y);
            *x = a * cos - b * (sign * sin);
            *y = b * cos + a * (sign * sin);
        };
        for head in x.chunks_exact_mut(2 * self.count) {
            match self.pairs {
                Pairs::Halves => {
                    let (first, second) = head.split_at_mut(self.count);
                    for (((x, y), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                        turn(x, y, cos, sin);
                    }
                }
                Pairs::Neighbours => {
                    for (([x, y], &cos), &sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                        turn(x, y, cos, sin);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_turned_and_turned_back() {
        let right = std::f64::consts::FRAC_PI_2;
        for (pairs, expected) in [
            (Pairs::Halves, [-3.0, 2.0, 1.0, 4.0, -7.0, 6.0, 5.0, 8.0]),
            (Pairs::Neighbours, [-2.0, 1.0, 3.0, 4.0, -6.0, 5.0, 7.0, 8.0]),
        ] {
            // Position 1: the first pair of every head by a right angle, the second by none.
            let rotation = Rotation::new(&[0.3, 0.7, right, 0.0], 2, pairs);
            let x: Vec<f32> = (1..=8u8).map(f32::from).collect();
            let mut y = x.clone();
            rotation.turn(1, &mut y, false);
            assert!(y.iter().zip(expected).all(|(y, e): (&f32, f32)| (y - e).abs() < 1e-6), "{pairs:?}: {y:?}");
            rotation.turn(1, &mut y, true);
            assert!(y.iter().zip(&x).all(|(y, x)| (y - x).abs() < 1e-6), "{pairs:?}: {y:?}");
        }
    }
}
