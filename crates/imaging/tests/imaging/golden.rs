//! Against Pillow and timm, by the files of `tools/golden/pixels.py`.

use std::fs;
use std::path::Path;

use crate::common::{checksum, golden, pattern};
use melo_imaging::{crop_normalise, decode, fit, normalise, prepare, read, resize};
use melo_vit::{CropMode, Interpolation, Preprocess};

fn fields(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(golden(name)).expect("written by tools/golden/pixels.py");
    text.lines().map(|line| line.split(' ').map(String::from).collect()).collect()
}

fn interpolation(name: &str) -> Interpolation {
    match name {
        "bilinear" => Interpolation::Bilinear,
        "bicubic" => Interpolation::Bicubic,
        _ => panic!("{name}"),
    }
}

#[test]
fn every_file_gives_the_pixels_of_pillow() {
    let files = fields("files.txt");
    assert!(files.len() >= 40);
    for file in files {
        let pixels = read(&golden(&file[0])).unwrap();
        assert_eq!([pixels.width.to_string(), pixels.height.to_string()], file[1..3], "{}", file[0]);
        assert_eq!(checksum(&pixels.rgb), file[3], "{}", file[0]);
    }
}

/// Two grey pixels beside each other; orientation 6 is "turn by 90 degrees". Pillow turns these, unlike those of EXIF.
#[test]
fn an_orientation_in_a_tiff_is_not_applied() {
    let tiff = |orientation: u16| {
        // Width, height, bits, no compression, black is zero, strip, orientation, samples, rows a strip, bytes of the strip.
        let fields: [(u16, u16); 10] = [
            (256, 2),
            (257, 1),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, 8),
            (274, orientation),
            (277, 1),
            (278, 1),
            (279, 2),
        ];
        let mut bytes = b"II*\0\x0a\0\0\0\x10\xf0".to_vec();
        bytes.extend((fields.len() as u16).to_le_bytes());
        for (tag, value) in fields {
            // Type SHORT, one value.
            bytes.extend([tag, 3, 1, 0, value, 0].map(u16::to_le_bytes).concat());
        }
        bytes.extend([0; 4]);
        decode(&bytes, Path::new("two.tif")).unwrap()
    };
    let turned = tiff(6);
    assert_eq!((turned.width, turned.height, &turned.rgb[..]), (2, 1, &[0x10, 0x10, 0x10, 0xf0, 0xf0, 0xf0][..]));
    assert_eq!(turned, tiff(1));
}

#[test]
fn every_resize_is_that_of_pillow_to_the_bit() {
    for case in fields("resizes.txt") {
        let [width, height, new_width, new_height] = [0, 1, 2, 3].map(|at| case[at].parse().unwrap());
        let resized = resize(&pattern(width, height), new_width, new_height, interpolation(&case[4]));
        assert_eq!((resized.width, resized.height), (new_width, new_height));
        assert_eq!(checksum(&resized.rgb), case[5], "{case:?}");
    }
}

#[test]
fn every_transform_is_that_of_timm() {
    let bytes = fs::read(golden("transforms.f32")).unwrap();
    let mut expected = bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value));
    for case in fields("transforms.txt") {
        let (mean, std) = match case[6].as_str() {
            "half" => ([0.5; 3], [0.5; 3]),
            "imagenet" => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            name => panic!("{name}"),
        };
        let spec = Preprocess {
            size: case[3].parse().unwrap(),
            crop_mode: match case[2].as_str() {
                "center" => CropMode::Center,
                "squash" => CropMode::Squash,
                "border" => CropMode::Border,
                name => panic!("{name}"),
            },
            crop_pct: case[4].parse().unwrap(),
            interpolation: interpolation(&case[5]),
            mean,
            std,
            crop_offset: Default::default(),
            rendering: Default::default(),
        };
        let pixels = pattern(case[0].parse().unwrap(), case[1].parse().unwrap());
        let values = prepare(&pixels, &spec);
        assert_eq!(values.len(), 3 * spec.size * spec.size);
        for (at, value) in values.iter().enumerate() {
            let expected = expected.next().unwrap();
            // A grey level is 0.008 or more; what is left is the last bit of two f32 operations on values to 2.7.
            assert!((value - expected).abs() <= 1e-6, "{case:?} at {at}: {value}, timm has {expected}");
        }

        let mut halves = vec![f32::NAN; values.len()];
        crop_normalise(&fit(&pixels, &spec), &spec, &mut halves);
        assert_eq!(values, halves);
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn normalise_is_the_crop_of_a_square_that_needs_none() {
    let spec = Preprocess {
        size: 9,
        crop_mode: CropMode::Center,
        crop_pct: 1.0,
        interpolation: Interpolation::Bicubic,
        mean: [0.1, 0.2, 0.3],
        std: [0.4, 0.5, 0.6],
        crop_offset: Default::default(),
        rendering: Default::default(),
    };
    let square = pattern(9, 9);
    let mut values = vec![f32::NAN; 3 * 81];
    normalise(&square, &spec, &mut values);
    assert_eq!(values, prepare(&square, &spec));
    let (pixel, channel) = (40, 2);
    let expected = (f64::from(square.rgb[pixel * 3 + channel]) / 255.0 - 0.3) / 0.6;
    assert!((f64::from(values[channel * 81 + pixel]) - expected).abs() < 1e-6);
}
