//! The chunks of an archive whose parts are not there, queued for workers.

use crate::broker::Broker;
use crate::compute::{BATCH, rate};
use crate::draft::draft;
use crate::error::Error;
use crate::folder::{ArchiveFolder, plan_in};
use crate::inputs::Input;
use crate::names::{any_relative, spread};
use crate::plan::Plan;
use crate::queue::{Listener, Queue};
use crate::run::{Event, Settings};
use crate::shared::{Shared, Sharing, random};
use crate::store::Stores;
use melo_predict::Predictor;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Images that a rate is measured on, at most.
const MEASURED: usize = 4 * BATCH;
/// How long a machine such as this one computes a chunk whose length nobody gave, seconds: what a kill costs, and a stop waits for. Writing a
/// part and asking for the next chunk take some hundredths of a second.
const CHUNK_S: f64 = 20.0;
/// Chunks at least of an archive whose parts have a length that nobody gave, so that all workers end at about the same time.
const SHARES: u64 = 100;
/// Images of such a part at most.
const LONGEST: usize = 4096;

/// What was queued.
#[derive(Clone, Debug)]
pub struct Enqueued {
    /// What is computed.
    pub plan: Plan,
    /// The queue's name.
    pub name: String,
    /// Parts that are not there.
    pub missing: u64,
    /// Those of them that were not queued already.
    pub queued: u64,
    /// Images whose parts are there.
    pub done: u64,
}

/// Plans an archive as [`crate::run()`] does, and queues the chunks whose parts are not there; once more, those that are neither there nor queued.
///
/// # Errors
/// Those of [`crate::run()`] before it computes, and those of the server: [`Error::Broker`], [`Error::Refused`], [`Error::NoJetStream`],
/// [`Error::Taken`].
///
/// # Panics
/// If a plug-in is bound to another engine.
pub fn enqueue(
    predictor: &Predictor,
    settings: &Settings,
    inputs: &[Input],
    path: &Path,
    (broker, sharing, listener): (&Broker, &Sharing, Listener),
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Enqueued, Error> {
    plan_in(path)?;
    let folder = ArchiveFolder::open(path)?;
    folder.sweep()?;
    let stores = Stores::default();
    let unset = |names: &Path| chunk_for(predictor, settings, &stores, names);
    let draft = draft(predictor, settings, (inputs, &stores), &folder, &unset, stop, observer)?;
    let shared = Shared::new(&folder, sharing, any_relative(draft.names.path())?)?;
    let digest = draft.plan.digest();
    let owner = shared.owner(path, &digest);
    let queue = Queue::connect(broker, &shared.name, listener)?;
    queue.refuse_other(&owner)?;
    // Before the queue, which is this folder's by what stands there.
    shared.write(&folder)?;
    queue.create(&owner, Duration::from_secs(shared.ack_wait_s))?;
    let (plan, listed) = draft.keep(&folder)?;
    let missing: Vec<u64> = folder.missing(&plan)?.into_iter().collect();
    let done = plan.inputs - missing.iter().map(|&number| plan.inputs_of(number) as u64).sum::<u64>();
    observer(Event::Planned { listed: &listed, done });
    let failed: Vec<u64> = queue.noted::<crate::Failure>("failure")?.iter().map(|failure| failure.part).collect();
    queue.forget("failure", &failed)?;
    let queued = queue.put(&missing, &digest, &random()?)?;
    queue.close();
    Ok(Enqueued { name: shared.name, missing: missing.len() as u64, queued, done, plan })
}

/// Images of a part, by how fast this machine computes those that are named in a file.
fn chunk_for(predictor: &Predictor, settings: &Settings, stores: &Stores, names: &Path) -> Result<usize, Error> {
    let (images, count) = spread(names, MEASURED)?;
    let rate = rate(predictor, settings, stores, &images)?;
    let longest = LONGEST.min(usize::try_from(count / SHARES).unwrap_or(LONGEST));
    let chunk = ((rate * CHUNK_S) as usize).min(longest).max(BATCH);
    Ok(chunk - chunk % BATCH)
}
