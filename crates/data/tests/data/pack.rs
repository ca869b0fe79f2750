//! Packs: the same inputs as from the files, resumed, and refused by name when anything is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melo_data::{Cache, Dataset, Manifest, PackOptions, PackReport, Split, check, pack};
use melo_vit::{CropMode, ImageSource, Interpolation, Preprocess};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{folder, noise, write_image};

const OPTIONS: PackOptions = PackOptions { depth: 8, overwrite: false, leave_out_unreadable: false };

fn spec(size: usize, crop_mode: CropMode) -> Preprocess {
    let (mean, std) = ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]);
    Preprocess {
        size,
        crop_mode,
        crop_pct: 0.9,
        interpolation: Interpolation::Bilinear,
        mean,
        std,
        crop_offset: Default::default(),
        depth: None,
        rendering: Default::default(),
    }
}

/// Six images of several sizes, three of them grey, of two classes; with splits and patients.
fn source(folder: &TempDir) -> PathBuf {
    std::fs::create_dir_all(folder.path().join("images")).unwrap();
    let mut csv = "path,split,label,patient_id\n".to_owned();
    for index in (0..6usize).rev() {
        let path = folder.path().join(format!("images/{index}.png"));
        let (width, height) = (40 + 7 * index, 50 - 3 * index);
        if index % 2 == 0 {
            write_image(&path, width, height, index as u32);
        } else {
            let mut grey = noise(width, height, index as u32);
            grey.rgb.chunks_exact_mut(3).for_each(|pixel| pixel.fill(pixel[0]));
            melo_imaging::write_png(&path, &grey).unwrap();
        }
        let split = ["train", "val", "test"][index % 3];
        csv += &format!("images/{index}.png,{split},{},p{}\n", ["ill", "well"][index / 3], index % 3);
    }
    let path = folder.path().join("labels.csv");
    std::fs::write(&path, csv).unwrap();
    path
}

fn packed(source: &Path, spec: &Preprocess, out: &Path) -> PackReport {
    pack(&Manifest::read(source).unwrap(), spec, out, OPTIONS, &|_, _| ()).unwrap()
}

fn refusal(source: &Path, spec: &Preprocess, out: &Path, options: PackOptions) -> String {
    pack(&Manifest::read(source).unwrap(), spec, out, options, &|_, _| ()).unwrap_err().to_string()
}

fn inputs(manifest: &Manifest, spec: &Preprocess) -> Vec<Vec<f32>> {
    let dataset = Dataset::new(manifest.rows.clone(), spec.clone(), Arc::new(Cache::new(0)));
    assert!(dataset.preload(&|_, _| ()).is_empty());
    let order: Vec<usize> = (0..dataset.len()).collect();
    let view = dataset.epoch(&order, None);
    let load = |index: &usize| {
        let mut out = vec![0.0; 3 * spec.size * spec.size];
        view.load(*index, &mut out).unwrap();
        out
    };
    order.iter().map(load).collect()
}

#[test]
fn a_pack_is_its_manifest_and_gives_the_same_inputs() {
    for crop_mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
        let folder = folder();
        let source = source(&folder);
        let spec = spec(24, crop_mode);
        let out = folder.path().join("a.pack");
        let report = packed(&source, &spec, &out);
        assert_eq!((report.images, report.shards, report.reused_shards, report.finished), (6, 1, 0, true));

        let (files, pack) = (Manifest::read(&source).unwrap(), Manifest::read(&out).unwrap());
        assert_eq!((files.digest(), files.split_digest()), (pack.digest(), pack.split_digest()));
        assert_eq!(files.classes, pack.classes);
        for (file, packed) in files.rows.iter().zip(&pack.rows) {
            assert_eq!((&file.name, &file.labels, file.split), (&packed.name, &packed.labels, packed.split));
            assert_eq!((&file.patient_id, file.line), (&packed.patient_id, packed.line));
            assert_eq!(file.path.canonicalize().unwrap(), packed.path.canonicalize().unwrap());
        }
        let expected = inputs(&files, &spec);
        std::fs::remove_dir_all(folder.path().join("images")).unwrap();
        assert!(inputs(&pack, &spec) == expected, "{crop_mode:?}: inputs differ");
        assert_eq!(check(&pack, &|_, _| ()).problems, []);
    }
}

#[test]
fn folders_and_findings_are_packed_too() {
    let folder = folder();
    for (index, class) in ["a", "a", "b"].into_iter().enumerate() {
        write_image(&folder.path().join(format!("set/{class}/{index}.png")), 30, 30, index as u32);
    }
    let out = folder.path().join("set.pack");
    packed(&folder.path().join("set"), &spec(16, CropMode::Squash), &out);
    let (files, pack) = (Manifest::read(&folder.path().join("set")).unwrap(), Manifest::read(&out).unwrap());
    assert_eq!(files.digest(), pack.digest());
    assert!(pack.rows[2].path.is_file());

    let csv = folder.path().join("multi.csv");
    std::fs::write(&csv, "path,x,y\nset/a/0.png,0,1\nset/a/1.png,0,0\nset/b/2.png,1,1\n").unwrap();
    let out = folder.path().join("multi.pack");
    packed(&csv, &spec(16, CropMode::Squash), &out);
    let pack = Manifest::read(&out).unwrap();
    assert_eq!(pack.digest(), Manifest::read(&csv).unwrap().digest());
    assert!(pack.split(Split::Train).is_empty());
}

#[test]
fn another_preprocessing_is_refused_by_name() {
    let folder = folder();
    let (source, out) = (source(&folder), folder.path().join("a.pack"));
    packed(&source, &spec(24, CropMode::Squash), &out);
    let pack = Manifest::read(&out).unwrap();
    for other in [spec(25, CropMode::Squash), spec(24, CropMode::Center)] {
        let error = pack.check_preprocess(&other).unwrap_err().to_string();
        assert!(error.contains("a.pack: packed for") && error.contains("\"squash\""), "{error}");
        let dataset = Dataset::new(pack.rows.clone(), other.clone(), Arc::new(Cache::new(0)));
        assert_eq!(dataset.preload(&|_, _| ()).len(), 6);
        assert!(refusal(&source, &other, &out, OPTIONS).contains("packed for"));
    }
    // Mean and deviation are applied later, and another size may have the same side.
    let same = Preprocess { size: 26, crop_pct: 1.0, mean: [0.0; 3], ..spec(24, CropMode::Squash) };
    assert!(pack.check_preprocess(&same).is_ok());
}

#[test]
fn finished_shards_are_kept_and_damaged_ones_made_again() {
    let folder = folder();
    let (source, out) = (source(&folder), folder.path().join("a.pack"));
    // 3,333 px of side: two images fill a shard.
    let spec = spec(3000, CropMode::Squash);
    let report = packed(&source, &spec, &out);
    assert_eq!((report.shards, report.reused_shards), (3, 0));
    let whole = std::fs::read(out.join("00001.shard")).unwrap();
    // A run that was killed: no index, a shard short of its end, another missing, a temporary file.
    std::fs::remove_file(out.join("pack.index")).unwrap();
    std::fs::write(out.join("00001.shard"), &whole[..whole.len() / 2]).unwrap();
    std::fs::remove_file(out.join("00002.shard")).unwrap();
    std::fs::write(out.join(".melo-x"), "half").unwrap();
    let error = Manifest::read(&out).unwrap_err().to_string();
    assert!(error.contains("a.pack: a pack that is not finished"), "{error}");
    let report = packed(&source, &spec, &out);
    assert_eq!((report.shards, report.reused_shards), (3, 1));
    assert_eq!(std::fs::read(out.join("00001.shard")).unwrap(), whole);
    assert_eq!(packed(&source, &spec, &out).reused_shards, 3);
}

#[test]
fn unreadable_images_are_listed_and_waited_for() {
    let folder = folder();
    let (source, out) = (source(&folder), folder.path().join("a.pack"));
    let spec = spec(24, CropMode::Squash);
    let image = folder.path().join("images/4.png");
    let good = std::fs::read(&image).unwrap();
    std::fs::write(&image, &good[..good.len() / 2]).unwrap();
    let report = packed(&source, &spec, &out);
    assert_eq!((report.unreadable.len(), report.finished), (1, false));
    assert_eq!((report.unreadable[0].name.as_str(), report.unreadable[0].line), ("images/4.png", 3));
    assert!(Manifest::read(&out).is_err());

    let options = PackOptions { leave_out_unreadable: true, ..OPTIONS };
    let left_out = pack(&Manifest::read(&source).unwrap(), &spec, &out, options, &|_, _| ()).unwrap();
    assert_eq!((left_out.images, left_out.finished), (5, true));
    let manifest = Manifest::read(&out).unwrap();
    assert_eq!(manifest.rows.len(), 5);
    assert!(manifest.rows.iter().all(|row| row.name != "images/4.png"));
    assert_eq!(inputs(&manifest, &spec).len(), 5);

    std::fs::write(&image, good).unwrap();
    assert_eq!(packed(&source, &spec, &out).images, 6);
    assert_eq!(Manifest::read(&out).unwrap().rows.len(), 6);
}

#[test]
fn a_stale_pack_is_refused_by_name() {
    let folder = folder();
    let (source, out) = (source(&folder), folder.path().join("a.pack"));
    let spec = spec(24, CropMode::Squash);
    packed(&source, &spec, &out);
    let text = std::fs::read_to_string(&source).unwrap();
    // The order of lines is no difference.
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    std::fs::write(&source, lines.join("\n")).unwrap();
    let (files, pack) = (Manifest::read(&source).unwrap(), Manifest::read(&out).unwrap());
    let by_name = |manifest: &Manifest| {
        let mut manifest = manifest.clone();
        manifest.rows.sort_by(|a, b| a.name.cmp(&b.name));
        inputs(&manifest, &spec)
    };
    assert!(by_name(&files) == by_name(&pack));

    std::fs::write(&source, text.replacen(",ill,", ",well,", 1)).unwrap();
    for error in [Manifest::read(&out).unwrap_err().to_string(), refusal(&source, &spec, &out, OPTIONS)] {
        assert!(error.contains("a.pack: stale:") && error.contains("labels.csv has changed"), "{error}");
    }
    let options = PackOptions { overwrite: true, ..OPTIONS };
    melo_data::pack(&Manifest::read(&source).unwrap(), &spec, &out, options, &|_, _| ()).unwrap();
    assert!(Manifest::read(&out).is_ok());
    // Without its source it is complete.
    std::fs::remove_file(&source).unwrap();
    assert!(Manifest::read(&out).is_ok());
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let folder = folder();
    let (source, out) = (source(&folder), folder.path().join("a.pack"));
    let spec = spec(24, CropMode::Squash);
    let deep = PackOptions { depth: 16, ..OPTIONS };
    assert!(refusal(&source, &spec, &out, deep).contains("depth 16: images are decoded to 8 bits"));
    let occupied = refusal(&source, &spec, folder.path(), OPTIONS);
    assert!(occupied.contains("expected a new or empty folder"), "{occupied}");
    assert!(
        refusal(&source, &spec, folder.path(), PackOptions { overwrite: true, ..OPTIONS }).contains("expected a new")
    );
    packed(&source, &spec, &out);
    assert!(refusal(&out, &spec, &folder.path().join("b.pack"), OPTIONS).contains("is a pack already"));
    std::fs::remove_file(out.join("pack.index")).unwrap();
    let other = Preprocess { size: 20, ..spec };
    assert!(refusal(&source, &other, &out, OPTIONS).contains("shards of another manifest or preprocessing"));
}

/// A pack, one file of which a test spoils.
struct Hostile {
    folder: TempDir,
    spec: Preprocess,
}

impl Hostile {
    fn new() -> Self {
        let folder = folder();
        let spec = spec(24, CropMode::Squash);
        packed(&source(&folder), &spec, &folder.path().join("a.pack"));
        Self { folder, spec }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("a.pack")
    }

    /// What is said of a shard after `spoil`; `sealed` makes its checksum, and the index's, right again.
    fn shard(&self, sealed: bool, spoil: impl FnOnce(&mut Vec<u8>)) -> String {
        let path = self.out().join("00000.shard");
        let before = std::fs::read(&path).unwrap();
        let index = std::fs::read(self.out().join("pack.index")).unwrap();
        let mut bytes = before.clone();
        spoil(&mut bytes);
        if sealed {
            let checksum = Sha256::digest(&bytes[88..]);
            bytes[56..88].copy_from_slice(&checksum);
            let old = melo_vit::hex(&before[56..88]);
            self.write_index(&String::from_utf8_lossy(&index[56..]).replace(&old, &melo_vit::hex(&checksum)));
        }
        std::fs::write(&path, bytes).unwrap();
        let manifest = Manifest::read(&self.out()).unwrap();
        let dataset = Dataset::new(manifest.rows, self.spec.clone(), Arc::new(Cache::new(0)));
        let broken = dataset.preload(&|_, _| ());
        std::fs::write(&path, before).unwrap();
        std::fs::write(self.out().join("pack.index"), index).unwrap();
        assert!(!broken.is_empty(), "the shard was taken");
        broken[0].error.to_string()
    }

    fn write_index(&self, json: &str) {
        let path = self.out().join("pack.index");
        let mut bytes = std::fs::read(&path).unwrap()[..16].to_vec();
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(json.as_bytes()));
        bytes.extend_from_slice(json.as_bytes());
        std::fs::write(path, bytes).unwrap();
    }

    /// What is said of an index of which `spoil` changed the bytes.
    fn index(&self, spoil: impl FnOnce(&mut Vec<u8>)) -> String {
        let path = self.out().join("pack.index");
        let before = std::fs::read(&path).unwrap();
        let mut bytes = before.clone();
        spoil(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let error = Manifest::read(&self.out()).unwrap_err().to_string();
        std::fs::write(&path, before).unwrap();
        error
    }

    /// What is said of an index whose JSON holds `new` instead of `old`, with the right checksum.
    fn json(&self, old: &str, new: &str) -> String {
        let before = std::fs::read(self.out().join("pack.index")).unwrap();
        let json = String::from_utf8(before[56..].to_vec()).unwrap();
        assert!(json.contains(old), "{old} in {json}");
        self.write_index(&json.replacen(old, new, 1));
        let error = Manifest::read(&self.out()).unwrap_err().to_string();
        std::fs::write(self.out().join("pack.index"), before).unwrap();
        error
    }
}

fn put(at: usize, value: &[u8]) -> impl FnOnce(&mut Vec<u8>) {
    let value = value.to_vec();
    move |bytes: &mut Vec<u8>| bytes[at..at + value.len()].copy_from_slice(&value)
}

#[test]
fn hostile_shards_are_refused_by_name() {
    let hostile = Hostile::new();
    let says = |error: String, parts: &[&str]| {
        for part in ["a.pack", "00000.shard: not the shard of this pack"].iter().chain(parts) {
            assert!(error.contains(part), "expected {part:?} in {error}");
        }
    };
    says(hostile.shard(false, |bytes| bytes.truncate(40)), &["at least 88 bytes, found 40"]);
    says(
        hostile.shard(false, |bytes| bytes.truncate(100)),
        &["truncated: expected a table of 6 images, found room for 0"],
    );
    says(hostile.shard(false, |bytes| bytes.truncate(bytes.len() - 1)), &["checksum"]);
    says(hostile.shard(false, |bytes| bytes.push(0)), &["checksum"]);
    says(hostile.shard(false, |bytes| *bytes.last_mut().unwrap() ^= 1), &["checksum"]);
    says(hostile.shard(false, put(0, b"PNG")), &["expected MELOSHRD, found \"PNGOSHRD\""]);
    says(hostile.shard(false, put(8, &[9])), &["expected version 1, found 9"]);
    says(hostile.shard(false, put(12, &u32::MAX.to_le_bytes())), &["expected 6 images, found 4294967295"]);
    says(hostile.shard(false, put(16, &[3])), &["expected shard 0, found shard 3"]);
    says(hostile.shard(false, put(24, &[0; 32])), &["another manifest or preprocessing"]);
    // With checksums that are right: a shard made to do harm.
    says(
        hostile.shard(true, put(88, &u64::MAX.to_le_bytes())),
        &["image 0: expected offset 232, found 18446744073709551615"],
    );
    says(hostile.shard(true, put(96, &u32::MAX.to_le_bytes())), &["image 0: 4294967295 x 26", "beyond the end"]);
    says(hostile.shard(true, put(96, &[0xff; 8])), &["image 0: 4294967295 x 4294967295", "beyond the end"]);
    says(hostile.shard(true, put(96, &[0; 4])), &["image 0: 0 x 26 pixels"]);
    says(hostile.shard(true, put(104, &[4])), &["of 4 channels"]);
    says(hostile.shard(true, put(104, &[0; 4])), &["of 0 channels"]);
    says(hostile.shard(true, |bytes| bytes.truncate(bytes.len() - 9)), &["image 5:", "beyond the end"]);
    says(hostile.shard(true, |bytes| bytes.push(7)), &["bytes, found"]);
    std::fs::remove_file(hostile.out().join("00000.shard")).unwrap();
    let manifest = Manifest::read(&hostile.out()).unwrap();
    let dataset = Dataset::new(manifest.rows, hostile.spec.clone(), Arc::new(Cache::new(0)));
    assert!(dataset.preload(&|_, _| ())[0].error.to_string().contains("00000.shard: No such file"));
}

#[test]
fn hostile_indices_are_refused_by_name() {
    let hostile = Hostile::new();
    let says = |error: String, part: &str| {
        assert!(error.contains("pack.index: not the index of a pack"), "{error}");
        assert!(error.contains(part), "expected {part:?} in {error}");
    };
    says(hostile.index(|bytes| bytes.truncate(20)), "at least 56 bytes, found 20");
    says(hostile.index(|bytes| bytes.truncate(bytes.len() - 1)), "bytes of JSON");
    says(hostile.index(|bytes| bytes[70] ^= 1), "checksum");
    says(hostile.index(put(0, b"X")), "expected MELOPACK");
    says(hostile.index(put(8, &[2])), "expected version 1, found 2");
    says(hostile.index(put(16, &u64::MAX.to_le_bytes())), "expected 18446744073709551615 bytes of JSON");
    says(hostile.json("\"depth\":8", "\"depth\":16"), "expected 8 bits a sample, found 16");
    says(hostile.json("\"images\":6", "\"images\":18446744073709551615"), "do not hold 18446744073709551615 images");
    says(hostile.json("\"images_per_shard\":1024", "\"images_per_shard\":0"), "do not hold 6 images");
    says(hostile.json("\"image\":5", "\"image\":6"), "image 6 is outside");
    says(hostile.json("\"image\":5", "\"image\":4"), "image 4 is outside, or another row's");
    says(hostile.json("\"shows\":[1]", "\"shows\":[2]"), "labels [2] do not fit 2 classes");
    says(hostile.json("\"shows\":[1]", "\"shows\":[]"), "labels [] do not fit 2 classes");
    says(hostile.json("\"plan\":", "\"plot\":"), "unknown field");
    says(hostile.json("\"size\":26", "\"size\":0"), "size 0");
}
