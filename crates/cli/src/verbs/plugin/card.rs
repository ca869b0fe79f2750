//! `melo plugin card`: the card as a page for people, in Markdown or HTML.

use melo_vit::{PluginInfo, TaskCard, TaskKind};
use std::fmt::Write;

/// A page of titled tables; every cell is plain text, escaped by whoever renders it.
struct Page {
    title: String,
    lead: String,
    tables: Vec<Table>,
}

struct Table {
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

pub(super) fn markdown(info: &PluginInfo) -> String {
    let page = Page::of(info);
    let text = |cell: &str| cell.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('\n', " ");
    let mut out = format!("# {}\n\n{}\n", text(&page.title), text(&page.lead));
    for Table { title, head, rows } in &page.tables {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        out += &format!("\n## {title}\n\n");
        out += &line(head.iter().map(|cell| (*cell).to_owned()).collect());
        out += &line(head.iter().map(|_| "---".to_owned()).collect());
        rows.iter().for_each(|row| out += &line(row.iter().map(|cell| text(cell)).collect()));
    }
    out
}

pub(super) fn html(info: &PluginInfo) -> String {
    let page = Page::of(info);
    let text = |cell: &str| cell.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n\
         <style>{STYLE}</style></head>\n<body><main>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        text(&page.title),
        text(&page.lead)
    );
    for Table { title, head, rows } in &page.tables {
        let row = |tag: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", text(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        // Writing to a string cannot fail.
        let _ = write!(out, "<h2>{title}</h2>\n<div class=\"wide\"><table>\n<thead>");
        out += &row("th", head.iter().map(|cell| (*cell).to_owned()).collect());
        out += "</thead>\n<tbody>";
        rows.iter().for_each(|cells| out += &row("td", cells.clone()));
        out += "</tbody></table></div>\n";
    }
    out + "</main></body></html>\n"
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0}\
main{max-width:60rem;margin:auto;padding:1.5rem 1rem}\
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{text-align:left;vertical-align:top;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #8886;overflow-wrap:anywhere}\
@media print{:root{color-scheme:light}h2{break-after:avoid}tr{break-inside:avoid}}";

impl Page {
    fn of(info: &PluginInfo) -> Self {
        let card = &info.card;
        let kind = match card.kind {
            TaskKind::SingleLabel => "one class an image",
            TaskKind::MultiLabel => "any number of findings an image",
        };
        Page {
            title: card.task.clone(),
            lead: format!(
                "A plug-in for the backbone {}: {kind}. Research software: it is no medical device and must not be used \
                 for diagnosis.",
                card.backbone.name
            ),
            tables: vec![overall(card), classes(card), usage(info), provenance(info)],
        }
    }
}

/// A metric with its interval, or `undefined`.
fn figure(card: &TaskCard, name: &str) -> String {
    match (card.metrics.get(name), card.metric_intervals.get(name)) {
        (Some(value), Some([low, high])) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        (Some(value), None) => format!("{value:.3}"),
        (None, _) => "undefined".to_owned(),
    }
}

fn overall(card: &TaskCard) -> Table {
    let rows = [
        ("Test macro AUC", "test_auc_macro"),
        ("Test accuracy", "test_acc"),
        ("Validation macro AUC", "val_auc_macro"),
        ("Validation accuracy", "val_acc"),
    ];
    let known = rows.into_iter().filter(|(_, name)| card.metrics.contains_key(*name));
    Table {
        title: "How good it is",
        head: vec!["Figure", "Value [95 % interval]"],
        rows: known.map(|(title, name)| vec![title.to_owned(), figure(card, name)]).collect(),
    }
}

fn classes(card: &TaskCard) -> Table {
    let row = |(class, threshold): (&String, &f32)| {
        let decided = match card.kind {
            TaskKind::SingleLabel => "the most probable".to_owned(),
            TaskKind::MultiLabel => format!("from {threshold:.3}"),
        };
        let figures = ["auc", "sensitivity", "specificity"].map(|name| figure(card, &format!("test_{name}/{class}")));
        [vec![class.clone(), decided], figures.to_vec()].concat()
    };
    Table {
        title: "Classes, on the test split",
        head: vec!["Class", "Reported", "AUC", "Sensitivity", "Specificity"],
        rows: card.classes.iter().zip(&card.thresholds).map(row).collect(),
    }
}

fn usage(info: &PluginInfo) -> Table {
    let card = &info.card;
    let rows = [
        ("Input", card.preprocess.to_string()),
        ("Adapter", super::describe::adapter(card)),
        ("Parameters", format!("{} in {} bytes", info.parameters(), info.bytes)),
        ("Calibration", format!("temperature {:.4}", card.temperature)),
        ("Self-test", super::describe::self_test(card)),
        ("Backbone", format!("{} {}", card.backbone.name, card.backbone.digest)),
        ("Plug-in digest", info.digest.clone()),
    ];
    Table {
        title: "How to use it",
        head: vec!["", ""],
        rows: rows.map(|(name, value)| vec![name.into(), value]).into(),
    }
}

fn provenance(info: &PluginInfo) -> Table {
    let provenance = &info.card.provenance;
    let mut rows = vec![
        ("Software".to_owned(), provenance.software.clone()),
        ("Precision".to_owned(), provenance.precision.clone()),
        ("Training images".to_owned(), provenance.train_images.to_string()),
        ("Seed".to_owned(), provenance.seed.to_string()),
        ("Data digest".to_owned(), provenance.data_digest.clone()),
        ("Split digest".to_owned(), provenance.split_digest.clone()),
    ];
    if let serde_json::Value::Object(settings) = &provenance.settings {
        rows.extend(settings.iter().map(|(name, value)| (name.clone(), value.to_string())));
    }
    rows.retain(|(_, value)| !value.is_empty());
    let rows = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    Table { title: "Where it comes from", head: vec!["", ""], rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_vit::{BackboneReference, CropMode, Interpolation, Preprocess};
    use std::collections::BTreeMap;

    fn hostile() -> PluginInfo {
        let preprocess = Preprocess {
            size: 32,
            crop_mode: CropMode::Squash,
            crop_pct: 1.0,
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
            rendering: Default::default(),
        };
        let backbone = BackboneReference { digest: "abc".into(), name: "tiny & \"small\"".into() };
        let classes = vec!["<script>alert(1)</script>".into(), "a|b\nc".into()];
        let mut card = TaskCard::new("<b>".into(), TaskKind::SingleLabel, classes, preprocess, backbone);
        card.metrics.insert("test_auc_macro".into(), 0.91234);
        card.metric_intervals.insert("test_auc_macro".into(), [0.8, 0.95]);
        PluginInfo { card, shapes: BTreeMap::new(), digest: "def".into(), bytes: 10 }
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let html = html(&hostile());
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;") && html.contains("tiny &amp; &quot;small&quot;"));
        let markdown = markdown(&hostile());
        assert!(!markdown.contains("<script"), "{markdown}");
        assert!(markdown.contains("| a\\|b c |"), "{markdown}");
    }

    #[test]
    fn figures_show_their_intervals_and_what_is_undefined_says_so() {
        let markdown = markdown(&hostile());
        assert!(markdown.contains("| Test macro AUC | 0.912 [0.800, 0.950] |"), "{markdown}");
        assert!(markdown.contains("undefined"), "{markdown}");
        assert!(!markdown.contains("Test accuracy"), "{markdown}");
    }
}
