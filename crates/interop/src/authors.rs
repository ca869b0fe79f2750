//! The files of the paper's authors (arXiv 2311.08236): `w_a_{i:03} [r, d]`, `w_b_{i:03} [d, r]` with `i = 2·block` for the
//! query and `2·block + 1` for the value, and `fc_{in}in_{out}out [out, in]`; UniCAD's have `fc_…_weight` and `fc_…_bias`.

use crate::error::Error;
use crate::updates::{Update, Updates};
use melo_vit::{Head, Plugin, Storage, Target, TensorFile, VitConfig, write_tensors};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Which of the two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorsFormat {
    /// The paper's: a classifier without a bias.
    Melo,
    /// UniCAD's: a classifier with a bias.
    UniCad,
}

const TARGETS: [Target; 2] = [Target::Q, Target::V];

/// True for the names of such a file.
pub(crate) fn is_one(shapes: &BTreeMap<String, Vec<usize>>) -> bool {
    shapes.keys().any(|name| name.starts_with("w_a_") || name.starts_with("w_b_"))
}

/// Updates and classifier of a file.
///
/// # Errors
/// [`melo_vit::Error`] for tensors that are missing, surplus or wrongly shaped.
pub(crate) fn read(path: &Path, alpha: f32, vit: &VitConfig) -> Result<(Updates, Option<Head>), Error> {
    let file = TensorFile::open(path)?;
    let shapes = file.shapes()?;
    let head = read_head(&file, &shapes, vit)?;
    let mut updates = Updates::new();
    for index in 0..2 * vit.depth {
        let (a, b) = (format!("w_a_{index:03}"), format!("w_b_{index:03}"));
        let rank = match shapes.get(&a).map(Vec::as_slice) {
            Some(&[rank, _]) => rank.clamp(1, vit.width),
            _ => 1,
        };
        let update = Update {
            rank,
            alpha: f64::from(alpha),
            a: file.read(&a, &[rank, vit.width])?,
            b: file.read(&b, &[vit.width, rank])?,
        };
        updates.insert((index / 2, TARGETS[index % 2]), update);
    }
    let known = |name: &str| {
        (0..2 * vit.depth).any(|i| name == format!("w_a_{i:03}") || name == format!("w_b_{i:03}"))
            || classifier_name(name).is_some()
    };
    match shapes.keys().find(|name| !known(name)) {
        Some(name) => Err(unexpected(path, name, format!("expected pairs for q and v of {} blocks", vit.depth))),
        None => Ok((updates, head)),
    }
}

fn unexpected(path: &Path, name: &str, hint: String) -> Error {
    melo_vit::Error::UnexpectedTensor { path: path.to_owned(), name: name.to_owned(), hint }.into()
}

/// `(in, out, which)` of a classifier's name.
fn classifier_name(name: &str) -> Option<(usize, usize, &str)> {
    let (input, rest) = name.strip_prefix("fc_")?.split_once("in_")?;
    let (out, which) = rest.split_once("out")?;
    let which = Some(which).filter(|which| ["", "_weight", "_bias"].contains(which))?;
    Some((input.parse().ok()?, out.parse().ok()?, which))
}

/// The classifier of a file, `None` where it has none; without a bias in the file it is zero.
///
/// # Errors
/// [`melo_vit::Error`] for a second classifier, and for one that does not fit the backbone or its own name.
pub(crate) fn read_head(
    file: &TensorFile,
    shapes: &BTreeMap<String, Vec<usize>>,
    vit: &VitConfig,
) -> Result<Option<Head>, Error> {
    let mut weights = shapes.keys().filter(|name| classifier_name(name).is_some_and(|(.., which)| which != "_bias"));
    let Some(name) = weights.next() else {
        return match shapes.keys().find(|name| classifier_name(name).is_some()) {
            Some(bias) => Err(unexpected(file.path(), bias, "a bias without its weight".to_owned())),
            None => Ok(None),
        };
    };
    if let Some(second) = weights.next() {
        return Err(unexpected(file.path(), second, format!("a second classifier beside `{name}`")));
    }
    let Some((_, classes, which)) = classifier_name(name) else { return Ok(None) };
    let width = vit.feature_width();
    // Read first: a file that names a million classes has to hold them.
    let weight = file.read(name, &[classes, width])?;
    let bias_name = name.replace("_weight", "_bias");
    let bias = if which == "_weight" { file.read(&bias_name, &[classes])? } else { vec![0.0; classes] };
    let others = shapes.keys().find(|other| {
        classifier_name(other).is_some() && *other != name && !(which == "_weight" && **other == bias_name)
    });
    match others {
        Some(other) => Err(unexpected(file.path(), other, format!("it does not belong to `{name}`"))),
        None => Ok(Some(Head { weight, bias, decoder: None })),
    }
}

/// Writes a plug-in as such a file, atomically; returns what the file cannot say and has to be known.
///
/// # Errors
/// [`Error::Unwritable`] that names what the format cannot hold, [`Error::AuthorsBias`], [`melo_vit::Error::Io`].
pub fn write_authors(
    path: &Path,
    plugin: &Plugin,
    vit: &VitConfig,
    format: AuthorsFormat,
) -> Result<Vec<String>, Error> {
    plugin.refuse_bags()?;
    plugin.refuse_volumes()?;
    plugin.refuse_ensembles()?;
    let refuse = |what: String| Err(Error::Unwritable { format: "a file of the paper's authors", what });
    let lora = &plugin.adapter.config;
    if plugin.adapter.bottlenecks.first_block().is_some() {
        return refuse("bottlenecks, only low-rank updates".to_owned());
    }
    if lora.rank == 0 || lora.targets != TARGETS || lora.blocks.len() != vit.depth {
        let targets: Vec<String> = lora.targets.iter().map(ToString::to_string).collect();
        return refuse(format!(
            "updates of {} in blocks {:?}, only of q and v in every block",
            targets.join(" "),
            lora.blocks
        ));
    }
    if !lora.rank_pattern.is_empty() {
        return refuse(format!("ranks that differ between blocks ({:?} beside {})", lora.rank_pattern, lora.rank));
    }
    let head = &plugin.head;
    if format == AuthorsFormat::Melo && head.bias.iter().any(|&bias| bias != 0.0) {
        return Err(Error::AuthorsBias);
    }
    let (d, rank, width, classes) = (vit.width, lora.rank, vit.feature_width(), head.rows());
    let pairs =
        plugin.adapter.blocks.iter().flat_map(|block| TARGETS.iter().filter_map(|&t| block[t as usize].as_ref()));
    let mut tensors = Vec::new();
    for (index, pair) in pairs.enumerate() {
        tensors.push((format!("w_a_{index:03}"), vec![rank, d], pair.a.as_slice()));
        tensors.push((format!("w_b_{index:03}"), vec![d, rank], pair.b.as_slice()));
    }
    let name = format!("fc_{width}in_{classes}out");
    match format {
        AuthorsFormat::Melo => tensors.push((name, vec![classes, width], &head.weight)),
        AuthorsFormat::UniCad => {
            tensors.push((format!("{name}_weight"), vec![classes, width], &head.weight));
            tensors.push((format!("{name}_bias"), vec![classes], &head.bias));
        }
    }
    write_tensors(path, &tensors, HashMap::new(), Storage::F32)?;
    let alpha = if lora.rslora { lora.alpha * (rank as f32).sqrt() } else { lora.alpha };
    let mut notes = vec![format!("the file does not say alpha: it is {alpha}, to be given where it is read")];
    if (alpha / rank as f32).fract() != 0.0 {
        notes.push(format!(
            "the authors' code rounds alpha / r = {alpha} / {rank} down to {}, and so computes something else",
            (alpha / rank as f32).floor()
        ));
    }
    notes.push("the file holds no card: class names, preprocessing, temperature and thresholds stay behind".to_owned());
    Ok(notes)
}
