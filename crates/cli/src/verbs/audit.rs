//! `melo audit`: what a server answered, and whether the record of it is whole.

use super::plugin::public_key;
use super::task::check_output;
use crate::{Failure, json_path, note, say, say_json};
use melo::serve::{
    Anchor, Broken, Checkpoint, DriftRow, Drifted, Entry, Head, Report, archive, drift_of, entries, parse_rfc3339,
    rfc3339, verify, verify_replicas, verify_together,
};
use melo::sign::SecretKey;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Check that no record was changed, removed or put in, and name the first that was
    #[command(after_help = "Examples:\n  melo audit verify melo-serve/audit.sqlite\n  \
        melo audit verify audit.sqlite --expect-head 9f86d08...@1200\n  \
        melo audit verify audit.sqlite --checkpoint /mnt/worm/melo.checkpoint --public-key audit.pub\n  \
        melo audit verify audit.sqlite --archive audit-2026.sqlite --archive audit-2025.sqlite\n  \
        melo audit verify melo-1/audit.sqlite melo-2/audit.sqlite --checkpoint melo-1.checkpoint --checkpoint melo-2.checkpoint \\\n      \
        --public-key audit.pub\n\n\
        The last hash is printed: noted elsewhere (the server's log has it, too), it shows later that the end was not\n\
        cut off and that not all was written anew. The server may be running.\n\
        Exit status 1 when the chain is broken. What it proves is said in docs/audit.md.")]
    Verify {
        /// The server's audit; of several servers (`melo serve --replica`) one each
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A last hash that was noted before, with the number of its row
        #[arg(long, value_name = "HASH[@N]")]
        expect_head: Option<Anchor>,
        /// A signed checkpoint of the server (`melo serve --audit-checkpoint`), from where it was kept; of several servers one each
        #[arg(long, value_name = "FILE", requires = "public_key", conflicts_with = "expect_head")]
        checkpoint: Vec<PathBuf>,
        /// The public key of who signed it: a file, or the line itself; may be repeated
        #[arg(long, value_name = "FILE|KEY", requires = "checkpoint")]
        public_key: Vec<String>,
        /// A file of older records (`melo audit archive`) that the others must follow; may be repeated
        #[arg(long, value_name = "FILE")]
        archive: Vec<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Move older records to a file of their own
    #[command(after_help = "Examples:\n  \
        melo audit archive melo-serve/audit.sqlite --before 2027-01-01 --out /mnt/worm/audit-2026.sqlite\n  \
        melo audit archive audit.sqlite --before 2027-01-01 --out audit-2026.sqlite --checkpoint melo.checkpoint --public-key audit.pub\n\n\
        The chain is walked first. The server must be stopped. The last record stays, and with a checkpoint all behind it.\n\
        What was cut off is finished by the same call once more: no record is lost, and none is in a chain twice.\n\
        Both files verify by themselves, and together: melo audit verify FILE --archive OUT.")]
    Archive {
        /// The server's audit
        file: PathBuf,
        /// The first moment that stays: a day, or a time such as 2027-01-01T12:00:00Z, in UTC
        #[arg(long, value_name = "DATE", value_parser = time)]
        before: i64,
        /// File to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// A signed checkpoint of the server that the chain is held to
        #[arg(long, value_name = "FILE", requires = "public_key")]
        checkpoint: Option<PathBuf>,
        /// The public key of who signed it: a file, or the line itself
        #[arg(long, value_name = "FILE|KEY", requires = "checkpoint")]
        public_key: Option<String>,
    },
    /// Check the whole chain and sign where it stands
    #[command(after_help = "Example:\n  \
        melo audit checkpoint melo-serve/audit.sqlite --key audit.key --out /mnt/worm/melo.checkpoint\n\n\
        The note is in the form of C2SP's tlog-checkpoint. A server that is told of it by --audit-checkpoint goes on with it, and does \
        not start behind it.")]
    Checkpoint {
        /// The server's audit
        file: PathBuf,
        /// The secret key, made by `melo plugin keygen`
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// File to write: on another disk or machine than the audit
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Whether answers drifted from what the plug-ins were tested on
    #[command(after_help = "Examples:\n  melo audit drift melo-serve/audit.sqlite\n  \
        melo audit drift audit.sqlite --plugins /mnt/tasks-by-digest --json\n\n\
        Every answer of the audit goes through the charts that a server keeps (docs/drift.md), from the first on. Of images\n\
        an audit holds nothing: size and brightness are in the server's own charts alone.")]
    Drift {
        /// The server's audit
        file: PathBuf,
        /// Folder of the plug-ins as SHA256.safetensors [default: `plugins` beside the audit, where a server keeps them]
        #[arg(long, value_name = "DIR")]
        plugins: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the last records
    #[command(after_help = "Examples:\n  melo audit show melo-serve/audit.sqlite --last 5\n  \
        melo audit show melo-serve/audit.sqlite --task chest --last 1000 --json")]
    Show {
        /// The server's audit
        file: PathBuf,
        /// Number of records
        #[arg(long, default_value_t = 20, value_name = "N")]
        last: u32,
        /// Only those of this task
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
        /// Print one JSON object a record
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Verify { files, expect_head, checkpoint, public_key, archive, json } => {
            let checkpoints = read_checkpoints(checkpoint, public_key)?;
            match (files.as_slice(), checkpoints.as_slice()) {
                ([file], []) => run_verify(file, archive, expect_head.as_ref(), *json),
                ([file], [(_, checkpoint)]) => run_verify(file, archive, Some(&checkpoint.anchor()), *json),
                _ if expect_head.is_some() || !archive.is_empty() => Err(Failure::Usage(
                    "--expect-head and --archive are of one audit: verify that one alone".to_owned(),
                )),
                _ => run_verify_replicas(files, &checkpoints, *json),
            }
        }
        Verb::Archive { file, before, out, checkpoint, public_key } => {
            run_archive(file, *before, out, signed(checkpoint.as_deref(), public_key.as_deref())?.as_ref())
        }
        Verb::Checkpoint { file, key, out } => run_checkpoint(file, key, out),
        Verb::Drift { file, plugins, json } => run_drift(file, plugins.as_deref(), *json),
        Verb::Show { file, last, task, json } => run_show(file, *last, task.as_deref(), *json),
    }
}

fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).ok_or_else(|| "expected a day such as 2027-01-31, or 2027-01-31T12:00:00Z".to_owned())
}

/// What a checkpoint says that the key signed.
fn signed(checkpoint: Option<&Path>, key: Option<&str>) -> Result<Option<Anchor>, Failure> {
    match (checkpoint, key) {
        (Some(path), Some(key)) => Ok(Some(Checkpoint::read(path, &public_key(key)?)?.anchor())),
        _ => Ok(None),
    }
}

/// Checkpoints, each signed by one of the keys.
fn read_checkpoints(files: &[PathBuf], keys: &[String]) -> Result<Vec<(PathBuf, Checkpoint)>, Failure> {
    let keys = keys.iter().map(|key| public_key(key)).collect::<Result<Vec<_>, _>>()?;
    let read = |path: &PathBuf| {
        let mut read = keys.iter().map(|key| Checkpoint::read(path, key));
        let first = read.next().ok_or_else(|| Failure::Usage("--checkpoint needs --public-key".to_owned()))?;
        let checkpoint = read.fold(first, |found, next| found.or(next));
        Ok((path.clone(), checkpoint?))
    };
    files.iter().map(read).collect()
}

/// What `melo audit verify --json` prints.
#[derive(Serialize)]
struct Verified<'a> {
    #[serde(serialize_with = "json_path")]
    audit: &'a Path,
    ok: bool,
    #[serde(flatten)]
    head: &'a Head,
    behind: &'a Option<Head>,
    broken: &'a Option<Broken>,
    replicas: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    archives: Vec<Verified<'a>>,
}

impl<'a> Verified<'a> {
    fn of((audit, report): &'a (PathBuf, Report)) -> Self {
        let Report { head, behind, broken, replicas } = report;
        Verified { audit, ok: broken.is_none(), head, behind, broken, replicas, archives: Vec::new() }
    }
}

fn run_verify(file: &Path, archives: &[PathBuf], anchor: Option<&Anchor>, json: bool) -> Result<(), Failure> {
    let reports = verify_together(file, archives, anchor)?;
    if json && let Some((last, before)) = reports.split_last() {
        let archives = before.iter().map(Verified::of).collect();
        say_json(&Verified { archives, ..Verified::of(last) })?;
    }
    for (file, report) in &reports {
        if let Some(broken) = &report.broken {
            return Err(Failure::Message(format!("{}: {broken}", file.display())));
        }
        if !json {
            say_whole(&file.display().to_string(), report);
        }
    }
    Ok(())
}

/// That an audit is whole.
fn say_whole(name: &str, Report { head, behind, .. }: &Report) {
    match behind {
        None => say(format_args!("{name}: {} records, whole", head.rows)),
        Some(behind) => {
            let (count, first) = (records_of(head, Some(behind)), behind.rows + 1);
            say(format_args!("{name}: {count} records, whole, from row {first} on"));
            say(format_args!("behind {behind}"));
        }
    }
    say(format_args!("head {head}"));
}

fn records_of(head: &Head, behind: Option<&Head>) -> i64 {
    head.rows - behind.map_or(0, |behind| behind.rows)
}

/// What `melo audit verify --json` prints of several.
#[derive(Serialize)]
struct VerifiedReplicas<'a> {
    ok: bool,
    records: i64,
    audits: Vec<Verified<'a>>,
}

/// A verdict a replica, and one in all.
fn run_verify_replicas(files: &[PathBuf], checkpoints: &[(PathBuf, Checkpoint)], json: bool) -> Result<(), Failure> {
    let reports = verify_replicas(files, checkpoints)?;
    let records = reports.iter().map(|(_, report)| records_of(&report.head, report.behind.as_ref())).sum();
    let broken: Vec<&PathBuf> =
        reports.iter().filter(|(_, report)| report.broken.is_some()).map(|(file, _)| file).collect();
    if json {
        say_json(&VerifiedReplicas {
            ok: broken.is_empty(),
            records,
            audits: reports.iter().map(Verified::of).collect(),
        })?;
    } else {
        for (file, report) in &reports {
            let replica = report.replicas.last().map_or(String::new(), |replica| format!("replica {replica}: "));
            let name = format!("{replica}{}", file.display());
            match &report.broken {
                None => say_whole(&name, report),
                Some(broken) => say(format_args!("{name}: {broken}")),
            }
        }
    }
    match broken.first() {
        None if json => {}
        None => say(format_args!("{} audits: {records} records, all whole", reports.len())),
        Some(first) => {
            let (count, all) = (broken.len(), reports.len());
            return Err(Failure::Message(format!(
                "{count} of {all} audits are broken, the first is {}",
                first.display()
            )));
        }
    }
    Ok(())
}

fn run_archive(file: &Path, before: i64, out: &Path, noted: Option<&Anchor>) -> Result<(), Failure> {
    check_output("--out", out, &[file])?;
    let Some(moved) = archive(file, before, out, noted)? else {
        say(format_args!("{}: no record is older than {}", file.display(), rfc3339(before)));
        return Ok(());
    };
    let (first, last) = (moved.first, &moved.last);
    say(format_args!("{}: rows {first} to {} moved, head {last}", out.display(), last.rows));
    say(format_args!("{}: from row {} on, head {}", file.display(), last.rows + 1, moved.head));
    Ok(())
}

fn run_checkpoint(file: &Path, key: &Path, out: &Path) -> Result<(), Failure> {
    check_output("--out", out, &[file, key])?;
    let key = SecretKey::read(key)?;
    let report = verify(file, None)?;
    if let Some(broken) = &report.broken {
        return Err(Failure::Message(format!("{}: {broken}", file.display())));
    }
    Checkpoint::now(report.head.clone(), report.replicas.last().cloned()).write(out, &key)?;
    say(format_args!("{}: {} records, signed by key {}", out.display(), report.head.rows, key.public().id()));
    Ok(())
}

fn run_drift(file: &Path, plugins: Option<&Path>, json: bool) -> Result<(), Failure> {
    let beside = file.with_file_name("plugins");
    let plugins = plugins.unwrap_or(&beside);
    let report = drift_of(file, plugins)?;
    if json {
        return say_json(&report);
    }
    for digest in &report.unknown {
        let short = digest.get(..12).unwrap_or(digest);
        note(format_args!("left out: answers of plug-in {short}, which is not in {}", plugins.display()));
    }
    if report.figures.is_empty() {
        say("no answer of a plug-in that is known");
    }
    for Drifted { row, alarms } in &report.figures {
        let DriftRow { task, version, figure, reference, reference_images, now, images, outside, .. } = row;
        let place = format!("{task}@{}: {figure}", version.get(..8).unwrap_or(version));
        let Some(reference) = reference else {
            say(format_args!("{place} {now:.4} of {images}: too few for a reference"));
            continue;
        };
        let state = if *outside { "OUTSIDE" } else { "inside" };
        say(format_args!("{place} {now:.4} after {images}, was {reference:.4} of {reference_images}: {state}"));
        for alarm in alarms {
            say(format_args!("    outside from row {}, {}", alarm.n, rfc3339(alarm.time_ms)));
        }
    }
    Ok(())
}

fn run_show(file: &Path, last: u32, task: Option<&str>, json: bool) -> Result<(), Failure> {
    for entry in entries(file, last, task)? {
        match json {
            true => say_json(&entry)?,
            false => say(line(&entry)),
        }
    }
    Ok(())
}

/// A record as a line for people; what callers chose is shown without control characters.
fn line(entry: &Entry) -> String {
    let record = &entry.record;
    let input = record.sop_instance_uid.as_ref().or(record.input_digest.as_ref()).map_or("-", |text| text);
    let plugin = record.plugin_digest.as_deref().unwrap_or("-");
    let about = match record.task.as_str() {
        "" => String::new(),
        task => format!(": {input} -> {task}@{}", plugin.get(..8).unwrap_or(plugin)),
    };
    let (time, who) = (rfc3339(entry.time_ms), &record.who);
    let text = format!("{:>6} {time} {} {} by {who}{about} {}", entry.n, record.via, record.action, record.output);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
