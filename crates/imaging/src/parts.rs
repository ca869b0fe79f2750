//! The images that a file holds, one behind the other: slices of a volume, frames, pages, images of an array.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use melo_vit::Rendering;
use melo_vit::rendering::Plane;

use crate::decode::decode_fragment;
use crate::reference::{self, Fragment};
use crate::source::Source;
use crate::{Error, dicom, nifti, numpy};

/// Bytes of a volume's file that its header lies in, compressed or not.
const START: u64 = 1 << 16;

/// Names of the images of a file, in their order: slices of a volume (NIfTI, an array of volumes) along `plane`, frames of a DICOM file,
/// pages of a TIFF, images of an array. The file's own name where it holds one, or where the name says which already.
///
/// # Errors
/// Those of [`read_seen`](crate::read_seen); [`Error::NoSuchImage`] for a file of several volumes whose name says none of them.
pub fn parts(path: &Path, plane: Plane) -> Result<Vec<PathBuf>, Error> {
    let file = reference::file_of(path);
    let fragment = if file == path { Fragment::default() } else { reference::split(path).1 };
    if fragment.frame.is_some() || fragment.slice.is_some() {
        return Ok(vec![path.into()]);
    }
    let read = |source| Error::Read { path: path.into(), source };
    let mut start = Vec::new();
    File::open(&file).and_then(|file| file.take(START).read_to_end(&mut start)).map_err(read)?;
    // All that is needed of a volume is in its beginning.
    let whole = if nifti::is_volume(&start) { start } else { std::fs::read(&file).map_err(read)? };
    held(&whole, path, &fragment, plane)
}

/// [`parts`] of a file held in memory.
///
/// # Errors
/// Those of [`parts`] but [`Error::Read`].
pub fn parts_of_bytes(bytes: &[u8], name: &Path, plane: Plane) -> Result<Vec<PathBuf>, Error> {
    let fragment = reference::split(name).1;
    match fragment.frame.is_some() || fragment.slice.is_some() {
        true => Ok(vec![name.into()]),
        false => held(bytes, name, &fragment, plane),
    }
}

fn held(bytes: &[u8], path: &Path, fragment: &Fragment, plane: Plane) -> Result<Vec<PathBuf>, Error> {
    let plane = fragment.plane.unwrap_or(plane);
    let rendering = fragment.applied(&Rendering { plane, ..Rendering::default() });
    if nifti::is_volume(bytes) {
        let count = nifti::slices(bytes, Source::file(path, "NIfTI"), &rendering)?;
        return Ok((0..count).map(|slice| with(path, &format!("slice={plane}:{slice}"))).collect());
    }
    if bytes.starts_with(melo_npy::MAGIC) || bytes.starts_with(b"PK") {
        let (named, member) = (fragment.place.index.is_some(), fragment.place.member.as_deref());
        return Ok(match numpy::held(bytes, path, &fragment.place, &rendering)? {
            numpy::Held::Images(1) => vec![path.into()],
            numpy::Held::Images(_) if named => vec![path.into()],
            numpy::Held::Images(count) => (0..count).map(|image| indexed(path, member, image)).collect(),
            numpy::Held::Slices(count) => {
                let volume = if named { path.to_path_buf() } else { indexed(path, member, 0) };
                (0..count).map(|slice| with(&volume, &format!("slice={plane}:{slice}"))).collect()
            }
        });
    }
    let frames = match bytes {
        // Formats of one image: what is wrong with one is said when it is read.
        [0xff, 0xd8, 0xff, ..] | [0x89, b'P', b'N', b'G', ..] => 1,
        _ if bytes.get(128..132) == Some(b"DICM") => dicom::frames(bytes, path)?,
        _ => {
            let (_, seen) = decode_fragment(bytes, path, fragment, &rendering)?;
            seen.place.filter(|place| matches!(place.kind, "frame" | "page")).map_or(1, |place| place.count)
        }
    };
    Ok(match frames {
        0 | 1 => vec![path.into()],
        frames => (1..=frames).map(|frame| with(path, &format!("frame={frame}"))).collect(),
    })
}

/// A path with a further part behind its `#`.
fn with(path: &Path, part: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    let has_fragment = reference::split(path).0 != path;
    name.push(if has_fragment { "&" } else { "#" });
    name.push(part);
    name.into()
}

/// A path to an image of an array, behind the array's name if it has one.
fn indexed(path: &Path, member: Option<&str>, index: usize) -> PathBuf {
    let whole = path.to_string_lossy();
    match member.and_then(|member| whole.rsplit_once('#')?.1.strip_prefix(member)) {
        Some(rest) => format!("{}:{index}{rest}", &whole[..whole.len() - rest.len()]).into(),
        None => with(path, &index.to_string()),
    }
}
