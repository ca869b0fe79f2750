//! What `deploy/` says is what the binary takes and a server answers.

use crate::server::Server;
use crate::workplace::{Workplace, melo, run};
use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};
use std::path::Path;

fn text(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page of `docs/`.
fn page(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file; scalars are text.
fn documents(name: &str) -> Vec<Value> {
    let text = text(name);
    let mut events = Parser::new_from_str(&text).map(|event| event.unwrap_or_else(|error| panic!("{name}: {error}")).0);
    let mut documents = Vec::new();
    while let Some(event) = events.next() {
        if matches!(event, Event::DocumentStart(_)) {
            documents.push(node(&mut events).unwrap_or_else(|| panic!("{name}: an empty document")));
        }
    }
    documents
}

/// The next value; none where a sequence or mapping ends.
fn node<'a>(events: &mut impl Iterator<Item = Event<'a>>) -> Option<Value> {
    match events.next()? {
        Event::Scalar(text, ..) => Some(Value::from(text)),
        Event::SequenceStart(..) => Some(std::iter::from_fn(|| node(events)).collect()),
        Event::MappingStart(..) => {
            let mut map = Map::new();
            while let Some(key) = node(events) {
                let key = key.as_str().expect("a key of text").to_owned();
                let value = node(events).expect("a value");
                assert!(map.insert(key.clone(), value).is_none(), "`{key}` twice");
            }
            Some(map.into())
        }
        Event::SequenceEnd | Event::MappingEnd => None,
        other => panic!("{other:?} is not for such files"),
    }
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found = documents.iter().find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn texts(values: &Value) -> Vec<&str> {
    values.as_array().expect("a list").iter().map(|value| value.as_str().expect("text")).collect()
}

/// A container that runs `melo serve`: its flags are known, it listens on its port, its probes go to routes of a server, and its grace
/// is longer than the server's end.
fn check_container(container: &Value, grace_s: &Value, server: &Server) {
    let arguments = texts(&container["args"]);
    assert_eq!((texts(&container["command"]), arguments[0]), (vec!["melo"], "serve"));
    // Flags are read up to the one that asks for help.
    run(melo().args(&arguments).arg("--help")).good();
    let said = |flag: &str| arguments.iter().find_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
    let port = &container["ports"][0]["containerPort"];
    assert_eq!(said("--listen"), Some(format!("0.0.0.0:{}", port.as_str().expect("a port")).as_str()));
    assert!(
        texts(&container["env"].as_array().expect("variables").iter().map(|v| v["name"].clone()).collect())
            == ["POD_NAME"]
    );
    assert_eq!(said("--replica"), Some("$(POD_NAME)"));
    let seconds = |flag: &str, otherwise: u64| said(flag).map_or(otherwise, |text| text.parse().expect("seconds"));
    let grace: u64 = grace_s.as_str().expect("a grace").parse().expect("seconds");
    assert!(seconds("--lame-duck-s", 0) + seconds("--drain-s", 30) + 1 < grace, "{grace} s");
    for (probe, path) in [
        ("startupProbe", "/v2/health/live"),
        ("livenessProbe", "/v2/health/live"),
        ("readinessProbe", "/v2/health/ready"),
    ] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["path"], path, "{probe}");
        assert!(asked["port"] == *port || asked["port"] == container["ports"][0]["name"], "{probe}: {}", asked["port"]);
        assert_eq!(server.status(path), 200, "{path}");
    }
    if let Some(mounts) = container["volumeMounts"].as_array() {
        for flag in ["--backbone", "--plugins", "--keys", "--state"] {
            let path = Path::new(said(flag).expect("a path"));
            let mount = mounts.iter().find(|mount| path.starts_with(mount["mountPath"].as_str().expect("a path")));
            let read_only = mount.unwrap_or_else(|| panic!("{flag} is on no volume"))["readOnly"] == "true";
            assert_eq!(read_only, flag != "--state", "{flag}");
        }
    }
}

fn server(place: &Workplace) -> Server {
    let mut command = melo();
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
    Server::start(place, &mut command)
}

#[test]
fn kubernetes_asks_what_a_server_answers() {
    let place = Workplace::new();
    let server = server(&place);
    let documents = documents("kubernetes.yaml");
    let deployment = of_kind(&documents, "Deployment");
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    check_container(container, &pod["spec"]["terminationGracePeriodSeconds"], &server);
    let volumes: Vec<&Value> = pod["spec"]["volumes"].as_array().expect("volumes").iter().map(|v| &v["name"]).collect();
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert_eq!(mounts.iter().map(|mount| &mount["name"]).collect::<Vec<_>>(), volumes);
    let labels = &pod["metadata"]["labels"];
    let service = &of_kind(&documents, "Service")["spec"];
    assert_eq!(service["ports"][0]["targetPort"], container["ports"][0]["name"]);
    let budget = &of_kind(&documents, "PodDisruptionBudget")["spec"];
    for selector in
        [&service["selector"], &deployment["spec"]["selector"]["matchLabels"], &budget["selector"]["matchLabels"]]
    {
        assert_eq!(selector, labels);
    }
    let scaler = &of_kind(&documents, "HorizontalPodAutoscaler")["spec"];
    let target = &scaler["scaleTargetRef"];
    assert_eq!((&target["kind"], &target["name"]), (&deployment["kind"], &deployment["metadata"]["name"]));
    let metric = scaler["metrics"][0]["pods"]["metric"]["name"].as_str().expect("a metric");
    assert!(server.text("/metrics").lines().any(|line| line.starts_with(&format!("{metric} "))), "{metric}");
}

#[test]
fn kserve_asks_what_a_server_answers() {
    let place = Workplace::new();
    let documents = documents("kserve.yaml");
    let (runtime, service) = (of_kind(&documents, "ServingRuntime"), of_kind(&documents, "InferenceService"));
    let predictor = &service["spec"]["predictor"];
    check_container(&runtime["spec"]["containers"][0], &predictor["terminationGracePeriodSeconds"], &server(&place));
    let model = &predictor["model"];
    assert_eq!(model["runtime"], runtime["metadata"]["name"]);
    assert_eq!(model["modelFormat"]["name"], runtime["spec"]["supportedModelFormats"][0]["name"]);
    assert_eq!(model["protocolVersion"], runtime["spec"]["protocolVersions"][0]);
}

#[test]
fn haproxy_asks_what_a_server_answers() {
    let text = text("haproxy.cfg");
    let has = |line: &str| assert!(text.lines().any(|found| found.trim().starts_with(line)), "no line `{line}`");
    // tools/scale/haproxy.sh runs it; this is what of it depends on the server.
    has("http-check send meth GET uri /v2/health/ready");
    has("retry-on conn-failure empty-response 503");
    has("http-request set-header x-request-id");
    run(melo().args(["serve", "--lame-duck-s", "5", "--help"])).good();
    assert!(text.contains("--lame-duck-s 5"));
}

/// Texts that begin like a metric's name.
fn metrics_in(text: &str) -> Vec<&str> {
    let names = text.split(|of: char| !(of.is_ascii_lowercase() || of == '_'));
    names.filter(|name| ["melo_", "process_"].iter().any(|start| name.starts_with(start))).collect()
}

#[test]
fn alarms_and_dashboard_ask_for_metrics_that_there_are() {
    // crates/serve/src/metrics/tests.rs holds that page to the server.
    let list = page("metrics.md");
    let known = |name: &str| {
        let listed = |name: &str| list.contains(&format!("| `{name}` ")) || list.contains(&format!("| `{name}{{"));
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        listed(of_histogram.unwrap_or(name))
    };
    for (name, least) in [("prometheus/alerts.yml", 10), ("grafana/dashboards/melo.json", 20)] {
        let text = text(name);
        let asked = metrics_in(&text);
        assert!(asked.len() > least, "{name} asks for {asked:?}");
        asked.iter().for_each(|metric| assert!(known(metric), "{name}: no metric {metric}"));
    }
    let alarms = documents("prometheus/alerts.yml");
    let rules = alarms[0]["groups"][0]["rules"].as_array().expect("rules");
    let operations = page("operations.md");
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(operations.contains(&format!("`{name}`")), "docs/operations.md does not say what to do at {name}");
    }
    assert!(operations.contains(&format!("{} alarms", rules.len())));
}

#[test]
fn compose_names_files_that_there_are_and_a_server_takes_its_settings() {
    let compose = &documents("compose.yaml")[0];
    let services = compose["services"].as_object().expect("services");
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy"));
    for (name, service) in services {
        for volume in texts(&service["volumes"]) {
            let (from, _) = volume.split_once(':').expect("a volume");
            match from.strip_prefix("./") {
                Some(path) => assert!(folder.join(path).exists(), "{name}: {from}"),
                None => assert!(compose["volumes"].get(from).is_some(), "{name}: {from}"),
            }
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            assert!(compose["secrets"].get(secret.as_str().expect("a name")).is_some(), "{name}: {secret}");
        }
    }
    let orthanc = text("orthanc/orthanc.json");
    let toml = text("melo/serve.toml");
    for (ours, theirs) in [
        ("listen = \"0.0.0.0:11112\"", "\"melo\": [\"MELO\", \"melo\", 11112]"),
        ("address = \"orthanc:4242\"", "\"DicomPort\": 4242"),
        ("ae-title = \"ORTHANC\"", "\"DicomAet\": \"ORTHANC\""),
        ("keys = \"/run/secrets/melo-keys\"", ""),
    ] {
        assert!(toml.contains(ours) && orthanc.contains(theirs), "{ours}, {theirs}");
    }
    let place = Workplace::new();
    let here = toml.replace("0.0.0.0:8080", "127.0.0.1:0").replace("0.0.0.0:11112", "127.0.0.1:0");
    let (settings, keys) = (place.at("serve.toml"), place.at("keys.toml"));
    std::fs::write(&settings, here).expect("written");
    run(melo().args(["keys", "add", "page", "--file"]).arg(&keys)).good();
    let mut command = melo();
    command.args(["serve", "--log", "off", "--config"]).arg(settings);
    command.arg("--state").arg(place.at("state")).arg("--keys").arg(keys);
    let server = Server::start(&place, &mut command);
    assert_eq!((server.status("/healthz"), server.status("/readyz"), server.status("/metrics")), (200, 200, 401));
}
