//! What the system says of this process, under the names that clients of Prometheus agree upon; on Linux alone, from `/proc` (proc(5)).

use super::grow;
use super::make::Make;
use prometheus::{Counter, IntGauge};

pub(super) struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
}

impl Process {
    /// None where there is no `/proc`.
    pub(super) fn new(make: &Make) -> Option<Self> {
        let found = Found::now()?;
        let process = Process {
            cpu: make.time("process_cpu_seconds_total", "Time on processors, of the user and the system"),
            resident: make.gauge("process_resident_memory_bytes", "Resident memory"),
            virtual_memory: make.gauge("process_virtual_memory_bytes", "Virtual memory"),
            open_fds: make.gauge("process_open_fds", "Open file descriptors"),
            max_fds: make.gauge("process_max_fds", "File descriptors that may be open"),
            threads: make.gauge("process_threads", "Threads"),
        };
        let started = make.real("process_start_time_seconds", "Start of the process, since 1970-01-01T00:00:00Z");
        started.set(found.started);
        process.show(&found);
        Some(process)
    }

    pub(super) fn look(&self) {
        if let Some(found) = Found::now() {
            self.show(&found);
        }
    }

    fn show(&self, found: &Found) {
        grow(&self.cpu, found.cpu);
        self.resident.set(found.resident);
        self.virtual_memory.set(found.virtual_memory);
        self.open_fds.set(found.open_fds);
        self.max_fds.set(found.max_fds);
        self.threads.set(found.threads);
    }
}

/// Seconds, bytes, numbers.
struct Found {
    cpu: f64,
    started: f64,
    resident: i64,
    virtual_memory: i64,
    open_fds: i64,
    max_fds: i64,
    threads: i64,
}

impl Found {
    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        use rustix::param::{clock_ticks_per_second, page_size};
        use rustix::process::{Resource, getrlimit};
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let stat = read("/proc/self/stat")?;
        // Behind the name, which may hold anything: field 3 of proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let seconds = |ticks: i64| ticks as f64 / clock_ticks_per_second() as f64;
        let booted =
            read("/proc/stat")?.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
        // Unlimited is said by the largest number, as others do.
        let most = getrlimit(Resource::Nofile).current.and_then(|most| i64::try_from(most).ok());
        Some(Found {
            cpu: seconds(field(14)? + field(15)?),
            started: booted + seconds(field(22)?),
            resident: field(24)? * i64::try_from(page_size()).ok()?,
            virtual_memory: field(23)?,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as i64,
            max_fds: most.unwrap_or(i64::MAX),
            threads: field(20)?,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}
