//! Progress of long work on standard error: a live bar on a terminal, plain lines when piped.

#[cfg(feature = "archive")]
mod archive;
mod study;

use crate::output::is_silent;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use melo::train::{EpochRow, Event, Kept, Solver};
use melo::vit::TaskKind;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

#[cfg(feature = "archive")]
pub(crate) use archive::ArchiveProgress;
pub(crate) use study::StudyProgress;

/// The column heads of the lines of [`epoch_line`].
fn epoch_head(kind: TaskKind, solver: Solver) -> String {
    let figures = validation(kind).into_iter().map(|(head, _)| format!("  {head:>9}")).collect::<String>();
    match solver {
        Solver::AdamW => format!("epoch  train loss  val loss{figures}  learning rate  images/s"),
        Solver::Lbfgs => format!("     C  train loss  val loss{figures}"),
    }
}

/// A figure of the validation split: its head, and where it stands.
type Figure = (&'static str, fn(&EpochRow) -> Option<f64>);

/// Those that are shown of an epoch.
fn validation(kind: TaskKind) -> Vec<Figure> {
    match kind {
        TaskKind::SingleLabel | TaskKind::MultiLabel => {
            vec![("val AUC", |row| row.val_auc_macro), ("val ACC", |row| row.val_acc)]
        }
        TaskKind::Ordinal => vec![("val kappa", |row| row.val_kappa), ("val MAE", |row| row.val_mae)],
        TaskKind::Regression => vec![("val R2", |row| row.val_r2), ("val MAE", |row| row.val_mae)],
        TaskKind::Segmentation => vec![("val Dice", |row| row.val_dice)],
    }
}

/// The same of one epoch in words: `macro AUC 0.9123, ACC 0.8750`.
pub(crate) fn in_words(kind: TaskKind, row: &EpochRow) -> String {
    let names: &[&str] = match kind {
        TaskKind::SingleLabel | TaskKind::MultiLabel => &["macro AUC", "ACC"],
        TaskKind::Ordinal => &["quadratic weighted kappa", "mean distance in grades"],
        TaskKind::Regression => &["R2", "mean absolute error"],
        TaskKind::Segmentation => &["mean Dice"],
    };
    let figures = names.iter().zip(validation(kind));
    let figures = figures.filter_map(|(name, (_, of))| Some(format!("{name} {:.4}", of(row)?)));
    figures.collect::<Vec<_>>().join(", ")
}
/// How often long work says where it stands when nobody watches a bar.
const PIPED_EVERY: Duration = Duration::from_secs(60);

/// A bar that counts to `total`; invisible when standard error is not a terminal.
pub(crate) fn bar(total: usize, what: &'static str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() && !is_silent() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    counting(ProgressBar::with_draw_target(Some(total as u64), target), what)
}

/// A bar that counts `what`, drawn where it already belongs.
fn counting(bar: ProgressBar, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}").expect("the template is valid");
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(what);
    bar
}

/// A bar, or where there is none a line now and then.
pub(crate) struct Counter {
    bar: ProgressBar,
    said: Instant,
}

impl Counter {
    pub(crate) fn new(total: usize, what: &'static str) -> Self {
        Counter { bar: bar(total, what), said: Instant::now() }
    }

    pub(crate) fn set(&mut self, done: usize) {
        self.bar.set_position(done as u64);
        if self.bar.is_hidden() && self.said.elapsed() >= PIPED_EVERY {
            self.said = Instant::now();
            crate::note(format_args!("{} {done} of {}", self.bar.prefix(), self.bar.length().unwrap_or(0)));
        }
    }

    /// Prints without tearing the bar.
    pub(crate) fn print<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows a training run.
pub(crate) struct TrainProgress {
    bar: ProgressBar,
    reading: Option<Counter>,
    kind: TaskKind,
    kept: Kept,
    epochs: usize,
    train_images: usize,
    started: Instant,
    said: Instant,
    images_done: usize,
    epochs_before: usize,
}

impl TrainProgress {
    pub(crate) fn new() -> Self {
        TrainProgress {
            bar: bar(0, "train"),
            reading: None,
            kind: TaskKind::default(),
            kept: Kept::default(),
            epochs: 0,
            train_images: 0,
            started: Instant::now(),
            said: Instant::now(),
            images_done: 0,
            epochs_before: 0,
        }
    }

    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Splits(assigned) => crate::note(assigned),
            Event::Base => self.line("one plug-in, which all folds begin with".to_owned()),
            Event::Fold { fold, of } => self.line(format!("fold {fold} of {of}")),
            Event::Reading { done, of } => {
                self.reading.get_or_insert_with(|| Counter::new(of, "read")).set(done);
                if done == of {
                    self.reading = None;
                }
            }
            Event::Features { done, of } => {
                self.reading.get_or_insert_with(|| Counter::new(of, "features")).set(done);
                if done == of {
                    self.reading = None;
                }
            }
            Event::NoTestFigures(error) => self.line(format!("the card gets no test figures: {error}")),
            Event::Started { card, config, trainable, backbone, images, epochs_done } => {
                (self.kind, self.kept, self.epochs) = (card.kind, config.kept, config.epochs);
                self.train_images = images;
                self.bar.set_length((self.epochs * images) as u64);
                self.started = Instant::now();
                self.said = Instant::now();
                self.epochs_before = epochs_done;
                let percent = percent(trainable, backbone);
                let (trained, all) = (grouped(trainable), grouped(backbone));
                self.line(format!("{trained} trainable parameters, {percent:.3} % of the backbone's {all}"));
                if epochs_done > 0 {
                    self.line(format!(
                        "resuming after epoch {epochs_done}; the learning rate follows the cosine over {} epochs",
                        self.epochs
                    ));
                }
                self.line(epoch_head(card.kind, config.solver));
            }
            Event::Step { epoch, images, loss } => {
                self.images_done = (epoch - 1) * self.train_images + images;
                self.bar.set_position(self.images_done as u64);
                let done = self.images_done - self.epochs_before * self.train_images;
                let rate = done as f64 / self.started.elapsed().as_secs_f64();
                let left = (self.epochs * self.train_images - self.images_done) as f64 / rate;
                let message = format!(
                    "epoch {epoch}/{}  loss {loss:.4}  {rate:.1} images/s  {} left",
                    self.epochs,
                    duration(left)
                );
                if self.bar.is_hidden() && self.said.elapsed() >= PIPED_EVERY {
                    self.said = Instant::now();
                    crate::note(&message);
                }
                self.bar.set_message(message);
            }
            Event::Validating { epoch } => self.bar.set_message(format!("epoch {epoch}/{}  validating", self.epochs)),
            Event::Epoch(row) => self.line(epoch_line(self.kind, self.kept, row)),
            Event::Batch { .. } | Event::Validated { .. } | Event::Card(_) => {}
        }
    }

    fn line(&self, text: String) {
        match self.bar.is_hidden() {
            true => crate::note(text),
            false => self.bar.println(text),
        }
    }

    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// A count with its thousands apart: `86,567,656`.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = digits.as_str();
    while rest.len() > 3 {
        let (front, last) = rest.split_at(rest.len() - 3);
        parts.push(last);
        rest = front;
    }
    parts.push(rest);
    parts.reverse();
    parts.join(",")
}

/// Trained values in percent of the backbone's.
pub(crate) fn percent(trainable: usize, backbone: usize) -> f64 {
    100.0 * trainable as f64 / backbone as f64
}

fn epoch_line(kind: TaskKind, kept: Kept, row: &EpochRow) -> String {
    let mark = if row.best && kept == Kept::Best { "  best" } else { "" };
    let figures = validation(kind).into_iter().map(|(_, of)| format!("  {:>9.4}", of(row).unwrap_or(f64::NAN)));
    let figures: String = figures.collect();
    if let Some(c) = row.c {
        return format!("{c:>6}  {:>10.4}  {:>8.4}{figures}{mark}", row.train_loss, row.val_loss);
    }
    format!(
        "{:>5}  {:>10.4}  {:>8.4}{figures}  {:>13.2e}  {:>8.1}{mark}",
        row.epoch, row.train_loss, row.val_loss, row.learning_rate, row.images_per_s
    )
}

/// Seconds as `1 h 02 min`, `3 min 05 s` or `7 s`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s:02} s"),
        (h, min, _) => format!("{h} h {min:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (86_567_656, "86,567,656")] {
            assert_eq!(grouped(count), text);
        }
    }
}
