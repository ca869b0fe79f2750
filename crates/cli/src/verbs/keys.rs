//! `melo keys`: who may ask a server.

use crate::{Failure, json_path, note, say, say_json};
use melo::serve::{Key, KeyFile, NewKey, Scope};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a key and print it, once: the file keeps only its digest
    #[command(after_help = "Examples:\n  melo keys add ris --file keys.toml\n  \
        melo keys add ml-ops --scope admin --expires 2027-01-31 --file keys.toml\n  \
        melo keys add research --per-minute 60 --file keys.toml\n  \
        melo serve --keys keys.toml --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem\n  \
        curl -H \"Authorization: Bearer $KEY\" https://melo.hospital.example:8443/v1/tasks\n\n\
        A server that runs takes changes over within a second or two.")]
    Add {
        /// Who gets it; this is what the audit says
        name: String,
        /// What it allows; `admin` may also ask
        #[arg(long = "scope", value_enum, default_value = "predict", value_name = "SCOPE")]
        scopes: Vec<ScopeArg>,
        /// From when on it is refused: a day, or a time in UTC such as 2027-01-31T12:00:00Z
        #[arg(long, value_name = "DATE")]
        expires: Option<String>,
        /// Requests that it may send in a minute, of whatever kind [default: as many as the server can]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        per_minute: Option<u32>,
        /// The server's key file
        #[arg(long, env = "MELO_SERVE_KEYS", value_name = "FILE")]
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List names, scopes and dates
    List {
        /// The server's key file
        #[arg(long, env = "MELO_SERVE_KEYS", value_name = "FILE")]
        file: PathBuf,
        /// Print one JSON object a key
        #[arg(long)]
        json: bool,
    },
    /// Let a key be refused from now on
    Remove {
        /// Who had it
        name: String,
        /// The server's key file
        #[arg(long, env = "MELO_SERVE_KEYS", value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum ScopeArg {
    /// Ask for answers, list tasks, read metrics
    Predict,
    /// Change which plug-ins are served
    Admin,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Predict => Scope::Predict,
            ScopeArg::Admin => Scope::Admin,
        }
    }
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Add { name, scopes, expires, per_minute, file, json } => {
            let mut known = KeyFile::read_or_new(file)?;
            let scopes: Vec<Scope> = scopes.iter().map(|&scope| scope.into()).collect();
            let mut new = NewKey::new(name, &scopes, expires.as_deref())?;
            new.key.per_minute = *per_minute;
            known.add(&new)?;
            known.write(file)?;
            match json {
                true => say_json(&Added { key: &new.secret, name, scopes: &scopes, file })?,
                false => {
                    say(&new.secret);
                    note(format_args!("this key stands nowhere else: keep it safe; {} has its digest", file.display()));
                }
            }
        }
        Verb::List { file, json } => {
            for key in KeyFile::read(file)?.keys {
                match json {
                    true => say_json(&Listed::from(&key))?,
                    false => say(line(&key)),
                }
            }
        }
        Verb::Remove { name, file } => {
            let mut known = KeyFile::read(file)?;
            known.remove(name)?;
            known.write(file)?;
        }
    }
    Ok(())
}

/// What `melo keys add --json` prints.
#[derive(Serialize)]
struct Added<'a> {
    key: &'a str,
    name: &'a str,
    scopes: &'a [Scope],
    #[serde(serialize_with = "json_path")]
    file: &'a Path,
}

/// What `melo keys list --json` prints.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    scopes: &'a [Scope],
    created: &'a str,
    expires: Option<&'a str>,
    per_minute: Option<u32>,
    expired: bool,
}

impl<'a> From<&'a Key> for Listed<'a> {
    fn from(key: &'a Key) -> Self {
        Listed {
            name: &key.name,
            scopes: &key.scopes,
            created: &key.created,
            expires: key.expires.as_deref(),
            per_minute: key.per_minute,
            expired: key.is_expired(),
        }
    }
}

fn line(key: &Key) -> String {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
    let until = match (&key.expires, key.is_expired()) {
        (Some(day), true) => format!(", expired {day}"),
        (Some(day), false) => format!(", until {day}"),
        (None, _) => String::new(),
    };
    let rate = key.per_minute.map_or_else(String::new, |rate| format!(", {rate} requests a minute"));
    format!("{}: {}{rate}, made {}{until}", key.name, scopes.join(", "), key.created)
}
