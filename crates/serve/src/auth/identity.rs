//! Who asks, and what they may.

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
}
