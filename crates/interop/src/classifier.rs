//! Classifiers of others: one a token, where ours is one on all tokens side by side.

use crate::error::Error;
use crate::layout::{Layout, two_classifiers};
use melo_vit::{Head, TensorFile, TensorSource, VitConfig};
use std::collections::BTreeMap;
use std::path::Path;

/// The paths that belong together.
const KNOWN: [&[&str]; 5] =
    [&["head", "head_dist"], &["head"], &["classifier"], &["cls_classifier", "distillation_classifier"], &["fc"]];

/// True for all the paths of one model's classifier.
pub(crate) fn belong_together(paths: &[&str]) -> bool {
    KNOWN.contains(&paths)
}

/// The classifier in a file whose names stand behind `prefix`; `None` where there is none.
///
/// # Errors
/// [`melo_vit::Error`] for one that does not fit the backbone's feature.
pub(crate) fn read(
    file: &dyn TensorSource,
    shapes: &BTreeMap<String, Vec<usize>>,
    prefix: &str,
    vit: &VitConfig,
) -> Result<Option<Head>, Error> {
    let has = |path: &&&str| shapes.contains_key(&format!("{prefix}{path}.weight"));
    let Some(paths) = KNOWN.iter().find(|paths| paths.iter().all(|path| has(&path))) else {
        return Ok(None);
    };
    let width = if paths.len() == 2 { vit.width } else { vit.feature_width() };
    let heads = paths.iter().map(|path| {
        let name = format!("{prefix}{path}");
        let classes = shapes[&format!("{name}.weight")].first().copied().unwrap_or(0);
        let weight = file.read(&format!("{name}.weight"), &[classes, width])?;
        Ok(Head { weight, bias: file.read(&format!("{name}.bias"), &[classes])?, decoder: None })
    });
    let heads: Vec<Head> = heads.collect::<Result<_, Error>>()?;
    match heads.as_slice() {
        [head] => Ok(Some(head.clone())),
        [cls, dist] if two_classifiers(vit) && cls.rows() == dist.rows() => Ok(Some(join(cls, dist, vit.width))),
        _ => Err(Error::File(melo_vit::Error::Shape {
            path: file.path().to_owned(),
            name: format!("{prefix}{}.weight", paths[1]),
            expected: vec![heads[0].rows(), vit.feature_width() - vit.width],
            found: vec![heads[1].rows(), vit.width],
        })),
    }
}

/// The classifier in a file of its own.
///
/// # Errors
/// [`Error::NoHead`], and as [`read`].
pub(crate) fn read_file(path: &Path, vit: &VitConfig) -> Result<Head, Error> {
    let file = TensorFile::open(path)?;
    let shapes = file.shapes()?;
    match read(&file, &shapes, "", vit)? {
        Some(head) => Ok(head),
        None => crate::authors::read_head(&file, &shapes, vit)?.ok_or(Error::NoHead { path: path.to_owned() }),
    }
}

/// The mean of two classifiers, one a token, as one on both tokens side by side.
fn join(cls: &Head, dist: &Head, d: usize) -> Head {
    let rows = cls.weight.chunks_exact(d).zip(dist.weight.chunks_exact(d));
    Head {
        weight: rows.flat_map(|(a, b)| a.iter().chain(b)).map(|w| 0.5 * w).collect(),
        bias: cls.bias.iter().zip(&dist.bias).map(|(a, b)| 0.5 * (a + b)).collect(),
        decoder: None,
    }
}

/// A classifier as the tensors of a layout: name without `prefix`, shape, values. Doubling is exact.
pub(crate) fn tensors(head: &Head, layout: Layout, vit: &VitConfig) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let paths = layout.classifiers(vit);
    let (classes, d) = (head.rows(), vit.width);
    let width = vit.feature_width() / paths.len();
    let named = paths.iter().enumerate().flat_map(|(index, path)| {
        let share = |row: &[f32]| row[index * d..index * d + width].to_vec();
        let mut weight: Vec<f32> = head.weight.chunks_exact(vit.feature_width()).flat_map(share).collect();
        weight.iter_mut().for_each(|w| *w *= paths.len() as f32);
        [
            (format!("{path}.weight"), vec![classes, width], weight),
            (format!("{path}.bias"), vec![classes], head.bias.clone()),
        ]
    });
    named.collect()
}
