//! How often a caller may ask: so many requests at once, and as many in every minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Callers of which those are forgotten that may ask as often as new ones.
const REMEMBERED: usize = 4096;

/// What callers have left, by name; only of those that have a bound.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, Left>>);

#[derive(Clone, Copy)]
struct Left {
    requests: f64,
    at: Instant,
}

impl Left {
    /// Time since the last request, s.
    fn since(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.at).as_secs_f64()
    }
}

impl Rates {
    /// Takes one request.
    ///
    /// # Errors
    /// How long to wait for the next one.
    pub(super) fn take(&self, name: &str, per_minute: u32) -> Result<(), Duration> {
        self.take_at(name, f64::from(per_minute), Instant::now())
    }

    fn take_at(&self, name: &str, per_minute: f64, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED && !all.contains_key(name) {
            all.retain(|_, left| left.since(now) < 60.0);
        }
        let left = all.entry(name.to_owned()).or_insert(Left { requests: per_minute, at: now });
        left.requests = (left.requests + left.since(now) * per_minute / 60.0).min(per_minute);
        left.at = now;
        if left.requests < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left.requests) * 60.0 / per_minute));
        }
        left.requests -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_s_requests_may_come_at_once_and_more_only_in_time() {
        let (rates, now) = (Rates::default(), Instant::now());
        let after = |seconds: f64| now + Duration::from_secs_f64(seconds);
        for _ in 0..30 {
            assert_eq!(rates.take_at("ris", 30.0, now), Ok(()));
        }
        let wait = rates.take_at("ris", 30.0, now).unwrap_err();
        assert!((wait.as_secs_f64() - 2.0).abs() < 1e-6, "{wait:?}");
        assert_eq!(rates.take_at("pacs", 30.0, now), Ok(()), "another key has its own");
        assert!(rates.take_at("ris", 30.0, after(1.0)).is_err());
        assert_eq!(rates.take_at("ris", 30.0, after(2.1)), Ok(()));
        assert!(rates.take_at("ris", 30.0, after(2.2)).is_err());
        let later = (0..40).filter(|_| rates.take_at("ris", 30.0, after(1e4)).is_ok()).count();
        assert_eq!(later, 30, "what was not used does not add up");
    }

    #[test]
    fn who_may_ask_as_often_as_a_new_caller_is_forgotten() {
        let (rates, now) = (Rates::default(), Instant::now());
        for name in 0..REMEMBERED {
            assert_eq!(rates.take_at(&name.to_string(), 1.0, now), Ok(()));
        }
        assert_eq!(rates.take_at("one more", 1.0, now + Duration::from_secs(30)), Ok(()));
        assert_eq!(rates.0.lock().unwrap().len(), REMEMBERED + 1, "none has its minute behind it");
        assert!(rates.take_at("7", 1.0, now + Duration::from_secs(30)).is_err());
        assert_eq!(rates.take_at("another", 1.0, now + Duration::from_secs(70)), Ok(()));
        assert_eq!(rates.0.lock().unwrap().len(), 3, "the last three");
    }
}
