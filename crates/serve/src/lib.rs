//! One backbone, any number of plug-ins, behind HTTP and the DICOM network.
//!
//! ```text
//! http, dicom   bytes from outside      -> Request
//! service       Request                 -> answers: the one way, whoever asks
//! registry      names                   -> versions, weights in memory
//! batch         prepared images         -> logits, in batches over all tasks
//! audit         answers                 -> a chain of records
//! ```

mod answer;
mod audit;
mod auth;
mod bags;
mod batch;
mod clock;
pub mod defaults;
mod dicom;
mod disk;
mod drift;
mod error;
mod http;
mod journal;
mod lock;
mod metrics;
mod places;
mod registry;
mod replica;
mod request;
mod server;
mod service;
mod shortest;
mod syslog;
mod tls;
mod traces;
mod trust;
mod watched;

/// Ways to the parsers of bytes from the network for `fuzz/`; no part of what this crate promises.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::dicom::fuzzing::{command_set, data_set, pdu};
    pub use crate::http::fuzzing::{form, infer, related};
}

pub use answer::{Answer, Answers, BagAnswers, ByName, Heatmap, ImageAnswers, LeadingHeatmap, MaskImage};
pub use audit::{
    Action, Anchor, Archived, Audit, Broken, Checkpoint, CheckpointConfig, Entry, Head, InvalidAnchor, Kind, Record,
    Report, Stored, archive, entries, verify, verify_replicas, verify_together,
};
pub use auth::{Access, Identity, Key, KeyFile, NewKey, OidcConfig, Scope};
pub use batch::{Asked, BatchConfig, BatchQueue, Computed, Permit};
pub use clock::{parse as parse_rfc3339, rfc3339};
pub use dicom::{DestinationConfig, DicomConfig, PeerConfig, ResultKind, RouteConfig, Values};
pub use drift::{Alarm, DriftReport, DriftRow, Drifted, drift_of};
pub use error::{Error, Refusal};
pub use metrics::Metrics;
pub use registry::{Advice, Folder, Registry, RegistryConfig, SignatureConfig, Task, Version};
pub use replica::host_name;
pub use request::{Caller, Image, Limits, Request, SliceFile, Slices};
pub use server::{Application, Config, Server};
pub use service::Service;
pub use syslog::{Syslog, SyslogConfig};
pub use tls::{TlsClientFiles, TlsFiles};
pub use trust::Trust;
