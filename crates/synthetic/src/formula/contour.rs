//! Nested closed curves: regular polygons or waves on a circle, as in RCDB and VisualAtom.
//!
//! A curve is `ρ(t) = 1 + Σ aₖ cos(2π (fₖ t + pₖ))` about an ellipse, sampled at the class's number of vertices and
//! joined by straight lines; copies shrink towards the centre, each turned a little further.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pose::Pose;
use crate::canvas::{Field, Knot};
use crate::exact::{bell_draw, cos_turns, sin_turns};

/// What all instances of a contour class share.
struct Shape {
    vertices: usize,
    /// Height of the ellipse to its width.
    aspect: f32,
    /// Frequency, amplitude and phase (in turns) of each wave on the radius.
    waves: Vec<[f32; 3]>,
    /// Size of random, per-instance displacement of each vertex along the radius.
    roughness: f32,
    copies: usize,
    /// Radius of the innermost copy to that of the outermost.
    inner: f32,
    /// Turns between the outermost copy and the innermost.
    twist: f32,
    half_width: f32,
}

impl Shape {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let smooth = rng.random_range(0..3) > 0;
        let vertices = if smooth { rng.random_range(40..72) } else { rng.random_range(3..14) };
        let waves = (0..rng.random_range(1..=3))
            .map(|_| {
                let frequency = rng.random_range(2i32..12) as f32;
                // Fast waves of large amplitude would tangle the line.
                let amplitude = rng.random_range(0.06f32..0.45) / (1.0 + 0.12 * frequency);
                [frequency, if smooth { amplitude } else { 0.3 * amplitude }, rng.random_range(0.0..1.0)]
            })
            .collect();
        Self {
            vertices,
            aspect: rng.random_range(0.4..1.0),
            waves,
            roughness: if rng.random_range(0..2) == 0 { rng.random_range(0.0..0.12) } else { 0.0 },
            copies: rng.random_range(1..=12),
            inner: rng.random_range(0.1..0.6),
            twist: if rng.random_range(0..2) == 0 { rng.random_range(-0.3..0.3) } else { 0.0 },
            half_width: rng.random_range(0.006..0.035),
        }
    }

    /// The closed outline at radius one, `vertices + 1` points.
    fn outline(&self, rng: &mut ChaCha8Rng) -> Vec<[f32; 2]> {
        let jitter: Vec<[f32; 2]> = self.waves.iter().map(|_| [0; 2].map(|_| bell_draw(rng))).collect();
        let mut points: Vec<[f32; 2]> = (0..self.vertices)
            .map(|i| {
                let t = i as f32 / self.vertices as f32;
                let mut radius = 1.0 + self.roughness * bell_draw(rng) * 3.0;
                for ([frequency, amplitude, phase], [louder, later]) in self.waves.iter().zip(&jitter) {
                    radius += amplitude * (1.0 + 0.2 * louder) * cos_turns(frequency * t + phase + 0.04 * later);
                }
                [radius * cos_turns(t), radius * sin_turns(t) * self.aspect]
            })
            .collect();
        points.push(points[0]);
        points
    }
}

pub(super) fn draw(class_rng: &mut ChaCha8Rng, rng: &mut ChaCha8Rng, size: usize) -> Field {
    let shape = Shape::draw(class_rng);
    let outline = shape.outline(rng);
    let pose = Pose::draw(rng, 0.5..0.95, 0.25);
    let half_width = shape.half_width * rng.random_range(0.8f32..1.25);
    // Some instances fade towards the centre, some towards the rim.
    let fade = rng.random_range(-0.5f32..0.5);
    let mut field = Field::new(size);
    let mut knots = Vec::with_capacity(outline.len());
    for copy in 0..shape.copies {
        let depth = copy as f32 / shape.copies.max(2) as f32;
        let radius = 1.0 + (shape.inner - 1.0) * depth;
        let (cos, sin) = (cos_turns(shape.twist * depth) * radius, sin_turns(shape.twist * depth) * radius);
        knots.clear();
        knots.extend(outline.iter().map(|&[px, py]| {
            let (x, y) = pose.apply(cos * px - sin * py, sin * px + cos * py);
            Knot { x, y, half_width }
        }));
        field.stroke(&knots, 1.0 - fade.abs() * if fade > 0.0 { depth } else { 1.0 - depth });
    }
    field
}
