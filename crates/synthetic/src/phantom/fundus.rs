//! Photographs of the back of the eye: a lit disc, the pale head of the optic nerve, the dark macula, branching
//! vessels.

use melo_imaging::Pixels;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::detector::Detector;
use super::finding::{scatter, visibility};
use crate::canvas::{Canvas, Field, Knot};
use crate::exact::{bell, bell_draw, cos_turns, lerp, sin_turns, smoothstep};
use crate::noise::Lattice;

const HAEMORRHAGES: usize = 1;
const EXUDATES: usize = 2;

struct Eye {
    /// -1 if the nerve lies left of the macula, 1 if right.
    side: f32,
    radius: f32,
    nerve: [f32; 2],
    nerve_r: f32,
    macula: [f32; 2],
}

impl Eye {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let side = if rng.random_range(0..2) == 0 { -1.0 } else { 1.0 };
        let middle = [0; 2].map(|_| 0.06 * bell_draw(rng));
        Self {
            side,
            radius: 0.95 + 0.06 * bell_draw(rng),
            nerve: [side * (0.5 + 0.08 * bell_draw(rng)) + middle[0], 0.06 * bell_draw(rng) + middle[1]],
            nerve_r: 0.145 + 0.025 * bell_draw(rng),
            macula: [-side * (0.1 + 0.06 * bell_draw(rng)) + middle[0], 0.07 + 0.05 * bell_draw(rng) + middle[1]],
        }
    }

    /// Cover of the lit disc.
    fn lit(&self, x: f32, y: f32) -> f32 {
        smoothstep(self.radius + 0.015, self.radius - 0.025, (x * x + y * y).sqrt())
    }

    fn render(&self, rng: &mut ChaCha8Rng, size: usize, lattice: &Lattice) -> Canvas {
        let pigment = rng.random_range(0.0f32..1.0);
        let base = [lerp(0.82, 0.68, pigment), lerp(0.42, 0.28, pigment), lerp(0.20, 0.12, pigment)];
        let choroid = rng.random_range(0.03f32..0.1);
        let (light_x, light_y) = scatter(rng, 0.0..0.4);
        let cup = rng.random_range(0.3f32..0.6);
        let fovea = rng.random_range(0.2f32..0.4);
        Canvas::from_fn(size, |x, y| {
            let lit = self.lit(x, y);
            if lit == 0.0 {
                return [0.01; 3];
            }
            let (lx, ly) = (x - light_x, y - light_y);
            let shade = 1.05 - 0.35 * (lx * lx + ly * ly);
            let texture = 1.0 + choroid * lattice.fbm(4.0 * x + 9.0, 4.0 * y + 3.0, 4, 0.7);
            let (mx, my) = (x - self.macula[0], y - self.macula[1]);
            let dark = 1.0 - fovea * bell((mx * mx + my * my) / 0.045);
            let (nx, ny) = ((x - self.nerve[0]) * 1.1, y - self.nerve[1]);
            let d = (nx * nx + ny * ny).sqrt() / self.nerve_r;
            let disc = smoothstep(1.12, 0.88, d);
            let pale = smoothstep(cup + 0.2, cup - 0.2, d);
            let halo = 0.12 * bell(d * d / 6.0);
            let nerve = [0.97, lerp(0.72, 0.86, pale), lerp(0.42, 0.62, pale)];
            std::array::from_fn(|k| {
                let retina = base[k] * shade * texture * dark + halo * base[k];
                lit * lerp(retina, nerve[k] * (0.75 + 0.25 * shade), 0.9 * disc)
            })
        })
    }

    /// The four arcades, each an artery and a vein, with branches.
    fn vessels(&self, rng: &mut ChaCha8Rng, size: usize) -> [Field; 2] {
        let mut trees = [Field::new(size), Field::new(size)];
        for (kind, tree) in trees.iter_mut().enumerate() {
            let half_width = [0.014, 0.02][kind];
            for (temporal, down) in [(1.0, -1.0), (1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0)] {
                let offset = 0.03 * (kind as f32 - 0.5) + 0.02 * bell_draw(rng);
                let branch = Branch {
                    x: self.nerve[0] + offset,
                    y: self.nerve[1] + 0.02 * down,
                    // Straight up or down at first, then round the macula or away to the near side.
                    turn: 0.25 * down + self.side * down * temporal * (0.04 + 0.05 * bell_draw(rng)),
                    bend: self.side * down * temporal * if temporal > 0.0 { 0.017 } else { 0.012 },
                    half_width: half_width * (1.0 + 0.25 * bell_draw(rng)),
                    steps: if temporal > 0.0 { 20 } else { 12 },
                };
                branch.grow(rng, tree, 3);
            }
        }
        trees
    }

    /// A place in the lit disc, off the nerve.
    fn place(&self, rng: &mut ChaCha8Rng) -> (f32, f32) {
        for _ in 0..64 {
            let (x, y) = (rng.random_range(-0.8f32..0.8), rng.random_range(-0.8f32..0.8));
            let (nx, ny) = (x - self.nerve[0], y - self.nerve[1]);
            let off_nerve = nx * nx + ny * ny > 4.0 * self.nerve_r * self.nerve_r;
            if off_nerve && x * x + y * y < 0.72 * self.radius * self.radius {
                return (x, y);
            }
        }
        (self.macula[0], self.macula[1])
    }

    /// Blots, dots and flames of blood.
    fn haemorrhages(&self, rng: &mut ChaCha8Rng, size: usize, plain: f32) -> Field {
        let mut field = Field::new(size);
        let count = 3 + (plain * rng.random_range(4.0f32..18.0)) as usize;
        for _ in 0..count {
            let (x, y) = self.place(rng);
            let r = rng.random_range(0.022f32..0.065) * lerp(0.6, 1.1, plain);
            let (ox, oy) = scatter(rng, 0.0..2.0 * r);
            let amount = rng.random_range(0.6f32..1.0);
            for part in 0..4 {
                let s = part as f32 / 3.0;
                field.disc(x + ox * s, y + oy * s, r * (1.0 - 0.25 * s), 0.6 * r, amount);
            }
        }
        field
    }

    /// Small hard waxy spots, in clusters or in a ring.
    fn exudates(&self, rng: &mut ChaCha8Rng, size: usize, plain: f32) -> Field {
        let mut field = Field::new(size);
        for _ in 0..rng.random_range(2..5) {
            let (cx, cy) = self.place(rng);
            let ring = rng.random_range(0.06f32..0.22);
            let count = 3 + (plain * rng.random_range(4.0f32..16.0)) as usize;
            for _ in 0..count {
                let (ox, oy) = scatter(rng, 0.3 * ring..ring);
                let r = rng.random_range(0.014f32..0.036) * lerp(0.7, 1.1, plain);
                field.disc(cx + ox, cy + oy, r, 0.5 * r, rng.random_range(0.6..1.0));
            }
        }
        field
    }
}

/// A vessel that grows step by step, turning a little at each and sending off side branches.
struct Branch {
    x: f32,
    y: f32,
    /// Direction, in turns.
    turn: f32,
    /// Change of direction at each step.
    bend: f32,
    half_width: f32,
    steps: usize,
}

impl Branch {
    fn grow(&self, rng: &mut ChaCha8Rng, tree: &mut Field, generations: usize) {
        const STEP: f32 = 0.07;
        let (mut x, mut y, mut turn, mut half_width) = (self.x, self.y, self.turn, self.half_width);
        let mut knots = vec![Knot { x, y, half_width }];
        for step in 0..self.steps {
            turn += self.bend + 0.03 * bell_draw(rng);
            (x, y) = (x + STEP * cos_turns(turn), y + STEP * sin_turns(turn));
            half_width *= 0.95;
            knots.push(Knot { x, y, half_width });
            if generations > 1 && step > 1 && rng.random_range(0..4) == 0 {
                let way = if rng.random_range(0..2) == 0 { 1.0 } else { -1.0 };
                let side = Self {
                    x,
                    y,
                    turn: turn + way * rng.random_range(0.07f32..0.14),
                    bend: -0.005 * way,
                    half_width: 0.62 * half_width,
                    steps: 2 + (self.steps - step) / 2,
                };
                side.grow(rng, tree, generations - 1);
            }
        }
        tree.stroke(&knots, 1.0);
    }
}

pub(super) fn draw(class: usize, rng: &mut ChaCha8Rng, size: usize) -> Pixels {
    let lattice = Lattice::draw(rng);
    let eye = Eye::draw(rng);
    let mut canvas = eye.render(rng, size, &lattice);
    let mut lit = Field::from_fn(size, |x, y| eye.lit(x, y));
    let [arteries, veins] = eye.vessels(rng, size).map(|tree| clipped(tree, &lit));
    let depth = rng.random_range(0.35f32..0.75);
    canvas.stain(&arteries, [0.86, 0.52, 0.5], depth);
    canvas.stain(&veins, [0.7, 0.36, 0.36], depth);
    // Pale drusen-like spots and dark pigment specks in every class.
    let mut pale = Field::new(size);
    let mut dark = Field::new(size);
    for _ in 0..rng.random_range(0..6) {
        let (x, y) = eye.place(rng);
        pale.disc(x, y, rng.random_range(0.012..0.03), 0.03, rng.random_range(0.1..0.6));
    }
    for _ in 0..rng.random_range(0..4) {
        let (x, y) = eye.place(rng);
        dark.disc(x, y, rng.random_range(0.015..0.035), 0.03, rng.random_range(0.1..0.6));
    }
    let plain = visibility(rng);
    let strength = 0.08 + 0.77 * plain;
    canvas.blend(&clipped(pale, &lit), [0.95, 0.8, 0.5], 0.6);
    canvas.stain(&clipped(dark, &lit), [0.5, 0.35, 0.35], 0.7);
    if class == HAEMORRHAGES {
        canvas.stain(&clipped(eye.haemorrhages(rng, size, plain), &lit), [0.5, 0.14, 0.16], strength);
    }
    if class == EXUDATES {
        canvas.blend(&clipped(eye.exudates(rng, size, plain), &lit), [0.98, 0.88, 0.55], strength);
    }
    Detector::draw(rng).take_colour(&mut canvas, rng, [0.50, 0.25, 0.12]);
    // The camera's mask is black whatever the noise.
    lit.values.iter_mut().for_each(|v| *v = v.max(0.1));
    for plane in &mut canvas.planes {
        plane.values.iter_mut().zip(&lit.values).for_each(|(v, m)| *v *= m);
    }
    canvas.into_pixels()
}

fn clipped(mut field: Field, lit: &Field) -> Field {
    field.values.iter_mut().zip(&lit.values).for_each(|(v, m)| *v *= m);
    field
}
