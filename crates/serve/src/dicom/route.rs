//! Which image is for which tasks. Every route that takes an image adds its tasks; one that no route takes is out of
//! scope.

use super::config::{DicomConfig, RouteConfig};
use crate::error::Error;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, UidDictionary};
use dicom_dictionary_std::{StandardDataDictionary, StandardSopClassDictionary};
use std::path::Path;

/// Routes that are named when none takes an image.
const NAMED: usize = 4;
/// Characters of an image's value that are named.
const SHOWN: usize = 64;

/// Keys with a name of their own.
const KEYS: [(&str, &str); 5] = [
    ("modality", "Modality"),
    ("body-part", "BodyPartExamined"),
    ("view-position", "ViewPosition"),
    ("sop-class", "SOPClassUID"),
    ("station", "StationName"),
];

/// All routes, ready to be asked.
#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
    /// For images that no route takes.
    otherwise: Vec<String>,
}

#[derive(Debug)]
struct Route {
    tasks: Vec<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    keyword: String,
    /// As `melo_imaging::dicom::header` takes it.
    tag: String,
    values: Vec<String>,
}

impl Routes {
    /// # Errors
    /// [`Error::Settings`], naming the route and the key.
    pub(super) fn new(config: &DicomConfig) -> Result<Self, Error> {
        let route = |(index, route): (usize, &RouteConfig)| {
            let wrong = |reason: String| Error::Settings(format!("dicom: route {}: {reason}", index + 1));
            if route.tasks.is_empty() {
                return Err(wrong("`tasks` is empty".to_owned()));
            }
            if route.conditions.is_empty() {
                return Err(wrong(
                    "no attribute is named; `tasks` of the table itself are for all other images".to_owned(),
                ));
            }
            let conditions = route.conditions.iter().map(|(key, values)| condition(key, values.all()).map_err(wrong));
            Ok(Route { tasks: route.tasks.clone(), conditions: conditions.collect::<Result<_, _>>()? })
        };
        let routes = config.route.iter().enumerate().map(route).collect::<Result<_, _>>()?;
        Ok(Routes { routes, otherwise: config.tasks.clone() })
    }

    /// Tasks for an image.
    ///
    /// # Errors
    /// A sentence that names attributes, the image's values, and what was expected.
    pub(super) fn tasks(&self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut tasks: Vec<String> = Vec::new();
        let mut reasons = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            match route.mismatch(bytes)? {
                None => {
                    tasks.extend(route.tasks.iter().filter(|task| !tasks.contains(task)).cloned().collect::<Vec<_>>())
                }
                Some(reason) if reasons.len() < NAMED => reasons.push(format!("route {}: {reason}", index + 1)),
                Some(_) => {}
            }
        }
        match tasks.is_empty() {
            false => Ok(tasks),
            true if !self.otherwise.is_empty() => Ok(self.otherwise.clone()),
            true => Err(format!("out of scope: {}", reasons.join("; "))),
        }
    }
}

impl Route {
    /// The first condition that an image does not meet.
    fn mismatch(&self, bytes: &[u8]) -> Result<Option<String>, String> {
        let tags: Vec<&str> = self.conditions.iter().map(|condition| condition.tag.as_str()).collect();
        let found =
            melo_imaging::dicom::header(bytes, Path::new("object"), &tags).map_err(|error| error.to_string())?;
        for (condition, found) in self.conditions.iter().zip(found) {
            let found = found.unwrap_or_default();
            let same = |value: &str| condition.values.iter().any(|wanted| wanted.eq_ignore_ascii_case(value.trim()));
            if found.split('\\').any(same) {
                continue;
            }
            let wanted = condition.values.join(" or ");
            let shown: String = found.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            let found = if found.is_empty() { "missing".to_owned() } else { format!("`{shown}`") };
            return Ok(Some(format!("{} is {found}, expected {wanted}", condition.keyword)));
        }
        Ok(None)
    }
}

fn condition(key: &str, values: &[String]) -> Result<Condition, String> {
    let keyword = KEYS.iter().find(|known| known.0 == key).map_or(key, |known| known.1);
    let entry = StandardDataDictionary.by_expr(keyword);
    let entry = entry.ok_or_else(|| format!("`{key}` is neither a key of routes nor the keyword of an attribute"))?;
    let tag = entry.tag();
    // What identifies a patient decides nothing, and so never comes into a reason or a log.
    if tag.group() == 0x0010 && !matches!(entry.alias(), "PatientSex" | "PatientAge") {
        return Err(format!("`{key}` identifies the patient; no route may ask for it"));
    }
    if values.is_empty() {
        return Err(format!("`{key}` has no value"));
    }
    let sop_class = |value: &String| match StandardSopClassDictionary.by_keyword(value) {
        Some(class) => class.uid.to_owned(),
        None => value.clone(),
    };
    let values = match keyword {
        "SOPClassUID" => values.iter().map(sop_class).collect(),
        _ => values.to_vec(),
    };
    Ok(Condition {
        keyword: entry.alias().to_owned(),
        tag: format!("{:04x}{:04x}", tag.group(), tag.element()),
        values,
    })
}
