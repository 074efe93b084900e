//! Limits Sentry events to one of each kind per minute.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use program::lock;
use tokio::time::Instant;

/// Minimum time between two events of the same kind.
const INTERVAL: Duration = Duration::from_mins(1);
/// Maximum number of events of any kind within that time.
const MAX_KINDS: usize = 60;

/// When an event of each kind was last admitted.
#[derive(Debug, Default)]
pub(super) struct EventLimit(Mutex<HashMap<String, Instant>>);

impl EventLimit {
    /// Whether to send an event of this kind now.
    pub(super) fn admits(&self, kind: String, now: Instant) -> bool {
        let mut last = lock(&self.0);
        last.retain(|_, admitted| now.duration_since(*admitted) < INTERVAL);
        if last.contains_key(&kind) || last.len() >= MAX_KINDS {
            return false;
        }
        last.insert(kind, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_kind_a_minute() {
        let limit = EventLimit::default();
        let start = Instant::now();
        let admits = |event: &str, seconds| limit.admits(event.to_owned(), start + Duration::from_secs(seconds));
        assert!(admits("a", 0));
        assert!(!admits("a", 1));
        assert!(admits("b", 1));
        assert!(!admits("a", 59));
        assert!(admits("a", 60));
        // Events that were held back do not extend the interval.
        assert!(admits("b", 61));
        assert!(!admits("a", 119));
    }

    #[test]
    fn the_number_of_kinds_is_limited_too() {
        let limit = EventLimit::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|number| limit.admits(number.to_string(), start)).count();
        assert_eq!(admitted, MAX_KINDS);
        assert!(limit.admits(String::from("0"), start + INTERVAL));
    }
}
