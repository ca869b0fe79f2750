//! Opens every image of a manifest and looks for what would stop training or spoil its results.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use melo_imaging::{MaskReading, Pixels, Seen};
use melo_vit::{Rendering, TaskKind};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::appearance::Appearance;
use crate::assign::PatientKey;
use crate::fingerprint::Fingerprint;
use crate::near::{Look, near_duplicates};
use crate::report::{ClassInSplit, DuplicateFile, SizeCount, SplitCount, Spread};
use crate::unpacked::UnpackedFiles;
use crate::{CheckReport, Error, Labels, Manifest, MaskFile, Packed, Problem, Row, Split, Warning, masks};

/// Sides below this are reported: two patches of 16 pixels, the patch of most ViTs.
const SMALL_SIDE: usize = 32;

/// SHA-256 of a file.
type FileDigest = [u8; 32];

/// What reading one file gave: its digest, if it could be read, and what it is like, if it is an image.
struct Image {
    digest: Option<FileDigest>,
    looks: Result<(Appearance, Option<Fingerprint>), String>,
    seen: Seen,
    /// What is wrong with its mask, or the digest of one that shows more than one class.
    mask: Result<Option<FileDigest>, String>,
}

impl Image {
    fn broken(digest: Option<FileDigest>, reason: String) -> Self {
        Image { digest, looks: Err(reason), seen: Seen::default(), mask: Ok(None) }
    }

    fn size(&self) -> Option<(usize, usize)> {
        self.looks.as_ref().ok().map(|(appearance, _)| (appearance.width, appearance.height))
    }
}

/// Decodes every file on the ambient `rayon` pool and reports on files, labels, patients and splits.
///
/// Call [`Manifest::assign_splits`] first to see what training will see. `progress(done, of)` is called from the
/// pool's threads, once an image.
pub fn check(manifest: &Manifest, progress: &(dyn Fn(usize, usize) + Sync)) -> CheckReport {
    examine(manifest, progress).0
}

/// [`check`], and what each row's image is like (`None` if it cannot be read), from the same decoding.
pub fn examine(
    manifest: &Manifest,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> (CheckReport, Vec<Option<Appearance>>) {
    let (seen, wrong_classes) = with_masks_seen(manifest);
    let manifest = &*seen;
    let done = AtomicUsize::new(0);
    let unpacked = UnpackedFiles::default();
    let open = |row: &Row| {
        let mut image = open(row, &unpacked);
        if let Some(mask) = &row.mask {
            image.mask = open_mask(mask, row, image.size());
        }
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, manifest.rows.len());
        image
    };
    let images: Vec<Image> = manifest.rows.par_iter().map(open).collect();

    let splits = count_splits(manifest);
    let report = CheckReport {
        path: manifest.path.clone(),
        classes: manifest.classes.clone(),
        kind: manifest.kind,
        images: manifest.rows.len(),
        patients: match distinct_patients(manifest.rows.iter()) {
            0 => None,
            patients => Some(patients),
        },
        sizes: count_sizes(&images),
        notes: manifest.reading.notes.clone(),
        problems: wrong_classes.into_iter().chain(problems(manifest, &splits, &images)).collect(),
        warnings: warnings(manifest, &splits, &images),
        splits,
    };
    let appearance = |image: Image| image.looks.ok().map(|(appearance, _)| appearance);
    (report, images.into_iter().map(appearance).collect())
}

/// The manifest with the classes that its masks show, or without any and with what is wrong with all of them together; what is wrong with
/// a single mask is said where it is opened.
fn with_masks_seen(manifest: &Manifest) -> (Cow<'_, Manifest>, Option<Problem>) {
    if manifest.kind != TaskKind::Segmentation {
        return (Cow::Borrowed(manifest), None);
    }
    let without = || Cow::Owned(Manifest { classes: Vec::new(), ..manifest.clone() });
    match manifest.with_mask_classes() {
        Ok(seen) => (Cow::Owned(seen), None),
        Err(Error::Unreadable { .. }) => (without(), None),
        Err(error) => (without(), Some(Problem::MaskClasses { reason: error.to_string() })),
    }
}

fn open(row: &Row, unpacked: &UnpackedFiles) -> Image {
    if let Some(packed) = &row.packed {
        return open_packed(packed);
    }
    if let Some(file) = unpacked.of(&row.path) {
        let digest = with_part(file.digest.clone(), &row.path);
        return opened(file.unpacked.decode_seen(&row.path, &Rendering::default()), digest, file.bytes);
    }
    match std::fs::read(melo_imaging::file_of(&row.path)) {
        Err(source) => Image::broken(None, format!("cannot be read: {source}")),
        Ok(bytes) => {
            let digest = with_part(Sha256::new_with_prefix(&bytes), &row.path);
            opened(melo_imaging::decode_seen(&bytes, &row.path, &Rendering::default()), digest, bytes.len())
        }
    }
}

fn opened(decoded: Result<(Pixels, Seen), melo_imaging::Error>, digest: FileDigest, bytes: usize) -> Image {
    let digest = Some(digest);
    match decoded {
        Ok((pixels, seen)) => {
            let looks = (Appearance::of(&pixels, bytes as u64), Fingerprint::of(&pixels));
            Image { digest, looks: Ok(looks), seen, mask: Ok(None) }
        }
        // The path is said once, by whoever prints the row's name.
        Err(error) => Image::broken(digest, error.without_name().to_string()),
    }
}

/// The mask of any classes, and of its image's size if that is known.
fn open_mask(mask: &MaskFile, row: &Row, size: Option<(usize, usize)>) -> Result<Option<FileDigest>, String> {
    let reason = |error: Error| match error {
        Error::Image(error) => error.without_name().to_string(),
        error => error.to_string(),
    };
    let found = masks::read(&mask.path, &row.path, &MaskReading::default()).map_err(reason)?;
    if let Some((width, height)) = size {
        found.check_size(&mask.path, width, height).map_err(|error| error.without_name().to_string())?;
    }
    // Empty masks are alike, and tell nothing.
    let varied = found.labels.iter().any(|&label| label != found.labels[0]);
    let size = [found.width as u64, found.height as u64].map(u64::to_le_bytes).concat();
    Ok(varied.then(|| Sha256::new().chain_update(size).chain_update(&found.labels).finalize().into()))
}

/// An image as it was packed: equal pixels, not equal files, are duplicates here.
fn open_packed(packed: &Packed) -> Image {
    match packed.as_stored() {
        Err(error) => Image::broken(None, error.to_string()),
        Ok((pixels, bytes)) => {
            let mut digest = Sha256::new();
            digest.update((pixels.width as u64).to_le_bytes());
            digest.update(&pixels.rgb);
            Image {
                digest: Some(digest.finalize().into()),
                looks: Ok((Appearance::of(&pixels, bytes as u64), Fingerprint::of(&pixels))),
                seen: Seen::default(),
                mask: Ok(None),
            }
        }
    }
}

/// Of a file's bytes, and of which image in it a path names.
fn with_part(file: Sha256, path: &Path) -> FileDigest {
    let whole = melo_imaging::file_of(path);
    let part = path.to_string_lossy().strip_prefix(&*whole.to_string_lossy()).map(str::to_owned);
    file.chain_update(part.unwrap_or_default()).finalize().into()
}

/// Number of distinct patient ids.
fn distinct_patients<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    rows.filter_map(|row| row.patient_id.as_deref()).collect::<BTreeSet<_>>().len()
}

fn count_splits(manifest: &Manifest) -> Vec<SplitCount> {
    let known = Split::ALL.map(Some).into_iter().chain([None]);
    let numbers = manifest.kind == TaskKind::Regression;
    let count = known.map(|split| {
        let rows = || manifest.rows.iter().filter(move |row| row.split == split);
        let classes = 0..manifest.classes.len();
        let images_of = |class| rows().filter(|row| row.labels.has(class)).count();
        SplitCount {
            split,
            images: rows().count(),
            patients: distinct_patients(rows()),
            images_of: if numbers { Vec::new() } else { classes.clone().map(images_of).collect() },
            images_of_none: match manifest.kind {
                TaskKind::MultiLabel => rows().filter(|row| !classes.clone().any(|c| row.labels.has(c))).count(),
                _ => 0,
            },
            spreads: if numbers { classes.filter_map(|number| spread(rows(), number)).collect() } else { Vec::new() },
        }
    });
    count.filter(|count| count.images > 0).collect()
}

/// The least, the middle and the largest of a number; none of no image.
fn spread<'a>(rows: impl Iterator<Item = &'a Row>, number: usize) -> Option<Spread> {
    let mut values: Vec<f32> = rows.filter_map(|row| row.labels.number(number)).collect();
    values.sort_by(f32::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    Some(Spread { least, median: values[values.len() / 2], most })
}

fn count_sizes(images: &[Image]) -> Vec<SizeCount> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for size in images.iter().filter_map(Image::size) {
        *counts.entry(size).or_default() += 1;
    }
    let mut sizes: Vec<SizeCount> =
        counts.into_iter().map(|((width, height), images)| SizeCount { width, height, images }).collect();
    sizes.sort_by_key(|size| Reverse(size.images));
    sizes
}

fn problems(manifest: &Manifest, splits: &[SplitCount], images: &[Image]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if manifest.has_splits() {
        for split in [Split::Train, Split::Val] {
            if !splits.iter().any(|count| count.split == Some(split)) {
                problems.push(Problem::EmptySplit { split });
            }
        }
    }
    for split in [Split::Train, Split::Val] {
        let rows = manifest.split(split);
        if let Some(first) = rows.first()
            && !manifest.classes.is_empty()
            && rows.iter().all(|row| row.labels == first.labels)
            // Masks of the same two classes lie elsewhere in each image.
            && !(manifest.kind == TaskKind::Segmentation && first.labels != background(manifest.classes.len()))
        {
            let shown = manifest.classes.iter().zip(0..).filter(|&(_, class)| first.labels.has(class));
            let classes = match &first.labels {
                Labels::Values(_) => vec![manifest.describe(&first.labels)],
                _ => shown.map(|(name, _)| name.clone()).collect(),
            };
            problems.push(Problem::OneClass { split, classes });
        }
    }
    for (row, image) in manifest.rows.iter().zip(images) {
        let (name, line) = (row.name.clone(), row.line);
        if !row.labels.fits(manifest.classes.len(), manifest.kind) {
            problems.push(Problem::BrokenLabels { name: name.clone(), line });
        }
        if let Err(reason) = &image.looks {
            problems.push(Problem::Unreadable { name: name.clone(), line, reason: reason.clone() });
        }
        if let (Err(reason), Some(mask)) = (&image.mask, &row.mask) {
            problems.push(Problem::Mask { name, line, mask: mask.name.clone(), reason: reason.clone() });
        }
    }
    problems
}

/// What a mask shows that shows nothing.
fn background(classes: usize) -> Labels {
    Labels::Multi((0..classes).map(|class| u8::from(class == 0)).collect())
}

fn warnings(manifest: &Manifest, splits: &[SplitCount], images: &[Image]) -> Vec<Warning> {
    let mut warnings = manifest.reading.warnings.clone();
    warnings.extend(duplicates(manifest, images));
    warnings.extend(masks_across_splits(manifest, images));
    warnings.extend(near_duplicates(manifest, &looks(images)));
    if !manifest.has_splits() {
        warnings.push(Warning::Unassigned);
    } else if !splits.iter().any(|count| count.split == Some(Split::Test)) {
        warnings.push(Warning::NoTest);
    }
    warnings.extend(rare_classes(manifest, splits));
    let small = |image: &Image| image.size().is_some_and(|(width, height)| width.min(height) < SMALL_SIDE);
    let names: Vec<String> =
        manifest.rows.iter().zip(images).filter(|(_, image)| small(image)).map(|(row, _)| row.name.clone()).collect();
    if !names.is_empty() {
        warnings.push(Warning::SmallImages { names });
    }
    warnings.extend(seen(manifest, images));
    warnings
}

/// What the decoder saw, with the names of the images.
fn seen(manifest: &Manifest, images: &[Image]) -> Vec<Warning> {
    let names = |wanted: &dyn Fn(&Seen) -> bool| -> Vec<String> {
        let rows = manifest.rows.iter().zip(images).filter(|(_, image)| wanted(&image.seen));
        rows.map(|(row, _)| row.name.clone()).collect()
    };
    let (little, flat) = (names(&|seen| seen.little_range().is_some()), names(&|seen| seen.flat));
    let several = names(&|seen| seen.place.is_some());
    let share = images.iter().filter_map(|image| image.seen.little_range()).fold(0.0, f32::max);
    let percent = (100.0 * share).ceil() as u32;
    [
        (!little.is_empty()).then_some(Warning::LittleRange { names: little, percent }),
        (!flat.is_empty()).then_some(Warning::Flat { names: flat }),
        (!several.is_empty()).then_some(Warning::OneOfSeveral { names: several }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn duplicates(manifest: &Manifest, images: &[Image]) -> Vec<Warning> {
    let mut rows_of: HashMap<FileDigest, Vec<&Row>> = HashMap::new();
    for (row, image) in manifest.rows.iter().zip(images) {
        if let Some(digest) = image.digest {
            rows_of.entry(digest).or_default().push(row);
        }
    }
    let mut equal: Vec<Vec<&Row>> = rows_of.into_values().filter(|rows| rows.len() > 1).collect();
    equal.sort_by_key(|rows| (rows[0].line, &rows[0].name));

    let groups_where = |wanted: &dyn Fn(&[&Row]) -> bool| -> Vec<Vec<DuplicateFile>> {
        let file = |row: &&Row| DuplicateFile { name: row.name.clone(), line: row.line, split: row.split };
        equal.iter().filter(|rows| wanted(rows)).map(|rows| rows.iter().map(file).collect()).collect()
    };
    let across = |rows: &[&Row]| rows.iter().any(|row| row.split != rows[0].split);
    let disagree = |rows: &[&Row]| rows.iter().any(|row| row.labels != rows[0].labels);
    let groups = [groups_where(&across), groups_where(&disagree), groups_where(&|rows| !across(rows))];
    let [across, disagree, within] = groups.map(|groups| (!groups.is_empty()).then_some(groups));
    [
        across.map(|groups| Warning::DuplicatesAcrossSplits { groups }),
        disagree.map(|groups| Warning::DuplicatesDisagree { groups }),
        within.map(|groups| Warning::DuplicatesWithinSplit { groups }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Masks of equal pixels in more than one split.
fn masks_across_splits(manifest: &Manifest, images: &[Image]) -> Option<Warning> {
    let mut rows_of: HashMap<FileDigest, Vec<&Row>> = HashMap::new();
    for (row, image) in manifest.rows.iter().zip(images) {
        if let Ok(Some(digest)) = image.mask {
            rows_of.entry(digest).or_default().push(row);
        }
    }
    let across = |rows: &Vec<&Row>| rows.iter().any(|row| row.split != rows[0].split);
    let mut groups: Vec<Vec<&Row>> = rows_of.into_values().filter(across).collect();
    groups.sort_by_key(|rows| (rows[0].line, &rows[0].name));
    let file = |row: &&Row| DuplicateFile { name: row.name.clone(), line: row.line, split: row.split };
    let groups: Vec<Vec<DuplicateFile>> = groups.iter().map(|rows| rows.iter().map(file).collect()).collect();
    (!groups.is_empty()).then_some(Warning::MasksAcrossSplits { groups })
}

/// Numbers files by their bytes; those that cannot be read have no fingerprint either.
fn looks(images: &[Image]) -> Vec<Look> {
    let mut numbers: HashMap<FileDigest, usize> = HashMap::new();
    let look = |image: &Image| {
        let next = numbers.len();
        Look {
            fingerprint: image.looks.as_ref().ok().and_then(|(_, fingerprint)| *fingerprint),
            bytes: image.digest.map_or(next, |digest| *numbers.entry(digest).or_insert(next)),
        }
    };
    images.iter().map(look).collect()
}

fn rare_classes(manifest: &Manifest, splits: &[SplitCount]) -> Vec<Warning> {
    if manifest.kind == TaskKind::Regression {
        return Vec::new();
    }
    let mut absent = Vec::new();
    let mut everywhere = Vec::new();
    let mut single = Vec::new();
    let all_of = |class: usize| splits.iter().map(|count| count.images_of[class]).sum::<usize>();
    for count in splits {
        let Some(split) = count.split else { continue };
        for ((name, class), &images) in manifest.classes.iter().zip(0..).zip(&count.images_of) {
            let found = ClassInSplit { class: name.clone(), split };
            match images {
                0 => absent.push(found),
                // Of a class with one image in all, another warning tells.
                1 if all_of(class) == 1 => {}
                1 => single.push(found),
                images if manifest.kind == TaskKind::MultiLabel && images == count.images => everywhere.push(found),
                _ => {}
            }
        }
    }
    let of_one_patient = |&(_, class): &(&String, usize)| {
        let shown = manifest.rows.iter().filter(|row| row.labels.has(class));
        shown.map(PatientKey::of).collect::<BTreeSet<_>>().len() == 1 && all_of(class) > 1
    };
    let alone: Vec<String> =
        manifest.classes.iter().zip(0..).filter(of_one_patient).map(|(class, _)| class.clone()).collect();
    [
        (!absent.is_empty()).then_some(Warning::ClassAbsent { classes: absent }),
        (!everywhere.is_empty()).then_some(Warning::ClassEverywhere { classes: everywhere }),
        (!single.is_empty()).then_some(Warning::SingleExample { classes: single }),
        (!alone.is_empty()).then_some(Warning::SinglePatient { classes: alone }),
    ]
    .into_iter()
    .flatten()
    .collect()
}
