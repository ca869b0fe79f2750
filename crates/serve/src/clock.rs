//! Times as people and files write them: UTC, RFC 3339.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-10-01T12:00:00.250Z`.
pub fn rfc3339(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// A day, `2026-10-01`, as its first millisecond; a time, `2026-10-01T12:00:00Z`, must be in UTC.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let numbers = |text: &str, mark: char, widths: &[usize]| -> Option<Vec<i64>> {
        let parts: Vec<&str> = text.split(mark).collect();
        let right = parts.len() == widths.len() && parts.iter().zip(widths).all(|(part, &width)| part.len() == width);
        let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        (right && parts.iter().all(digits)).then(|| parts.iter().flat_map(|part| part.parse()).collect())
    };
    let day = numbers(day, '-', &[4, 2, 2])?;
    let time = time.strip_suffix('Z')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let time = numbers(time, ':', &[2, 2, 2])?;
    let fraction = fraction.get(..fraction.len().min(3)).filter(|f| f.bytes().all(|b| b.is_ascii_digit()))?;
    let fraction = format!("{fraction:0<3}").parse::<i64>().ok()?;
    let known = (1..=12).contains(&day[1]) && (1..=31).contains(&day[2]);
    if !known || time[0] > 23 || time[1] > 59 || time[2] > 60 {
        return None;
    }
    let days = days(day[0], day[1], day[2]);
    (date(days) == (day[0], day[1], day[2]))
        .then_some(days * 86_400_000 + (time[0] * 3600 + time[1] * 60 + time[2]) * 1000 + fraction)
}

/// Year, month and day of a number of days since 1970-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
fn date(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`date`], `days_from_civil` of the same source.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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
            "é026-10-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
