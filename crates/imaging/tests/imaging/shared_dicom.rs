//! Stored values of real files of every common transfer syntax against those that pydicom decodes, where the files
//! are at hand: `../shared/dicom`, with an `index.csv` of shapes and digests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use melo_imaging::dicom;

fn folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let named = std::env::var_os("MELO_SHARED").map(|folder| PathBuf::from(folder).join("dicom"));
    [Some(root.join("../shared/dicom")), named].into_iter().flatten().find(|folder| folder.join("index.csv").is_file())
}

/// SHA-1 (FIPS 180-4, section 6.1.2): the index holds no other digest.
fn sha1(bytes: &[u8]) -> String {
    let mut state = [0x67452301u32, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - bytes.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.as_chunks::<64>().0 {
        let mut words: Vec<u32> = block.as_chunks().0.iter().map(|&word| u32::from_be_bytes(word)).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (f, k) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5a827999u32),
                1 => (b ^ c ^ d, 0x6ed9eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1bbcdc),
                _ => (b ^ c ^ d, 0xca62c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (state, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *state = state.wrapping_add(value);
        }
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}

#[test]
fn sha1_of_the_standard() {
    assert_eq!(sha1(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(
        sha1(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
        "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
    );
}

/// Fields of a line, quotes taken off.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().expect("one").push(character),
        }
    }
    fields
}

/// Values as the array's bytes.
fn array_bytes(values: &[i64], dtype: &str) -> Vec<u8> {
    let size: usize = dtype.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().expect("a size");
    let size = if dtype.starts_with(['>', '<']) { size } else { size / 8 };
    let bytes = |value: &i64| match dtype.starts_with('>') {
        true => value.to_be_bytes()[8 - size..].to_vec(),
        false => value.to_le_bytes()[..size].to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

#[test]
fn stored_values_are_those_of_pydicom() {
    let Some(folder) = folder() else {
        println!("skipped: there is no ../shared/dicom");
        return;
    };
    let index = std::fs::read_to_string(folder.join("index.csv")).expect("read");
    let mut lines = index.lines();
    let names = fields(lines.next().expect("a header"));
    let (mut exact, mut near) = (0, 0);
    let mut wrong = Vec::new();
    for line in lines {
        let row: BTreeMap<&str, String> = names.iter().map(String::as_str).zip(fields(line)).collect();
        let (file, dtype) = (&row["file"], &row["ref_dtype"]);
        if dtype.is_empty() {
            continue;
        }
        let path = folder.join(file);
        let bytes = std::fs::read(&path).expect("read");
        let frames = match dicom::frames(&bytes, &path) {
            Ok(frames) => frames,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let mut values = Vec::new();
        for frame in 0..frames {
            match dicom::stored_values(&bytes, &path, frame) {
                Ok(frame) => values.extend(frame),
                Err(error) => wrong.push(error.to_string()),
            }
        }
        let length: usize = row["ref_shape"].split('x').map(|side| side.parse::<usize>().expect("a side")).product();
        if values.len() != length {
            wrong.push(format!("{file}: {} values of {length}", values.len()));
            continue;
        }
        let lossy = ["4.50", "4.51", "4.91"].iter().any(|end| row["transfer_syntax"].ends_with(end));
        if !lossy {
            exact += 1;
            if sha1(&array_bytes(&values, dtype)) != row["ref_sha1"] {
                let (least, most) = (values.iter().min(), values.iter().max());
                wrong.push(format!(
                    "{file}: other values: {least:?} to {most:?}, {} to {}",
                    row["ref_min"], row["ref_max"]
                ));
            }
        } else if row["samples"] == "1" {
            // Decoders of lossy images differ by a level or two, and so by less on average.
            near += 1;
            let mean = values.iter().sum::<i64>() as f64 / values.len() as f64;
            let expected: f64 = row["ref_mean"].parse().expect("a mean");
            if (mean - expected).abs() > 0.5 {
                wrong.push(format!("{file}: mean {mean}, expected {expected}"));
            }
        }
    }
    println!("{exact} files compared exactly, {near} by their mean");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(exact >= 70, "{exact}");
}
