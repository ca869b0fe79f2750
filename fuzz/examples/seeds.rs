//! Seeds of every target in `corpus/TARGET`, from the golden files of the tests and from what the product writes.
//!
//! `cargo run --release --example seeds [FOLDER OF DICOM FILES]`

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use melo_fuzz::{ENGINE, a_pack, archive, folder, golden, native_dicom};
use melo_interop::{ImportSettings, import};
use melo_vit::Storage;

#[path = "../../crates/serve/tests/serve/common/form.rs"]
mod form;
#[path = "seeds/network.rs"]
mod network;
#[allow(dead_code)]
#[path = "../../crates/serve/tests/serve/common/peer.rs"]
mod peer;

/// Larger files make slow targets.
const MOST: usize = 1 << 16;

fn seed(target: &str, name: &str, prefix: &[u8], bytes: &[u8]) {
    if bytes.len() <= MOST {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), [prefix, bytes].concat()).expect("a file");
    }
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Every file of a folder with its name, and the bytes.
fn each(folder: &Path, mut work: impl FnMut(&str, &str, &[u8])) {
    for path in files(folder) {
        let name = path.strip_prefix(folder).expect("below it").to_string_lossy().replace('/', "-");
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        work(&name, &extension, &fs::read(&path).expect("a file"));
    }
}

fn main() {
    for name in ["file.minisig", "file.older", "test.pub"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/sign/tests/minisign").join(name);
        seed("signature", name, &[], &fs::read(path).expect("a file of minisign"));
    }
    each(&golden("imaging", ""), |name, extension, bytes| match extension {
        "png" | "tif" | "bmp" | "webp" | "gif" | "jp2" => {
            seed("image", name, &[], bytes);
            seed("mask", name, &[0], bytes);
        }
        "jpg" => {
            seed("image", name, &[], bytes);
            seed("jpeg", name, &[], &bytes[3..]);
        }
        "jls" | "j2k" | "j2c" => {
            let codec = match extension {
                "jls" => 3,
                "j2k" => 4,
                _ => 5,
            };
            let kind = if name.starts_with("rgb") {
                3
            } else if name.contains("16") {
                2
            } else {
                0
            };
            seed("codec", name, &[codec, 37, 21, kind], bytes);
        }
        _ => {}
    });
    seed(
        "codec",
        "rle",
        &[0, 8, 4, 0],
        &[&1u32.to_le_bytes()[..], &64u32.to_le_bytes(), &[0; 56], &[249, 5, 23, 1, 2]].concat(),
    );
    each(&golden("imaging", ""), |name, extension, bytes| {
        if extension == "jpg" && (name.contains("grey") || name.starts_with("16x16")) {
            seed("codec", name, &[2, 16, 16, 0], bytes);
        }
    });
    for (index, (kind, stream)) in lossless_jpeg().into_iter().enumerate() {
        seed("codec", &format!("lossless{index}"), &[1, 8, 8, kind], &stream);
    }
    for (index, file) in native_dicom().iter().enumerate() {
        seed("dicom", &index.to_string(), &[], file);
        seed("image", &format!("dicom{index}"), &[], file);
    }
    if let Some(more) = std::env::args().nth(1) {
        each(Path::new(&more), |name, _, bytes| seed("dicom", name, &[], bytes));
    }
    volumes();
    each(&golden("interop", "families"), |name, extension, bytes| match extension {
        "pth" | "pt" | "bin" => {
            seed("torch", name, &[0], bytes);
            let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("an archive");
            for index in 0..zip.len() {
                let mut entry = zip.by_index(index).expect("an entry");
                if entry.name().is_ok_and(|name| name.ends_with("data.pkl")) {
                    let mut pickle = Vec::new();
                    entry.read_to_end(&mut pickle).expect("a pickle");
                    seed("torch", &format!("{name}-pickle"), &[1], &pickle);
                }
            }
        }
        "npz" => seed("checkpoint", name, &[0], bytes),
        "safetensors" => seed("checkpoint", name, &[2], bytes),
        "json" => seed("checkpoint", name, &[if name.contains("index") { 3 } else { 4 }], bytes),
        _ => {}
    });
    seed("torch", "pickle", &[1], PICKLE);
    seed("checkpoint", "kernel", &[1], &npy("'<f4'", "(12, 3, 4)", &[0; 12 * 12 * 4]));
    seed(
        "checkpoint",
        "index",
        &[3],
        br#"{"metadata": {}, "weight_map": {"cls_token": "a.safetensors", "norm.bias": "a.safetensors"}}"#,
    );
    adapters();
    seed("manifest", "single", &[], b"path,split,label,patient_id\na.png,train,x,p\nb.png,test,\"y, z\",q\n");
    seed("manifest", "multi", &[], b"path,split,a,b,age\n\"a,\"\"1\"\".png\",train,0,1,50\nb.png,val,1,1,\n");
    each(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/data/presets"), |name, _, bytes| {
        seed("settings", name, &[0], bytes);
    });
    seed("settings", "study", &[1], STUDY.as_bytes());
    let (index, shard) = a_pack();
    seed("pack", "index", &[0], &index);
    seed("pack", "shard", &[1], &shard);
    network::seeds();
}

/// Streams of eight by eight samples of 8 and 16 bits, all of them equal to their prediction.
fn lossless_jpeg() -> Vec<(u8, Vec<u8>)> {
    let stream = |bits: u8| {
        let frame = [0xff, 0xc3, 0, 11, bits, 0, 8, 0, 8, 1, 1, 0x11, 0];
        let table = [0xff, 0xc4, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 1, 0, 0];
        [&[0xff, 0xd8][..], &frame, &table, &scan, &[0; 8], &[0xff, 0xd9]].concat()
    };
    vec![(0, stream(8)), (1, stream(12)), (2, stream(16))]
}

/// A volume and arrays.
fn volumes() {
    let mut header = vec![0; 352];
    header[..4].copy_from_slice(&348i32.to_le_bytes());
    for (axis, length) in [3i16, 6, 5, 4, 1, 1, 1, 1].into_iter().enumerate() {
        header[40 + axis * 2..][..2].copy_from_slice(&length.to_le_bytes());
    }
    header[70..72].copy_from_slice(&4i16.to_le_bytes());
    header[72..74].copy_from_slice(&16i16.to_le_bytes());
    header[108..112].copy_from_slice(&352f32.to_le_bytes());
    header[344..348].copy_from_slice(b"n+1\0");
    let samples: Vec<u8> = (0..6 * 5 * 4 * 2).map(|at| (at * 5) as u8).collect();
    seed("volume", "nifti", &[0], &[&header[..], &samples].concat());
    seed("image", "nifti", &[], &[&header[..], &samples].concat());
    for (index, (kind, shape, size)) in [
        ("'|u1'", "(4, 5)", 20),
        ("'<i2'", "(3, 4, 5)", 120),
        ("'>f8'", "(2, 4, 5, 3)", 960),
        ("'|u1'", "(2, 3, 4, 5)", 120),
    ]
    .into_iter()
    .enumerate()
    {
        let array = npy(kind, shape, &samples.repeat(4)[..size]);
        seed("volume", &format!("npy{index}"), &[1], &array);
        seed("volume", &format!("npz{index}"), &[2], &archive(&[("x.npy", &array)]));
        seed("volume", &format!("member{index}"), &[3], &array);
    }
}

/// An array file (numpy.org, `numpy.lib.format`, version 1.0).
fn npy(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n");
    [&b"\x93NUMPY\x01\0"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), bytes].concat()
}

/// Adapters of others, and plug-ins made from them.
fn adapters() {
    for name in ["authors", "unicad"] {
        seed(
            "authors",
            name,
            &[],
            &fs::read(golden("interop", &format!("{name}.safetensors"))).expect("a golden file"),
        );
    }
    for adapter in
        ["timm_qkv", "timm_layers", "timm_patterns", "timm_regex", "deit_qkv", "hf_all_linear", "hf_new", "hf_old"]
    {
        let path = golden("interop", adapter);
        let read = |name: &str| fs::read(path.join(name)).expect("a golden file");
        seed("peft", &format!("{adapter}-config"), &[0], &read("adapter_config.json"));
        seed("peft", &format!("{adapter}-tensors"), &[1], &read("adapter_model.safetensors"));
        let classes: Vec<String> = (0..8).map(|class| class.to_string()).collect();
        let import = |count| {
            let classes = Some(&classes[..count]);
            import(&path, &**ENGINE, &ImportSettings { task: Some("seed"), classes, ..ImportSettings::default() }).ok()
        };
        // As many classes as the adapter has; none where it is for another backbone.
        let Some(imported) = (1..=classes.len()).find_map(import) else { continue };
        let folder = folder();
        for (suffix, storage) in [("f32", Storage::F32), ("f16", Storage::F16)] {
            let file = folder.path().join("p.safetensors");
            imported.plugin.save(&file, ENGINE.backbone().config(), storage).expect("a plug-in");
            seed("plugin", &format!("{adapter}-{suffix}"), &[], &fs::read(&file).expect("a plug-in"));
        }
    }
}

/// `{"cls_token": _rebuild_tensor_v2(storage 0 of 6 floats, 0, (1, 1, 6), (6, 6, 1))}`.
const PICKLE: &[u8] = b"\x80\x02}q\x00X\x09\x00\x00\x00cls_tokenctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x01K\x01K\x06\x87K\x06K\x06K\x01\x87\x89ccollections\nOrderedDict\n)RtRs.";

const STUDY: &str = r#"
[study]
name = "three methods"
methods = ["lora", "linear", "narrow"]
seeds = [0, 1]
folds = 2

[[backbone]]
name = "tiny"
weights = "tiny.safetensors"

[[task]]
name = "a"
labels = "labels.csv"

[[method]]
name = "narrow"
kind = "lora"
rank = 2
targets = ["q", "v"]
rank_pattern = { 10 = 8 }
"#;
