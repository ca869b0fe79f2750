//! The flags of `melo train` that make each file one volume.

use super::usage;
use crate::Failure;
use melo::vit::{Preprocess, VitConfig, VolumeConfig};

/// Patches along a side of a volume where no size is asked for.
const PATCHES: usize = 4;
/// Depth of a patch where none is asked for, voxels: thin enough to be near to what the backbone knows (`docs/decisions/0023-volumes.md`).
const PATCH_DEPTH: usize = 4;

#[derive(clap::Args)]
#[command(next_help_heading = "Volumes")]
pub(super) struct VolumeArgs {
    /// Each file is a volume with one answer (NIfTI, arrays of NumPy), embedded in patches of three dimensions; `--bag-axis` is the other
    /// way, slice by slice
    #[arg(long, conflicts_with_all = ["bag_axis", "bag_column", "pooling", "bag_hidden", "unordered", "image_size", "crop_mode", "crop_pct"])]
    volumes: bool,
    /// Side of the cube that a volume is squeezed into, voxels [default: four patches]
    #[arg(long, value_name = "VOXELS", requires = "volumes")]
    volume_size: Option<usize>,
    /// Depth of a patch, voxels; its sides are the backbone's [default: 4]
    #[arg(long, value_name = "VOXELS", requires = "volumes")]
    volume_patch: Option<usize>,
}

impl VolumeArgs {
    /// What was asked for, if volumes were; the preprocessing becomes theirs.
    pub(super) fn config(&self, preprocess: &mut Preprocess, vit: &VitConfig) -> Result<Option<VolumeConfig>, Failure> {
        if !self.volumes {
            return Ok(None);
        }
        let (size, patch_depth) =
            (self.volume_size.unwrap_or(PATCHES * vit.patch), self.volume_patch.unwrap_or(PATCH_DEPTH));
        if size == 0 || !size.is_multiple_of(vit.patch) {
            return Err(usage(format!(
                "--volume-size {size}: expected a multiple of the backbone's patch, {}",
                vit.patch
            )));
        }
        if patch_depth == 0 || !size.is_multiple_of(patch_depth) {
            return Err(usage(format!(
                "--volume-patch {patch_depth}: expected a divisor of the volume's side, {size}"
            )));
        }
        (preprocess.size, preprocess.depth) = (size, Some(size));
        Ok(Some(VolumeConfig { patch_depth }))
    }
}
