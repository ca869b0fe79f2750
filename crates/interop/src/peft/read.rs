//! From a folder of PEFT's to updates and a classifier.

use super::config::PeftConfig;
use super::unnamed::unnamed;
use super::{CARD, CONFIG, PICKLED, PREFIX, TENSORS};
use crate::classifier;
use crate::error::Error;
use crate::layout::{CLASSIFIERS, Site, has_module, paths_of, site_of};
use crate::torch_file::TorchFile;
use crate::updates::{Update, Updates, divisor};
use melo_vit::{Head, Target, TaskCard, TensorFile, TensorSource, VitConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a folder holds.
pub(crate) struct Read {
    pub(crate) updates: Updates,
    pub(crate) rslora: bool,
    pub(crate) head: Option<Head>,
    pub(crate) notes: Vec<String>,
    /// The model that the adapter was made for, where its settings say it.
    pub(crate) base_model: Option<String>,
}

const Q_K_V: [Target; 3] = [Target::Q, Target::K, Target::V];

/// Reads a folder; `card` is the one that was written with it, where there is one.
///
/// # Errors
/// Every setting and tensor that a plug-in cannot carry, and every one that is missing, by its name.
pub(crate) fn read(folder: &Path, card: Option<&TaskCard>, vit: &VitConfig) -> Result<Read, Error> {
    let config = PeftConfig::read(&folder.join(CONFIG))?;
    let [path, pickled] = [TENSORS, PICKLED].map(|name| folder.join(name));
    match !path.exists() && pickled.exists() {
        true => read_from(&unnamed(&TorchFile::open(&pickled, None)?)?, &config, card, vit),
        false => read_from(&unnamed(&TensorFile::open(&path)?)?, &config, card, vit),
    }
}

fn read_from(
    file: &dyn TensorSource,
    config: &PeftConfig,
    card: Option<&TaskCard>,
    vit: &VitConfig,
) -> Result<Read, Error> {
    let (path, shapes) = (file.path().to_owned(), file.shapes()?);
    let modules = modules(&path, &shapes, config, vit)?;
    let mut updates = Updates::new();
    for (&(block, site), module) in &modules {
        let update = read_update(file, &shapes, module, config, (site, vit))?;
        match site {
            Site::One(target) => insert(&path, &mut updates, (block, target), update, module)?,
            Site::Qkv => {
                for (target, update) in split(update, config.rslora, card, vit) {
                    insert(&path, &mut updates, (block, target), update, module)?;
                }
            }
        }
    }
    let mut notes = require_all(&path, &modules, config, vit)?;
    let unmet = config.unmet(modules.values());
    if !unmet.is_empty() {
        notes.push(format!("target_modules names {}, of which the file has no tensor", unmet.join(", ")));
    }
    let head = read_head(file, &shapes, config, vit)?;
    Ok(Read { updates, rslora: config.rslora, head, notes, base_model: config.base_model.clone() })
}

/// The classifier, the only one in the file; `None` where there is none and none was to be saved.
fn read_head(
    file: &dyn TensorSource,
    shapes: &BTreeMap<String, Vec<usize>>,
    config: &PeftConfig,
    vit: &VitConfig,
) -> Result<Option<Head>, Error> {
    let is_there =
        |path: &&&str| ["weight", "bias"].iter().any(|end| shapes.contains_key(&format!("{PREFIX}{path}.{end}")));
    let there: Vec<&str> = CLASSIFIERS.iter().filter(is_there).copied().collect();
    let asked: Vec<&str> =
        config.modules_to_save.iter().map(String::as_str).filter(|n| CLASSIFIERS.contains(n)).collect();
    let path = || file.path().to_owned();
    // PEFT passes over names that the model does not have, as `score` beside `classifier`.
    let is_other = |name: &&String| !CLASSIFIERS.contains(&name.as_str()) && has_module(vit, name);
    if let Some(module) = config.modules_to_save.iter().find(is_other) {
        let (path, module, setting) = (path(), module.clone(), "modules_to_save".to_owned());
        return Err(Error::MissingModule { path, module, setting });
    }
    if let Some(missing) = there.iter().chain(&asked).find(|p| !shapes.contains_key(&format!("{PREFIX}{p}.weight"))) {
        return Err(melo_vit::Error::MissingTensor { path: path(), name: format!("{PREFIX}{missing}.weight") }.into());
    }
    if !there.is_empty() && !classifier::belong_together(&there) {
        let (name, hint) = (
            format!("{PREFIX}{}.weight", there[there.len() - 1]),
            format!("classifiers of several models: {}", there.join(", ")),
        );
        return Err(melo_vit::Error::UnexpectedTensor { path: path(), name, hint }.into());
    }
    classifier::read(file, shapes, PREFIX, vit)
}

/// The card beside the adapter, where melo wrote one.
pub(crate) fn card_path(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(CARD)).filter(|path| path.is_file())
}

/// Paths by block and site; every tensor is one of theirs, or of the classifier.
fn modules(
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    config: &PeftConfig,
    vit: &VitConfig,
) -> Result<BTreeMap<(usize, Site), String>, Error> {
    let mut modules = BTreeMap::new();
    for name in shapes.keys() {
        let refuse =
            |reason: &str| Error::Module { path: path.to_owned(), name: name.clone(), reason: reason.to_owned() };
        let Some(inner) = name.strip_prefix(PREFIX) else {
            return Err(refuse("PEFT's names begin with `base_model.model.`"));
        };
        let side = [".lora_A.weight", ".lora_B.weight"].iter().find_map(|side| inner.strip_suffix(side));
        let Some(module) = side else {
            let of_classifier = CLASSIFIERS
                .iter()
                .any(|head| inner.strip_prefix(head).is_some_and(|rest| rest == ".weight" || rest == ".bias"));
            if of_classifier {
                continue;
            }
            return Err(refuse(what_it_is(inner)));
        };
        if CLASSIFIERS.contains(&module) {
            return Err(refuse(
                "a low-rank update of the classifier, whose own weights are not in the file; train it whole (modules_to_save)",
            ));
        }
        let Some((block, site)) = site_of(module) else {
            return Err(refuse(
                "only projections of the blocks can be adapted: query, key, value, attention output, both MLP layers",
            ));
        };
        if block >= vit.depth {
            return Err(refuse(&format!("the backbone has {} blocks", vit.depth)));
        }
        if config.asks_for(module) == Some(false) {
            return Err(refuse("target_modules and layers_to_transform do not ask for this module"));
        }
        let other = modules.insert((block, site), module.to_owned());
        if other.is_some_and(|other| other != module) {
            return Err(refuse("the same projection is adapted under another name too"));
        }
    }
    Ok(modules)
}

/// Why a tensor that is no low-rank matrix of a weight cannot be taken.
fn what_it_is(name: &str) -> &'static str {
    let part = |part: &str| name.split('.').any(|found| found == part);
    if part("lora_magnitude_vector") {
        "DoRA's magnitudes, which no low-rank update can say"
    } else if part("lora_embedding_A") || part("lora_embedding_B") {
        "an update of an embedding; only projections of the blocks can be adapted"
    } else if name.ends_with(".lora_B.bias") {
        "a bias of an update, which a plug-in does not have"
    } else if part("lora_A") || part("lora_B") {
        "not a matrix of one unnamed adapter"
    } else {
        "weights of the frozen backbone, or of a module that a plug-in does not have, were trained as a whole"
    }
}

fn read_update(
    file: &dyn TensorSource,
    shapes: &BTreeMap<String, Vec<usize>>,
    module: &str,
    config: &PeftConfig,
    (site, vit): (Site, &VitConfig),
) -> Result<Update, Error> {
    let (rank, alpha) = config.settings_of(module);
    let (input, out) = site.features(vit);
    let name = |side: &str| format!("{PREFIX}{module}.lora_{side}.weight");
    // Query, key and value at once may have the rank of all three.
    let most = if site == Site::Qkv { 3 * vit.width } else { vit.width };
    if rank > most {
        let found = shapes.get(&name("A")).cloned().unwrap_or_default();
        return Err(melo_vit::Error::Lora(format!(
            "{}: rank {rank} of `{module}` (shape {found:?}) exceeds {most}",
            config.path().display(),
        ))
        .into());
    }
    let (a, b) = (file.read(&name("A"), &[rank, input])?, file.read(&name("B"), &[out, rank])?);
    Ok(Update { rank, alpha, a, b })
}

fn insert(path: &Path, updates: &mut Updates, key: (usize, Target), update: Update, module: &str) -> Result<(), Error> {
    match updates.insert(key, update) {
        None => Ok(()),
        Some(_) => Err(Error::Module {
            path: path.to_owned(),
            name: format!("{PREFIX}{module}.lora_A.weight"),
            reason: format!("{} of block {} is adapted twice, alone and within q, k and v", key.1, key.0),
        }),
    }
}

/// An update of q, k and v at once as updates of each: `B` in thirds, `A` the same for all; or, where every column of `B`
/// belongs to one of some targets in turn, as [`super::write`] makes it, each target with its own rows of `A`.
fn split(update: Update, rslora: bool, card: Option<&TaskCard>, vit: &VitConfig) -> Vec<(Target, Update)> {
    let Update { rank, alpha, a, b } = &update;
    let (d, rank) = (vit.width, *rank);
    let thirds: Vec<&[f32]> = b.chunks_exact(d * rank).collect();
    let third = |target: Target| thirds[target as usize];
    let is_zero = |target: Target, columns: std::ops::Range<usize>| {
        third(target).chunks_exact(rank).all(|row| row[columns.clone()].iter().all(|&x| x == 0.0))
    };
    let is_own = |targets: &[Target]| {
        let share = rank / targets.len();
        rank.is_multiple_of(targets.len())
            && Q_K_V.iter().all(|&target| match targets.iter().position(|&t| t == target) {
                None => is_zero(target, 0..rank),
                Some(i) => is_zero(target, 0..i * share) && is_zero(target, (i + 1) * share..rank),
            })
    };
    let said: Option<Vec<Target>> =
        card.map(|card| Q_K_V.into_iter().filter(|target| card.lora.targets.contains(target)).collect());
    let orders: [&[Target]; 6] = [
        &[Target::Q, Target::V],
        &[Target::Q],
        &[Target::K],
        &[Target::V],
        &[Target::Q, Target::K],
        &[Target::K, Target::V],
    ];
    let trained = b.iter().any(|&x| x != 0.0);
    let found = said.as_deref().into_iter().filter(|targets| !targets.is_empty());
    let all: &[Target] = &Q_K_V;
    let found = found.chain(orders.into_iter().filter(|_| trained)).chain((trained && rank >= 3).then_some(all));
    let Some(targets) = found.into_iter().find(|targets| is_own(targets)) else {
        let whole = |target: Target| (target, Update { rank, alpha: *alpha, a: a.clone(), b: third(target).to_vec() });
        return Q_K_V.map(whole).into();
    };
    let share = rank / targets.len();
    let own = |(index, &target): (usize, &Target)| {
        let columns = index * share..(index + 1) * share;
        let b = third(target).chunks_exact(rank).flat_map(|row| &row[columns.clone()]).copied().collect();
        // alpha / r stays what it is.
        let alpha = alpha / divisor(targets.len() as f64, rslora);
        (target, Update { rank: share, alpha, a: a[columns.start * d..columns.end * d].to_vec(), b })
    };
    targets.iter().enumerate().map(own).collect()
}

/// Refuses a folder without tensors for a module that its settings ask for; notes where that cannot be told.
fn require_all(
    path: &Path,
    modules: &BTreeMap<(usize, Site), String>,
    config: &PeftConfig,
    vit: &VitConfig,
) -> Result<Vec<String>, Error> {
    let Some(first) = modules.values().next() else {
        return Err(Error::MissingModule {
            path: path.to_owned(),
            module: "any".to_owned(),
            setting: "target_modules".to_owned(),
        });
    };
    if config.asks_for(first).is_none() {
        return Ok(vec![
            "target_modules does not say which modules there must be: taken are those in the file".to_owned(),
        ]);
    }
    // Only paths of the model that the file is of: the settings may match other models' names of the same module too.
    let roots: BTreeSet<&str> = modules.values().map(|module| root(module)).collect();
    for (block, site) in (0..vit.depth).flat_map(|block| Site::ALL.map(|site| (block, site))) {
        let paths = paths_of(block, site);
        let mut own = paths.iter().flat_map(|path| roots.iter().filter_map(|root| under(root, path)));
        if let Some(module) = own.find(|path| config.asks_for(path) == Some(true))
            && !modules.contains_key(&(block, site))
        {
            let setting = "target_modules".to_owned();
            return Err(Error::MissingModule { path: path.to_owned(), module, setting });
        }
    }
    Ok(Vec::new())
}

/// A path up to its block's number: `vit.encoder.layer`.
fn root(module: &str) -> &str {
    let digits = module.split('.').find(|part| part.parse::<usize>().is_ok());
    digits.and_then(|digits| module.split_once(&format!(".{digits}."))).map_or(module, |(root, _)| root)
}

/// The path under another root, where both are the same but for what stands in front (`vit.` and `deit.`).
fn under(other: &str, path: &str) -> Option<String> {
    let own = root(path);
    let inner = own.split_once('.').map_or(own, |(_, inner)| inner);
    let same = own == other || own != inner && (other == inner || other.ends_with(&format!(".{inner}")));
    same.then(|| format!("{other}{}", &path[own.len()..]))
}
