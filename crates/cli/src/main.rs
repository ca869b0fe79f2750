//! The `melo` command: one file a verb.

mod advice;
mod machine;
mod progress;
mod verbs;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Low-rank plug-ins on a frozen Vision Transformer, for medical image diagnosis.
#[derive(Parser)]
#[command(
    name = "melo",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  \
    melo quickstart                       everything on generated images, in two minutes\n  \
    melo data check labels.csv            before training\n  \
    melo train --backbone vit.safetensors --data labels.csv --out task.safetensors\n\n\
    Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted."
)]
struct Cli {
    /// Threads to compute with [default: all cores]
    #[arg(long, global = true, value_name = "N", env = "MELO_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Quickstart(verbs::quickstart::Args),
    Train(Box<verbs::train::Args>),
    Eval(verbs::eval::Args),
    Predict(verbs::predict::Args),
    Study(verbs::study::Args),
    Serve(Box<verbs::serve::Args>),
    /// Who may ask a server
    #[command(subcommand)]
    Keys(verbs::keys::Verb),
    /// What a server answered
    #[command(subcommand)]
    Audit(verbs::audit::Verb),
    /// Look at plug-ins; read and write adapters of others
    #[command(subcommand)]
    Plugin(verbs::plugin::Verb),
    /// Look at backbones
    #[command(subcommand)]
    Backbone(verbs::backbone::Verb),
    /// Look at data before training
    #[command(subcommand)]
    Data(verbs::data::Verb),
    Pretrain(verbs::pretrain::Args),
    /// Measure this machine: forward passes, training steps, mixed batches, decoding, a server
    #[command(subcommand)]
    Bench(verbs::bench::Verb),
    Completions(verbs::completions::Args),
}

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong; the sentence says what, where, and what to do.
    Message(String),
    /// The command line asks for what cannot be; the sentence says why.
    Usage(String),
    /// Everything that went wrong was already said.
    Reported,
    /// Stopped by the user.
    Interrupted(String),
}

impl Failure {
    /// The same, of a file that the library was not told of.
    pub(crate) fn of(self, path: &Path) -> Self {
        match self {
            Failure::Message(message) => Failure::Message(format!("{}: {message}", path.display())),
            other => other,
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        advice::failure(&error)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(Failure::Message(message)) => {
            note(format_args!("melo: {message}"));
            ExitCode::FAILURE
        }
        Err(Failure::Usage(message)) => {
            note(format_args!("melo: {message}"));
            ExitCode::from(2)
        }
        Err(Failure::Interrupted(message)) => {
            note(format_args!("melo: {message}"));
            ExitCode::from(130)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    machine::use_threads(cli.threads.map_or(0, usize::from));
    match cli.verb {
        Verb::Quickstart(args) => verbs::quickstart::run(&args),
        Verb::Train(args) => verbs::train::run(&args),
        Verb::Eval(args) => verbs::eval::run(&args),
        Verb::Predict(args) => verbs::predict::run(&args),
        Verb::Study(args) => verbs::study::run(&args),
        Verb::Serve(args) => verbs::serve::run(*args),
        Verb::Keys(verb) => verbs::keys::run(&verb),
        Verb::Audit(verb) => verbs::audit::run(&verb),
        Verb::Plugin(verb) => verbs::plugin::run(&verb),
        Verb::Backbone(verb) => verbs::backbone::run(&verb),
        Verb::Data(verb) => verbs::data::run(&verb),
        Verb::Pretrain(args) => verbs::pretrain::run(&args),
        Verb::Bench(verb) => verbs::bench::run(&verb),
        Verb::Completions(args) => verbs::completions::run(&args),
    }
}

/// Prints to standard output. A reader that went away (`| head`) ends the program quietly; results that cannot be
/// written for another reason, such as a full disk, are a failure.
pub(crate) fn say(text: impl std::fmt::Display) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        note(format_args!("melo: standard output: {error}"));
        std::process::exit(1);
    }
}

/// Prints to standard error. That nobody can read it is no reason to lose a training run, so a failure is passed over.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints one JSON value on one line.
pub(crate) fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say(serde_json::to_string(value)?);
    Ok(())
}

/// A path as JSON text, which cannot hold names that are not UTF-8: they are shown with a replacement character.
pub(crate) fn json_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
