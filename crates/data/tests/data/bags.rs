//! Bags of a manifest: rows that are one example, volumes taken apart, and what contradicts itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use melo_data::{
    Augment, Cache, Dataset, EpochAugment, Error, InBag, Labels, Manifest, PackError, PackOptions, ReadOptions, Split,
    images_of_bag, pack,
};
use melo_vit::rendering::Plane;
use melo_vit::{CropMode, ImageSource, Preprocess};
use tempfile::TempDir;

use crate::{folder, plain, write_image};

const SIZE: usize = 16;

fn spec() -> Preprocess {
    plain(SIZE, CropMode::Squash)
}

fn table(folder: &TempDir, csv: &str) -> std::path::PathBuf {
    let path = folder.path().join("m.csv");
    fs::write(&path, csv).unwrap();
    path
}

fn read(csv: &str) -> Result<Manifest, Error> {
    Manifest::read(&table(&folder(), csv))
}

fn refused(csv: &str) -> String {
    let error = read(csv).expect_err("contradicts itself").to_string();
    error.rsplit_once("m.csv").expect("names the file").1.to_owned()
}

const GOOD: &str = "path,label,bag,patient_id,split\n\
    a1.png,sick,a,p,train\nb1.png,well,b,q,train\na2.png,sick,a,p,train\nc1.png,sick,c,,val\nb2.png,well,b,q,train\n";

/// `[d, 8, 8]` bytes, slice `k` all `first + k`.
fn volume(path: &Path, d: usize, first: u8) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {d}, 8, 8), }}");
    let padding = 64 - (11 + header.len()) % 64;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len() + padding + 1).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(vec![b' '; padding]);
    bytes.push(b'\n');
    bytes.extend((0..d).flat_map(|k| [first + k as u8; 64]));
    fs::write(path, bytes).unwrap();
}

#[test]
fn rows_of_one_bag_are_one_example_in_their_order() {
    let manifest = read(GOOD).unwrap();
    assert!(manifest.has_bags());
    let bag = |row: usize| manifest.rows[row].bag.clone().unwrap();
    assert_eq!(bag(2), InBag { name: "a".into(), place: 1 });
    assert_eq!(bag(4), InBag { name: "b".into(), place: 1 });
    assert_eq!((manifest.examples(Split::Train), manifest.examples(Split::Val)), (2, 1));
    let cache = Arc::new(Cache::new(0));
    let rows = manifest.split(Split::Train).into_iter().cloned().collect();
    let data = Dataset::new(rows, spec(), cache);
    assert_eq!(data.bags(), Some(&[0..2, 2..4][..]));
    let names: Vec<&str> = data.rows().iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a1.png", "a2.png", "b1.png", "b2.png"]);
}

#[test]
fn another_column_of_bags_is_asked_for() {
    let folder = folder();
    let path = table(&folder, &GOOD.replace("bag", "study"));
    assert!(!Manifest::read(&path).unwrap().has_bags());
    let options = ReadOptions { bag_column: Some("study".into()), ..ReadOptions::default() };
    let manifest = Manifest::read_with(&path, &options).unwrap();
    assert!(manifest.has_bags());
    assert_ne!(manifest.digest(), Manifest::read(&path).unwrap().digest());
}

#[test]
fn the_order_within_a_bag_is_in_the_digest_and_that_of_bags_is_not() {
    let digest = |csv: &str| read(csv).unwrap().digest();
    let swapped = GOOD.replace("a1.png", "x").replace("a2.png", "a1.png").replace('x', "a2.png");
    assert_ne!(digest(GOOD), digest(&swapped));
    let (head, rows) = GOOD.split_once('\n').unwrap();
    let mut lines: Vec<&str> = rows.lines().collect();
    lines.rotate_left(1);
    // a1 behind a2.
    assert_ne!(digest(GOOD), digest(&format!("{head}\n{}\n", lines.join("\n"))));
    let moved = format!("{head}\n{}\n", [1, 0, 3, 2, 4].map(|at| rows.lines().nth(at).unwrap()).join("\n"));
    assert_eq!(digest(GOOD), digest(&moved));
}

#[test]
fn bags_that_contradict_themselves_are_named_with_their_row() {
    assert_eq!(
        refused(&GOOD.replace("a2.png,sick,a,p", "a2.png,sick,a,z")),
        ", line 4: bag \"a\": expected one patient of all its images, found \"p\" on line 2 and \"z\" here"
    );
    assert_eq!(
        refused(&GOOD.replace("a2.png,sick", "a2.png,well")),
        ", line 4: bag \"a\": expected one label of all its images, found \"sick\" on line 2 and \"well\" here"
    );
    assert_eq!(
        refused(&GOOD.replace("a2.png,sick,a,p,train", "a2.png,sick,a,p,test")),
        ", line 4: bag \"a\": expected one split of all its images, found train on line 2 and test here"
    );
    assert_eq!(
        refused(&GOOD.replace("c1.png,sick,c", "c1.png,sick,")),
        ", line 5: expected the name of a bag, found nothing"
    );
    let twice = refused(&format!("{GOOD}a1.png,sick,d,p,train\n"));
    assert!(twice.contains("\"a1.png\" is on line 2 already, in another bag"), "{twice}");
}

#[test]
fn splits_are_assigned_by_bag() {
    let rows: String = (0..60).map(|at| format!("{at}.png,{},{}\n", ["x", "y"][at / 3 % 2], at / 3)).collect();
    let mut manifest = read(&format!("path,label,bag\n{rows}")).unwrap();
    manifest.assign_splits(1, melo_data::DEFAULT_FRACTIONS).unwrap();
    for bag in manifest.rows.chunks(3) {
        assert!(bag.iter().all(|row| row.split == bag[0].split), "{bag:?}");
    }
    assert_eq!(Split::ALL.map(|split| manifest.examples(split)).iter().sum::<usize>(), 20);
}

fn volumes(folder: &TempDir) -> Manifest {
    for (name, d, first) in [("a.npy", 5, 10), ("b.npy", 6, 100)] {
        volume(&folder.path().join(name), d, first);
    }
    let path = table(folder, "path,label,split\na.npy,sick,train\nb.npy,well,train\n");
    let options = ReadOptions { bag_plane: Some(Plane::Axial), ..ReadOptions::default() };
    Manifest::read_with(&path, &options).unwrap()
}

#[test]
fn a_volume_is_a_bag_of_its_slices() {
    let folder = folder();
    let manifest = volumes(&folder);
    let names: Vec<&str> = manifest.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names[..2], ["a.npy#0&slice=axial:0", "a.npy#0&slice=axial:1"]);
    assert_eq!(names.len(), 11);
    assert!(
        manifest.rows[..5].iter().zip(0..).all(|(row, place)| row.bag == Some(InBag { name: "a.npy".into(), place }))
    );
    assert_eq!(manifest.rows[7].labels, Labels::Single(1));
    let data = Dataset::new(manifest.rows.clone(), spec(), Arc::new(Cache::new(1 << 20)));
    let order: Vec<usize> = (0..11).collect();
    let view = data.epoch(&order, None);
    for (row, value) in [10, 11, 12, 13, 14, 100, 101, 102, 103, 104, 105].into_iter().enumerate() {
        let mut out = vec![f32::NAN; 3 * SIZE * SIZE];
        view.load(row, &mut out).unwrap();
        assert!(out.iter().all(|&x| x == value as f32 / 255.0), "row {row}: {}", out[0]);
    }
    let coronal = images_of_bag(&folder.path().join("a.npy"), Plane::Coronal).unwrap();
    assert_eq!(coronal.len(), 8);
    assert!(coronal[7].to_string_lossy().ends_with("a.npy#0&slice=coronal:7"));
}

#[test]
fn all_slices_of_a_volume_are_changed_alike() {
    let folder = folder();
    for (name, seed) in [("a1.png", 1), ("a2.png", 1), ("b1.png", 1)] {
        write_image(&folder.path().join(name), 20, 20, seed);
    }
    let path = table(&folder, "path,label,bag\na1.png,x,a\na2.png,x,a\nb1.png,y,b\n");
    let data = Dataset::new(Manifest::read(&path).unwrap().rows, spec(), Arc::new(Cache::new(0)));
    let augment = Augment::default();
    let image = |row: usize| {
        let mut out = vec![f32::NAN; 3 * SIZE * SIZE];
        let epoch = EpochAugment { augment: &augment, seed: 3, epoch: 1 };
        data.epoch(&[row], Some(epoch)).load(0, &mut out).unwrap();
        out
    };
    assert_eq!(image(0), image(1));
    assert_ne!(image(0), image(2));
}

#[test]
fn a_folder_of_slices_is_a_bag_in_the_order_of_their_numbers() {
    let folder = folder();
    for name in ["s/slice_10.png", "s/slice_9.png", "t/1.png", "t/2.png"] {
        write_image(&folder.path().join(name), 20, 20, 1);
    }
    let path = table(&folder, "path,label\ns,x\nt,y\n");
    let options = ReadOptions { bag_plane: Some(Plane::Axial), ..ReadOptions::default() };
    let manifest = Manifest::read_with(&path, &options).unwrap();
    let names: Vec<&str> = manifest.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["s/slice_9.png", "s/slice_10.png", "t/1.png", "t/2.png"]);
    fs::create_dir(folder.path().join("u")).unwrap();
    let path = table(&folder, "path,label\ns,x\nu,y\n");
    let error = Manifest::read_with(&path, &options).expect_err("an empty bag").to_string();
    assert!(
        error.ends_with("m.csv, line 3: bag \"u\": an empty bag: expected images in the folder, found none"),
        "{error}"
    );
}

#[test]
fn volumes_that_are_none_are_said_so() {
    let folder = folder();
    write_image(&folder.path().join("1.png"), 20, 20, 1);
    write_image(&folder.path().join("2.png"), 20, 20, 2);
    let path = table(&folder, "path,label\n1.png,x\n2.png,y\n");
    let options = ReadOptions { bag_plane: Some(Plane::Axial), ..ReadOptions::default() };
    assert!(matches!(Manifest::read_with(&path, &options), Err(Error::NoVolumes { .. })));
}

#[test]
fn a_pack_holds_no_bags() {
    let folder = folder();
    let manifest = volumes(&folder);
    let how = PackOptions { depth: 8, overwrite: false, leave_out_unreadable: false };
    let error = pack(&manifest, &spec(), &folder.path().join("pack"), how, &|_, _| ());
    assert!(matches!(error, Err(Error::Pack(error)) if matches!(*error, PackError::Bags { .. })));
}
