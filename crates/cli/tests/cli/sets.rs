//! Prediction sets from a training to an answer.

use crate::workplace::{Workplace, melo, number, on, run, train};
use melo::synthetic::Phantom;
use melo::vit::PluginInfo;

#[test]
fn sets_are_fitted_kept_measured_and_answered() {
    let place = Workplace::new();
    let backbone = place.tiny_backbone("vit", 1, None);
    let data = place.phantoms(Phantom::BloodSmear, 40, [12, 12, 12]);
    let fit = |name: &str, more: &[&str]| {
        let out = place.at(format!("{name}.safetensors"));
        let ran = run(train(&backbone, &data, &out).args(["--epochs", "2", "--lr", "0.01"]).args(more));
        (out, ran)
    };
    let (out, ran) = fit("own", &["--coverage", "0.8"]);
    let said = ran.good();
    assert!(said.contains("prediction sets: coverage ") && said.contains("of 0.8 promised (lac)"), "{said}");
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    let rule = card.sets.expect("it was asked for");
    assert_eq!((rule.coverage, rule.patients, card.format), (0.8, vec![12; 4], 10));
    assert!(card.metrics.contains_key("test_set_size") && card.metric_intervals.contains_key("test_set_coverage"));

    let answer = run(on(&place, &["predict"], &out).arg("--json").arg(data.with_file_name("test_0.png"))).json();
    assert_eq!((&answer["set"]["coverage"], &answer["set"]["method"]), (&0.8.into(), &"lac".into()));
    let members = answer["set"]["classes"].as_array().expect("classes").len();
    let said = run(on(&place, &["predict"], &out).arg(data.with_file_name("test_0.png"))).good();
    assert!(said.contains("; 80 % set: "), "{said}");
    let measured = run(on(&place, &["eval"], &out).arg("--data").arg(&data).arg("--json")).json();
    assert_eq!(number(&measured["set_coverage"]), card.metrics["test_set_coverage"]);
    assert!(number(&measured["intervals"]["set_coverage"][1]) <= 1.0 && members <= 4);

    let splits =
        |more: &[&str]| run(on(&place, &["eval"], &out).arg("--data").arg(&data).args(["--splits", "5"]).args(more));
    let found = splits(&["--json", "--sets", "aps"]).json();
    assert_eq!((&found["splits"], &found["images"], &found["fitted_on"]), (&5.into(), &24.into(), &12.into()));
    assert_eq!((&found["rule"]["method"], &found["rule"]["coverage"]), (&"aps".into(), &0.8.into()));
    assert!(number(&found["figures"]["set_coverage"]["mean"]) > 0.5);
    assert!(splits(&[]).good().contains("coverage 0.8 promised for all images"));
}

#[test]
fn too_few_patients_are_said_with_the_number_needed_and_odd_promises_refused() {
    let place = Workplace::new();
    let backbone = place.tiny_backbone("vit", 1, None);
    let data = place.phantoms(Phantom::BloodSmear, 40, [8, 8, 4]);
    let out = place.at("few.safetensors");
    let fit = |more: &[&str]| {
        run(train(&backbone, &data, &out).args(["--overwrite", "--epochs", "1", "--batch-size", "2"]).args(more))
    };
    let said = fit(&["--coverage", "0.95"]).good();
    assert!(said.contains("a promise of 0.95 needs 19 patients in the validation split, found 8"), "{said}");
    let to_a_script = fit(&["--coverage", "0.95", "--json"]);
    for open in ["prediction sets: a promise of 0.95 needs 19 patients", "nothing is said of an image being in scope"] {
        assert!(to_a_script.stderr.contains(&format!("WARNING: {open}")), "{}", to_a_script.stderr);
    }
    let answer = run(on(&place, &["predict"], &out).arg("--json").arg(data.with_file_name("test_0.png"))).json();
    assert_eq!(answer["set"]["classes"].as_array().map(Vec::len), Some(4), "every class is in the set");
    fit(&["--coverage", "1"]).refused(2, &["coverage", "is 1, expected a number between 0 and 1"]);
    fit(&["--sets", "none", "--coverage", "0.9"]).refused(2, &["--sets none"]);
    fit(&["--sets", "none", "--no-scope"]).good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!((card.sets, card.format), (None, 8), "as older software reads it");
    let mut recalibrate = melo();
    recalibrate.args(["plugin", "recalibrate"]).arg(&out).arg("--backbone").arg(&backbone).arg("--data").arg(&data);
    run(recalibrate.args(["--precision", "f32", "--coverage", "0.8"])).good();
    let card = PluginInfo::read(&out).expect("a plug-in").card;
    assert_eq!(card.calibrations[0].sets.as_ref().map(|rule| rule.coverage), Some(0.8));
    let eval = || {
        let mut eval = on(&place, &["eval"], &out);
        eval.arg("--data").arg(&data);
        eval
    };
    run(eval().args(["--coverage", "0.9"])).refused(2, &["--splits"]);
    run(eval().args(["--splits", "0"])).refused(2, &["splits: 0 of 12 patients"]);
}
