//! Every documented field of every foreign description, set to other values in turn: answered as its library does, or refused by
//! name. There is no third outcome. `tools/cases/golden.py` asked the libraries.

use crate::workplace::{Workplace, melo_with_threads, run};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One description, and what is changed in it.
#[derive(Deserialize)]
struct Kind {
    kind: String,
    /// File of weights.
    weights: String,
    /// Files beside them, by name.
    files: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// One of these words is in a refusal.
    names: Vec<String>,
    /// Files that differ; `null` for one that is gone.
    files: BTreeMap<String, Value>,
    /// Probabilities `[pictures][classes]`; none where the library fails.
    right: Option<Vec<Vec<f32>>>,
}

/// Pictures, and how much a probability may differ: a pixel of a resized one may differ by one of 255.
const PICTURES: [(&str, f32); 4] = [("exact.png", 2e-4), ("square.png", 3e-3), ("wide.png", 3e-3), ("tall.png", 3e-3)];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sweep").join(name)
}

/// What is wrong with melo's answer to a case, if anything.
fn wrong(place: &Workplace, number: usize, kind: &Kind, case: &Case) -> Option<String> {
    let folder = place.at(format!("case{number}"));
    std::fs::create_dir(&folder).expect("golden files");
    std::fs::copy(golden(&kind.weights), folder.join("model.safetensors")).expect("golden files");
    let mut files = kind.files.clone();
    files.extend(case.files.clone());
    for (name, content) in files.iter().filter(|(_, content)| !content.is_null()) {
        std::fs::write(folder.join(name), content.to_string()).expect("golden files");
    }
    let mut command = melo_with_threads(1);
    command.arg("predict").arg("--backbone").arg(&folder).arg("--json");
    command.args(PICTURES.map(|(name, _)| golden(name)));
    let ran = run(&mut command);
    std::fs::remove_dir_all(&folder).expect("golden files");
    if ran.status != 0 {
        let named = case.right.is_none() || case.names.iter().any(|name| ran.stderr.contains(name));
        let clear = ran.stderr.contains("melo: ") && !ran.stderr.contains("panicked");
        return (!named || !clear).then(|| format!("refused without its name: {}", ran.stderr.trim()));
    }
    let Some(right) = &case.right else { return Some("answered where the library fails".to_owned()) };
    let rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let found: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            row["probabilities"].as_object().expect("probabilities").values().filter_map(Value::as_f64).collect()
        })
        .collect();
    let fits = found.len() == right.len()
        && found.iter().zip(right).zip(PICTURES).all(|((found, right), (_, allowed))| {
            let close = |(a, b): (&f64, &f32)| (*a as f32 - b).abs() <= allowed;
            found.len() == right.len() && found.iter().zip(right).all(close)
        });
    (!fits).then(|| format!("answered {found:.3?}, the library {right:.3?}"))
}

#[test]
fn every_field_of_every_description_is_as_in_its_library_or_refused_by_name() {
    let kinds: Vec<Kind> = serde_json::from_str(&std::fs::read_to_string(golden("cases.json")).expect("golden files"))
        .expect("golden files");
    let cases: Vec<(&Kind, &Case)> =
        kinds.iter().flat_map(|kind| kind.cases.iter().map(move |case| (kind, case))).collect();
    assert!(cases.len() > 400, "{} cases", cases.len());
    let (place, next) = (Workplace::new(), AtomicUsize::new(0));
    let work = || {
        let mut faults = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((kind, case)) = cases.get(number) else { return faults };
            if let Some(fault) = wrong(&place, number, kind, case) {
                faults.push(format!("{}: {}: {fault}", kind.kind, case.name));
            }
        }
    };
    let faults: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}
