//! The arrows of the house: which crate may use which, and where `unsafe` may stand.

use cargo_metadata::{Metadata, MetadataCommand};
use std::path::Path;

/// Every crate with the crates of this workspace that it may use.
const ARROWS: [(&str, &[&str]); 12] = [
    ("melo-kernels", &[]),
    ("melo-vit", &["melo-kernels"]),
    ("melo-npy", &[]),
    ("melo-interop", &["melo-vit", "melo-npy"]),
    ("melo-imaging", &["melo-kernels", "melo-vit", "melo-npy"]),
    ("melo-data", &["melo-imaging", "melo-vit", "melo-npy"]),
    ("melo-synthetic", &["melo-imaging"]),
    ("melo-eval", &[]),
    ("melo-train", &["melo-vit", "melo-data", "melo-eval", "melo-imaging", "melo-synthetic"]),
    ("melo-study", &["melo-vit", "melo-interop", "melo-data", "melo-eval", "melo-imaging", "melo-train"]),
    ("melo-serve", &["melo-vit", "melo-imaging", "melo-eval"]),
    (
        "melo",
        &[
            "melo-kernels",
            "melo-vit",
            "melo-interop",
            "melo-imaging",
            "melo-data",
            "melo-synthetic",
            "melo-eval",
            "melo-train",
            "melo-study",
            "melo-serve",
        ],
    ),
];

/// The crate that may hold `unsafe`, and so cannot take the workspace's lints as they are.
const UNSAFE_CRATE: &str = "melo-kernels";

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
        let ours = package.dependencies.iter().filter(|dependency| dependency.name.starts_with("melo-"));
        for dependency in ours {
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} uses {} ({}), but may use only {allowed:?}",
                package.name,
                dependency.name,
                dependency.kind
            );
        }
    }
}

#[test]
fn unsafe_is_forbidden_outside_the_kernels() {
    let metadata = workspace();
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let section = |manifest: &str, head: &str, line: &str| {
        let mut lines = manifest.lines().map(str::trim).skip_while(|found| *found != head).skip(1);
        lines.by_ref().take_while(|found| !found.starts_with('[')).any(|found| found == line)
    };
    let root = read(metadata.workspace_root.join("Cargo.toml").as_std_path());
    assert!(section(&root, "[workspace.lints.rust]", "unsafe_code = \"forbid\""), "the workspace forbids unsafe");
    for package in metadata.workspace_packages().into_iter().filter(|package| package.name != UNSAFE_CRATE) {
        let manifest = read(package.manifest_path.as_std_path());
        assert!(section(&manifest, "[lints]", "workspace = true"), "{} takes the workspace's lints", package.name);
    }
}
