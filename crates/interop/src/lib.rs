//! Files of others, in and out: checkpoints of timm, Hugging Face and PyTorch, adapters of PEFT and of the authors.

mod authors;
mod classifier;
mod error;
mod folder;
mod import;
mod layout;
mod merge;
mod names;
mod onnx;
mod peft;
mod updates;

pub use authors::{AuthorsFormat, write_authors};
pub use error::Error;
pub use import::{AdapterFormat, ImportSettings, Imported, detect_format, import};
pub use layout::Layout;
pub use merge::{merge, write_hugging_face, write_timm};
pub use names::{Dialect, FACEBOOK, HF_CLIP, HF_DINOV2, HF_VIT, OPEN_CLIP, Part, Place};
pub use onnx::{OnnxWeights, write_onnx};
pub use peft::write_peft;
