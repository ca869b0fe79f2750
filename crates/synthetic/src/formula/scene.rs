//! Formulas as figures on the ground of another: small or large, faint or plain, anywhere in the picture.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{CLASS_STREAM, MAX_CLASSES, structure, tint, two_colours};
use crate::canvas::{Canvas, Field};
use crate::exact::{smoothstep, stream_rng};

/// Most figures of a picture.
const FIGURES: usize = 4;

/// A figure that was painted.
pub(super) struct Figure {
    pub(super) class: usize,
    /// How much of each pixel it covers, 0..1, where no later one lies upon it, `[size, size]`.
    pub(super) cover: Field,
}

/// Paints figures of the first `formulas` classes on a ground of one of the rest.
pub(super) fn paint(formulas: usize, rng: &mut ChaCha8Rng, size: usize) -> (Canvas, Vec<Figure>) {
    let mut values = draw(rng.random_range(formulas..MAX_CLASSES), rng, size).values.into_iter();
    let (low, high) = two_colours(rng);
    // Flat, quiet as tissue is, or nearly as loud as a figure.
    let contrast = rng.random_range(0.0f32..0.6);
    let mut canvas = Canvas::from_fn(size, |_, _| {
        let s = 0.5 + contrast * (values.next().unwrap_or_default() - 0.5);
        std::array::from_fn(|k| low[k] + (high[k] - low[k]) * s)
    });
    let middle = (0..3).map(|k| low[k] + high[k]).sum::<f32>() / 6.0;
    let mut figures: Vec<Figure> = vec![];
    for _ in 0..rng.random_range(1..=FIGURES) {
        let class = rng.random_range(0..formulas);
        let share = rng.random_range(0.0f32..1.0);
        let side = ((0.14 + 0.86 * share * share) * size as f32) as usize + 1;
        let cover = placed(&windowed(draw(class, rng, side)), rng, size);
        canvas.blend(&cover, colour(middle, rng), rng.random_range(0.5..1.0));
        for figure in &mut figures {
            figure.cover.values.iter_mut().zip(&cover.values).for_each(|(below, above)| *below *= 1.0 - above);
        }
        figures.push(Figure { class, cover });
    }
    (canvas, figures)
}

/// One that is lighter or darker than the middle of the ground, hardly or plainly.
fn colour(middle: f32, rng: &mut ChaCha8Rng) -> [f32; 3] {
    let step = rng.random_range(0.15f32..0.7);
    let up = middle + step <= 1.0 && (middle - step < 0.0 || rng.random_range(0..2) == 0);
    let strength = rng.random_range(0.0f32..0.3);
    tint(if up { middle + step } else { middle - step }, strength, rng)
}

fn draw(class: usize, rng: &mut ChaCha8Rng, size: usize) -> Field {
    structure(class, &mut stream_rng(CLASS_STREAM, class, 0), rng, size)
}

/// Fades a figure towards the corners of its square.
fn windowed(mut figure: Field) -> Field {
    figure.each(|v, x, y| *v *= smoothstep(1.0, 0.75, (x * x + y * y).sqrt()));
    figure
}

/// Puts a figure into an empty field of the size of the picture: anywhere, with at most a fifth of its side outside.
fn placed(figure: &Field, rng: &mut ChaCha8Rng, size: usize) -> Field {
    let mut field = Field::new(size);
    let (side, outside) = (figure.size as i32, figure.size as i32 / 5);
    let [left, top] = [0; 2].map(|_| rng.random_range(-outside..=(size as i32 - side + outside).max(0)));
    for (row, line) in figure.values.chunks_exact(figure.size).enumerate() {
        let y = top + row as i32;
        if !(0..size as i32).contains(&y) {
            continue;
        }
        for (column, &v) in line.iter().enumerate() {
            let x = left + column as i32;
            if (0..size as i32).contains(&x) {
                field.values[y as usize * size + x as usize] = v;
            }
        }
    }
    field
}
