//! A plug-in on its backbone.

use crate::backbone::PyBackbone;
use crate::errors::{At, Door, Failure, OrRaise, work};
use crate::evaluation::PyEvaluation;
use melo::interop::{
    AdapterFormat, ImportSettings, Layout, OnnxWeights, import, merge, write_onnx, write_peft, write_timm,
};
use melo::train::card_sheet;
use melo::vit::{BoundPlugin, Engine, Error, Plugin, PluginInfo, Storage};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One clinical task on a frozen backbone.
#[pyclass(name = "Plugin", module = "melo_vit", frozen)]
pub(crate) struct PyPlugin {
    pub(crate) backbone: Py<PyBackbone>,
    pub(crate) bound: Arc<BoundPlugin>,
    pub(crate) storage: Storage,
    /// The epochs of its training, as JSON; `[]` of one that was read.
    pub(crate) history: String,
    /// What its training found odd.
    pub(crate) warnings: Vec<String>,
    pub(crate) val: Option<Py<PyEvaluation>>,
    pub(crate) test: Option<Py<PyEvaluation>>,
}

/// What makes an object again in another process, and of what.
pub(crate) type Reduced<'py, T> = PyResult<(Bound<'py, PyAny>, T)>;

/// A value of the libraries as Python's own.
pub(crate) fn json<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    of_json(py, &serde_json::to_string(value).map_err(|error| Failure::setting("json", error))?)
}

/// JSON as Python's own values.
pub(crate) fn of_json<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.getattr("loads")?.call1((text,))
}

/// A plain enum by its word.
pub(crate) fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What a file for a while is called: nowhere is its name kept.
pub(crate) fn scratch() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("melo-")
        .tempdir()
        .map_err(|error| Failure::new(Door::Training, "Io", format!("no folder for a while: {error}")))
}

fn storage(dtype: &str) -> Result<Storage, Failure> {
    match dtype {
        "f32" => Ok(Storage::F32),
        "f16" => Ok(Storage::F16),
        _ => Err(Failure::setting("dtype", format!("is \"{dtype}\", expected f32 or f16"))),
    }
}

impl PyPlugin {
    pub(crate) fn read(py: Python<'_>, path: &Path, backbone: Py<PyBackbone>) -> PyResult<Self> {
        let engine = Arc::clone(&backbone.get().engine);
        let bound = work(py, || {
            let plugin = Plugin::load(path, engine.backbone()).or_raise(Door::Plugin)?;
            plugin.bind(&*engine).or_raise(Door::Plugin)
        })?;
        PyPlugin::of(backbone, bound)
    }

    fn of(backbone: Py<PyBackbone>, bound: BoundPlugin) -> PyResult<Self> {
        let (bound, history) = (Arc::new(bound), "[]".to_owned());
        let (storage, warnings) = (Storage::F32, Vec::new());
        Ok(PyPlugin { backbone, bound, storage, history, warnings, val: None, test: None })
    }

    /// Bound to an engine, which may be another of the same backbone.
    pub(crate) fn bound_to(&self, py: Python<'_>, engine: &Arc<dyn Engine>) -> PyResult<Arc<BoundPlugin>> {
        let (expected, found) = (&self.bound.card.backbone, engine.backbone());
        if expected.digest != found.digest() {
            let short = |digest: &str| digest.chars().take(12).collect();
            let error = Error::BackboneMismatch {
                path: PathBuf::new(),
                expected_name: expected.name.clone(),
                expected: short(&expected.digest),
                found_name: found.name().to_owned(),
                found: short(found.digest()),
            };
            return Err(error.at(Door::Plugin).into());
        }
        if self.bound.is_on(&**engine) {
            return Ok(Arc::clone(&self.bound));
        }
        work(py, || Plugin::clone(&self.bound).bind(&**engine).map(Arc::new).or_raise(Door::Plugin))
    }

    fn write(&self, path: &Path, storage: Storage) -> Result<(), Failure> {
        let engine = &self.backbone.get().engine;
        self.bound.save(path, engine.backbone().config(), storage).or_raise(Door::Plugin)
    }

    fn info(&self) -> Result<PluginInfo, Failure> {
        let folder = scratch()?;
        let path = folder.path().join("plugin.safetensors");
        self.write(&path, self.storage)?;
        PluginInfo::read(&path).or_raise(Door::Plugin)
    }
}

#[pymethods]
impl PyPlugin {
    /// load(path, backbone)
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, backbone: Py<PyBackbone>) -> PyResult<Self> {
        PyPlugin::read(py, &path, backbone)
    }

    /// The classifier that came with the backbone's weights.
    #[staticmethod]
    fn own_classifier(py: Python<'_>, backbone: Py<PyBackbone>) -> PyResult<Self> {
        let engine = Arc::clone(&backbone.get().engine);
        let own = Plugin::own_classifier(engine.backbone()).ok_or_else(|| {
            let message = format!("{} has no classifier of its own", engine.backbone().name());
            Failure::new(Door::Backbone, "NoClassifier", message)
        })?;
        let bound = work(py, || own.bind(&*engine).or_raise(Door::Plugin))?;
        PyPlugin::of(backbone, bound)
    }

    /// from_bytes(data, backbone)
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8], backbone: Py<PyBackbone>) -> PyResult<Self> {
        let folder = scratch()?;
        let path = folder.path().join("plugin.safetensors");
        std::fs::write(&path, data)?;
        PyPlugin::read(py, &path, backbone)
    }

    /// The file as bytes.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let folder = scratch()?;
        let path = folder.path().join("plugin.safetensors");
        self.write(&path, self.storage)?;
        Ok(PyBytes::new(py, &std::fs::read(path)?))
    }

    /// save(path, *, dtype="f32")
    #[pyo3(signature = (path, *, dtype = None))]
    fn save(&self, path: PathBuf, dtype: Option<&str>) -> PyResult<()> {
        let storage = dtype.map_or(Ok(self.storage), storage)?;
        Ok(self.write(&path, storage)?)
    }

    /// The backbone that it belongs to.
    #[getter]
    fn backbone(&self, py: Python<'_>) -> Py<PyBackbone> {
        self.backbone.clone_ref(py)
    }

    /// Name of the task.
    #[getter]
    fn task(&self) -> &str {
        &self.bound.card.task
    }

    /// Kind of answers.
    #[getter]
    fn kind(&self) -> String {
        word(self.bound.card.kind)
    }

    /// Names of the classes.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.bound.card.classes.clone()
    }

    /// Everything that the file says of itself.
    #[getter]
    fn card<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json(py, &self.bound.card)
    }

    /// Figures by name.
    #[getter]
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json(py, &self.bound.card.metrics)
    }

    /// Trained numbers.
    #[getter]
    fn parameters(&self) -> usize {
        self.bound.parameters()
    }

    /// SHA-256 of its file.
    #[getter]
    fn digest(&self) -> PyResult<String> {
        // One that was read knows its file's.
        match self.bound.digest.is_empty() {
            true => Ok(self.info()?.digest),
            false => Ok(self.bound.digest.clone()),
        }
    }

    /// Its epochs.
    #[getter]
    fn history<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        of_json(py, &self.history)
    }

    /// What its training found odd about data and figures.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// What it said of the validation split when it was trained.
    #[getter]
    fn val(&self, py: Python<'_>) -> Option<Py<PyEvaluation>> {
        self.val.as_ref().map(|val| val.clone_ref(py))
    }

    /// What it said of the test split when it was trained.
    #[getter]
    fn test(&self, py: Python<'_>) -> Option<Py<PyEvaluation>> {
        self.test.as_ref().map(|test| test.clone_ref(py))
    }

    /// The card as a page of HTML.
    fn to_html(&self) -> PyResult<String> {
        Ok(card_sheet(&self.info()?).html())
    }

    /// The card as Markdown.
    fn to_markdown(&self) -> PyResult<String> {
        Ok(card_sheet(&self.info()?).markdown())
    }

    /// to_peft(folder, *, layout="timm")
    #[pyo3(signature = (folder, *, layout = "timm"))]
    fn to_peft(&self, folder: PathBuf, layout: &str) -> PyResult<()> {
        let layout = match layout {
            "timm" => Layout::Timm,
            "hf" => Layout::HuggingFace,
            "hf-new" => Layout::HuggingFaceNew,
            _ => return Err(Failure::setting("layout", format!("is \"{layout}\", expected timm, hf or hf-new")).into()),
        };
        let backbone = self.backbone.get();
        let config = backbone.engine.backbone().config();
        Ok(write_peft(&folder, &self.bound, config, layout).or_raise(Door::Plugin)?)
    }

    /// from_peft(folder, backbone, *, task=None, classes=None, multi_label=False, card=None, head=None)
    #[staticmethod]
    #[pyo3(signature = (folder, backbone, *, task = None, classes = None, multi_label = false, card = None, head = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn from_peft(
        py: Python<'_>,
        folder: PathBuf,
        backbone: Py<PyBackbone>,
        task: Option<String>,
        classes: Option<Vec<String>>,
        multi_label: bool,
        card: Option<PathBuf>,
        head: Option<PathBuf>,
    ) -> PyResult<Self> {
        let engine = Arc::clone(&backbone.get().engine);
        let bound = work(py, || {
            let settings = ImportSettings {
                format: Some(AdapterFormat::Peft),
                task: task.as_deref(),
                classes: classes.as_deref(),
                multi_label,
                card: card.as_deref(),
                head: head.as_deref(),
                alpha: None,
            };
            let imported = import(&folder, &*engine, &settings).or_raise(Door::Plugin)?;
            imported.plugin.bind(&*engine).or_raise(Door::Plugin)
        })?;
        PyPlugin::of(backbone, bound)
    }

    /// Backbone and plug-in as one checkpoint of timm: `model.safetensors` and `config.json` in a folder.
    fn to_timm(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        let backbone = self.backbone.get();
        work(py, || {
            let merged = merge(backbone.weights()?.thaw(), &self.bound).or_raise(Door::Plugin)?;
            write_timm(&folder, &merged, &self.bound).map(drop).or_raise(Door::Plugin)
        })
    }

    /// Backbone and plug-in as ONNX.
    fn to_onnx(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let backbone = self.backbone.get();
        work(py, || {
            let checkpoint = backbone.weights()?.thaw();
            write_onnx(&path, checkpoint, &self.bound, OnnxWeights::Auto).or_raise(Door::Plugin)
        })
    }

    fn _repr_html_<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("melo_vit._html")?.getattr("framed")?.call1((self.to_html()?,))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> Reduced<'py, (Bound<'py, PyBytes>, Py<PyBackbone>)> {
        let again = py.import("melo_vit._pickle")?.getattr("plugin")?;
        Ok((again, (self.to_bytes(py)?, self.backbone(py))))
    }

    fn __repr__(&self) -> String {
        let card = &self.bound.card;
        format!("<Plugin {}: {} on {}>", card.task, card.classes.join(", "), card.backbone.name)
    }
}
