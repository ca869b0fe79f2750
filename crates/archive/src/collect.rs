//! The end of a queued archive: the manifest, and no queue any more.

use crate::broker::Broker;
use crate::check::finish;
use crate::error::Error;
use crate::folder::{ArchiveFolder, QUEUE, part_name};
use crate::queue::{Listener, Queue};
use crate::run::Finished;
use crate::shared::{Failure, joined};
use std::collections::BTreeSet;
use std::path::Path;

/// Reads every part, writes the manifest as [`crate::run()`] does at its end, and removes the queue.
///
/// # Errors
/// [`Error::Incomplete`], [`Error::Damaged`], [`Error::NotQueued`], those of the server.
pub fn collect(path: &Path, broker: &Broker, listener: Listener) -> Result<Finished, Error> {
    let (plan, shared) = joined(path)?;
    let folder = ArchiveFolder::open(path)?;
    let digest = plan.digest();
    let queue = Queue::connect(broker, &shared.name, listener)?;
    let is_there = queue.refuse_other(&shared.owner(path, &digest))?;
    let missing = folder.missing(&plan)?;
    if !missing.is_empty() {
        let mut failures = if is_there { queue.noted::<Failure>("failure")? } else { Vec::new() };
        failures.retain(|failure| failure.given_up && missing.contains(&failure.part));
        failures.sort_by_key(|failure| failure.part);
        let named = |failure: &Failure| format!("{}: {}", part_name(failure.part, &digest), failure.reason);
        let failures = failures.iter().map(named).collect();
        return Err(Error::Incomplete {
            folder: path.to_owned(),
            missing: missing.len() as u64,
            of: plan.chunks(),
            failures,
        });
    }
    let manifest = finish(&folder, &plan, &BTreeSet::new())?;
    if is_there {
        queue.delete()?;
    }
    let file = folder.at(QUEUE);
    std::fs::remove_file(&file).map_err(Error::io(&file))?;
    folder.sweep()?;
    Ok(Finished { resumed: plan.inputs, plan, manifest })
}
