//! The main job end to end, with the real binary on real files: train, evaluate, predict, and every field of `--json`
//! that `docs/json.md` promises.

use crate::workplace::{Ran, SIDE, Workplace, bytes, embedded_backbone, melo, melo_with_threads, run, train_by};
use melo::synthetic::Phantom;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Two tasks on one backbone, trained once for all tests.
struct Trained {
    workplace: Workplace,
    backbone: PathBuf,
    smear: PathBuf,
    fundus: PathBuf,
    smear_data: PathBuf,
    /// What training the blood smears printed.
    report: Value,
    stderr: String,
}

static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
    let workplace = Workplace::lasting("main_job");
    let backbone = workplace.at("backbone.safetensors");
    std::fs::copy(embedded_backbone(), &backbone).expect("the backbone can be copied");
    let smear_data = workplace.phantoms(Phantom::BloodSmear, SIDE, [24, 12, 12]);
    let fundus_data = workplace.phantoms(Phantom::Fundus, SIDE, [24, 12, 12]);
    let (smear, fundus) = (workplace.at("smear.safetensors"), workplace.at("fundus.safetensors"));
    run(&mut two_epochs(&backbone, &fundus_data, &fundus)).good();
    let ran = run(two_epochs(&backbone, &smear_data, &smear).arg("--json"));
    let stderr = ran.stderr.clone();
    Trained { report: ran.json(), workplace, backbone, smear, fundus, smear_data, stderr }
});

fn two_epochs(backbone: &Path, data: &Path, out: &Path) -> Command {
    two_epochs_by(melo(), backbone, data, out)
}

fn two_epochs_by(command: Command, backbone: &Path, data: &Path, out: &Path) -> Command {
    let mut command = train_by(command, backbone, data, out);
    command.args(["--epochs", "2", "--batch-size", "8"]);
    command
}

fn eval(backbone: &Path, plugin: &Path, data: &Path) -> Command {
    let mut command = melo();
    command.arg("eval").arg("--backbone").arg(backbone).arg("--plugin").arg(plugin).arg("--data").arg(data);
    command
}

fn predict(backbone: &Path, plugins: &[&Path], images: &[PathBuf]) -> Ran {
    let mut command = melo();
    command.arg("predict").arg("--backbone").arg(backbone).arg("--json");
    for plugin in plugins {
        command.arg("--plugin").arg(plugin);
    }
    run(command.args(images))
}

fn smears(trained: &Trained) -> Vec<PathBuf> {
    (0..3).map(|index| trained.workplace.at(format!("blood_smear/test_{index}.png"))).collect()
}

fn number(object: &Value, field: &str) -> f64 {
    object[field].as_f64().unwrap_or_else(|| panic!("{field} is a number in {object}"))
}

fn unit(object: &Value, field: &str) {
    let value = number(object, field);
    assert!((0.0..=1.0).contains(&value), "{field} {value}");
}

fn digest(object: &Value, field: &str) -> String {
    let digest = object[field].as_str().unwrap_or_else(|| panic!("{field} is text in {object}"));
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{field} {digest}");
    digest.to_owned()
}

#[test]
fn train_ends_with_the_object_that_scripts_rely_on() {
    let Trained { report, smear, .. } = &*TRAINED;
    assert_eq!(report["plugin"], smear.to_str().expect("the path is UTF-8"));
    assert_eq!(report["task"], "blood_smear");
    assert!((1..=2).contains(&report["best_epoch"].as_u64().expect("an epoch")));
    assert_eq!(report["epochs"], 2);
    unit(report, "val_auc_macro");
    unit(report, "val_acc");
    let trainable = number(report, "trainable_parameters");
    let percent = number(report, "trainable_percent");
    assert!(trainable > 0.0 && percent > 0.0 && percent < 5.0, "{trainable} are {percent} %");
    assert_eq!(number(report, "plugin_bytes"), bytes(smear).len() as f64);
    assert!(number(report, "seconds") > 0.0);
    assert!(number(report, "peak_rss_bytes") > 1e6);
}

#[test]
fn trainable_percent_counts_against_the_backbone() {
    let Trained { report, backbone, .. } = &*TRAINED;
    let info = run(melo().args(["backbone", "info", "--json"]).arg(backbone)).json();
    let expected = 100.0 * number(report, "trainable_parameters") / number(&info, "parameters");
    assert!((number(report, "trainable_percent") - expected).abs() < 1e-9);
    assert_eq!(digest(&info, "backbone_digest"), digest(report, "backbone_digest"));
    assert_eq!(info["classifier_classes"], Value::Null);
    // What is stored as 32-bit floats is printed as such, not with the digits of its 64-bit neighbour.
    assert_eq!(info["config"]["eps"].to_string(), "1e-6");
}

#[test]
fn progress_goes_to_standard_error() {
    let Trained { stderr, .. } = &*TRAINED;
    let epochs: Vec<&str> = stderr.lines().filter(|line| line.trim_start().starts_with(['1', '2'])).collect();
    assert!(stderr.contains("epoch  train loss"), "{stderr}");
    assert!(epochs.len() >= 2, "{stderr}");
    assert!(!stderr.contains('\r') && !stderr.contains('\u{1b}'), "plain lines when piped: {stderr:?}");
}

#[test]
fn the_run_folder_holds_settings_epochs_and_states() {
    let Trained { workplace, smear, .. } = &*TRAINED;
    let config: Value = serde_json::from_slice(&bytes(&workplace.at("smear.run/config.json"))).expect("it is JSON");
    assert_eq!(config["epochs"], 2);
    let table = String::from_utf8(bytes(&workplace.at("smear.run/epochs.csv"))).expect("it is text");
    assert_eq!(table.lines().count(), 3, "a head and two epochs: {table}");
    assert!(workplace.at("smear.run/last.safetensors").is_file());
    // The finished plug-in's card says more; its numbers are those of the best epoch, and behind them what describes the training images.
    let numbers = |path: &Path| {
        let file = bytes(path);
        let header = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
        file[8 + header..].to_vec()
    };
    assert!(numbers(smear).starts_with(&numbers(&workplace.at("smear.run/best.safetensors"))));
    assert_eq!(workplace.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn the_backbone_stays_as_it_is() {
    assert_eq!(bytes(&TRAINED.backbone), bytes(&embedded_backbone()));
}

#[test]
fn eval_prints_the_object_that_scripts_rely_on() {
    let Trained { workplace, backbone, smear, smear_data, report, .. } = &*TRAINED;
    let object = run(eval(backbone, smear, smear_data).arg("--json")).json();
    assert_eq!(object["task"], "blood_smear");
    assert_eq!(object["split"], "test");
    assert_eq!(object["n"], 12);
    ["acc", "auc_macro", "auc_micro"].iter().for_each(|field| unit(&object, field));
    let per_class = object["auc_per_class"].as_object().expect("an object");
    let names: Vec<&str> = per_class.keys().map(String::as_str).collect();
    assert_eq!(names, ["eosinophil_like", "lymphocyte_like", "monocyte_like", "neutrophil_like"]);
    let mean = per_class.values().map(|auc| auc.as_f64().expect("a number")).sum::<f64>() / names.len() as f64;
    assert!((mean - number(&object, "auc_macro")).abs() < 1e-9);
    assert_eq!(digest(&object, "plugin_digest"), digest(report, "plugin_digest"));
    assert_eq!(digest(&object, "backbone_digest"), digest(report, "backbone_digest"));
    assert_eq!([&object["precision"], &report["precision"]], ["f32", "f32"]);
    unit(&object, "balanced_acc");
    assert!(
        object.as_object().expect("an object").contains_key("collapse"),
        "null where nothing has collapsed: {object}"
    );
    assert_eq!(object["few_cases"]["monocyte_like"], object["positives_per_class"]["monocyte_like"]);
    let text = run(&mut eval(backbone, smear, smear_data)).good();
    assert!(
        text.contains("fewer than 10 cases: eosinophil_like (3)") && text.contains("balanced accuracy 0."),
        "{text}"
    );
    let table = workplace.at("val.csv");
    let mut val = eval(backbone, smear, smear_data);
    let val = run(val.args(["--split", "val", "--json", "--predictions"]).arg(&table)).json();
    assert_eq!(val["split"], "val");
    assert!((number(&val, "acc") - number(report, "val_acc")).abs() < 1e-9);
    // A temperature moves no answer, but the order of images by one of several probabilities: training measures without it.
    let card = run(melo().args(["plugin", "info", "--json"]).arg(smear)).json();
    let auc = auc_without_temperature(&table, &names, number(&card["card"], "temperature"));
    assert!((auc - number(report, "val_auc_macro")).abs() < 1e-9);
}

/// The macro AUC of the probabilities in `table` as they were before they were divided by `temperature`.
pub(crate) fn auc_without_temperature(table: &Path, classes: &[&str], temperature: f64) -> f64 {
    let (mut scores, mut labels) = (vec![Vec::new(); classes.len()], Vec::new());
    for row in csv::Reader::from_path(table).expect("the predictions").records() {
        let row = row.expect("a row");
        let raw = (0..classes.len()).map(|at| row[3 + at].parse::<f64>().expect("a number").powf(temperature));
        let raw: Vec<f64> = raw.collect();
        let sum: f64 = raw.iter().sum();
        scores.iter_mut().zip(raw).for_each(|(of, p)| of.push((p / sum) as f32));
        labels.push(row[1].to_owned());
    }
    let auc = |(scores, class): (&Vec<f32>, &&str)| {
        let positive: Vec<bool> = labels.iter().map(|label| label == class).collect();
        melo::eval::roc_auc(scores, &positive).expect("both kinds are there")
    };
    scores.iter().zip(classes).map(auc).sum::<f64>() / classes.len() as f64
}

#[test]
fn eval_for_people_is_a_table() {
    let Trained { backbone, smear, smear_data, .. } = &*TRAINED;
    let text = run(&mut eval(backbone, smear, smear_data)).good();
    for part in ["blood_smear", "test split", "macro AUC", "monocyte_like", "confusion"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn predictions_are_those_of_predict() {
    let Trained { workplace, backbone, smear, smear_data, .. } = &*TRAINED;
    let csv = workplace.at("predictions.csv");
    run(eval(backbone, smear, smear_data).arg("--predictions").arg(&csv)).good();
    let table = String::from_utf8(bytes(&csv)).expect("it is text");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 13, "a head and a row an image");
    assert_eq!(rows[0][..4], ["path", "label", "predicted", "p_eosinophil_like"]);
    let answers = predict(backbone, &[smear], &smears(&TRAINED)).json_lines();
    assert_eq!(answers.len(), 3);
    for (row, answer) in rows[1..].iter().zip(&answers) {
        assert!(answer["image"].as_str().expect("a path").ends_with(row[0]));
        assert_eq!(answer["predicted"], row[2]);
        for (head, value) in rows[0][3..].iter().zip(&row[3..]) {
            let class = head.strip_prefix("p_").expect("a probability");
            let expected = number(&answer["probabilities"], class);
            // One pass over all images and one over three round alike to within a few units of the last place.
            assert!((value.parse::<f64>().expect("a number") - expected).abs() < 1e-5, "{class}");
        }
    }
}

#[test]
fn the_precision_that_was_asked_for_is_used() {
    let Trained { backbone, smear, .. } = &*TRAINED;
    let answer = |precision: &str| {
        let mut command = melo();
        command.arg("predict").arg("--backbone").arg(backbone).arg("--plugin").arg(smear);
        run(command.args(["--json", "--precision", precision]).args(&smears(&TRAINED)[..1])).json()
    };
    let [f32, bf16] = ["f32", "bf16"].map(|precision| {
        let answer = answer(precision);
        assert_eq!(answer["precision"], precision);
        number(&answer["probabilities"], "monocyte_like")
    });
    // Eight significant bits: another number, and nearly the same.
    assert!(f32 != bf16 && (f32 - bf16).abs() < 0.05, "{f32} {bf16}");
    assert!(["f32", "bf16"].iter().any(|precision| answer("auto")["precision"] == *precision));
}

#[test]
fn predict_prints_a_line_for_every_image_and_task() {
    let Trained { backbone, smear, fundus, report, .. } = &*TRAINED;
    let images = smears(&TRAINED);
    let lines = predict(backbone, &[smear, fundus], &images).json_lines();
    assert_eq!(lines.len(), 6);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["image"], images[index / 2].to_str().expect("the path is UTF-8"));
        assert_eq!(line["task"], ["blood_smear", "fundus"][index % 2]);
        let probabilities = line["probabilities"].as_object().expect("an object");
        let total: f64 = probabilities.values().map(|p| p.as_f64().expect("a number")).sum();
        assert!((total - 1.0).abs() < 1e-5, "one class an image: {total}");
        let best = line["predicted"].as_str().expect("a class");
        assert!(probabilities.values().all(|p| p.as_f64() <= probabilities[best].as_f64()));
        digest(line, "plugin_digest");
        assert_eq!(digest(line, "backbone_digest"), digest(report, "backbone_digest"));
    }
    assert_eq!(digest(&lines[0], "plugin_digest"), digest(report, "plugin_digest"));
    assert_ne!(digest(&lines[0], "plugin_digest"), digest(&lines[1], "plugin_digest"));
}

#[test]
fn several_plugins_at_once_answer_as_one_by_one() {
    let Trained { backbone, smear, fundus, .. } = &*TRAINED;
    let images = smears(&TRAINED);
    let together = predict(backbone, &[smear, fundus], &images).json_lines();
    for (index, plugin) in [smear, fundus].into_iter().enumerate() {
        for (image, path) in images.iter().enumerate() {
            let alone = predict(backbone, &[plugin], std::slice::from_ref(path)).json();
            let mixed = &together[2 * image + index];
            assert_eq!(alone["plugin_digest"], mixed["plugin_digest"]);
            for (class, p) in alone["probabilities"].as_object().expect("an object") {
                let difference = p.as_f64().expect("a number") - number(&mixed["probabilities"], class);
                assert!(difference.abs() < 1e-5, "{class}: {difference}");
            }
        }
    }
}

/// [`predict`] with heat maps in `folder`.
fn with_heatmaps(backbone: &Path, plugins: &[&Path], images: &[PathBuf], folder: &Path, more: &[&str]) -> Ran {
    let mut command = melo();
    command.arg("predict").arg("--backbone").arg(backbone).arg("--json").arg("--heatmap").arg(folder).args(more);
    for plugin in plugins {
        command.arg("--plugin").arg(plugin);
    }
    run(command.args(images))
}

/// Class and path of every heat map that a line names.
fn heatmaps(line: &Value) -> Vec<(String, PathBuf)> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("text in {line}")).to_owned();
    let all = line["heatmaps"].as_array().unwrap_or_else(|| panic!("a list in {line}"));
    all.iter().map(|heatmap| (text(&heatmap["class"]), PathBuf::from(text(&heatmap["path"])))).collect()
}

#[test]
fn heatmaps_are_written_for_what_was_predicted() {
    let Trained { workplace, backbone, smear, fundus, .. } = &*TRAINED;
    let images = smears(&TRAINED);
    let folder = workplace.at("maps/of/two");
    let plain = predict(backbone, &[smear, fundus], &images).json_lines();
    let lines = with_heatmaps(backbone, &[smear, fundus], &images, &folder, &[]).json_lines();
    assert_eq!((lines.len(), plain.len()), (6, 6));
    let (class, path) = heatmaps(&lines[1])[0].clone();
    for (index, (mut line, plain)) in lines.into_iter().zip(plain).enumerate() {
        let (image, task) = (&images[index / 2], ["blood_smear", "fundus"][index % 2]);
        let [(class, path)] = heatmaps(&line).try_into().expect("one heat map");
        assert_eq!(class, line["predicted"]);
        assert_eq!(path, folder.join(format!("test_{}.{task}.{class}.png", index / 2)));
        let (drawn, original) = (melo::imaging::read(&path), melo::imaging::read(image));
        let (drawn, original) = (drawn.expect("it is an image"), original.expect("it is an image"));
        assert_eq!((drawn.width, drawn.height), (original.width, original.height));
        assert_ne!(drawn.rgb, original.rgb);
        // All else is as without heat maps.
        line.as_object_mut().expect("an object").remove("heatmaps");
        assert_eq!(line, plain);
    }
    // The same again gives the same bytes; another method and another class give other ones.
    let first = bytes(&path);
    let again = |more: &[&str]| {
        let path = workplace.at("maps/again");
        let line = with_heatmaps(backbone, &[fundus], &images[..1], &path, more).json();
        bytes(&heatmaps(&line)[0].1)
    };
    assert!(again(&["--heatmap-class", &class]) == first);
    assert!(again(&["--heatmap-class", &class, "--heatmap-method", "rollout"]) != first);
    let other = Phantom::Fundus.classes().iter().find(|&&other| other != class).expect("three classes");
    assert!(again(&["--heatmap-class", other]) != first);
}

#[test]
fn a_class_can_be_chosen_and_tasks_without_it_get_no_heatmap() {
    let Trained { workplace, backbone, smear, fundus, .. } = &*TRAINED;
    let images = smears(&TRAINED);
    let class = Phantom::Fundus.classes()[1];
    let folder = workplace.at("maps/chosen");
    let more = ["--heatmap-class", class];
    let lines = with_heatmaps(backbone, &[smear, fundus], &images[..1], &folder, &more).json_lines();
    assert_eq!(heatmaps(&lines[0]), []);
    assert_eq!(heatmaps(&lines[1]), [(class.to_owned(), folder.join(format!("test_0.fundus.{class}.png")))]);
    assert_eq!(std::fs::read_dir(&folder).expect("it was made").count(), 1);
    // For people, the paths stand below the answer.
    let mut command = melo();
    command.arg("predict").arg("--backbone").arg(backbone).arg("--plugin").arg(fundus).args(&images[..1]);
    let text = run(command.arg("--heatmap").arg(&folder).args(more)).good();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.contains(class) && line.ends_with(".png")), "{text}");
}

#[test]
fn heatmaps_never_share_a_name_nor_replace_an_image_that_is_read() {
    let Trained { workplace, backbone, smear, .. } = &*TRAINED;
    let folder = workplace.at("names");
    let class = Phantom::BloodSmear.classes()[0];
    workplace.image("names/A.png", Phantom::BloodSmear, 0, 1, SIDE);
    workplace.image("names/b/a.png", Phantom::BloodSmear, 0, 2, SIDE);
    let trap = format!("names/a.blood_smear.{class}.png");
    workplace.image(&trap, Phantom::BloodSmear, 0, 3, SIDE);
    let before = bytes(&workplace.at(&trap));
    let images = ["names/A.png", "names/b/a.png", &trap].map(|name| workplace.at(name));
    let lines = with_heatmaps(backbone, &[smear], &images, &folder, &["--heatmap-class", class]).json_lines();
    let mut paths: Vec<PathBuf> = lines.iter().flat_map(heatmaps).map(|(_, path)| path).collect();
    assert_eq!(paths[0], folder.join(format!("A.blood_smear.{class}.2.png")));
    paths.dedup();
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert!(bytes(&workplace.at(&trap)) == before && !paths.contains(&workplace.at(&trap)));
}

#[test]
fn a_broken_image_is_named_and_the_others_are_answered() {
    let Trained { workplace, backbone, smear, .. } = &*TRAINED;
    let broken = workplace.write("broken/not_an_image.png", "patient: Doe");
    let images = [smears(&TRAINED)[0].clone(), broken, smears(&TRAINED)[1].clone()];
    let ran = predict(backbone, &[smear], &images);
    assert_eq!((ran.status, ran.stdout.lines().count()), (1, 2), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("not_an_image.png: not an image"), "{}", ran.stderr);
}

#[test]
fn a_folder_means_the_images_in_it() {
    let Trained { workplace, backbone, smear, .. } = &*TRAINED;
    let lines = predict(backbone, &[smear], &[workplace.at("blood_smear")]).json_lines();
    assert_eq!(lines.len(), 48);
}

#[test]
fn the_same_seed_gives_the_same_plugin_with_any_number_of_threads() {
    let Trained { workplace, backbone, smear, smear_data, .. } = &*TRAINED;
    for threads in [1, 2, 3] {
        let again = workplace.at(format!("threads_{threads}.safetensors"));
        run(&mut two_epochs_by(melo_with_threads(threads), backbone, smear_data, &again)).good();
        assert_eq!(bytes(&again), bytes(smear), "{threads} threads");
    }
    let other = workplace.at("other_seed.safetensors");
    run(two_epochs(backbone, smear_data, &other).args(["--seed", "1"])).good();
    assert_ne!(bytes(&other), bytes(smear));
}

#[test]
fn memory_does_not_grow_with_the_batch() {
    let workplace = Workplace::new();
    let data = workplace.phantoms(Phantom::Fundus, SIDE, [128, 12, 12]);
    let peak = |batch: &str| {
        let out = workplace.at(format!("batch_{batch}.safetensors"));
        let mut command = train_by(melo(), &embedded_backbone(), &data, &out);
        number(&run(command.args(["--epochs", "1", "--batch-size", batch, "--json"])).json(), "peak_rss_bytes")
    };
    let (small, large) = (peak("8"), peak("128"));
    assert!(large <= 1.3 * small, "batch 8 peaks at {small} bytes, batch 128 at {large}");
}

#[test]
fn the_order_of_lines_does_not_matter() {
    let workplace = Workplace::new();
    let data = workplace.phantoms(Phantom::Fundus, SIDE, [12, 6, 6]);
    let train = |name: &str| {
        let out = workplace.at(name);
        run(&mut two_epochs(&embedded_backbone(), &data, &out)).good();
        bytes(&out)
    };
    let forwards = train("forwards.safetensors");
    let text = std::fs::read_to_string(&data).expect("the manifest is text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    std::fs::write(&data, lines.join("\n")).expect("the manifest can be written");
    assert!(forwards == train("backwards.safetensors"));
}

#[test]
fn rank_0_is_a_linear_probe() {
    let Trained { workplace, backbone, smear_data, .. } = &*TRAINED;
    let out = workplace.at("probe.safetensors");
    let report = run(two_epochs(backbone, smear_data, &out).args(["--rank", "0", "--json"])).json();
    let info = run(melo().args(["backbone", "info", "--json"]).arg(backbone)).json();
    let width = info["config"]["width"].as_u64().expect("a width");
    assert_eq!(report["trainable_parameters"], 4 * width + 4);
    assert!(run(melo().args(["plugin", "info"]).arg(&out)).good().contains("linear probe"));
    assert_eq!(predict(backbone, &[&out], &smears(&TRAINED)).json_lines().len(), 3);
}

#[test]
fn sixteen_bits_halve_the_file_and_keep_the_answers() {
    let Trained { workplace, backbone, smear, smear_data, .. } = &*TRAINED;
    let out = workplace.at("half.safetensors");
    let report = run(two_epochs(backbone, smear_data, &out).args(["--f16", "--json"])).json();
    let info = |path: &Path| run(melo().args(["plugin", "info", "--json"]).arg(path)).json();
    let (whole, half) = (info(smear), info(&out));
    assert_eq!(whole["parameters"], half["parameters"]);
    let saved = number(&whole, "bytes") - number(&half, "bytes");
    let scope = number(&whole, "scope_bytes") - number(&half, "scope_bytes");
    assert!(scope > 0.0 && number(&whole, "scope_bytes") == 2.0 * scope, "its description by half");
    let of_parameters = saved - scope;
    assert!(
        (of_parameters - 2.0 * number(&whole, "parameters")).abs() < 64.0,
        "two bytes a parameter, up to padding: {saved}"
    );
    assert_eq!(digest(&half, "plugin_digest"), digest(&report, "plugin_digest"));
    let lines = predict(backbone, &[smear, &out], &smears(&TRAINED)).json_lines();
    assert_eq!(lines.len(), 6);
    for pair in lines.chunks(2) {
        for (class, p) in pair[0]["probabilities"].as_object().expect("an object") {
            let difference = p.as_f64().expect("a number") - number(&pair[1]["probabilities"], class);
            assert!(difference.abs() < 1e-2, "{class}: {difference}");
        }
    }
}

#[test]
fn plugin_info_shows_the_card() {
    let Trained { smear, report, .. } = &*TRAINED;
    let info = run(melo().args(["plugin", "info", "--json"]).arg(smear)).json();
    assert_eq!(info["bytes"], report["plugin_bytes"]);
    assert_eq!(info["parameters"], report["trainable_parameters"]);
    assert_eq!(info["plugin_digest"], report["plugin_digest"]);
    let card = &info["card"];
    assert_eq!(card["task"], "blood_smear");
    assert_eq!(card["kind"], "single_label");
    assert_eq!(card["lora"]["rank"], 4);
    assert_eq!(card["backbone"]["digest"], report["backbone_digest"]);
    assert_eq!(card["metrics"]["val_auc_macro"], report["val_auc_macro"]);
    assert_eq!(card["provenance"]["settings"]["epochs"], 2);
}

#[test]
fn findings_may_be_many_or_none() {
    let workplace = Workplace::new();
    let backbone = workplace.tiny_backbone("vit", 1, None);
    let mut table = String::from("path,split,nodule,effusion,patient_id\n");
    for index in 0..48 {
        let class = index % 3;
        let split = ["train", "train", "val", "test"][index / 12];
        workplace.image(&format!("{index}.png"), Phantom::ChestFilm, class, index as u64, 32);
        table += &format!("{index}.png,{split},{},{},p{index}\n", u8::from(class == 1), u8::from(class == 2));
    }
    let data = workplace.write("films.csv", table);
    let out = workplace.at("films.safetensors");
    run(&mut two_epochs(&backbone, &data, &out)).good();
    let csv = workplace.at("predictions.csv");
    let object = run(eval(&backbone, &out, &data).arg("--json").arg("--predictions").arg(&csv)).json();
    assert_eq!(object["n"], 12);
    assert_eq!(object["auc_per_class"].as_object().map(serde_json::Map::len), Some(2));
    let table = String::from_utf8(bytes(&csv)).expect("it is text");
    assert!(table.starts_with("path,label_nodule,label_effusion,p_nodule,p_effusion\n"), "{table}");
    let line = predict(&backbone, &[&out], &[workplace.at("0.png")]).json();
    assert!(line["findings"].is_array() && line.get("predicted").is_none(), "{line}");
    ["nodule", "effusion"].iter().for_each(|finding| unit(&line["probabilities"], finding));

    // A heat map of every finding, or of the most probable one where there is none.
    let films: Vec<PathBuf> = (0..24).map(|index| workplace.at(format!("{index}.png"))).collect();
    let lines = with_heatmaps(&backbone, &[&out], &films, &workplace.at("maps"), &[]).json_lines();
    assert_eq!(lines.len(), films.len());
    for line in &lines {
        let explained: Vec<String> = heatmaps(line).into_iter().map(|(class, _)| class).collect();
        let findings: Vec<&str> = line["findings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let top = ["nodule", "effusion"][line["top"][0].as_u64().expect("an index") as usize];
        assert_eq!(explained, if findings.is_empty() { vec![top] } else { findings }, "{line}");
    }
}

#[test]
fn a_folder_for_every_class_is_a_manifest() {
    let workplace = Workplace::new();
    let backbone = workplace.tiny_backbone("vit", 1, None);
    for index in 0..40 {
        let class = Phantom::Mammogram.classes()[index % 2];
        workplace.image(&format!("views/{class}/{index}.png"), Phantom::Mammogram, index % 2, index as u64, 32);
    }
    let (data, out) = (workplace.at("views"), workplace.at("views.safetensors"));
    let ran = run(two_epochs(&backbone, &data, &out).args(["--json", "--seed", "3"]));
    assert!(ran.stderr.contains("the manifest has no splits: assigned 28 images to train"), "{}", ran.stderr);
    assert_eq!(ran.json()["task"], "views");
    let object = run(eval(&backbone, &out, &data).arg("--json")).json();
    assert_eq!(object["n"], 6, "the splits are those of the training's seed");
    let report = run(melo().args(["data", "check", "--json"]).arg(&data)).json();
    assert_eq!((report["images"].as_u64(), report["problems"].as_array().map(Vec::len)), (Some(40), Some(0)));
}

#[test]
fn without_a_plugin_the_backbones_own_classifier_answers() {
    let workplace = Workplace::new();
    let backbone = workplace.tiny_backbone("vit", 7, Some(10));
    workplace.image("photo.png", Phantom::Fundus, 0, 0, 48);
    let line = predict(&backbone, &[], &[workplace.at("photo.png")]).json();
    assert_eq!(line["task"], "vit_tiny_patch16_32");
    assert_eq!(line["plugin_digest"], Value::Null);
    let top: Vec<u64> = line["top"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert_eq!(top.len(), 5);
    let of = |class: &u64| number(&line["probabilities"], &class.to_string());
    assert!(top.is_sorted_by(|a, b| of(a) >= of(b)));
    assert!((0..10).all(|class| top.contains(&class) || of(&class) <= of(&top[4])));
}

#[test]
fn data_check_prints_one_object() {
    let report = run(melo().args(["data", "check", "--json"]).arg(&TRAINED.smear_data)).json();
    assert_eq!(report["images"], 48);
    assert_eq!(report["kind"], "single_label");
    assert_eq!(report["splits"][0]["split"], "train");
    assert_eq!(report["problems"], serde_json::json!([]));
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let verbs: [&[&str]; 19] = [
        &["quickstart"],
        &["train"],
        &["eval"],
        &["predict"],
        &["embed"],
        &["archive", "run"],
        &["archive", "check"],
        &["plugin", "info"],
        &["backbone", "info"],
        &["data", "check"],
        &["pretrain"],
        &["completions"],
        &["bench", "infer"],
        &["bench", "train"],
        &["bench", "switch"],
        &["bench", "mixed"],
        &["bench", "decode"],
        &["bench", "load"],
        &["bench", "fixtures"],
    ];
    for verb in verbs {
        let help = run(melo().args(verb).arg("--help")).good();
        assert!(help.contains("Example") && help.contains("  melo "), "{verb:?}: {help}");
    }
    assert!(run(melo().arg("--help")).good().contains("melo quickstart"));
}

#[test]
fn pretraining_writes_a_backbone_that_a_plugin_is_trained_on() {
    let (place, trained) = (Workplace::new(), &*TRAINED);
    let small = ["pretrain", "--classes", "5", "--images", "64", "--epochs", "2", "--json"];
    let said = run(melo().args(small).arg("--out").arg(place.at("vit.safetensors"))).json();
    assert_eq!(said["parameters"], 1_650_304);
    assert!((0.0..=1.0).contains(&said["val_dice"].as_f64().expect("a number")), "{said}");
    let train = |out: &str| {
        let mut train = melo();
        train.args(["train", "--epochs", "1", "--no-scope", "--data"]).arg(&trained.smear_data);
        train.arg("--backbone").arg(place.at("vit.safetensors")).arg("--out").arg(place.at(out));
        train
    };
    run(&mut train("plugin.safetensors")).good();
    run(melo().args(small).arg("--out").arg(place.at("vit.safetensors"))).refused(2, &["exists already"]);
    let ran = run(melo().args(["pretrain", "--classes", "254", "--out", "x"]));
    assert!(ran.status == 2 && ran.stderr.contains("254 is not in 1..=253"), "{}", ran.stderr);
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(melo().args(["completions", shell])).good();
        assert!(script.contains("quickstart") && script.contains("backbone"), "{shell}");
    }
}

#[test]
fn the_manual_has_a_page_of_every_verb() {
    let place = Workplace::new();
    run(melo().arg("man").arg(place.at("man1"))).good();
    let page = |name: &str| std::fs::read_to_string(place.at("man1").join(name)).expect(name);
    for name in ["melo.1", "melo-train.1", "melo-plugin-certify.1", "melo-archive-run.1"] {
        assert!(page(name).contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(page("melo-train.1").contains("labels.csv"), "its example");
    run(melo().arg("man").arg(place.write("file", ""))).refused(1, &["file"]);
}

#[test]
fn the_card_carries_calibration_and_the_test_figures_that_eval_finds() {
    let Trained { workplace, backbone, smear, smear_data, .. } = &*TRAINED;
    let info = run(melo().args(["plugin", "info", "--json"]).arg(smear)).json();
    let card = &info["card"];
    let measured = run(eval(backbone, smear, smear_data).arg("--json")).json();
    for (name, figure) in [("test_auc_macro", "auc_macro"), ("test_acc", "acc"), ("test_balanced_acc", "balanced_acc")]
    {
        assert_eq!(card["metrics"][name], measured[figure], "{name}");
        assert_eq!(card["metric_intervals"][name], measured["intervals"][figure], "{name}");
    }
    assert!(card["temperature"].as_f64().expect("a number") > 0.0 && card["temperature"] != 1.0, "{card}");
    assert_eq!(card["provenance"]["split_digest"].as_str().expect("a digest").len(), 64);
    assert_eq!(card["provenance"]["precision"], "f32");

    let page = workplace.at("smear.html");
    run(melo().args(["plugin", "card"]).arg(smear).arg("--out").arg(&page)).good();
    let page = String::from_utf8(bytes(&page)).expect("it is text");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("monocyte_like") && page.contains("[0."), "{page}");
    let markdown = run(melo().args(["plugin", "card"]).arg(smear)).good();
    assert!(markdown.starts_with("# blood_smear") && markdown.contains("| Test macro AUC |"), "{markdown}");
    run(melo().args(["plugin", "card"]).arg(smear).arg("--out").arg(smear)).refused(2, &["would replace"]);
}

#[test]
fn subgroups_are_measured_each() {
    let Trained { workplace, backbone, smear, smear_data, .. } = &*TRAINED;
    let rows: String = (0..12).map(|i| format!("test_{i}.png,{},{}\n", ["left", "right"][i / 6], 30 + 3 * i)).collect();
    let meta = workplace.write("meta.csv", format!("path,side,age\n{rows}"));
    let groups = |columns: &[&str]| {
        let mut command = eval(backbone, smear, smear_data);
        command.arg("--json").arg("--meta").arg(&meta);
        for column in columns {
            command.args(["--subgroup", column]);
        }
        run(&mut command)
    };
    let found = groups(&["side", "age:40,60"]).json();
    let found = found["subgroups"].as_array().expect("a list");
    let named: Vec<_> = found.iter().map(|g| format!("{} {} {}", g["column"], g["value"], g["images"])).collect();
    let expected = [
        "\"side\" \"left\" 6",
        "\"side\" \"right\" 6",
        "\"age\" \"40-60\" 6",
        "\"age\" \"<40\" 4",
        "\"age\" \">=60\" 2",
    ];
    assert_eq!(named, expected);
    assert!(found[0]["auc_macro"]["value"].is_number(), "{found:?}");
    groups(&["colour"]).refused(1, &["meta.csv", "colour"]);
}
