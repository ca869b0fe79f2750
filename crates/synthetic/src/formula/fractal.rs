//! Attractors of iterated function systems, as in FractalDB.
//!
//! The maps are drawn by their singular values (Anderson and Farrell, "Improving fractal pre-training", WACV 2022),
//! which makes nearly every system fill the canvas well; the few that do not are drawn again.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::pose::Pose;
use crate::canvas::Field;
use crate::exact::{bell_draw, cos_turns, sin_turns};

/// `x' = m x + t` with `m` by rows.
#[derive(Clone, Copy)]
struct Affine {
    m: [f32; 4],
    t: [f32; 2],
}

impl Affine {
    fn apply(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.m[0] * x + self.m[1] * y + self.t[0], self.m[2] * x + self.m[3] * y + self.t[1]]
    }

    /// `R(θ) diag(s1, s2) R(φ)`.
    fn with_singular_values(rng: &mut ChaCha8Rng, s1: f32, s2: f32) -> Self {
        let [theta, phi] = [0; 2].map(|_| rng.random_range(0.0f32..1.0));
        let (c, s) = (cos_turns(theta), sin_turns(theta));
        let (d, e) = (cos_turns(phi), sin_turns(phi));
        let m = [c * s1 * d - s * s2 * e, -c * s1 * e - s * s2 * d, s * s1 * d + c * s2 * e, -s * s1 * e + c * s2 * d];
        Self { m, t: [0; 2].map(|_| rng.random_range(-1.0f32..1.0)) }
    }

    fn determinant(&self) -> f32 {
        (self.m[0] * self.m[3] - self.m[1] * self.m[2]).abs()
    }
}

/// The largest singular value let through; below one, so that every map contracts even after an instance's jitter.
const MAX_SINGULAR: f32 = 0.92;
/// Points of the trial that decides whether a system fills the canvas, on a 24×24 board.
const TRIAL_POINTS: usize = 1024;
/// Cells of the board (of 576) that a good system touches.
const ENOUGH_CELLS: usize = 200;
const MAX_TRIALS: usize = 24;
/// Points to each pixel of the canvas.
const POINTS_PER_PIXEL: usize = 2;

pub(super) fn draw(class_rng: &mut ChaCha8Rng, rng: &mut ChaCha8Rng, size: usize) -> Field {
    let mut system = good_system(class_rng);
    for map in &mut system {
        for v in &mut map.m {
            *v *= 1.0 + 0.07 * bell_draw(rng);
        }
        for v in &mut map.t {
            *v += 0.06 * bell_draw(rng);
        }
    }
    let points = orbit(&system, rng, size * size * POINTS_PER_PIXEL);
    let pose = Pose::draw(rng, 0.8..1.25, 0.15);
    let mut density = density(&points, &pose, size);
    // Sparse attractors keep the same brightness as dense ones: the tone curve is set by the density where it is not
    // zero.
    let (mut sum, mut hit) = (0.0, 0.0);
    for &v in density.values.iter().filter(|&&v| v > 0.0) {
        sum += v;
        hit += 1.0;
    }
    let knee = rng.random_range(0.15f32..0.8) * sum / f32::max(hit, 1.0);
    density.values.iter_mut().for_each(|v| *v /= *v + knee);
    density
}

/// The class's maps: redrawn until the attractor spreads over the board; the best is kept if none does.
fn good_system(class_rng: &mut ChaCha8Rng) -> Vec<Affine> {
    let mut best = (0, Vec::new());
    for _ in 0..MAX_TRIALS {
        let system = random_system(class_rng);
        let touched = touched_cells(&orbit(&system, class_rng, TRIAL_POINTS));
        if touched > best.0 || best.1.is_empty() {
            best = (touched, system);
        }
        if touched >= ENOUGH_CELLS {
            break;
        }
    }
    best.1
}

/// 2 to 6 maps whose weighted singular values `Σ (s1 + 2 s2)` add up to a draw from (5 + n)/2 to (6 + n)/2: the band
/// in which Anderson and Farrell find well-formed attractors.
fn random_system(rng: &mut ChaCha8Rng) -> Vec<Affine> {
    let n = rng.random_range(2usize..=6);
    let target = rng.random_range(2.5f32..3.0) + 0.5 * n as f32;
    let raw: Vec<[f32; 2]> = (0..n)
        .map(|_| {
            let s1 = rng.random_range(0.4f32..1.0);
            [s1, s1 * rng.random_range(0.2f32..1.0)]
        })
        .collect();
    let scale = target / raw.iter().map(|s| s[0] + 2.0 * s[1]).sum::<f32>();
    raw.iter()
        .map(|s| {
            let [s1, s2] = s.map(|v| (v * scale).min(MAX_SINGULAR));
            Affine::with_singular_values(rng, s1, s2)
        })
        .collect()
}

/// The chaos game: `count` points of the attractor, each map chosen in proportion to its area.
fn orbit(system: &[Affine], rng: &mut ChaCha8Rng, count: usize) -> Vec<[f32; 2]> {
    /// Steps until the orbit has forgotten its start.
    const SETTLE: usize = 24;
    let areas: Vec<f32> = system.iter().map(|map| map.determinant().max(0.02)).collect();
    let total: f32 = areas.iter().sum();
    // A byte of randomness chooses the map.
    let mut maps = [system[0]; 256];
    let (mut map, mut bound) = (0, areas[0] / total * 256.0);
    for (i, slot) in maps.iter_mut().enumerate() {
        while i as f32 >= bound && map + 1 < system.len() {
            map += 1;
            bound += areas[map] / total * 256.0;
        }
        *slot = system[map];
    }
    let mut choices = vec![0; count + SETTLE];
    rng.fill_bytes(&mut choices);
    let mut point = [0.0; 2];
    let mut points = Vec::with_capacity(count);
    for (step, &choice) in choices.iter().enumerate() {
        point = maps[usize::from(choice)].apply(point);
        if step >= SETTLE {
            points.push(point);
        }
    }
    points
}

/// Centre and half extent of the points' bounding box along each axis.
fn extent(points: &[[f32; 2]]) -> [(f32, f32); 2] {
    let mut low = [f32::MAX; 2];
    let mut high = [f32::MIN; 2];
    for point in points {
        for k in 0..2 {
            low[k] = low[k].min(point[k]);
            high[k] = high[k].max(point[k]);
        }
    }
    [0, 1].map(|k| (0.5 * (low[k] + high[k]), (0.5 * (high[k] - low[k])).max(1e-6)))
}

fn touched_cells(points: &[[f32; 2]]) -> usize {
    const SIDE: usize = 24;
    let box_ = extent(points);
    let half = box_[0].1.max(box_[1].1);
    let mut board = [false; SIDE * SIDE];
    for point in points {
        let [column, row] = [0, 1].map(|k| (((point[k] - box_[k].0) / half + 1.0) * 0.5 * SIDE as f32) as usize);
        board[row.min(SIDE - 1) * SIDE + column.min(SIDE - 1)] = true;
    }
    board.iter().filter(|&&hit| hit).count()
}

/// Points counted per pixel, with the attractor's bounding box put into the canvas by `pose`.
fn density(points: &[[f32; 2]], pose: &Pose, size: usize) -> Field {
    let [(cx, hx), (cy, hy)] = extent(points);
    let shrink = 1.0 / hx.max(hy);
    let mut field = Field::new(size);
    let half = 0.5 * size as f32;
    for &[px, py] in points {
        let (x, y) = pose.apply((px - cx) * shrink, (py - cy) * shrink);
        let (column, row) = ((x + 1.0) * half, (y + 1.0) * half);
        if column >= 0.0 && row >= 0.0 && column < size as f32 && row < size as f32 {
            field.values[row as usize * size + column as usize] += 1.0;
        }
    }
    field
}
