//! A training's news in event files, and at a server that answers as MLflow does.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_log::{Destination, Logs, Run, Server, ServerAccess, Status};
use melo_train::{EpochRow, Event, TrainConfig};
use melo_vit::{BackboneReference, ImageError, ImageSource, Preprocess, TaskCard, TaskKind};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SIDE: usize = 4;
/// Images of the training split, and steps an epoch of two images a step.
const IMAGES: usize = 6;
const STEPS: u64 = 3;

/// Images of one level.
struct Grey;

impl ImageSource for Grey {
    fn load(&self, _: usize, out: &mut [f32]) -> Result<(), ImageError> {
        out.fill(0.0);
        Ok(())
    }
}

fn card() -> TaskCard {
    let backbone = BackboneReference { digest: "00ff".into(), name: "tiny".into() };
    let classes = vec!["benign".into(), "malignant".into()];
    TaskCard::new("film".into(), TaskKind::SingleLabel, classes, Preprocess::base(SIDE), backbone)
}

/// Tells logs of some epochs after those that are done, and of the test split.
fn train(logs: &mut Logs, epochs_done: usize, more: usize) {
    epochs(logs, epochs_done, more);
    tested(logs);
}

fn tested(logs: &mut Logs) {
    let mut card = card();
    card.metrics.insert("test_auc_macro".to_owned(), 0.75);
    logs.show(&Event::Card(&card));
}

fn epochs(logs: &mut Logs, epochs_done: usize, epochs: usize) {
    let config = TrainConfig { batch_size: 2, epochs: epochs_done + epochs, ..TrainConfig::new(2) };
    let card = card();
    logs.show(&Event::Started {
        card: &card,
        config: &config,
        trainable: 10,
        backbone: 100,
        images: IMAGES,
        epochs_done,
    });
    for epoch in epochs_done + 1..=epochs_done + epochs {
        logs.show(&Event::Batch { epoch, source: &Grey, images: 2, size: SIDE });
        for step in 1..=STEPS as usize {
            logs.show(&Event::Step { epoch, images: 2 * step, loss: 0.5 });
        }
        logs.show(&Event::Validated {
            epoch,
            probabilities: &[0.75, 0.25, 0.125, 0.875],
            truth: &[true, false, false, true],
        });
        let row =
            EpochRow { epoch, train_loss: 0.5, val_loss: 0.25, val_auc_macro: Some(0.875), ..EpochRow::default() };
        logs.show(&Event::Epoch(&row));
    }
}

type Said = Arc<Mutex<Vec<String>>>;

fn logs(to: Destination, folder: &Path) -> (Logs, Said) {
    let said = Said::default();
    let heard = Arc::clone(&said);
    let run = Run {
        name: "film-1".to_owned(),
        experiment: "film".to_owned(),
        tags: vec![("method".to_owned(), "ours".to_owned())],
        folder: Some(folder.to_owned()),
    };
    let warn = Arc::new(move |text: &str| heard.lock().unwrap().push(text.to_owned()));
    (Logs::new(vec![to], run, warn), said)
}

/// The payloads of the records of a folder's event files, in the order of their names.
fn records(folder: &Path) -> Vec<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let payloads = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut payloads) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            payloads.push(rest[12..12 + length].to_vec());
            rest = &rest[16 + length..];
        }
        payloads
    };
    files.iter().map(payloads).collect()
}

fn holds(payload: &[u8], text: &str) -> bool {
    payload.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn event_files_begin_as_tensorboards_do_and_hold_what_a_training_says() {
    let folder = tempfile::tempdir().unwrap();
    let (mut logs, said) = logs(Destination::TensorBoard(folder.path().join("a")), folder.path());
    train(&mut logs, 0, 3);
    logs.end(Status::Finished, None);
    assert!(said.lock().unwrap().is_empty(), "{said:?}");
    let files = records(&folder.path().join("a"));
    assert_eq!(files.len(), 1);
    let path = std::fs::read_dir(folder.path().join("a")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(path).unwrap();
    // A length of 24 with its checksum, a wall time, and the version: so does every file of TensorFlow.
    assert_eq!(bytes[..13], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22, 0x09]);
    assert!(files[0][0].ends_with(b"\x1a\x0dbrain.Event:2"));
    let count = |text: &str| files[0].iter().filter(|payload| holds(payload, text)).count();
    assert_eq!(count("val_auc_macro"), 3);
    assert_eq!(count("val/benign"), 3, "a curve an epoch");
    assert_eq!(count("pr_curves"), 3);
    assert_eq!(count("train/batch"), 2, "of the first and second epoch, the fourth is not there");
    assert_eq!(count("PNG\r\n"), 2);
    assert_eq!(count("test_auc_macro"), 1);
}

#[test]
fn a_training_that_goes_on_begins_another_event_file_that_ends_what_was_undone() {
    let folder = tempfile::tempdir().unwrap();
    for epochs_done in [0, 2] {
        let (mut logs, _) = logs(Destination::TensorBoard(folder.path().join("a")), folder.path());
        train(&mut logs, epochs_done, 2);
        logs.end(Status::Finished, None);
    }
    let files = records(&folder.path().join("a"));
    assert_eq!(files.len(), 2);
    // A session starts: at step 0, where all before is undone, and after the last step that was kept.
    let start = |step: u8| [&[0x10, step][..], &[0x3a, 0x02, 0x08, 0x01]].concat();
    assert!(files[0][1].ends_with(&start(0)) && files[1][1].ends_with(&start(2 * STEPS as u8 + 1)));
}

#[test]
fn an_ensemble_has_a_run_a_member_and_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (mut logs, said) = logs(Destination::TensorBoard(folder.path().join("a")), folder.path());
    for fold in 1..=2 {
        logs.show(&Event::Fold { fold, of: 2 });
        epochs(&mut logs, 0, 1);
    }
    tested(&mut logs);
    logs.end(Status::Finished, None);
    assert!(said.lock().unwrap().is_empty(), "{said:?}");
    let count = |at: &str, text: &str| {
        let at = folder.path().join("a").join(at);
        let files: Vec<PathBuf> = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files = files.iter().filter(|path| path.is_file());
        files.filter(|path| holds(&std::fs::read(path).unwrap(), text)).count()
    };
    for member in ["fold-1", "fold-2"] {
        assert_eq!((count(member, "val_auc_macro"), count(member, "test_auc_macro")), (1, 0), "{member}");
    }
    assert_eq!((count(".", "val_loss"), count(".", "test_auc_macro")), (0, 1));
}

#[test]
fn a_folder_that_cannot_be_written_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (mut logs, said) = logs(Destination::TensorBoard(file.join("a")), folder.path());
    train(&mut logs, 0, 2);
    logs.end(Status::Finished, None);
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("file/a") && said[0].ends_with("; the training goes on"), "{said:?}");
}

/// What was asked: `METHOD path`, and the body.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers as MLflow does; the experiment is not there at first.
fn mlflow(refuse: Option<&'static str>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &heard, refuse);
        }
    });
    (address, asked)
}

fn answer(mut stream: TcpStream, asked: &Asked, refuse: Option<&str>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        head += &line;
        line.clear();
    }
    let length = head
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .map_or(0, |of| of.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let is = |path: &str| request.contains(path);
    let (status, answer) = match () {
        () if refuse.is_some_and(is) => (403, r#"{"error_code": "PERMISSION_DENIED", "message": "not yours"}"#),
        () if is("experiments/get-by-name") => (404, r#"{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}"#),
        () if is("experiments/create") => (200, r#"{"experiment_id": "7"}"#),
        () if is("runs/create") || is("runs/get") => (
            200,
            r#"{"run": {"info": {"run_id": "r1", "status": "FINISHED", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts"}}}"#,
        ),
        () => (200, "{}"),
    };
    asked.lock().unwrap().push((request, String::from_utf8_lossy(&body).into_owned()));
    let length = answer.len();
    write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}").unwrap();
}

fn server(address: &str) -> Destination {
    Destination::MlFlow(Server::new(address, ServerAccess::default()).unwrap())
}

#[test]
fn a_run_of_mlflow_has_settings_metrics_and_an_end_and_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = mlflow(None);
    let (mut first, said) = logs(server(&address), folder.path());
    train(&mut first, 0, 2);
    first.end(Status::Killed, None);
    assert!(said.lock().unwrap().is_empty(), "{said:?}");
    let heard = std::mem::take(&mut *asked.lock().unwrap());
    let requests: Vec<&str> =
        heard.iter().map(|(request, _)| request.trim_start_matches("POST /api/2.0/mlflow/")).collect();
    assert_eq!(
        requests,
        [
            "GET /api/2.0/mlflow/experiments/get-by-name?experiment_name=film",
            "experiments/create",
            "runs/create",
            "runs/log-batch",
            "runs/log-batch",
            "runs/update"
        ]
    );
    for part in [r#""run_name":"film-1""#, r#"{"key":"method","value":"ours"}"#, r#"{"key":"seed","value":"0"}"#] {
        assert!(heard[2].1.contains(part), "{}", heard[2].1);
    }
    assert!(!heard[2].1.contains("lora"), "a tag that was given goes before the training's own: {}", heard[2].1);
    assert!(heard[3].1.contains(r#"{"key":"lora.rank","value":"4"}"#), "{}", heard[3].1);
    assert!(heard[4].1.contains(r#""key":"val_auc_macro","value":0.875"#), "{}", heard[4].1);
    assert!(heard[4].1.contains(r#""step":6"#) && heard[4].1.contains("test_auc_macro"), "{}", heard[4].1);
    assert!(heard[5].1.contains(r#""status":"KILLED""#), "{}", heard[5].1);

    let (mut again, _) = logs(server(&address), folder.path());
    train(&mut again, 2, 1);
    again.end(Status::Finished, None);
    let heard = std::mem::take(&mut *asked.lock().unwrap());
    assert!(heard.iter().all(|(request, _)| !request.contains("runs/create")), "{heard:?}");
    assert!(heard[1].1.contains(r#""run_id":"r1","status":"RUNNING""#), "{heard:?}");
    assert!(heard[2].1.contains(r#""step":9"#) && !heard[2].1.contains("lora.rank"), "{heard:?}");
}

#[test]
fn what_a_server_refuses_is_said_once_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = mlflow(Some("runs/log-batch"));
    let (mut logs, said) = logs(server(&address), folder.path());
    train(&mut logs, 0, 2);
    logs.end(Status::Finished, None);
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("403") && said[0].contains("PERMISSION_DENIED not yours"), "{said:?}");
    assert!(asked.lock().unwrap().last().unwrap().1.contains("FINISHED"), "the run is ended all the same");
}

#[test]
fn a_server_that_is_away_costs_a_warning_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut logs, said) = logs(server("http://127.0.0.1:1"), folder.path());
    let started = Instant::now();
    train(&mut logs, 0, 3000);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    logs.end(Status::Finished, None);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let said = said.lock().unwrap();
    assert!(said[0].starts_with("MLflow at http://127.0.0.1:1: ") && said[0].ends_with("; the training goes on"));
    let warnings = said.iter().filter(|said| said.ends_with("; the training goes on")).count();
    assert_eq!(warnings, 1, "{said:?}");
    assert!(said.iter().skip(1).all(|said| said.contains("records")), "{said:?}");
}
