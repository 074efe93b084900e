//! Detects a consumer that looks healthy and receives nothing.

use std::time::Duration;

use tokio::time::Instant;

/// An event announces the changes that are found this long before and after it.
const ANNOUNCED_FOR: Duration = Duration::from_secs(30);
/// Number of unannounced changes in a row after which the consumer counts as broken.
const MISSES: u32 = 3;

/// Compares the changes that refreshes find with the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watchdog {
    /// The last event, or the beginning.
    event: Instant,
    /// When the oldest change was found that waits for its event.
    change: Option<Instant>,
    /// Changes without an event since the last event.
    missed: u32,
}

impl Watchdog {
    /// Events from before `now` may have been lost.
    pub(super) fn new(now: Instant) -> Self {
        Self { event: now, change: None, missed: 0 }
    }

    pub(super) fn event(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// A refresh found changes of resources or orders.
    pub(super) fn change(&mut self, now: Instant) {
        if now.saturating_duration_since(self.event) > ANNOUNCED_FOR && self.change.is_none() {
            self.change = Some(now);
        }
    }

    /// When to call [`check`](Self::check).
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.change.map(|change| change + ANNOUNCED_FOR)
    }

    /// Returns whether too many changes have not been announced.
    pub(super) fn check(&mut self, now: Instant) -> bool {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.change = None;
            self.missed += 1;
        }
        self.missed >= MISSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_changes_without_an_event_are_too_many() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        watchdog.change(start + after(30));
        assert_eq!(watchdog.deadline(), None, "its event may have been lost before the connection");
        for (change, too_many) in [(31, false), (70, false), (200, true)] {
            watchdog.change(start + after(change));
            watchdog.change(start + after(change + 29));
            let deadline = watchdog.deadline().unwrap();
            assert_eq!(deadline, start + after(change + 30));
            assert!(!watchdog.check(deadline - after(1)));
            assert_eq!(watchdog.check(deadline), too_many, "{change}");
        }
    }

    #[test]
    fn an_event_before_or_after_a_change_announces_it() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        for round in 1..100 {
            let now = start + after(round * 1000);
            watchdog.change(now);
            watchdog.event(now + after(29));
            assert_eq!(watchdog.deadline(), None);
            watchdog.change(now + after(40));
            assert_eq!(watchdog.deadline(), None);
            assert!(!watchdog.check(now + after(900)));
        }
    }

    #[test]
    fn an_event_resets_the_count_of_misses() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        for round in 1..100 {
            let now = start + after(round * 1000);
            watchdog.change(now);
            assert!(!watchdog.check(now + after(30)), "{round}");
            if round % 2 == 0 {
                watchdog.event(now + after(31));
            }
        }
    }
}
