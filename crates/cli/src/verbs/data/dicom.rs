//! `melo data dicom`: what the headers of a folder's DICOM files say, as the columns of a manifest.

use crate::{Failure, note, say, say_json};
use melo::data::spreadsheet::{cell, path_cell};
use melo::data::way_between;
use melo::imaging::LeftOut;
use melo::imaging::dicom::{self, Tag};
use melo::vit::folder_of;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Columns where none is named: what splits, subgroups and routing ask for.
const USUAL: [&str; 6] = ["PatientID", "PatientSex", "PatientAge", "Modality", "BodyPartExamined", "ViewPosition"];

/// List the DICOM images of a folder or DICOMDIR, their headers as columns, ready to be given labels
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  melo data dicom study/ --out images.csv\n  \
    melo data dicom DICOMDIR --column patient_id=PatientID --column view=ViewPosition --column kvp=0018,0060 --out images.csv\n  \
    melo data dicom study/ --frames all --out frames.csv\n\n\
    The CSV has a column `path`, relative to it, and a column for every --column: add `label`, or a 0/1 column for every finding,\n\
    and it is a manifest; as it is it serves `melo eval --meta` and a study's `task.meta`. Images stand in the order of their\n\
    series. Patient names are not read unless a column asks for PatientName.")]
pub(crate) struct Args {
    /// Folder, searched with all folders in it, or DICOMDIR
    source: PathBuf,
    /// CSV to write
    #[arg(long)]
    out: PathBuf,
    /// NAME=ATTRIBUTE: keyword or tag [default: patient_id=PatientID and the usual ones]
    #[arg(long = "column", value_name = "NAME=ATTRIBUTE", value_parser = column)]
    columns: Vec<(String, String)>,
    /// A row a file, or a row a frame of multi-frame files
    #[arg(long, value_enum, default_value_t = FramesArg::First)]
    frames: FramesArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum FramesArg {
    /// A row a file
    First,
    /// A row a frame, as path#frame=3
    All,
}

fn column(text: &str) -> Result<(String, String), String> {
    let (name, attribute) = text.split_once('=').unwrap_or((text, text));
    match Tag::from_name(attribute) {
        Some(_) if !name.is_empty() && name != "path" => Ok((name.to_owned(), attribute.to_owned())),
        Some(_) => Err("the column needs a name other than `path`".into()),
        None => Err(format!("`{attribute}` is no keyword that is known here; name its tag, such as 0018,0060")),
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let columns = match args.columns.is_empty() {
        false => args.columns.clone(),
        true => {
            let usual = USUAL.map(|keyword| (keyword.to_owned(), keyword.to_owned()));
            usual
                .into_iter()
                .map(|(name, tag)| (if name == "PatientID" { "patient_id".into() } else { name }, tag))
                .collect()
        }
    };
    let attributes: Vec<&str> = columns.iter().map(|(_, attribute)| attribute.as_str()).collect();
    let mut rows = Vec::new();
    let mut left_out = Vec::new();
    let mut others = LeftOut::default();
    for path in images_of(&args.source, &mut others)? {
        match row(&path, &attributes, args.frames) {
            Ok((frames, values)) => {
                let name = |frame: usize| match frames {
                    Some(_) => format!("{}#frame={}", path.display(), frame + 1),
                    None => path.display().to_string(),
                };
                rows.extend((0..frames.unwrap_or(1)).map(|frame| (name(frame), values.clone())));
            }
            Err(error) => left_out.push(error.to_string()),
        }
    }
    if !others.names.is_empty() {
        note(format_args!("note: {}: {others}", args.source.display()));
    }
    left_out.iter().for_each(|error| note(format!("left out: {error}")));
    if rows.is_empty() {
        return Err(Failure::Message(format!("{}: no DICOM image in it", args.source.display())));
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    write_csv(&args.out, &names, &rows)?;
    if args.json {
        let mut missing = Map::new();
        for (index, name) in names.iter().enumerate() {
            let count = rows.iter().filter(|(_, values)| values[index].is_none()).count();
            missing.insert((*name).to_owned(), Value::from(count));
        }
        let out = args.out.to_string_lossy();
        return say_json(
            &json!({ "out": out, "images": rows.len(), "left_out": left_out.len(), "without_value": missing }),
        );
    }
    say(format!("{}: {} images, {} files left out", args.out.display(), rows.len(), left_out.len()));
    Ok(())
}

/// The files of a folder's series, then those of the folders in it, or those of a DICOMDIR; in order. `others` are told.
fn images_of(source: &Path, others: &mut LeftOut) -> Result<Vec<PathBuf>, Failure> {
    let refused = |error: std::io::Error| Failure::Message(format!("{}: {error}", source.display()));
    if !source.is_dir() {
        let bytes = std::fs::read(source).map_err(refused)?;
        let records = dicom::directory(&bytes, source)?;
        return Ok(records.into_iter().map(|record| folder_of(source).join(record.file)).collect());
    }
    let series = dicom::series(source)?;
    let mut images: Vec<PathBuf> =
        series.into_iter().flat_map(|series| series.instances).map(|instance| instance.path).collect();
    let entries = std::fs::read_dir(source).map_err(refused)?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    // A link may lead in a circle.
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| path.is_dir() && !path.is_symlink());
    others.of += files.len();
    let known: HashSet<&PathBuf> = images.iter().collect();
    others.names.extend(files.iter().filter(|file| !known.contains(file)).map(|file| file.display().to_string()));
    for folder in folders {
        images.extend(images_of(&folder, others)?);
    }
    Ok(images)
}

type Values = Vec<Option<String>>;

/// The number of frames where each gets a row, and the header's values; an error for a file without an image.
fn row(path: &Path, attributes: &[&str], frames: FramesArg) -> Result<(Option<usize>, Values), melo::imaging::Error> {
    let bytes = std::fs::read(path).map_err(|source| melo::imaging::Error::Read { path: path.into(), source })?;
    let count = dicom::frames(&bytes, path)?;
    let values = dicom::header(&bytes, path, attributes)?;
    Ok(((frames == FramesArg::All && count > 1).then_some(count), values))
}

/// Writes the manifest, paths relative to its folder.
fn write_csv(out: &Path, names: &[&str], rows: &[(String, Values)]) -> Result<(), Failure> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["path"].iter().chain(names))?;
    for (path, values) in rows {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let shown = format!("{}{name}", way_between(folder_of(out), folder_of(path)));
        let values = values.iter().map(|value| cell(value.as_deref().unwrap_or_default()).into_owned());
        csv.write_record([path_cell(&shown).into_owned()].into_iter().chain(values))?;
    }
    let bytes = csv.into_inner().map_err(|error| Failure::Message(error.to_string()))?;
    Ok(melo::vit::write_atomically(out, &bytes)?)
}
