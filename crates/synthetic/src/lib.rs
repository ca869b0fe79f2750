//! Images made from formulas alone: no photograph, no patient, no licence.
//!
//! Two generators, both pure functions of their arguments:
//!
//! - [`formula_scene`] draws several of up to [`MAX_CLASSES`] fractals, contours, textures, blobs and trees into one
//!   picture and names them patch by patch, to pre-train a small ViT without any photograph;
//! - [`phantom`] draws four look-alike modalities with graded findings, for `melo quickstart` and for tests.
//!   They are *synthetic* and say nothing about clinical performance: whatever shows them must say so.
//!
//! Only IEEE-exact operations (`+ - * /`, `sqrt`, `floor`) and ChaCha8 are used, so an image has the same bytes on
//! every machine; the tests pin digests.

mod canvas;
mod exact;
mod formula;
mod noise;
mod phantom;

pub use formula::{FAMILIES, Family, FormulaScene, GROUND, MAX_CLASSES, UNCLEAR, formula_scene};
pub use phantom::{Phantom, phantom};
