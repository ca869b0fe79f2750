//! A plug-in's card as a page for people: figures with intervals, thresholds, where it comes from.

use melo_report::{Sheet, SheetTable};
use melo_vit::{INTENDED_USE, PluginInfo, TaskCard, TaskKind};

/// The page of a plug-in, to be rendered as HTML or Markdown.
pub fn card_sheet(info: &PluginInfo) -> Sheet {
    let card = &info.card;
    let kind = kind_in_words(card.kind);
    Sheet {
        title: card.task.clone(),
        lead: format!("A plug-in for the backbone {}: {kind}. {INTENDED_USE}", card.backbone.name),
        tables: vec![overall(card), classes(card), usage(info), provenance(info)],
    }
}

/// How many answers an image has, in words.
pub fn kind_in_words(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::SingleLabel => "one class an image",
        TaskKind::MultiLabel => "any number of findings an image",
    }
}

/// What a plug-in adds to the blocks, in words.
pub fn adapter_in_words(card: &TaskCard) -> String {
    let TaskCard { lora, bottleneck, .. } = card;
    let mut parts = Vec::new();
    if lora.rank > 0 {
        let targets: Vec<String> = lora.targets.iter().map(ToString::to_string).collect();
        let others: String =
            lora.rank_pattern.iter().map(|(block, rank)| format!(", {rank} in block {block}")).collect();
        let root = if lora.rslora { " over the root of the rank" } else { "" };
        let (rank, alpha, blocks) = (lora.rank, lora.alpha, lora.blocks.len());
        parts.push(format!("rank {rank}{others}, alpha {alpha}{root}, on {} of {blocks} blocks", targets.join(" ")));
    }
    if bottleneck.width > 0 {
        parts.push(format!("bottlenecks of width {} after {} blocks", bottleneck.width, bottleneck.blocks.len()));
    }
    if parts.is_empty() { "none (linear probe)".to_owned() } else { parts.join("; ") }
}

/// Whether a plug-in can prove itself, in words.
pub fn self_test_in_words(card: &TaskCard) -> String {
    card.self_test.as_ref().map_or("none".to_owned(), |test| format!("taken in {}", test.precision))
}

/// A metric with its interval, or `undefined`.
fn figure(card: &TaskCard, name: &str) -> String {
    match (card.metrics.get(name), card.metric_intervals.get(name)) {
        (Some(value), Some([low, high])) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        (Some(value), None) => format!("{value:.3}"),
        (None, _) => "undefined".to_owned(),
    }
}

fn overall(card: &TaskCard) -> SheetTable {
    let rows = [
        ("Test macro AUC", "test_auc_macro"),
        ("Test accuracy", "test_acc"),
        ("Validation macro AUC", "val_auc_macro"),
        ("Validation accuracy", "val_acc"),
    ];
    let known = rows.into_iter().filter(|(_, name)| card.metrics.contains_key(*name));
    SheetTable {
        title: "How good it is",
        head: vec!["Figure", "Value [95 % interval]"],
        rows: known.map(|(title, name)| vec![title.to_owned(), figure(card, name)]).collect(),
    }
}

fn classes(card: &TaskCard) -> SheetTable {
    let row = |(class, threshold): (&String, &f32)| {
        let decided = match card.kind {
            TaskKind::SingleLabel => "the most probable".to_owned(),
            TaskKind::MultiLabel => format!("from {threshold:.3}"),
        };
        let figures = ["auc", "sensitivity", "specificity"].map(|name| figure(card, &format!("test_{name}/{class}")));
        [vec![class.clone(), decided], figures.to_vec()].concat()
    };
    SheetTable {
        title: "Classes, on the test split",
        head: vec!["Class", "Reported", "AUC", "Sensitivity", "Specificity"],
        rows: card.classes.iter().zip(&card.thresholds).map(row).collect(),
    }
}

fn usage(info: &PluginInfo) -> SheetTable {
    let card = &info.card;
    let rows = [
        ("Input", card.preprocess.to_string()),
        ("Adapter", adapter_in_words(card)),
        ("Parameters", format!("{} in {} bytes", info.parameters(), info.bytes)),
        ("Calibration", format!("temperature {:.4}", card.temperature)),
        ("Self-test", self_test_in_words(card)),
        ("Backbone", format!("{} {}", card.backbone.name, card.backbone.digest)),
        ("Plug-in digest", info.digest.clone()),
    ];
    SheetTable {
        title: "How to use it",
        head: vec!["", ""],
        rows: rows.map(|(name, value)| vec![name.into(), value]).into(),
    }
}

fn provenance(info: &PluginInfo) -> SheetTable {
    let provenance = &info.card.provenance;
    let mut rows = vec![
        ("Software".to_owned(), provenance.software.clone()),
        ("Precision".to_owned(), provenance.precision.to_string()),
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
    SheetTable { title: "Where it comes from", head: vec!["", ""], rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_vit::{BackboneReference, Preprocess};
    use std::collections::BTreeMap;

    fn hostile() -> PluginInfo {
        let preprocess = Preprocess::base(32);
        let backbone = BackboneReference { digest: "abc".into(), name: "tiny & \"small\"".into() };
        let classes = vec!["<script>alert(1)</script>".into(), "a|b\nc".into()];
        let mut card = TaskCard::new("<b>".into(), TaskKind::SingleLabel, classes, preprocess, backbone);
        card.metrics.insert("test_auc_macro".into(), 0.91234);
        card.metric_intervals.insert("test_auc_macro".into(), [0.8, 0.95]);
        PluginInfo { card, shapes: BTreeMap::new(), digest: "def".into(), bytes: 10 }
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let sheet = card_sheet(&hostile());
        let html = sheet.html();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script>") && html.contains("tiny &amp; \"small\""), "{html}");
        let markdown = sheet.markdown();
        assert!(!markdown.contains("<script"), "{markdown}");
        assert!(markdown.contains("| a\\|b c |"), "{markdown}");
    }

    #[test]
    fn figures_show_their_intervals_and_what_is_undefined_says_so() {
        let markdown = card_sheet(&hostile()).markdown();
        assert!(markdown.contains("| Test macro AUC | 0.912 [0.800, 0.950] |"), "{markdown}");
        assert!(markdown.contains("undefined"), "{markdown}");
        assert!(!markdown.contains("Test accuracy"), "{markdown}");
    }
}
