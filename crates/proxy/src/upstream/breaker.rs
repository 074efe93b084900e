//! Circuit breaker and retry budget of an upstream. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failed exchanges that open the breaker.
const FAILURES: u32 = 5;
/// How long it stays open before a trial request. Short, so that the first refresh after an outage succeeds.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is obeyed.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Capacity of the retry budget.
const MAX_RETRIES: f64 = 10.0;
/// What an exchange that succeeds at the first attempt adds to the budget: at most one request in ten is a retry.
const EARNED: f64 = 0.1;

/// State of the circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests are sent.
    Closed,
    /// One trial request is sent.
    HalfOpen,
    /// No requests are sent.
    Open,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

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
    Now,
    /// Not before this time has passed.
    After(Duration),
    /// Not before the running trial request ends.
    AfterTrial,
}

#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    /// No exchange begins before this.
    paused_until: Option<Instant>,
    /// Whether the trial request is running.
    trial: bool,
    retries: f64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 0, paused_until: None, trial: false, retries: MAX_RETRIES }
    }
}

impl Breaker {
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return Admission::After(until - now);
        }
        if self.failures >= FAILURES {
            if self.trial {
                return Admission::AfterTrial;
            }
            self.trial = true;
        }
        Admission::Now
    }

    /// Whether the budget allows a retry; if so, takes it from the budget. Never while the breaker is open or half open.
    pub(super) fn may_retry(&mut self) -> bool {
        let may = self.failures < FAILURES && self.retries >= 1.0;
        if may {
            self.retries -= 1.0;
        }
        may
    }

    /// Records an exchange with a usable answer.
    pub(super) fn succeeded(&mut self, first_attempt: bool) {
        self.failures = 0;
        self.trial = false;
        self.paused_until = None;
        if first_attempt {
            self.retries = (self.retries + EARNED).min(MAX_RETRIES);
        }
    }

    /// Records an exchange that failed after all its attempts; `retry_after` is what the upstream asked for.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.trial = false;
        let pause = (self.failures >= FAILURES).then_some(PAUSE);
        let pause = retry_after.map(|after| after.min(MAX_PAUSE)).max(pause);
        self.paused_until = pause.map(|pause| now + pause).max(self.paused_until);
    }

    /// Records an exchange that was cancelled, which is neither a success nor a failure.
    pub(super) fn abandoned(&mut self) {
        self.trial = false;
    }

    pub(super) fn state(&self, now: Instant) -> State {
        match self.paused_until {
            Some(until) if now < until => State::Open,
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
    fn it_opens_after_consecutive_failures_and_then_admits_one_trial_request() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            assert_eq!(breaker.admit(start), Admission::Now);
            breaker.failed(None, start);
            assert_eq!(breaker.state(start), State::Closed);
        }
        breaker.failed(None, start);
        assert_eq!(breaker.state(start), State::Open);
        assert_eq!(breaker.admit(start), Admission::After(PAUSE));
        let later = start + PAUSE;
        assert_eq!((breaker.state(later), breaker.admit(later)), (State::HalfOpen, Admission::Now));
        assert_eq!(breaker.admit(later), Admission::AfterTrial, "one at a time");
        breaker.failed(None, later);
        assert_eq!(breaker.admit(later), Admission::After(PAUSE));
        let last = later + PAUSE;
        assert_eq!(breaker.admit(last), Admission::Now);
        breaker.succeeded(true);
        assert_eq!((breaker.state(last), breaker.admit(last)), (State::Closed, Admission::Now));
    }

    #[test]
    fn a_cancelled_trial_request_admits_another() {
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
    fn a_success_resets_the_count_of_failures() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..3 * FAILURES {
            breaker.failed(None, start);
            breaker.failed(None, start);
            breaker.succeeded(false);
        }
        assert_eq!(breaker.state(start), State::Closed);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_a_limit() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        breaker.failed(Some(3 * SECOND), start);
        assert_eq!(breaker.admit(start + SECOND), Admission::After(2 * SECOND));
        assert_eq!(breaker.admit(start + 3 * SECOND), Admission::Now);
        breaker.failed(Some(3600 * SECOND), start);
        assert_eq!(breaker.admit(start), Admission::After(MAX_PAUSE), "an hour is shortened");
    }

    #[test]
    fn retries_are_limited_and_earned() {
        let mut breaker = Breaker::default();
        assert_eq!((0..100).filter(|_| breaker.may_retry()).count(), 10);
        (0..25).for_each(|_| breaker.succeeded(true));
        assert_eq!((0..100).filter(|_| breaker.may_retry()).count(), 2);
    }
}
