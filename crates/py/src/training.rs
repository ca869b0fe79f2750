//! A training: labelled images in, a plug-in out.

use crate::backbone::PyBackbone;
use crate::data::PyData;
use crate::errors::{At, Door, Failure, OrRaise, interrupted, stopped, work};
use crate::evaluation::PyEvaluation;
use crate::plugin::PyPlugin;
use crate::settings::Settings;
use melo::train::{Error, Event, Finished, Job, Resume, RunFolder, RunOptions};
use melo::vit::Storage;
use pyo3::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whoever is told of a training, and what came of telling.
struct Observer {
    told: Option<Py<PyAny>>,
    error: Mutex<Option<PyErr>>,
    stop: AtomicBool,
}

impl Observer {
    /// Tells an event, and hears whether the user wants to stop.
    fn hear(&self, event: &Event<'_>) {
        let mut kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none()
            && let Some(told) = &self.told
        {
            *kept = Python::attach(|py| tell(py, told, event).err());
        }
        if interrupted(&mut kept) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Option<PyErr> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An event as a dictionary.
fn tell(py: Python<'_>, told: &Py<PyAny>, event: &Event<'_>) -> PyResult<()> {
    let object = match event {
        Event::Splits(assigned) => serde_json::json!({"event": "splits", "said": assigned.to_string()}),
        Event::Base => serde_json::json!({"event": "base"}),
        Event::Fold { fold, of } => serde_json::json!({"event": "fold", "fold": fold, "of": of}),
        Event::Reading { done, of } => serde_json::json!({"event": "reading", "done": done, "of": of}),
        Event::Features { done, of } => serde_json::json!({"event": "features", "done": done, "of": of}),
        Event::NoTestFigures(error) => serde_json::json!({"event": "no_test_figures", "said": error.to_string()}),
        Event::Started { config, trainable, backbone, images, epochs_done, .. } => serde_json::json!({
            "event": "started", "trainable": trainable, "backbone": backbone, "images": images, "epochs": config.epochs,
            "epochs_done": epochs_done,
        }),
        Event::Step { epoch, images, loss } => {
            serde_json::json!({"event": "step", "epoch": epoch, "images": images, "loss": loss})
        }
        Event::Validating { epoch } => serde_json::json!({"event": "validating", "epoch": epoch}),
        Event::Epoch(row) => serde_json::json!({"event": "epoch", "row": row}),
        Event::Batch { .. } | Event::Validated { .. } | Event::Card(_) => return Ok(()),
    };
    told.call1(py, (crate::plugin::json(py, &object)?,)).map(drop)
}

/// The run folder, where one is asked for.
fn run_folder(settings: &Settings) -> Result<Option<RunFolder>, Failure> {
    let Some(path) = &settings.run else { return Ok(None) };
    let folder = RunFolder::create(path).or_raise(Door::Training)?;
    if !settings.resume && !settings.overwrite {
        folder.refuse_existing().or_raise(Door::Training)?;
    }
    Ok(Some(folder))
}

/// Trains; what Python's `train` is made of.
#[pyfunction]
pub(crate) fn train(
    py: Python<'_>,
    backbone: Py<PyBackbone>,
    data: Py<PyData>,
    settings: &str,
    told: Option<Py<PyAny>>,
) -> PyResult<PyPlugin> {
    let settings = Settings::read(settings)?;
    let observer = Observer { told, error: Mutex::new(None), stop: AtomicBool::new(false) };
    let finished = work(py, || run(backbone.get(), data.get(), &settings, &observer));
    if let Some(error) = observer.take() {
        return Err(error);
    }
    let Some(finished) = finished? else { return Err(stopped()) };
    let storage = if settings.f16 { Storage::F16 } else { Storage::F32 };
    let (finished, mut warnings) = finished;
    let home = match (&finished.checkpoint, &settings.backbone_out) {
        (Some(checkpoint), Some(path)) => {
            work(py, || checkpoint.write(path, storage).or_raise(Door::Backbone))?;
            Py::new(py, backbone.get().of_engine(Arc::clone(&finished.engine), std::path::absolute(path)?))?
        }
        _ => backbone,
    };
    let Finished { plugin, engine, history, val, test, .. } = finished;
    let bound = Arc::new(plugin.bind(&*engine).or_raise(Door::Plugin)?);
    let evaluated = |answers, split| Py::new(py, PyEvaluation::new(&bound, answers, split)?);
    let val = Some(evaluated(val, "val")?);
    let test = test.map(|test| evaluated(test, "test")).transpose()?;
    warnings.extend(test.as_ref().map(|test| test.get().warnings()).transpose()?.unwrap_or_default());
    let history = serde_json::to_string(&history).map_err(|error| Failure::setting("history", error))?;
    Ok(PyPlugin { backbone: home, bound, storage, history, warnings, val, test })
}

/// The training, and what is odd about its data; none where it was stopped.
fn run(
    backbone: &PyBackbone,
    data: &PyData,
    settings: &Settings,
    observer: &Observer,
) -> Result<Option<(Finished, Vec<String>)>, Failure> {
    let device = backbone.device();
    let (info, manifest) = (backbone.engine.backbone(), data.manifest()?);
    let config = settings.config(info.config().depth, device.info().precision)?;
    if config.method.trains_backbone() && settings.backbone_out.is_none() {
        let reason = "is missing: full fine-tuning makes another backbone, which has to be written somewhere";
        return Err(Failure::setting("backbone_out", reason));
    }
    if let Some(path) = settings.backbone_out.as_deref().filter(|path| same_file(path, backbone.source())) {
        return Err(Failure::setting("backbone_out", format!("{} is the backbone itself", path.display())));
    }
    if let Some(path) =
        settings.backbone_out.as_deref().filter(|path| path.exists() && !settings.overwrite && !settings.resume)
    {
        let reason = format!("{} exists already; overwrite=True replaces it", path.display());
        return Err(Failure::setting("backbone_out", reason));
    }
    let mut preprocess = settings.preprocess(info.preprocess());
    if let Some(plane) = data.bag_plane() {
        preprocess.rendering.plane = plane;
    }
    let mut warnings: Vec<String> = manifest.reading.warnings.iter().map(ToString::to_string).collect();
    let usual = Job::new(device, backbone.weights()?, manifest);
    let job = Job {
        task: settings.task.as_deref().or(data.task()).unwrap_or(&usual.task).to_owned(),
        preprocess,
        config,
        storage: if settings.f16 { Storage::F16 } else { Storage::F32 },
        cache: data.cache(),
        sets: settings.sets(),
        scope: settings.scope(),
        ..usual
    };
    let cache = Arc::clone(&job.cache);
    let ready = job.prepare(&mut |event| observer.hear(&event)).or_raise(Door::Training)?;
    let folder = run_folder(settings)?;
    let resume = if settings.resume { Resume::Always } else { Resume::Never };
    let told = &mut |event: Event<'_>| observer.hear(&event);
    match ready.run(RunOptions { folder: folder.as_ref(), resume, stop: &observer.stop, observer: told }) {
        Err(Error::Interrupted { .. }) => Ok(None),
        Err(error) => Err(error.at(Door::Training)),
        Ok(finished) => {
            warnings.extend(cache.tally().remarks().into_iter().map(|(_, said)| said));
            Ok(Some((finished, warnings)))
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
