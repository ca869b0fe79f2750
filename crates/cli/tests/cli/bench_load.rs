//! `melo bench load` against a server of a few lines, whose answers come from `melo predict`, right, wrong or not at all.

use crate::workplace::{Ran, Workplace, melo, run};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

/// A backbone and three plug-ins for all tests.
static FIXTURES: LazyLock<Workplace> = LazyLock::new(|| {
    let workplace = Workplace::lasting("bench_load");
    let mut command = melo();
    command.args(["bench", "fixtures", "--arch", "vit_tiny_patch16_32", "--plugins", "3", "--classes", "4"]);
    run(command.arg(workplace.at("load"))).good();
    workplace
});

fn backbone() -> PathBuf {
    FIXTURES.at("load").join("backbone.safetensors")
}

fn plugins() -> PathBuf {
    FIXTURES.at("load").join("plugins")
}

/// How a server answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Right,
    /// One probability of one task is off by 1e-4.
    SlightlyWrong,
    /// The answers of two tasks are exchanged.
    Exchanged,
    /// The right numbers under another version.
    OldVersion,
    /// A task is left out.
    Short,
    /// Every third request is told to come again in a second.
    Busy,
    /// A status of 500.
    Failing,
}

struct Fake {
    manner: Manner,
    requests: AtomicUsize,
    /// Name and version of each task.
    tasks: Vec<(String, String)>,
    /// Probabilities by image and task.
    known: Mutex<HashMap<(String, String), Value>>,
    work: Workplace,
}

/// Starts a server that lives as long as the test and returns its address.
fn serve(manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    let tasks = (0..3).map(|number| {
        let name = format!("random_{number:04}");
        let info = run(melo().args(["plugin", "info", "--json"]).arg(plugins().join(format!("{name}.safetensors"))));
        (name, info.json()["plugin_digest"].as_str().expect("a digest").to_owned())
    });
    let fake = Fake {
        manner,
        requests: AtomicUsize::new(0),
        tasks: tasks.collect(),
        known: Mutex::default(),
        work: Workplace::new(),
    };
    let fake = Arc::new(fake);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let fake = Arc::clone(&fake);
            std::thread::spawn(move || fake.connection(stream));
        }
    });
    format!("http://{address}")
}

impl Fake {
    /// Requests of one connection until the client closes it.
    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        while let Some((first, headers, body)) = request(&mut reader) {
            let (status, extra, answer) = self.answer(&first, &headers, &body);
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 {status}\r\n{extra}content-type: application/json\r\ncontent-length: ");
            if write!(&stream, "{head}{}\r\n\r\n{answer}", answer.len()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, first: &str, headers: &str, body: &[u8]) -> (&'static str, &'static str, Value) {
        if !headers.contains("authorization: Bearer secret") {
            return ("401 Unauthorized", "", json!({"error": "no key"}));
        }
        if first.starts_with("GET /v1/tasks ") {
            let tasks: Vec<Value> = self.tasks.iter().map(|(n, v)| json!({"name": n, "version": v})).collect();
            return ("200 OK", "", json!({"tasks": tasks, "more": 1}));
        }
        assert!(first.starts_with("POST /v1/predict "), "{first}");
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match self.manner {
            Manner::Failing => return ("500 Internal Server Error", "", json!({"error": "out of order"})),
            Manner::Busy if number % 3 == 1 => return ("429 Too Many Requests", "retry-after: 1\r\n", json!({})),
            _ => {}
        }
        let form = parts(headers, body);
        let (_, asked) = &form["tasks"];
        let (name, image) = &form["image"];
        let asked: Vec<&str> = std::str::from_utf8(asked).expect("names").split(',').collect();
        let mut answers: Vec<Value> = asked
            .iter()
            .map(|task| {
                let (_, version) = self.tasks.iter().find(|(name, _)| name == task).expect("a known task");
                let probabilities = self.probabilities(name, image, task);
                json!({"task": task, "version": version, "probabilities": probabilities, "unit": "%"})
            })
            .collect();
        match self.manner {
            Manner::SlightlyWrong => {
                if let Some(found) = answers.iter_mut().find(|answer| answer["task"] == "random_0001") {
                    let class = &mut found["probabilities"]["class_2"];
                    *class = (class.as_f64().expect("a number") + 1e-4).into();
                }
            }
            Manner::Exchanged => {
                let first = answers[0]["probabilities"].take();
                let second = answers[1]["probabilities"].take();
                (answers[0]["probabilities"], answers[1]["probabilities"]) = (second, first);
            }
            Manner::OldVersion => answers[0]["version"] = "0".repeat(64).into(),
            Manner::Short => drop(answers.pop()),
            _ => {}
        }
        ("200 OK", "", json!({"images": [{"name": name, "answers": answers}], "seconds": 0.1}))
    }

    /// What `melo predict` says, asked once an image.
    fn probabilities(&self, name: &str, image: &[u8], task: &str) -> Value {
        let mut known = self.known.lock().expect("no other request panicked");
        let key = (name.to_owned(), task.to_owned());
        if !known.contains_key(&key) {
            let mut command = melo();
            command.arg("predict").arg("--json").arg("--backbone").arg(backbone());
            for (task, _) in &self.tasks {
                command.arg("--plugin").arg(plugins().join(format!("{task}.safetensors")));
            }
            for line in run(command.arg(self.work.write(name, image))).json_lines() {
                let task = line["task"].as_str().expect("a name").to_owned();
                known.insert((name.to_owned(), task), line["probabilities"].clone());
            }
        }
        known[&key].clone()
    }
}

/// First line, headers and body of a request; none at the end of the connection.
fn request(reader: &mut impl BufRead) -> Option<(String, String, Vec<u8>)> {
    let (mut first, mut headers) = (String::new(), String::new());
    reader.read_line(&mut first).ok().filter(|&bytes| bytes > 0)?;
    while !headers.ends_with("\r\n\r\n") {
        reader.read_line(&mut headers).ok().filter(|&bytes| bytes > 0)?;
        if headers == "\r\n" {
            break;
        }
    }
    let length =
        headers.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((first, headers, body))
}

/// File name and content of each field of a multipart form.
fn parts(headers: &str, body: &[u8]) -> HashMap<String, (String, Vec<u8>)> {
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let quoted = |head: &str, key: &str| head.split_once(key)?.1.split('"').next().map(str::to_owned);
    let boundary = headers.split_once("boundary=").expect("a form").1.lines().next().expect("a line");
    let delimiter = format!("--{boundary}");
    let mut fields = HashMap::new();
    let mut rest = &body[find(body, delimiter.as_bytes()).expect("a part") + delimiter.len()..];
    while rest.starts_with(b"\r\n") {
        let end = find(rest, format!("\r\n{delimiter}").as_bytes()).expect("parts end");
        let (part, after) = (&rest[2..end], &rest[end + 2 + delimiter.len()..]);
        let head_end = find(part, b"\r\n\r\n").expect("a part has a head");
        let head = String::from_utf8_lossy(&part[..head_end]).into_owned();
        let name = quoted(&head, " name=\"").expect("a field has a name");
        let file = quoted(&head, "filename=\"").unwrap_or_default();
        fields.insert(name, (file, part[head_end + 4..].to_vec()));
        rest = after;
    }
    assert!(rest.starts_with(b"--"), "the form ends");
    fields
}

fn load(url: &str, more: &[&str]) -> Ran {
    let mut command = melo();
    command.args(["bench", "load", "--json", "--key", "secret", "--url", url]);
    command.arg("--backbone").arg(backbone()).arg("--plugins").arg(plugins());
    command.args(["--images", "4", "--side", "48", "--clients", "3", "--warmup", "0.5", "--seconds", "1.5"]);
    run(command.args(more))
}

/// The line that a run printed whatever its exit status.
fn line(ran: &Ran) -> Value {
    serde_json::from_str(ran.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn count(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field} of {line} is a count"))
}

#[test]
fn right_answers_are_counted_and_timed() {
    let pid = std::process::id().to_string();
    let ran = load(&serve(Manner::Right), &["--pid", &pid]);
    let line = line(&ran);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(["wrong", "failures", "busy"].map(|field| count(&line, field)), [0; 3]);
    assert_eq!(count(&line, "requests"), count(&line, "answers"), "one task a request");
    assert_eq!([&line["bench"], &line["arch"]], ["load", "vit_tiny_patch16_32"]);
    assert!(line["images_per_s"].as_f64() > Some(0.0) && line["images_per_s"] == line["answers_per_s"], "{line}");
    let latency = ["p50", "p90", "p99", "max"].map(|field| line["latency_seconds"][field].as_f64().expect("a number"));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{line}");
    // JSON keeps every bit of an f32, and the server computed with the same code.
    assert!(line["largest_difference"].as_f64() <= Some(1e-6), "{line}");
    assert!(line["closest_expected"].as_f64() > Some(1e-4), "answers tell tasks and images apart: {line}");
    if cfg!(target_os = "linux") {
        let [first, min, max, last] = ["first", "min", "max", "last"].map(|field| count(&line["rss_bytes"], field));
        assert!(1_000_000 < min && min <= first && first <= max && min <= last && last <= max, "{line}");
        assert!(count(&line, "peak_rss_bytes") >= max);
    }
}

#[test]
fn many_tasks_of_a_request_are_all_compared() {
    let ran = load(&serve(Manner::Right), &["--tasks", "0"]);
    let line = line(&ran);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(line["tolerance"], 1e-5);
    assert_eq!(count(&line, "answers"), 3 * count(&line, "requests"));
    assert!(line["answers_per_s"].as_f64() > line["images_per_s"].as_f64(), "{line}");
}

#[test]
fn a_wrong_answer_fails_whatever_is_wrong_with_it() {
    for (manner, tasks, reason) in [
        (Manner::SlightlyWrong, "0", "class_2"),
        (Manner::Exchanged, "0", "expected"),
        (Manner::OldVersion, "1", "version 000"),
        (Manner::Short, "2", "1 answers"),
    ] {
        let ran = load(&serve(manner), &["--tasks", tasks]);
        let line = line(&ran);
        assert!(count(&line, "wrong") > 0 && count(&line, "failures") == 0, "{line}");
        assert!(count(&line, "wrong") <= count(&line, "answers"), "{line}");
        assert_eq!(ran.status, 1, "{ran:?}");
        let last = ran.stderr.lines().last().expect("a message");
        assert!(last.starts_with("melo: ") && last.contains(reason) && last.contains(".png"), "{last}");
    }
}

#[test]
fn a_full_server_is_asked_again() {
    let ran = load(&serve(Manner::Busy), &[]);
    let line = line(&ran);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(count(&line, "busy") > 0 && count(&line, "answers") > 0, "{line}");
    // Those that the end of the run found waiting were not answered.
    assert!(count(&line, "requests") - count(&line, "answers") <= 3, "{line}");
}

#[test]
fn a_server_that_fails_or_is_not_there_is_named() {
    let ran = load(&serve(Manner::Failing), &[]);
    assert!(count(&line(&ran), "failures") > 0 && ran.status == 1, "{ran:?}");
    assert!(ran.stderr.lines().last().is_some_and(|last| last.contains("500") && last.contains("out of order")));

    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free");
    load(&format!("http://{free}"), &[]).refused(1, &["/v1/tasks"]);
    let mut command = melo();
    command.env("MELO_API_KEY", "wrong").args(["bench", "load", "--images", "1", "--url", &serve(Manner::Right)]);
    command.arg("--backbone").arg(backbone()).arg("--plugins").arg(plugins());
    run(&mut command).refused(1, &["401", "no key"]);
}

#[test]
fn a_plugin_that_is_not_served_is_named_before_anything_is_sent() {
    let new = Workplace::new();
    let mut command = melo();
    command.args(["bench", "fixtures", "--arch", "vit_tiny_patch16_32", "--plugins", "1", "--rank", "1"]);
    run(command.arg(new.at("other"))).good();
    let other = new.at("other").join("plugins");
    let refused = |plugins: &Path, parts: &[&str]| {
        let mut command = melo();
        command.args(["bench", "load", "--key", "secret", "--url", &serve(Manner::Right), "--images", "1"]);
        run(command.arg("--backbone").arg(backbone()).arg("--plugins").arg(plugins)).refused(1, parts);
    };
    refused(&other, &["/v1/tasks", "serves no plug-in of the version"]);
    refused(&new.at("empty"), &["empty"]);
}
