//! The page: well-formed, self-contained, without empty charts.

use melo_study::{Estimate, Results, report};
use roxmltree::{Document, Node};

use super::sample;

/// Everything but the document type, which is HTML's and not XML's.
fn markup(page: &str) -> &str {
    page.strip_prefix("<!DOCTYPE html>\n").expect("an HTML page")
}

fn studies() -> [(&'static str, Results); 3] {
    [("study", sample::study()), ("unfinished", sample::unfinished()), ("hostile", sample::hostile())]
}

fn has_class(node: &Node, class: &str) -> bool {
    node.attribute("class").is_some_and(|classes| classes.split(' ').any(|found| found == class))
}

fn sections(page: &str) -> Vec<String> {
    let document = Document::parse(markup(page)).expect("well-formed");
    let sections = document.descendants().filter(|node| node.has_tag_name("section"));
    sections.map(|section| section.attribute("id").expect("an anchor").to_owned()).collect()
}

/// Writes the pages where they can be looked at: `target/tmp/*.html`, for `tools/report/screenshots.py`.
#[test]
fn pages_are_well_formed_and_lie_ready_to_be_looked_at() {
    for (name, results) in studies() {
        let page = report::html(&results);
        if let Err(error) = Document::parse(markup(&page)) {
            panic!("{name}: {error}");
        }
        std::fs::write(format!("{}/{name}.html", env!("CARGO_TARGET_TMPDIR")), page).unwrap();
    }
}

#[test]
fn a_report_says_what_it_may_be_used_for() {
    for (name, results) in studies() {
        for report in [report::html(&results), report::markdown(&results)] {
            assert_eq!(report.matches(melo_vit::INTENDED_USE).count(), 1, "{name}");
        }
    }
}

#[test]
fn a_page_needs_nothing_from_outside() {
    for (name, results) in studies() {
        let page = report::html(&results);
        let document = Document::parse(markup(&page)).unwrap();
        for node in document.descendants().filter(Node::is_element) {
            assert!(!["script", "link", "iframe", "object", "base"].contains(&node.tag_name().name()), "{name}");
            for attribute in node.attributes() {
                let value = attribute.value();
                match attribute.name() {
                    "href" => assert!(value.starts_with('#'), "{name}: {value}"),
                    "src" => assert!(value.starts_with("data:image/png;base64,"), "{name}: {value}"),
                    other => assert!(!other.starts_with("on"), "{name}: {other}"),
                }
            }
        }
        let style = document.descendants().find(|node| node.has_tag_name("style")).unwrap().text().unwrap();
        assert!(!style.contains("url(") && !style.contains("@import"), "{name}");
        assert!(!style.contains(['<', '&']), "a style sheet is raw text in HTML");
        assert!(page.contains(melo_report::chart::STYLE), "and so it has to stand in the page as it is");
    }
}

#[test]
fn no_coordinate_is_no_number_and_no_chart_is_empty() {
    for (name, results) in studies() {
        let page = report::html(&results);
        let document = Document::parse(markup(&page)).unwrap();
        let svgs = document.descendants().filter(|node| node.has_tag_name("svg"));
        for svg in svgs {
            let shapes = ["path", "line", "circle", "rect", "text"];
            let drawn = svg.descendants().filter(|node| shapes.contains(&node.tag_name().name()));
            for shape in drawn {
                for attribute in shape.attributes().filter(|attribute| attribute.name() != "class") {
                    let numbers = attribute.value().split(|c: char| c.is_ascii_uppercase() || c == ' ');
                    for number in numbers.filter(|number| !number.is_empty()) {
                        let found: f64 = number.parse().unwrap_or_else(|_| panic!("{name}: {attribute:?}"));
                        assert!(found.is_finite(), "{name}: {attribute:?}");
                    }
                }
            }
            if has_class(&svg, "plot") {
                let data = ["line", "mark", "bar", "after"];
                let of_data = |node: Node| data.iter().any(|class| has_class(&node, class));
                assert!(svg.descendants().any(of_data), "{name}: an empty chart");
                assert!(!svg.first_element_child().unwrap().text().unwrap_or("").is_empty(), "a chart without a name");
            }
        }
    }
}

#[test]
fn labels_lie_inside_their_picture() {
    // Half a digit a character is less than any font takes: what this finds is surely outside.
    let page = report::html(&sample::study());
    let document = Document::parse(markup(&page)).unwrap();
    for text in document.descendants().filter(|node| node.has_tag_name("text")) {
        let svg = text.ancestors().find(|node| node.has_tag_name("svg")).unwrap();
        let number = |node: Node, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
        let width = text.text().unwrap_or("").chars().count() as f64 * 3.2;
        let x = number(text, "x");
        let (left, right) = match () {
            () if has_class(&text, "end") => (x - width, x),
            () if has_class(&text, "middle") => (x - width / 2.0, x + width / 2.0),
            () => (x, x + width),
        };
        assert!(left >= -0.1 && right <= number(svg, "width") + 0.1, "{:?}", text.text());
        assert!((8.0..=number(svg, "height")).contains(&number(text, "y")));
    }
}

#[test]
fn tables_have_captions_and_rows_of_equal_length() {
    for (name, results) in studies() {
        let page = report::html(&results);
        let document = Document::parse(markup(&page)).unwrap();
        let mut tables = 0;
        for table in document.descendants().filter(|node| node.has_tag_name("table")) {
            tables += 1;
            let caption = table.children().find(|node| node.has_tag_name("caption")).unwrap();
            assert!(!caption.text().unwrap().is_empty());
            let width = |row: Node| {
                row.children()
                    .filter(Node::is_element)
                    .map(|cell| cell.attribute("colspan").map_or(1, |span| span.parse::<usize>().unwrap()))
                    .sum::<usize>()
            };
            let mut widths: Vec<_> = table.descendants().filter(|node| node.has_tag_name("tr")).map(width).collect();
            widths.dedup();
            assert_eq!(widths.len(), 1, "{name}: {}", caption.text().unwrap());
        }
        assert!(tables > 2);
    }
}

#[test]
fn names_from_outside_are_shown_as_they_are() {
    let page = report::html(&sample::hostile());
    let document = Document::parse(markup(&page)).unwrap();
    let heading = document.descendants().find(|node| node.has_tag_name("h1")).unwrap();
    let expected: String = sample::hostile_name("study")
        .chars()
        .map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    assert_eq!(heading.text().unwrap(), expected);
}

#[test]
fn a_whole_study_has_every_part_and_stays_small() {
    let page = report::html(&sample::study());
    assert_eq!(sections(&page), ["audit", "comparison", "costs", "tasks", "fractions", "variants", "method", "tripod"]);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    for phrase in [
        "ROC curves",
        "Precision-recall curves",
        "Reliability",
        "Confusion",
        "Learning curves",
        "Operating points",
        "subgroups",
        "Surest and right",
        "Surest and wrong",
        "undefined",
        "no positive case",
        "as good as the method",
        "Charts show",
    ] {
        assert!(page.contains(phrase), "{phrase}");
    }
    assert!(!page.contains("incomplete"));
}

#[test]
fn what_a_study_does_not_have_leaves_no_trace() {
    let mut results = sample::study();
    results.methods.retain(|method| !method.name.starts_with("lora-"));
    for task in &mut results.tasks {
        task.arms.retain(|arm| arm.data_fraction == 1.0 && !arm.method.starts_with("lora-"));
        task.comparisons.retain(|found| !found.method.starts_with("lora-"));
        task.examples.clear();
        for arm in &mut task.arms {
            arm.subgroups.clear();
            arm.learning.clear();
            arm.confusion = None;
        }
    }
    let page = report::html(&results);
    assert_eq!(sections(&page), ["audit", "comparison", "costs", "tasks", "method", "tripod"]);
    for phrase in ["Surest", "subgroups", "Learning curves", "Confusion", "Charts show"] {
        assert!(!page.contains(phrase), "{phrase}");
    }

    results.tasks.clear();
    results.totals.clear();
    let page = report::html(&results);
    assert_eq!(sections(&page), ["method", "tripod"]);
    assert!(Document::parse(markup(&page)).is_ok());
}

#[test]
fn an_unfinished_study_says_so() {
    let page = report::html(&sample::unfinished());
    assert!(
        page.contains(
            "This report is incomplete: 9 of 12 planned cells have no result (1 failed and 8 have not ended)."
        )
    );
    assert!(page.contains("the training split has no image of `basophil`"));
    assert!(page.contains("lora could not be compared with full yet"));
}

#[test]
fn the_headline_counts_verdicts() {
    use melo_study::Verdict::{Inconclusive, Inferior, NonInferior, Superior};
    let mut results = sample::study();
    let verdicts = [Superior, NonInferior, Superior, NonInferior, NonInferior, Inconclusive, Inferior];
    for (task, verdict) in results.tasks.iter_mut().zip(verdicts) {
        task.comparisons.iter_mut().find(|found| found.method == "lora").unwrap().verdict = verdict;
    }
    let expected = "lora is non-inferior to full (margin 0.02) on 5 of 7 tasks, superior on 2 of these, inconclusive on 1, \
                    inferior on 1.";
    assert!(report::html(&results).contains(expected));
    assert!(report::markdown(&results).contains(expected));
}

#[test]
fn an_interval_that_says_more_than_the_verdict_after_holm_is_explained() {
    use melo_study::Verdict::{Inconclusive, NonInferior, Superior};
    let mut results = sample::study();
    let marked = |results: &Results| report::html(results).contains("before Holm's correction<");
    assert!(!marked(&results), "every verdict is that of its interval");
    let found = &mut results.tasks[0].comparisons[0];
    (found.difference, found.verdict) = (Estimate { value: 0.02, low: 0.001, high: 0.05 }, Superior);
    assert!(!marked(&results));
    for (verdict, expected) in [(NonInferior, "superior before Holm's correction"), (Inconclusive, "superior before")] {
        results.tasks[0].comparisons[0].verdict = verdict;
        assert!(report::html(&results).contains(expected));
        assert!(
            report::markdown(&results)
                .contains(&format!("{} †", if verdict == NonInferior { "non-inferior" } else { "inconclusive" }))
        );
    }
}

#[test]
fn a_difference_that_is_no_chance_is_told_beside_an_open_verdict() {
    let mut results = sample::study();
    let found = &mut results.tasks[0].comparisons[0];
    found.difference = Estimate { value: -0.03, low: -0.05, high: -0.01 };
    (found.p_holm, found.verdict) = (0.01, melo_study::Verdict::Inconclusive);
    assert!(report::html(&results).contains("worse, by 0.02 or not"));
    assert!(report::markdown(&results).contains("inconclusive (worse)"));
}

#[test]
fn what_a_method_collapsed_to_is_told() {
    let results = sample::study();
    let sentence =
        "wbc_bccd4, linear: 67 of 72 images are called neutrophil, which 18 are; never called: monocyte (18 cases)";
    assert!(report::html(&results).contains(sentence));
    assert!(report::markdown(&results).contains("67 of 72 images are called neutrophil"));
    assert!(report::summary(&results).contains(&format!("WARNING: {sentence}")));
}

#[test]
fn the_methods_say_epochs_batch_augmentation_and_day() {
    let page = report::html(&sample::study());
    for phrase in ["Epochs", "16 images", "turned by up to 10°", "2026-11-28", "Obuchowski", "Holm"] {
        assert!(page.contains(phrase), "{phrase}");
    }
}

#[test]
fn the_gap_names_what_validation_chose() {
    let mut results = sample::study();
    let task = &mut results.tasks[0];
    for found in &mut task.comparisons {
        found.verdict =
            if found.method == "lora" { melo_study::Verdict::Inconclusive } else { melo_study::Verdict::NonInferior };
    }
    task.arms.iter_mut().for_each(|arm| arm.val_auc = if arm.method == "lora-r16" { 0.99 } else { 0.8 });
    results.tasks.truncate(1);
    assert!(report::html(&results).contains("closes the gap on 1 of 1: mammo_mias_density3 (lora-r16)."));
}
