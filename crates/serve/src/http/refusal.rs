//! Refusals as HTTP answers: a status, a code for programs, a sentence for people.

use crate::error::Refusal;
use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

impl Refusal {
    /// The status of HTTP for it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refusal::BadRequest(_) => StatusCode::BAD_REQUEST,
            Refusal::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Unusable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Busy(_) | Refusal::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Full(_) | Refusal::Starting | Refusal::Stopping | Refusal::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Refusal {
    /// What is sent of it.
    pub(crate) fn body(&self) -> Json<serde_json::Value> {
        Json(serde_json::json!({ "error": { "code": self.code(), "message": self.to_string() } }))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.body()).into_response();
        match &self {
            Refusal::Busy(wait) | Refusal::Full(wait) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
            }
            // Another server may be there by then, or this one again.
            Refusal::Starting | Refusal::Stopping => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
            }
            Refusal::TooOften { wait, .. } => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            }
            Refusal::Unauthorized(_) => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl Refusal {
    /// As the route's protocol wants it: under `/v2` `error` is a sentence.
    pub(super) fn said(self, route: &str) -> Response {
        match route.starts_with("/v2") {
            true => self.in_the_open_inference_protocol(),
            false => self.into_response(),
        }
    }

    /// `{"error": "sentence"}`.
    pub(super) fn in_the_open_inference_protocol(self) -> Response {
        let message = self.to_string();
        let (parts, _) = self.into_response().into_parts();
        let mut response = (parts.status, Json(serde_json::json!({ "error": message }))).into_response();
        for (name, value) in &parts.headers {
            if !response.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}

/// Longest sentence of axum's that is passed on.
const SENTENCE_BYTES: usize = 4096;

/// What axum refuses by itself (a method that a route does not have, a body that is too long) said as we say it.
pub(super) async fn in_our_words(response: Response, route: &str) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let sentence = to_bytes(body, SENTENCE_BYTES).await.unwrap_or_default();
    let mut sentence = String::from_utf8_lossy(&sentence).into_owned();
    if sentence.is_empty() {
        sentence = status.canonical_reason().unwrap_or("refused").to_lowercase();
    }
    let refusal = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge(sentence),
        StatusCode::NOT_FOUND => Refusal::NotFound(sentence),
        _ if status.is_client_error() => Refusal::BadRequest(sentence),
        _ => Refusal::Internal(sentence),
    };
    let (ours, body) = refusal.said(route).into_parts();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(&name);
        if let Some(value) = ours.headers.get(&name) {
            parts.headers.insert(name, value.clone());
        }
    }
    Response::from_parts(parts, body)
}
