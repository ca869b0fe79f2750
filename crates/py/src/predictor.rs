//! Any number of plug-ins about any number of images.

use crate::backbone::PyBackbone;
use crate::errors::{Door, Failure, OrRaise, work};
use crate::images::{self, Image};
use crate::plugin::{PyPlugin, Reduced};
use melo::imaging::Pixels;
use melo::predict::{Bag, BagImage, Drawing, Prepared, mask_of};
use melo::vit::{BoundPlugin, Decision, ExplainMethod};
use melo::{Prediction, Predictor};
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;
use std::sync::Arc;

/// Images decoded and computed together: enough to keep all cores busy, few enough that Ctrl-C is soon heard.
const CHUNK: usize = 64;
/// Images whose pixels are kept where nobody says whether: as many as are looked at.
const FEW: usize = 16;

/// A backbone that is asked about images by plug-ins.
#[pyclass(name = "Predictor", module = "melo_vit", frozen)]
pub(crate) struct PyPredictor {
    backbone: Py<PyBackbone>,
    given: Vec<Py<PyPlugin>>,
    predictor: Predictor,
    plugins: Vec<Arc<BoundPlugin>>,
}

/// What one plug-in says of one image.
#[pyclass(name = "Prediction", module = "melo_vit", frozen)]
pub(crate) struct PyPrediction {
    predictor: Predictor,
    plugin: Arc<BoundPlugin>,
    decision: Decision,
    logits: Vec<f32>,
    image: String,
    /// The image and which of its tasks it is, where pixels were kept.
    prepared: Option<(Arc<Prepared>, usize)>,
    sides: (usize, usize),
    /// What was odd about the image.
    remarks: Vec<String>,
    /// How much each image of a bag counted.
    attention: Option<Vec<f32>>,
}

#[pymethods]
impl PyPredictor {
    /// Predictor(backbone, plugins)
    #[new]
    fn new(py: Python<'_>, backbone: Py<PyBackbone>, plugins: &Bound<'_, PyAny>) -> PyResult<Self> {
        let one = |plugin: Bound<'_, PyAny>| match plugin.cast::<PyPlugin>() {
            Ok(plugin) => Ok(plugin.clone().unbind()),
            Err(_) => Py::new(py, PyPlugin::read(py, &plugin.extract::<PathBuf>()?, backbone.clone_ref(py))?),
        };
        let alone = plugins.cast::<PyPlugin>().is_ok() || plugins.extract::<PathBuf>().is_ok();
        let given: Vec<Py<PyPlugin>> = match alone {
            true => vec![one(plugins.clone())?],
            false => plugins.try_iter()?.map(|plugin| one(plugin?)).collect::<PyResult<_>>()?,
        };
        if given.is_empty() {
            return Err(Failure::setting("plugins", "is empty, expected at least one").into());
        }
        let engine = Arc::clone(&backbone.get().engine);
        let bound = given.iter().map(|plugin| plugin.get().bound_to(py, &engine));
        let plugins = bound.collect::<PyResult<Vec<_>>>()?;
        Ok(PyPredictor { backbone, given, predictor: Predictor::new(engine), plugins })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Reduced<'py, (Py<PyBackbone>, Vec<Py<PyPlugin>>)> {
        let (py, own) = (slf.py(), slf.get());
        let plugins = own.given.iter().map(|plugin| plugin.clone_ref(py)).collect();
        Ok((slf.get_type().into_any(), (own.backbone.clone_ref(py), plugins)))
    }

    /// The backbone.
    #[getter]
    fn backbone(&self, py: Python<'_>) -> Py<PyBackbone> {
        self.backbone.clone_ref(py)
    }

    /// Names of the tasks, in the order of the plug-ins.
    #[getter]
    fn tasks(&self) -> Vec<&str> {
        self.plugins.iter().map(|plugin| plugin.card.task.as_str()).collect()
    }

    /// predict(images, *, layout=None, value_range=None, keep_pixels=None)
    #[pyo3(signature = (images, *, layout = None, value_range = None, keep_pixels = None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        layout: Option<&str>,
        value_range: Option<(f64, f64)>,
        keep_pixels: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let images = images::taken(images, layout, value_range)?;
        let keep_pixels = keep_pixels.unwrap_or(images.len() <= FEW);
        let said = self.said(py, &images, keep_pixels)?;
        py.import("melo_vit._predictions")?.getattr("Predictions")?.call1((self.tasks(), said))
    }

    /// predict_bag(images)
    fn predict_bag(&self, py: Python<'_>, images: &Bound<'_, PyAny>) -> PyResult<Vec<PyPrediction>> {
        let images = images::taken(images, None, None)?.into_iter().map(|image| match image {
            Image::File(path) => Ok(BagImage::of_file(path)),
            Image::Bytes(name, bytes) => Ok(BagImage::of_bytes(name, Arc::from(&bytes[..]))),
            Image::Pixels(name, _) => {
                let message = format!("{}: images of a bag are files, or bytes of files", name.display());
                Err(Failure::new(Door::Image, "Bag", message))
            }
        });
        let bag = Bag { images: images.collect::<Result<_, _>>()?, memory: None };
        let name = bag.images.first().map(|image| image.name().display().to_string()).unwrap_or_default();
        let of_plugin = |plugin: &Arc<BoundPlugin>| {
            let said = work(py, || self.predictor.predict_bag(&bag, plugin).or_raise(Door::Plugin))?;
            let (predictor, plugin, image) = (self.predictor.clone(), Arc::clone(plugin), name.clone());
            Ok(PyPrediction {
                predictor,
                plugin,
                decision: said.decision,
                logits: said.logits,
                image,
                prepared: None,
                sides: (0, 0),
                remarks: Vec::new(),
                attention: Some(said.attention),
            })
        };
        self.plugins.iter().map(of_plugin).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Predictor on {}: {}>", self.predictor.engine().backbone().name(), self.tasks().join(", "))
    }
}

impl PyPredictor {
    /// What each plug-in says of each image: `[images][plug-ins]`.
    fn said(&self, py: Python<'_>, images: &[Image], keep_pixels: bool) -> PyResult<Vec<Vec<PyPrediction>>> {
        let mut said = Vec::with_capacity(images.len());
        for chunk in images.chunks(CHUNK) {
            let of_chunk = work(py, || {
                let prepared = images::prepared(chunk, &self.plugins, keep_pixels)?;
                let asked: Vec<&Prepared> = prepared.iter().collect();
                let predictions = self.predictor.predict_prepared(&asked, &self.plugins).or_raise(Door::Plugin)?;
                Ok((prepared, predictions))
            })?;
            for ((image, prepared), predictions) in chunk.iter().zip(of_chunk.0).zip(of_chunk.1) {
                let (prepared, name) = (Arc::new(prepared), image.name().display().to_string());
                let of_plugins = predictions.into_iter().enumerate().map(|(task, prediction)| {
                    let Prediction { plugin, decision, logits } = prediction;
                    let (predictor, image, sides) = (self.predictor.clone(), name.clone(), prepared.sides[task]);
                    let remarks = prepared.seen[task].remarks();
                    let prepared = keep_pixels.then(|| (Arc::clone(&prepared), task));
                    PyPrediction {
                        predictor,
                        plugin,
                        decision,
                        logits,
                        image,
                        prepared,
                        sides,
                        remarks,
                        attention: None,
                    }
                });
                said.push(of_plugins.collect());
            }
            py.check_signals()?;
        }
        Ok(said)
    }
}

impl PyPrediction {
    /// Probabilities, or numbers.
    fn values(&self) -> &[f32] {
        match self.plugin.card.kind.has_probabilities() {
            true => &self.decision.probabilities,
            false => &self.decision.values,
        }
    }

    fn class(&self, class: usize) -> String {
        self.plugin.card.classes[class].clone()
    }
}

#[pymethods]
impl PyPrediction {
    /// Name of the image.
    #[getter]
    fn image(&self) -> &str {
        &self.image
    }

    /// What was odd about the image.
    #[getter]
    fn remarks(&self) -> Vec<String> {
        self.remarks.clone()
    }

    /// Name of the task.
    #[getter]
    fn task(&self) -> &str {
        &self.plugin.card.task
    }

    /// Kind of answer.
    #[getter]
    fn kind(&self) -> String {
        crate::plugin::word(self.plugin.card.kind)
    }

    /// Names of the classes, in the order of the probabilities.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.plugin.card.classes.clone()
    }

    /// Calibrated probabilities, or numbers, `[classes]`.
    #[getter]
    fn probabilities<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, self.values())
    }

    /// Before calibration, `[classes]`; of masks the scores of pixels.
    #[getter]
    fn logits<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, &self.logits)
    }

    /// Standard deviation of what the members of an ensemble of folds say, `[classes]`; None of single plug-ins.
    #[getter]
    fn spread<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<f32>>> {
        let spread = &self.decision.spread;
        (!spread.is_empty()).then(|| PyArray1::from_slice(py, spread))
    }

    /// The class, or grade; None of findings, numbers and masks.
    #[getter]
    fn predicted(&self) -> Option<String> {
        self.plugin.card.kind.is_one_class().then(|| self.class(self.decision.best()))
    }

    /// The findings whose probability reaches their threshold; None of other tasks.
    #[getter]
    fn findings(&self) -> Option<Vec<String>> {
        let several = self.plugin.card.kind == melo::TaskKind::MultiLabel;
        several.then(|| self.decision.findings.iter().map(|&class| self.class(class)).collect())
    }

    /// What may be true with the promised coverage, as `melo predict --json`; None of a plug-in that promises none.
    #[getter]
    fn set<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let set = self.decision.set.as_ref().map(|set| set.named(&self.plugin.card.classes));
        set.map(|set| crate::plugin::json(py, &set)).transpose()
    }

    /// Whether the image is one for the plug-in; None where it cannot tell.
    #[getter]
    fn in_scope(&self) -> Option<bool> {
        Some(self.decision.scope?.in_scope)
    }

    /// How far the image is from those of the training, 1 at the limit; None where that is not known.
    #[getter]
    fn scope_score(&self) -> Option<f32> {
        Some(self.decision.scope?.score)
    }

    /// How much each image of a bag counted, of sum 1; None of single images.
    #[getter]
    fn attention<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<f32>>> {
        self.attention.as_deref().map(|attention| PyArray1::from_slice(py, attention))
    }

    /// Class indices `[height, width]` of the image's own size; None of other tasks.
    #[getter]
    fn mask<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray2<u8>>>> {
        let (width, height) = self.sides;
        let Some(restored) = mask_of(&self.plugin, &self.logits, width, height) else { return Ok(None) };
        PyArray1::from_vec(py, restored.mask.labels).reshape([height, width]).map(Some)
    }

    /// The image `[height, width, 3]`, where pixels were kept.
    #[getter]
    fn pixels<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray3<u8>>>> {
        let kept = self.prepared.as_ref().and_then(|(prepared, task)| prepared.pixels.get(*task));
        kept.map(|pixels| array(py, pixels)).transpose()
    }

    /// heatmap(target=None, *, method="gradient", opacity=0.5, longest=768)
    #[pyo3(signature = (target = None, *, method = "gradient", opacity = 0.5, longest = 768))]
    fn heatmap<'py>(
        &self,
        py: Python<'py>,
        target: Option<&str>,
        method: &str,
        opacity: f32,
        longest: usize,
    ) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let card = &self.plugin.card;
        let class = match target {
            None => self.decision.explained().first().copied(),
            Some(name) => card.classes.iter().position(|class| class == name),
        };
        let class = class.ok_or_else(|| Failure::setting("target", format!("expected one of {:?}", card.classes)))?;
        let method = match method {
            "gradient" => ExplainMethod::Gradient,
            "rollout" => ExplainMethod::Rollout,
            _ => return Err(Failure::setting("method", "expected gradient or rollout").into()),
        };
        let Some((prepared, task)) = &self.prepared else {
            let message = "the image's pixels were not kept; predict with keep_pixels=True";
            return Err(Failure::new(Door::Image, "NoPixels", message).into());
        };
        let drawing = Drawing { method, opacity, longest: longest.max(1) };
        let drawn =
            work(py, || self.predictor.explain(prepared, *task, &self.plugin, class, drawing).or_raise(Door::Plugin))?;
        array(py, &drawn.picture)
    }

    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("melo_vit._html")?.getattr("prediction")?.call1((slf,))
    }

    fn __repr__(&self) -> String {
        let best = self.decision.ranking.iter().take(3);
        let best: Vec<String> =
            best.map(|&class| format!("{} {:.3}", self.class(class), self.values()[class])).collect();
        format!("<Prediction {}: {}>", self.plugin.card.task, best.join(", "))
    }
}

/// Pixels as an array.
fn array<'py>(py: Python<'py>, pixels: &Pixels) -> PyResult<Bound<'py, PyArray3<u8>>> {
    PyArray1::from_slice(py, &pixels.rgb).reshape([pixels.height, pixels.width, 3])
}

/// encode_png(pixels)
#[pyfunction]
pub(crate) fn encode_png<'py>(py: Python<'py>, pixels: PyReadonlyArray3<'py, u8>) -> PyResult<Bound<'py, PyBytes>> {
    let (height, width, channels) = pixels.as_array().dim();
    if width == 0 || height == 0 || channels != 3 {
        let message = format!("an array of [{height}, {width}, {channels}], expected [height, width, 3]");
        return Err(Failure::new(Door::Image, "Shape", message).into());
    }
    let pixels = Pixels { width, height, rgb: pixels.as_slice()?.to_vec() };
    Ok(PyBytes::new(py, &melo::imaging::encode_png(&pixels)?))
}
