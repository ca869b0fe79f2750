//! The flags of `melo train`, and the settings they come to.

use super::bags::BagArgs;
use super::method::MethodArgs;
use super::ranks::MpiArg;
use super::volumes::VolumeArgs;
use crate::Failure;
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::data_args::DataArgs;
use crate::verbs::log_args::LogArgs;
use crate::verbs::scope_args::ScopeArgs;
use crate::verbs::set_args::SetArgs;
use crate::verbs::task::{CACHE_MIB, PrecisionArg, RenderingArgs};
use clap::ValueEnum;
use melo::data::Augment;
use melo::train::{ClassWeights, MaskHead, Method, ScopeSettings, Solver, TrainConfig};
use melo::vit::{CropMode, Preprocess};
use std::path::{Path, PathBuf};

/// Train a plug-in: a head, and low-rank matrices or bottlenecks beside a frozen backbone, or a backbone of its own
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo train --backbone deit_tiny_patch16_224.safetensors --data wbc/labels.csv --out wbc.safetensors\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out cxr.safetensors --rank 8 --targets q,v,fc1 --resume\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out cxr.safetensors --last-k 6 --rank-pattern 11:16 --rslora\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out adapter.safetensors --method adapter --bottleneck 16\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out probe.safetensors --method linear\n  \
    melo train --backbone vit.safetensors --data wbc.csv --out wbc.safetensors --coverage 0.95 --sets-by class\n  \
    melo train --backbone vit.safetensors --data wbc.csv --out wbc.safetensors --folds 5          (an ensemble, one file)\n  \
    melo train --backbone vit.safetensors --data ct.csv --bag-axis axial --out ct.safetensors      (volumes, slice by slice)\n  \
    melo train --backbone vit.safetensors --data ct.csv --volumes --out ct.safetensors             (volumes, whole)\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out tuned.safetensors --method full\n  \
    melo eval  --backbone tuned.backbone.safetensors --plugin tuned.safetensors --data cxr.csv\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out cxr.safetensors --log tensorboard:logs --log mlflow:http://127.0.0.1:5000\n  \
    mpirun -n 4 melo train --backbone vit.safetensors --data cxr.csv --out cxr.safetensors         (the same plug-in)\n  \
    srun --mpi=pmix -n 4 melo train --backbone vit.safetensors --data cxr.csv --out cxr.safetensors\n\n\
    --method full also writes the fine-tuned backbone, beside --out with the extension `backbone.safetensors`.\n\
    The run folder holds config.json, epochs.csv, last.safetensors (to resume from) and best.safetensors; \
    with --folds there is a folder of these for each, fold-1 the first, and base for the plug-in that all begin with. Such an ensemble is \
    validated out of fold: every patient by the member that did not see it (docs/folds.md).")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) backbone: BackboneArgs,
    /// Manifest (CSV, .xlsx), a folder with a folder for every class, or a pack (see `melo data check --help`)
    #[arg(long)]
    pub(super) data: PathBuf,
    /// Plug-in to write
    #[arg(long)]
    pub(super) out: PathBuf,
    /// Sign the plug-in with this secret key (`melo plugin keygen`), into a file beside it
    #[arg(long, env = "MELO_SIGN_KEY", value_name = "FILE")]
    pub(super) sign_key: Option<PathBuf>,
    /// Name of the task [default: name of the data's folder]
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) task: Option<String>,
    /// Run folder [default: --out with the extension `run`]
    #[arg(long, value_name = "DIR")]
    pub(super) run: Option<PathBuf>,
    /// Go on from the run folder's last epoch, if it has one; with more --epochs those that follow have the cosine of the new number
    #[arg(long, conflicts_with = "overwrite")]
    pub(super) resume: bool,
    /// Start anew where a run or a plug-in exists
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(super) json: bool,
    /// Write 16-bit floats: half the size
    #[arg(long)]
    pub(super) f16: bool,
    /// Seed of splits, initial values, order and augmentation
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Memory for decoded images, MiB
    #[arg(long, default_value_t = CACHE_MIB, value_name = "MIB")]
    pub(super) cache_mib: usize,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    pub(super) precision: PrecisionArg,
    /// Ranks of mpirun or srun train together: `auto`; `off`, each for itself; or this MPI library
    #[arg(long, default_value = "auto", value_name = "WHICH", env = "MELO_MPI", value_parser = MpiArg::parse)]
    pub(super) mpi: MpiArg,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    pub(super) reading: DataArgs,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    pub(super) sets: SetArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// The plug-in does not tell which images are for it
    #[arg(long, conflicts_with = "scope_false_alarms", help_heading = "Scope")]
    no_scope: bool,
    #[command(flatten)]
    bags: BagArgs,
    #[command(flatten)]
    pub(super) volumes: VolumeArgs,
    #[command(flatten)]
    optimiser: OptimiserArgs,
    #[command(flatten)]
    pub(super) images: ImageArgs,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Optimiser")]
struct OptimiserArgs {
    /// Passes over the training split [default: 20]
    #[arg(long)]
    epochs: Option<usize>,
    /// Images a step, or bags; memory does not grow with it [default: 16]
    #[arg(long)]
    batch_size: Option<usize>,
    /// Highest learning rate [default: 0.001; full: 0.0001]
    #[arg(long)]
    lr: Option<f64>,
    /// Learning rate at the end of the cosine [default: 0.000001]
    #[arg(long)]
    min_lr: Option<f64>,
    /// Epochs of linear warm-up [default: 1]
    #[arg(long)]
    warmup_epochs: Option<f64>,
    /// Weight decay of matrices [default: 0.05]
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0 is unlimited [default: 1]
    #[arg(long)]
    clip_norm: Option<f64>,
    /// Label smoothing, for one class an image [default: 0.1]
    #[arg(long)]
    label_smoothing: Option<f64>,
    /// Weights of classes in the loss
    #[arg(long, value_enum, default_value_t = WeightsArg::None)]
    class_weights: WeightsArg,
    /// What makes masks of patches, of a task of masks
    #[arg(long, value_enum, default_value_t = MaskHeadArg::Upsampling)]
    mask_head: MaskHeadArg,
    /// Stop after this many epochs without a better one on the validation split (a better figure, and of tasks of one class a lower loss); 0 never [default: 10]
    #[arg(long)]
    patience: Option<usize>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum MaskHeadArg {
    /// Cells of a quarter of a patch from four blocks, and two convolutions over them and the image
    Upsampling,
    /// A score a class and patch, from the last block alone
    Linear,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Images")]
pub(super) struct ImageArgs {
    /// Side of the network input, px [default: the weights' own]
    #[arg(long, value_name = "PX")]
    image_size: Option<usize>,
    /// How a rectangle becomes a square: cut the ends, squeeze, or pad
    #[arg(long, value_enum, default_value_t = CropArg::Squash)]
    crop_mode: CropArg,
    /// Share of the side that the centre crop keeps
    #[arg(long, default_value_t = 1.0)]
    crop_pct: f64,
    /// No augmentation at all
    #[arg(long, help_heading = "Augmentation")]
    no_augment: bool,
    /// No horizontal flip (sides matter: situs, laterality)
    #[arg(long, help_heading = "Augmentation")]
    no_flip: bool,
    /// Vertical flip too (no up or down: microscopy, dermoscopy)
    #[arg(long, help_heading = "Augmentation")]
    vertical_flip: bool,
    /// Largest rotation, degrees
    #[arg(long, default_value_t = Augment::default().rotate_degrees, help_heading = "Augmentation")]
    rotate: f32,
    /// Smallest area that a random crop keeps; 1 is off
    #[arg(long, default_value_t = Augment::default().crop_scale, help_heading = "Augmentation")]
    crop_scale: f32,
    /// Largest relative change of brightness
    #[arg(long, default_value_t = Augment::default().brightness, help_heading = "Augmentation")]
    brightness: f32,
    /// Largest relative change of contrast
    #[arg(long, default_value_t = Augment::default().contrast, help_heading = "Augmentation")]
    contrast: f32,
    // The last: the heading of a group holds for all flags after it.
    #[command(flatten)]
    rendering: RenderingArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum WeightsArg {
    None,
    Balanced,
}

/// How a rectangle becomes a square.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CropArg {
    Center,
    Squash,
    Border,
}

impl From<CropArg> for CropMode {
    fn from(crop: CropArg) -> CropMode {
        match crop {
            CropArg::Center => CropMode::Center,
            CropArg::Squash => CropMode::Squash,
            CropArg::Border => CropMode::Border,
        }
    }
}

impl Args {
    pub(super) fn run_path(&self) -> PathBuf {
        self.run.clone().unwrap_or_else(|| self.out.with_extension("run"))
    }

    /// What is trained.
    pub(super) fn method(&self) -> Method {
        self.method.chosen()
    }

    /// Where full fine-tuning writes the backbone; none for the other methods.
    pub(super) fn backbone_out(&self) -> Option<PathBuf> {
        self.method().trains_backbone().then(|| self.out.with_extension("backbone.safetensors"))
    }

    /// The refusal of an output that is there already.
    pub(super) fn exists(&self, output: &Path) -> Failure {
        let (out, run) = (output.display(), self.run_path());
        let run = run.display();
        Failure::Message(format!("--out {out}: exists already; --overwrite replaces it, and what {run} may hold"))
    }

    /// The settings on a backbone of `depth` blocks.
    pub(super) fn config(&self, depth: usize) -> Result<TrainConfig, Failure> {
        let config = self.method.config(depth)?;
        let optimiser = &self.optimiser;
        Ok(TrainConfig {
            epochs: optimiser.epochs.unwrap_or(config.epochs),
            batch_size: optimiser.batch_size.unwrap_or(config.batch_size),
            learning_rate: optimiser.lr.unwrap_or(config.learning_rate),
            min_learning_rate: optimiser.min_lr.unwrap_or(config.min_learning_rate),
            warmup_epochs: optimiser.warmup_epochs.unwrap_or(config.warmup_epochs),
            weight_decay: optimiser.weight_decay.unwrap_or(config.weight_decay),
            clip_norm: optimiser.clip_norm.unwrap_or(config.clip_norm),
            label_smoothing: optimiser.label_smoothing.unwrap_or(config.label_smoothing),
            class_weights: match optimiser.class_weights {
                WeightsArg::None => ClassWeights::None,
                WeightsArg::Balanced => ClassWeights::Balanced,
            },
            mask_head: match optimiser.mask_head {
                MaskHeadArg::Upsampling => MaskHead::Upsampling,
                MaskHeadArg::Linear => MaskHead::Linear,
            },
            patience: optimiser.patience.unwrap_or(config.patience),
            augment: self.images.augment(),
            seed: self.seed,
            bag: self.bags.config()?,
            ..config
        })
    }
}

impl Args {
    /// What is asked of the scope.
    pub(super) fn scope(&self, config: &TrainConfig) -> Result<Option<ScopeSettings>, Failure> {
        if self.scope.says_anything() && config.folds.is_some() && config.late.is_none() {
            let why = "--scope-false-alarms: folds that are not trained on top of one plug-in have no scope";
            return Err(Failure::Usage(why.to_owned()));
        }
        Ok((!self.no_scope).then(|| self.scope.settings(ScopeSettings::default())))
    }

    /// A word on flags that were given and do not apply to what is run.
    pub(super) fn unused(&self, config: &TrainConfig) -> Option<String> {
        if config.solver == Solver::AdamW {
            return None;
        }
        let of = &self.optimiser;
        let given = [
            ("--epochs", of.epochs.is_some()),
            ("--batch-size", of.batch_size.is_some()),
            ("--lr", of.lr.is_some()),
            ("--min-lr", of.min_lr.is_some()),
            ("--warmup-epochs", of.warmup_epochs.is_some()),
            ("--weight-decay", of.weight_decay.is_some()),
            ("--clip-norm", of.clip_norm.is_some()),
            ("--label-smoothing", of.label_smoothing.is_some()),
            ("--patience", of.patience.is_some()),
        ];
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect();
        (!given.is_empty()).then(|| {
            format!(
                "note: a head alone is solved to convergence, without {}; --solver adamw trains it in steps",
                given.join(", ")
            )
        })
    }
}

impl ImageArgs {
    fn augment(&self) -> Augment {
        if self.no_augment {
            return Augment::none();
        }
        Augment {
            horizontal_flip: !self.no_flip,
            vertical_flip: self.vertical_flip,
            rotate_degrees: self.rotate,
            crop_scale: self.crop_scale,
            brightness: self.brightness,
            contrast: self.contrast,
        }
    }

    /// The weights' statistics and filter, the task's size, crop and rendering.
    pub(super) fn preprocess(&self, own: &Preprocess) -> Preprocess {
        let size = self.image_size.unwrap_or(own.size);
        let (crop_mode, crop_pct) = (self.crop_mode.into(), self.crop_pct);
        Preprocess {
            size,
            crop_mode,
            crop_pct,
            crop_offset: Default::default(),
            depth: None,
            rendering: self.rendering.rendering(),
            ..own.clone()
        }
    }
}
