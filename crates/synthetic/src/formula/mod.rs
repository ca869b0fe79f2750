//! Images of formula-made classes, for pre-training without photographs.
//!
//! Sources: Kataoka et al., "Pre-training without natural images", ACCV 2020 (FractalDB: a class is an iterated
//! function system); Kataoka et al., "Replacing labeled real-image datasets with auto-generated contours", CVPR 2022
//! (RCDB: a class is a family of nested radial contours); Takashima et al., "Visual atoms", CVPR 2023 (waves on the
//! contour's radius). Textures, blobs and trees are this project's own addition: medical images differ by texture, spots
//! and vessels more than by outline.
//!
//! A picture holds several formulas as figures on the ground of another, as findings lie in tissue, and says of each patch
//! what lies there, after Shinoda et al., "SegRCDB: semantic segmentation via formula-driven supervised learning", ICCV 2023.
//! A class fixes structure only. Position, scale, rotation, reflection, contrast, polarity, colour, background, blur and
//! noise belong to the picture, so none of them tells the class.

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

/// The formulas there are.
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
const INSTANCE_STREAM: u64 = 0x666f_726d_0002;

/// A picture of several formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct FormulaScene {
    /// RGB pixels `[size, size]`.
    pub pixels: Pixels,
    /// What lies in each patch, row by row: [`GROUND`], 1 + its class, or [`UNCLEAR`].
    pub patches: Vec<u8>,
}

/// A patch that no figure lies in.
pub const GROUND: u8 = 0;
/// A patch that figures hardly touch.
pub const UNCLEAR: u8 = u8::MAX;
/// The mean cover of a patch from which a figure lies in it, and that up to which it is ground.
const LIES: f32 = 0.12;
const TOUCHES: f32 = 0.02;

/// Draws picture `instance` of up to four figures of the first `formulas` classes, `size` pixels a side; its patches have `patch`.
///
/// The same arguments give the same bytes on every machine.
///
/// # Panics
/// If `formulas` is not 1 to 253, or `size` is not a multiple of `patch`.
pub fn formula_scene(formulas: usize, instance: u64, size: usize, patch: usize) -> FormulaScene {
    assert!((1..usize::from(UNCLEAR) - 1).contains(&formulas), "{formulas} formulas are not 1 to 253");
    assert!(size > 0 && size.is_multiple_of(patch), "{size} pixels are not whole patches of {patch}");
    let mut rng = stream_rng(INSTANCE_STREAM, formulas, instance);
    let (canvas, figures) = scene::paint(formulas, &mut rng, size);
    let grid = size / patch;
    let patches = (0..grid * grid).map(|at| {
        let (top, left) = (at / grid * patch, at % grid * patch);
        let cover = |figure: &scene::Figure| {
            let rows = figure.cover.values.chunks_exact(size).skip(top).take(patch);
            rows.flat_map(|row| &row[left..left + patch]).sum::<f32>() / (patch * patch) as f32
        };
        let most = figures.iter().map(|figure| (cover(figure), figure.class)).max_by(|a, b| a.0.total_cmp(&b.0));
        match most {
            Some((cover, class)) if cover >= LIES => class as u8 + 1,
            Some((cover, _)) if cover > TOUCHES => UNCLEAR,
            _ => GROUND,
        }
    });
    let patches = patches.collect();
    FormulaScene { pixels: develop(canvas, &mut rng), patches }
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
    fn scenes_have_the_stated_size_and_structure_at_every_size() {
        for (size, patch) in [(1, 1), (8, 4), (36, 12), (64, 8)] {
            for instance in 0..12 {
                let scene = formula_scene(20, instance, size, patch);
                assert_eq!((scene.pixels.width, scene.pixels.height), (size, size));
                assert_eq!(scene.patches.len(), (size / patch) * (size / patch));
                let deviation = grey_std(&scene.pixels);
                assert!(size < 36 || deviation > 3.0, "{instance}, size {size}: standard deviation {deviation:.2}");
            }
        }
    }

    /// Figures of every class are found, if seldom where they are thin lines, ground lies around them, and few patches are unclear.
    #[test]
    fn patches_name_what_lies_in_them() {
        let patches: Vec<u8> = (0..300).flat_map(|instance| formula_scene(20, instance, 48, 8).patches).collect();
        let share = |label: u8| patches.iter().filter(|&&patch| patch == label).count() as f64 / patches.len() as f64;
        assert!((1..=20).all(|label| share(label) > 0.0), "{:?}", (1..=20).map(share).collect::<Vec<_>>());
        assert!((0.4..0.8).contains(&share(GROUND)), "{}", share(GROUND));
        assert!(share(UNCLEAR) < 0.15, "{}", share(UNCLEAR));
        assert!(patches.iter().all(|&patch| patch <= 20 || patch == UNCLEAR));
    }

    /// Where a patch is ground, a figure paints nothing; a figure that covers it in part is what lies there, whatever is below.
    #[test]
    fn a_patch_is_of_the_figure_that_covers_it_most() {
        for instance in 0..40 {
            let (size, patch) = (48, 8);
            let mut rng = stream_rng(INSTANCE_STREAM, 20, instance);
            let (_, figures) = scene::paint(20, &mut rng, size);
            let named = formula_scene(20, instance, size, patch).patches;
            for (at, &name) in named.iter().enumerate() {
                let cover = |figure: &scene::Figure| -> f32 {
                    let pixels =
                        (0..patch * patch).map(|i| (at / 6 * patch + i / patch) * size + at % 6 * patch + i % patch);
                    pixels.map(|pixel| figure.cover.values[pixel]).sum::<f32>() / 64.0
                };
                let most = figures.iter().map(cover).fold(0.0, f32::max);
                match name {
                    GROUND => assert!(most <= TOUCHES, "{instance}, {at}: {most}"),
                    UNCLEAR => assert!((TOUCHES..LIES).contains(&most), "{instance}, {at}: {most}"),
                    class => {
                        let of_class =
                            figures.iter().filter(|figure| figure.class + 1 == usize::from(class)).map(cover);
                        assert!(most >= LIES && of_class.fold(0.0, f32::max) == most, "{instance}, {at}: {most}");
                    }
                }
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
            let mut class_rng = stream_rng(CLASS_STREAM, class, 0);
            let values = structure(class, &mut class_rng, &mut stream_rng(INSTANCE_STREAM, class, 0), 32).values;
            let (low, high) = values.iter().fold((1.0f32, 0.0f32), |(low, high), &v| (low.min(v), high.max(v)));
            assert!(high - low > 0.1, "class {class}: from {low} to {high}");
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_scene_and_others_another() {
        for formulas in [1, 20, 253] {
            let first = formula_scene(formulas, 7, 48, 12);
            assert_eq!(first, formula_scene(formulas, 7, 48, 12));
            assert_ne!(first, formula_scene(formulas, 8, 48, 12));
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
        for instance in 0..24 {
            let scene = formula_scene(100, instance, 36, 12);
            hash.update(scene.pixels.rgb);
            hash.update(scene.patches);
        }
        let digest: String = hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "85c51366c1e65b5c");
    }

    #[test]
    #[should_panic(expected = "254 formulas are not 1 to 253")]
    fn more_formulas_than_a_patch_can_name_are_refused() {
        formula_scene(254, 0, 8, 4);
    }

    #[test]
    #[should_panic(expected = "10 pixels are not whole patches of 4")]
    fn patches_that_do_not_fit_are_refused() {
        formula_scene(2, 0, 10, 4);
    }
}
