//! Paths that name images: by their extension; and one image of a file, such as `scan.dcm#frame=3`,
//! `vol.nii.gz#slice=axial:40` and `chest.npz#test_images:17`; and what its axes are, `chest.npy#layout=chw`.

use std::path::{Path, PathBuf};

use melo_vit::Rendering;
use melo_vit::rendering::{Frame, Layout, Plane, Slice};

use crate::numpy::Place;

/// Extensions of image files, in lower case: for finding images in folders. Decoding goes by content.
pub const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "jfif", "tif", "tiff", "bmp", "webp", "gif", "jp2", "j2k", "dcm", "dicom"];

/// True when the name ends in one of [`EXTENSIONS`], in any case.
pub fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(found)))
}

/// What stands behind the `#` of a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragment {
    pub(crate) frame: Option<Frame>,
    pub(crate) plane: Option<Plane>,
    pub(crate) slice: Option<Slice>,
    pub(crate) layout: Option<Layout>,
    pub(crate) place: Place,
}

impl Fragment {
    /// True where it names one image of several.
    pub(crate) fn names_one(&self) -> bool {
        self.frame.is_some() || self.slice.is_some() || self.place.index.is_some()
    }

    /// `rendering` with what the fragment says instead.
    pub(crate) fn applied(&self, rendering: &Rendering) -> Rendering {
        Rendering {
            window: rendering.window.clone(),
            frame: self.frame.unwrap_or(rendering.frame),
            plane: self.plane.unwrap_or(rendering.plane),
            slice: self.slice.unwrap_or(rendering.slice),
            layout: self.layout.unwrap_or(rendering.layout),
        }
    }

    /// `key=value` pairs joined by `&`; or, of arrays, `name`, `name:index` or `index`.
    fn parse(text: &str, of_array: bool) -> Option<Self> {
        let mut fragment = Self::default();
        for part in text.split('&') {
            match part.split_once('=') {
                Some(("frame", value)) => fragment.frame = Some(value.parse().ok()?),
                Some(("slice", value)) => {
                    let (plane, slice) = value.split_once(':').unwrap_or((value, "middle"));
                    fragment.plane = Some(plane.parse().ok()?);
                    fragment.slice = Some(slice.parse().ok()?);
                }
                Some(("layout", value)) => fragment.layout = Some(value.parse().ok()?),
                Some(_) => return None,
                None if of_array => {
                    let (member, index) = match part.rsplit_once(':') {
                        Some((member, index)) => (member, index.parse().ok()?),
                        None if part.bytes().all(|byte| byte.is_ascii_digit()) => ("", part.parse().ok()?),
                        None => {
                            fragment.place.member = Some(part.to_owned());
                            continue;
                        }
                    };
                    fragment.place.member = (!member.is_empty()).then(|| member.to_owned());
                    fragment.place.index = Some(index);
                }
                None => return None,
            }
        }
        Some(fragment)
    }
}

/// A path without the fragment that names an image in the file, and the fragment. A `#` that begins no such fragment
/// belongs to the name.
pub(crate) fn split(path: &Path) -> (PathBuf, Fragment) {
    let whole = || (path.to_path_buf(), Fragment::default());
    let Some((file, fragment)) = path.to_str().and_then(|text| text.rsplit_once('#')) else { return whole() };
    let of_array = [".npz", ".npy"].iter().any(|end| file.to_ascii_lowercase().ends_with(end));
    match Fragment::parse(fragment, of_array) {
        Some(fragment) if !file.is_empty() => (file.into(), fragment),
        _ => whole(),
    }
}

/// The file that a path names: the path itself, if there is a file of that name, else without its fragment.
pub fn file_of(path: &Path) -> PathBuf {
    if path.exists() { path.to_path_buf() } else { split(path).0 }
}
