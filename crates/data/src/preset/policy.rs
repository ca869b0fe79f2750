//! Labels that the set itself calls uncertain.

use serde::Serialize;

/// What becomes of a label that the set itself calls uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The finding is absent ("U-Zeros" of the CheXpert paper).
    Zeros,
    /// The finding is present ("U-Ones").
    Ones,
    /// The image is left out: for sets of one class an image.
    Ignore,
}

impl Policy {
    /// `zeros`, `ones` or `ignore`.
    pub fn word(self) -> &'static str {
        match self {
            Policy::Zeros => "zeros",
            Policy::Ones => "ones",
            Policy::Ignore => "ignore",
        }
    }
}
