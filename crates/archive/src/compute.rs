//! Chunk after chunk, wherever they come from: the next images are decoded while the present ones are computed.

use crate::error::Error;
use crate::folder::{ArchiveFolder, INPUTS, part_name};
use crate::image::{Facts, Image};
use crate::names::NameReader;
use crate::part::{PartAbout, encode};
use crate::plan::Plan;
use crate::row::{By, Row};
use crate::run::{Event, Settings};
use crate::sources::{BYTES, Source, fetched};
use crate::store::Stores;
use melo_predict::{Predictor, Prepared};
use melo_vit::{Decision, Preprocess};
use rayon::prelude::*;
#[cfg(feature = "queue")]
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
#[cfg(feature = "queue")]
use std::time::Instant;

/// Images that are decoded and computed together, at least.
pub(crate) const BATCH: usize = 32;

/// What chunks are computed with.
pub(crate) struct Work<'a> {
    pub(crate) predictor: &'a Predictor,
    pub(crate) settings: &'a Settings,
    pub(crate) plan: &'a Plan,
    /// Of the plan.
    pub(crate) digest: &'a str,
    pub(crate) folder: &'a ArchiveFolder,
    pub(crate) stores: &'a Stores,
    /// True where a chunk of which no file can be read is an error, and not a part of refusals.
    pub(crate) needs_files: bool,
}

/// Images of a chunk that were decoded together.
struct Batch<T> {
    chunk: u64,
    /// With the first batch of a chunk: what is held for it.
    held: Option<T>,
    images: Vec<Image>,
    /// True for the chunk's end.
    is_last: bool,
}

/// What a chunk has come to so far.
#[derive(Default)]
struct Answers {
    images: Vec<(Facts, Vec<Decision>)>,
}

impl Work<'_> {
    /// Computes the chunks that `next` gives, until it gives none, and writes their parts. `settle` is told of each whose part is there, and of
    /// the one that failed, which ends all, with what `next` gave along with it.
    pub(crate) fn compute<T: Send>(
        &self,
        next: impl FnMut() -> Result<Option<(u64, T)>, Error> + Send,
        settle: impl FnMut(u64, T, Option<&Error>) -> Result<(), Error>,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        // Without room: one batch is computed, one waits or is being decoded.
        let (send, receive) = sync_channel(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if let Err(error) = self.decode(next, &send) {
                    let _ = send.send(Err(error));
                }
            });
            self.answer(receive, settle, observer)
        })
    }

    /// Decodes batch after batch until all are taken or nobody takes them.
    fn decode<T: Send>(
        &self,
        next: impl FnMut() -> Result<Option<(u64, T)>, Error> + Send,
        send: &SyncSender<Result<Batch<T>, Error>>,
    ) -> Result<(), Error> {
        let at_once = BATCH.max(2 * rayon::current_num_threads());
        let names = NameReader::open(&self.folder.at(INPUTS))?;
        fetched(self.stores, self.named(names, next), at_once, |sources| {
            let (mut together, mut held, mut bytes) = (Vec::new(), None, 0);
            for source in sources {
                let mut source = source?;
                let (chunk, is_last) = (source.chunk, source.is_last);
                held = source.held.take().or(held);
                bytes += source.bytes();
                together.push(source);
                if !is_last && together.len() < at_once && bytes < BYTES {
                    continue;
                }
                bytes = 0;
                let images = read(self.settings, std::mem::take(&mut together));
                if send.send(Ok(Batch { chunk, held: held.take(), images, is_last })).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    /// The images of the chunks that `next` gives.
    fn named<T>(
        &self,
        mut names: NameReader,
        mut next: impl FnMut() -> Result<Option<(u64, T)>, Error>,
    ) -> impl Iterator<Item = Result<Source<T>, Error>> {
        let (inputs, chunk) = (self.plan.inputs, self.plan.chunk);
        let mut of_next = move || -> Result<Option<Vec<Source<T>>>, Error> {
            let Some((number, held)) = next()? else { return Ok(None) };
            let first = number * chunk as u64;
            let names = names.chunk(inputs, chunk, number)?;
            let last = first + names.len() as u64 - 1;
            let source = |(place, path)| Source::new(number, place, path, place == last);
            let mut sources: Vec<Source<T>> = (first..).zip(names).map(source).collect();
            if let Some(first) = sources.first_mut() {
                first.held = Some(held);
            }
            Ok(Some(sources))
        };
        let chunks = std::iter::from_fn(move || of_next().transpose());
        chunks.flat_map(|sources| match sources {
            Ok(sources) => sources.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    fn answer<T>(
        &self,
        batches: Receiver<Result<Batch<T>, Error>>,
        mut settle: impl FnMut(u64, T, Option<&Error>) -> Result<(), Error>,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let (mut answers, mut of_chunk) = (Answers::default(), None);
        for batch in batches {
            let Batch { chunk, held, images, is_last } = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    if let Some((chunk, held)) = of_chunk.take() {
                        settle(chunk, held, Some(&error))?;
                    }
                    return Err(error);
                }
            };
            of_chunk = held.map(|held| (chunk, held)).or(of_chunk);
            let count = images.len();
            let mut done = answers.add(self, images, observer);
            if done.is_ok() {
                observer(Event::Computed(count));
            }
            if done.is_ok() && is_last {
                done = self.write(chunk, &std::mem::take(&mut answers));
            }
            let mut held = || of_chunk.take().expect("came with the first batch").1;
            match done {
                Err(error) => {
                    settle(chunk, held(), Some(&error))?;
                    return Err(error);
                }
                Ok(()) if is_last => settle(chunk, held(), None)?,
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn write(&self, chunk: u64, answers: &Answers) -> Result<(), Error> {
        if self.needs_files && answers.images.iter().all(|(image, _)| image.digest.is_none()) {
            let reason = answers.images.iter().find_map(|(image, _)| image.error.clone()).unwrap_or_default();
            return Err(Error::NoFile { images: answers.images.len(), reason });
        }
        let by = By { backbone_digest: self.plan.backbone_digest.clone(), precision: self.plan.precision };
        let plugins = &self.settings.plugins;
        let mut rows: Vec<Row> = Vec::with_capacity(answers.images.len() * plugins.len());
        for (image, decisions) in &answers.images {
            let row = |(place, plugin)| Row { image, plugin, decision: decisions.get(place), by: &by };
            rows.extend(plugins.iter().enumerate().map(row));
        }
        let errors = answers.images.iter().filter(|(image, _)| image.error.is_some()).count();
        let about = PartAbout::new(self.digest, chunk, answers.images.len(), rows.len(), errors);
        let name = part_name(chunk, self.digest);
        let other = |error: parquet::errors::ParquetError| std::io::Error::other(error.to_string());
        let bytes = encode(&rows, &about).map_err(|error| Error::io(self.folder.at(&name))(other(error)))?;
        match self.folder.write(&name, &bytes) {
            // Another worker has written the same bytes.
            Err(_) if self.folder.at(&name).exists() => Ok(()),
            written => written,
        }
    }
}

/// Reads and prepares images.
fn read<T: Send>(settings: &Settings, sources: Vec<Source<T>>) -> Vec<Image> {
    let specs: Vec<&Preprocess> = settings.plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
    let key = settings.patient_key.as_ref();
    sources.into_par_iter().map(|source| Image::read(source, &specs, key)).collect()
}

/// Images a second, decoded and computed: of the last and largest of some groups of these, and of no more than take about a second.
#[cfg(feature = "queue")]
pub(crate) fn rate(
    predictor: &Predictor,
    settings: &Settings,
    stores: &Stores,
    images: &[PathBuf],
) -> Result<f64, Error> {
    let (mut rest, mut size) = (images, 4);
    loop {
        // What would be left is no group of its own.
        let (group, after) = rest.split_at(if rest.len() < 2 * size { rest.len() } else { size });
        let started = Instant::now();
        let named =
            (0..).zip(group.iter().cloned()).map(|(number, path)| Ok(Source::<()>::new(0, number, path, false)));
        let sources = fetched(stores, named, BATCH, |sources| sources.collect::<Result<Vec<_>, _>>())?;
        let read = read(settings, sources);
        let good: Vec<&Prepared> = read.iter().filter_map(|image| image.prepared.as_ref()).collect();
        predictor.predict_prepared(&good, &settings.plugins).map_err(|error| Error::Predict(error.into()))?;
        let seconds = started.elapsed().as_secs_f64();
        if after.is_empty() || seconds > 1.0 {
            return Ok(group.len() as f64 / seconds);
        }
        (rest, size) = (after, 2 * size);
    }
}

impl Answers {
    /// Computes a batch.
    fn add(&mut self, work: &Work<'_>, images: Vec<Image>, observer: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let good: Vec<&Prepared> = images.iter().filter_map(|image| image.prepared.as_ref()).collect();
        let predictions = work.predictor.predict_prepared(&good, &work.settings.plugins);
        let mut predictions = predictions.map_err(|error| Error::Predict(error.into()))?.into_iter();
        for Image { facts, prepared } in images {
            if let Some(seen) = prepared.as_ref().and_then(|prepared| prepared.seen.first()) {
                observer(Event::Read { path: &facts.path, seen });
            }
            if let Some(error) = &facts.error {
                observer(Event::Refused(error));
            }
            let said = prepared.and_then(|_| predictions.next()).unwrap_or_default();
            self.images.push((facts, said.into_iter().map(|prediction| prediction.decision).collect()));
        }
        Ok(())
    }
}
