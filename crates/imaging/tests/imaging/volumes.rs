//! NIfTI volumes and NumPy arrays: what they become, and what is refused.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common;
use melo_imaging::{Error, Pixels, decode, decode_with, read};
use melo_vit::Rendering;
use melo_vit::rendering::{Frame, Plane, Slice, Window};

/// A NIfTI-1 file of 16-bit numbers.
pub(crate) struct Volume {
    dim: [i16; 8],
    datatype: i16,
    big_endian: bool,
    slope: f32,
    intercept: f32,
    /// Rows of the affine; none if all zero.
    affine: [[f32; 4]; 3],
    quaternion: Option<([f32; 3], f32)>,
}

impl Volume {
    pub(crate) fn new(x: i16, y: i16, z: i16) -> Self {
        let affine = [[0.0; 4]; 3];
        Self {
            dim: [3, x, y, z, 1, 1, 1, 1],
            datatype: 4,
            big_endian: false,
            slope: 0.0,
            intercept: 0.0,
            affine,
            quaternion: None,
        }
    }

    /// The third axis runs to the feet.
    pub(crate) fn heads_down(self) -> Self {
        let affine = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]];
        Self { affine, ..self }
    }

    pub(crate) fn file(&self, values: &[i16]) -> Vec<u8> {
        let word = |value: i16| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let real = |value: f32| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut bytes = vec![0; 352];
        bytes[..4].copy_from_slice(&if self.big_endian { 348i32.to_be_bytes() } else { 348i32.to_le_bytes() });
        for (axis, length) in self.dim.into_iter().enumerate() {
            bytes[40 + axis * 2..][..2].copy_from_slice(&word(length));
        }
        bytes[70..72].copy_from_slice(&word(self.datatype));
        let mut put = |at: usize, value: f32| bytes[at..at + 4].copy_from_slice(&real(value));
        put(108, 352.0);
        put(112, self.slope);
        put(116, self.intercept);
        for axis in 1..4 {
            put(76 + axis * 4, 1.0);
        }
        if let Some((quaternion, sign)) = self.quaternion {
            put(76, sign);
            quaternion.into_iter().enumerate().for_each(|(at, value)| put(256 + at * 4, value));
        }
        self.affine.iter().flatten().enumerate().for_each(|(at, &value)| put(280 + at * 4, value));
        if self.quaternion.is_some() {
            bytes[252..254].copy_from_slice(&word(1));
        } else if self.affine != [[0.0; 4]; 3] {
            bytes[254..256].copy_from_slice(&word(1));
        }
        bytes[344..348].copy_from_slice(b"n+1\0");
        bytes.extend(values.iter().flat_map(|&value| word(value)));
        bytes
    }
}

pub(crate) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn cut(plane: Plane, slice: Slice) -> Rendering {
    Rendering { plane, slice, ..Rendering::default() }
}

fn levels(pixels: &Pixels) -> Vec<u8> {
    pixels.rgb.chunks_exact(3).map(|pixel| pixel[0]).collect()
}

fn render(bytes: &[u8], rendering: &Rendering) -> (usize, usize, Vec<u8>) {
    let pixels = decode_with(bytes, Path::new("vol.nii"), rendering).expect("rendered");
    (pixels.width, pixels.height, levels(&pixels))
}

/// Values that tell where a voxel is: `x + 10 y + 100 z`.
fn places(x: i16, y: i16, z: i16) -> Vec<i16> {
    (0..z).flat_map(|k| (0..y).flat_map(move |j| (0..x).map(move |i| i + 10 * j + 100 * k))).collect()
}

/// A window in which a level is the value of the voxel.
fn by_value(plane: Plane, slice: usize) -> Rendering {
    Rendering { window: Window::Values { center: 127.5, width: 255.0 }, ..cut(plane, Slice::Index(slice)) }
}

#[test]
fn planes_as_radiologists_see_them() {
    let values = places(2, 3, 2);
    // Axes to the right, front and head: the right is shown on the left, the front and the head above.
    let axial = (2, 3, vec![121, 120, 111, 110, 101, 100]);
    let coronal = (2, 2, vec![111, 110, 11, 10]);
    let sagittal = (3, 2, vec![121, 111, 101, 21, 11, 1]);
    for big_endian in [false, true] {
        let file = Volume { big_endian, ..Volume::new(2, 3, 2) }.file(&values);
        for file in [file.clone(), gz(&file)] {
            assert_eq!(render(&file, &by_value(Plane::Axial, 1)), axial);
            assert_eq!(render(&file, &by_value(Plane::Coronal, 1)), coronal);
            assert_eq!(render(&file, &by_value(Plane::Sagittal, 1)), sagittal);
        }
    }
    // The first axis to the left: nothing is turned across.
    let left =
        Volume { affine: [[-1.0, 0.0, 0.0, 9.0], [0.0, 1.0, 0.1, 0.0], [0.0, -0.1, 1.0, 0.0]], ..Volume::new(2, 3, 2) };
    assert_eq!(render(&left.file(&values), &by_value(Plane::Axial, 1)).2, [120, 121, 110, 111, 100, 101]);
    // Stored in coronal slices: the second axis runs to the feet, the third to the front.
    let turned =
        Volume { affine: [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]], ..Volume::new(2, 3, 2) };
    let (width, height, levels) = render(&turned.file(&values), &by_value(Plane::Axial, 0));
    assert_eq!((width, height, levels), (2, 2, vec![101, 100, 1, 0]));
    // A half turn about the third axis, by quaternion: to the left and the back.
    let half = Volume { quaternion: Some(([0.0, 0.0, 1.0], 1.0)), ..Volume::new(2, 3, 2) };
    assert_eq!(render(&half.file(&values), &by_value(Plane::Axial, 0)).2, [0, 1, 10, 11, 20, 21]);
}

#[test]
fn scaling_windows_and_volumes() {
    let mut volume = Volume { slope: 2.0, intercept: -100.0, ..Volume::new(2, 2, 1) };
    let file = volume.file(&[300, 200, 100, 50]);
    assert_eq!(render(&file, &Rendering::default()).2, [0, 51, 153, 255]);
    let window = Rendering { window: Window::Values { center: 100.0, width: 200.0 }, ..Rendering::default() };
    assert_eq!(render(&file, &window).2, [0, 128, 255, 255]);
    let percentile = Rendering { window: Window::Percentile { low: 0.0, high: 50.0 }, ..Rendering::default() };
    assert_eq!(render(&file, &percentile).2, [0, 128, 255, 255]);
    volume.dim = [4, 2, 2, 1, 2, 1, 1, 1];
    let file = volume.file(&[0, 0, 0, 0, 4, 3, 2, 1]);
    let second = Rendering { frame: Frame::Number(2), ..Rendering::default() };
    assert_eq!(render(&file, &second).2, [0, 85, 170, 255]);
}

#[test]
fn every_number_format() {
    for (datatype, bytes) in [
        (2, vec![0u8, 1, 2, 3]),
        (256, [0i8, 1, 2, 3].map(|v| v as u8).to_vec()),
        (512, [0u16, 1, 2, 3].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (768, [0u32, 1, 2, 3].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (8, [0i32, 1, 2, 3].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (16, [0f32, 1.0, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (64, [0f64, 1.0, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (1024, [0i64, 1, 2, 3].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (1280, [0u64, 1, 2, 3].iter().flat_map(|v| v.to_le_bytes()).collect()),
    ] {
        let file = [Volume { datatype, ..Volume::new(2, 2, 1) }.file(&[]), bytes].concat();
        assert_eq!(render(&file, &Rendering::default()).2, [255, 170, 85, 0], "{datatype}");
    }
}

/// The message of what must be refused within a second.
fn refused(bytes: &[u8], rendering: &Rendering) -> String {
    let start = Instant::now();
    let error = decode_with(bytes, Path::new("vol.nii"), rendering).expect_err("refused");
    assert!(start.elapsed() < Duration::from_secs(1), "{error}: {:?}", start.elapsed());
    error.to_string()
}

#[test]
fn hostile_volumes() {
    let message = |volume: Volume| refused(&volume.file(&[0; 4]), &Rendering::default());
    let with_dim = |dim| message(Volume { dim, ..Volume::new(1, 1, 1) });
    assert!(with_dim([0, 2, 2, 1, 1, 1, 1, 1]).contains("dim[0] is 0"));
    assert!(with_dim([3, 2, -2, 1, 1, 1, 1, 1]).contains("expected lengths from 1"));
    assert!(with_dim([5, 2, 2, 1, 1, 3, 1, 1]).contains("three axes and time"));
    assert!(with_dim([3, 32767, 32767, 32767, 1, 1, 1, 1]).contains("expected at most"));
    assert!(with_dim([3, 9000, 9000, 300, 1, 1, 1, 1]).contains("cut short"));
    assert!(message(Volume { datatype: 128, ..Volume::new(2, 2, 1) }).contains("datatype is 128"));
    let affine = [[0.0, 0.0, 0.0, 1.0]; 3];
    assert!(message(Volume { affine, ..Volume::new(2, 2, 1) }).contains("affine"));
    let file = Volume::new(2, 2, 1).file(&[0, 1, 2, 3]);
    for cut in 348..file.len() {
        assert!(refused(&file[..cut], &Rendering::default()).contains("cut short"), "{cut}");
    }
    let none = refused(&file, &cut(Plane::Axial, Slice::Index(1)));
    assert!(none.contains("there is no axial slice 1: the volume has 1"), "{none}");
    let named = Rendering { window: Window::Name("LUNG".into()), ..Rendering::default() };
    assert!(refused(&file, &named).contains("holds no windows, and name=LUNG was asked for"));
    let mut pair = file.clone();
    pair[344..348].copy_from_slice(b"ni1\0");
    assert!(refused(&pair, &Rendering::default()).contains("in another file"));
    let mut far = file;
    far[108..112].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refused(&far, &Rendering::default()).contains("vox_offset"));
    // A bomb behind the volume is never inflated, one that claims to be it is passed in pieces.
    let bomb = gz(&[Volume::new(2, 2, 1).file(&[0, 1, 2, 3]), vec![0; 64 << 20]].concat());
    assert_eq!(render(&bomb, &Rendering::default()).2, [255, 170, 85, 0]);
}

/// An `.npy` file.
pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    text += &" ".repeat((64 - (11 + text.len()) % 64) % 64);
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), data].concat()
}

pub(crate) fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (at, (name, bytes)) in arrays.iter().enumerate() {
        let method = [zip::CompressionMethod::Deflated, zip::CompressionMethod::Stored][at % 2];
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("{name}.npy"), options).expect("in memory");
        writer.write_all(bytes).expect("in memory");
    }
    writer.finish().expect("in memory").into_inner()
}

fn named(bytes: &[u8], name: &str) -> Result<Pixels, Error> {
    decode(bytes, Path::new(name))
}

#[test]
fn arrays_of_every_shape() {
    let grey = npy("|u1", "(2, 2)", &[1, 2, 3, 4]);
    assert_eq!(levels(&named(&grey, "a.npy").unwrap()), [1, 2, 3, 4]);
    let colour = npy("|u1", "(1, 2, 3)", &[1, 2, 3, 4, 5, 6]);
    assert_eq!(named(&colour, "a.npy").unwrap().rgb, [1, 2, 3, 4, 5, 6]);
    let several = npy("|u1", "(3, 1, 2)", &[1, 2, 3, 4, 5, 6]);
    // `[3, 1, 2]` are three grey images.
    assert_eq!(levels(&named(&several, "a.npy#2").unwrap()), [5, 6]);
    assert_eq!(levels(&named(&several, "a.npy#frame=2").unwrap()), [3, 4]);
    let colours = npy("|u1", "(2, 1, 1, 3)", &[1, 2, 3, 4, 5, 6]);
    assert_eq!(named(&colours, "a.npy#1").unwrap().rgb, [4, 5, 6]);
    let words: Vec<u8> = [100u16, 200, 400].iter().flat_map(|value| value.to_be_bytes()).collect();
    assert_eq!(levels(&named(&npy(">u2", "(1, 3, 1)", &words), "a.npy").unwrap()), [0, 85, 255]);
    let reals: Vec<u8> = [f32::NAN, -1.0, 0.0, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(levels(&named(&npy("<f4", "(2, 2)", &reals), "a.npy").unwrap()), [0, 0, 128, 255]);
}

/// The image that an array of bytes 0, 1, 2, … is, as all its samples, or why it is none.
fn shaped(shape: &str, layout: &str) -> Result<(usize, usize, Vec<u8>), String> {
    let lengths = shape.split(',').map(|length| length.trim().parse::<usize>().expect("a length"));
    let data: Vec<u8> = (0..lengths.product::<usize>() as u8).collect();
    let rendering = Rendering { layout: layout.parse().expect("a layout"), ..Rendering::default() };
    let pixels = decode_with(&npy("|u1", &format!("({shape})"), &data), Path::new("a.npy"), &rendering);
    pixels.map(|pixels| (pixels.width, pixels.height, pixels.rgb)).map_err(|error| error.to_string())
}

#[test]
fn shapes_that_leave_it_open_are_asked_about() {
    let thrice = |levels: &[u8]| levels.iter().flat_map(|&level| [level; 3]).collect::<Vec<_>>();
    for shape in ["3, 5, 6", "4, 5, 6", "2, 3, 5, 6", "5, 6, 2"] {
        let error = shaped(shape, "auto").unwrap_err();
        assert!(error.contains("without a layout: it may be") && error.contains("hw)"), "{error}");
    }
    let (width, height, rgb) = shaped("3, 1, 2", "chw").unwrap();
    assert_eq!((width, height, rgb), (2, 1, vec![0, 2, 4, 1, 3, 5]));
    assert_eq!(shaped("3, 1, 2", "nhw").unwrap(), (2, 1, thrice(&[0, 1])));
    // Alpha is dropped, whether it is last or first.
    assert_eq!(shaped("1, 2, 4", "auto").unwrap(), (2, 1, vec![0, 1, 2, 4, 5, 6]));
    assert_eq!(shaped("4, 1, 2", "chw").unwrap(), (2, 1, vec![0, 2, 4, 1, 3, 5]));
    assert_eq!(shaped("1, 2, 2", "hwc").unwrap(), (2, 1, thrice(&[0, 2])));
    assert_eq!(shaped("1, 2, 5", "auto").unwrap(), (5, 2, thrice(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])));
    assert_eq!(shaped("1, 1, 2, 4", "auto").unwrap(), (2, 1, vec![0, 1, 2, 4, 5, 6]));
    assert_eq!(shaped("1, 3, 1, 2", "chw").unwrap(), (2, 1, vec![0, 2, 4, 1, 3, 5]));
    assert_eq!(
        shaped("2, 1, 2", "hw").unwrap_err(),
        "a.npy: npy of a kind that is not read: an array of shape [2, 1, 2] as hw"
    );
    // A path may say it.
    let file = npy("|u1", "(3, 1, 2)", &[0, 1, 2, 3, 4, 5]);
    assert_eq!(named(&file, "a.npy#layout=chw").unwrap().rgb, [0, 2, 4, 1, 3, 5]);
}

#[test]
fn truth_values_are_black_and_white() {
    let file = npy("|b1", "(2, 2)", &[0, 1, 1, 0]);
    assert_eq!(levels(&named(&file, "a.npy").unwrap()), [0, 255, 255, 0]);
}

#[test]
fn arrays_in_fortran_order_and_of_half_precision() {
    let fortran = |shape: &str, data: &[u8]| {
        let bytes = npy("|u1", shape, data);
        let at = bytes.windows(5).position(|five| five == b"False").expect("an order");
        [&bytes[..at], b"True ", &bytes[at + 5..]].concat()
    };
    assert_eq!(levels(&named(&fortran("(2, 3)", &[1, 4, 2, 5, 3, 6]), "a.npy").unwrap()), [1, 2, 3, 4, 5, 6]);
    let colour = fortran("(1, 2, 3)", &[1, 4, 2, 5, 3, 6]);
    assert_eq!(named(&colour, "a.npy").unwrap().rgb, [1, 2, 3, 4, 5, 6]);
    let halves: Vec<u8> =
        [0.0f32, 0.5, 1.0].iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect();
    assert_eq!(levels(&named(&npy("<f2", "(1, 3)", &halves), "a.npy").unwrap()), [0, 128, 255]);
}

#[test]
fn volumes_of_arrays() {
    // Two volumes of `[2, 2, 2]`, as MedMNIST's.
    let data: Vec<u8> = (0..16).collect();
    let file =
        npz(&[("train_images", npy("|u1", "(2, 2, 2, 2)", &data)), ("train_labels", npy("|u1", "(2, 1)", &[0, 1]))]);
    let cut = |fragment: &str| levels(&named(&file, &format!("m.npz#{fragment}")).unwrap());
    assert_eq!(cut("train_images:0&slice=axial:0"), [0, 1, 2, 3]);
    assert_eq!(cut("train_images:1"), [12, 13, 14, 15]);
    assert_eq!(cut("train_images:1&slice=coronal:0"), [8, 9, 12, 13]);
    assert_eq!(cut("train_images:1&slice=sagittal:1"), [9, 11, 13, 15]);
}

#[test]
fn archives_name_their_arrays() {
    let one = npy("|u1", "(1, 2)", &[1, 2]);
    let file = npz(&[("test_images", npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4])), ("val_images", one.clone())]);
    assert_eq!(levels(&named(&file, "x.npz#test_images:1").unwrap()), [3, 4]);
    assert_eq!(levels(&named(&file, "x.npz#val_images").unwrap()), [1, 2]);
    let error = named(&file, "x.npz").unwrap_err().to_string();
    assert!(error.contains("2 arrays (test_images, val_images); name one"), "{error}");
    let error = named(&file, "x.npz#images").unwrap_err().to_string();
    assert!(error.contains("there is no array `images`; found test_images, val_images"), "{error}");
    let error = named(&file, "x.npz#test_images:2").unwrap_err().to_string();
    assert!(error.contains("the array holds 2 images, 0 to 1"), "{error}");
    assert_eq!(levels(&named(&npz(&[("only", one)]), "x.npz").unwrap()), [1, 2]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.npz"), &file).unwrap();
    let path: PathBuf = folder.path().join("x.npz#test_images:1");
    assert_eq!(levels(&read(&path).unwrap()), [3, 4]);
    assert!(matches!(read(&folder.path().join("y.npz#test_images:1")), Err(Error::Read { .. })));
}

#[test]
fn hostile_arrays() {
    let refused = |bytes: &[u8], name: &str| {
        let start = Instant::now();
        let error = decode(bytes, Path::new(name)).expect_err("refused");
        assert!(start.elapsed() < Duration::from_secs(1), "{error}: {:?}", start.elapsed());
        error.to_string()
    };
    let with = |descr: &str, shape: &str| refused(&npy(descr, shape, &[0; 4]), "a.npy");
    assert!(with("|O", "(2, 2)").contains("an array of `O`"));
    assert!(with("|u1", "(4,)").contains("of shape [4]"));
    assert!(with("|u1", "(2, 2, 1, 1, 1)").contains("of shape"));
    assert!(with("|u1", "(60000, 60000)").contains("expected at most"));
    assert!(with("|u1", "(9000, 9000)").contains("cut short"));
    assert!(with("|u1", "(0, 2)").contains("expected at least one pixel"));
    assert!(with("|u1", "(0, 2, 5)").contains("holds 0 images"));
    assert!(with("|u1", "(18446744073709551616, 2)").contains("`shape` that is none"));
    assert!(with("|u1", "(4, 90000, 90000, 90000)").contains("expected at most"));
    assert!(
        refused(&npy("|u1", "(18446744073709551615, 2, 2)", &[0; 4]), "a.npy#18446744073709551614")
            .contains("larger than any file")
    );
    let fortran = String::from_utf8_lossy(&npy("|u1", "(2, 2)", &[0; 4])).replace("False", "True ");
    assert!(refused(b"\x93NUMPY\x01\x00\xff\xff", "a.npy").contains("claims 65535 bytes"));
    assert!(fortran.contains("True"));
    let file = npy("|u1", "(2, 2)", &[1, 2, 3, 4]);
    for cut in 6..file.len() {
        assert!(refused(&file[..cut], "a.npy").contains("cut short"), "{cut}");
    }
    let archive = npz(&[("a", file)]);
    for cut in 4..archive.len() {
        assert!(decode(&archive[..cut], Path::new("a.npz")).is_err(), "{cut}");
    }
    // A bomb: what is behind the image is never inflated, and a claim alone takes no room.
    let bomb = npz(&[("a", npy("|u1", "(2, 2)", &vec![7; 64 << 20]))]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(levels(&named(&bomb, "a.npz").unwrap()), [7; 4]);
}

#[test]
fn changed_bytes_never_panic() {
    let volume = Volume::new(3, 2, 2).file(&places(3, 2, 2));
    let array = npy("|u1", "(2, 2, 3)", &[0; 12]);
    let files = vec![gz(&volume), volume, npz(&[("a", array.clone())]), array];
    common::changed_bytes_never_panic(files, "vol.nii");
}
