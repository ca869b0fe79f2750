//! `melo archive`: the answers of `melo predict`, every image once whatever kills it, and damages that are found.

use crate::peer::{image, part10};
use crate::workplace::{Workplace, bytes, embedded_backbone, melo, melo_with_threads, on, run, train};
use dicom_core::value::{PrimitiveValue, Value as DicomValue};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use melo::synthetic::Phantom;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A tiny backbone, images and a plug-in, made once for all tests, which only read them.
pub(crate) struct Bench {
    pub(crate) workplace: Workplace,
    pub(crate) backbone: PathBuf,
    pub(crate) plugin: PathBuf,
}

pub(crate) static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let workplace = Workplace::lasting("archive");
    let backbone = workplace.tiny_backbone("vit", 1, None);
    let data = workplace.phantoms(Phantom::Fundus, 32, [60, 30, 30]);
    let plugin = workplace.at("fundus.safetensors");
    run(train(&backbone, &data, &plugin).args(["--epochs", "1"])).good();
    Bench { workplace, backbone, plugin }
});

impl Bench {
    pub(crate) fn images(&self) -> PathBuf {
        self.workplace.at("fundus")
    }

    /// All images, a part every four.
    pub(crate) fn archive(&self, out: &Path) -> Command {
        let mut command = archive(melo(), &[&self.images()], out, &self.backbone, &[&self.plugin]);
        command.args(["--chunk", "4"]);
        command
    }
}

pub(crate) fn archive(mut melo: Command, inputs: &[&Path], out: &Path, backbone: &Path, plugins: &[&Path]) -> Command {
    melo.args(["archive", "run"]).args(inputs).arg("--out").arg(out).arg("--backbone").arg(backbone);
    for plugin in plugins {
        melo.arg("--plugin").arg(plugin);
    }
    melo
}

/// The bytes of all files of an archive.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = |folder: &Path| folder.read_dir().expect("the folder").map(|entry| entry.expect("an entry").path());
    let files = entries(folder).chain(entries(&folder.join("parts"))).filter(|path| path.is_file());
    files.map(|path| (path.strip_prefix(folder).expect("inside").to_owned(), bytes(&path))).collect()
}

pub(crate) fn parts(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.join("parts").read_dir() else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut parts: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect();
    parts.sort();
    parts
}

pub(crate) fn rows(folder: &Path) -> Vec<BTreeMap<String, Field>> {
    let columns = |row: Row| row.get_column_iter().map(|(name, field)| (name.clone(), field.clone())).collect();
    let of_part = |path: PathBuf| {
        let reader = SerializedFileReader::new(std::fs::File::open(path).expect("a part")).expect("Parquet");
        let rows = reader.get_row_iter(None).expect("rows");
        rows.map(|row| columns(row.expect("a row"))).collect::<Vec<_>>()
    };
    parts(folder).into_iter().flat_map(of_part).collect()
}

pub(crate) fn text(field: &Field) -> &str {
    match field {
        Field::Str(text) => text,
        other => panic!("{other:?} is no text"),
    }
}

/// Names and bits of probabilities of a row, or of its values.
pub(crate) fn answer(row: &BTreeMap<String, Field>, column: &str) -> Vec<(String, u32)> {
    let (Field::ListInternal(classes), Field::ListInternal(values)) = (&row["classes"], &row[column]) else {
        panic!("{row:?} has {column}")
    };
    let bits = |field: &Field| match field {
        Field::Float(value) => value.to_bits(),
        other => panic!("{other:?} is no number"),
    };
    classes.elements().iter().map(|class| text(class).to_owned()).zip(values.elements().iter().map(bits)).collect()
}

/// The same of a line of `melo predict --json`.
fn answer_of(line: &Value, column: &str) -> Vec<(String, u32)> {
    let values = line[column].as_object().expect("classes").iter();
    values.map(|(class, value)| (class.clone(), (value.as_f64().expect("a number") as f32).to_bits())).collect()
}

#[test]
fn the_answers_are_those_of_predict_to_the_last_bit() {
    let place = Workplace::new();
    for number in 0..9 {
        let name = format!("films/{}/{number}.png", number % 2);
        place.image(&name, Phantom::BloodSmear, number % 2, number as u64, 40 + 8 * number);
    }
    let mut film = image("1.2.9.7", "DX");
    let patient = DicomValue::Primitive(PrimitiveValue::from("Meier-1970"));
    film.put(DataElement::new(tags::PATIENT_ID, VR::LO, patient));
    place.write("films/scan", part10(film));
    place.write("films/broken.png", "no image");
    place.write("films/notes.txt", "no image");
    let folder = embedded_backbone().with_file_name("phantoms");
    let mut plugins: Vec<PathBuf> =
        folder.read_dir().expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    plugins.sort();
    let plugins: Vec<&Path> = plugins.iter().map(PathBuf::as_path).collect();

    let mut predict = melo();
    predict.args(["predict", "--json", "--backbone"]).arg(embedded_backbone()).arg(place.at("films"));
    plugins.iter().for_each(|plugin| {
        predict.arg("--plugin").arg(plugin);
    });
    let said = run(&mut predict);
    assert_eq!(said.status, 1, "one image is broken");
    let lines: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let key = place.write("patients.key", [5; 32]);
    let command = |melo: Command, out: &Path| {
        let mut command = archive(melo, &[&place.at("films")], out, &embedded_backbone(), &plugins);
        command.args(["--chunk", "7", "--json", "--patient-key"]).arg(&key);
        command
    };
    let out = place.at("out");
    let ran = run(&mut command(melo(), &out));
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("broken.png") && ran.stderr.contains("1 of 11 images could not be read"), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).expect("a report all the same");
    assert_eq!((&report["inputs"], &report["errors"], &report["parts"]), (&11.into(), &1.into(), &2.into()));
    assert_eq!(report["rows"], 11 * plugins.len());

    let rows = rows(&out);
    let (broken, good): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["error"] != Field::Null);
    assert_eq!(broken.len(), plugins.len());
    assert!(broken.iter().all(|row| text(&row["image"]).ends_with("broken.png")));
    assert_eq!(good.len(), lines.len());
    for (row, line) in good.iter().zip(&lines) {
        assert_eq!(
            (text(&row["image"]), text(&row["task"])),
            (line["image"].as_str().expect("text"), line["task"].as_str().expect("text"))
        );
        assert_eq!(answer(row, "probabilities"), answer_of(line, "probabilities"));
        assert_eq!(text(&row["predicted"]), line["predicted"]);
        for name in ["plugin_digest", "backbone_digest", "precision"] {
            assert_eq!(text(&row[name]), line[name], "{name}");
        }
    }
    let scan = good.iter().find(|row| text(&row["image"]).ends_with("scan")).expect("the DICOM image");
    assert_eq!((text(&scan["sop_instance_uid"]), text(&scan["study_instance_uid"])), ("1.2.9.7", "1.2.3.1"));
    assert_eq!(text(&scan["patient"]).len(), 64);
    assert!(files(&out).values().all(|bytes| !bytes.windows(10).any(|window| window == b"Meier-1970")));

    let other = place.at("other");
    assert_eq!(run(&mut command(melo_with_threads(3), &other)).status, 1);
    assert!(files(&out) == files(&other), "the number of threads does not matter");
}

/// Waits until a process ends, or for so long.
fn wait(child: &mut Child, most: Duration) {
    let started = Instant::now();
    while started.elapsed() < most && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(unix)]
#[test]
fn ten_kills_at_any_moment_change_no_byte() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let (straight, killed) = (place.at("straight"), place.at("killed"));
    let command = |out: &Path| {
        let mut command = archive(melo(), &[&bench.images()], out, &bench.backbone, &[&bench.plugin]);
        command.args(["--chunk", "1"]);
        command
    };
    let started = Instant::now();
    run(&mut command(&straight)).good();
    let whole = started.elapsed();
    let mut state = u64::from(whole.subsec_nanos()) | 1;
    let mut met = 0;
    for number in 0..10 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let share = (state >> 40) as f64 / (1_u64 << 24) as f64;
        let mut child =
            command(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts");
        // One of them meets a run that has begun, whatever the machine is busy with.
        while number == 0 && parts(&killed).is_empty() && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        wait(&mut child, whole.mul_f64(share * if number == 0 { 0.1 } else { 0.8 }));
        met += usize::from(child.try_wait().expect("a child").is_none());
        let _ = child.kill();
        child.wait().expect("the process ends");
    }
    assert!(met > 0, "some were at work");
    run(&mut command(&killed)).good();
    assert!(files(&killed) == files(&straight), "{met} kills");
    let rows = rows(&killed);
    let images: std::collections::BTreeSet<&str> = rows.iter().map(|row| text(&row["image"])).collect();
    assert_eq!((rows.len(), images.len()), (120, 120), "every image once");
    run(melo().args(["archive", "check"]).arg(&killed)).good();
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_after_the_chunk_in_flight_and_the_same_command_goes_on() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let out = place.at("out");
    let mut child = bench.archive(&out).stderr(Stdio::piped()).spawn().expect("the command starts");
    while parts(&out).is_empty() && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("`kill` starts");
    assert!(sent.success());
    let ended = child.wait_with_output().expect("the process ends");
    let said = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted after ") && said.contains("the same command goes on"), "{said}");
    let checked = run(melo().args(["archive", "check"]).arg(&out));
    assert!(checked.status == 1 && checked.stdout.contains("missing: manifest.json"), "{checked:?}");
    let ran = run(bench.archive(&out).arg("--json"));
    assert!(ran.stderr.contains("going on after "), "{}", ran.stderr);
    let report = ran.json();
    assert!(report["resumed"].as_u64().is_some_and(|resumed| resumed >= 4), "{report}");
    assert_eq!(report["rows"], 120);
}

#[test]
fn an_estimate_writes_nothing_and_tells_hours_and_bytes() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let list: Vec<PathBuf> = (0..6).map(|number| bench.images().join(format!("test_{number}.png"))).collect();
    let broken = place.write("broken.png", "no image");
    let estimate = |verb| {
        let mut command = melo();
        command.args(["archive", verb, "--estimate", "--json", "--backbone"]).arg(&bench.backbone);
        run(command.arg("--plugin").arg(&bench.plugin).args(&list).arg(&broken))
    };
    assert_eq!(estimate("plan").json()["inputs"], 7, "without a queue");
    let ran = estimate("run");
    assert!(ran.stderr.contains("broken.png"), "{ran:?}");
    let said = ran.json();
    assert_eq!((&said["inputs"], &said["sample"], &said["refused"]), (&7.into(), &7.into(), &1.into()));
    let sizes: usize = list.iter().chain([&broken]).map(|path| bytes(path).len()).sum();
    let each = said["bytes_per_image"].as_f64().expect("a number");
    assert!((each * 7.0 - sizes as f64).abs() < 0.5, "{each}");
    let precisions = said["precisions"].as_array().expect("precisions");
    assert_eq!(precisions.iter().map(|of| &of["precision"]).collect::<Vec<_>>(), ["f32", "bf16", "int8"]);
    for of in precisions {
        let rate = of["images_per_second"].as_f64().expect("a rate");
        let alone =
            ["read_images_per_second", "decode_images_per_second"].map(|name| said[name].as_f64().expect("a rate"));
        assert!(rate > 0.0 && alone.iter().all(|alone| rate <= *alone), "{said}");
        let archives = of["archives"].as_array().expect("archives");
        assert_eq!(
            archives.iter().map(|of| of["images"].as_u64()).collect::<Vec<_>>(),
            [Some(7), Some(1_000_000), Some(100_000_000)]
        );
        let hours = archives[1]["machine_hours"].as_f64().expect("hours");
        assert!((hours * rate * 3600.0 - 1e6).abs() < 1.0, "{hours}");
    }
    let mut both = bench.archive(&place.at("out"));
    assert_eq!(run(both.arg("--estimate")).status, 2, "--out says that something is written");
    assert!(!place.at("out").exists());
}

#[test]
fn another_plugin_is_refused_and_a_damaged_part_is_found() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let out = place.at("out");
    run(&mut bench.archive(&out)).good();
    let whole = files(&out);
    let other = place.at("other.safetensors");
    let labels = bench.images().join("labels.csv");
    run(train(&bench.backbone, &labels, &other).args(["--epochs", "1", "--seed", "5", "--task", "fundus"])).good();
    let mut command = archive(melo(), &[&bench.images()], &out, &bench.backbone, &[&other]);
    run(command.args(["--chunk", "4"])).refused_after(&["`plugin_digest` of plug-in `fundus`", "name another --out"]);
    run(bench.archive(&out).args(["--precision", "bf16"])).refused_after(&["cannot go on", "is now"]);
    assert!(files(&out) == whole, "nothing changed");

    let part = &parts(&out)[3];
    let mut damaged = bytes(part);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(part, damaged).expect("a damage");
    let name = part.strip_prefix(&out).expect("inside").to_str().expect("a name");
    let checked = run(melo().args(["archive", "check", "--json"]).arg(&out));
    let said: Value = serde_json::from_str(&checked.stdout).expect("JSON");
    assert_eq!((checked.status, &said["ok"], &said["damaged"][0]["name"]), (1, &false.into(), &name.into()));
    assert!(checked.stderr.contains("0 files missing, 1 damaged"), "{}", checked.stderr);
    run(&mut bench.archive(&out)).refused_after(&[name, "checksum", "remove it"]);
    std::fs::remove_file(part).expect("it is gone");
    run(&mut bench.archive(&out)).good();
    assert!(files(&out) == whole);
}

#[test]
fn lists_and_manifests_name_images_too() {
    let (bench, place) = (&*BENCH, Workplace::new());
    let list = bench.workplace.write("fundus/some.txt", "test_1.png\ntest_0.png\n");
    let rows_of = |input: &Path, name: &str| {
        let out = place.at(name);
        run(&mut archive(melo(), &[input], &out, &bench.backbone, &[&bench.plugin])).good();
        rows(&out).iter().map(|row| text(&row["image"]).to_owned()).collect::<Vec<String>>()
    };
    let names = ["test_0.png", "test_1.png"].map(|name| bench.images().join(name).display().to_string());
    assert_eq!(rows_of(&list, "list"), names);
    assert_eq!(rows_of(&bench.images().join("labels.csv"), "manifest").len(), 120);
}

#[test]
fn masks_give_shares_and_volumes_are_answered_from_their_files() {
    let (masks, scans) = (Workplace::new(), Workplace::new());
    let data = crate::masks::boxes(&masks);
    let (_, boxes) = crate::masks::trained(&masks, &data, "boxes", "1", &["--mask-classes", "rest,box"]);
    let data = crate::volumes::volumes(&scans);
    let (_, ct) = crate::volumes::trained(&scans, &data, "1");
    for (place, plugin, column, files) in [
        (&masks, &boxes, "values", ["test_0.png", "test_1.png"]),
        (&scans, &ct, "probabilities", ["v50.npy", "v51.npy"]),
    ] {
        let files = files.map(|name| place.at(name));
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let lines = run(on(place, &["predict"], plugin).arg("--json").args(&files)).json_lines();
        let out = place.at("out");
        run(&mut archive(melo(), &files, &out, &place.at("vit.safetensors"), &[plugin])).good();
        let rows = rows(&out);
        assert_eq!((rows.len(), lines.len()), (2, 2));
        for (row, line) in rows.iter().zip(&lines) {
            assert_eq!(answer(row, column), answer_of(line, column));
        }
    }
}

impl crate::workplace::Ran {
    /// Requires a failure whose last line has all of these.
    pub(crate) fn refused_after(self, parts: &[&str]) {
        assert_eq!(self.status, 1, "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(parts.iter().all(|part| last.contains(part)), "expected {parts:?} in {last}");
        assert_eq!(self.stdout, "", "a refusal prints no result");
    }
}
