//! Cross-validation by patient.

use crate::assign::{largest_first, stratify};
use crate::random::{Purpose, stream};
use crate::{DEFAULT_FRACTIONS, Error, Manifest, Row, Split};

impl Manifest {
    /// The fold, below `k`, of every row: by patient, each class spread as evenly as a greedy assignment manages. The
    /// splits that rows have are ignored.
    ///
    /// The result depends on the rows, `k` and `seed`, not on the order of rows.
    ///
    /// # Errors
    /// [`Error::Folds`] unless `k` is at least 2 and there is a patient for each fold.
    pub fn folds(&self, k: usize, seed: u64) -> Result<Vec<usize>, Error> {
        let patients = largest_first(self.patients(|_| true, stream(Purpose::Folds, seed, 0, 0)));
        if k < 2 || k > patients.len() {
            return Err(Error::Folds { path: self.path.clone(), found: k, patients: patients.len() });
        }
        let mut folds = vec![0; self.rows.len()];
        let parts = stratify(&patients, &vec![1.0 / k as f64; k], None);
        for (patient, part) in patients.iter().zip(parts) {
            patient.rows.iter().for_each(|&row| folds[row] = part);
        }
        Ok(folds)
    }

    /// The same rows with the splits of one round of cross-validation: [`folds`](Manifest::folds)`(k, seed)` number
    /// `fold` is test; of the rest, 15 % (`DEFAULT_FRACTIONS[1]`) is val, by patient and stratified, and what remains
    /// is train.
    ///
    /// Over all `fold` below `k`, every row is in test exactly once.
    ///
    /// # Errors
    /// Those of [`folds`](Manifest::folds); [`Error::Fold`] unless `fold` is below `k`; [`Error::EmptyFold`] if there
    /// are too few patients to put one in every split.
    pub fn with_fold(&self, k: usize, fold: usize, seed: u64) -> Result<Manifest, Error> {
        let folds = self.folds(k, seed)?;
        if fold >= k {
            return Err(Error::Fold { folds: k, found: fold });
        }
        let mut manifest = self.clone();
        for (row, of_row) in manifest.rows.iter_mut().zip(folds) {
            row.split = Some(if of_row == fold { Split::Test } else { Split::Train });
        }
        manifest.val_from_train(stream(Purpose::ValOfFold, seed, fold as u64, k as u64), DEFAULT_FRACTIONS[1]);
        match Split::ALL.into_iter().find(|&split| manifest.split(split).is_empty()) {
            Some(split) => Err(Error::EmptyFold { path: self.path.clone(), folds: k, fold, split }),
            None => Ok(manifest),
        }
    }

    /// The same rows, those of train and val assigned anew: fold number `fold` of the [`folds`](Manifest::folds)`(k, seed)` of these rows is
    /// val, the others are train. Test stays as it is.
    ///
    /// Over all `fold` below `k`, every row of train and val is in val exactly once.
    ///
    /// # Errors
    /// Those of [`folds`](Manifest::folds); [`Error::Fold`] unless `fold` is below `k`.
    pub fn with_validation_fold(&self, k: usize, fold: usize, seed: u64) -> Result<Manifest, Error> {
        let is_seen = |row: &Row| matches!(row.split, Some(Split::Train | Split::Val));
        let seen = self.rows.iter().filter(|row| is_seen(row)).cloned().collect();
        let folds = Manifest { rows: seen, ..self.clone() }.folds(k, seed)?;
        if fold >= k {
            return Err(Error::Fold { folds: k, found: fold });
        }
        let mut manifest = self.clone();
        for (row, of_row) in manifest.rows.iter_mut().filter(|row| is_seen(row)).zip(folds) {
            row.split = Some(if of_row == fold { Split::Val } else { Split::Train });
        }
        Ok(manifest)
    }
}
