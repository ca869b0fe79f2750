//! `melo archive run` on objects of a store that speaks S3, which runs in this process.

use crate::archive_run::{BENCH, answer, archive, files, parts, rows, text};
use crate::bucket::{Bucket, Fault, KEY_ID, SECRET};
use crate::peer::{image, part10};
use crate::workplace::{Ran, Workplace, melo, run};
use melo::synthetic::Phantom;
use parquet::record::Field;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The command, with a way to this bucket.
fn reaching(bucket: &Bucket) -> Command {
    let mut command = melo();
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT_URL", bucket.address()).env("AWS_REGION", "eu-central-1");
    command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
}

fn asked(bucket: &Bucket, input: &str, out: &Path) -> Command {
    archive(reaching(bucket), &[Path::new(input)], out, &BENCH.backbone, &[&BENCH.plugin])
}

/// Images and what is none, in a folder.
fn films(place: &Workplace) -> PathBuf {
    let names = ["a b+c.png", "in/deep/é%20ä.png", "in/one", "z#1.png", "in.png"];
    for (seed, name) in (0..).zip(names) {
        place.image(&format!("films/{name}"), Phantom::Fundus, seed % 2, seed as u64, 32 + 8 * seed);
    }
    place.write("films/in/scan", part10(image("1.2.9.7", "DX")));
    for name in ["broken.png", "notes.txt", "DICOMDIR", ".hidden.png", "in/.cache/x.png", "__MACOSX/y.png"] {
        place.write(&format!("films/{name}"), "no image");
    }
    place.write("films/empty", "");
    place.at("films")
}

/// What was said of each image below `start`, by its name.
fn said(out: &Path, start: &str) -> BTreeMap<String, BTreeMap<String, Field>> {
    let named = |row: BTreeMap<String, Field>| {
        let name = text(&row["image"]).strip_prefix(start).expect("an image of the input").trim_start_matches('/');
        (name.to_owned(), row)
    };
    rows(out).into_iter().map(named).collect()
}

#[test]
fn objects_answer_as_their_files_do() {
    let place = Workplace::new();
    let films = films(&place);
    let bucket = Bucket::of_folder(&films, "2024/", 3);
    bucket.fault("2024/in.png", Fault::Unavailable(2));
    bucket.fault("2024/in/one", Fault::Cut(1));
    let (local, remote) = (place.at("local"), place.at("remote"));
    let here = run(&mut archive(melo(), &[&films], &local, &BENCH.backbone, &[&BENCH.plugin]));
    let there = run(asked(&bucket, "s3://films/2024", &remote).args(["--chunk", "4", "--json"]));
    assert_eq!((here.status, there.status), (1, 1), "{there:?}");
    assert!(there.stderr.contains("s3://films/2024/broken.png") && there.stderr.contains("1 of 7 images"), "{there:?}");
    let report: Value = serde_json::from_str(&there.stdout).expect("JSON");
    assert_eq!((&report["inputs"], &report["errors"], &report["parts"]), (&7.into(), &1.into(), &2.into()));
    let (here, there) = (said(&local, &films.display().to_string()), said(&remote, "s3://films/2024"));
    assert!(here.keys().eq(there.keys()), "{:?}, {:?}", here.keys(), there.keys());
    for (name, row) in &here {
        for column in row.keys().filter(|column| !["input", "image", "error"].contains(&column.as_str())) {
            assert_eq!(row[column], there[name][column], "{column} of {name}");
        }
    }
    assert_eq!(text(&there["in/scan"]["sop_instance_uid"]), "1.2.9.7");
    assert_eq!(answer(&here["in.png"], "probabilities"), answer(&there["in.png"], "probabilities"));
    let order: Vec<String> = rows(&remote).iter().map(|row| text(&row["image"]).to_owned()).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(files(&remote).values().all(|bytes| !bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())));
    run(melo().args(["archive", "check"]).arg(&remote)).good();
}

#[test]
fn a_list_names_objects_and_one_object_is_an_input() {
    let place = Workplace::new();
    let bucket = Bucket::of_folder(&films(&place), "", 1000);
    let list = place.write("list.txt", "s3://films/z#1.png\nfilms/in.png\ns3://films/in/scan#frame=1\n");
    let names = |input: &str, out: &str| {
        run(&mut asked(&bucket, input, &place.at(out))).good();
        rows(&place.at(out)).iter().map(|row| text(&row["image"]).to_owned()).collect::<Vec<_>>()
    };
    let here = place.at("films/in.png").display().to_string();
    assert_eq!(
        names(list.to_str().expect("a name"), "list"),
        [&here, "s3://films/in/scan#frame=1", "s3://films/z#1.png"]
    );
    assert_eq!(names("s3://films/in.png", "one"), ["s3://films/in.png"]);
    assert_eq!(names("s3://films/in/scan", "scan"), ["s3://films/in/scan"]);
    let address = format!("file://{}", place.at("films/in.png").display());
    assert_eq!(names(&address, "file"), [here]);
}

#[test]
fn objects_that_cannot_be_had_cost_their_rows() {
    let place = Workplace::new();
    let bucket = Bucket::of_folder(&films(&place), "", 1000);
    bucket.fault("a b+c.png", Fault::Gone);
    bucket.fault("in.png", Fault::Forbidden);
    bucket.fault("z#1.png", Fault::Huge);
    bucket.fault("in/scan", Fault::Forbidden);
    let out = place.at("out");
    let ran = run(&mut asked(&bucket, "s3://films", &out));
    assert_eq!(ran.status, 1);
    let rows = said(&out, "s3://films");
    let reason = |name: &str| text(&rows[name]["error"]).to_owned();
    for (name, words) in [
        ("a b+c.png", "404 Not Found: NoSuchKey"),
        ("in.png", "403 Forbidden: AccessDenied"),
        ("z#1.png", "an object of 2147483648 bytes, where 1073741824 are read at most"),
    ] {
        assert!(
            reason(name).starts_with(&format!("s3://films/{name}: ")) && reason(name).contains(words),
            "{}",
            reason(name)
        );
    }
    assert_eq!((rows.len(), &rows["in/one"]["error"]), (6, &Field::Null));
    let unlisted = "s3://films/in/scan: 403 Forbidden: AccessDenied";
    assert!(ran.stderr.contains(unlisted) && ran.stderr.contains("1 folders or files could not be listed"), "{ran:?}");
}

fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.status, 1, "{ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines.len() == 1 && parts.iter().all(|part| lines[0].contains(part)), "expected {parts:?} in {lines:?}");
    assert!(!ran.stderr.contains(SECRET) && ran.stdout.is_empty());
}

#[test]
fn a_store_that_cannot_be_asked_is_one_line() {
    let place = Workplace::new();
    let bucket = Bucket::of_folder(&films(&place), "", 1000);
    let out = place.at("out");
    let with = |name: &str, value: &str| run(asked(&bucket, "s3://films", &out).env(name, value));
    refused(&with("AWS_ACCESS_KEY_ID", "OTHER"), &["s3://films: 403 Forbidden: InvalidAccessKeyId", "AWS_"]);
    refused(&with("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), &["s3://films: 127.0.0.1: ", "refused"]);
    refused(&with("AWS_ENDPOINT_URL", "nowhere"), &["s3://films: AWS_ENDPOINT_URL: expected https://"]);
    refused(&with("AWS_ACCESS_KEY_ID", "a\nb"), &["s3://films: AWS_ACCESS_KEY_ID has a character that no header"]);
    refused(&with("AWS_CA_BUNDLE", "/nowhere.pem"), &["s3://films: AWS_CA_BUNDLE: /nowhere.pem: "]);
    refused(&run(asked(&bucket, "s3://films", &out).env_remove("AWS_SECRET_ACCESS_KEY")), &["s3://films: ", "Secret"]);
    let list = place.write("list.txt", "s3://nowhere/a.png\n");
    for input in ["s3://nowhere/2024", list.to_str().expect("a name")] {
        refused(&run(&mut asked(&bucket, input, &out)), &["s3://nowhere: 404 Not Found: NoSuchBucket"]);
    }
    refused(&run(&mut asked(&bucket, "s3://films/2031", &out)), &["s3://films/2031: no image found"]);
    refused(&run(&mut asked(&bucket, "gs://films/2031", &out)), &["gs://films/2031: expected a path, s3://"]);
}

#[test]
fn a_store_that_is_lost_ends_the_run_which_goes_on_later() {
    let place = Workplace::new();
    let bucket = Bucket::of_folder(&BENCH.workplace.at("fundus"), "", 1000);
    let (straight, out) = (place.at("straight"), place.at("out"));
    let command = |out: &Path| {
        let mut command = asked(&bucket, "s3://films", out);
        command.args(["--chunk", "4"]);
        command
    };
    run(&mut command(&straight)).good();
    bucket.expire_after(Some(100));
    let lost = run(&mut command(&out));
    assert_eq!(lost.status, 1);
    let last = lost.stderr.lines().last().expect("a line");
    assert!(last.contains("s3://films/") && last.contains("ExpiredToken") && last.contains("the same command goes on"));
    assert!(!lost.stderr.contains("could not be read"), "no row says so");
    assert!(!parts(&out).is_empty(), "some parts are kept");
    bucket.expire_after(None);
    run(&mut command(&out)).good();
    assert!(files(&out) == files(&straight));
}

#[cfg(unix)]
#[test]
fn a_kill_amid_objects_changes_no_byte() {
    let place = Workplace::new();
    let bucket = Bucket::of_folder(&BENCH.workplace.at("fundus"), "", 50);
    let (straight, killed) = (place.at("straight"), place.at("killed"));
    let command = |out: &Path| {
        let mut command = asked(&bucket, "s3://films", out);
        command.args(["--chunk", "2"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(command(&straight).status().expect("it starts").success());
    for kills in 1..4 {
        let mut child = command(&killed).spawn().expect("the command starts");
        while parts(&killed).len() < 8 * kills && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _ = child.kill();
        child.wait().expect("the process ends");
    }
    assert!(command(&killed).status().expect("it starts").success());
    assert!(files(&killed) == files(&straight));
}
