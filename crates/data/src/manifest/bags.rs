//! Rows that are one example together, and files that are taken apart into such rows.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use melo_imaging::dicom::{self, Instance};
use melo_vit::rendering::Plane;

use super::{InBag, Manifest, Row};
use crate::{Error, ReadOptions, Split};

/// Takes volumes, frames and folders apart where that is asked for, and gives every image of a bag its place there.
///
/// # Errors
/// [`Error::Bag`], [`Error::NoBag`], [`Error::NoVolumes`], [`Error::Image`].
pub(super) fn gather(manifest: &mut Manifest, options: &ReadOptions) -> Result<(), Error> {
    if let Some(plane) = options.bag_plane.filter(|_| manifest.rows.iter().all(|row| row.packed.is_none())) {
        let mut apart = Vec::with_capacity(manifest.rows.len());
        for row in std::mem::take(&mut manifest.rows) {
            apart.extend(parts_of(&manifest.path, row, plane)?);
        }
        manifest.rows = apart;
    }
    let mut firsts: HashMap<String, (usize, usize)> = HashMap::new();
    for at in 0..manifest.rows.len() {
        let Some(InBag { name, .. }) = manifest.rows[at].bag.clone() else { continue };
        let (first, images) = firsts.entry(name).or_insert((at, 0));
        let (first, place) = (*first, std::mem::replace(images, *images + 1));
        if let Some(reason) = contradiction(manifest, &manifest.rows[first], &manifest.rows[at]) {
            let row = &manifest.rows[at];
            let bag = row.bag.as_ref().map_or_else(String::new, |bag| bag.name.clone());
            return Err(Error::Bag { path: manifest.path.clone(), line: row.line, bag, reason });
        }
        if let Some(bag) = &mut manifest.rows[at].bag {
            bag.place = place;
        }
    }
    let several = |row: &Row| row.bag.as_ref().is_some_and(|bag| bag.place > 0);
    if options.bag_plane.is_some() && !manifest.rows.is_empty() && !manifest.rows.iter().any(several) {
        return Err(Error::NoVolumes { path: manifest.path.clone() });
    }
    Ok(())
}

/// In what a row differs from the first of its bag.
fn contradiction(manifest: &Manifest, first: &Row, row: &Row) -> Option<String> {
    let line = if first.line > 0 { format!("line {}", first.line) } else { format!("\"{}\"", first.name) };
    let differ = |what: &str, expected: String, found: String| {
        Some(format!("expected {what} of all its images, found {expected} on {line} and {found} here"))
    };
    if first.patient_id != row.patient_id {
        let named = |row: &Row| row.patient_id.as_ref().map_or("none".to_owned(), |id| format!("\"{id}\""));
        return differ("one patient", named(first), named(row));
    }
    if first.split != row.split {
        let named = |row: &Row| row.split.map_or("none", Split::word).to_owned();
        return differ("one split", named(first), named(row));
    }
    if first.labels != row.labels {
        return differ("one label", manifest.describe(&first.labels), manifest.describe(&row.labels));
    }
    None
}

/// A row a part of its file or folder, all in one bag.
fn parts_of(manifest: &Path, row: Row, plane: Plane) -> Result<Vec<Row>, Error> {
    let bag = row.bag.as_ref().map_or_else(|| row.name.clone(), |bag| bag.name.clone());
    // A file that is not there is told with all others when images are read.
    let images = match melo_imaging::file_of(&row.path).exists() {
        true => images_of_bag(&row.path, plane).map_err(|error| match error {
            Error::NoBag { reason, .. } => {
                Error::Bag { path: manifest.into(), line: row.line, bag: bag.clone(), reason }
            }
            other => other,
        })?,
        false => vec![row.path.clone()],
    };
    let whole = row.path.to_string_lossy().into_owned();
    let part = |path: PathBuf| {
        // What stands behind the whole's path stands behind its name.
        let name = match path.to_string_lossy().strip_prefix(&whole) {
            Some(rest) => format!("{}{}", row.name.trim_end_matches('/'), rest.replace('\\', "/")),
            None => row.name.clone(),
        };
        Row { path, name, bag: Some(InBag { name: bag.clone(), place: 0 }), ..row.clone() }
    };
    Ok(images.into_iter().map(part).collect())
}

/// The images that a path holds, in their order: the instances of the DICOM series in a folder by their place, else the images in it by
/// their names, numbers in them as numbers; of a file its slices along `plane`, frames, pages or images.
///
/// # Errors
/// [`Error::NoBag`] for a folder of several series, of none, or of instances of different sizes; [`Error::Image`].
pub fn images_of_bag(path: &Path, plane: Plane) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(melo_imaging::parts(path, plane)?);
    }
    let wrong = |reason: String| Err(Error::NoBag { path: path.into(), reason });
    let series = dicom::series(path)?;
    match &series[..] {
        [] => {}
        [one] => {
            let name =
                |instance: &Instance| instance.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return match one.of_two_sizes(name) {
                Some(two) => wrong(two),
                None => Ok(one.instances.iter().map(|instance| instance.path.clone()).collect()),
            };
        }
        several => {
            return wrong(format!("expected the files of one series, found {} series", several.len()));
        }
    }
    let mut images = melo_imaging::images_in(path)?.images;
    images.sort_by(|a, b| by_numbers(&a.to_string_lossy(), &b.to_string_lossy()));
    match images.is_empty() {
        true => wrong("an empty bag: expected images in the folder, found none".to_owned()),
        false => Ok(images),
    }
}

/// The order of names in which `slice_2` stands before `slice_10`.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (a_digits, b_digits) = (digits(a_rest), digits(b_rest));
        if a_digits > 0 && b_digits > 0 {
            let (a_number, b_number) = (&a_rest[..a_digits], &b_rest[..b_digits]);
            let [a_plain, b_plain] = [a_number, b_number].map(|number| number.trim_start_matches('0'));
            let order = a_plain.len().cmp(&b_plain.len()).then_with(|| a_plain.cmp(b_plain));
            if order != Ordering::Equal {
                return order;
            }
            (a_rest, b_rest) = (&a_rest[a_digits..], &b_rest[b_digits..]);
            continue;
        }
        let (mut a_letters, mut b_letters) = (a_rest.chars(), b_rest.chars());
        match (a_letters.next(), b_letters.next()) {
            (Some(x), Some(y)) if x == y => (a_rest, b_rest) = (a_letters.as_str(), b_letters.as_str()),
            // Of names that differ in zeros alone.
            (None, None) => return a.cmp(b),
            (x, y) => return x.cmp(&y),
        }
    }
}

/// Hashes which image is where in which bag, if any is: `rows` in the order of their names.
pub(super) fn digest(rows: &[&Row], field: &mut dyn FnMut(&str)) {
    if rows.iter().all(|row| row.bag.is_none()) {
        return;
    }
    field("melo-bags-1");
    for row in rows {
        field(&row.name);
        field(row.bag.as_ref().map_or("", |bag| &bag.name));
        field(&row.bag.as_ref().map_or(0, |bag| bag.place).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["s10.png", "s2.png", "s02.png", "s1.png", "t1", "s1a", "s"];
        names.sort_by(|a, b| by_numbers(a, b));
        assert_eq!(names, ["s", "s1.png", "s1a", "s02.png", "s2.png", "s10.png", "t1"]);
    }
}
