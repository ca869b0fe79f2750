//! The Open Inference Protocol, version 2, over REST, with the binary tensor extension: what KServe, Triton and their
//! clients speak. A model is a task, its version a plug-in's digest.

pub(super) mod wire;

use super::app::App;
use super::request_id::RequestId;
use crate::answer::Answer;
use crate::auth::Identity;
use crate::error::Refusal;
use crate::registry::Version;
use crate::request::{Caller, Image, Request};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use melo_vit::{ComputedOn, SCOPE_SCORE, TaskKind};
use serde_json::{Value, json};
use std::sync::Arc;
use wire::{Infer, Output, SCORES, SET, SPREAD, Tensor, outputs_of};

/// Encoded images: PNG, JPEG, DICOM, ….
const IMAGE: &str = "image";
/// Network inputs, `[n, 3, s, s]`, normalised by the caller.
const PIXELS: &str = "pixels";

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/models/{name}", get(model))
        .route("/v2/models/{name}/versions/{version}", get(model))
        .route("/v2/models/{name}/ready", get(ready))
        .route("/v2/models/{name}/versions/{version}/ready", get(ready))
        .route("/v2/models/{name}/infer", post(infer))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer))
}

/// A refusal as the protocol wants it: `error` is a sentence.
struct Refused(Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.in_the_open_inference_protocol()
    }
}

async fn server() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({ "name": "melo", "version": version, "extensions": ["binary_tensor_data"] }))
}

/// Name and, where it was given, version of a path.
#[derive(serde::Deserialize)]
struct Model {
    name: String,
    version: Option<String>,
}

impl Model {
    fn find(&self, app: &App) -> Result<Arc<Version>, Refusal> {
        match &self.version {
            Some(version) => app.service.registry.find(&format!("{}@{version}", self.name)),
            None => app.service.registry.find(&self.name),
        }
    }
}

async fn model(State(app): State<Arc<App>>, Path(path): Path<Model>) -> Result<Json<Value>, Refused> {
    let version = path.find(&app)?;
    let (card, size) = (&version.card, version.card.preprocess.size);
    let tasks = app.service.registry.tasks();
    let known = tasks.iter().filter(|task| task.name == card.task).flat_map(|task| &task.versions);
    let tensor = |name: &str, kind: &str, shape: Value| json!({ "name": name, "datatype": kind, "shape": shape });
    let mut inputs = vec![tensor(IMAGE, "BYTES", json!([-1]))];
    if card.bag.is_none() && card.preprocess.depth.is_none() {
        inputs.push(tensor(PIXELS, "FP32", json!([-1, 3, size, size])));
    }
    let outputs = outputs_here(&app, &version);
    Ok(Json(json!({
        "name": card.task,
        "versions": known.map(|version| version.digest.as_str()).collect::<Vec<_>>(),
        "platform": "melo",
        "inputs": inputs,
        "outputs": outputs.iter().map(|name| tensor(name, "FP32", shape(&app, &version, -1, name))).collect::<Vec<_>>(),
        "parameters": { "classes": card.classes, "bag": card.bag.is_some() },
    })))
}

async fn ready(State(app): State<Arc<App>>, Path(path): Path<Model>) -> Result<StatusCode, Refused> {
    let version = path.find(&app)?;
    match app.service.registry.problem_of(&version.card.task) {
        _ if app.is_stopping() => Err(Refused(Refusal::Stopping)),
        Some(problem) => Err(Refused(Refusal::Unavailable(problem))),
        None => Ok(StatusCode::OK),
    }
}

async fn infer(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(path): Path<Model>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let version = path.find(&app)?;
    let Infer { id, mut inputs, outputs } = wire::read(&headers, &body, version.card.kind)?;
    if inputs.len() != 1 {
        let message = format!("expected one input, `{IMAGE}` or `{PIXELS}`, found {}", inputs.len());
        return Err(Refusal::BadRequest(message).into());
    }
    let known = outputs_here(&app, &version);
    if let Some(output) = outputs.iter().find(|output| !known.contains(&output.name.as_str())) {
        return Err(Refusal::BadRequest(format!("output `{}` is not known, expected {known:?}", output.name)).into());
    }
    let caller = identity.caller("kserve", request_id);
    let answers = answers(&app, &version, inputs.remove(0), caller).await?;
    let flat = |of: &dyn Fn(&Answer) -> Vec<f32>| answers.iter().flat_map(of).collect();
    let given: Vec<(Output, Value, Vec<f32>)> = outputs
        .into_iter()
        .map(|output| {
            let values = match output.name.as_str() {
                SET => flat(&Answer::set_in_numbers),
                SPREAD => flat(&|answer| answer.spread.values.clone()),
                SCOPE_SCORE => flat(&|answer| answer.scope.iter().map(|scope| scope.score).collect()),
                name if name == known[0] => flat(&|answer| answer.outputs().values.clone()),
                _ => flat(&|answer| answer.logits.clone()),
            };
            let shape = shape(&app, &version, answers.len() as i64, &output.name);
            (output, shape, values)
        })
        .collect();
    Ok(wire::write((&version.card.task, &version.digest), id, &given))
}

/// What answers may hold here.
fn outputs_here(app: &App, version: &Version) -> Vec<&'static str> {
    let calibration = version.card.calibration_for(&ComputedOn::from(&app.service.engine().info()));
    let further = [
        (SET, calibration.sets.is_some()),
        (SPREAD, version.card.ensemble.is_some()),
        (SCOPE_SCORE, calibration.scope_limits.is_some_and(|limits| limits.limits.is_some())),
    ];
    let said = further.into_iter().filter_map(|(output, said)| said.then_some(output));
    outputs_of(version.card.kind).into_iter().chain(said).collect()
}

/// The shape of an output of so many images: `[n, c]`, of the scores of masks `[n, m, m, c]`, of sets of findings and numbers `[n, c, 2]`, of the score of a scope `[n, 1]`.
fn shape(app: &App, version: &Version, images: i64, output: &str) -> Value {
    let card = &version.card;
    match &card.decoder {
        Some(decoder) if output == SCORES => {
            let side = decoder.side(app.service.engine().backbone().config().patch, card.preprocess.size);
            json!([images, side, side, card.classes.len()])
        }
        _ if output == SET && matches!(card.kind, TaskKind::MultiLabel | TaskKind::Regression) => {
            json!([images, card.classes.len(), 2])
        }
        _ if output == SCOPE_SCORE => json!([images, 1]),
        _ => json!([images, card.classes.len()]),
    }
}

async fn answers(
    app: &Arc<App>,
    version: &Arc<Version>,
    input: Tensor,
    caller: Caller,
) -> Result<Vec<Answer>, Refusal> {
    if input.name == IMAGE {
        let files = input.files()?;
        let image = |(index, bytes): (usize, Vec<u8>)| Image {
            name: format!("image {}", index + 1),
            bytes: bytes.into(),
            sop_instance_uid: None,
        };
        let images = files.into_iter().enumerate().map(image).collect();
        let tasks = vec![format!("{}@{}", version.card.task, version.digest)];
        let request =
            Request { images, slices: None, tasks, heatmap: false, masks: false, preview: false, frame: None, caller };
        let answers = app.service.predict(request).await?;
        let of_bags = answers.bags.into_iter().flat_map(|bag| bag.answers);
        return Ok(answers.images.into_iter().flat_map(|image| image.answers).chain(of_bags).collect());
    }
    if input.name != PIXELS {
        let message = format!("input `{}` is not known, expected `{IMAGE}` or `{PIXELS}`", input.name);
        return Err(Refusal::BadRequest(message));
    }
    let unfit = match (version.card.bag.is_some(), version.card.preprocess.depth.is_some()) {
        (true, _) => Some("answers for bags: its images are"),
        (_, true) => Some("answers for volumes: they are"),
        _ => None,
    };
    if let Some(unfit) = unfit {
        let message = format!("task `{}` {unfit} taken as files in `{IMAGE}`, not as `{PIXELS}`", version.card.task);
        return Err(Refusal::BadRequest(message));
    }
    let size = version.card.preprocess.size;
    let n = match input.shape[..] {
        [n, 3, rows, columns] if n > 0 && rows == size && columns == size => n,
        _ => {
            let message = format!("`{PIXELS}` has shape {:?}, expected [n, 3, {size}, {size}]", input.shape);
            return Err(Refusal::BadRequest(message));
        }
    };
    let most = app.service.limits.images;
    if n > most {
        return Err(Refusal::TooLarge(format!("{n} images were sent, at most {most} are taken at a time")));
    }
    let values = input.floats()?;
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        return Err(Refusal::BadRequest(format!("`{PIXELS}` holds {} at {place}", values[place])));
    }
    let inputs = values.chunks_exact(3 * size * size).map(Arc::from).collect();
    app.service.infer(inputs, version, &caller).await
}
