//! The newest snapshot, kept fresh: one refresh at a time, shared by all who wait for it.

mod taking;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use catalog::Policy;
use futures::future::{BoxFuture, FutureExt, Shared};
use thiserror::Error;
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
use taking::Ending;

/// Time for one reading. Each exchange has a deadline of its own; this one ends a reading that never comes to an end.
const DEADLINE: Duration = Duration::from_mins(5);

/// A snapshot of this age is fit to be served whatever happened to the last refresh, as far as probes are concerned: what
/// passes within it is no reason to send callers elsewhere.
const BRIEF: Duration = Duration::from_mins(1);
/// How long a request waits for a refresh, from the refresh's beginning on, while an older snapshot may stand in.
const SHORT: Duration = Duration::from_secs(2);
/// Probes start a refresh at most this often.
const PROMPT_EVERY: Duration = Duration::from_secs(1);

/// A reading as it is handed out.
#[derive(Debug, Clone)]
pub struct Served {
    /// The reading.
    pub reading: Arc<Reading>,
    /// Whether it stands in for a fresh one that could not be had.
    pub stale: bool,
}

/// Why there is no snapshot to serve. All who waited for a refresh share it.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The upstreams could not be read.
    #[error(transparent)]
    Source(Arc<SourceError>),
    /// No refresh came to an end within the time that a request has.
    #[error("reading the upstreams takes longer than {} s (server.request_timeout)", .0.as_secs_f64())]
    TooSlow(Duration),
    /// The refresh ended without a result: a fault of this program.
    #[error("reading the upstreams was cut short by a fault of this program")]
    Broken,
}

impl StoreError {
    /// Whether the fault is this program's, not an upstream's.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Source(error) => matches!(**error, SourceError::Render(_) | SourceError::Panicked(_)),
            Self::TooSlow(_) => false,
            Self::Broken => true,
        }
    }
}

type Outcome = Result<Arc<Reading>, StoreError>;
type Outcomes = Shared<BoxFuture<'static, Outcome>>;

/// A refresh that is under way.
#[derive(Debug, Clone)]
struct Refresh {
    began: Instant,
    outcome: Outcomes,
}

/// Keeps the newest snapshot.
#[derive(Debug)]
pub struct Store {
    source: Source,
    /// What is shared with other replicas.
    shared: Option<Arc<SharedCache>>,
    cache: Cache,
    /// How long a request waits for a refresh.
    patience: Duration,
    clock: Clock,
    newest: ArcSwapOption<Reading>,
    /// The refresh that is under way.
    refresh: Mutex<Option<Refresh>>,
    /// When the last refresh ended, and whether it succeeded.
    last: Mutex<Option<(Instant, bool)>>,
    /// When Waldur was changed from here: nothing older counts as fresh any more.
    changed: Mutex<Option<Instant>>,
}

impl Store {
    /// A store with nothing in it yet.
    pub fn new(
        source: Source,
        shared: Option<Arc<SharedCache>>,
        cache: Cache,
        patience: Duration,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            shared,
            cache,
            patience,
            clock,
            newest: ArcSwapOption::empty(),
            refresh: Mutex::default(),
            last: Mutex::default(),
            changed: Mutex::default(),
        })
    }

    /// Where the snapshots come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What the site decided about its catalogue.
    pub fn policy(&self) -> &Policy {
        self.source.policy()
    }

    /// A snapshot that is young enough: the newest one, or one that is read now.
    ///
    /// With `fresh` nothing in it is older than this call. A refresh that is under way is shared if it is young enough
    /// itself; else the next one is, by all who wait like that. Whoever stops waiting does not stop the refresh.
    ///
    /// Who does not insist on `fresh` does not wait long where an older snapshot may stand in, and not at all while Waldur
    /// is left alone because it failed.
    ///
    /// # Errors
    ///
    /// The refresh failed, and no older snapshot may stand in for it (`cache.max_stale`).
    pub async fn get(self: &Arc<Self>, fresh: bool) -> Result<Served, StoreError> {
        let arrived = Instant::now();
        let allowed = if fresh { Duration::ZERO } else { self.cache.max_age };
        let changed = self.changed();
        let since_change = changed.map_or(Duration::MAX, |changed| arrived.saturating_duration_since(changed));
        let max_age = allowed.min(since_change);
        // The process may be younger than the age allowed.
        let young_enough = |reading: &Arc<Reading>| reading.began + max_age >= arrived;
        if let Some(reading) = self.newest.load_full().filter(young_enough) {
            return Ok(Served { reading, stale: false });
        }
        let deadline = arrived + self.patience;
        loop {
            let refresh = self.join(arrived, max_age);
            let until = match self.stand_in() {
                Some(_) if fresh => deadline,
                // What was changed from here is to be seen.
                Some(reading) if changed.is_some_and(|changed| reading.began < changed) => deadline,
                Some(_) if self.source.circuit_is_open() => arrived,
                Some(_) => deadline.min(refresh.began + SHORT),
                None => deadline,
            };
            // One that has ended is seen even past that time.
            let outcome = timeout_at(until, refresh.outcome).await;
            match outcome.unwrap_or(Err(StoreError::TooSlow(self.patience))) {
                Ok(reading) if young_enough(&reading) => return Ok(Served { reading, stale: false }),
                // It was under way already; the next one begins after this call.
                Ok(_) => {}
                Err(error) => {
                    return self.stand_in().map(|reading| Served { reading, stale: true }).ok_or(error);
                }
            }
        }
    }

    /// Says that Waldur was, or may have been, changed from here: the next request is answered with what is read after now.
    pub fn note_change(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long a request waits for a refresh: a little less than it has.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The newest snapshot, if the site allows it to stand in for a fresh one.
    fn stand_in(&self) -> Option<Arc<Reading>> {
        self.newest.load_full().filter(|reading| reading.age() <= self.cache.max_stale)
    }

    /// The newest snapshot, of any age.
    pub fn newest(&self) -> Option<Arc<Reading>> {
        self.newest.load_full()
    }

    /// Whether the last refresh succeeded; `None` until one has ended.
    pub fn last_refresh(&self) -> Option<bool> {
        self.last().map(|(_, succeeded)| succeeded)
    }

    /// Whether a request would find a snapshot, as far as can be told without reading anything.
    pub fn is_ready(&self) -> bool {
        let fit = |reading: Arc<Reading>| reading.age() <= self.cache.max_stale.max(BRIEF);
        self.newest().is_some_and(|reading| self.last_refresh() == Some(true) || fit(reading))
    }

    /// Starts a refresh for which nobody waits, unless one is under way or has just ended.
    pub fn prompt(self: &Arc<Self>) {
        if self.last().is_none_or(|(at, _)| at.elapsed() >= PROMPT_EVERY) {
            drop(self.join(Instant::now(), self.due()));
        }
    }

    /// Reads at once, and again and again where `cache.refresh_interval` says so, for as long as it is polled.
    pub async fn keep_fresh(self: Arc<Self>) {
        self.refresh().await;
        self.stay_fresh().await;
    }

    /// The same, beginning later.
    pub async fn stay_fresh(self: Arc<Self>) {
        let Some(interval) = self.cache.refresh_interval else { return };
        // What another replica has read, or another store, is as old here as there.
        let rest = |reading: Arc<Reading>| interval.saturating_sub(reading.age());
        let mut pause = self.newest().map_or(interval, rest);
        loop {
            tokio::time::sleep(pause).await;
            let asked = Instant::now();
            // A failure has been logged; the next round, or the next request, tries again.
            let outcome = self.join(asked, interval).outcome.await;
            pause = outcome.ok().filter(|reading| reading.began < asked).map_or(interval, rest);
        }
    }

    /// Reads once, or waits for the reading that is under way. Whether it succeeded.
    pub async fn refresh(self: &Arc<Self>) -> bool {
        // A failure has been logged; the next round, or the next request, tries again.
        self.join(Instant::now(), self.due()).outcome.await.is_ok()
    }

    /// Whether the cache of the replicas did what was last asked of it; `None` without one, and before that.
    pub fn shared_cache_works(&self) -> Option<bool> {
        self.shared.as_ref().and_then(|shared| shared.works())
    }

    /// How old another replica's reading may be to be as good as one of our own, when nobody waits for it.
    fn due(&self) -> Duration {
        self.cache.refresh_interval.unwrap_or(self.cache.max_age)
    }

    /// Takes over what another store has, of which the upstreams and the site's decisions are the same.
    pub fn inherit(&self, other: &Self) {
        self.newest.store(other.newest.load_full());
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = other.changed();
    }

    /// The refresh that is under way, or a new one, of what was at most `max_age` old when it was `asked` for.
    fn join(self: &Arc<Self>, asked: Instant, max_age: Duration) -> Refresh {
        let mut under_way = self.lock();
        if let Some(refresh) = &*under_way {
            return refresh.clone();
        }
        let store = Arc::clone(self);
        let began = Instant::now();
        // A task of its own: it goes on when all who wait for it are gone.
        let task = tokio::spawn(telemetry::in_current_request(spans::within("refresh", async move {
            let (outcome, how) = store.take_or_read(asked, max_age).await;
            store.ended(began, how);
            outcome
        })));
        let store = Arc::clone(self);
        let waiting = async move {
            task.await.unwrap_or_else(|_| {
                store.ended(began, Ending::Failure);
                Err(StoreError::Broken)
            })
        };
        under_way.insert(Refresh { began, outcome: waiting.boxed().shared() }).clone()
    }

    /// Reads the upstreams. `published` is what other replicas have.
    async fn read(&self, published: Option<&Head>) -> Outcome {
        let began = Instant::now();
        let before = self.newest.load_full();
        let lent = before.as_ref().map(|before| Arc::clone(&before.snapshot));
        let read = tokio::time::timeout(DEADLINE, self.source.read(lent)).await;
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
        // The same everywhere, if it is known.
        let modified = published.unwrap_or(modified);
        let took_ms = began.elapsed().as_millis();
        if before.is_none() {
            info!(items = snapshot.len(), took_ms, "the catalogue is read");
        } else {
            debug!(items = snapshot.len(), took_ms, "the catalogue is read");
        }
        let reading = Arc::new(Reading { snapshot: Arc::new(snapshot), began, encoded: Arc::default(), modified });
        self.newest.store(Some(Arc::clone(&reading)));
        Ok(reading)
    }

    /// Notes how a refresh has ended, and makes room for the next one.
    fn ended(&self, began: Instant, ending: Ending) {
        // Taking is no reading of the upstreams.
        if ending != Ending::Taken {
            metrics::refresh(ending == Ending::Success, began.elapsed());
        }
        let succeeded = ending != Ending::Failure;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), succeeded));
        *self.lock() = None;
    }

    fn changed(&self) -> Option<Instant> {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> Option<(Instant, bool)> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Refresh>> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
