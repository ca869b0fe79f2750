//! Folders of Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`.

mod config;
mod read;
mod unnamed;
mod write;

pub(crate) use read::{card_path, read};
pub(crate) use write::card;
pub use write::write_peft;

/// The settings.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// The tensors.
pub(crate) const TENSORS: &str = "adapter_model.safetensors";
/// The tensors as PyTorch pickles them.
pub(crate) const PICKLED: &str = "adapter_model.bin";
/// Our card, beside what PEFT writes and reads.
pub(crate) const CARD: &str = "melo_card.json";
/// What stands before every name.
pub(crate) const PREFIX: &str = "base_model.model.";
