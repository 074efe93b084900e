//! Latency of Waldur's pages, for benchmarks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Latency of a list's pages, and how many are processed at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Per page.
    pub page: Duration,
    /// Per row of a page.
    pub item: Duration,
    /// Number of pages processed at the same time, like a server's workers; `None` = unlimited.
    pub concurrency: Option<usize>,
}

/// The current latency and its workers.
#[derive(Default)]
pub(crate) struct PageLatency(Mutex<(Latency, Option<Arc<Semaphore>>)>);

impl PageLatency {
    pub(crate) fn set(&self, latency: Latency) {
        let workers = latency.concurrency.map(|workers| Arc::new(Semaphore::new(workers)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (latency, workers);
    }

    /// Waits as long as a page with this many rows takes.
    pub(crate) async fn wait(&self, items: usize) {
        let (latency, workers) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let cost = latency.page + latency.item * u32::try_from(items).unwrap_or(u32::MAX);
        if cost.is_zero() {
            return;
        }
        let _worker = match &workers {
            Some(workers) => workers.acquire().await.ok(),
            None => None,
        };
        tokio::time::sleep(cost).await;
    }
}
