//! The numbers of a mask's file, before they are classes.

use crate::Error;
use crate::source::Source;

/// One number a pixel, `[height, width]`.
pub(crate) struct Grid {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Values,
}

pub(crate) enum Values {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
    Numbers(Vec<f64>),
}

impl Values {
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = f64> + '_> {
        match self {
            Self::Bytes(bytes) => Box::new(bytes.iter().map(|&byte| byte.into())),
            Self::Words(words) => Box::new(words.iter().map(|&word| word.into())),
            Self::Numbers(numbers) => Box::new(numbers.iter().copied()),
        }
    }
}

impl Grid {
    /// Of samples `[height, width, channels]`; three channels must be equal in every pixel.
    pub(crate) fn of_channels(
        width: usize,
        height: usize,
        values: Vec<f64>,
        channels: usize,
        source: Source,
    ) -> Result<Self, Error> {
        let values = grey(&values, channels, width, source)?;
        Ok(Self { width, height, values: Values::Numbers(values) })
    }
}

/// The one value of each pixel of `[height, width, channels]`: three colours must be equal, alpha is dropped.
pub(super) fn grey<T: Copy + PartialEq + Into<f64>>(
    samples: &[T],
    channels: usize,
    width: usize,
    source: Source,
) -> Result<Vec<T>, Error> {
    if channels >= 3 {
        let coloured = |pixel: &[T]| pixel[0] != pixel[1] || pixel[0] != pixel[2];
        if let Some(at) = samples.chunks_exact(channels).position(coloured) {
            let colour = [0, 1, 2].map(|channel| samples[at * channels + channel].into());
            let (column, row) = (at % width, at / width);
            return Err(Error::MaskColour { path: source.name.into(), format: source.format, colour, column, row });
        }
    }
    Ok(samples.iter().step_by(channels).copied().collect())
}
