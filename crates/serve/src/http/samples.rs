//! `/v1/samples`: images to try, where the server was given some.

use super::app::{App, json};
use crate::error::Refusal;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let names: Vec<&str> = app.samples.iter().map(|(name, _)| name.as_str()).collect();
    json(serde_json::json!({ "samples": names }))
}

pub(super) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let sample = app.samples.iter().find(|(known, _)| *known == name);
    let (_, bytes) = sample.ok_or_else(|| Refusal::NotFound("no such sample".to_owned()))?;
    Ok(([(header::CONTENT_TYPE, "image/png")], bytes.clone()).into_response())
}
