//! State that the services share with the [`Simulator`](crate::Simulator).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use uuid::Uuid;

use crate::broker::Broker;
use crate::costs::Costs;
use crate::faults::{Faults, route_matches};
use crate::http::{Call, Reply};
use crate::keycloak::Realm;
use crate::latency::PageLatency;
use crate::requests::Log;
use crate::world::{RowOrder, Stamp, World};

/// The world's version, and the positions of a list's rows in that version.
type Listing = (u64, Arc<Vec<usize>>);

/// The world's version, and the positions of the HPC User API's projects in that version, by name.
type ProjectIndex = (u64, Arc<HashMap<String, Vec<usize>>>);

type Change = Box<dyn FnOnce(&mut World) + Send>;

/// A transaction: when its rows are dated, when it commits, and its change.
type Transaction = (Stamp, Stamp, Change);

/// A route, and a change of the world to make after the next answer on it.
type PendingChange = (String, Change);

pub(crate) struct ServiceState {
    world: RwLock<World>,
    /// Incremented when the world changes, which invalidates cached listings.
    version: AtomicU64,
    listings: Mutex<HashMap<String, Listing>>,
    projects: Mutex<Option<ProjectIndex>>,
    pub(crate) realm: Realm,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    pub(crate) costs: Costs,
    pub(crate) latency: PageLatency,
    follow_ups: Mutex<Vec<PendingChange>>,
    transactions: Mutex<Vec<Transaction>>,
    pub(crate) connections: Arc<AtomicU64>,
    pub(crate) broker: Broker,
}

impl ServiceState {
    /// Fails if no key can be generated.
    pub(crate) fn new(world: World) -> anyhow::Result<Self> {
        Ok(Self {
            world: RwLock::new(world),
            version: AtomicU64::new(0),
            listings: Mutex::default(),
            projects: Mutex::default(),
            realm: Realm::new()?,
            faults: Faults::default(),
            log: Log::default(),
            costs: Costs::default(),
            latency: PageLatency::default(),
            follow_ups: Mutex::default(),
            transactions: Mutex::default(),
            connections: Arc::default(),
            broker: Broker::default(),
        })
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, World> {
        let world = self.world.write().unwrap_or_else(PoisonError::into_inner);
        self.version.fetch_add(1, Ordering::SeqCst);
        world
    }

    /// Makes a change after the next answer on this route.
    pub(crate) fn add_follow_up(&self, route: String, change: Change) {
        self.follow_ups.lock().unwrap_or_else(PoisonError::into_inner).push((route, change));
    }

    /// Makes the changes that are pending for this route.
    pub(crate) fn follow_up(&self, call: &Call) {
        let due: Vec<PendingChange> = {
            let mut waiting = self.follow_ups.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extract_if(.., |(route, _)| route_matches(route, call)).collect()
        };
        for (_, change) in due {
            change(&mut self.write());
        }
    }

    /// Begins a transaction that makes this change and commits after this time.
    pub(crate) fn begin(&self, duration: Duration, change: Change) {
        let now = self.read().time();
        let end = now.plus_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner).push((now, end, change));
    }

    /// Commits the transactions that have ended by the world's clock, in the order in which they began.
    pub(crate) fn commit(&self) {
        let now = self.read().time();
        let ended: Vec<Transaction> = {
            let mut open = self.transactions.lock().unwrap_or_else(PoisonError::into_inner);
            open.extract_if(.., |(_, end, _)| *end <= now).collect()
        };
        for (began, _, change) in ended {
            self.write().commit(began, change);
        }
    }

    /// The rows of a list for this user and these filters, cached until the world changes.
    ///
    /// The caller must hold the read lock on the world.
    pub(crate) fn listing(
        &self,
        user: Uuid,
        call: &Call,
        rows: RowOrder,
        compute: impl FnOnce() -> Result<Vec<usize>, Reply>,
    ) -> Result<Arc<Vec<usize>>, Reply> {
        const CACHED: usize = 64;
        let version = self.version.load(Ordering::SeqCst);
        // With shuffled ties, every page has its own order, so the page is part of the cache key.
        let paging: &[&str] = match rows {
            RowOrder::AskedWithoutTieBreak => &["field"],
            RowOrder::Asked | RowOrder::AsGiven => &["field", "page", "page_size"],
        };
        let filters: Vec<_> = call.query.iter().filter(|(key, _)| !paging.contains(&key.as_str())).collect();
        let key = format!("{user} {} {filters:?}", call.path);
        let lock = || self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, rows)) = lock().get(&key)
            && *then == version
        {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(compute()?);
        let mut listings = lock();
        if listings.len() >= CACHED {
            listings.clear();
        }
        listings.insert(key, (version, Arc::clone(&rows)));
        Ok(rows)
    }

    /// The positions of the HPC User API's projects by name, cached until the world changes.
    ///
    /// The caller must hold the read lock on the world, which is `world`.
    pub(crate) fn projects(&self, world: &World) -> Arc<HashMap<String, Vec<usize>>> {
        let version = self.version.load(Ordering::SeqCst);
        let mut cached = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, index)) = &*cached
            && *then == version
        {
            return Arc::clone(index);
        }
        let mut index: HashMap<String, Vec<usize>> = HashMap::new();
        for (position, row) in world.hpc.projects.iter().enumerate() {
            if let Some(name) = row["posixName"].as_str() {
                index.entry(name.to_owned()).or_default().push(position);
            }
        }
        let index = Arc::new(index);
        *cached = Some((version, Arc::clone(&index)));
        index
    }
}
