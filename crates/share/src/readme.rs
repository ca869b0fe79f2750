//! The model card of a plug-in: the hub's metadata as YAML, then the card.

use crate::reference::Reference;
use melo_train::card_sheet;
use melo_vit::{PluginInfo, TaskKind};
use serde_json::{Value, json};

/// What a model card says that the plug-in itself does not know.
#[derive(Clone, Debug, Default)]
pub struct Readme {
    /// A licence by its name on the hub, such as `cc-by-4.0`.
    pub license: Option<String>,
    /// The backbone by its name on the hub.
    pub base_model: Option<String>,
    /// Whether a repository that is made is private.
    pub is_private: bool,
}

/// Figures of the test split by the hub's names of metrics.
const METRICS: [(&str, &str); 6] = [
    ("test_auc_macro", "roc_auc"),
    ("test_acc", "accuracy"),
    ("test_f1_macro", "f1"),
    ("test_mae", "mae"),
    ("test_dice", "dice"),
    ("test_iou", "mean_iou"),
];

impl Readme {
    pub(crate) fn of(&self, info: &PluginInfo, at: &Reference) -> String {
        let card = &info.card;
        let pipeline = match card.kind {
            TaskKind::Segmentation => Some("image-segmentation"),
            TaskKind::Regression => None,
            _ => Some("image-classification"),
        };
        let metric = |(name, kind): (&str, &str)| {
            let value = card.metrics.get(name)?;
            let interval = card.metric_intervals.get(name);
            let within =
                interval.map_or_else(String::new, |[low, high]| format!(", 95 % interval {low:.4} to {high:.4}"));
            Some(json!({ "type": kind, "name": format!("{name}{within}"), "value": value }))
        };
        let metrics: Vec<Value> = METRICS.into_iter().filter_map(metric).collect();
        let own = json!({
            "task": card.task,
            "kind": card.kind.in_words(),
            "classes": card.classes,
            "plugin_sha256": info.digest,
            "backbone": card.backbone.name,
            "backbone_sha256": card.backbone.digest,
            "data_sha256": card.provenance.data_digest,
            "metric_intervals": card.metric_intervals,
        });
        // JSON is YAML, and says what a word is where YAML would guess.
        let mut fields = vec![
            ("library_name", json!("melo")),
            ("license", json!(self.license.as_deref().unwrap_or("other"))),
            ("tags", json!(["melo", "lora", "medical", "vision-transformer"])),
        ];
        fields.extend(self.base_model.as_ref().map(|base| ("base_model", json!(base))));
        fields.extend(pipeline.map(|pipeline| ("pipeline_tag", json!(pipeline))));
        if !metrics.is_empty() {
            let task = json!({ "type": pipeline.unwrap_or("other") });
            let dataset = json!({ "type": card.task, "name": card.task, "split": "test" });
            let result = json!({ "task": task, "dataset": dataset, "metrics": metrics });
            fields.push(("model-index", json!([{ "name": card.task, "results": [result] }])));
        }
        fields.push(("melo", own));
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let card = card_sheet(info).markdown();
        format!(
            "---\n{fields}---\n{card}\n## Use\n\n```sh\nmelo predict --backbone BACKBONE --plugin {at} IMAGE\n```\n"
        )
    }
}
