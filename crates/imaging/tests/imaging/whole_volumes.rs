//! Volumes that are read whole: the same as their slices, in order, and what is refused.

use std::path::Path;

use melo_imaging::{Error, Volume, decode_volume, decode_with, fit_volume, normalise_volume};
use melo_vit::rendering::{Frame, Plane, Slice, Window};
use melo_vit::{Interpolation, Preprocess, Rendering};

use crate::volumes::{Volume as Nifti, gz};

const LENGTHS: [usize; 3] = [5, 4, 3];

fn values() -> Vec<i16> {
    (0..60).map(|at: i16| at * 37 % 251 * 5 - 200).collect()
}

fn window() -> Window {
    Window::Values { center: 200.0, width: 900.0 }
}

fn npy(shape: &str, descr: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let padding = 64 - (11 + header.len()) % 64;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((header.len() + padding + 1) as u16).to_le_bytes());
    bytes.extend(format!("{header}{}\n", " ".repeat(padding)).bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn the_layers_of_a_nifti_volume_are_its_slices() {
    let plain = Nifti::new(5, 4, 3).file(&values());
    for (plane, depth) in [(Plane::Axial, 3), (Plane::Coronal, 4), (Plane::Sagittal, 5)] {
        let rendering = Rendering { plane, window: window(), ..Rendering::default() };
        for bytes in [plain.clone(), gz(&plain)] {
            let volume = decode_volume(&bytes, Path::new("v.nii"), &rendering).expect("a volume");
            let [layers, height, width] = volume.lengths;
            assert_eq!((layers, volume.levels.len()), (depth, LENGTHS.iter().product()));
            for (k, layer) in volume.levels.chunks_exact(height * width).enumerate() {
                let one = Rendering { slice: Slice::Index(k), ..rendering.clone() };
                let slice = decode_with(&bytes, Path::new("v.nii"), &one).expect("a slice");
                assert_eq!((slice.width, slice.height), (width, height));
                assert!(slice.rgb.chunks_exact(3).map(|rgb| rgb[0]).eq(layer.iter().copied()), "{plane} {k}");
            }
        }
    }
}

#[test]
fn layers_run_from_the_feet_whichever_way_the_file_does() {
    let up = Nifti::new(5, 4, 3);
    let down = Nifti::new(5, 4, 3).heads_down();
    let rendering = Rendering { window: window(), ..Rendering::default() };
    let read = |nifti: &Nifti, values: &[i16]| {
        decode_volume(&nifti.file(values), Path::new("v.nii"), &rendering).expect("a volume")
    };
    let turned: Vec<i16> = values().chunks_exact(20).rev().flatten().copied().collect();
    assert_eq!(read(&up, &values()), read(&down, &turned));
    assert_ne!(read(&up, &values()), read(&up, &turned));
}

#[test]
fn arrays_are_volumes_along_each_axis_and_their_bytes_stay_what_they_are() {
    let data: Vec<u8> = (0..24).collect();
    let rendering = |plane| Rendering { plane, ..Rendering::default() };
    let read = |bytes: &[u8], name: &str, plane| decode_volume(bytes, Path::new(name), &rendering(plane));
    let one = npy("(2, 3, 4)", "|u1", &data);
    let volume = read(&one, "v.npy", Plane::Axial).expect("a volume");
    assert_eq!(volume, Volume { lengths: [2, 3, 4], levels: data.clone() });
    let at = |z: usize, y: usize, x: usize| data[(z * 3 + y) * 4 + x];
    let coronal = read(&one, "v.npy", Plane::Coronal).expect("a volume");
    let expected: Vec<u8> = (0..3)
        .flat_map(|y| (0..2).flat_map(move |z| (0..4).map(move |x| (z, y, x))))
        .map(|(z, y, x)| at(z, y, x))
        .collect();
    assert_eq!(coronal, Volume { lengths: [3, 2, 4], levels: expected });
    let sagittal = read(&one, "v.npy", Plane::Sagittal).expect("a volume");
    assert_eq!((sagittal.lengths, sagittal.levels[1]), ([4, 2, 3], at(0, 1, 0)));
    // One of several, named.
    let several = npy("(2, 2, 3, 2)", "|u1", &data);
    let second = read(&several, "v.npy#1", Plane::Axial).expect("a volume");
    assert_eq!(second, Volume { lengths: [2, 3, 2], levels: data[12..].to_vec() });
    // Other numbers go by the window of the whole volume.
    let words: Vec<u8> = [0i16, 10, 20, 40, 80, 100, 0, 0].into_iter().flat_map(i16::to_le_bytes).collect();
    let words = read(&npy("(2, 2, 2)", "<i2", &words), "v.npy", Plane::Axial).expect("a volume");
    assert_eq!(words.levels, [0, 26, 51, 102, 204, 255, 0, 0]);
}

#[test]
fn what_is_no_volume_is_refused_by_name() {
    let nifti = Nifti::new(5, 4, 3).file(&values());
    let read = |bytes: &[u8], name: &str| {
        decode_volume(bytes, Path::new(name), &Rendering::default()).expect_err(name).to_string()
    };
    let png = melo_imaging::encode_png(&melo_imaging::Pixels { width: 1, height: 1, rgb: vec![0; 3] }).expect("PNG");
    assert!(read(&png, "x.png").contains("x.png: not a volume"));
    assert!(read(&[], "x").contains("not a volume"));
    assert!(read(&nifti[..400], "v.nii").contains("cut short"));
    assert!(read(&npy("(2, 3, 4)", "|u1", &[0; 23]), "v.npy").contains("cut short"));
    assert!(read(&npy("(3, 4)", "|u1", &[0; 12]), "v.npy").contains("where a volume is expected"));
    assert!(read(&npy("(2, 2, 2, 2)", "|u1", &[0; 16]), "v.npy").contains("name one"));
    assert!(read(&npy("(2, 2, 2, 2)", "|u1", &[0; 16]), "v.npy#2").contains("0 to 1"));
    for shape in ["(4096, 4096, 4096)", "(0, 4, 4)", "(18446744073709551615, 2, 2)"] {
        assert!(read(&npy(shape, "|u1", &[0; 16]), "v.npy").contains("voxels, where 1 to"), "{shape}");
    }
    let rendering = Rendering { frame: Frame::Number(2), ..Rendering::default() };
    let refused = decode_volume(&nifti, Path::new("v.nii"), &rendering);
    assert!(matches!(&refused, Err(Error::NoSuchImage { reason, .. }) if reason.contains("1 volumes")), "{refused:?}");
}

#[test]
fn volumes_are_squeezed_along_each_axis_as_images_are() {
    let spec = |size, depth| Preprocess {
        depth: Some(depth),
        interpolation: Interpolation::Bilinear,
        ..Preprocess::base(size)
    };
    let levels: Vec<u8> = (0..64).map(|at| if at < 32 { 40 } else { 200 }).collect();
    let cube = Volume { lengths: [4, 4, 4], levels: levels.clone() };
    assert_eq!(fit_volume(&cube, &spec(4, 4)), cube);
    let half = fit_volume(&cube, &spec(2, 2));
    assert_eq!(half.lengths, [2, 2, 2]);
    // A triangle over three layers, as PIL's along rows: 40 · 6/7 + 200 · 1/7 at the lower end.
    assert_eq!(half.levels, [[63; 4], [177; 4]].concat());
    let mut voxels = vec![0.0; 8];
    normalise_volume(&half.levels, &spec(2, 2), &mut voxels);
    assert_eq!((voxels[0], voxels[7]), ((63.0 / 255.0 - 0.5) / 0.5, (177.0 / 255.0 - 0.5) / 0.5));
}
