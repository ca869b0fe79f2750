//! Masks in DICOM: Segmentation and Label Map Segmentation (PS3.3, sections A.51 and C.8.20), and stored values of other
//! classes.

use std::path::Path;

use melo_vit::Rendering;
use melo_vit::rendering::Frame;

use super::data_set::{DataSet, Fault};
use super::layout::{Layout, Photometric};
use super::{File, samples, tag, with_file};
use crate::Error;
use crate::mask::{Grid, Values};

/// Segmentation Storage and Label Map Segmentation Storage (PS3.6, annex A).
const CLASSES: [&str; 2] = ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"];
/// Transfer syntaxes that may change values: JPEG but lossless, near-lossless JPEG-LS, irreversible JPEG 2000.
const LOSSY: [&str; 7] = [".50", ".51", ".53", ".55", ".81", ".91", ".203"];

/// The segment numbers of one slice, 0 where there is none; of other classes than segmentations, one frame's stored numbers.
///
/// Of several slices it is the one that refers to `instance`, a `SOPInstanceUID`, or that `rendering` names by its place
/// among them in order of the file.
pub(crate) fn stored_mask(
    bytes: &[u8],
    name: &Path,
    rendering: &Rendering,
    instance: Option<&str>,
) -> Result<Grid, Error> {
    with_file(bytes, name, |file| {
        let uid = file.meta.text(tag::TRANSFER_SYNTAX).unwrap_or_default();
        if uid.strip_prefix("1.2.840.10008.1.2.4").is_some_and(|end| LOSSY.contains(&end)) {
            return Err(Fault::new(tag::TRANSFER_SYNTAX, format!("is {uid}, whose compression changes values")));
        }
        let layout = Layout::of(&file.set)?;
        if layout.samples != 1 {
            return Err(Fault::new(tag::SAMPLES, format!("is {}; of a mask expected 1", layout.samples)));
        }
        match file.set.text(tag::CLASS) {
            Some(class) if CLASSES.contains(&class.as_str()) => segments(file, &layout, rendering, instance),
            _ => {
                let place = rendering.frame.place(layout.frames);
                let none = || Fault::new(tag::FRAMES, format!("is {}: there is no such frame", layout.frames));
                let values = frame(&file, &layout, place.ok_or_else(none)?)?;
                Ok(Grid { width: layout.columns, height: layout.rows, values: Values::Numbers(values) })
            }
        }
    })
}

fn frame(file: &File, layout: &Layout, place: usize) -> Result<Vec<f64>, Fault> {
    let samples = samples::decode(&file.set, layout, file.syntax.clone()?, place)?;
    Ok(samples.values.iter().map(|&stored| samples.value(stored) as f64).collect())
}

/// What the functional groups say of one frame.
struct Segment {
    place: usize,
    /// `None` in a label map.
    number: Option<u16>,
    /// What frames of one slice have in common.
    slice: Option<String>,
    /// Images that it was made from, and which frame of them.
    sources: Vec<(String, Option<String>)>,
}

fn segments(file: File, layout: &Layout, rendering: &Rendering, instance: Option<&str>) -> Result<Grid, Fault> {
    let set = &file.set;
    if let Some(kind) = set.text(tag::ORGANIZATION).filter(|kind| kind.starts_with("TILED")) {
        return Err(Fault::new(
            tag::ORGANIZATION,
            format!("is {}, of tiles, which are not put together", kind.escape_debug()),
        ));
    }
    let label_map = match set.text(tag::SEGMENTATION_TYPE).as_deref() {
        Some("BINARY") => false,
        Some("LABELMAP") => true,
        other => {
            let found = other.unwrap_or_default().escape_debug();
            return Err(Fault::new(tag::SEGMENTATION_TYPE, format!("is `{found}`; BINARY and LABELMAP are read")));
        }
    };
    if !label_map && layout.photometric != Photometric::Monochrome2 {
        return Err(Fault::new(tag::PHOTOMETRIC, "is not MONOCHROME2, as of a binary segmentation"));
    }
    let frames = frames(set, layout, label_map)?;
    let chosen = chosen(set, frames, rendering, instance)?;
    let mut values = vec![0.0; layout.pixels()];
    for Segment { place, number, .. } in chosen {
        let found = self::frame(&file, layout, place)?;
        let Some(number) = number else {
            values = found;
            continue;
        };
        for (at, value) in values
            .iter_mut()
            .zip(found)
            .enumerate()
            .filter(|(_, (_, found))| *found != 0.0)
            .map(|(at, (value, _))| (at, value))
        {
            if *value != 0.0 && *value != f64::from(number) {
                let (column, row) = (at % layout.columns, at / layout.columns);
                let reason = format!(
                    "{value} and {number} overlap at column {column}, row {row} (0 the first): expected one class a pixel"
                );
                return Err(Fault::new(tag::SEGMENT_NUMBER_OF_FRAME, reason));
            }
            *value = f64::from(number);
        }
    }
    Ok(Grid { width: layout.columns, height: layout.rows, values: Values::Numbers(values) })
}

/// Every frame, by its own functional groups and those that all share.
fn frames(set: &DataSet, layout: &Layout, label_map: bool) -> Result<Vec<Segment>, Fault> {
    let (shared, own) = (set.items(tag::SHARED_GROUPS), set.items(tag::FRAME_GROUPS));
    if own.len() != layout.frames && !(own.is_empty() && layout.frames == 1) {
        return Err(Fault::new(tag::FRAME_GROUPS, format!("has {} items, of {} frames", own.len(), layout.frames)));
    }
    let known: Vec<u16> = set.items(tag::SEGMENTS).iter().filter_map(|item| item.number(tag::SEGMENT_NUMBER)).collect();
    let of_frame = |place: usize| {
        let groups = || own.get(place).into_iter().chain(shared);
        let first = |sequence| groups().find_map(|group| group.items(sequence).first());
        let number = first(tag::SEGMENT_IDENTIFICATION).and_then(|item| item.number(tag::SEGMENT_NUMBER_OF_FRAME));
        let number = match number {
            _ if label_map => None,
            Some(number) if number > 0 && (known.is_empty() || known.contains(&number)) => Some(number),
            Some(number) => {
                let reason = format!("is {number} in frame {}, which is none of the segments {known:?}", place + 1);
                return Err(Fault::new(tag::SEGMENT_NUMBER_OF_FRAME, reason));
            }
            None => {
                let reason = format!("is missing in frame {}", place + 1);
                return Err(Fault::new(tag::SEGMENT_NUMBER_OF_FRAME, reason));
            }
        };
        let sources = first(tag::DERIVATION_IMAGES).map_or(&[][..], |item| item.items(tag::SOURCE_IMAGES));
        let source = |item: &DataSet| Some((item.text(tag::REFERENCED_INSTANCE)?, item.text(tag::REFERENCED_FRAME)));
        let sources: Vec<_> = sources.iter().filter_map(source).collect();
        let position = first(tag::PLANE_POSITION).and_then(|item| item.text(tag::POSITION));
        let slice = position.or_else(|| sources.first().map(|(uid, frame)| format!("{uid} {frame:?}")));
        Ok(Segment { place, number, slice, sources })
    };
    (0..layout.frames).map(of_frame).collect()
}

/// The frames of the slice that is meant.
fn chosen(
    set: &DataSet,
    mut frames: Vec<Segment>,
    rendering: &Rendering,
    instance: Option<&str>,
) -> Result<Vec<Segment>, Fault> {
    if let Some(instance) = instance
        && frames.iter().any(|frame| !frame.sources.is_empty())
    {
        let wanted = match rendering.frame {
            Frame::First => Some(1.to_string()),
            Frame::Number(number) => Some(number.to_string()),
            Frame::Middle => None,
        };
        let refers = |(uid, frame): &(String, Option<String>)| {
            uid == instance && (frame.is_none() || wanted.is_none() || *frame == wanted)
        };
        frames.retain(|frame| frame.sources.iter().any(refers));
        // Slices without a segment have no frame; the image is among those that were looked at all the same.
        let series =
            set.items(tag::REFERENCED_SERIES).iter().flat_map(|series| series.items(tag::REFERENCED_INSTANCES));
        let looked_at = series.filter_map(|item| item.text(tag::REFERENCED_INSTANCE)).any(|uid| uid == instance);
        if frames.is_empty() && !looked_at {
            let reason = format!("names no frame of the image {}", instance.escape_debug());
            return Err(Fault::new(tag::REFERENCED_INSTANCE, reason));
        }
    }
    let mut slices: Vec<Option<String>> = Vec::new();
    for frame in &frames {
        if !slices.contains(&frame.slice) {
            slices.push(frame.slice.clone());
        }
    }
    if slices.len() > 1 {
        let count = slices.len();
        let several = || Fault::new(tag::FRAMES, format!("is of {count} slices: name one of 1 to {count} as #frame="));
        let place = match rendering.frame {
            Frame::First => return Err(several()),
            frame => frame.place(count).ok_or_else(several)?,
        };
        let slice = slices.swap_remove(place);
        frames.retain(|frame| frame.slice == slice);
    }
    Ok(frames)
}
