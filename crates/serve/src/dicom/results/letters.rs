//! Letters of five by seven pixels, for the line under a secondary capture.

use melo_imaging::Pixels;

/// Columns and rows of a letter with the space after it.
const CELL: (usize, usize) = (6, 9);
/// Side of a letter's pixel per that many pixels of the image's width: about 50 letters go into a line.
const WIDTH_PER_SCALE: usize = 320;
/// White on black.
const INK: [u8; 3] = [255, 255, 255];

/// Columns of each letter, the lowest bit on top.
#[rustfmt::skip]
const LETTERS: [(char, [u8; 5]); 49] = [
    (' ', [0x00, 0x00, 0x00, 0x00, 0x00]),
    ('%', [0x23, 0x13, 0x08, 0x64, 0x62]),
    ('(', [0x00, 0x1c, 0x22, 0x41, 0x00]),
    (')', [0x00, 0x41, 0x22, 0x1c, 0x00]),
    ('+', [0x08, 0x08, 0x3e, 0x08, 0x08]),
    (',', [0x00, 0x80, 0x70, 0x30, 0x00]),
    ('-', [0x08, 0x08, 0x08, 0x08, 0x08]),
    ('.', [0x00, 0x00, 0x60, 0x60, 0x00]),
    ('/', [0x20, 0x10, 0x08, 0x04, 0x02]),
    ('0', [0x3e, 0x51, 0x49, 0x45, 0x3e]),
    ('1', [0x00, 0x42, 0x7f, 0x40, 0x00]),
    ('2', [0x72, 0x49, 0x49, 0x49, 0x46]),
    ('3', [0x21, 0x41, 0x49, 0x4d, 0x33]),
    ('4', [0x18, 0x14, 0x12, 0x7f, 0x10]),
    ('5', [0x27, 0x45, 0x45, 0x45, 0x39]),
    ('6', [0x3c, 0x4a, 0x49, 0x49, 0x31]),
    ('7', [0x41, 0x21, 0x11, 0x09, 0x07]),
    ('8', [0x36, 0x49, 0x49, 0x49, 0x36]),
    ('9', [0x46, 0x49, 0x49, 0x29, 0x1e]),
    (':', [0x00, 0x00, 0x14, 0x00, 0x00]),
    ('=', [0x14, 0x14, 0x14, 0x14, 0x14]),
    ('?', [0x02, 0x01, 0x59, 0x09, 0x06]),
    ('A', [0x7c, 0x12, 0x11, 0x12, 0x7c]),
    ('B', [0x7f, 0x49, 0x49, 0x49, 0x36]),
    ('C', [0x3e, 0x41, 0x41, 0x41, 0x22]),
    ('D', [0x7f, 0x41, 0x41, 0x41, 0x3e]),
    ('E', [0x7f, 0x49, 0x49, 0x49, 0x41]),
    ('F', [0x7f, 0x09, 0x09, 0x09, 0x01]),
    ('G', [0x3e, 0x41, 0x41, 0x51, 0x73]),
    ('H', [0x7f, 0x08, 0x08, 0x08, 0x7f]),
    ('I', [0x00, 0x41, 0x7f, 0x41, 0x00]),
    ('J', [0x20, 0x40, 0x41, 0x3f, 0x01]),
    ('K', [0x7f, 0x08, 0x14, 0x22, 0x41]),
    ('L', [0x7f, 0x40, 0x40, 0x40, 0x40]),
    ('M', [0x7f, 0x02, 0x1c, 0x02, 0x7f]),
    ('N', [0x7f, 0x04, 0x08, 0x10, 0x7f]),
    ('O', [0x3e, 0x41, 0x41, 0x41, 0x3e]),
    ('P', [0x7f, 0x09, 0x09, 0x09, 0x06]),
    ('Q', [0x3e, 0x41, 0x51, 0x21, 0x5e]),
    ('R', [0x7f, 0x09, 0x19, 0x29, 0x46]),
    ('S', [0x26, 0x49, 0x49, 0x49, 0x32]),
    ('T', [0x03, 0x01, 0x7f, 0x01, 0x03]),
    ('U', [0x3f, 0x40, 0x40, 0x40, 0x3f]),
    ('V', [0x1f, 0x20, 0x40, 0x20, 0x1f]),
    ('W', [0x3f, 0x40, 0x38, 0x40, 0x3f]),
    ('X', [0x63, 0x14, 0x08, 0x14, 0x63]),
    ('Y', [0x03, 0x04, 0x78, 0x04, 0x03]),
    ('Z', [0x61, 0x59, 0x49, 0x4d, 0x43]),
    ('_', [0x40, 0x40, 0x40, 0x40, 0x40]),
];

/// The image with lines of text in a black band under it, so that nothing of the image is hidden.
pub(super) fn below(image: &Pixels, lines: &[String]) -> Pixels {
    let scale = (image.width / WIDTH_PER_SCALE).max(1);
    let most = (image.width / (CELL.0 * scale)).max(1);
    let lines: Vec<Vec<char>> = lines.iter().flat_map(|line| wrapped(line, most)).collect();
    let band = (lines.len() * CELL.1 + 2) * scale;
    let mut shown = Pixels { width: image.width, height: image.height + band, rgb: image.rgb.clone() };
    shown.rgb.resize(shown.width * shown.height * 3, 0);
    for (row, line) in lines.iter().enumerate() {
        for (column, letter) in line.iter().enumerate() {
            let (left, top) = (column * CELL.0 * scale + scale, image.height + (row * CELL.1 + 2) * scale);
            draw(&mut shown, *letter, left, top, scale);
        }
    }
    shown
}

/// Lines of at most `most` letters, broken between words where words are that short.
fn wrapped(line: &str, most: usize) -> Vec<Vec<char>> {
    let mut lines: Vec<Vec<char>> = Vec::new();
    for word in line.to_ascii_uppercase().split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for (piece, letters) in letters.chunks(most).enumerate() {
            match lines.last_mut() {
                Some(line) if piece == 0 && line.len() + 1 + letters.len() <= most => {
                    line.push(' ');
                    line.extend(letters);
                }
                _ => lines.push(letters.to_vec()),
            }
        }
    }
    lines
}

fn draw(image: &mut Pixels, letter: char, left: usize, top: usize, scale: usize) {
    let known = |wanted: char| LETTERS.iter().find(|known| known.0 == wanted).map(|known| known.1);
    let Some(columns) = known(letter).or_else(|| known('?')) else { return };
    for (across, column) in columns.into_iter().enumerate() {
        for down in (0..8).filter(|down| column >> down & 1 == 1) {
            for y in top + down * scale..top + (down + 1) * scale {
                for x in left + across * scale..left + (across + 1) * scale {
                    if x < image.width && y < image.height {
                        let at = (y * image.width + x) * 3;
                        image.rgb[at..at + 3].copy_from_slice(&INK);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_stays_as_it_is_and_text_stands_under_it() {
        let image = Pixels { width: 40, height: 3, rgb: (0..360).map(|value| value as u8).collect() };
        let shown = below(&image, &["no letter of ours: \u{e9}".to_owned()]);
        assert_eq!((shown.width, shown.rgb.len()), (40, 40 * shown.height * 3));
        assert_eq!(shown.rgb[..360], image.rgb[..]);
        let ink = shown.rgb[360..].iter().filter(|value| **value == 255).count();
        assert!(ink > 100 && shown.height > 30, "{ink} of {}", shown.height);
    }

    #[test]
    fn words_are_broken_only_where_they_are_longer_than_a_line() {
        let lines = |text, most| -> Vec<String> { wrapped(text, most).into_iter().map(String::from_iter).collect() };
        assert_eq!(lines("Research software. It is", 12), ["RESEARCH", "SOFTWARE. IT", "IS"]);
        assert_eq!(lines("a spiculated mass", 6), ["A", "SPICUL", "ATED", "MASS"]);
        assert!(lines("", 6).is_empty());
    }
}
