//! Pairs of images that look the same though their files differ.

use rayon::prelude::*;

use crate::assign::PatientKey;
use crate::fingerprint::Fingerprint;
use crate::report::{DuplicateFile, NearPair};
use crate::{Manifest, Warning};

/// Most bits of 255 in which near-duplicates differ: `docs/decisions/0004-near-duplicates.md` says what is found and what is
/// not.
const NEAR: u32 = 34;
/// Most pairs that are listed, the closest first; the rest is counted.
const MOST_PAIRS: usize = 1000;

/// An image as far as near-duplicates are concerned.
pub(crate) struct Look {
    /// `None` if it cannot be read, or shows nothing.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Images of one number have the same bytes, and are reported elsewhere.
    pub(crate) bytes: usize,
}

/// Warnings of near-duplicates in two splits, and in one split.
///
/// In one split, images of one patient may look alike: that is what patient ids are for.
pub(crate) fn near_duplicates(manifest: &Manifest, looks: &[Look]) -> Vec<Warning> {
    let patients: Vec<PatientKey> = manifest.rows.iter().map(PatientKey::of).collect();
    let kind = |a: usize, b: usize| {
        if looks[a].bytes == looks[b].bytes {
            None
        } else if manifest.rows[a].split != manifest.rows[b].split {
            Some(Kind::Across)
        } else {
            (patients[a] != patients[b]).then_some(Kind::Within)
        }
    };
    let prints: Vec<Option<Fingerprint>> = looks.iter().map(|look| look.fingerprint).collect();
    let Found { across, within } = find(&prints, kind);

    let file = |row: usize| {
        let row = &manifest.rows[row];
        DuplicateFile { name: row.name.clone(), line: row.line, split: row.split }
    };
    let listed = |pairs: &Pairs| -> Vec<NearPair> {
        let pair = |&(distance, first, second, mirrored): &Pair| NearPair {
            distance,
            mirrored,
            images: [file(first), file(second)],
        };
        pairs.closest.iter().map(pair).collect()
    };
    let mut warnings = Vec::new();
    if across.total > 0 {
        warnings.push(Warning::NearDuplicatesAcrossSplits { total: across.total, pairs: listed(&across) });
    }
    if within.total > 0 {
        warnings.push(Warning::NearDuplicatesWithinSplit { total: within.total, pairs: listed(&within) });
    }
    warnings
}

enum Kind {
    Across,
    Within,
}

/// Distance, both rows, and whether one is the mirror image: in the order in which they are listed.
type Pair = (u32, usize, usize, bool);

#[derive(Default)]
struct Found {
    across: Pairs,
    within: Pairs,
}

#[derive(Default)]
struct Pairs {
    total: usize,
    closest: Vec<Pair>,
}

impl Pairs {
    fn push(&mut self, pair: Pair) {
        self.total += 1;
        self.closest.push(pair);
        if self.closest.len() >= 2 * MOST_PAIRS {
            self.shorten();
        }
    }

    fn merge(mut self, other: Pairs) -> Pairs {
        self.total += other.total;
        self.closest.extend(other.closest);
        self.shorten();
        self
    }

    fn shorten(&mut self) {
        self.closest.sort_unstable();
        self.closest.truncate(MOST_PAIRS);
    }
}

/// All pairs of the given kinds within [`NEAR`], every image against every later one, on the ambient `rayon` pool.
fn find(prints: &[Option<Fingerprint>], kind: impl Fn(usize, usize) -> Option<Kind> + Sync) -> Found {
    let known: Vec<(usize, Fingerprint)> =
        prints.iter().enumerate().filter_map(|(row, print)| print.map(|print| (row, print))).collect();
    let of_one = |index: usize| {
        let (first, print) = known[index];
        let mirrored = print.mirrored();
        let mut found = Found::default();
        for &(second, other) in &known[index + 1..] {
            let as_is = print.distance_up_to(other, NEAR).map(|distance| (distance, false));
            let mirror = mirrored.distance_up_to(other, NEAR).map(|distance| (distance, true));
            let Some((distance, mirrored)) = as_is.into_iter().chain(mirror).min() else { continue };
            match kind(first, second) {
                Some(Kind::Across) => found.across.push((distance, first, second, mirrored)),
                Some(Kind::Within) => found.within.push((distance, first, second, mirrored)),
                None => {}
            }
        }
        found
    };
    (0..known.len())
        .into_par_iter()
        .map(of_one)
        .reduce(Found::default, |a, b| Found { across: a.across.merge(b.across), within: a.within.merge(b.within) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random fingerprints, of which every seventh is a close copy of an earlier one, and every ninth a mirrored one.
    fn prints(number: usize) -> Vec<Option<Fingerprint>> {
        let mut state = 1u64;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        };
        let mut prints: Vec<Fingerprint> = Vec::new();
        for index in 0..number {
            let earlier = |step: u64| prints[(step % index as u64) as usize];
            let close = |print: Fingerprint, step: u64| print.with_bits_turned((step % 40) as usize);
            let print = match index {
                0 => Fingerprint::from_words([draw(), draw(), draw(), draw()]),
                _ if index % 7 == 0 => close(earlier(draw() >> 20), draw() >> 20),
                _ if index % 9 == 0 => close(earlier(draw() >> 20).mirrored(), draw() >> 20),
                _ => Fingerprint::from_words([draw(), draw(), draw(), draw()]),
            };
            prints.push(print);
        }
        prints.into_iter().enumerate().map(|(index, print)| (index % 11 != 5).then_some(print)).collect()
    }

    #[test]
    fn pairs_are_those_of_the_definition() {
        let prints = prints(300);
        let kind = |a: usize, b: usize| match (a + b) % 3 {
            0 => None,
            1 => Some(Kind::Across),
            _ => Some(Kind::Within),
        };
        let found = find(&prints, kind);
        let mut expected: [Vec<Pair>; 3] = Default::default();
        for (first, a) in prints.iter().enumerate() {
            for (second, b) in prints.iter().enumerate().skip(first + 1) {
                let (Some(a), Some(b)) = (a, b) else { continue };
                let distances = [(*a, false), (a.mirrored(), true)]
                    .map(|(a, mirrored)| (a.distance_up_to(*b, 256).unwrap(), mirrored));
                let (distance, mirrored) = distances.into_iter().min().unwrap();
                if distance <= NEAR {
                    expected[(first + second) % 3].push((distance, first, second, mirrored));
                }
            }
        }
        expected.iter_mut().for_each(|pairs| pairs.sort_unstable());
        assert!(expected.iter().all(|pairs| pairs.len() > 5 && pairs.iter().any(|pair| pair.3)));
        assert_eq!((found.across.total, found.within.total), (expected[1].len(), expected[2].len()));
        assert_eq!([found.across.closest, found.within.closest], [expected[1].clone(), expected[2].clone()]);
    }
}
