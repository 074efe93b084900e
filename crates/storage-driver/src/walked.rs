//! How far walks over many files have come, and how fast they go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts the files that walks have counted, tagged or deleted, of as many drivers as share it.
#[derive(Debug, Clone, Default)]
pub struct Walked(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: AtomicU64,
    /// From when on the next file may be taken, and the time between two; `None` without a limit.
    pace: Mutex<Option<(Instant, Duration)>>,
}

impl Walked {
    /// Counts one file or directory, and waits where walks may take no more in a second.
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

    /// From now on walks take this many files a second together at most; 0: as many as they can.
    pub fn limit(&self, a_second: usize) {
        let each = u32::try_from(a_second).ok().and_then(|a_second| Duration::from_secs(1).checked_div(a_second));
        let pace = each.map(|each| (Instant::now(), each));
        *self.0.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// All so far.
    pub fn files(&self) -> u64 {
        self.0.files.load(Ordering::Relaxed)
    }
}
