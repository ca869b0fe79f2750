//! The images that a file holds, by name; and a compressed one unpacked once for all of them.

use std::path::{Path, PathBuf};

use crate::volumes::{Volume, gz, npy, npz};
use melo_imaging::{Error, Unpacked, parts, read_fit, read_with};
use melo_vit::rendering::Plane;
use melo_vit::{Preprocess, Rendering};

fn names(path: &Path, plane: Plane) -> Vec<String> {
    let parts = parts(path, plane).expect("a readable file");
    parts.iter().map(|part| part.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

fn volume() -> Vec<u8> {
    Volume::new(2, 3, 4).file(&(0..24).collect::<Vec<i16>>())
}

#[test]
fn slices_frames_and_images_have_names_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    for path in [write("v.nii", &volume()), write("v.nii.gz", &gz(&volume()))] {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        for (plane, count) in [(Plane::Axial, 4), (Plane::Coronal, 3), (Plane::Sagittal, 2)] {
            let expected: Vec<String> = (0..count).map(|slice| format!("{file}#slice={plane}:{slice}")).collect();
            assert_eq!(names(&path, plane), expected);
        }
        let named = folder.path().join(format!("{file}#slice=axial:1"));
        assert_eq!(parts(&named, Plane::Axial).expect("one"), [named]);
    }
    let images = npy("|u1", "(2, 1, 5)", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(names(&write("i.npy", &images), Plane::Axial), ["i.npy#0", "i.npy#1"]);
    let one = npy("|u1", "(1, 2)", &[1, 2]);
    assert_eq!(names(&write("o.npy", &one), Plane::Axial), ["o.npy"]);
    let volumes = npy("|u1", "(2, 2, 1, 2)", &[0, 1, 2, 3, 4, 5, 6, 7]);
    let archive = write("a.npz", &npz(&[("x", volumes), ("y", images)]));
    let of = |part: &str| PathBuf::from(format!("{}#{part}", archive.display()));
    assert_eq!(names(&of("x:1"), Plane::Axial), ["a.npz#x:1&slice=axial:0", "a.npz#x:1&slice=axial:1"]);
    assert_eq!(names(&of("y"), Plane::Axial), ["a.npz#y:0", "a.npz#y:1"]);
    assert_eq!(names(&of("y:1"), Plane::Axial), ["a.npz#y:1"]);
    assert!(matches!(parts(&of("x"), Plane::Axial), Err(Error::NoSuchImage { .. })));
    assert!(matches!(parts(&archive, Plane::Axial), Err(Error::Unsupported { .. })));
    assert!(matches!(parts(&folder.path().join("none.nii"), Plane::Axial), Err(Error::Read { .. })));
}

#[test]
fn what_is_unpacked_once_gives_the_same_pixels() {
    let folder = tempfile::tempdir().expect("a folder");
    let nifti = folder.path().join("v.nii.gz");
    std::fs::write(&nifti, gz(&volume())).expect("a file");
    let archive = folder.path().join("a.npz");
    std::fs::write(&archive, npz(&[("x", npy("|u1", "(2, 2, 1, 2)", &[0, 1, 2, 3, 4, 5, 6, 7]))])).expect("a file");
    let spec = Preprocess::base(8);
    for whole in [nifti.clone(), PathBuf::from(format!("{}#x:1", archive.display()))] {
        for part in parts(&whole, Plane::Axial).expect("slices") {
            let unpacked = Unpacked::of(&part).expect("a compressed file");
            assert!(unpacked.holds(&part) && !unpacked.holds(Path::new("other.nii.gz#slice=axial:0")));
            let found = unpacked.fit_sized(&part, &spec).expect("a slice");
            let plain = read_with(&part, &Rendering::default()).expect("a slice");
            assert_eq!(found.pixels, read_fit(&part, &spec).expect("a slice"));
            assert_eq!((found.width, found.height), (plain.width, plain.height));
        }
    }
    // Nothing is gained of a whole file, of one that is not compressed, or of one that is none.
    assert!(Unpacked::of(&nifti).is_none());
    let plain = folder.path().join("v.nii");
    std::fs::write(&plain, volume()).expect("a file");
    assert!(Unpacked::of(&folder.path().join("v.nii#slice=axial:0")).is_none());
    assert!(Unpacked::of(Path::new("nowhere.nii.gz#slice=axial:0")).is_none());
}
