//! Less training data, for learning curves.

use std::collections::HashSet;

use crate::assign::{Patient, patients_of};
use crate::random::{Purpose, stream};
use crate::{Error, Manifest, Split};

impl Manifest {
    /// The same manifest with `fraction` of its training patients, rounded, but at least one of every class that train
    /// shows. Other rows, and the classes, stay as they are.
    ///
    /// Stratified by the rarest class that a patient shows. Nested: with one `seed`, whoever is kept at one fraction is
    /// kept at every larger one. The result does not depend on the order of rows.
    ///
    /// # Errors
    /// [`Error::TrainFraction`] unless it is above 0 and at most 1; [`Error::NoTrain`] if no row is in train.
    pub fn subset_train(&self, fraction: f64, seed: u64) -> Result<Manifest, Error> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(Error::TrainFraction { found: fraction });
        }
        let patients = self.patients(|row| row.split == Some(Split::Train), stream(Purpose::Subset, seed, 0, 0));
        if patients.is_empty() {
            return Err(Error::NoTrain { path: self.path.clone() });
        }
        let (order, least) = nested_order(&patients);
        let keep = ((fraction * patients.len() as f64).round() as usize).max(least);
        let left_out: HashSet<usize> =
            order[keep..].iter().flat_map(|&patient| patients[patient].rows.iter().copied()).collect();
        let rows = self.rows.iter().enumerate().filter(|(index, _)| !left_out.contains(index));
        Ok(Manifest {
            path: self.path.clone(),
            classes: self.classes.clone(),
            kind: self.kind,
            rows: rows.map(|(_, row)| row.clone()).collect(),
            reading: self.reading.clone(),
        })
    }
}

/// Patients in the order in which they are kept, and how many of the first show every class that any shows.
///
/// Patients whose rarest class is the same form a stratum; the `j`-th of `m` stands at `(j + ½) / m`, so that any
/// beginning of the order takes an equal part of every stratum. Whom a class needs to be shown at all comes before.
fn nested_order(patients: &[Patient]) -> (Vec<usize>, usize) {
    let classes = patients[0].shown.len();
    let counts: Vec<usize> = (0..classes).map(|class| patients_of(patients, class)).collect();
    let rarest = |patient: &Patient| (0..classes).filter(|&class| patient.shown[class] > 0).min_by_key(|&c| counts[c]);
    let mut strata: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, patient) in patients.iter().enumerate() {
        // Every row shows a class, or the absence of all.
        strata[rarest(patient).unwrap_or(classes - 1)].push(index);
    }
    let place = |j: usize, m: usize| (j as f64 + 0.5) / m as f64;
    let in_stratum = |stratum: &Vec<usize>| -> Vec<(f64, usize)> {
        stratum.iter().enumerate().map(|(j, &index)| (place(j, stratum.len()), index)).collect()
    };
    let mut placed: Vec<(f64, usize)> = strata.iter().flat_map(in_stratum).collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let order: Vec<usize> = placed.into_iter().map(|(_, index)| index).collect();

    let mut needed: Vec<usize> = Vec::new();
    let mut by_count: Vec<usize> = (0..classes).filter(|&class| counts[class] > 0).collect();
    by_count.sort_by_key(|&class| counts[class]);
    for class in by_count {
        let shows = |index: &usize| patients[*index].shown[class] > 0;
        if !needed.iter().any(shows) {
            needed.extend(order.iter().copied().find(shows));
        }
    }
    let others = order.into_iter().filter(|index| !needed.contains(index)).collect::<Vec<_>>();
    let least = needed.len();
    (needed.into_iter().chain(others).collect(), least)
}
