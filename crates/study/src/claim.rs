//! Claims on a cell or a study that hold on a file system of several hosts: a file that one process makes, by a rename that never
//! replaces, and writes again as long as it lives. Locks of the system are asked on the holder's own host alone.
//!
//! A claim is stale where its holder
//! - lived on this host, and no longer holds the lock on the file;
//! - was an earlier start of the same job, which the scheduler started again;
//! - gave no sign of life for [`STALE_AFTER`], by the clock of the file system.
//!
//! Two holders of one cell are harmless: their results are the same bytes and renamed into place, and states of a training belong to a
//! claim. Whoever lost the claim notices at the next epoch.

use crate::cell_result::CellFailure;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a holder gives a sign of life.
const BEAT: Duration = Duration::from_secs(15);

/// Without a sign of life for so long a holder counts as gone: NFS shows a change of a file that is opened at once, and a server may
/// be away for a minute.
pub const STALE_AFTER: Duration = Duration::from_secs(120);

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Different for every claim.
    pub(crate) token: String,
    /// Name of the host.
    pub host: String,
    /// Its start and space of processes, where the system tells: two hosts may have one name.
    pub(crate) system: Option<String>,
    /// Process on it.
    pub pid: u32,
    /// Task of an array of Slurm, `JOB_TASK`.
    pub job: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        self.job.as_ref().map_or(Ok(()), |job| write!(f, ", job {job}"))
    }
}

impl Holder {
    fn here() -> Self {
        static HOST: LazyLock<String> = LazyLock::new(host);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pid = std::process::id();
        Holder {
            token: format!("{:x}-{pid:x}", now.as_nanos()),
            host: HOST.clone(),
            system: system(),
            pid,
            job: job_here(),
        }
    }

    fn is_of_this_system(&self) -> bool {
        let here = Holder::here();
        (&self.host, &self.system) == (&here.host, &here.system)
    }
}

fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = kernel.or_else(|_| {
        let said = Command::new("hostname").output()?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&said.stdout).into_owned())
    });
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

fn system() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let processes = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), processes.display()))
}

/// The task of an array that this process is.
fn job_here() -> Option<String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(format!("{}_{}", of("SLURM_ARRAY_JOB_ID")?, of("SLURM_ARRAY_TASK_ID")?))
}

/// Held while a process works; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    holder: Holder,
    beat: Option<(Sender<()>, std::thread::JoinHandle<()>)>,
}

/// A claim as others see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// None where the file is not of this program.
    pub holder: Option<Holder>,
    /// Since the last sign of life.
    pub age: Duration,
    /// False where it is stale.
    pub is_live: bool,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{holder}")?,
            None => f.write_str("a file that is no claim")?,
        }
        let (age, bound) = (self.age.as_secs(), STALE_AFTER.as_secs());
        write!(f, ", seen {age} s ago; after {bound} s it counts as gone")
    }
}

impl Claim {
    /// Takes the claim at this path, from nobody or from who is gone; or tells who has it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn take(path: &Path) -> std::result::Result<std::result::Result<Claim, Box<Seen>>, Error> {
        Claim::try_take(path).map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    fn try_take(path: &Path) -> Result<std::result::Result<Claim, Box<Seen>>> {
        let holder = Holder::here();
        let bytes = serde_json::to_vec(&holder).expect("a holder is plain data");
        loop {
            let mut file = temporary(path)?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            // Before others can see it. Where a file system knows no locks, signs of life decide.
            let _ = lock(file.as_file());
            let now = file.as_file().metadata()?.modified()?;
            let error = match file.persist_noclobber(path) {
                Ok(file) => return Ok(Ok(Claim::held(path, holder, file, bytes))),
                Err(error) => error,
            };
            if error.error.kind() != ErrorKind::AlreadyExists {
                return Err(error.error);
            }
            let Some((seen, _lock)) = look_at(path, now)? else { continue };
            match &seen.holder {
                // NFS may have lost the answer to a link that was made.
                Some(found) if found.token == holder.token => {
                    let file = error.file.into_file();
                    return Ok(Ok(Claim::held(path, holder, file, bytes)));
                }
                found => {
                    let earlier_start = holder.job.is_some() && found.as_ref().is_some_and(|f| f.job == holder.job);
                    let elsewhere = found.as_ref().is_some_and(|found| !found.is_of_this_system());
                    if seen.is_live && !(earlier_start && elsewhere) {
                        return Ok(Err(Box::new(seen)));
                    }
                    put_away(path, seen.holder.as_ref())?;
                }
            }
        }
    }

    fn held(path: &Path, holder: Holder, mut file: File, bytes: Vec<u8>) -> Claim {
        let (sender, receiver) = channel();
        let beat = std::thread::spawn(move || {
            while receiver.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // The same bytes in the same file: it ages anew, and a claim that took this one's place is left alone.
                let _ =
                    file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes)).and_then(|()| file.sync_all());
            }
        });
        Claim { path: path.to_owned(), holder, beat: Some((sender, beat)) }
    }

    /// Different for every claim.
    pub(crate) fn token(&self) -> &str {
        &self.holder.token
    }

    /// Why its holder failed.
    pub(crate) fn failure(&self, reason: String) -> CellFailure {
        CellFailure { reason, host: self.holder.host.clone(), job: self.holder.job.clone() }
    }

    /// False where another process took it over.
    pub(crate) fn is_held(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|bytes| parse(&bytes).as_ref() == Some(&self.holder))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_held() {
            // What cannot be removed ages.
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some((sender, beat)) = self.beat.take() {
            drop(sender);
            let _ = beat.join();
        }
    }
}

/// The claim at a path; none where nobody holds it. `now` is of [`file_system_now`].
pub(crate) fn look(path: &Path, now: SystemTime) -> std::result::Result<Option<Seen>, Error> {
    let seen = look_at(path, now).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    Ok(seen.map(|(seen, _)| seen))
}

/// Takes away the claim of a job that its scheduler knows to have ended.
pub(crate) fn revoke(path: &Path, holder: &Holder) -> std::result::Result<(), Error> {
    put_away(path, Some(holder)).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The time by the clock that ages claims in this folder.
pub(crate) fn file_system_now(folder: &Path) -> SystemTime {
    let probe = temporary(&folder.join("now")).and_then(|file| file.as_file().metadata()?.modified());
    probe.unwrap_or_else(|_| SystemTime::now())
}

fn temporary(path: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".melo-");
    // Colleagues may go on with a study: what the user's umask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(melo_vit::folder_of(path))
}

fn parse(bytes: &[u8]) -> Option<Holder> {
    serde_json::from_slice(bytes).ok()
}

/// What stands at a path, and the file, locked where its holder of this host is gone.
fn look_at(path: &Path, now: SystemTime) -> Result<Option<(Seen, File)>> {
    let writable = File::options().read(true).write(true).open(path);
    let opened = writable.or_else(|error| match error.kind() {
        ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    });
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(1 << 16).read_to_end(&mut bytes)?;
    let holder = parse(&bytes);
    let age = now.duration_since(file.metadata()?.modified()?).unwrap_or_default();
    let is_live = match holder.as_ref().filter(|holder| holder.is_of_this_system()) {
        Some(holder) => lives(holder, &file).unwrap_or(age <= STALE_AFTER),
        None => age <= STALE_AFTER,
    };
    Ok(Some((Seen { holder, age, is_live }, file)))
}

/// Whether a holder of this host lives; none where the system does not tell.
fn lives(holder: &Holder, file: &File) -> Option<bool> {
    match lock(file) {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => {
            let processes = Path::new("/proc");
            processes.join("self").exists().then(|| processes.join(holder.pid.to_string()).exists())
        }
    }
}

/// The system's lock, where it keeps nobody from reading.
fn lock(file: &File) -> std::result::Result<(), TryLockError> {
    match cfg!(windows) {
        true => Err(TryLockError::Error(ErrorKind::Unsupported.into())),
        false => file.try_lock(),
    }
}

/// Removes a claim that was found stale, and no other that took its place meanwhile.
fn put_away(path: &Path, stale: Option<&Holder>) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_file_name(format!(".melo-{}-{number}", Holder::here().token));
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let moved = std::fs::read(&aside).ok().and_then(|bytes| parse(&bytes));
    if moved.as_ref() != stale {
        // It fails where yet another took the place, who then goes on.
        let _ = std::fs::hard_link(&aside, path);
    }
    std::fs::remove_file(&aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(path: &Path, change: impl FnOnce(&mut Holder)) -> Holder {
        let mut holder = Holder::here();
        change(&mut holder);
        std::fs::write(path, serde_json::to_vec(&holder).unwrap()).unwrap();
        holder
    }

    fn aged(path: &Path, age: Duration) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn one_of_many_gets_it_and_gives_it_back() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("cell.claim");
        let taken: Vec<_> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..16).map(|_| scope.spawn(|| Claim::take(&path).unwrap())).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).collect()
        });
        let (held, refused): (Vec<_>, Vec<_>) = taken.into_iter().partition(|taken| taken.is_ok());
        assert_eq!((held.len(), refused.len()), (1, 15));
        for seen in refused {
            let seen = seen.unwrap_err();
            assert_eq!((seen.is_live, seen.holder.unwrap().pid), (true, std::process::id()));
        }
        drop(held);
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn the_claim_of_a_dead_process_of_this_host_is_taken_over() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("cell.claim");
        held_by(&path, |holder| holder.pid = u32::MAX);
        assert!(!look(&path, SystemTime::now()).unwrap().unwrap().is_live);
        let claim = Claim::take(&path).unwrap().unwrap();
        assert!(claim.is_held() && look(&path, SystemTime::now()).unwrap().unwrap().is_live);
    }

    #[test]
    fn the_claim_of_another_host_holds_until_it_is_too_old() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("cell.claim");
        held_by(&path, |holder| (holder.host, holder.job) = ("node7".into(), Some("12_3".into())));
        aged(&path, STALE_AFTER / 2 + Duration::from_secs(5));
        let seen = Claim::take(&path).unwrap().unwrap_err();
        let said = seen.to_string();
        assert!(
            said.contains("on node7, job 12_3, seen 6") && said.contains("after 120 s it counts as gone"),
            "{said}"
        );
        aged(&path, STALE_AFTER * 2);
        assert!(Claim::take(&path).unwrap().is_ok());
    }

    #[test]
    fn what_is_no_claim_ages_too() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("cell.claim");
        std::fs::write(&path, "half a").unwrap();
        assert_eq!(Claim::take(&path).unwrap().unwrap_err().holder, None);
        aged(&path, STALE_AFTER * 2);
        assert!(Claim::take(&path).unwrap().is_ok());
    }

    #[test]
    fn who_was_taken_over_notices_and_leaves_the_other_alone() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("cell.claim");
        let first = Claim::take(&path).unwrap().unwrap();
        revoke(&path, &first.holder).unwrap();
        let second = Claim::take(&path).unwrap().unwrap();
        assert!(!first.is_held() && second.is_held());
        drop(first);
        assert!(second.is_held());
    }

    #[test]
    fn a_claim_that_took_the_place_of_a_stale_one_is_not_put_away() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("cell.claim");
        let stale = held_by(&path, |holder| holder.host = "node7".into());
        std::fs::remove_file(&path).unwrap();
        let claim = Claim::take(&path).unwrap().unwrap();
        revoke(&path, &stale).unwrap();
        assert!(claim.is_held());
        drop(claim);
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0, "nothing is left");
    }
}
