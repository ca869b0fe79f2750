//! A backbone on this machine's processor.

use crate::errors::{Door, Failure, OrRaise, work};
use crate::images;
use crate::plugin::PyPlugin;
use melo::interop::{ReadSettings, read_checkpoint_with};
use melo::vit::{EngineInfo, Error, FeatureKind, Features, Precision};
use melo::{Backbone, Device, DeviceSpec, Engine, Opened, open_engine};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Images embedded before Ctrl-C is heard.
const CHUNK: usize = 256;

/// Packed weights that are being written for the next start.
static WRITING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits until packed weights are written: registered to be called at the interpreter's end.
#[pyfunction]
pub(crate) fn finish(py: Python<'_>) {
    let writing = std::mem::take(&mut *WRITING.lock().unwrap_or_else(PoisonError::into_inner));
    py.detach(|| writing.into_iter().for_each(|thread| drop(thread.join())));
}

/// A frozen Vision Transformer, ready to compute.
#[pyclass(name = "Backbone", module = "melo_vit", frozen)]
pub(crate) struct PyBackbone {
    pub(crate) engine: Arc<dyn Engine>,
    device: Arc<dyn Device>,
    source: PathBuf,
    settings: ReadSettings,
    /// As they were asked for, 0 for one a core.
    threads: usize,
    notes: Vec<String>,
}

impl PyBackbone {
    /// The weights once more, from their file.
    pub(crate) fn weights(&self) -> Result<Backbone, Failure> {
        let read = read_checkpoint_with(&self.source, &self.settings).or_raise(Door::Backbone)?;
        let backbone = read.checkpoint.freeze();
        if backbone.info().digest() == self.engine.backbone().digest() {
            return Ok(backbone);
        }
        let message = format!("{}: its weights are others than when it was loaded", self.source.display());
        Err(Failure::new(Door::Backbone, "Changed", message))
    }

    /// A device whose engine for these weights is the one that is there.
    pub(crate) fn device(&self) -> Arc<dyn Device> {
        Arc::new(Loaded { device: Arc::clone(&self.device), engine: Arc::clone(&self.engine) })
    }

    /// Where it was read from.
    pub(crate) fn source(&self) -> &std::path::Path {
        &self.source
    }

    /// The same, of weights that a training changed and wrote to a file.
    pub(crate) fn of_engine(&self, engine: Arc<dyn Engine>, source: PathBuf) -> Self {
        let (device, settings) = (Arc::clone(&self.device), ReadSettings::default());
        PyBackbone { engine, device, source, settings, threads: self.threads, notes: Vec::new() }
    }
}

/// A device that has an engine already.
#[derive(Debug)]
struct Loaded {
    device: Arc<dyn Device>,
    engine: Arc<dyn Engine>,
}

impl Device for Loaded {
    fn info(&self) -> EngineInfo {
        self.device.info()
    }

    fn load(&self, backbone: Backbone) -> Result<Arc<dyn Engine>, Error> {
        match backbone.info().digest() == self.engine.backbone().digest() {
            true => Ok(Arc::clone(&self.engine)),
            false => self.device.load(backbone),
        }
    }

    fn peak(&self) -> Option<melo::vit::Peak> {
        self.device.peak()
    }
}

/// A precision by its word.
fn precision(word: &str) -> Result<Option<Precision>, Failure> {
    Ok(Some(match word {
        "auto" => return Ok(None),
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "bf16x3" => Precision::Bf16x3,
        "int8" => Precision::Int8,
        _ => {
            return Err(Failure::setting(
                "precision",
                format!("is \"{word}\", expected auto, f32, bf16, bf16x3 or int8"),
            ));
        }
    }))
}

#[pymethods]
impl PyBackbone {
    /// load(source, *, precision="f32", threads=0, weights_key=None)
    #[staticmethod]
    #[pyo3(signature = (source, *, precision = "f32", threads = 0, weights_key = None))]
    fn load(
        py: Python<'_>,
        source: PathBuf,
        precision: &str,
        threads: usize,
        weights_key: Option<String>,
    ) -> PyResult<Self> {
        let precision = self::precision(precision)?;
        let settings = ReadSettings { weights_key, ..ReadSettings::default() };
        // Pickled it is this file, whatever folder the other process works in; a name on the hub stays as it is.
        let source = match source.exists() {
            true => std::path::absolute(&source)?,
            false => source,
        };
        work(py, move || {
            let device = DeviceSpec { precision, threads }.open();
            let Opened { engine, notes, unkept } =
                open_engine(&*device, &source, &settings).or_raise(Door::Backbone)?;
            if let Some(unkept) = unkept {
                // A folder that cannot be written costs the next start its speed, and nothing else.
                let write = std::thread::spawn(move || drop(unkept.keep()));
                WRITING.lock().unwrap_or_else(PoisonError::into_inner).push(write);
            }
            Ok(PyBackbone { engine, device, source, settings, threads, notes })
        })
    }

    /// Name of the architecture.
    #[getter]
    fn name(&self) -> &str {
        self.engine.backbone().name()
    }

    /// SHA-256 of architecture and weights.
    #[getter]
    fn digest(&self) -> &str {
        self.engine.backbone().digest()
    }

    /// Where it was read from.
    #[getter(source)]
    fn source_path(&self) -> PathBuf {
        self.source.clone()
    }

    /// Numbers in the matrix products.
    #[getter]
    fn precision(&self) -> String {
        self.engine.info().precision.to_string()
    }

    /// Threads that compute.
    #[getter(threads)]
    fn computing_threads(&self) -> usize {
        self.engine.info().threads
    }

    /// What it runs on.
    #[getter]
    fn device_name(&self) -> String {
        self.engine.info().device
    }

    /// Side of the images that the weights were trained on, pixels.
    #[getter]
    fn image_size(&self) -> usize {
        self.engine.backbone().preprocess().size
    }

    /// Width of a token.
    #[getter]
    fn width(&self) -> usize {
        self.engine.backbone().config().width
    }

    /// Number of blocks.
    #[getter]
    fn depth(&self) -> usize {
        self.engine.backbone().config().depth
    }

    /// Weights, without a classifier.
    #[getter]
    fn parameters(&self) -> usize {
        self.engine.backbone().config().parameters()
    }

    /// Choices that the files left open.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// to_torch(plugin=None)
    #[pyo3(signature = (plugin = None))]
    fn to_torch<'py>(slf: &Bound<'py, Self>, plugin: Option<Py<PyPlugin>>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("melo_vit._torch")?.getattr("module")?.call1((slf, plugin))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let again = py.import("melo_vit._pickle")?.getattr("backbone")?;
        let given = (&self.source, self.precision(), self.threads, self.settings.weights_key.as_deref(), self.digest());
        Ok((again, given.into_pyobject(py)?))
    }

    fn __repr__(&self) -> String {
        let (info, backbone) = (self.engine.info(), self.engine.backbone());
        let digest = &backbone.digest()[..12];
        format!("<Backbone {} {digest} in {} on {}>", backbone.name(), info.precision, info.device)
    }

    /// embed(images, *, kind="pooled", block=None, norm=True, layout=None, value_range=None)
    #[pyo3(signature = (images, *, kind = "pooled", block = None, norm = true, layout = None, value_range = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        kind: &str,
        block: Option<usize>,
        norm: bool,
        layout: Option<&str>,
        value_range: Option<(f64, f64)>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let config = self.engine.backbone().config();
        let kinds = [FeatureKind::Class, FeatureKind::Mean, FeatureKind::Grid, FeatureKind::Pooled];
        let expected = || Failure::setting("kind", format!("is \"{kind}\", expected class, mean, grid or pooled"));
        let kind = kinds.into_iter().find(|known| known.name() == kind).ok_or_else(expected)?;
        let mut features = match kind {
            FeatureKind::Pooled => Features::pooled(config),
            kind => Features::new(kind, config),
        };
        features.block = block.unwrap_or(features.block);
        features.norm = norm || kind == FeatureKind::Pooled;
        let images = images::taken(images, layout, value_range)?;
        features.check(config).or_raise(Door::Setting)?;
        let spec = self.engine.backbone().preprocess();
        let mut values = Vec::new();
        for images in images.chunks(CHUNK) {
            let source = images::Source { images, spec };
            let of_chunk = || self.engine.features(&source, images.len(), spec.size, None, features);
            values.extend(work(py, || of_chunk().or_raise(Door::Image))?);
            py.check_signals()?;
        }
        let mut shape = vec![images.len()];
        shape.extend(features.shape(config, spec.size));
        PyArray1::from_vec(py, values).reshape(shape)
    }
}
