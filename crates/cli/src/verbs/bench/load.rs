//! `melo bench load`: many clients ask a running server, and every answer is held against the offline prediction.

mod clients;
mod expected;
mod memory;
mod server;

use super::super::task::PrecisionArg;
use super::line::{Line, Unit, time};
use super::repeat::{Spread, seconds};
use crate::{Failure, machine, note};
use clients::{Load, Tally, Timed};
use expected::Expected;
use melo::predict::Predictor;
use melo::vit::Precision;
use memory::Memory;
use serde::Serialize;
use server::Server;
use std::path::PathBuf;
use std::time::Duration;

/// Equal parts of the measured time, whose rates are the spread.
const PARTS: usize = 10;

/// Load a running `melo serve` from many clients, and compare every answer with the offline prediction
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    melo bench fixtures load-test --plugins 20\n  \
    melo serve --backbone load-test/backbone.safetensors --plugins load-test/plugins &\n  \
    melo bench load --url http://127.0.0.1:8080 --backbone load-test/backbone.safetensors \\\n      \
    --plugins load-test/plugins --clients 64 --seconds 600 --pid $!\n\n\
    Images are synthetic PNGs. Before anything is sent, the answer to every image and task is computed here as \
    `melo predict` does. A request that there is no room for (429, 503 with Retry-After) is sent again after what that says, and \
    counted apart. Exit status 1 when an answer was wrong or a request failed.")]
pub(crate) struct Args {
    /// The server, such as http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// The backbone that it serves: a file, its folder, or a model on the hub (hf:OWNER/NAME, timm/NAME)
    #[arg(long, value_name = "FILE|DIR|HUB")]
    backbone: PathBuf,
    /// Folder of plug-ins, all of which it serves
    #[arg(long, value_name = "DIR")]
    plugins: PathBuf,
    /// Key that it asks for
    #[arg(long, env = "MELO_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Clients, each with one request at a time
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Seconds that are measured
    #[arg(long, default_value_t = 600.0, value_name = "S", value_parser = measured_seconds)]
    seconds: f64,
    /// Seconds before, whose answers are compared and not timed
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = seconds)]
    warmup: f64,
    /// Different images
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    images: u16,
    /// Side of the images, pixels
    #[arg(long = "image-size", alias = "side", default_value_t = 512, value_name = "PX", value_parser = clap::value_parser!(u16).range(16..=8192))]
    side: u16,
    /// Tasks that a request asks about its image; 0 asks for all
    #[arg(long, default_value_t = 1, value_name = "N")]
    tasks: usize,
    /// Seconds after which a request has failed
    #[arg(long, default_value_t = 60.0, value_name = "S", value_parser = seconds)]
    timeout: f64,
    /// The server's process on this machine, to follow its memory
    #[arg(long)]
    pid: Option<u32>,
    /// Numbers that the server computes in; in bf16 on the same instruction set as here
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Enough seconds for a rate.
fn measured_seconds(text: &str) -> Result<f64, String> {
    let seconds = seconds(text)?;
    if seconds >= 0.1 { Ok(seconds) } else { Err("expected 0.1 seconds or more".to_owned()) }
}

/// Largest difference of a probability that is right.
///
/// Server and prediction run the same code, in which the numbers of an image do not depend on what else is in its batch: on one
/// instruction set the answers are equal to the last bit. 1e-5 in f32 leaves room for sums that are split in another way,
/// which move a logit by some 1e-6 of its size. In bf16 there is no such middle: a sum that differs in its last bit sooner or
/// later pushes a factor to the next of its 8 bits, and from there on all rounding is another, some 1e-3 in a probability.
/// So it must be the same instruction set, and the bound only has to be below that.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 | Precision::Bf16x3 => 1e-5,
        Precision::Bf16 | Precision::Int8 => 1e-4,
    }
}

/// Times from sending to the last byte of the answer, seconds.
#[derive(Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    /// Percentiles by nearest rank; of no value, zeros.
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * seconds.len() as f64).ceil() as usize;
            seconds.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Latency { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let predictor = Predictor::new(machine::load_engine(&args.backbone, args.precision.into())?);
    let info = predictor.engine().info();
    let (images, side) = (usize::from(args.images), usize::from(args.side));
    let expected = Expected::compute(&predictor, &args.plugins, images, side)?;
    let tolerance = tolerance(info.precision);
    if f64::from(expected.closest()) <= 2.0 * tolerance {
        note(format_args!(
            "note: two of the expected answers differ by {:.1e} only; were they exchanged, nobody would see it",
            expected.closest()
        ));
    }
    let server = Server::new(&args.url, args.key.as_deref(), Duration::from_secs_f64(args.timeout));
    let names = server.names_of(&expected)?;
    let load = Load {
        expected: &expected,
        names: &names,
        tolerance,
        tasks: if args.tasks == 0 { names.len() } else { args.tasks.min(names.len()) },
        warmup: Duration::from_secs_f64(args.warmup),
        measured: Duration::from_secs_f64(args.seconds),
    };
    let mut memory = Memory::of(args.pid);
    let tally = load.run(usize::from(args.clients), &server, &mut memory);
    report(args, predictor.engine().backbone().name(), info.precision, &expected, tally, &memory)
}

fn report(
    args: &Args,
    arch: &str,
    precision: Precision,
    expected: &Expected,
    tally: Tally,
    memory: &Memory,
) -> Result<(), Failure> {
    let Tally { requests, answers, busy, failures, wrong, largest_difference, timed, reasons } = tally;
    // Throughput is of what was finished in the measured time, latency of what was sent in it, however long it took.
    let finished: Vec<&Timed> = timed.iter().filter(|t| (0.0..=args.seconds).contains(&t.finished)).collect();
    let part = args.seconds / PARTS as f64;
    let in_part = |k: usize| finished.iter().filter(|t| ((t.finished / part) as usize).min(PARTS - 1) == k).count();
    let spread = Spread::of((0..PARTS).map(|k| in_part(k) as f64 / part));
    let images_per_s = finished.len() as f64 / args.seconds;
    let answers_per_s = finished.iter().map(|t| t.answers).sum::<usize>() as f64 / args.seconds;
    let latency = Latency::of(timed.iter().filter(|t| t.sent >= 0.0).map(|t| t.finished - t.sent).collect());
    let details = format!(
        "  {answers_per_s:.2} answers/s; latency p50 {}, p90 {}, p99 {}, max {}\n  {requests} requests, {answers} answers: \
         {wrong} wrong, {failures} requests failed, {busy} times too full (429, 503)\n  largest difference {largest_difference:.1e}, \
         allowed {:.0e}; exchanged answers would differ by {:.1e} at least\n{}",
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.max),
        tolerance(precision),
        expected.closest(),
        memory.text()
    );
    Line::new("load", arch, Unit::ImagesPerSecond, spread)
        .figure(images_per_s)
        .precision(precision)
        .peak_rss_bytes(args.pid.and_then(machine::peak_rss_bytes_of))
        .with("clients", args.clients)?
        .with("images", args.images)?
        .with("tasks", expected.tasks.len())?
        .with("measured_seconds", args.seconds)?
        .with("answers_per_s", answers_per_s)?
        .with("latency_seconds", &latency)?
        .with("requests", requests)?
        .with("answers", answers)?
        .with("wrong", wrong)?
        .with("failures", failures)?
        .with("busy", busy)?
        .with("largest_difference", largest_difference)?
        .with("tolerance", tolerance(precision))?
        .with("closest_expected", expected.closest())?
        .with("rss_bytes", memory.rss())?
        .print(args.json, &details)?;
    match (wrong + failures, reasons.first()) {
        (0, _) if finished.is_empty() => Err(Failure::Message(format!("{}: nothing was answered in time", args.url))),
        (0, _) => Ok(()),
        (_, reason) => Err(Failure::Message(format!(
            "{}: {wrong} answers were wrong and {failures} requests failed, the first: {}",
            args.url,
            reason.map_or("unknown", String::as_str)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        assert_eq!([latency.p50, latency.p90, latency.p99, latency.max], [100.0, 180.0, 198.0, 200.0]);
        let one = Latency::of(vec![3.0]);
        assert_eq!([one.p50, one.p99, one.max], [3.0; 3]);
        assert_eq!(Latency::of(Vec::new()).max, 0.0);
    }
}
