//! The script of an array: options, and a command that computes the cell of its task.

use super::settings::SlurmSettings;
use crate::error::Error;
use std::path::Path;

/// The script where no file gives another.
const TEMPLATE: &str = "#!/bin/sh\n{{options}}\n{{command}}\n";

/// What a script must have, and what stands there.
const PLACEHOLDERS: [&str; 2] = ["{{options}}", "{{command}}"];

/// An array to be.
pub(crate) struct Script<'a> {
    pub(crate) settings: &'a SlurmSettings,
    /// The array's name.
    pub(crate) name: &'a str,
    /// Its folder, absolute.
    pub(crate) folder: &'a Path,
    /// Its tasks, from 1.
    pub(crate) tasks: usize,
    /// A program and its arguments; the name of a cell is its last.
    pub(crate) command: &'a [String],
}

impl Script<'_> {
    /// The text to submit.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Template`].
    pub(crate) fn text(&self) -> Result<String, Error> {
        let template = match &self.settings.template {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.clone(), source })?;
                check(&text).map_err(|reason| Error::Template { path: path.clone(), reason })?;
                text
            }
            None => TEMPLATE.to_owned(),
        };
        let mut template = template.replace(PLACEHOLDERS[0], &self.options()).replace(PLACEHOLDERS[1], &self.task());
        if !template.ends_with('\n') {
            template.push('\n');
        }
        Ok(template)
    }

    fn options(&self) -> String {
        let at_once = self.settings.jobs.map_or(String::new(), |jobs| format!("%{jobs}"));
        let log = self.folder.to_string_lossy().replace('%', "%%") + "/%a.log";
        let own = [
            format!("--job-name={}", self.name),
            format!("--array=1-{}{at_once}", self.tasks),
            format!("--output={}", quoted_option(&log)),
            // A task that the scheduler starts again goes on in the same log.
            "--open-mode=append".to_owned(),
        ];
        let options = own.into_iter().chain(self.settings.sbatch_options());
        options.map(|option| format!("#SBATCH {option}")).collect::<Vec<_>>().join("\n")
    }

    fn task(&self) -> String {
        let cells = quoted(&self.folder.join("cells").to_string_lossy());
        let command: Vec<_> = self.command.iter().map(|word| quoted(word)).collect();
        // Signals reach the program itself.
        format!("cell=$(sed -n \"${{SLURM_ARRAY_TASK_ID}}p\" {cells})\nexec {} \"$cell\"", command.join(" "))
    }
}

/// Requires a script of a shell with all placeholders, and no others.
fn check(template: &str) -> Result<(), String> {
    if !template.starts_with("#!") {
        return Err("expected a script whose first line is #! and a shell".to_owned());
    }
    for placeholder in PLACEHOLDERS {
        if template.matches(placeholder).count() != 1 {
            return Err(format!("expected {placeholder} once"));
        }
    }
    let other = template
        .split("{{")
        .skip(1)
        .find(|part| !PLACEHOLDERS.iter().any(|known| known[2..] == part[..part.len().min(known.len() - 2)]));
    match other.and_then(|part| part.split_once("}}")) {
        Some((name, _)) => Err(format!("{{{{{name}}}}} stands for nothing")),
        None => Ok(()),
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A value as sbatch takes it in a script's line.
pub(crate) fn quoted_option(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+[]*".contains(c);
    match value.chars().all(plain) {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(settings: &SlurmSettings) -> Result<String, Error> {
        let command = ["/opt/me lo/melo", "study", "it's.toml", "--cell"].map(str::to_owned);
        let folder = Path::new("/data/50%/out/slurm/001");
        Script { settings, name: "melo-small-1", folder, tasks: 8, command: &command }.text()
    }

    #[test]
    fn the_script_is_options_and_a_command() {
        let settings = SlurmSettings {
            partition: Some("cpu".into()),
            memory: Some("8G".into()),
            cpus: Some(2),
            jobs: Some(3),
            options: vec!["--qos=long".into()],
            ..SlurmSettings::default()
        };
        let expected = "#!/bin/sh\n#SBATCH --job-name=melo-small-1\n#SBATCH --array=1-8%3\n\
            #SBATCH --output=/data/50%%/out/slurm/001/%a.log\n#SBATCH --open-mode=append\n#SBATCH --partition=cpu\n\
            #SBATCH --mem=8G\n#SBATCH --cpus-per-task=2\n#SBATCH --qos=long\n\
            cell=$(sed -n \"${SLURM_ARRAY_TASK_ID}p\" /data/50%/out/slurm/001/cells)\n\
            exec '/opt/me lo/melo' study 'it'\\''s.toml' --cell \"$cell\"\n";
        assert_eq!(text(&settings).unwrap(), expected);
    }

    #[test]
    fn a_template_without_a_placeholder_is_refused_by_its_name() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("task.sh");
        let settings = SlurmSettings { template: Some(path.clone()), ..SlurmSettings::default() };
        let refused = |template: &str, part: &str| {
            std::fs::write(&path, template).unwrap();
            let said = text(&settings).unwrap_err().to_string();
            assert!(said.contains("task.sh") && said.contains(part), "{said}");
        };
        refused("#!/bin/bash\n{{options}}\n", "{{command}} once");
        refused("#!/bin/bash\n{{command}}\n", "{{options}} once");
        refused("#!/bin/bash\n{{options}}\n{{command}}\n{{command}}", "{{command}} once");
        refused("#!/bin/bash\n{{options}}\n{{gpus}}\n{{command}}\n", "{{gpus}}");
        refused("{{options}}\n{{command}}\n", "#!");
        std::fs::write(&path, "#!/bin/bash\n{{options}}\n#SBATCH --gres=gpu:1\nmodule load melo\n{{command}}").unwrap();
        let text = text(&settings).unwrap();
        assert!(
            text.contains("\n#SBATCH --gres=gpu:1\nmodule load melo\ncell=") && text.ends_with("\"$cell\"\n"),
            "{text}"
        );
    }
}
