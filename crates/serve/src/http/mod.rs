//! The HTTP doors; what they say is specified in `docs/serve.md`.

mod app;
mod body;
pub(crate) mod fuzzing;
mod kserve;
mod listen;
mod openapi;
mod page;
mod predict;
mod refusal;
mod request_id;
mod samples;
mod site;
mod stow;
mod tasks;

use crate::auth::{Identity, Scope};
use crate::error::Refusal;
use crate::request::Caller;
use crate::service::Service;
use crate::traces::{Context, Span};
pub(crate) use app::App;
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
pub(crate) use body::Bodies;
pub(crate) use listen::Listener;
use listen::Peer;
use request_id::RequestId;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let limit = app.service.limits.body_bytes;
    let open = Router::new()
        .route("/healthz", get(live))
        .route("/v2/health/live", get(live))
        .route("/readyz", get(ready))
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

/// What answers while the plug-ins are read: it lives, and is not ready.
pub(crate) fn starting() -> Router {
    let refused = |uri: Uri| async move { Refusal::Starting.said(uri.path()) };
    let unready = || async { readiness(&[Refusal::Starting.to_string()], 0) };
    Router::new()
        .route("/healthz", get(live))
        .route("/v2/health/live", get(live))
        .route("/readyz", get(unready))
        .route("/v2/health/ready", get(unready))
        .fallback(refused)
}

/// Lets those through whose key allows it, and tells the handler who they are.
async fn allow(State((app, scope)): State<(Arc<App>, Scope)>, mut request: Request, next: Next) -> Response {
    let route = request.uri().path();
    let address = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let request_id = request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
    let caller = |who: &str| Caller { who: who.to_owned(), via: "http", request_id, address };
    let visitors = &app.service.visitors;
    let identity = match app.access.identify(request.headers()).await {
        Ok(identity) => Identity { address, ..identity },
        Err(refusal) => {
            if matches!(refusal, Refusal::Unauthorized(_)) {
                visitors.turn_away(caller("unknown"), &refusal.to_string());
            }
            return refusal.said(route);
        }
    };
    if !identity.scopes.contains(&scope) {
        let what = match scope {
            Scope::Predict => "predict",
            Scope::Admin => "admin",
        };
        let refusal = Refusal::Forbidden(format!("this needs a key of scope `{what}`"));
        visitors.turn_away(caller(&identity.name), &refusal.to_string());
        return refusal.said(route);
    }
    if !app.access.is_open() {
        visitors.let_in(caller(&identity.name));
    }
    request.extensions_mut().insert(identity.clone());
    let mut response = next.run(request).await;
    // For the log.
    response.extensions_mut().insert(identity);
    response
}

/// Names, bounds, counts and logs every request; the log holds no names of images or patients.
async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let id = RequestId::of(&parts.headers);
    let context = app.traces.as_ref().map(|_| Context::of(&parts.headers));
    let span = tracing::info_span!("request", request_id = id.0);
    parts.extensions.insert(id.clone());
    let route = parts.extensions.get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let method = parts.method.clone();
    let limit = app.service.limits.body_bytes;
    let announced = body.size_hint().lower();
    let (body, held) = app.bodies.bound(body);
    let foreign = app.hosts.as_ref().and_then(|hosts| site::check(&parts.uri, &parts.headers, hosts).err());
    let response = match (foreign, announced > limit as u64) {
        (Some(refusal), _) => refusal.said(&route),
        (None, true) => {
            Refusal::TooLarge(format!("the body has {announced} bytes, at most {limit} are taken")).said(&route)
        }
        (None, false) => next.run(Request::from_parts(parts, body)).instrument(span.clone()).await,
    };
    let who = response.extensions().get::<Identity>().map(|identity| identity.name.clone());
    let mut response = match held.refusal() {
        Some(refusal) if !response.status().is_success() => refusal.said(&route),
        _ => refusal::in_our_words(response, &route).await,
    };
    let status = response.status().as_u16();
    app.service.metrics.request(&route, status);
    let took = started.elapsed();
    let ms = took.as_secs_f64() * 1e3;
    let peer = peer.map(tracing::field::display);
    span.in_scope(|| tracing::info!(%method, route, status, ms, who, peer, "request"));
    if let (Some(traces), Some(context)) = (&app.traces, &context) {
        traces.add(&Span { context, method: method.as_str(), route: &route, status, request_id: &id.0, took });
    }
    if app.is_stopping() {
        // A balancer must not find its kept connection closed under the next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(id) = id.header() {
        response.headers_mut().insert(request_id::HEADER, id);
    }
    response
}

async fn live() -> StatusCode {
    StatusCode::OK
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    // Not among the threads that block: they may all be at work. Names of tasks are for those who may ask.
    let (troubles, not_served) = (app.troubles(), app.service.registry.problems().len());
    readiness(&troubles, not_served)
}

/// What `/readyz` says.
fn readiness(troubles: &[String], not_served: usize) -> Response {
    let status = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": troubles.is_empty(), "reasons": troubles, "not_served": not_served });
    (status, app::json(body)).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let Service { metrics, batches, registry, audit, .. } = &*app.service;
    metrics.ready(app.troubles().is_empty());
    metrics.problems(registry.problems().len());
    metrics.drift(&app.drift());
    if let Some(audit) = audit {
        metrics.audit_holds(audit.head().rows);
    }
    let text = metrics.text(batches.load());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
