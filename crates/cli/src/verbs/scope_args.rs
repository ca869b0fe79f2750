//! What is asked of a scope.

use melo::train::ScopeSettings;

/// Flags of the scope.
#[derive(clap::Args)]
#[command(next_help_heading = "Scope")]
pub(crate) struct ScopeArgs {
    /// Share of images like those of the training that may be called out of scope, between 0 and 1 [default: 0.05]
    #[arg(long, value_name = "SHARE")]
    scope_false_alarms: Option<f64>,
}

impl ScopeArgs {
    /// Whether anything is asked for.
    pub(crate) fn says_anything(&self) -> bool {
        self.scope_false_alarms.is_some()
    }

    /// What is asked for; `usual` where nothing is said.
    pub(crate) fn settings(&self, usual: ScopeSettings) -> ScopeSettings {
        ScopeSettings { false_alarms: self.scope_false_alarms.unwrap_or(usual.false_alarms) }
    }
}
