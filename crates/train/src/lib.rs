//! Training of plug-ins: losses, AdamW, schedules, epochs that survive a kill.

mod adamw;
mod answers;
mod calibrate;
mod config;
mod converged;
mod error;
mod errors;
mod examples;
mod folder;
mod groups;
mod job;
mod judged;
mod lbfgs;
mod mask_answers;
mod mask_loss;
mod method;
mod model;
mod objective;
mod pretrain;
mod probe;
mod recalibrate;
mod schedule;
mod settings;
mod sheet;
mod state;
mod subgroups;
mod team;
mod trainer;
mod unseen;
mod words;

pub use adamw::{AdamW, AdamWStep, TensorStep};
pub use answers::{Answers, column, examples};
pub use calibrate::{Figure, calibrate, figures, fit, record, test_counts, thresholds};
pub use config::{ClassWeights, HeadStart, MaskHead, Solver, TrainConfig, defaults};
pub use error::{Error, InvalidAnswers};
pub use examples::{Examples, evaluate};
pub use folder::RunFolder;
pub use job::{Finished, Job, ReadyJob, task_name, today};
pub use judged::{Cases, Judged, mean_share};
pub use method::Method;
pub use model::Start;
pub use pretrain::{FormulaSet, initial_checkpoint, small_vit};
pub use recalibrate::{Reading, has_splits_of, recalibrate};
pub use schedule::Schedule;
pub use settings::MethodSettings;
pub use sheet::{adapter_in_words, calibrations_in_words, card_sheet, self_test_in_words};
pub use state::EpochRow;
pub use subgroups::{SubgroupFigure, subgroup_figures};
pub use team::{Conclusion, Team, TeamError, Transport};
pub use trainer::{Event, Outcome, Resume, RunOptions, Task, train};
pub use unseen::{manifest_for, read_for};
pub use words::{augmentation_in_words, bag_in_words, figure_in_words, method_in_words, settings_in_words};

/// Name and version of this software, for cards and reports.
pub const SOFTWARE: &str = concat!("melo ", env!("CARGO_PKG_VERSION"));
