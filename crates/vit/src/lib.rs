//! Frozen Vision Transformer, low-rank plug-ins, and the files that hold them.

pub mod image;
pub mod preprocess;

pub use image::{ImageBatch, ImageError, ImageSource};
pub use preprocess::{CropMode, Interpolation, Preprocess};
