//! Runs of MLflow, over its REST API 2.0 (<https://mlflow.org/docs/latest/rest-api.html>).

use crate::error::Error;
use crate::record::{Record, Run, Status};
use crate::worker::Sink;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use melo_train::card_sheet;
use melo_vit::{PluginInfo, write_atomically};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::Agent;
use ureq::http::{Method, Uri};

/// How long an answer may take, but for artifacts.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an artifact may take.
const UPLOAD: Duration = Duration::from_secs(120);
/// How long figures wait for others.
const PAUSE: Duration = Duration::from_secs(1);
/// Parameters that go with one request.
const PARAMETERS: usize = 100;
/// Metrics that go with one request.
const METRICS: usize = 800;
/// The longest value of a parameter that every version takes, characters.
const VALUE: usize = 500;
/// The longest answer, bytes.
const ANSWER: u64 = 4 << 20;
/// What of a run folder says which runs of which servers it is.
const RUNS: &str = "mlflow.json";

/// Who asks a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAccess {
    /// A token, or
    pub token: Option<String>,
    /// a name and a password.
    pub password: Option<(String, String)>,
    /// The experiment, in the place of the training's own.
    pub experiment: Option<String>,
}

impl ServerAccess {
    /// By the variables of MLflow's clients: `MLFLOW_TRACKING_TOKEN`, `MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_PASSWORD`,
    /// `MLFLOW_EXPERIMENT_NAME`.
    pub fn from_env() -> Self {
        let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        ServerAccess {
            token: of("MLFLOW_TRACKING_TOKEN"),
            password: of("MLFLOW_TRACKING_USERNAME")
                .map(|name| (name, of("MLFLOW_TRACKING_PASSWORD").unwrap_or_default())),
            experiment: of("MLFLOW_EXPERIMENT_NAME"),
        }
    }
}

/// A tracking server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    address: String,
    is_near: bool,
    authorization: Option<String>,
    experiment: Option<String>,
}

impl Server {
    /// By its address, `http://HOST:PORT/PATH`; tokens and passwords are sent unencrypted to this machine alone.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &str, access: ServerAccess) -> Result<Self, Error> {
        let wrong = |reason| Err(Error::Address { address: address.escape_debug().to_string(), reason });
        let expected = "expected http://HOST:PORT or https://HOST";
        let Ok(uri) = address.parse::<Uri>() else { return wrong(expected) };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() || uri.query().is_some() || uri.authority().is_some_and(|of| of.as_str().contains('@')) {
            return wrong(expected);
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_near = host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let ServerAccess { token, password, experiment } = access;
        let authorization = match (token, password) {
            (Some(token), _) => Some(format!("Bearer {token}")),
            (None, Some((name, password))) => Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))),
            (None, None) => None,
        };
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_near || authorization.is_none() => {}
            Some("http") => return wrong("a token or password goes over https alone"),
            _ => return wrong(expected),
        }
        Ok(Server { address: address.trim_end_matches('/').to_owned(), is_near, authorization, experiment })
    }
}

/// Writes to a run of a server.
pub(crate) struct MlFlow {
    agent: Agent,
    server: Server,
    run: Run,
    /// Those that were not sent yet.
    settings: Vec<(String, String)>,
    /// Identity and the place of artifacts, once it is there.
    current: Option<(String, String)>,
}

impl MlFlow {
    pub(crate) fn new(server: &Server, run: &Run, settings: Vec<(String, String)>) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = config.build().new_agent();
        MlFlow { agent, server: server.clone(), run: run.clone(), settings, current: None }
    }

    /// Asks, and gives the answer of a success.
    fn ask(&self, method: Method, path: &str, query: &[(&str, &str)], body: Vec<u8>) -> Result<Value, Error> {
        let address = format!("{}/api/2.0/{path}", self.server.address);
        let lost = |reason: String| Error::Lost { address: address.clone(), reason };
        let patience = if method == Method::PUT { UPLOAD } else { PATIENCE };
        let mut uri = address.clone();
        for (number, (name, value)) in query.iter().enumerate() {
            uri += &format!("{}{name}={}", if number == 0 { '?' } else { '&' }, encoded(value));
        }
        let mut request = ureq::http::Request::builder().method(method).uri(uri);
        if let Some(authorization) = &self.server.authorization {
            request = request.header("authorization", authorization);
        }
        let kind = if path.starts_with("mlflow/") { "application/json" } else { "application/octet-stream" };
        let request = request.header("content-type", kind);
        let request = request.body(body).map_err(|error| lost(error.to_string()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(patience)).build();
        let mut response = self.agent.run(request).map_err(|error| lost(error.to_string()))?;
        let status = response.status();
        let bytes = response.body_mut().with_config().limit(ANSWER).read_to_vec();
        let bytes = bytes.map_err(|error| lost(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let said = [&answer["error_code"], &answer["message"]].map(|of| of.as_str().unwrap_or_default().to_owned());
        let reason = format!("{status} {}", said.join(" ")).trim_end().to_owned();
        match status.is_server_error() || [408, 429].contains(&status.as_u16()) {
            true => Err(lost(reason)),
            false => Err(Error::Refused { address, reason }),
        }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.ask(Method::POST, &format!("mlflow/{path}"), &[], body.to_string().into_bytes())
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Error> {
        self.ask(Method::GET, &format!("mlflow/{path}"), query, Vec::new())
    }

    /// A field of an answer that must be there.
    fn text(&self, value: &Value) -> Result<String, Error> {
        let missing = || Error::Refused {
            address: self.server.address.clone(),
            reason: "it answers, but not as MLflow does".to_owned(),
        };
        value.as_str().map(str::to_owned).ok_or_else(missing)
    }

    /// The experiment of this name, made where it is missing: by another run at the same time, perhaps.
    fn experiment(&self) -> Result<String, Error> {
        let name = self.server.experiment.as_ref().unwrap_or(&self.run.experiment);
        let known = || self.get("experiments/get-by-name", &[("experiment_name", name)]);
        let is = |error: &Error, code: &str| matches!(error, Error::Refused { reason, .. } if reason.contains(code));
        match known() {
            Err(error) if is(&error, "RESOURCE_DOES_NOT_EXIST") => {
                match self.post("experiments/create", &json!({ "name": name })) {
                    Err(error) if is(&error, "RESOURCE_ALREADY_EXISTS") => {
                        self.text(&known()?["experiment"]["experiment_id"])
                    }
                    made => self.text(&made?["experiment_id"]),
                }
            }
            found => self.text(&found?["experiment"]["experiment_id"]),
        }
    }

    /// Takes up the folder's run, or makes one.
    fn begin(&mut self, goes_on: bool) -> Result<(), Error> {
        if let Some(id) = self.kept() {
            match self.get("runs/get", &[("run_id", &id)]) {
                Ok(found) if goes_on => {
                    self.post("runs/update", &json!({ "run_id": id, "status": "RUNNING" }))?;
                    self.current = Some((id, self.text(&found["run"]["info"]["artifact_uri"])?));
                    self.settings.clear();
                    return Ok(());
                }
                // A training that was killed before its first epoch.
                Ok(found) if found["run"]["info"]["status"] == "RUNNING" => {
                    self.post("runs/update", &json!({ "run_id": id, "status": "KILLED" }))?;
                }
                Err(error @ Error::Lost { .. }) => return Err(error),
                _ => {}
            }
        }
        let tags = self.run.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let user = std::env::var("USER").unwrap_or_default();
        let own = [("mlflow.source.name", melo_train::SOFTWARE), ("mlflow.user", &*user)];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        let tags: Vec<Value> = tags.chain(own).map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let made = self.post(
            "runs/create",
            &json!({
                "experiment_id": self.experiment()?,
                "run_name": self.run.name,
                "start_time": millis(SystemTime::now()),
                "tags": tags,
            }),
        )?;
        let info = &made["run"]["info"];
        let (id, place) = (self.text(&info["run_id"])?, self.text(&info["artifact_uri"])?);
        self.keep(&id)?;
        self.current = Some((id, place));
        Ok(())
    }

    /// Sends the settings that were not sent yet.
    fn send_settings(&mut self) -> Result<(), Error> {
        let Some((id, _)) = &self.current else { return Ok(()) };
        let value = |value: &str| value.chars().take(VALUE).collect::<String>();
        while !self.settings.is_empty() {
            let some = self.settings.len().min(PARAMETERS);
            let params: Vec<Value> =
                self.settings[..some].iter().map(|(key, of)| json!({ "key": word(key), "value": value(of) })).collect();
            self.post("runs/log-batch", &json!({ "run_id": id, "params": params }))?;
            self.settings.drain(..some);
        }
        Ok(())
    }

    fn runs_file(&self) -> Option<PathBuf> {
        Some(self.run.folder.as_ref()?.join(RUNS))
    }

    /// The folder's runs, by server.
    fn runs(&self) -> Map<String, Value> {
        let read = || serde_json::from_slice(&std::fs::read(self.runs_file()?).ok()?).ok();
        read().unwrap_or_default()
    }

    fn kept(&self) -> Option<String> {
        Some(self.runs().get(&self.server.address)?.as_str()?.to_owned())
    }

    fn keep(&self, id: &str) -> Result<(), Error> {
        let Some(path) = self.runs_file() else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
        }
        let mut runs = self.runs();
        runs.insert(self.server.address.clone(), id.into());
        Ok(write_atomically(&path, Value::from(runs).to_string().as_bytes())?)
    }

    /// Sends a file of the run, or lays it where a server of this machine keeps it.
    fn artifact(&self, place: &str, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        if let Some(path) = place.strip_prefix("mlflow-artifacts:") {
            // `mlflow-artifacts:/path`, or with the server's own name in front.
            let path = path.strip_prefix("//").map_or(path, |rest| rest.find('/').map_or("", |slash| &rest[slash..]));
            let path = format!("mlflow-artifacts/artifacts{path}/{}", encoded(name));
            return self.ask(Method::PUT, &path, &[], bytes).map(drop);
        }
        let local = Path::new(place.strip_prefix("file://").unwrap_or(place));
        if !(self.server.is_near && local.is_absolute()) {
            let reason = format!("its artifacts are in {place}, which it does not hand on");
            return Err(Error::Refused { address: self.server.address.clone(), reason });
        }
        let path = local.join(name);
        let written = std::fs::create_dir_all(local).and_then(|()| std::fs::write(&path, bytes));
        written.map_err(|source| Error::Io { path, source })
    }

    fn plugin(&self, place: &str, path: &Path) -> Result<(), Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let card = card_sheet(&PluginInfo::read(path)?).html();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.artifact(place, &name, bytes)?;
        self.artifact(place, "card.html", card.into_bytes())
    }

    /// The figures at the front, in one request; how many records they were.
    fn metrics(&self, id: &str, pending: &VecDeque<Record>) -> (usize, Result<(), Error>) {
        let (mut taken, mut metrics) = (0, Vec::new());
        for record in pending {
            let Record::Scalars { step, at, values } = record else { break };
            if !metrics.is_empty() && metrics.len() + values.len() > METRICS {
                break;
            }
            taken += 1;
            metrics.extend(values.iter().filter(|(_, value)| value.is_finite()).map(
                |(key, value)| json!({ "key": word(key), "value": value, "timestamp": millis(*at), "step": step }),
            ));
        }
        (taken, self.post("runs/log-batch", &json!({ "run_id": id, "metrics": metrics })).map(drop))
    }
}

impl Sink for MlFlow {
    fn write(&mut self, pending: &mut VecDeque<Record>) -> Result<(), Error> {
        while let Some(record) = pending.front() {
            let (taken, written) = match (&self.current, record) {
                (_, Record::Begin { goes_on, .. }) => {
                    let goes_on = *goes_on;
                    // What was made before the server was lost is not made again.
                    let begun = if self.current.is_none() { self.begin(goes_on) } else { Ok(()) };
                    (1, begun.and_then(|()| self.send_settings()))
                }
                (None, _) => (1, Ok(())),
                (Some((id, _)), Record::Scalars { .. }) => self.metrics(id, pending),
                (Some((_, place)), Record::Plugin { path, .. }) => (1, self.plugin(place, path)),
                (Some((id, _)), Record::End { at, status }) => {
                    let status = match status {
                        Status::Finished => "FINISHED",
                        Status::Failed => "FAILED",
                        Status::Killed => "KILLED",
                    };
                    let body = json!({ "run_id": id, "status": status, "end_time": millis(*at) });
                    (1, self.post("runs/update", &body).map(drop))
                }
                (Some(_), Record::Picture { .. } | Record::Curves { .. }) => (1, Ok(())),
            };
            match written {
                Err(error @ Error::Lost { .. }) => return Err(error),
                done => {
                    pending.drain(..taken);
                    done?;
                }
            }
        }
        Ok(())
    }

    fn wants_pictures(&self) -> bool {
        false
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn name(&self) -> String {
        format!("MLflow at {}", self.server.address)
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// A name as MLflow takes it.
fn word(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "_-./ ".contains(c) { c } else { '_' }).collect()
}

/// Percent-encoded but for what is never special (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_and_no_token_leaves_unencrypted() {
        let open = ServerAccess::default();
        for address in ["", "mlflow", "file:///tmp/x", "http://", "http://u:p@host", "http://host/?x=1", "sqlite:///x"]
        {
            assert!(matches!(Server::new(address, open.clone()), Err(Error::Address { .. })), "{address}");
        }
        Server::new("http://host:5000", open).expect("an address");
        let token = ServerAccess { token: Some("secret".to_owned()), ..ServerAccess::default() };
        for address in ["https://host", "http://127.0.0.1:5000/", "http://[::1]:5000", "http://localhost"] {
            let server = Server::new(address, token.clone()).expect("an address");
            assert_eq!(server.authorization.as_deref(), Some("Bearer secret"));
        }
        let error = Server::new("http://host:5000", token).unwrap_err().to_string();
        assert_eq!(error, "`http://host:5000`: a token or password goes over https alone");
        let password = ServerAccess { password: Some(("a".to_owned(), "b".to_owned())), ..ServerAccess::default() };
        let server = Server::new("https://host", password).expect("an address");
        assert_eq!(server.authorization.as_deref(), Some("Basic YTpi"));
    }

    #[test]
    fn names_are_what_mlflow_takes() {
        assert_eq!(word("test_auc/a:b (c)"), "test_auc/a_b _c_");
        assert_eq!(encoded("a b/ü.x"), "a%20b%2F%C3%BC.x");
    }
}
