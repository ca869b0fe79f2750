//! Files of others, in and out: checkpoints of timm, Hugging Face and PyTorch, adapters of PEFT and of the authors.

mod aliased;
mod authors;
mod checkpoint;
mod class_names;
mod classifier;
mod error;
mod folder;
mod hub;
mod huggingface;
mod import;
mod layout;
mod merge;
mod names;
mod npz;
mod onnx;
mod open_clip;
mod peft;
mod pickle;
mod processor;
mod renamed;
mod sharded;
mod torch_file;
mod unwrapped;
mod updates;

pub use authors::{AuthorsFormat, write_authors};
pub use checkpoint::{ReadCheckpoint, ReadSettings, Statistics, read_backbone, read_checkpoint, read_checkpoint_with};
pub use class_names::class_names;
pub use error::Error;
pub use hub::{hub_access, hub_files, hub_name, is_hub_name, locate};
pub use import::{AdapterFormat, ImportSettings, Imported, detect_format, import};
pub use layout::Layout;
pub use merge::{merge, write_hugging_face, write_timm};
pub use names::{Dialect, HF_BEIT, HF_CLIP, HF_DINOV2, HF_DINOV3, HF_SIGLIP, HF_VIT, OPEN_CLIP, Part, Place, TIMM};
pub use onnx::{OnnxWeights, write_onnx};
pub use peft::write_peft;
