//! `melo plugin keygen`, `sign` and `verify`: who stands behind a plug-in file.

use crate::{Failure, json_path, note, say, say_json};
use melo::sign::{PublicKey, SecretKey, Signature, Signer, TrustedKeys, beside, sha256};
use melo::vit::{PluginInfo, write_atomically};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Make a key that signs plug-ins and checkpoints of audits
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo plugin keygen lab.key\n\n\
    Writes lab.key, which signs and stays secret, and lab.pub, which others get. Both are files of minisign; keys that \
    `minisign -G -W` made are taken too.")]
pub(crate) struct KeygenArgs {
    /// File of the secret key; the public one is beside it and ends in .pub
    key: PathBuf,
}

/// Sign plug-ins: FILE.minisig beside each says who stands behind it
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  melo plugin sign wbc.safetensors --key lab.key\n  \
    melo plugin sign tasks/*.safetensors --key lab.key --comment 'approved by the AI board, 2026-11'\n\n\
    A signature is of the whole file: whatever changes the file, such as `recalibrate`, calls for a new one.\n\
    `minisign -S -m FILE` does the same with a key that has a password.")]
pub(crate) struct SignArgs {
    /// Plug-in files
    #[arg(required = true)]
    plugins: Vec<PathBuf>,
    /// The secret key, made by `melo plugin keygen`
    #[arg(long, env = "MELO_SIGN_KEY", value_name = "FILE")]
    key: PathBuf,
    /// A line that is signed with the file [default: its task and digest]
    #[arg(long)]
    comment: Option<String>,
}

/// Check who signed plug-ins
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  melo plugin verify wbc.safetensors --public-key lab.pub\n  \
    melo plugin verify tasks/*.safetensors --trusted-keys trusted.keys --json\n\n\
    The list of trusted keys has a key a line, as `melo plugin keygen` prints it, and a name; `revoked KEY REASON` and \
    `revoked SHA256 REASON` take back what a key signed, or a file. `melo serve --trusted-keys` takes the same list.\n\
    Exit status 1 where a file is not signed by a trusted key.")]
pub(crate) struct VerifyArgs {
    /// Plug-in files
    #[arg(required = true)]
    pub(super) plugins: Vec<PathBuf>,
    /// A public key: a file, or the line itself
    #[arg(long, value_name = "FILE|KEY", required_unless_present = "trusted_keys", conflicts_with = "trusted_keys")]
    public_key: Option<String>,
    /// List of trusted keys
    #[arg(long, env = "MELO_TRUSTED_KEYS", value_name = "FILE")]
    trusted_keys: Option<PathBuf>,
    /// Print one JSON object a file
    #[arg(long)]
    json: bool,
}

pub(super) fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let (secret, public) = (&args.key, with_pub(&args.key));
    for path in [secret, &public] {
        if path.exists() {
            return Err(Failure::Message(format!(
                "{}: is there already, and a key is never overwritten",
                path.display()
            )));
        }
    }
    let key = SecretKey::generate()?;
    key.write(secret)?;
    key.public().write(&public)?;
    say(key.public());
    note(format_args!(
        "{} is secret: whoever has it can sign as you; others get {}",
        secret.display(),
        public.display()
    ));
    Ok(())
}

fn with_pub(secret: &Path) -> PathBuf {
    secret.with_extension("pub")
}

pub(super) fn sign(args: &SignArgs) -> Result<(), Failure> {
    let key = SecretKey::read(&args.key)?;
    for plugin in &args.plugins {
        let path = sign_file(plugin, &key, args.comment.as_deref())?;
        say(format_args!("{}: signed by key {}", path.display(), key.public().id()));
    }
    Ok(())
}

/// Signs a plug-in file; where the signature is.
pub(crate) fn sign_file(plugin: &Path, key: &SecretKey, comment: Option<&str>) -> Result<PathBuf, Failure> {
    let info = PluginInfo::read(plugin)?;
    let bytes = std::fs::read(plugin).map_err(|error| Failure::Message(format!("{}: {error}", plugin.display())))?;
    let comment = comment.map_or_else(|| format!("task {} sha256 {}", info.card.task, info.digest), str::to_owned);
    if comment.contains(['\n', '\r']) {
        return Err(Failure::Usage("--comment is one line".to_owned()));
    }
    let path = beside(plugin);
    write_atomically(&path, Signature::new(&bytes, key, &comment).to_string().as_bytes())?;
    Ok(path)
}

/// What `melo plugin verify --json` prints.
#[derive(Serialize)]
struct Verified<'a> {
    #[serde(serialize_with = "json_path")]
    plugin: &'a Path,
    plugin_digest: &'a str,
    ok: bool,
    key: Option<String>,
    name: Option<&'a str>,
    comment: Option<&'a str>,
    reason: Option<&'a str>,
}

pub(super) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let trusted = trusted(args.public_key.as_deref(), args.trusted_keys.as_deref())?;
    let mut wrong = Vec::new();
    for plugin in &args.plugins {
        let bytes =
            std::fs::read(plugin).map_err(|error| Failure::Message(format!("{}: {error}", plugin.display())))?;
        let digest = sha256(&bytes);
        let found = signer(plugin, &bytes, &digest, &trusted)?;
        if args.json {
            let (signer, reason) = (found.as_ref().ok(), found.as_ref().err());
            say_json(&Verified {
                plugin,
                plugin_digest: &digest,
                ok: found.is_ok(),
                key: signer.map(|signer| signer.key.to_string()),
                name: signer.map(|signer| &*signer.name),
                comment: signer.map(|signer| &*signer.comment),
                reason: reason.map(|reason| &**reason),
            })?;
        }
        match found {
            Ok(signer) if !args.json => say(line(plugin, &signer)),
            Ok(_) => {}
            Err(reason) => wrong.push(format!("{}: {reason}", plugin.display())),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Message(wrong.join("\n"))) }
}

fn line(plugin: &Path, signer: &Signer) -> String {
    let name = if signer.name.is_empty() { String::new() } else { format!(", {}", signer.name) };
    format!("{}: signed by key {}{name}: {}", plugin.display(), signer.key, signer.comment)
}

/// Who signed a file, or why nobody who is trusted did.
fn signer(plugin: &Path, bytes: &[u8], digest: &str, trusted: &TrustedKeys) -> Result<Result<Signer, String>, Failure> {
    let path = beside(plugin);
    if !path.exists() {
        return Ok(Err(format!("it is not signed: there is no {}", path.display())));
    }
    let signature = Signature::read(&path)?;
    let found = trusted.check_file(digest).and_then(|()| trusted.signer(bytes, &signature));
    Ok(found.map_err(|untrusted| untrusted.to_string()))
}

/// Refuses a plug-in that nobody on a list signed.
pub(crate) fn check_signer(plugin: &Path, list: &Path) -> Result<(), Failure> {
    let bytes = std::fs::read(plugin).map_err(|error| Failure::Message(format!("{}: {error}", plugin.display())))?;
    let trusted = trusted(None, Some(list))?;
    signer(plugin, &bytes, &sha256(&bytes), &trusted)?.map(drop).map_err(Failure::Message)
}

/// The keys that a user names, alone or in a list.
pub(crate) fn trusted(key: Option<&str>, list: Option<&Path>) -> Result<TrustedKeys, Failure> {
    if let Some(path) = list {
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
        return text.parse().map_err(|reason| Failure::Message(format!("{}: {reason}", path.display())));
    }
    let Some(key) = key else { return Ok(TrustedKeys::default()) };
    Ok(TrustedKeys::of(public_key(key)?, String::new()))
}

/// A public key: the line itself, or a file.
pub(crate) fn public_key(key: &str) -> Result<PublicKey, Failure> {
    match key.parse() {
        Ok(key) => Ok(key),
        Err(_) => Ok(PublicKey::read(Path::new(key))?),
    }
}
