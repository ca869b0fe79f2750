//! Numbers of arrays and volumes, read one image at a time from a stream.

use std::io::{self, Read};

/// Kind and byte order of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) kind: Kind,
    pub(crate) big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Numbers {
    /// Bytes of one.
    pub(crate) fn size(self) -> usize {
        match self.kind {
            Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 | Kind::F16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }

    /// All of `bytes`.
    pub(crate) fn values(self, bytes: &[u8]) -> Vec<f64> {
        macro_rules! values {
            ($kind:ty) => {{
                let number = if self.big_endian { <$kind>::from_be_bytes } else { <$kind>::from_le_bytes };
                bytes.as_chunks().0.iter().map(|&value| number(value) as f64).collect()
            }};
        }
        match self.kind {
            Kind::U8 => values!(u8),
            Kind::I8 => values!(i8),
            Kind::U16 => values!(u16),
            Kind::I16 => values!(i16),
            Kind::U32 => values!(u32),
            Kind::I32 => values!(i32),
            Kind::U64 => values!(u64),
            Kind::I64 => values!(i64),
            Kind::F16 => {
                let number = if self.big_endian { half::f16::from_be_bytes } else { half::f16::from_le_bytes };
                bytes.as_chunks().0.iter().map(|&value| number(value).to_f64()).collect()
            }
            Kind::F32 => values!(f32),
            Kind::F64 => values!(f64),
        }
    }
}

/// Passes `count` bytes; an error if there are fewer.
pub(crate) fn skip(stream: &mut dyn Read, count: u64) -> io::Result<()> {
    let passed = io::copy(&mut stream.take(count), &mut io::sink())?;
    if passed < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// The next `count` bytes. Room is made as they come, so that a claim alone allocates nothing.
pub(crate) fn take(stream: &mut dyn Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(count as u64).read_to_end(&mut bytes)?;
    if bytes.len() < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}
