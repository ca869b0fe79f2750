//! For the targets of `fuzz/`: bodies of requests, read as the routes read them.

use super::{kserve, predict, stow};
use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use melo_vit::TaskKind;
use std::sync::LazyLock;
use tokio::runtime::Runtime;

/// Images that a form may have.
const MOST: usize = 8;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));

/// A form of `/v1/predict`.
///
/// # Panics
/// If more comes out of it than it holds, or may hold.
pub fn form(content_type: &[u8], body: &[u8]) {
    let Ok(kind) = HeaderValue::from_bytes(content_type) else { return };
    let request = Request::builder().header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec()));
    let request = request.expect("a request");
    let form = RUNTIME.block_on(async {
        let form = Multipart::from_request(request, &()).await.ok()?;
        predict::read(form, MOST).await.ok()
    });
    let Some(form) = form else { return };
    assert!(form.images.len() <= MOST);
    assert!(form.images.iter().map(|image| image.bytes.len()).sum::<usize>() <= body.len());
    assert!(form.images.iter().all(|image| !image.name.is_empty() && !image.name.contains(char::is_control)));
}

/// Objects of a STOW-RS request.
///
/// # Panics
/// If more comes out of it than it holds.
pub fn related(content_type: &[u8], body: &[u8]) {
    let Ok(kind) = HeaderValue::from_bytes(content_type) else { return };
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    let Ok(boundary) = stow::boundary(&headers) else { return };
    if let Ok(parts) = stow::parts(body, &boundary) {
        assert!(parts.iter().map(|part| part.len() + boundary.len()).sum::<usize>() < body.len());
    }
}

/// An infer request of the Open Inference Protocol, with the length of its JSON where binary data follow.
///
/// # Panics
/// If an input has other elements than its shape says.
pub fn infer(json_length: Option<u32>, body: &[u8]) {
    let length = json_length.map(|length| (kserve::wire::HEADER_LENGTH, HeaderValue::from(length)));
    let Ok(request) = kserve::wire::read(&HeaderMap::from_iter(length), body, TaskKind::MultiLabel) else { return };
    for input in request.inputs {
        let count = input.shape.iter().product::<usize>();
        let found = match input.is("FP32") {
            true => input.floats().map(|values| values.len()),
            false => input.files().map(|files| files.len()),
        };
        assert!(found.is_err() || found == Ok(count));
    }
}
