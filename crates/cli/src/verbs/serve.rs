//! `melo serve`: one backbone and any number of plug-ins behind HTTP.

mod probe;

use super::quickstart::{BACKBONE, IMAGE_SIDE, PHANTOMS};
use super::task::PrecisionArg;
use crate::{Failure, advice, machine, note, say};
use melo::serve::{
    Advice, BatchConfig, CheckpointConfig, Config, DicomConfig, Limits, OidcConfig, RegistryConfig, Server,
    SignatureConfig, SyslogConfig, TlsClientFiles, TlsFiles, Trust, defaults, host_name,
};
use melo::synthetic::{Phantom, phantom};
use melo::vit::{Engine, INTENDED_USE, return_large_buffers, write_atomically};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Threads that decode, read and write beside those that compute. Each keeps memory for the largest image that it met: few of
/// them keep the server's memory level.
const SPARE_THREADS: usize = 4;
/// How long work that nobody waits for is let end.
const LAST: Duration = Duration::from_millis(200);
/// Beyond the indices of the quickstart's images.
const SAMPLE_SEED: u64 = 1 << 40;

/// Answer requests for many tasks from one backbone, over HTTP
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo serve                                            a page with generated tasks, to look around\n  \
    melo serve --backbone vit.safetensors --plugins tasks/\n  \
    melo serve --config serve.toml --listen 0.0.0.0:8443 --keys keys.toml --tls-cert cert.pem --tls-key key.pem\n  \
    melo serve --backbone vit.safetensors --plugins /mnt/tasks --replica melo-1 --lame-duck-s 8   behind a balancer\n  \
    melo serve --config serve.toml --probe                for the health check of a container\n  \
    curl -F image=@film.png -F tasks=all http://127.0.0.1:8080/v1/predict\n\n\
    Every flag can also be an environment variable, as shown, and a key of the --config file: `max-batch = 32`.\n\
    A flag wins over a variable, a variable over the file. The API is described in docs/serve.md and, by the server \
    itself, under /v1/openapi.json.")]
pub(crate) struct Args {
    /// Settings in TOML
    #[arg(long, env = "MELO_SERVE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask the server of these settings on this machine whether it is ready, and end: status 0 where it is
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What flags, variables and the file may say.
#[derive(clap::Args, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Settings {
    /// Address and port [default: 127.0.0.1:8080]
    #[arg(long, env = "MELO_SERVE_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Weights that the plug-ins were trained on: a file, its folder, or a model on the hub (hf:OWNER/NAME, timm/NAME) [default: a small
    /// embedded one, with generated tasks]
    #[arg(long, env = "MELO_SERVE_BACKBONE", value_name = "FILE|DIR|HUB")]
    backbone: Option<PathBuf>,
    /// Watched folder: the plug-ins in it are served, also those that come later
    #[arg(long, env = "MELO_SERVE_PLUGINS", value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Name of this server among several of one service: in the audit, its checkpoints and syslog [default: name of the host]
    #[arg(long, env = "MELO_SERVE_REPLICA", value_name = "NAME")]
    replica: Option<String>,
    /// Folder for what must outlive the process: accepted plug-ins and their versions [default: melo-serve]
    #[arg(long, env = "MELO_SERVE_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Numbers that go into the backbone's matrix products [default: f32]
    #[arg(long, env = "MELO_SERVE_PRECISION", value_enum)]
    precision: Option<PrecisionArg>,
    /// Images times tasks that are computed at once [default: 32]
    #[arg(long, env = "MELO_SERVE_MAX_BATCH", value_name = "N")]
    max_batch: Option<usize>,
    /// How long the first request of a batch waits for others, ms [default: 5]
    #[arg(long, env = "MELO_SERVE_MAX_WAIT_MS", value_name = "MS")]
    max_wait_ms: Option<u64>,
    /// Images times tasks that may be waiting or in work, for callers in turn; more are answered with 503 at once [default: 1024]
    #[arg(long, env = "MELO_SERVE_QUEUE", value_name = "N")]
    queue: Option<usize>,
    /// Share of the queue from which on the server is not ready, so that a balancer asks others; above 1 never [default: 0.9]
    #[arg(long, env = "MELO_SERVE_UNREADY_QUEUE_SHARE", value_name = "SHARE")]
    unready_queue_share: Option<f64>,
    /// How long the queue has that share before, s [default: 5]
    #[arg(long, env = "MELO_SERVE_UNREADY_QUEUE_S", value_name = "S")]
    unready_queue_s: Option<u64>,
    /// Images of one request, of tasks that answer for single images [default: 64]
    #[arg(long, env = "MELO_SERVE_MAX_IMAGES", value_name = "N")]
    max_images: Option<usize>,
    /// Images of one bag, of tasks that answer for bags [default: 1024]
    #[arg(long, env = "MELO_SERVE_MAX_BAG_IMAGES", value_name = "N")]
    max_bag_images: Option<usize>,
    /// Size of one request, MiB [default: 256]
    #[arg(long, env = "MELO_SERVE_MAX_BODY_MIB", value_name = "MIB")]
    max_body_mib: Option<usize>,
    /// Memory of all image decoders together, by what headers claim, MiB; images wait for it [default: 2048]
    #[arg(long, env = "MELO_SERVE_DECODE_MIB", value_name = "MIB")]
    decode_mib: Option<u64>,
    /// Time from a request to its answer, s [default: 120]
    #[arg(long, env = "MELO_SERVE_TIMEOUT_S", value_name = "S")]
    timeout_s: Option<u64>,
    /// Memory for plug-ins, MiB; the others stay on disk until they are asked for [default: 1024]
    #[arg(long, env = "MELO_SERVE_RESIDENT_MIB", value_name = "MIB")]
    resident_mib: Option<usize>,
    /// Versions of a task that can be named beside the current one [default: 8]
    #[arg(long, env = "MELO_SERVE_KEEP_VERSIONS", value_name = "N")]
    keep_versions: Option<usize>,
    /// File that every answer is recorded in before it is given [default: audit.sqlite in the state folder]
    #[arg(long, env = "MELO_SERVE_AUDIT", value_name = "FILE")]
    audit: Option<PathBuf>,
    /// File that the audit's signed checkpoint is kept in, on another disk or machine; the server does not start behind it
    #[arg(long, env = "MELO_SERVE_AUDIT_CHECKPOINT", value_name = "FILE")]
    audit_checkpoint: Option<PathBuf>,
    /// Secret key that signs checkpoints, made by `melo plugin keygen`
    #[arg(long, env = "MELO_SERVE_AUDIT_KEY", value_name = "FILE")]
    audit_key: Option<PathBuf>,
    /// Age of a checkpoint behind which records were added, s [default: 60]
    #[arg(long, env = "MELO_SERVE_AUDIT_CHECKPOINT_S", value_name = "S")]
    audit_checkpoint_s: Option<u64>,
    /// Receiver of syslog that every record is sent to as well, as RFC 5424 with DICOM's audit message: udp://HOST:PORT, tcp://HOST:PORT
    /// or tls://HOST:PORT
    #[arg(long, env = "MELO_SERVE_AUDIT_SYSLOG", value_name = "URL")]
    audit_syslog: Option<String>,
    /// Who vouches for the receiver of tls://, PEM
    #[arg(long, env = "MELO_SERVE_AUDIT_SYSLOG_CA", value_name = "FILE")]
    audit_syslog_ca: Option<PathBuf>,
    /// Certificate that is shown to the receiver, where it asks for one, PEM
    #[arg(long, env = "MELO_SERVE_AUDIT_SYSLOG_CERT", value_name = "FILE")]
    audit_syslog_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, env = "MELO_SERVE_AUDIT_SYSLOG_KEY", value_name = "FILE")]
    audit_syslog_key: Option<PathBuf>,
    /// Keep no record of answers
    #[arg(long, env = "MELO_SERVE_NO_AUDIT", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_audit: Option<bool>,
    /// File of keys, made by `melo keys add`; without it anyone may ask, and nobody may change what is served
    #[arg(long, env = "MELO_SERVE_KEYS", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// List of keys whose signatures on plug-ins are trusted (`melo plugin sign`); read again when it changes
    #[arg(long, env = "MELO_SERVE_TRUSTED_KEYS", value_name = "FILE")]
    trusted_keys: Option<PathBuf>,
    /// Serve only plug-ins that one of the trusted keys signed
    #[arg(long, env = "MELO_SERVE_REQUIRE_SIGNATURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    require_signature: Option<bool>,
    /// Certificate and those that vouch for it, PEM; read again when it changes
    #[arg(long, env = "MELO_SERVE_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, env = "MELO_SERVE_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Who vouches for callers, PEM: those who show no certificate of these authorities are turned away
    #[arg(long, env = "MELO_SERVE_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Connections at a time; more are answered with 503 at once [default: 1024]
    #[arg(long, env = "MELO_SERVE_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<usize>,
    /// How long requests are still taken after SIGTERM, while the server says that it is not ready: more than a balancer needs to see
    /// it, s [default: 0]
    #[arg(long, env = "MELO_SERVE_LAME_DUCK_S", value_name = "S")]
    lame_duck_s: Option<u64>,
    /// How long requests that were begun are waited for when the server stops, s [default: 30]
    #[arg(long, env = "MELO_SERVE_DRAIN_S", value_name = "S")]
    drain_s: Option<u64>,
    /// Collector of OpenTelemetry that is told of requests by OTLP over HTTP, such as http://127.0.0.1:4318
    #[arg(long, env = "MELO_SERVE_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Names that a server without keys is asked by beside addresses and localhost, such as a proxy's, by commas
    #[arg(long, env = "MELO_SERVE_ALLOWED_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    allowed_hosts: Option<Vec<String>>,
    /// Listen beyond this machine although anyone there may ask
    #[arg(long, env = "MELO_SERVE_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure: Option<bool>,
    /// The identity provider whose tokens are taken: a table of the file alone
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcConfig>,
    /// Requests of one subject of the identity provider in a minute [default: as many as the server can]
    #[arg(long, env = "MELO_SERVE_OIDC_PER_MINUTE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    oidc_per_minute: Option<u32>,
    /// Receive DICOM images by C-STORE on this address and port; STOW-RS needs none
    #[arg(long, env = "MELO_SERVE_DICOM_LISTEN", value_name = "ADDRESS")]
    dicom_listen: Option<String>,
    /// Application entity title of the DICOM network [default: MELO]
    #[arg(long, env = "MELO_SERVE_DICOM_AE_TITLE", value_name = "TITLE")]
    dicom_ae_title: Option<String>,
    /// Let anyone send DICOM images from other machines, where the settings name no peers
    #[arg(long, env = "MELO_SERVE_DICOM_ANY_PEER", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dicom_any_peer: Option<bool>,
    /// Tasks for DICOM images that no route takes, by commas, or `all` [default: such images are refused]
    #[arg(long, env = "MELO_SERVE_DICOM_TASKS", value_name = "NAMES", value_delimiter = ',')]
    dicom_tasks: Option<Vec<String>>,
    /// A DICOM series is complete when none of its images came for so long, seconds, of tasks that answer for bags [default: 10]
    #[arg(long, env = "MELO_SERVE_DICOM_SERIES_QUIET_S", value_name = "S")]
    dicom_series_quiet_s: Option<u64>,
    /// Days after which refused DICOM objects and notes of answered series are deleted; what waits for its answer or its receiver never is
    /// [default: the newest are kept]
    #[arg(long, env = "MELO_SERVE_DICOM_KEEP_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    dicom_keep_days: Option<u32>,
    /// Routes, destinations and bounds of the DICOM network: docs/dicom-network.md
    #[arg(skip)]
    #[serde(skip_serializing)]
    dicom: Option<DicomConfig>,
    /// What is logged to standard error [default: text on a terminal, json elsewhere]
    #[arg(long, env = "MELO_SERVE_LOG", value_enum)]
    log: Option<Log>,
}

#[derive(Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Log {
    Text,
    Json,
    Off,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let probe = args.probe;
    let settings = settings(args)?;
    if probe {
        return probe::run(&settings);
    }
    return_large_buffers();
    start_log(settings.log);
    let threads = machine::threads();
    let trust = trust(&settings)?;
    let (engine, demonstration) = engine(&settings)?;
    let config = config(&settings, threads, demonstration, trust);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(threads + SPARE_THREADS)
        .enable_all()
        .build()?;
    let served: Result<(), Failure> = runtime.block_on(async {
        let mut stop = Box::pin(stop_signal()?);
        let server = tokio::select! {
            server = Server::start(config, engine) => server?,
            () = &mut stop => return Ok(()),
        };
        announce(&server);
        server.run(stop).await?;
        Ok(())
    });
    // Threads that decode or draw for nobody are not waited for.
    runtime.shutdown_timeout(LAST);
    served
}

/// The file, overlaid by what flags and variables say.
fn settings(args: Args) -> Result<Settings, Failure> {
    let Some(path) = &args.config else { return Ok(args.settings) };
    let refused =
        |reason: String| Failure::Message(format!("{}: {}", path.display(), reason.trim_end().replace('\n', ", ")));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| refused(error.to_string()))?;
    // By itself first, so that the message names the file.
    table.clone().try_into::<Settings>().map_err(|error| refused(error.to_string()))?;
    table.extend(toml::Table::try_from(&args.settings).map_err(|error| refused(error.to_string()))?);
    table.try_into().map_err(|error: toml::de::Error| refused(error.to_string()))
}

fn start_log(log: Option<Log>) {
    use std::io::IsTerminal;
    let elsewhere = if std::io::stderr().is_terminal() { Log::Text } else { Log::Json };
    // A line that cannot be written is passed over: complaining of it on standard error would panic in who logs.
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).log_internal_errors(false);
    match log.unwrap_or(elsewhere) {
        Log::Text => builder.init(),
        Log::Json => builder.json().flatten_event(true).with_span_list(false).init(),
        Log::Off => {}
    }
}

/// What comes with the program, to look around: plug-ins, and images to try.
#[derive(Default)]
struct Demonstration {
    plugins: Vec<(&'static str, &'static [u8])>,
    samples: Vec<(String, Vec<u8>)>,
}

impl Demonstration {
    /// The quickstart's tasks, and an image of every class, none of which was in training.
    fn new() -> Result<Self, Failure> {
        let mut samples = Vec::new();
        for kind in Phantom::ALL {
            for (class, name) in kind.classes().iter().enumerate() {
                let pixels = phantom(kind, class, SAMPLE_SEED, IMAGE_SIDE);
                samples.push((format!("{}_{name}.png", kind.name()), melo::imaging::encode_png(&pixels)?));
            }
        }
        Ok(Demonstration { plugins: PHANTOMS.to_vec(), samples })
    }
}

fn engine(settings: &Settings) -> Result<(Arc<dyn Engine>, Demonstration), Failure> {
    let precision = settings.precision.unwrap_or(PrecisionArg::F32).into();
    if let Some(path) = &settings.backbone {
        return Ok((machine::load_engine(path, precision)?, Demonstration::default()));
    }
    let path = state(settings).join("backbone.safetensors");
    write_atomically_in(&path, BACKBONE)?;
    let demonstration = if settings.plugins.is_none() { Demonstration::new()? } else { Demonstration::default() };
    Ok((machine::load_engine(&path, precision)?, demonstration))
}

fn write_atomically_in(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Failure::Message(format!("{}: {error}", folder.display())))?;
    }
    Ok(write_atomically(path, bytes)?)
}

fn state(settings: &Settings) -> PathBuf {
    settings.state.clone().unwrap_or_else(|| PathBuf::from(defaults::STATE))
}

/// The `[dicom]` table, overlaid by the flags; none where neither is given.
fn dicom(settings: &Settings) -> Option<DicomConfig> {
    let Settings {
        dicom_listen,
        dicom_ae_title,
        dicom_any_peer,
        dicom_tasks,
        dicom_series_quiet_s,
        dicom_keep_days,
        dicom,
        ..
    } = settings;
    if dicom.is_none() && dicom_listen.is_none() && dicom_ae_title.is_none() && dicom_tasks.is_none() {
        return None;
    }
    let mut dicom = dicom.clone().unwrap_or_default();
    dicom.listen = dicom_listen.clone().or(dicom.listen);
    dicom.ae_title = dicom_ae_title.clone().unwrap_or(dicom.ae_title);
    dicom.any_peer = dicom_any_peer.unwrap_or(dicom.any_peer);
    dicom.tasks = dicom_tasks.clone().unwrap_or(dicom.tasks);
    dicom.series_quiet_s = dicom_series_quiet_s.unwrap_or(dicom.series_quiet_s);
    dicom.keep_days = dicom_keep_days.or(dicom.keep_days);
    Some(dicom)
}

fn config(settings: &Settings, threads: usize, demonstration: Demonstration, trust: Trust) -> Config {
    const MIB: usize = 1 << 20;
    let registry = RegistryConfig {
        resident_bytes: settings.resident_mib.map_or(defaults::RESIDENT_BYTES, |mib| mib.saturating_mul(MIB)),
        keep_versions: settings.keep_versions.unwrap_or(defaults::KEEP_VERSIONS),
        signatures: SignatureConfig {
            trusted_keys: settings.trusted_keys.clone(),
            required: settings.require_signature.unwrap_or(false),
        },
        advice: Advice(advice::of_plugin),
        ..RegistryConfig::new(state(settings))
    };
    Config {
        replica: settings.replica.clone().unwrap_or_else(host_name),
        listen: settings.listen.clone().unwrap_or_else(|| defaults::LISTEN.to_owned()),
        plugins: settings.plugins.clone(),
        builtin: demonstration.plugins,
        samples: demonstration.samples,
        batches: BatchConfig {
            max_batch: settings.max_batch.unwrap_or(defaults::MAX_BATCH),
            max_wait: settings.max_wait_ms.map_or(defaults::MAX_WAIT, Duration::from_millis),
            queue: settings.queue.unwrap_or(defaults::QUEUE),
            pressed_share: settings.unready_queue_share.unwrap_or(defaults::PRESSED_SHARE),
            pressed_for: settings.unready_queue_s.map_or(defaults::PRESSED_FOR, Duration::from_secs),
        },
        limits: Limits {
            body_bytes: settings.max_body_mib.map_or(defaults::BODY_BYTES, |mib| mib.saturating_mul(MIB)),
            images: settings.max_images.unwrap_or(defaults::MAX_IMAGES),
            bag_images: settings.max_bag_images.unwrap_or(defaults::MAX_BAG_IMAGES),
            timeout: settings.timeout_s.map_or(defaults::TIMEOUT, Duration::from_secs),
            decoders: threads,
            decode_bytes: settings.decode_mib.map_or(defaults::DECODE_BYTES, |mib| mib.saturating_mul(MIB as u64)),
        },
        trust,
        dicom: dicom(settings),
        ..Config::new(registry)
    }
}

/// Before anything is loaded: what contradicts itself is told at once.
fn trust(settings: &Settings) -> Result<Trust, Failure> {
    if settings.require_signature.unwrap_or(false) && settings.trusted_keys.is_none() {
        return Err(Failure::Usage("require-signature needs trusted-keys, which say whose".to_owned()));
    }
    let tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => {
            Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: settings.tls_client_ca.clone() })
        }
        (None, None) if settings.tls_client_ca.is_some() => {
            return Err(Failure::Usage("tls-client-ca needs tls-cert and tls-key".to_owned()));
        }
        (None, None) => None,
        _ => return Err(Failure::Usage("tls-cert and tls-key go together".to_owned())),
    };
    let audit = match (settings.no_audit.unwrap_or(false), &settings.audit) {
        (false, Some(path)) => Some(path.clone()),
        (false, None) => Some(state(settings).join("audit.sqlite")),
        (true, None) => None,
        (true, Some(_)) => return Err(Failure::Usage("audit and no-audit exclude each other".to_owned())),
    };
    let checkpoints = match (&settings.audit_checkpoint, &settings.audit_key) {
        (Some(_), Some(_)) if audit.is_none() => {
            return Err(Failure::Usage("audit-checkpoint and no-audit exclude each other".to_owned()));
        }
        (Some(file), Some(key)) => Some(CheckpointConfig {
            file: file.clone(),
            key: key.clone(),
            every: settings.audit_checkpoint_s.map_or(defaults::CHECKPOINT, Duration::from_secs),
        }),
        (None, None) => None,
        _ => return Err(Failure::Usage("audit-checkpoint and audit-key go together".to_owned())),
    };
    let syslog = syslog(settings)?;
    if syslog.is_some() && audit.is_none() {
        return Err(Failure::Usage("audit-syslog and no-audit exclude each other".to_owned()));
    }
    let oidc = match (settings.oidc.clone(), settings.oidc_per_minute) {
        (None, Some(_)) => return Err(Failure::Usage("oidc-per-minute needs [oidc] in the settings' file".to_owned())),
        (Some(oidc), per_minute) => Some(OidcConfig { per_minute: per_minute.or(oidc.per_minute), ..oidc }),
        (None, None) => None,
    };
    Ok(Trust {
        audit,
        checkpoints,
        syslog,
        keys: settings.keys.clone(),
        oidc,
        tls,
        max_connections: settings.max_connections.unwrap_or(defaults::MAX_CONNECTIONS),
        lame_duck: settings.lame_duck_s.map_or(defaults::LAME_DUCK, Duration::from_secs),
        drain: settings.drain_s.map_or(defaults::DRAIN, Duration::from_secs),
        otlp_endpoint: settings.otlp_endpoint.clone(),
        allowed_hosts: settings.allowed_hosts.clone().unwrap_or_default(),
        insecure: settings.insecure.unwrap_or(false),
    })
}

/// Where the audit's records are sent.
fn syslog(settings: &Settings) -> Result<Option<SyslogConfig>, Failure> {
    let Settings { audit_syslog, audit_syslog_ca, audit_syslog_cert, audit_syslog_key, .. } = settings;
    let (ca, cert, key) = (audit_syslog_ca.clone(), audit_syslog_cert.clone(), audit_syslog_key.clone());
    let usage = |reason: &str| Err(Failure::Usage(reason.to_owned()));
    let tls = match (ca, cert.is_some(), key.is_some()) {
        (_, true, false) | (_, false, true) => return usage("audit-syslog-cert and audit-syslog-key go together"),
        (None, true, true) => return usage("audit-syslog-cert needs audit-syslog-ca"),
        (ca, ..) => ca.map(|ca| TlsClientFiles { ca, server_name: None, cert, key }),
    };
    match (audit_syslog, tls) {
        (None, Some(_)) => usage("audit-syslog-ca needs audit-syslog"),
        (address, tls) => Ok(address.clone().map(|address| SyslogConfig { address, tls })),
    }
}

fn announce(server: &Server) {
    let service = server.service();
    let engine = service.engine();
    let tasks: Vec<String> = service.registry.tasks().into_iter().map(|task| task.name).collect();
    let served = if tasks.is_empty() { "none yet".to_owned() } else { tasks.join(", ") };
    note(format_args!("backbone: {}, {}", engine.backbone().name(), engine.info().precision));
    note(format_args!("tasks: {served}"));
    match &service.audit {
        Some(audit) => note(format_args!("audit: {}, {} records", audit.path().display(), audit.head().rows)),
        None => note("audit: none is kept"),
    }
    for (file, reason) in service.registry.problems() {
        note(format_args!("refused: {file}: {reason}"));
    }
    let scheme = if server.is_encrypted() { "https" } else { "http" };
    if let Some(address) = server.dicom_address() {
        note(format_args!("DICOM: listening on {address}"));
    }
    note(INTENDED_USE);
    say(format_args!("listening on {scheme}://{}", server.address()));
    note("Open that address in a browser. Ctrl-C stops the server.");
}

/// Resolves at Ctrl-C or SIGTERM, which end the process no more from this call on.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}
