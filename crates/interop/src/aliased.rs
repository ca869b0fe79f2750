//! Tensors of a file under other names than its own.

use melo_vit::{Error, TensorSource};
use std::collections::BTreeMap;
use std::path::Path;

/// Those tensors of `inner` that are named, each by its other name.
pub(crate) struct Aliased<'a> {
    pub(crate) inner: &'a dyn TensorSource,
    /// Names in the file by the others.
    pub(crate) names: BTreeMap<String, String>,
}

impl TensorSource for Aliased<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let shapes = self.inner.shapes()?;
        let own = self.names.iter().filter_map(|(name, own)| Some((name.clone(), shapes.get(own)?.clone())));
        Ok(own.collect())
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        self.inner.read(self.names.get(name).map_or(name, String::as_str), expected)
    }
}
