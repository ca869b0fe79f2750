//! A result's file for receivers that take implicit VR little endian alone: values stay as they are, byte for byte.
//! `dicom-object` would decode and encode text on the way, and does not know every character set.

use dicom_object::FileMetaTable;
use melo_imaging::dicom::has_long_length;

/// Preamble, `DICM`, and the element that says how long the rest of the file meta group is.
const HEAD: usize = 128 + 4 + 12;
const UNDEFINED: u32 = u32::MAX;
/// Results nest about eight deep.
const MAX_DEPTH: usize = 32;

/// The meta group and the data set of a part-10 file.
pub(super) fn split(file: &[u8]) -> Option<(FileMetaTable, &[u8])> {
    let meta = FileMetaTable::from_reader(file.get(128..)?).ok()?;
    let length = u32::from_le_bytes(*file.get(HEAD - 4..)?.first_chunk()?);
    Some((meta, file.get(HEAD.checked_add(length as usize)?..)?))
}

/// The data set in implicit VR, sequences and items of undefined length; none where it is damaged.
pub(super) fn from_explicit(data_set: &[u8]) -> Option<Vec<u8>> {
    let mut rest = data_set;
    let mut out = Vec::with_capacity(data_set.len());
    elements(&mut rest, &mut out, false, 0)?;
    Some(out)
}

/// Elements up to the end, or up to the delimiter of their item.
fn elements(rest: &mut &[u8], out: &mut Vec<u8>, delimited: bool, depth: usize) -> Option<()> {
    while !rest.is_empty() {
        let tag = take(rest, 4)?;
        if delimited && tag == [0xfe, 0xff, 0x0d, 0xe0] {
            take(rest, 4)?;
            return Some(());
        }
        let vr: &[u8; 2] = take(rest, 2)?.first_chunk()?;
        let length = if has_long_length(vr) {
            take(rest, 2)?;
            u32::from_le_bytes(*take(rest, 4)?.first_chunk()?)
        } else {
            u16::from_le_bytes(*take(rest, 2)?.first_chunk()?).into()
        };
        out.extend_from_slice(tag);
        if vr != b"SQ" {
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(take(rest, length as usize)?);
            continue;
        }
        out.extend_from_slice(&UNDEFINED.to_le_bytes());
        match length {
            UNDEFINED => items(rest, out, true, depth + 1)?,
            length => items(&mut take(rest, length as usize)?, out, false, depth + 1)?,
        }
        out.extend_from_slice(&[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    }
    (!delimited).then_some(())
}

fn items(rest: &mut &[u8], out: &mut Vec<u8>, delimited: bool, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    while !rest.is_empty() {
        let tag = take(rest, 4)?;
        let length = u32::from_le_bytes(*take(rest, 4)?.first_chunk()?);
        match tag {
            [0xfe, 0xff, 0xdd, 0xe0] if delimited => return Some(()),
            [0xfe, 0xff, 0x00, 0xe0] => {}
            _ => return None,
        }
        out.extend_from_slice(tag);
        out.extend_from_slice(&UNDEFINED.to_le_bytes());
        match length {
            UNDEFINED => elements(rest, out, true, depth)?,
            length => elements(&mut take(rest, length as usize)?, out, false, depth)?,
        }
        out.extend_from_slice(&[0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0]);
    }
    (!delimited).then_some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
    use dicom_core::{DataElement, VR};
    use dicom_dictionary_std::tags;
    use dicom_object::InMemDicomObject;
    use dicom_transfer_syntax_registry::entries;

    fn object(depth: usize) -> InMemDicomObject {
        let mut object = InMemDicomObject::new_empty();
        let name = PrimitiveValue::U8([0x1b, b'$', b'B', 0xff].as_slice().into());
        object.put(DataElement::new(tags::PATIENT_NAME, VR::PN, Value::Primitive(name)));
        object.put(DataElement::new(tags::ROWS, VR::US, Value::Primitive(7_u16.into())));
        let items = if depth == 0 { Vec::new() } else { vec![self::object(depth - 1), InMemDicomObject::new_empty()] };
        object.put(DataElement::new(tags::CONTENT_SEQUENCE, VR::SQ, Value::from(DataSetSequence::from(items))));
        object
    }

    #[test]
    fn it_is_what_dicom_object_writes_and_text_is_untouched() {
        let object = object(3);
        let (mut explicit, mut implicit) = (Vec::new(), Vec::new());
        let (long, short) = (entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(), entries::IMPLICIT_VR_LITTLE_ENDIAN.erased());
        object.write_dataset_with_ts(&mut explicit, &long).expect("a data set");
        object.write_dataset_with_ts(&mut implicit, &short).expect("a data set");
        assert_eq!(from_explicit(&explicit).as_ref(), Some(&implicit));
        for length in 0..explicit.len() {
            // Refused, or cut between two elements.
            let cut = from_explicit(&explicit[..length]);
            assert!(cut.is_none_or(|cut| implicit.starts_with(&cut)), "cut at {length}");
        }
    }
}
