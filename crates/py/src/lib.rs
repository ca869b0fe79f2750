//! The native module of `melo_vit`: the front door for Python. What is documented for its users is in `python/melo_vit`.
//!
//! ```text
//! images.rs      files, bytes and arrays            -> images
//! data.rs        manifests, tables and arrays       -> labelled images
//! backbone.rs    weights                            -> an engine
//! training.rs    labelled images                    -> a plug-in
//! evaluation.rs  a plug-in and labelled images      -> figures
//! predictor.rs   plug-ins and images                -> predictions
//! errors.rs      errors of the libraries            -> exceptions; work without the interpreter's lock
//! ```

mod backbone;
mod data;
mod errors;
mod evaluation;
mod images;
mod plugin;
mod predictor;
mod settings;
mod statistics;
mod training;

use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the `melo` command and gives its exit status; wrong usage and `--help` end the process.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>, program: Vec<OsString>) -> u8 {
    py.detach(|| melo_cli::main(arguments, program))
}

#[pymodule(gil_used = false)]
mod _melo {
    #[pymodule_export]
    use super::backbone::{PyBackbone, finish};
    #[pymodule_export]
    use super::data::PyData;
    #[pymodule_export]
    use super::errors::forked;
    #[pymodule_export]
    use super::evaluation::{PyEvaluation, evaluate};
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use super::plugin::PyPlugin;
    #[pymodule_export]
    use super::predictor::{PyPrediction, PyPredictor, encode_png};
    #[pymodule_export]
    use super::statistics::{bootstrap_weights, calibration, clustered_auc, delong, delong_paired, wilson};
    #[pymodule_export]
    use super::training::train;
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
