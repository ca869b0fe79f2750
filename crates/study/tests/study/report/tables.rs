//! Markdown and CSV.

use melo_study::report;

use super::sample;

#[test]
fn markdown_tables_have_equal_columns() {
    for results in [sample::study(), sample::unfinished(), sample::hostile()] {
        let text = report::markdown(&results);
        let mut tables = 0;
        let lines: Vec<_> = text.lines().collect();
        for table in lines.chunk_by(|a, b| a.starts_with('|') == b.starts_with('|')) {
            if !table[0].starts_with('|') {
                continue;
            }
            tables += 1;
            // A bar behind a backslash is text.
            let columns = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
            assert!(table.len() > 2, "a table without rows");
            assert!(table.iter().all(|line| columns(line) == columns(table[0])), "{table:#?}");
            assert!(table[1].chars().all(|c| matches!(c, '|' | '-')));
        }
        assert!(tables > 0);
        assert!(!text.contains("<script>") && !text.contains("NaN"));
    }
}

#[test]
fn markdown_has_the_main_tables() {
    let text = report::markdown(&sample::study());
    for heading in ["## Comparison", "## Mean over tasks", "## Tests", "## Costs", "## How this was made"] {
        assert!(text.contains(heading), "{heading}");
    }
    assert!(text.contains("| cxr\\_nih\\_multilabel | lora | 0."));
}

#[test]
fn results_csv_reads_back() {
    for results in [sample::study(), sample::hostile()] {
        let text = report::arms_csv(&results);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().unwrap().clone();
        let column = |name: &str| head.iter().position(|found| found == name).unwrap();
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        let arms: Vec<_> = results.tasks.iter().flat_map(|task| task.arms.iter().map(move |arm| (task, arm))).collect();
        assert_eq!(records.len(), arms.len());
        for (record, (task, arm)) in records.iter().zip(arms) {
            assert_eq!(record[column("task")], task.name);
            assert_eq!(record[column("method")], arm.method);
            let auc = arm.auc.map(|auc| auc.value).filter(|auc| auc.is_finite());
            assert_eq!(record[column("auc")].parse().ok(), auc, "bit for bit, or empty");
            assert_eq!(record[column("stored_bytes")].parse(), Ok(arm.cost.stored_bytes));
            assert_eq!(record[column("cells")].parse(), Ok(arm.auc_per_cell.len()));
            assert!(record.iter().all(|field| field != "NaN" && field != "inf"));
        }
    }
}

#[test]
fn comparisons_csv_reads_back() {
    let results = sample::study();
    let text = report::comparisons_csv(&results);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers().unwrap().clone();
    let column = |name: &str| head.iter().position(|found| found == name).unwrap();
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    let all: Vec<_> = results.tasks.iter().flat_map(|task| &task.comparisons).collect();
    assert_eq!(records.len(), all.len());
    for (record, found) in records.iter().zip(all) {
        assert_eq!(record[column("difference_low")].parse(), Ok(found.difference.low));
        assert_eq!(record[column("p_inferior_holm")].parse(), Ok(found.p_inferior_holm));
        assert_eq!(record[column("p_delong")].parse().ok(), found.p_delong);
        let verdict = serde_json::to_value(found.verdict).unwrap();
        assert_eq!(record[column("verdict")], *verdict.as_str().unwrap(), "the name that results.json has");
    }
}
