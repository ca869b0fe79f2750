//! Wrong inputs as a new user would try them: each gets one message that names the file and the cause, the right exit
//! status, and loses nothing.

use crate::workplace::{Workplace, bytes, melo, run, train};
use melo::synthetic::{Phantom, phantom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A tiny backbone, a task and its plug-in, made once for all tests, which only read it.
struct Bench {
    workplace: Workplace,
    backbone: PathBuf,
    data: PathBuf,
    plugin: PathBuf,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let workplace = Workplace::lasting("wrong_inputs");
    let backbone = workplace.tiny_backbone("vit", 1, None);
    let data = workplace.phantoms(Phantom::Fundus, 32, [12, 9, 9]);
    let plugin = workplace.at("fundus.safetensors");
    run(train(&backbone, &data, &plugin).args(["--epochs", "2"])).good();
    Bench { workplace, backbone, data, plugin }
});

impl Bench {
    fn image(&self) -> PathBuf {
        self.workplace.at("fundus/test_0.png")
    }

    fn eval(&self, plugin: &Path, data: &Path) -> Command {
        let mut command = melo();
        command.arg("eval").arg("--backbone").arg(&self.backbone).arg("--plugin").arg(plugin).arg("--data").arg(data);
        command
    }

    fn predict(&self, plugin: &Path, image: &Path) -> Command {
        let mut command = melo();
        command.arg("predict").arg("--backbone").arg(&self.backbone).arg("--plugin").arg(plugin).arg(image);
        command
    }

    /// One epoch into a new place, whose plug-in is returned with the command.
    fn train_anew(&self, workplace: &Workplace, data: &Path) -> (Command, PathBuf) {
        let out = workplace.at("out.safetensors");
        let mut command = train(&self.backbone, data, &out);
        command.args(["--epochs", "1"]);
        (command, out)
    }
}

/// A manifest of six small images a split, whose rows a test then spoils.
fn manifest(workplace: &Workplace) -> String {
    workplace.phantoms(Phantom::Fundus, 32, [6, 6, 6]);
    String::from_utf8(bytes(&workplace.at("fundus/labels.csv"))).expect("it is text")
}

#[test]
fn missing_files() {
    let bench = &*BENCH;
    let no = bench.workplace.at("no_such_file");
    let missing = &["no_such_file", "No such file"];
    let new = Workplace::new();
    run(&mut train(&no, &bench.data, &new.at("x.safetensors"))).refused(1, missing);
    run(&mut train(&bench.backbone, &no, &new.at("x.safetensors"))).refused(1, missing);
    run(&mut bench.eval(&no, &bench.data)).refused(1, missing);
    run(&mut bench.eval(&bench.plugin, &no)).refused(1, missing);
    run(&mut bench.predict(&no, &bench.image())).refused(1, missing);
    run(&mut bench.predict(&bench.plugin, &no)).refused(1, missing);
    run(melo().args(["plugin", "info"]).arg(&no)).refused(1, missing);
    run(melo().args(["backbone", "info"]).arg(&no)).refused(1, missing);
    run(melo().args(["data", "check"]).arg(&no)).refused(1, missing);
}

#[test]
fn a_folder_where_a_file_belongs() {
    let bench = &*BENCH;
    let folder = bench.workplace.at("fundus");
    run(melo().args(["plugin", "info"]).arg(&folder)).refused(1, &["fundus", "not a regular file"]);
    run(melo().args(["backbone", "info"]).arg(&folder)).refused(1, &["fundus", "a folder without weights"]);
    let empty = Workplace::new();
    run(&mut bench.predict(&bench.plugin, &empty.at(""))).refused(1, &["an empty folder, expected images"]);
    run(melo().args(["data", "check"]).arg(empty.at(""))).refused(1, &["expected a folder for each class"]);
}

#[test]
fn what_is_no_image() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let whole = bytes(&bench.image());
    let jpeg = jpeg();
    run(&mut bench.predict(&bench.plugin, &new.write("whole.jpg", &jpeg))).good();
    let spoilt: [(&str, Vec<u8>, &str); 5] = [
        ("text.png", b"Patient: Doe, Jane\n".to_vec(), "not an image"),
        ("empty.png", Vec::new(), "empty file"),
        ("cut.png", whole[..whole.len() / 2].to_vec(), "damaged PNG"),
        ("cut.jpg", jpeg[..jpeg.len() - 40].to_vec(), "damaged JPEG"),
        ("header.jpg", jpeg[..8].to_vec(), "damaged JPEG"),
    ];
    for (name, bytes, cause) in spoilt {
        let image = new.write(name, bytes);
        run(&mut bench.predict(&bench.plugin, &image)).refused(1, &[name, cause]);
    }
}

/// A whole JPEG.
fn jpeg() -> Vec<u8> {
    let image = phantom(Phantom::Fundus, 0, 0, 32);
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode(&image.rgb, 32, 32, image::ExtendedColorType::Rgb8)
        .expect("it can be encoded");
    bytes
}

#[test]
fn every_broken_file_is_listed_before_the_first_epoch() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let table = manifest(&new);
    let whole = bytes(&new.at("fundus/train_1.png"));
    new.write("fundus/train_1.png", &whole[..whole.len() / 2]);
    new.write("fundus/train_2.png", "not an image");
    let jpeg = jpeg();
    new.write("fundus/val_0.png", &jpeg[..jpeg.len() - 40]);
    std::fs::remove_file(new.at("fundus/val_3.png")).expect("it was written");
    let data = new.at("fundus/labels.csv");
    let line = |name: &str| 1 + table.lines().position(|line| line.starts_with(name)).expect("it is listed");
    let broken = [("train_1.png", "damaged PNG"), ("train_2.png", "not an image"), ("val_0.png", "damaged JPEG")];
    let broken: Vec<_> = broken.into_iter().chain([("val_3.png", "cannot be read")]).collect();

    let checked = run(melo().args(["data", "check"]).arg(&data));
    assert_eq!((checked.status, checked.stderr.as_str()), (1, ""));
    let (command, out) = &mut bench.train_anew(&new, &data);
    let trained = run(command);
    assert_eq!((trained.status, trained.stdout.as_str()), (1, ""));
    assert!(!trained.stderr.contains("train loss"), "no epoch began: {}", trained.stderr);
    assert!(!out.exists());
    for (name, cause) in &broken {
        let place = format!("line {}", line(name));
        let found = |text: &str| text.lines().any(|l| l.contains(&place) && l.contains(name) && l.contains(cause));
        assert!(found(&checked.stdout.replace("\n    ", " ")), "{name} in {}", checked.stdout);
        assert!(found(&trained.stderr), "{name} in {}", trained.stderr);
    }
    assert!(trained.stderr.contains("4 of 12 images in train and val cannot be read"), "{}", trained.stderr);
    let json = run(melo().args(["data", "check", "--json"]).arg(&data));
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("it is JSON");
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(4));
}

#[test]
fn manifests_that_contradict_themselves() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let table = manifest(&new);
    let row = "train_0.png,train,exudates\n";
    let spoilt: [(String, &str); 10] = [
        (format!("{table}{row}"), "line 20: expected every image once, \"train_0.png\" is on line 2 already"),
        (table.replacen("train_0.png,train,", "train_0.png,holdout,", 1), "line 2: expected split train, val or test"),
        (table.replacen(",healthy\n", ",\n", 1), "line 2: expected a label"),
        (table.replacen(",healthy\n", ",healthy,3\n", 1), "line 2: expected 3 fields"),
        (table.replacen("path,", "who,", 1), "no column \"path\""),
        ("path,split\ntrain_0.png,train\n".into(), "no column of labels"),
        ("path,split,label\n".into(), "expected at least one image"),
        (String::new(), "no column \"path\""),
        (table.replace("haemorrhages", "healthy").replace("exudates", "healthy"), "expected at least two classes"),
        ("path,split,nodule\ntrain_0.png,train,2\n".into(), "expected 0 or 1, found \"2\""),
    ];
    for (table, cause) in spoilt {
        let data = new.write("fundus/spoilt.csv", table);
        run(&mut bench.train_anew(&new, &data).0).refused(1, &["spoilt.csv", cause]);
        run(melo().args(["data", "check"]).arg(&data)).refused(1, &["spoilt.csv", cause]);
    }
    let data = new.write("fundus/spoilt.csv", b"path,split,label\nM\0ller.png,train,a\n");
    run(&mut bench.train_anew(&new, &data).0).refused(1, &["spoilt.csv", "expected a table", "binary data"]);
}

#[test]
fn empty_splits() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let table = manifest(&new);
    let data = new.write("fundus/no_train.csv", table.replace(",train,", ",test,"));
    run(&mut bench.train_anew(&new, &data).0).refused(1, &["no_train.csv", "no image is in the train split"]);
    let checked = run(melo().args(["data", "check"]).arg(&data));
    assert_eq!(checked.status, 1);
    assert!(checked.stdout.contains("no image is in train"), "{}", checked.stdout);
    let data = new.write("fundus/no_test.csv", table.replace(",test,", ",val,"));
    run(&mut bench.eval(&bench.plugin, &data)).refused(1, &["no_test.csv", "no image is in the test split"]);
    run(bench.eval(&bench.plugin, &data).args(["--split", "val"])).good();
}

#[test]
fn every_image_of_a_split_of_one_class() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let table =
        manifest(&new).replace("train,haemorrhages", "train,healthy").replace("train,exudates", "train,healthy");
    let data = new.write("fundus/one.csv", table);
    run(&mut bench.train_anew(&new, &data).0).refused(1, &["train split", "every image has the same label"]);
    let checked = run(melo().args(["data", "check"]).arg(&data));
    assert_eq!(checked.status, 1);
    assert!(checked.stdout.contains("every image in train shows healthy"), "{}", checked.stdout);
    // The best epoch is chosen on val, so it must tell classes apart too.
    let table = manifest(&new).replace("val,haemorrhages", "val,healthy").replace("val,exudates", "val,healthy");
    let data = new.write("fundus/one.csv", table);
    run(&mut bench.train_anew(&new, &data).0).refused(1, &["val split", "every image has the same label"]);
    let checked = run(melo().args(["data", "check"]).arg(&data));
    assert_eq!(checked.status, 1);
    assert!(checked.stdout.contains("every image in val shows healthy"), "{}", checked.stdout);
}

#[test]
fn a_class_with_one_example_is_trained_and_warned_of() {
    let bench = &*BENCH;
    let new = Workplace::new();
    new.image("fundus/rare.png", Phantom::Fundus, 2, 99, 32);
    let data = new.write("fundus/rare.csv", manifest(&new) + "rare.png,train,rare\n");
    let checked = run(melo().args(["data", "check"]).arg(&data)).good();
    assert!(checked.contains("shown by a single image: \"rare\" (1 image: line 20)"), "{checked}");
    let (command, out) = &mut bench.train_anew(&new, &data);
    run(command.arg("--json").args(["--class-weights", "balanced"])).json();
    let object = run(bench.eval(out, &data).arg("--json")).json();
    assert_eq!(object["auc_per_class"]["rare"], serde_json::Value::Null, "undefined without a case in the split");
    assert!(object["auc_per_class"]["healthy"].is_number());
}

#[test]
fn labels_outside_the_plugins_classes() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let data = new.write("fundus/other.csv", manifest(&new).replacen("train,exudates", "train,glaucoma", 1));
    run(&mut bench.eval(&bench.plugin, &data)).refused(1, &["other.csv, line 4", "\"exudates\"", "found \"glaucoma\""]);
    let films = new.write("fundus/films.csv", "path,split,nodule\ntrain_0.png,test,1\ntrain_1.png,test,0\n");
    run(&mut bench.eval(&bench.plugin, &films)).refused(1, &["films.csv", "0/1 column", "`label` column"]);
}

#[test]
fn a_plugin_for_another_backbone() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let other = new.tiny_backbone("other", 2, None);
    let parts = &["fundus.safetensors", "belongs to backbone", "is loaded"];
    for verb in ["eval", "predict"] {
        let mut command = melo();
        command.arg(verb).arg("--backbone").arg(&other).arg("--plugin").arg(&bench.plugin);
        match verb {
            "eval" => command.arg("--data").arg(&bench.data),
            _ => command.arg(bench.image()),
        };
        run(&mut command).refused(1, parts);
    }
}

#[test]
fn files_in_each_others_place() {
    let bench = &*BENCH;
    let as_backbone = |file: &Path| run(melo().args(["backbone", "info"]).arg(file));
    as_backbone(&bench.plugin).refused(1, &["fundus.safetensors", "this is a plug-in"]);
    as_backbone(&bench.data).refused(1, &["labels.csv", "not a safetensors file"]);
    let state = bench.workplace.at("fundus.run/last.safetensors");
    as_backbone(&state).refused(1, &["last.safetensors", "the state of a training"]);
    run(melo().args(["plugin", "info"]).arg(&bench.backbone)).refused(1, &["vit.safetensors", "not a melo plug-in"]);
    run(&mut bench.predict(&bench.backbone, &bench.image())).refused(1, &["vit.safetensors", "not a melo plug-in"]);
    run(&mut bench.predict(&bench.plugin, &bench.plugin)).refused(1, &["fundus.safetensors", "not an image"]);
    run(melo().args(["data", "check"]).arg(&bench.plugin)).refused(1, &["fundus.safetensors", "expected a table"]);
}

#[test]
fn damaged_plugins() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let whole = bytes(&bench.plugin);
    let mut nan = whole.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut long = whole.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let damaged: [(&str, &[u8], &str); 6] = [
        ("empty", &[], "not a safetensors file"),
        ("cut_header", &whole[..40], "not a safetensors file"),
        ("cut_values", &whole[..end - 100], "not a safetensors file"),
        ("long_header", &long, "not a safetensors file"),
        ("zeros", &[0; 4096], "not a safetensors file"),
        ("nan", &nan, "holds NaN"),
    ];
    for (name, bytes, cause) in damaged {
        let plugin = new.write(&format!("{name}.safetensors"), bytes);
        run(&mut bench.predict(&plugin, &bench.image())).refused(1, &[name, cause]);
    }
}

#[test]
fn weights_without_their_description() {
    let new = Workplace::new();
    let backbone = new.tiny_backbone("vit", 1, None);
    let info = || run(melo().args(["backbone", "info"]).arg(&backbone));
    let json = String::from_utf8(bytes(&new.at("vit.json"))).expect("it is text");
    new.write("vit.json", json.replace("\"mean\"", "\"means\""));
    info().refused(1, &["vit.json", "`pretrained_cfg.means`"]);
    new.write("vit.json", "{");
    info().refused(1, &["vit.json", "EOF"]);
    std::fs::remove_file(new.at("vit.json")).expect("it was written");
    info().refused(1, &["vit.safetensors", "no description beside the weights", "vit.json"]);
}

#[test]
fn alpha_below_the_rank_is_active() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let answer = |name: &str, settings: &[&str]| {
        let out = new.at(name);
        // Several steps an epoch: the first moves the head alone, which begins at zero.
        let mut command = train(&bench.backbone, &bench.data, &out);
        run(command.args(["--epochs", "3", "--lr", "0.02", "--batch-size", "4"]).args(settings)).good();
        run(bench.predict(&out, &bench.image()).arg("--json")).json()
    };
    let small = answer("small.safetensors", &["--rank", "4", "--alpha", "1"]);
    let (whole, probe) = (answer("whole.safetensors", &["--rank", "4"]), answer("probe.safetensors", &["--rank", "0"]));
    assert_ne!(small["probabilities"], whole["probabilities"], "alpha counts");
    assert_ne!(small["probabilities"], probe["probabilities"], "the adapter works");
}

#[test]
fn settings_out_of_range_are_wrong_usage() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let settings: [(&[&str], &str); 17] = [
        (&["--alpha", "0"], "alpha is 0"),
        (&["--alpha", "NaN"], "alpha is NaN"),
        (&["--alpha", "inf"], "alpha is inf"),
        (&["--rank", "4096"], "rank 4096 exceeds"),
        (&["--blocks", "7"], "block 7 does not exist"),
        (&["--epochs", "0"], "epochs: is 0"),
        (&["--batch-size", "0"], "batch_size: is 0"),
        (&["--lr", "NaN"], "learning_rate: is NaN"),
        (&["--lr", "0"], "learning_rate: is 0"),
        (&["--label-smoothing", "1"], "label_smoothing: is 1"),
        (&["--weight-decay", "inf"], "weight_decay: is inf"),
        (&["--image-size", "40"], "image size 40 is not a multiple of the patch size 16"),
        (&["--image-size", "0"], "size 0 is not in 1 to 4096"),
        (&["--image-size", "16384"], "size"),
        (&["--crop-pct", "NaN"], "crop_pct NaN is not in (0, 1]"),
        (&["--rotate", "NaN"], "rotate"),
        (&["--crop-scale", "0"], "crop_scale"),
    ];
    for (flags, cause) in settings {
        let out = new.at("out.safetensors");
        run(train(&bench.backbone, &bench.data, &out).args(flags)).refused(2, &[cause]);
        assert!(!out.exists() && !new.at("out.run").exists(), "{flags:?} leaves nothing");
    }
}

#[test]
fn flags_and_verbs_that_do_not_exist() {
    let wrong: [&[&str]; 8] = [
        &["tain"],
        &["train", "--epoch", "3"],
        &["train"],
        &["predict"],
        &["plugin"],
        &["train", "--targets", "q,w"],
        &["train", "--task", ""],
        &["eval", "--split", "dev"],
    ];
    for arguments in wrong {
        let ran = run(melo().args(arguments));
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.contains("Usage: melo") || ran.stderr.contains("--help"), "{}", ran.stderr);
    }
    let ran = run(Command::new(melo().get_program()).args(["--threads", "0", "data", "check", "x"]));
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--threads"), "{}", ran.stderr);
}

#[test]
fn a_huge_batch_is_the_whole_split() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let (command, _) = &mut bench.train_anew(&new, &bench.data);
    run(command.args(["--batch-size", &usize::MAX.to_string()])).good();
}

#[test]
fn one_pixel_is_an_image() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let table = manifest(&new);
    new.image("fundus/train_0.png", Phantom::Fundus, 0, 0, 1);
    new.image("fundus/test_0.png", Phantom::Fundus, 0, 0, 1);
    let data = new.write("fundus/labels.csv", table);
    let checked = run(melo().args(["data", "check"]).arg(&data)).good();
    assert!(checked.contains("2 images with a side under 32 pixels"), "{checked}");
    let (command, out) = &mut bench.train_anew(&new, &data);
    run(command).good();
    let line = run(bench.predict(out, &new.at("fundus/test_0.png")).arg("--json")).json();
    let total: f64 = line["probabilities"].as_object().into_iter().flatten().filter_map(|(_, p)| p.as_f64()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{line}");
}

#[test]
fn outputs_that_cannot_or_must_not_be_written() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let try_out = |out: &Path| run(&mut train(&bench.backbone, &bench.data, out));
    try_out(&new.at("no/x.safetensors")).refused(2, &["no/x.safetensors", "the folder does not exist"]);
    try_out(&bench.data.join("x.safetensors")).refused(2, &["x.safetensors", "the folder does not exist"]);
    try_out(&new.at("")).refused(2, &["is a folder"]);
    try_out(&new.at("x.run")).refused(2, &["x.run", "lies in the run folder"]);
    let (backbone, table) = (bytes(&bench.backbone), bytes(&bench.data));
    for input in [&bench.backbone, &bench.data] {
        run(train(&bench.backbone, &bench.data, input).arg("--overwrite")).refused(2, &["--out", "which is read"]);
        run(bench.eval(&bench.plugin, &bench.data).arg("--predictions").arg(input))
            .refused(2, &["--predictions", "which is read"]);
    }
    assert!(bytes(&bench.backbone) == backbone && bytes(&bench.data) == table, "inputs stay");
    let no_folder = new.at("no/p.csv");
    run(bench.eval(&bench.plugin, &bench.data).arg("--predictions").arg(no_folder)).refused(2, &["no/p.csv"]);
    // A file where the run folder would be.
    new.write("y.run", "");
    try_out(&new.at("y.safetensors")).refused(1, &["y.run", "File exists"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_nobody_may_write_to() {
    let bench = &*BENCH;
    let ran = run(&mut train(&bench.backbone, &bench.data, Path::new("/proc/melo.safetensors")));
    ran.refused(1, &["/proc/melo.run"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_previous_plugin_whole() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let (command, out) = &mut bench.train_anew(&new, &bench.data);
    run(command).good();
    let before = bytes(out);
    // A limit on the size of files stands for a full disk.
    let limited = |kib: usize, flags: &[&str]| {
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
        let (command, _) = bench.train_anew(&new, &bench.data);
        let mut shell = Command::new("bash");
        shell.args(["-c", &script, "bash"]).arg(command.get_program()).args(command.get_args()).args(flags);
        run(&mut shell)
    };
    limited(8, &["--overwrite", "--seed", "1"]).refused(1, &["out.run/last.safetensors: File too large"]);
    assert_eq!(bytes(out), before, "the previous plug-in is whole");
    limited(0, &["--overwrite"]).refused(1, &["out.run/config.json: File too large"]);
    assert_eq!(bytes(out), before, "the previous plug-in is whole");
    assert_eq!(new.leftovers(), Vec::<PathBuf>::new(), "nothing half-written is left");
    run(bench.train_anew(&new, &bench.data).0.arg("--overwrite")).good();
    assert_eq!(bytes(out), before);
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_printed_are_a_failure() {
    let bench = &*BENCH;
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = bench.predict(&bench.plugin, &bench.image()).stdout(full()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("melo: standard output: No space left"), "{message}");
    // Progress is another matter: training goes on when nobody can read it.
    let new = Workplace::new();
    let (command, out) = &mut bench.train_anew(&new, &bench.data);
    assert!(command.stderr(full()).stdout(std::process::Stdio::null()).status().expect("it starts").success());
    assert!(out.is_file());
}

#[cfg(unix)]
#[test]
fn names_with_spaces_umlauts_and_bytes_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let bench = &*BENCH;
    let new = Workplace::new();
    let table = manifest(&new);
    std::fs::rename(new.at("fundus/train_0.png"), new.at("fundus/Grüße, Frau Müller.png")).expect("it was written");
    let data = new.write("fundus/müll er.csv", table.replace("train_0.png", "\"Grüße, Frau Müller.png\""));
    let out = new.at("für später.safetensors");
    run(train(&bench.backbone, &data, &out).args(["--epochs", "1"])).good();
    run(bench.eval(&out, &data).arg("--json")).json();
    let odd =
        |stem: &[u8], extension: &str| new.at(std::ffi::OsStr::from_bytes(&[stem, extension.as_bytes()].concat()));
    let image = odd(b"r\xf6ntgen", ".png");
    std::fs::copy(bench.image(), &image).expect("it can be copied");
    let line = run(bench.predict(&out, &image).arg("--json")).json();
    assert!(line["image"].as_str().expect("it is text").ends_with("r\u{fffd}ntgen.png"), "{line}");
    let out = odd(b"\xff", ".safetensors");
    run(train(&bench.backbone, &data, &out).args(["--epochs", "1", "--json"])).json();
    run(melo().args(["plugin", "info", "--json"]).arg(&out)).json();
    let folder = odd(b"classes\xfe", "");
    for class in ["a", "b"] {
        std::fs::create_dir_all(folder.join(class)).expect("it can be made");
        for copy in 0..8 {
            std::fs::copy(bench.image(), folder.join(format!("{class}/{copy}.png"))).expect("it can be copied");
        }
    }
    run(melo().args(["data", "check", "--json"]).arg(&folder)).json();
}

#[cfg(unix)]
#[test]
fn symbolic_links_that_lead_nowhere() {
    let bench = &*BENCH;
    let new = Workplace::new();
    std::os::unix::fs::symlink("loop.png", new.at("loop.png")).expect("it can be made");
    std::os::unix::fs::symlink("loop.safetensors", new.at("loop.safetensors")).expect("it can be made");
    let cause = "Too many levels of symbolic links";
    run(&mut bench.predict(&bench.plugin, &new.at("loop.png"))).refused(1, &["loop.png", cause]);
    run(&mut bench.predict(&new.at("loop.safetensors"), &bench.image())).refused(1, &["loop.safetensors", cause]);
    run(&mut bench.predict(&bench.plugin, &new.at(""))).refused(1, &["loop.png", cause]);
    std::fs::create_dir(new.at("class")).expect("it can be made");
    std::os::unix::fs::symlink("../class", new.at("class/again")).expect("it can be made");
    std::fs::remove_file(new.at("loop.png")).expect("it was made");
    run(melo().args(["data", "check"]).arg(new.at(""))).refused(1, &["class/again"]);
}

#[test]
fn a_run_folder_that_holds_somebody_elses_files() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let config = new.write("hub/config.json", r#"{"architecture":"vit_tiny_patch16_224"}"#);
    let (mut command, out) = bench.train_anew(&new, &bench.data);
    run(command.arg("--run").arg(new.at("hub"))).refused(1, &["hub", "not a run folder", "config.json", "--run"]);
    assert!(bytes(&config).starts_with(b"{\"architecture\"") && !out.exists());
}

#[test]
fn data_without_splits_that_the_plugin_was_not_trained_on() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let unsplit: String = manifest(&new)
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>())
        .fold(String::new(), |text, fields| text + fields[0] + "," + fields[2] + "\n");
    let data = new.write("fundus/unsplit.csv", unsplit);
    run(&mut bench.eval(&bench.plugin, &data)).refused(1, &["unsplit.csv", "fundus", "split"]);
}

#[test]
fn a_crop_that_asks_for_an_enormous_resize() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let (mut command, _) = bench.train_anew(&new, &bench.data);
    run(command.args(["--crop-pct", "1e-7"])).refused(2, &["crop_pct", "8192"]);
}

#[test]
fn findings_in_another_order_at_resume() {
    let bench = &*BENCH;
    let new = Workplace::new();
    manifest(&new);
    let table = |head: &str, rows: [&str; 2]| {
        let splits = ["train", "val", "test"].into_iter();
        splits.fold(format!("path,split,{head}\n"), |text, split| {
            (0..6).fold(text, |text, i| text + &format!("{split}_{i}.png,{split},{}\n", rows[i % 2]))
        })
    };
    let data = new.write("fundus/findings.csv", table("a,b", ["1,0", "0,1"]));
    let (mut command, out) = bench.train_anew(&new, &data);
    run(&mut command).good();
    std::fs::remove_file(out).expect("the plug-in can be removed");
    new.write("fundus/findings.csv", table("b,a", ["0,1", "1,0"]));
    run(bench.train_anew(&new, &data).0.arg("--resume")).refused(1, &["cannot resume", "order of the classes", "a, b"]);
}

#[test]
fn heatmaps_that_cannot_be_made() {
    let bench = &*BENCH;
    let new = Workplace::new();
    let with = |more: &[&str]| {
        let mut command = bench.predict(&bench.plugin, &bench.image());
        run(command.args(more))
    };
    let text = |path: &Path| path.to_str().expect("the path is UTF-8").to_owned();
    let maps = text(&new.at("maps"));
    with(&["--heatmap", &maps, "--heatmap-class", "gout"]).refused(2, &["gout", "no such class", "haemorrhages"]);
    assert!(!new.at("maps").exists(), "nothing is made for a request that is refused");
    let file = text(&new.write("file", "mine"));
    with(&["--heatmap", &file]).refused(2, &["file", "is a file, expected a folder"]);
    with(&["--heatmap", &format!("{file}/below")]).refused(1, &["file/below", "Not a directory"]);
    assert!(bytes(&new.at("file")) == b"mine");
    for alone in [&["--heatmap-method", "rollout"][..], &["--heatmap-class", "healthy"]] {
        let ran = with(alone);
        assert!(ran.status == 2 && ran.stderr.contains("--heatmap <DIR>"), "{ran:?}");
    }
    let ran = with(&["--heatmap", &maps, "--heatmap-method", "tea_leaves"]);
    assert!(ran.status == 2 && ran.stderr.contains("gradient, rollout"), "{ran:?}");
    assert_eq!(new.leftovers(), Vec::<PathBuf>::new());
}

/// Names of tasks and classes come from a card, names of images from anywhere: none is a path.
#[cfg(unix)]
#[test]
fn names_that_would_lead_elsewhere_stay_in_the_heatmaps_folder() {
    use std::os::unix::ffi::OsStrExt;
    let bench = &*BENCH;
    let new = Workplace::new();
    let data = new.phantoms(Phantom::Fundus, 32, [6, 6, 6]);
    let table = String::from_utf8(bytes(&data)).expect("it is text");
    let long = "ä".repeat(200);
    let table = table.lines().enumerate().fold(String::new(), |text, (index, line)| {
        let class = ["../../up", "/etc/x", &long][index.saturating_sub(1) % 3];
        let line = line.rsplit_once(',').map_or(line, |(start, _)| start);
        text + line + "," + if index == 0 { "label" } else { class } + "\n"
    });
    let data = new.write("fundus/labels.csv", table);
    let (mut command, out) = bench.train_anew(&new, &data);
    run(command.args(["--task", "../task"])).good();
    let image = new.at(std::ffi::OsStr::from_bytes(b"fundus/..\xff \xc3\xa9 x.png"));
    std::fs::copy(new.at("fundus/test_0.png"), &image).expect("it can be copied");
    let maps = new.at("a/b/maps");
    for class in ["../../up", "/etc/x", &long] {
        let mut command = bench.predict(&out, &image);
        run(command.arg("--heatmap").arg(&maps).args(["--heatmap-class", class])).good();
    }
    let mut written: Vec<String> = std::fs::read_dir(&maps)
        .expect("it was made")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("it is UTF-8"))
        .collect();
    written.sort();
    let stem = "_..__é_x._.._task.";
    let expected =
        [format!("{stem}_.._.._up.png"), format!("{stem}_etc_x.png"), format!("{stem}{}.png", "ä".repeat(25))];
    assert_eq!(written, expected);
    assert_eq!(std::fs::read_dir(new.at("a/b")).expect("it was made").count(), 1);
}
