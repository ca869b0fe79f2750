//! Manifests, splits, augmentation and cached loading of labelled images; synthetic images.

pub mod synthetic;
