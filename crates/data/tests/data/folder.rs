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
    assert_refused!(read(&["a/1.png", "b/2.png", "c/"]), Error::EmptyClass { .. }, "\"c\"", "tiff, bmp, webp");
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

#[test]
fn images_are_told_by_content_and_the_rest_is_noted() {
    let folder = folder();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("a/photo.jfif", b"\xff\xd8\xff\xe0");
    write("a/scan", &[&[0; 128][..], b"DICM"].concat());
    write("b/1.png", b"");
    write("b/Thumbs.db", b"");
    write("b/.DS_Store", b"");
    write("README", b"text");
    let manifest = Manifest::read(folder.path()).unwrap();
    assert_eq!(names(&manifest), ["a/photo.jfif", "a/scan", "b/1.png"]);
    let notes: Vec<String> = manifest.reading.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["3 of 6 files are no images: README, b/.DS_Store, b/Thumbs.db"]);
}

#[test]
fn splits_by_other_names() {
    let files = ["Training/a/1.png", "Training/b/2.png", "VALID/a/3.png", "Testing/b/4.png"];
    let splits: Vec<_> = read(&files).unwrap().rows.iter().map(|row| row.split.unwrap()).collect();
    assert_eq!(splits, [Split::Train, Split::Train, Split::Val, Split::Test]);
}

/// Reads a folder with these files, of which tables have a text.
fn read_tables(files: &[(&str, &str)]) -> Result<Manifest, Error> {
    let folder = folder();
    for (file, text) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Manifest::read(folder.path())
}

#[test]
fn a_folder_that_holds_its_table() {
    let table = "path,label\nimg/1.png,x\nimg/2.png,y\n";
    for name in ["labels.csv", "Metadata.csv", "manifest.csv", "export_2024.csv"] {
        let manifest = read_tables(&[(name, table), ("img/1.png", ""), ("img/2.png", "")]).unwrap();
        assert_eq!(manifest.classes, ["x", "y"]);
        assert_eq!(
            manifest.reading.notes[0].to_string(),
            format!("read {name}, which the folder holds, not the folders in it")
        );
        assert!(manifest.path.ends_with(name));
    }
    // Of another table, whose images are not there, the folders tell.
    let manifest = read_tables(&[("export.csv", table), ("a/1.png", ""), ("b/2.png", "")]).unwrap();
    assert_eq!(manifest.classes, ["a", "b"]);
    // One that should be a manifest and is none is named.
    let manifest = read_tables(&[("metadata.csv", "who,age\nx,1\n"), ("a/1.png", ""), ("b/2.png", "")]).unwrap();
    assert_eq!(manifest.classes, ["a", "b"]);
    assert!(manifest.reading.notes.iter().any(|note| note.to_string().starts_with("metadata.csv is no manifest")));
    let refused = read_tables(&[("labels.csv", "path,label\n1.png,\n"), ("1.png", "")]);
    assert_refused!(refused, Error::EmptyLabel { .. }, "labels.csv", "line 2");
}
