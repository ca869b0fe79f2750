//! Frontal chest films: brightness stands for attenuation, so air is dark and bone and fluid are bright.

use melo_imaging::Pixels;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::detector::Detector;
use super::finding::visibility;
use crate::canvas::{Field, Knot};
use crate::exact::{bell, bell_draw, cos_turns, lerp, sin_turns, smoothstep};
use crate::noise::Lattice;

const NODULE: usize = 1;
const EFFUSION: usize = 2;

/// One lung in mirrored coordinates: `a` runs from the midline outwards, `v` downwards.
struct Lung {
    width: f32,
    medial: f32,
    apex: f32,
    /// Level at which the chest is widest.
    widest: f32,
    /// Level of the costophrenic angle.
    base: f32,
    /// Height of the diaphragm's dome above it.
    dome: f32,
    /// Height of fluid at the chest wall, zero if there is none.
    fluid: f32,
}

impl Lung {
    /// Distance of the chest wall from the midline at level `v`.
    fn wall(&self, v: f32) -> f32 {
        let rise = ((self.widest - v) / (self.widest - self.apex)).clamp(0.0, 1.0);
        self.width * (1.0 - rise * rise * rise).sqrt() + 0.06 * (1.0 - rise)
    }

    /// Cover of the point by air-filled lung, 0..1.
    fn air(&self, a: f32, v: f32) -> f32 {
        if a < 0.0 || v < self.apex - 0.1 || v > self.base + 0.2 {
            return 0.0;
        }
        let near_apex = smoothstep(self.apex + 0.35, self.apex, v);
        let medial = self.medial + 0.1 * near_apex;
        let wall = self.wall(v);
        let across = (a - medial) / (self.width - self.medial);
        let from_middle = 2.0 * across - 0.9;
        let floor = self.base - self.dome * (1.0 - from_middle * from_middle) + 0.07 * (across - 0.5);
        let lateral = smoothstep(wall + 0.02, wall - 0.025, a);
        let inner = smoothstep(medial - 0.04, medial + 0.05, a);
        let top = smoothstep(self.apex, self.apex + 0.08, v);
        let below = smoothstep(floor + 0.02, floor - 0.03, v);
        // The meniscus climbs along the chest wall.
        let surface = self.base - self.fluid * (0.3 + 0.7 * across.clamp(0.0, 1.1) * across);
        let wet = if self.fluid > 0.0 { smoothstep(surface - 0.05, surface + 0.06, v) } else { 0.0 };
        lateral * inner * top * below * (1.0 - wet)
    }
}

struct Chest {
    tilt: [f32; 2],
    zoom: f32,
    shift: [f32; 2],
    /// The patient's right lung (on the left of the film), then the left.
    lungs: [Lung; 2],
    heart: [f32; 4],
    depth: f32,
    haze: f32,
}

impl Chest {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let turn = 0.018 * bell_draw(rng);
        let breath = bell_draw(rng) * 0.12;
        let apex = -0.78 + 0.06 * bell_draw(rng);
        let lung = |rng: &mut ChaCha8Rng, lift: f32| Lung {
            width: 0.76 + 0.07 * bell_draw(rng),
            medial: 0.12 + 0.02 * bell_draw(rng),
            apex: apex + 0.03 * bell_draw(rng),
            widest: 0.45,
            base: 0.68 + breath - lift + 0.06 * bell_draw(rng),
            dome: 0.24 + 0.08 * bell_draw(rng),
            // A scarred angle looks like a little fluid.
            fluid: (rng.random_range(-0.25f32..0.16)).max(0.0),
        };
        Self {
            tilt: [cos_turns(turn), sin_turns(turn)],
            zoom: 1.02 + 0.12 * bell_draw(rng),
            shift: [0; 2].map(|_| 0.07 * bell_draw(rng)),
            lungs: [lung(rng, 0.06), lung(rng, 0.0)],
            heart: [
                0.12 + 0.04 * bell_draw(rng),
                0.32 + 0.05 * bell_draw(rng),
                0.33 + 0.07 * bell_draw(rng),
                0.33 + 0.05 * bell_draw(rng),
            ],
            depth: 0.42 + 0.09 * bell_draw(rng),
            haze: rng.random_range(0.02..0.09),
        }
    }

    /// Film to body coordinates.
    fn body(&self, x: f32, y: f32) -> (f32, f32) {
        let (x, y) = ((x - self.shift[0]) * self.zoom, (y - self.shift[1]) * self.zoom);
        (self.tilt[0] * x + self.tilt[1] * y, self.tilt[0] * y - self.tilt[1] * x)
    }

    /// Body to film coordinates.
    fn film(&self, u: f32, v: f32) -> (f32, f32) {
        let (x, y) = (self.tilt[0] * u - self.tilt[1] * v, self.tilt[1] * u + self.tilt[0] * v);
        (x / self.zoom + self.shift[0], y / self.zoom + self.shift[1])
    }

    fn knot(&self, u: f32, v: f32, half_width: f32) -> Knot {
        let (x, y) = self.film(u, v);
        Knot { x, y, half_width }
    }

    /// Cover of the heart and the great vessels, 0..1.
    fn heart(&self, u: f32, v: f32) -> f32 {
        let [cu, cv, ru, rv] = self.heart;
        let (du, dv) = ((u - cu) / ru, (v - cv + 0.25 * (u - cu)) / rv);
        let heart = smoothstep(1.12, 0.92, (du * du + dv * dv).sqrt());
        let (ku, kv) = ((u - 0.1) / 0.11, (v + 0.2) / 0.15);
        let knob = smoothstep(1.4, 0.6, (ku * ku + kv * kv).sqrt());
        heart.max(0.8 * knob)
    }

    /// Air seen past the heart.
    fn air(&self, u: f32, v: f32) -> f32 {
        let lung = if u < 0.0 { self.lungs[0].air(-u, v) } else { self.lungs[1].air(u, v) };
        lung * (1.0 - 0.9 * self.heart(u, v))
    }

    /// Cover of the torso: neck, shoulders, flanks.
    fn torso(u: f32, v: f32) -> f32 {
        let half = lerp(0.26, 1.04, smoothstep(-1.0, -0.62, v));
        smoothstep(half + 0.05, half - 0.05, u.abs())
    }

    /// Soft tissue, spine, heart and air; no bones, vessels or findings.
    fn render(&self, size: usize, lattice: &Lattice) -> (Field, Field) {
        let mut air_field = Field::new(size);
        let mut index = 0;
        let film = Field::from_fn(size, |x, y| {
            let (u, v) = self.body(x, y);
            let torso = Self::torso(u, v);
            let air = self.air(u, v);
            air_field.values[index] = air;
            index += 1;
            let vertebrae = 0.75 + 0.25 * sin_turns(6.0 * v);
            let spine = 0.1 * bell(u * u / 0.012) * vertebrae;
            let middle = 0.13 * bell(u * u / 0.03);
            let belly = 0.1 * smoothstep(0.3, 0.7, v);
            let windpipe = 0.16 * bell((u - 0.01) * (u - 0.01) / 0.0028) * smoothstep(-0.1, -0.35, v);
            let soft = 0.58 + middle + spine + belly + 0.06 * self.heart(u, v) - windpipe;
            let haze = self.haze * lattice.fbm(3.0 * x + 7.0, 3.0 * y + 7.0, 4, 0.65);
            torso * (soft - self.depth * air + haze * (0.4 + air))
        });
        (film, air_field)
    }

    /// Nine pairs of back ribs, fainter front ribs and the collar bones.
    fn bones(&self, rng: &mut ChaCha8Rng, size: usize) -> Field {
        let mut bones = Field::new(size);
        let gap = 0.145 + 0.012 * bell_draw(rng);
        let slope = 0.16 + 0.08 * bell_draw(rng);
        let front = rng.random_range(0.2f32..0.6);
        for (lung, side) in self.lungs.iter().zip([-1.0, 1.0]) {
            for rib in 0..9 {
                let v0 = lung.apex + 0.04 + gap * rib as f32;
                let wall = lung.wall(v0 + slope).max(0.3);
                let back: Vec<Knot> = (0..=10)
                    .map(|i| {
                        let s = i as f32 * 0.1;
                        let v = v0 - 0.07 * sin_turns(0.42 * s) + slope * s * s * (0.6 + 0.4 * s);
                        self.knot(side * lerp(0.09, wall, s * (1.25 - 0.25 * s)), v, 0.024)
                    })
                    .collect();
                bones.stroke(&back, 1.0);
                let fore: Vec<Knot> = (0..=6)
                    .map(|i| {
                        let s = i as f32 / 6.0;
                        let v = v0 + slope + 0.02 + (0.2 + 0.12 * s) * s;
                        self.knot(side * lerp(wall, 0.42 * wall, s), v, 0.026)
                    })
                    .collect();
                if rib < 6 {
                    bones.stroke(&fore, front);
                }
            }
            let lift = 0.05 * bell_draw(rng);
            let collar: Vec<Knot> = (0..=8)
                .map(|i| {
                    let s = i as f32 / 8.0;
                    let v = lung.apex + 0.2 - 0.2 * s - lift * s + 0.04 * sin_turns(s);
                    self.knot(side * lerp(0.1, 0.8, s), v, 0.032)
                })
                .collect();
            bones.stroke(&collar, 1.3);
        }
        bones.blur(0.012);
        bones
    }

    /// Branching lines from each hilum, and a few vessels seen end-on: small, sharp dots that are not nodules.
    fn vessels(&self, rng: &mut ChaCha8Rng, size: usize) -> Field {
        let mut vessels = Field::new(size);
        for side in [-1.0, 1.0] {
            let (hu, hv) = (side * (0.2 + 0.02 * bell_draw(rng)), 0.02 + 0.05 * bell_draw(rng));
            for _ in 0..rng.random_range(9..15) {
                let turn = rng.random_range(-0.24f32..0.27);
                let (mut u, mut v) = (hu, hv);
                let (mut du, mut dv) = (side * cos_turns(turn), sin_turns(turn));
                let mut half_width = rng.random_range(0.008f32..0.02);
                let mut knots = vec![self.knot(u, v, half_width)];
                for _ in 0..6 {
                    (u, v) = (u + 0.085 * du, v + 0.085 * dv);
                    (du, dv) = (du + 0.25 * bell_draw(rng), dv + 0.3 * bell_draw(rng));
                    half_width *= 0.78;
                    knots.push(self.knot(u, v, half_width));
                }
                vessels.stroke(&knots, rng.random_range(0.5..1.0));
            }
            let (x, y) = self.film(hu, hv);
            vessels.add_bell(x, y, 0.09, 0.8);
            for _ in 0..rng.random_range(0..4) {
                let (x, y) = self.film(hu + side * rng.random_range(0.05f32..0.25), hv + 0.3 * bell_draw(rng));
                vessels.disc(x, y, rng.random_range(0.012..0.022), 0.015, 1.3);
            }
        }
        vessels
    }

    /// A place in the air of a lung, in film coordinates.
    fn place_in_air(&self, rng: &mut ChaCha8Rng) -> (f32, f32) {
        for _ in 0..64 {
            let (u, v) = (rng.random_range(-0.8f32..0.8), rng.random_range(-0.7f32..0.7));
            if self.air(u, v) > 0.9 {
                return self.film(u, v);
            }
        }
        self.film(-0.45, 0.0)
    }
}

pub(super) fn draw(class: usize, rng: &mut ChaCha8Rng, size: usize) -> Pixels {
    let lattice = Lattice::draw(rng);
    let mut chest = Chest::draw(rng);
    let plain = visibility(rng);
    if class == EFFUSION {
        let side = rng.random_range(0..2usize);
        let level = 0.08 + 0.55 * plain * rng.random_range(0.1f32..1.0);
        chest.lungs[side].fluid = level;
        if rng.random_range(0..4) == 0 {
            chest.lungs[1 - side].fluid = level * rng.random_range(0.3f32..0.9);
        }
    }
    let (mut film, air) = chest.render(size, &lattice);
    let bones = chest.bones(rng, size);
    let bone = rng.random_range(0.04f32..0.1);
    let vessels = chest.vessels(rng, size);
    let vessel = rng.random_range(0.1f32..0.2);
    for (i, v) in film.values.iter_mut().enumerate() {
        let a = air.values[i];
        *v += bone * bones.values[i] * (0.3 + 0.7 * a) + vessel * vessels.values[i] * a;
    }
    if class == NODULE {
        for _ in 0..1 + rng.random_range(0..3) / 2 {
            let (x, y) = chest.place_in_air(rng);
            let r = (0.07 + 0.06 * plain) * rng.random_range(0.8f32..1.3);
            let amount = 0.06 + 0.34 * plain;
            let mut spot = Field::new(size);
            spot.disc(x, y, r, 0.9 * r, amount);
            for (v, (s, a)) in film.values.iter_mut().zip(spot.values.iter().zip(&air.values)) {
                *v += s * a;
            }
        }
    }
    let target = rng.random_range(0.4..0.56);
    Detector::draw(rng).take(&mut film, rng, target);
    film.into_pixels()
}
