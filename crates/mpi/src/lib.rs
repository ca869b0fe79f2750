//! Ranks of a training over MPI.
//!
//! The library is loaded when it is needed, so that one program serves Open MPI and what has the binary interface of MPICH (Intel MPI,
//! MVAPICH, Cray), and nothing is needed to build it. That a process is one of several is told by the environment that launchers give it.
//!
//! ```text
//! environment -> Launch: by whom, which rank of how many -> library of that kind -> MPI_Init_thread -> Transport
//! ```

mod calls;
mod error;
mod launch;
mod library;

pub use error::Error;
pub use launch::{Launch, Launcher};

use calls::Calls;
use melo_train::{TeamError, Transport};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a call at most: they are counted in 32 bits.
const CALL_BYTES: usize = 1 << 30;

/// Which library is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that fits the launcher.
    #[default]
    Auto,
    /// This file.
    File(PathBuf),
}

/// All processes that a launcher started, as one of them.
#[derive(Debug)]
pub struct Mpi {
    calls: Mutex<Box<dyn Calls>>,
    rank: usize,
    size: usize,
    host: String,
}

impl Mpi {
    /// Joins the other processes of a launch. To be called once in a process.
    ///
    /// # Errors
    /// Every cause by its name, see [`Error`].
    pub fn join(launch: &Launch, choice: &Choice) -> Result<Self, Error> {
        let calls = library::open(launch, choice)?;
        let (rank, size, host) = calls.init()?;
        let mpi = Mpi { calls: Mutex::new(calls), rank, size, host };
        match launch.size {
            Some(expected) if expected != size => {
                let library = mpi.calls().version();
                Err(Error::Apart { launch: launch.clone(), library, size })
            }
            _ => Ok(mpi),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Box<dyn Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All processes end together; those of one that panics are ended.
impl Drop for Mpi {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => self.calls().abort(),
            false => self.calls().finalize(),
        }
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn host(&self) -> String {
        self.host.clone()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, TeamError> {
        let calls = self.calls();
        let lengths = calls.all_gather(&(mine.len() as u64).to_le_bytes(), &vec![8; self.size])?;
        let lengths = lengths.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        let lengths: Vec<usize> = lengths.map(|length| length as usize).collect();
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|&length| Vec::with_capacity(length)).collect();
        let (most, part) = (lengths.iter().copied().max().unwrap_or(0), CALL_BYTES / self.size);
        for start in (0..most).step_by(part) {
            let of = |length: usize| start.min(length)..(start + part).min(length);
            let lengths: Vec<usize> = lengths.iter().map(|&length| of(length).len()).collect();
            let bytes = calls.all_gather(&mine[of(mine.len())], &lengths)?;
            let mut bytes = &bytes[..];
            for (of_rank, length) in all.iter_mut().zip(lengths) {
                let (taken, rest) = bytes.split_at(length);
                of_rank.extend(taken);
                bytes = rest;
            }
        }
        Ok(all)
    }

    fn send(&self, to: usize, values: &[f32]) -> Result<(), TeamError> {
        let calls = self.calls();
        Ok(values.chunks(CALL_BYTES / 4).try_for_each(|values| calls.send(to, values))?)
    }

    fn receive(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError> {
        let calls = self.calls();
        Ok(values.chunks_mut(CALL_BYTES / 4).try_for_each(|values| calls.receive(from, values))?)
    }

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError> {
        let calls = self.calls();
        Ok(values.chunks_mut(CALL_BYTES / 4).try_for_each(|values| calls.broadcast(from, values))?)
    }
}
