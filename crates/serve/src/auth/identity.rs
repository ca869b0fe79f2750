//! Who asks, and what they may.

use crate::request::Caller;
use std::net::IpAddr;

/// Who shows nothing where nothing is asked for.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask for answers, list tasks, read metrics.
    Predict,
    /// Change which plug-ins are served.
    Admin,
}

impl Scope {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Predict => "predict",
            Scope::Admin => "admin",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Name of the key, or `oidc:` and the token's subject; goes into the audit.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Where the request comes from, if that is known.
    pub address: Option<IpAddr>,
}

impl Identity {
    /// With a request that came through a door.
    pub(crate) fn caller(self, via: &'static str, request_id: String) -> Caller {
        Caller { who: self.name, via, request_id, address: self.address }
    }
}
