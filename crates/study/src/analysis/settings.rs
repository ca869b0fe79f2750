//! The settings of a study's trainings, in words.

use crate::error::Error;
use crate::plan::Cell;
use crate::run::Study;
use melo_train::{augmentation_in_words, settings_in_words};
use melo_vit::TaskKind;

/// What every method shares under one name, and what differs method by method; learning rates stand with the methods. The
/// augmentation differs by task.
pub(super) fn settings(study: &Study) -> Result<Vec<(String, String)>, Error> {
    let plan = &study.plan;
    let mut of_methods = Vec::new();
    for (method, settings) in plan.methods.iter().enumerate() {
        let cell = Cell { task: 0, backbone: 0, method, data_fraction: 1.0, fold: None, seed: plan.seeds[0] };
        let (preprocess, config) = crate::cell::settings(plan, &cell, &study.backbones[0])?;
        let size = preprocess.size;
        let words =
            settings_in_words(&config, TaskKind::SingleLabel).into_iter().map(|(name, value)| (name.to_owned(), value));
        let words = words.filter(|(name, _)| !matches!(name.as_str(), "Method" | "Augmentation"));
        let more =
            [("Input".to_owned(), format!("{size} × {size} px")), ("Numbers".to_owned(), plan.precision.to_string())];
        of_methods.push((settings.name.clone(), words.chain(more).collect::<Vec<_>>()));
    }
    let of_tasks = plan
        .tasks
        .iter()
        .map(|task| (task.name.clone(), vec![("Augmentation".to_owned(), augmentation_in_words(&task.augment()))]));
    Ok([merged(&of_methods), merged(&of_tasks.collect::<Vec<_>>())].concat())
}

/// One value where all agree, else each with its owner's name.
fn merged(owners: &[(String, Vec<(String, String)>)]) -> Vec<(String, String)> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in owners.iter().flat_map(|(_, words)| words) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value_of = |name: &String| {
        let values: Vec<(&String, &str)> = owners
            .iter()
            .map(|(owner, words)| {
                let found = words.iter().find(|(known, _)| known == name);
                (owner, found.map_or("none", |(_, value)| value.as_str()))
            })
            .collect();
        match values.iter().all(|(_, value)| *value == values[0].1) {
            true => values[0].1.to_owned(),
            false => values.iter().map(|(owner, value)| format!("{owner}: {value}")).collect::<Vec<_>>().join("; "),
        }
    };
    names.into_iter().map(|name| (name.clone(), value_of(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_names_its_owner() {
        let of = |owner: &str, words: &[(&str, &str)]| {
            (owner.to_owned(), words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let found = merged(&[
            of("lora", &[("Epochs", "20"), ("Batch", "16 images"), ("Dropout", "10 %")]),
            of("full", &[("Epochs", "10"), ("Batch", "16 images")]),
        ]);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let dropout = ("Dropout", "lora: 10 %; full: none");
        assert_eq!(found, [("Epochs", "lora: 20; full: 10"), ("Batch", "16 images"), dropout]);
    }
}
