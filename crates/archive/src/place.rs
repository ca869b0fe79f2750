//! Where an input is: on this machine, or in an object store.

use crate::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// An object, or all below a prefix: `s3://bucket/key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The bucket.
    pub bucket: String,
    /// What follows; empty for the whole bucket.
    pub key: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A path of this machine.
    Local(PathBuf),
    /// In an object store.
    Object(ObjectName),
}

impl Place {
    /// Reads `s3://bucket/key`, `file:///path` (percent-encoded, as RFC 8089 has it), and everything without a scheme as a path.
    ///
    /// # Errors
    /// [`Error::Place`] for what has another scheme, or is no such address.
    pub fn of(name: &Path) -> Result<Self, Error> {
        let local = || Ok(Place::Local(name.to_owned()));
        let Some((scheme, rest)) = name.to_str().and_then(|name| name.split_once("://")) else { return local() };
        if scheme.is_empty() || !scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter)) {
            return local();
        }
        let place = match scheme {
            "s3" => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
                let object = ObjectName { bucket: bucket.to_owned(), key: key.to_owned() };
                (!bucket.is_empty() && bucket.chars().all(is_name)).then_some(Place::Object(object))
            }
            "file" => rest.strip_prefix("localhost").unwrap_or(rest).strip_prefix('/').and_then(|path| {
                let decoded = decoded(path)?;
                Some(Place::Local(format!("/{decoded}").into()))
            }),
            _ => None,
        };
        place.ok_or_else(|| Error::Place { name: name.to_owned() })
    }
}

/// Without percent signs; none where they encode no text.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let place = |name: &str| Place::of(Path::new(name)).expect("a place");
        for path in ["films/a.png", "/films", "a#frame=2", "://x", "a b://c"] {
            assert_eq!(place(path), Place::Local(path.into()));
        }
        assert_eq!(place("file:///films/a%20b%C3%A9.png"), Place::Local("/films/a b\u{e9}.png".into()));
        assert_eq!(place("file://localhost/films"), Place::Local("/films".into()));
        let object = |bucket: &str, key: &str| Place::Object(ObjectName { bucket: bucket.into(), key: key.into() });
        assert_eq!(place("s3://films/2024/a%20b.png"), object("films", "2024/a%20b.png"));
        assert_eq!(place("s3://films"), object("films", ""));
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        for name in [
            "s3:///2024",
            "s3://a b/2024",
            "gs://films",
            "https://host/films",
            "file://host/films",
            "file:///%zz",
            "file:///%c3",
        ] {
            let refused = Place::of(Path::new(name)).expect_err("it is refused").to_string();
            assert!(refused.starts_with(name), "{refused}");
        }
    }
}
