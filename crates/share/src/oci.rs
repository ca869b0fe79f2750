//! Plug-ins in registries: a manifest of a type of our own, that names the file, its signature and its card.

use crate::cache::Kept;
use crate::error::Error;
use crate::http::WORDS;
use crate::reference::{OciName, digest, is_host};
use crate::registry::Registry;
use crate::{Bundle, Found, PLUGIN, README, SIGNATURE};
use melo_sign::sha256;
use serde_json::{Value, json};
use std::path::PathBuf;
use ureq::http::Method;

/// What a manifest of a plug-in says it is.
const ARTIFACT: &str = "application/vnd.melo.plugin.v1";
/// What its parts are.
const PLUGIN_TYPE: &str = "application/vnd.melo.plugin.v1+safetensors";
const SIGNATURE_TYPE: &str = "application/vnd.melo.signature.v1+minisign";
const README_TYPE: &str = "text/markdown";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The configuration of what has none.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The most that a plug-in may have, bytes.
const MOST: u64 = 2 << 30;
/// The most that a signature may have, bytes.
const MOST_SIGNATURE: u64 = 64 << 10;
/// Tags of a repository that a search looks at.
const TAGS: usize = 20;

pub(crate) fn push(name: &OciName, bundle: &Bundle) -> Result<String, Error> {
    if name.is_pinned() {
        let reason = "a digest names what is there already; expected a tag".to_owned();
        return Err(Error::Reference { reference: name.to_string(), reason });
    }
    let registry = Registry::new(&name.host);
    let layer = |kind: &str, title: &str, bytes: &[u8]| {
        json!({
            "mediaType": kind,
            "digest": format!("sha256:{}", sha256(bytes)),
            "size": bytes.len(),
            "annotations": { "org.opencontainers.image.title": title },
        })
    };
    let signature = bundle.signature.as_deref().map(|signature| (SIGNATURE_TYPE, SIGNATURE, signature));
    let parts = [(PLUGIN_TYPE, PLUGIN, &*bundle.plugin)];
    let parts = parts.into_iter().chain(signature).chain([(README_TYPE, README, bundle.readme.as_bytes())]);
    let mut layers = Vec::new();
    registry.put_blob(&name.repository, EMPTY)?;
    for (kind, title, bytes) in parts {
        registry.put_blob(&name.repository, bytes)?;
        layers.push(layer(kind, title, bytes));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT,
        "config": { "mediaType": EMPTY_TYPE, "digest": format!("sha256:{}", sha256(EMPTY)), "size": EMPTY.len() },
        "layers": layers,
        "annotations": annotations(bundle),
    });
    let manifest = manifest.to_string().into_bytes();
    let place = format!("/v2/{}/manifests/{}", name.repository, name.tag);
    registry.ask(&Method::PUT, &place, &[("content-type", MANIFEST_TYPE)], &manifest, WORDS)?.success()?;
    let pinned = OciName { tag: format!("sha256:{}", sha256(&manifest)), ..name.clone() };
    Ok(pinned.to_string())
}

/// What people and searches read without fetching the file.
fn annotations(bundle: &Bundle) -> Value {
    let card = &bundle.info.card;
    json!({
        "org.opencontainers.image.title": card.task,
        "org.opencontainers.image.description": format!("A plug-in for the backbone {}: {}", card.backbone.name, card.kind.in_words()),
        "org.melo.task": card.task,
        "org.melo.kind": card.kind.in_words(),
        "org.melo.classes": card.classes.join(", "),
        "org.melo.backbone": card.backbone.name,
        "org.melo.backbone.digest": card.backbone.digest,
        "org.melo.plugin.digest": bundle.info.digest,
    })
}

pub(crate) fn pull(name: &OciName, fresh: bool) -> Result<PathBuf, Error> {
    let kept = Kept::of(name)?;
    if !fresh
        && let Some(digest) = kept.digest(&name.tag)
        && let Some((manifest, plugin)) = kept.manifest(&digest)
    {
        held(&plugin.with_file_name("manifest.json").display().to_string(), &manifest, &digest)?;
        let layer =
            layer(name, &manifest, PLUGIN_TYPE)?.ok_or_else(|| no_plugin(name, "its manifest names no plug-in"))?;
        let bytes = std::fs::read(&plugin).map_err(Error::io(&plugin))?;
        held(&plugin.display().to_string(), &bytes, &layer.digest)?;
        return Ok(plugin);
    }
    let registry = Registry::new(&name.host);
    let manifest = manifest(&registry, name)?;
    let blob = |layer: &Layer, what: &str, most: u64| -> Result<Vec<u8>, Error> {
        if layer.size > most {
            return Err(no_plugin(
                name,
                &format!("its {what} is to have {} bytes, at most {most} are read", layer.size),
            ));
        }
        let place = format!("/v2/{}/blobs/sha256:{}", name.repository, layer.digest);
        let bytes = registry.ask(&Method::GET, &place, &[], &[], layer.size + 1)?.success()?.body;
        held(&format!("blob sha256:{} ({what}) of {name}", layer.digest), &bytes, &layer.digest)?;
        Ok(bytes)
    };
    let plugin =
        layer(name, &manifest, PLUGIN_TYPE)?.ok_or_else(|| no_plugin(name, "its manifest names no plug-in"))?;
    let plugin = blob(&plugin, PLUGIN, MOST)?;
    let signature = layer(name, &manifest, SIGNATURE_TYPE)?;
    let signature = signature.map(|layer| blob(&layer, SIGNATURE, MOST_SIGNATURE)).transpose()?;
    kept.keep((&name.tag, &manifest), &plugin, signature.as_deref())
}

/// The manifest of a name, held to its digest where the name or the registry says it.
fn manifest(registry: &Registry, name: &OciName) -> Result<Vec<u8>, Error> {
    let place = format!("/v2/{}/manifests/{}", name.repository, name.tag);
    let answer = registry.ask(&Method::GET, &place, &[("accept", MANIFEST_TYPE)], &[], WORDS)?.success()?;
    let promised = digest(&name.tag).or_else(|| digest(answer.header("docker-content-digest")?));
    if let Some(promised) = promised {
        held(&format!("the manifest of {name}"), &answer.body, promised)?;
    }
    Ok(answer.body)
}

/// A file that a manifest names.
struct Layer {
    digest: String,
    size: u64,
}

/// The first layer of a type.
fn layer(name: &OciName, manifest: &[u8], kind: &str) -> Result<Option<Layer>, Error> {
    let wrong = |reason: String| no_plugin(name, &reason);
    let manifest: Value = serde_json::from_slice(manifest).map_err(|error| wrong(error.to_string()))?;
    if manifest["artifactType"] != ARTIFACT {
        let found = manifest["artifactType"].as_str().unwrap_or("something else");
        return Err(wrong(format!("it is of type {}, expected {ARTIFACT}", found.escape_debug())));
    }
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(found) = layers.iter().find(|layer| layer["mediaType"] == kind) else { return Ok(None) };
    let digest = found["digest"].as_str().and_then(digest);
    match (digest, found["size"].as_u64()) {
        (Some(digest), Some(size)) => Ok(Some(Layer { digest: digest.to_owned(), size })),
        _ => Err(wrong(format!("its manifest names a layer of type {kind} without SHA-256 and size"))),
    }
}

fn no_plugin(name: &OciName, reason: &str) -> Error {
    Error::NoPlugin { reference: name.to_string(), reason: reason.to_owned() }
}

fn held(blob: &str, bytes: &[u8], expected: &str) -> Result<(), Error> {
    let found = sha256(bytes);
    match found == expected {
        true => Ok(()),
        false => Err(Error::Tampered { blob: blob.to_owned(), expected: expected.to_owned(), found }),
    }
}

pub(crate) fn search(host: &str, words: &str) -> Result<Vec<Found>, Error> {
    if !is_host(host) {
        let reason = "expected oci://HOST or oci://HOST:PORT".to_owned();
        return Err(Error::Reference { reference: format!("oci://{}", host.escape_debug()), reason });
    }
    let registry = Registry::new(host);
    let list = |place: &str, field: &str| -> Result<Vec<String>, Error> {
        let json = registry.ask(&Method::GET, place, &[], &[], WORDS)?.success()?.json()?;
        let names = json[field].as_array().cloned().unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    };
    let mut found = Vec::new();
    for repository in list("/v2/_catalog?n=1000", "repositories")? {
        for tag in list(&format!("/v2/{repository}/tags/list"), "tags").unwrap_or_default().into_iter().take(TAGS) {
            let name = OciName { host: host.to_owned(), repository: repository.clone(), tag };
            let Ok(manifest) = manifest(&registry, &name) else { continue };
            let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
            if manifest["artifactType"] != ARTIFACT {
                continue;
            }
            let fact = |fact: &str| {
                let value = manifest["annotations"][format!("org.melo.{fact}")].as_str()?;
                Some((fact.to_owned(), value.to_owned()))
            };
            let facts: Vec<_> = ["task", "kind", "classes", "backbone"].into_iter().filter_map(fact).collect();
            let said = facts.iter().fold(name.to_string(), |said, (_, value)| said + " " + value).to_lowercase();
            if words.to_lowercase().split_whitespace().all(|word| said.contains(word)) {
                found.push(Found { reference: name.to_string(), facts });
            }
        }
    }
    Ok(found)
}
