//! Directories as manifests, accepted and refused.

use std::path::Path;

use melo_data::{Error, Labels, Manifest, Split};

use crate::folder;
use crate::manifest::assert_refused;

/// Reads a directory with these (empty) files; a name ending in `/` is a folder.
fn read(files: &[&str]) -> Result<Manifest, Error> {
    let folder = folder();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(if file.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
        if !file.ends_with('/') {
            std::fs::write(path, "").unwrap();
        }
    }
    Manifest::read(folder.path())
}

fn names(manifest: &Manifest) -> Vec<&str> {
    manifest.rows.iter().map(|row| row.name.as_str()).collect()
}

#[test]
fn a_folder_a_class_sorted() {
    let files =
        ["nevus/b.JPG", "nevus/a.png", "bcc/z.tiff", "bcc/notes.txt", "bcc/.hidden.png", ".git/x.png", "README"];
    let manifest = read(&files).unwrap();
    assert_eq!(manifest.classes, ["bcc", "nevus"]);
    assert_eq!(names(&manifest), ["bcc/z.tiff", "nevus/a.png", "nevus/b.JPG"]);
    assert_eq!(manifest.rows[1].labels, Labels::Single(1));
    assert_eq!(manifest.rows[1].path, manifest.path.join("nevus/a.png"));
    assert_eq!(manifest.rows[1].line, 0);
    assert!(!manifest.has_splits());
}

#[test]
fn splits_with_a_folder_a_class() {
    let files = ["test/b/3.bmp", "train/a/1.png", "train/b/2.jpeg", "valid/a/4.tif", "valid/b/"];
    let manifest = read(&files).unwrap();
    assert_eq!(names(&manifest), ["train/a/1.png", "train/b/2.jpeg", "valid/a/4.tif", "test/b/3.bmp"]);
    let splits: Vec<_> = manifest.rows.iter().map(|row| row.split.unwrap()).collect();
    assert_eq!(splits, [Split::Train, Split::Train, Split::Val, Split::Test]);
}

#[test]
fn refuses_a_directory_without_class_folders() {
    assert_refused!(read(&["notes.txt"]), Error::NoClassFolders { .. }, "a folder for each class");
    assert_refused!(read(&["train/", "test/"]), Error::NoClassFolders { .. }, "found none");
}

#[test]
fn refuses_splits_beside_classes() {
    let refused = read(&["train/a/1.png", "melanoma/2.png"]);
    assert_refused!(refused, Error::SplitBesideClass { .. }, "\"train\"", "\"melanoma\"");
}

#[test]
fn refuses_a_split_twice() {
    let refused = read(&["val/a/1.png", "validation/a/2.png", "train/b/3.png"]);
    assert_refused!(refused, Error::DuplicateSplit { .. }, "\"val\"", "\"validation\"");
}

#[test]
fn refuses_an_image_beside_class_folders() {
    assert_refused!(read(&["a/1.png", "b/2.png", "3.png"]), Error::Misplaced { .. }, "\"3.png\"");
    assert_refused!(read(&["train/a/1.png", "train/b/2.png", "train/3.png"]), Error::Misplaced { .. }, "\"3.png\"");
}

#[test]
fn refuses_a_folder_inside_a_class() {
    assert_refused!(read(&["a/1.png", "b/deep/2.png"]), Error::Misplaced { .. }, "\"b/deep/\"");
}

#[test]
fn refuses_a_class_without_images() {
    assert_refused!(read(&["a/1.png", "b/2.png", "c/"]), Error::EmptyClass { .. }, "\"c\"", "tiff, bmp, dcm");
}

#[test]
fn every_extension_of_an_image_is_found() {
    let files = melo_imaging::EXTENSIONS.map(|extension| format!("a/{extension}.{extension}"));
    let files: Vec<&str> = files.iter().map(String::as_str).chain(["b/1.png"]).collect();
    assert_eq!(read(&files).unwrap().rows.len(), files.len());
}

#[test]
fn refuses_one_class() {
    assert_refused!(read(&["a/1.png", "a/2.png"]), Error::OneClass { .. }, "\"a\"");
}

#[cfg(target_os = "linux")]
#[test]
fn refuses_a_name_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder();
    let class = folder.path().join("a");
    std::fs::create_dir(&class).unwrap();
    std::fs::write(class.join(Path::new(std::ffi::OsStr::from_bytes(b"\xff.png"))), "").unwrap();
    assert_refused!(Manifest::read(folder.path()), Error::NameNotUtf8 { .. }, "UTF-8");
}
