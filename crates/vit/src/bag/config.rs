//! Settings of what pools a bag.

use crate::invalid::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How features of the images of a bag become one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BagPooling {
    /// A mean by learned weights (Ilse, Tomczak and Welling 2018, equations 7 and 9).
    #[default]
    GatedAttention,
    /// The mean.
    Mean,
    /// The largest value of each feature.
    Max,
}

impl BagPooling {
    /// In words: `gated attention`.
    pub fn in_words(self) -> &'static str {
        match self {
            BagPooling::GatedAttention => "gated attention",
            BagPooling::Mean => "mean",
            BagPooling::Max => "max",
        }
    }
}

impl fmt::Display for BagPooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.in_words())
    }
}

/// What pools a bag; in cards and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BagConfig {
    /// How.
    pub pooling: BagPooling,
    /// Width `l` of the attention; 0 of other poolings.
    pub hidden: usize,
    /// Values `p` that say where in its bag an image is, an even number; 0 where order means nothing, and of other poolings.
    pub positions: usize,
}

impl BagConfig {
    /// Width of the attention where nobody asks for another.
    pub const HIDDEN: usize = 64;
    /// Values of a position where nobody asks for others: four periods.
    pub const POSITIONS: usize = 8;
    /// Largest width and number of values.
    const MOST: usize = 4096;

    /// A pooling with its defaults.
    pub fn of(pooling: BagPooling) -> Self {
        match pooling {
            BagPooling::GatedAttention => {
                BagConfig { pooling, hidden: BagConfig::HIDDEN, positions: BagConfig::POSITIONS }
            }
            BagPooling::Mean | BagPooling::Max => BagConfig { pooling, hidden: 0, positions: 0 },
        }
    }

    /// Checks widths against the pooling.
    ///
    /// # Errors
    /// [`Invalid`] for the first that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let BagConfig { pooling, hidden, positions } = *self;
        let wrong = |field, reason: String| Err(Invalid::new(field, reason));
        let attends = pooling == BagPooling::GatedAttention;
        if attends != (hidden > 0) || hidden > BagConfig::MOST {
            let expected =
                if attends { format!("1 to {}", BagConfig::MOST) } else { format!("0 of pooling by {pooling}") };
            return wrong("bag.hidden", format!("bag: hidden {hidden}, expected {expected}"));
        }
        if positions % 2 != 0 || positions > BagConfig::MOST || positions > 0 && !attends {
            let expected = if attends { "an even number".to_owned() } else { format!("0 of pooling by {pooling}") };
            return wrong("bag.positions", format!("bag: positions {positions}, expected {expected}"));
        }
        Ok(())
    }
}

impl Default for BagConfig {
    fn default() -> Self {
        BagConfig::of(BagPooling::default())
    }
}
