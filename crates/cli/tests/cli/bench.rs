//! `melo bench` with the real binary on small networks: what it prints is what `docs/json.md` promises, and what it measures
//! is there.

use crate::workplace::{Workplace, bytes, melo, run};
use serde_json::Value;

/// Twelve blocks of width 192 on four patches.
const ARCH: &str = "vit_tiny_patch16_32";

fn bench(arguments: &[&str]) -> Vec<Value> {
    run(melo().arg("bench").args(arguments).arg("--json")).json_lines()
}

fn one(arguments: &[&str]) -> Value {
    let mut lines = bench(arguments);
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} of {line} is a number"))
}

/// What every line holds: the figure under the name of its unit, its spread, and where it was measured.
fn check_common(line: &Value, bench: &str, unit: &str) {
    assert_eq!(line["bench"], bench);
    let other = if unit == "seconds" { "images_per_s" } else { "seconds" };
    assert!(line.get(other).is_none(), "{line}");
    let [figure, median, min, max] = [unit, "median", "min", "max"].map(|field| number(line, field));
    assert_eq!(figure, median);
    assert!(0.0 < min && min <= median && median <= max, "{line}");
    assert_eq!(line["threads"], 2);
    assert!(
        ["portable", "avx2", "avx512", "avx512bf16", "amx"].contains(&line["isa"].as_str().unwrap_or("none")),
        "{line}"
    );
    assert!(line["machine"].as_str().is_some_and(|machine| machine.contains("cores")), "{line}");
    let commit = line["commit"].as_str().expect("a text");
    assert!(commit == "unknown" || commit.len() == 12 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
    if cfg!(target_os = "linux") {
        assert!(number(line, "peak_rss_bytes") > 1e6);
    }
}

fn check_peaks(line: &Value) {
    let [peak, copies, fraction, flops] =
        ["peak_flops_per_s", "copy_bytes_per_s", "fraction_of_peak", "flops_per_image"].map(|f| number(line, f));
    // No processor does less than a hundred million operations a second, or copies less.
    assert!(peak > 1e8 && copies > 1e8, "{line}");
    let expected = flops * number(line, "median") / peak;
    assert!((fraction / expected - 1.0).abs() < 1e-9, "{line}");
    // Nothing is faster than the registers, but the peak is measured at another moment on a machine that may be busy then.
    assert!(fraction > 0.0 && fraction < 2.0, "{line}");
}

#[test]
fn infer_reports_images_a_second_and_its_share_of_the_peak() {
    for precision in ["f32", "bf16"] {
        let line = one(&["infer", "--arch", ARCH, "--batch", "5", "--precision", precision, "--repeats", "3"]);
        check_common(&line, "infer", "images_per_s");
        check_peaks(&line);
        assert_eq!(line["precision"], precision);
        assert_eq!(line["arch"], ARCH);
        assert_eq!(["batch", "repeats", "rank"].map(|field| number(&line, field)), [5.0, 3.0, 4.0]);
    }
    let bare = one(&["infer", "--arch", ARCH, "--batch", "1", "--rank", "0", "--seconds", "0.3", "--repeats", "1"]);
    assert!(number(&bare, "repeats") >= 1.0 && bare["rank"] == 0);
}

#[test]
fn an_architecture_is_taken_by_any_of_timm_s_names() {
    for verb in ["infer", "train"] {
        // The second has no class token.
        for arch in ["test_vit", "test_vit2"] {
            let line = one(&[verb, "--arch", arch, "--batch", "1", "--repeats", "1"]);
            assert_eq!((&line["arch"], &line["bench"]), (&Value::from(arch), &Value::from(verb)));
        }
    }
}

#[test]
fn train_takes_steps_that_learn() {
    let line = one(&["train", "--arch", ARCH, "--batch", "6", "--repeats", "12", "--warmup", "0"]);
    check_common(&line, "train", "images_per_s");
    check_peaks(&line);
    // Three classes that nothing is known of, then six images that are learnt by heart.
    assert!((number(&line, "first_loss") - 3f64.ln()).abs() < 1e-6, "{line}");
    assert!(number(&line, "last_loss") < 0.95 * number(&line, "first_loss"), "{line}");
    let infer = one(&["infer", "--arch", ARCH, "--batch", "6", "--repeats", "1"]);
    // Forward, and almost as much backward: the patches and the first block's `qkv` need no gradient of their input.
    let times = number(&line, "flops_per_image") / number(&infer, "flops_per_image");
    assert!(times > 1.9 && times < 2.5, "{times}");
}

#[test]
fn switch_times_a_pointer_and_a_file() {
    let line = one(&["switch", "--arch", ARCH, "--repeats", "3"]);
    check_common(&line, "switch", "seconds");
    // The bar of the issue is a microsecond; a build without optimisation on a busy machine keeps it too.
    assert!(number(&line, "seconds") < 1e-6, "{line}");
    let load = &line["load_seconds"];
    assert!(0.0 < number(load, "min") && number(load, "min") <= number(load, "median"), "{line}");
    // Rank 4 on q and v of 12 blocks of width 192, and a head of three classes, in f32.
    let values = 12 * 2 * 2 * 4 * 192 + 3 * 193;
    assert!(number(&line, "plugin_bytes") > f64::from(4 * values), "{line}");
}

#[test]
fn mixed_compares_neighbours_and_counts_what_plugins_hold() {
    let line = one(&["mixed", "--arch", ARCH, "--batch", "6", "--repeats", "4", "--resident", "200"]);
    check_common(&line, "mixed", "images_per_s");
    for spread in ["ratio", "one_plugin_images_per_s"] {
        let [min, median, max] = ["min", "median", "max"].map(|field| number(&line[spread], field));
        assert!(0.0 < min && min <= median && median <= max, "{line}");
    }
    assert_eq!([&line["plugins"], &line["resident_plugins"]], [&Value::from(6), &Value::from(200)]);
    if cfg!(target_os = "linux") {
        let values = f64::from(12 * 2 * 2 * 4 * 192 + 3 * 193);
        // What they hold, and what the allocator adds.
        let each = number(&line, "resident_bytes") / 200.0;
        assert!(each > 3.0 * values && each < 8.0 * values, "{each} bytes for {values} values");
    }
    let without = one(&["mixed", "--arch", ARCH, "--batch", "2", "--repeats", "1", "--resident", "0"]);
    assert_eq!(without["resident_bytes"], Value::Null);
}

#[test]
fn decode_measures_every_format() {
    let lines = bench(&["decode", "--side", "64", "--images", "3", "--repeats", "2"]);
    let formats: Vec<&str> = lines.iter().filter_map(|line| line["format"].as_str()).collect();
    assert_eq!(formats, ["png", "jpeg", "dicom"]);
    for line in &lines {
        check_common(line, "decode", "images_per_s");
        assert_eq!([&line["precision"], &line["fraction_of_peak"]], [&Value::Null; 2]);
    }
    assert_eq!(number(&lines[2], "mean_file_bytes") as usize / (64 * 64), 2);
    assert_eq!(bench(&["decode", "--side", "32", "--images", "1", "--repeats", "1", "--format", "jpeg"]).len(), 1);
}

#[test]
fn fixtures_are_the_same_everywhere_and_predict_reads_them() {
    let new = Workplace::new();
    let make = |name: &str| {
        let folder = new.at(name);
        let mut command = melo();
        command.args(["bench", "fixtures", "--arch", ARCH, "--plugins", "5", "--rank", "2", "--json"]).arg(&folder);
        (run(&mut command).json(), folder)
    };
    let (line, folder) = make("a");
    let (_, again) = make("b");
    let plugins = line["plugins"].as_array().expect("a list");
    assert_eq!(plugins.len(), 5);
    for name in ["backbone.safetensors", "plugins/random_0000.safetensors", "plugins/random_0004.safetensors"] {
        assert_eq!(bytes(&folder.join(name)), bytes(&again.join(name)), "{name}");
    }
    new.image("image.png", melo::synthetic::Phantom::Fundus, 0, 0, 48);
    let mut command = melo();
    command.arg("predict").arg("--json").arg("--backbone").arg(folder.join("backbone.safetensors"));
    for plugin in plugins {
        command.arg("--plugin").arg(plugin["plugin"].as_str().expect("a path"));
    }
    let answers = run(command.arg(new.at("image.png"))).json_lines();
    assert_eq!(answers.len(), 5);
    let mut seen = Vec::new();
    for (answer, plugin) in answers.iter().zip(plugins) {
        assert_eq!([&answer["task"], &answer["plugin_digest"]], [&plugin["task"], &plugin["plugin_digest"]]);
        assert_eq!(answer["backbone_digest"], line["backbone_digest"]);
        assert!(!seen.contains(&&answer["probabilities"]), "no two plug-ins say the same");
        seen.push(&answer["probabilities"]);
    }
    // Every fourth has findings instead of classes.
    assert_eq!(answers.iter().filter(|answer| answer.get("findings").is_some()).count(), 1);
}

#[test]
fn text_for_people_names_machine_and_commit() {
    let text = run(melo().args(["bench", "infer", "--arch", ARCH, "--batch", "2", "--repeats", "1"])).good();
    for part in ["infer vit_tiny_patch16_32, batch 2, f32: ", "images/s", "GFLOP/s", "MB of memory", "commit "] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_cannot_be_is_wrong_usage() {
    let bench = |arguments: &[&str]| run(melo().arg("bench").args(arguments));
    bench(&["infer", "--arch", "resnet50"]).refused(2, &["--arch", "resnet50", "no plain ViT"]);
    bench(&["infer", "--arch", "my_model"]).refused(2, &["--arch", "my_model", "vit_SIZE_patchP_S"]);
    bench(&["train", "--arch", "deit_tiny_patch16_244"]).refused(2, &["--arch", "near it are deit_tiny_patch16_224"]);
    bench(&["train", "--arch", "vit_base_patch16_225"]).refused(2, &["--arch", "225"]);
    bench(&["infer", "--arch", ARCH, "--rank", "193"]).refused(2, &["--rank", "193", "192"]);
    for arguments in [["infer", "--batch", "0"], ["infer", "--seconds", "-1"], ["train", "--repeats", "0"]] {
        assert_eq!(bench(&arguments).status, 2, "{arguments:?}");
    }
}
