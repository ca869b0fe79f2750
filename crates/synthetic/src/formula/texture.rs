//! Textures: gratings (Gabor, 1946), fractal noise (Perlin, SIGGRAPH 1985), cells (Worley, SIGGRAPH 1996) and spots.
//!
//! A class mixes two of the four, each with its own parameters, and bends the sum by a tone curve.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pose::Pose;
use crate::canvas::Field;
use crate::exact::{cos_turns, floor, sin_turns, smoothstep};
use crate::noise::Lattice;

/// One ingredient, with the parameters that the class fixes. Frequencies are periods per canvas width.
enum Layer {
    /// Plane waves: frequency, direction (turns) and weight of each; bent by noise of the given strength.
    Grating { waves: Vec<[f32; 3]>, warp: f32 },
    /// Fractal noise: coarsest frequency, gain from one octave to the next (the spectral slope), stretch along one
    /// axis.
    Cloud { frequency: f32, gain: f32, stretch: f32, ridged: bool },
    /// Distances to scattered points: to the nearest (bubbles) or the gap to the second (walls).
    Cells { frequency: f32, jitter: f32, walls: bool },
    /// Soft discs of one size.
    Spots { radius: f32, count: usize, edge: f32 },
}

/// How the sum of the layers becomes brightness.
enum Tone {
    Linear,
    Folded,
    Threshold(f32),
}

impl Layer {
    fn draw(rng: &mut ChaCha8Rng, kind: usize) -> Self {
        match kind % 4 {
            0 => Self::Grating {
                waves: (0..rng.random_range(1..=4))
                    .map(|_| [rng.random_range(2.0..14.0), rng.random_range(0.0..1.0), rng.random_range(0.4..1.0)])
                    .collect(),
                warp: if rng.random_range(0..2) == 0 { rng.random_range(0.0..0.5) } else { 0.0 },
            },
            1 => Self::Cloud {
                frequency: rng.random_range(1.2..6.0),
                gain: rng.random_range(0.25..0.95),
                stretch: if rng.random_range(0..2) == 0 { rng.random_range(1.5..6.0) } else { 1.0 },
                ridged: rng.random_range(0..2) == 0,
            },
            2 => Self::Cells {
                frequency: rng.random_range(2.5..13.0),
                jitter: rng.random_range(0.3..1.0),
                walls: rng.random_range(0..2) == 0,
            },
            _ => {
                let radius = rng.random_range(0.03f32..0.2);
                // A cover of 15 to 60 % of the canvas, whatever the size.
                let cover = rng.random_range(0.15f32..0.6);
                let count = (cover * 4.0 / (std::f32::consts::PI * radius * radius)) as usize + 1;
                Self::Spots { radius, count: count.min(160), edge: rng.random_range(0.1..1.0) * radius }
            }
        }
    }

    /// The layer over the canvas, about zero mean and unit amplitude.
    fn render(&self, rng: &mut ChaCha8Rng, size: usize, pose: &Pose) -> Field {
        let lattice = Lattice::draw(rng);
        let origin = [0; 2].map(|_| rng.random_range(0.0f32..16.0));
        match *self {
            Self::Grating { ref waves, warp } => gratings(waves, warp, &lattice, rng, size, pose),
            Self::Cloud { frequency, gain, stretch, ridged } => Field::from_fn(size, |x, y| {
                let (x, y) = pose.apply(x, y);
                let (x, y) = (x * frequency * 0.5 + origin[0], y * frequency * stretch * 0.5 + origin[1]);
                let v = lattice.fbm(x, y, 4, gain) * 2.0;
                if ridged { 1.0 - 3.0 * v.abs() } else { v }
            }),
            Self::Cells { frequency, jitter, walls } => cells(frequency, jitter, walls, rng, size, pose),
            Self::Spots { radius, count, edge } => {
                let scale = pose.scale();
                let mut field = Field::new(size);
                for _ in 0..count {
                    let [x, y] = [0; 2].map(|_| rng.random_range(-1.1f32..1.1));
                    let r = radius / scale * rng.random_range(0.8f32..1.2);
                    field.disc(x, y, r, edge, rng.random_range(0.6..1.0));
                }
                field.values.iter_mut().for_each(|v| *v = 2.0 * *v - 1.0);
                field
            }
        }
    }
}

fn gratings(waves: &[[f32; 3]], warp: f32, lattice: &Lattice, rng: &mut ChaCha8Rng, size: usize, pose: &Pose) -> Field {
    let total: f32 = waves.iter().map(|w| w[2]).sum();
    let waves: Vec<[f32; 4]> = waves
        .iter()
        .map(|&[frequency, turn, weight]| {
            let k = 0.5 * frequency;
            [k * cos_turns(turn), k * sin_turns(turn), rng.random_range(0.0..1.0), weight / total]
        })
        .collect();
    Field::from_fn(size, |x, y| {
        let (x, y) = pose.apply(x, y);
        let bend = if warp > 0.0 { warp * lattice.at(1.7 * x + 8.0, 1.7 * y + 8.0) } else { 0.0 };
        1.4 * waves
            .iter()
            .map(|[kx, ky, phase, weight]| weight * cos_turns(kx * x + ky * y + phase + bend))
            .sum::<f32>()
    })
}

fn cells(frequency: f32, jitter: f32, walls: bool, rng: &mut ChaCha8Rng, size: usize, pose: &Pose) -> Field {
    /// Side of the board of scattered points, a power of two; it repeats beyond.
    const SIDE: usize = 16;
    let board: Vec<[f32; 2]> =
        (0..SIDE * SIDE).map(|_| [0; 2].map(|_| 0.5 + jitter * rng.random_range(-0.5f32..0.5))).collect();
    Field::from_fn(size, |x, y| {
        let (x, y) = pose.apply(x, y);
        let (x, y) = ((x + 4.0) * frequency * 0.5, (y + 4.0) * frequency * 0.5);
        let (column, row) = (floor(x), floor(y));
        let (fx, fy) = (x - column as f32, y - row as f32);
        let (mut first, mut second) = (9.0f32, 9.0f32);
        for j in -1i32..=1 {
            let line = ((row + j) as usize % SIDE) * SIDE;
            for i in -1i32..=1 {
                let [px, py] = board[line + (column + i) as usize % SIDE];
                let (dx, dy) = (px + i as f32 - fx, py + j as f32 - fy);
                let d2 = dx * dx + dy * dy;
                second = second.min(first.max(d2));
                first = first.min(d2);
            }
        }
        if walls { 1.0 - 3.5 * (second.sqrt() - first.sqrt()) } else { 1.0 - 2.2 * first.sqrt() }
    })
}

pub(super) fn draw(class_rng: &mut ChaCha8Rng, rng: &mut ChaCha8Rng, size: usize) -> Field {
    let kind = class_rng.random_range(0..4);
    let other = kind + class_rng.random_range(1..4);
    let (main, second) = (Layer::draw(class_rng, kind), Layer::draw(class_rng, other));
    let share = class_rng.random_range(0.0f32..0.45);
    let tone = match class_rng.random_range(0..4) {
        0 => Tone::Folded,
        1 => Tone::Threshold(class_rng.random_range(-0.3..0.3)),
        _ => Tone::Linear,
    };
    let pose = Pose::draw(rng, 0.8..1.25, 1.0);
    let mut field = main.render(rng, size, &pose);
    let below = second.render(rng, size, &pose);
    for (v, w) in field.values.iter_mut().zip(&below.values) {
        let sum = *v + share * (w - *v);
        *v = match tone {
            Tone::Linear => sum,
            Tone::Folded => sum.abs(),
            Tone::Threshold(t) => smoothstep(t - 0.15, t + 0.15, sum),
        };
    }
    standardise(&mut field);
    field
}

/// Stretches mean ± 2 standard deviations to 0..1, so that strength of contrast does not tell the class.
fn standardise(field: &mut Field) {
    let mean = field.mean();
    let variance = field.values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / field.values.len() as f32;
    let scale = 0.25 / variance.sqrt().max(0.02);
    field.values.iter_mut().for_each(|v| *v = ((*v - mean) * scale + 0.5).clamp(0.0, 1.0));
}
