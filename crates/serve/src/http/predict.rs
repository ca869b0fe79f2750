//! `POST /v1/predict`: images as multipart fields, tasks by name.

use super::app::{App, json};
use super::request_id::RequestId;
use crate::auth::Identity;
use crate::error::Refusal;
use crate::request::{Image, Request};
use axum::Extension;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{Multipart, State};
use axum::response::Response;
use melo_vit::rendering::Frame;
use std::sync::Arc;

/// Longest text of a field that is not an image.
const TEXT_BYTES: usize = 1 << 16;
/// Names of tasks in a request.
const TASKS: usize = 4096;
/// Longest name of an image that is given back.
const NAME_CHARS: usize = 200;

/// Fields: `image` (any number), `tasks` (names, `name@version`, `all`; by commas or repeated), `heatmap`, `masks` and `preview`
/// (`true` or `false`), `frame` (`first`, `middle`, or a number).
pub(super) async fn predict(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    form: Multipart,
) -> Result<Response, Refusal> {
    let limit = app.service.limits.timeout;
    let read = tokio::time::timeout(limit, read(form, app.service.limits.most_images()));
    let form = read.await.map_err(|_| Refusal::Timeout(limit))??;
    let caller = identity.caller("http", request_id);
    let Form { images, tasks, heatmap, masks, preview, frame } = form;
    let request = Request { images, slices: None, tasks, heatmap, masks, preview, frame, caller };
    // Not as a `serde_json::Value`, which would print numbers of 32 bits with the digits of 64.
    Ok(json(app.service.predict(request).await?))
}

#[derive(Default)]
pub(super) struct Form {
    pub(super) images: Vec<Image>,
    tasks: Vec<String>,
    heatmap: bool,
    masks: bool,
    preview: bool,
    frame: Option<Frame>,
}

pub(super) async fn read(mut multipart: Multipart, most: usize) -> Result<Form, Refusal> {
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error))? {
        match field.name() {
            Some("image") => {
                if form.images.len() == most {
                    return Err(Refusal::TooLarge(format!("more than {most} images were sent")));
                }
                let name = field.file_name().unwrap_or_default();
                let name: String = name.chars().take(NAME_CHARS).filter(|c| !c.is_control()).collect();
                let name = if name.is_empty() { format!("image {}", form.images.len() + 1) } else { name };
                let bytes = field.bytes().await.map_err(|error| broken(&error))?;
                form.images.push(Image { name, bytes: Arc::from(&bytes[..]), sop_instance_uid: None });
            }
            Some("tasks") => {
                let text = text("tasks", field).await?;
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                form.tasks.extend(names.map(str::to_owned));
                if form.tasks.len() > TASKS {
                    return Err(Refusal::TooLarge(format!("more than {TASKS} tasks were named")));
                }
            }
            Some("heatmap") => form.heatmap = flag("heatmap", field).await?,
            Some("masks") => form.masks = flag("masks", field).await?,
            Some("preview") => form.preview = flag("preview", field).await?,
            Some("frame") => form.frame = frame(field).await?,
            other => {
                let name: String = other.unwrap_or_default().chars().take(NAME_CHARS).collect();
                return Err(Refusal::BadRequest(format!(
                    "field `{}` is not known, expected image, tasks, heatmap, masks, preview or frame",
                    name.escape_debug()
                )));
            }
        }
    }
    Ok(form)
}

async fn text(name: &str, mut field: Field<'_>) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > TEXT_BYTES {
            return Err(Refusal::TooLarge(format!("field `{name}` is longer than {TEXT_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| Refusal::BadRequest(format!("field `{name}` is not UTF-8")))
}

async fn flag(name: &str, field: Field<'_>) -> Result<bool, Refusal> {
    match text(name, field).await?.trim() {
        "true" | "1" | "on" => Ok(true),
        "false" | "0" | "off" | "" => Ok(false),
        _ => Err(Refusal::BadRequest(format!("field `{name}`: expected true or false"))),
    }
}

/// Nothing is what every card says.
async fn frame(field: Field<'_>) -> Result<Option<Frame>, Refusal> {
    let text = text("frame", field).await?;
    let named = Some(text.trim()).filter(|text| !text.is_empty());
    let frame = named.map(str::parse).transpose();
    frame.map_err(|_| Refusal::BadRequest("field `frame`: expected first, middle, or a number from 1".to_owned()))
}

fn broken(error: &MultipartError) -> Refusal {
    let message = error.body_text();
    match error.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge(message),
        _ => Refusal::BadRequest(format!("the form could not be read: {message}")),
    }
}
