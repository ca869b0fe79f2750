//! The one way from images to answers, whoever asks: a program, the binary, the server behind its queue.
//!
//! ```text
//! Prepared    an image's bytes      -> decoded once a rendering, an input [3, s, s] a preprocessing
//! Predictor   inputs with plug-ins  -> logits, one batch a size: shared blocks once, then a segment a plug-in
//! predict_bag a bag of files       -> logits of all together, and how much each image counted
//! decide      logits                -> probabilities, the class, the findings (BoundPlugin::decide)
//! explain     an input, a class     -> relevance, laid over the pixels that were decoded
//! ```

mod bag;
mod error;
mod heatmap;
mod input;
mod predictor;
mod prepared;
mod segmentation;

pub use bag::{Bag, BagImage, BagPrediction, LEADING};
pub use error::Error;
pub use heatmap::{Drawing, Drawn};
pub use input::Input;
pub use predictor::{AllGiven, Prediction, Predictor, mask_of};
pub use prepared::{Prepared, prepare_files};
pub use segmentation::segmentation_about;
