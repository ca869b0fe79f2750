//! Chunk after chunk: the next images are decoded while the present ones are computed.

use crate::check::{Manifest, finish};
use crate::error::Error;
use crate::folder::{ArchiveFolder, INPUTS, PLAN, names_in, part_name, plan_in};
use crate::image::{Facts, Image};
use crate::inputs::{Input, Listed, list};
use crate::names::NameReader;
use crate::part::{PartAbout, encode};
use crate::patient::PatientKey;
use crate::plan::Plan;
use crate::row::{By, Row};
use crate::sources::{BYTES, Source, fetched};
use crate::store::Stores;
use melo_imaging::Seen;
use melo_predict::{Predictor, Prepared};
use melo_vit::{BoundPlugin, Decision, Preprocess};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Images that are decoded and computed together, at least.
const BATCH: usize = 32;

/// What is asked of all images.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who is asked, in the order of an image's rows.
    pub plugins: Vec<Arc<BoundPlugin>>,
    /// Images of a part, see [`crate::CHUNK`].
    pub chunk: usize,
    /// Codes for Patient IDs; without one, patients are left out.
    pub patient_key: Option<PatientKey>,
}

/// News of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many images were found so far.
    Listing {
        /// Images.
        found: u64,
    },
    /// What cannot be listed, with the reason.
    Unlisted(&'a str),
    /// All images are known.
    Planned {
        /// What was listed.
        listed: &'a Listed,
        /// Images that an earlier run had done.
        done: u64,
    },
    /// An image was read.
    Read {
        /// As it is named.
        path: &'a Path,
        /// What the decoder saw.
        seen: &'a Seen,
    },
    /// An image has no answer; the sentence names it.
    Refused(&'a str),
    /// So many more images were computed.
    Computed(usize),
}

/// A complete archive.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was planned.
    pub plan: Plan,
    /// What it came to.
    pub manifest: Manifest,
    /// Images that an earlier run had done.
    pub resumed: u64,
}

/// Asks the plug-ins about all images, and writes their answers to `folder`; goes on where an earlier run was stopped or killed. Images that
/// cannot be read are told and have rows with the reason. Raised, `stop` ends it after the chunk in flight.
///
/// # Errors
/// Every cause by its name, see [`Error`]; finished parts stay.
///
/// # Panics
/// If a plug-in is bound to another engine.
pub fn run(
    predictor: &Predictor,
    settings: &Settings,
    inputs: &[Input],
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, Error> {
    if settings.chunk == 0 {
        return Err(Error::NoChunk);
    }
    check_plugins(&settings.plugins)?;
    // Before anything is made in a folder of somebody else.
    plan_in(folder)?;
    let folder = ArchiveFolder::open(folder)?;
    let stores = Stores::default();
    let (plan, listed) = planned(predictor, settings, (inputs, &stores), &folder, stop, observer)?;
    let digest = plan.digest();
    let names = names_in(folder.path())?;
    let is_there = |number: &u64| names.contains(&part_name(*number, &digest));
    let pending: BTreeSet<u64> = (0..plan.chunks()).filter(|number| !is_there(number)).collect();
    let images = |numbers: &BTreeSet<u64>| numbers.iter().map(|&number| plan.inputs_of(number) as u64).sum::<u64>();
    let resumed = plan.inputs - images(&pending);
    observer(Event::Planned { listed: &listed, done: resumed });
    let (plan_of, digest) = (&plan, digest.as_str());
    let work = Work { predictor, settings, plan: plan_of, digest, folder: &folder, stores: &stores, pending: &pending };
    work.compute(resumed, stop, observer)?;
    let manifest = finish(&folder, &plan, &pending)?;
    Ok(Finished { plan, manifest, resumed })
}

/// Refuses what an image cannot be asked, or would be asked twice.
pub(crate) fn check_plugins(plugins: &[Arc<BoundPlugin>]) -> Result<(), Error> {
    if plugins.is_empty() {
        return Err(Error::NoPlugin);
    }
    plugins.iter().try_for_each(|plugin| plugin.refuse_bags())?;
    let same = |(place, plugin): &(usize, &Arc<BoundPlugin>)| {
        plugins[..*place].iter().any(|earlier| earlier.digest == plugin.digest)
    };
    match plugins.iter().enumerate().find(same) {
        Some((_, twice)) => Err(Error::Twice { task: twice.card.task.clone(), digest: twice.digest.clone() }),
        None => Ok(()),
    }
}

/// Lists all images, and makes the plan of a new folder, or holds the plan of an older one to what is asked now.
fn planned(
    predictor: &Predictor,
    settings: &Settings,
    (inputs, stores): (&[Input], &Stores),
    folder: &ArchiveFolder,
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(Plan, Listed), Error> {
    let was = plan_in(folder.path())?;
    let file = folder.temporary()?;
    let listed = list((inputs, stores), (file.as_file(), file.path(), folder.path()), stop, observer)?;
    if listed.inputs == 0 {
        return Err(Error::NoInput { inputs: in_words(inputs) });
    }
    let key = settings.patient_key.as_ref().map(PatientKey::fingerprint);
    let plan = Plan::new(predictor, &settings.plugins, &listed, settings.chunk, key);
    if let Some(was) = &was {
        plan.refuse_other(was, folder.path())?;
    }
    folder.keep(file, INPUTS)?;
    if was.is_none() {
        folder.write(PLAN, &plan.json())?;
        folder.sync()?;
    }
    Ok((plan, listed))
}

pub(crate) fn in_words(inputs: &[Input]) -> String {
    let word = |input: &Input| match input {
        Input::Folder(folder) => folder.display().to_string(),
        Input::Prefix(prefix) => prefix.to_string(),
        Input::Images(_) => "a list".to_owned(),
    };
    inputs.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Parts that are to be computed.
struct Work<'a> {
    predictor: &'a Predictor,
    settings: &'a Settings,
    plan: &'a Plan,
    digest: &'a str,
    folder: &'a ArchiveFolder,
    stores: &'a Stores,
    pending: &'a BTreeSet<u64>,
}

/// Images of a chunk that were decoded together.
struct Batch {
    chunk: u64,
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
    fn compute(&self, done: u64, stop: &AtomicBool, observer: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        // Without room: one batch is computed, one waits or is being decoded.
        let (send, receive) = sync_channel(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if let Err(error) = self.decode(&send) {
                    let _ = send.send(Err(error));
                }
            });
            self.answer(receive, done, stop, observer)
        })
    }

    /// Decodes batch after batch until all are taken or nobody takes them.
    fn decode(&self, send: &SyncSender<Result<Batch, Error>>) -> Result<(), Error> {
        let specs: Vec<&Preprocess> = self.settings.plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
        let key = self.settings.patient_key.as_ref();
        let at_once = BATCH.max(2 * rayon::current_num_threads());
        fetched(self.stores, self.named()?, at_once, |sources| {
            let (mut together, mut bytes) = (Vec::new(), 0);
            for source in sources {
                let source = source?;
                let (chunk, is_last) = (source.chunk, source.is_last);
                bytes += source.held();
                together.push(source);
                if !is_last && together.len() < at_once && bytes < BYTES {
                    continue;
                }
                let read = |source| Image::read(source, &specs, key);
                let images = std::mem::take(&mut together).into_par_iter().map(read).collect();
                bytes = 0;
                if send.send(Ok(Batch { chunk, images, is_last })).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    /// The images of all pending chunks.
    fn named(&self) -> Result<impl Iterator<Item = Result<Source, Error>> + Send, Error> {
        let mut names = NameReader::open(&self.folder.at(INPUTS))?;
        let mut next = 0;
        let of_chunk = move |&chunk: &u64| -> Result<Vec<Source>, Error> {
            (next..chunk).try_for_each(|passed| names.skip(self.plan.inputs_of(passed)))?;
            next = chunk + 1;
            let count = self.plan.inputs_of(chunk);
            let first = chunk * self.plan.chunk as u64;
            let numbered = (first..).zip(names.take(count)?);
            let source = |(number, path)| {
                let is_last = number + 1 == first + count as u64;
                Source { chunk, number, path, is_last, fetched: None }
            };
            Ok(numbered.map(source).collect())
        };
        let each = |sources: Result<Vec<Source>, Error>| match sources {
            Ok(sources) => sources.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        Ok(self.pending.iter().map(of_chunk).flat_map(each))
    }

    fn answer(
        &self,
        batches: Receiver<Result<Batch, Error>>,
        mut done: u64,
        stop: &AtomicBool,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let mut answers = Answers::default();
        for batch in batches {
            let Batch { chunk, images, is_last } = batch?;
            let count = images.len();
            answers.add(self, images, observer)?;
            observer(Event::Computed(count));
            if !is_last {
                continue;
            }
            self.write(chunk, &std::mem::take(&mut answers))?;
            done += self.plan.inputs_of(chunk) as u64;
            if stop.load(Ordering::Relaxed) && done < self.plan.inputs {
                let folder = self.folder.path().to_owned();
                return Err(Error::Interrupted { done, of: self.plan.inputs, folder });
            }
        }
        Ok(())
    }

    fn write(&self, chunk: u64, answers: &Answers) -> Result<(), Error> {
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
        self.folder.write(&name, &bytes)
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
