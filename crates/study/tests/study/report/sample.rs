//! Made-up results that look like those of a study: seven tasks, five methods, several shares of the data.

use melo_eval::{Collapse, Dominant, NetBenefit, Never};
use melo_study::*;

/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Name, is it multi-label, classes, how easy, test images a class.
type Task = (&'static str, bool, &'static [&'static str], f64, usize);

const TASKS: [Task; 7] = [
    ("mammo_mias_density3", false, &["fatty", "glandular", "dense"], 1.3, 22),
    ("wbc_bccd4", false, &["eosinophil", "lymphocyte", "monocyte", "neutrophil"], 2.4, 18),
    ("oct_dme2", false, &["normal", "edema"], 2.7, 40),
    ("fundus_dr3", false, &["no retinopathy", "mild or moderate", "severe or proliferative"], 1.8, 36),
    ("brain_mri4", false, &["glioma", "meningioma", "no tumour", "pituitary"], 2.3, 32),
    (
        "derm_ham7",
        false,
        &[
            "actinic keratoses and intraepithelial carcinoma / Bowen's disease",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ],
        2.0,
        240,
    ),
    (
        "cxr_nih_multilabel",
        true,
        &["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Pneumothorax", "Hernia"],
        1.1,
        33,
    ),
];

/// Name, what it is, gain in ease, trained share in percent, seconds an epoch, bytes held.
const METHODS: [(&str, &str, f64, f64, f64, u64); 5] = [
    ("linear", "linear probe: head alone, learning rate 1e-3", -0.9, 0.01, 2.1, 520_000_000),
    (
        "lora",
        "low-rank plug-in: rank 4, alpha 4, q and v of 12 blocks, learning rate 1e-3",
        0.0,
        0.17,
        11.0,
        900_000_000,
    ),
    (
        "lora-r16",
        "low-rank plug-in: rank 16, alpha 16, q and v of 12 blocks, learning rate 1e-3",
        0.05,
        0.68,
        11.4,
        930_000_000,
    ),
    (
        "lora-mlp",
        "low-rank plug-in: rank 4, alpha 4, q, v, fc1 and fc2 of 12 blocks, learning rate 1e-3",
        0.1,
        0.6,
        13.9,
        1_000_000_000,
    ),
    ("full", "full fine-tuning: every weight, learning rate 1e-5", 0.05, 100.0, 24.0, 2_900_000_000),
];

const PARAMETERS: f64 = 85_798_656.0;

/// Numbers that look random and are the same everywhere (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

fn around(value: f64, half: f64) -> Estimate {
    Estimate { value, low: (value - half).max(0.0), high: (value + half).min(1.0) }
}

/// ROC, precision-recall and AUC of scores that lie `ease` apart.
fn curves(numbers: &mut Numbers, ease: f64, positives: usize, negatives: usize) -> (Curve, Curve, f64) {
    let mut scores: Vec<_> = (0..positives + negatives)
        .map(|i| (numbers.normal() + if i < positives { ease } else { 0.0 }, i < positives))
        .collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms, mut area) = (0.0, 0.0, 0.0);
    let (mut roc, mut recall) = (vec![(0.0, 0.0)], vec![(0.0, 1.0)]);
    for (_, positive) in scores {
        if positive {
            hits += 1.0;
        } else {
            alarms += 1.0;
            area += hits;
        }
        roc.push((alarms / negatives as f64, hits / positives as f64));
        recall.push((hits / positives as f64, hits / (hits + alarms)));
    }
    (roc, recall, area / (positives * negatives) as f64)
}

type Curve = Vec<(f64, f64)>;

/// Of scores whose thresholds are the false alarms that they let pass.
fn decision_curve(roc: &Curve, positives: usize, negatives: usize) -> Vec<NetBenefit> {
    let share = positives as f64 / (positives + negatives) as f64;
    let at = |percent: u32| {
        let threshold = f64::from(percent) / 100.0;
        let odds = threshold / (1.0 - threshold);
        let passing = roc.iter().take_while(|(false_alarms, _)| *false_alarms <= (1.0 - threshold).powi(3));
        let (false_alarms, hits) = passing.last().copied().unwrap_or_default();
        let benefit = |hits: f64, false_alarms: f64| share * hits - (1.0 - share) * false_alarms * odds;
        NetBenefit { threshold, model: benefit(hits, false_alarms), all: benefit(1.0, 1.0) }
    };
    (1..100).map(at).collect()
}

fn class(numbers: &mut Numbers, task: &Task, name: &str, ease: f64) -> ClassResults {
    let (_, multi_label, classes, _, images) = *task;
    if name == "Hernia" {
        return ClassResults {
            class: name.into(),
            positives: 0,
            auc: None,
            note: Some("no positive case".into()),
            roc: vec![],
            precision_recall: vec![],
            decision_curve: vec![],
            operating_points: vec![],
        };
    }
    let ease = ease + 0.3 * numbers.normal();
    let (roc, precision_recall, auc) = curves(numbers, ease, images, images * (classes.len() - 1));
    let point = |rule: &str, sensitivity: f64, specificity: f64| OperatingPoint {
        rule: rule.into(),
        threshold: 1.0 - sensitivity * 0.8,
        sensitivity: Some(around(sensitivity, 0.08)),
        specificity: Some(around(specificity, 0.05)),
    };
    ClassResults {
        class: name.into(),
        positives: images as u64,
        auc: Some(around(auc, 0.35 / (images as f64).sqrt())),
        note: (multi_label && name == "Pneumothorax").then(|| "33 positive cases: shaky".into()),
        decision_curve: decision_curve(&roc, images, images * (classes.len() - 1)),
        roc,
        precision_recall,
        operating_points: vec![
            point("Youden", 0.84, auc),
            point("sensitivity 0.90", 0.89, auc - 0.1),
            point("specificity 0.90", auc - 0.12, 0.91),
        ],
    }
}

fn calibration(numbers: &mut Numbers, images: usize) -> Calibration {
    let bins = |numbers: &mut Numbers, slope: f64| {
        (0..10)
            .map(|i| {
                let confidence = (i as f64 + 0.5) / 10.0;
                let accuracy = (0.5 + (confidence - 0.5) * slope + 0.04 * numbers.normal()).clamp(0.0, 1.0);
                let count = if i == 0 { 0 } else { (i * i * images / 60) as u64 + 1 };
                ReliabilityBin { count, confidence, accuracy }
            })
            .collect()
    };
    Calibration {
        temperature: 1.32,
        ece_before: 0.083,
        ece_after: 0.031,
        brier_before: 0.21,
        brier_after: 0.194,
        bins_before: bins(numbers, 0.7),
        bins_after: bins(numbers, 0.97),
    }
}

fn confusion(numbers: &mut Numbers, classes: usize, images: usize) -> Vec<Vec<u64>> {
    let wrong = |numbers: &mut Numbers| (numbers.uniform() * 0.4 * images as f64 / classes as f64) as u64;
    (0..classes)
        .map(|i| {
            let mut row: Vec<_> = (0..classes).map(|_| wrong(numbers)).collect();
            row[i] = 0;
            row[i] = (3 * images as u64).saturating_sub(row.iter().sum());
            row
        })
        .collect()
}

fn learning(numbers: &mut Numbers, ease: f64) -> Vec<LearningPoint> {
    (1..=20)
        .map(|epoch| {
            let done = 1.0 - (-(epoch as f64) / 5.0).exp();
            LearningPoint {
                epoch,
                train_loss: 1.4 - done * (0.5 + ease * 0.2),
                val_loss: 1.45 - done * (0.4 + ease * 0.15) + 0.01 * numbers.normal(),
                val_auc: 0.5 + done * (0.25 + 0.07 * ease) + 0.003 * numbers.normal(),
                cells: if epoch > 14 { 2 } else { 3 },
            }
        })
        .collect()
}

fn subgroups(numbers: &mut Numbers, auc: f64) -> Vec<Subgroup> {
    [("sex", "female", 71), ("sex", "male", 66), ("site", "A", 120), ("site", "B", 17), ("site", "C", 2)]
        .into_iter()
        .map(|(column, value, images)| Subgroup {
            column: column.into(),
            value: value.into(),
            images,
            auc: (images > 2).then(|| around((auc + 0.02 * numbers.normal()).min(0.999), 0.5 / (images as f64).sqrt())),
            difference: matches!(value, "male" | "B").then(|| around(-0.02, 0.6 / (images as f64).sqrt())),
            note: match images {
                2 => Some("one class only".into()),
                17 => Some("few images".into()),
                _ => None,
            },
        })
        .collect()
}

fn arm(numbers: &mut Numbers, task: &Task, method: usize, fraction: f64) -> Arm {
    let (_, multi_label, classes, ease, images) = *task;
    let (name, _, gain, percent, seconds, held) = METHODS[method];
    let ease = (ease + gain + 0.35 * fraction.ln()).max(0.3);
    let per_class: Vec<_> = classes.iter().map(|name| class(numbers, task, name, ease)).collect();
    let defined: Vec<_> = per_class.iter().filter_map(|class| class.auc).map(|auc| auc.value).collect();
    let auc = defined.iter().sum::<f64>() / defined.len() as f64;
    let half = 0.3 / ((images * classes.len()) as f64).sqrt();
    let trained = (PARAMETERS * percent / 100.0) as usize + classes.len() * 769;
    Arm {
        backbone: "vit_b16".into(),
        method: name.into(),
        data_fraction: fraction,
        auc: Some(around(auc, half)),
        acc: Some(around(auc - 0.08, half * 1.3)),
        balanced_acc: Some(around(auc - 0.1, half * 1.4)),
        f1_macro: Some(auc - 0.11),
        collapse: (name == "linear" && task.0 == "wbc_bccd4").then(|| Collapse {
            images: 72,
            never: vec![Never { class: 2, cases: 18 }],
            dominant: vec![Dominant { class: 3, called: 67, cases: 18 }],
        }),
        auc_per_cell: vec![auc - 0.004, auc, auc + 0.004],
        val_auc: (auc + 0.01 * numbers.normal()).min(0.999),
        per_class,
        subgroups: if task.0 == "fundus_dr3" { subgroups(numbers, auc) } else { vec![] },
        calibration: calibration(numbers, images),
        confusion: (!multi_label).then(|| confusion(numbers, classes.len(), images)),
        learning: learning(numbers, ease),
        cost: Cost {
            trainable_parameters: trained,
            trainable_percent: 100.0 * trained as f64 / PARAMETERS,
            stored_bytes: 4 * trained as u64 + 2_000,
            peak_rss_bytes: held + images as u64 * 40_000,
            seconds_per_epoch: seconds * images as f64 / 30.0,
            epochs: 18.3,
            best_epoch: 11.7,
            seconds: seconds * images as f64 * 0.61,
            images_per_s: 90.0 / seconds,
        },
    }
}

fn compare(task: &Task, arms: &[Arm], method: &str) -> Option<Comparison> {
    let of = |method: &str| arms.iter().find(|arm| arm.method == method && arm.data_fraction == 1.0);
    let value = of(method)?.auc?.value - of("full")?.auc?.value;
    let half = 0.16 / ((task.4 * task.2.len()) as f64).sqrt();
    let difference = Estimate { value, low: value - half, high: value + half };
    let verdict = match () {
        () if difference.low > 0.0 => Verdict::Superior,
        () if difference.low > -0.02 => Verdict::NonInferior,
        () if difference.high < -0.02 => Verdict::Inferior,
        () => Verdict::Inconclusive,
    };
    let p = (-(value / half).abs() * 3.0).exp();
    Some(Comparison {
        backbone: "vit_b16".into(),
        method: method.into(),
        reference: "full".into(),
        difference,
        p,
        p_holm: (p * 7.0).min(1.0),
        p_delong: (task.2.len() == 2).then_some(p * 1.1),
        p_inferior: (-(value + 0.02) / half * 3.0).exp().min(1.0) / 2.0,
        p_inferior_holm: (-(value + 0.02) / half * 3.0).exp().min(1.0),
        p_worse_holm: 1.0,
        verdict,
    })
}

fn audit(task: &Task) -> Audit {
    let (name, _, classes, ..) = *task;
    let split = |split: &str, images: usize| AuditSplit {
        split: split.into(),
        images: images * classes.len(),
        patients: (name != "wbc_bccd4").then_some(images * classes.len() * 4 / 5),
        images_of: classes.iter().map(|class| if *class == "Hernia" { images / 30 } else { images }).collect(),
    };
    let warnings: &[&str] = match name {
        "wbc_bccd4" => &["The manifest names no patients: images of one patient may be on both sides of a split."],
        "derm_ham7" => &["3 images of the test split are also in the training split.", "2 images cannot be read."],
        _ => &[],
    };
    Audit {
        splits: vec![split("train", task.4 * 3), split("val", task.4), split("test", task.4)],
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
        shortcut_auc: (name != "brain_mri4").then_some(if name == "oct_dme2" { 0.97 } else { 0.58 }),
        shortcut_features: "width, height, mean and deviation of brightness".into(),
    }
}

fn examples(task: &Task) -> Vec<Example> {
    let (name, _, classes, ..) = *task;
    (0..8)
        .map(|i| Example {
            method: "lora".into(),
            image: format!("images/{name}/{:06}.png", 1000 + i * 37),
            truth: classes[i % classes.len()].into(),
            predicted: classes[(i + usize::from(i > 4)) % classes.len()].into(),
            probability: 0.99 - 0.03 * i as f64,
            correct: i <= 4,
            overlay_png: PIXEL.into(),
        })
        .collect()
}

fn task(numbers: &mut Numbers, task: &Task) -> TaskResults {
    let mut arms = Vec::new();
    let fractions: &[f64] = if matches!(task.0, "fundus_dr3" | "derm_ham7") { &[0.1, 0.25, 0.5, 1.0] } else { &[1.0] };
    for method in 0..METHODS.len() {
        arms.extend(fractions.iter().map(|fraction| arm(numbers, task, method, *fraction)));
    }
    let others = METHODS.iter().map(|method| method.0).filter(|name| *name != "full");
    TaskResults {
        name: task.0.into(),
        multi_label: task.1,
        classes: task.2.iter().map(|name| (*name).into()).collect(),
        audit: audit(task),
        comparisons: others.filter_map(|method| compare(task, &arms, method)).collect(),
        examples: if task.1 { vec![] } else { examples(task) },
        arms,
    }
}

fn total(tasks: &[TaskResults], method: &str) -> Total {
    let arms: Vec<_> = tasks
        .iter()
        .filter_map(|task| task.arms.iter().find(|arm| arm.method == method && arm.data_fraction == 1.0))
        .collect();
    let mean = |of: fn(&Arm) -> Option<Estimate>| {
        let values: Vec<_> = arms.iter().filter_map(|arm| of(arm)).map(|found| found.value).collect();
        (!values.is_empty()).then(|| around(values.iter().sum::<f64>() / values.len() as f64, 0.01))
    };
    let comparisons = tasks.iter().flat_map(|task| &task.comparisons).filter(|found| found.method == method);
    let passed = comparisons.filter(|found| matches!(found.verdict, Verdict::Superior | Verdict::NonInferior)).count();
    let stored: u64 = arms.iter().map(|arm| arm.cost.stored_bytes).sum();
    Total {
        backbone: "vit_b16".into(),
        method: method.into(),
        tasks: arms.len(),
        auc: mean(|arm| arm.auc),
        auc_difference: (method != "full").then(|| around(-0.004, 0.01)),
        acc: mean(|arm| arm.acc),
        storage_bytes: if method == "full" { stored } else { stored + 4 * PARAMETERS as u64 },
        non_inferior_tasks: (method != "full").then_some(passed),
    }
}

/// A whole study, finished.
pub(crate) fn study() -> Results {
    let mut numbers = Numbers(7);
    let tasks: Vec<_> = TASKS.iter().map(|of| task(&mut numbers, of)).collect();
    Results {
        study: StudyInfo {
            name: "Seven clinical tasks".into(),
            software: "melo 0.1.0".into(),
            machine: "2 cores of an AMD EPYC, AVX-512, 24 GiB".into(),
            seeds: vec![1, 2, 3],
            folds: 0,
            level: 0.95,
            replicates: 2000,
            date: "2026-11-28".into(),
            settings: vec![
                ("Epochs".into(), "20 at the most, ended after 10 without a better one on the validation split".into()),
                ("Batch".into(), "16 images".into()),
                ("Augmentation".into(), "mirrored left to right, turned by up to 10°".into()),
            ],
            reference: "full".into(),
            margin: 0.02,
            cells: 195,
            cells_done: 195,
            failures: vec![],
        },
        methods: METHODS.iter().map(|of| MethodInfo { name: of.0.into(), description: of.1.into() }).collect(),
        backbones: vec![BackboneInfo {
            name: "vit_b16".into(),
            architecture: "ViT-B/16, 224 pixels".into(),
            digest: "sha256:9f2c61a54c1de0b7a2f5e1f0f4dbb0e6fb42ad4c8f6f6c3b8a3e02d8c1e7a590".into(),
            parameters: PARAMETERS as usize,
            bytes: 4 * PARAMETERS as u64,
        }],
        totals: METHODS.iter().map(|method| total(&tasks, method.0)).collect(),
        tasks,
    }
}

/// The least that a study can be: two tasks of which one failed, a method and the reference, no extras.
pub(crate) fn unfinished() -> Results {
    let mut results = study();
    results.methods.retain(|method| method.name == "lora" || method.name == "full");
    results.totals.clear();
    results.tasks.truncate(2);
    for task in &mut results.tasks {
        task.arms.retain(|arm| arm.method == "lora");
        task.comparisons.clear();
        task.examples.clear();
    }
    results.tasks[1].arms.clear();
    for arm in &mut results.tasks[0].arms {
        arm.auc = None;
        arm.calibration = Calibration::default();
        arm.confusion = None;
        arm.learning.clear();
    }
    results.study.cells = 12;
    results.study.cells_done = 3;
    results.study.failures = vec![Failure {
        cell: "wbc_bccd4/vit_b16/lora/seed 1".into(),
        reason: "the training split has no image of `basophil`".into(),
    }];
    results
}

/// Every name replaced by one that would break a careless page, every second figure by one that is no number.
pub(crate) fn hostile() -> Results {
    let mut results = study();
    results.study.name = hostile_name("study");
    results.study.reference = hostile_name("full");
    results.study.failures = vec![Failure { cell: hostile_name("cell"), reason: hostile_name("reason") }];
    for method in &mut results.methods {
        method.name = hostile_name(&method.name);
        method.description = hostile_name("description");
    }
    results.backbones[0].name = hostile_name("vit_b16");
    let mut second = results.backbones[0].clone();
    second.name = "second".into();
    results.backbones.push(second);
    results.totals.iter_mut().for_each(|total| {
        total.method = hostile_name(&total.method);
        total.backbone = hostile_name("vit_b16");
    });
    for task in &mut results.tasks {
        task.name = hostile_name(&task.name);
        task.classes.iter_mut().for_each(|class| *class = hostile_name(class));
        task.audit.warnings.push(hostile_name("warning"));
        task.audit.shortcut_auc = Some(f64::NAN);
        for found in &mut task.comparisons {
            found.method = hostile_name(&found.method);
            found.backbone = hostile_name("vit_b16");
            found.reference = hostile_name("full");
        }
        task.comparisons[0].difference = Estimate { value: f64::NAN, low: f64::NEG_INFINITY, high: f64::INFINITY };
        for example in &mut task.examples {
            example.image = hostile_name("image");
            example.overlay_png = "\"/><script>".into();
        }
        for (i, arm) in task.arms.iter_mut().enumerate() {
            arm.method = hostile_name(&arm.method);
            arm.backbone = hostile_name("vit_b16");
            arm.subgroups.iter_mut().for_each(|group| group.value = hostile_name(&group.value));
            for class in &mut arm.per_class {
                class.class = hostile_name(&class.class);
                if i % 2 == 0 {
                    class.roc.iter_mut().skip(1).step_by(3).for_each(|point| point.1 = f64::NAN);
                    class.note = Some(hostile_name("note"));
                }
            }
            if i % 2 == 0 {
                arm.val_auc = f64::NAN;
                arm.cost.seconds_per_epoch = f64::INFINITY;
                arm.learning.iter_mut().for_each(|point| point.val_loss = f64::NAN);
                arm.calibration.bins_after.iter_mut().for_each(|bin| bin.confidence = f64::NAN);
                arm.auc = Some(Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN });
            }
        }
    }
    results
}

/// A name with everything in it that HTML, XML, Markdown and CSV read as markup.
pub(crate) fn hostile_name(name: &str) -> String {
    format!(
        "{name}</title></style><script>alert(\"1\")</script>&amp;|`*_[x](y)\r\n, 'a' \u{1b}[2J\u{0}肺{}",
        "W".repeat(60)
    )
}
