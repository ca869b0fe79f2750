//! [`CheckReport`] as plain text for a terminal.

use std::fmt::{self, Display, Formatter};

use melo_vit::TaskKind;

use crate::Split;
use crate::report::{
    CheckReport, ClassInSplit, DuplicateFile, NearPair, PatientAcross, Problem, Spelling, SplitCount, Warning,
};

/// The classic terminal.
const COLUMNS: usize = 80;
/// Most problems that are printed; the rest is counted. Warnings need no limit: there is one of a kind.
const MOST_PROBLEMS: usize = 20;
/// Most classes in the table.
const MOST_CLASSES: usize = 30;
/// Most sizes.
const MOST_SIZES: usize = 4;
/// Most examples that one warning gives.
const MOST_EXAMPLES: usize = 3;
/// Longest class name in the table: what five numbers (three splits, none, total) leave of [`COLUMNS`], less the indent.
const NAME: usize = COLUMNS - 5 * CELL - 2;
/// Columns of a number in the table.
const CELL: usize = 10;

impl Display for CheckReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let patients = match self.patients {
            Some(patients) => count(patients, "patient"),
            None => "no patient ids".to_owned(),
        };
        let classes = match self.kind {
            TaskKind::SingleLabel => count(self.classes.len(), "class"),
            TaskKind::MultiLabel => format!("{} (multi-label)", count(self.classes.len(), "finding")),
            TaskKind::Ordinal => format!("{} (from the lowest)", count(self.classes.len(), "grade")),
            TaskKind::Regression => count(self.classes.len(), "number"),
            TaskKind::Segmentation => "masks".to_owned(),
        };
        let head = format!("{}: {}, {patients}, {classes}", self.path.display(), count(self.images, "image"));
        wrap(f, "", &head)?;
        f.write_str("\n")?;
        self.write_table(f)?;
        f.write_str("\n")?;
        self.write_sizes(f)?;
        self.notes.iter().try_for_each(|note| wrap(f, "note: ", &note.to_string()))?;
        match self.problems.len() {
            0 => f.write_str("no problems\n")?,
            problems => writeln!(f, "{}:", count(problems, "problem"))?,
        }
        for problem in self.problems.iter().take(MOST_PROBLEMS) {
            wrap(f, "  - ", &problem.to_string())?;
        }
        if self.problems.len() > MOST_PROBLEMS {
            writeln!(f, "    and {} more", self.problems.len() - MOST_PROBLEMS)?;
        }
        match self.warnings.len() {
            0 => f.write_str("no warnings\n")?,
            warnings => writeln!(f, "{}:", count(warnings, "warning"))?,
        }
        self.warnings.iter().try_for_each(|warning| wrap(f, "  - ", &warning.to_string()))
    }
}

impl CheckReport {
    /// Images of each class in each split.
    fn write_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: &str, number: &dyn Fn(&SplitCount) -> usize| {
            let mut numbers: Vec<usize> = self.splits.iter().map(number).collect();
            numbers.push(numbers.iter().sum());
            lines.push((shortened(name), numbers));
        };
        let counted = if self.kind == TaskKind::Regression { &[][..] } else { &self.classes };
        for (class, name) in counted.iter().enumerate().take(MOST_CLASSES) {
            add(name, &|count| count.images_of[class]);
        }
        if self.kind == TaskKind::MultiLabel {
            add("(no finding)", &|count| count.images_of_none);
        }
        add("(all images)", &|count| count.images);
        let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);

        write!(f, "  {:width$}", "")?;
        let headings = self.splits.iter().map(|count| count.split.map_or("no split", Split::word));
        headings.chain(["total"]).try_for_each(|heading| write!(f, "{heading:>CELL$}"))?;
        f.write_str("\n")?;
        for (index, (name, numbers)) in lines.iter().enumerate() {
            if index == MOST_CLASSES && counted.len() > MOST_CLASSES {
                writeln!(f, "  and {} more", self.classes.len() - MOST_CLASSES)?;
            }
            write_line(f, name, width, numbers)?;
        }
        self.write_spreads(f)?;
        // Not the sum: a patient may be in several splits.
        self.patients.map_or(Ok(()), |patients| {
            let numbers: Vec<usize> = self.splits.iter().map(|count| count.patients).chain([patients]).collect();
            write_line(f, "(patients)", width, &numbers)
        })
    }

    /// `age train: 18 to 91, median 54`, a line a number and split.
    fn write_spreads(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (number, name) in self.classes.iter().enumerate() {
            for (count, spread) in self.splits.iter().filter_map(|count| Some((count, count.spreads.get(number)?))) {
                let (split, name) = (count.split.map_or("no split", Split::word), printable(name));
                wrap(
                    f,
                    "  ",
                    &format!("{name} {split}: {} to {}, median {}", spread.least, spread.most, spread.median),
                )?;
            }
        }
        Ok(())
    }

    fn write_sizes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.sizes.is_empty() {
            return Ok(());
        }
        let sizes = self.sizes.iter().take(MOST_SIZES);
        let mut text: Vec<String> =
            sizes.map(|size| format!("{} x {} ({})", size.width, size.height, size.images)).collect();
        if self.sizes.len() > MOST_SIZES {
            let images = self.sizes[MOST_SIZES..].iter().map(|size| size.images).sum();
            text.push(format!("{} of {}", count(images, "image"), count(self.sizes.len() - MOST_SIZES, "other size")));
        }
        wrap(f, "", &format!("width x height (images): {}", text.join(", ")))
    }
}

/// One line of the table.
fn write_line(f: &mut Formatter<'_>, name: &str, width: usize, numbers: &[usize]) -> fmt::Result {
    write!(f, "  {name:width$}")?;
    numbers.iter().try_for_each(|number| write!(f, "{number:>CELL$}"))?;
    f.write_str("\n")
}

/// A class name that fits the table.
fn shortened(name: &str) -> String {
    let name = printable(name);
    match name.char_indices().nth(NAME) {
        None => name,
        Some(_) => name.chars().take(NAME - 3).chain("...".chars()).collect(),
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unreadable { name, line, reason } => write!(f, "{}: {reason}", place(name, *line)),
            Problem::Mask { name, line, mask, reason } => write!(f, "{}: mask {mask}: {reason}", place(name, *line)),
            Problem::MaskClasses { reason } => f.write_str(reason),
            Problem::BrokenLabels { name, line } => write!(f, "{}: labels do not fit the classes", place(name, *line)),
            Problem::EmptySplit { split } => write!(f, "no image is in {split}"),
            Problem::OneClass { split, classes } => {
                match classes.as_slice() {
                    [] => write!(f, "every image in {split} is without a finding")?,
                    classes => write!(f, "every image in {split} shows {}", classes.join(" and "))?,
                }
                f.write_str(": there is nothing to tell apart")
            }
        }
    }
}

impl Display for Warning {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Warning::PatientsAcrossSplits { patients } => {
                let patient = |PatientAcross { patient_id, splits }: &PatientAcross| {
                    let splits: Vec<_> = splits.iter().map(|split| split.word()).collect();
                    format!("{patient_id} ({})", splits.join(", "))
                };
                let number = count(patients.len(), "patient");
                write!(f, "{number} in more than one split, so results on val and test are too good: ")?;
                f.write_str(&examples(patients, patient))
            }
            Warning::DuplicatesAcrossSplits { groups } => {
                let number = count(groups.len(), "image");
                write!(f, "{number} in more than one split, byte for byte: {}", examples(groups, |files| group(files)))
            }
            Warning::MasksAcrossSplits { groups } => {
                let number = count(groups.len(), "mask");
                let shown = examples(groups, |files| group(files));
                write!(
                    f,
                    "{number} in more than one split, pixel by pixel, so results on val and test are too good: {shown}"
                )
            }
            Warning::MaskOfSeveral { masks } => {
                let number = count(masks.len(), "file");
                write!(f, "{number} given as the mask of several images: {}", examples(masks, spelling))
            }
            Warning::DuplicatesDisagree { groups } => {
                let number = count(groups.len(), "image");
                write!(
                    f,
                    "{number} listed more than once, with different labels: {}",
                    examples(groups, |files| group(files))
                )
            }
            Warning::DuplicatesWithinSplit { groups } => {
                let number = count(groups.len(), "image");
                write!(f, "{number} listed more than once in one split: {}", examples(groups, |files| group(files)))
            }
            Warning::NearDuplicatesAcrossSplits { total, pairs } => write!(
                f,
                "{} of images in two splits look the same, so results on val and test may be too good: {}",
                count(*total, "pair"),
                first_of(*total, pairs, pair)
            ),
            // The least of the warnings about duplicates: how many, and one of them.
            Warning::NearDuplicatesWithinSplit { total, pairs } => {
                let first = pairs.first().map(pair).unwrap_or_default();
                write!(f, "{} of images in one split look the same, such as {first}", count(*total, "pair"))
            }
            Warning::NoTest => f.write_str("no image is in test: nothing will be measured on unseen patients"),
            Warning::Unassigned => f.write_str("no splits: training will assign them, by patient"),
            Warning::ClassAbsent { classes } => write!(f, "no image shows {}", examples(classes, class)),
            Warning::ClassEverywhere { classes } => write!(f, "every image shows {}", examples(classes, class)),
            Warning::SingleExample { classes } => write!(f, "a single image shows {}", examples(classes, class)),
            Warning::SinglePatient { classes } => {
                write!(f, "a single patient shows {}: seen in one split only", examples(classes, String::clone))
            }
            Warning::SmallImages { names } => {
                write!(
                    f,
                    "{} with a side under 32 pixels: {}",
                    count(names.len(), "image"),
                    examples(names, String::clone)
                )
            }
            Warning::MissingAsClass { classes } => {
                write!(f, "what stands for no value is a class: {}", examples(classes, spelling))
            }
            Warning::ClassesAlike { groups } => {
                let number = if same_case(groups) { "in case alone" } else { "in case, spaces, dashes or letters" };
                write!(
                    f,
                    "classes that differ {number}, and may be one: {}",
                    examples(groups, |group| spellings(group))
                )
            }
            Warning::MetadataAsFinding { columns } => {
                write!(
                    f,
                    "columns that are called like metadata are findings to be learnt: {}",
                    examples(columns, spelling)
                )
            }
            Warning::DatesAsClasses { classes } => write!(f, "classes that are dates: {}", examples(classes, spelling)),
            Warning::NumbersAsClasses { classes } => {
                write!(f, "classes that are measured or long numbers: {}", examples(classes, spelling))
            }
            Warning::SingleImage { classes } => {
                let number = count(classes.len(), "class");
                write!(f, "{number} shown by a single image: {}", examples(classes, spelling))
            }
            Warning::SeveralInOne { column, images } => write!(
                f,
                "{} with | inside the class in column \"{column}\": several findings read as one class",
                count(*images, "image")
            ),
            Warning::PatientsAlike { groups } => {
                write!(f, "patient ids that may be one patient: {}", examples(groups, |group| spellings(group)))
            }
            Warning::NobodyAsPatient { patients } => {
                write!(f, "what names nobody is one patient of several images: {}", examples(patients, spelling))
            }
            Warning::PatientsRounded { patients } => {
                write!(
                    f,
                    "patient ids that a spreadsheet rounded, perhaps several patients each: {}",
                    examples(patients, spelling)
                )
            }
            Warning::Garbled { texts } => {
                write!(f, "text that was written in another encoding: {}", examples(texts, spelling))
            }
            Warning::SpacesCut { lines } => {
                let shown: Vec<String> = lines.iter().take(MOST_EXAMPLES).map(ToString::to_string).collect();
                let more = if lines.len() > shown.len() {
                    format!(" and {} more", lines.len() - shown.len())
                } else {
                    String::new()
                };
                let on = if lines.len() == 1 { "line" } else { "lines" };
                write!(
                    f,
                    "spaces around a label or patient, which is another row's without them: {on} {}{more}",
                    shown.join(", ")
                )
            }
            Warning::NoPatientColumn { suggested } => write!(
                f,
                "no column \"patient_id\", so splits are drawn by image and a patient may be in several; did you mean {}?",
                any_of(suggested)
            ),
            Warning::NoSplitColumn { suggested } => {
                write!(f, "no column \"split\"; did you mean {}?", any_of(suggested))
            }
            Warning::LittleRange { names, percent } => {
                let (images, names) = (count(names.len(), "image"), examples(names, String::clone));
                write!(
                    f,
                    "{images} within {percent} % of the range of their samples, nearly black without a window: {names}"
                )
            }
            Warning::Flat { names } => {
                let (images, names) = (count(names.len(), "image"), examples(names, String::clone));
                write!(f, "{images} of one flat colour, although the values differ: {names}")
            }
            Warning::OneOfSeveral { names } => {
                let (files, names) = (count(names.len(), "file"), examples(names, String::clone));
                write!(f, "{files} of several images, of which one is taken: {names}")
            }
        }
    }
}

/// `"nan" (3 images: lines 2, 5, 8)`.
fn spelling(found: &Spelling) -> String {
    let place = |place: &crate::Place| if place.line == 0 { place.name.clone() } else { place.line.to_string() };
    let mut places: Vec<String> = found.rows.iter().take(MOST_EXAMPLES).map(place).collect();
    if found.images > places.len() {
        places.push("...".to_owned());
    }
    let lines = match found.rows.first() {
        Some(first) if first.line > 0 && found.images == 1 => "line ",
        Some(first) if first.line > 0 => "lines ",
        _ => "",
    };
    let colon = if places.is_empty() { "" } else { ": " };
    format!("\"{}\" ({}{colon}{lines}{})", found.text, count(found.images, "image"), places.join(", "))
}

/// `"7" (1 image: line 9) and "007" (1 image: line 2)`.
fn spellings(group: &[Spelling]) -> String {
    group.iter().map(spelling).collect::<Vec<_>>().join(" and ")
}

/// True where classes differ in nothing but case.
fn same_case(groups: &[Vec<Spelling>]) -> bool {
    groups.iter().all(|group| group.iter().all(|one| one.text.to_lowercase() == group[0].text.to_lowercase()))
}

/// `"a"`, `"a" or "b"`.
fn any_of(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ")
}

/// `edema in val`.
fn class(found: &ClassInSplit) -> String {
    format!("{} in {}", found.class, found.split)
}

/// `line 3, a.png (train) = line 9, b.png (test)`.
fn group(files: &[DuplicateFile]) -> String {
    files.iter().map(placed).collect::<Vec<_>>().join(" = ")
}

/// `line 3, a.png (train)`.
fn placed(file: &DuplicateFile) -> String {
    match file.split {
        Some(split) => format!("{} ({split})", place(&file.name, file.line)),
        None => place(&file.name, file.line),
    }
}

/// `line 3, a.png (train) ~ line 9, b.png (test), 12 of 255 bits differ, mirrored`.
fn pair(pair: &NearPair) -> String {
    let [first, second] = pair.images.each_ref().map(placed);
    let mirrored = if pair.mirrored { ", mirrored" } else { "" };
    format!("{first} ~ {second}, {} of 255 bits differ{mirrored}", pair.distance)
}

/// `line 3, a.png`; the name alone in a directory.
fn place(name: &str, line: usize) -> String {
    if line == 0 { name.to_owned() } else { format!("line {line}, {name}") }
}

/// The first few, and how many more there are.
fn examples<T>(all: &[T], text: impl Fn(&T) -> String) -> String {
    first_of(all.len(), all, text)
}

/// The first few of `total`.
fn first_of<T>(total: usize, listed: &[T], text: impl Fn(&T) -> String) -> String {
    let mut out = listed.iter().take(MOST_EXAMPLES).map(text).collect::<Vec<_>>().join("; ");
    if total > MOST_EXAMPLES {
        out += &format!("; and {} more", total - MOST_EXAMPLES);
    }
    out
}

/// `1 image`, `2 images`, `3 classes`.
fn count(number: usize, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    format!("{number} {noun}{}", if number == 1 { "" } else { plural })
}

/// Writes `text` after `bullet`, broken between words before [`COLUMNS`] and indented by the bullet's width.
fn wrap(f: &mut Formatter<'_>, bullet: &str, text: &str) -> fmt::Result {
    let mut column = bullet.len();
    f.write_str(bullet)?;
    for (index, word) in printable(text).split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            write!(f, "\n{:1$}", "", bullet.len())?;
            column = bullet.len();
        } else if index > 0 {
            f.write_str(" ")?;
            column += 1;
        }
        f.write_str(word)?;
        column += width;
    }
    f.write_str("\n")
}

/// Names come from files: without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
