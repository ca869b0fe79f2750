//! A checkpoint of another dialect seen through timm's names: parts stacked, vectors in timm's shapes, the rest refused.

use crate::names::{Dialect, Lacking, Part, Place};
use melo_vit::{Error, TensorSource};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The tensors of `inner` under timm's names, without the classifier.
pub(crate) struct Renamed<'a> {
    inner: &'a dyn TensorSource,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone)]
struct Tensor {
    /// Shape in timm's checkpoints.
    shape: Vec<usize>,
    /// Names and shapes of the parts, in order; a part without a name is zeros.
    parts: Vec<(String, Vec<usize>)>,
    /// Which of their rows it is, where not all.
    rows: Option<Range<usize>>,
    /// What all of it is multiplied by, and what is added to it then.
    mask: Option<(String, Vec<usize>)>,
    more: Option<(String, Vec<usize>)>,
}

/// The classifier's tensors, which are not part of the frozen backbone.
pub(crate) struct Classifier {
    /// Name and shape in the file by timm's name.
    pub(crate) head: BTreeMap<String, (String, Vec<usize>)>,
}

/// Tensors that timm stores with axes of length one in front.
const THREE_AXES: [&str; 4] = ["cls_token", "dist_token", "reg_token", "pos_embed"];

impl<'a> Renamed<'a> {
    /// Looks every tensor up in the dialect's tables.
    ///
    /// # Errors
    /// [`Error::UnexpectedTensor`] for a name without a place, [`Error::MissingTensor`] for a part without its others,
    /// [`Error::Shape`] for parts that do not fit.
    pub(crate) fn new(inner: &'a dyn TensorSource, dialect: &Dialect) -> Result<(Self, Classifier), Error> {
        let mut places: BTreeMap<String, Vec<(Part, String, Vec<usize>)>> = BTreeMap::new();
        let mut head = BTreeMap::new();
        let mut masks = BTreeMap::new();
        let mut shared = None;
        for (name, shape) in inner.shapes()? {
            if dialect.ignores(&name) {
                continue;
            }
            let Some(Place { name: timm, part }) = dialect.place(&name) else {
                let hint = format!("no part of a {} vision tower has this name", dialect.name);
                return Err(Error::UnexpectedTensor { path: inner.path().to_owned(), name, hint });
            };
            // Registers of which there are none.
            if timm == "reg_token" && shape.contains(&0) {
                continue;
            }
            // DINOv3's authors multiply the bias by what leaves out that of keys.
            if let Some(bias) = timm.strip_suffix("_mask").filter(|bias| bias.ends_with(".attn.qkv.bias")) {
                masks.insert(bias.to_owned(), (name, shape));
                continue;
            }
            if timm == SHARED_TABLE {
                shared = Some((name, shape));
                continue;
            }
            if timm.starts_with("head.") || timm.starts_with("head_dist.") {
                head.insert(timm, (name, shape));
            } else {
                places.entry(timm).or_default().push((part, name, shape));
            }
        }
        let mut tensors = BTreeMap::new();
        for (timm, mut parts) in places {
            add_lacking(dialect, &timm, &mut parts);
            parts.sort();
            let shape = stacked(inner.path(), dialect, &timm, &parts)?;
            let parts = parts.into_iter().map(|(_, name, shape)| (name, shape)).collect();
            let mask = masks.remove(&timm);
            tensors.insert(timm, Tensor { shape, parts, rows: None, mask, more: None });
        }
        for kind in ["weight", "bias"] {
            if let Some(fused) = tensors.remove(&format!("attn_pool.qkv.{kind}")) {
                let d = fused.shape.first().map_or(0, |rows| rows / 3);
                for (layer, rows) in [("q", 0..d), ("kv", d..3 * d)] {
                    let mut shape = fused.shape.clone();
                    if let Some(first) = shape.first_mut() {
                        *first = rows.len();
                    }
                    let share = Tensor { shape, rows: Some(rows), ..fused.clone() };
                    tensors.insert(format!("attn_pool.{layer}.{kind}"), share);
                }
            }
        }
        if let Some((name, _)) = masks.into_values().next() {
            let hint = "the bias that it belongs to is missing".to_owned();
            return Err(Error::UnexpectedTensor { path: inner.path().to_owned(), name, hint });
        }
        if let Some(shared) = shared {
            share_table(&mut tensors, &shared);
        }
        Ok((Renamed { inner, tensors }, Classifier { head }))
    }

    /// Leaves out a module, with all that is in it, that the feature does not depend on.
    pub(crate) fn forget(&mut self, module: &str) {
        let is_in = |name: &str| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
        self.tensors.retain(|name, _| !is_in(name));
    }
}

/// The one table of relative positions that all blocks use.
const SHARED_TABLE: &str = "rel_pos_bias.relative_position_bias_table";

/// Gives every block the table that they share, beside its own where it has one.
fn share_table(tensors: &mut BTreeMap<String, Tensor>, (name, shape): &(String, Vec<usize>)) {
    let blocks = (0..).take_while(|block| tensors.contains_key(&format!("blocks.{block}.attn.qkv.weight"))).count();
    for block in 0..blocks {
        let own = format!("blocks.{block}.attn.relative_position_bias_table");
        let shared = || (name.clone(), shape.clone());
        let table = tensors.entry(own).or_insert_with(|| Tensor {
            shape: shape.clone(),
            parts: vec![(String::new(), shape.clone())],
            rows: None,
            mask: None,
            more: None,
        });
        table.more = Some(shared());
    }
}

/// What stands for parts that the dialect may lack.
fn add_lacking(dialect: &Dialect, timm: &str, parts: &mut Vec<(Part, String, Vec<usize>)>) {
    let has = |wanted: Part| parts.iter().any(|(part, ..)| *part == wanted);
    let keyless = timm.ends_with(".attn.qkv.bias") && has(Part::Q) && has(Part::V) && !has(Part::K);
    if keyless && dialect.may_lack(Lacking::KeyBias) {
        parts.push((Part::K, String::new(), parts[0].2.clone()));
    } else if timm.contains(".mlp.fc1.") && parts.len() == 1 && has(Part::Up) && dialect.may_lack(Lacking::Gate) {
        parts[0].0 = Part::Whole;
    }
}

/// The shape of a tensor made of `parts`, sorted, in timm's form.
fn stacked(
    path: &Path,
    dialect: &Dialect,
    timm: &str,
    parts: &[(Part, String, Vec<usize>)],
) -> Result<Vec<usize>, Error> {
    let (first, name, shape) = &parts[0];
    let (_, count) = first.share();
    for index in 0..count.max(parts.len()) {
        let Some((part, found, found_shape)) = parts.get(index).filter(|(part, ..)| part.share() == (index, count))
        else {
            let part =
                [Part::Q, Part::K, Part::V, Part::Gate, Part::Up].into_iter().find(|p| p.share() == (index, count));
            let place = part.map(|part| Place { name: timm.to_owned(), part });
            return match place.and_then(|place| dialect.name_of(&place)) {
                Some(name) => Err(Error::MissingTensor { path: path.to_owned(), name }),
                None => {
                    let hint = format!("it and another tensor are both `{timm}`");
                    Err(Error::UnexpectedTensor { path: path.to_owned(), name: name.clone(), hint })
                }
            };
        };
        if found_shape != shape {
            let (path, name) = (path.to_owned(), found.clone());
            return Err(Error::Shape { path, name, expected: shape.clone(), found: found_shape.clone() });
        }
        debug_assert_eq!(part.share().1, count);
    }
    let mut shape = shape.clone();
    if let Some(rows) = shape.first_mut() {
        *rows = rows.saturating_mul(count);
    }
    if THREE_AXES.contains(&timm) {
        while shape.len() < 3 {
            shape.insert(0, 1);
        }
    }
    Ok(shape)
}

impl TensorSource for Renamed<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        Ok(self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect())
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, Error> {
        let path = || self.path().to_owned();
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::MissingTensor { path: path(), name: name.to_owned() });
        };
        if tensor.shape != expected {
            let (expected, found) = (expected.to_vec(), tensor.shape.clone());
            return Err(Error::Shape { path: path(), name: tensor.parts[0].0.clone(), expected, found });
        }
        let mut values = Vec::new();
        for (name, shape) in &tensor.parts {
            let part = match name.is_empty() {
                true => vec![0.0; shape.iter().product()],
                false => self.inner.read(name, shape)?,
            };
            if values.is_empty() { values = part } else { values.extend(part) }
        }
        if let Some(rows) = &tensor.rows {
            let width = expected.iter().product::<usize>() / rows.len().max(1);
            values = values[rows.start * width..rows.end * width].to_vec();
        }
        let beside = |(name, found): &(String, Vec<usize>)| {
            if found != expected {
                let (expected, found) = (expected.to_vec(), found.clone());
                return Err(Error::Shape { path: path(), name: name.clone(), expected, found });
            }
            self.inner.read(name, found)
        };
        if let Some(mask) = &tensor.mask {
            values.iter_mut().zip(beside(mask)?).for_each(|(x, mask)| *x *= mask);
        }
        if let Some(more) = &tensor.more {
            values.iter_mut().zip(beside(more)?).for_each(|(x, more)| *x += more);
        }
        Ok(values)
    }
}
