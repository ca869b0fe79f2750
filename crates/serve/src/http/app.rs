//! What every handler may use.

use super::body::Bodies;
use crate::auth::Access;
use crate::dicom::spool::Spool;
use crate::drift::DriftRow;
use crate::service::Service;
use crate::traces::Traces;
use axum::Json;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A server behind its routes.
pub(crate) struct App {
    /// Answers.
    pub(crate) service: Arc<Service>,
    /// Who may ask.
    pub(crate) access: Access,
    /// Images to try, by name.
    pub(crate) samples: Vec<(String, Bytes)>,
    /// What the bodies of all requests may hold.
    pub(crate) bodies: Arc<Bodies>,
    /// Where requests are told of; none where nobody collects.
    pub(crate) traces: Option<Traces>,
    /// Names that this machine is asked by beside addresses; none where pages of other sites are no danger: there are keys, or
    /// another application listens.
    pub(crate) hosts: Option<Vec<String>>,
    /// From when the server is asked to stop.
    pub(crate) stopping: AtomicBool,
    /// Where objects that come by STOW-RS go; none where there is no DICOM network.
    pub(crate) inbox: Option<Arc<Spool>>,
}

impl App {
    /// Charts of the versions that are known.
    pub(crate) fn drift(&self) -> Vec<DriftRow> {
        self.service.drift.rows(|version| self.service.registry.known(version).is_some())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Why requests should go elsewhere now; nothing where it is ready. Paths and names of tasks concern nobody outside.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let Service { batches, registry, .. } = &*self.service;
        let stopping = self.is_stopping().then(|| "the server is stopping".to_owned());
        let nothing = (!registry.serves_any()).then(|| "no plug-in is served".to_owned());
        let pressed = |time: Duration| {
            format!("the queue has {} of {} rows, for {} s", batches.load(), batches.capacity(), time.as_secs())
        };
        let pressed = batches.pressed().map(pressed);
        let inbox = self.inbox.as_ref().and_then(|inbox| inbox.room().err()).map(|full| full.to_string());
        [stopping, nothing, pressed, inbox, self.service.audit_trouble()].into_iter().flatten().collect()
    }
}

/// A JSON answer.
pub(crate) fn json(value: impl serde::Serialize) -> Response {
    Json(value).into_response()
}
