//! Weights whose names all begin with what a training framework puts in front: `module.`, `_orig_mod.`, `model.`, `network.`.

use crate::aliased::Aliased;
use crate::names::Dialect;
use melo_vit::{Error, TensorSource};
use std::collections::{BTreeMap, BTreeSet};

/// What stands in front of the student and the teacher of a self-distillation: the teacher is what its authors evaluate.
const TEACHERS: [&str; 2] = ["teacher.", "model_ema."];

/// What PyTorch puts in front of a name, in any order, and timm's `clean_state_dict` takes off each name for itself.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// The tensors of `inner` whose names begin with a prefix, without it.
pub(crate) struct Unwrapped<'a> {
    pub(crate) tensors: Aliased<'a>,
    /// What stood in front of every name.
    pub(crate) prefix: String,
    /// Prefixes of other backbones in the file.
    pub(crate) others: Vec<String>,
    /// Tensors that do not begin with the prefix.
    pub(crate) outside: Vec<String>,
}

impl<'a> Unwrapped<'a> {
    /// Finds what stands in front of the names of `dialect`: nothing, where no tensor is the patch projection of one.
    ///
    /// # Errors
    /// [`Error::WeightsKey`] where several backbones are in the file, and `key` does not name one of their prefixes.
    pub(crate) fn new(inner: &'a dyn TensorSource, dialect: &Dialect, key: Option<&str>) -> Result<Self, Error> {
        let raw: Vec<String> = inner.shapes()?.into_keys().collect();
        let mut names: BTreeMap<String, String> =
            raw.iter().map(|name| (clean(name).to_owned(), name.clone())).collect();
        // Two models, one of them wrapped: what stands in front tells them apart.
        if names.len() != raw.len() {
            names = raw.into_iter().map(|name| (name.clone(), name)).collect();
        }
        let mut prefixes: BTreeSet<&str> = names.keys().filter_map(|name| dialect.wrapping(name)).collect();
        let dotted =
            key.map(|key| if key.is_empty() || key.ends_with('.') { key.to_owned() } else { format!("{key}.") });
        let wrong = |reason: &str| Error::WeightsKey {
            path: inner.path().to_owned(),
            reason: reason.to_owned(),
            found: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        };
        let chosen = match &dotted {
            Some(key) => match prefixes.contains(key.as_str()) {
                true => key.clone(),
                false => return Err(wrong(&format!("no weights of a {} begin with `{key}`", dialect.name))),
            },
            None => match prefixes.len() {
                0 => String::new(),
                1 => prefixes.first().map_or_else(String::new, |prefix| (*prefix).to_owned()),
                _ => {
                    let teacher = prefixes.iter().find(|prefix| TEACHERS.iter().any(|end| prefix.ends_with(end)));
                    let bare = prefixes.contains("").then_some("");
                    let best = bare.or(teacher.copied());
                    best.ok_or_else(|| wrong("the weights of several models under one another"))?.to_owned()
                }
            },
        };
        prefixes.remove(chosen.as_str());
        let others = prefixes.into_iter().map(str::to_owned).collect();
        let outside = names.keys().filter(|name| !name.starts_with(&chosen)).cloned().collect();
        let own = |(name, raw): (String, String)| Some((name.strip_prefix(&chosen)?.to_owned(), raw));
        let names = names.into_iter().filter_map(own).collect();
        Ok(Unwrapped { tensors: Aliased { inner, names }, prefix: chosen, others, outside })
    }
}

/// A name without [`WRAPPERS`].
fn clean(name: &str) -> &str {
    match WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        Some(rest) => clean(rest),
        None => name,
    }
}
