//! Settings of a training as people say them, for cards and reports.

use crate::config::{ClassWeights, Late, Solver, TrainConfig};
use crate::converged::PATH;
use crate::groups::{MASK_HEAD_RATE, VOLUME_EMBED_RATE};
use crate::method::Method;
use melo_data::Augment;
use melo_vit::{BagConfig, BagPooling, TaskKind, VolumeConfig};

/// Settings of a training of a task of this kind, name and value in words; what is off or no matter of it is left out, but for class
/// weights and augmentation, whose absence matters.
pub fn settings_in_words(config: &TrainConfig, kind: TaskKind) -> Vec<(&'static str, String)> {
    let masks = kind == TaskKind::Segmentation;
    let head = if masks { "a head for masks" } else { "a classifier" };
    let positive = |value: f64, words: String| (value > 0.0).then_some(words);
    let epochs = match config.patience {
        0 => config.epochs.to_string(),
        patience => format!(
            "{} at the most, ended after {patience} without a better one on the validation split",
            config.epochs
        ),
    };
    let warmup = positive(config.warmup_epochs, format!(" after {} of warm-up", plural(config.warmup_epochs, "epoch")));
    let rate = format!(
        "{} at the most, down to {} along a cosine{}",
        config.learning_rate,
        config.min_learning_rate,
        warmup.unwrap_or_default()
    );
    let rate = if masks { format!("{rate}; that of the head {MASK_HEAD_RATE} times as high") } else { rate };
    let rate = match config.volume {
        Some(_) => format!("{rate}; that of the embedding {VOLUME_EMBED_RATE} times as high"),
        None => rate,
    };
    let steps = config.solver == Solver::AdamW;
    let path = || {
        let (first, last) = (PATH[0], PATH[PATH.len() - 1]);
        format!(
            "L-BFGS to convergence on standardised features; the penalty 1 / C of the lowest validation loss, C from {first} to {last}"
        )
    };
    let rows = [
        ("Method", Some(method_in_words(config.method).replace("a classifier", head))),
        (
            "Folds",
            config.folds.map(|folds| format!("{folds} by patient of training and validation split, a member for each")),
        ),
        ("Members", config.late.as_ref().map(late_in_words)),
        ("Solver", (!steps).then(path)),
        ("Mask head", masks.then(|| config.mask_head.to_string())),
        ("Pooling", config.bag.map(bag_in_words)),
        ("Volumes", config.volume.map(volume_in_words)),
        ("Epochs", steps.then_some(epochs)),
        ("Batch", steps.then(|| plural(config.batch_size as f64, if config.bag.is_some() { "bag" } else { "image" }))),
        ("Learning rate", steps.then_some(rate)),
        ("LoRA+", (config.lora_plus != 1.0).then(|| format!("B learns at {} times the rate of A", config.lora_plus))),
        ("Dropout of low-rank updates", positive(config.lora_dropout, percent(config.lora_dropout))),
        ("Decay of the rate by layer", (config.layer_decay != 1.0).then(|| config.layer_decay.to_string())),
        ("Weight decay", positive(config.weight_decay, format!("{} of matrices (AdamW)", config.weight_decay))),
        ("Gradient", positive(config.clip_norm, format!("clipped to a norm of {}", config.clip_norm))),
        (
            "Label smoothing",
            positive(config.label_smoothing, config.label_smoothing.to_string()).filter(|_| kind.is_one_class()),
        ),
        ("Class weights", kind.has_probabilities().then(|| class_weights(config.class_weights).to_owned())),
        ("Augmentation", Some(augmentation_in_words(&config.augment))),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// What is trained, in words.
pub fn method_in_words(method: Method) -> &'static str {
    match method {
        Method::Lora => "low-rank updates (LoRA) and a classifier",
        Method::Linear => "a classifier alone (linear probe)",
        Method::Adapter => "bottleneck adapters and a classifier",
        Method::Full => "all weights (full fine-tuning)",
    }
}

/// How volumes are embedded.
pub(crate) fn volume_in_words(volume: VolumeConfig) -> String {
    format!("volumes embedded in patches {} voxels deep, by weights of its own", volume.patch_depth)
}

/// How one answer is made of the images of a bag.
pub fn bag_in_words(bag: BagConfig) -> String {
    let BagConfig { pooling, hidden, positions } = bag;
    match pooling {
        BagPooling::Mean | BagPooling::Max => format!("{pooling} over the images of a bag"),
        BagPooling::GatedAttention => {
            let places = if positions > 0 { ", which knows the places of images" } else { "" };
            format!("gated attention of width {hidden} over the images of a bag{places}")
        }
    }
}

/// `mirrored left to right, turned by up to 10°, ...`, or `none`.
pub fn augmentation_in_words(augment: &Augment) -> String {
    let Augment { horizontal_flip, vertical_flip, rotate_degrees, crop_scale, brightness, contrast } = *augment;
    let parts = [
        horizontal_flip.then(|| "mirrored left to right".to_owned()),
        vertical_flip.then(|| "mirrored top to bottom".to_owned()),
        (rotate_degrees > 0.0).then(|| format!("turned by up to {rotate_degrees}°")),
        (crop_scale < 1.0).then(|| format!("cropped to {} of the area or more", percent(f64::from(crop_scale)))),
        (brightness > 0.0).then(|| format!("brightness changed by up to {}", percent(f64::from(brightness)))),
        (contrast > 0.0).then(|| format!("contrast by up to {}", percent(f64::from(contrast)))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn class_weights(weights: ClassWeights) -> &'static str {
    match weights {
        ClassWeights::None => "none",
        ClassWeights::Balanced => "balanced: a rare class weighs as much as a common one",
    }
}

/// `20 %`
fn percent(share: f64) -> String {
    format!("{} %", (share * 1e4).round() / 1e2)
}

/// `1 image`, `2 images`.
fn plural(count: f64, what: &str) -> String {
    if count == 1.0 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A figure of [`crate::figures`] as people call it, without its class; the name itself where it has no other.
pub fn figure_in_words(name: &str) -> &str {
    match name {
        "auc_macro" => "macro AUC",
        "auc" => "AUC",
        "acc" => "accuracy",
        "balanced_acc" => "balanced accuracy",
        "kappa_quadratic" => "quadratic weighted kappa",
        "kappa_linear" => "linear weighted kappa",
        "mae" => "mean absolute error",
        "baseline_mae" => "mean absolute error of one answer to all",
        "rmse" => "root mean square error",
        "r2" => "R2",
        "pearson" => "correlation",
        "dice" => "Dice",
        "iou" => "intersection over union",
        "hd95" => "95 % Hausdorff distance in pixels",
        "surface_dice" => "surface Dice within one pixel",
        "set_coverage" => "coverage of prediction sets",
        "set_coverage_present" => "coverage of sets where it is present",
        "set_coverage_absent" => "coverage of sets where it is absent",
        "set_size" => "answers in a set",
        "set_single" => "share of sets of one answer",
        "set_empty" => "share of empty sets",
        "set_width" => "width of intervals",
        "scope_flagged" => "share of images out of scope",
        other => other,
    }
}

/// How members are trained on top of what they share.
fn late_in_words(late: &Late) -> String {
    let Late { last_k, rank, epochs, learning_rate } = late;
    format!(
        "on top of one plug-in of these settings: rank {rank} in the last {last_k} blocks, {epochs} epochs, of which the last is kept, learning rate \
         {learning_rate}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_words() {
        let config = TrainConfig { patience: 5, epochs: 20, ..TrainConfig::new(2) };
        let words = settings_in_words(&config, TaskKind::SingleLabel);
        let of = |name: &str| words.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        assert_eq!(of("Epochs"), Some("20 at the most, ended after 5 without a better one on the validation split"));
        assert_eq!(of("LoRA+"), None);
        assert!(
            of("Augmentation").unwrap().starts_with("mirrored left to right, turned by up to 10°, cropped to 80 %")
        );
        assert!(words.iter().all(|(_, value)| !value.contains(['{', '"', '_', '['])), "{words:?}");
    }
}
