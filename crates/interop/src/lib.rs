//! Files of others, in and out: checkpoints of timm, Hugging Face and PyTorch, adapters of PEFT and of the authors.

mod checkpoint;
mod hub;
mod huggingface;
mod names;
mod npz;
mod pickle;
mod renamed;
mod sharded;
mod torch_file;

pub use checkpoint::{Statistics, load_backbone, read_bare_checkpoint, read_checkpoint};
pub use hub::{is_hub_name, locate};
pub use names::{Dialect, HF_CLIP, HF_DINOV2, HF_VIT, OPEN_CLIP, Part, Place, TIMM};
