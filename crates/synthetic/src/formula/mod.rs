//! Images of formula-made classes, for pre-training without photographs.
//!
//! Sources: Kataoka et al., "Pre-training without natural images", ACCV 2020 (FractalDB: a class is an iterated
//! function system); Kataoka et al., "Replacing labeled real-image datasets with auto-generated contours", CVPR 2022
//! (RCDB: a class is a family of nested radial contours); Takashima et al., "Visual atoms", CVPR 2023 (waves on the
//! contour's radius). Textures, blobs and trees are this project's own addition: medical images differ by texture, spots
//! and vessels more than by outline.
//!
//! A class fixes structure only. Position, scale, rotation, reflection, contrast, polarity, colour, background, blur
//! and noise belong to the instance, so none of them tells the class. Half of the instances fill the picture; the others
//! are figures on the quiet ground of another formula, as a finding lies in tissue.

mod blob;
mod contour;
mod fractal;
mod pose;
mod scene;
mod texture;
mod tree;

use melo_imaging::Pixels;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::canvas::{Canvas, Field};
use crate::exact::{bell_draw, stream_rng};

/// The number of classes that [`formula_image`] knows.
pub const MAX_CLASSES: usize = 1024;

/// The families, in the order in which classes are dealt to them: class `c` is of family `FAMILIES[c % 5]`.
pub const FAMILIES: [Family; 5] = [Family::Fractal, Family::Contour, Family::Texture, Family::Blob, Family::Tree];

/// What kind of formula makes the images of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The attractor of an iterated function system.
    Fractal,
    /// Nested closed curves with a radius profile.
    Contour,
    /// Gratings, fractal noise, cells and spots.
    Texture,
    /// Filled shapes, one or a cluster.
    Blob,
    /// Branching lines.
    Tree,
}

impl Family {
    /// The family of class `class`.
    pub fn of(class: usize) -> Self {
        FAMILIES[class % FAMILIES.len()]
    }

    /// A lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fractal => "fractal",
            Self::Contour => "contour",
            Self::Texture => "texture",
            Self::Blob => "blob",
            Self::Tree => "tree",
        }
    }
}

/// Streams of random numbers; see [`stream_rng`].
const CLASS_STREAM: u64 = 0x666f_726d_0000;
const INSTANCE_STREAM: u64 = 0x666f_726d_0001;

/// Draws instance `instance` of class `class` as RGB pixels `[size, size]`.
///
/// The same arguments give the same bytes on every machine. Instances of a class share the formula and differ in all
/// else.
///
/// # Panics
/// If `class` is not below [`MAX_CLASSES`] or `size` is zero.
pub fn formula_image(class: usize, instance: u64, size: usize) -> Pixels {
    assert!(class < MAX_CLASSES, "class {class} is not below {MAX_CLASSES}");
    assert!(size > 0, "an image needs at least one pixel");
    let mut rng = stream_rng(INSTANCE_STREAM, class, instance);
    let canvas = match rng.random_range(0..2) {
        0 => scene::paint(class, &mut rng, size),
        _ => alone(class, &mut rng, size),
    };
    develop(canvas, &mut rng)
}

/// Paints a formula over the whole picture.
fn alone(class: usize, rng: &mut ChaCha8Rng, size: usize) -> Canvas {
    let mut values = structure(class, &mut stream_rng(CLASS_STREAM, class, 0), rng, size).values.into_iter();
    let (ground, figure) = two_colours(rng);
    Canvas::from_fn(size, |_, _| {
        let s = values.next().unwrap_or_default();
        std::array::from_fn(|k| ground[k] + (figure[k] - ground[k]) * s)
    })
}

/// The structure of a formula, 0 ground and 1 figure, `[size, size]`: what its class fixes comes from `class_rng`.
fn structure(class: usize, class_rng: &mut ChaCha8Rng, rng: &mut ChaCha8Rng, size: usize) -> Field {
    match Family::of(class) {
        Family::Fractal => fractal::draw(class_rng, rng, size),
        Family::Contour => contour::draw(class_rng, rng, size),
        Family::Texture => texture::draw(class_rng, rng, size),
        Family::Blob => blob::draw(class_rng, rng, size),
        Family::Tree => tree::draw(class_rng, rng, size),
    }
}

/// Makes it a picture: unevenly lit, perhaps blurred or without colour, noisy.
fn develop(mut canvas: Canvas, rng: &mut ChaCha8Rng) -> Pixels {
    let blur = if rng.random_range(0..4) == 0 { rng.random_range(0.005..0.025) } else { 0.0 };
    let slope = [0; 2].map(|_| bell_draw(rng) * 0.25);
    let noise = rng.random_range(0.0f32..1.0);
    let noise = 0.07 * noise * noise;
    let grey = rng.random_range(0..2) == 0;
    if grey {
        canvas = canvas.grey();
    }
    // The grain of a grey picture is grey too.
    let grain = rng.clone();
    for plane in &mut canvas.planes {
        plane.blur(blur);
        plane.each(|v, x, y| *v += slope[0] * x + slope[1] * y);
        if grey {
            *rng = grain.clone();
        }
        plane.grain(rng, noise);
    }
    canvas.into_pixels()
}

/// Ground and figure colours whose lightness differs by at least 0.3, either way round.
fn two_colours(rng: &mut ChaCha8Rng) -> ([f32; 3], [f32; 3]) {
    let ground = rng.random_range(0.05f32..0.95);
    let contrast = rng.random_range(0.3f32..0.75);
    let up = if ground + contrast > 0.98 {
        false
    } else if ground - contrast < 0.02 {
        true
    } else {
        rng.random_range(0..2) == 0
    };
    let figure = if up { (ground + contrast).min(1.0) } else { (ground - contrast).max(0.0) };
    let strength = rng.random_range(0.0f32..0.3);
    (tint(ground, strength, rng), tint(figure, strength, rng))
}

/// A colour of the given lightness, its channels up to `strength` apart from it.
fn tint(lightness: f32, strength: f32, rng: &mut ChaCha8Rng) -> [f32; 3] {
    let raw = [0; 3].map(|_| rng.random_range(-1.0f32..1.0) * strength);
    let mean = (raw[0] + raw[1] + raw[2]) / 3.0;
    raw.map(|v| lightness + v - mean)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn grey_std(pixels: &Pixels) -> f64 {
        let grey: Vec<f64> =
            pixels.rgb.chunks_exact(3).map(|p| p.iter().map(|&v| f64::from(v)).sum::<f64>() / 3.0).collect();
        let mean = grey.iter().sum::<f64>() / grey.len() as f64;
        (grey.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / grey.len() as f64).sqrt()
    }

    #[test]
    fn images_have_the_stated_size_and_structure_at_every_size() {
        for size in [1, 2, 17, 32, 64] {
            for class in 0..12 {
                let pixels = formula_image(class, 3, size);
                assert_eq!((pixels.width, pixels.height, pixels.rgb.len()), (size, size, size * size * 3));
                let deviation = grey_std(&pixels);
                assert!(size < 17 || deviation > 6.0, "class {class}, size {size}: standard deviation {deviation:.2}");
            }
        }
    }

    /// A formula's parameters are all that is drawn from its class: every rendering draws the same, and no more.
    #[test]
    fn renderings_of_a_class_share_its_formula() {
        for (family, draw) in
            FAMILIES.into_iter().zip([fractal::draw, contour::draw, texture::draw, blob::draw, tree::draw])
        {
            let formula = |class: usize, instance: u64, size: usize| {
                let mut class_rng = stream_rng(CLASS_STREAM, class, 0);
                let structure = draw(&mut class_rng, &mut stream_rng(INSTANCE_STREAM, class, instance), size);
                (class_rng, structure.values)
            };
            for class in (0..30).filter(|&class| Family::of(class) == family) {
                let (drawn, structure) = formula(class, 0, 24);
                let (again, other) = formula(class, 1, 24);
                assert_eq!(drawn, again, "class {class}");
                assert_ne!(structure, other, "class {class}");
                assert_eq!(drawn, formula(class, 2, 40).0, "class {class} at another size");
                assert_ne!(drawn, formula(class + FAMILIES.len(), 0, 24).0, "class {class}");
            }
        }
    }

    #[test]
    fn every_class_has_structure() {
        for class in 0..600 {
            let deviation = grey_std(&formula_image(class, 0, 32));
            assert!(deviation > 6.0, "class {class}: standard deviation {deviation:.2}");
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_image_and_others_another() {
        for class in [0, 1, 2, 301, 302, 1023] {
            let first = formula_image(class, 7, 48);
            assert_eq!(first, formula_image(class, 7, 48));
            assert_ne!(first, formula_image(class, 8, 48));
            assert_ne!(first, formula_image((class + FAMILIES.len()) % MAX_CLASSES, 7, 48));
        }
    }

    #[test]
    fn families_are_dealt_in_turn() {
        assert_eq!((0..6).map(|c| Family::of(c).name()).collect::<Vec<_>>().join(" "), {
            "fractal contour texture blob tree fractal"
        });
    }

    /// Pins the bytes: pre-trained weights name the generator that made their images.
    #[test]
    fn bytes_are_pinned() {
        let mut hash = Sha256::new();
        for class in 0..24 {
            hash.update(formula_image(class, 1, 40).rgb);
        }
        let digest: String = hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "a683786becabcef9");
    }

    #[test]
    #[should_panic(expected = "class 1024 is not below 1024")]
    fn a_class_too_high_is_refused() {
        formula_image(MAX_CLASSES, 0, 8);
    }
}
