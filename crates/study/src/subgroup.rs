//! Subgroups of the test images, by columns of the manifest or of a file beside it.

use crate::error::Error;
use crate::plan::TaskPlan;
use melo_data::ImageGroup;
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

    /// Which test images of a fold belong to it.
    pub(crate) fn members(&self, fold: Option<usize>) -> &[bool] {
        &self.members[&fold]
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
    let columns = melo_data::columns_with(file, &task.subgroups, &task.reading)?;
    let images = tests.values().flat_map(|test| test.names.iter().map(String::as_str));
    let total = tests.values().map(|test| test.names.len()).sum();
    let group = |found: ImageGroup| {
        let mut member = vec![false; total];
        found.rows.iter().for_each(|&row| member[row] = true);
        let mut rest = member.as_slice();
        let mut of_fold = |images: usize| {
            let (first, others) = rest.split_at(images);
            rest = others;
            first.to_vec()
        };
        let members = tests.iter().map(|(&fold, test)| (fold, of_fold(test.names.len()))).collect();
        Group { column: found.column, value: found.value, members }
    };
    Ok(columns.groups(images)?.into_iter().map(group).collect())
}
