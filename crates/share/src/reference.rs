//! Names of plug-ins elsewhere: `hf:OWNER/NAME[@REVISION]`, `oci://HOST[:PORT]/REPOSITORY[:TAG|@sha256:DIGEST]`.

use crate::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The longest name of a repository, tag or host that is taken, bytes.
const LONGEST: usize = 255;

/// A plug-in somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// On the Hugging Face hub.
    Hub {
        /// `owner/name`.
        name: String,
        /// A branch, tag or commit; the main branch where there is none.
        revision: Option<String>,
    },
    /// In a registry.
    Oci(OciName),
}

/// A name in a registry (<https://github.com/opencontainers/distribution-spec>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciName {
    /// `host` or `host:port`.
    pub host: String,
    /// `lab/chest`.
    pub repository: String,
    /// A tag, or `sha256:` and a digest.
    pub tag: String,
}

impl Reference {
    /// True for what is meant as one, right or wrong.
    pub fn is_meant(path: &Path) -> bool {
        path.to_str().is_some_and(|text| text.starts_with("hf:") || text.starts_with("oci://"))
    }
}

impl OciName {
    /// True where the tag is a digest, of bytes that never change.
    pub fn is_pinned(&self) -> bool {
        digest(&self.tag).is_some()
    }
}

/// The hexadecimal digits of `sha256:…`.
pub(crate) fn digest(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == 64 && digits.bytes().all(is_hex)).then_some(digits)
}

/// `[a-z0-9]+([._-]+[a-z0-9]+)*`, near enough.
fn is_component(part: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    ends(part.bytes().next()) && ends(part.bytes().last()) && part.bytes().all(inside)
}

fn is_tag(tag: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    tag.len() <= 128 && tag.bytes().all(inside) && tag.bytes().next().is_some_and(|first| !b".-".contains(&first))
}

/// True for `host`, `host:port`, `[::1]:port`.
pub(crate) fn is_host(host: &str) -> bool {
    let uri: Result<ureq::http::uri::Authority, _> = host.parse();
    !host.contains('@') && uri.is_ok_and(|uri| !uri.host().is_empty())
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            |reason: &str| Error::Reference { reference: text.escape_debug().to_string(), reason: reason.into() };
        if text.starts_with("hf:") {
            let (name, _) = melo_interop::hub_name(Path::new(text))
                .ok_or_else(|| wrong("expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION"))?;
            let revision = text.split_once('@').map(|(_, revision)| revision.to_owned());
            return Ok(Reference::Hub { name: name.to_owned(), revision });
        }
        let expected = || wrong("expected oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:DIGEST");
        let rest = text.strip_prefix("oci://").ok_or_else(|| wrong("expected hf:… or oci://…"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(expected)?;
        let (repository, tag) = match rest.split_once('@') {
            Some((repository, tag)) if digest(tag).is_some() => (repository, tag),
            Some(_) => return Err(expected()),
            None => rest.split_once(':').unwrap_or((rest, "latest")),
        };
        let fits = text.len() <= LONGEST + 128
            && is_host(host)
            && repository.split('/').all(is_component)
            && (digest(tag).is_some() || is_tag(tag));
        match fits {
            true => Ok(Reference::Oci(OciName { host: host.into(), repository: repository.into(), tag: tag.into() })),
            false => Err(expected()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Hub { name, revision: None } => write!(f, "hf:{name}"),
            Reference::Hub { name, revision: Some(revision) } => write!(f, "hf:{name}@{revision}"),
            Reference::Oci(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for OciName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.is_pinned() { '@' } else { ':' };
        write!(f, "oci://{}/{}{between}{}", self.host, self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_what_they_print() {
        let pinned = format!("oci://host:5000/lab/chest@sha256:{}", "0a".repeat(32));
        for text in
            ["hf:lab/chest-film", "hf:lab/chest-film@v2", "oci://host/chest:2", "oci://[::1]:5000/a/b-c/d:x_1", &pinned]
        {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        assert_eq!("oci://host/chest".parse::<Reference>().unwrap().to_string(), "oci://host/chest:latest");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for text in [
            "",
            "x",
            "hf:",
            "hf:name",
            "hf:../x",
            "hf:a/b@../c",
            "oci://",
            "oci://host",
            "oci://host/",
            "oci:///a:1",
            "oci://host/../a:1",
            "oci://host/A:1",
            "oci://host/a:",
            "oci://host/a:../b",
            "oci://u:p@host/a:1",
            "oci://host/a@sha256:12",
            "oci://host/a/:1",
            "oci://host/a:.x",
        ] {
            assert!(matches!(text.parse::<Reference>(), Err(Error::Reference { .. })), "{text}");
        }
    }
}
