//! Packed weights kept in a folder, so that the next start maps them: nothing is read, hashed or packed then.
//!
//! Two kinds of file: `<key>-<layout>.packed` holds a network (the key is a SHA-256 over everything that a backbone is), and
//! `<identity>.key` remembers which key the files of a checkpoint had when they were read. Files are recognised as git's index
//! does: by device, inode, size and times.

use crate::backbone::{Backbone, BackboneInfo};
use crate::digest::hex;
use crate::engine::{Device, Engine};
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A file that changed so short a time before it was read may change again without another time: git's "racily clean".
const RACY: Duration = Duration::from_secs(2);
/// What a process left half written is old after that.
const ABANDONED: Duration = Duration::from_secs(3600);
const PREFIX: &str = ".melo-";
const PACKED: &str = "packed";
const KEY: &str = "key";

/// A folder of packed weights.
#[derive(Clone, Debug)]
pub struct PackedCache {
    folder: PathBuf,
    bytes: u64,
}

/// A network that is not in the folder yet.
#[derive(Debug)]
pub struct Unkept {
    cache: PackedCache,
    engine: Arc<dyn Engine>,
    path: PathBuf,
    key: String,
}

impl PackedCache {
    /// A folder of at most so many bytes; made where there is none, for its owner alone.
    ///
    /// # Errors
    /// What the system answers; [`io::ErrorKind::PermissionDenied`] where it is another user's, or others may write to it.
    pub fn open(folder: &Path, bytes: u64) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        let metadata = fs::metadata(folder)?;
        match metadata.is_dir() && is_ours(&metadata) {
            true => Ok(PackedCache { folder: folder.to_owned(), bytes }),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// The backbone of the checkpoint at `path` on a device: mapped where it was kept, else as `read` reads it, and then what is
    /// to be kept.
    ///
    /// `read` also tells whether the checkpoint need not be read another time; `settings` is what else it depends on.
    ///
    /// # Errors
    /// Those of `read` and of [`Device::load`]; no state of the folder is one.
    pub fn load<E: From<crate::Error>>(
        &self,
        device: &dyn Device,
        (path, settings): (&Path, &str),
        read: impl FnOnce() -> Result<(Backbone, bool), E>,
    ) -> Result<(Arc<dyn Engine>, Option<Unkept>), E> {
        let Some(layout) = device.packed_layout() else {
            return Ok((device.load(read()?.0)?, None));
        };
        let before = identity(path, settings);
        let remembered = before.as_ref().map(|identity| self.folder.join(format!("{identity}.{KEY}")));
        if let Some(key) = remembered.as_deref().and_then(read_key)
            && let Some(engine) = self.map(device, &key, &layout)
        {
            return Ok((engine, None));
        }
        let (backbone, quiet) = read()?;
        let key = key_of(backbone.info());
        if let Some(remembered) = remembered.filter(|_| quiet && before == identity(path, settings)) {
            // Without it the checkpoint is read again.
            let _ = self.write(&remembered, |file| file.write_all(key.as_bytes()));
        }
        if let Some(engine) = self.map(device, &key, &layout) {
            return Ok((engine, None));
        }
        let engine = device.load(backbone)?;
        let path = self.packed(&key, &layout);
        let unkept = Unkept { cache: self.clone(), engine: Arc::clone(&engine), path, key };
        Ok((engine, Some(unkept)))
    }

    fn packed(&self, key: &str, layout: &str) -> PathBuf {
        self.folder.join(format!("{key}-{layout}.{PACKED}"))
    }

    fn map(&self, device: &dyn Device, key: &str, layout: &str) -> Option<Arc<dyn Engine>> {
        let file = File::open(self.packed(key, layout)).ok()?;
        if !is_ours(&file.metadata().ok()?) {
            return None;
        }
        let engine = device.map_packed(&file, key)?;
        // What was used last is deleted last; in a folder that is only read nothing is deleted.
        let _ = file.set_modified(SystemTime::now());
        Some(engine)
    }

    /// Writes a file, whole or not at all. It is not flushed to the disk: after a crash its checksums tell.
    fn write(&self, path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&self.folder)?;
        let mut buffer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        content(&mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Deletes what was used longest ago until the rest fits, `newest` last, and what belongs to nothing. Another process may be
    /// at the same.
    fn shrink(&self, newest: &Path) -> io::Result<()> {
        let now = SystemTime::now();
        let (mut packed, mut keys) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(PACKED) => packed.push((path != newest, modified, metadata.len(), path)),
                Some(KEY) => keys.push(path),
                _ => {
                    let half = entry.file_name().to_string_lossy().starts_with(PREFIX);
                    if half && now.duration_since(modified).is_ok_and(|age| age > ABANDONED) {
                        let _ = fs::remove_file(path);
                    }
                }
            }
        }
        packed.sort_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
        let (mut sum, mut kept) = (0u64, Vec::new());
        for (_, _, bytes, path) in packed {
            sum = sum.saturating_add(bytes);
            match sum <= self.bytes {
                true => kept.extend(path.file_name().map(|name| name.to_string_lossy().into_owned())),
                // Whoever has it mapped keeps it.
                false => drop(fs::remove_file(path)),
            }
        }
        for path in keys {
            let of_kept = read_key(&path).is_some_and(|key| kept.iter().any(|name| name.starts_with(&key)));
            if !of_kept {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

impl Unkept {
    /// Writes it to the folder, which is then as large as it may be at most.
    ///
    /// # Errors
    /// What the system answers: a full disk, a folder that is not to be written to.
    pub fn keep(self) -> io::Result<()> {
        let Unkept { cache, engine, path, key } = self;
        cache.write(&path, |file| engine.write_packed(&key, file))?;
        cache.shrink(&path)
    }
}

/// A key that was remembered.
fn read_key(path: &Path) -> Option<String> {
    if !is_ours(&fs::metadata(path).ok()?) {
        return None;
    }
    let key = fs::read_to_string(path).ok()?;
    (key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(key)
}

/// Of everything that a backbone is: its digest does not cover name, preprocessing and classifier.
fn key_of(info: &BackboneInfo) -> String {
    let mut hash = Sha256::new();
    hash.update(info.digest());
    hash.update(serde_json::to_vec(&info.description()).expect("a description is plain data"));
    for values in info.classifier().into_iter().flat_map(|head| [&head.weight, &head.bias]) {
        hash.update(values.len().to_le_bytes());
        hash.update(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
    hex(&hash.finalize())
}

/// What tells the files of a checkpoint from any others: those of a folder, or a file and every JSON beside it, which may describe
/// it or list further files. None where one of them changed just now, or where the system does not tell them apart.
fn identity(path: &Path, settings: &str) -> Option<String> {
    let now = SystemTime::now();
    let path = std::path::absolute(path).ok()?;
    let is_json = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let (folder, all) = if path.is_dir() { (path.as_path(), true) } else { (path.parent()?, is_json(&path)) };
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).ok()?.map(|entry| Some(entry.ok()?.path())).collect::<Option<_>>()?;
    files.retain(|file| all || is_json(file) || *file == path);
    files.sort();
    let mut hash = Sha256::new();
    let mut text = |text: &[u8]| {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    };
    text(env!("CARGO_PKG_VERSION").as_bytes());
    text(settings.as_bytes());
    text(path.as_os_str().as_encoded_bytes());
    for file in files {
        let metadata = fs::metadata(&file).ok()?;
        if metadata.is_dir() {
            continue;
        }
        text(file.as_os_str().as_encoded_bytes());
        text(&state(&metadata, now)?);
    }
    Some(hex(&hash.finalize()))
}

/// Which file it is and when it was changed; none where that was just before `now`, or later.
#[cfg(unix)]
fn state(metadata: &Metadata, now: SystemTime) -> Option<Vec<u8>> {
    use std::os::unix::fs::MetadataExt;
    let changed = |seconds: i64, nanos: i64| {
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        now.duration_since(SystemTime::UNIX_EPOCH + since).ok()
    };
    let (mtime, ctime) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    let settled = [mtime, ctime].iter().all(|&(s, ns)| changed(s, ns).is_some_and(|age| age > RACY));
    let numbers = [mtime.0, mtime.1, ctime.0, ctime.1].into_iter().flat_map(i64::to_le_bytes);
    let which = [metadata.dev(), metadata.ino(), metadata.size()].into_iter().flat_map(u64::to_le_bytes);
    settled.then(|| which.chain(numbers).collect())
}

#[cfg(not(unix))]
fn state(_: &Metadata, _: SystemTime) -> Option<Vec<u8>> {
    None
}

/// True where it is this user's, and nobody else may write to it.
#[cfg(unix)]
fn is_ours(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn is_ours(_: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests;
