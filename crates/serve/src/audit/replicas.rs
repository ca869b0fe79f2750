//! Audits of several replicas: each is a chain of its own, and says in the rows of its starts whose it is.

use super::checkpoint::Checkpoint;
use super::file::{failed, read};
use super::record::Action;
use super::verify::{Report, verify};
use crate::error::Error;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The field of a start's output that names the replica.
pub(crate) const REPLICA: &str = "replica";

/// Under which names a file was written, the newest last.
pub(super) fn replicas_of(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare("SELECT output FROM records WHERE action = ?1 ORDER BY n")?;
    let mut names: Vec<String> = Vec::new();
    for output in select.query_map([Action::Start.name()], |row| row.get::<_, String>(0))? {
        let output: serde_json::Value = serde_json::from_str(&output?).unwrap_or_default();
        if let Some(name) = output[REPLICA].as_str() {
            names.retain(|known| known != name);
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Walks the audits of several replicas, each held to its checkpoint where there is one: a report of each, in their order.
///
/// # Errors
/// As [`verify`]; [`Error::SameReplica`] where two files, or two checkpoints, are of one replica; [`Error::NoSuchReplica`] for a
/// checkpoint of none of them.
pub fn verify_replicas(
    files: &[PathBuf],
    checkpoints: &[(PathBuf, Checkpoint)],
) -> Result<Vec<(PathBuf, Report)>, Error> {
    let names = |path: &PathBuf| -> Result<(PathBuf, Vec<String>), Error> {
        Ok((path.clone(), replicas_of(&read(path)?).map_err(failed(path))?))
    };
    let files: Vec<(PathBuf, Vec<String>)> = files.iter().map(names).collect::<Result<_, _>>()?;
    let written_as =
        files.iter().flat_map(|(path, names)| names.iter().map(move |name| (name.as_str(), path.as_path())));
    let files_by_name = each_once(written_as)?;
    for (path, Checkpoint { replica, .. }) in checkpoints {
        if replica.as_ref().is_none_or(|replica| !files_by_name.contains_key(replica.as_str())) {
            return Err(Error::NoSuchReplica { checkpoint: path.clone(), replica: replica.clone() });
        }
    }
    let of_replica = checkpoints.iter().filter_map(|of| Some((of.1.replica.as_deref()?, of.0.as_path())));
    each_once(of_replica)?;
    let report = |(path, names): (PathBuf, Vec<String>)| {
        let its = |(_, checkpoint): &&(PathBuf, Checkpoint)| {
            checkpoint.replica.as_ref().is_some_and(|name| names.contains(name))
        };
        let anchor = checkpoints.iter().find(its).map(|(_, checkpoint)| checkpoint.anchor());
        let report = verify(&path, anchor.as_ref())?;
        Ok((path, report))
    };
    files.into_iter().map(report).collect()
}

/// Files by the replica that they are of.
fn each_once<'a>(named: impl Iterator<Item = (&'a str, &'a Path)>) -> Result<BTreeMap<&'a str, &'a Path>, Error> {
    let mut by_name = BTreeMap::new();
    for (replica, path) in named {
        if let Some(first) = by_name.insert(replica, path) {
            let (first, second) = (first.to_owned(), path.to_owned());
            return Err(Error::SameReplica { replica: replica.to_owned(), first, second });
        }
    }
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::CheckpointConfig;
    use super::super::tests::{record, tamper};
    use super::super::{Audit, Kind, Record};
    use super::*;
    use melo_sign::SecretKey;
    use std::time::Duration;

    /// Audits and checkpoints of replicas of these names, a file each.
    struct Room {
        folder: tempfile::TempDir,
        key: SecretKey,
    }

    impl Room {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = SecretKey::generate().unwrap();
            key.write(&folder.path().join("audit.key")).unwrap();
            Room { folder, key }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// A server that began as `replica` and answered a few times.
        fn write(&self, file: &str, replica: &str) -> Result<PathBuf, Error> {
            let (path, key) = (self.at(file), self.at("audit.key"));
            let every = Duration::from_secs(3600);
            let config = CheckpointConfig { file: path.with_extension("checkpoint"), key, every };
            let audit = Audit::open_as(replica, &path, Some(&config), None)?;
            let output = serde_json::json!({ REPLICA: replica });
            let start = Record { action: Action::Start, output, ..record(0) };
            audit.append(&[start, record(1), record(2)])?;
            Ok(path)
        }

        fn checkpoint(&self, file: &str) -> (PathBuf, Checkpoint) {
            let path = self.at(file).with_extension("checkpoint");
            let checkpoint = Checkpoint::read(&path, self.key.public()).unwrap();
            (path, checkpoint)
        }
    }

    #[test]
    fn each_replica_has_a_verdict_and_is_held_to_its_own_checkpoint() {
        let room = Room::new();
        let files = [room.write("a.sqlite", "melo-1").unwrap(), room.write("b.sqlite", "melo-2").unwrap()];
        let checkpoints = ["b.sqlite", "a.sqlite"].map(|file| room.checkpoint(file));
        assert_eq!(checkpoints[0].1.replica.as_deref(), Some("melo-2"));
        let reports = verify_replicas(&files, &checkpoints).unwrap();
        let names: Vec<&[String]> = reports.iter().map(|(_, report)| report.replicas.as_slice()).collect();
        assert_eq!(names, [["melo-1"], ["melo-2"]]);
        assert!(reports.iter().all(|(_, report)| report.broken.is_none()));
        // Cut so that only its checkpoint knows, and changed.
        tamper(&files[1], "DELETE FROM records WHERE n = 3; UPDATE sqlite_sequence SET seq = 2;");
        tamper(&files[0], "UPDATE records SET who = 'nobody' WHERE n = 2;");
        let kinds =
            verify_replicas(&files, &checkpoints).unwrap().into_iter().map(|(_, report)| report.broken.unwrap().kind);
        assert_eq!(kinds.collect::<Vec<_>>(), [Kind::Changed, Kind::Cut]);
    }

    #[test]
    fn two_of_one_replica_are_refused_by_name() {
        let room = Room::new();
        let (a, b) = (room.write("a.sqlite", "melo-1").unwrap(), room.write("b.sqlite", "melo-2").unwrap());
        // The second machine took the first one's name over.
        room.write("b.sqlite", "melo-1").unwrap();
        let error = verify_replicas(&[a.clone(), b.clone()], &[]).unwrap_err();
        assert!(
            matches!(&error, Error::SameReplica { replica, first, second } if replica == "melo-1" && *first == a && *second == b),
            "{error}"
        );
        let twice = [room.checkpoint("a.sqlite"), room.checkpoint("a.sqlite")];
        assert!(matches!(verify_replicas(&[a], &twice), Err(Error::SameReplica { .. })));
    }

    #[test]
    fn a_checkpoint_of_none_of_them_is_refused_by_name() {
        let room = Room::new();
        let a = room.write("a.sqlite", "melo-1").unwrap();
        room.write("b.sqlite", "melo-2").unwrap();
        let (path, other) = room.checkpoint("b.sqlite");
        let error = verify_replicas(std::slice::from_ref(&a), &[(path.clone(), other.clone())]).unwrap_err();
        assert!(error.to_string().contains("of replica `melo-2`, of which there is no audit"), "{error}");
        let unnamed = Checkpoint { replica: None, ..other };
        let error = verify_replicas(&[a], &[(path, unnamed)]).unwrap_err();
        assert!(error.to_string().contains("does not say of which replica"), "{error}");
    }

    #[test]
    fn a_server_with_the_checkpoint_of_another_replica_says_whose_it_is() {
        let room = Room::new();
        room.write("a.sqlite", "melo-1").unwrap();
        std::fs::rename(room.at("a.checkpoint"), room.at("b.checkpoint")).unwrap();
        let error = room.write("b.sqlite", "melo-2").unwrap_err();
        assert!(
            error.to_string().contains("the checkpoint of replica `melo-1`, and this is replica `melo-2`"),
            "{error}"
        );
    }
}
