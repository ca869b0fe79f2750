//! The study file, checked, and the cells that follow from it.

use crate::error::Error;
use crate::method::{MethodSection, StudyMethod, TrainSection};
use crate::slurm::SlurmSettings;
use melo_data::{Augment, ReadOptions};
use melo_interop::is_hub_name;
use melo_vit::rendering::Plane;
use melo_vit::{Precision, TaskKind};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a study file asks for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file.
    pub path: PathBuf,
    /// Name of the study.
    pub name: String,
    /// Seeds of initial values, order and augmentation.
    pub seeds: Vec<u64>,
    /// Seed of splits and folds, the same for every cell.
    pub split_seed: u64,
    /// Folds by patient; 0 keeps the manifests' own splits.
    pub folds: usize,
    /// Shares of the training split, ascending, the last one 1.
    pub data_fractions: Vec<f64>,
    /// Numbers in the backbones' matrix products.
    pub precision: Precision,
    /// Level of confidence intervals.
    pub level: f64,
    /// Bootstrap replicates.
    pub replicates: usize,
    /// Non-inferiority margin in macro AUC.
    pub margin: f64,
    /// Name of the method that the others are compared with.
    pub reference: String,
    /// Methods, in order.
    pub methods: Vec<StudyMethod>,
    /// Backbones, in order.
    pub backbones: Vec<BackbonePlan>,
    /// Tasks, in order.
    pub tasks: Vec<TaskPlan>,
    /// What is asked of Slurm.
    pub slurm: SlurmSettings,
}

/// A backbone of a study.
#[derive(Clone, Debug)]
pub struct BackbonePlan {
    /// Name in the study.
    pub name: String,
    /// Its weights.
    pub weights: PathBuf,
}

/// A task of a study.
#[derive(Clone, Debug)]
pub struct TaskPlan {
    /// Name in the study.
    pub name: String,
    /// Its manifest.
    pub labels: PathBuf,
    /// How it is read.
    pub reading: ReadOptions,
    /// The file that holds the subgroup columns: the manifest, or one beside it.
    pub meta: Option<PathBuf>,
    /// Subgroup columns, `sex` or `age:40,60`.
    pub subgroups: Vec<String>,
    /// Mirror left and right in training.
    pub horizontal_flip: bool,
    /// Mirror top and bottom in training.
    pub vertical_flip: bool,
}

impl TaskPlan {
    /// The usual augmentation with the task's flips.
    pub(crate) fn augment(&self) -> Augment {
        Augment { horizontal_flip: self.horizontal_flip, vertical_flip: self.vertical_flip, ..Augment::default() }
    }
}

/// One training of a study: indices into its [`Plan`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Index of the task.
    pub task: usize,
    /// Index of the backbone.
    pub backbone: usize,
    /// Index of the method.
    pub method: usize,
    /// Share of the training split.
    pub data_fraction: f64,
    /// Fold that is tested on, where there are folds.
    pub fold: Option<usize>,
    /// Seed.
    pub seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    study: StudySection,
    #[serde(default)]
    train: TrainSection,
    #[serde(default)]
    method: Vec<MethodSection>,
    backbone: Vec<BackboneSection>,
    task: Vec<TaskSection>,
    #[serde(default)]
    slurm: SlurmSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudySection {
    name: String,
    #[serde(default = "default_seeds")]
    seeds: Vec<u64>,
    #[serde(default)]
    split_seed: u64,
    methods: Vec<String>,
    #[serde(default)]
    folds: usize,
    #[serde(default = "default_fractions")]
    data_fraction: Vec<f64>,
    #[serde(default = "default_level")]
    level: f64,
    #[serde(default = "default_replicates")]
    bootstrap: usize,
    #[serde(default = "default_margin")]
    margin: f64,
    reference: Option<String>,
    #[serde(default = "default_precision")]
    precision: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackboneSection {
    name: String,
    weights: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskSection {
    name: String,
    labels: PathBuf,
    images: Option<PathBuf>,
    path_column: Option<String>,
    #[serde(default)]
    label_columns: Vec<String>,
    patient_column: Option<String>,
    split_column: Option<String>,
    bag_column: Option<String>,
    bag_axis: Option<Plane>,
    kind: Option<TaskKind>,
    #[serde(default)]
    grades: Vec<String>,
    meta: Option<PathBuf>,
    #[serde(default)]
    subgroups: Vec<String>,
    #[serde(default = "default_true")]
    horizontal_flip: bool,
    #[serde(default)]
    vertical_flip: bool,
}

fn default_seeds() -> Vec<u64> {
    vec![0, 1, 2]
}
fn default_fractions() -> Vec<f64> {
    vec![1.0]
}
fn default_precision() -> String {
    Precision::F32.to_string()
}
fn default_level() -> f64 {
    0.95
}
fn default_replicates() -> usize {
    2000
}
fn default_margin() -> f64 {
    0.02
}
fn default_true() -> bool {
    true
}

/// The method that others are compared with where the file does not say: the paper's.
const REFERENCE: &str = "full";

impl Plan {
    /// Reads a study file; its paths are relative to it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Study`] that names the key.
    pub fn read(path: &Path) -> Result<Plan, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let wrong = |reason: String| Error::Study { path: path.to_owned(), reason };
        let file: StudyFile = toml::from_str(&text).map_err(|error| wrong(in_one_line(&text, &error)))?;
        Plan::of(path, file).map_err(wrong)
    }

    fn of(path: &Path, file: StudyFile) -> Result<Plan, String> {
        let StudyFile { study, train, method, backbone, task, slurm } = file;
        let folder = melo_vit::folder_of(path);
        let methods = resolve_methods(&study.methods, method, &train)?;
        let names: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
        let reference = match study.reference {
            Some(reference) => reference,
            None if names.contains(&REFERENCE) => REFERENCE.to_owned(),
            None => names.first().map(|name| (*name).to_owned()).unwrap_or_default(),
        };
        let plan = Plan {
            path: path.to_owned(),
            slurm: slurm.in_folder(folder),
            name: study.name,
            seeds: study.seeds,
            split_seed: study.split_seed,
            folds: study.folds,
            data_fractions: study.data_fraction,
            precision: study.precision.parse().map_err(|error| format!("study.{error}"))?,
            level: study.level,
            replicates: study.bootstrap,
            margin: study.margin,
            reference,
            methods,
            backbones: backbone
                .into_iter()
                .map(|BackboneSection { name, weights }| {
                    let weights = if is_hub_name(&weights) { weights } else { folder.join(weights) };
                    BackbonePlan { name, weights }
                })
                .collect(),
            tasks: task
                .into_iter()
                .map(|task| TaskPlan {
                    name: task.name,
                    labels: folder.join(task.labels),
                    reading: ReadOptions {
                        path_column: task.path_column,
                        label_columns: task.label_columns,
                        patient_column: task.patient_column,
                        split_column: task.split_column,
                        kind: task.kind,
                        grades: task.grades,
                        mask_column: None,
                        mask_classes: Vec::new(),
                        mask_values: Vec::new(),
                        bag_column: task.bag_column,
                        bag_plane: task.bag_axis,
                        images: task.images.map(|images| folder.join(images)),
                    },
                    meta: task.meta.map(|meta| folder.join(meta)),
                    subgroups: task.subgroups,
                    horizontal_flip: task.horizontal_flip,
                    vertical_flip: task.vertical_flip,
                })
                .collect(),
        };
        plan.check()?;
        Ok(plan)
    }

    /// The same plan with these settings of Slurm, before those of the file.
    ///
    /// # Errors
    /// [`Error::Study`] that names the key.
    pub fn on_slurm(self, settings: SlurmSettings) -> Result<Plan, Error> {
        let plan = Plan { slurm: settings.or(self.slurm), ..self };
        plan.slurm.check().map_err(|reason| Error::Study { path: plan.path.clone(), reason })?;
        Ok(plan)
    }

    /// The same plan in another precision.
    ///
    /// # Errors
    /// [`Error::Study`] where a method trains what would be rounded to integers.
    pub fn in_precision(self, precision: Precision) -> Result<Plan, Error> {
        let plan = Plan { precision, ..self };
        plan.check().map_err(|reason| Error::Study { path: plan.path.clone(), reason })?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        check_names("task", self.tasks.iter().map(|task| task.name.as_str()))?;
        check_names("backbone", self.backbones.iter().map(|backbone| backbone.name.as_str()))?;
        check_names("method", self.methods.iter().map(|method| method.name.as_str()))?;
        if !self.methods.iter().any(|method| method.name == self.reference) {
            return Err(format!("study.reference: \"{}\" is none of the methods", self.reference));
        }
        let distinct: BTreeSet<u64> = self.seeds.iter().copied().collect();
        if self.seeds.is_empty() || distinct.len() != self.seeds.len() {
            return Err(format!("study.seeds: {:?} are none or repeat", self.seeds));
        }
        if self.folds == 1 {
            return Err("study.folds: 1 fold leaves nothing to train on; 0 keeps the manifests' splits".into());
        }
        let fractions = &self.data_fractions;
        let rising = fractions.is_sorted_by(|a, b| a < b) && fractions.first().is_some_and(|&first| first > 0.0);
        if !rising || fractions.last() != Some(&1.0) {
            return Err(format!(
                "study.data_fraction: {fractions:?}: expected rising shares in (0, 1] that end with 1.0"
            ));
        }
        if !(self.level > 0.5 && self.level < 1.0) {
            return Err(format!("study.level: {}: expected a number in (0.5, 1), such as 0.95", self.level));
        }
        if !(100..=1_000_000).contains(&self.replicates) {
            return Err(format!("study.bootstrap: {}: expected 100 to 1,000,000 replicates", self.replicates));
        }
        if !(self.margin >= 0.0 && self.margin < 1.0) {
            return Err(format!("study.margin: {}: expected a difference of AUC in [0, 1)", self.margin));
        }
        self.slurm.check()?;
        for method in &self.methods {
            if self.precision == Precision::Int8 && method.kind.trains_backbone() {
                let (name, kind) = (&method.name, method.kind);
                return Err(format!(
                    "method \"{name}\": kind {kind} trains the layers that precision int8 rounds: expected f32, bf16 or bf16x3"
                ));
            }
            if let Some(task) = method.tasks.iter().flatten().find(|&name| self.tasks.iter().all(|t| t.name != *name)) {
                return Err(format!("method \"{}\": tasks: no task has the name \"{task}\"", method.name));
            }
        }
        Ok(())
    }

    /// Every training of the study, seed by seed, so that a study cut short has whole comparisons.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        let folds = self.fold_numbers();
        for &data_fraction in self.data_fractions.iter().rev() {
            for &seed in &self.seeds {
                for &fold in &folds {
                    for task in 0..self.tasks.len() {
                        for backbone in 0..self.backbones.len() {
                            let methods = (0..self.methods.len()).filter(|&method| self.applies(method, task));
                            let cell = |method| Cell { task, backbone, method, data_fraction, fold, seed };
                            cells.extend(methods.map(cell));
                        }
                    }
                }
            }
        }
        cells
    }

    /// The folds, or none once where the manifests' own splits are used.
    pub(crate) fn fold_numbers(&self) -> Vec<Option<usize>> {
        match self.folds {
            0 => vec![None],
            folds => (0..folds).map(Some).collect(),
        }
    }

    /// True if a method is tried on a task.
    pub(crate) fn applies(&self, method: usize, task: usize) -> bool {
        self.methods[method].tasks.as_ref().is_none_or(|tasks| tasks.contains(&self.tasks[task].name))
    }

    /// The name of a cell, `task/backbone/method/seed-0`, with `fold-2` and `data-0.25` where these vary; its folder.
    pub fn cell_name(&self, cell: &Cell) -> String {
        CellName { plan: self, cell }.to_string()
    }

    /// The cell of a name.
    pub fn cell(&self, name: &str) -> Option<Cell> {
        self.cells().into_iter().find(|cell| self.cell_name(cell) == name)
    }
}

struct CellName<'a> {
    plan: &'a Plan,
    cell: &'a Cell,
}

impl fmt::Display for CellName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CellName { plan, cell } = self;
        let task = &plan.tasks[cell.task].name;
        let (backbone, method) = (&plan.backbones[cell.backbone].name, &plan.methods[cell.method].name);
        write!(f, "{task}/{backbone}/{method}/")?;
        if cell.data_fraction < 1.0 {
            write!(f, "data-{}-", cell.data_fraction)?;
        }
        if let Some(fold) = cell.fold {
            write!(f, "fold-{fold}-")?;
        }
        write!(f, "seed-{}", cell.seed)
    }
}

/// `line 8: unknown field ...`
fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
            format!("line {line}: {message}")
        }
        None => message,
    }
}

/// The methods that the study names: those of the file's tables, or built-in ones with their defaults.
fn resolve_methods(
    names: &[String],
    sections: Vec<MethodSection>,
    train: &TrainSection,
) -> Result<Vec<StudyMethod>, String> {
    if names.is_empty() {
        return Err(
            "study.methods: is empty; name some of lora, linear, full, adapter, or of the [[method]] tables".into()
        );
    }
    if let Some(unused) = sections.iter().find(|section| !names.contains(&section.name)) {
        return Err(format!("method \"{}\": is not named in study.methods", unused.name));
    }
    names
        .iter()
        .map(|name| match sections.iter().find(|section| section.name == *name) {
            Some(section) => section.settings(train),
            None => MethodSection::built_in(name)?.settings(train),
        })
        .collect()
}

/// Names become folders: letters, digits, `.`, `_` and `-` only, no leading dot, no repetition.
fn check_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if name.is_empty() || !plain || name.starts_with('.') || name.len() > 64 {
            return Err(format!(
                "{what} \"{name}\": expected a name of up to 64 letters, digits, dots, dashes and underscores: it becomes a folder"
            ));
        }
        // Some file systems do not tell `Lora` from `lora`.
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(format!("{what} \"{name}\": two have this name"));
        }
    }
    match seen.is_empty() {
        true => Err(format!("no {what} is given")),
        false => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SMALL: &str = r#"
        [study]
        name = "small"
        seeds = [3, 4]
        methods = ["lora", "full"]
        [[backbone]]
        name = "tiny"
        weights = "models/tiny.safetensors"
        [[task]]
        name = "film"
        labels = "film/labels.csv"
        [[task]]
        name = "smear"
        labels = "smear/labels.csv"
    "#;

    pub(crate) fn plan(text: &str) -> Result<Plan, String> {
        let file: StudyFile = toml::from_str(text).map_err(|error| error.to_string())?;
        Plan::of(Path::new("/studies/small.toml"), file)
    }

    #[test]
    fn cells_are_the_product_and_have_names_of_their_own() {
        let plan = plan(SMALL).unwrap();
        let cells = plan.cells();
        let names: BTreeSet<String> = cells.iter().map(|cell| plan.cell_name(cell)).collect();
        assert_eq!((cells.len(), names.len()), (8, 8));
        assert!(names.contains("film/tiny/lora/seed-3"));
        assert!(cells[..4].iter().all(|cell| cell.seed == 3), "whole comparisons come first");
        assert!(cells.iter().all(|cell| plan.cell(&plan.cell_name(cell)) == Some(*cell)));
        assert_eq!(plan.tasks[0].labels, Path::new("/studies/film/labels.csv"));
        assert_eq!(plan.reference, "full");
    }

    #[test]
    fn int8_trains_plug_ins_and_no_backbone() {
        let int8 = SMALL.replace("name = \"small\"", "name = \"small\"\nprecision = \"int8\"");
        let frozen = |text: &str| text.replace("\"lora\", \"full\"", "\"lora\", \"linear\", \"adapter\"");
        assert_eq!(plan(&frozen(&int8)).unwrap().precision, Precision::Int8);
        assert_eq!(plan(&frozen(SMALL)).unwrap().in_precision(Precision::Int8).unwrap().precision, Precision::Int8);
        let refusals =
            [plan(&int8).unwrap_err(), plan(SMALL).unwrap().in_precision(Precision::Int8).unwrap_err().to_string()];
        for said in refusals {
            assert!(["method \"full\"", "kind full", "int8", "bf16"].iter().all(|part| said.contains(part)), "{said}");
        }
        let said = plan(&int8.replace("int8", "int4")).unwrap_err();
        assert!(said.contains("study.precision `int4`"), "{said}");
    }

    #[test]
    fn folds_and_fractions_multiply() {
        let text = SMALL.replace("seeds = [3, 4]", "seeds = [0]\nfolds = 5\ndata_fraction = [0.25, 1.0]");
        let plan = plan(&text).unwrap();
        assert_eq!(plan.cells().len(), 2 * 2 * 5 * 2);
        assert!(plan.cell("smear/tiny/full/data-0.25-fold-4-seed-0").is_some());
    }

    #[test]
    fn a_method_may_be_tried_on_some_tasks_only() {
        let text = SMALL.replace("\"full\"]", "\"full\", \"r16\"]")
            + "[[method]]\nname = \"r16\"\nkind = \"lora\"\nrank = 16\ntasks = [\"film\"]\n";
        let plan = plan(&text).unwrap();
        assert_eq!(plan.cells().len(), 10);
        assert!(plan.cell("smear/tiny/r16/seed-3").is_none());
    }

    #[test]
    fn wrong_files_are_refused_by_the_key() {
        let refused = |from: &str, to: &str, expected: &str| {
            let error = plan(&SMALL.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused("[3, 4]", "[3, 3]", "study.seeds");
        refused("[3, 4]", "[]", "study.seeds");
        refused("\"smear\"", "\"film\"", "two have this name");
        refused("\"smear\"", "\"../smear\"", "becomes a folder");
        refused("\"smear\"", "\".smear\"", "becomes a folder");
        refused("\"full\"]", "\"fill\"]", "fill");
        refused("seeds = [3, 4]", "seeds = [3]\nfolds = 1", "study.folds");
        refused("seeds = [3, 4]", "data_fraction = [0.5]", "study.data_fraction");
        refused("seeds = [3, 4]", "data_fraction = [0.5, 0.25, 1.0]", "study.data_fraction");
        refused("seeds = [3, 4]", "level = 95", "study.level");
        refused("seeds = [3, 4]", "bootstrap = 10", "study.bootstrap");
        refused("seeds = [3, 4]", "margin = -0.1", "study.margin");
        refused("seeds = [3, 4]", "reference = \"linear\"", "study.reference");
        refused("seeds = [3, 4]", "sedes = [1]", "sedes");
        refused("[study]", "[[method]]\nname = \"x\"\nkind = \"lora\"\n[study]", "not named in study.methods");
    }
}
