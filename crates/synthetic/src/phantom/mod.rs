//! Synthetic phantoms of four modalities, drawn from formulas: for demonstrations and tests, never as clinical data.
//!
//! Every finding has a drawn *visibility*, from plain to all but absent, so that even an ideal reader errs on some
//! images; anatomy, position, exposure, colour cast, blur and noise vary without regard to the class. The last step
//! of each image is an automatic exposure to a mean drawn at random for each channel, so mean brightness and colour
//! do not tell the class.

mod blood;
mod breast;
mod chest;
mod detector;
mod finding;
mod fundus;

use melo_imaging::Pixels;

use crate::exact::stream_rng;

/// A modality that the phantoms imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phantom {
    /// A frontal chest radiograph.
    ChestFilm,
    /// A mammogram, oblique view.
    Mammogram,
    /// A stained blood smear with one white cell.
    BloodSmear,
    /// A colour photograph of the back of the eye.
    Fundus,
}

impl Phantom {
    /// All modalities.
    pub const ALL: [Self; 4] = [Self::ChestFilm, Self::Mammogram, Self::BloodSmear, Self::Fundus];

    /// A name for files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChestFilm => "chest_film",
            Self::Mammogram => "mammogram",
            Self::BloodSmear => "blood_smear",
            Self::Fundus => "fundus",
        }
    }

    /// A title for people, which says that the images are synthetic.
    pub fn title(self) -> &'static str {
        match self {
            Self::ChestFilm => "Chest film (synthetic phantom)",
            Self::Mammogram => "Mammogram (synthetic phantom)",
            Self::BloodSmear => "Blood smear (synthetic phantom)",
            Self::Fundus => "Fundus photograph (synthetic phantom)",
        }
    }

    /// The names of the classes, in the order of their numbers.
    pub fn classes(self) -> &'static [&'static str] {
        match self {
            Self::ChestFilm => &["clear", "nodule", "effusion"],
            Self::Mammogram => &["no_mass", "round_mass", "spiculated_mass"],
            Self::BloodSmear => &["neutrophil_like", "lymphocyte_like", "monocyte_like", "eosinophil_like"],
            Self::Fundus => &["healthy", "haemorrhages", "exudates"],
        }
    }
}

/// The first of the streams of random numbers, one a modality; see [`stream_rng`].
const STREAM: u64 = 0x7068_616e_0000;

/// Draws instance `instance` of class `class` of a modality as RGB pixels `[size, size]`.
///
/// The same arguments give the same bytes on every machine.
///
/// # Panics
/// If `class` is not a number of `kind.classes()` or `size` is zero.
pub fn phantom(kind: Phantom, class: usize, instance: u64, size: usize) -> Pixels {
    let classes = kind.classes().len();
    assert!(class < classes, "{} has {classes} classes, none has number {class}", kind.name());
    assert!(size > 0, "an image needs at least one pixel");
    let mut rng = stream_rng(STREAM + kind as u64, class, instance);
    match kind {
        Phantom::ChestFilm => chest::draw(class, &mut rng, size),
        Phantom::Mammogram => breast::draw(class, &mut rng, size),
        Phantom::BloodSmear => blood::draw(class, &mut rng, size),
        Phantom::Fundus => fundus::draw(class, &mut rng, size),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Area under the ROC curve by counting pairs: how often a positive score lies above a negative one.
    fn auc(positive: &[f64], negative: &[f64]) -> f64 {
        let wins = |p: f64| {
            negative
                .iter()
                .map(|&n| {
                    if p > n {
                        1.0
                    } else if p == n {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum::<f64>()
        };
        positive.iter().map(|&p| wins(p)).sum::<f64>() / (positive.len() * negative.len()) as f64
    }

    /// Sums of red, green and blue, and of all three.
    fn sums(pixels: &Pixels) -> [f64; 4] {
        let mut sums = [0.0; 4];
        for rgb in pixels.rgb.chunks_exact(3) {
            for k in 0..3 {
                sums[k] += f64::from(rgb[k]);
                sums[3] += f64::from(rgb[k]);
            }
        }
        sums
    }

    #[test]
    fn images_have_the_stated_size_and_are_not_flat() {
        for kind in Phantom::ALL {
            for class in 0..kind.classes().len() {
                for size in [1, 2, 15, 32, 64] {
                    let pixels = phantom(kind, class, 1, size);
                    assert_eq!((pixels.width, pixels.height, pixels.rgb.len()), (size, size, size * size * 3));
                    let (low, high) = (pixels.rgb.iter().min(), pixels.rgb.iter().max());
                    let span = high.zip(low).map_or(0, |(high, low)| high - low);
                    assert!(size < 15 || span > 60, "{} {class}, size {size}: a span of {span}", kind.name());
                }
            }
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_image_and_others_another() {
        for kind in Phantom::ALL {
            let first = phantom(kind, 1, 5, 48);
            assert_eq!(first, phantom(kind, 1, 5, 48));
            assert_ne!(first, phantom(kind, 1, 6, 48));
            assert_ne!(first, phantom(kind, 2, 5, 48));
        }
    }

    #[test]
    fn titles_say_that_the_images_are_synthetic() {
        for kind in Phantom::ALL {
            assert!(kind.title().contains("synthetic"), "{}", kind.title());
        }
    }

    #[test]
    fn mean_brightness_and_colour_do_not_tell_the_class() {
        for kind in Phantom::ALL {
            let scores: Vec<Vec<[f64; 4]>> = (0..kind.classes().len())
                .map(|class| (0..200).map(|i| sums(&phantom(kind, class, i, 64))).collect())
                .collect();
            for (class, own) in scores.iter().enumerate() {
                for (k, channel) in ["red", "green", "blue", "all"].into_iter().enumerate() {
                    let positive: Vec<f64> = own.iter().map(|m| m[k]).collect();
                    let others = scores.iter().enumerate().filter(|(other, _)| *other != class);
                    let negative: Vec<f64> = others.flat_map(|(_, s)| s.iter().map(|m| m[k])).collect();
                    let area = auc(&positive, &negative);
                    let name = kind.classes()[class];
                    assert!((0.35..=0.65).contains(&area), "{} {name}, {channel}: AUC {area:.3}", kind.name());
                }
            }
        }
    }

    #[test]
    fn bytes_are_pinned() {
        let mut hash = Sha256::new();
        for kind in Phantom::ALL {
            for class in 0..kind.classes().len() {
                hash.update(phantom(kind, class, 1, 40).rgb);
            }
        }
        let digest: String = hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "eaded6cfbf064ff3");
    }

    #[test]
    #[should_panic(expected = "chest_film has 3 classes, none has number 3")]
    fn a_class_too_high_is_refused() {
        phantom(Phantom::ChestFilm, 3, 0, 8);
    }
}
