//! The server: one port for all three services, with a request log and fault injection.

mod connection;
mod serve;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::faults::{Fault, FaultRule, Faults};
use crate::http::{Call, Reply};
use crate::keycloak::Realm;
use crate::latency::{Latency, PageLatency};
use crate::requests::{Log, Received};
use crate::world::{RowOrder, World};
use connection::{NumberedListener, Peer};

/// The world's version, and the positions of a list's rows in that version.
type Listing = (u64, Arc<Vec<usize>>);

/// A route, and a change of the world to make after the next answer on it.
type PendingChange = (String, Box<dyn FnOnce(&mut World) + Send>);

/// State that the services share with the [`Simulator`].
pub(crate) struct ServiceState {
    world: RwLock<World>,
    /// Incremented when the world changes, which invalidates cached listings.
    version: AtomicU64,
    listings: Mutex<HashMap<String, Listing>>,
    pub(crate) realm: Realm,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    latency: PageLatency,
    sequels: Mutex<Vec<PendingChange>>,
    connections: Arc<AtomicU64>,
}

impl ServiceState {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, World> {
        let world = self.world.write().unwrap_or_else(PoisonError::into_inner);
        self.version.fetch_add(1, Ordering::SeqCst);
        world
    }

    /// Makes the changes that are pending for this route.
    fn follow_up(&self, call: &Call) {
        let due: Vec<PendingChange> = {
            let mut waiting = self.sequels.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extract_if(.., |(route, _)| crate::faults::route_matches(route, call)).collect()
        };
        for (_, change) in due {
            change(&mut self.write());
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
}

/// A running simulator; dropping it stops it. It has its own runtime, so that stopping it closes every connection, and a
/// test that pauses its clock does not stop it.
pub struct Simulator {
    shared: Arc<ServiceState>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Simulator {
    /// Serves this world on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If the loopback interface has no free port, or no key can be generated. [`Simulator::start_on`] returns an error instead.
    #[expect(clippy::expect_used, reason = "a test cannot handle this error; others use `start_on`")]
    pub async fn start(world: World) -> Self {
        Self::start_on(world, (Ipv4Addr::LOCALHOST, 0).into()).await.expect("a simulator on 127.0.0.1")
    }

    /// Serves this world on this address. Fails if the address is in use, or if no key can be generated.
    pub async fn start_on(world: World, address: SocketAddr) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || Self::start_blocking(world, address)).await?
    }

    /// Like [`Simulator::start_on`], outside of an asynchronous context.
    pub fn start_blocking(world: World, address: SocketAddr) -> anyhow::Result<Self> {
        let shared = Arc::new(ServiceState {
            world: RwLock::new(world),
            version: AtomicU64::new(0),
            listings: Mutex::default(),
            realm: Realm::new()?,
            faults: Faults::default(),
            log: Log::default(),
            latency: PageLatency::default(),
            sequels: Mutex::default(),
            connections: Arc::default(),
        });
        let (runtime, address) = open(&shared, address)?;
        shared.realm.set_base(&format!("http://{address}"));
        Ok(Self { shared, address, runtime: Some(runtime) })
    }

    /// Stops listening and closes every connection, as in a crash. The world, the keys and the log are kept.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Another runtime's thread must not block on the shutdown of this runtime.
            let waiting = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(2)));
            if waiting.join().is_err() {
                tracing::warn!("the simulator's runtime panicked during shutdown");
            }
        }
    }

    /// Listens again on the same port.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let (runtime, _) = open(&self.shared, self.address)?;
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Reads or changes the world; requests wait meanwhile.
    pub fn world<T>(&self, visit: impl FnOnce(&mut World) -> T) -> T {
        visit(&mut self.shared.write())
    }

    pub fn realm(&self) -> &Realm {
        &self.shared.realm
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`. Waldur's API is at `{base}/api`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Root of the HPC User API, `{base}/hpc`.
    pub fn hpc_url(&self) -> String {
        format!("{}/hpc", self.base_url())
    }

    /// Base URL of Keycloak, `{base}/auth/`.
    pub fn keycloak_url(&self) -> String {
        format!("{}/auth/", self.base_url())
    }

    /// The realm's token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/protocol/openid-connect/token", self.realm().issuer())
    }

    /// The requests received so far, oldest first, except those below `/_simulator/`.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.log.all()
    }

    /// Clears the log of requests.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// Number of connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Injects a fault into every answer on this route until cleared; see [`FaultRule::route`] for the pattern.
    pub fn set_fault(&self, route: &str, fault: Fault) {
        self.shared.faults.add(FaultRule { route: route.to_owned(), fault, times: None });
    }

    /// Injects a fault into the next `times` answers on this route.
    pub fn set_fault_times(&self, route: &str, fault: Fault, times: u32) {
        self.shared.faults.add(FaultRule { route: route.to_owned(), fault, times: Some(times) });
    }

    /// The active faults.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.shared.faults.all()
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Changes the world once, after the next answer on this route is built and before it is sent: for changes between two
    /// pages.
    pub fn after_answer(&self, route: &str, change: impl FnOnce(&mut World) + Send + 'static) {
        let mut waiting = self.shared.sequels.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((route.to_owned(), Box::new(change)));
    }

    /// Sets the latency of Waldur's pages.
    pub fn set_latency(&self, latency: Latency) {
        self.shared.latency.set(latency);
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open(shared: &Arc<ServiceState>, address: SocketAddr) -> anyhow::Result<(Runtime, SocketAddr)> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        NumberedListener::new(tokio::net::TcpListener::from_std(listener)?, Arc::clone(&shared.connections))
    };
    let router = Router::new().fallback(serve::serve).with_state(Arc::clone(shared));
    let service = router.into_make_service_with_connect_info::<Peer>();
    runtime.spawn(async move { axum::serve(listener, service).await });
    Ok((runtime, address))
}

/// The normal answer to a request.
fn answer(shared: &ServiceState, call: &Call) -> Reply {
    match call.path.split('/').nth(1) {
        Some("api") => crate::waldur::answer(shared, call),
        Some("hpc") => crate::hpc::answer(shared, call),
        Some("auth") => crate::keycloak::answer(shared, call),
        _ => Reply::raw(
            axum::http::StatusCode::NOT_FOUND,
            "text/plain",
            "Waldur is at /api/, the HPC User API at /hpc/, Keycloak at /auth/, faults at /_simulator/.\n",
        ),
    }
}
