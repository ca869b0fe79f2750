//! What a calibration makes of answers.

use melo_train::{Answers, Reading, fit};
use melo_vit::{BackboneReference, ComputedOn, Precision, Preprocess, TaskCard, TaskKind};

/// Two classes whose logits overlap, and are far too sure.
fn answers(kind: TaskKind) -> Answers {
    let label = |row: usize| row / 2 % 2;
    let score = |row: usize| 30.0 * (label(row) as f32 - 0.5 + ((row * 37 % 60) as f32 / 60.0 - 0.5) * 1.6);
    let multi = kind == TaskKind::MultiLabel;
    Answers {
        kind,
        classes: 2,
        names: (0..60).map(|row| format!("{row}.png")).collect(),
        patients: vec![None; 60],
        labels: (0..60)
            .flat_map(|row| if multi { vec![label(row), 1 - label(row)] } else { vec![label(row)] })
            .collect(),
        numbers: Vec::new(),
        masks: Vec::new(),
        distances: Vec::new(),
        logits: (0..60).flat_map(|row| [if multi { score(row) } else { -score(row) }, 0.0]).collect(),
    }
}

#[test]
fn a_fitted_calibration_mends_probabilities_and_leaves_the_auc() {
    for kind in [TaskKind::SingleLabel, TaskKind::Ordinal, TaskKind::MultiLabel] {
        let (val, classes) = (answers(kind), vec!["a".into(), "b".into()]);
        let backbone = BackboneReference { digest: String::new(), name: "tiny".into() };
        let mut card = TaskCard::new("task".into(), kind, classes, Preprocess::base(32), backbone);
        let int8 = ComputedOn { engine: "cpu".into(), precision: Precision::Int8 };
        let unmended = Reading::new(int8.clone(), &card.own_calibration(), &val).expect("figures");
        (card.temperature, card.thresholds) = fit(&val).expect("it can be fitted");
        let mended = Reading::new(int8.clone(), &card.own_calibration(), &val).expect("figures");
        assert_eq!((&mended.computed, mended.calibration.precision), (&int8, Precision::F32));
        assert_eq!(mended.temperature, card.temperature);
        assert_eq!(mended.thresholds, (kind == TaskKind::MultiLabel).then_some(card.thresholds));
        let more = |figure: &str| mended.figures[figure] - unmended.figures[figure];
        assert!(mended.temperature > 2.0 && more("brier") < 0.0 && more("ece") < 0.0, "{mended:?}");
        assert!(more("auc_macro").abs() < 1e-9, "{kind:?}: {}", more("auc_macro"));
    }
}
