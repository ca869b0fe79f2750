//! The HTTP doors; what they say is specified in `docs/serve.md`.

mod kserve;
mod openapi;
mod page;
mod predict;
mod refusal;
mod samples;
mod stow;
mod tasks;

use crate::auth::{Access, Identity, Scope};
use crate::dicom::spool::Spool;
use crate::error::Refusal;
use crate::service::Service;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What every handler may use.
pub(crate) struct App {
    /// Answers.
    pub(crate) service: Arc<Service>,
    /// Who may ask.
    pub(crate) access: Access,
    /// Images to try, by name.
    pub(crate) samples: Vec<(String, Bytes)>,
    /// False until the plug-ins of the start were read, and again while the server stops.
    pub(crate) ready: AtomicBool,
    /// Where objects that come by STOW-RS go; none where there is no DICOM network.
    pub(crate) inbox: Option<Arc<Spool>>,
}

impl App {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let limit = app.service.limits.body_bytes;
    let open = Router::new()
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(ready))
        .route("/v1/openapi.json", get(openapi::document))
        .merge(page::routes());
    let predict = Router::new()
        .route("/v1/predict", post(predict::predict))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{name}", get(tasks::show))
        .route("/v1/samples", get(samples::list))
        .route("/v1/samples/{name}", get(samples::show))
        .route("/metrics", get(metrics))
        .merge(kserve::routes())
        .merge(stow::routes())
        .route_layer(middleware::from_fn_with_state((Arc::clone(&app), Scope::Predict), allow));
    let admin = Router::new()
        .route("/v1/tasks/{name}", put(tasks::put).delete(tasks::delete))
        .route("/v1/tasks/{name}/pin", put(tasks::pin).delete(tasks::unpin))
        .route_layer(middleware::from_fn_with_state((Arc::clone(&app), Scope::Admin), allow));
    open.merge(predict)
        .merge(admin)
        .fallback(|| async { Refusal::NotFound("no such page".to_owned()) })
        .layer(DefaultBodyLimit::max(limit))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), watch))
        .with_state(app)
}

/// Lets those through whose key allows it, and tells the handler who they are.
async fn allow(State((app, scope)): State<(Arc<App>, Scope)>, mut request: Request, next: Next) -> Response {
    let identity = match app.access.identify(request.headers()).await {
        Ok(identity) => identity,
        Err(refusal) => return refusal.into_response(),
    };
    if !identity.scopes.contains(&scope) {
        let what = match scope {
            Scope::Predict => "predict",
            Scope::Admin => "admin",
        };
        return Refusal::Forbidden(format!("this needs a key of scope `{what}`")).into_response();
    }
    request.extensions_mut().insert::<Identity>(identity);
    next.run(request).await
}

/// Counts and logs every request; the log holds no names of images or patients.
async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    app.service.metrics.request(&route, status);
    let ms = started.elapsed().as_secs_f64() * 1e3;
    tracing::info!(%method, route, status, ms, "request");
    response
}

async fn ready(State(app): State<Arc<App>>) -> StatusCode {
    match app.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.service.metrics.text(app.service.engine.load());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// A JSON answer.
pub(crate) fn json(value: impl serde::Serialize) -> Response {
    Json(value).into_response()
}
