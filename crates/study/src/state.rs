//! How far the cells of a study are, as its folder tells.

use crate::cell_result::CellFailure;
use crate::claim::{Holder, file_system_now, look};
use crate::error::Error;
use crate::plan::{Cell, Plan};
use crate::store::{CellFolder, StudyFolder};
use std::time::SystemTime;

/// How far a cell is.
#[derive(Clone, Debug, PartialEq)]
pub enum CellState {
    /// It has a result.
    Done,
    /// A process computes it.
    Running(Holder),
    /// It could not be computed when it was last tried.
    Failed(CellFailure),
    /// Nobody computes it now.
    Waiting,
}

impl StudyFolder {
    /// How far every cell of a plan is, and how many epochs of those in work are saved. Results are not read.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn states(&self, plan: &Plan) -> Result<Vec<(Cell, CellState, usize)>, Error> {
        let now = self.now();
        let of = |cell: Cell| {
            let folder = self.cell(&plan.cell_name(&cell));
            let state = folder.state(now)?;
            let epochs = if state == CellState::Done { 0 } else { folder.epochs().len() };
            Ok((cell, state, epochs))
        };
        plan.cells().into_iter().map(of).collect()
    }

    /// The time by which the ages of claims in this folder are known.
    pub(crate) fn now(&self) -> SystemTime {
        file_system_now(self.path())
    }
}

impl CellFolder {
    /// How far the cell is; `now` is of [`StudyFolder::now`].
    pub(crate) fn state(&self, now: SystemTime) -> Result<CellState, Error> {
        if self.is_done() {
            return Ok(CellState::Done);
        }
        if let Some(holder) = look(&self.claim_file(), now)?.filter(|seen| seen.is_live).and_then(|seen| seen.holder) {
            return Ok(CellState::Running(holder));
        }
        Ok(self.failure()?.map_or(CellState::Waiting, CellState::Failed))
    }
}
