//! TIFF (revision 6.0, and BigTIFF), as Pillow reads it: directories by the `tiff` crate, pixels here, so that JPEG in
//! them is that of libjpeg-turbo and samples of any width come out.
//!
//! | in | is |
//! |---|---|
//! | compression | none, CCITT group 3 (one-dimensional) and 4, LZW, JPEG, deflate, PackBits, Zstandard |
//! | photometric | grey either way round, RGB, palette, CMYK, YCbCr |
//! | samples | 1 to 16 bits, unsigned; 8, 16, 32 and 64 bits signed or real, of grey and RGB; together or in planes |
//! | extra samples | alpha is dropped, colours multiplied by it are divided again |
//!
//! Orientation and FillOrder are obeyed. Samples of more than 8 bits are brought to 8 by the window, unsigned ones of up to
//! 16 bits without one by their width.

mod chunks;
mod colour;

use std::io::Cursor;

use melo_vit::Rendering;
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::mask::Grid;
use crate::numbers::{Kind, Numbers};
use crate::seen::{Place, Seen};
use crate::source::Source;
use crate::{Error, Pixels};
use colour::Colour;

/// Most samples of a pixel.
const MAX_SAMPLES: usize = 16;

/// One page, as its directory describes it.
struct Page {
    width: usize,
    height: usize,
    bits: u32,
    samples: usize,
    /// What a sample is where it is not unsigned and of at most 16 bits.
    wide: Option<Numbers>,
    big_endian: bool,
    colour: Colour,
    planar: bool,
    compression: u16,
    predictor: u16,
    reversed_bits: bool,
    orientation: u16,
    /// Tables of JPEG that all chunks share.
    tables: Vec<u8>,
    /// Chroma samples across and down for one of luma, where YCbCr is not JPEG.
    subsampling: (usize, usize),
    fax_options: u32,
    tiled: bool,
    chunk_width: usize,
    chunk_height: usize,
    /// Where each chunk lies in the file, and its length.
    chunks: Vec<(u64, u64)>,
}

/// The page that `rendering` names.
pub(crate) fn decode(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    let (page, place) = page(bytes, source, rendering)?;
    let (Pixels { width, height, rgb }, seen) = page.render(bytes, source, rendering)?;
    let (width, height, rgb) = turned(width, height, rgb, 3, page.orientation);
    Ok((Pixels { width, height, rgb }, Seen { place, ..seen }))
}

/// The samples of the page that `rendering` names as they are stored: indices of a palette, grey, or three equal channels.
pub(crate) fn stored(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<Grid, Error> {
    let (page, _) = page(bytes, source, rendering)?;
    if page.compression == 7 {
        return Err(Error::LossyMask { path: source.name.into(), format: "TIFF of JPEG" });
    }
    let channels = match page.colour {
        colour::Colour::Grey { .. } | colour::Colour::Palette(_) => 1,
        colour::Colour::Rgb { .. } => 3,
        _ => return Err(source.unsupported("a mask of CMYK or YCbCr colours; grey and palettes are")),
    };
    let mut values = page.filled(colour::Canvas::of_values(&page, channels), bytes, source)?.values();
    // Where the least value is white, Pillow turns unsigned numbers round.
    if matches!(page.colour, colour::Colour::Grey { inverted: true }) && page.wide.is_none() {
        let most = f64::from(u32::MAX >> (32 - page.bits));
        values.iter_mut().for_each(|value| *value = most - *value);
    }
    let (width, height, values) = turned(page.width, page.height, values, channels, page.orientation);
    Grid::of_channels(width, height, values, channels, source)
}

/// The page that `rendering` names, and its place.
fn page(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<(Page, Option<Place>), Error> {
    let broken = |error: tiff::TiffError| match error {
        tiff::TiffError::UnsupportedError(error) => source.unsupported(error),
        error => source.damaged(error),
    };
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(broken)?;
    // A directory that cannot be read ends the pages, as in Pillow.
    let mut pages = 1;
    while decoder.more_images() && decoder.next_image().is_ok() {
        pages += 1;
    }
    let asked = || source.no_such(format!("the file has {pages} pages: there is no page {}", rendering.frame));
    let place = rendering.frame.place(pages).ok_or_else(asked)?;
    decoder.seek_to_image(place).map_err(broken)?;
    Ok((Page::read(&mut decoder, source)?, Place::of(place, pages, "page")))
}

impl Page {
    fn read(decoder: &mut Decoder<Cursor<&[u8]>>, source: Source) -> Result<Self, Error> {
        let (width, height) = decoder.dimensions().map_err(|error| source.damaged(error))?;
        source.check_size(width.into(), height.into())?;
        let mut numbers = |tag: Tag| -> Result<Option<Vec<u64>>, Error> {
            decoder.find_tag_unsigned_vec::<u64>(tag).map_err(|error| source.damaged(error))
        };
        let first = |values: Option<Vec<u64>>, default: u64| values.and_then(|v| v.first().copied()).unwrap_or(default);
        let bits = first(numbers(Tag::BitsPerSample)?, 1);
        let samples = first(numbers(Tag::SamplesPerPixel)?, 1);
        let format = first(numbers(Tag::SampleFormat)?, 1);
        let photometric = first(numbers(Tag::PhotometricInterpretation)?, 1);
        let compression = first(numbers(Tag::Compression)?, 1) as u16;
        if samples as usize > MAX_SAMPLES {
            return Err(source.unsupported(format!("{samples} samples a pixel; at most {MAX_SAMPLES} are")));
        }
        let kind = match (format, bits) {
            (1 | 4, 1..=16) => None,
            (1 | 4, 32) => Some(Kind::U32),
            (1 | 4, 64) => Some(Kind::U64),
            (2, 8) => Some(Kind::I8),
            (2, 16) => Some(Kind::I16),
            (2, 32) => Some(Kind::I32),
            (2, 64) => Some(Kind::I64),
            (3, 32) => Some(Kind::F32),
            (3, 64) => Some(Kind::F64),
            _ => {
                let kind = match format {
                    1 | 4 => "unsigned",
                    2 => "signed",
                    3 => "real",
                    _ => "complex",
                };
                return Err(source.unsupported(format!("{kind} samples of {bits} bits")));
            }
        };
        let extra = numbers(Tag::ExtraSamples)?;
        let map = numbers(Tag::ColorMap)?;
        let colour = Colour::of(photometric, samples as usize, bits as u32, extra.as_deref(), map.as_deref(), source)?;
        let wide = kind.map(|kind| Numbers { kind, big_endian: false });
        if wide.is_some() && !matches!(colour, Colour::Grey { .. } | Colour::Rgb { .. }) {
            return Err(source.unsupported("signed, real or 32-bit samples of this photometric; grey and RGB are"));
        }
        let planar = first(numbers(Tag::PlanarConfiguration)?, 1) == 2 && samples > 1;
        let (tile_width, tile_height) = (numbers(Tag::TileWidth)?, numbers(Tag::TileLength)?);
        let (tiled, offsets, counts) = match numbers(Tag::TileOffsets)? {
            Some(offsets) => (true, Some(offsets), numbers(Tag::TileByteCounts)?),
            None => (false, numbers(Tag::StripOffsets)?, numbers(Tag::StripByteCounts)?),
        };
        let rows = first(numbers(Tag::RowsPerStrip)?, height.into()).clamp(1, height.into());
        let (chunk_width, chunk_height) =
            if tiled { (first(tile_width, 0), first(tile_height, 0)) } else { (width.into(), rows) };
        // A tile may be larger than the image, but not without bound; a strip may be one row.
        if tiled {
            source.check_size(chunk_width, chunk_height)?;
        }
        let chunks = offsets.unwrap_or_default().into_iter().zip(counts.unwrap_or_default()).collect();
        let subsampling = numbers(Tag::ChromaSubsampling)?;
        let subsampling = match (&colour, subsampling.as_deref()) {
            (Colour::Ycc, Some(&[across @ (1 | 2 | 4), down @ (1 | 2 | 4)])) => (across as usize, down as usize),
            (Colour::Ycc, None) => (2, 2),
            (Colour::Ycc, Some(other)) => return Err(source.unsupported(format!("chroma subsampling {other:?}"))),
            _ => (1, 1),
        };
        let fax_options = first(numbers(Tag::Unknown(292))?, 0) as u32;
        let page = Self {
            width: width as usize,
            height: height as usize,
            bits: bits as u32,
            samples: samples as usize,
            wide,
            big_endian: false,
            colour,
            planar,
            compression,
            predictor: first(numbers(Tag::Predictor)?, 1) as u16,
            reversed_bits: first(numbers(Tag::FillOrder)?, 1) == 2,
            orientation: first(numbers(Tag::Orientation)?, 1) as u16,
            tables: Vec::new(),
            subsampling,
            fax_options,
            tiled,
            chunk_width: chunk_width as usize,
            chunk_height: chunk_height as usize,
            chunks,
        };
        let tables = match decoder.find_tag(Tag::JPEGTables).map_err(|error| source.damaged(error))? {
            Some(value) => value.into_u8_vec().map_err(|error| source.damaged(error))?,
            None => Vec::new(),
        };
        let big_endian = decoder.byte_order() == tiff::tags::ByteOrder::BigEndian;
        let wide = page.wide.map(|numbers| Numbers { big_endian, ..numbers });
        Ok(Self { tables, big_endian, wide, ..page })
    }

    /// Chunks of one plane side by side, and one below the other.
    fn grid(&self) -> (usize, usize) {
        (self.width.div_ceil(self.chunk_width), self.height.div_ceil(self.chunk_height))
    }

    /// The part of the image that the chunk in this column and row of the grid holds: width and height.
    fn part(&self, column: usize, row: usize) -> (usize, usize) {
        let rest = |whole: usize, at: usize, side: usize| (whole - at * side).min(side);
        (rest(self.width, column, self.chunk_width), rest(self.height, row, self.chunk_height))
    }

    fn render(&self, bytes: &[u8], source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
        self.filled(colour::Canvas::new(self), bytes, source)?.finish(self, source, rendering)
    }

    /// `canvas` with every chunk laid on it.
    fn filled(&self, mut canvas: colour::Canvas, bytes: &[u8], source: Source) -> Result<colour::Canvas, Error> {
        let (across, down) = self.grid();
        let planes = if self.planar { self.samples } else { 1 };
        if self.chunks.len() < across * down * planes {
            let reason = format!("{} strips or tiles of {}", self.chunks.len(), across * down * planes);
            return Err(source.damaged(reason));
        }
        for (row, column) in (0..down).flat_map(|row| (0..across).map(move |column| (row, column))) {
            let mut planes_of = Vec::new();
            for plane in 0..planes {
                let (offset, length) = self.chunks[(plane * down + row) * across + column];
                let data = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(data.len());
                planes_of.push(chunks::decode(self, &data[..length], self.part(column, row), source)?);
            }
            canvas.put(self, planes_of, (column, row), source)?;
        }
        Ok(canvas)
    }
}

/// The samples `[height, width, channels]` as they are meant to be seen (TIFF 6.0, Orientation), and the sides then: EXIF
/// counts the same way.
fn turned<T: Copy>(
    width: usize,
    height: usize,
    samples: Vec<T>,
    channels: usize,
    orientation: u16,
) -> (usize, usize, Vec<T>) {
    // By orientation: whether rows and columns are exchanged, then the source column and row run backwards.
    let (exchanged, back, up) = match orientation {
        2 => (false, true, false),
        3 => (false, true, true),
        4 => (false, false, true),
        5 => (true, false, false),
        6 => (true, false, true),
        7 => (true, true, true),
        8 => (true, true, false),
        _ => return (width, height, samples),
    };
    let (new_width, new_height) = if exchanged { (height, width) } else { (width, height) };
    let mut out = Vec::with_capacity(samples.len());
    for y in 0..new_height {
        for x in 0..new_width {
            let (column, row) = if exchanged { (y, x) } else { (x, y) };
            let column = if back { width - 1 - column } else { column };
            let row = if up { height - 1 - row } else { row };
            out.extend_from_slice(&samples[(row * width + column) * channels..][..channels]);
        }
    }
    (new_width, new_height, out)
}
