//! The OpenAPI document says what the server does: the same routes, the same methods.

use crate::common::{self, Running, bag_plugin, client, config, engine, file, image, plugin, put};
use melo_serve::{KeyFile, NewKey, Scope};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Routes = BTreeMap<String, BTreeSet<String>>;

/// Files of the page, which is no part of the API.
const PAGE: [&str; 1] = ["/"];

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/http/openapi.json")).expect("JSON")
}

fn documented() -> Routes {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let methods = |item: &Value| {
        let keys = item.as_object().expect("an object").keys();
        keys.filter(|key| *key != "parameters").map(|key| key.to_uppercase()).collect()
    };
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// Every text that the sources hand to `.route(`.
fn routed(folder: &Path, paths: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            routed(&path, paths);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            let found = text.split(".route(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            paths.extend(found.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
}

#[test]
fn every_route_is_documented_with_its_methods_and_nothing_else_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    let key = NewKey::new("all", &[Scope::Admin], None).expect("a key");
    let mut keys = KeyFile::default();
    keys.add(&key).expect("it is new");
    let path = folder.path().join("keys.toml");
    keys.write(&path).expect("it is written");
    config.trust.keys = Some(path);
    let server = Running::start(config);
    let mut paths = BTreeSet::new();
    routed(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut paths);
    paths.retain(|path| !PAGE.contains(&path.as_str()));
    assert!(paths.len() > 10, "{paths:?}");
    let mut found = Routes::new();
    for path in paths {
        let concrete = path.replace("{name}", "x").replace("{version}", "y").replace("{study}", "1.2");
        let concrete = concrete.split('{').next().unwrap_or_default().to_owned();
        // A method that no route has: the answer names those that it has.
        let request = ureq::http::Request::builder().method("PATCH").uri(server.url(&concrete));
        let request = request.header("x-api-key", &key.secret).body(());
        let response = client().run(request.expect("a request")).expect("an answer");
        assert_eq!(response.status(), 405, "{path}");
        let allowed = response.headers().get("allow").and_then(|allow| allow.to_str().ok()).unwrap_or_default();
        let methods = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD" && !method.is_empty());
        found.insert(path, methods.map(str::to_owned).collect());
    }
    assert_eq!(found, documented());
}

/// A value against a schema: types, required properties, enumerations, references. What the document does not name may
/// be there, but is told, since our own server says only what is documented.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}"));
        return check(document, target, value, at);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().for_each(|part| check(document, part, value, at));
    }
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at}: {value}");
    }
    match schema["type"].as_str() {
        Some("object") => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at}: {value} is no object"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(object.contains_key(name.as_str().expect("a name")), "{at}: {name} is missing");
            }
            for (name, value) in object {
                let own = schema.pointer(&format!("/properties/{name}"));
                let other = schema.get("additionalProperties").filter(|other| other.is_object());
                if let Some(schema) = own.or(other) {
                    check(document, schema, value, &format!("{at}.{name}"));
                }
            }
        }
        Some("array") => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: {value} is no list"));
            items.iter().for_each(|item| check(document, &schema["items"], item, at));
        }
        Some("string") => assert!(value.is_string(), "{at}: {value}"),
        Some("number") => assert!(value.is_number(), "{at}: {value}"),
        Some("integer") => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        _ => {}
    }
}

#[test]
fn answers_are_what_the_document_says() {
    let folder = tempfile::tempdir().expect("a folder");
    for (task, seed) in [("chest", 1), ("skin", 2)] {
        put(&folder.path().join("plugins"), task, &file(engine().backbone(), &plugin(&*engine(), task, seed)));
    }
    put(&folder.path().join("plugins"), "ct", &file(engine().backbone(), &bag_plugin(&*engine(), "ct", 3)));
    let server = Running::start(config(folder.path()));
    let document = document();
    let schema = |path: &str, method: &str, status: &str| {
        let response = &document["paths"][path][method]["responses"][status];
        let response = match response["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("a response"),
            None => response,
        };
        response["content"]["application/json"]["schema"].clone()
    };
    let fields: [common::Field<'_>; 4] = [
        ("image", Some("a.png"), &image(1)),
        ("tasks", None, b"all"),
        ("heatmap", None, b"true"),
        ("preview", None, b"true"),
    ];
    for (path, method, concrete, (status, found)) in [
        ("/v1/predict", "post", "/v1/predict", server.predict(&fields)),
        ("/v1/predict", "post", "/v1/predict", server.predict(&fields[1..])),
        ("/v1/tasks", "get", "/v1/tasks", server.get("/v1/tasks")),
        ("/v1/tasks/{name}", "get", "/v1/tasks/chest", server.get("/v1/tasks/chest")),
        ("/v1/tasks/{name}", "get", "/v1/tasks/none", server.get("/v1/tasks/none")),
        ("/v1/tasks/{name}", "delete", "/v1/tasks/chest", server.send("DELETE", "/v1/tasks/chest", b"")),
        ("/v1/samples", "get", "/v1/samples", server.get("/v1/samples")),
        ("/v2", "get", "/v2", server.get("/v2")),
        ("/v2/models/{name}", "get", "/v2/models/chest", server.get("/v2/models/chest")),
        ("/v2/models/{name}", "get", "/v2/models/none", server.get("/v2/models/none")),
        ("/v2/models/{name}/infer", "post", "infer", server.send("POST", "/v2/models/chest/infer", b"{}")),
    ] {
        let schema = schema(path, method, &status.to_string());
        assert!(!schema.is_null(), "{method} {concrete}: {status} is not documented: {found}");
        check(&document, &schema, &found, &format!("{method} {concrete}"));
    }
}
