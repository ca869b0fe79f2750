//! `/v1/tasks`: what is served, and changing it.

use super::app::{App, json};
use super::request_id::RequestId;
use crate::audit::Action;
use crate::auth::Identity;
use crate::drift::DriftRow;
use crate::error::Refusal;
use crate::journal::Happened;
use crate::registry::{Task, Version};
use crate::request::Caller;
use crate::service::blocking;
use crate::shortest;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use melo_sign::Signature;
use melo_vit::{ComputedOn, TaskCard, hex};
use serde_json::{Value, json as value};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Header of a plug-in's signature.
const SIGNATURE: &str = "melo-signature";

pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let drift = app.drift();
    let tasks: Vec<Value> =
        app.service.registry.tasks().iter().map(|task| summary(&app, task, &task.current, &drift)).collect();
    let engine = app.service.engine();
    let backbone = engine.backbone();
    json(value!({
        "backbone": { "name": backbone.name(), "digest": backbone.digest(), "precision": engine.info().precision },
        "uptime_seconds": app.service.metrics.uptime().as_secs(),
        "queue_rows": app.service.batches.load(),
        "queue_capacity": app.service.batches.capacity(),
        "tasks": tasks,
        "problems": app.service.registry.problems(),
    }))
}

/// A task with the whole card of its current version, or of `name@version`.
pub(super) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let version = app.service.registry.find(&name)?;
    let task = app.service.registry.tasks().into_iter().find(|task| task.name == version.card.task);
    let task = task.ok_or_else(|| Refusal::NotFound(format!("task `{}` is gone", version.card.task)))?;
    let mut found = summary(&app, &task, &version, &app.drift());
    found["card"] = shortest::value(&version.card);
    Ok(json(found))
}

/// A task as `shown`, one of its versions, has it.
fn summary(app: &App, task: &Task, shown: &Version, drift: &[DriftRow]) -> Value {
    let version = |version: &Arc<Version>| {
        value!({
            "version": version.digest,
            "accepted": version.accepted,
            "source": version.source,
            "bytes": version.bytes,
            "signed_by": signed_by(version),
            "resident": app.service.registry.is_resident(version),
        })
    };
    let card = &shown.card;
    let calibration = card.calibration_for(&ComputedOn::from(&app.service.engine().info()));
    let mut told = value!({
        "name": task.name,
        "version": shown.digest,
        "pinned": task.pinned,
        "signed_by": signed_by(shown),
        "kind": card.kind,
        "classes": card.classes,
        "thresholds": shortest::value(&calibration.thresholds),
        "calibration": calibration.made,
        "size": card.preprocess.size,
        "metrics": card.metrics,
        "metric_intervals": card.metric_intervals,
        "drift": drift.iter().filter(|row| row.version == shown.digest).collect::<Vec<_>>(),
        "images_per_minute": app.service.metrics.images_per_minute(&task.name),
        "versions": task.versions.iter().map(version).collect::<Vec<_>>(),
    });
    if let Some(bag) = bag_of(card) {
        told["bag"] = bag;
    }
    told
}

/// How a task that answers for bags takes their images; nothing of one that answers for single images.
fn bag_of(card: &TaskCard) -> Option<Value> {
    card.bag.map(|bag| {
        value!({
            "pooling": bag.pooling,
            "axis": card.preprocess.rendering.plane,
            "ordered": bag.positions > 0,
        })
    })
}

/// Who signed a version; null where nobody who is trusted did.
fn signed_by(version: &Version) -> Value {
    version.signer.as_ref().map_or(
        Value::Null,
        |signer| value!({ "key": signer.key.to_string(), "name": signer.name, "comment": signer.comment }),
    )
}

/// Who asks for a change.
type Asker = (Extension<Identity>, Extension<RequestId>);

fn caller((Extension(identity), Extension(RequestId(request_id))): Asker) -> Caller {
    identity.caller("http", request_id)
}

/// The signature of a body: minisign's file, in base64.
fn signature(headers: &HeaderMap) -> Result<Option<Signature>, Refusal> {
    let Some(shown) = headers.get(SIGNATURE) else { return Ok(None) };
    let text = STANDARD.decode(shown).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| Refusal::BadRequest(format!("{SIGNATURE}: expected a .minisig file in base64")))?;
    text.parse().map(Some).map_err(|reason: &str| Refusal::BadRequest(format!("{SIGNATURE}: {reason}")))
}

/// The body is the plug-in file; its card must name the task of the path.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    asker: Asker,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let caller = caller(asker);
    let source = format!("key:{}", caller.who);
    let signature = signature(&headers)?;
    let output = value!({ "signed_by_key": signature.as_ref().map(|signature| signature.key().to_string()) });
    let plugin_digest = Some(hex(&Sha256::digest(&body)));
    app.service.note(Action::Put, Happened { task: name.clone(), plugin_digest, output }, caller).await?;
    let service = Arc::clone(&app.service);
    let version = blocking(move || {
        let other = |card: &TaskCard| {
            (card.task != name).then(|| format!("its card says task `{}`, the request `{name}`", card.task))
        };
        service.registry.accept(&body, signature.as_ref(), &source, other)
    })
    .await?;
    Ok(json(value!({ "name": version.card.task, "version": version.digest })))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    asker: Asker,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let asked = Happened { task: name.clone(), ..Happened::default() };
    app.service.note(Action::Remove, asked, caller(asker)).await?;
    let service = Arc::clone(&app.service);
    blocking(move || service.registry.remove(&name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `name` keeps its current version, `name@version` goes to that one and keeps it.
pub(super) async fn pin(
    State(app): State<Arc<App>>,
    asker: Asker,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    pinned(app, caller(asker), name, true).await
}

pub(super) async fn unpin(
    State(app): State<Arc<App>>,
    asker: Asker,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    pinned(app, caller(asker), name, false).await
}

async fn pinned(app: Arc<App>, caller: Caller, name: String, pinned: bool) -> Result<Response, Refusal> {
    let version = app.service.registry.find(&name)?.digest.clone();
    let action = if pinned { Action::Pin } else { Action::Unpin };
    let asked = Happened { task: name.clone(), plugin_digest: Some(version), ..Happened::default() };
    app.service.note(action, asked, caller).await?;
    let service = Arc::clone(&app.service);
    let version = blocking(move || {
        service.registry.pin(&name, pinned)?;
        service.registry.find(&name)
    })
    .await?;
    Ok(json(value!({ "name": version.card.task, "version": version.digest, "pinned": pinned })))
}
