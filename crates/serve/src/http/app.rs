//! What every handler may use.

use super::body::Bodies;
use crate::auth::Access;
use crate::dicom::spool::Spool;
use crate::service::Service;
use crate::traces::Traces;
use axum::Json;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// False until the plug-ins of the start were read, and again while the server stops.
    pub(crate) ready: AtomicBool,
    /// Where objects that come by STOW-RS go; none where there is no DICOM network.
    pub(crate) inbox: Option<Arc<Spool>>,
}

impl App {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Why it cannot keep its word now; nothing where it can. Paths concern nobody outside.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let stopping = (!self.is_ready()).then(|| "the server is starting or stopping".to_owned());
        let inbox = self.inbox.as_ref().and_then(|inbox| inbox.room().err()).map(|full| full.to_string());
        [stopping, inbox, self.service.audit_trouble()].into_iter().flatten().collect()
    }
}

/// A JSON answer.
pub(crate) fn json(value: impl serde::Serialize) -> Response {
    Json(value).into_response()
}
