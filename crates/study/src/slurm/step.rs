//! What to do about a cell, from what Slurm and the study's folder say of it.

use super::commands::{Ended, Task};
use crate::state::CellState;
use std::time::Duration;

/// How long what one host wrote, or a scheduler took on, may stay unseen by another: NFS keeps for up to a minute that a file is not there.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// What is known of a cell.
pub(crate) struct Known<'a> {
    /// From its folder.
    pub(crate) state: &'a CellState,
    /// From Slurm; none where it does not know the task, or no longer.
    pub(crate) task: Option<&'a Task>,
    /// `JOB_TASK` of the task.
    pub(crate) name: Option<&'a str>,
    /// Since Slurm was first seen without a task that is active.
    pub(crate) quiet: Duration,
    /// True when this run of the study submitted it.
    pub(crate) is_ours: bool,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Read its result.
    Done,
    /// Wait for it, who is computed somewhere.
    Running,
    /// Wait for it, who is in the queue.
    Waiting,
    /// Take away the claim of its task, which has ended, and ask again.
    Revoke,
    /// It failed, and was not lost.
    Failed(String),
    /// Its task ended without a word.
    Lost(String),
}

pub(crate) fn step(known: &Known<'_>) -> Step {
    let Known { state, task, name, quiet, is_ours } = *known;
    let is_active = matches!(task, Some(Task::Waiting(_) | Task::Running(_)));
    match state {
        CellState::Done => return Step::Done,
        CellState::Running(holder) if !is_active && holder.job.is_some() && holder.job.as_deref() == name => {
            // Without a word from Slurm its claim may be all that is seen of a task.
            return if task.is_some() || quiet >= SETTLE { Step::Revoke } else { Step::Running };
        }
        CellState::Running(_) => return Step::Running,
        CellState::Failed(failure) if is_ours && !is_active => return Step::Failed(failure.reason.clone()),
        CellState::Failed(_) | CellState::Waiting => {}
    }
    match task {
        Some(Task::Running(_)) => Step::Running,
        Some(Task::Waiting(_)) => Step::Waiting,
        Some(Task::Ended { how: Ended::Well, .. }) if is_ours && quiet < SETTLE => Step::Running,
        Some(Task::Ended { how: Ended::Well, .. }) if is_ours => {
            Step::Failed("its task ended well without a result".to_owned())
        }
        Some(Task::Ended { how: Ended::Cancelled, said }) if is_ours => Step::Failed(said.clone()),
        Some(Task::Ended { said, .. }) => Step::Lost(said.clone()),
        None if is_ours && quiet < SETTLE => Step::Waiting,
        None => Step::Lost("Slurm does not know its task any more".to_owned()),
    }
}

/// How many cells to submit now, of `due`, with `active` in the queue: never more at work than `jobs`, and no array longer than Slurm
/// takes by default (`MaxArraySize`, slurm.conf(5)).
pub(crate) fn room(due: usize, active: usize, jobs: Option<usize>) -> usize {
    const ARRAY: usize = 1000;
    let free = match (active, jobs) {
        // The array's own limit holds.
        (0, _) | (_, None) => ARRAY.saturating_sub(active),
        (active, Some(jobs)) => jobs.saturating_sub(active),
    };
    due.min(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell_result::CellFailure;
    use crate::claim::Holder;

    fn of(state: &CellState, task: Option<&Task>, quiet_s: u64, is_ours: bool) -> Step {
        step(&Known { state, task, name: Some("12_3"), quiet: Duration::from_secs(quiet_s), is_ours })
    }

    fn held_by(job: Option<&str>) -> CellState {
        let job = job.map(str::to_owned);
        CellState::Running(Holder { token: "1".into(), host: "node7".into(), system: None, pid: 1, job })
    }

    fn ended(how: Ended) -> Task {
        Task::Ended { how, said: "NODE_FAIL on n1".into() }
    }

    #[test]
    fn a_result_is_the_end_whatever_slurm_says() {
        assert_eq!(of(&CellState::Done, Some(&Task::Running("n1".into())), 0, true), Step::Done);
        assert_eq!(of(&CellState::Done, None, 0, false), Step::Done);
    }

    #[test]
    fn a_task_that_died_loses_its_claim_and_is_lost() {
        let died = ended(Ended::Otherwise);
        assert_eq!(of(&held_by(Some("12_3")), Some(&died), 0, true), Step::Revoke);
        assert_eq!(of(&CellState::Waiting, Some(&died), 0, true), Step::Lost("NODE_FAIL on n1".into()));
    }

    #[test]
    fn somebody_elses_claim_is_waited_for() {
        let died = ended(Ended::Otherwise);
        for job in [None, Some("12_4"), Some("9_3")] {
            assert_eq!(of(&held_by(job), Some(&died), 0, true), Step::Running);
        }
    }

    #[test]
    fn words_of_the_cell_go_before_those_of_slurm() {
        let failed = CellState::Failed(CellFailure { reason: "no image".into(), host: "n1".into(), job: None });
        assert_eq!(of(&failed, Some(&ended(Ended::Otherwise)), 0, true), Step::Failed("no image".into()));
        // Those of an earlier run: it is tried again.
        assert_eq!(of(&failed, Some(&ended(Ended::Otherwise)), 0, false), Step::Lost("NODE_FAIL on n1".into()));
        assert_eq!(of(&failed, Some(&Task::Waiting("Priority".into())), 0, false), Step::Waiting);
    }

    #[test]
    fn what_was_cancelled_is_not_submitted_again_by_itself() {
        let cancelled = ended(Ended::Cancelled);
        assert!(matches!(of(&CellState::Waiting, Some(&cancelled), 0, true), Step::Failed(_)));
        assert!(matches!(of(&CellState::Waiting, Some(&cancelled), 0, false), Step::Lost(_)));
    }

    #[test]
    fn files_and_queues_may_be_late() {
        let well = ended(Ended::Well);
        assert_eq!(of(&CellState::Waiting, Some(&well), 59, true), Step::Running);
        assert!(matches!(of(&CellState::Waiting, Some(&well), 60, true), Step::Failed(_)));
        assert_eq!(of(&CellState::Waiting, None, 59, true), Step::Waiting);
        assert!(matches!(of(&CellState::Waiting, None, 60, true), Step::Lost(_)));
        assert_eq!(of(&held_by(Some("12_3")), None, 59, true), Step::Running);
        assert_eq!(of(&held_by(Some("12_3")), None, 60, true), Step::Revoke);
    }

    #[test]
    fn never_more_are_at_work_than_was_said() {
        assert_eq!([room(8, 0, None), room(8, 5, None), room(2500, 0, None), room(2500, 990, None)], [8, 8, 1000, 10]);
        // The first array holds the limit itself, later ones fill what is free.
        assert_eq!([room(8, 0, Some(3)), room(8, 2, Some(3)), room(8, 3, Some(3)), room(8, 9, Some(3))], [8, 1, 0, 0]);
    }
}
