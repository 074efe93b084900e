use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// A clock that is passed as an argument, so that tests can set the time.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    monotonic: Arc<dyn Fn() -> Instant + Send + Sync>,
    uptime: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
        Self::from_fn(SystemTime::now)
    }

    /// A clock that returns what `now` returns, and the machine's monotonic time.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(now), monotonic: Arc::new(Instant::now), uptime: Arc::new(uptime) }
    }

    /// Replaces the source of monotonic time.
    #[must_use]
    pub fn with_monotonic(self, now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { monotonic: Arc::new(now), ..self }
    }

    /// Replaces the source of the uptime.
    #[must_use]
    pub fn with_uptime(self, uptime: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { uptime: Arc::new(uptime), ..self }
    }

    /// The current wall-clock time.
    pub fn now(&self) -> SystemTime {
        (self.wall)()
    }

    /// The current monotonic time, to measure how much time has passed.
    pub fn instant(&self) -> Instant {
        (self.monotonic)()
    }

    /// The time since the machine started. Unlike [`Clock::instant`] it goes on while the machine is suspended, as time does
    /// for other machines.
    pub fn uptime(&self) -> Duration {
        (self.uptime)()
    }
}

fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is negative on this clock.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
