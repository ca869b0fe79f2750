//! `melo audit`: what a server answered, and whether the record of it is whole.

use super::plugin::public_key;
use super::task::check_output;
use crate::{Failure, json_path, say, say_json};
use melo::serve::{Anchor, Broken, Checkpoint, Entry, Head, entries, rfc3339, verify};
use melo::sign::SecretKey;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Check that no record was changed, removed or put in, and name the first that was
    #[command(after_help = "Examples:\n  melo audit verify melo-serve/audit.sqlite\n  \
        melo audit verify audit.sqlite --expect-head 9f86d08...@1200\n  \
        melo audit verify audit.sqlite --checkpoint /mnt/worm/melo.checkpoint --public-key audit.pub\n\n\
        The last hash is printed: noted elsewhere (the server's log has it, too), it shows later that the end was not\n\
        cut off and that not all was written anew. The server may be running.\n\
        Exit status 1 when the chain is broken. What it proves is said in docs/audit.md.")]
    Verify {
        /// The server's audit
        file: PathBuf,
        /// A last hash that was noted before, with the number of its row
        #[arg(long, value_name = "HASH[@N]")]
        expect_head: Option<Anchor>,
        /// A signed checkpoint of the server (`melo serve --audit-checkpoint`), from where it was kept
        #[arg(long, value_name = "FILE", requires = "public_key", conflicts_with = "expect_head")]
        checkpoint: Option<PathBuf>,
        /// The public key of who signed it: a file, or the line itself
        #[arg(long, value_name = "FILE|KEY", requires = "checkpoint")]
        public_key: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
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
        Verb::Verify { file, expect_head, checkpoint, public_key: key, json } => {
            let checkpoint = match (checkpoint, key) {
                (Some(path), Some(key)) => Some(Checkpoint::read(path, &public_key(key)?)?.anchor()),
                _ => None,
            };
            run_verify(file, expect_head.as_ref().or(checkpoint.as_ref()), *json)
        }
        Verb::Checkpoint { file, key, out } => run_checkpoint(file, key, out),
        Verb::Show { file, last, task, json } => run_show(file, *last, task.as_deref(), *json),
    }
}

/// What `melo audit verify --json` prints.
#[derive(Serialize)]
struct Verified<'a> {
    #[serde(serialize_with = "json_path")]
    audit: &'a Path,
    ok: bool,
    #[serde(flatten)]
    head: &'a Head,
    broken: &'a Option<Broken>,
}

fn run_verify(file: &Path, anchor: Option<&Anchor>, json: bool) -> Result<(), Failure> {
    let report = verify(file, anchor)?;
    if json {
        let ok = report.broken.is_none();
        say_json(&Verified { audit: file, ok, head: &report.head, broken: &report.broken })?;
    }
    match &report.broken {
        Some(broken) => Err(Failure::Message(format!("{}: {broken}", file.display()))),
        None => {
            if !json {
                say(format_args!("{}: {} records, whole", file.display(), report.head.rows));
                say(format_args!("head {}", report.head));
            }
            Ok(())
        }
    }
}

fn run_checkpoint(file: &Path, key: &Path, out: &Path) -> Result<(), Failure> {
    check_output("--out", out, &[file, key])?;
    let key = SecretKey::read(key)?;
    let report = verify(file, None)?;
    if let Some(broken) = &report.broken {
        return Err(Failure::Message(format!("{}: {broken}", file.display())));
    }
    Checkpoint::now(report.head.clone()).write(out, &key)?;
    say(format_args!("{}: {} records, signed by key {}", out.display(), report.head.rows, key.public().id()));
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
