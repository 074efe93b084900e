//! How an upstream is spared while it fails: a circuit breaker, and a budget for repeating requests. Pure: time arrives as
//! an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Failed exchanges in a row after which the breaker opens.
const FAILURES: u32 = 5;
/// How long it stays open before one exchange tries again. Short, so that the first refresh after an outage succeeds.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The longest time for which an upstream is left alone because it says so (`Retry-After`).
pub(super) const LONGEST_REST: Duration = Duration::from_secs(10);
/// Most repetitions saved up.
const MOST_REPEATS: f64 = 10.0;
/// What an exchange at the first attempt adds to the budget: in an outage at most one request in ten is a repetition.
const EARNED: f64 = 0.1;

/// Whether requests go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They do.
    Closed,
    /// One tries whether the upstream is back.
    HalfOpen,
    /// None do for a moment.
    Open,
}

impl State {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Whether an exchange may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Now,
    /// Not for so long.
    Rests(Duration),
    /// Another one tries whether the upstream is back; its end tells.
    Probed,
}

/// What is remembered of an upstream's failures.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    /// No exchange begins before.
    rest: Option<Instant>,
    probing: bool,
    repeats: f64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 0, rest: None, probing: false, repeats: MOST_REPEATS }
    }
}

impl Breaker {
    /// Whether an exchange may begin.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        if let Some(rest) = self.rest.filter(|rest| now < *rest) {
            return Admission::Rests(rest - now);
        }
        if self.failures >= FAILURES {
            if self.probing {
                return Admission::Probed;
            }
            self.probing = true;
        }
        Admission::Now
    }

    /// Whether a request may be repeated. Never while the breaker is not closed.
    pub(super) fn may_repeat(&mut self) -> bool {
        let may = self.failures < FAILURES && self.repeats >= 1.0;
        if may {
            self.repeats -= 1.0;
        }
        may
    }

    /// An exchange has come to a usable answer, at its first attempt or not.
    pub(super) fn succeeded(&mut self, at_once: bool) {
        self.failures = 0;
        self.probing = false;
        self.rest = None;
        if at_once {
            self.repeats = (self.repeats + EARNED).min(MOST_REPEATS);
        }
    }

    /// An exchange has failed with all its attempts; `rest` is what the upstream asked for.
    pub(super) fn failed(&mut self, rest: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.probing = false;
        let pause = (self.failures >= FAILURES).then_some(PAUSE);
        let rest = rest.map(|rest| rest.min(LONGEST_REST)).max(pause);
        self.rest = rest.map(|rest| now + rest).max(self.rest);
    }

    /// Nobody waits for the exchange any more: it says nothing about the upstream.
    pub(super) fn abandoned(&mut self) {
        self.probing = false;
    }

    pub(super) fn state(&self, now: Instant) -> State {
        match self.rest {
            Some(rest) if now < rest => State::Open,
            _ if self.failures >= FAILURES => State::HalfOpen,
            _ => State::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_try_after_a_moment() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            assert_eq!(breaker.admit(start), Admission::Now);
            breaker.failed(None, start);
            assert_eq!(breaker.state(start), State::Closed);
        }
        breaker.failed(None, start);
        assert_eq!(breaker.state(start), State::Open);
        assert_eq!(breaker.admit(start), Admission::Rests(PAUSE));
        let later = start + PAUSE;
        assert_eq!((breaker.state(later), breaker.admit(later)), (State::HalfOpen, Admission::Now));
        assert_eq!(breaker.admit(later), Admission::Probed, "one at a time");
        breaker.failed(None, later);
        assert_eq!(breaker.admit(later), Admission::Rests(PAUSE));
        let last = later + PAUSE;
        assert_eq!(breaker.admit(last), Admission::Now);
        breaker.succeeded(true);
        assert_eq!((breaker.state(last), breaker.admit(last)), (State::Closed, Admission::Now));
    }

    #[test]
    fn an_abandoned_trial_lets_the_next_one_try() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            breaker.failed(None, start);
        }
        let later = start + PAUSE;
        assert_eq!(breaker.admit(later), Admission::Now);
        breaker.abandoned();
        assert_eq!(breaker.admit(later), Admission::Now);
    }

    #[test]
    fn a_success_between_failures_counts() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..3 * FAILURES {
            breaker.failed(None, start);
            breaker.failed(None, start);
            breaker.succeeded(false);
        }
        assert_eq!(breaker.state(start), State::Closed);
    }

    #[test]
    fn an_upstream_that_asks_for_rest_gets_some() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        breaker.failed(Some(3 * SECOND), start);
        assert_eq!(breaker.admit(start + SECOND), Admission::Rests(2 * SECOND));
        assert_eq!(breaker.admit(start + 3 * SECOND), Admission::Now);
        breaker.failed(Some(3600 * SECOND), start);
        assert_eq!(
            breaker.admit(start),
            Admission::Rests(LONGEST_REST),
            "an upstream that asks for an hour is tried sooner"
        );
    }

    #[test]
    fn repeating_is_limited_and_earned() {
        let mut breaker = Breaker::default();
        assert_eq!((0..100).filter(|_| breaker.may_repeat()).count(), 10);
        (0..25).for_each(|_| breaker.succeeded(true));
        assert_eq!((0..100).filter(|_| breaker.may_repeat()).count(), 2);
    }
}
