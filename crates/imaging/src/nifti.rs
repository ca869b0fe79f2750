//! NIfTI-1 volumes in one file, `.nii` and `.nii.gz` (nifti.nimh.nih.gov, `nifti1.h`).
//!
//! A slice is shown as radiologists see it: the patient's right on the left; the front above in axial slices, the head
//! above in the others, the front on the left in sagittal ones. Which voxel axis that is, the file's affine says.

use std::io::{self, Read, Write};
use std::path::Path;

use melo_vit::Rendering;
use melo_vit::rendering::{Frame, Plane, Slice};

use crate::levels;
use crate::mask::{Grid, Mask, Values};
use crate::numbers::{self, Kind, Numbers};
use crate::seen::{self, Range, Seen};
use crate::source::Source;
use crate::volume::Scan;
use crate::{Error, Pixels, file};

/// Bytes of the header, and of the shortest file before its data.
const HEADER: usize = 348;
const MAGIC: std::ops::Range<usize> = 344..348;

/// True for the first bytes of a NIfTI-1 file, in one file or two.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    matches!(bytes.get(MAGIC), Some(b"n+1\0" | b"ni1\0"))
        && matches!(bytes.first_chunk(), Some(&size) if [i32::from_le_bytes(size), i32::from_be_bytes(size)].contains(&(HEADER as i32)))
}

/// True for a gzip stream of a NIfTI-1 file.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let mut start = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(bytes).take(HEADER as u64).read_to_end(&mut start);
    // What follows may be damaged; that is for the reader to say.
    read.is_ok_and(|_| is_header(&start)) || is_header(&start)
}

/// True for a NIfTI-1 file, as it is or compressed.
pub(crate) fn is_volume(bytes: &[u8]) -> bool {
    is_header(bytes) || is_gzip(bytes) && is_compressed(bytes)
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The file, unpacked while it is read where it is compressed.
fn opened(bytes: &[u8]) -> Box<dyn Read + '_> {
    if is_gzip(bytes) { Box::new(flate2::read::MultiGzDecoder::new(bytes)) } else { Box::new(bytes) }
}

struct Header {
    numbers: Numbers,
    /// Voxels along the three axes.
    voxels: [usize; 3],
    volumes: usize,
    offset: u64,
    slope: f64,
    intercept: f64,
    /// By body axis (right, front, head): the voxel axis that runs along it, and whether backwards.
    axes: [(usize, bool); 3],
}

/// One slice, by the plane and slice of `rendering`, of its frame's volume.
pub(crate) fn slice(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    let Cut { width, height, values, place, count } = cut(bytes, source, rendering)?;
    let levels = levels::of_window(&rendering.window, &values).map_err(|reason| source.no_such(reason))?;
    let range = Range::of(values.iter().copied());
    let rgb: Vec<u8> = values.into_iter().flat_map(|value| [levels.level(value); 3]).collect();
    let flat = range.is_varied() && seen::is_flat(&rgb);
    let seen = Seen { place: seen::Place::indexed(place, count, "slice"), flat, ..Seen::default() };
    Ok((Pixels { width, height, rgb }, seen))
}

/// How many slices a volume has along the plane of `rendering`; of the file its start is enough.
pub(crate) fn slices(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<usize, Error> {
    let cut = |error: io::Error| source.damaged(format!("the header is cut short: {error}"));
    let start = numbers::take(&mut opened(bytes), HEADER);
    let header = Header::read(&start.map_err(cut)?, source)?;
    Ok(View::of(&header, source, rendering)?.count)
}

/// The numbers of one slice, as [`slice`] shows it.
pub(crate) fn stored(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<Grid, Error> {
    let Cut { width, height, values, .. } = cut(bytes, source, rendering)?;
    Ok(Grid { width, height, values: Values::Numbers(values) })
}

/// A slice's scaled values, and which of how many it is.
struct Cut {
    width: usize,
    height: usize,
    values: Vec<f64>,
    place: usize,
    count: usize,
}

fn cut(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<Cut, Error> {
    let stream = &mut opened(bytes);
    let cut = |error: io::Error| source.damaged(format!("the volume is cut short: {error}"));
    let start = numbers::take(stream, HEADER).map_err(cut)?;
    let header = Header::read(&start, source)?;
    let [nx, ny, nz] = header.voxels;
    let view = View::of(&header, source, rendering)?;
    let View { width, height, across, place, count, .. } = view;
    let volume = header.volume(source, rendering.frame)?;
    let size = header.numbers.size();
    let slab = nx * ny * size;
    let (first, slabs) = if across == 2 { (place, 1) } else { (0, nz) };
    let before = (volume as u64)
        .checked_mul((slab as u64).saturating_mul(nz as u64))
        .and_then(|volumes| volumes.checked_add(slab as u64 * first as u64 + header.offset - HEADER as u64));
    let before = before.ok_or_else(|| source.damaged("dim states more voxels than any file holds"))?;
    numbers::skip(stream, before).map_err(cut)?;
    let mut values = Vec::new();
    for z in first..first + slabs {
        let voxels = header.numbers.values(&numbers::take(stream, slab).map_err(cut)?);
        // Room for the picture is made once the first slab has come.
        values.resize(width * height, 0.0);
        let (xs, ys) =
            (if across == 0 { place..place + 1 } else { 0..nx }, if across == 1 { place..place + 1 } else { 0..ny });
        for y in ys {
            for x in xs.clone() {
                values[view.pixel([x, y, z], &header)] = voxels[y * nx + x] * header.slope + header.intercept;
            }
        }
    }
    Ok(Cut { width, height, values, place, count })
}

/// The whole of a volume, by the plane and frame of `rendering`: its slices as [`slice`] shows them, from the feet, the back or the left
/// on.
pub(crate) fn volume(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<Scan, Error> {
    let stream = &mut opened(bytes);
    let cut = |error: io::Error| source.damaged(format!("the volume is cut short: {error}"));
    let start = numbers::take(stream, HEADER).map_err(cut)?;
    let header = Header::read(&start, source)?;
    let [nx, ny, nz] = source.check_volume(header.voxels)?;
    let rendering = Rendering { slice: Slice::Middle, ..rendering.clone() };
    let view = View::of(&header, source, &rendering)?;
    let volume = header.volume(source, rendering.frame)?;
    let size = nx * ny * nz * header.numbers.size();
    let before = (volume as u64).checked_mul(size as u64).and_then(|bytes| bytes.checked_add(header.offset));
    let before = before.ok_or_else(|| source.damaged("dim states more voxels than any file holds"))?;
    numbers::skip(stream, before - HEADER as u64).map_err(cut)?;
    let stored = numbers::take(stream, size).map_err(cut)?;
    let (area, backwards) = (view.width * view.height, header.axes.contains(&(view.across, true)));
    let mut values = vec![0.0; nx * ny * nz];
    for (z, slab) in stored.chunks_exact(nx * ny * header.numbers.size()).enumerate() {
        for (at, value) in header.numbers.values(slab).into_iter().enumerate() {
            let at = [at % nx, at / nx, z];
            let layer = if backwards { view.count - 1 - at[view.across] } else { at[view.across] };
            values[layer * area + view.pixel(at, &header)] = value * header.slope + header.intercept;
        }
    }
    Ok(Scan { depth: view.count, height: view.height, width: view.width, values, is_grey: false })
}

/// One slice of a volume as it is shown.
struct View {
    width: usize,
    height: usize,
    /// The voxel axes that columns and rows run along, and whether backwards.
    columns: (usize, bool),
    rows: (usize, bool),
    /// The voxel axis that the slice is across, which slice of it, and of how many.
    across: usize,
    place: usize,
    count: usize,
}

impl View {
    fn of(header: &Header, source: Source, rendering: &Rendering) -> Result<Self, Error> {
        // Columns and rows of the picture, and what it cuts across: body axes and whether they run backwards.
        let ((columns, back), (rows, down), across) = match rendering.plane {
            Plane::Axial => ((0, true), (1, true), 2),
            Plane::Coronal => ((0, true), (2, true), 1),
            Plane::Sagittal => ((1, true), (2, true), 0),
        };
        let oriented = |(axis, backwards): (usize, bool), flip: bool| (axis, backwards != flip);
        let columns = oriented(header.axes[columns], back);
        let rows = oriented(header.axes[rows], down);
        let across = header.axes[across].0;
        let (width, height) = (header.voxels[columns.0], header.voxels[rows.0]);
        source.check_size(width as u64, height as u64)?;
        let count = header.voxels[across];
        let place = rendering.slice.place(count).ok_or_else(|| {
            let asked = match rendering.slice {
                Slice::Index(index) => index,
                Slice::Middle => 0,
            };
            source.no_such(format!("there is no {} slice {asked}: the volume has {count}", rendering.plane))
        })?;
        Ok(Self { width, height, columns, rows, across, place, count })
    }

    /// Where a voxel of the slice is shown.
    fn pixel(&self, at: [usize; 3], header: &Header) -> usize {
        let along = |(axis, backwards): (usize, bool)| {
            if backwards { header.voxels[axis] - 1 - at[axis] } else { at[axis] }
        };
        along(self.rows) * self.width + along(self.columns)
    }
}

/// Masks of the slices of a volume, as a NIfTI-1 volume of class indices, uint8, in the same space.
pub struct MaskVolume {
    header: Header,
    /// Of the file that is written.
    bytes: Vec<u8>,
    /// x the fastest.
    labels: Vec<u8>,
}

/// Most voxels of a volume of masks.
const MAX_VOXELS: u64 = 1 << 30;

impl MaskVolume {
    /// Class 0 everywhere, of the size and in the space of a NIfTI file, compressed or not; `name` serves only the errors.
    ///
    /// # Errors
    /// Those of [`decode`](crate::decode()) about the header; [`Error::Unsupported`] for more than 2³⁰ voxels.
    pub fn like(bytes: &[u8], name: &Path) -> Result<Self, Error> {
        let source = Source::file(name, "NIfTI");
        let cut = |error: io::Error| source.damaged(format!("the header is cut short: {error}"));
        let mut start = numbers::take(&mut opened(bytes), HEADER).map_err(cut)?;
        let header = Header::read(&start, source)?;
        let big_endian = header.numbers.big_endian;
        let mut put = |at: usize, word: i16| {
            start[at..at + 2].copy_from_slice(&if big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
        };
        // Three axes of uint8.
        [(40, 3), (48, 1), (70, 2), (72, 8)].into_iter().for_each(|(at, word)| put(at, word));
        let mut put = |at: usize, real: f32| {
            start[at..at + 4].copy_from_slice(&if big_endian { real.to_be_bytes() } else { real.to_le_bytes() });
        };
        // vox_offset, scl_slope and scl_inter; cal_max and cal_min leave the range to viewers.
        [(108, 352.0), (112, 1.0), (116, 0.0), (124, 0.0), (128, 0.0)].into_iter().for_each(|(at, real)| put(at, real));
        start[MAGIC].copy_from_slice(b"n+1\0");
        Self::of_header(header, start, source)
    }

    /// Of one image without a space: columns run to the left and rows to the back, a millimetre each, as ITK takes an image that
    /// says nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a side of more than 32,767 pixels.
    pub fn of_image(width: usize, height: usize) -> Result<Self, Error> {
        let source = Source::file(Path::new(""), "NIfTI");
        let side = |length: usize| {
            i16::try_from(length).map_err(|_| source.unsupported(format!("{width} x {height}; sides up to 32767 are")))
        };
        let mut start = vec![0; HEADER];
        start[..4].copy_from_slice(&(HEADER as i32).to_le_bytes());
        let mut words = vec![(70, 2), (72, 8), (252, 1), (254, 1)];
        words.extend(
            [3, side(width)?, side(height)?, 1, 1, 1, 1, 1].into_iter().zip(0..).map(|(word, at)| (40 + 2 * at, word)),
        );
        for (at, word) in words {
            start[at..at + 2].copy_from_slice(&i16::to_le_bytes(word));
        }
        let pixdim = (0..8).map(|at| (76 + 4 * at, 1.0));
        // A half turn about the third axis: quatern_d, and srow.
        let turn = [(108, 352.0), (112, 1.0), (264, 1.0), (280, -1.0), (300, -1.0), (320, 1.0)];
        for (at, real) in pixdim.chain(turn) {
            start[at..at + 4].copy_from_slice(&f32::to_le_bytes(real));
        }
        // Millimetres.
        start[123] = 2;
        start[MAGIC].copy_from_slice(b"n+1\0");
        let header = Header::read(&start, source)?;
        Self::of_header(header, start, source)
    }

    fn of_header(header: Header, bytes: Vec<u8>, source: Source) -> Result<Self, Error> {
        let voxels = header.voxels.iter().try_fold(1u64, |all, &length| all.checked_mul(length as u64));
        let voxels = voxels.filter(|&voxels| voxels <= MAX_VOXELS);
        let voxels = voxels.ok_or_else(|| source.unsupported(format!("a volume of {:?} voxels", header.voxels)))?;
        Ok(Self { header, bytes, labels: vec![0; voxels as usize] })
    }

    /// Lays the mask of the slice that `rendering` takes of the volume.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] if there is no such slice; [`Error::MaskSize`] if the mask is of another size.
    pub fn put(&mut self, mask: &Mask, rendering: &Rendering) -> Result<(), Error> {
        let Self { header, labels, .. } = self;
        let view = View::of(header, Source::file(Path::new(""), "NIfTI"), rendering)?;
        mask.check_size(Path::new(""), view.width, view.height)?;
        let [nx, ny, nz] = header.voxels;
        let range =
            |axis: usize, length: usize| if axis == view.across { view.place..view.place + 1 } else { 0..length };
        for z in range(2, nz) {
            for y in range(1, ny) {
                for x in range(0, nx) {
                    labels[(z * ny + y) * nx + x] = mask.labels[view.pixel([x, y, z], header)];
                }
            }
        }
        Ok(())
    }

    /// The file, compressed: `.nii.gz`.
    ///
    /// # Errors
    /// None but of memory.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&self.bytes)?;
        // No extension (nifti1.h).
        encoder.write_all(&[0; 4])?;
        encoder.write_all(&self.labels)?;
        encoder.finish()
    }

    /// Writes [`encode`](Self::encode): first to a temporary file beside `path`, then renamed.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let written = self.encode().and_then(|bytes| file::replace(path, &bytes));
        written.map_err(|source| Error::Write { path: path.into(), source })
    }
}

impl Header {
    /// Which of its volumes a frame is, 0 the first.
    fn volume(&self, source: Source, frame: Frame) -> Result<usize, Error> {
        let volume = frame.place(self.volumes);
        volume.ok_or_else(|| source.no_such(format!("the file holds {} volumes", self.volumes)))
    }

    fn read(bytes: &[u8], source: Source) -> Result<Self, Error> {
        if !is_header(bytes) {
            return Err(source.damaged("the header is not that of NIfTI-1"));
        }
        if bytes[MAGIC] == *b"ni1\0" {
            return Err(source.unsupported("magic is `ni1`: a header whose data are in another file"));
        }
        let big_endian = bytes[..4] == (HEADER as i32).to_be_bytes();
        let numbers = |kind, range: std::ops::Range<usize>| Numbers { kind, big_endian }.values(&bytes[range]);
        let dim = numbers(Kind::I16, 40..56);
        let axes = dim[0];
        if !(1.0..=7.0).contains(&axes) {
            return Err(source.damaged(format!("dim[0] is {axes}; expected 1 to 7 axes")));
        }
        let length = |axis: usize| if axis as f64 <= axes { dim[axis] } else { 1.0 };
        let lengths: Vec<f64> = (1..8).map(length).collect();
        if lengths.iter().any(|&length| length < 1.0) {
            return Err(source.damaged(format!("dim is {dim:?}; expected lengths from 1")));
        }
        if lengths[4..].iter().any(|&length| length != 1.0) {
            return Err(source.unsupported(format!("dim is {dim:?}; three axes and time are")));
        }
        let voxels = [lengths[0] as usize, lengths[1] as usize, lengths[2] as usize];
        source.check_size(voxels[0] as u64, voxels[1] as u64)?;
        let kind = match numbers(Kind::I16, 70..72)[0] as i16 {
            2 => Kind::U8,
            4 => Kind::I16,
            8 => Kind::I32,
            16 => Kind::F32,
            64 => Kind::F64,
            256 => Kind::I8,
            512 => Kind::U16,
            768 => Kind::U32,
            1024 => Kind::I64,
            1280 => Kind::U64,
            other => return Err(source.unsupported(format!("datatype is {other}; whole and real numbers are"))),
        };
        let offset = numbers(Kind::F32, 108..112)[0];
        if !(HEADER as f64..1e12).contains(&offset) {
            return Err(source.damaged(format!("vox_offset is {offset}; expected at least {HEADER}")));
        }
        let (slope, intercept) = (numbers(Kind::F32, 112..116)[0], numbers(Kind::F32, 116..120)[0]);
        // A slope of 0 means that there is no scaling.
        let (slope, intercept) = if slope == 0.0 || !slope.is_finite() { (1.0, 0.0) } else { (slope, intercept) };
        let intercept = if intercept.is_finite() { intercept } else { 0.0 };
        let axes = closest_axes(affine(bytes, big_endian)).ok_or_else(|| source.damaged("the affine is not one"))?;
        let numbers = Numbers { kind, big_endian };
        let volumes = lengths[3] as usize;
        Ok(Self { numbers, voxels, volumes, offset: offset as u64, slope, intercept, axes })
    }
}

/// The linear part of the affine: `srow` where it is stated, else the quaternion, else none.
fn affine(bytes: &[u8], big_endian: bool) -> [[f64; 3]; 3] {
    let numbers = |kind, range: std::ops::Range<usize>| Numbers { kind, big_endian }.values(&bytes[range]);
    let code = |at: usize| numbers(Kind::I16, at..at + 2)[0] > 0.0;
    if code(254) {
        let rows = numbers(Kind::F32, 280..328);
        std::array::from_fn(|row| std::array::from_fn(|axis| rows[row * 4 + axis]))
    } else if code(252) {
        of_quaternion(&numbers(Kind::F32, 256..268), &numbers(Kind::F32, 76..92))
    } else {
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    }
}

/// The rotation of `quatern_b, c, d`, times `pixdim`, whose first entry is the sign of the third axis.
fn of_quaternion(quaternion: &[f64], pixdim: &[f64]) -> [[f64; 3]; 3] {
    let [b, c, d] = [quaternion[0], quaternion[1], quaternion[2]];
    let a = (1.0 - (b * b + c * c + d * d)).max(0.0).sqrt();
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let sign = if pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let scale = [pixdim[1], pixdim[2], pixdim[3] * sign];
    rotation.map(|row| std::array::from_fn(|axis| row[axis] * scale[axis]))
}

/// By body axis the voxel axis nearest to it: of the six assignments the one of the largest cosines.
fn closest_axes(affine: [[f64; 3]; 3]) -> Option<[(usize, bool); 3]> {
    let lengths: [f64; 3] = std::array::from_fn(|axis| affine.iter().map(|row| row[axis].powi(2)).sum::<f64>().sqrt());
    if !lengths.iter().all(|&length| length.is_finite() && length > 0.0) {
        return None;
    }
    let cosine = |body: usize, axis: usize| affine[body][axis] / lengths[axis];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let quality = |order: &[usize; 3]| (0..3).map(|body| cosine(body, order[body]).abs()).sum::<f64>();
    let best = orders.into_iter().max_by(|a, b| quality(a).total_cmp(&quality(b)))?;
    Some(std::array::from_fn(|body| (best[body], cosine(body, best[body]) < 0.0)))
}
