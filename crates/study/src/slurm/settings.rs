//! What is asked of Slurm.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// How often a lost cell is submitted again without an epoch in between.
const RETRIES: usize = 2;

/// The table `[slurm]` of a study file, and what overrides it. None of it changes the results.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlurmSettings {
    /// Partition.
    pub partition: Option<String>,
    /// Account.
    pub account: Option<String>,
    /// Limit of wall time a cell, as sbatch takes it.
    pub time: Option<String>,
    /// Memory a cell, as sbatch takes it.
    pub memory: Option<String>,
    /// Processors a cell, and its threads.
    pub cpus: Option<usize>,
    /// Cells at a time.
    pub jobs: Option<usize>,
    /// Further options of sbatch, `--qos=long`.
    #[serde(default)]
    pub options: Vec<String>,
    /// File with the script of a task.
    pub template: Option<PathBuf>,
    /// How often a lost cell is submitted again without an epoch in between.
    pub retries: Option<usize>,
}

/// Options by which a study knows its jobs again.
const OWN: [(&str, &str); 8] = [
    ("--array", "-a"),
    ("--job-name", "-J"),
    ("--output", "-o"),
    ("--error", "-e"),
    ("--clusters", "-M"),
    ("--wrap", "--wrap"),
    ("--wait", "-W"),
    ("--test-only", "--test-only"),
];

impl SlurmSettings {
    /// These, and what they leave open from others; options of both.
    pub fn or(self, others: SlurmSettings) -> Self {
        SlurmSettings {
            partition: self.partition.or(others.partition),
            account: self.account.or(others.account),
            time: self.time.or(others.time),
            memory: self.memory.or(others.memory),
            cpus: self.cpus.or(others.cpus),
            jobs: self.jobs.or(others.jobs),
            options: [others.options, self.options].concat(),
            template: self.template.or(others.template),
            retries: self.retries.or(others.retries),
        }
    }

    /// The same with paths relative to a folder.
    pub(crate) fn in_folder(self, folder: &Path) -> Self {
        SlurmSettings { template: self.template.map(|template| folder.join(template)), ..self }
    }

    /// Processors a cell.
    pub fn cpus(&self) -> usize {
        self.cpus.unwrap_or(1)
    }

    pub(crate) fn retries(&self) -> usize {
        self.retries.unwrap_or(RETRIES)
    }

    /// Checks what a script is made of.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (key, value) in self.values() {
            if value.trim().is_empty() || value.chars().any(char::is_control) {
                return Err(format!("slurm.{key}: {value:?}: expected one line of text"));
            }
        }
        for option in &self.options {
            if !option.starts_with('-') || option.chars().any(char::is_control) {
                return Err(format!(
                    "slurm.options: {option:?}: expected an option of sbatch in one line, such as \"--qos=long\""
                ));
            }
            let is = |name: &str| {
                option == name || option.strip_prefix(name).is_some_and(|rest| rest.starts_with(['=', ' ']))
            };
            let short = |name: &str| !name.starts_with("--") && option.starts_with(name);
            if OWN.iter().any(|(long, letter)| is(long) || is(letter) || short(letter)) {
                return Err(format!("slurm.options: {option:?}: the study sets this itself, and knows its jobs by it"));
            }
        }
        for (key, value) in [("cpus", self.cpus), ("jobs", self.jobs)] {
            if value == Some(0) {
                return Err(format!("slurm.{key}: 0: expected 1 or more"));
            }
        }
        Ok(())
    }

    fn values(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let all = [
            ("partition", &self.partition),
            ("account", &self.account),
            ("time", &self.time),
            ("memory", &self.memory),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    /// The options of sbatch that follow, in its own words.
    pub(crate) fn sbatch_options(&self) -> Vec<String> {
        let mut options: Vec<String> = self
            .values()
            .map(|(key, value)| {
                let option = if key == "memory" { "mem" } else { key };
                format!("--{option}={}", super::script::quoted_option(value))
            })
            .collect();
        options.push(format!("--cpus-per-task={}", self.cpus()));
        options.extend(self.options.iter().cloned());
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: SlurmSettings, parts: &[&str]) {
        let said = settings.check().unwrap_err();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }

    #[test]
    fn what_a_script_cannot_hold_is_refused_by_the_key() {
        let none = SlurmSettings::default;
        assert_eq!(none().check(), Ok(()));
        refused(SlurmSettings { partition: Some("a\nb".into()), ..none() }, &["slurm.partition"]);
        refused(SlurmSettings { time: Some(String::new()), ..none() }, &["slurm.time"]);
        refused(SlurmSettings { cpus: Some(0), ..none() }, &["slurm.cpus"]);
        for option in ["qos=long", "--qos=a\nrm -r /"] {
            refused(SlurmSettings { options: vec![option.into()], ..none() }, &["slurm.options", "--qos=long"]);
        }
        for option in ["--array=1-3", "-a1-3", "-J x", "--job-name x", "--output=x", "-Mother"] {
            refused(SlurmSettings { options: vec![option.into()], ..none() }, &["slurm.options", option]);
        }
        assert_eq!(
            SlurmSettings { options: vec!["--error-free".into(), "--gres=gpu:1".into()], ..none() }.check(),
            Ok(())
        );
    }

    #[test]
    fn what_is_given_goes_before_the_file() {
        let flags = SlurmSettings { partition: Some("gpu".into()), options: vec!["-v".into()], ..Default::default() };
        let file = SlurmSettings {
            partition: Some("cpu".into()),
            cpus: Some(4),
            options: vec!["-H".into()],
            ..Default::default()
        };
        let both = flags.or(file);
        assert_eq!((both.partition.as_deref(), both.cpus), (Some("gpu"), Some(4)));
        assert_eq!(both.sbatch_options(), ["--partition=gpu", "--cpus-per-task=4", "-H", "-v"]);
    }
}
