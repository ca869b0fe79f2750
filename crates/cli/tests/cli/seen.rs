//! What is said of images besides their answers: which of several, how much of their range, no contrast.

use crate::workplace::{Ran, Workplace, melo, run};
use std::path::Path;

/// An array of `kind` and shape, of these bytes.
fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    text += &" ".repeat((64 - (11 + text.len()) % 64) % 64);
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), data].concat()
}

/// A grey TIFF of 16 bits, 32 × 32, whose values reach `most`.
fn deep(most: u16) -> Vec<u8> {
    let strip: Vec<u8> = (0..1024u32).flat_map(|at| ((at * u32::from(most) / 1023) as u16).to_le_bytes()).collect();
    let fields = [(256, 32), (257, 32), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 32), (279, 2048)];
    let mut bytes = [b"II*\0", &(8 + strip.len() as u32).to_le_bytes()[..], &strip].concat();
    bytes.extend((fields.len() as u16).to_le_bytes());
    for (tag, value) in fields {
        bytes.extend([tag, 3, 1, 0, value, 0].map(u16::to_le_bytes).concat());
    }
    bytes.extend([0; 4]);
    bytes
}

fn predict(backbone: &Path, rest: &[&str], images: &[&Path]) -> Ran {
    run(melo().args(["predict", "--backbone"]).arg(backbone).args(rest).args(images))
}

#[test]
fn images_of_little_range_are_counted_once() {
    let place = Workplace::new();
    let backbone = place.tiny_backbone("backbone", 7, Some(3));
    let images =
        [place.write("a.tif", deep(4095)), place.write("b.tif", deep(2047)), place.write("c.tif", deep(65535))];
    let images = images.each_ref().map(|path| path.as_path());
    let ran = predict(&backbone, &[], &images);
    assert_eq!(ran.stderr.matches("of the range of their samples").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("2 images within 7 % of the range"), "{}", ran.stderr);
    assert_eq!(ran.good().lines().count(), 3);
    assert!(!predict(&backbone, &[], &images[2..]).stderr.contains("range"));

    place.write("labels.csv", "path,label\na.tif,x\nb.tif,y\nc.tif,x\n");
    let checked = run(melo().args(["data", "check"]).arg(place.at("labels.csv")));
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("2 images within 7 % of the range of their samples"), "{said}");
}

#[test]
fn the_image_of_several_is_named_and_others_are_offered() {
    let place = Workplace::new();
    let backbone = place.tiny_backbone("backbone", 7, Some(3));
    let data: Vec<u8> = (0..5 * 32 * 32).map(|at| (at / 7) as u8).collect();
    let several = place.write("several.npy", npy("|u1", "5, 32, 32", &data));
    let ran = predict(&backbone, &["--json"], &[&several]);
    assert!(ran.stderr.contains("several.npy: image 0 of 5; name another as"), "{}", ran.stderr);
    let line = ran.json();
    assert_eq!((&line["frame"], &line["frames"]), (&0.into(), &5.into()));
    let named = predict(&backbone, &["--json", "--frame", "3"], &[&several]);
    assert_eq!(named.stderr, "");
    let named = named.json();
    assert!(named["image"].as_str().is_some_and(|image| image.ends_with("several.npy#frame=3")));
    assert_ne!(named["probabilities"], line["probabilities"]);

    let open = place.write("open.npy", npy("|u1", "3, 32, 32", &data[..3 * 1024]));
    predict(&backbone, &[], &[&open]).refused(1, &["open.npy", "[3, 32, 32] without a layout", "#layout="]);
    let first = predict(&backbone, &["--layout", "chw", "--json"], &[&open]).json();
    let other = predict(&backbone, &["--layout", "nhw", "--json"], &[&open]).json();
    assert_ne!(first["probabilities"], other["probabilities"]);
}
