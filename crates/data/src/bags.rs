//! Which rows of a data set are one example.

use std::collections::HashMap;
use std::ops::Range;

use crate::Row;

/// Rows of a data set in bags: those of a bag one behind the other, in their order there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bags {
    /// The rows of each bag.
    pub(crate) of: Vec<Range<usize>>,
    /// The first row of each row's bag.
    pub(crate) first: Vec<usize>,
}

impl Bags {
    /// Brings rows together, bags in the order of their first rows; `None` where no row is in one.
    pub(crate) fn gather(rows: &mut [Row]) -> Option<Self> {
        if rows.iter().all(|row| row.bag.is_none()) {
            return None;
        }
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut bags = 0;
        let mut number = |row: &Row| {
            let mut next = || {
                bags += 1;
                bags - 1
            };
            match &row.bag {
                Some(bag) => *numbers.entry(bag.name.clone()).or_insert_with(next),
                None => next(),
            }
        };
        let mut keys: Vec<(usize, usize, usize)> = rows
            .iter()
            .zip(0..)
            .map(|(row, at)| (number(row), row.bag.as_ref().map_or(0, |bag| bag.place), at))
            .collect();
        keys.sort_unstable();
        let sorted: Vec<Row> = keys.iter().map(|&(_, _, at)| rows[at].clone()).collect();
        rows.clone_from_slice(&sorted);
        let mut of: Vec<Range<usize>> = Vec::new();
        for (row, &(bag, _, _)) in keys.iter().enumerate() {
            match of.get_mut(bag) {
                Some(rows) => rows.end = row + 1,
                None => of.push(row..row + 1),
            }
        }
        let first = of.iter().flat_map(|rows| rows.clone().map(|_| rows.start)).collect();
        Some(Self { of, first })
    }
}
