//! `melo study` with the real binary: a small study end to end, killed at odd moments with no lost cell, refused by name
//! where something is wrong.

#![cfg(unix)]

use crate::workplace::{SIDE, Workplace, bytes, embedded_backbone, melo, run};
use melo::synthetic::Phantom;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// Two tasks, three methods, two seeds.
const CELLS: usize = 12;

const STUDY: &str = r#"
[study]
name = "phantoms"
seeds = [0, 1]
methods = ["lora", "linear", "full"]
bootstrap = 200
[train]
epochs = 2
batch_size = 8
[[backbone]]
name = "formula"
weights = "backbone.safetensors"
[[task]]
name = "smear"
labels = "blood_smear/labels.csv"
[[task]]
name = "breast"
labels = "mammogram/labels.csv"
"#;

struct Whole {
    workplace: Workplace,
    file: PathBuf,
    out: PathBuf,
    printed: Value,
}

/// The study that nobody stopped.
static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
    let workplace = Workplace::lasting("study");
    std::fs::copy(embedded_backbone(), workplace.at("backbone.safetensors")).expect("the backbone can be copied");
    workplace.phantoms(Phantom::BloodSmear, SIDE, [24, 12, 16]);
    workplace.phantoms(Phantom::Mammogram, SIDE, [24, 12, 16]);
    let file = workplace.write("study.toml", STUDY);
    let out = workplace.at("whole");
    let printed = run(study(&file, &out).arg("--json")).json();
    Whole { workplace, file, out, printed }
});

fn study(file: &Path, out: &Path) -> Command {
    let mut command = melo();
    command.arg("study").arg(file).arg("--out").arg(out);
    command
}

/// What each cell answered, by its folder, without what depends on the clock.
fn answers(out: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.join("cells")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("result.json") {
                let result: Value = serde_json::from_slice(&bytes(&path)).expect("a result is JSON");
                let name = folder.strip_prefix(out).expect("it lies inside").to_string_lossy().into_owned();
                let kept = ["identity", "val", "test", "temperature"].map(|field| result[field].clone());
                found.insert(name, kept.into_iter().collect());
            }
        }
    }
    found
}

#[test]
fn a_study_ends_with_results_and_a_report() {
    let Whole { out, printed, .. } = &*WHOLE;
    assert_eq!(printed["cells"], CELLS);
    assert_eq!(printed["cells_done"], CELLS);
    assert_eq!(printed["reference"], "full");
    assert!(printed["verdicts"]["lora"]["smear"].is_string(), "{printed}");
    let results: Value = serde_json::from_slice(&bytes(&out.join("results.json"))).expect("results are JSON");
    let tasks = results["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        assert_eq!(task["arms"].as_array().expect("arms").len(), 3);
        for arm in task["arms"].as_array().expect("arms") {
            let auc = &arm["auc"];
            let [low, value, high] = ["low", "value", "high"].map(|field| auc[field].as_f64().expect("a number"));
            assert!((0.0..=1.0).contains(&value) && low <= value + 1e-9 && value <= high + 1e-9, "{auc}");
            assert_eq!(arm["auc_per_cell"].as_array().expect("cells").len(), 2);
        }
        assert_eq!(task["comparisons"].as_array().expect("comparisons").len(), 2);
        assert!(!task["examples"].as_array().expect("examples").is_empty());
    }
    for total in results["totals"].as_array().expect("totals") {
        if total["method"] == "full" {
            assert!(total["auc_difference"].is_null(), "the reference: {total}");
            continue;
        }
        let found = &total["auc_difference"];
        let [low, value, high] = ["low", "value", "high"].map(|field| found[field].as_f64().expect("a number"));
        let of_task = |task: &Value| {
            let comparisons = task["comparisons"].as_array().expect("comparisons");
            let of_method = comparisons.iter().find(|comparison| comparison["method"] == total["method"]);
            of_method.and_then(|comparison| comparison["difference"]["value"].as_f64()).expect("a difference")
        };
        let mean = tasks.iter().map(of_task).sum::<f64>() / tasks.len() as f64;
        assert!((value - mean).abs() < 1e-9 && low <= value && value <= high, "{mean} and {found}");
    }
    let report = String::from_utf8(bytes(&out.join("report.html"))).expect("the report is text");
    assert!(report.contains("smear") && report.contains("<svg"), "a report with charts");
    let help = run(melo().args(["study", "--help"])).good();
    let (_, promised) = help.split_once("The folder gets ").expect("help names the files");
    let (promised, _) = promised.split_once("and a folder").expect("and then the folders");
    let promised: Vec<_> = promised.split([',', ' ', '\n']).filter(|file| !file.is_empty()).collect();
    assert_eq!(promised, ["report.html", "report.md", "results.json", "arms.csv", "comparisons.csv"]);
    for file in promised {
        assert!(!bytes(&out.join(file)).is_empty(), "{file}");
    }
    assert!(out.join("cells/smear/formula/lora/seed-0/plugin.safetensors").is_file());
    assert!(!out.join("cells/smear/formula/lora/seed-0/run/last.safetensors").exists(), "states are cleared");
}

#[test]
fn a_finished_study_computes_nothing_again() {
    let Whole { file, out, .. } = &*WHOLE;
    let result = out.join("cells/smear/formula/full/seed-1/result.json");
    let before = std::fs::metadata(&result).and_then(|file| file.modified()).expect("a time");
    run(&mut study(file, out)).good();
    assert_eq!(std::fs::metadata(&result).and_then(|file| file.modified()).expect("a time"), before);
}

#[test]
fn killed_again_and_again_it_loses_no_cell_and_ends_the_same() {
    let Whole { workplace, file, out, .. } = &*WHOLE;
    let killed = workplace.at("killed");
    let mut done = 0;
    for moment in [300, 900, 1500, 2100] {
        let mut child = study(file, &killed).stderr(Stdio::null()).spawn().expect("the command starts");
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().expect("the process can be killed");
        child.wait().expect("the process ends");
        let kept = answers(&killed).len();
        assert!(kept >= done, "{kept} cells after {done}");
        done = kept;
    }
    run(&mut study(file, &killed)).good();
    assert_eq!(answers(&killed), answers(out));
}

#[test]
fn changed_settings_are_refused_by_the_cell_and_the_field() {
    let Whole { workplace, out, .. } = &*WHOLE;
    let changed = workplace.write("changed.toml", STUDY.replace("batch_size = 8", "batch_size = 4"));
    run(&mut study(&changed, out)).refused(1, &["result.json", "config.batch_size", "8", "4", "--out"]);
}

#[test]
fn more_seeds_and_methods_go_on_from_what_is_done() {
    let Whole { workplace, out, .. } = &*WHOLE;
    let copy = workplace.at("more");
    copy_folder(out, &copy);
    let text = STUDY.replace("\"full\"]", "\"full\", \"wide\"]")
        + "[[method]]\nname = \"wide\"\nkind = \"lora\"\nrank = 8\ntasks = [\"smear\"]\n";
    let file = workplace.write("more.toml", text);
    let printed = run(study(&file, &copy).arg("--json")).json();
    assert_eq!(printed["cells_done"], CELLS + 2);
    assert!(printed["verdicts"]["wide"]["smear"].is_string(), "{printed}");
}

#[test]
fn a_cell_that_fails_costs_the_others_nothing() {
    let Whole { workplace, .. } = &*WHOLE;
    workplace.phantoms(Phantom::Fundus, SIDE, [8, 8, 8]);
    workplace.write("fundus/test_3.png", "no image");
    let text = STUDY.replace("mammogram/labels.csv", "fundus/labels.csv").replace("seeds = [0, 1]", "seeds = [0]");
    let file = workplace.write("broken.toml", text.replace(", \"full\"]", "]"));
    let out = workplace.at("broken");
    let ran = run(study(&file, &out).arg("--json"));
    assert_eq!(ran.status, 1, "{ran:?}");
    let printed: Value = serde_json::from_str(&ran.stdout).expect("one object");
    assert_eq!((&printed["cells"], &printed["cells_done"]), (&4.into(), &2.into()));
    let failures = printed["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 2);
    for failure in failures {
        let log = out.join("cells").join(failure["cell"].as_str().expect("a name")).join("log.txt");
        // The log is for people, as if the cell had been run by hand.
        let log = String::from_utf8(bytes(&log)).expect("the log is text");
        let reason = failure["reason"].as_str().expect("a sentence");
        assert!(reason.contains("test_3.png") && log.contains(&format!("melo: {reason}\n")), "{reason}: {log}");
    }
    assert!(ran.stderr.contains("test_3.png"), "{}", ran.stderr);
}

#[test]
fn a_cell_of_a_study_says_its_failure_as_a_line_of_json() {
    let Whole { workplace, file, .. } = &*WHOLE;
    let ran = run(study(file, &workplace.at("alone")).args(["--attached", "--cell", "smear/formula/lora/seed-7"]));
    let said: Value = serde_json::from_str(&ran.stdout).expect("one object");
    let reason = said["failed"].as_str().expect("a sentence");
    assert!(reason.contains("no cell of the study has the name smear/formula/lora/seed-7"), "{reason}");
    assert_eq!((ran.status, ran.stderr.trim_end()), (1, &*format!("melo: {reason}")));
}

#[test]
fn wrong_study_files_are_refused_by_the_key() {
    let Whole { workplace, .. } = &*WHOLE;
    let refused = |from: &str, to: &str, parts: &[&str]| {
        let file = workplace.write("wrong.toml", STUDY.replace(from, to));
        run(&mut study(&file, &workplace.at("wrong"))).refused(1, parts);
    };
    refused("epochs = 2", "epoch = 2", &["wrong.toml", "epoch"]);
    refused("\"full\"]", "\"fulll\"]", &["fulll"]);
    refused("blood_smear/labels.csv", "nowhere.csv", &["nowhere.csv"]);
    refused("backbone.safetensors", "nowhere.safetensors", &["nowhere.safetensors"]);
    run(&mut study(&workplace.at("none.toml"), &workplace.at("wrong"))).refused(1, &["none.toml"]);
}

#[test]
fn two_studies_do_not_share_a_folder() {
    let Whole { workplace, file, .. } = &*WHOLE;
    let out = workplace.at("shared");
    let mut first = study(file, &out).stderr(Stdio::null()).spawn().expect("the command starts");
    std::thread::sleep(Duration::from_millis(700));
    run(&mut study(file, &out)).refused(1, &["another study works in this folder", "--out"]);
    first.kill().expect("the process can be killed");
    first.wait().expect("the process ends");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be listed").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(std::fs::copy(&path, &target).expect("the file can be copied")),
        }
    }
}

#[test]
fn groups_are_compared_over_the_classes_that_both_have() {
    let place = Workplace::new();
    std::fs::copy(embedded_backbone(), place.at("backbone.safetensors")).expect("the backbone can be copied");
    let data = place.phantoms(Phantom::BloodSmear, SIDE, [24, 16, 32]);
    let table = std::fs::read_to_string(&data).expect("the manifest");
    let row = |(at, line): (usize, &str)| {
        let site = if at % 3 == 0 && !line.ends_with(",monocyte_like") { "south" } else { "north" };
        format!("{line},{}\n", if at == 0 { "site" } else { site })
    };
    let rows: String = table.lines().enumerate().map(row).collect();
    place.write("blood_smear/sites.csv", rows);
    let file = place.write(
        "sites.toml",
        "[study]\nname = \"sites\"\nseeds = [0]\nmethods = [\"linear\"]\nbootstrap = 200\n[[backbone]]\nname = \"formula\"\n\
         weights = \"backbone.safetensors\"\n[[task]]\nname = \"smear\"\nlabels = \"blood_smear/sites.csv\"\nsubgroups = [\"site\"]\n",
    );
    let out = place.at("sites");
    run(&mut study(&file, &out)).good();
    let results: Value = serde_json::from_slice(&bytes(&out.join("results.json"))).expect("JSON");
    let groups = results["tasks"][0]["arms"][0]["subgroups"].as_array().expect("groups");
    let of = |value: &str| groups.iter().find(|group| group["value"] == value).expect("a group");
    assert!(of("north")["note"].is_null() && of("north")["difference"].is_null(), "the largest");
    assert_eq!(of("south")["note"], "the difference is without monocyte_like, which one of the two groups lacks");
    assert!(of("south")["difference"]["value"].is_number(), "{groups:?}");
    let report = std::fs::read_to_string(out.join("report.html")).expect("the report");
    assert!(report.contains("the difference is without monocyte_like"));
}
