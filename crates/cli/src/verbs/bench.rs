//! `melo bench`: how fast this machine computes, on random weights of any named architecture.

mod decode;
mod files;
mod fixtures;
mod folds;
mod infer;
mod line;
mod load;
mod mixed;
mod random;
mod repeat;
mod switch;
mod train;

use crate::Failure;

/// What is measured.
#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    Infer(infer::Args),
    Train(train::Args),
    Switch(switch::Args),
    Mixed(mixed::Args),
    Folds(folds::Args),
    Decode(decode::Args),
    Load(load::Args),
    Fixtures(fixtures::Args),
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Infer(args) => infer::run(args),
        Verb::Train(args) => train::run(args),
        Verb::Switch(args) => switch::run(args),
        Verb::Mixed(args) => mixed::run(args),
        Verb::Folds(args) => folds::run(args),
        Verb::Decode(args) => decode::run(args),
        Verb::Load(args) => load::run(args),
        Verb::Fixtures(args) => fixtures::run(args),
    }
}
