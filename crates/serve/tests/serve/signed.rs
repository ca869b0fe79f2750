//! Whose plug-ins are served: signatures beside files and in requests, keys that come, go and are revoked.

use crate::common::{Running, client, config, engine, file, plugin, put, read};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use melo_serve::{
    Error, Folder, KeyFile, Metrics, NewKey, Refusal, Registry, RegistryConfig, Scope, SignatureConfig, Trust, entries,
};
use melo_sign::{SecretKey, Signature, beside, sha256};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

struct Room {
    folder: tempfile::TempDir,
    key: SecretKey,
    list: PathBuf,
}

fn room() -> Room {
    let folder = tempfile::tempdir().expect("a folder");
    let key = SecretKey::generate().expect("a key");
    let list = folder.path().join("trusted.keys");
    let room = Room { folder, key, list };
    room.trust(&format!("{} the lab\n", room.key.public()));
    room
}

impl Room {
    fn trust(&self, text: &str) {
        std::fs::write(&self.list, text).expect("written");
    }

    fn open(&self, required: bool) -> (Registry, Folder) {
        let signatures = SignatureConfig { trusted_keys: Some(self.list.clone()), required };
        let config = RegistryConfig { signatures, ..RegistryConfig::new(self.folder.path().join("state")) };
        let registry = Registry::open(config, engine(), Arc::new(Metrics::default()), None).expect("opened");
        std::fs::create_dir_all(self.folder.path().join("plugins")).expect("a folder");
        let mut folder = Folder::new(&self.folder.path().join("plugins"));
        folder.look(&registry).expect("read");
        (registry, folder)
    }

    /// A plug-in in the watched folder.
    fn put(&self, task: &str, seed: u64) -> PathBuf {
        let engine = engine();
        put(&self.folder.path().join("plugins"), task, &file(engine.backbone(), &plugin(&*engine, task, seed)))
    }
}

fn sign(path: &Path, key: &SecretKey) {
    let bytes = std::fs::read(path).expect("read");
    std::fs::write(beside(path), Signature::new(&bytes, key, "approved").to_string()).expect("written");
}

fn look(registry: &Registry, folder: &mut Folder) {
    (0..2).for_each(|_| folder.look(registry).expect("read"));
}

#[test]
fn only_what_a_trusted_key_signed_is_served_where_that_is_asked_for() {
    let room = room();
    let stranger = SecretKey::generate().expect("a key");
    let (good, unsigned, foreign, changed) =
        (room.put("good", 1), room.put("unsigned", 3), room.put("foreign", 5), room.put("changed", 7));
    sign(&good, &room.key);
    sign(&foreign, &stranger);
    sign(&changed, &room.key);
    let mut bytes = std::fs::read(&changed).expect("read");
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    std::fs::write(&changed, &bytes).expect("written");
    let (registry, mut folder) = room.open(true);
    let version = registry.find("good").expect("served");
    let signer = version.signer.clone().expect("it is signed");
    assert_eq!((signer.key, &*signer.name, &*signer.comment), (room.key.public().id(), "the lab", "approved"));
    let problems = registry.problems();
    for (file, why) in [
        ("unsigned.safetensors", "not signed".to_owned()),
        ("foreign.safetensors", format!("key {}, which is not among the trusted keys", stranger.public().id())),
        ("changed.safetensors", format!("by key {} is not of this file", room.key.public().id())),
    ] {
        assert!(problems.get(file).is_some_and(|problem| problem.contains(&why)), "{file}: {problems:?}");
        assert!(registry.find(file.split('.').next().expect("a name")).is_err(), "{file}");
    }
    // A signature that comes later counts.
    sign(&unsigned, &room.key);
    look(&registry, &mut folder);
    assert!(registry.find("unsigned").is_ok(), "{:?}", registry.problems());
    // What is no plug-in at all is not parsed before it is known who sent it.
    let refusal = registry.accept(b"no plug-in", None, "put", |_| None).expect_err("refused");
    assert!(matches!(&refusal, Refusal::Unusable(reason) if reason.contains("not signed")), "{refusal}");
}

#[test]
fn a_revoked_key_and_a_revoked_file_are_no_longer_answered_from() {
    let room = room();
    let (a, b) = (room.put("a", 1), room.put("b", 3));
    sign(&a, &room.key);
    sign(&b, &room.key);
    let (registry, _folder) = room.open(true);
    let versions = ["a", "b"].map(|task| registry.find(task).expect("served"));
    assert!(versions.iter().all(|version| registry.plugin(version).is_ok()));
    let key = room.key.public();
    room.trust(&format!("{key} the lab\nrevoked {} wrong labels\n", versions[0].digest));
    std::thread::sleep(Duration::from_millis(1100));
    let refusal = registry.plugin(&versions[0]).expect_err("refused").to_string();
    assert!(refusal.contains("task `a`") && refusal.contains("revoked: wrong labels"), "{refusal}");
    assert!(registry.plugin(&versions[1]).is_ok());
    room.trust(&format!("{key} the lab\nrevoked {key} left\n"));
    std::thread::sleep(Duration::from_millis(1100));
    let refusal = registry.plugin(&versions[1]).expect_err("refused").to_string();
    assert!(refusal.contains(&format!("key {}, which is revoked: left", key.id())), "{refusal}");
    // Nor after a restart, and nothing is lost when the key is trusted again.
    drop(registry);
    let (registry, _folder) = room.open(true);
    assert!(registry.tasks().is_empty() && registry.problems()["a"].contains("revoked"), "{:?}", registry.problems());
    drop(registry);
    room.trust(&format!("{key} the lab\n"));
    std::fs::remove_dir_all(room.folder.path().join("plugins")).expect("removed");
    std::fs::create_dir(room.folder.path().join("plugins")).expect("made");
    let signatures = SignatureConfig { trusted_keys: Some(room.list.clone()), required: true };
    let config = RegistryConfig { signatures, ..RegistryConfig::new(room.folder.path().join("state")) };
    let registry = Registry::open(config, engine(), Arc::new(Metrics::default()), None).expect("opened");
    assert_eq!(registry.tasks().len(), 2, "their signatures are kept with them");
}

#[test]
fn where_signatures_are_not_required_a_wrong_one_still_is() {
    let room = room();
    let (unsigned, wrong) = (room.put("unsigned", 1), room.put("wrong", 3));
    sign(&wrong, &room.key);
    std::fs::copy(&unsigned, &wrong).expect("copied");
    let (registry, _folder) = room.open(false);
    assert_eq!(registry.find("unsigned").expect("served").signer, None);
    assert!(registry.problems()["wrong.safetensors"].contains("is not of this file"), "{:?}", registry.problems());
}

#[test]
fn required_without_a_list_and_a_list_that_others_may_write_are_refused() {
    let open = |trusted_keys, required| {
        let state = tempfile::tempdir().expect("a folder");
        let signatures = SignatureConfig { trusted_keys, required };
        let config = RegistryConfig { signatures, ..RegistryConfig::new(state.path()) };
        Registry::open(config, engine(), Arc::new(Metrics::default()), None).err().expect("refused")
    };
    assert!(matches!(open(None, true), Error::Settings(_)));
    let room = room();
    room.trust("no key");
    let error = open(Some(room.list.clone()), false).to_string();
    assert!(error.contains("trusted.keys") && error.contains("line 1"), "{error}");
    #[cfg(unix)]
    {
        room.trust("");
        std::fs::set_permissions(&room.list, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("changed");
        let error = open(Some(room.list.clone()), false).to_string();
        assert!(error.contains("chmod go-w"), "{error}");
    }
}

#[test]
fn a_signature_comes_with_a_put_and_is_shown_and_recorded() {
    let room = room();
    let (keys, audit) = (room.folder.path().join("keys.toml"), room.folder.path().join("audit.sqlite"));
    let new = NewKey::new("ml-ops", &[Scope::Admin], None).expect("a key");
    let mut known = KeyFile::default();
    known.add(&new).expect("it is new");
    known.write(&keys).expect("written");
    let mut config = config(room.folder.path());
    config.trust = Trust { keys: Some(keys), audit: Some(audit.clone()), ..Trust::default() };
    config.registry.signatures = SignatureConfig { trusted_keys: Some(room.list.clone()), required: true };
    let server = Running::start(config);
    let engine = engine();
    let bytes = file(engine.backbone(), &plugin(&*engine, "chest", 1));
    let ask = |signature: Option<String>| -> (u16, Value) {
        let mut request = client().put(server.url("/v1/tasks/chest")).header("x-api-key", &new.secret);
        if let Some(signature) = signature {
            request = request.header("melo-signature", signature);
        }
        read(request.send(&bytes[..]))
    };
    let (status, answer) = ask(None);
    assert!(
        status == 422 && answer["error"]["message"].as_str().is_some_and(|text| text.contains("not signed")),
        "{answer}"
    );
    assert_eq!(ask(Some("no base64!".to_owned())).0, 400);
    assert_eq!(ask(Some(STANDARD.encode("no signature"))).0, 400);
    let signature = Signature::new(&bytes, &room.key, "approved").to_string();
    let (status, answer) = ask(Some(STANDARD.encode(signature)));
    assert_eq!((status, &answer["version"]), (200, &json!(sha256(&bytes))), "{answer}");
    let shown = client().get(server.url("/v1/tasks/chest")).header("x-api-key", &new.secret).call();
    let id = room.key.public().id().to_string();
    let by = json!({ "key": id, "name": "the lab", "comment": "approved" });
    let (_, shown) = read(shown);
    assert_eq!((&shown["signed_by"], &shown["versions"][0]["signed_by"]), (&by, &by), "{shown}");
    drop(server);
    let found = entries(&audit, 99, Some("chest")).expect("entries");
    let said: Vec<(&str, &Value)> =
        found.iter().map(|entry| (entry.record.action.as_str(), &entry.record.output)).collect();
    let serve = json!({ "source": "key:ml-ops", "signed_by": { "key": id, "name": "the lab" } });
    let (none, some) = (json!({ "signed_by_key": null }), json!({ "signed_by_key": id }));
    assert_eq!(said, [("put", &none), ("put", &some), ("serve", &serve)]);
}
