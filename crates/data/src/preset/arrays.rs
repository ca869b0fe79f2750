//! Images and labels as entries of a NumPy archive (`.npz`, a ZIP file of `.npy` arrays).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use melo_npy::Header;
use zip::ZipArchive;

use super::PresetError;
use super::pattern::{Fields, Image};

/// Most labels of one array, in bytes: a hundred times the largest set's.
const MAX_LABELS: u64 = 1 << 26;

/// The splits of an archive, in order.
const SPLITS: [&str; 3] = ["train", "val", "test"];

/// The images of the archive at `path`, called `file` in the set's folder: `file#train_images:0` and so on.
///
/// Each has the fields `split` and `columns`, the columns of its row of labels.
///
/// # Errors
/// [`PresetError::Archive`] for a file that is no such archive.
pub(crate) fn images(path: &Path, file: &str, columns: &[String]) -> Result<Vec<Image>, PresetError> {
    let refuse = |reason: String| PresetError::Archive { path: path.into(), reason };
    let opened = File::open(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let mut archive = ZipArchive::new(BufReader::new(opened))
        .map_err(|error| refuse(format!("expected a NumPy archive (npz), found {error}")))?;
    let mut images = Vec::new();
    for split in SPLITS {
        let labels = read(&mut archive, &format!("{split}_labels"), true).map_err(refuse)?;
        let pixels = read(&mut archive, &format!("{split}_images"), false).map_err(refuse)?;
        let (n, width) = match labels.shape[..] {
            [n] => (n, 1),
            [n, width] => (n, width),
            _ => return Err(refuse(format!("{split}_labels: expected [n, columns], found {:?}", labels.shape))),
        };
        if width != columns.len() {
            return Err(refuse(format!("{split}_labels: expected {} columns, found {width}", columns.len())));
        }
        if pixels.shape.first() != Some(&n) || pixels.shape.len() < 3 {
            let found = &pixels.shape;
            return Err(refuse(format!("{split}_images: expected {n} images, as labels, found shape {found:?}")));
        }
        for (index, row) in labels.values.chunks_exact(width).enumerate() {
            let values = columns.iter().cloned().zip(row.iter().map(i64::to_string));
            let mut fields: Fields = values.collect();
            fields.insert("split".to_owned(), split.to_owned());
            images.push(Image { name: format!("{file}#{split}_images:{index}"), fields });
        }
    }
    Ok(images)
}

/// An array of integers; without values if only its shape was asked for.
struct Array {
    shape: Vec<usize>,
    values: Vec<i64>,
}

fn read(archive: &mut ZipArchive<BufReader<File>>, name: &str, with_values: bool) -> Result<Array, String> {
    let broken = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let mut entry = archive.by_name(&format!("{name}.npy")).map_err(|error| broken(&error))?;
    let Header { descr, shape, .. } = Header::read(&mut entry).map_err(|error| broken(&error))?;
    let side = |length: &u64| usize::try_from(*length).map_err(|error| broken(&error));
    let shape: Vec<usize> = shape.iter().map(side).collect::<Result<_, _>>()?;
    let mut values = Vec::new();
    if with_values {
        let (width, signed) = integer(&descr).ok_or_else(|| format!("{name}: expected integers, found {descr}"))?;
        let count = shape.iter().try_fold(1u64, |product, &side| product.checked_mul(side as u64));
        let bytes = count.and_then(|count| count.checked_mul(width as u64)).filter(|bytes| *bytes <= MAX_LABELS);
        let bytes = bytes.ok_or_else(|| format!("{name}: shape {shape:?} is more than {MAX_LABELS} bytes"))?;
        let mut data = Vec::new();
        entry.take(bytes).read_to_end(&mut data).map_err(|error| broken(&error))?;
        if data.len() as u64 != bytes {
            return Err(format!("{name}: expected {bytes} bytes, found {}", data.len()));
        }
        values = data.chunks_exact(width).map(|bytes| to_integer(bytes, signed)).collect();
    }
    Ok(Array { shape, values })
}

/// Bytes, and whether signed, of a type of little-endian integers.
fn integer(descr: &str) -> Option<(usize, bool)> {
    let kind = descr.strip_prefix(['|', '<'])?;
    let width = kind.get(1..)?.parse().ok().filter(|width| [1, 2, 4, 8].contains(width))?;
    match kind.as_bytes()[0] {
        b'u' | b'b' => Some((width, false)),
        b'i' => Some((width, true)),
        _ => None,
    }
}

fn to_integer(bytes: &[u8], signed: bool) -> i64 {
    let fill = if signed && bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(all)
}
