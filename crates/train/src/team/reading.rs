//! Images read for the first time, each by one rank; broken ones told at once, as by one process.

use super::{Reader, Team, Writer};
use crate::error::Error;
use melo_data::{Dataset, Unreadable};

/// Reads every image of the data sets on one rank, and gives *all* of them that this rank cannot read; `progress(done, of)` is called from
/// several threads, once an image of this rank's.
///
/// # Errors
/// [`Error::Team`].
pub(crate) fn read_images(
    sets: &[Dataset],
    team: &Team,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Unreadable>, Error> {
    let shares: Vec<Vec<usize>> = sets.iter().map(|set| team.share(set.len()).collect()).collect();
    let images = shares.iter().map(Vec::len).sum();
    let (mut broken, mut mine, mut read) = (Vec::new(), Writer::default(), 0);
    for (number, (set, rows)) in sets.iter().zip(&shares).enumerate() {
        let of_set = set.preload_rows(rows, &|done, _| progress(read + done, images));
        for unreadable in &of_set {
            mine.number(number as u64);
            mine.number(unreadable.row as u64);
        }
        broken.extend(of_set);
        read += rows.len();
    }
    let all = team.gather::<Error>("reading images", Ok(mine.bytes()))?;
    let others = all.iter().enumerate().filter(|(rank, _)| *rank != team.rank());
    for (_, bytes) in others {
        let mut bytes = Reader::new(bytes);
        while !bytes.is_empty() {
            let (number, row) = (bytes.index(), bytes.index());
            // What is broken there is broken here, but for files that differ.
            broken.extend(sets[number].preload_rows(&[row], &|_, _| ()));
        }
    }
    Ok(broken)
}
