//! Which of several servers of one service this is.

use crate::error::Error;

/// Longest name, bytes: as long as a host's.
const BYTES: usize = 255;

/// The name of this machine, which a replica has where it is given none: printable ASCII, or `-`.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let plain: String = name.chars().filter(char::is_ascii_graphic).take(BYTES).collect();
    if plain.is_empty() { "-".to_owned() } else { plain }
}

/// # Errors
/// [`Error::Settings`].
pub(crate) fn check(name: &str) -> Result<(), Error> {
    if (1..=BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
    Err(Error::Settings(format!(
        "`{shown}` is no name of a replica, expected 1 to {BYTES} printable ASCII characters without spaces"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_can_be_a_replica_and_a_line_cannot() {
        check(&host_name()).unwrap();
        check("melo-7d9f-x2.radiology").unwrap();
        for name in ["", "a b", "a\nb", "köln", &"a".repeat(256)] {
            assert!(check(name).unwrap_err().to_string().contains("no name of a replica"), "{name:?}");
        }
    }
}
