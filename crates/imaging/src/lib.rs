//! Untrusted bytes to pixels to network input: the only executor of [`melo_vit::Preprocess`].
//!
//! ```text
//! read / decode     bytes              -> Pixels                     (error on anything odd)
//! read_with         bytes, Rendering   -> Pixels                     (of several images which; of more than 8 bits, which window)
//! read_seen         bytes, Rendering   -> Pixels, Seen               (and what its user may have to hear)
//! dicom             bytes              -> header values, frames, series
//! fit               Pixels             -> Pixels, resized            (deterministic: cache this)
//! read_fit          a file            -> Pixels, resized            (read, then fit: faster for grey PNG)
//! crop_normalise    resized Pixels     -> [3, size, size] f32
//! prepare           fit, then crop_normalise
//! read_volume       a file, Rendering   -> Volume                   (grey; fit_volume and normalise_volume as of images)
//! images_in         a folder           -> its images, and what is none (walk: one at a time)
//! read_list         a text file        -> the images that it names
//! heatmap::overlay  Pixels, relevance  -> Pixels                     (the same geometry, backwards)
//!
//! read_mask          a file, MaskReading -> Mask                     (one class index a pixel)
//! prepare_mask       Mask               -> [size, size] u8           (the geometry of prepare, nearest neighbour)
//! restore            [c, g, g] scores   -> Mask of the image's size  (the same geometry, backwards)
//! mask_overlay       Pixels, Mask       -> Pixels
//! ```
//!
//! The numbers are those of timm's `transforms_imagenet_eval` over Pillow, so that weights trained in Python
//! see the pixels that they were trained on.

mod appearance;
mod cmyk;
mod codec;
mod crop;
mod decode;
mod decode_memory;
pub mod dicom;
mod error;
mod file;
mod folder;
mod gif;
mod grey;
pub mod heatmap;
mod jpeg;
mod jpeg2000;
mod jpeg_ls;
mod levels;
mod limits;
mod list;
mod mask;
mod nifti;
mod numbers;
mod numpy;
mod parts;
mod pixels;
mod png;
mod preprocess;
mod reference;
mod resize;
mod seen;
mod source;
mod tiff;
mod unpacked;
mod volume;

pub use crop::Padded;
pub use decode::{decode, decode_seen, decode_with, read, read_seen, read_with};
pub use decode_memory::DecodeMemory;
pub use error::Error;
pub use folder::{
    FolderEntry, FolderFiles, LeftOut, START, images_in, is_hidden, is_image_file, is_image_name, looks_like_image,
    walk,
};
pub use grey::{Fitted, read_fit, read_fit_seen, read_fit_sized};
pub use limits::{MAX_ASPECT, MAX_PIXELS};
pub use list::{ListedImage, read_list};
pub use mask::{
    IGNORE, MASK_COLOURS, Mask, MaskReading, PaddedMask, Restored, Segment, SegmentCode, SegmentationAbout,
    decode_mask, encode_mask_dicom, encode_mask_png, fit_mask, mask_overlay, mask_overlay_within, prepare_mask,
    read_mask, restore, write_mask_dicom, write_mask_png,
};
pub use nifti::MaskVolume;
pub use parts::{parts, parts_of_bytes};
pub use pixels::Pixels;
pub use png::{encode_png, write_png};
pub use preprocess::{check_fit, crop_normalise, fit, normalise, prepare};
pub use reference::{EXTENSIONS, file_of, has_image_extension};
pub use resize::resize;
pub use seen::{Found, Oddity, Place, Seen, Tally};
pub use unpacked::Unpacked;
pub use volume::{Volume, decode_volume, fit_volume, is_volume, normalise_volume, read_volume};
