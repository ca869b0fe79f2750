//! Bytes that are no safetensors file, or one whose header lies.

use crate::raw::{Fixture, assert_error, write_header};
use melo_vit::{Backbone, Checkpoint, Error, Plugin, PluginInfo};
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};

#[test]
fn a_file_truncated_anywhere_is_refused() {
    let fixture = Fixture::new();
    let bytes = std::fs::read(&fixture.path).unwrap();
    let file = OpenOptions::new().write(true).open(&fixture.path).unwrap();
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
    }
    std::fs::write(&fixture.path, [&bytes[..], &[0; 4]].concat()).unwrap();
    assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
}

#[test]
fn a_text_file_is_refused_by_every_reader() {
    let fixture = Fixture::new();
    std::fs::write(&fixture.path, "image,label\n1.png,0\n").unwrap();
    assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
    assert_error!(PluginInfo::read(&fixture.path).unwrap_err(), Error::NotSafetensors { .. }, fixture.path);
    assert_error!(Checkpoint::read(&fixture.path).unwrap_err(), Error::NotSafetensors { .. }, fixture.path);
    assert_error!(Backbone::read(&fixture.path).unwrap_err(), Error::NotSafetensors { .. }, fixture.path);
}

#[test]
fn an_empty_file_is_refused() {
    let fixture = Fixture::new();
    std::fs::write(&fixture.path, []).unwrap();
    assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
}

#[test]
fn a_missing_file_and_a_directory_are_refused() {
    let fixture = Fixture::new();
    for path in [fixture.folder.path().join("missing.safetensors"), fixture.folder.path().to_owned()] {
        assert_error!(Plugin::load(&path, &fixture.backbone).unwrap_err(), Error::Io { .. }, path);
        assert_error!(PluginInfo::read(&path).unwrap_err(), Error::Io { .. }, path);
        assert_error!(Checkpoint::read(&path).unwrap_err(), Error::Io { .. }, path);
    }
}

#[test]
fn an_absurd_header_length_is_refused() {
    let fixture = Fixture::new();
    let bytes = std::fs::read(&fixture.path).unwrap();
    for length in [u64::MAX, u64::MAX / 2, 1 << 40, bytes.len() as u64, 0, 1] {
        let lying = [&length.to_le_bytes()[..], &bytes[8..]].concat();
        std::fs::write(&fixture.path, lying).unwrap();
        assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
    }
}

#[test]
fn a_header_that_is_not_the_format_s_is_refused() {
    let fixture = Fixture::new();
    let headers = [
        "",
        "null",
        "[]",
        "{",
        r#"{"x": 1}"#,
        r#"{"x": {"dtype": "F32", "shape": [1]}}"#,
        r#"{"x": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}"#,
        r#"{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
        r#"{"x": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}"#,
        r#"{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"melo.card": 1}}"#,
    ];
    for header in headers {
        write_header(&fixture.path, header, &[0; 4]);
        assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
    }
}

#[test]
fn offsets_that_overlap_or_leave_the_file_are_refused() {
    let fixture = Fixture::new();
    let two = |first: [u64; 2], second: [u64; 2]| {
        let tensor =
            |[start, end]: [u64; 2]| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{start},{end}]}}"#);
        format!(r#"{{"x":{},"y":{}}}"#, tensor(first), tensor(second))
    };
    write_header(&fixture.path, &two([0, 8], [8, 16]), &[0; 16]);
    assert_error!(fixture.refused(), Error::Card { .. }, fixture.path);
    let lies = [
        ([0, 8], [0, 8]),
        ([0, 8], [4, 12]),
        ([0, 8], [12, 20]),
        ([8, 16], [16, 24]),
        ([0, 8], [8, 24]),
        ([8, 0], [8, 16]),
        ([0, 8], [8, u64::MAX]),
        ([u64::MAX - 8, u64::MAX], [8, 16]),
    ];
    for (first, second) in lies {
        write_header(&fixture.path, &two(first, second), &[0; 16]);
        assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
    }
}

#[test]
fn a_shape_that_wraps_around_is_refused() {
    let fixture = Fixture::new();
    for shape in ["[4294967296, 4294967296]", "[18446744073709551615, 4]", "[18446744073709551616]", "[2]"] {
        write_header(&fixture.path, &format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#), &[]);
        assert_error!(fixture.refused(), Error::NotSafetensors { .. }, fixture.path);
    }
}

#[test]
fn one_damaged_byte_never_panics() {
    let fixture = Fixture::new();
    let bytes = std::fs::read(&fixture.path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut file = OpenOptions::new().write(true).open(&fixture.path).unwrap();
    let mut set = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    let mut refused = 0;
    for (at, damage) in (0..header + 64).flat_map(|at| [1, 0x20, 0x80].map(|damage| (at, damage))) {
        set(at, bytes[at] ^ damage);
        refused += usize::from(Plugin::load(&fixture.path, &fixture.backbone).is_err());
        set(at, bytes[at]);
    }
    assert!(refused > header, "{refused} of {} refused", 3 * (header + 64));
}
