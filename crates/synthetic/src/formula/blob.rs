//! Filled shapes: one or a cluster, round or lobed, sharp or soft, hollow or with rays.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pose::Pose;
use crate::canvas::{Field, Knot};
use crate::exact::{bell, bell_draw, cos_turns, lerp, sin_turns, smoothstep};

/// What all instances of a blob class share. Lengths are in units of the blob's radius unless said otherwise.
struct Shape {
    /// Blobs in a cluster.
    count: usize,
    /// Radius, in canvas units.
    radius: f32,
    /// Height of the ellipse to its width.
    aspect: f32,
    /// Lobes on the radius: amplitude of the waves of frequency 2, 3, 4, ….
    lobes: Vec<f32>,
    /// Width over which the rim falls off.
    edge: f32,
    /// How much the middle lacks, and how wide it is.
    hollow: [f32; 2],
    rays: usize,
    /// How far the rays reach.
    reach: f32,
    /// Half width of a ray where it starts.
    thick: f32,
}

impl Shape {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let count = if rng.random_range(0..2) == 0 { 1 } else { rng.random_range(2..24) };
        let radius = rng.random_range(0.45f32..0.8) / (0.6 + 0.4 * count as f32).sqrt().max(1.0);
        let rays = if rng.random_range(0..3) == 0 { rng.random_range(5..22) } else { 0 };
        Self {
            count,
            radius: if rays > 0 { 0.6 * radius } else { radius },
            aspect: if rng.random_range(0..2) == 0 { rng.random_range(0.35..1.0) } else { 1.0 },
            lobes: (0..rng.random_range(0..5)).map(|_| rng.random_range(-0.25f32..0.25)).collect(),
            edge: rng.random_range(0.08f32..1.0),
            hollow: if rng.random_range(0..3) == 0 {
                [rng.random_range(0.4..1.0), rng.random_range(0.3..0.8)]
            } else {
                [0.0, 0.5]
            },
            rays,
            reach: rng.random_range(1.5..2.6),
            thick: rng.random_range(0.04..0.16),
        }
    }

    /// One blob of radius `r` about a place, turned.
    fn blob(&self, field: &mut Field, rng: &mut ChaCha8Rng, (x, y): (f32, f32), r: f32, amount: f32) {
        let turn = rng.random_range(0.0f32..1.0);
        let (cos, sin) = (cos_turns(turn), sin_turns(turn));
        let lobes: Vec<f32> = self.lobes.iter().map(|a| a * (1.0 + 0.6 * bell_draw(rng))).collect();
        let [lack, middle] = self.hollow;
        field.each_near(x, y, 1.8 * r, |v, dx, dy| {
            let (px, py) = (cos * dx + sin * dy, (cos * dy - sin * dx) / self.aspect);
            let d = (px * px + py * py).sqrt();
            // cos of multiples of the angle, by Chebyshev's recurrence.
            let c = px / d.max(1e-4);
            let (mut before, mut now, mut rim) = (1.0, c, 1.0);
            for amplitude in &lobes {
                (before, now) = (now, 2.0 * c * now - before);
                rim += amplitude * now;
            }
            let d = d / (r * rim.max(0.3));
            let cover = smoothstep(1.0 + 0.5 * self.edge, 1.0 - 0.5 * self.edge, d);
            *v = v.max(amount * cover * (1.0 - lack * bell(d * d / (middle * middle))));
        });
        for ray in 0..self.rays {
            let turn = turn + (ray as f32 + bell_draw(rng)) / self.rays as f32;
            let (cos, sin) = (cos_turns(turn), sin_turns(turn));
            let length = self.reach * rng.random_range(0.6f32..1.0);
            let knots = [0.5, length].map(|d| Knot {
                x: x + d * r * cos,
                y: y + d * r * sin,
                half_width: r * self.thick * lerp(1.0, 0.3, (d - 0.5) / self.reach),
            });
            field.stroke(&knots, amount * 0.8);
        }
    }
}

pub(super) fn draw(class_rng: &mut ChaCha8Rng, rng: &mut ChaCha8Rng, size: usize) -> Field {
    let shape = Shape::draw(class_rng);
    let pose = Pose::draw(rng, 0.7..1.2, 0.2);
    let mut field = Field::new(size);
    let spread = if shape.count == 1 { 0.0 } else { 0.85 };
    for _ in 0..shape.count {
        let turn = rng.random_range(0.0f32..1.0);
        let d = spread * rng.random_range(0.0f32..1.0).sqrt();
        let place = pose.apply(d * cos_turns(turn), d * sin_turns(turn));
        let r = shape.radius * pose.scale() * (1.0 + 0.35 * bell_draw(rng));
        let amount = rng.random_range(0.7..1.0);
        shape.blob(&mut field, rng, place, r, amount);
    }
    field
}
