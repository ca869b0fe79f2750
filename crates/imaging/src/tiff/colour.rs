//! Samples of a TIFF to 8-bit RGB, as Pillow's `convert("RGB")` makes them.

use melo_vit::Rendering;
use melo_vit::rendering::Window;

use super::Page;
use super::chunks::Samples;
use crate::levels::{self, full_scale};
use crate::seen::{Range, Seen};
use crate::source::Source;
use crate::{Error, Pixels, cmyk};

/// What the samples of a pixel mean.
#[derive(Clone, Debug)]
pub(super) enum Colour {
    Grey {
        /// The least value is white.
        inverted: bool,
    },
    Rgb {
        /// The place of an alpha that the colours were multiplied by.
        multiplied_by: Option<usize>,
    },
    Palette(Vec<[u8; 3]>),
    Cmyk,
    Ycc,
}

impl Colour {
    pub(super) fn of(
        photometric: u64,
        samples: usize,
        bits: u32,
        extra: Option<&[u64]>,
        map: Option<&[u64]>,
        source: Source,
    ) -> Result<Self, Error> {
        let few = |least: usize| source.damaged(format!("{samples} samples a pixel, of {least} at least"));
        let colour = match photometric {
            0 | 1 => Self::Grey { inverted: photometric == 0 },
            2 if samples < 3 => return Err(few(3)),
            2 => Self::Rgb {
                multiplied_by: extra.and_then(|kinds| kinds.iter().position(|&kind| kind == 1)).map(|at| 3 + at),
            },
            3 if bits > 8 => return Err(source.unsupported(format!("a palette of {bits} bits; up to 8 are"))),
            3 => Self::Palette(palette(map.unwrap_or_default(), bits, source)?),
            5 if samples < 4 => return Err(few(4)),
            5 => Self::Cmyk,
            6 if samples != 3 => return Err(few(3)),
            6 => Self::Ycc,
            8..=10 => return Err(source.unsupported("L*a*b* colour")),
            other => return Err(source.unsupported(format!("photometric interpretation {other}"))),
        };
        match colour {
            Self::Rgb { multiplied_by: Some(at) } if at >= samples => Ok(Self::Rgb { multiplied_by: None }),
            other => Ok(other),
        }
    }
}

/// Red, green and blue one behind the other, of 16 bits; of 8 where an early writer left them so.
fn palette(map: &[u64], bits: u32, source: Source) -> Result<Vec<[u8; 3]>, Error> {
    let count = 1 << bits;
    if map.len() < 3 * count {
        return Err(source.damaged(format!("a colour map of {} entries, of {} expected", map.len(), 3 * count)));
    }
    let shift = if map.iter().all(|&entry| entry < 256) { 0 } else { 8 };
    Ok((0..count).map(|at| [0, 1, 2].map(|channel| (map[channel * count + at] >> shift) as u8)).collect())
}

/// The image as its chunks fill it.
pub(super) struct Canvas {
    content: Content,
}

enum Content {
    /// `[height, width, 3]`.
    Rgb(Vec<u8>),
    /// `[height, width, channels]`: what a window is still to be laid on.
    Values { values: Vec<f64>, channels: usize },
}

impl Canvas {
    pub(super) fn new(page: &Page) -> Self {
        let pixels = page.width * page.height;
        let content = match page.colour {
            Colour::Grey { .. } if page.bits > 8 || page.wide.is_some() => {
                Content::Values { values: vec![0.0; pixels], channels: 1 }
            }
            Colour::Rgb { multiplied_by: None } if page.bits > 8 || page.wide.is_some() => {
                Content::Values { values: vec![0.0; pixels * 3], channels: 3 }
            }
            _ => Content::Rgb(vec![0; pixels * 3]),
        };
        Self { content }
    }

    /// Samples as they are stored, the first `channels` of a pixel.
    pub(super) fn of_values(page: &Page, channels: usize) -> Self {
        Self { content: Content::Values { values: vec![0.0; page.width * page.height * channels], channels } }
    }

    /// Lays the planes of a chunk where it belongs.
    pub(super) fn put(
        &mut self,
        page: &Page,
        planes: Vec<Samples>,
        (column, row): (usize, usize),
        source: Source,
    ) -> Result<(), Error> {
        let (width, height) = page.part(column, row);
        let (left, top) = (column * page.chunk_width, row * page.chunk_height);
        let level = |plane: usize, at: usize| match &planes[plane] {
            Samples::Levels(levels) => levels[at],
            Samples::Real(_) => 0,
        };
        let value = |at: usize, channel: usize| {
            let (plane, at) = if page.planar { (channel, at) } else { (0, at * page.samples + channel) };
            match &planes[plane] {
                Samples::Levels(levels) => f64::from(levels[at]),
                Samples::Real(values) => values[at],
            }
        };
        let sample = |at: usize, channel: usize| {
            if page.planar { level(channel, at) } else { level(0, at * page.samples + channel) }
        };
        for y in 0..height {
            for x in 0..width {
                let (at, to) = (y * width + x, (top + y) * page.width + left + x);
                match &mut self.content {
                    Content::Values { values, channels } => {
                        for channel in 0..*channels {
                            values[to * *channels + channel] = value(at, channel);
                        }
                    }
                    Content::Rgb(rgb) => {
                        let pixel = pixel(page, |channel| sample(at, channel), source)?;
                        rgb[to * 3..to * 3 + 3].copy_from_slice(&pixel);
                    }
                }
            }
        }
        Ok(())
    }

    /// What [`of_values`](Canvas::of_values) was filled with; nothing of colours.
    pub(super) fn values(self) -> Vec<f64> {
        match self.content {
            Content::Values { values, .. } => values,
            Content::Rgb(_) => Vec::new(),
        }
    }

    pub(super) fn finish(self, page: &Page, source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
        let (width, height) = (page.width, page.height);
        match self.content {
            Content::Rgb(rgb) => {
                let seen = Seen { window_unused: rendering.window != Window::Auto, ..Seen::default() };
                Ok((Pixels { width, height, rgb }, seen))
            }
            Content::Values { values, channels } => {
                let full = page.wide.is_none().then_some(page.bits);
                let inverted = matches!(page.colour, Colour::Grey { inverted: true });
                let levels = match full.filter(|_| rendering.window == Window::Auto) {
                    Some(bits) => full_scale(bits),
                    None => levels::of_window(&rendering.window, &values).map_err(|reason| source.no_such(reason))?,
                };
                let range = Range::of(values.iter().copied());
                let level = |value| if inverted { 255 - levels.level(value) } else { levels.level(value) };
                let rgb: Vec<u8> = match channels {
                    3 => values.into_iter().map(level).collect(),
                    _ => values.into_iter().flat_map(|value| [level(value); 3]).collect(),
                };
                let bits = full.filter(|_| rendering.window == Window::Auto);
                let seen = Seen { range_used: bits.and_then(|bits| range.share_of(bits)), ..Seen::default() };
                let seen = Seen { flat: range.is_varied() && crate::seen::is_flat(&rgb), ..seen };
                Ok((Pixels { width, height, rgb }, seen))
            }
        }
    }
}

/// Red, green and blue of a pixel.
fn pixel(page: &Page, sample: impl Fn(usize) -> u16, source: Source) -> Result<[u8; 3], Error> {
    let most = u32::MAX >> (32 - page.bits);
    let eight = |value: u16| ((u32::from(value) * 255 + most / 2) / most) as u8;
    Ok(match &page.colour {
        Colour::Grey { inverted } => {
            let grey = eight(sample(0));
            [if *inverted { 255 - grey } else { grey }; 3]
        }
        Colour::Palette(palette) => {
            let index = usize::from(sample(0));
            *palette.get(index).ok_or_else(|| source.damaged(format!("a colour {index}, of {}", palette.len())))?
        }
        Colour::Rgb { multiplied_by: None } => [0, 1, 2].map(|channel| eight(sample(channel))),
        Colour::Rgb { multiplied_by: Some(place) } => {
            // Of more than 8 bits too, as Pillow brings them to 8 first.
            let alpha = u32::from(eight(sample(*place)));
            [0, 1, 2].map(|channel| {
                let value = u32::from(eight(sample(channel)));
                (value * 255).checked_div(alpha).unwrap_or(0).min(255) as u8
            })
        }
        Colour::Cmyk => cmyk::to_rgb([0, 1, 2, 3].map(|channel| eight(sample(channel)))),
        // JPEG has made red, green and blue of it.
        Colour::Ycc if page.compression == 7 => [0, 1, 2].map(|channel| eight(sample(channel))),
        Colour::Ycc => crate::jpeg::ycc_to_rgb([0, 1, 2].map(|channel| u16::from(eight(sample(channel))))),
    })
}
