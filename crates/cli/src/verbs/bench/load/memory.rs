//! The server's resident memory over time.

use crate::machine;
use serde::Serialize;

/// Samples of one process.
pub(crate) struct Memory {
    pid: Option<u32>,
    rss: Option<Rss>,
}

/// Resident bytes: the first sample after warm-up, and what came after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rss {
    first: u64,
    min: u64,
    max: u64,
    last: u64,
    samples: u32,
}

impl Memory {
    pub(crate) fn of(pid: Option<u32>) -> Self {
        Memory { pid, rss: None }
    }

    /// Looks once; a process that is gone adds nothing.
    pub(crate) fn sample(&mut self) {
        if let Some(bytes) = self.pid.and_then(|pid| machine::rss_bytes(Some(pid))) {
            self.add(bytes);
        }
    }

    fn add(&mut self, last: u64) {
        let Rss { first, min, max, samples, .. } =
            self.rss.unwrap_or(Rss { first: last, min: last, max: last, last, samples: 0 });
        self.rss = Some(Rss { first, min: min.min(last), max: max.max(last), last, samples: samples + 1 });
    }

    pub(crate) fn rss(&self) -> Option<Rss> {
        self.rss
    }

    /// A line for people, empty where nothing was seen.
    pub(crate) fn text(&self) -> String {
        let Some(Rss { first, min, max, last, .. }) = self.rss else {
            return String::new();
        };
        let percent = |bytes: u64| 100.0 * (bytes as f64 / first as f64 - 1.0);
        format!(
            "  memory {:.1} MB after warm-up, then {:+.2} % to {:+.2} %, {:+.2} % at the end\n",
            first as f64 / 1e6,
            percent(min),
            percent(max),
            percent(last)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_is_what_the_others_are_held_against() {
        let mut memory = Memory::of(None);
        memory.sample();
        assert_eq!((memory.rss(), memory.text()), (None, String::new()));
        [1000, 900, 1100, 1010].into_iter().for_each(|bytes| memory.add(bytes));
        assert_eq!(memory.rss(), Some(Rss { first: 1000, min: 900, max: 1100, last: 1010, samples: 4 }));
        assert!(memory.text().contains("-10.00 % to +10.00 %, +1.00 % at the end"), "{}", memory.text());
    }

    #[test]
    fn a_process_is_found_by_its_number() {
        let mut memory = Memory::of(Some(std::process::id()));
        memory.sample();
        assert!(memory.rss().is_none_or(|rss| rss.first > 1_000_000));
        assert_eq!(memory.rss().is_some(), cfg!(target_os = "linux"));
    }
}
