//! Headers of NumPy's arrays: what stands before the numbers of an `.npy` file, and of an entry of an `.npz` archive
//! (NEP 1; numpy.org, `numpy.lib.format`).

use std::io::{self, Read};

/// What an array begins with.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Most bytes of a header, as `numpy.load` allows untrusted files.
pub const MAX_HEADER: usize = 10_000;

/// What an array says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Byte order, kind and size of a number, such as `<f4` or `|u1`.
    pub descr: String,
    /// Lengths of the axes, the first the slowest, or in Fortran order the fastest.
    pub shape: Vec<u64>,
    /// The first axis is the fastest.
    pub fortran_order: bool,
}

/// Why a header was refused; each goes on a sentence that begins with the array.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It ends too early, or cannot be read.
    #[error("the header is cut short: {0}")]
    CutShort(#[source] io::Error),
    /// Other bytes than [`MAGIC`].
    #[error("the header does not begin as one")]
    NoArray,
    /// More than [`MAX_HEADER`].
    #[error("the header claims {0} bytes; expected at most {MAX_HEADER}")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("the header is no text")]
    NoText,
    /// A field is not there, or not of its form.
    #[error("the header states no `{0}`")]
    Missing(&'static str),
    /// A length that is none.
    #[error("the header states a `shape` that is none: `{0}`")]
    Shape(String),
    /// The first axis is the fastest.
    #[error("an array in Fortran order")]
    FortranOrder,
}

impl Header {
    /// Reads the header of an array in C order; the numbers are next in `stream`.
    ///
    /// # Errors
    /// Every [`Error`].
    pub fn read(stream: &mut (impl Read + ?Sized)) -> Result<Self, Error> {
        let header = Self::read_either(stream)?;
        if header.fortran_order { Err(Error::FortranOrder) } else { Ok(header) }
    }

    /// Reads a header, of whichever order; the numbers are next in `stream`.
    ///
    /// # Errors
    /// Every [`Error`] but [`Error::FortranOrder`].
    pub fn read_either(stream: &mut (impl Read + ?Sized)) -> Result<Self, Error> {
        let mut start = [0; 8];
        stream.read_exact(&mut start).map_err(Error::CutShort)?;
        if !start.starts_with(MAGIC) {
            return Err(Error::NoArray);
        }
        // The length has two bytes in version 1, four in the later ones.
        let mut length = [0; 4];
        let bytes = if start[6] == 1 { 2 } else { 4 };
        stream.read_exact(&mut length[..bytes]).map_err(Error::CutShort)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_HEADER {
            return Err(Error::TooLong(length));
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text).map_err(Error::CutShort)?;
        Self::parse(&String::from_utf8(text).map_err(|_| Error::NoText)?)
    }

    /// The header as the bytes in front of the numbers: version 1, filled up to a multiple of 64 bytes and at least 128, so that the length of an axis
    /// can be written later.
    ///
    /// # Panics
    /// If the shape takes more than 64 KiB of text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lengths: Vec<String> = self.shape.iter().map(|length| format!("{length},")).collect();
        let order = if self.fortran_order { "True" } else { "False" };
        let mut text =
            format!("{{'descr': '{}', 'fortran_order': {order}, 'shape': ({}), }}", self.descr, lengths.join(" "));
        let whole = (10 + text.len() + 1).next_multiple_of(64).max(128);
        text.extend(std::iter::repeat_n(' ', whole - 10 - text.len() - 1));
        text.push('\n');
        let length = u16::try_from(text.len()).expect("a header of a few axes");
        [MAGIC, &[1, 0][..], &length.to_le_bytes(), text.as_bytes()].concat()
    }

    /// `{'descr': '|u1', 'fortran_order': False, 'shape': (7, 1), }`.
    fn parse(text: &str) -> Result<Self, Error> {
        let field = |name: &'static str| {
            let behind =
                text.split_once(&format!("'{name}'")).and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
            behind.map(str::trim_start).ok_or(Error::Missing(name))
        };
        let descr = field("descr")?.split('\'').nth(1).ok_or(Error::Missing("descr"))?;
        let order = field("fortran_order")?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return Err(Error::Missing("fortran_order"));
        }
        let shape = field("shape")?.strip_prefix('(').and_then(|shape| shape.split_once(')'));
        let (shape, _) = shape.ok_or(Error::Missing("shape"))?;
        let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
        let length = |length: &str| length.parse().map_err(|_| Error::Shape(length.escape_debug().to_string()));
        Ok(Self { descr: descr.to_owned(), shape: lengths.map(length).collect::<Result<_, _>>()?, fortran_order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(version: u8, header: &str) -> Vec<u8> {
        let length = (header.len() as u32).to_le_bytes();
        let length = if version == 1 { &length[..2] } else { &length[..] };
        [MAGIC, &[version, 0][..], length, header.as_bytes(), &[7]].concat()
    }

    #[test]
    fn both_versions_are_read_and_the_numbers_are_next() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 18446744073709551615), }";
        for version in [1, 2, 3] {
            let bytes = array(version, text);
            let mut stream = &bytes[..];
            let header = Header::read(&mut stream).unwrap();
            assert_eq!((header.descr.as_str(), &header.shape[..]), ("<f4", &[3, u64::MAX][..]));
            assert_eq!(stream, [7]);
        }
        let scalar = array(1, "{'shape': (), 'fortran_order': False, 'descr' : '|b1'}");
        assert_eq!(
            Header::read(&mut &scalar[..]).unwrap(),
            Header { descr: "|b1".into(), shape: vec![], fortran_order: false }
        );
        let turned = array(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}");
        assert!(Header::read_either(&mut &turned[..]).unwrap().fortran_order);
    }

    #[test]
    fn what_is_written_is_read_and_as_long_whatever_the_first_axis() {
        for shape in [vec![], vec![3], vec![0, 384], vec![u64::MAX, 1369, 37, 4096]] {
            let header = Header { descr: "<f2".into(), shape, fortran_order: false };
            let bytes = header.to_bytes();
            assert_eq!((bytes.len(), bytes.last()), (128, Some(&b'\n')));
            assert_eq!(Header::read(&mut &bytes[..]).unwrap(), header);
        }
    }

    #[test]
    fn what_is_no_header_is_refused_by_name() {
        let refused = |bytes: &[u8]| Header::read(&mut &bytes[..]).unwrap_err().to_string();
        let whole = array(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}");
        for cut in 0..whole.len() - 1 {
            assert!(refused(&whole[..cut]).contains("cut short"), "{cut}");
        }
        assert!(refused(b"PK\x03\x04....").contains("does not begin as one"));
        assert!(refused(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("claims 4294967295 bytes"));
        assert!(refused(b"\x93NUMPY\x01\x00\x01\x00\xff").contains("no text"));
        for (text, words) in [
            ("{}", "no `descr`"),
            ("{'descr': 3, 'shape': 3}", "no `fortran_order`"),
            ("{'descr': '<f4', 'shape': (3,)}", "no `fortran_order`"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (3,)}", "Fortran"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': 3}", "no `shape`"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -1)}", "`-1`"),
        ] {
            assert!(refused(&array(1, text)).contains(words), "{text}");
        }
    }
}
