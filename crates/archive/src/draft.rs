//! What is to be computed: listed, and held to what a folder was begun with, before anything is written there.

use crate::error::Error;
use crate::folder::{ArchiveFolder, INPUTS, PLAN, plan_in};
use crate::inputs::{Input, Listed, list};
use crate::plan::Plan;
use crate::run::{Event, Settings};
use crate::store::Stores;
use melo_predict::Predictor;
use melo_vit::BoundPlugin;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::NamedTempFile;

/// A plan whose files are not yet in the folder.
pub(crate) struct Draft {
    pub(crate) plan: Plan,
    pub(crate) listed: Listed,
    /// The names.
    pub(crate) names: NamedTempFile,
    is_new: bool,
}

/// Lists all images, and makes the plan of a new folder, or holds the plan of an older one to what is asked now. `unset` gives the images of a
/// part of a new plan where the settings do not.
///
/// # Errors
/// Every cause by its name, see [`Error`].
pub(crate) fn draft(
    predictor: &Predictor,
    settings: &Settings,
    (inputs, stores): (&[Input], &Stores),
    folder: &ArchiveFolder,
    unset: &dyn Fn(&Path) -> Result<usize, Error>,
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Draft, Error> {
    if settings.chunk == Some(0) {
        return Err(Error::NoChunk);
    }
    check_plugins(&settings.plugins)?;
    let was = plan_in(folder.path())?;
    let names = folder.temporary()?;
    let listed = list((inputs, stores), (names.as_file(), names.path(), folder.path()), stop, observer)?;
    if listed.inputs == 0 {
        return Err(Error::NoInput { inputs: in_words(inputs) });
    }
    let chunk = match settings.chunk.or(was.as_ref().map(|was| was.chunk)) {
        Some(chunk) => chunk,
        None => unset(names.path())?,
    };
    let plan = Plan::new(predictor, settings, &listed, chunk);
    if let Some(was) = &was {
        plan.refuse_other(was, folder.path())?;
    }
    Ok(Draft { plan, listed, names, is_new: was.is_none() })
}

impl Draft {
    /// Writes what is not there yet.
    pub(crate) fn keep(self, folder: &ArchiveFolder) -> Result<(Plan, Listed), Error> {
        folder.keep(self.names, INPUTS)?;
        if self.is_new {
            folder.write(PLAN, &self.plan.json())?;
            folder.sync()?;
        }
        Ok((self.plan, self.listed))
    }
}

/// Refuses what an image cannot be asked, or would be asked twice.
pub(crate) fn check_plugins(plugins: &[Arc<BoundPlugin>]) -> Result<(), Error> {
    if plugins.is_empty() {
        return Err(Error::NoPlugin);
    }
    plugins.iter().try_for_each(|plugin| plugin.refuse_bags())?;
    let same = |(place, plugin): &(usize, &Arc<BoundPlugin>)| {
        plugins[..*place].iter().any(|earlier| earlier.digest == plugin.digest)
    };
    match plugins.iter().enumerate().find(same) {
        Some((_, twice)) => Err(Error::Twice { task: twice.card.task.clone(), digest: twice.digest.clone() }),
        None => Ok(()),
    }
}

pub(crate) fn in_words(inputs: &[Input]) -> String {
    let word = |input: &Input| match input {
        Input::Folder(folder) => folder.display().to_string(),
        Input::Prefix(prefix) => prefix.to_string(),
        Input::Images(_) => "a list".to_owned(),
    };
    inputs.iter().map(word).collect::<Vec<_>>().join(", ")
}
