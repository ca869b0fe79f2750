//! Plug-ins on the Hugging Face hub: pushed by its API as `huggingface_hub` does, with large files by Git LFS.

use crate::error::Error;
use crate::http::{Answer, Client, WORDS, encoded};
use crate::{Bundle, Found, PLUGIN, README, SIGNATURE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::http::Method;

const JSON: &str = "application/json";
const LFS: &str = "application/vnd.git-lfs+json";
/// What every plug-in is found by.
const LIBRARY: &str = "melo";
/// Plug-ins that a search gives at most.
const FOUND: usize = 50;

/// The hub, and who asks it.
struct Hub {
    client: Client,
    address: String,
    authorization: Option<String>,
}

impl Hub {
    fn new() -> Result<Self, Error> {
        let (address, token) =
            melo_interop::hub_access().map_err(|reason| Error::Away { address: "the hub".to_owned(), reason })?;
        Ok(Hub { client: Client::new(), address, authorization: token.map(|token| format!("Bearer {token}")) })
    }

    fn ask(&self, method: &Method, path: &str, kind: &str, body: &[u8]) -> Result<Answer, Error> {
        let mut headers = vec![("content-type", kind), ("accept", if kind == LFS { LFS } else { JSON })];
        headers.extend(self.authorization.as_deref().map(|value| ("authorization", value)));
        let address = if path.starts_with('/') { format!("{}{path}", self.address) } else { path.to_owned() };
        self.client.ask(method, &address, &headers, body, WORDS)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.ask(&Method::POST, path, JSON, body.to_string().as_bytes())
    }

    /// Sends the bytes of a file that is kept by its SHA-256, unless they are there.
    fn put(&self, name: &str, bytes: &[u8], digest: &str) -> Result<(), Error> {
        let object = json!({ "oid": digest, "size": bytes.len() });
        let batch = json!({
            "operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": [object],
        });
        let path = format!("/{name}.git/info/lfs/objects/batch");
        let answer = self.ask(&Method::POST, &path, LFS, batch.to_string().as_bytes())?.success()?;
        let said = &answer.json()?["objects"][0];
        if said["error"].is_object() {
            let said = said["error"]["message"].as_str().unwrap_or_default().to_owned();
            return Err(Error::Refused { address: answer.address, status: answer.status, said });
        }
        let Some(upload) = said["actions"]["upload"]["href"].as_str() else { return Ok(()) };
        let own = said["actions"]["upload"]["header"].as_object().cloned().unwrap_or_default();
        let headers: Vec<(&str, &str)> =
            own.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
        self.client.ask(&Method::PUT, upload, &headers, bytes, WORDS)?.success()?;
        if let Some(verify) = said["actions"]["verify"]["href"].as_str() {
            let is_own = verify.strip_prefix(&self.address).is_some_and(|path| path.starts_with('/'));
            if is_own {
                self.ask(&Method::POST, verify, LFS, object.to_string().as_bytes())?.success()?;
            }
        }
        Ok(())
    }
}

pub(crate) fn push(name: &str, revision: Option<&str>, is_private: bool, bundle: &Bundle) -> Result<String, Error> {
    let hub = Hub::new()?;
    let tag = revision.filter(|revision| *revision != "main");
    if let Some(tag) = tag {
        let path = format!("/api/models/{name}/revision/{}", encoded(tag));
        if hub.ask(&Method::GET, &path, JSON, &[])?.is_success() {
            let said = "this revision is there already".to_owned();
            return Err(Error::Refused { address: format!("hf:{name}@{tag}"), status: 409, said });
        }
    }
    let (owner, model) = name.split_once('/').unwrap_or(("", name));
    let made = json!({ "type": "model", "name": model, "organization": owner, "private": is_private });
    let made = hub.post("/api/repos/create", &made)?;
    if made.status != 409 {
        made.success()?;
    }
    hub.put(name, &bundle.plugin, &bundle.info.digest)?;
    let small = |path: &str, bytes: &[u8]| json!({ "key": "file", "value": { "path": path, "encoding": "base64", "content": STANDARD.encode(bytes) } });
    let large = json!({ "path": PLUGIN, "algo": "sha256", "oid": bundle.info.digest, "size": bundle.plugin.len() });
    let summary = format!("{}, SHA-256 {}", bundle.info.card.task, bundle.info.digest);
    let mut lines = vec![
        json!({ "key": "header", "value": { "summary": summary, "description": "" } }),
        json!({ "key": "lfsFile", "value": large }),
        small(README, bundle.readme.as_bytes()),
    ];
    match &bundle.signature {
        Some(signature) => lines.push(small(SIGNATURE, signature)),
        // One of the file before would be of other bytes.
        None if has(&hub, name, SIGNATURE)? => {
            lines.push(json!({ "key": "deletedFile", "value": { "path": SIGNATURE } }));
        }
        None => {}
    }
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let path = format!("/api/models/{name}/commit/main");
    let committed = hub.ask(&Method::POST, &path, "application/x-ndjson", body.as_bytes())?.success()?.json()?;
    if let Some(tag) = tag {
        hub.post(&format!("/api/models/{name}/tag/main"), &json!({ "tag": tag }))?.success()?;
    }
    let commit = committed["commitOid"].as_str().unwrap_or("main");
    Ok(format!("hf:{name}@{commit}"))
}

/// True where the main branch holds a file.
fn has(hub: &Hub, name: &str, file: &str) -> Result<bool, Error> {
    let listing = hub.ask(&Method::GET, &format!("/api/models/{name}/revision/main"), JSON, &[])?;
    let files = listing.json().unwrap_or_default()["siblings"].as_array().cloned().unwrap_or_default();
    Ok(files.iter().any(|of| of["rfilename"] == file))
}

pub(crate) fn search(words: &str) -> Result<Vec<Found>, Error> {
    let hub = Hub::new()?;
    let path = format!("/api/models?filter={LIBRARY}&search={}&limit={FOUND}&full=true", encoded(words));
    let models = hub.ask(&Method::GET, &path, JSON, &[])?.success()?.json()?;
    let models = models.as_array().cloned().unwrap_or_default();
    let found = |model: &Value| {
        let fact = |(fact, value): (&str, Option<String>)| Some((fact.to_owned(), value?));
        let word = |of: &Value| of.as_str().map(str::to_owned);
        let facts = [
            ("kind", word(&model["pipeline_tag"])),
            ("changed", word(&model["lastModified"])),
            ("downloads", model["downloads"].as_u64().map(|downloads| downloads.to_string())),
        ];
        Some(Found {
            reference: format!("hf:{}", model["id"].as_str()?),
            facts: facts.into_iter().filter_map(fact).collect(),
        })
    };
    Ok(models.iter().filter_map(found).collect())
}
