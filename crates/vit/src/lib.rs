//! Frozen Vision Transformer, low-rank and bottleneck plug-ins, and the files that hold them.
//!
//! The backbone is immutable and shared; the plug-in is an argument of every pass. What a backbone is ([`Backbone`],
//! [`BackboneInfo`]) stands apart from what computes with it ([`Engine`]): see [`DeviceSpec::open`] for the way in.

mod adapter;
mod attention_pool;
mod backbone;
mod bag;
mod bottleneck;
mod bound;
mod calibration;
mod card;
mod checkpoint;
mod config;
mod cpu;
mod decision;
mod decoder;
mod device_spec;
mod digest;
mod dropout;
mod engine;
mod ensemble;
mod error;
mod explanation;
mod features;
mod fields;
mod flops;
mod gradients;
mod head;
mod image;
mod intended_use;
mod invalid;
mod meaning;
mod model_description;
mod named;
mod packed_cache;
mod panicked;
mod plugin;
mod positions;
mod preprocess;
mod proof;
mod random;
mod relative;
pub mod rendering;
mod rotary;
mod scope;
mod self_test;
mod sets;
mod task_kind;
mod tensor_file;
mod test_record;
mod timm;
mod timm_names;
mod volume;
mod weights;

pub use adapter::{Adapter, BlockUpdates, LoraConfig, LowRank, Target};
pub use attention_pool::AttentionPool;
pub use backbone::{Backbone, BackboneInfo};
pub use bag::{BagBatch, BagConfig, BagHead, BagLogits, BagLoss, BagPooling, Pooled};
pub use bottleneck::{Bottleneck, BottleneckConfig, Bottlenecks};
pub use bound::BoundPlugin;
pub use calibration::{Calibration, ComputedOn, Recalibration};
pub use card::{BackboneReference, MAX_CLASSES, Provenance, TaskCard};
pub use checkpoint::{Checkpoint, Description};
pub use config::{Activation, MAX_GIGAFLOPS, MAX_TOKENS, Pool, PositionFilter, VitConfig};
pub use cpu::{Cpu, set_threads};
pub use decision::Decision;
pub use decoder::{Decoder, DecoderConfig, DecoderTape, classes_of, enlarge, enlarge_backward, planes};
pub use device_spec::DeviceSpec;
pub use digest::{hash_numbers, hex};
pub use dropout::Dropout;
pub use engine::{Batch, Device, Engine, EngineInfo, ImageLoss, LayerError, Peak, PluginRef, Segment};
pub use ensemble::{Ensemble, Member, MemberRecord, mean_logits};
pub use error::Error;
pub use explanation::{ExplainMethod, Explanation};
pub use features::{FeatureKind, Features};
pub use fields::{Fields, parse_json};
pub use gradients::Gradients;
pub use head::Head;
pub use image::{ImageBatch, ImageError, ImagePart, ImageSource, VoxelBatch};
pub use intended_use::INTENDED_USE;
pub use invalid::Invalid;
pub use meaning::ReadBy;
pub use melo_kernels::{
    MappedFile, Precision, UnknownPrecision, binary_cross_entropy, cross_entropy, cross_entropy_and_dice,
    ranked_probability, return_large_buffers, smooth_l1,
};
pub use model_description::ModelDescription;
pub use packed_cache::{PackedCache, Unkept};
pub use panicked::panic_message;
pub use plugin::{Plugin, PluginInfo};
pub use preprocess::{CropMode, CropOffset, Interpolation, Preprocess};
pub use random::truncated_normal;
pub use relative::relative_index;
pub use rendering::Rendering;
pub use rotary::{Rotary, RotaryGrid, RotaryPairs};
pub use scope::{Given, InScope, SCOPE_SCORE, Scope, ScopeConfig, ScopeLimits};
pub use self_test::SelfTest;
pub use sets::{FindingSet, NamedSet, PredictionSet, SetBy, SetMembers, SetMethod, SetRule};
pub use task_kind::TaskKind;
pub use tensor_file::{
    NamedTensor, Storage, TensorFile, TensorSource, check_finite, folder_of, write_atomically, write_tensors,
};
pub use test_record::{ReliabilityPoint, TestRecord};
pub use volume::{VolumeConfig, VolumeEmbedding, Volumes};
pub use weights::{Block, Layer, Linear, Norm, Weights};
