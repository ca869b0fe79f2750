//! A kill or Ctrl-C at any moment loses at most the epoch in flight, and `--resume` ends bit-identical to a run that
//! nobody stopped.

#![cfg(unix)]

use crate::workplace::{SIDE, Workplace, bytes, embedded_backbone, melo, melo_with_threads, run, train, train_by};
use melo::synthetic::Phantom;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// Epochs of the runs here, each long enough to be killed in.
const EPOCHS: usize = 4;

/// What a run comes to that nobody stops.
struct Uninterrupted {
    workplace: Workplace,
    data: PathBuf,
    plugin: Vec<u8>,
}

static UNINTERRUPTED: LazyLock<Uninterrupted> = LazyLock::new(|| {
    let workplace = Workplace::lasting("resume");
    let data = workplace.phantoms(Phantom::Mammogram, SIDE, [36, 12, 0]);
    let out = workplace.at("uninterrupted.safetensors");
    run(&mut epochs(&data, &out)).good();
    Uninterrupted { plugin: bytes(&out), workplace, data }
});

fn epochs(data: &std::path::Path, out: &std::path::Path) -> Command {
    let mut command = train(&embedded_backbone(), data, out);
    command.args(["--epochs", &EPOCHS.to_string(), "--batch-size", "8"]);
    command
}

/// A training run in another process.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        Running { child, lines: BufReader::new(stderr).lines() }
    }

    /// Waits until the state of `epoch` is on the disk; 0 waits for the training to begin.
    fn wait_for_epoch(&mut self, epoch: usize) {
        let begins = if epoch == 0 { "epoch".to_owned() } else { epoch.to_string() };
        let found = self.lines.by_ref().map_while(Result::ok).any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(&begins) && words.count() >= 5
        });
        assert!(found, "no line of epoch {epoch}");
    }

    /// Sends a signal; returns how the process ended and what it still said.
    fn signal(mut self, signal: &str) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("`kill` starts");
        assert!(sent.success(), "kill {signal}");
        let rest: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        let mut stdout = String::new();
        self.child.stdout.take().expect("standard output is a pipe").read_to_string(&mut stdout).expect("it is text");
        assert_eq!(stdout, "", "a run that was stopped has no result");
        (self.child.wait().expect("the process ends"), rest.join("\n"))
    }
}

fn resumes_to_the_same_bytes(name: &str) {
    let Uninterrupted { workplace, data, plugin } = &*UNINTERRUPTED;
    let out = workplace.at(format!("{name}.safetensors"));
    run(epochs(data, &out).arg("--resume")).good();
    assert_eq!(&bytes(&out), plugin, "{name}");
    let folder = workplace.at(format!("{name}.run"));
    let best = bytes(&workplace.at("uninterrupted.run").join("best.safetensors"));
    assert_eq!(bytes(&folder.join("best.safetensors")), best, "{name}");
    let table = String::from_utf8(bytes(&folder.join("epochs.csv"))).expect("it is text");
    assert_eq!(table.lines().count(), EPOCHS + 1, "{table}");
}

#[test]
fn killed_after_an_epoch() {
    let Uninterrupted { workplace, data, .. } = &*UNINTERRUPTED;
    for epoch in 1..EPOCHS - 1 {
        let name = format!("killed_after_{epoch}");
        let mut running = Running::start(&mut epochs(data, &workplace.at(format!("{name}.safetensors"))));
        running.wait_for_epoch(epoch);
        let (status, _) = running.signal("-KILL");
        assert_eq!(status.code(), None, "killed");
        resumes_to_the_same_bytes(&name);
    }
}

#[test]
fn killed_at_odd_moments_again_and_again() {
    let Uninterrupted { workplace, data, .. } = &*UNINTERRUPTED;
    let out = workplace.at("odd.safetensors");
    for moment in [0, 90, 260, 410, 570] {
        let mut running = Running::start(epochs(data, &out).arg("--resume"));
        running.wait_for_epoch(0);
        std::thread::sleep(Duration::from_millis(moment));
        running.child.kill().expect("the process can be killed");
        running.child.wait().expect("the process ends");
    }
    resumes_to_the_same_bytes("odd");
}

#[test]
fn what_a_kill_between_two_files_left_stale_is_made_again() {
    let Uninterrupted { workplace, data, .. } = &*UNINTERRUPTED;
    let mut running = Running::start(&mut epochs(data, &workplace.at("stale.safetensors")));
    running.wait_for_epoch(EPOCHS - 2);
    running.signal("-KILL");
    std::fs::remove_file(workplace.at("stale.run/best.safetensors")).expect("it was written");
    std::fs::remove_file(workplace.at("stale.run/epochs.csv")).expect("it was written");
    resumes_to_the_same_bytes("stale");
}

#[test]
fn ctrl_c_ends_with_130_and_says_how_to_go_on() {
    let Uninterrupted { workplace, data, .. } = &*UNINTERRUPTED;
    for (signal, epoch) in [("-INT", 0), ("-INT", 1), ("-TERM", 2)] {
        let name = format!("stopped_{epoch}");
        let mut running = Running::start(&mut epochs(data, &workplace.at(format!("{name}.safetensors"))));
        running.wait_for_epoch(epoch);
        let (status, said) = running.signal(signal);
        assert_eq!(status.code(), Some(130), "{said}");
        let message = said.lines().last().expect("a message");
        assert!(message.starts_with("melo: stopped in epoch") && message.contains("--resume"), "{message}");
        assert!(message.contains(&format!("{name}.run")), "{message}");
        assert!(!said.contains("panicked"), "{said}");
        resumes_to_the_same_bytes(&name);
    }
}

#[test]
fn a_full_disk_in_the_middle_loses_nothing() {
    let Uninterrupted { workplace, data, plugin } = &*UNINTERRUPTED;
    let out = workplace.at("full.safetensors");
    let mut running = Running::start(&mut epochs(data, &out));
    running.wait_for_epoch(1);
    running.signal("-KILL");
    let state = bytes(&workplace.at("full.run/last.safetensors"));
    // A limit on the size of files stands for a full disk: writing fails in the middle of the state.
    let ran = run(Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "bash"])
        .arg(melo().get_program())
        .args(epochs(data, &out).arg("--resume").get_args()));
    assert!(state.len() > 100 * 1024 && plugin.len() < 100 * 1024, "the limit lies between the two");
    ran.refused(1, &["full.run/last.safetensors", "File too large"]);
    assert_eq!(bytes(&workplace.at("full.run/last.safetensors")), state, "the state is whole");
    let in_run = std::fs::read_dir(workplace.at("full.run")).expect("the run folder is there").count();
    assert_eq!(in_run, 5, "settings, table, two states, the lock, and nothing half-written");
    assert!(!out.exists());
    resumes_to_the_same_bytes("full");
}

#[test]
fn a_finished_run_resumes_to_itself() {
    let Uninterrupted { workplace, data, plugin } = &*UNINTERRUPTED;
    let out = workplace.at("finished.safetensors");
    run(&mut epochs(data, &out)).good();
    let ran = run(epochs(data, &out).arg("--resume"));
    assert!(ran.stderr.contains(&format!("resuming after epoch {EPOCHS};")), "{}", ran.stderr);
    ran.good();
    assert_eq!(&bytes(&out), plugin);
}

#[test]
fn dropout_and_bottlenecks_resume_to_the_same_bytes_with_any_threads() {
    let Uninterrupted { workplace, data, .. } = &*UNINTERRUPTED;
    let methods: [(&str, &[&str]); 2] =
        [("dropout", &["--lora-dropout", "0.3", "--rank-pattern", "7:8"]), ("adapter", &["--method", "adapter"])];
    for (name, flags) in methods {
        let command = |threads: usize, out: &std::path::Path| {
            let mut command = train_by(melo_with_threads(threads), &embedded_backbone(), data, out);
            command.args(["--epochs", &EPOCHS.to_string(), "--batch-size", "8"]).args(flags);
            command
        };
        let (whole, halved) =
            (workplace.at(format!("{name}.safetensors")), workplace.at(format!("{name}_halved.safetensors")));
        run(&mut command(2, &whole)).good();
        let mut running = Running::start(&mut command(1, &halved));
        running.wait_for_epoch(2);
        running.signal("-KILL");
        run(command(3, &halved).arg("--resume")).good();
        assert_eq!(bytes(&halved), bytes(&whole), "{name}");
    }
}

/// A run of a few quick epochs on a tiny backbone, to be resumed in ways that are refused.
struct Tiny {
    workplace: Workplace,
    backbone: PathBuf,
    data: PathBuf,
    out: PathBuf,
}

impl Tiny {
    fn new() -> Self {
        let workplace = Workplace::new();
        let backbone = workplace.tiny_backbone("vit", 1, None);
        let data = workplace.phantoms(Phantom::Fundus, 32, [12, 9, 0]);
        let out = workplace.at("out.safetensors");
        let tiny = Tiny { workplace, backbone, data, out };
        run(&mut tiny.train()).good();
        tiny
    }

    fn train(&self) -> Command {
        let mut command = train(&self.backbone, &self.data, &self.out);
        command.args(["--epochs", "3"]);
        command
    }

    /// Resuming is refused with this in the message, and nothing changed.
    fn refuses(&self, command: &mut Command, parts: &[&str]) {
        let files = ["out.safetensors", "out.run/last.safetensors", "out.run/best.safetensors", "out.run/config.json"];
        let read = || files.map(|file| bytes(&self.workplace.at(file)));
        let before = read();
        run(command).refused(1, parts);
        assert!(before == read(), "nothing changed");
    }
}

#[test]
fn another_setting_is_refused_by_name() {
    let tiny = Tiny::new();
    let changed: [(&[&str], &str); 13] = [
        (&["--lr", "0.01"], "setting `learning_rate` was"),
        (&["--epochs", "2"], "setting `epochs` was 3 and is now 2"),
        (&["--batch-size", "3"], "setting `batch_size`"),
        (&["--rank", "2"], "setting `lora`"),
        (&["--alpha", "2"], "setting `lora`"),
        (&["--rslora"], "setting `lora`"),
        (&["--lora-dropout", "0.1"], "setting `lora_dropout`"),
        (&["--lora-plus", "4"], "setting `lora_plus`"),
        (&["--method", "linear"], "setting `method` was \"lora\" and is now \"linear\""),
        (&["--seed", "9"], "setting `seed`"),
        (&["--no-flip"], "setting `augment`"),
        (&["--image-size", "64"], "setting `size` was 32 and is now 64"),
        (&["--crop-mode", "center"], "setting `crop_mode`"),
    ];
    for (flags, part) in changed {
        let mut command = train(&tiny.backbone, &tiny.data, &tiny.out);
        if flags[0] != "--epochs" {
            command.args(["--epochs", "3"]);
        }
        tiny.refuses(command.args(flags).arg("--resume"), &["out.run/last.safetensors", "cannot resume", part]);
    }
}

#[test]
fn more_epochs_go_on_after_the_last_one() {
    let tiny = Tiny::new();
    let mut command = train(&tiny.backbone, &tiny.data, &tiny.out);
    let ran = run(command.args(["--epochs", "5", "--resume", "--json"]));
    assert!(ran.stderr.contains("resuming after epoch 3"), "{}", ran.stderr);
    assert_eq!(ran.json()["epochs"], 5);
    let config = String::from_utf8(bytes(&tiny.workplace.at("out.run/config.json"))).expect("it is text");
    assert!(config.contains("\"epochs\": 5"), "{config}");
    let mut again = train(&tiny.backbone, &tiny.data, &tiny.out);
    assert_eq!(run(again.args(["--epochs", "5", "--resume", "--json"])).json()["epochs"], 5);
}

#[test]
fn other_data_are_refused_by_name() {
    let tiny = Tiny::new();
    let table = String::from_utf8(bytes(&tiny.data)).expect("it is text");
    let relabelled = table.replacen("healthy", "exudates", 1);
    tiny.workplace.write("fundus/labels.csv", relabelled);
    tiny.refuses(tiny.train().arg("--resume"), &["cannot resume", "the data"]);
}

#[test]
fn another_backbone_is_refused_by_name() {
    let tiny = Tiny::new();
    let other = tiny.workplace.tiny_backbone("other", 2, None);
    let mut command = train(&other, &tiny.data, &tiny.out);
    tiny.refuses(command.args(["--epochs", "3", "--resume"]), &["cannot resume", "the backbone"]);
}

#[test]
fn a_damaged_state_is_refused_by_name() {
    let tiny = Tiny::new();
    let state = tiny.workplace.at("out.run/last.safetensors");
    let whole = bytes(&state);
    tiny.workplace.write("out.run/last.safetensors", &whole[..whole.len() / 2]);
    tiny.refuses(tiny.train().arg("--resume"), &["out.run/last.safetensors", "not a safetensors file"]);
    // One bit of one number.
    let mut flipped = whole.clone();
    let at = whole.len() - 2;
    flipped[at] ^= 0x40;
    tiny.workplace.write("out.run/last.safetensors", &flipped);
    tiny.refuses(tiny.train().arg("--resume"), &["out.run/last.safetensors", "checksum is wrong"]);
}

#[test]
fn a_run_folder_belongs_to_one_training_at_a_time() {
    let workplace = Workplace::new();
    let data = workplace.phantoms(Phantom::Mammogram, SIDE, [36, 12, 0]);
    let out = workplace.at("one.safetensors");
    let mut first = Running::start(&mut epochs(&data, &out));
    first.wait_for_epoch(1);
    let second = run(epochs(&data, &workplace.at("two.safetensors"))
        .arg("--run")
        .arg(workplace.at("one.run"))
        .arg("--overwrite"));
    second.refused(1, &["one.run", "another training is at work"]);
    let _ = first.child.kill();
    let _ = first.child.wait();
}

#[test]
fn what_exists_is_not_replaced_unasked() {
    let tiny = Tiny::new();
    tiny.refuses(&mut tiny.train(), &["--out", "out.safetensors", "exists already", "--overwrite"]);
    let mut elsewhere = train(&tiny.backbone, &tiny.data, &tiny.workplace.at("new.safetensors"));
    elsewhere.args(["--epochs", "3", "--run"]).arg(tiny.workplace.at("out.run"));
    tiny.refuses(&mut elsewhere, &["out.run", "holds a run at epoch 3 of 3", "--resume", "--overwrite"]);
    // A plug-in without its run: going on is not possible, starting anew would replace it.
    let mut other_run = tiny.train();
    tiny.refuses(other_run.arg("--resume").arg("--run").arg(tiny.workplace.at("no.run")), &["exists already"]);
}

#[test]
fn overwrite_starts_anew_only_when_everything_else_is_right() {
    let tiny = Tiny::new();
    let mut no_backbone = train(&tiny.workplace.at("no.safetensors"), &tiny.data, &tiny.out);
    tiny.refuses(no_backbone.arg("--overwrite"), &["no.safetensors"]);
    let mut no_data = train(&tiny.backbone, &tiny.workplace.at("no.csv"), &tiny.out);
    tiny.refuses(no_data.arg("--overwrite"), &["no.csv"]);
    let before = bytes(&tiny.out);
    run(tiny.train().args(["--overwrite", "--seed", "1"])).good();
    assert_ne!(bytes(&tiny.out), before);
}

#[test]
fn early_stopping_stays_stopped() {
    let tiny = Tiny::new();
    let out = tiny.workplace.at("early.safetensors");
    let mut command = train(&tiny.backbone, &tiny.data, &out);
    // A vanishing learning rate: no epoch is better than the first by much, so patience runs out.
    command.args(["--epochs", "50", "--patience", "2", "--lr", "1e-12", "--min-lr", "0", "--json"]);
    let first = run(&mut command).json();
    let epochs = first["epochs"].as_u64().expect("a number");
    assert!(epochs < 50, "stopped early: {first}");
    let plugin = bytes(&out);
    let again = run(command.arg("--resume")).json();
    assert_eq!((&again["epochs"], &again["best_epoch"]), (&first["epochs"], &first["best_epoch"]));
    assert_eq!(bytes(&out), plugin);
}
