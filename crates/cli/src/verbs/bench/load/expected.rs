//! What a right server answers: every plug-in on every image, by the code of `melo predict`.

use super::super::files::{Format, synthetic};
use crate::Failure;
use crate::progress::bar;
use melo::predict::{Predictor, Prepared};
use melo::vit::{BoundPlugin, Preprocess};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image as it is sent.
pub(crate) struct Image {
    pub(crate) name: String,
    /// A PNG.
    pub(crate) bytes: Vec<u8>,
}

/// A task, and what it says of every image.
pub(crate) struct Task {
    /// SHA-256 of the plug-in's file, the version that a server must name.
    pub(crate) digest: String,
    pub(crate) classes: Vec<String>,
    /// `[images][c]`
    pub(crate) probabilities: Vec<Vec<f32>>,
}

/// All of it.
pub(crate) struct Expected {
    pub(crate) images: Vec<Image>,
    pub(crate) tasks: Vec<Task>,
}

impl Expected {
    pub(crate) fn compute(predictor: &Predictor, folder: &Path, images: usize, side: usize) -> Result<Self, Failure> {
        let plugins: Vec<Arc<BoundPlugin>> =
            plugin_files(folder)?.iter().map(|path| Ok(predictor.plugin(path)?)).collect::<Result<_, Failure>>()?;
        let specs: Vec<&Preprocess> = plugins.iter().map(|plugin| &plugin.card.preprocess).collect();
        let task = |plugin: &Arc<BoundPlugin>| Task {
            digest: plugin.digest.clone(),
            classes: plugin.card.classes.clone(),
            probabilities: Vec::new(),
        };
        let mut tasks: Vec<Task> = plugins.iter().map(task).collect();
        let mut sent = Vec::new();
        let bar = bar(images, "expect");
        for number in 0..images {
            let name = format!("phantom_{number:04}.png");
            let bytes = Format::Png.encode(&synthetic(number, side))?;
            let prepared = Prepared::of_bytes(&bytes, Path::new(&name), &specs, false)?;
            let predictions = predictor.predict_prepared(&[&prepared], &plugins)?.swap_remove(0);
            for (task, prediction) in tasks.iter_mut().zip(predictions) {
                task.probabilities.push(prediction.decision.probabilities);
            }
            sent.push(Image { name, bytes });
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Expected { images: sent, tasks })
    }

    /// Smallest difference between the answers of two tasks to one image, or of one task to two images: exchanged answers
    /// that differ by less than the tolerance would pass for right. Infinite where there is only one answer.
    pub(crate) fn closest(&self) -> f32 {
        let all: Vec<(usize, usize, &[f32])> = (self.tasks.iter().enumerate())
            .flat_map(|(task, t)| t.probabilities.iter().enumerate().map(move |(image, p)| (task, image, p.as_slice())))
            .collect();
        let pairs = all.iter().enumerate().flat_map(|(i, a)| all[..i].iter().map(move |b| (a, b)));
        let exchanged = pairs.filter(|(a, b)| (a.0 == b.0) != (a.1 == b.1) && a.2.len() == b.2.len());
        exchanged.map(|(a, b)| difference(a.2, b.2)).fold(f32::INFINITY, f32::min)
    }
}

/// Largest difference of two probabilities of one class.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn plugin_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::Message(format!("{}: {error}", folder.display()));
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut files: Vec<PathBuf> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    if files.is_empty() {
        return Err(Failure::Message(format!("{}: holds no .safetensors file", folder.display())));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_answers_are_those_of_one_task_or_of_one_image() {
        let task = |probabilities: [[f32; 2]; 2]| Task {
            digest: String::new(),
            classes: vec!["a".into(), "b".into()],
            probabilities: probabilities.map(Vec::from).to_vec(),
        };
        // Task 0 on image 0 and task 1 on image 1 are equal, which nobody can exchange by one mistake.
        let tasks = vec![task([[0.5, 0.5], [0.75, 0.25]]), task([[0.875, 0.125], [0.5, 0.5]])];
        assert_eq!(Expected { images: Vec::new(), tasks }.closest(), 0.25);
        assert_eq!(Expected { images: Vec::new(), tasks: Vec::new() }.closest(), f32::INFINITY);
    }
}
