//! Plug-ins that are named elsewhere than in a file.

use crate::verbs::plugin::check_signer;
use crate::{Failure, Verb};
use melo::share::{Reference, pull};
use std::path::{Path, PathBuf};

/// The list of keys that plug-ins from elsewhere must be signed by, where it is set.
pub(crate) const TRUSTED_KEYS: &str = "MELO_TRUSTED_KEYS";

/// Puts files of the cache in the place of references, in the arguments of a verb that reads plug-ins.
pub(crate) fn locate(verb: &mut Verb) -> Result<(), Failure> {
    for plugin in verb.plugins() {
        if Reference::is_meant(plugin) {
            *plugin = located(plugin)?;
        }
    }
    Ok(())
}

fn located(plugin: &Path) -> Result<PathBuf, Failure> {
    let reference: Reference = plugin.to_string_lossy().parse()?;
    let path = pull(&reference, false)?;
    let list = std::env::var_os(TRUSTED_KEYS).filter(|list| !list.is_empty()).map(PathBuf::from);
    if let Some(list) = &list {
        check_signer(&path, list).map_err(|failure| failure.on(&reference.to_string()))?;
    }
    Ok(path)
}
