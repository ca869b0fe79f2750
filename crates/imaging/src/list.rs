//! Lists of images: text files with an image a line.

use std::path::{Path, PathBuf};

/// An image of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedImage {
    /// As the list calls it.
    pub name: String,
    /// What is read: the name, from the list's folder on; of what has a scheme, `s3://bucket/key`, the name alone.
    pub path: PathBuf,
}

/// The images of a text file with one a line, in its order; empty lines are passed over, and a byte order mark.
///
/// # Errors
/// What the operating system says, also of what is no UTF-8.
pub fn read_list(path: &Path) -> std::io::Result<Vec<ListedImage>> {
    let text = std::fs::read_to_string(path)?;
    let names = text.lines().map(|line| line.trim_start_matches('\u{feff}').trim()).filter(|line| !line.is_empty());
    let folder = melo_vit::folder_of(path);
    let listed = |name: &str| {
        // `./a.png` would be another name than the one that the list has.
        let whole = folder == Path::new(".") || has_scheme(name);
        ListedImage { name: name.to_owned(), path: if whole { name.into() } else { folder.join(name) } }
    };
    Ok(names.map(listed).collect())
}

/// True for `s3://bucket/key`, as RFC 3986 defines schemes.
fn has_scheme(name: &str) -> bool {
    let scheme = name.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_list_but_for_those_with_a_scheme() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list.txt");
        std::fs::write(&list, "\u{feff}a.png\r\n\n  in/b c.png \ns3://films/2024/c.png\n:// d\n").expect("a list");
        let paths: Vec<PathBuf> = read_list(&list).expect("a list").into_iter().map(|listed| listed.path).collect();
        let within = |name: &str| folder.path().join(name);
        assert_eq!(paths, [within("a.png"), within("in/b c.png"), "s3://films/2024/c.png".into(), within(":// d")]);
    }
}
