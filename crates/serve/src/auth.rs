//! Who may ask what.

use crate::error::Refusal;
use axum::http::HeaderMap;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask for answers, list tasks, read metrics.
    Predict,
    /// Change which plug-ins are served.
    Admin,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Name of the key; goes into the audit.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// How callers show who they are.
#[derive(Default)]
pub struct Access {}

impl Access {
    /// Who sent these headers.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`].
    pub async fn identify(&self, _headers: &HeaderMap) -> Result<Identity, Refusal> {
        Ok(Identity { name: "anonymous".to_owned(), scopes: vec![Scope::Predict] })
    }
}
