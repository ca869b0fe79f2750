//! The arrows of the house: which crate may use which, and where `unsafe` may stand.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::path::{Path, PathBuf};

/// Every crate with the crates of this workspace that it may use.
const ARROWS: [(&str, &[&str]); 25] = [
    ("melo-kernels", &[]),
    ("melo-model", &["melo-kernels"]),
    (REFERENCE, &["melo-model"]),
    ("melo-cuda", &["melo-model"]),
    (HOST, &["melo-cuda"]),
    ("melo-npy", &[]),
    ("melo-sign", &[]),
    ("melo-interop", &["melo-model", "melo-npy"]),
    ("melo-imaging", &["melo-kernels", "melo-model", "melo-npy"]),
    ("melo-synthetic", &["melo-imaging"]),
    ("melo-data", &["melo-imaging", "melo-model", "melo-npy"]),
    ("melo-predict", &["melo-imaging", "melo-model"]),
    ("melo-embed", &["melo-data", "melo-imaging", "melo-model", "melo-npy"]),
    ("melo-archive", &["melo-imaging", "melo-predict", "melo-model"]),
    ("melo-eval", &[]),
    ("melo-report", &[]),
    ("melo-train", &["melo-model", "melo-data", "melo-eval", "melo-imaging", "melo-report", "melo-synthetic"]),
    ("melo-mpi", &["melo-train"]),
    ("melo-log", &["melo-model", "melo-imaging", "melo-train"]),
    ("melo-share", &["melo-model", "melo-sign", "melo-interop", "melo-report", "melo-train"]),
    (
        "melo-study",
        &[
            "melo-model",
            "melo-interop",
            "melo-data",
            "melo-eval",
            "melo-imaging",
            "melo-predict",
            "melo-report",
            "melo-train",
        ],
    ),
    ("melo-serve", &["melo-model", "melo-imaging", "melo-predict", "melo-sign"]),
    (
        "melo",
        &[
            "melo-model",
            "melo-interop",
            "melo-imaging",
            "melo-data",
            "melo-synthetic",
            "melo-eval",
            "melo-predict",
            "melo-embed",
            "melo-archive",
            "melo-cuda",
            "melo-report",
            "melo-train",
            "melo-mpi",
            "melo-log",
            "melo-share",
            "melo-sign",
            "melo-study",
            "melo-serve",
        ],
    ),
    ("melo-vit", &["melo"]),
    ("melo-py", &["melo", "melo-vit"]),
];

/// What belongs to processors, and so stays within `melo-kernels` and `melo-model`: above the engine seam nobody names it.
const OF_PROCESSORS: [&str; 7] =
    ["Kernels", "PackedWeight", "Workspace", "ThreadPool", "ThreadPoolBuilder", "Isa", "Cpu"];
/// The one file above `melo-model` that calls a kernel: the loops of a resize, which know no model.
const RESIZE: &str = "crates/imaging/src/resize.rs";

/// The files above `melo-model` that name a card's own temperature or thresholds: where they are made, shown, or there before any is
/// fitted. All others have a bound plug-in, with the calibration of the engine at hand.
const OF_CARDS: [&str; 4] = [
    "crates/train/src/calibrate.rs",
    "crates/train/src/sheet.rs",
    "crates/train/src/trainer/passes.rs",
    "crates/study/src/cell.rs",
];

/// The engine of tests, which every crate may use in its own, and none outside them.
const REFERENCE: &str = "melo-reference";
/// The card of tests, likewise, with the engine that it is for.
const HOST: &str = "melo-cuda-host";
const OF_TESTS: [&str; 3] = [REFERENCE, HOST, "melo-cuda"];

/// The crates that may hold `unsafe`, and so cannot take the workspace's lints as they are: what computes, and what calls a library that is
/// loaded at run time.
const UNSAFE_CRATES: [&str; 4] = ["melo-kernels", "melo-cuda", HOST, "melo-mpi"];

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo describes the workspace")
}

#[test]
fn arrows_point_only_upwards() {
    for package in workspace().workspace_packages() {
        let place = ARROWS.iter().find(|(name, _)| package.name == name);
        let (_, allowed) = place.unwrap_or_else(|| panic!("{} has no place in the house", package.name));
        let ours =
            package.dependencies.iter().filter(|dependency| ARROWS.iter().any(|(name, _)| dependency.name == *name));
        for dependency in ours {
            // The front door's tests open its server too.
            let own = dependency.name == package.name.as_str() || OF_TESTS.contains(&dependency.name.as_str());
            let in_tests = dependency.kind == DependencyKind::Development && own;
            assert!(
                in_tests || allowed.contains(&dependency.name.as_str()),
                "{} uses {} ({}), but may use only {allowed:?}",
                package.name,
                dependency.name,
                dependency.kind
            );
        }
    }
}

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let of = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    };
    paths.flat_map(of).filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn no_crate_above_the_seam_names_what_belongs_to_processors() {
    let metadata = workspace();
    let root = metadata.workspace_root.as_std_path();
    let below = ["melo-kernels", "melo-model"];
    let mut read = 0;
    for package in metadata.workspace_packages().into_iter().filter(|package| !below.contains(&package.name.as_str())) {
        let folder = package.manifest_path.as_std_path().with_file_name("src");
        for path in sources(&folder) {
            let text = std::fs::read_to_string(&path).expect("a source");
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            for word in words {
                let kernels = word == "melo_kernels" && path.strip_prefix(root).ok() != Some(Path::new(RESIZE));
                assert!(!kernels && !OF_PROCESSORS.contains(&word), "{} names {word}", path.display());
            }
            read += 1;
        }
    }
    assert!(read > 100, "the sources of the crates above: {read} files");
}

#[test]
fn answers_are_read_by_the_calibration_of_a_bound_plugin() {
    let metadata = workspace();
    let root = metadata.workspace_root.as_std_path();
    for package in metadata.workspace_packages().into_iter().filter(|package| package.name != "melo-model") {
        for path in sources(&package.manifest_path.as_std_path().with_file_name("src")) {
            let text = std::fs::read_to_string(&path).expect("a source");
            let named = ["card.temperature", "card.thresholds"].into_iter().find(|name| text.contains(name));
            let place = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
            // Unit tests lie beside what they test.
            let fine = named.is_none() || OF_CARDS.contains(&place) || place.ends_with("tests.rs");
            assert!(fine, "{place} names {named:?}, which may be of another engine or precision");
        }
    }
}

#[test]
fn unsafe_is_forbidden_outside_the_kernels_and_what_calls_libraries() {
    let metadata = workspace();
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let section = |manifest: &str, head: &str, line: &str| {
        let mut lines = manifest.lines().map(str::trim).skip_while(|found| *found != head).skip(1);
        lines.by_ref().take_while(|found| !found.starts_with('[')).any(|found| found == line)
    };
    let root = read(metadata.workspace_root.join("Cargo.toml").as_std_path());
    assert!(section(&root, "[workspace.lints.rust]", "unsafe_code = \"forbid\""), "the workspace forbids unsafe");
    for package in
        metadata.workspace_packages().into_iter().filter(|package| !UNSAFE_CRATES.contains(&package.name.as_str()))
    {
        let manifest = read(package.manifest_path.as_std_path());
        assert!(section(&manifest, "[lints]", "workspace = true"), "{} takes the workspace's lints", package.name);
    }
}
