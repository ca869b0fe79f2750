//! Mammograms, oblique view: a breast against air, the chest muscle in an upper corner, glandular tissue fanning from
//! the nipple.

use melo_imaging::Pixels;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::detector::Detector;
use super::finding::{scatter, visibility};
use crate::canvas::{Field, Knot};
use crate::exact::{bell, bell_draw, cos_turns, lerp, sin_turns, smoothstep};
use crate::noise::Lattice;

const ROUND: usize = 1;
const SPICULATED: usize = 2;

struct Breast {
    /// -1 if the chest wall is at the left edge of the film, 1 if at the right.
    side: f32,
    depth: f32,
    middle: f32,
    upper: f32,
    lower: f32,
    /// Width of the chest muscle at the top edge, and its length along the chest wall.
    muscle: [f32; 2],
    /// Share of the breast taken by glandular tissue.
    density: f32,
    gland: f32,
}

impl Breast {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            side: if rng.random_range(0..2) == 0 { -1.0 } else { 1.0 },
            depth: 1.3 + 0.25 * bell_draw(rng),
            middle: 0.1 + 0.1 * bell_draw(rng),
            upper: 1.4 + 0.2 * bell_draw(rng),
            lower: 0.84 + 0.1 * bell_draw(rng),
            muscle: [0.6 + 0.3 * bell_draw(rng), 1.25 + 0.5 * bell_draw(rng)],
            density: rng.random_range(-0.25..0.3),
            gland: rng.random_range(0.08..0.22),
        }
    }

    /// Distance from the chest wall, inwards positive.
    fn inward(&self, x: f32) -> f32 {
        1.0 - self.side * x
    }

    /// One at the chest wall's middle, zero on the skin, negative in air.
    fn inside(&self, x: f32, y: f32) -> f32 {
        let across = self.inward(x) / self.depth;
        let dy = y - self.middle;
        let along = dy / if dy < 0.0 { self.upper } else { self.lower };
        1.0 - (across * across + along * along).sqrt()
    }

    /// Cover of the chest muscle.
    fn muscle(&self, x: f32, y: f32) -> f32 {
        let (across, along) = (self.inward(x) / self.muscle[0], (y + 1.0) / self.muscle[1]);
        // The product lets the border bulge a little.
        smoothstep(1.12, 0.88, across + along - 0.25 * across * along)
    }

    fn render(&self, size: usize, lattice: &Lattice) -> Field {
        let nipple = self.depth;
        Field::from_fn(size, |x, y| {
            let inside = self.inside(x, y);
            if inside < -0.02 {
                return 0.0;
            }
            let a = self.inward(x);
            let dy = y - self.middle;
            // Tissue runs towards the nipple: noise is stretched along the rays that meet there.
            let from_nipple = ((a - nipple) * (a - nipple) + dy * dy).sqrt();
            let slope = dy / (from_nipple + 0.35);
            let strands = lattice.fbm(2.2 * from_nipple + 3.0, 6.5 * slope + 11.0, 4, 0.62);
            let clouds = lattice.fbm(2.4 * x + 19.0, 2.4 * y + 5.0, 4, 0.55);
            let cone = bell((a - 0.62 * self.depth) * (a - 0.62 * self.depth) / 0.3 + dy * dy / 0.32);
            let glandular = smoothstep(-0.15, 0.45, clouds * 0.9 + strands * 0.5 + cone * 0.75 - 0.5 + self.density);
            let fat = 0.22 + 0.05 * strands + 0.04 * clouds;
            let thickness = smoothstep(-0.02, 0.14, inside);
            let skin = 0.1 * bell((inside - 0.015) * (inside - 0.015) / 0.0003);
            let muscle = self.muscle(x, y) * (0.17 + 0.05 * clouds);
            let tissue = fat + self.gland * glandular * cone.max(0.12) * 1.3;
            skin * smoothstep(-0.02, 0.01, inside) + thickness * (tissue + muscle * smoothstep(0.05, 0.2, inside))
        })
    }

    /// A place well inside, off the muscle.
    fn place(&self, rng: &mut ChaCha8Rng) -> (f32, f32) {
        for _ in 0..64 {
            let (x, y) = (rng.random_range(-0.9f32..0.9), rng.random_range(-0.7f32..0.7));
            if self.inside(x, y) > 0.22 && self.muscle(x, y) < 0.1 {
                return (x, y);
            }
        }
        (self.side * 0.4, self.middle)
    }

    /// Cooper's ligaments, a vessel or two, specks of chalk: all classes have them.
    fn strands(&self, rng: &mut ChaCha8Rng, size: usize) -> Field {
        let mut strands = Field::new(size);
        for _ in 0..rng.random_range(5..12) {
            let (mut x, mut y) = self.place(rng);
            let turn = rng.random_range(-0.12f32..0.12);
            let (mut dx, mut dy) = (-self.side * cos_turns(turn), sin_turns(turn));
            let half_width = rng.random_range(0.004f32..0.011);
            let mut knots = vec![];
            for _ in 0..rng.random_range(4..9) {
                knots.push(Knot { x, y, half_width });
                (x, y) = (x + 0.07 * dx, y + 0.07 * dy);
                (dx, dy) = (dx + 0.2 * bell_draw(rng), dy + 0.35 * bell_draw(rng));
                if self.inside(x, y) < 0.06 {
                    break;
                }
            }
            strands.stroke(&knots, rng.random_range(0.3..1.0));
        }
        for _ in 0..rng.random_range(0..5) {
            let (x, y) = self.place(rng);
            strands.disc(x, y, 0.008, 0.01, 2.0);
        }
        strands
    }
}

/// A mass of radius `r`: a rounded body with wavy rim or, if spiculated, a small core with rays.
fn mass(rng: &mut ChaCha8Rng, size: usize, (x, y): (f32, f32), r: f32, spiculated: bool, plain: f32) -> Field {
    let mut field = Field::new(size);
    let lobes: Vec<[f32; 3]> = (0..3)
        .map(|_| {
            let turn = rng.random_range(0.0f32..1.0);
            let amount = if spiculated { 0.2 } else { 0.05 };
            [cos_turns(turn), sin_turns(turn), amount * rng.random_range(-1.0f32..1.0)]
        })
        .collect();
    let core = if spiculated { 0.72 * r } else { r };
    let rim = if spiculated { 0.8 } else { rng.random_range(0.25..0.6) };
    field.each_near(x, y, 2.0 * r, |v, dx, dy| {
        let d = (dx * dx + dy * dy).sqrt();
        let mut outline = core;
        for [cos, sin, amount] in &lobes {
            let along = (dx * cos + dy * sin) / d.max(1e-4);
            outline += core * amount * (4.0 * along * along - 3.0) * along;
        }
        *v = smoothstep(outline * (1.0 + rim * 0.5), outline * (1.0 - rim * 0.5), d);
    });
    if spiculated {
        spicules(rng, &mut field, (x, y), core, lerp(1.2, 2.3, plain) * r);
        field.blur(0.01);
    }
    field
}

/// Tapering, bent rays of unequal length up to `reach` from the middle of a mass.
fn spicules(rng: &mut ChaCha8Rng, field: &mut Field, (x, y): (f32, f32), core: f32, reach: f32) {
    let rays = rng.random_range(13..26);
    let start = rng.random_range(0.0f32..1.0);
    for ray in 0..rays {
        let mut turn = start + (ray as f32 + 1.2 * bell_draw(rng)) / rays as f32;
        let length = reach * rng.random_range(0.45f32..1.05);
        let knots: Vec<Knot> = (0..=4)
            .map(|i| {
                let s = i as f32 * 0.25;
                turn += 0.02 * bell_draw(rng);
                let d = lerp(0.4 * core, length, s);
                Knot { x: x + d * cos_turns(turn), y: y + d * sin_turns(turn), half_width: lerp(0.022, 0.004, s) }
            })
            .collect();
        field.stroke(&knots, rng.random_range(0.25..0.75));
    }
}

pub(super) fn draw(class: usize, rng: &mut ChaCha8Rng, size: usize) -> Pixels {
    let lattice = Lattice::draw(rng);
    let breast = Breast::draw(rng);
    let mut film = breast.render(size, &lattice);
    let strands = breast.strands(rng, size);
    film.values.iter_mut().zip(&strands.values).for_each(|(v, s)| *v += 0.09 * s);
    // Islands of normal tissue in every class, soft and elongated.
    for _ in 0..rng.random_range(0..3) {
        let (x, y) = breast.place(rng);
        let (ox, oy) = scatter(rng, 0.02..0.09);
        let (r, amount) = (rng.random_range(0.07f32..0.14), rng.random_range(0.03f32..0.1));
        film.add_bell(x + ox, y + oy, r, amount);
        film.add_bell(x - ox, y - oy, r, amount);
    }
    let plain = visibility(rng);
    if class == ROUND || class == SPICULATED {
        let place = breast.place(rng);
        let r = rng.random_range(0.13f32..0.25);
        let field = mass(rng, size, place, r, class == SPICULATED, plain);
        let amount = 0.06 + 0.26 * plain;
        let mut values = field.values.iter();
        film.each(|v, x, y| {
            let s = values.next().copied().unwrap_or_default();
            *v += amount * s * smoothstep(0.0, 0.1, breast.inside(x, y));
        });
    }
    let target = rng.random_range(0.17..0.3);
    Detector::draw(rng).take(&mut film, rng, target);
    film.into_pixels()
}
