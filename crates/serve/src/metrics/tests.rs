use super::*;
use melo_vit::Precision;
use std::collections::BTreeMap;

const LIST: &str = include_str!("../../../../docs/metrics.md");
const SOURCES: [&str; 3] = [include_str!("mod.rs"), include_str!("dicom.rs"), include_str!("process.rs")];

/// Names with their labels and kinds.
type Listed = BTreeMap<String, (Vec<String>, String)>;

/// Rows of the tables, such as ``| `melo_refused_total{code}` | counter | … |``.
fn documented() -> Listed {
    let rows = LIST.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let row = |(name, rest): (&str, &str)| {
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let kind = rest.split(" | ").next().unwrap_or_default();
        (name.to_owned(), (labels, kind.to_owned()))
    };
    let listed: Vec<_> = rows.map(row).collect();
    let count = listed.len();
    let listed = Listed::from_iter(listed);
    assert_eq!(listed.len(), count, "a metric is listed twice");
    listed
}

/// One with everything in it.
fn full() -> Metrics {
    let metrics = Metrics::default();
    let (device, precision) = ("AVX-512".to_owned(), Precision::F32);
    metrics.begin(&EngineInfo { engine: "cpu", device, precision, threads: 2 }, "0123456789");
    metrics.request("/v1/predict", 200);
    metrics.answered("chest", 1, Duration::from_secs(1));
    metrics.out_of_scope("chest", 1);
    metrics.syslog("sent", 1);
    metrics.drift(&[DriftRow {
        task: "chest".to_owned(),
        version: "0123456789".to_owned(),
        figure: "confidence".to_owned(),
        reference: None,
        reference_images: 0,
        now: 0.5,
        images: 1,
        distance: None,
        outside: false,
    }]);
    metrics.dicom.begin(["pacs"].into_iter());
    metrics.dicom.holds("incoming", "", 1, 2, Duration::from_secs(3));
    metrics
}

#[test]
fn every_metric_is_listed_with_its_labels_and_kind_and_nothing_else_is() {
    let text = full().text(0);
    let mut emitted = Listed::new();
    for line in text.lines() {
        let kind = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' '));
        if let Some((name, kind)) = kind {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
            emitted.insert(name.to_owned(), (Vec::new(), kind.to_owned()));
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap_or_default(), ""));
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = of_histogram.filter(|name| emitted.contains_key(*name)).unwrap_or(name);
        let found = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        let (labels, _) = emitted.get_mut(name).unwrap_or_else(|| panic!("no type of {name}"));
        *labels = found.filter(|label| label != "le").collect();
    }
    let sorted = |listed: Listed| -> Listed {
        listed
            .into_iter()
            .map(|(name, (mut labels, kind))| {
                labels.sort();
                (name, (labels, kind))
            })
            .collect()
    };
    let mut documented = sorted(documented());
    if !cfg!(target_os = "linux") {
        documented.retain(|name, _| !name.starts_with("process_"));
    }
    assert_eq!(sorted(emitted), documented);
}

#[test]
fn every_name_in_the_sources_is_listed() {
    let documented = documented();
    let literals = SOURCES.iter().flat_map(|source| source.split('"'));
    let names = literals.filter(|text| text.starts_with("melo_") || text.starts_with("process_"));
    let mut count = 0;
    for name in names.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')) {
        assert!(documented.contains_key(name), "{name} is not in docs/metrics.md");
        count += 1;
    }
    assert_eq!(count, documented.len());
}

#[test]
fn names_end_as_prometheus_asks() {
    for (name, (_, kind)) in documented() {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}: only counters end in _total");
        assert!(!name.ends_with("_count") && !name.ends_with("_sum") && !name.ends_with("_bucket"), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_seen() {
    let text = Metrics::default().text(0);
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-2.0..24.0 * 3600.0).contains(&age), "{age} s");
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_virtual_memory_bytes") > 1e6);
    assert!((1.0..value("process_max_fds")).contains(&value("process_open_fds")));
    assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
}

#[test]
fn what_is_computed_at_the_same_time_is_busy_once_and_counts_while_it_runs() {
    let metrics = Metrics::default();
    let (one, other) = (metrics.computing(), metrics.computing());
    std::thread::sleep(Duration::from_millis(20));
    drop(one);
    let running = metrics.busy().time();
    assert!((0.02..2.0).contains(&running), "{running}");
    drop(other);
    let done = metrics.busy().time();
    std::thread::sleep(Duration::from_millis(5));
    assert!(done >= running && metrics.busy().time() == done, "nothing runs any more");
    assert!(metrics.text(0).contains(&format!("melo_engine_busy_seconds_total {done}")));
}

#[test]
fn the_share_of_the_queue_is_of_its_capacity() {
    let metrics = Metrics::default();
    metrics.queue_holds_at_most(8);
    assert!(metrics.text(2).contains("melo_queue_share 0.25"));
}
