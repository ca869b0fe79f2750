//! NumPy arrays of images, `.npy` and `.npz` (numpy.org, `numpy.lib.format`).
//!
//! | shape | is |
//! |---|---|
//! | `[h, w]`, `[h, w, 1]`, `[h, w, 3]`, `[h, w, 4]`, `[1, h, w]` | one image; a fourth channel is alpha, and dropped |
//! | `[n, h, w]`, `[n, h, w, 1]`, `[n, h, w, 3]`, `[n, h, w, 4]` | `n` images |
//! | `[n, d, h, w]` | `n` volumes, as MedMNIST's in three dimensions: cut along `d`, `h` or `w` |
//! | `[3, h, w]`, `[4, h, w]`, `[n, 3, h, w]`, `[n, 4, h, w]`, `[h, w, 2]` | left open: the [`Layout`] says it, or the path names an image of `n` |
//!
//! Bytes are taken as they are, truth values are black and white; other numbers are brought to 8 bits by the window, from
//! their least to their largest if none is asked for.

use std::io::{Cursor, Read};
use std::path::Path;

use melo_npy::Header;
use melo_vit::Rendering;
use melo_vit::rendering::{Frame, Layout, Plane, Window};

use crate::levels;
use crate::mask::Grid;
use crate::numbers::{self, Kind, Numbers};
use crate::seen::{self, Range, Seen};
use crate::source::Source;
use crate::volume::Scan;
use crate::{Error, Pixels, appearance};

/// Most bytes of an array in Fortran order, all of which one image is spread over.
const MAX_FORTRAN: u64 = 1 << 30;

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
) -> Result<(Pixels, Seen), Error> {
    of_archive(bytes, source, place, rendering)?.rendered(source, rendering)
}

fn of_archive(bytes: &[u8], source: Source, place: &Place, rendering: &Rendering) -> Result<One, Error> {
    in_archive(bytes, source, place, &mut |member| one(member, source, place.index, rendering))
}

/// What `take` makes of the array that is meant.
fn in_archive<T>(
    bytes: &[u8],
    source: Source,
    place: &Place,
    take: &mut dyn FnMut(&mut dyn Read) -> Result<T, Error>,
) -> Result<T, Error> {
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
    take(&mut member)
}

/// What a file holds along the plane that a rendering cuts volumes in.
pub(crate) enum Held {
    /// So many images; one where an image is named.
    Images(usize),
    /// So many slices of the volume that is named, or of the only one.
    Slices(usize),
}

/// What an `.npz` archive or an `.npy` file holds; `name` serves only the errors.
pub(crate) fn held(bytes: &[u8], name: &Path, place: &Place, rendering: &Rendering) -> Result<Held, Error> {
    let is_array = bytes.starts_with(melo_npy::MAGIC);
    let source = Source::file(name, if is_array { "npy" } else { "npz" });
    let mut of = |stream: &mut dyn Read| {
        let shape = shape(&header(stream, source)?, source, rendering, place.index.is_some())?;
        let count = usize::try_from(shape.count).unwrap_or(usize::MAX);
        match shape.volume {
            None => Ok(Held::Images(if place.index.is_some() { 1 } else { count })),
            Some(_) if place.index.is_none() && count != 1 => {
                Err(source.no_such(format!("the array holds {count} volumes; name one, as file.npz#name:index")))
            }
            Some(axes) => Ok(Held::Slices(axes[axis(rendering.plane)])),
        }
    };
    if is_array { of(&mut &bytes[..]) } else { in_archive(bytes, source, place, &mut of) }
}

/// The numbers of one image of an `.npz` archive or an `.npy` file, which must be one a pixel.
pub(crate) fn stored(bytes: &[u8], source: Source, place: &Place, rendering: &Rendering) -> Result<Grid, Error> {
    let one = if bytes.starts_with(melo_npy::MAGIC) { of_array } else { of_archive }(bytes, source, place, rendering)?;
    Grid::of_channels(one.width, one.height, one.values, one.channels, source)
}

/// One image of an `.npy` file.
pub(crate) fn from_array(
    bytes: &[u8],
    source: Source,
    place: &Place,
    rendering: &Rendering,
) -> Result<(Pixels, Seen), Error> {
    of_array(bytes, source, place, rendering)?.rendered(source, rendering)
}

fn of_array(bytes: &[u8], source: Source, place: &Place, rendering: &Rendering) -> Result<One, Error> {
    if let Some(member) = &place.member {
        return Err(source.no_such(format!("there is no array `{member}`: the file holds one without a name")));
    }
    one(&mut &bytes[..], source, place.index, rendering)
}

/// Kind of numbers and lengths of axes.
struct Array {
    numbers: Numbers,
    /// Truth values.
    bits: bool,
    shape: Vec<u64>,
    fortran_order: bool,
}

/// Where an image lies in the array.
struct Shape {
    /// Images, or volumes.
    count: u64,
    /// Slices of a volume along its three axes; `None` for images.
    volume: Option<[usize; 3]>,
    height: usize,
    width: usize,
    channels: usize,
    channels_first: bool,
}

/// One image as numbers, `[height, width, channels]`, alpha dropped.
struct One {
    width: usize,
    height: usize,
    /// 1 or 3.
    channels: usize,
    values: Vec<f64>,
    numbers: Numbers,
    /// Truth values.
    bits: bool,
    place: Option<seen::Place>,
}

fn one(stream: &mut dyn Read, source: Source, index: Option<usize>, rendering: &Rendering) -> Result<One, Error> {
    let array = header(stream, source)?;
    let named = index.is_some() || rendering.frame != Frame::First;
    let shape = shape(&array, source, rendering, named)?;
    let Shape { height, width, channels, .. } = shape;
    source.check_size(width as u64, height as u64)?;
    let count = usize::try_from(shape.count).unwrap_or(usize::MAX);
    let index = index.or_else(|| rendering.frame.place(count)).filter(|&index| index < count);
    let index = index
        .ok_or_else(|| source.no_such(format!("the array holds {count} images, 0 to {}", count.wrapping_sub(1))))?;
    let size = array.numbers.size();
    let values_each = shape.volume.map_or(height * width * channels, |axes| axes.iter().product());
    let cut = |error| source.damaged(format!("the array is cut short: {error}"));
    let stream = &mut *at_element(stream, &array, source, (index as u64, values_each * size))?;
    let mut values = match shape.volume {
        None => array.numbers.values(&numbers::take(stream, values_each * size).map_err(cut)?),
        Some(axes) => slice(stream, source, (axes, array.numbers), rendering)?,
    };
    if shape.channels_first {
        let area = height * width;
        values = (0..values.len()).map(|at| values[at % channels * area + at / channels]).collect();
    }
    // Alpha, which is no colour, takes no part in a window.
    let colours = if channels < 3 { 1 } else { 3 };
    if colours != channels {
        values = values.chunks_exact(channels).flat_map(|pixel| &pixel[..colours]).copied().collect();
    }
    let place = seen::Place::indexed(index, count, "image");
    Ok(One { width, height, channels: colours, values, numbers: array.numbers, bits: array.bits, place })
}

/// A volume `[d, h, w]` of an `.npz` archive or an `.npy` file, or one of several, along the axis that the plane of `rendering` cuts across.
pub(crate) fn volume(bytes: &[u8], source: Source, place: &Place, rendering: &Rendering) -> Result<Scan, Error> {
    match bytes.starts_with(melo_npy::MAGIC) {
        true => scan(&mut &bytes[..], source, place.index, rendering),
        false => in_archive(bytes, source, place, &mut |member| scan(member, source, place.index, rendering)),
    }
}

fn scan(stream: &mut dyn Read, source: Source, index: Option<usize>, rendering: &Rendering) -> Result<Scan, Error> {
    let array = header(stream, source)?;
    let (count, lengths) = match array.shape[..] {
        [d, h, w] => (1, [d, h, w]),
        [n, d, h, w] => (n, [d, h, w]),
        _ => return Err(source.unsupported(format!("an array of shape {:?} where a volume is expected", array.shape))),
    };
    if index.is_none() && count > 1 {
        return Err(source.no_such(format!("the array holds {count} volumes; name one, as file.npz#name:index")));
    }
    let index = index.map_or(0, |index| index as u64);
    if index >= count {
        return Err(source.no_such(format!("the array holds {count} volumes, 0 to {}", count.wrapping_sub(1))));
    }
    let [d, h, w] = source.check_volume(lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX)))?;
    let size = d * h * w * array.numbers.size();
    let cut = |error| source.damaged(format!("the array is cut short: {error}"));
    let stream = &mut *at_element(stream, &array, source, (index, size))?;
    let stored = array.numbers.values(&numbers::take(stream, size).map_err(cut)?);
    let at = |z: usize, y: usize, x: usize| stored[(z * h + y) * w + x];
    let (depth, height, width) = [(d, h, w), (h, d, w), (w, d, h)][axis(rendering.plane)];
    let place = |layer: usize, row: usize, column: usize| match axis(rendering.plane) {
        0 => at(layer, row, column),
        1 => at(row, layer, column),
        _ => at(row, column, layer),
    };
    let rows = (0..depth).flat_map(|layer| (0..height).map(move |row| (layer, row)));
    let values: Vec<f64> = rows
        .flat_map(|(layer, row)| (0..width).map(move |column| (layer, row, column)))
        .map(|(l, r, c)| place(l, r, c))
        .collect();
    let values = if array.bits {
        values.iter().map(|&value| f64::from(u8::from(value != 0.0)) * 255.0).collect()
    } else {
        values
    };
    Ok(Scan { depth, height, width, values, is_grey: array.numbers.kind == Kind::U8 })
}

impl One {
    fn rendered(self, source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
        let Self { width, height, channels, values, numbers, bits, place } = self;
        let range = Range::of(values.iter().copied());
        let mut seen = Seen { place, ..Seen::default() };
        let is_auto = rendering.window == Window::Auto;
        let levels: Vec<u8> = match numbers.kind {
            Kind::U8 if is_auto && bits => values.iter().map(|&value| u8::from(value != 0.0) * 255).collect(),
            Kind::U8 if is_auto => {
                // Labels, masks and values of a few bits; dark pictures reach further.
                seen.range_used = range.share_of(8).filter(|_| values.iter().all(|&value| value < 16.0));
                values.iter().map(|&value| value as u8).collect()
            }
            _ => {
                let levels = levels::of_window(&rendering.window, &values).map_err(|reason| source.no_such(reason))?;
                values.iter().map(|&value| levels.level(value)).collect()
            }
        };
        let rgb = if channels == 3 { levels } else { levels.into_iter().flat_map(|level| [level; 3]).collect() };
        seen.flat = range.is_varied() && seen::is_flat(&rgb);
        Ok((Pixels { width, height, rgb }, seen))
    }
}

/// The numbers in C order from element `index` on, of `size` bytes each.
fn at_element<'a>(
    stream: &'a mut dyn Read,
    array: &Array,
    source: Source,
    (index, size): (u64, usize),
) -> Result<Box<dyn Read + 'a>, Error> {
    let before = index.checked_mul(size as u64);
    let before = before.ok_or_else(|| source.damaged("the array's shape is larger than any file"))?;
    let mut stream: Box<dyn Read + 'a> = match array.fortran_order {
        true => Box::new(Cursor::new(in_c_order(stream, array, source)?)),
        false => Box::new(stream),
    };
    let skipped = numbers::skip(&mut *stream, before);
    skipped.map_err(|error| source.damaged(format!("the array is cut short: {error}")))?;
    Ok(stream)
}

/// The bytes of an array whose first axis is the fastest, as if its last one were.
fn in_c_order(stream: &mut dyn Read, array: &Array, source: Source) -> Result<Vec<u8>, Error> {
    let size = array.numbers.size();
    let count = array.shape.iter().try_fold(1u64, |count, &length| count.checked_mul(length));
    let bytes = count.and_then(|count| count.checked_mul(size as u64)).filter(|&bytes| bytes <= MAX_FORTRAN);
    let bytes = bytes.ok_or_else(|| {
        source.unsupported(format!(
            "an array in Fortran order of shape {:?}, of more than {MAX_FORTRAN} bytes",
            array.shape
        ))
    })?;
    let data = numbers::take(stream, bytes as usize);
    let data = data.map_err(|error| source.damaged(format!("the array is cut short: {error}")))?;
    let shape: Vec<usize> = array.shape.iter().map(|&length| length as usize).collect();
    let mut out = Vec::with_capacity(data.len());
    let mut at = vec![0; shape.len()];
    for _ in 0..data.len() / size {
        let place = at.iter().zip(&shape).rev().fold(0, |place, (&at, &length)| place * length + at);
        out.extend_from_slice(&data[place * size..][..size]);
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            if at[axis] < shape[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    Ok(out)
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

/// What the axes are; `named` where an image of several is asked for.
fn shape(array: &Array, source: Source, rendering: &Rendering, named: bool) -> Result<Shape, Error> {
    // The first axis may be long where it is only counted.
    let tail = |from: usize| -> Vec<usize> {
        let short = |&length: &u64| usize::try_from(length).ok().filter(|&length| length < 1 << 24);
        array.shape[from..].iter().map(short).collect::<Option<_>>().unwrap_or_default()
    };
    let layout = rendering.layout;
    let refused = || {
        let asked = if layout == Layout::Auto { String::new() } else { format!(" as {layout}") };
        source.unsupported(format!("an array of shape {:?}{asked}", array.shape))
    };
    let open = |one: &str, other: &str| {
        let shape = &array.shape;
        Err(source.unsupported(format!(
            "an array of shape {shape:?} without a layout: it may be {one}, or {other}; say it as `{}#layout=…`",
            source.name.display()
        )))
    };
    let images = |count, height, width, channels, channels_first| {
        Ok(Shape { count, volume: None, height, width, channels, channels_first })
    };
    let volumes = |count, [d, h, w]: [usize; 3]| {
        let (height, width) = [(h, w), (d, w), (d, h)][axis(rendering.plane)];
        // A volume's size is checked as its largest image's is.
        for (height, width) in [(h, w), (d, w), (d, h)] {
            source.check_size(width as u64, height as u64)?;
        }
        Ok(Shape { count, volume: Some([d, h, w]), height, width, channels: 1, channels_first: false })
    };
    let channels_first = "an image of channels first (chw)";
    match (array.shape.len(), layout) {
        (2, Layout::Auto | Layout::Hw) => match tail(0)[..] {
            [height, width] => images(1, height, width, 1, false),
            _ => Err(refused()),
        },
        (3, Layout::Hw) => match tail(0)[..] {
            [1, height, width] | [height, width, 1] => images(1, height, width, 1, false),
            _ => Err(refused()),
        },
        (3, Layout::Hwc) => match tail(0)[..] {
            [height, width, channels @ 1..=4] => images(1, height, width, channels, false),
            _ => Err(refused()),
        },
        (3, Layout::Chw) => match tail(0)[..] {
            [channels @ 1..=4, height, width] => images(1, height, width, channels, true),
            _ => Err(refused()),
        },
        (3, Layout::Nhw) => match tail(1)[..] {
            [height, width] => images(array.shape[0], height, width, 1, false),
            _ => Err(refused()),
        },
        (3, Layout::Auto) => match (&tail(0)[..], &tail(1)[..]) {
            (&[height, width, channels @ (1 | 3)], _) => images(1, height, width, channels, false),
            (&[height, width, 4], _) if !named => images(1, height, width, 4, false),
            (&[_, _, 2], _) if !named => open("grey and alpha (hwc)", "images of two columns (nhw)"),
            (&[channels @ (3 | 4), _, _], _) if !named => open(channels_first, &format!("{channels} grey ones (nhw)")),
            (_, &[height, width]) => images(array.shape[0], height, width, 1, false),
            _ => Err(refused()),
        },
        (4, _) => match (&tail(1)[..], layout) {
            (&[height, width, channels @ (1 | 3 | 4)], Layout::Auto | Layout::Hwc)
            | (&[height, width, channels @ 2], Layout::Hwc) => images(array.shape[0], height, width, channels, false),
            (&[channels @ 1..=4, height, width], Layout::Chw) => images(array.shape[0], height, width, channels, true),
            (&[3 | 4, _, _], Layout::Auto) => open("images of channels first (chw)", "volumes (nhw)"),
            (&[d, h, w], Layout::Auto | Layout::Nhw) => volumes(array.shape[0], [d, h, w]),
            _ => Err(refused()),
        },
        _ => Err(refused()),
    }
}

fn header(stream: &mut dyn Read, source: Source) -> Result<Array, Error> {
    let Header { descr, shape, fortran_order } = Header::read_either(stream).map_err(|error| source.damaged(error))?;
    let kind = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "u1" | "b1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        other => return Err(source.unsupported(format!("an array of `{}`", other.escape_debug()))),
    };
    let numbers = Numbers { kind, big_endian: descr.starts_with('>') };
    Ok(Array { numbers, bits: descr.ends_with("b1"), shape, fortran_order })
}
