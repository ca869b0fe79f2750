//! What the targets and the seeds share: where golden files are, and the shells around fuzzed bytes.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use melo_data::{Manifest, PackOptions, pack};
use melo_imaging::{Pixels, write_png};
use melo_interop::read_backbone;
use melo_vit::{CropMode, DeviceSpec, Engine, Interpolation, Preprocess};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

#[allow(dead_code)]
#[path = "../../crates/imaging/tests/common/dicom.rs"]
mod dicom_file;

use dicom_file::*;

/// A file of a crate's tests.
pub fn golden(krate: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(krate).join("tests/golden").join(name)
}

/// The engine whose backbone adapters and plug-ins are for.
pub static ENGINE: LazyLock<Arc<dyn Engine>> = LazyLock::new(|| {
    let backbone = read_backbone(&golden("interop", "timm.safetensors")).expect("the golden backbone");
    DeviceSpec::default().open().load(backbone).expect("an engine")
});

/// A new folder, in `TMPDIR`.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Writes a file of a folder and gives its path.
pub fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// A zip archive of stored entries, so that what is fuzzed lies within right checksums.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(*name, stored).expect("in memory");
        zip.write_all(bytes).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}

/// Transfer syntaxes of the compressed frames, by the first byte of an input of `codec`.
const CODECS: [&str; 6] = [RLE, JPEG_LOSSLESS, JPEG_EXTENDED, JPEG_LS, JPEG_2000, HIGH_THROUGHPUT];

/// A DICOM file around a compressed frame: codec, width, height and kind of samples are the first four bytes.
pub fn framed(bytes: &[u8]) -> Option<Vec<u8>> {
    let ([codec, columns, rows, kind], stream) = bytes.split_first_chunk()?;
    let (columns, rows) = (u16::from(*columns).max(1), u16::from(*rows).max(1));
    let image = match kind % 5 {
        0 => Image::grey(columns, rows, 8),
        1 => Image::grey(columns, rows, 12),
        2 => Image { signed: true, ..Image::grey(columns, rows, 16) },
        3 => Image::rgb(columns, rows),
        _ => Image { photometric: "YBR_FULL_422", ..Image::rgb(columns, rows) },
    };
    Some(image.of_fragments(CODECS[usize::from(*codec) % CODECS.len()], &[stream]))
}

/// `bytes` with the checksum at `at` made right for what follows `from`.
pub fn with_checksum(bytes: &[u8], at: usize, from: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some((header, rest)) = bytes.split_at_mut_checked(from) {
        header[at..at + 32].copy_from_slice(&Sha256::digest(rest));
    }
    bytes
}

/// Native DICOM files: every way of writing, grey and colour.
pub fn native_dicom() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = (0..24 * 16 * 3).map(|at| (at * 7) as u8).collect();
    let writings = [(Writing::Implicit, IMPLICIT), (Writing::Explicit, EXPLICIT), (Writing::BigEndian, BIG_ENDIAN)];
    let mut files = Vec::new();
    for (writing, syntax) in writings {
        for image in [Image::grey(24, 16, 8), Image::grey(24, 8, 12), Image::rgb(24, 16)] {
            let size = usize::from(image.columns * image.rows * image.samples * image.allocated / 8);
            let elements = image.elements(writing).text(0x0028_1050, "DS", "40").text(0x0028_1051, "DS", "300");
            files.push(elements.value(0x7fe0_0010, "OW", &bytes[..size]).file(syntax));
        }
    }
    files
}

/// What images are resized to here.
pub fn preprocess() -> Preprocess {
    Preprocess { crop_mode: CropMode::Center, interpolation: Interpolation::Bilinear, ..Preprocess::base(8) }
}

/// A pack of two small images: the bytes of its index and of its shard.
pub fn a_pack() -> (Vec<u8>, Vec<u8>) {
    let folder = folder();
    for (name, channels) in [("grey.png", [1, 1, 1]), ("colour.png", [1, 2, 3])] {
        let rgb = (0..10 * 9).flat_map(|at| channels.map(|channel| (at * channel) as u8)).collect();
        write_png(&folder.path().join(name), &Pixels { width: 10, height: 9, rgb }).expect("a file");
    }
    let csv = write(&folder, "labels.csv", b"path,split,label\ngrey.png,train,x\ncolour.png,test,y\n");
    let manifest = Manifest::read(&csv).expect("a manifest");
    let options = PackOptions { depth: 8, overwrite: false, leave_out_unreadable: false };
    let out = folder.path().join("pack");
    pack(&manifest, &preprocess(), &out, options, &|_, _| ()).expect("a pack");
    let read = |name| std::fs::read(out.join(name)).expect("a file of the pack");
    (read("pack.index"), read(SHARD))
}

/// Name of a pack's first shard.
pub const SHARD: &str = "00000.shard";
