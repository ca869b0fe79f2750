//! A manifest written as folders: `DIR/class/*` or `DIR/{train,val,test}/class/*`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::path::Path;

use melo_imaging::is_image_file;
use melo_vit::TaskKind;

use super::{Labels, Manifest, Row, index_classes};
use crate::{Error, Note, Reading, Split};

pub(super) fn read(root: &Path) -> Result<Manifest, Error> {
    let mut found = Found::default();
    let folders = found.enter(root, "")?.only_folders(root)?;
    for (split, folder) in splits(root, &folders)? {
        match split {
            None => found.read_class(root, None, "", folder)?,
            Some(_) => {
                let inner = root.join(folder);
                for class in found.enter(&inner, &format!("{folder}/"))?.only_folders(&inner)? {
                    found.read_class(root, split, &format!("{folder}/"), &class)?;
                }
            }
        }
    }
    if found.declared.is_empty() {
        return Err(Error::NoClassFolders { path: root.into() });
    }
    let (classes, labels) = index_classes(found.labels);
    if let Some(class) = found.declared.into_iter().find(|class| !classes.contains(class)) {
        return Err(Error::EmptyClass { path: root.into(), class });
    }
    let mut rows = found.rows;
    rows.iter_mut().zip(labels).for_each(|(row, labels)| row.labels = labels);
    let mut reading = Reading::default();
    if !found.left_out.is_empty() {
        let of = rows.len() + found.left_out.len();
        reading.notes.push(Note::LeftOut { files: found.left_out, of });
    }
    Ok(Manifest { path: root.into(), classes, kind: TaskKind::SingleLabel, rows, reading })
}

/// Each folder of `root` with the split that its name means; `None` for all if they are classes.
fn splits<'a>(root: &Path, folders: &'a [String]) -> Result<Vec<(Option<Split>, &'a str)>, Error> {
    let (named, other): (Vec<&String>, Vec<&String>) =
        folders.iter().partition(|folder| Split::from_word(folder).is_some());
    if let (Some(&split), Some(&other)) = (named.first(), other.first()) {
        let (split, other) = (split.clone(), other.clone());
        return Err(Error::SplitBesideClass { path: root.into(), split, other });
    }
    let mut taken: BTreeMap<Split, &str> = BTreeMap::new();
    for folder in named {
        if let Some(split) = Split::from_word(folder)
            && let Some(first) = taken.insert(split, folder)
        {
            return Err(Error::DuplicateSplit { path: root.into(), first: first.to_owned(), second: folder.clone() });
        }
    }
    let mut folders: Vec<_> = folders.iter().map(|folder| (Split::from_word(folder), folder.as_str())).collect();
    folders.sort_unstable();
    Ok(folders)
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    /// Class of each row.
    labels: Vec<String>,
    /// All class folders, with and without images.
    declared: BTreeSet<String>,
    /// Files that are no images, and hidden folders, by their names in the folder.
    left_out: Vec<String>,
}

impl Found {
    /// Reads `root/inside/class`, where `inside` is empty or ends with `/`.
    fn read_class(&mut self, root: &Path, split: Option<Split>, inside: &str, class: &str) -> Result<(), Error> {
        let folder = format!("{inside}{class}");
        let listing = self.enter(&root.join(&folder), &format!("{folder}/"))?;
        if let Some(nested) = listing.folders.first() {
            return Err(Error::Misplaced { path: root.into(), found: format!("{folder}/{nested}/") });
        }
        self.declared.insert(class.to_owned());
        for image in listing.images {
            let name = format!("{folder}/{image}");
            self.labels.push(class.to_owned());
            let path = root.join(&name);
            let labels = Labels::Single(0);
            self.rows.push(Row {
                path,
                name,
                split,
                labels,
                mask: None,
                bag: None,
                patient_id: None,
                line: 0,
                weight: 1.0,
                packed: None,
            });
        }
        Ok(())
    }

    /// Lists `folder`, called `inside` in the whole, and remembers what is left out of it.
    fn enter(&mut self, folder: &Path, inside: &str) -> Result<Listing, Error> {
        let mut listing = Listing::of(folder)?;
        self.left_out.extend(std::mem::take(&mut listing.left_out).into_iter().map(|name| format!("{inside}{name}")));
        Ok(listing)
    }
}

/// What one folder holds, sorted.
struct Listing {
    folders: Vec<String>,
    images: Vec<String>,
    /// Hidden files and folders, and files that are no images.
    left_out: Vec<String>,
}

impl Listing {
    fn of(folder: &Path) -> Result<Self, Error> {
        let broken = |source| Error::Read { path: folder.into(), source };
        let mut listing = Self { folders: Vec::new(), images: Vec::new(), left_out: Vec::new() };
        for entry in std::fs::read_dir(folder).map_err(broken)? {
            let entry: DirEntry = entry.map_err(broken)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::NameNotUtf8 { path: entry.path() });
            };
            let (path, hidden) = (entry.path(), name.starts_with('.') || name == "__MACOSX");
            match (path.is_dir(), hidden) {
                (true, true) => listing.left_out.push(format!("{name}/")),
                (true, false) => listing.folders.push(name),
                (false, _) if is_image_file(&path) => listing.images.push(name),
                (false, _) => listing.left_out.push(name),
            }
        }
        listing.left_out.sort_unstable();
        listing.folders.sort_unstable();
        listing.images.sort_unstable();
        Ok(listing)
    }

    /// The folders of a place where images would belong to no class.
    fn only_folders(self, place: &Path) -> Result<Vec<String>, Error> {
        match self.images.into_iter().next() {
            Some(image) => Err(Error::Misplaced { path: place.into(), found: image }),
            None => Ok(self.folders),
        }
    }
}
