//! Files that lie, are cut off or want to be executed: refused by name, quickly, without much memory.

use melo_interop::read_checkpoint;
use melo_vit::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const CONFIG: &str = r#"{"architecture": "vit", "pretrained_cfg": {"interpolation": "bicubic", "crop_pct": 0.9,
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "model_args": {"num_heads": 3}}"#;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(name)
}

/// A folder with a zip archive of these entries, and a JSON that would describe it.
fn archive(name: &str, entries: &[(&str, &[u8])], method: CompressionMethod) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("scratch files can be written");
    let path = folder.path().join(name);
    let mut zip = ZipWriter::new(std::fs::File::create(&path).expect("scratch files can be written"));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method))
            .expect("scratch files can be written");
        zip.write_all(bytes).expect("scratch files can be written");
    }
    zip.finish().expect("scratch files can be written");
    std::fs::write(folder.path().join("config.json"), CONFIG).expect("scratch files can be written");
    (folder, path)
}

fn refused(path: &Path) -> String {
    let error = read_checkpoint(path).expect_err("a file that must be refused");
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "does not name the file: {message}");
    message
}

fn pickle_refused(pickle: &[u8], words: &str) {
    let (_folder, path) = archive("w.pth", &[("w/data.pkl", pickle)], CompressionMethod::Stored);
    let message = refused(&path);
    assert!(message.contains(words), "`{message}` does not say `{words}`");
}

#[test]
fn a_pickle_that_wants_to_run_something_is_refused_by_its_name() {
    pickle_refused(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "`os.system`");
    pickle_refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "`builtins.eval`");
    pickle_refused(b"\x80\x02cposix\nsystem\n.", "`posix.system`");
    // A known name called with what no such function takes.
    pickle_refused(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "too few arguments");
    pickle_refused(b"\x80\x02(i__main__\nX\n.", "opcode 0x69");
}

#[test]
fn a_pickle_that_is_damaged_is_refused() {
    for (pickle, words) in [
        (&b""[..], "ends in the middle"),
        (b"\x80", "ends in the middle"),
        (b"\x80\x02X\xff\xff\xff\xffab", "ends in the middle"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "ends in the middle"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02h\x05.", "memo 5"),
        (b"\x80\x02Nq\x09.", "memo 9"),
        (b"\x80\x02Nu.", "no mark"),
        (b"\x80\x02N(NNs.", "no dictionary"),
        (b"\x80\x02N.", "no tensor in it"),
        (b"\x80\x02}.", "no tensor"),
        (b"\x80\x02\x85.", "empty stack"),
        (b"\x80\x02Q.", "empty stack"),
        (b"\x80\x02NQ.", "no storage"),
        (b"\x80\x02\xff.", "opcode 0xff"),
    ] {
        pickle_refused(pickle, words);
    }
}

/// `{"x": _rebuild_tensor_v2(("storage", FloatStorage, "0", "cpu", len), offset, (shape,), (stride,))}`.
fn tensor(len: u32, offset: u32, shape: u32, stride: u32) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n\
        X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ"
        .to_vec();
    pickle.extend(len.to_le_bytes());
    pickle.extend(b"tQJ");
    pickle.extend(offset.to_le_bytes());
    pickle.push(b'J');
    pickle.extend(shape.to_le_bytes());
    pickle.extend(b"\x85J");
    pickle.extend(stride.to_le_bytes());
    pickle.extend(b"\x85tRs.");
    pickle
}

#[test]
fn a_tensor_that_reaches_beyond_its_storage_is_refused() {
    let cases = [
        (tensor(4, 0, 5, 1), "beyond its storage"),
        (tensor(4, 2, 3, 1), "beyond its storage"),
        (tensor(4, 0, 2, 4), "beyond its storage"),
        // One value, repeated two thousand million times.
        (tensor(4, 0, i32::MAX as u32, 0), "beyond its storage"),
        (tensor(4, 0, u32::MAX, 1), "size is -1"),
        (tensor(5, 0, 4, 1), "cut off"),
        (tensor(u32::MAX, 0, 4, 1), "-1 values"),
    ];
    for (pickle, words) in cases {
        let entries = [("w/data.pkl", pickle.as_slice()), ("w/data/0", &[0; 16])];
        let (_folder, path) = archive("w.pth", &entries, CompressionMethod::Stored);
        let message = refused(&path);
        assert!(message.contains(words), "`{message}` does not say `{words}`");
    }
    let pickle = tensor(4, 0, 4, 1);
    let entries = [("w/data.pkl", pickle.as_slice()), ("w/data/0", &[0; 16])];
    // A sound tensor under a name of no ViT: refused for its name only.
    let (_folder, path) = archive("w.pth", &entries, CompressionMethod::Stored);
    assert!(refused(&path).contains("`patch_embed.proj.weight` is missing"));
    let (_folder, path) = archive("w.pth", &entries, CompressionMethod::Deflated);
    assert!(refused(&path).contains("packed"));
    let (_folder, path) = archive("w.pth", &entries[..1], CompressionMethod::Stored);
    assert!(refused(&path).contains("storage 0"));
    let (_folder, path) = archive("w.pth", &[("w/data.pkl", &pickle), ("w/code/a.py", b"")], CompressionMethod::Stored);
    assert!(refused(&path).contains("TorchScript"));
}

#[test]
fn archives_cut_off_anywhere_are_refused() {
    for (case, file) in [("timm-dino-pth", "checkpoint.pth"), ("google-npz", "ViT-tiny.npz")] {
        let bytes = std::fs::read(golden(case).join(file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        for len in (0..bytes.len()).step_by(bytes.len() / 23) {
            std::fs::write(&path, &bytes[..len]).unwrap();
            refused(&path);
        }
    }
}

#[test]
fn flipped_bytes_are_refused_by_name_or_change_no_shape() {
    for (case, file) in [("timm-dino-pth", "checkpoint.pth"), ("google-npz", "ViT-tiny.npz")] {
        let bytes = std::fs::read(golden(case).join(file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let whole = read_checkpoint(&path).unwrap().config;
        let mut refused = 0;
        for at in (0..bytes.len()).step_by(bytes.len() / 211) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x55;
            std::fs::write(&path, flipped).unwrap();
            match read_checkpoint(&path) {
                Ok(read) => assert_eq!(read.config, whole, "{file}, byte {at}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(&path.display().to_string()), "byte {at}: {message}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{file}: no change was noticed");
    }
}

#[test]
fn an_array_that_claims_more_than_it_holds_is_refused() {
    let array = |header: &str| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes
    };
    let name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel.npy";
    for (header, words) in [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776, 1099511627776), }", "query"),
        ("{'descr': '<f4', 'fortran_order': True, 'shape': (24, 3, 8), }", "Fortran"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (24, 3, 8), }", "'|O'"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (24, -3, 8), }", "`-3`"),
        ("nothing", "expected '<f4'"),
    ] {
        let (_folder, path) = archive("w.npz", &[(name, &array(header))], CompressionMethod::Deflated);
        let message = refused(&path);
        assert!(message.contains(words), "`{message}` does not say `{words}`");
    }
    let (_folder, path) = archive("w.npz", &[("a/b.txt", b"")], CompressionMethod::Stored);
    assert!(refused(&path).contains("`a/b.txt` is no array"));
}

#[test]
fn shards_stay_in_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors.index.json");
    for shard in ["../model.safetensors", "/etc/passwd", "a/b", "..", ""] {
        std::fs::write(&path, format!(r#"{{"weight_map": {{"cls_token": "{shard}"}}}}"#)).unwrap();
        assert!(refused(&path).contains("not a file name"), "{shard}");
    }
    std::fs::write(&path, r#"{"weight_map": 3}"#).unwrap();
    assert!(refused(&path).contains("index of shards"));
    std::fs::write(&path, r#"{"weight_map": {"cls_token": "absent.safetensors"}}"#).unwrap();
    assert!(matches!(read_checkpoint(&path), Err(Error::Io { .. })));
}

#[test]
fn what_is_no_family_of_ours_is_refused_by_name() {
    type Change<'a> = &'a dyn Fn(&Path);
    let copy = |case: &str, change: Change<'_>| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden(case)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
        }
        change(folder.path());
        let message = read_checkpoint(folder.path()).expect_err("a model that must be refused").to_string();
        assert!(message.contains(&folder.path().display().to_string()), "{message}");
        message
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            assert!(text.contains(from), "{file} has no {from}");
            std::fs::write(folder.join(file), text.replace(from, to)).unwrap();
        }
    };
    let config = "config.json";
    let processor = "preprocessor_config.json";
    let cases: [(&str, Change<'_>, &str); 10] = [
        ("hf-vit", &edit(config, r#""model_type": "vit""#, r#""model_type": "swin""#), "`swin`"),
        ("hf-vit", &edit(config, r#""hidden_act": "gelu""#, r#""hidden_act": "relu""#), "`relu`"),
        ("hf-vit", &edit(config, r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 3"#), "blocks.2."),
        ("hf-vit", &edit(config, r#""num_attention_heads": 3"#, r#""num_attention_heads": 5"#), "num_attention_heads"),
        ("hf-vit", &edit(processor, r#""resample": 3"#, r#""resample": 0"#), "resample"),
        ("hf-vit", &edit(processor, r#""image_mean""#, r#""mean""#), "`mean`"),
        ("hf-vit", &edit(processor, r#""image_mean": [0.485, 0.456, 0.406], "#, ""), "`image_mean` is missing"),
        ("hf-vit", &edit(processor, r#""height": 16"#, r#""height": 20"#), "no square"),
        ("hf-vit", &|folder| std::fs::remove_file(folder.join(processor)).unwrap(), "never assumed"),
        (
            "timm-dino-pth",
            &|folder| std::fs::remove_file(folder.join(config)).unwrap(),
            "no description beside the weights",
        ),
    ];
    for (case, change, words) in cases {
        let message = copy(case, change);
        assert!(message.contains(words), "`{message}` does not say `{words}`");
    }
}
