//! What is installed starts with flags and settings that the binary takes, and says its version.

use crate::workplace::{melo, run};
use serde_json::Value;
use std::path::{Path, PathBuf};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn file(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

fn text(name: &str) -> String {
    let path = file(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What follows `start` in the only line that begins so.
fn said<'a>(text: &'a str, start: &str) -> &'a str {
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(start)).collect();
    assert_eq!(lines.len(), 1, "{start}: {lines:?}");
    lines[0]
}

/// Flags are read up to the one that asks for help, variables of `env` before.
fn understood(arguments: &[String], env: &str) {
    let mut command = melo();
    command.args(arguments).arg("--help").envs(env.split(' ').filter_map(|pair| pair.split_once('=')));
    let help = run(&mut command).good().split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, value) in env.split(' ').filter_map(|pair| pair.split_once('=')) {
        let ours = name.starts_with("MELO_SERVE_");
        assert!(!ours || help.contains(&format!("[env: {name}={value}]")), "{name}");
    }
}

#[test]
fn the_service_starts_what_there_is() {
    let unit = text("deploy/systemd/melo.service");
    let arguments: Vec<String> = said(&unit, "ExecStart=/usr/bin/melo ").split(' ').map(str::to_owned).collect();
    understood(&arguments, said(&unit, "Environment="));
    assert_eq!(arguments[2], said(&unit, "ConditionPathExists="));
    let stop: u64 = said(&unit, "TimeoutStopSec=").parse().expect("seconds");
    assert!(stop > 30, "the server's own end takes {stop} s");
    // Its settings are read before it is asked: nothing listens on port 1.
    let settings = file("deploy/systemd/serve.toml");
    run(melo().args(["serve", "--probe", "--listen", "127.0.0.1:1", "--config"]).arg(settings))
        .refused(1, &["/v2/health/ready"]);
}

#[test]
fn the_image_starts_what_there_is() {
    let container = text("tools/release/Containerfile");
    let words = |start: &str| serde_json::from_str::<Vec<String>>(said(&container, start)).expect(start);
    let env = said(&container, "ENV ");
    assert_eq!(words("ENTRYPOINT "), ["/usr/bin/melo"]);
    understood(&words("CMD "), env);
    let health = said(&container, "HEALTHCHECK ").split_once("CMD ").expect("a command").1;
    let health: Vec<String> = serde_json::from_str(health).expect("words");
    understood(&health[1..], env);
    let volumes: Value = serde_json::from_str(said(&container, "VOLUME ")).expect("a list");
    assert_eq!(volumes[0], "/var/lib/melo");
    assert!(env.contains("MELO_SERVE_STATE=/var/lib/melo "), "{env}");
}

#[test]
fn instructions_name_the_files_of_this_version() {
    let page = text("docs/install.md");
    for name in ["melo-vit-", "melo-vit_"] {
        for (at, _) in page.match_indices(name) {
            let rest = &page[at + name.len()..];
            let numbered = rest.starts_with(|first: char| first.is_ascii_digit());
            assert!(!numbered || rest.starts_with(VERSION), "{}", &rest[..20]);
        }
    }
    assert!(page.contains(&format!("melo-vit-{VERSION}-x86_64-unknown-linux-musl.tar.gz")));
}
