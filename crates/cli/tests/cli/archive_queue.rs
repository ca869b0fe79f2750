//! `melo archive plan`, `work`, `status`, `collect` on a real nats-server: the bytes of one process, whatever dies, and refusals by name.
//! Where no nats-server is installed, each test says so and checks nothing.

#![cfg(unix)]

use crate::archive_run::{BENCH, files, parts, rows, text};
use crate::workplace::{Ran, Workplace, melo, run, train};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server of its own, with JetStream, on loopback.
struct Nats {
    folder: tempfile::TempDir,
    config: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Nats {
    fn start() -> Option<Self> {
        Self::with("jetstream: enabled")
    }

    /// With lines of a configuration; none where there is no such program.
    fn with(lines: &str) -> Option<Self> {
        if Command::new("nats-server").arg("--version").output().is_err() {
            println!("not checked: nats-server is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let config = folder.path().join("nats.conf");
        let store = folder.path().join("store");
        let lines = lines.replace("jetstream: enabled", &format!("jetstream {{ store_dir: {store:?} }}"));
        std::fs::write(&config, format!("listen: 127.0.0.1:{port}\n{lines}\n")).expect("a configuration");
        let mut server = Nats { folder, config, port, process: None };
        server.begin();
        Some(server)
    }

    fn begin(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("the server starts"));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(20), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.end();
    }
}

/// `melo archive VERB --out OUT --queue URL`.
fn archive(verb: &str, out: &Path, url: &str) -> Command {
    let mut command = melo();
    for name in ["NATS_URL", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_CREDS", "NATS_NKEY", "NATS_CA"] {
        command.env_remove(name);
    }
    command.args(["archive", verb, "--out"]).arg(out).args(["--queue", url]);
    command
}

/// All images of the bench, a part every four.
fn plan(out: &Path, url: &str, more: &[&str]) -> Command {
    let mut command = archive("plan", out, url);
    command.arg(BENCH.images()).arg("--backbone").arg(&BENCH.backbone).arg("--plugin").arg(&BENCH.plugin);
    command.args(["--chunk", "4"]).args(more);
    command
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
}

fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().expect("the process ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { status: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Waits until so many parts are there.
fn wait_for(out: &Path, count: usize) {
    let started = Instant::now();
    while parts(out).len() < count {
        assert!(started.elapsed() < Duration::from_secs(120), "{} of {count} parts", parts(out).len());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn status(out: &Path, url: &str) -> Value {
    let ran = run(archive("status", out, url).arg("--json"));
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// The files of one process that was left alone, without the lock.
fn reference() -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let place = Workplace::new();
    run(&mut BENCH.archive(&place.at("straight"))).good();
    files(&place.at("straight"))
}

#[test]
fn workers_that_are_killed_and_a_server_that_is_restarted_change_no_byte() {
    let Some(mut server) = Nats::start() else { return };
    let (place, url) = (Workplace::new(), server.url());
    let out = place.at("out");
    let planned = run(&mut plan(&out, &url, &["--json", "--max-deliver", "50", "--ack-wait", "2"])).json();
    assert_eq!((&planned["parts"], &planned["queued"]), (&30.into(), &30.into()));
    let again = run(&mut plan(&out, &url, &["--json", "--max-deliver", "50", "--ack-wait", "2"])).json();
    assert_eq!((&again["missing"], &again["queued"]), (&30.into(), &0.into()), "what is queued is not queued again");
    run(&mut archive("collect", &out, &url)).refused_after(&["30 of 30 parts are not there", "melo archive work"]);

    let worker = || spawn(archive("work", &out, &url).arg("--json"));
    let mut workers = vec![worker(), worker()];
    let started = Instant::now();
    for kill in 0..6 {
        while parts(&out).len() < 1 + 4 * kill {
            assert!(started.elapsed() < Duration::from_secs(120), "{} parts", parts(&out).len());
            // One that begins while the server is down says so and ends.
            for one in &mut workers {
                if one.try_wait().expect("a process").is_some() {
                    *one = worker();
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut killed = workers.remove(0);
        killed.kill().expect("a process");
        killed.wait().expect("it ends");
        workers.push(worker());
        if kill == 3 {
            server.end();
            std::thread::sleep(Duration::from_millis(300));
            server.begin();
        }
    }
    for worker in workers {
        ended(worker).json();
    }
    let looked = status(&out, &url);
    assert_eq!(
        (&looked["parts_done"], &looked["inputs_done"], &looked["waiting"]),
        (&30.into(), &120.into(), &0.into())
    );
    assert_eq!(looked["failures"], serde_json::json!([]));
    assert!(looked["workers"].as_array().is_some_and(|workers| workers.len() >= 2), "{looked}");
    let collected = run(archive("collect", &out, &url).arg("--json")).json();
    assert_eq!((&collected["inputs"], &collected["rows"]), (&120.into(), &120.into()));
    assert!(files(&out) == reference(), "the bytes of one process");
    let rows = rows(&out);
    let images: BTreeSet<&str> = rows.iter().map(|row| text(&row["image"])).collect();
    assert_eq!((rows.len(), images.len()), (120, 120), "every image once");
    run(&mut archive("collect", &out, &url)).refused_after(&["nothing was queued from this folder"]);
    run(melo().args(["archive", "check"]).arg(&out)).good();
}

#[test]
fn a_worker_that_is_asked_to_end_finishes_its_part_and_gives_back_the_rest() {
    let Some(server) = Nats::start() else { return };
    let (place, url) = (Workplace::new(), server.url());
    let out = place.at("out");
    run(&mut plan(&out, &url, &["--ack-wait", "600"])).good();
    let worker = spawn(&mut archive("work", &out, &url));
    wait_for(&out, 1);
    let sent = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().expect("`kill` starts");
    assert!(sent.success());
    let said = ended(worker);
    assert!(said.status == 130 && said.stderr.contains("the same command goes on"), "{said:?}");
    let looked = status(&out, &url);
    assert_eq!(looked["workers"][0]["state"], "ended");
    // Within ten minutes, because all was given back.
    run(&mut archive("work", &out, &url)).good();
    run(&mut archive("collect", &out, &url)).good();
    assert!(files(&out) == reference());
}

#[test]
fn a_server_that_is_lost_half_way_is_waited_for_with_a_word() {
    let Some(mut server) = Nats::start() else { return };
    let (place, url) = (Workplace::new(), server.url());
    let out = place.at("out");
    run(&mut plan(&out, &url, &[])).good();
    let worker = spawn(&mut archive("work", &out, &url));
    wait_for(&out, 2);
    server.end();
    std::thread::sleep(Duration::from_secs(1));
    server.begin();
    let said = ended(worker);
    assert_eq!(said.status, 0, "{said:?}");
    let words = ["the NATS server is lost; trying until it is back", "the NATS server is back"];
    assert!(words.iter().all(|word| said.stderr.contains(word)), "{said:?}");
    run(&mut archive("collect", &out, &url)).good();
    assert!(files(&out) == reference());
}

#[test]
fn what_is_wrong_with_the_server_is_named() {
    let Some(server) = Nats::with("authorization { token: s3cret }\njetstream: enabled") else { return };
    let place = Workplace::new();
    let out = place.at("out");
    let host = format!("127.0.0.1:{}", server.port);
    run(&mut plan(&out, &server.url(), &[])).refused_after(&[&host, "refuses these credentials", "NATS_TOKEN"]);
    let wrong = format!("nats://wr0ng@{host}");
    let ran = run(&mut plan(&out, &wrong, &[]));
    assert!(!ran.stderr.contains("wr0ng"), "no secret in a message: {ran:?}");
    ran.refused_after(&["refuses these credentials"]);
    run(&mut plan(&out, &format!("nats://s3cret@{host}"), &[])).good();
    run(archive("status", &out, &server.url()).env("NATS_TOKEN", "s3cret")).good();
    drop(server);
    run(&mut archive("work", &out, &format!("nats://{host}"))).refused_after(&[&host, "cannot be reached"]);

    let Some(server) = Nats::with("") else { return };
    run(&mut plan(&place.at("other"), &server.url(), &[])).refused_after(&["JetStream is not enabled"]);
}

#[test]
fn users_nkeys_and_tls_with_certificates_of_both_sides_are_known() {
    let place = Workplace::new();
    let authority = {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    };
    let ca = place.write("ca.pem", authority.pem());
    let issued = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        (
            place.write(&format!("{name}.pem"), certificate.pem()),
            place.write(&format!("{name}.key"), key.serialize_pem()),
        )
    };
    let ((certificate, key), (own, own_key)) = (issued("server"), issued("client"));
    let tls = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}\njetstream: enabled\n\
         authorization {{ users: [ {{ nkey: UAFHG6FUD2UU4SDFVAFUL5LDFO2XM4WYM76UNXTPJYJK7EEMYRBHT2VE }}, {{ user: melo, password: \"p@ss\" }} ] }}"
    );
    let Some(server) = Nats::with(&tls) else { return };
    let nkey = place.write("user.nk", "SUACH75SWCM5D2JMJM6EKLR2WDARVGZT4QC6LX3AGHSWOMVAKERABBBRWM\n");
    let url = server.url().replace("nats://", "tls://");
    let out = place.at("out");
    let with_tls = |mut command: Command| {
        command.env("NATS_CA", &ca).env("NATS_CERT", &own).env("NATS_KEY", &own_key);
        command
    };
    run(with_tls(plan(&out, &url, &[])).arg("--nats-nkey").arg(&nkey)).good();
    run(with_tls(archive("status", &out, &url)).env("NATS_USER", "melo").env("NATS_PASSWORD", "p@ss")).good();
    run(&mut with_tls(archive("status", &out, &url.replace("127", "melo:p%40ss@127")))).good();
    run(&mut with_tls(archive("status", &out, &url))).refused_after(&["refuses these credentials"]);
    run(archive("status", &out, &url).arg("--nats-ca").arg(&ca)).refused_after(&["cannot be reached"]);
    let bad = place.write("bad.nk", "SUNOSEED");
    run(with_tls(archive("status", &out, &url)).arg("--nats-nkey").arg(&bad)).refused_after(&["bad.nk", "no seed"]);
    let creds = place.write("bad.creds", "nothing");
    run(with_tls(archive("status", &out, &url)).arg("--nats-creds").arg(&creds)).refused_after(&["bad.creds"]);
}

#[test]
fn another_archive_of_the_same_name_and_other_plugins_are_refused() {
    let Some(server) = Nats::start() else { return };
    let (place, url) = (Workplace::new(), server.url());
    let (first, second) = (place.at("one/cxr"), place.at("two/cxr"));
    let local = place.write("fundus.safetensors", std::fs::read(&BENCH.plugin).expect("the plug-in"));
    let planned = |out: &Path, more: &[&str]| {
        let mut command = archive("plan", out, &url);
        command.arg(BENCH.images()).arg("--backbone").arg(&BENCH.backbone).arg("--plugin").arg(&local);
        command.args(["--chunk", "4"]).args(more);
        run(&mut command)
    };
    planned(&first, &[]).good();
    planned(&second, &[]).refused_after(&["the queue `cxr` is of another archive", "one/cxr", "--name"]);
    planned(&second, &["--name", "cxr 2"]).refused_after(&["`cxr 2`", "letters, digits"]);
    planned(&second, &["--name", "cxr-2"]).good();
    planned(&second, &["--name", "cxr-3"]).refused_after(&["the name of the queue was cxr-2 and is now cxr-3"]);
    planned(&first, &["--precision", "bf16"]).refused_after(&["cannot go on", "is now"]);

    let labels = BENCH.images().join("labels.csv");
    run(train(&BENCH.backbone, &labels, &local).args([
        "--epochs",
        "1",
        "--seed",
        "5",
        "--task",
        "fundus",
        "--overwrite",
    ]))
    .good();
    let refused = run(&mut archive("work", &first, &url));
    refused.refused_after(&["`plugin_digest` of plug-in `fundus` is planned as", "--plugin"]);
    run(archive("work", &first, &url).arg("--plugin").arg(&BENCH.plugin)).good();
    run(&mut archive("collect", &first, &url)).good();

    run(&mut archive("work", &place.at("nowhere"), &url)).refused_after(&["nothing was queued", "melo archive plan"]);
    let inputs = second.join("inputs");
    std::fs::write(&inputs, b"another.png\0").expect("a change");
    let refused = run(archive("work", &second, &url).arg("--plugin").arg(&BENCH.plugin));
    refused.refused_after(&["inputs: not the names that the plan was made of"]);
}

#[test]
fn a_worker_without_room_ends_and_another_does_its_part() {
    let Some(server) = Nats::start() else { return };
    let (place, url) = (Workplace::new(), server.url());
    let out = place.at("out");
    run(&mut plan(&out, &url, &[])).good();
    let inner = archive("work", &out, &url);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    run(&mut limited).refused_after(&["part-", "File too large"]);
    let looked = status(&out, &url);
    assert_eq!((&looked["workers"][0]["state"], &looked["parts_done"]), (&"failed".into(), &0.into()), "{looked}");
    assert_eq!((&looked["failures"][0]["given_up"], &looked["unqueued"]), (&false.into(), &0.into()), "{looked}");
    run(&mut archive("work", &out, &url)).good();
    run(&mut archive("collect", &out, &url)).good();
    assert!(files(&out) == reference());
}

#[test]
fn a_part_that_nobody_can_compute_is_given_up_named_and_queued_again() {
    let Some(server) = Nats::start() else { return };
    let (place, url) = (Workplace::new(), server.url());
    for number in 0..8 {
        place.image(&format!("films/{number}.png"), melo::synthetic::Phantom::Fundus, 0, number, 32);
    }
    let out = place.at("out");
    let mut planned = archive("plan", &out, &url);
    planned.arg(place.at("films")).arg("--backbone").arg(&BENCH.backbone).arg("--plugin").arg(&BENCH.plugin);
    planned.args(["--chunk", "4", "--max-deliver", "2", "--json"]);
    run(&mut planned).json();
    let hidden = place.at("hidden");
    std::fs::create_dir(&hidden).expect("a folder");
    for number in 0..4 {
        let name = format!("{number}.png");
        std::fs::rename(place.at("films").join(&name), hidden.join(&name)).expect("a move");
    }
    run(&mut archive("work", &out, &url)).refused_after(&["none of 4 files can be read here", "0.png", "mount"]);
    run(&mut archive("work", &out, &url)).refused_after(&["none of 4 files can be read here"]);
    let ran = run(&mut archive("work", &out, &url));
    assert!(ran.status == 1 && ran.stderr.contains("1 parts failed"), "{ran:?}");
    let ran = run(&mut archive("status", &out, &url));
    assert!(ran.status == 1 && ran.stdout.contains("failed: part 0, handed out 2 times"), "{ran:?}");
    let refused = run(&mut archive("collect", &out, &url));
    refused.refused_after(&["1 of 2 parts are not there", "part-0000000", "none of 4 files", "melo archive plan"]);
    for number in 0..4 {
        let name = format!("{number}.png");
        std::fs::rename(hidden.join(&name), place.at("films").join(&name)).expect("a move");
    }
    let again = run(&mut planned).json();
    assert_eq!((&again["missing"], &again["queued"]), (&1.into(), &1.into()));
    run(&mut archive("work", &out, &url)).good();
    assert_eq!(run(archive("collect", &out, &url).arg("--json")).json()["rows"], 8);
}
