//! Laws of arms and comparisons, on answers made by hand.

use super::*;
use crate::cell_result::Identity;
use crate::plan::tests::{SMALL, plan};
use crate::results::Verdict;
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
        logits,
    }
}

fn result(strength: f32, seed: u64) -> CellResult {
    let row = |epoch, best| EpochRow {
        epoch,
        learning_rate: 1e-3,
        train_loss: 0.5,
        val_loss: 0.5,
        val_auc_macro: 0.8,
        val_acc: 0.7,
        images_per_s: 10.0,
        seconds: 2.0,
        best,
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
    (arms, comparisons)
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
