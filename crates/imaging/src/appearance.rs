//! What a file looks like that is no image, in words: people drop reports and archives where images are wanted.

use std::str;

/// Bytes that are looked at to tell text from numbers.
const LOOKED_AT: usize = 4096;

/// First bytes of kinds that are met in folders of images, and where they begin.
const KINDS: [(usize, &[u8], &str); 40] = [
    (0, b"%PDF", "a PDF document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document or table of an older Microsoft Office"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"\xc5\xd0\xd3\xc6", "an Encapsulated PostScript picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"ObjectType =", "the header of a MetaImage volume"),
    (0, b"NDims =", "the header of a MetaImage volume"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (MATLAB, MINC)"),
    (0, b"MATLAB 5.0", "a MATLAB file"),
    (0, b"CDF\x01", "a NetCDF file"),
    (0, b"\x93NUMPY", "a damaged NumPy array"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x1f\x8b", "gzip-compressed, and no NIfTI-1 volume inside"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM film"),
    (4, b"ftyphei", "a HEIC picture, as phones take them"),
    (4, b"ftyphev", "a HEIC picture, as phones take them"),
    (4, b"ftypmif1", "a HEIC picture, as phones take them"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyp", "a film (MP4 or QuickTime)"),
    (8, b"AVI ", "a film (AVI)"),
    (8, b"WAVE", "a sound (WAV)"),
    (0, b"ID3", "a sound (MP3)"),
    (0, b"MZ", "a Windows program"),
    (0, b"\x7fELF", "a Linux program"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself (`git lfs pull`)"),
    (0, b"/annex/objects", "a pointer of git-annex: fetch the file itself (`git annex get`)"),
];

/// The rest of "this is ...".
pub(crate) fn in_words(bytes: &[u8]) -> &'static str {
    let begins = |&&(at, first, _): &&(usize, &[u8], _)| bytes.get(at..).is_some_and(|rest| rest.starts_with(first));
    if let Some((_, _, words)) = KINDS.iter().find(begins) {
        return words;
    }
    if is_tensor_file(bytes) {
        return "a safetensors file: weights";
    }
    let beginning = &bytes[..bytes.len().min(LOOKED_AT)];
    match text(beginning) {
        Some(text) => kind_of_text(text),
        None if beginning.starts_with(&[0xff, 0xfe]) || beginning.starts_with(&[0xfe, 0xff]) => "text in UTF-16",
        None if beginning.iter().all(|&byte| byte == 0) => "zeros from its first byte: a copy that failed, perhaps",
        None => "of no known kind",
    }
}

/// What an archive without arrays is, by the names in it.
pub(crate) fn of_archive(mut names: impl Iterator<Item = impl AsRef<str>>) -> &'static str {
    let kinds = [
        ("word/", "a Word document"),
        ("ppt/", "a PowerPoint presentation"),
        ("xl/", "an Excel table"),
        ("META-INF/MANIFEST.MF", "a Java archive"),
    ];
    let found = names.find_map(|name| kinds.into_iter().find(|(first, _)| name.as_ref().starts_with(first)));
    found.map_or("a ZIP archive without NumPy arrays: unpack it", |(_, words)| words)
}

/// Eight bytes of a length, then an object of JSON (the format of safetensors).
fn is_tensor_file(bytes: &[u8]) -> bool {
    bytes.get(..9).is_some_and(|head| head[8] == b'{' && head[..8].iter().filter(|byte| **byte == 0).count() >= 4)
}

/// The bytes where they are text; a letter that the end cuts is none the less.
fn text(bytes: &[u8]) -> Option<&str> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_text = !text.is_empty() && text.chars().all(|letter| !letter.is_control() || "\t\r\n\x0c".contains(letter));
    is_text.then_some(text)
}

fn kind_of_text(text: &str) -> &'static str {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let head: String = text.chars().take(200).flat_map(char::to_lowercase).collect();
    match () {
        () if head.starts_with("<!doctype html") || head.starts_with("<html") => {
            "a web page (HTML): what a failed download leaves, perhaps"
        }
        () if head.starts_with("<svg") || (head.starts_with("<?xml") && text.contains("<svg")) => "an SVG drawing",
        () if head.starts_with("<?xml") => "XML",
        () if text.starts_with('{') || text.starts_with('[') => "JSON",
        () if is_netpbm(text) => "a NetPBM picture",
        () if is_table(text) => "a table as text (CSV)",
        () => "text",
    }
}

/// `P1` to `P6`, then space (netpbm.sourceforge.net).
fn is_netpbm(text: &str) -> bool {
    matches!(text.as_bytes(), [b'P', b'1'..=b'6', space, ..] if space.is_ascii_whitespace())
}

/// As many separators in its second line as in its first.
fn is_table(text: &str) -> bool {
    let mut lines = text.lines();
    let (first, second) = (lines.next().unwrap_or_default(), lines.next());
    let separators = |line: &str| [',', ';', '\t'].map(|separator| line.matches(separator).count());
    let found = separators(first);
    match second {
        Some(second) => found.into_iter().zip(separators(second)).any(|(a, b)| a > 0 && a == b),
        None => found[0] > 0 && !first.contains(' '),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_images_are_told_in_words() {
        let cases: [(&[u8], &str); 18] = [
            (b"%PDF-1.7\n", "a PDF document"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC picture, as phones take them"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "a film (MP4 or QuickTime)"),
            (b"RIFF\0\0\0\0AVI LIST", "a film (AVI)"),
            (b"\x1f\x8b\x08\0", "gzip-compressed, and no NIfTI-1 volume inside"),
            (b"<!DOCTYPE html><p>404", "a web page (HTML): what a failed download leaves, perhaps"),
            (b"<?xml version=\"1.0\"?>\n<svg/>", "an SVG drawing"),
            (b"<?xml version=\"1.0\"?>\n<a/>", "XML"),
            (b"{\"a\": 1}", "JSON"),
            (b"P3\n2 2\n255\n", "a NetPBM picture"),
            (b"path,label\na.png,mass\n", "a table as text (CSV)"),
            (b"patient,", "a table as text (CSV)"),
            (b"Dear colleague,\nplease find, as told, the film", "text"),
            ("Gr\u{fc}\u{df}e".as_bytes(), "text"),
            (b"\xff\xfea\0b\0", "text in UTF-16"),
            (&[0; 600], "zeros from its first byte: a copy that failed, perhaps"),
            (b"\x40\0\0\0\0\0\0\0{\"a\":", "a safetensors file: weights"),
            (b"\x80\x81\x82\x00", "of no known kind"),
        ];
        for (bytes, words) in cases {
            assert_eq!(in_words(bytes), words, "{}", bytes.escape_ascii());
        }
        assert!((0..=255).all(|byte| !in_words(&[byte; 300]).is_empty()));
    }

    #[test]
    fn archives_are_told_by_what_is_in_them() {
        assert_eq!(of_archive(["[Content_Types].xml", "word/document.xml"].into_iter()), "a Word document");
        assert_eq!(of_archive(["a.png"].into_iter()), "a ZIP archive without NumPy arrays: unpack it");
    }
}
