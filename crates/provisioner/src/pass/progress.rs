//! How far the work has come: for people who wait.

use std::sync::{Mutex, PoisonError};

/// Counts what is worked on, phase by phase.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Phase>);

/// What is counted, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phase {
    /// What is counted, for people: `approvals`, `tasks`.
    pub what: &'static str,
    /// Those that are done or have failed.
    pub done: usize,
    /// All of them.
    pub all: usize,
}

impl Progress {
    /// Nothing has begun yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Phase { what: "", done: 0, all: 0 }))
    }

    /// Begins a phase in which `all` of something are worked on.
    pub fn begin(&self, what: &'static str, all: usize) {
        *self.phase() = Phase { what, done: 0, all };
    }

    /// One more is done, or has failed.
    pub fn one(&self) {
        self.phase().done += 1;
    }

    /// How far it is now; nothing before the first phase.
    pub fn now(&self) -> Option<Phase> {
        Some(*self.phase()).filter(|phase| phase.all > 0)
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
