//! The short way of grey PNG files gives what the long way gives, bit for bit, errors too.

mod common;

use std::fs;

use common::golden;
use melo_imaging::{fit, read, read_fit};
use melo_vit::{CropMode, Interpolation, Preprocess};

fn specs() -> [Preprocess; 3] {
    let (mean, std, interpolation) = ([0.0; 3], [1.0; 3], Interpolation::Bilinear);
    [(CropMode::Center, 24), (CropMode::Squash, 9), (CropMode::Border, 40)].map(|(crop_mode, size)| Preprocess {
        rendering: Default::default(),
        size,
        crop_mode,
        crop_pct: 0.9,
        interpolation,
        mean,
        std,
    })
}

#[test]
fn every_file_is_fitted_as_by_read_and_fit() {
    let list = fs::read_to_string(golden("files.txt")).expect("written by tools/golden/pixels.py");
    let mut grey = 0;
    for name in list.lines().filter_map(|line| line.split(' ').next()) {
        for spec in specs() {
            assert!(read_fit(&golden(name), &spec).unwrap() == fit(&read(&golden(name)).unwrap(), &spec), "{name}");
        }
        grey += usize::from(name == "grey8.png");
    }
    assert_eq!(grey, 1, "the file that takes the short way");
}

#[test]
fn broken_files_give_the_errors_of_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.png");
    let good = fs::read(golden("grey8.png")).unwrap();
    let mut huge = good.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    for bytes in [&good[..0], &good[..20], &good[..good.len() / 2], &huge] {
        fs::write(&path, bytes).unwrap();
        let [short, long] = [read_fit(&path, &specs()[0]), read(&path)].map(|found| found.unwrap_err().to_string());
        assert_eq!(short, long);
    }
    assert!(read_fit(&folder.path().join("gone.png"), &specs()[0]).unwrap_err().to_string().contains("gone.png"));
}
