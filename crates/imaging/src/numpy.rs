//! NumPy arrays of images, `.npy` and `.npz` (numpy.org, `numpy.lib.format`).
//!
//! | shape | is |
//! |---|---|
//! | `[h, w]`, `[h, w, 1]`, `[h, w, 3]` | one image |
//! | `[n, h, w]`, `[n, h, w, 1]`, `[n, h, w, 3]` | `n` images |
//! | `[n, d, h, w]` | `n` volumes, as MedMNIST's in three dimensions: cut along `d`, `h` or `w` |
//!
//! The last axis is colour if it is of length 3. Bytes are taken as they are; other numbers are brought to 8 bits by
//! the window, from their least to their largest if none is asked for.

use std::io::{Cursor, Read};

use melo_npy::Header;
use melo_vit::Rendering;
use melo_vit::rendering::{Plane, Window};

use crate::levels;
use crate::numbers::{self, Kind, Numbers};
use crate::source::Source;
use crate::{Error, Pixels, appearance};

/// Which array, and which image of it, 0 the first; the rendering says it where these do not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) member: Option<String>,
    pub(crate) index: Option<usize>,
}

/// One image of an `.npz` archive.
pub(crate) fn from_archive(
    bytes: &[u8],
    source: Source,
    place: &Place,
    rendering: &Rendering,
) -> Result<Pixels, Error> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| source.damaged(error))?;
    let names = archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    let wanted = match (&place.member, &names[..]) {
        (Some(member), _) => member.clone(),
        (None, [only]) => only.clone(),
        (None, []) => {
            let found = appearance::of_archive(archive.file_names().filter_map(Result::ok)).to_owned();
            return Err(Error::NotAnImage { path: source.name.into(), found });
        }
        (None, _) => {
            let found = format!("{} arrays ({}); name one, as file.npz#name:index", names.len(), names.join(", "));
            return Err(source.unsupported(found));
        }
    };
    if !names.contains(&wanted) {
        return Err(source.no_such(format!("there is no array `{wanted}`; found {}", names.join(", "))));
    }
    let mut member = archive.by_name(&format!("{wanted}.npy")).map_err(|error| source.damaged(error))?;
    image(&mut member, source, place.index, rendering)
}

/// One image of an `.npy` file.
pub(crate) fn from_array(bytes: &[u8], source: Source, place: &Place, rendering: &Rendering) -> Result<Pixels, Error> {
    if let Some(member) = &place.member {
        return Err(source.no_such(format!("there is no array `{member}`: the file holds one without a name")));
    }
    image(&mut &bytes[..], source, place.index, rendering)
}

/// Kind of numbers and lengths of axes.
struct Array {
    numbers: Numbers,
    shape: Vec<u64>,
}

/// Where an image lies in the array.
struct Layout {
    /// Images, or volumes.
    count: u64,
    /// Slices of a volume along its three axes; `None` for images.
    volume: Option<[usize; 3]>,
    height: usize,
    width: usize,
    channels: usize,
}

fn image(stream: &mut dyn Read, source: Source, index: Option<usize>, rendering: &Rendering) -> Result<Pixels, Error> {
    let array = header(stream, source)?;
    let layout = layout(&array, source, rendering.plane)?;
    let (height, width, channels) = (layout.height, layout.width, layout.channels);
    source.check_size(width as u64, height as u64)?;
    let count = usize::try_from(layout.count).unwrap_or(usize::MAX);
    let index = index.or_else(|| rendering.frame.place(count)).filter(|&index| index < count);
    let index = index
        .ok_or_else(|| source.no_such(format!("the array holds {count} images, 0 to {}", count.wrapping_sub(1))))?;
    let size = array.numbers.size();
    let values_each = layout.volume.map_or(height * width * channels, |axes| axes.iter().product());
    let cut = |error| source.damaged(format!("the array is cut short: {error}"));
    let before = (index as u64).checked_mul((values_each * size) as u64);
    let before = before.ok_or_else(|| source.damaged("the array's shape is larger than any file"))?;
    numbers::skip(stream, before).map_err(cut)?;
    let values = match layout.volume {
        None => array.numbers.values(&numbers::take(stream, values_each * size).map_err(cut)?),
        Some(axes) => slice(stream, source, (axes, array.numbers), rendering)?,
    };
    let is_bytes = array.numbers.kind == Kind::U8 && rendering.window == Window::Auto;
    let levels: Vec<u8> = if is_bytes {
        values.iter().map(|&value| value as u8).collect()
    } else {
        let levels = levels::of_window(&rendering.window, &values).map_err(|reason| source.no_such(reason))?;
        values.iter().map(|&value| levels.level(value)).collect()
    };
    let rgb = if channels == 3 { levels } else { levels.into_iter().flat_map(|level| [level; 3]).collect() };
    Ok(Pixels { width, height, rgb })
}

/// One slice of a volume `[d, h, w]`, whose slabs `[h, w]` come one by one.
fn slice(
    stream: &mut dyn Read,
    source: Source,
    (axes, numbers): ([usize; 3], Numbers),
    rendering: &Rendering,
) -> Result<Vec<f64>, Error> {
    let cut = |error| source.damaged(format!("the array is cut short: {error}"));
    let along = axis(rendering.plane);
    let place = rendering.slice.place(axes[along]);
    let place = place.ok_or_else(|| source.no_such(format!("{} has {} slices", rendering.plane, axes[along])))?;
    let slab = axes[1] * axes[2] * numbers.size();
    let (first, slabs) = if along == 0 { (place, 1) } else { (0, axes[0]) };
    numbers::skip(stream, (first * slab) as u64).map_err(cut)?;
    let mut values = Vec::new();
    for _ in 0..slabs {
        let slab = numbers.values(&numbers::take(stream, slab).map_err(cut)?);
        match along {
            0 => values.extend(slab),
            1 => values.extend(&slab[place * axes[2]..(place + 1) * axes[2]]),
            _ => values.extend(slab[place..].iter().step_by(axes[2])),
        }
    }
    Ok(values)
}

/// The axis of a volume `[d, h, w]` that a plane cuts across.
fn axis(plane: Plane) -> usize {
    match plane {
        Plane::Axial => 0,
        Plane::Coronal => 1,
        Plane::Sagittal => 2,
    }
}

fn layout(array: &Array, source: Source, plane: Plane) -> Result<Layout, Error> {
    let shape: Option<Vec<usize>> =
        array.shape.iter().map(|&length| usize::try_from(length).ok().filter(|&length| length < 1 << 24)).collect();
    // The first axis may be long: it is only counted.
    let tail = |from: usize| -> Option<Vec<usize>> {
        array.shape[from..].iter().map(|&length| usize::try_from(length).ok().filter(|&l| l < 1 << 24)).collect()
    };
    let refused = || source.unsupported(format!("an array of shape {:?}", array.shape));
    let images = |count, height, width, channels| Layout { count, volume: None, height, width, channels };
    match (array.shape.len(), shape.as_deref()) {
        (2, Some(&[height, width])) => Ok(images(1, height, width, 1)),
        (3, Some(&[height, width, channels @ (1 | 3)])) => Ok(images(1, height, width, channels)),
        (3, _) => match tail(1).as_deref() {
            Some(&[height, width]) => Ok(images(array.shape[0], height, width, 1)),
            _ => Err(refused()),
        },
        (4, _) => match tail(1).as_deref() {
            Some(&[height, width, channels @ (1 | 3)]) => Ok(images(array.shape[0], height, width, channels)),
            Some(&[d, h, w]) => {
                let (height, width) = [(h, w), (d, w), (d, h)][axis(plane)];
                // A volume's size is checked as its largest image's is.
                for (height, width) in [(h, w), (d, w), (d, h)] {
                    source.check_size(width as u64, height as u64)?;
                }
                Ok(Layout { count: array.shape[0], volume: Some([d, h, w]), height, width, channels: 1 })
            }
            _ => Err(refused()),
        },
        _ => Err(refused()),
    }
}

fn header(stream: &mut dyn Read, source: Source) -> Result<Array, Error> {
    let Header { descr, shape } = Header::read(stream).map_err(|error| match error {
        melo_npy::Error::FortranOrder => source.unsupported(error),
        error => source.damaged(error),
    })?;
    let kind = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "u1" | "b1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        other => return Err(source.unsupported(format!("an array of `{}`", other.escape_debug()))),
    };
    Ok(Array { numbers: Numbers { kind, big_endian: descr.starts_with('>') }, shape })
}
