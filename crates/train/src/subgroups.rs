//! Figures of subgroups: each value of a column measured for itself.

use crate::answers::Answers;
use crate::calibrate::{Figure, figures};
use crate::error::Error;
use melo_data::Columns;
use melo_vit::BoundPlugin;
use serde::Serialize;

/// What a plug-in is worth on the images that have one value in one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubgroupFigure {
    /// The column.
    pub column: String,
    /// Its value, or its bin.
    pub value: String,
    /// Images of the group.
    pub images: usize,
    /// Macro AUC; none where the group holds one class only.
    pub auc_macro: Option<Figure>,
}

/// The macro AUC of each group of images, by column and value.
///
/// # Errors
/// [`Error::Eval`]; [`Error::Images`] if the table lists none of the images.
pub fn subgroup_figures(
    plugin: &BoundPlugin,
    answers: &Answers,
    columns: &Columns,
) -> Result<Vec<SubgroupFigure>, Error> {
    let groups = columns.groups(answers.names.iter().map(String::as_str)).map_err(Error::Images)?;
    let measured = groups.into_iter().map(|group| {
        let figures = figures(&plugin.card.classes, plugin.calibration(), &answers.of_rows(&group.rows))?;
        let auc_macro = figures.get("auc_macro").copied();
        Ok(SubgroupFigure { column: group.column, value: group.value, images: group.rows.len(), auc_macro })
    });
    measured.collect()
}
