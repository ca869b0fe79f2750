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
            let mut conditions = conditions.collect::<Result<Vec<Condition>, _>>()?;
            // The usual attributes first, in the order of the table: a reason names what is asked first.
            let place = |condition: &Condition| KEYS.iter().position(|known| known.1 == condition.keyword);
            conditions.sort_by_key(|condition| place(condition).unwrap_or(KEYS.len()));
            Ok(Route { tasks: route.tasks.clone(), conditions })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::config::Values;

    fn routes(text: &[(&str, &[&str], &str)]) -> Result<Routes, Error> {
        let route = |(key, values, task): &(&str, &[&str], &str)| RouteConfig {
            tasks: vec![(*task).to_owned()],
            conditions: [((*key).to_owned(), Values::Many(values.iter().map(|value| (*value).to_owned()).collect()))]
                .into(),
        };
        Routes::new(&DicomConfig { route: text.iter().map(route).collect(), ..DicomConfig::default() })
    }

    /// A data set in implicit VR: group, element, value.
    fn image(elements: &[(u16, u16, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (group, element, value) in elements {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            let odd = value.len() % 2;
            bytes.extend(((value.len() + odd) as u32).to_le_bytes());
            bytes.extend(value.as_bytes());
            bytes.extend(std::iter::repeat_n(b' ', odd));
        }
        bytes
    }

    #[test]
    fn every_route_that_takes_an_image_adds_its_tasks() {
        let image = image(&[
            (0x0008, 0x0016, "1.2"),
            (0x0008, 0x0060, "DX"),
            (0x0008, 0x1010, "ROOM 1"),
            (0x0018, 0x0015, "CHEST "),
        ]);
        let routes = routes(&[
            ("modality", &["cr", "dx"], "a"),
            ("body-part", &["Chest"], "b"),
            ("station", &["room 1"], "a"),
            ("StationName", &["room 2"], "c"),
            ("0018,0015", &["CHEST"], "d"),
        ]);
        assert_eq!(routes.expect("routes").tasks(&image), Ok(vec!["a".to_owned(), "b".to_owned(), "d".to_owned()]));
    }

    #[test]
    fn a_refusal_names_the_attribute_and_its_value() {
        let image = image(&[(0x0008, 0x0016, "1.2"), (0x0008, 0x0060, "MR")]);
        let routes = routes(&[("modality", &["DX"], "a"), ("view-position", &["PA"], "b")]).expect("routes");
        let reason = routes.tasks(&image).expect_err("out of scope");
        assert_eq!(
            reason,
            "out of scope: route 1: Modality is `MR`, expected DX; route 2: ViewPosition is missing, expected PA"
        );
    }

    #[test]
    fn settings_that_mean_nothing_are_refused_by_key() {
        for (key, values) in
            [("colour", &["red"][..]), ("PatientName", &["x"]), ("patient-id", &["x"]), ("modality", &[])]
        {
            let error = routes(&[(key, values, "a")]).expect_err(key).to_string();
            assert!(error.contains("route 1") && error.contains(key), "{error}");
        }
        assert!(routes(&[("PatientSex", &["F"], "a"), ("sop-class", &["CTImageStorage"], "a")]).is_ok());
    }
}
