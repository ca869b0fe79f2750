//! Metrics as plain text for a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::Metrics;

/// The classic terminal.
const COLUMNS: usize = 80;
/// Longest name on one line: what the widest row of numbers leaves of [`COLUMNS`].
const NAME_COLUMNS: usize = 28;

/// A report for a terminal of 80 columns: headline, one row a class, then the confusion matrix (or, for
/// multi-label, each finding's 2 × 2 counts).
///
/// `classes [c]` are names of any length and script: long ones continue on the next line, control
/// characters are replaced, a missing one becomes `class 3`. A matrix too wide is cut into panels.
pub fn table(metrics: &Metrics, classes: &[String]) -> String {
    let names: Vec<String> = (0..metrics.counts_per_class.len())
        .map(|class| classes.get(class).map_or_else(|| format!("class {class}"), |name| printable(name)))
        .collect();
    let mut out = String::new();
    push_headline(&mut out, metrics);
    out.push('\n');
    push_classes(&mut out, metrics, &names);
    out.push('\n');
    match &metrics.confusion {
        Some(confusion) => push_confusion(&mut out, confusion, &names),
        None => push_counts(&mut out, metrics, &names),
    }
    out
}

fn push_headline(out: &mut String, metrics: &Metrics) {
    let cell = |heading: &str, value: String| vec![heading.to_owned(), value];
    let mut cells = vec![cell("ACC", number(metrics.acc))];
    if metrics.confusion.is_none() {
        cells.push(cell("exact match", number(metrics.exact_match)));
    }
    cells.push(cell("macro AUC", auc(metrics.auc_macro)));
    cells.push(cell("micro AUC", auc(metrics.auc_micro)));
    cells.push(cell("macro F1", number(metrics.f1_macro)));
    cells.push(cell("bal. ACC", auc(metrics.balanced_acc)));
    push_grid(out, &cell("images", metrics.n.to_string()), &cells);
}

fn push_classes(out: &mut String, metrics: &Metrics, names: &[String]) {
    let fractions = |heading: &str, values: &[Option<f64>]| {
        headed(heading, values.iter().map(|value| value.map_or_else(|| "-".to_owned(), number)))
    };
    let columns = [
        headed("cases", metrics.positives_per_class.iter().map(u64::to_string)),
        headed("AUC", metrics.auc_per_class.iter().copied().map(auc)),
        fractions("sens.", &metrics.sensitivity_per_class),
        fractions("spec.", &metrics.specificity_per_class),
        fractions("prec.", &metrics.precision_per_class),
        fractions("F1", &metrics.f1_per_class),
    ];
    push_grid(out, &headed("class", names.iter().cloned()), &columns);

    let undefined = metrics.auc_per_class.iter().filter(|auc| auc.is_none()).count();
    if undefined > 0 {
        out.push_str(&format!(
            "AUC undefined for {undefined} of {} classes (no case, or nothing but cases),\n\
             left out of the macro AUC.\n",
            names.len()
        ));
    }
    let fractions = [
        &metrics.sensitivity_per_class,
        &metrics.specificity_per_class,
        &metrics.precision_per_class,
        &metrics.f1_per_class,
    ];
    if fractions.iter().any(|values| values.contains(&None)) {
        out.push_str("- is 0/0, undefined; it counts as 0 in macro F1, as in scikit-learn.\n");
    }
}

fn push_confusion(out: &mut String, confusion: &[Vec<u64>], names: &[String]) {
    out.push_str("confusion (rows: true class, columns: predicted class)\n");
    let digits = confusion.len().saturating_sub(1).to_string().len();
    let rows = names.iter().enumerate().map(|(class, name)| format!("{class:>digits$} {name}"));
    let columns: Vec<_> = (0..confusion.len())
        .map(|predicted| {
            let images = confusion.iter().map(|row| row.get(predicted).map_or_else(String::new, u64::to_string));
            headed(&predicted.to_string(), images)
        })
        .collect();
    push_grid(out, &headed("", rows), &columns);
}

fn push_counts(out: &mut String, metrics: &Metrics, names: &[String]) {
    out.push_str("counts at the thresholds\n");
    let count = |heading: &str, of: fn(&crate::Counts) -> u64| {
        headed(heading, metrics.counts_per_class.iter().map(|counts| of(counts).to_string()))
    };
    let columns = [
        count("found", |counts| counts.true_positive),
        count("missed", |counts| counts.false_negative),
        count("false alarm", |counts| counts.false_positive),
        count("rightly clear", |counts| counts.true_negative),
    ];
    push_grid(out, &headed("class", names.iter().cloned()), &columns);
}

fn number(value: f64) -> String {
    format!("{value:.4}")
}

fn auc(value: Option<f64>) -> String {
    value.map_or_else(|| "undefined".to_owned(), number)
}

fn headed(heading: &str, cells: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(heading.to_owned()).chain(cells).collect()
}

/// Names come from files: no escape sequence in one may reach the terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Left-aligned `names`, then each of `columns` right-aligned, all with their heading first; as many
/// columns a panel as fit.
fn push_grid(out: &mut String, names: &[String], columns: &[Vec<String>]) {
    let widest = |cells: &[String]| cells.iter().map(|cell| cell.width()).max().unwrap_or(0);
    let name_width = widest(names).min(NAME_COLUMNS);
    let names: Vec<_> = names.iter().map(|name| fold(name, name_width)).collect();
    let widths: Vec<_> = columns.iter().map(|column| widest(column)).collect();

    let mut from = 0;
    while from < columns.len() {
        let mut to = from;
        let mut used = name_width;
        while to < columns.len() && (to == from || used + 2 + widths[to] <= COLUMNS) {
            used += 2 + widths[to];
            to += 1;
        }
        if from > 0 {
            out.push('\n');
        }
        for (row, lines) in names.iter().enumerate() {
            let mut line = lines[0].clone();
            line.push_str(&" ".repeat(name_width - lines[0].width()));
            for (column, width) in columns[from..to].iter().zip(&widths[from..to]) {
                let cell = column.get(row).map_or("", String::as_str);
                line.push_str(&format!("  {cell:>width$}"));
            }
            out.push_str(line.trim_end());
            out.push('\n');
            for line in &lines[1..] {
                out.push_str(line);
                out.push('\n');
            }
        }
        from = to;
    }
}

/// `name` in lines of at most `limit` terminal columns, broken after a space, `_`, `-` or `/` where there
/// is one, the lines after the first indented. At least one line; `limit` is the width of `name`, or at
/// least 4 (an indent and a wide character).
fn fold(name: &str, limit: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut lines = Vec::new();
    let mut line = String::new();
    for c in name.chars() {
        while line.width() + c.width().unwrap_or(0) > limit {
            let start = if lines.is_empty() { 0 } else { INDENT.len() };
            let cut = line[start..].rfind([' ', '_', '-', '/']).map_or(line.len(), |at| start + at + 1);
            let rest = line.split_off(cut);
            lines.push(line.trim_end().to_owned());
            line = format!("{INDENT}{rest}");
        }
        line.push(c);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{multi_label, single_label};

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    fn assert_fits(text: &str) {
        for line in text.lines() {
            assert!(line.width() <= COLUMNS, "{} columns: {line}", line.width());
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn single_label_report() {
        let probabilities = [0.8, 0.1, 0.1, 0.2, 0.7, 0.1, 0.5, 0.4, 0.1, 0.6, 0.3, 0.1];
        let metrics = single_label(&probabilities, &[0, 1, 1, 0], 3).unwrap();
        let text = table(&metrics, &names(&["normal", "bacterial pneumonia", "other"]));
        assert_eq!(
            text,
            "\
images     ACC  macro AUC  micro AUC  macro F1  bal. ACC
4       0.7500     1.0000     0.9688    0.4889    0.7500

class                cases        AUC   sens.   spec.   prec.      F1
normal                   2     1.0000  1.0000  0.5000  0.6667  0.8000
bacterial pneumonia      2     1.0000  0.5000  1.0000  1.0000  0.6667
other                    0  undefined       -  1.0000       -       -
AUC undefined for 1 of 3 classes (no case, or nothing but cases),
left out of the macro AUC.
- is 0/0, undefined; it counts as 0 in macro F1, as in scikit-learn.

confusion (rows: true class, columns: predicted class)
                       0  1  2
0 normal               2  0  0
1 bacterial pneumonia  1  1  0
2 other                0  0  0
"
        );
    }

    #[test]
    fn multi_label_report() {
        let probabilities = [0.9, 0.2, 0.5, 0.3, 0.4, 0.1];
        let metrics = multi_label(&probabilities, &[1, 0, 1, 1, 0, 0], &[0.6, 0.2]).unwrap();
        let text = table(&metrics, &names(&["Effusion", "Edema"]));
        assert_eq!(
            text,
            "\
images     ACC  exact match  macro AUC  micro AUC  macro F1  bal. ACC
3       0.6667       0.3333     1.0000     0.8889    0.6667    0.7500

class     cases     AUC   sens.   spec.   prec.      F1
Effusion      2  1.0000  0.5000  1.0000  1.0000  0.6667
Edema         1  1.0000  1.0000  0.5000  0.5000  0.6667

counts at the thresholds
class     found  missed  false alarm  rightly clear
Effusion      1       1            0              1
Edema         1       0            1              1
"
        );
    }

    #[test]
    fn long_names_continue_and_nothing_passes_80_columns() {
        let long = "actinic keratoses and intraepithelial carcinoma / Bowen's disease";
        let unbroken = "x".repeat(100);
        let wide = "肺".repeat(40);
        let metrics = single_label(&[0.2, 0.3, 0.5], &[2], 3).unwrap();
        let text = table(&metrics, &names(&[long, &unbroken, &wide]));
        assert_fits(&text);
        let joined: String = text.lines().map(|line| line.split("     ").next().unwrap().trim()).collect();
        for name in [long.replace(' ', ""), unbroken, wide] {
            assert!(joined.replace(' ', "").contains(&name), "{name} is cut in\n{text}");
        }
    }

    #[test]
    fn many_classes_come_in_panels() {
        let classes = 120;
        let labels: Vec<usize> = (0..classes).collect();
        let metrics = single_label(&vec![0.5; classes * classes], &labels, classes).unwrap();
        let text = table(&metrics, &[]);
        assert_fits(&text);
        assert!(text.contains("119 class 119"));
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let metrics = single_label(&[0.5, 0.5], &[0], 2).unwrap();
        let text = table(&metrics, &names(&["\u{1b}[2J\r\nnormal", "\u{9b}2J"]));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn folding() {
        assert_eq!(fold("", 0), [""]);
        assert_eq!(fold("edema", 5), ["edema"]);
        assert_eq!(fold("pleural_thickening", 10), ["pleural_", "  thickeni", "  ng"]);
        assert_eq!(fold("no finding", 8), ["no", "  findin", "  g"]);
    }
}
