//! Blood smears in a Romanowsky stain: red cells with pale centres about one white cell, told by its nucleus.

use melo_imaging::Pixels;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::detector::Detector;
use super::finding::scatter;
use crate::canvas::{Canvas, Field, Knot};
use crate::exact::{bell, bell_draw, cos_turns, lerp, sin_turns, smoothstep};
use crate::noise::Lattice;

const NEUTROPHIL: usize = 0;
const LYMPHOCYTE: usize = 1;
const MONOCYTE: usize = 2;

/// The white cell: where it lies, how large it is, how typical of its class.
struct Cell {
    x: f32,
    y: f32,
    r: f32,
    turn: f32,
    typical: f32,
}

impl Cell {
    /// A point of the cell in its own frame, in units of its radius.
    fn at(&self, along: f32, across: f32) -> (f32, f32) {
        let (cos, sin) = (cos_turns(self.turn) * self.r, sin_turns(self.turn) * self.r);
        (self.x + cos * along - sin * across, self.y + sin * along + cos * across)
    }

    fn knot(&self, (along, across): (f32, f32), half_width: f32) -> Knot {
        let (x, y) = self.at(along, across);
        Knot { x, y, half_width: half_width * self.r }
    }

    /// Discs joined by a band: the lobes' places and radii are in units of the cell's radius.
    fn lobes(&self, lobes: &[(f32, f32, f32)], band: f32, nucleus: &mut Field) {
        for &(along, across, r) in lobes {
            let (x, y) = self.at(along, across);
            nucleus.disc(x, y, r * self.r, 0.12 * self.r, 1.0);
        }
        let knots: Vec<Knot> = lobes.iter().map(|&(a, c, _)| self.knot((a, c), band)).collect();
        nucleus.stroke(&knots, 1.0);
    }

    fn nucleus(&self, class: usize, rng: &mut ChaCha8Rng, size: usize) -> Field {
        let mut nucleus = Field::new(size);
        // The less typical, the more the lobes run together and the shapes approach each other.
        let t = self.typical;
        match class {
            NEUTROPHIL => {
                let count = rng.random_range(3..=5);
                let spread = lerp(0.1, 0.46, t);
                let arc = rng.random_range(0.55f32..0.85);
                let lobes: Vec<_> = (0..count)
                    .map(|i| {
                        let turn = arc * (i as f32 / (count - 1) as f32 - 0.5) + 0.05 * bell_draw(rng);
                        let d = spread * (1.0 + 0.35 * bell_draw(rng));
                        (d * cos_turns(turn), d * sin_turns(turn), (0.27 - 0.015 * count as f32) * lerp(1.6, 1.0, t))
                    })
                    .collect();
                self.lobes(&lobes, lerp(0.3, 0.06, t), &mut nucleus);
            }
            LYMPHOCYTE => {
                let r = lerp(0.48, 0.8, t);
                let dent = (1.0 - t) * 0.4;
                self.lobes(&[(0.06, -dent * 0.5, r), (0.0, dent * 0.5, r)], 0.3, &mut nucleus);
            }
            MONOCYTE => {
                // A thick arc: the kidney.
                let bend = lerp(0.06, 0.42, t);
                let width = lerp(0.46, 0.27, t);
                let knots: Vec<Knot> = (0..=8)
                    .map(|i| {
                        let s = i as f32 / 4.0 - 1.0;
                        let turn = 0.27 * s;
                        let d = lerp(0.16, 0.5, t);
                        self.knot((d * cos_turns(turn) - bend * 0.6, d * sin_turns(turn)), width * (1.0 - 0.12 * s * s))
                    })
                    .collect();
                nucleus.stroke(&knots, 1.0);
            }
            _ => {
                let apart = lerp(0.12, 0.42, t);
                let r = lerp(0.42, 0.32, t);
                let lean = 0.12 * bell_draw(rng);
                self.lobes(&[(lean, -apart, r), (lean + 0.06, apart, r)], lerp(0.34, 0.08, t), &mut nucleus);
            }
        }
        nucleus.blur(0.03 * self.r);
        nucleus
    }
}

/// Red cells over the whole field, none on the white cell. Cells that overlap add their stain.
fn red_cells(rng: &mut ChaCha8Rng, size: usize, white: &Cell) -> Field {
    let mut stain = Field::new(size);
    let r = rng.random_range(0.17f32..0.25);
    let pallor = rng.random_range(0.3f32..0.75);
    let wanted = rng.random_range(10..34);
    let mut placed: Vec<(f32, f32)> = vec![];
    for _ in 0..4 * wanted {
        let (x, y) = (rng.random_range(-1.15f32..1.15), rng.random_range(-1.15f32..1.15));
        let apart = |(px, py): (f32, f32)| ((x - px) * (x - px) + (y - py) * (y - py)).sqrt();
        let crowded = placed.iter().any(|&p| apart(p) < 1.55 * r) || apart((white.x, white.y)) < white.r + 0.8 * r;
        if crowded {
            continue;
        }
        placed.push((x, y));
        let own = r * (1.0 + 0.2 * bell_draw(rng));
        let (squash, turn) = (1.0 + 0.2 * bell_draw(rng), rng.random_range(0.0f32..0.5));
        let (cos, sin) = (cos_turns(turn), sin_turns(turn));
        let (px, py) = scatter(rng, 0.0..0.15);
        stain.each_near(x, y, 1.3 * own, |v, dx, dy| {
            let (a, b) = ((cos * dx + sin * dy) / own, (cos * dy - sin * dx) / own * squash);
            let d2 = a * a + b * b;
            let hollow = pallor * bell(((a - px) * (a - px) + (b - py) * (b - py)) / 0.22);
            *v += smoothstep(1.06, 0.94, d2.sqrt()) * (0.75 + 0.25 * d2.min(1.0) - 0.75 * hollow);
        });
        if placed.len() == wanted {
            break;
        }
    }
    stain
}

fn granules(rng: &mut ChaCha8Rng, size: usize, cell: &Cell, count: usize, radius: std::ops::Range<f32>) -> Field {
    let mut field = Field::new(size);
    for _ in 0..count {
        // The square root spreads the grains evenly over the disc.
        let d = 0.9 * rng.random_range(0.0f32..1.0).sqrt();
        let (along, across) = scatter(rng, d..d + 0.01);
        let (x, y) = cell.at(along, across);
        field.disc(x, y, cell.r * rng.random_range(radius.clone()), 0.04 * cell.r, rng.random_range(0.5..1.0));
    }
    field
}

pub(super) fn draw(class: usize, rng: &mut ChaCha8Rng, size: usize) -> Pixels {
    let lattice = Lattice::draw(rng);
    // Halfway shapes are common here, and not the exception: the nuclei of neighbours differ by degree.
    let typical = rng.random_range(0.0f32..0.65);
    let larger = [0.0, -0.06, 0.06, 0.01][class] * typical;
    let cell = Cell {
        x: 0.2 * bell_draw(rng),
        y: 0.2 * bell_draw(rng),
        r: 0.47 + larger + 0.09 * bell_draw(rng),
        turn: rng.random_range(0.0..1.0),
        typical,
    };
    let slope = [0; 2].map(|_| 0.05 * bell_draw(rng));
    let mut canvas = Canvas::from_fn(size, |x, y| {
        let light = 1.0 + slope[0] * x + slope[1] * y + 0.02 * lattice.at(2.0 * x + 9.0, 2.0 * y + 9.0);
        [0.93 * light, 0.88 * light, 0.87 * light]
    });
    let red = red_cells(rng, size, &cell);
    let depth = rng.random_range(0.5f32..0.95);
    canvas.stain(&red, [0.87, 0.58, 0.60], depth);
    // Platelets.
    let mut specks = Field::new(size);
    for _ in 0..rng.random_range(0..4) {
        let (x, y) = scatter(rng, cell.r + 0.1..1.1);
        specks.disc(x, y, rng.random_range(0.025..0.05), 0.03, 0.7);
    }
    canvas.blend(&specks, [0.55, 0.38, 0.66], 0.9);
    paint_white_cell(class, rng, &cell, &lattice, &mut canvas);
    Detector::draw(rng).take_colour(&mut canvas, rng, [0.76, 0.62, 0.68]);
    canvas.into_pixels()
}

fn paint_white_cell(class: usize, rng: &mut ChaCha8Rng, cell: &Cell, lattice: &Lattice, canvas: &mut Canvas) {
    let size = canvas.planes[0].size;
    let mut body = Field::new(size);
    let wobble = 0.1;
    body.each_near(cell.x, cell.y, 1.3 * cell.r, |v, dx, dy| {
        let rim = cell.r * (1.0 + wobble * lattice.at(2.5 * dx / cell.r + 4.0, 2.5 * dy / cell.r + 4.0));
        *v = smoothstep(1.04 * rim, 0.94 * rim, (dx * dx + dy * dy).sqrt());
    });
    // Cytoplasm: typical colours of the classes, drawn towards a common lilac when untypical.
    let common = [0.82, 0.74, 0.84];
    let own = [[0.88, 0.76, 0.83], [0.66, 0.72, 0.90], [0.73, 0.73, 0.84], [0.89, 0.74, 0.76]][class];
    let strength = 0.7 * cell.typical;
    let cytoplasm = std::array::from_fn(|k| lerp(common[k], own[k], strength) + 0.1 * bell_draw(rng));
    canvas.blend(&body, cytoplasm, 0.95);
    let fine = granules(rng, size, cell, 45, 0.02..0.04);
    canvas.blend(&masked(fine, &body), [0.68, 0.5, 0.72], rng.random_range(0.05..0.4));
    if class == NEUTROPHIL + 3 {
        let coarse = granules(rng, size, cell, 70, 0.045..0.075);
        canvas.blend(&masked(coarse, &body), [0.86, 0.42, 0.28], 0.8 * cell.typical);
    }
    // The share of the cell that the nucleus takes varies in every class.
    let core = Cell { r: cell.r * (1.0 + 0.3 * bell_draw(rng)), ..*cell };
    let mut nucleus = masked(core.nucleus(class, rng, size), &body);
    // Chromatin: clumps within the nucleus.
    let clumps = rng.random_range(0.08f32..0.25);
    nucleus.each(|v, x, y| *v *= 1.0 - clumps * (0.5 + 0.5 * lattice.fbm(9.0 * x, 9.0 * y, 2, 0.6)));
    let dark: [f32; 3] = [0.36, 0.20, 0.52];
    canvas.blend(&nucleus, dark.map(|v| v + 0.05 * bell_draw(rng)), 1.0);
}

fn masked(mut field: Field, mask: &Field) -> Field {
    field.values.iter_mut().zip(&mask.values).for_each(|(v, m)| *v *= m);
    field
}
