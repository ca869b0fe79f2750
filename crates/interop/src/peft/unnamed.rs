//! An adapter as a model's own `state_dict` names it, `lora_A.default.weight`, under the names that PEFT writes to files.

use crate::aliased::Aliased;
use melo_vit::{Error, TensorSource};
use std::collections::BTreeMap;

/// Parts of a name that PEFT's own files leave out: the adapter that is active without a name, and what wraps a classifier.
const LEFT_OUT: [&str; 2] = [".modules_to_save.", ".default."];

/// The tensors of a file by PEFT's names in files.
///
/// # Errors
/// [`Error::UnexpectedTensor`] where two tensors would be one.
pub(super) fn unnamed(inner: &dyn TensorSource) -> Result<Aliased<'_>, Error> {
    let mut names = BTreeMap::new();
    for name in inner.shapes()?.into_keys() {
        let short = LEFT_OUT.iter().fold(name.clone(), |short, part| short.replacen(part, ".", 1));
        // The classifier before it was trained stands beside the one that was.
        if name.contains(".original_module.") {
            continue;
        }
        if let Some(other) = names.insert(short, name.clone()) {
            let hint = format!("it and `{other}` are the same tensor of an adapter");
            return Err(Error::UnexpectedTensor { path: inner.path().to_owned(), name, hint });
        }
    }
    Ok(Aliased { inner, names })
}
