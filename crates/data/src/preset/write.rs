//! A manifest made by a preset as CSV.

use std::path::Path;

use melo_vit::{TaskKind, folder_of, write_atomically};

use super::{Applied, PresetError};
use crate::relative::way_between;
use crate::{Error, Labels};

impl Applied {
    /// Writes the CSV that [`Manifest::read`](crate::Manifest::read) reads, atomically; paths are relative to its folder.
    ///
    /// # Errors
    /// [`PresetError::Problems`] if the report has any; [`Error::Write`] from the disk.
    pub fn write(&self, csv: &Path) -> Result<(), Error> {
        if !self.report.problems.is_empty() {
            return Err(PresetError::Problems {
                folder: self.report.folder.clone(),
                preset: self.report.preset.clone(),
                problems: self.report.problem_count(),
            }
            .into());
        }
        Ok(write_atomically(csv, &self.to_csv(&way_between(folder_of(csv), &self.manifest.path)))?)
    }

    /// The CSV with `prefix` before every name.
    fn to_csv(&self, prefix: &str) -> Vec<u8> {
        let manifest = &self.manifest;
        let splits = manifest.has_splits();
        let patients = manifest.rows.iter().any(|row| row.patient_id.is_some());
        let mut header = vec!["path"];
        header.extend(splits.then_some("split"));
        if manifest.kind == TaskKind::MultiLabel {
            header.extend(manifest.classes.iter().map(String::as_str));
        } else {
            header.push("label");
        }
        header.extend(patients.then_some("patient_id"));
        let mut lines = csv::Writer::from_writer(Vec::new());
        write_record(&mut lines, &header);
        for row in &manifest.rows {
            let path = format!("{prefix}{}", row.name);
            let mut record = vec![path.as_str()];
            record.extend(splits.then(|| row.split.map_or("", crate::Split::word)));
            match &row.labels {
                Labels::Single(class) => record.push(&manifest.classes[*class]),
                Labels::Multi(findings) => record.extend(findings.iter().map(|&f| if f == 1 { "1" } else { "0" })),
                Labels::Values(_) => unreachable!("presets have classes or findings"),
            }
            record.extend(patients.then(|| row.patient_id.as_deref().unwrap_or_default()));
            write_record(&mut lines, &record);
        }
        lines.into_inner().expect("memory takes every byte")
    }
}

fn write_record(lines: &mut csv::Writer<Vec<u8>>, record: &[&str]) {
    lines.write_record(record).expect("memory takes every byte, and records are of one length");
}
