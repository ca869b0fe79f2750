//! Training methods, and what each of them trains.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is trained; the head always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Low-rank matrices and a head; a rank of 0 leaves the head alone.
    Lora,
    /// The head alone: a linear probe.
    Linear,
    /// Bottlenecks after the blocks' MLPs, and a head.
    Adapter,
    /// Every parameter of the backbone, and a head.
    Full,
}

impl Method {
    /// True when the backbone's own weights change: the run starts from [`crate::Start::Trained`] and returns a backbone.
    pub fn trains_backbone(self) -> bool {
        self == Method::Full
    }

    /// True when low-rank matrices are trained.
    pub fn trains_low_rank(self) -> bool {
        self == Method::Lora
    }

    /// True when bottlenecks are trained.
    pub fn trains_bottlenecks(self) -> bool {
        self == Method::Adapter
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Lora => "lora",
            Method::Linear => "linear",
            Method::Adapter => "adapter",
            Method::Full => "full",
        })
    }
}
