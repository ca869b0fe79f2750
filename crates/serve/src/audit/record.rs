//! What is recorded.

use serde::Serialize;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A task's answer for an image.
    Answer,
    /// A plug-in was sent to be served.
    Put,
    /// A task is no longer to be served.
    Remove,
    /// A version is to stay.
    Pin,
    /// Newer versions may come again.
    Unpin,
    /// Another version of a task is served from now on, however it came.
    Serve,
    /// A task is no longer served, for whatever reason.
    Withdraw,
    /// A caller was let in who had not been for a while.
    Login,
    /// Callers were turned away.
    Refuse,
    /// The file of keys has changed.
    Keys,
    /// The server began.
    Start,
    /// The server ended as it should.
    Stop,
    /// The first rows were moved to an archive.
    Archive,
}

impl Action {
    /// As it stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Action::Answer => "answer",
            Action::Put => "put",
            Action::Remove => "remove",
            Action::Pin => "pin",
            Action::Unpin => "unpin",
            Action::Serve => "serve",
            Action::Withdraw => "withdraw",
            Action::Login => "login",
            Action::Refuse => "refuse",
            Action::Keys => "keys",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Archive => "archive",
        }
    }
}

/// One task's answer for one image, or what else was done or asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// What was asked for.
    pub action: Action,
    /// The request, as the log and the answer's `x-request-id` name it.
    pub request_id: String,
    /// Name of the key, or of the calling application entity; `melo` where nobody asked.
    pub who: String,
    /// The door: `http`, `kserve`, `dicom`, `stow`; `server` where nobody asked.
    pub via: String,
    /// SHA-256 of the image's bytes, and `#frame=3` behind it where the request asked for a frame; none of changes.
    pub input_digest: Option<String>,
    /// SOP Instance UID, for DICOM.
    pub sop_instance_uid: Option<String>,
    /// Name of the task, of changes as it was given; empty where none is meant.
    pub task: String,
    /// SHA-256 of the plug-in file, where one is meant.
    pub plugin_digest: Option<String>,
    /// SHA-256 of the backbone.
    pub backbone_digest: String,
    /// Numbers that it was computed in.
    pub precision: String,
    /// Probabilities by class, or numbers by name; of what else was done what there is to say of it, or null.
    pub output: serde_json::Value,
}
