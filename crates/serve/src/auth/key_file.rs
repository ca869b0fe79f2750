//! The file of keys, written by `melo keys` or by hand, reread by the server when it changes.

use super::identity::{Identity, Scope};
use super::key::{Key, NewKey};
use super::rate::Rates;
use crate::audit::Action;
use crate::error::{Error, Refusal};
use crate::journal::{Happened, Journal};
use crate::request::Caller;
use crate::watched::{Watched, text_of};
use melo_vit::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;

/// Longest file.
const BYTES: u64 = 16 << 20;

/// The keys of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// In the order of the file.
    #[serde(default, rename = "key")]
    pub keys: Vec<Key>,
}

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let text = text_of(path, "a key file", BYTES)?;
        // Messages of the TOML reader quote the line, which may hold a secret put there by mistake.
        let file: KeyFile = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            damaged(format!("line {line}: {}", error.message()))
        })?;
        for (index, key) in file.keys.iter().enumerate() {
            key.check().map_err(damaged)?;
            if file.keys[..index].iter().any(|other| other.name == key.name) {
                return Err(damaged(format!("two keys have the name `{}`", key.name)));
            }
        }
        Ok(file)
    }

    /// The same, of a file that may not be there yet.
    ///
    /// # Errors
    /// As [`KeyFile::read`].
    pub fn read_or_new(path: &Path) -> Result<Self, Error> {
        match Self::read(path) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            read => read,
        }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`Error::Settings`] if its name is taken.
    pub fn add(&mut self, new: &NewKey) -> Result<(), Error> {
        if self.keys.iter().any(|key| key.name == new.key.name) {
            return Err(Error::Settings(format!("there is a key `{}` already: remove it first", new.key.name)));
        }
        self.keys.push(new.key.clone());
        Ok(())
    }

    /// Takes a key out.
    ///
    /// # Errors
    /// [`Error::Settings`] if there is none of this name.
    pub fn remove(&mut self, name: &str) -> Result<(), Error> {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != name);
        match self.keys.len() < before {
            true => Ok(()),
            false => Err(Error::Settings(format!("there is no key `{}`", name.escape_debug()))),
        }
    }

    /// Writes the file, whole or not at all, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).map_err(|error| Error::Settings(error.to_string()))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            // A temporary file is its owner's alone, and keeps that under its new name.
            let mut file = tempfile::Builder::new().prefix(".melo-keys-").tempfile_in(folder)?;
            file.write_all(
                b"# Keys of melo serve; written by `melo keys`. Only digests: the keys themselves stand nowhere.\n\n",
            )?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(Error::io(path))
    }
}

/// The keys that a server knows.
pub(super) struct Keys {
    file: Watched<KeyFile>,
    journal: Journal,
    rates: Rates,
}

impl Keys {
    pub(super) fn open(path: &Path, journal: Journal) -> Result<Self, Error> {
        Ok(Keys { file: Watched::open(path, KeyFile::read)?, journal, rates: Rates::default() })
    }

    pub(super) fn identify(&self, shown: &str) -> Result<Identity, Refusal> {
        let sha256 = hex(&Sha256::digest(shown.as_bytes()));
        let changed = |before: &KeyFile, now: &KeyFile| {
            self.journal.note(Action::Keys, Caller::server(), difference(before, now))
        };
        self.file.with(changed, |known| {
            // All keys are compared, so that the time says nothing about their number or order.
            let found = known.keys.iter().fold(None, |found, key| if key.is(&sha256) { Some(key) } else { found });
            let key = found.ok_or_else(|| Refusal::Unauthorized("the key is not known".to_owned()))?;
            if key.is_expired() {
                return Err(Refusal::Unauthorized(format!("the key `{}` has expired", key.name)));
            }
            if let Some(per_minute) = key.per_minute {
                let too_often = |wait| Refusal::TooOften { name: key.name.clone(), per_minute, wait };
                self.rates.take(&key.name, per_minute).map_err(too_often)?;
            }
            Ok(Identity { name: key.name.clone(), scopes: allowed(&key.scopes), address: None })
        })
    }
}

/// Names of keys that came, went, or are other keys now.
fn difference(before: &KeyFile, now: &KeyFile) -> Happened {
    let of = |file: &KeyFile, name: &str| file.keys.iter().find(|key| key.name == name).cloned();
    let names = |some: &KeyFile, others: &KeyFile, is: &dyn Fn(&Key, Option<Key>) -> bool| -> Vec<String> {
        let found = some.keys.iter().filter(|key| is(key, of(others, &key.name)));
        found.map(|key| key.name.clone()).collect()
    };
    let added = names(now, before, &|_, other| other.is_none());
    let removed = names(before, now, &|_, other| other.is_none());
    let changed = names(now, before, &|key, other| other.is_some_and(|other| other != *key));
    let output = serde_json::json!({ "added": added, "removed": removed, "changed": changed });
    Happened { output, ..Happened::default() }
}

/// Who may change what is served may also ask it.
pub(super) fn allowed(scopes: &[Scope]) -> Vec<Scope> {
    match scopes.contains(&Scope::Admin) {
        true => vec![Scope::Predict, Scope::Admin],
        false => scopes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, entries};
    use crate::watched::LOOK;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    fn file_with(names: &[(&str, Scope, Option<&str>)]) -> (tempfile::TempDir, PathBuf, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let mut file = KeyFile::default();
        let mut secrets = Vec::new();
        for (name, scope, expires) in names {
            let new = NewKey::new(name, &[*scope], *expires).unwrap();
            file.add(&new).unwrap();
            secrets.push(new.secret);
        }
        file.write(&path).unwrap();
        (folder, path, secrets)
    }

    #[test]
    fn a_key_is_known_by_its_secret_alone() {
        let (_folder, path, secrets) = file_with(&[("ris", Scope::Predict, None), ("boss", Scope::Admin, None)]);
        let keys = Keys::open(&path, Journal::none()).unwrap();
        let ris = keys.identify(&secrets[0]).unwrap();
        assert_eq!(ris, Identity { name: "ris".to_owned(), scopes: vec![Scope::Predict], address: None });
        assert_eq!(keys.identify(&secrets[1]).unwrap().scopes, [Scope::Predict, Scope::Admin]);
        let digest = KeyFile::read(&path).unwrap().keys[0].sha256.clone();
        let almost = format!("{}A", &secrets[0][..secrets[0].len() - 1]);
        for wrong in ["", "melo_", "ris", &digest, &format!("melo_{digest}"), &format!("{} ", secrets[0]), &almost] {
            assert!(wrong == secrets[0] || keys.identify(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_file_holds_no_key_and_is_its_owners_alone() {
        let (_folder, path, secrets) = file_with(&[("ris", Scope::Predict, Some("2099-01-01"))]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&secrets[0]) && !text.contains(&secrets[0][5..]));
        assert_eq!(secrets[0].len(), 5 + 43, "256 bits in base64");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn an_expired_key_is_refused() {
        let (_folder, path, secrets) = file_with(&[("old", Scope::Predict, Some("2020-01-31"))]);
        let refusal = Keys::open(&path, Journal::none()).unwrap().identify(&secrets[0]).unwrap_err();
        assert!(refusal.to_string().contains("expired"), "{refusal}");
    }

    #[test]
    fn a_changed_file_is_taken_over_a_broken_one_is_not_and_a_missing_one_lets_nobody_in() {
        let (_folder, path, secrets) = file_with(&[("ris", Scope::Predict, None), ("pacs", Scope::Predict, None)]);
        let keys = Keys::open(&path, Journal::none()).unwrap();
        let pass = || std::thread::sleep(LOOK + Duration::from_millis(50));
        let mut file = KeyFile::read(&path).unwrap();
        file.remove("pacs").unwrap();
        file.write(&path).unwrap();
        pass();
        assert!(keys.identify(&secrets[0]).is_ok() && keys.identify(&secrets[1]).is_err());
        std::fs::write(&path, "[[key]]\nname = ").unwrap();
        pass();
        assert!(keys.identify(&secrets[0]).is_ok());
        std::fs::remove_file(&path).unwrap();
        pass();
        assert!(keys.identify(&secrets[0]).is_err());
    }

    #[test]
    fn what_is_no_key_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let sha = "0".repeat(64);
        for (text, why) in [
            ("[[key]]\nname = 'melo_secret", "line 2"),
            ("x = 1", "unknown field"),
            (&format!("[[key]]\nname='a'\nscopes=['root']\nsha256='{sha}'\ncreated=''"), "root"),
            (&format!("[[key]]\nname='a b'\nscopes=['predict']\nsha256='{sha}'\ncreated=''"), "no name"),
            (&format!("[[key]]\nname='a'\nscopes=[]\nsha256='{sha}'\ncreated=''"), "no scopes"),
            ("[[key]]\nname='a'\nscopes=['predict']\nsha256='00'\ncreated=''", "hexadecimal"),
            (&format!("[[key]]\nname='a'\nscopes=['predict']\nsha256='{sha}'\ncreated=''\nexpires='soon'"), "soon"),
            (
                &format!("{0}{0}", format!("[[key]]\nname='a'\nscopes=['predict']\nsha256='{sha}'\ncreated=''\n")),
                "two keys",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = KeyFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("keys.toml"), "{error}");
            assert!(!error.contains("melo_secret"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let (_folder, path, _) = file_with(&[("ris", Scope::Predict, None)]);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(matches!(Keys::open(&path, Journal::none()), Err(Error::Damaged { .. })));
    }

    #[test]
    fn changes_of_keys_are_recorded_by_name() {
        let (folder, path, secrets) = file_with(&[("ris", Scope::Predict, None), ("pacs", Scope::Predict, None)]);
        let audit = folder.path().join("audit.sqlite");
        let journal = Journal::of(Arc::new(Audit::open(&audit, None).unwrap()));
        let keys = Keys::open(&path, journal).unwrap();
        let mut file = KeyFile::read(&path).unwrap();
        file.remove("pacs").unwrap();
        file.add(&NewKey::new("boss", &[Scope::Admin], None).unwrap()).unwrap();
        file.keys[0].expires = Some("2099-01-01".to_owned());
        file.write(&path).unwrap();
        keys.file.expire();
        assert!(keys.identify(&secrets[0]).is_ok() && keys.identify(&secrets[1]).is_err());
        drop(keys);
        let found = entries(&audit, 9, None).unwrap();
        assert_eq!((found.len(), found[0].record.action.as_str()), (1, "keys"));
        let expected = serde_json::json!({ "added": ["boss"], "removed": ["pacs"], "changed": ["ris"] });
        assert_eq!(found[0].record.output, expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_could_have_added_while_the_server_runs_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path, secrets) = file_with(&[("ris", Scope::Predict, None)]);
        let keys = Keys::open(&path, Journal::none()).unwrap();
        let intruder = NewKey::new("boss", &[Scope::Admin], None).unwrap();
        let mut file = KeyFile::read(&path).unwrap();
        file.add(&intruder).unwrap();
        file.write(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        keys.file.expire();
        assert!(keys.identify(&intruder.secret).is_err());
        assert!(keys.identify(&secrets[0]).is_ok(), "the keys from before stay in force");
    }
}
