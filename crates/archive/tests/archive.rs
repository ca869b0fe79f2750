//! Archives: rows, goings-on, refusals, damages.

#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../vit/tests/tiny/mod.rs"]
mod tiny;

use melo_archive::{Error, Event, Finished, Input, PatientKey, Settings, check, run};
use melo_imaging::{Pixels, encode_png};
use melo_predict::Predictor;
use melo_vit::{BagConfig, BagHead, BagPooling, BoundPlugin, LoraConfig, Plugin, Storage, Target, TaskCard, TaskKind};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A folder of images, plug-ins on a small backbone, and somewhere for archives.
struct Place {
    folder: tempfile::TempDir,
    predictor: Predictor,
    plugins: Vec<Arc<BoundPlugin>>,
}

impl Place {
    /// With so many good images, and one that is none.
    fn new(images: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let predictor = Predictor::new(tiny::engine(tiny::checkpoint(&tiny::config(), 7)));
        let mut place = Place { folder, predictor, plugins: Vec::new() };
        let kinds = [("one", TaskKind::SingleLabel), ("any", TaskKind::MultiLabel), ("age", TaskKind::Regression)];
        place.plugins = (1..).zip(kinds).map(|(seed, (task, kind))| place.plugin(task, kind, seed)).collect();
        std::fs::create_dir_all(place.at("films/in")).expect("a folder");
        for number in 0..images {
            let name = if number % 2 == 0 { format!("films/{number}.png") } else { format!("films/in/{number}.png") };
            std::fs::write(place.at(&name), image(number)).expect("an image");
        }
        std::fs::write(place.at("films/broken.png"), "no image").expect("a file");
        std::fs::write(place.at("films/notes.txt"), "no image").expect("a file");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn unbound(&self, task: &str, kind: TaskKind, seed: u64) -> Plugin {
        let backbone = self.predictor.engine().backbone();
        let blocks = (0..backbone.config().depth).collect();
        let targets = vec![Target::Q, Target::V];
        let lora = LoraConfig { rank: 2, alpha: 3.0, targets, blocks, ..LoraConfig::none() };
        let mut plugin = tiny::plugin(backbone, &lora, 3, seed);
        let temperature = if kind.has_probabilities() { 1.5 } else { 1.0 };
        plugin.card = TaskCard { task: task.to_owned(), kind, temperature, ..plugin.card };
        plugin
    }

    /// A plug-in from its file, whose digest it has.
    fn plugin(&self, task: &str, kind: TaskKind, seed: u64) -> Arc<BoundPlugin> {
        let path = self.at(&format!("{task}.{seed}.safetensors"));
        let plugin = self.unbound(task, kind, seed);
        plugin.save(&path, self.predictor.engine().backbone().config(), Storage::F32).expect("it is written");
        self.predictor.plugin(path).expect("it is read")
    }

    fn settings(&self) -> Settings {
        Settings { plugins: self.plugins.clone(), chunk: Some(3), patient_key: None }
    }

    fn films(&self) -> Vec<Input> {
        vec![Input::Folder(self.at("films"))]
    }

    fn run(&self, out: &str) -> Result<Finished, Error> {
        self.run_with(&self.settings(), &self.films(), out)
    }

    fn run_with(&self, settings: &Settings, inputs: &[Input], out: &str) -> Result<Finished, Error> {
        let stop = AtomicBool::new(false);
        run(&self.predictor, settings, inputs, &self.at(out), &stop, &mut |_| {})
    }

    /// Stopped after so many images.
    fn stopped(&self, out: &str, after: usize) -> Error {
        let (stop, mut done) = (AtomicBool::new(false), 0);
        let mut observer = |event: Event<'_>| {
            if let Event::Computed(images) = event {
                done += images;
                stop.store(done >= after, Ordering::Relaxed);
            }
        };
        let ran = run(&self.predictor, &self.settings(), &self.films(), &self.at(out), &stop, &mut observer);
        ran.expect_err("it is stopped")
    }

    /// The bytes of all files of an archive.
    fn files(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for inside in ["", "parts/"] {
            let entries = std::fs::read_dir(self.at(out).join(inside)).expect("a folder");
            for entry in entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_file()) {
                let name = format!("{inside}{}", entry.file_name().to_string_lossy());
                files.insert(name, std::fs::read(entry.path()).expect("a file"));
            }
        }
        files
    }

    fn parts(&self, out: &str) -> Vec<PathBuf> {
        let names = self.files(out).into_keys().filter(|name| name.ends_with(".parquet"));
        names.map(|name| self.at(out).join(name)).collect()
    }

    fn rows(&self, out: &str) -> Vec<BTreeMap<String, Field>> {
        let columns = |row: Row| row.get_column_iter().map(|(name, field)| (name.clone(), field.clone())).collect();
        let of_part = |path: PathBuf| {
            let reader = SerializedFileReader::new(std::fs::File::open(path).expect("a part")).expect("Parquet");
            let rows = reader.get_row_iter(None).expect("rows");
            rows.map(|row| columns(row.expect("a row"))).collect::<Vec<_>>()
        };
        self.parts(out).into_iter().flat_map(of_part).collect()
    }
}

/// A PNG that depends on `seed`.
fn image(seed: u64) -> Vec<u8> {
    let (width, height) = (20, 16);
    let value =
        |i: usize| (i as u64).wrapping_mul(2_654_435_761).wrapping_add(seed * 7_919_000_003).rotate_right(21) as u8;
    encode_png(&Pixels { width, height, rgb: (0..width * height * 3).map(value).collect() }).expect("a PNG")
}

fn text(field: &Field) -> &str {
    match field {
        Field::Str(text) => text,
        other => panic!("{other:?} is no text"),
    }
}

fn bits(field: &Field) -> Option<Vec<u32>> {
    let Field::ListInternal(list) = field else { return None };
    let bit = |field: &Field| match field {
        Field::Float(value) => value.to_bits(),
        other => panic!("{other:?} is no number"),
    };
    Some(list.elements().iter().map(bit).collect())
}

fn texts(field: &Field) -> Option<Vec<&str>> {
    let Field::ListInternal(list) = field else { return None };
    Some(list.elements().iter().map(text).collect())
}

#[test]
fn every_image_and_task_is_a_row_with_the_predictors_answer() {
    let place = Place::new(7);
    let finished = place.run("out").expect("it runs");
    let manifest = &finished.manifest;
    assert_eq!((manifest.inputs, manifest.rows, manifest.errors, manifest.parts.len()), (8, 24, 1, 3));
    let rows = place.rows("out");
    assert_eq!(rows.len(), 24);
    let images = ["0", "2", "4", "6", "broken", "in/1", "in/3", "in/5"];
    for (row, values) in rows.iter().enumerate() {
        let (image, plugin) = (images[row / 3], &place.plugins[row % 3]);
        let path = place.at(&format!("films/{image}.png"));
        assert_eq!((text(&values["image"]), text(&values["task"])), (path.to_str().expect("text"), &*plugin.card.task));
        assert_eq!(values["input"], Field::Long((row / 3) as i64));
        assert_eq!(text(&values["plugin_digest"]), plugin.digest);
        assert_eq!(text(&values["input_digest"]).len(), 64);
        assert_eq!(texts(&values["classes"]).expect("classes"), ["finding 0", "finding 1", "finding 2"]);
        let nothing = ["frame", "sop_instance_uid", "study_instance_uid", "patient"];
        assert!(nothing.iter().all(|name| values[*name] == Field::Null));
        let (probabilities, numbers) = (bits(&values["probabilities"]), bits(&values["values"]));
        if image == "broken" {
            let error = text(&values["error"]);
            assert!(error.contains("broken.png") && error.contains("not an image"), "{error}");
            assert!(probabilities.is_none() && numbers.is_none() && values["predicted"] == Field::Null);
            continue;
        }
        assert_eq!(values["error"], Field::Null);
        let said = place.predictor.predict(&path, std::slice::from_ref(plugin)).expect("an answer").remove(0).decision;
        let expected = |values: &[f32]| Some(values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        let class = |&class: &usize| plugin.card.classes[class].as_str();
        match plugin.card.kind {
            TaskKind::Regression => assert_eq!((probabilities, numbers), (None, expected(&said.values))),
            _ => assert_eq!((probabilities, numbers), (expected(&said.probabilities), None)),
        }
        match plugin.card.kind {
            TaskKind::SingleLabel => assert_eq!(text(&values["predicted"]), class(&said.best())),
            _ => assert_eq!(values["predicted"], Field::Null),
        }
        let findings = said.findings.iter().map(class).collect::<Vec<_>>();
        assert_eq!(texts(&values["findings"]), (plugin.card.kind == TaskKind::MultiLabel).then_some(findings));
    }
    assert!(check(&place.at("out")).expect("a plan").is_whole());
    let files = place.files("out");
    let again = place.run("out").expect("nothing is left to do");
    assert_eq!((again.resumed, &again.manifest), (8, manifest));
    assert!(place.files("out") == files);
}

#[test]
fn a_stopped_run_goes_on_and_ends_with_the_same_bytes() {
    let place = Place::new(13);
    place.run("straight").expect("it runs");
    for after in [1, 4, 9] {
        let out = format!("stopped-{after}");
        let stopped = place.stopped(&out, after);
        assert!(matches!(&stopped, Error::Interrupted { of: 14, .. }), "{stopped}");
        let checked = check(&place.at(&out)).expect("a plan");
        assert!(checked.missing.contains(&"manifest.json".to_owned()) && checked.damaged.is_empty(), "{checked:?}");
        std::fs::write(place.at(&out).join(".melo-archive-left"), "half a part").expect("what a kill leaves");
        let finished = place.run(&out).expect("it goes on");
        assert!(finished.resumed >= 3 && finished.resumed < 14);
        assert!(place.files(&out) == place.files("straight"));
    }
}

#[test]
fn a_folder_keeps_its_chunks_where_none_are_asked_for() {
    let place = Place::new(6);
    place.run("straight").expect("it runs");
    place.stopped("out", 1);
    let unasked = Settings { chunk: None, ..place.settings() };
    let finished = place.run_with(&unasked, &place.films(), "out").expect("it goes on");
    assert_eq!(finished.plan.chunk, 3);
    assert!(place.files("out") == place.files("straight"));
}

#[test]
fn another_plan_is_refused_by_the_name_of_what_differs() {
    let place = Place::new(4);
    place.stopped("out", 1);
    let files = place.files("out");
    let refused = |settings: &Settings, inputs: &[Input], parts: &[&str]| {
        let error = place.run_with(settings, inputs, "out").expect_err("it is refused").to_string();
        assert!(error.contains("out: cannot go on: "), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(place.files("out") == files, "nothing changed");
    };
    let (settings, films) = (place.settings(), place.films());
    refused(&Settings { chunk: Some(4), ..settings.clone() }, &films, &["`chunk` was 3 and is now 4"]);
    let mut other = settings.clone();
    other.plugins[1] = place.plugin("any", TaskKind::MultiLabel, 9);
    refused(&other, &films, &["`plugin_digest` of plug-in `any`", &place.plugins[1].digest, &other.plugins[1].digest]);
    let fewer = Settings { plugins: place.plugins[..1].to_vec(), ..settings.clone() };
    refused(&fewer, &films, &["`plugins` was [\"one\",\"any\",\"age\"] and is now [\"one\"]"]);
    std::fs::write(place.at("key"), [7; 32]).expect("a key");
    let key = PatientKey::read(&place.at("key")).ok();
    refused(&Settings { patient_key: key, ..settings.clone() }, &films, &["`patient_key` was null"]);
    refused(&settings, &[Input::Images(vec![place.at("films/0.png")])], &["`inputs` was 5 and is now 1"]);
    std::fs::rename(place.at("films/0.png"), place.at("films/1.png")).expect("another name");
    refused(&settings, &films, &["`inputs_digest`"]);
    let other = Predictor::new(tiny::engine(tiny::checkpoint(&tiny::config(), 8)));
    let own = Settings {
        plugins: vec![other.bind(place.unbound("one", TaskKind::SingleLabel, 1)).expect("it is bound")],
        ..settings
    };
    let ran = run(&other, &own, &films, &place.at("out"), &AtomicBool::new(false), &mut |_| {});
    assert!(ran.is_err(), "another backbone");
    assert!(place.files("out") == files, "nothing changed");
}

#[test]
fn what_is_missing_damaged_or_foreign_is_found_and_made_anew() {
    let place = Place::new(7);
    place.run("out").expect("it runs");
    let whole = place.files("out");
    let parts = place.parts("out");
    let name = |part: &Path| {
        let name = part.strip_prefix(place.at("out")).expect("it lies there");
        name.to_str().expect("a name").to_owned()
    };

    let mut bytes = std::fs::read(&parts[1]).expect("a part");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&parts[1], &bytes).expect("a damage");
    std::fs::remove_file(&parts[2]).expect("a part is gone");
    std::fs::write(place.at("out/parts/old.parquet"), "").expect("another file");
    let checked = check(&place.at("out")).expect("a plan");
    assert_eq!(checked.missing, [name(&parts[2])]);
    assert_eq!((checked.damaged.len(), &checked.damaged[0].name), (1, &name(&parts[1])));
    assert!(checked.damaged[0].reason.contains("checksum"), "{checked:?}");
    assert_eq!(checked.unexpected, ["parts/old.parquet"]);
    assert!(!checked.is_whole());

    let foreign = place.run("out").expect_err("another's file").to_string();
    assert!(foreign.contains("old.parquet: not of this archive"), "{foreign}");
    std::fs::remove_file(place.at("out/parts/old.parquet")).expect("it is gone");
    let damaged = place.run("out").expect_err("a damaged part").to_string();
    assert!(damaged.contains(&name(&parts[1])), "{damaged}");
    std::fs::remove_file(&parts[1]).expect("it is gone");
    place.run("out").expect("both are made anew");
    assert!(place.files("out") == whole);

    std::fs::write(place.at("out/inputs"), "others").expect("a damage");
    let checked = check(&place.at("out")).expect("a plan");
    assert_eq!(checked.damaged[0].name, "inputs");
    std::fs::write(place.at("out/plan.json"), "{}").expect("a damage");
    assert!(matches!(check(&place.at("out")), Err(Error::Damaged { .. })));
}

#[test]
fn a_damage_is_found_without_a_manifest() {
    let place = Place::new(7);
    place.run("out").expect("it runs");
    std::fs::remove_file(place.at("out/manifest.json")).expect("as if interrupted");
    let part = &place.parts("out")[0];
    let whole = std::fs::read(part).expect("a part");
    let reader = SerializedFileReader::new(std::fs::File::open(part).expect("a part")).expect("Parquet");
    for column in reader.metadata().row_group(0).columns() {
        let (start, length) = column.byte_range();
        // The last page of a column ends with its checksum and length, eight bytes; before them are its values.
        for back in [5, 10] {
            let mut bytes = whole.clone();
            bytes[(start + length) as usize - back] ^= 0x10;
            std::fs::write(part, &bytes).expect("a damage");
            let damaged = check(&place.at("out")).expect("a plan").damaged;
            assert_eq!(damaged.len(), 1, "{:?}, {back} bytes before its end", column.column_path());
        }
    }
    std::fs::write(part, &whole[..whole.len() - 9]).expect("a damage");
    assert_eq!(check(&place.at("out")).expect("a plan").damaged.len(), 1);
}

#[test]
fn lists_are_sorted_and_names_are_taken_once() {
    let place = Place::new(3);
    let list = place.at("films/list.txt");
    std::fs::write(&list, "\u{feff}in/1.png\r\n\n0.png\nin/1.png\n").expect("a list");
    let (mut news, stop) = (Vec::new(), AtomicBool::new(false));
    let mut observer = |event: Event<'_>| {
        if let Event::Planned { listed, done } = event {
            news.push((listed.inputs, listed.repeated, listed.left_out, done));
        }
    };
    let settings = place.settings();
    let list = Input::list(&list).expect("a list");
    let out = place.at("list");
    run(&place.predictor, &settings, std::slice::from_ref(&list), &out, &stop, &mut observer).expect("it runs");
    let both = [list, Input::Folder(place.at("films"))];
    run(&place.predictor, &settings, &both, &place.at("both"), &stop, &mut observer).expect("it runs");
    assert_eq!(news, [(2, 1, 0, 0), (4, 3, 2, 0)]);
    let name = |row: &BTreeMap<String, Field>| text(&row["image"]).rsplit('/').next().expect("a name").to_owned();
    let names: Vec<String> = place.rows("both").iter().step_by(3).map(name).collect();
    assert_eq!(names, ["0.png", "1.png", "2.png", "broken.png"]);
}

#[cfg(unix)]
#[test]
fn odd_names_and_files_cost_a_row_each() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new(1);
    std::fs::remove_file(place.at("films/broken.png")).expect("it is gone");
    let latin = Path::new(std::ffi::OsStr::from_bytes(b"films/r\xf6ntgen\n.png"));
    std::fs::write(place.folder.path().join(latin), image(1)).expect("an image");
    std::fs::write(place.at("films/a#frame=9"), image(2)).expect("an image");
    std::os::unix::fs::symlink("gone.png", place.at("films/link.png")).expect("a link");
    let made = std::process::Command::new("mkfifo").arg(place.at("films/pipe.png")).status().expect("it starts");
    assert!(made.success());
    let finished = place.run("out").expect("it runs");
    assert_eq!((finished.manifest.inputs, finished.manifest.errors), (5, 2));
    let rows = place.rows("out");
    let error_of = |end: &str| {
        let row = rows.iter().find(|row| text(&row["image"]).ends_with(end)).expect("a row");
        row["error"].to_string()
    };
    assert!(error_of("pipe.png").contains("not a regular file"), "{}", error_of("pipe.png"));
    assert!(error_of("link.png").contains("No such file"), "{}", error_of("link.png"));
    assert_eq!((error_of("r\u{fffd}ntgen\n.png"), error_of("a#frame=9")), ("null".to_owned(), "null".to_owned()));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let place = Place::new(2);
    let settings = place.settings();
    let refused = |settings: &Settings, inputs: &[Input], part: &str| {
        let error = place.run_with(settings, inputs, "out").expect_err("it is refused").to_string();
        assert!(error.contains(part), "{error}");
        assert!(!place.at("out/plan.json").exists());
    };
    refused(&Settings { plugins: Vec::new(), ..settings.clone() }, &place.films(), "no plug-in");
    refused(&Settings { chunk: Some(0), ..settings.clone() }, &place.films(), "chunks of 0 images");
    let twice = [&place.plugins[..], &place.plugins[..1]].concat();
    refused(&Settings { plugins: twice, ..settings.clone() }, &place.films(), "task `one`: the plug-in");
    refused(&settings, &[Input::Folder(place.at("none"))], "none: No such file");
    std::fs::create_dir(place.at("empty")).expect("a folder");
    refused(&settings, &[Input::Folder(place.at("empty"))], "empty: no image found");

    let mut bags = place.unbound("bags", TaskKind::SingleLabel, 5);
    let config = BagConfig { pooling: BagPooling::Mean, hidden: 0, positions: 0 };
    let width = place.predictor.engine().backbone().config().feature_width();
    bags.card = TaskCard { bag: Some(config), ..bags.card };
    bags.bag = Some(BagHead::zeros(config, width));
    let bags = vec![place.predictor.bind(bags).expect("it is bound")];
    refused(&Settings { plugins: bags, ..settings.clone() }, &place.films(), "`bags`");

    std::fs::write(place.at("out/film.png"), "another's").expect("a file");
    refused(&settings, &place.films(), "film.png: not of this archive");
}

#[test]
fn one_process_at_a_time_is_at_work() {
    let place = Place::new(2);
    let (stop, mut second) = (AtomicBool::new(false), None);
    let mut observer = |event: Event<'_>| {
        if let Event::Planned { .. } = event {
            second = Some(place.run("out").expect_err("the first is at work").to_string());
        }
    };
    run(&place.predictor, &place.settings(), &place.films(), &place.at("out"), &stop, &mut observer).expect("it runs");
    assert!(second.is_some_and(|second| second.contains("out: another process is at it")));
}
