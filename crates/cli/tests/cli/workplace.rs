//! Where a test works: a folder of its own, real image files, small backbones, and the real binary.

use melo::imaging::write_png;
use melo::synthetic::{Phantom, phantom};
use melo::vit::{Storage, write_tensors};
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Side of the images that [`Workplace::phantoms`] draws, px.
pub(crate) const SIDE: usize = 96;

/// The backbone that the binary embeds.
pub(crate) fn embedded_backbone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/vit_small_formula.safetensors")
}

/// The binary, computing with two threads.
pub(crate) fn melo() -> Command {
    melo_with_threads(2)
}

/// The binary, computing with `threads` threads.
pub(crate) fn melo_with_threads(threads: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_melo"));
    command.arg("--threads").arg(threads.to_string()).stdin(Stdio::null());
    command
}

/// What a finished run of the binary left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit status; −1 after a signal.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is UTF-8");
    let ran =
        Ran { status: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

impl Ran {
    /// Requires success; returns what was printed.
    pub(crate) fn good(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.stdout
    }

    /// Requires success and nothing but JSON lines on standard output.
    pub(crate) fn json_lines(self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.good().lines().map(parse).collect()
    }

    /// Requires success and one JSON object on standard output.
    pub(crate) fn json(self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "one object, found {}", lines.len());
        lines.remove(0)
    }

    /// Requires this exit status and one message on standard error, the last line, that holds all of `parts`.
    pub(crate) fn refused(self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        let messages: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("melo: ")).collect();
        assert_eq!(messages.len(), 1, "one message, found {}", self.stderr);
        assert_eq!(self.stderr.lines().last(), messages.first().copied(), "the message is the last line");
        for part in parts {
            assert!(messages[0].contains(part), "expected {part:?} in {:?}", messages[0]);
        }
        assert_eq!(self.stdout, "", "a refusal prints no result");
    }
}

/// The binary's `verb` with a plug-in on the backbone `vit.safetensors`.
pub(crate) fn on(place: &Workplace, verb: &[&str], plugin: &Path) -> Command {
    let mut command = melo();
    command.args(verb).arg("--backbone").arg(place.at("vit.safetensors")).arg("--plugin").arg(plugin);
    command
}

/// A number of JSON.
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

/// A folder to work in.
pub(crate) struct Workplace {
    folder: PathBuf,
    /// Removes a temporary folder at the end.
    _guard: Option<tempfile::TempDir>,
}

impl Workplace {
    /// A temporary one.
    pub(crate) fn new() -> Self {
        let guard = tempfile::tempdir().expect("a temporary folder can be made");
        Workplace { folder: guard.path().to_owned(), _guard: Some(guard) }
    }

    /// One in cargo's folder for tests that outlives the test, for what several tests share.
    pub(crate) fn lasting(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("cargo's folder for tests can be written");
        Workplace { folder, _guard: None }
    }

    /// A path inside.
    pub(crate) fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.join(name.as_ref())
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("the folder can be made");
        std::fs::write(&path, bytes).expect("the file can be written");
        path
    }

    /// Draws one phantom of `side` pixels.
    pub(crate) fn image(&self, name: &str, kind: Phantom, class: usize, instance: u64, side: usize) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("the folder can be made");
        write_png(&path, &phantom(kind, class, instance, side)).expect("the image can be written");
    }

    /// Draws phantoms for train, val and test, classes in turn, and writes `NAME/labels.csv`.
    pub(crate) fn phantoms(&self, kind: Phantom, side: usize, images: [usize; 3]) -> PathBuf {
        let mut table = String::from("path,split,label\n");
        let mut instance = 0;
        for (split, images) in ["train", "val", "test"].into_iter().zip(images) {
            for index in 0..images {
                let class = index % kind.classes().len();
                let name = format!("{split}_{index}.png");
                self.image(&format!("{}/{name}", kind.name()), kind, class, instance, side);
                table += &format!("{name},{split},{}\n", kind.classes()[class]);
                instance += 1;
            }
        }
        self.write(&format!("{}/labels.csv", kind.name()), table)
    }

    /// Writes a ViT of two blocks for images of 32 pixels, in timm's names and with timm's JSON, its values a function
    /// of `seed`; `classes` gives it a classifier of its own.
    pub(crate) fn tiny_backbone(&self, name: &str, seed: u64, classes: Option<usize>) -> PathBuf {
        const D: usize = 64;
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("cls_token".into(), vec![1, 1, D]),
            ("pos_embed".into(), vec![1, 5, D]),
            ("patch_embed.proj.weight".into(), vec![D, 3, 16, 16]),
            ("patch_embed.proj.bias".into(), vec![D]),
            ("norm.weight".into(), vec![D]),
            ("norm.bias".into(), vec![D]),
        ];
        for block in 0..2 {
            let linear = [("attn.qkv", 3 * D, D), ("attn.proj", D, D), ("mlp.fc1", 4 * D, D), ("mlp.fc2", D, 4 * D)];
            for (layer, out, input) in linear {
                shapes.push((format!("blocks.{block}.{layer}.weight"), vec![out, input]));
                shapes.push((format!("blocks.{block}.{layer}.bias"), vec![out]));
            }
            for norm in ["norm1", "norm2"] {
                shapes.push((format!("blocks.{block}.{norm}.weight"), vec![D]));
                shapes.push((format!("blocks.{block}.{norm}.bias"), vec![D]));
            }
        }
        if let Some(classes) = classes {
            shapes.push(("head.weight".into(), vec![classes, D]));
            shapes.push(("head.bias".into(), vec![classes]));
        }
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let values: Vec<Vec<f32>> = shapes
            .iter()
            .map(|(name, shape)| {
                let norm = name.contains("norm") && name.ends_with("weight");
                let fan_in = shape[1..].iter().product::<usize>().max(1) as f32;
                let value = |_| if norm { 1.0 } else { 3.0 * uniform() / fan_in.sqrt() };
                (0..shape.iter().product()).map(value).collect()
            })
            .collect();
        let tensors: Vec<_> = shapes.into_iter().zip(&values).map(|((n, s), v)| (n, s, v.as_slice())).collect();
        let path = self.at(format!("{name}.safetensors"));
        write_tensors(&path, &tensors, HashMap::new(), Storage::F32).expect("the weights can be written");
        let description = serde_json::json!({
            "architecture": "vit_tiny_patch16_32",
            "global_pool": "token",
            "model_args": { "num_heads": 4 },
            "pretrained_cfg": {
                "input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0,
                "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
            },
        });
        self.write(&format!("{name}.json"), description.to_string());
        path
    }

    /// Names of everything in the folder and below that a write in flight left behind.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the folder can be listed").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if entry.file_name().to_string_lossy().starts_with('.') {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// A training command without settings.
pub(crate) fn train(backbone: &Path, data: &Path, out: &Path) -> Command {
    train_by(melo(), backbone, data, out)
}

/// As [`train`], with a command that was begun.
pub(crate) fn train_by(mut command: Command, backbone: &Path, data: &Path, out: &Path) -> Command {
    command.arg("train").arg("--backbone").arg(backbone).arg("--data").arg(data).arg("--out").arg(out);
    command
}

/// The bytes of a file.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
