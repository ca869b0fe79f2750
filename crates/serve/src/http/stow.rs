//! `POST /dicomweb/studies`: the store transaction of DICOMweb (PS3.18, section 10.5).

use super::app::App;
use crate::auth::Identity;
use crate::dicom::spool::{Rejected, Seen, Spool};
use crate::dicom::takes;
use crate::error::Refusal;
use crate::service::blocking;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest boundary: RFC 2046 allows 70 characters, and Orthanc sends 73.
const BOUNDARY_BYTES: usize = 200;
/// Objects of a request. More of them in a body of the usual limit could be no images, and each has its place in the
/// answer.
const PARTS: usize = 10_000;

/// Failure reasons (PS3.18, table 10.5.3-2, and PS3.4, table B.2-1).
mod reason {
    pub(super) const OUT_OF_RESOURCES: u16 = 0xa700;
    pub(super) const DOES_NOT_MATCH: u16 = 0xa900;
    pub(super) const CANNOT_UNDERSTAND: u16 = 0xc000;
    pub(super) const CLASS_NOT_SUPPORTED: u16 = 0x0122;
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/dicomweb/studies", post(store)).route("/dicomweb/studies/{study}", post(store_in_study))
}

async fn store(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    answer(app, identity, None, headers, body).await
}

async fn store_in_study(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Path(study): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    answer(app, identity, Some(study), headers, body).await
}

async fn answer(
    app: Arc<App>,
    identity: Identity,
    study: Option<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Some(inbox) = app.inbox.clone() else {
        return Err(Refusal::NotFound("no DICOM network is set up".to_owned()));
    };
    let boundary = match boundary(&headers) {
        Ok(boundary) => boundary,
        Err(found) => {
            let message = format!("expected multipart/related; type=\"application/dicom\", found {found}");
            return Ok((StatusCode::UNSUPPORTED_MEDIA_TYPE, Refusal::BadRequest(message).body()).into_response());
        }
    };
    blocking(move || {
        let parts = parts(&body, &boundary)?;
        let mut sending = inbox.sending();
        let keep = |part| {
            let kept = keep(&inbox, &identity.name, study.as_deref(), part);
            kept.inspect(|seen| sending.brought(&identity.name, seen))
        };
        let stored = parts.into_iter().map(keep).collect();
        Ok(respond(stored))
    })
    .await
}

/// An object, and why it was not stored.
type Stored = Result<Seen, (Option<Box<Seen>>, u16)>;

fn keep(inbox: &Spool, who: &str, study: Option<&str>, part: &[u8]) -> Stored {
    let mut about = None;
    let mut unsupported = false;
    let mut attempt = || {
        let mut receipt = inbox.begin(who, "stow")?;
        receipt.write(part)?;
        receipt.accept(|seen| {
            about = Some(Box::new(seen.clone()));
            if let Err(reason) = takes(&seen.class, &seen.syntax) {
                unsupported = true;
                return Err(Rejected::Unreadable(reason));
            }
            match study.is_none_or(|study| study == seen.study) {
                true => Ok(()),
                false => Err(Rejected::Mismatch("the object is of another study".to_owned())),
            }
        })
    };
    let kept: Result<Seen, Rejected> = attempt();
    inbox.received("stow", kept.as_ref().map_or_else(Rejected::name, |_| "accepted"));
    kept.map_err(|rejected| {
        let reason = match &rejected {
            _ if unsupported => reason::CLASS_NOT_SUPPORTED,
            Rejected::Full(_) => reason::OUT_OF_RESOURCES,
            Rejected::Mismatch(_) => reason::DOES_NOT_MATCH,
            Rejected::Unreadable(_) => reason::CANNOT_UNDERSTAND,
        };
        tracing::warn!(reason = %rejected, "object not stored");
        (about, reason)
    })
}

/// The response module (PS3.18, table 10.5.3-1) with 200 for all, 202 for some, 409 for none.
fn respond(stored: Vec<Stored>) -> Response {
    let reference = |seen: &Seen| {
        json!({
            "00081150": { "vr": "UI", "Value": [seen.class] },
            "00081155": { "vr": "UI", "Value": [seen.instance] },
        })
    };
    let (mut referenced, mut failed, mut full) = (Vec::new(), Vec::new(), true);
    for stored in stored {
        match stored {
            Ok(seen) => referenced.push(reference(&seen)),
            Err((about, reason)) => {
                full &= reason == reason::OUT_OF_RESOURCES;
                let mut item = about.as_deref().map_or_else(|| json!({}), reference);
                item["00081197"] = json!({ "vr": "US", "Value": [reason] });
                failed.push(item);
            }
        }
    }
    let status = match (referenced.is_empty(), failed.is_empty()) {
        (_, true) => StatusCode::OK,
        (false, false) => StatusCode::ACCEPTED,
        (true, false) if full => StatusCode::SERVICE_UNAVAILABLE,
        (true, false) => StatusCode::CONFLICT,
    };
    // Nothing can be retrieved here.
    let mut body = json!({ "00081190": { "vr": "UR" } });
    let mut list = |tag: &str, items: Vec<Value>| {
        if !items.is_empty() {
            body[tag] = json!({ "vr": "SQ", "Value": items });
        }
    };
    list("00081199", referenced);
    list("00081198", failed);
    (status, [(header::CONTENT_TYPE, "application/dicom+json")], body.to_string()).into_response()
}

/// The boundary between the parts; for other content what was found.
pub(super) fn boundary(headers: &HeaderMap) -> Result<String, String> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("nothing");
    let mut fields = fields(found).into_iter();
    let is_related = fields.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/related"));
    let (mut boundary, mut kind) = (None, None);
    for field in fields {
        let Some((name, value)) = field.split_once('=') else { continue };
        let value = value.trim().trim_matches('"').to_owned();
        match name.trim().to_ascii_lowercase().as_str() {
            "boundary" => boundary = Some(value),
            "type" => kind = Some(value),
            _ => {}
        }
    }
    let is_dicom = kind.is_none_or(|kind| kind.eq_ignore_ascii_case("application/dicom"));
    match boundary {
        Some(boundary) if is_related && is_dicom && (1..=BOUNDARY_BYTES).contains(&boundary.len()) => Ok(boundary),
        _ => Err(format!("`{}`", found.chars().take(200).flat_map(char::escape_debug).collect::<String>())),
    }
}

/// Splits at semicolons that are not quoted.
fn fields(value: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for c in value.chars() {
        quoted ^= c == '"';
        match (c, fields.last_mut()) {
            (';', _) if !quoted => fields.push(String::new()),
            (_, Some(last)) => last.push(c),
            _ => {}
        }
    }
    fields.into_iter().map(|field| field.trim().to_owned()).collect()
}

/// Contents of all parts (RFC 2046, section 5.1.1).
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<&'a [u8]>, Refusal> {
    let broken = |reason: &str| Refusal::BadRequest(format!("the multipart body could not be read: {reason}"));
    let (line, between) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    // The first boundary may stand at the very beginning, or behind a preamble.
    let mut rest = match body.strip_prefix(line.as_bytes()) {
        Some(rest) => rest,
        None => {
            let at = find(body, between.as_bytes()).ok_or_else(|| broken("it has no boundary"))?;
            &body[at + between.len()..]
        }
    };
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            break;
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        rest = rest[padding..].strip_prefix(b"\r\n").ok_or_else(|| broken("a boundary is damaged"))?;
        // A part without headers begins with an empty line.
        let content = match rest.strip_prefix(b"\r\n") {
            Some(content) => content,
            None => {
                let head = find(rest, b"\r\n\r\n").ok_or_else(|| broken("a part has no content"))?;
                &rest[head + 4..]
            }
        };
        let end = find(content, between.as_bytes()).ok_or_else(|| broken("the last boundary is missing"))?;
        if parts.len() == PARTS {
            return Err(Refusal::TooLarge(format!("more than {PARTS} objects were sent at a time")));
        }
        parts.push(&content[..end]);
        rest = &content[end + between.len()..];
    }
    if parts.is_empty() { Err(broken("it has no part")) } else { Ok(parts) }
}

/// Where `wanted`, which begins with a carriage return, begins.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == b'\r') {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_whatever_stands_around_them() {
        let body = b"preamble\r\n--b \r\nContent-Type: application/dicom\r\n\r\none\r\n--\r\n--b\r\n\r\ntwo\r\n--b--\r\nepilogue";
        let found = parts(body, "b").expect("a body");
        assert_eq!(found, [&b"one\r\n--"[..], &b"two"[..]]);
        assert_eq!(parts(b"--b\r\n\r\n\r\n--b--", "b").expect("an empty part"), [&b""[..]]);
    }

    #[test]
    fn damaged_bodies_are_refused() {
        let body = b"--b\r\nContent-Type: application/dicom\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n";
        assert_eq!(parts(body, "b").expect("a body").len(), 2);
        for length in 0..body.len() - 4 {
            assert!(parts(&body[..length], "b").is_err(), "{length}");
        }
        assert!(parts(b"--b--", "b").is_err());
    }

    #[test]
    fn parts_are_counted() {
        let body = |count: usize| format!("{}--b--", "--b\r\n\r\n\r\n".repeat(count));
        assert_eq!(parts(body(PARTS).as_bytes(), "b").map(|parts| parts.len()), Ok(PARTS));
        assert!(matches!(parts(body(PARTS + 1).as_bytes(), "b"), Err(Refusal::TooLarge(_))));
    }

    #[test]
    fn the_boundary_is_read_from_the_content_type() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().expect("a header"));
            boundary(&headers)
        };
        let quoted = "Multipart/Related; type=\"application/dicom\"; boundary=\"a;b c\"; start=x";
        assert_eq!(of(quoted), Ok("a;b c".to_owned()));
        assert_eq!(of("multipart/related;boundary=x"), Ok("x".to_owned()));
        for wrong in [
            "multipart/form-data; boundary=x",
            "multipart/related",
            "application/dicom",
            "",
            "multipart/related; type=\"application/dicom+json\"; boundary=x",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
