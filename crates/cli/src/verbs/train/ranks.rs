//! Trainings over MPI: who this process is among those of a launcher, and who of them speaks.

use crate::{Failure, advice, output};
use melo::mpi::{Choice, Launch, Mpi};
use melo::train::{Conclusion, Team, TeamError};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a process of another machine that cannot join waits for rank 0 to say the same, and for the launcher to end it.
const AFTER_RANK_0: Duration = Duration::from_secs(2);

/// With whom it is trained.
#[derive(Clone, Debug)]
pub(crate) enum MpiArg {
    Auto,
    Off,
    File(PathBuf),
}

impl MpiArg {
    pub(super) fn parse(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => MpiArg::Auto,
            "off" => MpiArg::Off,
            file => MpiArg::File(file.into()),
        })
    }
}

/// True where a launcher started this process as another rank than the first, which tells what is wrong with the arguments of all.
pub(crate) fn leaves_usage_to_rank_0(arguments: &[OsString]) -> bool {
    let trains = arguments.iter().any(|argument| argument == "train");
    trains && Launch::detect().is_some_and(|launch| launch.rank > 0)
}

/// The processes of the launcher that started this one, which from here on is silent unless it is rank 0; else this one alone.
pub(super) fn join(which: &MpiArg) -> Result<Arc<Team>, Failure> {
    let choice = match which {
        MpiArg::Off => return Ok(Team::alone()),
        MpiArg::Auto => Choice::Auto,
        MpiArg::File(file) => Choice::File(file.clone()),
    };
    let Some(launch) = Launch::detect() else { return Ok(Team::alone()) };
    match Mpi::join(&launch, &choice) {
        Ok(mpi) => {
            let team = Team::new(Box::new(mpi));
            output::silence(!team.leads());
            Ok(team)
        }
        Err(error) => {
            // A machine's processes have the same libraries.
            output::silence(launch.local > 0);
            if launch.rank > 0 {
                std::thread::sleep(AFTER_RANK_0);
            }
            Err(advice::failure(&error))
        }
    }
}

/// Threads of this rank: those that were asked for, 0 for one a core; ranks that may run on the same cores share them out.
pub(super) fn threads(team: &Team, asked: usize) -> Result<usize, Failure> {
    if team.size() == 1 {
        return Ok(asked);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap_or_default();
    let mine = format!("{} {cores}", team.host());
    let all = team.gather::<TeamError>("its cores", Ok(mine.clone().into_bytes()))?;
    let together = all.iter().filter(|other| **other == mine.as_bytes()).count();
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(if asked > 0 { asked } else { (here / together).max(1) })
}

/// `4 on 2 machines`; none of a process by itself.
pub(super) fn in_words(team: &Team) -> Result<Option<String>, Failure> {
    if team.is_alone() {
        return Ok(None);
    }
    let hosts = team.gather::<TeamError>("its machine", Ok(team.host().into_bytes()))?;
    Ok(Some(match hosts.iter().collect::<BTreeSet<_>>().len() {
        1 => format!("{} on {}", team.size(), team.host()),
        machines => format!("{} on {machines} machines", team.size()),
    }))
}

/// What a verb came to on all ranks; of several that failed one speaks.
pub(super) fn concluded(team: &Team, result: Result<(), Failure>) -> Result<(), Failure> {
    let failed = result.as_ref().err().map(|failure| failure.message().unwrap_or("told above").to_owned());
    match (team.conclude(failed.as_deref()), result) {
        (Conclusion::Done, result) => result,
        (Conclusion::Failed { .. }, Ok(())) => Err(Failure::Reported),
        (Conclusion::Failed { speaks }, Err(failure)) => {
            output::silence(!speaks);
            Err(match team.rank() {
                0 => failure,
                rank => failure.on(&format!("rank {rank} on {}", team.host())),
            })
        }
    }
}
