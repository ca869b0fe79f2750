//! Subgroups of the test images, by columns of the manifest or of a file beside it.

use crate::error::Error;
use crate::plan::TaskPlan;
use melo_train::Answers;
use std::collections::BTreeMap;

/// The test images with one value in one column.
pub(crate) struct Group {
    pub(crate) column: String,
    pub(crate) value: String,
    /// Which test images of each fold belong to it.
    members: BTreeMap<Option<usize>, Vec<bool>>,
}

impl Group {
    /// Images of the group, over all folds.
    pub(crate) fn images(&self) -> usize {
        self.members.values().flatten().filter(|&&member| member).count()
    }

    /// The weights of its members, zero for the others.
    pub(crate) fn mask(&self, fold: Option<usize>, weights: &[u32]) -> Vec<u32> {
        self.members[&fold].iter().zip(weights).map(|(&member, &weight)| if member { weight } else { 0 }).collect()
    }
}

/// The groups of a task, by column and value.
///
/// # Errors
/// As [`melo_data::columns`].
pub(crate) fn subgroups(task: &TaskPlan, tests: &BTreeMap<Option<usize>, &Answers>) -> Result<Vec<Group>, Error> {
    if task.subgroups.is_empty() {
        return Ok(Vec::new());
    }
    let file = task.meta.as_ref().unwrap_or(&task.labels);
    let columns = melo_data::columns(file, &task.subgroups)?;
    let mut groups: BTreeMap<(usize, String), Group> = BTreeMap::new();
    for (&fold, test) in tests {
        for (row, name) in test.names.iter().enumerate() {
            let values = columns.of(name).unwrap_or_default();
            for (index, (column, value)) in task.subgroups.iter().zip(values).enumerate() {
                let Some(value) = value else { continue };
                let group = groups.entry((index, value.clone())).or_insert_with(|| Group {
                    column: column.split(':').next().unwrap_or(column).to_owned(),
                    value: value.clone(),
                    members: tests.iter().map(|(&fold, test)| (fold, vec![false; test.names.len()])).collect(),
                });
                if let Some(members) = group.members.get_mut(&fold) {
                    members[row] = true;
                }
            }
        }
    }
    Ok(groups.into_values().collect())
}
