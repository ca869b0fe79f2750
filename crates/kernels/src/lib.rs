//! Operations on shaped views, forward and backward, behind one table of function pointers per instruction set.
//!
//! Kernels know nothing of models. Every function is single-threaded: the caller spreads images over its threads.
//!
//! Letters, fixed here and used everywhere:
//!
//! | letter | meaning |
//! |---|---|
//! | `n` | images |
//! | `t` | tokens of one image |
//! | `m` | rows, `n · t` |
//! | `d` | width of the residual stream |
//! | `h` | attention heads |
//! | `r` | rank of a low-rank update |
//! | `c` | classes |
//!
//! Matrices are row-major, weights are `[out, in]`, the gradient of `x` is `d_x`.
//! A shape mismatch is a bug of the caller and panics.

mod attention;
mod bf16;
#[cfg(target_arch = "x86_64")]
mod cpuid;
mod gelu;
mod int8;
mod isa;
mod linear;
mod lines;
mod loss;
mod lowrank;
mod mapped;
mod math;
mod memory;
mod norm;
mod peak;
mod pixel_loss;
mod precision;
#[cfg(target_arch = "x86_64")]
mod prefetch;
mod product;
mod resample;
mod resize;
mod rotary;
mod rows;
mod sgemm;
mod skinny;
mod softmax;
mod swiglu;
mod table;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tile;
#[cfg(target_arch = "x86_64")]
mod transpose;
mod view;

pub use attention::{AttentionBias, AttentionShape};
pub use gelu::Gelu;
pub use isa::Isa;
pub use linear::PackedWeight;
pub use lines::{Sections, bytes_of_floats};
pub use loss::{binary_cross_entropy, cross_entropy, ranked_probability, smooth_l1};
pub use lowrank::{LowRankGradient, LowRankUpdate};
pub use mapped::MappedFile;
pub use memory::return_large_buffers;
pub use peak::multiply_adds;
pub use pixel_loss::cross_entropy_and_dice;
pub use precision::{Precision, UnknownPrecision};
pub use resample::{Taps, WEIGHT_BITS};
pub use resize::{resample_columns, resample_rows};
pub use rotary::{Pairs, Rotation};
pub use rows::{Left, LeftRows};
pub use table::Kernels;
pub use view::{Mat, MatMut};
