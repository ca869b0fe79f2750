//! Folders: every image is found, whatever its name, and what is none is told.

use std::path::Path;

use melo_imaging::{FolderEntry, FolderFiles, encode_png, images_in, looks_like_image, walk};

use crate::common::pattern;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("it can be made");
        std::fs::write(path, bytes).expect("it can be written");
    }
    folder
}

fn names(root: &Path, files: &FolderFiles) -> Vec<String> {
    let name =
        |path: &std::path::PathBuf| path.strip_prefix(root).expect("it lies there").to_string_lossy().into_owned();
    files.images.iter().map(name).collect()
}

/// The header of an array of bytes.
fn npy(shape: &[u64]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(|side| format!("{side}, ")).collect();
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}), }}", shape.concat());
    header.extend(std::iter::repeat_n(' ', 117 - header.len()));
    header.push('\n');
    [&b"\x93NUMPY\x01\x00\x76\x00"[..], header.as_bytes(), &[0; 9]].concat()
}

#[test]
fn images_are_found_by_content_and_the_rest_is_named() {
    let png = encode_png(&pattern(4, 3)).expect("it can be written");
    let dicom = [&[0; 128][..], b"DICM"].concat();
    let webp = b"RIFF\x10\0\0\0WEBPVP8 ";
    let files: [(&str, &[u8]); 16] = [
        ("scan", &dicom),
        ("1.2.840.113619.2.55.3", &png),
        ("photo.jfif", b"\xff\xd8\xff\xe0rest"),
        ("new.webp", webp),
        ("array.npy", &npy(&[3, 3])),
        ("empty.png", b""),
        ("deep/er/x.PNG", &png),
        ("labels.npy", &npy(&[9])),
        ("labels.csv", b"path,label\n"),
        ("bmi.txt", b"BMI,age\n20,3\n"),
        ("table.xlsx", b"PK\x03\x04\x14\0\0\0\x08\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x13\0\0\0[Content_Types].xml"),
        ("DICOMDIR", &dicom),
        (".DS_Store", b"\0\0\0\x01Bud1"),
        (".hidden.png", &png),
        ("README", b"read me"),
        ("__MACOSX/x.png", &png),
    ];
    let folder = folder(&files);
    let found = images_in(folder.path()).expect("it can be listed");
    let images = ["1.2.840.113619.2.55.3", "array.npy", "empty.png", "new.webp", "photo.jfif", "scan", "deep/er/x.PNG"];
    assert_eq!(names(folder.path(), &found), images);
    let left_out = [
        ".DS_Store",
        ".hidden.png",
        "DICOMDIR",
        "README",
        "bmi.txt",
        "labels.csv",
        "labels.npy",
        "table.xlsx",
        "__MACOSX/",
    ];
    assert_eq!(found.left_out.names, left_out);
    assert_eq!(
        found.left_out.to_string(),
        "9 of 16 files are no images: .DS_Store, .hidden.png, DICOMDIR, README, bmi.txt and 4 more"
    );
}

#[test]
fn beginnings_of_other_formats_are_known() {
    for start in [
        &b"GIF89a"[..],
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\xff\x4f\xff\x51\0/",
        b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        b"PK\x03\x04\x14\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0train.npy",
    ] {
        assert!(looks_like_image(start), "{}", start.escape_ascii());
    }
    for start in
        [&b""[..], b"BM", b"II", b"PK\x03\x04", b"path,label", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE", b"\x1f\x8b\x08\0"]
    {
        assert!(!looks_like_image(start), "{}", start.escape_ascii());
    }
}

#[cfg(unix)]
#[test]
fn links_in_circles_are_left_out_and_others_are_followed() {
    let png = encode_png(&pattern(4, 3)).expect("it can be written");
    let elsewhere = folder(&[("b.png", &png)]);
    let folder = folder(&[("in/a.png", &png)]);
    let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, folder.path().join(at)).expect("it can be made");
    link(folder.path(), "in/round");
    link(elsewhere.path(), "other");
    link(Path::new("gone.png"), "broken.png");
    let found = images_in(folder.path()).expect("it can be listed");
    assert_eq!(names(folder.path(), &found), ["broken.png", "in/a.png", "other/b.png"]);
    assert_eq!(found.left_out.names, ["in/round/"]);
    let missing = images_in(&folder.path().join("none")).expect_err("it is not there").to_string();
    assert!(missing.contains("none: cannot be read"), "{missing}");
}

#[test]
fn a_walk_meets_what_is_listed_and_names_a_folder_that_is_not_there() {
    let png = encode_png(&pattern(4, 3)).expect("it can be written");
    let folder = folder(&[("b.png", &png), ("in/a.png", &png), ("labels.csv", b"path,label\n")]);
    let mut met = Vec::new();
    let mut visit = |entry: FolderEntry| {
        met.push(match entry {
            FolderEntry::Image(path) => path.strip_prefix(folder.path()).expect("inside").display().to_string(),
            FolderEntry::LeftOut(name) => format!("-{name}"),
            FolderEntry::Unreadable { is_folder, .. } => format!("unreadable, a folder: {is_folder}"),
        });
        if met.len() == 4 { Err("enough") } else { Ok(()) }
    };
    walk(folder.path(), &mut visit).expect("three entries");
    assert_eq!(walk(&folder.path().join("none"), &mut visit), Err("enough"));
    assert_eq!(met, ["b.png", "-labels.csv", "in/a.png", "unreadable, a folder: true"]);
}
