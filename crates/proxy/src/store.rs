//! Keeps the newest snapshot fresh. One refresh runs at a time; all requests that need it share it.

mod shared;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use catalog::Policy;
use futures::future::{BoxFuture, FutureExt, Shared};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

use crate::config::Cache;
use crate::metrics;
use crate::reading::Reading;
use crate::shared_cache::{Head, SharedCache};
use crate::source::{Source, SourceError};
use crate::telemetry::{self, spans};
use program::Clock;
use program::error_chain;
use program::lock;
use shared::Ending;

/// Timeout of a reading, in addition to the timeouts of its exchanges.
const DEADLINE: Duration = Duration::from_mins(5);

/// With a snapshot younger than this, readiness does not depend on the last refresh: shorter outages are no reason to send
/// clients elsewhere.
const READY_FOR: Duration = Duration::from_mins(1);
/// How long a request waits for a refresh, from the refresh's beginning, while a stale snapshot can be served instead.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// Probes start a refresh at most this often.
const PROMPT_EVERY: Duration = Duration::from_secs(1);
/// Shortest interval of the refreshes for waiting clients, if `cache.refresh_interval` is not set.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval of these refreshes if they read changes only: an order is visible within 5 s.
const MAX_INTERVAL: Duration = Duration::from_secs(4);
/// Their interval while Waldur announces changes.
const ANNOUNCED_INTERVAL: Duration = Duration::from_secs(15);
/// After a refresh that took long, they pause for this multiple of its duration, so that they occupy a small part of Waldur.
const PAUSE_FACTOR: u32 = 10;
/// Limit of that pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Served {
    pub reading: Arc<Reading>,
    /// Whether it is served instead of a fresh one that could not be read.
    pub stale: bool,
}

/// There is no snapshot to serve. Shared by all requests that waited for a refresh.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    #[error(transparent)]
    Source(Arc<SourceError>),
    /// No refresh ended within the time for a request.
    #[error("reading the upstreams takes longer than {} s (server.request_timeout)", .0.as_secs_f64())]
    TooSlow(Duration),
    /// A bug in this program.
    #[error("this program panicked while reading the upstreams")]
    Panicked,
}

impl StoreError {
    /// Whether this program caused the error, rather than an upstream.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Source(error) => matches!(**error, SourceError::Render(_) | SourceError::Panicked(_)),
            Self::TooSlow(_) => false,
            Self::Panicked => true,
        }
    }
}

type Outcome = Result<Arc<Reading>, StoreError>;
type Outcomes = Shared<BoxFuture<'static, Outcome>>;

/// A running refresh.
#[derive(Debug, Clone)]
struct Refresh {
    began: Instant,
    outcome: Outcomes,
}

/// Keeps the newest snapshot.
#[derive(Debug)]
pub struct Store {
    source: Arc<Source>,
    shared: Option<Arc<SharedCache>>,
    cache: Cache,
    /// How long a request waits for a refresh.
    patience: Duration,
    clock: Clock,
    newest: ArcSwapOption<Reading>,
    /// The running refresh.
    refresh: Mutex<Option<Refresh>>,
    /// When the last refresh ended, and whether it succeeded.
    last: Mutex<Option<(Instant, bool)>>,
    /// When a callback last changed Waldur: nothing older counts as fresh.
    changed: Mutex<Option<Instant>>,
    /// When Waldur last announced a change: nothing older counts as fresh.
    announced: Mutex<Option<Instant>>,
    /// Whether Waldur announces changes at present.
    announcing: AtomicBool,
    /// Notified when the newest snapshot has other content than the one before.
    content: watch::Sender<()>,
    /// Notified when a client begins to wait for other content.
    subscribed: Notify,
    /// Notified when a refresh is due at once, because a callback changed Waldur while clients wait.
    due: Notify,
}

impl Store {
    /// Creates an empty store.
    pub fn new(
        source: Source,
        shared: Option<Arc<SharedCache>>,
        cache: Cache,
        patience: Duration,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            source: Arc::new(source),
            shared,
            cache,
            patience,
            clock,
            newest: ArcSwapOption::empty(),
            refresh: Mutex::default(),
            last: Mutex::default(),
            changed: Mutex::default(),
            announced: Mutex::default(),
            announcing: AtomicBool::new(false),
            content: watch::Sender::default(),
            subscribed: Notify::new(),
            due: Notify::new(),
        })
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    pub fn policy(&self) -> &Policy {
        self.source.policy()
    }

    /// A snapshot that is young enough: the newest one, or one from a refresh.
    ///
    /// With `fresh`, nothing in it is older than this call. A running refresh is shared if it began late enough; otherwise the
    /// next one is. A refresh continues when callers stop waiting for it.
    ///
    /// Without `fresh`, the wait is short if a stale snapshot can be served, and there is no wait while the circuit breaker
    /// of Waldur is open.
    ///
    /// # Errors
    ///
    /// The refresh failed, and there is no stale snapshot that can be served (`cache.max_stale`).
    pub async fn get(self: &Arc<Self>, fresh: bool) -> Result<Served, StoreError> {
        let arrived = Instant::now();
        let allowed = if fresh { Duration::ZERO } else { self.cache.max_age };
        let changed = *lock(&self.changed);
        let latest = changed.max(*lock(&self.announced));
        let since_change = latest.map_or(Duration::MAX, |latest| arrived.saturating_duration_since(latest));
        let max_age = allowed.min(since_change);
        // Not `arrived - max_age`, which fails if the machine was started later.
        let young_enough = |reading: &Arc<Reading>| reading.began + max_age >= arrived;
        let deadline = arrived + self.patience;
        loop {
            let refresh = {
                // Locked, so that no refresh ends between the two.
                let mut running = lock(&self.refresh);
                if let Some(reading) = self.newest.load_full().filter(young_enough) {
                    return Ok(Served { reading, stale: false });
                }
                self.join_or_start(&mut running, arrived, max_age)
            };
            let until = match self.stale() {
                Some(_) if fresh => deadline,
                // A change by a callback must be visible.
                Some(reading) if changed.is_some_and(|changed| reading.began < changed) => deadline,
                Some(_) if self.source.circuit_is_open() => arrived,
                Some(_) => deadline.min(refresh.began + STALE_AFTER),
                None => deadline,
            };
            // A refresh that has ended is used even after that time.
            let outcome = timeout_at(until, refresh.outcome).await;
            match outcome.unwrap_or(Err(StoreError::TooSlow(self.patience))) {
                Ok(reading) if young_enough(&reading) => return Ok(Served { reading, stale: false }),
                // It began before this call; the next one will not.
                Ok(_) => {}
                Err(error) => {
                    return self.stale().map(|reading| Served { reading, stale: true }).ok_or(error);
                }
            }
        }
    }

    /// Records that a callback changed Waldur, or may have: requests get data that is read after this call. If it is `unclear` what
    /// it did, everything is read.
    pub fn note_change(&self, unclear: bool) {
        if unclear {
            self.source.read_all_next();
        }
        *lock(&self.changed) = Some(Instant::now());
        if self.content.receiver_count() > 0 {
            self.due.notify_one();
        }
    }

    /// Records whether Waldur announces changes at present: then refreshes in the background are rarer.
    pub(crate) fn set_waldur_announces(&self, announcing: bool) {
        self.announcing.store(announcing, Ordering::Relaxed);
    }

    /// Whether Waldur announces changes at present.
    pub(crate) fn waldur_announces(&self) -> bool {
        self.announcing.load(Ordering::Relaxed)
    }

    /// Records that Waldur announced a change. Requests get data that is read after this call, or stale data if Waldur is slow.
    pub(crate) fn note_announcement(&self) {
        *lock(&self.announced) = Some(Instant::now());
    }

    /// Notifies of snapshots with other content. While there is a receiver, the snapshot is refreshed in the background.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        let receiver = self.content.subscribe();
        self.subscribed.notify_one();
        receiver
    }

    /// Resolves while a client waits for other content.
    async fn wait_for_subscriber(&self) {
        while self.content.receiver_count() == 0 {
            self.subscribed.notified().await;
        }
    }

    /// How long a request waits for a refresh: slightly less than its timeout.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The newest snapshot, if it may be served stale.
    fn stale(&self) -> Option<Arc<Reading>> {
        self.newest.load_full().filter(|reading| reading.age() <= self.cache.max_stale)
    }

    /// The newest snapshot, of any age.
    pub fn newest(&self) -> Option<Arc<Reading>> {
        self.newest.load_full()
    }

    /// Whether the last refresh succeeded; `None` until one has ended.
    pub fn last_refresh(&self) -> Option<bool> {
        lock(&self.last).map(|(_, succeeded)| succeeded)
    }

    /// Whether a request would get a snapshot, as far as is known without reading the upstreams.
    pub fn is_ready(&self) -> bool {
        let recent = |reading: Arc<Reading>| reading.age() <= self.cache.max_stale.max(READY_FOR);
        self.newest().is_some_and(|reading| self.last_refresh() == Some(true) || recent(reading))
    }

    /// Starts a refresh in the background, unless one is running or has just ended.
    pub fn prompt(self: &Arc<Self>) {
        if lock(&self.last).is_none_or(|(at, _)| at.elapsed() >= PROMPT_EVERY) {
            drop(self.join(Instant::now(), self.due()));
        }
    }

    /// Refreshes at once, unless a request did already, and then as [`Store::stay_fresh`] does.
    pub async fn keep_fresh(self: Arc<Self>) {
        // A failure has been logged.
        let _ = self.get(false).await;
        self.stay_fresh().await;
    }

    /// Refreshes at every `cache.refresh_interval`; if it is not set, every few seconds while clients wait. Never resolves.
    pub async fn stay_fresh(self: Arc<Self>) {
        // The newest reading may come from another replica or store.
        let rest = |reading: Arc<Reading>| self.interval().saturating_sub(reading.age());
        let mut pause = self.newest().map_or(self.interval(), rest);
        loop {
            if self.cache.refresh_interval.is_none() {
                self.wait_for_subscriber().await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.due.notified() => {}
            }
            let requested = Instant::now();
            // Logs its failure.
            let outcome = self.join(requested, self.interval()).outcome.await;
            let took = requested.elapsed();
            pause = outcome.ok().filter(|reading| reading.began < requested).map_or(self.interval(), rest);
            if self.cache.refresh_interval.is_none() {
                pause = polite_pause(pause, took);
            }
        }
    }

    /// Interval of refreshes in the background.
    fn interval(&self) -> Duration {
        self.cache.refresh_interval.unwrap_or_else(|| {
            // Of replicas with one token, each receives a part of the events only.
            let announced = self.waldur_announces() && self.shared.is_none();
            waiting_interval(self.cache.max_age, self.source.reads_changes(), announced)
        })
    }

    /// Refreshes once, or waits for the running refresh; returns whether it succeeded.
    pub async fn refresh(self: &Arc<Self>) -> bool {
        // Logs its failure.
        self.join(Instant::now(), self.due()).outcome.await.is_ok()
    }

    /// Whether the last command to the shared cache succeeded; `None` without one, or before the first command.
    pub fn shared_cache_works(&self) -> Option<bool> {
        self.shared.as_ref().and_then(|shared| shared.works())
    }

    /// Maximum age of another replica's reading for a refresh in the background.
    fn due(&self) -> Duration {
        self.cache.refresh_interval.unwrap_or(self.cache.max_age)
    }

    /// Takes over the snapshot of another store with the same upstreams and policy.
    pub fn inherit(&self, other: &Self) {
        self.newest.store(other.newest.load_full());
        let changed = *lock(&other.changed);
        *lock(&self.changed) = changed;
        let announced = *lock(&other.announced);
        *lock(&self.announced) = announced;
    }

    /// The running refresh, or a new one, for data that was at most `max_age` old at the time of the request.
    fn join(self: &Arc<Self>, requested: Instant, max_age: Duration) -> Refresh {
        self.join_or_start(&mut lock(&self.refresh), requested, max_age)
    }

    fn join_or_start(
        self: &Arc<Self>,
        running: &mut Option<Refresh>,
        requested: Instant,
        max_age: Duration,
    ) -> Refresh {
        if let Some(refresh) = running {
            return refresh.clone();
        }
        let store = Arc::clone(self);
        let began = Instant::now();
        // In its own task, so that it continues when all callers have stopped waiting.
        let task = tokio::spawn(telemetry::in_current_request(spans::within("refresh", async move {
            let (outcome, how) = store.take_or_read(requested, max_age).await;
            store.ended(began, how);
            outcome
        })));
        let store = Arc::clone(self);
        let waiting = async move {
            task.await.unwrap_or_else(|_| {
                store.ended(began, Ending::Failure);
                Err(StoreError::Panicked)
            })
        };
        running.insert(Refresh { began, outcome: waiting.boxed().shared() }).clone()
    }

    /// Reads the upstreams. `published` is the head in the shared cache.
    async fn read(&self, published: Option<&Head>) -> Outcome {
        let began = Instant::now();
        let before = self.newest.load_full();
        let reused = before.as_ref().map(|before| Arc::clone(&before.snapshot));
        let read = tokio::time::timeout(DEADLINE, self.source.read(reused)).await;
        let snapshot = match read.unwrap_or(Err(SourceError::TooSlow(DEADLINE.as_secs()))) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                error!(error = error_chain(&error), "an upstream cannot be read");
                return Err(StoreError::Source(Arc::new(error)));
            }
        };
        let published = published.and_then(|head| head.modified(snapshot.fingerprint()));
        let modified = match &before {
            Some(before) if before.snapshot.fingerprint() == snapshot.fingerprint() => before.modified,
            _ => self.clock.now(),
        };
        // Preferred, so that all replicas report the same time. Never later than now: the clock may have been wrong.
        let modified = published.unwrap_or(modified).min(self.clock.now());
        let took_ms = began.elapsed().as_millis();
        if before.is_none() {
            info!(items = snapshot.len(), took_ms, "the catalogue is read");
        } else {
            debug!(items = snapshot.len(), took_ms, "the catalogue is read");
        }
        let same = before.filter(|before| Arc::ptr_eq(&before.snapshot, &snapshot));
        let encoded = same.map(|same| Arc::clone(&same.encoded)).unwrap_or_default();
        let reading = Arc::new(Reading { snapshot, began, encoded, modified });
        self.replace(&reading);
        Ok(reading)
    }

    /// Makes a reading the newest one.
    fn replace(&self, reading: &Arc<Reading>) {
        let before = self.newest.swap(Some(Arc::clone(reading)));
        if before.is_none_or(|before| before.snapshot.fingerprint() != reading.snapshot.fingerprint()) {
            self.content.send_replace(());
        }
    }

    /// Records the end of a refresh.
    fn ended(&self, began: Instant, ending: Ending) {
        if ending != Ending::Shared {
            metrics::refresh(ending == Ending::Success, began.elapsed());
        }
        let succeeded = ending != Ending::Failure;
        *lock(&self.last) = Some((Instant::now(), succeeded));
        *lock(&self.refresh) = None;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.source.stop();
    }
}

/// Interval of refreshes while clients wait.
fn waiting_interval(max_age: Duration, reads_changes: bool, announced: bool) -> Duration {
    match (reads_changes, announced) {
        (false, _) => max_age.max(MIN_INTERVAL),
        (true, false) => max_age.clamp(MIN_INTERVAL, MAX_INTERVAL),
        (true, true) => ANNOUNCED_INTERVAL,
    }
}

/// The pause after a refresh in the background that took so long.
fn polite_pause(pause: Duration, took: Duration) -> Duration {
    pause.max((took * PAUSE_FACTOR).min(MAX_PAUSE))
}

#[cfg(test)]
mod tests;
