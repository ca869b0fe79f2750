//! Models that have given up on a class: it is never called, or nearly everything is called it. An AUC does not show that.

use serde::{Deserialize, Serialize};

use crate::{Counts, FEW_CASES};

/// A class is dominant that at least this share of the images is called, ...
const DOMINANT: f64 = 0.8;
/// ... and that is so much more than have it.
const MORE_THAN_SHOWN: f64 = 0.2;

/// What a model has collapsed to, from [`Metrics::collapse`](crate::Metrics::collapse).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collapse {
    /// Images measured.
    pub images: u64,
    /// Classes (or findings) that have cases and are never called, by index, with their cases.
    pub never: Vec<Never>,
    /// Classes (or findings) that nearly every image is called though far fewer have it; one at the most where an image has one
    /// class.
    pub dominant: Vec<Dominant>,
}

/// A class that is never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Never {
    /// Its index.
    pub class: usize,
    /// Images that have it.
    pub cases: u64,
}

/// A class that takes nearly all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dominant {
    /// Its index.
    pub class: usize,
    /// Images that are called so.
    pub called: u64,
    /// Images that have it.
    pub cases: u64,
}

impl Collapse {
    /// Of each class against the rest, `counts [c]` of the same images. `None` where every class that has cases is called, and
    /// none takes nearly all.
    pub fn of(counts: &[Counts]) -> Option<Self> {
        let images = counts.first()?.images();
        let share = |part: u64| part as f64 / images as f64;
        let (mut never, mut dominant) = (Vec::new(), Vec::new());
        for (class, counts) in counts.iter().enumerate() {
            let (called, cases) = (counts.called(), counts.positives());
            if called == 0 && cases > 0 {
                never.push(Never { class, cases });
            } else if share(called) >= DOMINANT && share(called) - share(cases) >= MORE_THAN_SHOWN {
                dominant.push(Dominant { class, called, cases });
            }
        }
        (!never.is_empty() || !dominant.is_empty()).then_some(Self { images, never, dominant })
    }

    /// `67 of 70 images are called neutrophil, which 17 are; never called: eosinophil (18 cases), monocyte (17 cases)`.
    pub fn sentence(&self, classes: &[String]) -> String {
        let name = |class: usize| classes.get(class).map_or_else(|| format!("class {class}"), String::clone);
        let taken = self.dominant.iter().map(|Dominant { class, called, cases }| {
            format!("{called} of {} images are called {}, which {cases} are", self.images, name(*class))
        });
        let mut parts: Vec<_> = taken.collect();
        if !self.never.is_empty() {
            let never = self.never.iter().map(|Never { class, cases }| {
                format!("{} ({cases} {})", name(*class), if *cases == 1 { "case" } else { "cases" })
            });
            parts.push(format!("never called: {}", never.collect::<Vec<_>>().join(", ")));
        }
        parts.join("; ")
    }
}

/// `fewer than 10 cases: monocyte (3), basophil (0)`: classes of `counts [c]` whose figures say little, for want of cases or of
/// images without it; `None` where there is no such class.
pub fn too_few(counts: &[Counts], classes: &[String]) -> Option<String> {
    let name = |class: usize| classes.get(class).map_or_else(|| format!("class {class}"), String::clone);
    let listed = |of: &dyn Fn(&Counts) -> u64| {
        let few = counts.iter().enumerate().map(|(class, counts)| (class, of(counts))).filter(|(_, n)| *n < FEW_CASES);
        few.map(|(class, n)| format!("{} ({n})", name(class))).collect::<Vec<_>>().join(", ")
    };
    let (with, without) = (listed(&Counts::positives), listed(&|counts| counts.images() - counts.positives()));
    let parts = [
        (!with.is_empty()).then(|| format!("fewer than {FEW_CASES} cases: {with}")),
        (!without.is_empty()).then(|| format!("fewer than {FEW_CASES} images without: {without}")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{multi_label, single_label};

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    /// `n` images of each class, all called the first but so many of each other class.
    fn answers(n: &[usize], right: &[usize]) -> (Vec<f32>, Vec<usize>) {
        let c = n.len();
        let mut scores = Vec::new();
        let mut labels = Vec::new();
        for class in 0..c {
            for image in 0..n[class] {
                let said = if image < right[class] { class } else { 0 };
                scores.extend((0..c).map(|k| f32::from(u8::from(k == said))));
                labels.push(class);
            }
        }
        (scores, labels)
    }

    #[test]
    fn a_collapsed_model_is_told_by_name() {
        let (scores, labels) = answers(&[17, 18, 18, 17], &[17, 0, 3, 0]);
        let metrics = single_label(&scores, &labels, 4).unwrap();
        let collapse = metrics.collapse().unwrap();
        assert_eq!(
            collapse.sentence(&names(&["neutrophil", "eosinophil", "lymphocyte", "monocyte"])),
            "67 of 70 images are called neutrophil, which 17 are; never called: eosinophil (18 cases), monocyte (17 cases)"
        );
        assert!((metrics.balanced_acc.unwrap() - (1.0 + 3.0 / 18.0) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn a_common_class_that_is_common_is_no_collapse() {
        let (scores, labels) = answers(&[95, 5], &[95, 4]);
        assert_eq!(single_label(&scores, &labels, 2).unwrap().collapse(), None);
        // A class without a case cannot be missed.
        let (scores, labels) = answers(&[9, 9, 0], &[9, 8, 0]);
        assert_eq!(single_label(&scores, &labels, 3).unwrap().collapse(), None);
    }

    #[test]
    fn findings_that_are_never_or_always_called_are_told() {
        let probabilities: Vec<f32> = (0..20).flat_map(|_| [0.9, 0.1]).collect();
        let labels: Vec<u8> = (0..20).flat_map(|i| [u8::from(i < 4), u8::from(i == 0)]).collect();
        let metrics = multi_label(&probabilities, &labels, &[0.5, 0.5]).unwrap();
        assert_eq!(
            metrics.collapse().unwrap().sentence(&names(&["edema", "nodule"])),
            "20 of 20 images are called edema, which 4 are; never called: nodule (1 case)"
        );
    }

    #[test]
    fn classes_of_few_cases_are_named_with_their_number() {
        let (scores, labels) = answers(&[40, 9, 0], &[40, 9, 0]);
        let counts = single_label(&scores, &labels, 3).unwrap().counts_per_class;
        let found = too_few(&counts, &names(&["a", "b", "c"])).unwrap();
        assert_eq!(found, "fewer than 10 cases: b (9), c (0); fewer than 10 images without: a (9)");
        let (scores, labels) = answers(&[10, 10], &[10, 10]);
        assert_eq!(too_few(&single_label(&scores, &labels, 2).unwrap().counts_per_class, &[]), None);
    }
}
