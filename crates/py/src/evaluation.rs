//! A plug-in's answers held against the truth.

use crate::data::PyData;
use crate::errors::{Door, Failure, OrRaise, work};
use crate::plugin::{PyPlugin, json, word};
use melo::data::{Split, open_splits};
use melo::eval::{Collapse, roc_points, too_few};
use melo::report::chart::{Axis, Line, LineChart, swatch};
use melo::report::{Element, Sheet, SheetTable};
use melo::train::{Answers, Figure, Judged, column, figure_in_words, figures};
use melo::vit::{BoundPlugin, Calibration};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A plug-in's answers on a split, and how good they are.
#[pyclass(name = "Evaluation", module = "melo_vit", frozen)]
pub(crate) struct PyEvaluation {
    task: String,
    split: String,
    classes: Vec<String>,
    calibration: Calibration,
    answers: Answers,
    figures: BTreeMap<String, Figure>,
}

impl PyEvaluation {
    pub(crate) fn new(plugin: &BoundPlugin, answers: Answers, split: &str) -> Result<Self, Failure> {
        let (classes, calibration) = (plugin.card.classes.clone(), plugin.calibration().clone());
        let figures = figures(&classes, &calibration, &answers).or_raise(Door::Data)?;
        let task = plugin.card.task.clone();
        Ok(PyEvaluation { task, split: split.to_owned(), classes, calibration, answers, figures })
    }

    fn judged(&self) -> Option<Judged> {
        let Calibration { temperature, thresholds, .. } = &self.calibration;
        self.answers.kind.has_probabilities().then(|| Judged::new(&self.answers, *temperature, thresholds))
    }

    /// Figures of all, and of each class where there are some.
    fn tables(&self, alerts: Vec<String>) -> Vec<SheetTable> {
        let said = |figure: &Figure| format!("{:.3} [{:.3}, {:.3}]", figure.value, figure.low, figure.high);
        let overall = self.figures.iter().filter(|(name, _)| !name.contains('/'));
        let rows = overall.map(|(name, figure)| vec![heading(name), said(figure)]).collect();
        let head = ["Figure", "Value [95 % interval]"].map(str::to_owned).into();
        let note = "Intervals are by patient.".to_owned();
        let of_all = SheetTable { title: "How good it is", alerts, head, rows, note, ..SheetTable::default() };
        let named = self.figures.keys().filter_map(|name| Some(name.split_once('/')?.0));
        let named: BTreeSet<&str> = named.collect();
        let row = |class: &String| {
            let figure =
                |name: &&str| self.figures.get(&format!("{name}/{class}")).map_or("undefined".to_owned(), said);
            std::iter::once(class.clone()).chain(named.iter().map(figure)).collect()
        };
        let head = std::iter::once(String::new()).chain(named.iter().map(|name| heading(name)));
        let (head, rows) = (head.collect(), self.classes.iter().map(row).collect());
        let of_classes = SheetTable { title: "By class", head, rows, ..SheetTable::default() };
        match named.is_empty() {
            true => vec![of_all],
            false => vec![of_all, of_classes],
        }
    }

    /// What a person should know before trusting the figures.
    pub(crate) fn warnings(&self) -> Result<Vec<String>, Failure> {
        let Some(judged) = self.judged() else { return Ok(Vec::new()) };
        let counts = judged.metrics().or_raise(Door::Data)?.counts_per_class;
        let collapse = Collapse::of(&counts)
            .map(|collapse| format!("{}; the AUC does not show that", collapse.sentence(&self.classes)));
        let few = too_few(&counts, &self.classes);
        let few = few.map(|few| format!("{few}; figures of so few say little, whatever they are"));
        Ok(collapse.into_iter().chain(few).collect())
    }

    /// A line a class, where there are classes.
    fn curves(&self) -> Option<SheetTable> {
        let judged = self.judged()?;
        let c = self.classes.len();
        let line = |class: usize| {
            let (scores, truth) = (column(judged.probabilities(), class, c), column(judged.truth(), class, c));
            let points = roc_points(&scores, &truth)?;
            let points = points.iter().map(|point| (point.false_positive_rate, point.true_positive_rate));
            Some(Line::new(class, points.collect()))
        };
        let chart = LineChart {
            title: "ROC curves".to_owned(),
            description: format!("Sensitivity over 1 − specificity of {}", self.classes.join(", ")),
            width: 320.0,
            height: 320.0,
            x: Axis::unit("1 − specificity"),
            y: Axis::unit("sensitivity"),
            guide: vec![(0.0, 0.0), (1.0, 1.0)],
            lines: (0..c).filter_map(line).collect(),
        };
        let entry = |class: usize| {
            let name = Element::new("span").text(format!(" {} ", self.classes[class]));
            Element::new("span").child(swatch(class)).child(name)
        };
        let legend = Element::new("p").class("note").children((0..c).map(entry));
        let drawn = Element::new("div").class("chart").child(chart.draw()?).child(legend);
        Some(SheetTable { title: "ROC curves", drawn: Some(drawn), ..SheetTable::default() })
    }
}

#[pymethods]
impl PyEvaluation {
    /// Name of the task.
    #[getter]
    fn task(&self) -> &str {
        &self.task
    }

    /// `train`, `val` or `test`.
    #[getter]
    fn split(&self) -> &str {
        &self.split
    }

    /// Kind of answers.
    #[getter]
    fn kind(&self) -> String {
        word(self.answers.kind)
    }

    /// Names of the classes.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    /// Names of the images, or bags.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.answers.names.clone()
    }

    /// Figures by name.
    #[getter]
    fn metrics(&self) -> BTreeMap<String, f64> {
        self.figures.iter().map(|(name, figure)| (name.clone(), figure.value)).collect()
    }

    /// 95 % intervals of the figures, by patient.
    #[getter]
    fn intervals(&self) -> BTreeMap<String, (f64, f64)> {
        self.figures.iter().map(|(name, figure)| (name.clone(), (figure.low, figure.high))).collect()
    }

    /// Everything that is measured of classes and findings; None of numbers and masks.
    #[getter]
    fn details<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(judged) = self.judged() else { return Ok(None) };
        json(py, &judged.metrics().or_raise(Door::Data)?).map(Some)
    }

    /// Calibrated probabilities, or numbers, `[n, classes]`.
    #[getter]
    fn probabilities<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let values = self.answers.probabilities(self.calibration.temperature);
        PyArray1::from_vec(py, values).reshape([self.answers.names.len(), self.classes.len()])
    }

    /// Before calibration, `[n, classes]`.
    #[getter]
    fn logits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        PyArray1::from_slice(py, &self.answers.logits).reshape([self.answers.names.len(), self.classes.len()])
    }

    /// The truth: classes `[n]`, findings `[n, classes]` or numbers `[n, classes]`.
    #[getter]
    fn truth<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Answers { labels, numbers, names, .. } = &self.answers;
        let (n, c) = (names.len(), self.classes.len());
        if !numbers.is_empty() {
            return Ok(PyArray1::from_slice(py, numbers).reshape([n, c])?.into_any());
        }
        let labels = PyArray1::from_iter(py, labels.iter().map(|&label| label as i64));
        match labels.len()? == n {
            true => Ok(labels.into_any()),
            false => Ok(labels.reshape([n, c])?.into_any()),
        }
    }

    /// What should be known before the figures are trusted: classes that are never called, too few cases.
    #[getter(warnings)]
    fn said_warnings(&self) -> PyResult<Vec<String>> {
        Ok(self.warnings()?)
    }

    /// As a page of HTML, with curves.
    fn to_html(&self) -> PyResult<String> {
        let (n, split) = (self.answers.names.len(), &self.split);
        let lead = format!("Measured on the {n} images of the {split} split.");
        let tables = self.tables(self.warnings()?).into_iter().chain(self.curves()).collect();
        Ok(Sheet { title: self.task.clone(), lead, tables }.html())
    }

    fn _repr_html_<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("melo_vit._html")?.getattr("framed")?.call1((self.to_html()?,))
    }

    fn __len__(&self) -> usize {
        self.answers.names.len()
    }

    fn __repr__(&self) -> String {
        let first = ["auc_macro", "acc", "dice", "kappa_quadratic"].into_iter().find_map(|name| {
            let Figure { value, low, high } = self.figures.get(name)?;
            Some(format!(", {name} {value:.3} [{low:.3}, {high:.3}]"))
        });
        let n = self.answers.names.len();
        format!("<Evaluation of {} on {}: {n} images{}>", self.task, self.split, first.unwrap_or_default())
    }
}

/// A figure as people call it, as a heading.
fn heading(name: &str) -> String {
    let words = figure_in_words(name);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Measures; what Python's `evaluate` is made of.
#[pyfunction]
pub(crate) fn evaluate(py: Python<'_>, plugin: Py<PyPlugin>, data: Py<PyData>, split: &str) -> PyResult<PyEvaluation> {
    let found = Split::from_word(split)
        .ok_or_else(|| Failure::setting("split", format!("is \"{split}\", expected train, val or test")))?;
    let (plugin, data) = (plugin.get(), data.get());
    let engine = Arc::clone(&plugin.backbone.get().engine);
    work(py, || {
        let card = &plugin.bound.card;
        let manifest = data.manifest_for(card)?;
        let mut sets =
            open_splits(&manifest, &[found], &card.preprocess, &data.cache(), &|_, _| ()).or_raise(Door::Data)?;
        let answers = Answers::of(&*engine, &plugin.bound, &sets.swap_remove(0)).or_raise(Door::Training)?;
        PyEvaluation::new(&plugin.bound, answers, found.word())
    })
}
