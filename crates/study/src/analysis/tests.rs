//! Laws of arms and comparisons, on answers made by hand.

use super::*;
use crate::cell_result::Identity;
use crate::plan::tests::{SMALL, plan};
use crate::results::{Estimate, Verdict};
use melo_train::{EpochRow, TrainConfig};
use melo_vit::{Preprocess, TaskKind};

/// Cases of each class; two images a patient.
const CASES: usize = 40;

/// Answers whose logit of the second class is `strength` more for its cases, with noise that depends on `seed`.
fn answers(strength: f32, seed: u64) -> Answers {
    let n = 2 * CASES;
    let mut state = seed.wrapping_mul(2862933555777941757).wrapping_add(3037000493);
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let labels: Vec<usize> = (0..n).map(|row| row / 2 % 2).collect();
    let logits = labels.iter().flat_map(|&label| [0.0, 4.0 * noise() + strength * (label as f32 - 0.5)]).collect();
    Answers {
        kind: TaskKind::SingleLabel,
        classes: 2,
        names: (0..n).map(|row| format!("{row:03}.png")).collect(),
        patients: (0..n).map(|row| Some(format!("p{}", row / 2))).collect(),
        labels,
        numbers: Vec::new(),
        masks: Vec::new(),
        distances: Vec::new(),
        logits,
    }
}

fn result(strength: f32, seed: u64) -> CellResult {
    let row = |epoch, best| EpochRow {
        epoch,
        learning_rate: 1e-3,
        train_loss: 0.5,
        val_loss: 0.5,
        val_auc_macro: Some(0.8),
        val_acc: Some(0.7),
        images_per_s: 10.0,
        seconds: 2.0,
        best,
        ..EpochRow::default()
    };
    let preprocess = Preprocess::base(32);
    CellResult {
        identity: Identity {
            cell: "cell".into(),
            data_digest: String::new(),
            backbone_digest: String::new(),
            preprocess,
            config: TrainConfig::new(2),
        },
        classes: vec!["healthy".into(), "ill".into()],
        temperature: 1.5,
        trainable_parameters: 10,
        backbone_parameters: 1000,
        stored_bytes: 40,
        peak_rss_bytes: Some(1 << 20),
        seconds: 5.0,
        history: vec![row(1, true), row(2, false)],
        val: answers(strength, seed + 100),
        test: answers(strength, seed),
    }
}

/// A plan of `lora` and `full` with two seeds, and a cell of each on its first task.
fn compared(lora: [CellResult; 2], full: [CellResult; 2]) -> (Vec<Arm>, Vec<Comparison>) {
    let plan = plan(SMALL).unwrap();
    let cells: Vec<Cell> = plan.cells().into_iter().filter(|cell| cell.task == 0).collect();
    let of = |method: usize, results: [CellResult; 2]| {
        let cells: Vec<Cell> = cells.iter().copied().filter(|cell| cell.method == method).collect();
        cells.into_iter().zip(results).collect::<Vec<_>>()
    };
    let all = [of(0, lora), of(1, full)].concat();
    let (arms, comparisons, _) = arms(&plan, 0, &all.iter().collect::<Vec<_>>(), &[]).unwrap();
    let mut task = TaskResults {
        name: "task".into(),
        multi_label: false,
        classes: Vec::new(),
        audit: crate::results::Audit::default(),
        arms,
        comparisons,
        examples: Vec::new(),
    };
    compare::correct(std::slice::from_mut(&mut task), plan.level);
    (task.arms, task.comparisons)
}

#[test]
fn the_same_answers_differ_by_nothing() {
    let same = || [result(1.0, 1), result(1.0, 2)];
    let (arms, comparisons) = compared(same(), same());
    let [found] = comparisons.as_slice() else { panic!("one comparison") };
    let difference = found.difference;
    assert_eq!((difference.value, difference.low, difference.high, found.p), (0.0, 0.0, 0.0, 1.0));
    assert_eq!(found.verdict, Verdict::NonInferior);
    assert_eq!(found.p_delong, Some(1.0));
    assert!(found.p_inferior < 0.001);
    assert_eq!(arms[0].auc, arms[1].auc);
}

#[test]
fn an_arm_is_the_mean_of_its_cells_and_its_interval_holds_it() {
    let (arms, _) = compared([result(1.0, 1), result(2.0, 2)], [result(1.0, 1), result(1.0, 3)]);
    let auc = arms[0].auc.unwrap();
    let mean = arms[0].auc_per_cell.iter().sum::<f64>() / 2.0;
    assert!((auc.value - mean).abs() < 1e-12);
    assert!(auc.low < auc.value && auc.value < auc.high);
    assert_eq!(arms[0].confusion.as_ref().unwrap().iter().flatten().sum::<u64>(), 4 * CASES as u64);
    assert_eq!(arms[0].learning.len(), 2);
    assert_eq!((arms[0].cost.best_epoch, arms[0].cost.seconds_per_epoch), (1.0, 2.0));
    let class = &arms[0].per_class[1];
    assert_eq!(class.positives, CASES as u64);
    assert_eq!(class.operating_points.len(), 3);
}

#[test]
fn a_better_method_is_superior_and_a_worse_one_inferior() {
    let (strong, weak) = (|| [result(4.0, 1), result(4.0, 2)], || [result(0.5, 1), result(0.5, 2)]);
    let (_, comparisons) = compared(strong(), weak());
    assert_eq!(comparisons[0].verdict, Verdict::Superior);
    assert!(comparisons[0].p < 0.01 && comparisons[0].p_delong.unwrap() < 0.01);
    let (_, comparisons) = compared(weak(), strong());
    assert_eq!(comparisons[0].verdict, Verdict::Inferior);
    assert!(comparisons[0].p_inferior > 0.99);
}

#[test]
fn two_images_of_a_patient_are_drawn_together() {
    let plan = plan(SMALL).unwrap();
    let answers = answers(1.0, 1);
    let draws = TaskDraws::new(&plan, 0, &BTreeMap::from([(None, &answers)]));
    let together = draws.map(|weights| weights[&None].chunks_exact(2).all(|patient| patient[0] == patient[1]));
    assert!(together.into_iter().all(|together| together));
    let other = TaskDraws::new(&plan, 1, &BTreeMap::from([(None, &answers)]));
    assert_ne!(draws.map(|weights| weights[&None].clone()), other.map(|weights| weights[&None].clone()));
}

/// The card that a cell's plug-in has.
fn card(result: &CellResult) -> melo_vit::TaskCard {
    let backbone = melo_vit::BackboneReference { digest: String::new(), name: "vit".into() };
    let preprocess = result.identity.preprocess.clone();
    let mut card =
        melo_vit::TaskCard::new("task".into(), result.test.kind, result.classes.clone(), preprocess, backbone);
    card.temperature = result.temperature;
    card.thresholds = melo_train::thresholds(&result.val, result.temperature);
    card
}

/// A cell of `kind` and three classes or findings.
fn of_kind(kind: TaskKind) -> CellResult {
    let wide = |answers: Answers| {
        let n = answers.names.len();
        let logits =
            answers.logits.chunks_exact(2).enumerate().flat_map(|(row, x)| [x[0], x[1], 0.3 * (row % 5) as f32 - 1.0]);
        let labels = match kind {
            TaskKind::SingleLabel | TaskKind::Ordinal => (0..n).map(|row| row / 2 % 3).collect(),
            TaskKind::Regression | TaskKind::Segmentation => unreachable!("studies are of classes and findings"),
            TaskKind::MultiLabel => {
                (0..n).flat_map(|row| [row / 2 % 2, usize::from(row % 3 == 0), usize::from(row == 9)]).collect()
            }
        };
        Answers { kind, classes: 3, logits: logits.collect(), labels, ..answers }
    };
    let result = result(1.5, 1);
    CellResult {
        classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
        val: wide(result.val.clone()),
        test: wide(result.test.clone()),
        ..result
    }
}

#[test]
fn a_study_of_one_cell_gives_the_figures_of_eval_and_card() {
    let plan = plan(SMALL).unwrap();
    let cell = plan.cells()[0];
    for kind in [TaskKind::SingleLabel, TaskKind::Ordinal, TaskKind::MultiLabel] {
        let result = of_kind(kind);
        let expected = melo_train::figures(&result.classes, &card(&result).own_calibration(), &result.test).unwrap();
        let (arms, ..) = arms(&plan, 0, &[&(cell, result)], &[]).unwrap();
        let [arm] = arms.as_slice() else { panic!("one arm") };
        assert_eq!(arm.auc.as_ref(), expected.get("auc_macro"), "{kind:?}");
        assert_eq!(arm.acc.as_ref(), expected.get("acc"), "{kind:?}");
        assert_eq!(arm.balanced_acc.as_ref(), expected.get("balanced_acc"), "{kind:?}");
        for class in &arm.per_class {
            assert_eq!(class.auc.as_ref(), expected.get(&format!("auc/{}", class.class)), "{kind:?}");
        }
    }
}

/// A cell that calls every image the first class.
fn constant() -> CellResult {
    let result = result(1.0, 1);
    let flat = |answers: &Answers| Answers {
        logits: answers.logits.chunks_exact(2).flat_map(|_| [1.0, 0.0]).collect(),
        ..answers.clone()
    };
    CellResult { val: flat(&result.val), test: flat(&result.test), ..result }
}

#[test]
fn a_constant_predictor_is_no_certainty_and_is_told() {
    let (arms, comparisons) = compared([constant(), constant()], [result(4.0, 1), result(4.0, 2)]);
    let arm = &arms[0];
    for estimate in [arm.acc, arm.balanced_acc, arm.auc, arm.per_class[0].auc] {
        let Estimate { value, low, high } = estimate.unwrap();
        assert!(value == 0.5 && low < 0.45 && high > 0.55, "{value} [{low}, {high}]");
    }
    let collapse = arm.collapse.as_ref().unwrap();
    assert_eq!((collapse.never[0].class, collapse.dominant[0].class), (1, 0));
    assert_eq!(comparisons[0].verdict, Verdict::Inferior);
}

#[test]
fn two_perfect_methods_on_few_patients_decide_nothing() {
    let few = |strength: f32, seed: u64| {
        let mut result = result(strength, seed);
        result.test = result.test.of_rows(&[0, 2, 4, 6, 8, 10]);
        result
    };
    let (arms, comparisons) = compared([few(50.0, 1), few(50.0, 2)], [few(40.0, 3), few(40.0, 4)]);
    let auc = arms[0].auc.unwrap();
    assert!(auc.value == 1.0 && (auc.low - 0.5).abs() < 0.01, "{auc:?}");
    let [found] = comparisons.as_slice() else { panic!("one comparison") };
    assert_eq!(found.difference.value, 0.0);
    assert!(found.difference.low < -0.4, "{:?}", found.difference);
    assert_eq!(found.verdict, Verdict::Inconclusive);
}
