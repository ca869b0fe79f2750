//! Against Pillow and timm, by the files of `tools/golden/pixels.py`.

use std::fs;
use std::path::Path;

use crate::common::{checksum, golden, pattern};
use melo_imaging::{crop_normalise, decode, decode_seen, fit, normalise, prepare, read, resize};
use melo_vit::rendering::Window;
use melo_vit::{CropMode, Interpolation, Preprocess, Rendering};

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

/// A TIFF of one strip: fields of type SHORT, and what stands behind them.
fn tiff(fields: &[(u16, &[u16])], strip: &[u8]) -> Vec<u8> {
    let length = strip.len().next_multiple_of(2);
    let (mut entries, mut behind) = (Vec::new(), Vec::new());
    let values_at = 8 + length + 2 + 12 * (fields.len() + 2) + 4;
    for (tag, values) in [fields, &[(273, &[8][..]), (279, &[strip.len() as u16])]].concat() {
        entries.extend([tag, 3].map(u16::to_le_bytes).concat());
        entries.extend((values.len() as u32).to_le_bytes());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if bytes.len() <= 4 {
            entries.extend([&bytes[..], &[0; 4]].concat()[..4].iter());
        } else {
            entries.extend(((values_at + behind.len()) as u32).to_le_bytes());
            behind.extend(bytes);
        }
    }
    let mut bytes = [b"II*\0", &((8 + length) as u32).to_le_bytes()[..], strip].concat();
    bytes.resize(8 + length, 0);
    bytes.extend((fields.len() as u16 + 2).to_le_bytes());
    [bytes, entries, vec![0; 4], behind].concat()
}

/// A TIFF of `width` × `height` whose strip is `strip`, with these fields more.
fn tiff_of(width: u16, height: u16, fields: &[(u16, &[u16])], strip: &[u8]) -> Vec<u8> {
    tiff(&[&[(256, &[width][..]), (257, &[height])], fields].concat(), strip)
}

fn reds(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, Path::new("x.tif")).expect("a TIFF").rgb.chunks_exact(3).map(|pixel| pixel[0]).collect()
}

/// 1 2 3 above 4 5 6, as `ImageOps.exif_transpose` turns it.
#[test]
fn every_orientation_of_a_tiff_is_applied() {
    let expected: [(u16, usize, [u8; 6]); 9] = [
        (0, 3, [1, 2, 3, 4, 5, 6]),
        (1, 3, [1, 2, 3, 4, 5, 6]),
        (2, 3, [3, 2, 1, 6, 5, 4]),
        (3, 3, [6, 5, 4, 3, 2, 1]),
        (4, 3, [4, 5, 6, 1, 2, 3]),
        (5, 2, [1, 4, 2, 5, 3, 6]),
        (6, 2, [4, 1, 5, 2, 6, 3]),
        (7, 2, [6, 3, 5, 2, 4, 1]),
        (8, 2, [3, 6, 2, 5, 1, 4]),
    ];
    for (orientation, width, levels) in expected {
        let file = tiff_of(3, 2, &[(258, &[8]), (262, &[1]), (274, &[orientation])], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(decode(&file, Path::new("x.tif")).unwrap().width, width, "{orientation}");
        assert_eq!(reds(&file), levels, "{orientation}");
    }
}

#[test]
fn samples_of_a_tiff_of_every_width() {
    let grey = |bits: u16, more: &[(u16, &[u16])], strip: &[u8]| {
        reds(&tiff_of(3, 1, &[&[(258, &[bits][..]), (262, &[1])], more].concat(), strip))
    };
    assert_eq!(grey(1, &[], &[0b1010_0000]), [255, 0, 255]);
    // Bits from the other end.
    assert_eq!(grey(1, &[(266, &[2])], &[0b0000_0110]), [0, 255, 255]);
    assert_eq!(grey(2, &[], &[0b0001_1100]), [0, 85, 255]);
    assert_eq!(grey(4, &[], &[0x0f, 0x80]), [0, 255, 136]);
    assert_eq!(grey(12, &[], &[0x00, 0x08, 0x00, 0xff, 0xf0]), [0, 128, 255]);
    assert_eq!(grey(16, &[], &[0, 0, 0x80, 0x80, 0xff, 0xff]), [0, 128, 255]);
    // Signed, real and wide ones from their least to their largest.
    let words = [-5i16, 0, 5].map(i16::to_le_bytes).concat();
    assert_eq!(grey(16, &[(339, &[2])], &words), [0, 128, 255]);
    let reals = [-0.5f32, 0.0, 0.5].map(f32::to_le_bytes).concat();
    assert_eq!(grey(32, &[(339, &[3])], &reals), [0, 128, 255]);
    let longs = [0u32, 1 << 30, 1 << 31].map(u32::to_le_bytes).concat();
    assert_eq!(grey(32, &[], &longs), [0, 128, 255]);
    let inverted = tiff_of(3, 1, &[(258, &[16]), (262, &[0])], &[0, 0, 0x80, 0x80, 0xff, 0xff]);
    assert_eq!(reds(&inverted), [255, 127, 0]);
}

#[test]
fn colours_multiplied_by_alpha_are_divided_again() {
    let rgba = |kind: u16, pixel: [u8; 4]| {
        let fields: &[(u16, &[u16])] = &[(258, &[8, 8, 8, 8]), (262, &[2]), (277, &[4]), (338, &[kind])];
        decode(&tiff_of(1, 1, fields, &pixel), Path::new("x.tif")).unwrap().rgb
    };
    assert_eq!(rgba(1, [50, 25, 100, 100]), [127, 63, 255]);
    assert_eq!(rgba(1, [50, 25, 100, 0]), [0, 0, 0]);
    assert_eq!(rgba(2, [50, 25, 100, 100]), [50, 25, 100]);
    assert_eq!(rgba(0, [50, 25, 100, 100]), [50, 25, 100]);
}

#[test]
fn planes_palettes_and_predictors_of_a_tiff() {
    let planes: &[(u16, &[u16])] = &[(258, &[8, 8, 8]), (262, &[2]), (277, &[3]), (284, &[2]), (278, &[1])];
    // One strip a plane: offsets and lengths of their own, which come before those of the function.
    let mut bytes = tiff_of(2, 1, planes, &[1, 2, 3, 4, 5, 6]);
    let entry = bytes.windows(4).position(|four| four == [273u16.to_le_bytes(), 3u16.to_le_bytes()].concat()).unwrap();
    let (offsets, lengths) = (bytes.len() as u32, bytes.len() as u32 + 6);
    bytes[entry + 4..entry + 12].copy_from_slice(&[3u32.to_le_bytes(), offsets.to_le_bytes()].concat());
    bytes[entry + 16..entry + 24].copy_from_slice(&[3u32.to_le_bytes(), lengths.to_le_bytes()].concat());
    bytes.extend([8u16, 10, 12, 2, 2, 2].map(u16::to_le_bytes).concat());
    assert_eq!(decode(&bytes, Path::new("x.tif")).unwrap().rgb, [1, 3, 5, 2, 4, 6]);

    let mut map = vec![0u16; 12];
    map[1] = 0xff00;
    map[4 + 1] = 0x8000;
    let palette = tiff_of(2, 1, &[(258, &[2]), (262, &[3]), (320, &map)], &[0b0001_0000]);
    assert_eq!(decode(&palette, Path::new("x.tif")).unwrap().rgb, [0, 0, 0, 255, 128, 0]);
    map.iter_mut().for_each(|entry| *entry >>= 8);
    let early = tiff_of(2, 1, &[(258, &[2]), (262, &[3]), (320, &map)], &[0b0001_0000]);
    assert_eq!(decode(&early, Path::new("x.tif")).unwrap().rgb, [0, 0, 0, 255, 128, 0]);

    let differences = [0x0100u16, 0x7f80, 0x7f7f].map(u16::to_le_bytes).concat();
    let sums = tiff_of(3, 1, &[(258, &[16]), (262, &[1]), (317, &[2])], &differences);
    assert_eq!(reds(&sums), [1, 128, 255]);
}

#[test]
fn pages_of_a_tiff_are_named() {
    let first = tiff_of(1, 1, &[(258, &[8]), (262, &[1])], &[7]);
    // The same directory again, of another strip.
    let directory = u32::from_le_bytes(*first[4..].first_chunk().unwrap()) as usize;
    let mut two = first.clone();
    let at = two.len() as u32;
    let next = first.len() - 4;
    two[next..next + 4].copy_from_slice(&at.to_le_bytes());
    two.extend_from_slice(&first[directory..]);
    let strip = two.len() as u16;
    let entry = (at as usize..two.len()).find(|&at| two[at..at + 4] == [17, 1, 3, 0]).unwrap();
    two[entry + 8..entry + 10].copy_from_slice(&strip.to_le_bytes());
    two.push(9);
    let shown = |name: &str| {
        let (pixels, seen) = decode_seen(&two, Path::new(name), &Default::default()).unwrap();
        (pixels.rgb[0], seen.place.map(|place| place.to_string()))
    };
    assert_eq!(shown("x.tif"), (7, Some("page 1 of 2".into())));
    assert_eq!(shown("x.tif#frame=2"), (9, None));
    let none = decode(&two, Path::new("x.tif#frame=3")).unwrap_err().to_string();
    assert!(none.contains("the file has 2 pages: there is no page 3"), "{none}");
}

/// What fills little of its range is told, and a window is laid on it.
#[test]
fn deep_samples_use_the_window() {
    let words: Vec<u8> = [0u16, 2048, 4095].iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = tiff_of(3, 1, &[(258, &[16]), (262, &[1])], &words);
    let shown = |window: &str| {
        let rendering = Rendering { window: window.parse().unwrap(), ..Default::default() };
        let (pixels, seen) = decode_seen(&file, Path::new("x.tif"), &rendering).unwrap();
        (pixels.rgb.chunks_exact(3).map(|pixel| pixel[0]).collect::<Vec<_>>(), seen)
    };
    let (levels, seen) = shown("auto");
    assert_eq!(levels, [0, 8, 16]);
    assert!(seen.little_range().is_some_and(|share| (share - 0.0625).abs() < 1e-3) && !seen.flat);
    let (levels, seen) = shown("minmax");
    assert_eq!((levels, seen.range_used), (vec![0, 128, 255], None));
    let (levels, seen) = shown("center=60000,width=10");
    assert_eq!((levels, seen.flat), (vec![0, 0, 0], true));

    let grey16 = fs::read(golden("grey16.png")).unwrap();
    let of_png = |window: &str| {
        let rendering = Rendering { window: window.parse().unwrap(), ..Default::default() };
        decode_seen(&grey16, Path::new("x.png"), &rendering).unwrap()
    };
    let (stretched, _) = of_png("minmax");
    assert!(stretched.rgb.contains(&0) && stretched.rgb.contains(&255));
    assert_ne!(stretched, of_png("auto").0);
    // Bytes have no window, which is told.
    let (_, seen) = decode_seen(
        &fs::read(golden("grey8.png")).unwrap(),
        Path::new("x.png"),
        &Rendering { window: Window::MinMax, ..Default::default() },
    )
    .unwrap();
    assert!(seen.window_unused);
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
            depth: None,
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
        depth: None,
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
