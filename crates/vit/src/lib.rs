//! Frozen Vision Transformer, low-rank and bottleneck plug-ins, and the files that hold them.
//!
//! The backbone is immutable and shared; the plug-in is an argument of the forward pass. A batch of one task is a mixed
//! batch with one segment, so there is one forward path, and switching tasks costs nothing.

mod adapter;
mod backbone;
mod backward;
mod bottleneck;
mod buffers;
mod card;
mod config;
mod dropout;
mod error;
mod explain;
mod flops;
mod forward;
mod head;
mod image;
mod named;
mod parts;
mod plugin;
mod positions;
mod preprocess;
mod random;
pub mod rendering;
mod self_test;
mod shared;
mod tensor_file;
mod walk;
mod weights;

pub use adapter::{Adapter, LoraConfig, LowRank, Target};
pub use backbone::{Backbone, Checkpoint, Description, hex};
pub use backward::Gradients;
pub use bottleneck::{Bottleneck, BottleneckConfig, Bottlenecks};
pub use card::{BackboneReference, Provenance, TaskCard, TaskKind};
pub use config::{Activation, ModelDescription, Pool, PositionFilter, VitConfig};
pub use dropout::Dropout;
pub use error::Error;
pub use explain::{ExplainMethod, Explanation};
pub use head::Head;
pub use image::{ImageBatch, ImageError, ImageSource};
pub use melo_kernels::{
    Isa, MappedFile, Precision, UnknownPrecision, binary_cross_entropy, cross_entropy, return_large_buffers,
};
pub use plugin::{Plugin, PluginInfo};
pub use preprocess::{CropMode, Interpolation, Preprocess};
pub use random::truncated_normal;
pub use rendering::Rendering;
pub use self_test::SelfTest;
pub use tensor_file::{
    NamedTensor, Storage, TensorFile, TensorSource, check_finite, folder_of, write_atomically, write_tensors,
};
pub use walk::{Batch, ImageLoss, Segment, Workspace};
pub use weights::{Block, Linear, Norm, Weights};
