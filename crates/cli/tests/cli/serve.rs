//! The server as its users start it: settings, answers, signals, kills.

use crate::form::Field;
use crate::server::Server;
use crate::workplace::{Workplace, embedded_backbone, melo, run};
use melo::synthetic::Phantom;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// `melo serve` on a free port of loopback, its state under the workplace.
fn command(place: &Workplace) -> Command {
    let mut command = melo();
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--state"]).arg(place.at("state"));
    command
}

fn phantoms() -> std::path::PathBuf {
    embedded_backbone().with_file_name("phantoms")
}

#[test]
fn on_nothing_it_serves_generated_tasks_that_answer_as_predict_does() {
    let place = Workplace::new();
    let server = Server::start(&place, &mut command(&place));
    let samples = server.get("/v1/samples");
    assert!(samples["samples"].as_array().is_some_and(|samples| samples.len() > 10), "{samples}");
    place.image("film.png", Phantom::ALL[0], 1, 5_000, 96);
    let image = std::fs::read(place.at("film.png")).expect("the image");
    let fields: [Field<'_>; 2] = [("image", Some("film.png"), &image), ("tasks", None, b"all")];
    let answer = server.predict(&fields).expect("an answer");
    let answers = answer["images"][0]["answers"].as_array().expect("answers").clone();
    assert_eq!(answers.len(), Phantom::ALL.len());
    for answer in answers {
        let task = answer["task"].as_str().expect("a name");
        let mut predict = melo();
        predict.args(["predict", "--json", "--backbone"]).arg(embedded_backbone()).arg("--plugin");
        predict.arg(phantoms().join(format!("{task}.safetensors"))).arg(place.at("film.png"));
        let offline = run(&mut predict).json();
        assert_eq!(answer["predicted"], offline["predicted"], "{task}");
        assert_eq!(answer["version"], offline["plugin_digest"], "{task}");
        let offline = offline["probabilities"].as_object().expect("probabilities").clone();
        for (class, probability) in offline {
            let (found, wanted) = (answer["probabilities"][&class].as_f64(), probability.as_f64());
            let (found, wanted) = found.zip(wanted).expect("numbers");
            assert!((found - wanted).abs() <= 1e-5, "{task} {class}: {found}, offline {wanted}");
        }
    }
    assert_eq!(server.signal("-TERM"), Some(0), "a server that is asked to stop has not failed");
}

#[test]
fn a_probe_says_whether_the_server_of_its_settings_is_ready() {
    let place = Workplace::new();
    let server = Server::start(&place, &mut command(&place));
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    // Where a container listens, it asks by loopback.
    for listen in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        run(melo().args(["serve", "--probe"]).env("MELO_SERVE_LISTEN", listen)).good();
    }
    assert_eq!(server.signal("-TERM"), Some(0));
    run(melo().args(["serve", "--probe", "--listen", &format!("127.0.0.1:{port}")]))
        .refused(1, &["/v2/health/ready", &port]);
    run(melo().args(["serve", "--probe", "--listen", "here"])).refused(1, &["here: "]);
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let place = Workplace::new();
    let server = Server::start(&place, &mut command(&place));
    let address = server.url.strip_prefix("http://").expect("an address");
    let mut idle = TcpStream::connect(address).expect("a connection");
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    assert!(idle.read(&mut [0; 4096]).expect("an answer") > 0);
    let asked = Instant::now();
    assert_eq!(server.signal("-TERM"), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let place = Workplace::new();
    let file = place.write("serve.toml", format!("max-images = 1\nmax-batch = 3\nplugins = {:?}\n", phantoms()));
    let mut command = command(&place);
    command.arg("--config").arg(&file).args(["--backbone"]).arg(embedded_backbone());
    command.env("MELO_SERVE_MAX_IMAGES", "2").env("MELO_SERVE_KEEP_VERSIONS", "0");
    let server = Server::start(&place, &mut command);
    assert_eq!(server.get("/v1/tasks")["tasks"].as_array().map(Vec::len), Some(4), "the file's folder");
    let image = std::fs::read(sample(&place)).expect("the image");
    let many = |count: usize| {
        let mut fields: Vec<Field<'_>> = vec![("image", Some("a.png"), &image); count];
        fields.push(("tasks", None, b"fundus"));
        server.predict(&fields).is_ok()
    };
    assert!(many(2) && !many(3), "the variable's two images");
    drop(server);
    let server = Server::start(&place, command.args(["--max-images", "3"]));
    let mut fields: Vec<Field<'_>> = vec![("image", Some("a.png"), &image); 3];
    fields.push(("tasks", None, b"fundus"));
    server.predict(&fields).expect("the flag's three images");
}

fn sample(place: &Workplace) -> std::path::PathBuf {
    place.image("a.png", Phantom::ALL[3], 0, 5_001, 96);
    place.at("a.png")
}

#[test]
fn wrong_settings_are_refused_in_one_message_that_names_them() {
    let place = Workplace::new();
    let file = place.write("serve.toml", "max-bacth = 3\n");
    run(command(&place).arg("--config").arg(&file)).refused(1, &["serve.toml", "max-bacth"]);
    let file = place.write("serve.toml", "max-batch = \"three\"\n");
    run(command(&place).arg("--config").arg(&file)).refused(1, &["serve.toml", "max-batch"]);
    run(command(&place).arg("--config").arg(place.at("none.toml"))).refused(1, &["none.toml"]);
    let listen = |address: &str| {
        run(melo().args(["serve", "--log", "off", "--listen", address, "--state"]).arg(place.at("state")))
    };
    listen("nowhere").refused(1, &["nowhere"]);
    run(command(&place).args(["--max-batch", "0"])).refused(1, &["max-batch"]);
    let mut missing = command(&place);
    missing.arg("--backbone").arg(embedded_backbone()).arg("--plugins").arg(place.at("nothing"));
    run(&mut missing).refused(1, &["nothing"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    listen(&address).refused(1, &[&address]);
}

#[test]
fn a_killed_server_goes_on_with_what_it_had_accepted() {
    let place = Workplace::new();
    std::fs::create_dir_all(place.at("plugins")).expect("a folder");
    let copy = |name: &str| {
        let from = phantoms().join(format!("{name}.safetensors"));
        std::fs::copy(from, place.at("plugins").join(format!("{name}.safetensors"))).expect("copied")
    };
    copy("fundus");
    let mut command = command(&place);
    command.arg("--backbone").arg(embedded_backbone()).arg("--plugins").arg(place.at("plugins"));
    let server = Server::start(&place, &mut command);
    copy("mammogram");
    let tasks = |server: &Server| server.get("/v1/tasks")["tasks"].as_array().map_or(0, Vec::len);
    let started = Instant::now();
    while tasks(&server) < 2 {
        assert!(started.elapsed() < Duration::from_secs(30), "the new file is not served");
        std::thread::sleep(Duration::from_millis(50));
    }
    let image = std::fs::read(sample(&place)).expect("the image");
    let ask = |server: &Server| {
        let fields: [Field<'_>; 2] = [("image", Some("a.png"), &image), ("tasks", None, b"all")];
        server.predict(&fields)
    };
    let before = ask(&server).expect("an answer");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| while ask(&server).is_ok() {})).collect();
        std::thread::sleep(Duration::from_millis(300));
        run(Command::new("kill").arg("-9").arg(server.child.id().to_string())).good();
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
    });
    drop(server);
    let server = Server::start(&place, &mut command);
    assert_eq!(tasks(&server), 2);
    assert_eq!(ask(&server).expect("an answer"), before);
    assert!(Path::exists(&place.at("state/registry.json")));
}

#[test]
fn the_help_and_the_documentation_say_the_defaults_of_the_server() {
    use melo::serve::defaults;
    let mib = |bytes: usize| (bytes >> 20).to_string();
    let known = [
        ("--listen", defaults::LISTEN.to_owned()),
        ("--state", defaults::STATE.to_owned()),
        ("--max-batch", defaults::MAX_BATCH.to_string()),
        ("--max-wait-ms", defaults::MAX_WAIT.as_millis().to_string()),
        ("--queue", defaults::QUEUE.to_string()),
        ("--max-images", defaults::MAX_IMAGES.to_string()),
        ("--max-body-mib", mib(defaults::BODY_BYTES)),
        ("--timeout-s", defaults::TIMEOUT.as_secs().to_string()),
        ("--resident-mib", mib(defaults::RESIDENT_BYTES)),
        ("--keep-versions", defaults::KEEP_VERSIONS.to_string()),
        ("--max-connections", defaults::MAX_CONNECTIONS.to_string()),
        ("--drain-s", defaults::DRAIN.as_secs().to_string()),
    ];
    let help = run(melo().args(["serve", "--help"])).good();
    let help: Vec<&str> = help.split_whitespace().collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/serve.md");
    let page = std::fs::read_to_string(path).expect("the page of the server");
    let mut told = 0;
    for (flag, value) in &known {
        let at = help.windows(2).position(|pair| pair[0] == *flag && pair[1].starts_with('<')).expect("the flag");
        let default = help[at..].iter().position(|word| *word == "[default:").expect("a default") + at + 1;
        assert_eq!(help[default], format!("{value}]"), "{flag} in the help");
        // Where the page gives a figure, it stands behind the flag.
        for (start, _) in page.match_indices(&format!("`{flag}` ")) {
            let figure = page[start + flag.len() + 3..].split([' ', ',', ';', '|']).next().unwrap_or_default();
            if figure.starts_with(|c: char| c.is_ascii_digit()) {
                assert_eq!(figure, value, "{flag} in docs/serve.md");
                told += 1;
            }
        }
    }
    assert_eq!(told, 6, "the table of bounds gives six defaults");
}
