//! The server's side of the wire: its list of tasks, and one request.

use super::expected::{Expected, Image};
use crate::Failure;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;

/// Separates the parts of a request; no PNG of ours holds it.
const BOUNDARY: &str = "melo-bench-load-7d1f1c0e5a";
/// Bytes of an answer that are read at most.
const MOST_BYTES: u64 = 64 << 20;
/// Wait after a 429 that does not say how long.
const USUAL_WAIT: Duration = Duration::from_secs(1);

/// A server to ask.
pub(crate) struct Server {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

/// What came back.
pub(crate) enum Reply {
    Answered(Answered),
    /// 429, or 503 with a time to come back after: how long to wait.
    Busy(Duration),
    Failed(String),
}

/// The body of a 200; fields that are not compared are passed over.
#[derive(Deserialize)]
pub(crate) struct Answered {
    pub(crate) images: Vec<AnsweredImage>,
}

#[derive(Deserialize)]
pub(crate) struct AnsweredImage {
    pub(crate) name: String,
    pub(crate) answers: Vec<Answer>,
}

#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) task: String,
    pub(crate) version: String,
    pub(crate) probabilities: HashMap<String, f32>,
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    version: String,
}

type Response = ureq::http::Response<ureq::Body>;

impl Server {
    pub(crate) fn new(url: &str, key: Option<&str>, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            // A server on loopback is never behind a proxy; each client's connection is kept for its next request.
            .proxy(None)
            .max_idle_connections(4096)
            .max_idle_connections_per_host(4096);
        Server {
            agent: config.build().into(),
            url: url.trim_end_matches('/').to_owned(),
            authorization: key.map(|key| format!("Bearer {key}")),
        }
    }

    /// The server's names of all expected tasks.
    pub(crate) fn names_of(&self, expected: &Expected) -> Result<Vec<String>, Failure> {
        let url = format!("{}/v1/tasks", self.url);
        let wrong = |reason: String| Failure::Message(format!("{url}: {reason}"));
        let request = self.authorization.iter().fold(self.agent.get(&url), |r, key| r.header("authorization", key));
        let response = request.call().map_err(|error| wrong(error.to_string()))?;
        let body = body(response).map_err(wrong)?;
        let served: Tasks = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
        let name = |digest: &str| served.tasks.iter().find(|task| task.version == digest).map(|task| task.name.clone());
        let missing = |digest: &str| wrong(format!("serves no plug-in of the version {digest}, which is in --plugins"));
        expected.tasks.iter().map(|task| name(&task.digest).ok_or_else(|| missing(&task.digest))).collect()
    }

    /// Asks about one image.
    pub(crate) fn predict(&self, image: &Image, tasks: &str) -> Reply {
        let url = format!("{}/v1/predict", self.url);
        let request = self.authorization.iter().fold(self.agent.post(&url), |r, key| r.header("authorization", key));
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let response = match request.content_type(content_type).send(&form(image, tasks)[..]) {
            Ok(response) => response,
            Err(error) => return Reply::Failed(error.to_string()),
        };
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        match (response.status().as_u16(), seconds.map(Duration::from_secs)) {
            (429, wait) => return Reply::Busy(wait.unwrap_or(USUAL_WAIT)),
            (503, Some(wait)) => return Reply::Busy(wait),
            _ => {}
        }
        let parsed = body(response).and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()));
        parsed.map_or_else(Reply::Failed, Reply::Answered)
    }
}

/// The body of a 200; of another status the beginning of what it says.
fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let status = response.status();
    let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(|error| error.to_string())?;
    if status == 200 {
        return Ok(body);
    }
    let said = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    Err(format!("HTTP {status}: {}", said.trim()))
}

/// A multipart form (RFC 7578): the image, and the names of the tasks.
fn form(image: &Image, tasks: &str) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"tasks\"\r\n\r\n{tasks}\r\n\
         --{BOUNDARY}\r\ncontent-disposition: form-data; name=\"image\"; filename=\"{}\"\r\n\
         content-type: image/png\r\n\r\n",
        image.name
    );
    [head.as_bytes(), &image.bytes, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
}
