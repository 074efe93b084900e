//! How far the work has come, for people who wait.

use program::lock;
use std::sync::Mutex;

/// Counts the items of the current phase.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Phase>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phase {
    /// What is counted: `approvals`, `tasks`.
    pub what: &'static str,
    /// How many are done or have failed.
    pub done: usize,
    pub all: usize,
}

impl Progress {
    pub const fn new() -> Self {
        Self(Mutex::new(Phase { what: "", done: 0, all: 0 }))
    }

    /// Begins a phase of `all` items.
    pub fn begin(&self, what: &'static str, all: usize) {
        *self.phase() = Phase { what, done: 0, all };
    }

    /// Does the work of one item, and counts it.
    pub fn counted<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = work();
        self.phase().done += 1;
        done
    }

    /// `None` before the first phase.
    pub fn now(&self) -> Option<Phase> {
        Some(*self.phase()).filter(|phase| phase.all > 0)
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        lock(&self.0)
    }
}
