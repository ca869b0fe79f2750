//! GIF (89a): one frame, laid over those before it, as Pillow shows it.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, Decoder, DisposalMethod};
use melo_vit::Rendering;
use melo_vit::rendering::Window;

use crate::seen::{Place, Seen};
use crate::source::Source;
use crate::{Error, Pixels};

/// The frame that `rendering` names.
pub(crate) fn decode(bytes: &[u8], source: Source, rendering: &Rendering) -> Result<(Pixels, Seen), Error> {
    let count = count(bytes, source)?;
    let none = || source.no_such(format!("the file has {count} frames: there is no frame {}", rendering.frame));
    let place = rendering.frame.place(count).ok_or_else(none)?;
    let mut decoder = open(bytes, source)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let shared = decoder.global_palette().map(<[u8]>::to_vec);
    let background = decoder.bg_color().unwrap_or(0);
    let mut rgb = Vec::new();
    // What the frame before leaves behind.
    let mut left_behind: Option<Vec<u8>> = None;
    for at in 0..=place {
        let frame = decoder.read_next_frame().map_err(|error| source.damaged(error))?;
        let frame = frame.ok_or_else(|| source.damaged(format!("frame {} is not there", at + 1)))?;
        let palette = frame.palette.as_deref().or(shared.as_deref());
        let palette = palette.ok_or_else(|| source.damaged("a frame without a palette"))?;
        let colour = |index: u8| palette.get(usize::from(index) * 3..).and_then(<[u8]>::first_chunk::<3>).copied();
        if let Some(left_behind) = left_behind.take() {
            rgb = left_behind;
        }
        if at == 0 {
            // Beside the first frame there is what is transparent in it, or the background.
            let beside = colour(frame.transparent.unwrap_or(background as u8)).unwrap_or_default();
            rgb = beside.repeat(width * height);
        }
        let before = (frame.dispose == DisposalMethod::Previous).then(|| rgb.clone());
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let wide = usize::from(frame.width);
        let mut cleared = (frame.dispose == DisposalMethod::Background).then(|| rgb.clone());
        for (at_pixel, &index) in frame.buffer.iter().enumerate() {
            let (x, y) = (left + at_pixel % wide.max(1), top + at_pixel / wide.max(1));
            if x >= width || y >= height {
                continue;
            }
            let pixel = (y * width + x) * 3;
            if let Some(cleared) = &mut cleared {
                cleared[pixel..pixel + 3].copy_from_slice(&colour(background as u8).unwrap_or_default());
            }
            if at > 0 && frame.transparent == Some(index) {
                continue;
            }
            let colour =
                colour(index).ok_or_else(|| source.damaged(format!("a colour {index} of {}", palette.len() / 3)))?;
            rgb[pixel..pixel + 3].copy_from_slice(&colour);
        }
        left_behind = before.or(cleared);
    }
    let seen = Seen {
        place: Place::of(place, count, "frame"),
        window_unused: rendering.window != Window::Auto,
        ..Seen::default()
    };
    Ok((Pixels { width, height, rgb }, seen))
}

fn open<'a>(bytes: &'a [u8], source: Source) -> Result<Decoder<Cursor<&'a [u8]>>, Error> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let decoder = options.read_info(Cursor::new(bytes)).map_err(|error| source.damaged(error))?;
    source.check_size(decoder.width().into(), decoder.height().into())?;
    Ok(decoder)
}

/// Frames; a file that is cut short behind one ends there.
fn count(bytes: &[u8], source: Source) -> Result<usize, Error> {
    let mut decoder = open(bytes, source)?;
    let mut count = 0;
    loop {
        match decoder.next_frame_info() {
            Ok(Some(frame)) => {
                source.check_size(frame.width.into(), frame.height.into())?;
                count += 1;
            }
            Err(error) if count == 0 => return Err(source.damaged(error)),
            Ok(None) | Err(_) => return Ok(count),
        }
    }
}
