//! What a whole archive would take, from a few of its images: rates of reading, decoding and computing on this machine.

use crate::caught::caught;
use crate::draft::{check_plugins, in_words};
use crate::error::Error;
use crate::image::Image;
use crate::inputs::{Input, Listed, list};
use crate::names::names_at;
use crate::patient::PatientKey;
use crate::run::Event;
use crate::sources::{Source, fetched};
use crate::store::Stores;
use melo_imaging::file_of;
use melo_predict::{Predictor, Prepared};
use melo_vit::{BoundPlugin, Preprocess};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Images that are looked at where nothing else is asked for.
pub const SAMPLE: usize = 64;
/// Images that are computed before anything is timed.
const WARM: usize = 4;

/// Images of an archive, read and decoded.
pub struct Sample {
    /// What the archive holds.
    pub listed: Listed,
    /// Images that were read.
    pub images: usize,
    /// Those among them that have no answer.
    pub refused: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Seconds in which objects were fetched, as many at once as a run fetches.
    pub fetch_seconds: f64,
    /// Seconds in which files were read, on all threads.
    pub read_seconds: f64,
    /// Seconds in which they were decoded, on all threads.
    pub decode_seconds: f64,
    prepared: Vec<Prepared>,
}

/// What a list of images takes of machines such as this one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// Images.
    pub images: u64,
    /// Bytes that are read.
    pub bytes: f64,
    /// Hours of one machine.
    pub machine_hours: f64,
}

impl Sample {
    /// Lists all images and reads `most` of them, one at a random place in each of as many equal stretches of the list: the same ones each time.
    ///
    /// # Errors
    /// Those of [`crate::run()`], before it writes.
    pub fn take(
        settings: (&[Arc<BoundPlugin>], Option<&PatientKey>),
        inputs: &[Input],
        most: usize,
        stop: &AtomicBool,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self, Error> {
        let (plugins, key) = settings;
        check_plugins(plugins)?;
        let stores = Stores::default();
        let names = tempfile::NamedTempFile::new().map_err(Error::io(std::env::temp_dir()))?;
        let paths = (names.as_file(), names.path(), Path::new(""));
        let listed = list((inputs, &stores), paths, stop, observer)?;
        if listed.inputs == 0 {
            return Err(Error::NoInput { inputs: in_words(inputs) });
        }
        let places = places(&listed, most);
        let sources = sources(&places, names_at(names.path(), &places)?);

        let mut started = Instant::now();
        let mut lap = || std::mem::replace(&mut started, Instant::now()).elapsed().as_secs_f64();
        let sources =
            fetched(&stores, sources.into_iter().map(Ok), most, |sources| sources.collect::<Result<Vec<_>, _>>())?;
        let fetch_seconds = lap();
        let sources: Vec<Source<()>> = sources.into_par_iter().map(read).collect();
        let read_seconds = lap();
        let bytes = sources.iter().map(Source::bytes).sum();

        let specs: Vec<&Preprocess> = plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
        let images: Vec<Image> = sources.into_par_iter().map(|source| Image::read(source, &specs, key)).collect();
        let decode_seconds = lap();
        for image in &images {
            if let Some(error) = &image.facts.error {
                observer(Event::Refused(error));
            }
        }
        let count = images.len();
        let prepared: Vec<Prepared> = images.into_iter().filter_map(|image| image.prepared).collect();
        let refused = count - prepared.len();
        Ok(Sample { listed, images: count, refused, bytes, fetch_seconds, read_seconds, decode_seconds, prepared })
    }

    /// Seconds in which these plug-ins answer for the images that could be read.
    ///
    /// # Errors
    /// Those of the predictor.
    ///
    /// # Panics
    /// If a plug-in is bound to another engine, or wants other images than those that the sample was taken for.
    pub fn infer(&self, predictor: &Predictor, plugins: &[Arc<BoundPlugin>]) -> Result<f64, Error> {
        let all: Vec<&Prepared> = self.prepared.iter().collect();
        let mut seconds = 0.0;
        for images in [&all[..all.len().min(WARM)], &all[..]] {
            let started = Instant::now();
            predictor.predict_prepared(images, plugins).map_err(|error| Error::Predict(error.into()))?;
            seconds = started.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }

    /// Images a second of one machine on which [`Sample::infer`] took so long. Reading, decoding and computing share its threads; objects are
    /// fetched meanwhile.
    pub fn rate(&self, infer_seconds: f64) -> f64 {
        let own = self.read_seconds + self.decode_seconds + infer_seconds;
        self.images as f64 / self.fetch_seconds.max(own).max(f64::MIN_POSITIVE)
    }

    /// Mean bytes of an image.
    pub fn bytes_per_image(&self) -> f64 {
        self.bytes as f64 / self.images as f64
    }

    /// What so many such images take at a rate of [`Sample::rate`].
    pub fn need(&self, images: u64, rate: f64) -> Need {
        let count = images as f64;
        Need { images, bytes: count * self.bytes_per_image(), machine_hours: count / rate / 3600.0 }
    }
}

/// A place in each of `most` equal stretches of a list, which the list decides.
fn places(listed: &Listed, most: usize) -> Vec<u64> {
    let count = listed.inputs.min(most as u64);
    let bound = |stretch: u64| (u128::from(listed.inputs) * u128::from(stretch) / u128::from(count)) as u64;
    let place = |stretch: u64| {
        let digest = Sha256::digest(format!("{} {stretch}", listed.digest));
        let drawn = digest.iter().take(8).fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let (first, end) = (bound(stretch), bound(stretch + 1));
        first + drawn % (end - first)
    };
    (0..count).map(place).collect()
}

fn sources(places: &[u64], names: Vec<PathBuf>) -> Vec<Source<()>> {
    places.iter().zip(names).map(|(&number, path)| Source::new(0, number, path, false)).collect()
}

/// With the bytes of a file, too.
fn read(source: Source<()>) -> Source<()> {
    let path = file_of(&source.path);
    let of_file = || caught(|| crate::image::read(&path)).unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    let bytes = source.fetched.unwrap_or_else(of_file);
    Source { fetched: Some(bytes), ..source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_over_the_list_and_always_the_same() {
        let of = |inputs: u64, most: usize| places(&Listed { inputs, ..Listed::default() }, most);
        assert_eq!(of(5, 64), [0, 1, 2, 3, 4]);
        let drawn = of(6400, 64);
        assert!(drawn.iter().enumerate().all(|(stretch, place)| place / 100 == stretch as u64), "{drawn:?}");
        assert!(drawn.iter().any(|place| place % 100 != drawn[0] % 100) && drawn == of(6400, 64));
    }

    #[test]
    fn objects_are_fetched_beside_all_else_which_shares_the_threads() {
        let listed = Listed { inputs: 1000, ..Listed::default() };
        let sample = Sample {
            listed,
            images: 60,
            refused: 0,
            bytes: 6000,
            fetch_seconds: 2.0,
            read_seconds: 0.5,
            decode_seconds: 0.5,
            prepared: Vec::new(),
        };
        assert_eq!((sample.rate(5.0), sample.rate(0.5)), (10.0, 30.0));
        let need = Need { images: 72_000, bytes: 7.2e6, machine_hours: 2.0 };
        assert_eq!(sample.need(72_000, 10.0), need);
    }
}
