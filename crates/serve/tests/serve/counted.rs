//! What of the DICOM network is counted, as `/metrics` says it.

use crate::common::{Running, until};
use crate::dicom::{nobody, receiver, settings, store_image};

fn line(running: &Running, line: &str) -> bool {
    running.service.metrics.text(0).lines().any(|found| found == line)
}

/// Waits for a line of the metrics.
fn counted(running: &Running, wanted: &str) {
    until(wanted, || line(running, wanted));
}

#[test]
fn what_waits_for_a_receiver_that_is_away_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(settings(folder.path(), Some(nobody())));
    assert!(line(&running, "melo_dicom_received_total{result=\"full\",via=\"dicom\"} 0"), "it begins at 0");
    assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
    assert_eq!(store_image(&running, "1.2.3.5", "MR"), 0);
    for wanted in [
        "melo_dicom_received_total{result=\"accepted\",via=\"dicom\"} 2",
        "melo_dicom_objects_total{outcome=\"answered\"} 1",
        "melo_dicom_objects_total{outcome=\"refused\"} 1",
        "melo_dicom_spool_objects{destination=\"pacs\",place=\"outgoing\"} 4",
        "melo_dicom_spool_objects{destination=\"\",place=\"refused\"} 1",
        "melo_dicom_spool_objects{destination=\"\",place=\"incoming\"} 0",
        "melo_dicom_spool_oldest_seconds{destination=\"\",place=\"incoming\"} 0",
    ] {
        counted(&running, wanted);
    }
    until("failed tries", || !line(&running, "melo_dicom_send_failures_total{destination=\"pacs\"} 0"));
    let text = running.service.metrics.text(0);
    let value = |name: &str| -> f64 {
        let start = format!("{name}{{destination=\"pacs\",place=\"outgoing\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).expect("the line").parse().expect("a number")
    };
    assert!((0.0..600.0).contains(&value("melo_dicom_spool_oldest_seconds")), "{text}");
    assert!(value("melo_dicom_spool_bytes") > 4000.0, "{text}");
}

#[test]
fn what_arrives_and_what_is_put_aside_is_counted() {
    for (status, outcome, other) in [(0, "delivered", "undelivered"), (0xc123, "undelivered", "delivered")] {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, _arrived) = receiver(status);
        let running = Running::start(settings(folder.path(), Some(address)));
        assert_eq!(store_image(&running, "1.2.3.4", "DX"), 0);
        counted(&running, &format!("melo_dicom_results_total{{destination=\"pacs\",outcome=\"{outcome}\"}} 4"));
        counted(&running, &format!("melo_dicom_results_total{{destination=\"pacs\",outcome=\"{other}\"}} 0"));
    }
}
