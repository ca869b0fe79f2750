//! `melo archive plan`, `work`, `status`, `collect`: an archive on several machines, over NATS JetStream.

use super::{AskedArgs, EstimateArgs, estimate, refused, remark, report};
use crate::progress::{ArchiveProgress, duration, grouped};
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::train::interrupt_flag;
use crate::{Failure, note, say, say_json};
use melo::archive::{
    Broker, Error, Hints, Joined, Listener, PatientKey, Settings, Sharing, Status, Watch, WorkerState, WorkerStatus,
    collect, enqueue, work,
};
use melo::predict::Predictor;
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often `status --watch` looks.
const WATCH: Duration = Duration::from_secs(2);

/// Plan an archive, and queue its parts for workers on any number of machines
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo archive plan /archive/2024 --backbone /models/vit --plugin /models/cxr.safetensors --out /shared/cxr-2024 --queue nats://broker:4222\n  \
    NATS_URL=tls://broker NATS_CREDS=melo.creds melo archive plan /archive --backbone /models/vit --plugin /models/tb.safetensors --out /shared/tb\n  \
    melo archive plan /archive --backbone /models/vit --plugin /models/tb.safetensors --estimate\n\n\
    Then, on every machine: melo archive work --out /shared/cxr-2024 --queue nats://broker:4222; and once, when `melo archive status` says that \
    all is there: melo archive collect --out /shared/cxr-2024 --queue nats://broker:4222.\n\n\
    --out, images, backbone and plug-ins are in storage that all machines see under the same paths. The same command again queues what is \
    neither there nor queued: parts that failed, or were removed.", mut_arg("queue", |queue| queue.required(false).required_unless_present("estimate")))]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    asked: AskedArgs,
    /// Folder for the Parquet files, which all workers see
    #[arg(long, value_name = "DIR", required_unless_present = "estimate")]
    out: Option<PathBuf>,
    #[command(flatten)]
    estimate: EstimateArgs,
    /// Images of a part [default: what this machine computes in 20 s, at most 4096 or a hundredth of the archive, at least 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    chunk: Option<u32>,
    /// Name of the queue [default: after the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How often a part is handed out before it counts as failed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_deliver: u32,
    /// How long a worker may be silent before its parts are handed to others, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    ack_wait: u64,
    #[command(flatten)]
    broker: Option<BrokerArgs>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Compute queued parts until none is left with anybody
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo archive work --out /shared/cxr-2024 --queue nats://broker:4222\n  \
    NATS_URL=tls://broker NATS_CREDS=melo.creds melo archive work --out /shared/cxr-2024 --backbone /local/vit --plugin /local/cxr.safetensors\n\n\
    Backbone and plug-ins are those that the plan names, or those given here; others than the planned ones are refused by digest. Ctrl-C and \
    SIGTERM end it after the part in hand. Killed, its parts are handed to others. A server that is lost is waited for.\n\n\
    A part that cannot be computed or written here ends this worker and is given to others; after --max-deliver of `plan` it counts as failed.")]
pub(crate) struct WorkArgs {
    /// The archive's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Weights [default: those that the plan names]
    #[arg(long, value_name = "FILE|DIR|HUB")]
    backbone: Option<PathBuf>,
    /// Which of several sets of weights in the file [default: the plan's]
    #[arg(long, value_name = "KEY")]
    weights_key: Option<String>,
    /// Plug-in; may be given several times [default: those that the plan names]
    #[arg(long)]
    plugin: Vec<PathBuf>,
    /// Secret under which Patient IDs become codes, where the archive was planned with one
    #[arg(long, value_name = "FILE")]
    patient_key: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

impl PlanArgs {
    pub(super) fn plugins(&mut self) -> Vec<&mut PathBuf> {
        self.asked.plugin.iter_mut().collect()
    }
}

impl WorkArgs {
    pub(super) fn plugins(&mut self) -> Vec<&mut PathBuf> {
        self.plugin.iter_mut().collect()
    }
}

/// Say how a queued archive is doing: rate, what is left, failures, workers
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo archive status --out /shared/cxr-2024 --queue nats://broker:4222 --watch\n  \
    melo archive status --out /shared/cxr-2024 --queue nats://broker:4222 --json\n\n\
    Exit status 1 where parts have failed and are not tried again.")]
pub(crate) struct StatusArgs {
    /// The archive's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Look again every two seconds, until all parts are there or have failed
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print JSON: one object a look
    #[arg(long)]
    json: bool,
}

/// Verify that a queued archive is complete, write its manifest, and remove its queue
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo archive collect --out /shared/cxr-2024 --queue nats://broker:4222\n\n\
    Every part is read to its end. Where parts are missing they are named, and nothing changes. Afterwards the folder is as \
    `melo archive run` would have left it, and the exit status as well.")]
pub(crate) struct CollectArgs {
    /// The archive's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Which server, and who asks. Name, password and token come from NATS_USER and NATS_PASSWORD, or NATS_TOKEN, or the URL.
#[derive(clap::Args)]
struct BrokerArgs {
    /// NATS server with JetStream (nats://HOST:PORT, tls://HOST:PORT; those of a cluster with commas between them). Name and password, or a
    /// token, from NATS_USER and NATS_PASSWORD or NATS_TOKEN, where no other user of the machine sees them, or before the host
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    queue: String,
    /// Credentials: a JWT and the seed of its key, as `nsc` writes them
    #[arg(long, value_name = "FILE", env = "NATS_CREDS")]
    nats_creds: Option<PathBuf>,
    /// File with the seed of an nkey
    #[arg(long, value_name = "FILE", env = "NATS_NKEY")]
    nats_nkey: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's, PEM
    #[arg(long, value_name = "FILE", env = "NATS_CA")]
    nats_ca: Option<PathBuf>,
    /// Certificate for the server, PEM
    #[arg(long, value_name = "FILE", env = "NATS_CERT", requires = "nats_key")]
    nats_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", env = "NATS_KEY", requires = "nats_cert")]
    nats_key: Option<PathBuf>,
}

impl BrokerArgs {
    fn broker(&self) -> Broker {
        let secret = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Broker {
            url: self.queue.clone(),
            user: secret("NATS_USER").zip(secret("NATS_PASSWORD")),
            token: secret("NATS_TOKEN"),
            credentials: self.nats_creds.clone(),
            nkey: self.nats_nkey.clone(),
            ca: self.nats_ca.clone(),
            certificate: self.nats_cert.clone().zip(self.nats_key.clone()),
        }
    }
}

pub(super) fn run_plan(args: &PlanArgs) -> Result<(), Failure> {
    let asked = &args.asked;
    let inputs = asked.inputs()?;
    let (Some(out), Some(broker)) = (&args.out, &args.broker) else {
        return estimate::run(asked, &args.estimate, &inputs, args.json);
    };
    let (predictor, settings) = asked.settings(args.chunk)?;
    let backbone = &asked.backbone.path;
    let hints = Hints {
        backbone: if backbone.exists() { absolute(backbone)? } else { backbone.to_string_lossy().into_owned() },
        weights_key: asked.backbone.weights_key.clone(),
        plugins: asked.plugin.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
    };
    let ack_wait = Duration::from_secs(args.ack_wait);
    let sharing = Sharing { name: args.name.clone(), max_deliver: args.max_deliver, ack_wait, hints };
    let stop = interrupt_flag()?;
    let mut progress = ArchiveProgress::new(false);
    let broker = broker.broker();
    let queue = (&broker, &sharing, progress.listener());
    let queued = enqueue(&predictor, &settings, &inputs, out, queue, &stop, &mut |event| progress.show(event));
    progress.finish();
    let queued = queued?;
    if args.json {
        return say_json(&json!({
            "out": out.to_string_lossy(),
            "queue": queued.name,
            "inputs": queued.plan.inputs,
            "inputs_done": queued.done,
            "parts": queued.plan.chunks(),
            "missing": queued.missing,
            "queued": queued.queued,
            "chunk": queued.plan.chunk,
            "unlisted": queued.plan.unlisted,
            "plan_digest": queued.plan.digest(),
        }));
    }
    let [parts, missing, fresh, chunk] =
        [queued.plan.chunks() as usize, queued.missing as usize, queued.queued as usize, queued.plan.chunk]
            .map(grouped);
    let (out, name) = (out.display(), &queued.name);
    say(format_args!(
        "{out}: {missing} of {parts} parts of {chunk} images are missing, {fresh} were queued now in `{name}`; next, on every machine: \
         melo archive work --out {out} --queue {}",
        broker.address()
    ));
    Ok(())
}

/// A file as machines with the same storage find it.
fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute =
        std::path::absolute(path).map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
    Ok(absolute.to_string_lossy().into_owned())
}

pub(super) fn run_work(args: &WorkArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let Joined { plan, hints } = Joined::read(&args.out)?;
    let patient_key = args.patient_key.as_deref().map(PatientKey::read).transpose()?;
    let backbone = BackboneArgs {
        path: args.backbone.clone().unwrap_or_else(|| hints.backbone.into()),
        weights_key: args.weights_key.clone().or(hints.weights_key),
    };
    let predictor = Predictor::new(backbone.engine(Some(plan.precision))?);
    let named: Vec<PathBuf> = hints.plugins.into_iter().map(PathBuf::from).collect();
    let paths = if args.plugin.is_empty() { &named } else { &args.plugin };
    let plugins = paths.iter().map(|path| Ok(predictor.plugin(path)?)).collect::<Result<_, Failure>>()?;
    let settings = Settings { plugins, chunk: None, patient_key };
    let stop = interrupt_flag()?;
    let mut progress = ArchiveProgress::new(false);
    let broker = args.broker.broker();
    let queue = (&broker, progress.listener());
    let worked = work(&predictor, &settings, &args.out, queue, &stop, &mut |event| progress.show(event));
    let tally = progress.finish();
    let worked = worked?;
    remark(&tally);
    if args.json {
        say_json(&json!({
            "out": args.out.to_string_lossy(),
            "worker": worked.worker,
            "images": worked.images,
            "refused": worked.refused,
            "parts": worked.parts,
            "given_up": worked.given_up,
            "seconds": started.elapsed().as_secs_f64(),
        }))?;
    } else {
        let [images, parts] = [worked.images, worked.parts].map(|count| grouped(count as usize));
        say(format_args!(
            "{}: {images} images in {parts} parts by {}; no part is left",
            args.out.display(),
            worked.worker
        ));
    }
    match worked.given_up {
        0 => Ok(()),
        parts => Err(Failure::Message(format!("{parts} parts failed; `melo archive status` tells which"))),
    }
}

pub(super) fn run_status(args: &StatusArgs) -> Result<(), Failure> {
    let stop = interrupt_flag()?;
    let watch = Watch::open(&args.out, &args.broker.broker(), quiet())?;
    loop {
        let status = match watch.status() {
            Err(error @ Error::Broker { .. }) if args.watch && !stop.load(Ordering::Relaxed) => {
                note(format_args!("melo: {error}"));
                std::thread::sleep(WATCH);
                continue;
            }
            status => status?,
        };
        match args.json {
            true => say_json(&status)?,
            false => show(&status, args.watch && std::io::stdout().is_terminal()),
        }
        let given_up = status.failures.iter().filter(|failure| failure.given_up).count() as u64;
        let is_over = status.parts_done + given_up >= status.parts;
        if !args.watch || is_over || stop.load(Ordering::Relaxed) {
            return match given_up {
                0 => Ok(()),
                _ => Err(Failure::Message(format!(
                    "{given_up} parts failed and are not tried again; `melo archive plan` queues them again"
                ))),
            };
        }
        std::thread::sleep(WATCH);
    }
}

/// `anew` on a cleared terminal.
fn show(status: &Status, anew: bool) {
    let clear = if anew { "\x1b[2J\x1b[H" } else { "" };
    let [inputs, done] = [status.inputs, status.inputs_done].map(|count| grouped(count as usize));
    let percent = 100.0 * status.inputs_done as f64 / status.inputs as f64;
    let Status { queue, parts, parts_done, waiting, held, unqueued, .. } = status;
    say(format_args!(
        "{clear}{queue}: {done} of {inputs} images ({percent:.1} %), {parts_done} of {parts} parts; {waiting} waiting, {held} held"
    ));
    if *unqueued > 0 {
        say(format_args!("{unqueued} parts are neither there nor queued; `melo archive plan` queues them"));
    }
    if let Some(left) = status.seconds_left.filter(|_| status.inputs_done < status.inputs) {
        say(format_args!("{:.1} images/s, {} left", status.images_per_s, duration(left)));
    }
    if !status.workers.is_empty() {
        say(format_args!(
            "{:<32} {:>8} {:>10} {:>8} {:>7} {:>9}",
            "worker", "", "images", "refused", "parts", "images/s"
        ));
    }
    for WorkerStatus { report, alive, seconds_ago } in &status.workers {
        let state = match (report.state, alive) {
            (WorkerState::Working, true) => "working",
            (WorkerState::Working, false) => "silent",
            (WorkerState::Ended, _) => "ended",
            (WorkerState::Failed, _) => "failed",
        };
        let [images, refused, parts] =
            [report.images, report.refused, report.parts].map(|count| grouped(count as usize));
        let rate = if *alive { format!("{:.1}", report.images_per_s) } else { String::new() };
        let why = match (&report.reason, state) {
            (Some(reason), _) => format!("  {reason}"),
            (None, "silent") => format!("  for {}", duration(*seconds_ago)),
            _ => String::new(),
        };
        say(format_args!("{:<32} {state:>8} {images:>10} {refused:>8} {parts:>7} {rate:>9}{why}", report.worker));
    }
    for failure in &status.failures {
        let state = if failure.given_up { "failed" } else { "tried" };
        say(format_args!(
            "{state}: part {}, handed out {} times, last to {}: {}",
            failure.part, failure.deliveries, failure.worker, failure.reason
        ));
    }
}

pub(super) fn run_collect(args: &CollectArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let finished = collect(&args.out, &args.broker.broker(), quiet())?;
    report(&args.out, &finished, started, args.json)?;
    refused(&finished)
}

/// Of a short visit no news are told.
fn quiet() -> Listener {
    std::sync::Arc::new(|_| {})
}
