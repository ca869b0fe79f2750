//! Files of others, in and out: checkpoints of timm, Hugging Face and PyTorch, adapters of PEFT and of the authors.

mod names;

pub use names::{Dialect, FACEBOOK, HF_CLIP, HF_DINOV2, HF_VIT, OPEN_CLIP, Part, Place};
