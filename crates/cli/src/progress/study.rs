//! Progress of a study: on a terminal a table of tasks and methods that fills up, above a bar and the cells in work;
//! one line a finished cell when piped, and one where the queue of a cluster has changed.

use super::{PIPED_EVERY, counting, duration};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use melo::study::{Cell, CellResult, Plan, StudyEvent};
use melo::train::EpochRow;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Instant;

/// Shows a study. Validation figures only: who watches must not choose by the test split.
pub(crate) struct StudyProgress {
    view: MultiProgress,
    rows: Vec<ProgressBar>,
    total: ProgressBar,
    working: Vec<(Cell, ProgressBar)>,
    /// Best validation AUC of every finished cell, by task and method.
    found: BTreeMap<(usize, usize), Vec<f64>>,
    started: Instant,
    cells: usize,
    done_before: usize,
    done: usize,
    failed: usize,
    /// How the queue stood when a line was last printed.
    queue: (String, Instant),
}

impl StudyProgress {
    pub(crate) fn new(plan: &Plan) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let view = MultiProgress::with_draw_target(match terminal {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        });
        let line = |text: String| {
            let line = view.add(ProgressBar::no_length().with_style(plain()));
            line.set_message(text);
            line
        };
        let head: String = plan.methods.iter().map(|method| format!("{:>16}", shortened(&method.name, 15))).collect();
        let mut rows = vec![line(format!("{:<24}{head}", "validation AUC"))];
        rows.extend(plan.tasks.iter().map(|task| line(shortened(&task.name, 23))));
        // Added before it draws: a bar of its own would leave a line of the table behind.
        let total = counting(view.add(ProgressBar::new(plan.cells().len() as u64)), "cells");
        StudyProgress {
            view,
            rows,
            total,
            working: Vec::new(),
            found: BTreeMap::new(),
            started: Instant::now(),
            cells: 0,
            done_before: 0,
            done: 0,
            failed: 0,
            queue: (String::new(), Instant::now()),
        }
    }

    pub(crate) fn show(&mut self, plan: &Plan, event: StudyEvent) {
        match event {
            StudyEvent::Started { cells, done } => {
                (self.cells, self.done_before, self.done) = (cells, done, done);
                self.say(format!("{cells} cells, {done} of them done before"));
            }
            StudyEvent::Submitted { job, cells } => self.say(format!("job {job}: {cells} cells submitted")),
            StudyEvent::Unheard { said } => self.say(format!("Slurm does not answer, and is asked again: {said}")),
            StudyEvent::Queue { running, waiting, reasons } => self.stand(running, waiting, &reasons),
            StudyEvent::CellLost { cell, how } => {
                self.end(plan, &cell);
                self.say(format!("{} was lost and is submitted again: {how}", plan.cell_name(&cell)));
            }
            StudyEvent::CellStarted { cell } => {
                // A scheduler may have started it before.
                self.end(plan, &cell);
                let line = self.view.add(ProgressBar::no_length().with_style(plain()));
                line.set_message(plan.cell_name(&cell));
                self.working.push((cell, line));
            }
            StudyEvent::Epoch { cell, row } => {
                if let Some((_, line)) = self.working.iter().find(|(working, _)| *working == cell) {
                    let name = plan.cell_name(&cell);
                    line.set_message(format!(
                        "{name}  epoch {}  loss {:.4}  val AUC {:.4}  {:.1} images/s",
                        row.epoch,
                        row.train_loss,
                        auc(&row),
                        row.images_per_s
                    ));
                }
            }
            StudyEvent::CellDone { cell, result } => {
                self.done += 1;
                self.end(plan, &cell);
                self.say(self.line(plan, &cell, &result));
                let best = result.history.iter().rev().find(|row| row.best).map_or(0.0, auc);
                self.found.entry((cell.task, cell.method)).or_default().push(best);
                self.fill(plan, cell.task);
            }
            StudyEvent::CellFailed { cell, reason } => {
                self.failed += 1;
                self.end(plan, &cell);
                self.say(format!("{} failed: {reason}", plan.cell_name(&cell)));
            }
        }
        self.total.set_position(self.done as u64);
    }

    /// How the queue stands: on the bar, or in a line where it is another than before, but not more often than now and then.
    fn stand(&mut self, running: usize, waiting: usize, reasons: &[(String, usize)]) {
        let reasons: Vec<_> = reasons.iter().map(|(reason, cells)| format!("{cells} {reason}")).collect();
        let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let left = self.left().map_or(String::new(), |left| format!("  {} left", duration(left)));
        let stand = format!("{running} running, {waiting} waiting{why}, {} done{failed}", self.done);
        self.total.set_message(format!("{stand}{left}"));
        let (said, since) = &self.queue;
        let is_new = running + waiting > 0 && *said != stand;
        if self.total.is_hidden() && is_new && (said.is_empty() || since.elapsed() >= PIPED_EVERY) {
            crate::note(format_args!("{stand}{left}"));
            self.queue = (stand, Instant::now());
        }
    }

    /// Seconds until all cells are done, by those of this run; none before the first.
    fn left(&self) -> Option<f64> {
        let fresh = self.done - self.done_before;
        let a_cell = self.started.elapsed().as_secs_f64() / fresh as f64;
        (fresh > 0).then(|| a_cell * (self.cells - self.done) as f64)
    }

    fn line(&self, plan: &Plan, cell: &Cell, result: &CellResult) -> String {
        let best = result.history.iter().rev().find(|row| row.best).unwrap_or(&result.history[0]);
        format!(
            "[{}/{}] {}  val AUC {:.4} at epoch {} of {}  {:.1} images/s, {}, {} left",
            self.done,
            self.cells,
            plan.cell_name(cell),
            auc(best),
            best.epoch,
            result.history.len(),
            result.history.iter().map(|row| row.images_per_s).sum::<f64>() / result.history.len() as f64,
            duration(result.seconds),
            duration(self.left().unwrap_or(0.0)),
        )
    }

    /// The table's row of a task: mean and number of finished cells of each method.
    fn fill(&self, plan: &Plan, task: usize) {
        let entry = |method: usize| match self.found.get(&(task, method)) {
            Some(values) => format!("{:.4} ({})", values.iter().sum::<f64>() / values.len() as f64, values.len()),
            None => "-".to_owned(),
        };
        let entries: String = (0..plan.methods.len()).map(|method| format!("{:>16}", entry(method))).collect();
        self.rows[1 + task].set_message(format!("{:<24}{entries}", shortened(&plan.tasks[task].name, 23)));
    }

    fn end(&mut self, plan: &Plan, cell: &Cell) {
        let name = plan.cell_name(cell);
        self.working.retain(|(working, line)| {
            let ended = plan.cell_name(working) == name;
            if ended {
                line.finish_and_clear();
            }
            !ended
        });
    }

    fn say(&self, text: String) {
        match self.total.is_hidden() {
            true => crate::note(text),
            // The table may be drawn by a terminal that is gone.
            false => drop(self.view.println(text)),
        }
    }

    pub(crate) fn finish(self) {
        let rows = self.rows.iter().chain(self.working.iter().map(|(_, line)| line));
        rows.chain([&self.total]).for_each(ProgressBar::finish_and_clear);
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").expect("the template is valid")
}

/// The first characters of a name, where it is longer.
fn shortened(name: &str, width: usize) -> String {
    match name.chars().count() > width {
        true => name.chars().take(width - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// Studies are of tasks that have one.
fn auc(row: &EpochRow) -> f64 {
    row.val_auc_macro.unwrap_or(f64::NAN)
}
