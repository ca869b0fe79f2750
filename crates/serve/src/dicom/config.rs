//! What the DICOM network is told: the `[dicom]` table of the settings.

use super::peers::{Network, PeerConfig};
use crate::error::Error;
use crate::tls::{TlsClientFiles, TlsFiles};
use crate::trust::is_loopback;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Longest application entity title (PS3.5, section 6.2).
const AE_TITLE_CHARS: usize = 16;
/// Longest name of a destination, which is also a folder.
const NAME_CHARS: usize = 64;

/// The `[dicom]` table. Every key has a default but `listen`, without which only STOW-RS gives images.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DicomConfig {
    /// Address and port of the storage SCP.
    pub listen: Option<String>,
    /// Certificate and key of the storage SCP, and who vouches for callers (PS3.15, B.12); without it associations come unencrypted.
    pub tls: Option<TlsFiles>,
    /// Its application entity title; associations that call another are rejected.
    pub ae_title: String,
    /// Titles that may call; empty for any.
    pub calling_ae_titles: Vec<String>,
    /// Who may call, by title and address; empty for any.
    pub peer: Vec<PeerConfig>,
    /// Lets anyone who reaches the port call, where no peers are named.
    pub any_peer: bool,
    /// Associations at a time; more are rejected as transient.
    pub max_associations: usize,
    /// Of them, those of one address.
    pub max_associations_per_address: usize,
    /// A connection sends its whole association request within this time, or is cut off, s.
    pub request_timeout_s: u64,
    /// Largest PDU that a peer may send, bytes.
    pub max_pdu: u32,
    /// Largest object, MiB.
    pub max_object_mib: u64,
    /// A peer that sends nothing for so long is cut off, s.
    pub idle_timeout_s: u64,
    /// A message or a pause between two may take so long, s.
    pub message_timeout_s: u64,
    /// Objects that may wait; more are refused as out of resources.
    pub max_waiting: usize,
    /// Size of the objects that may wait, MiB. One sender's are half of them, and of `max_waiting`, at most.
    pub max_waiting_mib: u64,
    /// Refused objects that are kept for looking at; the oldest go.
    pub keep_refused: usize,
    /// Their size, MiB.
    pub keep_refused_mib: u64,
    /// Days after which refused objects and notes of answered series go; for ever, within the other bounds, where it is not said.
    pub keep_days: Option<u32>,
    /// Room that is left on the disk, for the audit above all, MiB: objects are refused and results wait before it is used.
    pub reserve_mib: u64,
    /// Objects of one sender in work at a time; another sender's have a place beside them.
    pub workers: usize,
    /// A series is complete when none of its images came for so long, and no association that brought some is open, s.
    pub series_quiet_s: u64,
    /// So long from its first image on such associations are waited for, s.
    pub series_wait_s: u64,
    /// Tasks for images that no route takes; none: they are refused.
    pub tasks: Vec<String>,
    /// Which images are for which tasks.
    pub route: Vec<RouteConfig>,
    /// Where results go.
    pub destination: Vec<DestinationConfig>,
    /// First pause after a failed delivery, s; it doubles up to `retry_max_s`.
    pub retry_s: u64,
    /// Longest pause between two tries, s.
    pub retry_max_s: u64,
    /// Tries of an object that its receiver refuses, while it takes others.
    pub retry_refused: u32,
}

impl Default for DicomConfig {
    fn default() -> Self {
        DicomConfig {
            listen: None,
            tls: None,
            ae_title: "MELO".to_owned(),
            calling_ae_titles: Vec::new(),
            peer: Vec::new(),
            any_peer: false,
            max_associations: 16,
            max_associations_per_address: 8,
            request_timeout_s: 5,
            max_pdu: 131_072,
            max_object_mib: 512,
            idle_timeout_s: 60,
            message_timeout_s: 300,
            max_waiting: 100_000,
            max_waiting_mib: 65_536,
            keep_refused: 1000,
            keep_refused_mib: 4096,
            keep_days: None,
            reserve_mib: 1024,
            workers: 2,
            series_quiet_s: 10,
            series_wait_s: 600,
            tasks: Vec::new(),
            route: Vec::new(),
            destination: Vec::new(),
            retry_s: 1,
            retry_max_s: 300,
            retry_refused: 10,
        }
    }
}

/// One value or many.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// `"DX"`
    One(String),
    /// `["DX", "CR"]`
    Many(Vec<String>),
}

impl Values {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Values::One(value) => std::slice::from_ref(value),
            Values::Many(values) => values,
        }
    }
}

/// Images of these attributes are for these tasks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RouteConfig {
    /// Names of tasks, or `all`.
    pub tasks: Vec<String>,
    /// `modality`, `body-part`, `view-position`, `sop-class`, `station`, or any keyword or tag, with the values that
    /// are meant.
    #[serde(flatten)]
    pub conditions: BTreeMap<String, Values>,
}

/// A receiver of results.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DestinationConfig {
    /// Its name: in messages, and of its folder in the outbox.
    pub name: String,
    /// C-STORE: host and port.
    pub address: Option<String>,
    /// C-STORE: the title to call.
    pub ae_title: Option<String>,
    /// C-STORE: encrypted, where it is given.
    pub tls: Option<TlsClientFiles>,
    /// STOW-RS: the service's address; `/studies` is added.
    pub url: Option<String>,
    /// STOW-RS: a file with the value of the `Authorization` header.
    pub authorization_file: Option<PathBuf>,
    /// What it gets; all by default.
    #[serde(default = "all_kinds")]
    pub results: Vec<ResultKind>,
}

/// Kinds of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultKind {
    /// A structured report.
    Report,
    /// A secondary capture with the heat map, or the mask.
    Capture,
    /// A segmentation, of tasks that give masks.
    Segmentation,
}

impl ResultKind {
    /// As part of what unique identifiers are made from.
    pub(super) fn word(self) -> &'static str {
        match self {
            ResultKind::Report => "report",
            ResultKind::Capture => "capture",
            ResultKind::Segmentation => "segmentation",
        }
    }
}

fn all_kinds() -> Vec<ResultKind> {
    vec![ResultKind::Report, ResultKind::Capture, ResultKind::Segmentation]
}

impl DicomConfig {
    /// Checks what can be checked without the network.
    ///
    /// # Errors
    /// [`Error::Settings`], naming the key.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Settings(format!("dicom: {reason}")));
        check_title("ae-title", &self.ae_title)?;
        self.calling_ae_titles.iter().try_for_each(|title| check_title("calling-ae-titles", title))?;
        for peer in &self.peer {
            check_title("peer.ae-title", &peer.ae_title)?;
            if Network::read(&peer.address).is_none() {
                let (title, address) = (&peer.ae_title, peer.address.escape_debug());
                return wrong(format!("peer `{title}`: `{address}` is no address and no network, such as 10.1.2.0/24"));
            }
        }
        let counts = [
            ("max-associations", self.max_associations),
            ("max-associations-per-address", self.max_associations_per_address),
            ("request-timeout-s", self.request_timeout_s as usize),
            ("max-waiting-mib", self.max_waiting_mib as usize),
            ("max-waiting", self.max_waiting),
            ("workers", self.workers),
            ("max-object-mib", self.max_object_mib as usize),
            ("idle-timeout-s", self.idle_timeout_s as usize),
            ("message-timeout-s", self.message_timeout_s as usize),
            ("series-quiet-s", self.series_quiet_s as usize),
            ("series-wait-s", self.series_wait_s as usize),
            ("retry-s", self.retry_s as usize),
            ("retry-max-s", self.retry_max_s as usize),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return wrong(format!("`{key}` is at least 1"));
        }
        if !(4096..=16 << 20).contains(&self.max_pdu) {
            return wrong(format!("`max-pdu` is {}, expected 4096 to {}", self.max_pdu, 16 << 20));
        }
        if self.route.is_empty() && self.tasks.is_empty() {
            return wrong(
                "no image has a task: give routes, such as `[[dicom.route]]` with `modality = \"DX\"` and \
                 `tasks = [\"chest\"]`, or `tasks` for images that no route takes"
                    .to_owned(),
            );
        }
        for (index, destination) in self.destination.iter().enumerate() {
            destination.check()?;
            if self.destination[..index].iter().any(|other| other.name == destination.name) {
                return wrong(format!("two destinations are named `{}`", destination.name));
            }
        }
        Ok(())
    }
}

impl DestinationConfig {
    fn check(&self) -> Result<(), Error> {
        let wrong = |reason: &str| Error::Settings(format!("dicom: destination `{}`: {reason}", self.name));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if !(1..=NAME_CHARS).contains(&self.name.len()) || !self.name.chars().all(plain) {
            return Err(wrong("a name is 1 to 64 letters, digits, `_` and `-`"));
        }
        match (&self.address, &self.ae_title, &self.url) {
            (Some(_), Some(title), None) => check_title("ae-title", title)?,
            (None, None, Some(url)) if url.starts_with("http://") || url.starts_with("https://") => {}
            (None, None, Some(_)) => return Err(wrong("`url` begins with http:// or https://")),
            _ => return Err(wrong("give `address` and `ae-title` for C-STORE, or `url` for STOW-RS")),
        }
        if self.tls.is_some() && self.address.is_none() {
            return Err(wrong("`tls` is for C-STORE; give an `url` that begins with https://"));
        }
        match (&self.authorization_file, &self.url) {
            (Some(_), None) => return Err(wrong("`authorization-file` is for STOW-RS")),
            (Some(_), Some(url)) if !is_private(url) => {
                return Err(wrong(
                    "`authorization-file` would be sent unencrypted: give an `url` that begins with https://",
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

/// True where nobody else on the way reads what is sent: encrypted, or on this machine.
fn is_private(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else { return false };
    uri.scheme_str() == Some("https") || is_loopback(&uri.host().unwrap_or_default().to_ascii_lowercase())
}

/// 1 to 16 printable ASCII characters without backslash, not only spaces (PS3.5, section 6.2).
fn check_title(key: &str, title: &str) -> Result<(), Error> {
    let plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && c != '\\';
    if (1..=AE_TITLE_CHARS).contains(&title.len()) && title.trim() == title && title.chars().all(plain) {
        return Ok(());
    }
    let shown = title.escape_debug();
    Err(Error::Settings(format!("dicom: `{key}`: `{shown}` is no application entity title: 1 to 16 ASCII characters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_sent_encrypted_or_stays_on_this_machine() {
        for (url, fine) in [
            ("https://archive.hospital/dicom-web", true),
            ("http://127.0.0.1:8042/dicom-web", true),
            ("http://localhost/dicom-web", true),
            ("http://[::1]:8042/x", true),
            ("http://archive.hospital/dicom-web", false),
            ("http://127.0.0.1.evil.example/x", false),
        ] {
            let text = format!("name = 'archive'\nurl = '{url}'\nauthorization-file = 'archive.token'\n");
            let destination: DestinationConfig = toml::from_str(&text).expect("a destination");
            let checked = destination.check();
            assert_eq!(checked.is_ok(), fine, "{url}: {checked:?}");
        }
    }

    #[test]
    fn the_documentation_says_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dicom-network.md");
        let page = std::fs::read_to_string(path).expect("the page of the DICOM network");
        let table = page.lines().skip_while(|line| !line.starts_with("| key of `[dicom]`")).skip(2);
        let mut settings = String::new();
        for row in table.take_while(|line| line.starts_with('|')) {
            let [_, keys, defaults, ..] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
                panic!("{row}")
            };
            for (key, default) in keys.split(", ").zip(defaults.split(", ")) {
                match default.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
                    Some(text) => settings += &format!("{} = {text:?}\n", key.trim_matches('`')),
                    None if default.parse::<u64>().is_ok() => {
                        settings += &format!("{} = {default}\n", key.trim_matches('`'));
                    }
                    None => assert!(["–", "none", "any", "no"].contains(&default), "{row}"),
                }
            }
        }
        assert_eq!(settings.lines().count(), 19, "{settings}");
        assert_eq!(toml::from_str::<DicomConfig>(&settings).expect("keys that are known"), DicomConfig::default());
    }
}
