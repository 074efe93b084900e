use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A clock that is passed as an argument, so that tests can set the time.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    monotonic: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
        Self::from_fn(SystemTime::now)
    }

    /// A clock that returns what `now` returns, and the machine's monotonic time.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(now), monotonic: Arc::new(Instant::now) }
    }

    /// Replaces the source of monotonic time.
    #[must_use]
    pub fn with_monotonic(self, now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { monotonic: Arc::new(now), ..self }
    }

    /// The current wall-clock time.
    pub fn now(&self) -> SystemTime {
        (self.wall)()
    }

    /// The current monotonic time, to measure how much time has passed.
    pub fn instant(&self) -> Instant {
        (self.monotonic)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
