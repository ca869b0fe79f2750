//! Times as people and files write them: UTC, RFC 3339.

use chrono::{DateTime, Utc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time in UTC; beyond what a calendar can say, its first or last moment.
fn utc(ms: i64) -> DateTime<Utc> {
    let end = if ms < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
    DateTime::from_timestamp_millis(ms).unwrap_or(end)
}

/// `2026-10-01T12:00:00.250Z`.
pub fn rfc3339(ms: i64) -> String {
    utc(ms).format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Date and time of day as DICOM writes them, `20261001` and `120000.250000` (PS3.5, section 6.2: DA, TM).
pub(crate) fn dicom(since_1970: Duration) -> (String, String) {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp(seconds, since_1970.subsec_nanos()).unwrap_or(DateTime::<Utc>::MAX_UTC);
    (time.format("%Y%m%d").to_string(), time.format("%H%M%S%.6f").to_string())
}

/// Milliseconds since 1970 in UTC of a day, `2026-10-01`, which is its first, or of a time, `2026-10-01T12:00:00Z`, which must be in UTC.
pub fn parse(text: &str) -> Option<i64> {
    let time = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let time = time.strip_suffix('Z').and_then(|_| DateTime::parse_from_rfc3339(&time).ok())?;
    Some(time.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_790_856_000_250, "2026-10-01T12:00:00.250Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        assert_eq!(parse("2026-10-01"), Some(1_790_812_800_000));
        assert_eq!(parse("2026-10-01T12:00:00Z"), Some(1_790_856_000_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2026-02-29",
            "2026-13-01",
            "2026-1-1",
            "2026-10-01T12:00:00",
            "2026-10-01T25:00:00Z",
            "2026-10-01T12:00:00+02:00",
            "2026-10-01 12:00:00Z",
            "2026-10-01t12:00:00z",
            "+2026-10-01",
            "é026-10-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn dates_of_dicom_are_those_of_the_calendar() {
        for (seconds, date, time) in [
            (0, "19700101", "000000.000000"),
            (951_782_399, "20000228", "235959.000000"),
            (951_782_400, "20000229", "000000.000000"),
            (1_709_251_199, "20240229", "235959.000000"),
            (4_107_542_400, "21000301", "000000.000000"),
        ] {
            assert_eq!(dicom(Duration::from_secs(seconds)), (date.to_owned(), time.to_owned()));
        }
        assert_eq!(dicom(Duration::from_micros(1_500_007)).1, "000001.500007");
    }

    #[test]
    fn times_that_no_calendar_has_are_written_without_a_panic() {
        for ms in [i64::MIN, i64::MAX] {
            assert!(rfc3339(ms).ends_with('Z'));
        }
        assert_eq!(dicom(Duration::MAX).0.len(), "+2621421231".len());
    }
}
