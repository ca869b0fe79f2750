//! Models on the Hugging Face hub, through its standard cache: `hf:owner/name[@revision]`, `timm/NAME`.
//!
//! What is in the cache is used as it is, without a question to the hub; `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and
//! `HF_HUB_OFFLINE` have the meaning that they have for `huggingface_hub`. A download that was cut off goes on where it stood.

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use melo_vit::{Error, MappedFile, hex};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Names of weights in a model's folder or repository, the best first.
pub(crate) const WEIGHTS: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
];
/// The JSON files that describe them.
const DESCRIPTIONS: [&str; 4] =
    ["config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json"];
/// Times that an interrupted transfer is taken up again by itself.
const RETRIES: usize = 3;

/// A path as it is, or the folder in the hub's cache that holds the model it names, downloaded where it is not there yet.
///
/// # Errors
/// [`Error::Config`] that names the model and what stands in the way.
pub fn locate(path: &Path) -> Result<PathBuf, Error> {
    let Some((name, revision)) = hub_name(path) else {
        return Ok(path.to_owned());
    };
    let wrong = |reason: String| Error::Config { path: path.to_owned(), reason };
    let repo = repository(name, revision);
    match cached(&Cache::from_env().repo(repo.clone())) {
        Some(folder) => Ok(folder),
        None => hub(repo).and_then(|hub| download(&hub)).map_err(wrong),
    }
}

/// Files of a repository on the hub that are there, in the order of their names, through the cache; the first must be there, and is held to
/// its SHA-256. Those in the cache are used as they are, but where they are to be `fresh`.
///
/// # Errors
/// [`Error::Config`] that names the repository and what stands in the way.
pub fn hub_files(path: &Path, names: &[&str], fresh: bool) -> Result<Vec<PathBuf>, Error> {
    let wrong = |reason: String| Error::Config { path: path.to_owned(), reason };
    let (name, revision) =
        hub_name(path).ok_or_else(|| wrong("expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION".into()))?;
    let repo = repository(name, revision);
    let cache = Cache::from_env().repo(repo.clone());
    let first = names.first().copied().unwrap_or_default();
    if !fresh && let Some(file) = cache.get(first) {
        held(first, &file, true).map_err(wrong)?;
        return Ok(names.iter().filter_map(|name| cache.get(name)).collect());
    }
    let hub = hub(repo).map_err(wrong)?;
    let listing = listing(&hub).map_err(wrong)?;
    let there = |name: &str| listing.siblings.iter().any(|file| file.rfilename == name);
    if !there(first) {
        return Err(wrong(format!("it holds no {first}")));
    }
    let mut files = Vec::new();
    for name in names.iter().filter(|name| there(name)) {
        let file = fetch_again(&hub, name).map_err(wrong)?;
        if *name == first {
            held(name, &file, true).map_err(wrong)?;
        }
        files.push(file);
    }
    Ok(files)
}

/// Where the hub is, and the token for it, if there is one.
///
/// # Errors
/// Why `HF_ENDPOINT` is not asked.
pub fn hub_access() -> Result<(String, Option<String>), String> {
    let address = std::env::var("HF_ENDPOINT").unwrap_or_default();
    endpoint(&address)?;
    let address = if address.is_empty() { "https://huggingface.co".to_owned() } else { address };
    Ok((address.trim_end_matches('/').to_owned(), token()))
}

fn repository(name: &str, revision: &str) -> Repo {
    Repo::with_revision(name.to_owned(), RepoType::Model, revision.to_owned())
}

fn token() -> Option<String> {
    std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).or_else(|| Cache::from_env().token())
}

/// The hub, unless it is not to be asked.
fn hub(repo: Repo) -> Result<Hub, String> {
    let folder = Cache::from_env();
    if is_set("HF_HUB_OFFLINE") {
        let folder = folder.path().display();
        return Err(format!("not in the cache {folder}, and HF_HUB_OFFLINE forbids to download it"));
    }
    let builder = ApiBuilder::from_env().with_token(token()).with_retries(RETRIES);
    let builder =
        builder.with_progress(std::io::stderr().is_terminal()).with_user_agent("melo", env!("CARGO_PKG_VERSION"));
    endpoint(&std::env::var("HF_ENDPOINT").unwrap_or_default())?;
    let api = builder.build().map_err(|error| error.to_string())?;
    Ok(Hub { repo: api.repo(repo), api })
}

/// A model's repository, and who asks for it.
struct Hub {
    api: Api,
    repo: ApiRepo,
}

/// Unencrypted, what is fetched is anyone's on the way: only on this machine.
fn endpoint(url: &str) -> Result<(), String> {
    let Some(rest) = url.strip_prefix("http://") else { return Ok(()) };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let name = host.strip_prefix('[').map_or_else(
        || host.rsplit_once(':').map_or(host, |(name, _)| name),
        |rest| rest.split(']').next().unwrap_or_default(),
    );
    let local = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match local {
        true => Ok(()),
        false => Err(format!("HF_ENDPOINT is {url}: https is expected beyond this machine")),
    }
}

/// True for one part of a name that leads nowhere else.
fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
}

/// True for a path that names a model on the hub.
pub fn is_hub_name(path: &Path) -> bool {
    hub_name(path).is_some()
}

/// `owner/name` and revision of a path that names a model on the hub, `hf:OWNER/NAME[@REVISION]`.
pub fn hub_name(path: &Path) -> Option<(&str, &str)> {
    let text = path.to_str()?;
    let name = match text.strip_prefix("hf:") {
        Some(name) => name,
        // `timm/NAME` is a folder where there is one.
        None if text.starts_with("timm/") && !path.exists() => text,
        None => return None,
    };
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let part = is_part;
    let (owner, model) = name.split_once('/')?;
    (part(owner) && part(model) && revision.split('/').all(part)).then_some((name, revision))
}

fn is_set(variable: &str) -> bool {
    let value = std::env::var(variable).unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// The snapshot's folder, when weights with all their shards and a description are in it.
fn cached(repo: &CacheRepo) -> Option<PathBuf> {
    let weights = WEIGHTS.iter().find_map(|name| repo.get(name))?;
    repo.get("config.json").or_else(|| repo.get("open_clip_config.json"))?;
    let whole = shards_of(&weights).ok()?.iter().all(|shard| repo.get(shard).is_some());
    whole.then(|| melo_vit::folder_of(&weights).to_owned())
}

/// Downloads weights and descriptions, and holds what the hub keeps by its SHA-256 to it.
fn download(hub: &Hub) -> Result<PathBuf, String> {
    let listing = listing(hub)?;
    let there = |name: &str| listing.siblings.iter().any(|file| file.rfilename == name);
    let weights = WEIGHTS.into_iter().find(|name| there(name));
    let weights = weights.ok_or_else(|| format!("holds none of {}", WEIGHTS.join(", ")))?;
    for name in DESCRIPTIONS.into_iter().filter(|name| there(name)) {
        fetch(hub, name)?;
    }
    let path = fetch(hub, weights)?;
    for shard in shards_of(&path)? {
        fetch(hub, &shard)?;
    }
    Ok(melo_vit::folder_of(&path).to_owned())
}

/// The files of the repository.
fn listing(hub: &Hub) -> Result<RepoInfo, String> {
    hub.repo.info().map_err(|error| match error.to_string() {
        text if text.contains("401") || text.contains("403") => {
            format!("{text}: the model is private, gated or not there; accept its terms and set HF_TOKEN")
        }
        text if text.contains("404") => format!("{text}: no such model or revision on the hub"),
        text => text,
    })
}

/// A file that is not in the cache.
fn fetch(hub: &Hub, name: &str) -> Result<PathBuf, String> {
    check_names(hub, name)?;
    let path = hub.repo.get(name).map_err(|error| format!("{name}: {error}"))?;
    held(name, &path, false)?;
    Ok(path)
}

/// A file as the hub has it now, whatever the cache holds.
fn fetch_again(hub: &Hub, name: &str) -> Result<PathBuf, String> {
    check_names(hub, name)?;
    let path = hub.repo.download(name).map_err(|error| format!("{name}: {error}"))?;
    held(name, &path, false)?;
    Ok(path)
}

/// What the hub calls a file becomes a file's name here, and is looked at before anything is fetched.
fn check_names(hub: &Hub, name: &str) -> Result<(), String> {
    let Hub { api, repo } = hub;
    let said = api.metadata(&repo.url(name)).map_err(|error| format!("{name}: {error}"))?;
    for (what, digest) in [("etag", said.etag()), ("commit", said.commit_hash())] {
        if !is_part(digest) {
            return Err(format!("{name}: the hub gives the {what} `{}`, which is no digest", digest.escape_debug()));
        }
    }
    Ok(())
}

/// Holds a file of the cache to the SHA-256 that the hub keeps it by; small ones need not have one.
fn held(name: &str, path: &Path, must: bool) -> Result<(), String> {
    let blob = path.canonicalize().map_err(|error| format!("{name}: {error}"))?;
    // Large files are kept under their SHA-256, small ones under git's own digest.
    let expected = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if expected.len() != 64 && must {
        return Err(format!("{name}: the hub keeps it by `{expected}`, which is no SHA-256 to hold it to"));
    }
    if expected.len() == 64 {
        let bytes = MappedFile::open(&blob).map_err(|error| format!("{name}: {error}"))?;
        let found = hex(&Sha256::digest(&*bytes));
        drop(bytes);
        if found != expected {
            let removed = std::fs::remove_file(&blob).is_ok();
            let what = if removed { "it was removed" } else { "remove it" };
            return Err(format!(
                "{name}: {} has SHA-256 {found}, the hub says {expected}; {what}, try again",
                blob.display()
            ));
        }
    }
    Ok(())
}

/// Files that an index of shards names; none for other weights.
fn shards_of(weights: &Path) -> Result<Vec<String>, String> {
    if !weights.to_string_lossy().ends_with(".index.json") {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(weights).map_err(|error| error.to_string())?;
    let index: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let map = index["weight_map"].as_object().ok_or("an index without weight_map")?;
    let mut shards: Vec<String> = map.values().filter_map(|shard| shard.as_str().map(str::to_owned)).collect();
    shards.sort();
    shards.dedup();
    match shards.iter().find(|shard| !is_part(shard)) {
        Some(shard) => {
            Err(format!("an index that names the shard `{}`, which is no file beside it", shard.escape_debug()))
        }
        None => Ok(shards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_hub_are_looked_up_there() {
        let name =
            |text: &str| hub_name(Path::new(text)).map(|(name, revision)| (name.to_owned(), revision.to_owned()));
        let some = |name: &str, revision: &str| Some((name.to_owned(), revision.to_owned()));
        assert_eq!(name("hf:facebook/dinov2-small"), some("facebook/dinov2-small", "main"));
        assert_eq!(name("hf:owner/name@v1.0"), some("owner/name", "v1.0"));
        assert_eq!(
            name("timm/vit_tiny_patch16_224.augreg_in21k"),
            some("timm/vit_tiny_patch16_224.augreg_in21k", "main")
        );
        for path in
            ["model.safetensors", "owner/name", "hf:name", "hf:../name", "hf:a/..", "hf:a/b/c", "hf:a/b@../x", "hf:a/"]
        {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn names_that_lead_out_of_the_cache_are_refused_before_anything_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors.index.json");
        let shards = |shard: &str| {
            let index = serde_json::json!({ "weight_map": { "a": "model-1.safetensors", "b": shard } });
            std::fs::write(&path, index.to_string()).unwrap();
            shards_of(&path)
        };
        assert_eq!(shards("model-2.safetensors").unwrap().len(), 2);
        for name in ["../../.bashrc", "/etc/passwd", "a/../../b", "..", ".hidden", "a\\b", "", "a b"] {
            let error = shards(name).unwrap_err();
            assert!(error.contains("no file beside it"), "{error}");
        }
        assert!(!is_part("../x") && is_part("d41d8cd98f00b204e9800998ecf8427e"));
    }

    #[test]
    fn the_hub_is_asked_unencrypted_on_this_machine_alone() {
        for url in ["", "https://huggingface.co", "http://localhost:8080/x", "http://127.0.0.1:1", "http://[::1]:1/"] {
            endpoint(url).unwrap();
        }
        for url in ["http://huggingface.co", "http://127.0.0.1.evil.example/", "http://10.0.0.1:80"] {
            assert!(endpoint(url).unwrap_err().contains("https is expected"), "{url}");
        }
    }
}
