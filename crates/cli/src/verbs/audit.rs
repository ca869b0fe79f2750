//! `melo audit`: what a server answered, and whether the record of it is whole.

use crate::{Failure, json_path, say, say_json};
use melo::serve::{Anchor, Broken, Entry, Head, entries, rfc3339, verify};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Check that no record was changed, removed or put in, and name the first that was
    #[command(after_help = "Examples:\n  melo audit verify melo-serve/audit.sqlite\n  \
        melo audit verify audit.sqlite --expect-head 9f86d08...@1200\n\n\
        The last hash is printed: noted elsewhere (the server's log has it, too), it shows later that the end was not\n\
        cut off and that not all was written anew. The server may be running.\n\
        Exit status 1 when the chain is broken. What it proves is said in docs/audit.md.")]
    Verify {
        /// The server's audit
        file: PathBuf,
        /// A last hash that was noted before, with the number of its row
        #[arg(long, value_name = "HASH[@N]")]
        expect_head: Option<Anchor>,
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
        Verb::Verify { file, expect_head, json } => run_verify(file, expect_head.as_ref(), *json),
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
    let text = format!(
        "{:>6} {} {} {} by {}: {input} -> {}@{} {}",
        entry.n,
        rfc3339(entry.time_ms),
        record.via,
        record.action,
        record.who,
        record.task,
        plugin.get(..8).unwrap_or(plugin),
        record.output,
    );
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
