//! Volumes: patches of three dimensions that a plug-in embeds itself, for the frozen blocks of a backbone of images.

mod embedding;
mod step;

pub use embedding::{VolumeConfig, VolumeEmbedding};
pub use step::Volumes;
