//! How wide a text will be, without a font: an upper bound, so that labels stay clear of each other.

use unicode_width::UnicodeWidthChar;

/// Width of `text` in units of its font size, no less than in DejaVu Sans, the widest of the usual fonts.
pub(super) fn ems(text: &str) -> f64 {
    text.chars().map(em).sum()
}

/// Advances of DejaVu Sans, rounded up by kind of character.
fn em(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | ' ' | '!' | '(' | ')' | '[' | ']' | 'f' | 't'
        | 'r' | '-' | '/' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 1.0,
        '−' | '+' | '<' | '>' | '=' => 0.84,
        'A'..='Z' | '&' | '~' | '#' => 0.79,
        c if c.is_ascii() => 0.64,
        c => match c.width() {
            None | Some(0) => 0.0,
            Some(1) => 0.84,
            Some(_) => 1.05,
        },
    }
}

/// `text` if it fits in `room`, in units of its font size, or else its beginning with an ellipsis; empty where not even
/// that fits.
pub(super) fn clip(text: &str, room: f64) -> String {
    if ems(text) <= room {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = em('…');
    for c in text.chars() {
        used += em(c);
        if used > room {
            break;
        }
        clipped.push(c);
    }
    if clipped.is_empty() {
        return clipped;
    }
    format!("{}…", clipped.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_stays() {
        assert_eq!(clip("edema", ems("edema")), "edema");
    }

    #[test]
    fn a_clipped_text_fits() {
        for text in ["actinic keratoses and more", "肺肺肺肺肺肺肺肺", "WWWWWWWWWWWW", "iiiiiiiiiiiiiiiiiiiiiiiiii"]
        {
            for room in [0.0, 0.5, 1.9, 3.0, 5.5] {
                let clipped = clip(text, room);
                assert!(ems(&clipped) <= room, "{clipped} in {room}");
                assert!(clipped.is_empty() || clipped.ends_with('…'));
            }
        }
    }
}
