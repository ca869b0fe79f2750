//! How large an image may claim to be, whatever its format.

use crate::decode_memory;

/// Most pixels that an image may claim: 200 million, several times the largest radiograph.
pub const MAX_PIXELS: u64 = 200_000_000;

/// Most that one side may exceed the other: `fit` scales the *shorter* side up, so an image of
/// 1 × 1,000,000 would otherwise become 224 × 224,000,000.
pub const MAX_ASPECT: u64 = 100;

/// What is wrong with a claimed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSize {
    /// A side of zero.
    NoPixels,
    /// More than [`MAX_PIXELS`].
    TooLarge,
    /// Beyond [`MAX_ASPECT`].
    TooLong,
}

/// Most voxels of a volume that is read whole.
pub(crate) const MAX_VOXELS: u64 = 1 << 27;

/// Refuses a volume without a voxel and one of more than [`MAX_VOXELS`]; for another the memory is waited for.
pub(crate) fn check_voxels(lengths: [usize; 3]) -> bool {
    let voxels = lengths.into_iter().try_fold(1u64, |all, length| all.checked_mul(length as u64));
    let fits = voxels.is_some_and(|voxels| (1..=MAX_VOXELS).contains(&voxels));
    if fits {
        decode_memory::claim(lengths.into_iter().product::<usize>() as u64);
    }
    fits
}

/// Refuses a claimed size that is nothing, too much, or too long; for one that is none of these the memory is waited for.
pub(crate) fn check_size(width: u64, height: u64) -> Result<(), BadSize> {
    let (short, long) = (width.min(height), width.max(height));
    if short == 0 {
        Err(BadSize::NoPixels)
    } else if short.saturating_mul(long) > MAX_PIXELS {
        Err(BadSize::TooLarge)
    } else if long > MAX_ASPECT.saturating_mul(short) {
        Err(BadSize::TooLong)
    } else {
        decode_memory::claim(width * height);
        Ok(())
    }
}
