//! Cards that cannot be read or contradict themselves.

use crate::raw::{Fixture, assert_error};
use melo_vit::{BottleneckConfig, Error, Plugin, PluginInfo, Storage};
use serde_json::{Value, json};

/// Asserts that a change to the card is refused by a message that says every word.
fn assert_card_refused(change: impl FnOnce(&mut Value), words: &[&str]) {
    let fixture = Fixture::new();
    let error = fixture.refused_after_card(change);
    let message = error.to_string();
    assert_error!(error, Error::Card { .. }, fixture.path);
    words.iter().for_each(|word| assert!(message.contains(word), "`{message}` does not say `{word}`"));
}

#[test]
fn a_file_without_a_card_is_refused() {
    let fixture = Fixture::new();
    let error = fixture.refused_after(|file| file.metadata.clear());
    assert_error!(error, Error::Card { .. }, fixture.path, "melo.card");
    assert_error!(PluginInfo::read(&fixture.path).unwrap_err(), Error::Card { .. }, fixture.path, "melo.card");
}

#[test]
fn broken_json_is_refused() {
    for json in ["", "{", "null", "[]", "\"card\"", "{}", "\u{0}", "{\"format\": 1}"] {
        let fixture = Fixture::new();
        let error = fixture.refused_after(|file| drop(file.metadata.insert("melo.card".to_owned(), json.to_owned())));
        assert_error!(error, Error::Card { .. }, fixture.path, "card:");
    }
    let deep = "[".repeat(100_000);
    let fixture = Fixture::new();
    let error = fixture.refused_after(|file| drop(file.metadata.insert("melo.card".to_owned(), deep)));
    assert_error!(error, Error::Card { .. }, fixture.path, "card:");
}

#[test]
fn every_missing_field_is_named() {
    let card = serde_json::to_value(Fixture::new().plugin.card).unwrap();
    // What later formats added has a default, so that older files are read.
    let added = ["bottleneck", "metric_intervals", "self_test"];
    for field in card.as_object().unwrap().keys().filter(|field| !added.contains(&field.as_str())) {
        assert_card_refused(|card| drop(card.as_object_mut().unwrap().remove(field)), &["missing field", field]);
    }
}

#[test]
fn an_unknown_field_is_named_at_every_level() {
    assert_card_refused(|card| card["threshold"] = json!(0.5), &["unknown field", "threshold"]);
    for part in ["lora", "bottleneck", "preprocess", "backbone", "provenance"] {
        assert_card_refused(|card| card[part]["novel"] = json!(1), &["unknown field", "novel"]);
    }
}

#[test]
fn another_format_is_refused() {
    for format in [0, 13, 1000] {
        assert_card_refused(
            |card| card["format"] = json!(format),
            &["format", &format.to_string(), "expected 1 to 12"],
        );
    }
}

#[test]
fn a_later_format_is_named_whatever_fields_it_has() {
    let later = |card: &mut Value| {
        card["format"] = json!(13);
        card["novel"] = json!({ "some": [1, 2] });
    };
    assert_card_refused(later, &["format 13 is not known, expected 1 to 12"]);
}

/// Makes of a card what software that knew format 1 alone wrote.
fn as_format_1(card: &mut Value) {
    card["format"] = json!(1);
    for field in ["bottleneck", "metric_intervals", "self_test"] {
        card.as_object_mut().unwrap().remove(field);
    }
    for field in ["rslora", "rank_pattern"] {
        card["lora"].as_object_mut().unwrap().remove(field);
    }
    for field in ["split_digest", "precision"] {
        card["provenance"].as_object_mut().unwrap().remove(field);
    }
}

#[test]
fn a_file_of_format_1_is_read_with_defaults_and_written_again_in_format_4() {
    let fixture = Fixture::new();
    fixture.change_card(as_format_1);
    let old = Plugin::load(&fixture.path, &fixture.backbone).unwrap();
    assert_eq!(old.card.format, 1);
    assert!(!old.card.lora.rslora && old.card.lora.rank_pattern.is_empty() && old.card.metric_intervals.is_empty());
    assert_eq!((&old.card.bottleneck, &old.card.self_test), (&BottleneckConfig::none(), &None));
    assert_eq!(
        (old.card.provenance.precision, old.card.provenance.split_digest.as_str()),
        (melo_vit::Precision::F32, "")
    );
    assert_eq!((&old.adapter, &old.head), (&fixture.plugin.adapter, &fixture.plugin.head));
    old.save(&fixture.path, fixture.backbone.config(), Storage::F32).unwrap();
    assert_eq!(PluginInfo::read(&fixture.path).unwrap().card.format, 4);
    assert_eq!(Plugin::load(&fixture.path, &fixture.backbone).unwrap().adapter, old.adapter);
}

#[test]
fn a_format_cannot_say_what_came_with_a_later_one() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("lora.rslora", |card| card["lora"]["rslora"] = json!(true)),
        ("lora.rank_pattern", |card| card["lora"]["rank_pattern"] = json!({"1": 4})),
        ("bottleneck", |card| card["bottleneck"] = json!({"width": 4, "blocks": [0]})),
        ("metric_intervals", |card| card["metric_intervals"] = json!({"val_acc": [0.5, 0.75]})),
        ("provenance.split_digest", |card| card["provenance"]["split_digest"] = json!("00")),
        ("provenance.precision", |card| card["provenance"]["precision"] = json!("bf16")),
    ];
    for (field, change) in changes {
        let old = |card: &mut Value| {
            as_format_1(card);
            change(card);
        };
        assert_card_refused(old, &["format 1 has no field", field]);
    }
    for (field, value) in [("train_images_of", json!([3, 2, 1])), ("data", json!("wbc")), ("date", json!("2026-11-28"))]
    {
        let old = |card: &mut Value| {
            card["format"] = json!(3);
            card["provenance"][field] = value.clone();
        };
        assert_card_refused(old, &["format 3 has no field", field]);
    }
    for format in [1, 2] {
        let old = |card: &mut Value| {
            as_format_1(card);
            card["format"] = json!(format);
            card["self_test"] = self_test();
        };
        assert_card_refused(old, &[&format!("format {format} has no field"), "self_test"]);
    }
}

#[test]
fn what_pools_bags_came_with_format_7_and_fits_its_pooling() {
    let bag = |pooling: &str, hidden: i64, positions: i64| json!({"pooling": pooling, "hidden": hidden, "positions": positions});
    let in_format = |format: u32, bag: Value| {
        move |card: &mut Value| {
            card["format"] = json!(format);
            card["bag"] = bag.clone();
        }
    };
    assert_card_refused(in_format(6, bag("mean", 0, 0)), &["format 6 has no field", "bag"]);
    for (wrong, words) in [
        (bag("gated_attention", 0, 8), "hidden 0, expected 1 to 4096"),
        (bag("gated_attention", 100_000, 8), "hidden 100000"),
        (bag("gated_attention", 4, 3), "positions 3, expected an even number"),
        (bag("mean", 4, 0), "hidden 4, expected 0 of pooling by mean"),
        (bag("max", 0, 2), "positions 2, expected 0 of pooling by max"),
        (bag("median", 0, 0), "unknown variant"),
        (bag("mean", -1, 0), "invalid value"),
    ] {
        assert_card_refused(in_format(7, wrong), &[words]);
    }
    // Tensors that the card calls for, and the file does not hold.
    let fixture = Fixture::new();
    let error = fixture.refused_after_card(in_format(7, bag("gated_attention", 4, 8)));
    assert!(error.to_string().contains("bag."), "{error}");
    let fixture = Fixture::new();
    fixture.change_card(in_format(7, bag("mean", 0, 0)));
    assert_eq!(PluginInfo::read(&fixture.path).unwrap().card.format, 7);
}

#[test]
fn a_record_of_the_test_split_fits_the_classes() {
    let record = || {
        json!({"images": 4, "patients": null, "counts": [[1, 0, 1, 2], [1, 1, 0, 2], [1, 0, 0, 3]],
               "confusion": [[1, 1, 0], [0, 1, 0], [0, 0, 1]], "reliability": [{"count": 4, "confidence": 0.7, "accuracy": 0.75}],
               "calibration_error": 0.05})
    };
    let fixture = Fixture::new();
    fixture.change_card(|card| {
        card["kind"] = json!("single_label");
        card["test"] = record();
    });
    assert_eq!(PluginInfo::read(&fixture.path).unwrap().card.test.unwrap().images, 4);
    let changes = [
        ("counts", json!([[1, 0, 1, 2]]), "test: counts are not those of 4 images and 3 classes"),
        ("images", json!(5), "test: counts are not those of 5 images"),
        ("counts", json!([[u64::MAX, 1, 0, 0], [0, 0, 0, 4], [0, 0, 0, 4]]), "test: counts"),
        ("confusion", json!(null), "test: a confusion matrix belongs to"),
        ("confusion", json!([[1, 1, 0], [0, 1, 0]]), "test: confusion is not that of 4 images"),
        (
            "reliability",
            json!([{"count": 4, "confidence": 1.5, "accuracy": 0.5}]),
            "test: reliability is not of shares",
        ),
        ("calibration_error", json!(-1.0), "test: calibration_error -1 is not in [0, 1]"),
        ("novel", json!(1), "unknown field"),
    ];
    for (field, value, expected) in changes {
        let change = |card: &mut Value| {
            card["kind"] = json!("single_label");
            card["test"] = record();
            card["test"][field] = value.clone();
        };
        assert_card_refused(change, &[expected]);
    }
    assert_card_refused(
        |card| card["provenance"]["train_images_of"] = json!([1, 2]),
        &["train_images_of of 2 classes"],
    );
}

/// One that fits the fixture's three classes.
fn self_test() -> Value {
    json!({"precision": "f32", "logits": [[1, 2, 3], [4, 5, 6]], "bare_logits": [[0, 2, 3], [4, 5, 6]]})
}

#[test]
fn a_self_test_fits_the_classes() {
    let changes = [
        ("precision", json!("f64"), "precision `f64`: expected f32, bf16, bf16x3 or int8"),
        ("precision", json!(""), "precision ``: expected f32, bf16, bf16x3 or int8"),
        ("precision", json!("F32"), "precision `F32`: expected f32, bf16, bf16x3 or int8"),
        ("precision", json!("bf16 "), "precision `bf16 `: expected f32, bf16, bf16x3 or int8"),
        ("precision", json!(32), "expected a string"),
        ("logits", json!([[1, 2, 3]]), "invalid length 1"),
        ("logits", json!([[1, 2, 3], [1, 2, 3], [1, 2, 3]]), "trailing"),
        ("logits", json!([[1, 2, 3], [1, 2]]), "self_test: logits are not 2 times 3"),
        ("bare_logits", json!([[1, 2, 3, 4], [1, 2, 3]]), "self_test: bare_logits are not 2 times 3"),
        ("bare_logits", json!([[1, 2, 1e39], [1, 2, 3]]), "number out of range"),
        ("bare_logits", json!([[1, 2, null], [1, 2, 3]]), "expected f32"),
        ("bare_logits", json!(null), "null"),
        ("engine", json!(1), "expected a string"),
        ("engine", json!(null), "expected a string"),
        ("seed", json!(1), "unknown field"),
    ];
    for (field, value, word) in changes {
        let change = |card: &mut Value| {
            card["self_test"] = self_test();
            card["self_test"][field] = value;
        };
        assert_card_refused(change, &[word]);
    }
    assert_card_refused(|card| card["self_test"] = json!({"precision": "f32"}), &["missing field", "logits"]);
    let fixture = Fixture::new();
    fixture.change_card(|card| card["self_test"] = self_test());
    let engine = || Plugin::load(&fixture.path, &fixture.backbone).unwrap().card.self_test.unwrap().engine;
    assert_eq!(engine(), "cpu");
    fixture.change_card(|card| card["self_test"]["engine"] = json!("abacus"));
    assert_eq!(engine(), "abacus");
}

/// A calibration that fits the fixture's three classes.
fn calibration(precision: &str) -> Value {
    let mut self_test = self_test();
    self_test["precision"] = json!(precision);
    json!({"temperature": 1.5, "thresholds": [0.5, 0.25, 0.75], "self_test": self_test, "images": 12, "data_digest": "d",
           "split_digest": "s", "software": "melo", "metrics": {"val_auc_macro": 0.75}})
}

#[test]
fn calibrations_fit_the_classes_and_are_of_different_places() {
    let fixture = Fixture::new();
    let two = |card: &mut Value| {
        card["format"] = json!(5);
        card["calibrations"] = json!([calibration("int8"), calibration("bf16")]);
    };
    fixture.change_card(two);
    let read = PluginInfo::read(&fixture.path).unwrap().card.calibrations;
    assert_eq!(read.iter().map(|known| known.made().to_string()).collect::<Vec<_>>(), ["int8", "bf16"]);
    let changes = [
        ("temperature", json!(0.0), "calibrations[1]: temperature 0 is not positive"),
        ("temperature", json!(-1.0), "calibrations[1]: temperature -1"),
        ("temperature", json!(1e39), "number out of range"),
        ("temperature", json!("NaN"), "expected f32"),
        ("temperature", json!(null), "expected f32"),
        ("thresholds", json!([0.5, 0.5]), "calibrations[1]: thresholds [0.5, 0.5]: expected 3"),
        ("thresholds", json!([0.5, 0.5, 1.5]), "calibrations[1]: thresholds"),
        ("thresholds", json!([]), "calibrations[1]: thresholds []: expected 3"),
        ("self_test", json!(null), "null"),
        ("images", json!(0), "calibrations[1]: fitted on no image"),
        ("images", json!(-1), "-1"),
        ("data_digest", json!(null), "null"),
        ("metrics", json!({"val_ece": null}), "expected f64"),
        ("engine", json!("cpu"), "unknown field"),
        ("seed", json!(1), "unknown field"),
    ];
    for (field, value, word) in changes {
        let change = |card: &mut Value| {
            two(card);
            card["calibrations"][1][field] = value;
        };
        assert_card_refused(change, &[word]);
    }
    for field in
        ["temperature", "thresholds", "self_test", "images", "data_digest", "split_digest", "software", "metrics"]
    {
        let change = |card: &mut Value| {
            two(card);
            card["calibrations"][0].as_object_mut().unwrap().remove(field);
        };
        assert_card_refused(change, &["missing field", field]);
    }
    let tests = [
        ("logits", json!([[1, 2, 3], [1, 2]]), "calibrations[0]: self_test: logits are not 2 times 3"),
        ("precision", json!("int4"), "precision `int4`"),
        ("novel", json!(1), "unknown field"),
    ];
    for (field, value, word) in tests {
        let change = |card: &mut Value| {
            two(card);
            card["calibrations"][0]["self_test"][field] = value;
        };
        assert_card_refused(change, &[word]);
    }
    let twice = |card: &mut Value| {
        two(card);
        card["calibrations"][1] = calibration("int8");
    };
    assert_card_refused(twice, &["calibrations[1]: there is one for int8 already"]);
    let twice_elsewhere = |card: &mut Value| {
        twice(card);
        card["calibrations"][0]["self_test"]["engine"] = json!("abacus");
        card["calibrations"][1]["self_test"]["engine"] = json!("abacus");
    };
    assert_card_refused(twice_elsewhere, &["calibrations[1]: there is one for int8 on abacus already"]);
    for wrong in [json!({}), json!(null), json!([null]), json!("int8")] {
        let change = |card: &mut Value| {
            card["format"] = json!(5);
            card["calibrations"] = wrong;
        };
        assert_card_refused(change, &["card:"]);
    }
    let earlier = |card: &mut Value| {
        two(card);
        card["format"] = json!(4);
    };
    assert_card_refused(earlier, &["format 4 has no field `calibrations`"]);
}

#[test]
fn the_precision_of_a_training_is_a_known_one() {
    for word in ["f64", "", "F32"] {
        let named = format!("precision `{word}`: expected f32, bf16, bf16x3 or int8");
        assert_card_refused(|card| card["provenance"]["precision"] = json!(word), &[&named]);
    }
}

#[test]
fn intervals_are_finite_and_ordered() {
    let interval = |interval: Value| move |card: &mut Value| card["metric_intervals"]["val_acc"] = interval;
    assert_card_refused(interval(json!([0.75, 0.5])), &["metric_intervals", "val_acc", "0.75"]);
    assert_card_refused(interval(json!([0.5, null])), &["expected f64"]);
    assert_card_refused(interval(json!([0.5])), &["invalid length 1"]);
    assert_card_refused(interval(json!([0.5, 0.75, 1.0])), &["trailing"]);
}

#[test]
fn bottleneck_settings_fit_the_backbone() {
    let changes = [
        ("width", json!(17), "width 17"),
        ("width", json!(0), "width 0"),
        ("width", json!(u64::MAX), "width 18446744073709551615"),
        ("width", json!(-1), "-1"),
        ("width", json!(null), "expected usize"),
        ("blocks", json!([]), "no block"),
        ("blocks", json!([1, 1]), "repeat"),
        ("blocks", json!([1, 0]), "out of order"),
        ("blocks", json!([2]), "block 2"),
    ];
    for (field, value, word) in changes {
        let change = |card: &mut Value| {
            card["bottleneck"] = json!({"width": 4, "blocks": [0, 1]});
            card["bottleneck"][field] = value;
        };
        assert_card_refused(change, &[word]);
    }
    assert_card_refused(|card| card["bottleneck"] = json!({"width": 4}), &["missing field", "blocks"]);
}

#[test]
fn classes_are_distinct_and_enough() {
    assert_card_refused(|card| card["classes"] = json!(["a", "b", "a"]), &["classes", "repeat"]);
    assert_card_refused(|card| card["classes"] = json!([]), &["classes", "too few"]);
    let alone = |card: &mut Value| {
        card["kind"] = json!("single_label");
        card["classes"] = json!(["a"]);
        card["thresholds"] = json!([0.5]);
    };
    assert_card_refused(alone, &["classes", "too few"]);
    assert_card_refused(|card| card["kind"] = json!("ordinal"), &["ordinal"]);
}

#[test]
fn a_card_that_asks_for_too_much_is_refused_by_number_and_bound() {
    let many = |card: &mut Value| {
        card["classes"] = (0..70_000).map(|class| class.to_string()).collect();
        card["thresholds"] = vec![0.5; 70_000].into();
    };
    assert_card_refused(many, &["70000 classes", "at most 65536"]);
    // The patches of the tiny backbone are of 4 px.
    for size in [364, 2048, 4096] {
        assert_card_refused(
            |card| card["preprocess"]["size"] = json!(size),
            &["task `", &format!("image size {size}"), "tokens, at most 8192"],
        );
    }
}

#[test]
fn temperature_is_positive_and_finite() {
    for temperature in [json!(0.0), json!(-1.0)] {
        assert_card_refused(|card| card["temperature"] = temperature, &["temperature"]);
    }
    assert_card_refused(|card| card["temperature"] = json!(1e39), &["number out of range"]);
    for temperature in [json!(null), json!("NaN")] {
        assert_card_refused(|card| card["temperature"] = temperature, &["expected f32"]);
    }
}

#[test]
fn prediction_sets_fit_the_task_and_came_with_format_9() {
    let sets = || json!({"method": "lac", "coverage": 0.9, "by": "all", "thresholds": [0.75, null, 0.75], "patients": [20, 3, 20]});
    let fixture = Fixture::new();
    fixture.change_card(|card| {
        card["kind"] = json!("single_label");
        card["format"] = json!(9);
        card["sets"] = sets();
    });
    let read = PluginInfo::read(&fixture.path).unwrap().card.sets.unwrap();
    assert_eq!((read.thresholds, read.coverage), (vec![Some(0.75), None, Some(0.75)], 0.9));
    let wrong = [
        ("method", json!("residual"), "sets: `residual` is not for one class an image"),
        ("method", json!("guess"), "unknown variant `guess`"),
        ("coverage", json!(1.0), "sets: coverage 1"),
        ("coverage", json!(0.0), "sets: coverage 0"),
        ("by", json!("some"), "unknown variant `some`"),
        ("thresholds", json!([0.5]), "sets: 1 thresholds"),
        ("thresholds", json!([0.5, -0.5, 0.5]), "sets: threshold -0.5"),
        ("patients", json!([1, 2]), "2 numbers of patients"),
    ];
    for (field, value, word) in wrong {
        let change = |card: &mut Value| {
            card["kind"] = json!("single_label");
            card["format"] = json!(9);
            card["sets"] = sets();
            card["sets"][field] = value;
        };
        assert_card_refused(change, &[word]);
    }
    let earlier = |card: &mut Value| {
        card["kind"] = json!("single_label");
        card["format"] = json!(8);
        card["sets"] = sets();
    };
    assert_card_refused(earlier, &["format 8 has no field `sets`"]);
}

#[test]
fn a_scope_fits_its_limits_and_came_with_format_10() {
    let scope = || json!({"blocks": [0, 1], "dimensions": 4, "points": 3, "neighbour": 2});
    let limits = || json!({"false_alarms": 0.05, "limits": [1.5, 0.75], "patients": 20});
    let wrong = [
        ("scope", "blocks", json!([]), "scope: blocks [] are none or not ascending"),
        ("scope", "blocks", json!([1, 1]), "scope: blocks [1, 1] are none or not ascending"),
        ("scope", "dimensions", json!(0), "scope: 3 points in 0 dimensions"),
        ("scope", "points", json!(5000), "scope: 5000 points in 4 dimensions"),
        ("scope", "neighbour", json!(4), "scope: neighbour 4 of 3 points"),
        ("scope", "novel", json!(4), "unknown field `novel`"),
        ("scope_limits", "false_alarms", json!(1.0), "scope_limits: false_alarms 1"),
        ("scope_limits", "limits", json!([1.5, 0.0]), "scope_limits: limit 0"),
    ];
    let with = |card: &mut Value| {
        card["format"] = json!(10);
        card["scope"] = scope();
        card["scope_limits"] = limits();
    };
    for (part, field, value, word) in wrong {
        let change = |card: &mut Value| {
            with(card);
            card[part][field] = value;
        };
        assert_card_refused(change, &[word]);
    }
    for (part, word) in
        [("scope", "scope: a description and its limits"), ("scope_limits", "scope: a description and its limits")]
    {
        let change = |card: &mut Value| {
            with(card);
            card[part] = Value::Null;
        };
        assert_card_refused(change, &[word]);
    }
    let earlier = |card: &mut Value| {
        with(card);
        card["format"] = json!(9);
    };
    assert_card_refused(earlier, &["format 9 has no field `scope`"]);
    let named = |card: &mut Value| {
        with(card);
        card["classes"][0] = json!("scope_score");
    };
    assert_card_refused(named, &["a class is called `scope_score`"]);
}

#[test]
fn thresholds_are_probabilities_one_a_class() {
    for thresholds in
        [json!([]), json!([0.5, 0.5]), json!([0.5, 0.5, 1.5]), json!([0.5, 0.5, -0.1]), json!([0.5, 0.5, 0.5, 0.5])]
    {
        assert_card_refused(|card| card["thresholds"] = thresholds, &["thresholds", "expected 3"]);
    }
}

#[test]
fn preprocessing_is_possible() {
    let changes = [
        ("size", json!(0)),
        ("size", json!(4100)),
        ("size", json!(1u64 << 60)),
        ("crop_pct", json!(0.0)),
        ("crop_pct", json!(1.5)),
        ("crop_pct", json!(-1.0)),
        ("std", json!([0.5, 0.0, 0.5])),
        ("std", json!([0.5, -1.0, 0.5])),
    ];
    for (field, value) in changes {
        assert_card_refused(|card| card["preprocess"][field] = value, &["preprocess", field]);
    }
    for field in ["mean", "std"] {
        assert_card_refused(|card| card["preprocess"][field] = json!([0.5, 1e39, 0.5]), &["number out of range"]);
    }
    assert_card_refused(|card| card["preprocess"]["crop_pct"] = json!(1e-7), &["crop_pct", "8192"]);
    assert_card_refused(|card| card["preprocess"]["size"] = json!(13), &["image size 13", "patch size 4"]);
    assert_card_refused(|card| card["preprocess"]["interpolation"] = json!("nearest"), &["nearest"]);
}

#[test]
fn low_rank_settings_fit_the_backbone() {
    let changes = [
        ("alpha", json!(0.0), "alpha is 0"),
        ("alpha", json!(-4.0), "alpha is -4"),
        ("alpha", json!(1e39), "number out of range"),
        ("alpha", json!(null), "expected f32"),
        ("rank", json!(17), "rank 17"),
        ("rank", json!(u64::MAX), "rank 18446744073709551615"),
        ("rank", json!(-1), "-1"),
        ("rank", json!(2.5), "2.5"),
        ("targets", json!([]), "no target"),
        ("targets", json!(["q", "q"]), "repeat"),
        ("targets", json!(["v", "q"]), "out of order"),
        ("targets", json!(["x"]), "`x`"),
        ("blocks", json!([]), "no block"),
        ("blocks", json!([1, 1]), "repeat"),
        ("blocks", json!([1, 0]), "out of order"),
        ("blocks", json!([0, 2]), "block 2"),
        ("blocks", json!([u64::MAX]), "block 18446744073709551615"),
        ("rslora", json!(1), "expected a boolean"),
        ("rank_pattern", json!({"1": 17}), "rank 17 of block 1"),
        ("rank_pattern", json!({"1": 0}), "rank 0 of block 1"),
        ("rank_pattern", json!({"2": 4}), "block 2 is not among"),
        ("rank_pattern", json!({"18446744073709551615": 4}), "block 18446744073709551615"),
        ("rank_pattern", json!({"1": u64::MAX}), "rank 18446744073709551615"),
        ("rank_pattern", json!({"one": 4}), "expected key to be a number"),
        ("rank_pattern", json!([4, 4]), "expected a map"),
    ];
    for (field, value, word) in changes {
        assert_card_refused(|card| card["lora"][field] = value, &[word]);
    }
}
