//! Progress and speed limit of walks over many files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts the files that drivers have read, tagged or deleted in walks. Clones share the count and the limit.
#[derive(Debug, Clone, Default)]
pub struct Walked(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: AtomicU64,
    /// When the next file may be processed, and the time between two files; `None` without a limit.
    pace: Mutex<Option<(Instant, Duration)>>,
}

impl Walked {
    /// Counts one file or directory. Waits if there is a limit.
    pub fn one(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
        let wait = {
            let mut pace = self.0.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((next, each)) = pace.as_mut() else { return };
            let now = Instant::now();
            let turn = (*next).max(now);
            *next = turn + *each;
            turn.duration_since(now)
        };
        std::thread::sleep(wait);
    }

    /// Limits all walks together to this many files per second; 0 removes the limit.
    pub fn limit(&self, a_second: usize) {
        let each = u32::try_from(a_second).ok().and_then(|a_second| Duration::from_secs(1).checked_div(a_second));
        let pace = each.map(|each| (Instant::now(), each));
        *self.0.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// The number of files so far.
    pub fn files(&self) -> u64 {
        self.0.files.load(Ordering::Relaxed)
    }
}
