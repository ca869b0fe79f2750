//! A list of images to a file, a chunk at a time.

use crate::about::{About, Failed, dtype};
use crate::embedder::Embedder;
use crate::error::Error;
use crate::format::Format;
use crate::inputs::{Input, Inputs};
use crate::partial::{Partial, folder_of_partial};
use half::f16;
use melo_data::spreadsheet::row;
use melo_imaging::Seen;
use melo_vit::{Storage, hex};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Images that are decoded and computed together, and lost at most by a kill.
const CHUNK: usize = 32;

/// Where features go.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
    format: Format,
    storage: Storage,
}

impl Output {
    /// A file, its format told by its ending.
    ///
    /// # Errors
    /// [`Error::Format`], [`Error::NoParquet`], [`Error::ParquetF16`].
    pub fn new(path: &Path, storage: Storage) -> Result<Self, Error> {
        let format = Format::of(path)?;
        if format == Format::Parquet && storage == Storage::F16 {
            return Err(Error::ParquetF16 { path: path.to_owned() });
        }
        Ok(Output { path: path.to_owned(), format, storage })
    }
}

/// News of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// An interrupted run goes on.
    Resumed {
        /// Images that it had done.
        done: usize,
    },
    /// An image was read.
    Read {
        /// The file.
        path: &'a Path,
        /// What the decoder saw.
        seen: &'a Seen,
    },
    /// An image could not be read.
    Failed(&'a Failed),
    /// So many images are done.
    Done(usize),
}

/// A finished file.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it says of itself.
    pub about: About,
    /// Images that could not be read, by whichever process.
    pub failed: Vec<Failed>,
    /// Images that an interrupted run had done.
    pub resumed: usize,
}

/// Writes the features of all images; goes on with what an interrupted run of the same images, weights and settings left beside the
/// output, in `OUT.partial`, and begins anew where that is of others. The output appears when it is whole. Images that cannot be read
/// are told and left out.
///
/// # Errors
/// Every cause by its name, see [`Error`]; what was computed stays in `OUT.partial`.
pub fn write(
    embedder: &Embedder,
    inputs: &Inputs,
    output: &Output,
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Written, Error> {
    // All images of a pack lie in the same one.
    if let Some(packed) = inputs.images.iter().find_map(|image| image.packed.as_ref()?.packed.as_ref()) {
        packed.pack().check(embedder.preprocess()).map_err(melo_data::Error::from)?;
    }
    let Output { path, format, storage } = output;
    let images = inputs.images.len();
    let mut about = About::new(embedder, *storage, images);
    let values = about.shape.iter().product::<usize>();
    let number_bytes = match storage {
        Storage::F32 => 4,
        Storage::F16 => 2,
    };
    let row_bytes = (values * number_bytes) as u64;
    let names = ["row", "path", "digest"].into_iter().chain(inputs.columns.iter().map(|column| column.name.as_str()));
    let head = line(names)?;
    let identity = identity(embedder, inputs, &about, *format);
    let mut partial = Partial::open(path, &identity, (format.start(&about), row_bytes), &head)?;
    let resumed = partial.journal.done;
    if resumed > 0 {
        observer(Event::Resumed { done: resumed });
    }
    for (number, chunk) in inputs.images[resumed..].chunks(CHUNK).enumerate() {
        let first = resumed + number * CHUNK;
        if stop.load(Ordering::Relaxed) {
            let partial = folder_of_partial(path);
            return Err(Error::Interrupted { done: first, of: images, partial });
        }
        embed_chunk(embedder, (first, chunk), *storage, &mut partial, observer)?;
        observer(Event::Done(first + chunk.len()));
    }
    let failed = std::mem::take(&mut partial.journal.failed);
    about.rows = partial.journal.rows;
    about.failed = failed.len();
    if about.rows == 0 {
        partial.remove()?;
        return Err(Error::NoneRead { images });
    }
    format.finish(path, &about, &failed, &inputs.columns, &mut partial)?;
    partial.remove()?;
    Ok(Written { about, failed, resumed })
}

/// One chunk, whose first image has the number `first`, to the partial output.
fn embed_chunk(
    embedder: &Embedder,
    (first, chunk): (usize, &[Input]),
    storage: Storage,
    partial: &mut Partial,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(), Error> {
    let (mut values, mut lines, mut rows, mut failed) = (Vec::new(), Vec::new(), 0, Vec::new());
    for ((row, input), embedded) in (first..).zip(chunk).zip(embedder.embed(chunk)?) {
        match embedded {
            Ok(embedded) => {
                if let Some(seen) = &embedded.seen {
                    observer(Event::Read { path: &input.path, seen });
                }
                encode(&embedded.values, storage, &input.name, &mut values)?;
                let number = row.to_string();
                let fields = [number.as_str(), &input.name, &embedded.digest];
                lines.extend(line(fields.into_iter().chain(input.fields.iter().map(String::as_str)))?);
                rows += 1;
            }
            Err(error) => {
                let told = Failed { row, path: input.name.clone(), reason: error.to_string() };
                observer(Event::Failed(&told));
                failed.push(told);
            }
        }
    }
    partial.append(&values, &lines, chunk.len(), rows, failed)
}

/// Values as their bytes in the file.
fn encode(values: &[f32], storage: Storage, image: &str, into: &mut Vec<u8>) -> Result<(), Error> {
    let holds = |x: f32| match storage {
        Storage::F32 => x.is_finite(),
        Storage::F16 => f16::from_f32(x).is_finite(),
    };
    if let Some(&value) = values.iter().find(|&&x| !holds(x)) {
        return Err(Error::Value { image: image.to_owned(), value, dtype: dtype(storage) });
    }
    match storage {
        Storage::F32 => into.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        Storage::F16 => into.extend(values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
    }
    Ok(())
}

/// A line of the table.
fn line<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Vec<u8>, Error> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(row(fields)).map_err(std::io::Error::from).map_err(Error::io("rows.csv"))?;
    table.into_inner().map_err(|error| Error::io("rows.csv")(std::io::Error::other(error.to_string())))
}

/// SHA-256 of everything that the bytes depend on, but for what is in the images: a run goes on with what has the same.
fn identity(embedder: &Embedder, inputs: &Inputs, about: &About, format: Format) -> String {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    field(&about.json());
    field(&format!("{format:?}"));
    // Another instruction set rounds otherwise.
    field(&embedder.engine().info().device);
    inputs.columns.iter().for_each(|column| field(&column.name));
    for input in &inputs.images {
        field(&input.path.to_string_lossy());
        field(&input.name);
        input.fields.iter().for_each(|value| field(value));
    }
    hex(&hash.finalize())
}
