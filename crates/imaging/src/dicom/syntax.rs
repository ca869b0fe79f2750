//! Transfer syntaxes (DICOM PS3.5, chapter 10; PS3.6, annex A).

use super::data_set::{Encoding, Fault};
use super::tag;

/// How a data set and its pixels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Native(Encoding),
    /// Explicit little endian, all of it deflated.
    Deflated,
    Rle,
    /// Baseline, extended, progressive and lossless.
    Jpeg,
    JpegLs,
    Jpeg2000,
}

pub(super) const EXPLICIT: Encoding = Encoding { explicit: true, big_endian: false };
pub(super) const IMPLICIT: Encoding = Encoding { explicit: false, big_endian: false };
pub(super) const BIG_ENDIAN: Encoding = Encoding { explicit: true, big_endian: true };

impl Syntax {
    pub(super) fn of(uid: &str) -> Result<Self, Fault> {
        let Some(number) = uid.strip_prefix("1.2.840.10008.1.2") else {
            return Err(Fault::new(tag::TRANSFER_SYNTAX, format!("is `{}`, which is not read", uid.escape_debug())));
        };
        let name = match number {
            "" => return Ok(Self::Native(IMPLICIT)),
            ".1" => return Ok(Self::Native(EXPLICIT)),
            ".2" => return Ok(Self::Native(BIG_ENDIAN)),
            ".1.99" => return Ok(Self::Deflated),
            ".5" => return Ok(Self::Rle),
            // Processes 1, 2 and 4, 14, 14 with first-order prediction; and the retired progressive ones.
            ".4.50" | ".4.51" | ".4.53" | ".4.55" | ".4.57" | ".4.70" => return Ok(Self::Jpeg),
            ".4.80" | ".4.81" => return Ok(Self::JpegLs),
            // The last three: High-Throughput (T.814), which the same decoder reads.
            ".4.90" | ".4.91" | ".4.201" | ".4.202" | ".4.203" => return Ok(Self::Jpeg2000),
            ".4.92" | ".4.93" => "JPEG 2000 Part 2",
            ".4.94" | ".4.95" | ".4.204" | ".4.205" => "JPIP, whose pixels are elsewhere",
            ".4.110" | ".4.111" | ".4.112" => "JPEG XL",
            _ if number.starts_with(".4.10") => "video",
            _ => "unknown here",
        };
        Err(Fault::new(tag::TRANSFER_SYNTAX, format!("is {uid} ({name}), which is not read")))
    }

    pub(super) fn encoding(self) -> Encoding {
        match self {
            Self::Native(encoding) => encoding,
            _ => EXPLICIT,
        }
    }
}
