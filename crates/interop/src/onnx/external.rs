//! External data: the numbers of large constants, one after the other, in a file beside the model.

use super::graph::{Constant, Graph, Numbers};
use melo_vit::{Error, folder_of};
use std::io::Write;
use std::path::Path;

/// Bytes from which on a constant is large; shapes and scales stay in the model.
const LARGE: usize = 1024;

/// The bytes of a constant that belong in the file, none for a small one.
pub(super) fn large(constant: &Constant) -> Option<&[u8]> {
    match &constant.numbers {
        Numbers::F32(bytes) if bytes.len() >= LARGE => Some(bytes),
        _ => None,
    }
}

/// Writes the large constants in their order, atomically.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn write(path: &Path, graph: &Graph) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".melo-");
        // A temporary file is its owner's alone by default; a result gets what the user's umask leaves.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder_of(path))?;
        for bytes in graph.constants.iter().filter_map(large) {
            file.as_file_mut().write_all(bytes)?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| Error::Io { path: path.to_owned(), source })
}
