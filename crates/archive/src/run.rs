//! An archive in one process.

use crate::check::{Manifest, finish};
use crate::compute::Work;
use crate::draft::draft;
use crate::error::Error;
use crate::folder::{ArchiveFolder, plan_in};
use crate::inputs::{Input, Listed};
use crate::patient::PatientKey;
use crate::plan::{CHUNK, Plan};
use crate::store::Stores;
use melo_imaging::Seen;
use melo_predict::Predictor;
use melo_vit::BoundPlugin;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is asked of all images.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who is asked, in the order of an image's rows.
    pub plugins: Vec<Arc<BoundPlugin>>,
    /// Images of a part; where nothing is said those of an archive that was begun, or [`crate::CHUNK`].
    pub chunk: Option<usize>,
    /// Codes for Patient IDs; without one, patients are left out.
    pub patient_key: Option<PatientKey>,
}

/// News of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many images were found so far.
    Listing {
        /// Images.
        found: u64,
    },
    /// What cannot be listed, with the reason.
    Unlisted(&'a str),
    /// All images are known.
    Planned {
        /// What was listed.
        listed: &'a Listed,
        /// Images that an earlier run had done.
        done: u64,
    },
    /// An image was read.
    Read {
        /// As it is named.
        path: &'a Path,
        /// What the decoder saw.
        seen: &'a Seen,
    },
    /// An image has no answer; the sentence names it.
    Refused(&'a str),
    /// So many more images were computed.
    Computed(usize),
}

/// A complete archive.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was planned.
    pub plan: Plan,
    /// What it came to.
    pub manifest: Manifest,
    /// Images that an earlier run had done.
    pub resumed: u64,
}

/// Asks the plug-ins about all images, and writes their answers to `folder`; goes on where an earlier run was stopped or killed. Images that
/// cannot be read are told and have rows with the reason. Raised, `stop` ends it after the chunk in flight.
///
/// # Errors
/// Every cause by its name, see [`Error`]; finished parts stay.
///
/// # Panics
/// If a plug-in is bound to another engine.
pub fn run(
    predictor: &Predictor,
    settings: &Settings,
    inputs: &[Input],
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, Error> {
    // Before anything is made in a folder of somebody else.
    plan_in(folder)?;
    let folder = ArchiveFolder::open(folder)?;
    folder.sweep()?;
    let stores = Stores::default();
    let draft = draft(predictor, settings, (inputs, &stores), &folder, &|_| Ok(CHUNK), stop, observer)?;
    let (plan, listed) = draft.keep(&folder)?;
    let digest = plan.digest();
    let pending = folder.missing(&plan)?;
    let resumed = plan.inputs - plan.images(&pending);
    observer(Event::Planned { listed: &listed, done: resumed });
    let (plan_of, digest) = (&plan, digest.as_str());
    let work =
        Work { predictor, settings, plan: plan_of, digest, folder: &folder, stores: &stores, needs_files: false };
    let (mut chunks, mut done) = (pending.iter(), resumed);
    let next = || Ok(chunks.next().map(|&number| (number, ())));
    let settle = |number, (), failed: Option<&Error>| {
        done += if failed.is_some() { 0 } else { plan.inputs_of(number) as u64 };
        match failed.is_none() && stop.load(Ordering::Relaxed) && done < plan.inputs {
            true => Err(Error::Interrupted { done, of: plan.inputs, folder: folder.path().to_owned() }),
            false => Ok(()),
        }
    };
    work.compute(next, settle, observer)?;
    let manifest = finish(&folder, &plan, &pending)?;
    Ok(Finished { plan, manifest, resumed })
}
