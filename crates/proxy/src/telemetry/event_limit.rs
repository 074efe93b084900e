//! A limit of events comes to one of each kind a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an event keeps its like back.
const CALM: Duration = Duration::from_mins(1);
/// Different events within that time. More of them are a limit as well.
const MOST: usize = 60;

/// When each event was last let through.
#[derive(Debug, Default)]
pub(super) struct EventLimit(Mutex<HashMap<String, Instant>>);

impl EventLimit {
    /// Whether an event is let through; its like is not for a minute.
    pub(super) fn admits(&self, event: String, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, admitted| now.duration_since(*admitted) < CALM);
        if last.contains_key(&event) || last.len() >= MOST {
            return false;
        }
        last.insert(event, now);
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
        // What was held back does not prolong the calm.
        assert!(admits("b", 61));
        assert!(!admits("a", 119));
    }

    #[test]
    fn many_kinds_are_a_storm_too() {
        let limit = EventLimit::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|number| limit.admits(number.to_string(), start)).count();
        assert_eq!(admitted, MOST);
        assert!(limit.admits(String::from("0"), start + CALM));
    }
}
