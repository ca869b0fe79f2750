//! Event files of TensorBoard: one for every start of a training, all in its folder.

use crate::error::Error;
use crate::proto::{self, Message};
use crate::record::{Record, seconds};
use crate::tfrecord::frame;
use crate::worker::Sink;
use melo_imaging::encode_png;
use melo_train::card_sheet;
use melo_vit::PluginInfo;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Writes event files.
pub(crate) struct TensorBoard {
    folder: PathBuf,
    file: Option<(PathBuf, File)>,
}

impl TensorBoard {
    pub(crate) fn new(folder: &Path) -> Self {
        TensorBoard { folder: folder.to_owned(), file: None }
    }

    /// A new file, after those of former starts: they are read in the order of their names.
    fn begin(&mut self) -> Result<(), Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        std::fs::create_dir_all(&self.folder).map_err(io(&self.folder))?;
        let now = seconds(SystemTime::now());
        for number in 0.. {
            let name = format!("events.out.tfevents.{:010}.melo.{:07}.{number}", now as u64, std::process::id());
            let path = self.folder.join(name);
            match File::options().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                opened => {
                    self.file = Some((path.clone(), opened.map_err(io(&path))?));
                    break;
                }
            }
        }
        self.put(&proto::file_version(now))
    }

    fn put(&mut self, event: &Message) -> Result<(), Error> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        file.write_all(&frame(event.encoded())).map_err(|source| Error::Io { path: path.clone(), source })
    }

    fn write_one(&mut self, record: &Record) -> Result<(), Error> {
        match record {
            Record::Begin { steps, goes_on } => {
                self.begin()?;
                let first = if *goes_on { steps + 1 } else { 0 };
                self.put(&proto::session_start(seconds(SystemTime::now()), first))
            }
            Record::Scalars { step, at, values } => {
                let values = values.iter().map(|(tag, value)| proto::scalar(tag, *value as f32)).collect();
                self.put(&proto::summary(seconds(*at), *step, values))
            }
            Record::Picture { step, at, tag, pixels } => {
                let encoded = encode_png(pixels).map_err(|source| Error::Io { path: self.folder.clone(), source })?;
                let value = proto::picture(tag, pixels.height, pixels.width, &encoded);
                self.put(&proto::summary(seconds(*at), *step, vec![value]))
            }
            Record::Curves { step, at, curves } => {
                let value = |(class, curve): &(String, crate::pr_curve::PrCurve)| {
                    proto::pr_curve(&format!("val/{class}"), &curve.0, crate::pr_curve::THRESHOLDS)
                };
                let values = curves.iter().map(value).collect();
                self.put(&proto::summary(seconds(*at), *step, values))
            }
            Record::Plugin { step, at, path } => {
                let markdown = card_sheet(&PluginInfo::read(path)?).markdown();
                self.put(&proto::summary(seconds(*at), *step, vec![proto::text("card", &markdown)]))
            }
            Record::End { .. } => {
                self.file = None;
                Ok(())
            }
        }
    }
}

impl Sink for TensorBoard {
    fn write(&mut self, pending: &mut VecDeque<Record>) -> Result<(), Error> {
        while let Some(record) = pending.pop_front() {
            self.write_one(&record).inspect_err(|error| {
                // Half a record would hide all that follows it.
                if matches!(error, Error::Io { .. }) {
                    self.file = None;
                }
            })?;
        }
        Ok(())
    }

    fn wants_pictures(&self) -> bool {
        true
    }

    fn pause(&self) -> Duration {
        Duration::ZERO
    }

    fn name(&self) -> String {
        format!("TensorBoard in {}", self.folder.display())
    }
}
