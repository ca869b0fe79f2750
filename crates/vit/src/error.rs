//! What can be wrong with weights and plug-ins, each defect by name.

use crate::calibration::ComputedOn;
use crate::image::ImageError;
use std::path::{Path, PathBuf};

/// Errors of this crate. A file's name is empty where its bytes were given without one, and is then not said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}{source}", at(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The bytes are not a safetensors file.
    #[error("{}not a safetensors file: {reason}", at(path))]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        reason: String,
    },
    /// The bytes are not what their format calls for.
    #[error("{}damaged or not a {format}: {reason}", at(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// What the parser met.
        reason: String,
    },
    /// A tensor that the format requires is absent.
    #[error("{}tensor `{name}` is missing", at(path))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that this software would have to ignore, and ignoring weights changes answers.
    #[error("{}unexpected tensor `{name}`: {hint}", at(path))]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it probably means.
        hint: String,
    },
    /// A tensor of another shape than its place requires.
    #[error("{}tensor `{name}` has shape {found:?}, expected {expected:?}", at(path))]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape required.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of numbers that are neither f32, f16 nor bf16.
    #[error("{}tensor `{name}` holds {found}, expected F32, F16 or BF16", at(path))]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Type in the file.
        found: String,
    },
    /// A tensor that holds NaN or an infinity.
    #[error("{}tensor `{name}` holds {value} at index {index}; the file is damaged or the training diverged", at(path))]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Index of the first such value, row-major.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The architecture or the preprocessing of the weights cannot be told, or is not supported.
    #[error("{}{reason}", at(path))]
    Config {
        /// The weights or the JSON beside them.
        path: PathBuf,
        /// What is missing or unsupported, and what to do.
        reason: String,
    },
    /// A file of several sets of weights, of which one has to be named, or has not the one that was named.
    #[error("{}{reason}; it holds {}", at(path), sets(found))]
    WeightsKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with the choice.
        reason: String,
        /// The sets, by their keys or by what their names begin with.
        found: Vec<String>,
    },
    /// Weights that nothing describes.
    #[error("{}no description beside the weights: expected {} or config.json, {expected}", at(path), sidecar.display())]
    NoDescription {
        /// The weights.
        path: PathBuf,
        /// Where it was looked for first.
        sidecar: PathBuf,
        /// Whose JSON is understood.
        expected: &'static str,
    },
    /// Weights that are described, and were said to be described by nothing.
    #[error("{}describes {}", at(path), weights.display())]
    Described {
        /// The description.
        path: PathBuf,
        /// The weights.
        weights: PathBuf,
    },
    /// A name that stands for no architecture.
    #[error("architecture `{name}`: {reason}")]
    UnknownArchitecture {
        /// The name.
        name: String,
        /// What is wrong with it, or what was expected.
        reason: String,
    },
    /// A plug-in without a readable card.
    #[error("{}not a melo plug-in: {reason}", at(path))]
    Card {
        /// The plug-in.
        path: PathBuf,
        /// What is wrong with the card.
        reason: String,
    },
    /// A plug-in trained on another backbone.
    #[error(
        "{}this plug-in belongs to backbone {expected_name} (digest {expected}), but {found_name} (digest {found}) is loaded",
        at(path)
    )]
    BackboneMismatch {
        /// The plug-in.
        path: PathBuf,
        /// Name of the backbone that the card names.
        expected_name: String,
        /// Digest that the card names.
        expected: String,
        /// Name of the loaded backbone.
        found_name: String,
        /// Digest of the loaded backbone.
        found: String,
    },
    /// Low-rank settings that this backbone cannot carry.
    #[error("low-rank settings: {0}")]
    Lora(String),
    /// Bottleneck settings that this backbone cannot carry.
    #[error("bottleneck settings: {0}")]
    Bottleneck(String),
    /// Volumes that a backbone cannot take, or settings of them that do not fit.
    #[error("volumes: {reason}")]
    Volume {
        /// What does not fit.
        reason: String,
    },
    /// A plug-in that answers for volumes, where single images are asked.
    #[error("task `{task}` answers for volumes, which cannot be asked here")]
    AnswersForVolumes {
        /// The task.
        task: String,
    },
    /// Features that this backbone does not have.
    #[error("features: {0}")]
    Features(String),
    /// An input side that the patches do not tile.
    #[error("image size {size} is not a multiple of the patch size {patch}")]
    ImageSize {
        /// Side asked for, pixels.
        size: usize,
        /// Patch side, pixels.
        patch: usize,
    },
    /// An input side that is more than one pass may take.
    #[error("image size {size} asks for {asked} {what}, at most {most} are computed")]
    ImageWork {
        /// Side asked for, pixels.
        size: usize,
        /// What is counted.
        what: &'static str,
        /// How many the size asks for.
        asked: usize,
        /// How many there may be.
        most: usize,
    },
    /// A card without the outputs that a self-test compares with.
    #[error("task `{task}`: its card holds no self-test")]
    NoSelfTest {
        /// The task.
        task: String,
    },
    /// A plug-in whose adapter does not move the outputs as it should.
    #[error(
        "task `{task}`: the adapter is inactive: it moves the self-test's logits by {found} at most, and by {expected} when \
         the test was taken"
    )]
    AdapterInactive {
        /// The task.
        task: String,
        /// The largest effect when the test was taken.
        expected: f32,
        /// The largest effect found.
        found: f32,
    },
    /// A plug-in that answers for bags, asked about a single image.
    #[error("task `{task}` answers for bags of images, which cannot be asked here")]
    AnswersForBags {
        /// The task.
        task: String,
    },
    /// An ensemble of folds, where a single plug-in is needed.
    #[error("task `{task}` is an ensemble of {members} folds, and only a single plug-in can be taken here")]
    IsEnsemble {
        /// The task.
        task: String,
        /// Its members.
        members: usize,
    },
    /// A member of an ensemble that is not there.
    #[error("{path}: {}", match members {
        0 => "is a single plug-in, not an ensemble of folds".to_owned(),
        members => format!("has no fold {}: its folds are 1 to {members}", member + 1),
    })]
    NoMember {
        /// The file.
        path: PathBuf,
        /// Which was asked for, 0 the first.
        member: usize,
        /// How many there are; 0 where it is no ensemble.
        members: usize,
    },
    /// A plug-in that gives other outputs than when it was finished.
    #[error(
        "task `{task}`: the self-test differs by {} (image {image}, class `{class}`, {part} the adapter): expected {expected}, \
         found {found}, allowed {tolerance}; plug-in or backbone are not what they were", (expected - found).abs()
    )]
    SelfTestDiffers {
        /// The task.
        task: String,
        /// `with` or `without` the adapter.
        part: &'static str,
        /// Image of the test, from 0.
        image: usize,
        /// Class of the largest difference.
        class: String,
        /// Logit when the test was taken.
        expected: f32,
        /// Logit found.
        found: f32,
        /// Largest difference allowed.
        tolerance: f32,
    },
    /// A card that was changed by hand.
    #[error(
        "task `{task}`: its card was changed after its self-test was taken, so that its answers would mean something else: {}",
        fields.join(", ")
    )]
    MeaningChanged {
        /// The task.
        task: String,
        /// The fields that are not what they were.
        fields: Vec<String>,
    },
    /// A plug-in without a calibration for this engine and precision, whose answers are others here than where it has one.
    #[error(
        "task `{task}` is calibrated in {made}, and its answers in {on} are others: the self-test differs by {} (image {image}, \
         class `{class}`): expected {expected}, found {found}, allowed {tolerance}", (expected - found).abs()
    )]
    NotCalibrated {
        /// The task.
        task: String,
        /// Where the nearest calibration was made.
        made: Box<ComputedOn>,
        /// Where it was to be used.
        on: Box<ComputedOn>,
        /// Image of the test, from 0.
        image: usize,
        /// Class of the largest difference.
        class: String,
        /// Logit when the test was taken.
        expected: f32,
        /// Logit found.
        found: f32,
        /// Largest difference allowed.
        tolerance: f32,
    },
    /// A pass that an engine does not compute.
    #[error("the engine `{engine}` does not compute {what}")]
    Unsupported {
        /// Kind of engine.
        engine: &'static str,
        /// The pass, or the part of a network.
        what: String,
    },
    /// A device that is not there, or has failed.
    #[error("{device}: {reason}")]
    Device {
        /// Which one.
        device: String,
        /// Why, in words of its driver where that spoke.
        reason: String,
    },
    /// The threads of an engine could not be started.
    #[error("threads could not be started: {reason}")]
    Threads {
        /// The operating system's reason.
        reason: String,
    },
    /// Another process that computes a part of a pass could not.
    #[error("{0}")]
    Elsewhere(Box<dyn std::error::Error + Send + Sync>),
    /// An image could not be given by its source.
    #[error("{source}")]
    Image {
        /// Index in the batch.
        index: usize,
        /// The source's reason.
        source: ImageError,
    },
}

/// `path: `, or nothing for bytes that have no name.
fn at(path: &Path) -> impl std::fmt::Display {
    if path.as_os_str().is_empty() { String::new() } else { format!("{}: ", path.display()) }
}

/// Names of sets of weights, or that there is one without a name.
fn sets(found: &[String]) -> String {
    let quoted: Vec<String> = found.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "one set, which needs no name".to_owned() } else { quoted.join(", ") }
}
