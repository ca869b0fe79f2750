//! What is asked of prediction sets.

use crate::Failure;
use clap::ValueEnum;
use melo::train::SetSettings;
use melo::vit::{SetBy, SetMethod};

/// Flags of prediction sets.
#[derive(clap::Args)]
#[command(next_help_heading = "Prediction sets")]
pub(crate) struct SetArgs {
    /// Share of images whose prediction set is to hold the truth, between 0 and 1 [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    coverage: Option<f64>,
    /// How classes come into a set [default: lac; grades and numbers have a way of their own]
    #[arg(long, value_enum)]
    sets: Option<SetsArg>,
    /// Whom the coverage is promised for [default: all; of findings class]
    #[arg(long, value_enum, value_name = "WHOM")]
    sets_by: Option<ByArg>,
}

/// How classes come into a set.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SetsArg {
    /// Every class that is probable enough: the smallest sets, some of them empty
    Lac,
    /// Classes from the most probable on: larger where an image is harder, never empty
    Aps,
    /// As aps, with a penalty on large sets
    Raps,
    /// No sets
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByArg {
    /// All images together
    All,
    /// The images of each class, or with and without each finding
    Class,
}

impl SetArgs {
    /// What is asked for; `usual` where nothing is said.
    pub(crate) fn settings(&self, usual: Option<SetSettings>) -> Result<Option<SetSettings>, Failure> {
        let SetArgs { coverage, sets, sets_by } = self;
        if *sets == Some(SetsArg::None) {
            return match coverage.is_none() && sets_by.is_none() {
                true => Ok(None),
                false => Err(Failure::Usage("--sets none leaves nothing for --coverage or --sets-by".to_owned())),
            };
        }
        if coverage.is_none() && sets.is_none() && sets_by.is_none() {
            return Ok(usual);
        }
        let usual = usual.unwrap_or_default();
        let method = match sets {
            Some(SetsArg::Lac) => Some(SetMethod::Lac),
            Some(SetsArg::Aps) => Some(SetMethod::Aps),
            Some(SetsArg::Raps) => Some(SetMethod::Raps),
            Some(SetsArg::None) | None => usual.method,
        };
        let by = match sets_by {
            Some(ByArg::All) => Some(SetBy::All),
            Some(ByArg::Class) => Some(SetBy::Class),
            None => usual.by,
        };
        Ok(Some(SetSettings { coverage: coverage.unwrap_or(usual.coverage), method, by }))
    }
}
