//! The parts of a manifest, and the words for them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One part of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The plug-in learns from these.
    Train,
    /// These choose the best epoch, thresholds and temperature.
    Val,
    /// These are looked at once, for the final numbers.
    Test,
}

impl Split {
    /// All three, in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// `train`, `training`, `val`, `valid`, `validation`, `dev`, `test` or `testing`, in any case.
    pub fn from_word(word: &str) -> Option<Split> {
        let words = [
            ("train", Split::Train),
            ("training", Split::Train),
            ("val", Split::Val),
            ("valid", Split::Val),
            ("validation", Split::Val),
            ("dev", Split::Val),
            ("test", Split::Test),
            ("testing", Split::Test),
        ];
        words.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, split)| split)
    }

    /// `train`, `val` or `test`.
    pub fn word(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
