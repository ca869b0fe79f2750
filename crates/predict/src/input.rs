//! What a predictor is asked.

use melo_vit::BoundPlugin;
use std::sync::Arc;

/// One image, prepared, with the plug-ins that want it so.
#[derive(Clone, Debug)]
pub struct Input {
    /// Side `s`, pixels.
    pub size: usize,
    /// `[3, s, s]`, normalised; of plug-ins that answer for volumes voxels `[depth, s, s]`.
    pub pixels: Arc<[f32]>,
    /// Whose answers are wanted.
    pub plugins: Vec<Arc<BoundPlugin>>,
}
