//! Which library is loaded, and of which kind it is.

use crate::Choice;
use crate::calls::{self, Calls, Kind};
use crate::error::Error;
use crate::launch::{Launch, Launcher};
use std::path::Path;

/// Names of Open MPI's library.
const OPEN_MPI: [&str; 3] = ["libmpi.so.40", "libmpi.so", "libmpi.dylib"];
/// Names of those with MPICH's binary interface.
const MPICH: [&str; 5] = ["libmpich.so.12", "libmpi.so.12", "libmpich.so", "libmpi.so", "libmpi.dylib"];

/// The library that is asked for, or the first that fits the launcher.
pub(crate) fn open(launch: &Launch, choice: &Choice) -> Result<Box<dyn Calls>, Error> {
    if let Choice::File(path) = choice {
        return Ok(calls::open(path)?.1);
    }
    let of = |names: &'static [&'static str], kind| names.iter().map(move |name| (*name, kind));
    let (open_mpi, mpich) = (of(&OPEN_MPI, Kind::OpenMpi), of(&MPICH, Kind::Mpich));
    let names: Vec<(&str, Kind)> = match launch.launcher {
        Launcher::OpenMpi => open_mpi.collect(),
        Launcher::Mpich => mpich.collect(),
        Launcher::Either => open_mpi.chain(mpich).collect(),
    };
    for (name, kind) in &names {
        match calls::open(Path::new(name)) {
            Ok((found, calls)) if found == *kind => return Ok(calls),
            _ => {}
        }
    }
    let tried = names.iter().map(|(name, _)| (*name).to_owned()).collect();
    Err(Error::NoLibrary { launch: launch.clone(), tried })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn failure(path: &str) -> String {
        let launch =
            Launch { launcher: Launcher::OpenMpi, variable: "OMPI_COMM_WORLD_SIZE", rank: 0, local: 0, size: Some(2) };
        open(&launch, &Choice::File(PathBuf::from(path))).expect_err("no MPI").to_string()
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert!(failure("/nowhere/libmpi.so").starts_with("/nowhere/libmpi.so: "), "{}", failure("/nowhere/libmpi.so"));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn a_library_of_something_else_is_refused() {
        let message = failure("libm.so.6");
        assert!(message.contains("not an MPI library") && message.contains("MPI_"), "{message}");
    }
}
