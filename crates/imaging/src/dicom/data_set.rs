//! Bytes to a data set (DICOM PS3.5, chapter 7; PS3.10, chapter 7).
//!
//! Values stay where they are: an element is a slice of the file. Sequences nest at most [`MAX_DEPTH`] deep, whereas
//! readers that build them by unbounded recursion let a small file end the process: see `docs/decisions/0007-dicom.md`.

use super::tag::{self, Tag, Vr, has_long_length};

/// Deepest nesting read. Structured reports nest about ten deep, images three.
const MAX_DEPTH: usize = 32;

/// Most elements read of one file, nested ones counted: the largest multi-frame headers have half a million.
const MAX_ELEMENTS: usize = 2_000_000;

/// Most bytes that a deflated data set may become.
const MAX_INFLATED: u64 = 128 << 20;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);

/// What is wrong, and in which attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) tag: Tag,
    /// Follows the attribute's name in a sentence.
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(tag: Tag, reason: impl Into<String>) -> Self {
        Self { tag, reason: reason.into() }
    }
}

/// Attributes in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct DataSet<'a> {
    pub(super) elements: Vec<Element<'a>>,
    pub(super) big_endian: bool,
    /// Representations are the file's own words.
    pub(super) explicit: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    pub(super) vr: Vr,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Items(Vec<DataSet<'a>>),
    /// Encapsulated pixel data: the first is the offset table (PS3.5, annex A.4).
    Fragments(Vec<&'a [u8]>),
}

/// How a data set is written (PS3.5, annex A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

impl<'a> DataSet<'a> {
    pub(super) fn find(&self, tag: Tag) -> Option<&Element<'a>> {
        self.elements.iter().find(|element| element.tag == tag)
    }

    /// Bytes of a value that is there and not empty.
    pub(super) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        match self.find(tag)?.value {
            Value::Bytes(bytes) if !bytes.is_empty() => Some(bytes),
            _ => None,
        }
    }

    /// Items of a sequence; none where it is absent.
    pub(super) fn items(&self, tag: Tag) -> &[DataSet<'a>] {
        match self.find(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// A text without its padding.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        let text = decode_text(self.bytes(tag)?);
        (!text.is_empty()).then_some(text)
    }

    /// A 16-bit number.
    pub(super) fn number(&self, tag: Tag) -> Option<u16> {
        self.words(tag)?.first().copied()
    }

    /// 16-bit numbers.
    pub(super) fn words(&self, tag: Tag) -> Option<Vec<u16>> {
        let (pairs, _) = self.bytes(tag)?.as_chunks();
        let word = if self.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        Some(pairs.iter().map(|&pair| word(pair)).collect())
    }

    /// Decimal numbers (DS and IS); a backslash behind the last separates it from nothing.
    pub(super) fn decimals(&self, tag: Tag) -> Result<Option<Vec<f64>>, Fault> {
        let Some(text) = self.text(tag) else { return Ok(None) };
        let number = |part: &str| match part.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(Fault::new(tag, format!("is `{}`, which is no number", part.escape_debug()))),
        };
        let text = text.trim_end_matches(['\\', ' ']);
        if text.is_empty() {
            return Ok(None);
        }
        text.split('\\').map(number).collect::<Result<_, _>>().map(Some)
    }
}

/// UTF-8 where it is, else Latin-1, without trailing spaces and zeros; enough for identifiers, codes and most names.
pub(super) fn decode_text(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    };
    text.trim_matches(|character: char| character == '\0' || character.is_whitespace()).to_owned()
}

/// Reads elements until the bytes end or pixel data has been passed.
pub(super) fn read(bytes: &[u8], encoding: Encoding) -> Result<DataSet<'_>, Fault> {
    let mut reader = Reader { bytes, position: 0, encoding, elements: 0 };
    reader.data_set(bytes.len(), 0)
}

/// The file meta group behind the preamble, and where the data set begins (PS3.10, section 7.1).
pub(super) fn read_meta(bytes: &[u8], start: usize) -> Result<(DataSet<'_>, usize), Fault> {
    let encoding = Encoding { explicit: true, big_endian: false };
    let mut reader = Reader { bytes, position: start, encoding, elements: 0 };
    let mut meta = DataSet::default();
    // The group length is often wrong; the group number is not.
    while reader.peek().is_some_and(|tag| tag.0 == 2) {
        let element = reader.element(bytes.len(), 0)?;
        meta.elements.push(element);
    }
    Ok((meta, reader.position))
}

/// A deflated data set (PS3.5, annex A.5).
pub(super) fn inflate(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    use std::io::Read;
    let fault = |reason: String| Fault::new(tag::TRANSFER_SYNTAX, reason);
    let mut inflated = Vec::new();
    let read = flate2::read::DeflateDecoder::new(bytes).take(MAX_INFLATED + 1).read_to_end(&mut inflated);
    if inflated.len() as u64 > MAX_INFLATED {
        return Err(fault(format!("is deflated, and inflates to more than {MAX_INFLATED} bytes")));
    }
    read.map_err(|error| fault(format!("is deflated, but the data set does not inflate: {error}")))?;
    Ok(inflated)
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    encoding: Encoding,
    elements: usize,
}

impl<'a> Reader<'a> {
    fn word(&self, at: usize) -> Option<u16> {
        let pair = self.bytes.get(at..)?.first_chunk()?;
        Some(if self.encoding.big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let four = self.bytes.get(at..)?.first_chunk()?;
        Some(if self.encoding.big_endian { u32::from_be_bytes(*four) } else { u32::from_le_bytes(*four) })
    }

    fn peek(&self) -> Option<Tag> {
        Some(Tag(self.word(self.position)?, self.word(self.position + 2)?))
    }

    /// Counts an element or item, each of which takes room.
    fn count(&mut self, tag: Tag) -> Result<(), Fault> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(Fault::new(tag, format!("is behind {MAX_ELEMENTS} elements, more than are read")));
        }
        Ok(())
    }

    /// Elements up to `end`, or to the delimiter of an item.
    fn data_set(&mut self, end: usize, depth: usize) -> Result<DataSet<'a>, Fault> {
        let mut set =
            DataSet { elements: Vec::new(), big_endian: self.encoding.big_endian, explicit: self.encoding.explicit };
        while self.position < end {
            match self.peek() {
                Some(ITEM_END) => {
                    self.position = (self.position + 8).min(end);
                    break;
                }
                // Zeros after the last element, as some writers leave them.
                None | Some(Tag(0, 0)) if depth == 0 => break,
                _ => {}
            }
            let element = self.element(end, depth)?;
            let last = depth == 0 && element.tag == tag::PIXELS;
            set.elements.push(element);
            if last {
                break;
            }
        }
        Ok(set)
    }

    fn element(&mut self, end: usize, depth: usize) -> Result<Element<'a>, Fault> {
        let tag = self.peek().ok_or_else(|| Fault::new(Tag(0, 0), "is where an element is cut short"))?;
        self.count(tag)?;
        let cut = || Fault::new(tag, "is cut short");
        let (vr, length) = self.header(tag).ok_or_else(cut)?;
        if length == UNDEFINED {
            let value = match (tag, &vr) {
                (tag::PIXELS, _) => Value::Fragments(self.fragments(end)?),
                // PS3.5, section 6.2.2: of unknown representation and length is a sequence in implicit little endian.
                (_, b"UN") if self.encoding.explicit => {
                    let outer = self.encoding;
                    self.encoding = Encoding { explicit: false, big_endian: false };
                    let items = self.sequence(tag, end, true, depth + 1);
                    self.encoding = outer;
                    Value::Items(items?)
                }
                _ => Value::Items(self.sequence(tag, end, true, depth + 1)?),
            };
            return Ok(Element { tag, vr, value });
        }
        let behind = self.position.checked_add(length as usize).filter(|&behind| behind <= end);
        let behind = behind.ok_or_else(|| {
            let left = end.saturating_sub(self.position);
            Fault::new(tag, format!("claims {length} bytes, and {left} are left"))
        })?;
        if vr == *b"SQ" {
            let items = self.sequence(tag, behind, false, depth + 1)?;
            self.position = behind;
            return Ok(Element { tag, vr, value: Value::Items(items) });
        }
        let value = Value::Bytes(&self.bytes[self.position..behind]);
        self.position = behind;
        Ok(Element { tag, vr, value })
    }

    /// Representation and length of the element at the position, which moves to its value (PS3.5, section 7.1).
    fn header(&mut self, tag: Tag) -> Option<(Vr, u32)> {
        let at = self.position + 4;
        let (vr, length, behind) = if !self.encoding.explicit {
            (tag.representation(), self.long(at)?, at + 4)
        } else {
            let vr = *self.bytes.get(at..)?.first_chunk::<2>()?;
            match has_long_length(&vr) {
                true => (vr, self.long(at + 4)?, at + 8),
                false => (vr, self.word(at + 2)?.into(), at + 4),
            }
        };
        self.position = behind;
        Some((vr, length))
    }

    /// Items up to `end`, or to the delimiter of the sequence if `delimited`.
    fn sequence(&mut self, tag: Tag, end: usize, delimited: bool, depth: usize) -> Result<Vec<DataSet<'a>>, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new(tag, format!("nests more than {MAX_DEPTH} sequences")));
        }
        let mut items = Vec::new();
        while self.position < end {
            let found = self.peek();
            let length = self.long(self.position + 4).ok_or_else(|| Fault::new(tag, "is cut short"))?;
            match found {
                Some(SEQUENCE_END) if delimited => {
                    self.position += 8;
                    return Ok(items);
                }
                Some(ITEM) => self.position += 8,
                _ => return Err(Fault::new(tag, format!("holds {} where an item begins", found.unwrap_or(ITEM)))),
            }
            let behind = match length {
                UNDEFINED => end,
                _ => self.position.checked_add(length as usize).filter(|&behind| behind <= end).ok_or_else(|| {
                    Fault::new(tag, format!("has an item that claims {length} bytes, more than are left"))
                })?,
            };
            self.count(tag)?;
            items.push(self.data_set(behind, depth)?);
            if length != UNDEFINED {
                self.position = behind;
            }
        }
        if delimited { Err(Fault::new(tag, "has no end")) } else { Ok(items) }
    }

    /// Fragments of encapsulated pixel data (PS3.5, annex A.4).
    ///
    /// A file cut inside the last fragment keeps what is left of it: the decoder of the frame says what is missing.
    fn fragments(&mut self, end: usize) -> Result<Vec<&'a [u8]>, Fault> {
        let mut fragments = Vec::new();
        while let (Some(tag), Some(length)) = (self.peek(), self.long(self.position + 4)) {
            self.position += 8;
            match tag {
                ITEM => {
                    let behind = self.position.saturating_add(length as usize).min(end);
                    fragments.push(&self.bytes[self.position..behind]);
                    self.position = behind;
                }
                SEQUENCE_END => break,
                _ => return Err(Fault::new(tag::PIXELS, format!("holds {tag} where a fragment begins"))),
            }
        }
        Ok(fragments)
    }
}
