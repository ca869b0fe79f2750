//! What the labels are, where whoever reads a manifest says it.

use std::borrow::Cow;

use melo_vit::TaskKind;

use super::{Labels, Manifest};
use crate::{Error, ReadOptions};

/// Makes grades of classes where they are asked for, and refuses any other kind than the one that is asked for.
pub(super) fn take(manifest: &mut Manifest, options: &ReadOptions) -> Result<(), Error> {
    let asked = match options.kind {
        None if options.grades.is_empty() => return Ok(()),
        asked => asked.unwrap_or(TaskKind::Ordinal),
    };
    if asked != TaskKind::Ordinal && !options.grades.is_empty() {
        return Err(Error::GradesOfAnotherKind { path: manifest.path.clone() });
    }
    if asked == TaskKind::Ordinal && manifest.kind == TaskKind::SingleLabel {
        let grades = if options.grades.is_empty() { in_order(manifest)? } else { options.grades.clone() };
        let graded = manifest.with_classes(&grades)?;
        *manifest = Manifest { kind: TaskKind::Ordinal, ..graded };
    }
    match manifest.kind == asked {
        true => Ok(()),
        false => Err(Error::OtherKind { path: manifest.path.clone(), asked, found: manifest.kind }),
    }
}

/// The classes as grades by their numbers.
fn in_order(manifest: &Manifest) -> Result<Vec<String>, Error> {
    let number = |class: &String| class.trim().parse().ok().filter(|number: &f64| number.is_finite());
    let numbers: Option<Vec<(f64, &String)>> =
        manifest.classes.iter().map(|class| Some((number(class)?, class))).collect();
    let Some(mut numbers) = numbers else {
        return Err(Error::GradesWithoutOrder { path: manifest.path.clone(), classes: manifest.classes.clone() });
    };
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(numbers.into_iter().map(|(_, class)| class.clone()).collect())
}

/// The number of bins that splits are balanced by where images have numbers.
const BINS: usize = 5;

impl Manifest {
    /// What splits are balanced by, and how many of them there are: the classes, or bins of the first number with as many images each,
    /// of the rows that are `wanted`.
    pub(crate) fn strata(&self, wanted: impl Fn(&super::Row) -> bool) -> (usize, Vec<Cow<'_, Labels>>) {
        let first = |labels: &Labels| labels.number(0).unwrap_or(0.0);
        if self.kind != TaskKind::Regression {
            return (self.classes.len(), self.rows.iter().map(|row| Cow::Borrowed(&row.labels)).collect());
        }
        let mut sorted: Vec<f32> = self.rows.iter().filter(|row| wanted(row)).map(|row| first(&row.labels)).collect();
        sorted.sort_by(f32::total_cmp);
        let bounds: Vec<f32> = (1..BINS).filter_map(|bin| sorted.get(bin * sorted.len() / BINS).copied()).collect();
        let bin = |value: f32| bounds.iter().filter(|&&bound| value >= bound).count();
        (BINS, self.rows.iter().map(|row| Cow::Owned(Labels::Single(bin(first(&row.labels))))).collect())
    }
}
