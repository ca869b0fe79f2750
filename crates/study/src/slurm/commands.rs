//! Slurm's own commands, and what they print.

use crate::error::Error;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// What Slurm knows of a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Task {
    /// It waits, and why.
    Waiting(String),
    /// On a node.
    Running(String),
    /// It has ended, and how.
    Ended { how: Ended, said: String },
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ended {
    /// With status 0.
    Well,
    /// Somebody cancelled it.
    Cancelled,
    /// Its node, its limits, a signal, or its own status.
    Otherwise,
}

/// Tasks by the array's name and their number, and jobs by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    tasks: HashMap<(String, usize), Task>,
    jobs: HashMap<String, String>,
}

impl Queue {
    /// A task of an array; none where Slurm does not know it, or no longer.
    pub(crate) fn task(&self, name: &str, task: usize) -> Option<&Task> {
        self.tasks.get(&(name.to_owned(), task))
    }

    /// The job of an array.
    pub(crate) fn job(&self, name: &str) -> Option<&str> {
        self.jobs.get(name).map(String::as_str)
    }

    /// Lines `JOB_TASK|STATE|REASON|NODES|NAME`.
    fn parse(said: &str) -> Queue {
        let mut queue = Queue::default();
        for line in said.lines() {
            let mut fields = line.splitn(5, '|').map(str::trim);
            let mut next = || fields.next().unwrap_or_default();
            let (id, state, reason, nodes, name) = (next(), next(), next(), next(), next());
            let Some((job, task)) = id.split_once('_') else { continue };
            let Ok(number) = task.parse() else { continue };
            queue.jobs.insert(name.to_owned(), job.to_owned());
            queue.tasks.insert((name.to_owned(), number), task_of(state, reason, nodes));
        }
        queue
    }
}

/// States of squeue(1), section JOB STATE CODES.
fn task_of(state: &str, reason: &str, nodes: &str) -> Task {
    let how = match state {
        "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => {
            return Task::Waiting(reason.to_owned());
        }
        "COMPLETED" => Ended::Well,
        "CANCELLED" => Ended::Cancelled,
        "FAILED" | "TIMEOUT" | "NODE_FAIL" | "PREEMPTED" | "BOOT_FAIL" | "DEADLINE" | "OUT_OF_MEMORY" | "REVOKED" => {
            Ended::Otherwise
        }
        _ => return Task::Running(nodes.to_owned()),
    };
    let reason = if ["", "None"].contains(&reason) { String::new() } else { format!(" ({reason})") };
    let place = if nodes.is_empty() { String::new() } else { format!(" on {nodes}") };
    Task::Ended { how, said: format!("{state}{reason}{place}") }
}

/// Submits a script; the job's number.
///
/// # Errors
/// [`Error::NoSlurm`], [`Error::Slurm`] with what sbatch said.
pub(crate) fn sbatch(name: &str, script: &Path) -> Result<String, Error> {
    let mut command = Command::new("sbatch");
    // A script from a template may set a name after the study's own.
    command.args(["--parsable", "--job-name", name]).arg(script);
    // Settings of a user for all jobs are welcome, but for those by which an array is known.
    for variable in ["SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_OUTPUT", "SBATCH_ERROR", "SBATCH_WAIT"] {
        command.env_remove(variable);
    }
    let said = call(command)?;
    let job: String = said.trim().chars().take_while(char::is_ascii_digit).collect();
    match job.is_empty() {
        true => Err(Error::Slurm { command: "sbatch", said: format!("no number of a job: {:?}", said.trim()) }),
        false => Ok(job),
    }
}

/// All tasks of arrays of these names that Slurm knows, those that ended some minutes ago among them.
///
/// # Errors
/// As [`sbatch`].
pub(crate) fn squeue(names: &[&str]) -> Result<Queue, Error> {
    let mut command = Command::new("squeue");
    command.args(["--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N|%j"]);
    command.arg(format!("--name={}", names.join(",")));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SQUEUE_")) {
        command.env_remove(variable);
    }
    Ok(Queue::parse(&call(command)?))
}

/// How a task ended, where a cluster keeps accounts.
pub(crate) fn sacct(job: &str, task: usize) -> Option<Task> {
    let mut command = Command::new("sacct");
    command.args(["--noheader", "--parsable2", "--allocations", "--format=State,NodeList"]);
    command.arg(format!("--jobs={job}_{task}"));
    let said = call(command).ok()?;
    let (state, nodes) = said.lines().last()?.split_once('|')?;
    // `CANCELLED by 1000`.
    Some(task_of(state.split_whitespace().next()?, "", nodes.trim()))
}

fn call(mut command: Command) -> Result<String, Error> {
    let name = match command.get_program().to_str() {
        Some("sbatch") => "sbatch",
        Some("squeue") => "squeue",
        _ => "sacct",
    };
    // Ctrl-C is for the study: a submission is not cut short.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let output = command.env("LC_ALL", "C").output().map_err(|source| Error::NoSlurm { command: name, source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said = if lines.is_empty() { output.status.to_string() } else { lines.join("; ") };
        return Err(Error::Slurm { command: name, said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_read_as_slurm_prints_it() {
        let queue = Queue::parse(
            "13_3|PENDING|JobArrayTaskLimit||melo-a-1\n13_2|RUNNING|None|vm|melo-a-1\n13_1|CANCELLED|None|vm|melo-a-1\n\
             14_1|FAILED|NonZeroExitCode|n[1-2]|melo-b-2\n14_2|COMPLETED|None|vm|melo-b-2\nCLUSTER: other\n15|RUNNING|None|vm|x\n",
        );
        assert_eq!(queue.task("melo-a-1", 3), Some(&Task::Waiting("JobArrayTaskLimit".into())));
        assert_eq!(queue.task("melo-a-1", 2), Some(&Task::Running("vm".into())));
        assert_eq!(
            queue.task("melo-a-1", 1),
            Some(&Task::Ended { how: Ended::Cancelled, said: "CANCELLED on vm".into() })
        );
        let said = "FAILED (NonZeroExitCode) on n[1-2]".to_owned();
        assert_eq!(queue.task("melo-b-2", 1), Some(&Task::Ended { how: Ended::Otherwise, said }));
        assert_eq!(queue.task("melo-b-2", 2), Some(&Task::Ended { how: Ended::Well, said: "COMPLETED on vm".into() }));
        assert_eq!((queue.task("melo-b-2", 3), queue.job("melo-b-2"), queue.job("x")), (None, Some("14"), None));
    }
}
