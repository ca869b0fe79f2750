//! Look-up tables: modality, value of interest, palette (DICOM PS3.3, sections C.11.1, C.11.2 and C.7.9).

use super::data_set::{DataSet, Fault};
use super::tag::{self, Tag};

/// A table of up to 65,536 entries.
#[derive(Clone, Debug)]
pub(super) struct Lut {
    /// The value that the first entry is for.
    first: i64,
    entries: Vec<u16>,
    /// Bits of an entry, 8 to 16.
    bits: u32,
}

/// Tags of a table.
#[derive(Clone, Copy)]
pub(super) struct Tags {
    pub(super) descriptor: Tag,
    pub(super) data: Tag,
    /// Where the table may be written in segments (C.7.9.2).
    pub(super) segmented: Option<Tag>,
}

/// Those of an item of a modality or value-of-interest sequence.
pub(super) const ITEM: Tags = Tags { descriptor: tag::LUT_DESCRIPTOR, data: tag::LUT_DATA, segmented: None };

impl Lut {
    /// Reads a table for values within `range`, least and largest; `signed` says whether such values may be negative.
    ///
    /// The first value is signed or not by the descriptor's representation, and where that leaves it open by `signed`
    /// (PS3.3, C.11.2.1.1). Where so read no value is in the table, and read the other way some are, it is the other way: each
    /// representation is found written for the other.
    pub(super) fn read(set: &DataSet, tags: Tags, signed: bool, range: Option<(i64, i64)>) -> Result<Self, Fault> {
        let Tags { descriptor, data, segmented } = tags;
        let Some(&[count, first, bits]) = set.words(descriptor).as_deref() else {
            return Err(Fault::new(descriptor, "is missing, or not three numbers"));
        };
        let count = if count == 0 { 1 << 16 } else { usize::from(count) };
        let is_signed = match set.find(descriptor).map(|element| element.vr) {
            Some([b'S', b'S']) => true,
            Some([b'U', b'S']) if set.explicit => false,
            _ => signed,
        };
        let [first, other] = if is_signed {
            [i64::from(first as i16), i64::from(first)]
        } else {
            [i64::from(first), i64::from(first as i16)]
        };
        let meets = |first: i64| range.is_none_or(|(least, most)| least < first + count as i64 && first <= most);
        let first = if !meets(first) && meets(other) { other } else { first };
        // C.11.1.1: some writers state 0 bits, meaning 16.
        let bits = if bits == 0 { 16 } else { u32::from(bits) };
        if !(1..=16).contains(&bits) {
            return Err(Fault::new(descriptor, format!("states entries of {bits} bits; 8 to 16 are read")));
        }
        if let Some(segmented) = segmented.filter(|&tag| set.bytes(tag).is_some()) {
            let words = set.words(segmented).unwrap_or_default();
            let entries = expand(&words, count).map_err(|reason| Fault::new(segmented, reason))?;
            return Ok(Self { first, entries, bits });
        }
        let bytes = set.bytes(data).ok_or_else(|| Fault::new(data, "is missing"))?;
        let mut entries = set.words(data).unwrap_or_default();
        // 8-bit entries, two in a word, the first in the lower half.
        if bits <= 8 && entries.len() < count && bytes.len() >= count {
            entries = entries.iter().flat_map(|&word| [word & 0xff, word >> 8]).collect();
            if entries.len() < count {
                entries.push(u16::from(bytes[bytes.len() - 1]));
            }
        }
        if entries.len() < count {
            return Err(Fault::new(data, format!("holds {} of {count} entries", entries.len())));
        }
        entries.truncate(count);
        // Entries of 8 bits, each in the upper half of its word.
        if bits == 8 && entries.iter().any(|&entry| entry > 255) {
            entries.iter_mut().for_each(|entry| *entry >>= 8);
        }
        Ok(Self { first, entries, bits })
    }

    /// Bits that the largest entry takes.
    pub(super) fn used_bits(&self) -> u32 {
        self.entries.iter().max().map_or(0, |&most| u16::BITS - most.leading_zeros())
    }

    /// Of narrower entries than stated the white is that of `bits`; never of fewer than 8, which a dark table may use.
    pub(super) fn narrowed(self, bits: u32) -> Self {
        Self { bits: bits.max(8).min(self.bits), ..self }
    }

    /// The entry for `value`; the first and last also stand for what is outside.
    pub(super) fn entry(&self, value: i64) -> u16 {
        let place = (value - self.first).clamp(0, self.entries.len() as i64 - 1);
        self.entries[place as usize]
    }

    /// `round(255 · entry / largest)`.
    pub(super) fn level(&self, value: i64) -> u8 {
        let most = (1u32 << self.bits) - 1;
        ((u32::from(self.entry(value)).min(most) * 255 + most / 2) / most) as u8
    }
}

/// Segments of a table (C.7.9.2): discrete, linear, indirect.
fn expand(words: &[u16], count: usize) -> Result<Vec<u16>, String> {
    let mut entries = Vec::with_capacity(count);
    let mut at = 0;
    while at < words.len() && entries.len() < count {
        at += segment(words, at, count, &mut entries, true)?;
    }
    if entries.len() < count {
        return Err(format!("holds {} of {count} entries", entries.len()));
    }
    entries.truncate(count);
    Ok(entries)
}

/// Appends the segment at `at`; gives its length in words.
fn segment(words: &[u16], at: usize, count: usize, entries: &mut Vec<u16>, outer: bool) -> Result<usize, String> {
    let cut = || format!("has a segment that is cut short at word {at}");
    let &[kind, length, ref rest @ ..] = words.get(at..).ok_or_else(cut)? else { return Err(cut()) };
    let length = usize::from(length);
    let room = count.saturating_sub(entries.len());
    match kind {
        // Else a few words could repeat nothing without end.
        0 | 1 if length == 0 => Err(format!("has an empty segment at word {at}")),
        0 => {
            let values = rest.get(..length).ok_or_else(cut)?;
            entries.extend(values.iter().take(room));
            Ok(2 + length)
        }
        1 => {
            let (&end, &start) = (rest.first().ok_or_else(cut)?, entries.last().ok_or("begins with a linear segment")?);
            let (start, end) = (f64::from(start), f64::from(end));
            let step = |place: usize| (start + (end - start) * place as f64 / length as f64).round() as u16;
            entries.extend((1..=length).take(room).map(step));
            Ok(3)
        }
        // An indirect segment repeats others, which are no indirect ones.
        2 if outer => {
            let &[low, high, ..] = rest else { return Err(cut()) };
            // The offset is of bytes or words, as the data's own; GDCM and pydicom take words.
            let mut from = usize::from(low) | usize::from(high) << 16;
            for _ in 0..length {
                if entries.len() >= count {
                    break;
                }
                from += segment(words, from, count, entries, false)?;
            }
            Ok(4)
        }
        _ => Err(format!("has a segment of kind {kind} at word {at}")),
    }
}
