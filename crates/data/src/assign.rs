//! Who is trained on, who is validated on, who is tested on: decided by patient, never by image.

use std::collections::BTreeMap;
use std::fmt;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::random::{Purpose, stream};
use crate::{Error, Labels, Manifest, Row, Split};

/// Train, val, test: 70 %, 15 % and 15 % of the images.
pub const DEFAULT_FRACTIONS: [f64; 3] = [0.7, 0.15, 0.15];

/// What [`Manifest::assign_splits`] did; displays as a sentence for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Assigned {
    /// Nothing: the manifest has its splits.
    Nothing,
    /// All three splits.
    All {
        /// Images in train, val and test.
        images: [usize; 3],
        /// Patients in train, val and test.
        patients: [usize; 3],
    },
    /// Val, out of train, because the manifest had none.
    ValFromTrain {
        /// Images moved to val.
        images: usize,
        /// Their patients.
        patients: usize,
    },
}

impl fmt::Display for Assigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Assigned::Nothing => f.write_str("splits are those of the manifest"),
            Assigned::All { images: [train, val, test], patients: [p_train, p_val, p_test] } => write!(
                f,
                "the manifest has no splits: assigned {train} images to train, {val} to val and {test} to test \
                 ({p_train}, {p_val} and {p_test} patients)"
            ),
            Assigned::ValFromTrain { images, patients } => {
                write!(
                    f,
                    "the manifest has no val split: moved {images} images ({patients} patients) from train to val"
                )
            }
        }
    }
}

impl Manifest {
    /// Gives every image a split, if none has one; else, if there is train but no val, moves `fractions[1]` of train
    /// to val; else does nothing.
    ///
    /// Rows of one patient stay together; each class is spread over the splits by `fractions` (train, val, test) as
    /// evenly as a greedy assignment manages; a patient who alone shows a class goes to train. The result depends on
    /// the rows and `seed`, not on the order of rows.
    ///
    /// # Errors
    /// [`Error::Fractions`] unless they are in [0, 1], sum to 1, and train has something.
    pub fn assign_splits(&mut self, seed: u64, fractions: [f64; 3]) -> Result<Assigned, Error> {
        let valid = fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction));
        if !valid || fractions[0] == 0.0 || (fractions.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
            return Err(Error::Fractions { found: fractions });
        }
        let has = |split| self.rows.iter().any(|row| row.split == Some(split));
        if !self.has_splits() {
            let (images, patients) = self.distribute(None, stream(Purpose::Split, seed, 0, 0), fractions);
            Ok(Assigned::All { images, patients })
        } else if has(Split::Train) && !has(Split::Val) {
            let (images, patients) = self.val_from_train(stream(Purpose::Split, seed, 0, 0), fractions[1]);
            Ok(Assigned::ValFromTrain { images, patients })
        } else {
            Ok(Assigned::Nothing)
        }
    }

    /// Moves `fraction` of train to val; gives its images and patients.
    pub(crate) fn val_from_train(&mut self, random: ChaCha8Rng, fraction: f64) -> (usize, usize) {
        let (images, patients) = self.distribute(Some(Split::Train), random, [1.0 - fraction, fraction, 0.0]);
        (images[1], patients[1])
    }

    /// Distributes the rows that are in `from`; gives images and patients of each split.
    fn distribute(&mut self, from: Option<Split>, random: ChaCha8Rng, fractions: [f64; 3]) -> ([usize; 3], [usize; 3]) {
        let patients = largest_first(self.patients(|row| row.split == from, random));
        let splits = stratify(&patients, &fractions, Some(0));
        let (mut images, mut people) = ([0; 3], [0; 3]);
        for (patient, split) in patients.into_iter().zip(splits) {
            people[split] += 1;
            images[split] += patient.rows.len();
            for row in patient.rows {
                self.rows[row].split = Some(Split::ALL[split]);
            }
        }
        (images, people)
    }

    /// The patients of the rows that are `wanted`, in a random order that does not depend on the order of rows.
    pub(crate) fn patients(&self, wanted: impl Fn(&Row) -> bool, mut random: ChaCha8Rng) -> Vec<Patient> {
        let (classes, strata) = self.strata(&wanted);
        let mut patients: BTreeMap<PatientKey, Patient> = BTreeMap::new();
        for (index, row) in self.rows.iter().enumerate().filter(|(_, row)| wanted(row)) {
            let patient = patients.entry(PatientKey::of(row)).or_insert_with(|| Patient::new(classes));
            patient.add(index, row.is_example().then(|| &*strata[index]));
        }
        // Sorted by key: the order of rows is forgotten before the seed decides.
        let mut patients: Vec<Patient> = patients.into_values().collect();
        patients.shuffle(&mut random);
        patients
    }
}

/// Large patients first, as [`stratify`] wants them: the small ones then even out what is left.
pub(crate) fn largest_first(mut patients: Vec<Patient>) -> Vec<Patient> {
    patients.sort_by_key(|patient| std::cmp::Reverse(patient.rows.len()));
    patients
}

/// Whose a row is: of a patient with an id, or of nobody else, told by its bag or its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PatientKey {
    Id(String),
    Bag(String),
    Row(String),
}

impl PatientKey {
    pub(crate) fn of(row: &Row) -> Self {
        match (&row.patient_id, &row.bag) {
            (Some(id), _) => PatientKey::Id(id.clone()),
            (None, Some(bag)) => PatientKey::Bag(bag.name.clone()),
            (None, None) => PatientKey::Row(row.name.clone()),
        }
    }
}

/// Rows that must stay together.
pub(crate) struct Patient {
    pub(crate) rows: Vec<usize>,
    /// Examples that show each class; one more for those without a finding.
    pub(crate) shown: Vec<usize>,
}

impl Patient {
    fn new(classes: usize) -> Self {
        Self { rows: Vec::new(), shown: vec![0; classes + 1] }
    }

    /// A row, and the labels of what it stands for: none of a further image of a bag.
    fn add(&mut self, row: usize, labels: Option<&Labels>) {
        self.rows.push(row);
        let Some(labels) = labels else { return };
        let nothing = self.shown.len() - 1;
        let mut any = false;
        for class in (0..nothing).filter(|&class| labels.has(class)) {
            self.shown[class] += 1;
            any = true;
        }
        self.shown[nothing] += usize::from(!any);
    }
}

/// The part (below `fractions.len()`) of each patient: iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, algorithm 1)
/// with patients in place of examples.
///
/// The class with the fewest patients left comes first, because the common ones can still be balanced later. Each of
/// its patients goes where the largest part of the class's share is still wanted, then where most images are. A part, not
/// a number: else train, whose share is the largest, would take the first and largest patients one after the other, and
/// classes of few patients whole. A patient who alone shows a class goes to part `lone`, if that is given.
pub(crate) fn stratify(patients: &[Patient], fractions: &[f64], lone: Option<usize>) -> Vec<usize> {
    let mut parts = vec![0; patients.len()];
    let mut open: Vec<usize> = (0..patients.len()).collect();
    let mut wanted = Wanted::new(patients, fractions);
    while let Some(class) = wanted.rarest_class() {
        let lone = lone.filter(|_| patients_of(patients, class) == 1);
        open.retain(|&index| {
            let shows = patients[index].shown[class] > 0;
            if shows {
                parts[index] = lone.unwrap_or_else(|| wanted.best_part(class));
                wanted.take(&patients[index], parts[index]);
            }
            !shows
        });
    }
    parts
}

/// How many patients show `class`.
pub(crate) fn patients_of(patients: &[Patient], class: usize) -> usize {
    patients.iter().filter(|patient| patient.shown[class] > 0).count()
}

/// What each part still lacks; below zero where it has more than its share.
struct Wanted {
    /// Parts with a share at all.
    open: Vec<usize>,
    images: Vec<f64>,
    /// Of each class, relative to the part's share of it.
    lack_of: Vec<Vec<f64>>,
    /// Images of each class in each part's share.
    share_of: Vec<Vec<f64>>,
    /// Patients of each class that have no part yet.
    patients_of: Vec<usize>,
}

impl Wanted {
    fn new(patients: &[Patient], fractions: &[f64]) -> Self {
        let classes = patients.first().map_or(0, |patient| patient.shown.len());
        let share = |images: usize| fractions.iter().map(|fraction| fraction * images as f64).collect::<Vec<_>>();
        let share_of = |class| share(patients.iter().map(|patient: &Patient| patient.shown[class]).sum());
        Self {
            open: (0..fractions.len()).filter(|&part| fractions[part] > 0.0).collect(),
            images: share(patients.iter().map(|patient| patient.rows.len()).sum()),
            lack_of: vec![vec![1.0; fractions.len()]; classes],
            share_of: (0..classes).map(share_of).collect(),
            patients_of: (0..classes).map(|class| patients_of(patients, class)).collect(),
        }
    }

    /// The class with the fewest patients that have no part yet; `None` when all have one.
    fn rarest_class(&self) -> Option<usize> {
        (0..self.patients_of.len())
            .filter(|&class| self.patients_of[class] > 0)
            .min_by_key(|&class| self.patients_of[class])
    }

    /// Where `class` is wanted most, then where images are; the first of equals.
    fn best_part(&self, class: usize) -> usize {
        let want = |part: usize| (self.lack_of[class][part], self.images[part]);
        let mut best = self.open[0];
        for &part in &self.open {
            if want(part) > want(best) {
                best = part;
            }
        }
        best
    }

    fn take(&mut self, patient: &Patient, part: usize) {
        self.images[part] -= patient.rows.len() as f64;
        for (class, &shown) in patient.shown.iter().enumerate().filter(|(_, shown)| **shown > 0) {
            self.lack_of[class][part] -= shown as f64 / self.share_of[class][part];
            self.patients_of[class] -= 1;
        }
    }
}
