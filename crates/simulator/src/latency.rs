//! How long Waldur takes for a page, for benchmarks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Time that a list's page costs, and how many pages are worked on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// For each page.
    pub page: Duration,
    /// For each row of it.
    pub item: Duration,
    /// Pages worked on at the same time, as a server's workers do; none = any number.
    pub concurrency: Option<usize>,
}

/// The latency in force and its workers.
#[derive(Default)]
pub(crate) struct Pace(Mutex<(Latency, Option<Arc<Semaphore>>)>);

impl Pace {
    pub(crate) fn set(&self, latency: Latency) {
        let workers = latency.concurrency.map(|workers| Arc::new(Semaphore::new(workers)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (latency, workers);
    }

    /// Takes as long as a page of this many rows does.
    pub(crate) async fn spend(&self, items: usize) {
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
