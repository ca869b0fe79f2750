//! A server of the real binary, and who asks it.

use crate::form::{Field, form};
use crate::workplace::{Workplace, run};
use base64::Engine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    /// Where it says that it takes DICOM objects.
    pub(crate) dicom: Option<SocketAddr>,
}

impl Server {
    /// Starts it; standard error goes into `server.log` of the workplace.
    pub(crate) fn start(place: &Workplace, command: &mut Command) -> Self {
        let log = place.at("server.log");
        let mut server = Server::logging_to(File::create(&log).expect("a log"), command);
        let text = std::fs::read_to_string(&log).expect("the log");
        assert!(!server.url.is_empty(), "the server does not listen: {text}");
        let address = text.lines().find_map(|line| line.strip_prefix("DICOM: listening on "));
        server.dicom = address.map(|address| address.parse().expect("an address"));
        server
    }

    /// Starts it; the address is empty where it ends instead.
    pub(crate) fn logging_to(log: File, command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        Server { child, url, dicom: None }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).expect("JSON")
    }

    pub(crate) fn text(&self, path: &str) -> String {
        let mut response = agent(true).get(format!("{}{path}", self.url)).call().expect("the server answers");
        response.body_mut().read_to_string().expect("text")
    }

    /// What KServe's protocol answers to a file, each output by its name.
    pub(crate) fn infer(&self, task: &str, file: &[u8], outputs: &[&str]) -> BTreeMap<String, Value> {
        let data = base64::engine::general_purpose::STANDARD.encode(file);
        let inputs = [json!({ "name": "image", "shape": [1], "datatype": "BYTES", "data": [data] })];
        let outputs: Vec<Value> = outputs.iter().map(|name| json!({ "name": name })).collect();
        let request = json!({ "inputs": inputs, "outputs": outputs }).to_string();
        let posted = agent(true).post(format!("{}/v2/models/{task}/infer", self.url)).send(request.as_bytes());
        let text = posted.expect("the server answers").body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let outputs = answer["outputs"].as_array().expect("outputs");
        outputs.iter().map(|output| (output["name"].as_str().expect("a name").to_owned(), output.clone())).collect()
    }

    /// The status at a path.
    pub(crate) fn status(&self, path: &str) -> u16 {
        let response = agent(false).get(format!("{}{path}", self.url)).call().expect("the server answers");
        response.status().as_u16()
    }

    pub(crate) fn predict(&self, fields: &[Field<'_>]) -> Result<Value, ureq::Error> {
        predict(&self.url, fields, &[])
    }

    /// Status and answer, whatever they are.
    pub(crate) fn said(&self, fields: &[Field<'_>]) -> (u16, Value) {
        let (kind, body) = form(fields);
        let request = agent(false).post(format!("{}/v1/predict", self.url)).header("content-type", kind);
        let mut response = request.send(&body[..]).expect("the server answers");
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), serde_json::from_str(&text).expect("JSON"))
    }

    /// Sends a signal and gives the exit status.
    pub(crate) fn signal(mut self, signal: &str) -> Option<i32> {
        run(Command::new("kill").arg(signal).arg(self.child.id().to_string())).good();
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status.code();
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer; a refusal is an error.
pub(crate) fn predict(url: &str, fields: &[Field<'_>], headers: &[(&str, &str)]) -> Result<Value, ureq::Error> {
    let (kind, body) = form(fields);
    let mut request = agent(true).post(format!("{url}/v1/predict")).header("content-type", kind);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let text = request.send(&body[..])?.body_mut().read_to_string()?;
    Ok(serde_json::from_str(&text).expect("JSON"))
}

fn agent(refusals_are_errors: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(refusals_are_errors);
    config.timeout_global(Some(Duration::from_secs(60))).build().into()
}
