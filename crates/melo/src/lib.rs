//! One frozen Vision Transformer, and for every clinical task a small plug-in: the whole of melo for a program.

pub use melo_data as data;
pub use melo_eval as eval;
pub use melo_imaging as imaging;
pub use melo_interop as interop;
pub use melo_predict as predict;
#[cfg(feature = "serve")]
pub use melo_serve as serve;
pub use melo_study as study;
pub use melo_train as train;
pub use melo_vit as vit;
