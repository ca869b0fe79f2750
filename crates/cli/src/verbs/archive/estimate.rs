//! `melo archive run --estimate`, and `plan --estimate`: what it would take.

use super::{AskedArgs, EstimateArgs};
use crate::progress::{ArchiveProgress, grouped};
use crate::verbs::train::interrupt_flag;
use crate::{Failure, say, say_json};
use melo::archive::{Input, Need, Sample};
use melo::predict::Predictor;
use melo::vit::Precision;
use serde_json::{Value, json};

/// Those that are measured.
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];
/// Archives that are reckoned besides the one at hand, images.
const ARCHIVES: [u64; 2] = [1_000_000, 100_000_000];
/// Hours in which the machines of the table are done.
const DAY: f64 = 24.0;

/// What a precision comes to.
struct Line {
    precision: Precision,
    /// Images a second, computed, and with all else.
    infer: f64,
    rate: f64,
}

pub(super) fn run(asked: &AskedArgs, args: &EstimateArgs, inputs: &[Input], json: bool) -> Result<(), Failure> {
    let key = asked.patient_key()?;
    let stop = interrupt_flag()?;
    let mut sample: Option<Sample> = None;
    let mut lines = Vec::new();
    for precision in PRECISIONS {
        let predictor = Predictor::new(asked.backbone.engine(Some(precision))?);
        let plugins = asked.plugin.iter().map(|path| predictor.plugin(path)).collect::<Result<Vec<_>, _>>()?;
        let sample = match &mut sample {
            Some(sample) => sample,
            none => {
                let mut progress = ArchiveProgress::new(false);
                let taken = Sample::take((&plugins, key.as_ref()), inputs, args.sample as usize, &stop, &mut |event| {
                    progress.show(event);
                });
                progress.finish();
                none.insert(taken?)
            }
        };
        let seconds = sample.infer(&predictor, &plugins)?;
        lines.push(Line {
            precision,
            infer: (sample.images - sample.refused) as f64 / seconds,
            rate: sample.rate(seconds),
        });
    }
    let sample = sample.expect("taken with the first precision");
    if json { say_json(&in_json(&sample, &lines)) } else { print(&sample, &lines) }
}

/// The contract of the JSON is `docs/json.md`.
fn in_json(sample: &Sample, lines: &[Line]) -> Value {
    let of_line = |line: &Line| {
        let needs = archives(sample).map(|images| {
            let Need { images, bytes, machine_hours } = sample.need(images, line.rate);
            json!({"images": images, "bytes": bytes, "machine_hours": machine_hours})
        });
        json!({
            "precision": line.precision,
            "infer_images_per_second": line.infer,
            "images_per_second": line.rate,
            "read_mbit_per_second": megabits(sample, line.rate),
            "archives": needs.collect::<Vec<_>>(),
        })
    };
    let images = sample.images as f64;
    json!({
        "inputs": sample.listed.inputs,
        "sample": sample.images,
        "refused": sample.refused,
        "bytes_per_image": sample.bytes_per_image(),
        "read_images_per_second": images / (sample.fetch_seconds + sample.read_seconds),
        "decode_images_per_second": images / sample.decode_seconds,
        "threads": rayon::current_num_threads(),
        "precisions": lines.iter().map(of_line).collect::<Vec<_>>(),
    })
}

fn print(sample: &Sample, lines: &[Line]) -> Result<(), Failure> {
    let images = sample.images as f64;
    let [inputs, taken] = [sample.listed.inputs as usize, sample.images].map(grouped);
    let refused = if sample.refused == 0 { String::new() } else { format!(", {} cannot be read", sample.refused) };
    let size = bytes(sample.bytes_per_image());
    say(format_args!("{taken} of {inputs} images{refused}; {size} an image"));
    let [read, decode] =
        [sample.fetch_seconds + sample.read_seconds, sample.decode_seconds].map(|seconds| images / seconds);
    say(format_args!(
        "read {read:.1} images/s, decoded {decode:.1} images/s on {} threads",
        rayon::current_num_threads()
    ));
    say("");
    say("precision  computed, images/s  in all, images/s  read, Mbit/s");
    for line in lines {
        let (precision, mbit) = (line.precision.to_string(), megabits(sample, line.rate));
        say(format_args!("{precision:9}  {:>18.1}  {:>16.1}  {mbit:>12.1}", line.infer, line.rate));
    }
    say("");
    let heads = lines.iter().map(|line| format!("  {:>22}", format!("{} machine hours", line.precision)));
    say(format_args!("{:>13}  {:>10}{}", "images", "read", heads.collect::<String>()));
    for images in archives(sample) {
        let needs = lines.iter().map(|line| sample.need(images, line.rate));
        let cells = needs.map(|need| {
            let machines = grouped((need.machine_hours / DAY).ceil().max(1.0) as usize);
            format!("  {:>22}", format!("{:.1} ({machines} a day)", need.machine_hours))
        });
        let read = bytes(images as f64 * sample.bytes_per_image());
        say(format_args!("{:>13}  {read:>10}{}", grouped(images as usize), cells.collect::<String>()));
    }
    say("");
    say("Hours of one machine such as this one; in brackets the machines that are done within a day.");
    Ok(())
}

fn archives(sample: &Sample) -> impl Iterator<Item = u64> {
    std::iter::once(sample.listed.inputs).chain(ARCHIVES)
}

/// What one machine reads.
fn megabits(sample: &Sample, rate: f64) -> f64 {
    rate * sample.bytes_per_image() * 8.0 / 1e6
}

fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let unit = units.iter().enumerate().rev().find(|(place, _)| count >= 1000_f64.powi(*place as i32));
    let (place, unit) = unit.unwrap_or((0, &"B"));
    format!("{:.1} {unit}", count / 1000_f64.powi(place as i32))
}
