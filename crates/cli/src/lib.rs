//! The `melo` command, for the binary and for whoever else starts it: one file a verb.

mod advice;
mod machine;
mod output;
mod packed;
mod progress;
mod shared;
mod verbs;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use melo::DeviceName;
use melo::vit::INTENDED_USE;
pub(crate) use output::{Failure, json_path, note, say, say_json};
use std::ffi::OsString;

/// Low-rank plug-ins on a frozen Vision Transformer, for medical image diagnosis.
#[derive(Parser)]
#[command(
    name = "melo",
    version,
    max_term_width = 100,
    after_help = format!("Start here:\n  \
    melo quickstart                       everything on generated images, in a minute or two\n  \
    melo data check labels.csv            before training\n  \
    melo train --backbone vit.safetensors --data labels.csv --out task.safetensors\n\n\
    Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted.\n\n{INTENDED_USE}")
)]
struct Cli {
    /// Threads to compute with [default: all cores]
    #[arg(long, global = true, value_name = "N", env = "MELO_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// What computes: cpu, cuda or cuda:N (an NVIDIA GPU; experimental, in builds with the feature cuda), auto
    #[arg(long, global = true, value_name = "DEVICE", env = "MELO_DEVICE", default_value = "cpu")]
    device: DeviceName,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Quickstart(verbs::quickstart::Args),
    Train(Box<verbs::train::Args>),
    Eval(verbs::eval::Args),
    Predict(verbs::predict::Args),
    Embed(Box<verbs::embed::Args>),
    /// Answers to all images of an archive, as Parquet files
    #[cfg(feature = "archive")]
    #[command(subcommand)]
    Archive(verbs::archive::Verb),
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
    #[command(hide = true)]
    Man(verbs::man::Args),
}

impl Verb {
    /// Plug-ins that are read, where a reference may stand for a file.
    fn plugins(&mut self) -> Vec<&mut std::path::PathBuf> {
        match self {
            Verb::Eval(args) => vec![&mut args.plugin],
            Verb::Predict(args) => args.plugin.iter_mut().collect(),
            Verb::Embed(args) => args.plugin.iter_mut().collect(),
            #[cfg(feature = "archive")]
            Verb::Archive(verb) => verb.plugins(),
            Verb::Plugin(verb) => verb.plugins(),
            _ => Vec::new(),
        }
    }
}

/// Verbs that compute nothing: they take `--threads` and `--device` as all do, and do not speak of them.
const COMPUTE_NOTHING: [&str; 4] = ["keys", "audit", "completions", "man"];

fn command() -> clap::Command {
    let silent = |name: &'static str| Arg::new(name).long(name).value_name("N").global(true).hide(true);
    let device = || silent("device").value_parser(clap::value_parser!(DeviceName));
    let silenced = |verb: clap::Command| verb.arg(silent("threads")).arg(device());
    COMPUTE_NOTHING.iter().fold(Cli::command(), |command, verb| command.mut_subcommand(verb, silenced))
}

/// Runs the command of these arguments, the first of them its own name, and gives its exit status; wrong usage and `--help` end the
/// process. `program` is how the command is started again: a file, and what comes before its arguments.
pub fn main(arguments: Vec<OsString>, program: Vec<OsString>) -> u8 {
    machine::started_by(program);
    let silent = verbs::train::leaves_usage_to_rank_0(&arguments);
    let matches = match command().try_get_matches_from(arguments) {
        Err(error) if silent => std::process::exit(error.exit_code()),
        matches => matches.unwrap_or_else(|error| error.exit()),
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = run(cli);
    packed::wait();
    let Err(failure) = result else { return 0 };
    if let Some(message) = failure.message() {
        note(format_args!("melo: {message}"));
    }
    match failure {
        Failure::Reported | Failure::Message(_) => 1,
        Failure::Usage(_) => 2,
        Failure::Interrupted(_) => 130,
    }
}

fn run(mut cli: Cli) -> Result<(), Failure> {
    shared::locate(&mut cli.verb)?;
    let threads = cli.threads.map_or(0, usize::from);
    // Ranks of a training share cores out first.
    if !matches!(cli.verb, Verb::Train(_)) {
        machine::use_threads(threads);
    }
    if !matches!(cli.verb, Verb::Keys(_) | Verb::Audit(_) | Verb::Completions(_) | Verb::Man(_)) {
        machine::use_device(cli.device)?;
    }
    match cli.verb {
        Verb::Quickstart(args) => verbs::quickstart::run(&args),
        Verb::Train(args) => verbs::train::run(&args, threads),
        Verb::Eval(args) => verbs::eval::run(&args),
        Verb::Predict(args) => verbs::predict::run(&args),
        Verb::Embed(args) => verbs::embed::run(&args),
        #[cfg(feature = "archive")]
        Verb::Archive(verb) => verbs::archive::run(&verb),
        Verb::Study(args) => verbs::study::run(&args),
        Verb::Serve(args) => verbs::serve::run(*args),
        Verb::Keys(verb) => verbs::keys::run(&verb),
        Verb::Audit(verb) => verbs::audit::run(&verb),
        Verb::Plugin(verb) => verbs::plugin::run(&verb),
        Verb::Backbone(verb) => verbs::backbone::run(&verb),
        Verb::Data(verb) => verbs::data::run(&verb),
        Verb::Pretrain(args) => verbs::pretrain::run(&args),
        Verb::Bench(verb) => verbs::bench::run(&verb),
        Verb::Completions(args) => verbs::completions::run(&args, command()),
        Verb::Man(args) => verbs::man::run(&args, command()),
    }
}
