//! Results to a STOW-RS service (PS3.18, section 10.5).

use super::delivery::{Delivery, Undelivered};
use crate::disk;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;

/// For one result.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of an answer that are quoted.
const QUOTED: usize = 200;

/// Sends files, a request each, so that an answer speaks of one result; what comes after a broken link is left.
pub(super) fn send(url: &str, authorization: Option<&Path>, paths: Vec<PathBuf>) -> Vec<Delivery> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into();
    let mut deliveries = Vec::new();
    for path in paths {
        let sent = store(&agent, url, authorization, &path);
        let broken = matches!(sent, Err(Undelivered::Link(_)));
        deliveries.push((path, sent));
        if broken {
            break;
        }
    }
    deliveries
}

/// A file that its owner alone may read.
fn secret(path: &Path) -> std::io::Result<String> {
    if disk::lets_others(path, 0o077)? {
        return Err(std::io::Error::other("others than its owner may read it: chmod 600"));
    }
    std::fs::read_to_string(path)
}

fn store(agent: &Agent, url: &str, authorization: Option<&Path>, path: &Path) -> Result<(), Undelivered> {
    let link = |error: &dyn std::fmt::Display| Undelivered::Link(error.to_string());
    let file = std::fs::read(path).map_err(|error| link(&error))?;
    // Of the file's own digest: it cannot stand in the file.
    let boundary = format!("melo-{}", melo_vit::hex(&Sha256::digest(&file)));
    let mut body = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
    body.extend_from_slice(&file);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let mut request = agent
        .post(format!("{}/studies", url.trim_end_matches('/')))
        .header("content-type", format!("multipart/related; type=\"application/dicom\"; boundary={boundary}"))
        .header("accept", "application/dicom+json");
    if let Some(path) = authorization {
        let value = secret(path).map_err(|error| link(&format!("authorization-file: {error}")))?;
        request = request.header("authorization", value.trim());
    }
    let mut response = request.send(&body).map_err(|error| link(&error))?;
    let status = response.status().as_u16();
    if matches!(status, 200 | 202) {
        return Ok(());
    }
    let text = response.body_mut().read_to_string().unwrap_or_default();
    let text: String = text.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    let reason = format!("the receiver answered {status} {text}");
    match status {
        // It does not want this object, in this form.
        400 | 406 | 409 | 413 | 415 | 422 => Err(Undelivered::Object(reason)),
        _ => Err(Undelivered::Link(reason)),
    }
}
