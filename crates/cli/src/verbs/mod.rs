//! The verbs of the command line, and what several of them share.

#[cfg(feature = "archive")]
pub(crate) mod archive;
pub(crate) mod audit;
pub(crate) mod backbone;
pub(crate) mod backbone_args;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod data;
mod data_args;
pub(crate) mod embed;
pub(crate) mod eval;
mod images;
pub(crate) mod keys;
mod log_args;
pub(crate) mod man;
pub(crate) mod plugin;
pub(crate) mod predict;
pub(crate) mod pretrain;
pub(crate) mod quickstart;
mod scope_args;
pub(crate) mod serve;
mod set_args;
pub(crate) mod study;
mod task;
pub(crate) mod train;
