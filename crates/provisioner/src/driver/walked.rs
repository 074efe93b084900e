//! How far walks over many files have come: for people who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the files that walks have counted, tagged or deleted, of as many drivers as share it.
#[derive(Debug, Clone, Default)]
pub struct Walked(Arc<AtomicU64>);

impl Walked {
    /// One file or directory more.
    pub fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// All so far.
    pub fn files(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
