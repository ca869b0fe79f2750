//! Who started this process together with others.

use std::fmt;

/// What kind of library a launcher speaks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH and its kin, by PMI.
    Mpich,
    /// Slurm or another one, for either kind.
    Either,
}

/// How a process was started together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// By whom.
    pub launcher: Launcher,
    /// The variable that says so.
    pub variable: &'static str,
    /// Which rank it is.
    pub rank: usize,
    /// Which of those on its machine; its rank where that is not said.
    pub local: usize,
    /// Of how many, where that is said.
    pub size: Option<usize>,
}

/// Where launchers say which of a machine's processes one is: Open MPI, MPICH and Intel MPI, Slurm.
const LOCAL: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];

impl Launch {
    /// Of this process; none where it was started by itself.
    pub fn detect() -> Option<Self> {
        Launch::of(&|name| std::env::var(name).ok())
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        let local = LOCAL.iter().find_map(|name| number(name));
        let launch =
            |launcher, variable, rank, size| Launch { launcher, variable, rank, local: local.unwrap_or(rank), size };
        if let (Some(size), Some(rank)) = (number("OMPI_COMM_WORLD_SIZE"), number("OMPI_COMM_WORLD_RANK")) {
            return Some(launch(Launcher::OpenMpi, "OMPI_COMM_WORLD_SIZE", rank, Some(size)));
        }
        if let (Some(size), Some(rank)) = (number("PMI_SIZE"), number("PMI_RANK")) {
            return Some(launch(Launcher::Mpich, "PMI_SIZE", rank, Some(size)));
        }
        // Of a step, not of an allocation: a batch script is no rank of what it may start.
        let of_slurm = number("SLURM_STEP_NUM_TASKS");
        if let Some(rank) = number("PMIX_RANK") {
            return Some(launch(Launcher::Either, "PMIX_RANK", rank, of_slurm));
        }
        match (of_slurm, number("SLURM_PROCID")) {
            (Some(size), Some(rank)) if size > 1 => {
                Some(launch(Launcher::Either, "SLURM_STEP_NUM_TASKS", rank, Some(size)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(f, "rank {} of {size} ({})", self.rank, self.variable),
            None => write!(f, "rank {} ({})", self.rank, self.variable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Launch> {
        Launch::of(&|name| variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn launchers_are_told_by_what_they_set() {
        let open = of(&[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "1"), ("PMIX_RANK", "1")]);
        assert_eq!(open.map(|launch| launch.to_string()), Some("rank 1 of 4 (OMPI_COMM_WORLD_SIZE)".to_owned()));
        let hydra = of(&[("PMI_SIZE", "6"), ("PMI_RANK", "4"), ("MPI_LOCALRANKID", "1")]);
        let found = hydra.map(|launch| (launch.launcher, launch.rank, launch.local, launch.size));
        assert_eq!(found, Some((Launcher::Mpich, 4, 1, Some(6))));
        let slurm = [("SLURM_STEP_NUM_TASKS", "3"), ("SLURM_PROCID", "2")];
        assert_eq!(of(&slurm).map(|launch| (launch.rank, launch.size)), Some((2, Some(3))));
        let pmix = of(&[slurm[0], slurm[1], ("PMIX_RANK", "2")]);
        assert_eq!(pmix.map(|launch| (launch.variable, launch.size)), Some(("PMIX_RANK", Some(3))));
    }

    #[test]
    fn a_process_by_itself_has_no_launcher() {
        assert_eq!(of(&[]), None);
        // In a batch script, and as a step of one task.
        assert_eq!(of(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")]), None);
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PROCID", "0")]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "many"), ("OMPI_COMM_WORLD_RANK", "1")]), None);
    }
}
