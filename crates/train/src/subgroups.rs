//! Figures of subgroups: each value of a column measured for itself.

use crate::answers::Answers;
use crate::calibrate::{Figure, figures};
use crate::error::Error;
use melo_data::Columns;
use melo_vit::{BoundPlugin, TaskKind};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a plug-in is worth on the images that have one value in one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubgroupFigure {
    /// The column.
    pub column: String,
    /// Its value, or its bin.
    pub value: String,
    /// Images of the group.
    pub images: usize,
    /// `auc_macro`, none where the group holds one class only; of grades `kappa_quadratic` too, of numbers `mae/<number>`, of masks `dice`.
    #[serde(flatten)]
    pub figures: BTreeMap<String, Option<Figure>>,
}

/// The figures of each group of images, by column and value.
///
/// # Errors
/// [`Error::Eval`]; [`Error::Images`] if the table lists none of the images.
pub fn subgroup_figures(
    plugin: &BoundPlugin,
    answers: &Answers,
    columns: &Columns,
) -> Result<Vec<SubgroupFigure>, Error> {
    let classes = &plugin.card.classes;
    let names: Vec<String> = match plugin.card.kind {
        TaskKind::SingleLabel | TaskKind::MultiLabel => vec!["auc_macro".to_owned()],
        TaskKind::Ordinal => vec!["auc_macro".to_owned(), "kappa_quadratic".to_owned()],
        TaskKind::Segmentation => vec!["dice".to_owned()],
        TaskKind::Regression => classes.iter().map(|number| format!("mae/{number}")).collect(),
    };
    let groups = columns.groups(answers.names.iter().map(String::as_str)).map_err(Error::Images)?;
    let measured = groups.into_iter().map(|group| {
        let found = figures(classes, plugin.calibration(), &answers.of_rows(&group.rows))?;
        let figures = names.iter().map(|name| (name.clone(), found.get(name).copied())).collect();
        Ok(SubgroupFigure { column: group.column, value: group.value, images: group.rows.len(), figures })
    });
    measured.collect()
}
