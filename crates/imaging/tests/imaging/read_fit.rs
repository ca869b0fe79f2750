//! The short way of grey PNG files gives what the long way gives, bit for bit, errors too.

use std::fs;
use std::io::Write;

use crate::common::golden;
use melo_imaging::{fit, read, read_fit};
use melo_vit::{CropMode, Interpolation, Preprocess};

fn specs() -> [Preprocess; 3] {
    let (mean, std, interpolation) = ([0.0; 3], [1.0; 3], Interpolation::Bilinear);
    [(CropMode::Center, 24), (CropMode::Squash, 9), (CropMode::Border, 40)].map(|(crop_mode, size)| Preprocess {
        crop_offset: Default::default(),
        depth: None,
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

/// A chunk of a PNG file.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut checksum = flate2::Crc::new();
    checksum.update(kind);
    checksum.update(content);
    let length = (content.len() as u32).to_be_bytes();
    [&length[..], kind, content, &checksum.sum().to_be_bytes()].concat()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A grey file of 11 × 20 pixels, with the chunks that `change` makes of its own: header, data, end.
fn made(filter: impl Fn(usize) -> u8, change: impl Fn(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let rows: Vec<u8> = (0..20)
        .flat_map(|y| std::iter::once(filter(y)).chain((0..11).map(move |x| (x * 37 + y * 101 + x * y * 7) as u8)))
        .collect();
    let header = [&11u32.to_be_bytes()[..], &20u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let mut chunks = vec![chunk(b"IHDR", &header), chunk(b"IDAT", &deflated(&rows)), chunk(b"IEND", &[])];
    change(&mut chunks);
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

#[test]
fn every_filter_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("filtered.png");
    for filter in 0..7 {
        // Beyond four: all of them in turn, with the first row under each.
        let of_row = move |y: usize| if filter < 5 { filter } else { ((y + usize::from(filter)) % 5) as u8 };
        fs::write(&path, made(of_row, |_| ())).unwrap();
        for spec in specs() {
            assert!(read_fit(&path, &spec).unwrap() == fit(&read(&path).unwrap(), &spec), "{filter}");
        }
    }
}

#[test]
fn odd_files_are_what_they_are_for_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.png");
    let up = |_| 2;
    let data = deflated(&[7; 240]);
    let halves = [&data[..9], &data[9..]];
    let text = chunk(b"tEXt", b"a\0b");
    let with = |place: usize, chunk: Vec<u8>| made(up, |chunks| chunks.insert(place, chunk.clone()));
    let data_of = |data: &[u8]| made(up, |chunks| chunks[1] = chunk(b"IDAT", data));
    let mut wrong_sum = data.clone();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut wrong_text = text.clone();
    *wrong_text.last_mut().unwrap() ^= 1;
    let files = [
        ("a filter that is none", made(|y| (y / 4) as u8 + 1, |_| ())),
        ("text before, behind", with(1, text.clone())),
        ("text behind", with(2, text.clone())),
        ("text with another checksum", with(1, wrong_text)),
        ("a transparent level", with(1, chunk(b"tRNS", &[0, 7]))),
        ("a chunk that matters", with(1, chunk(b"QQQQ", &[]))),
        ("two headers", made(up, |chunks| chunks.insert(1, chunks[0].clone()))),
        ("data in two", made(up, |chunks| chunks.splice(1..2, halves.map(|half| chunk(b"IDAT", half))).for_each(drop))),
        (
            "text within the data",
            made(up, |chunks| {
                let [a, b] = halves.map(|half| chunk(b"IDAT", half));
                chunks.splice(1..2, [a, text.clone(), b]);
            }),
        ),
        ("no data", made(up, |chunks| drop(chunks.remove(1)))),
        ("no end", made(up, |chunks| drop(chunks.pop()))),
        ("another sum of the data", data_of(&wrong_sum)),
        ("a row too many", data_of(&deflated(&[0; 252]))),
        ("a row too few", data_of(&deflated(&[0; 228]))),
        ("data cut off", data_of(&data[..data.len() / 2])),
    ];
    for (what, bytes) in files {
        fs::write(&path, bytes).unwrap();
        let long = read(&path).map(|pixels| fit(&pixels, &specs()[0])).map_err(|error| error.to_string());
        let short = read_fit(&path, &specs()[0]).map_err(|error| error.to_string());
        assert_eq!(short, long, "{what}");
    }
}
