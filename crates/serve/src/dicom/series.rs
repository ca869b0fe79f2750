//! A series that is complete: its images in their order, and what speaks against it.

use super::files;
use super::results::Source;
use super::route::Routes;
use super::shelf::Images;
use super::spool::{self, Origin};
use super::worker::Trouble;
use crate::request::SliceFile;
use melo_imaging::dicom;
use melo_vit::hex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(super) struct Complete {
    pub(super) uid: String,
    /// Of the first image that came: who sent it, and its name.
    pub(super) origin: Origin,
    pub(super) first: String,
    /// By place along the slice normal, else by instance number, each once.
    pub(super) images: Vec<OfSeries>,
}

pub(super) struct OfSeries {
    pub(super) source: Source,
    pub(super) file: SliceFile,
    tasks: Vec<String>,
}

/// Who sent the first image of a folder that came.
pub(super) fn origin(folder: &Path) -> Origin {
    let names = files::objects(folder).unwrap_or_default();
    spool::origin(&folder.join(names.first().map_or("", String::as_str)))
}

impl Complete {
    /// Reads the images of a folder, one at a time.
    ///
    /// # Errors
    /// [`Trouble::Refused`] for what is no bag, [`Trouble::Later`] where it cannot be read.
    pub(super) fn read(folder: &Path, routes: &Routes) -> Result<Self, Trouble> {
        let later = |error: std::io::Error| Trouble::Later(error.to_string());
        let names = files::objects(folder).map_err(later)?;
        let found = dicom::series(folder).map_err(|error| match error {
            melo_imaging::Error::Read { source, .. } => Trouble::Later(source.to_string()),
            other => Trouble::Refused(other.to_string()),
        })?;
        let count: usize = found.iter().map(|series| series.instances.len()).sum();
        let [series] = &found[..] else {
            return Err(Trouble::Refused(format!("expected images of one series, found {} series", found.len())));
        };
        if count < names.len() {
            return Err(Trouble::Refused(format!(
                "{} of its {} objects hold no image",
                names.len() - count,
                names.len()
            )));
        }
        if let Some(two) = series.of_two_sizes(|instance| instance.uid.clone().unwrap_or_default()) {
            return Err(Trouble::Refused(format!("series {}: {two}", series.uid)));
        }
        let mut images: Vec<OfSeries> = Vec::new();
        let mut known: HashMap<String, [u8; 32]> = HashMap::new();
        for instance in &series.instances {
            let bytes = std::fs::read(&instance.path).map_err(later)?;
            let source = Source::read(&bytes).map_err(Trouble::Refused)?;
            match known.insert(source.instance.clone(), source.digest) {
                Some(same) if same == source.digest => continue,
                Some(_) => {
                    let uid = &source.instance;
                    return Err(Trouble::Refused(format!(
                        "two images of the series have SOP Instance UID {uid}: one of them is not what it says"
                    )));
                }
                None => {}
            }
            let file = SliceFile {
                path: instance.path.clone(),
                digest: hex(&Sha256::digest(&bytes)),
                sop_instance_uid: source.instance.clone(),
            };
            images.push(OfSeries { source, file, tasks: routes.tasks(&bytes).map_err(Trouble::Refused)? });
        }
        let first = names.first().cloned().unwrap_or_default();
        Ok(Complete { uid: series.uid.clone(), origin: spool::origin(&folder.join(&first)), first, images })
    }

    /// What is remembered of it.
    pub(super) fn digests(&self) -> Images {
        self.images.iter().map(|image| (image.source.instance.clone(), hex(&image.source.digest))).collect()
    }

    /// Tasks with the images that their routes take: those of the same images together.
    pub(super) fn bags(&self) -> Vec<(Vec<String>, Vec<&OfSeries>)> {
        let mut of_tasks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, image) in self.images.iter().enumerate() {
            image.tasks.iter().for_each(|task| of_tasks.entry(task).or_default().push(index));
        }
        let mut bags: BTreeMap<Vec<usize>, Vec<String>> = BTreeMap::new();
        of_tasks.into_iter().for_each(|(task, images)| bags.entry(images).or_default().push(task.to_owned()));
        let of = |(images, tasks): (Vec<usize>, Vec<String>)| {
            (tasks, images.into_iter().map(|index| &self.images[index]).collect())
        };
        bags.into_iter().map(of).collect()
    }
}

/// Whether all images were answered before, with others that are not sent again.
///
/// # Errors
/// A sentence: there are new ones, and not all of those that were answered with; or an image is another than before.
pub(super) fn is_known(before: &Images, now: &Images) -> Result<bool, String> {
    if let Some((uid, _)) = now.iter().find(|(uid, digest)| before.get(*uid).is_some_and(|known| known != *digest)) {
        return Err(format!(
            "another image with SOP Instance UID {uid} was answered before: one of them is not what it says"
        ));
    }
    let missing = before.keys().filter(|uid| !now.contains_key(*uid)).count();
    let new = now.keys().filter(|uid| !before.contains_key(*uid)).count();
    match (missing, new) {
        (0, _) => Ok(false),
        (_, 0) => Ok(true),
        _ => Err(format!(
            "the series was answered with {} images before, {new} new ones came, and {missing} of those are not here: send the whole series again",
            before.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_grew_is_answered_whole_or_not_at_all() {
        let images =
            |uids: &[&str]| -> Images { uids.iter().map(|uid| ((*uid).to_owned(), format!("of {uid}"))).collect() };
        let before = images(&["1", "2"]);
        assert_eq!(is_known(&before, &before), Ok(false), "the same again, with the same identifiers");
        assert_eq!(is_known(&before, &images(&["1", "2", "3"])), Ok(false), "it grew");
        assert_eq!(is_known(&before, &images(&["2"])), Ok(true), "nothing new");
        let late = is_known(&before, &images(&["2", "3"])).unwrap_err();
        assert!(late.contains("with 2 images before, 1 new ones came, and 1 of those"), "{late}");
        let forged = Images::from([("1".to_owned(), "of another".to_owned())]);
        assert!(is_known(&before, &forged).unwrap_err().contains("SOP Instance UID 1"));
    }
}
