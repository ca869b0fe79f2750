//! An adapter as a model's own `state_dict` names it, `lora_A.default.weight`, under the names that PEFT writes to files.

use melo_vit::{Error, TensorSource};
use std::collections::BTreeMap;
use std::path::Path;

/// Parts of a name that PEFT's own files leave out: the adapter that is active without a name, and what wraps a classifier.
const LEFT_OUT: [&str; 2] = [".modules_to_save.", ".default."];

/// The tensors of a file by PEFT's names in files.
pub(super) struct Unnamed<'a> {
    inner: &'a dyn TensorSource,
    /// The name in the file, by PEFT's.
    names: BTreeMap<String, String>,
}

impl<'a> Unnamed<'a> {
    /// # Errors
    /// [`Error::UnexpectedTensor`] where two tensors would be one.
    pub(super) fn new(inner: &'a dyn TensorSource) -> Result<Self, Error> {
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
        Ok(Unnamed { inner, names })
    }
}

impl TensorSource for Unnamed<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let shapes = self.inner.shapes()?;
        let own = self.names.iter().filter_map(|(short, name)| Some((short.clone(), shapes.get(name)?.clone())));
        Ok(own.collect())
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        self.inner.read(self.names.get(name).map_or(name, String::as_str), expected)
    }
}
