//! The server: one port for all three services, a log of what comes in, and faults on what goes out.

mod door;
mod spoil;

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
use crate::latency::{Latency, Pace};
use crate::requests::{Log, Received};
use crate::world::{RowOrder, World};
use door::{Door, Peer};

/// Positions of a list's rows, and the version of the world they were computed from.
type Listing = (u64, Arc<Vec<usize>>);

/// A change of the world that waits for an answer on a route.
type Sequel = (String, Box<dyn FnOnce(&mut World) + Send>);

/// What the services and the one who holds the [`Simulator`] share.
pub(crate) struct Shared {
    world: RwLock<World>,
    /// Counts changes of the world, so that listings computed before one are known to be old.
    version: AtomicU64,
    listings: Mutex<HashMap<String, Listing>>,
    pub(crate) realm: Realm,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    pace: Pace,
    sequels: Mutex<Vec<Sequel>>,
    connections: Arc<AtomicU64>,
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, World> {
        let world = self.world.write().unwrap_or_else(PoisonError::into_inner);
        self.version.fetch_add(1, Ordering::SeqCst);
        world
    }

    /// Changes the world as was asked for after an answer like this one.
    fn follow_up(&self, call: &Call) {
        let due: Vec<Sequel> = {
            let mut waiting = self.sequels.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extract_if(.., |(route, _)| crate::faults::hits(route, call)).collect()
        };
        for (_, change) in due {
            change(&mut self.write());
        }
    }

    /// The rows that a list has for this user and these filters, remembered until the world changes.
    ///
    /// To be called while the world is held for reading.
    pub(crate) fn listing(
        &self,
        user: Uuid,
        call: &Call,
        rows: RowOrder,
        compute: impl FnOnce() -> Result<Vec<usize>, Reply>,
    ) -> Result<Arc<Vec<usize>>, Reply> {
        const REMEMBERED: usize = 64;
        let version = self.version.load(Ordering::SeqCst);
        // Where ties are shuffled, every page has an order of its own.
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
        if listings.len() >= REMEMBERED {
            listings.clear();
        }
        listings.insert(key, (version, Arc::clone(&rows)));
        Ok(rows)
    }
}

/// The running simulator. It has a runtime of its own, so that stopping it really ends every connection, and a paused
/// clock of a test does not stop it. Dropping it stops it.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Simulator {
    /// Serves this world on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When the loopback interface has no free port, or no key can be made. See [`Simulator::start_on`].
    #[expect(clippy::expect_used, reason = "a test has no use for this error; others call `start_on`")]
    pub async fn start(world: World) -> Self {
        Self::start_on(world, (Ipv4Addr::LOCALHOST, 0).into()).await.expect("a simulator on 127.0.0.1")
    }

    /// Serves this world on this address. Fails when it is taken, or when no key can be made.
    pub async fn start_on(world: World, address: SocketAddr) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || Self::start_blocking(world, address)).await?
    }

    /// [`Simulator::start_on`] for those who are not in an asynchronous context.
    pub fn start_blocking(world: World, address: SocketAddr) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            world: RwLock::new(world),
            version: AtomicU64::new(0),
            listings: Mutex::default(),
            realm: Realm::new()?,
            faults: Faults::default(),
            log: Log::default(),
            pace: Pace::default(),
            sequels: Mutex::default(),
            connections: Arc::default(),
        });
        let (runtime, address) = open(&shared, address)?;
        shared.realm.set_base(&format!("http://{address}"));
        Ok(Self { shared, address, runtime: Some(runtime) })
    }

    /// Ends the listening and every connection, as a crash does. The world, the keys and the log stay.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on another runtime's thread.
            let waiting = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(2)));
            if waiting.join().is_err() {
                tracing::warn!("the simulator's runtime ended with a panic");
            }
        }
    }

    /// Listens again, on the same port as before.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let (runtime, _) = open(&self.shared, self.address)?;
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Looks at the world, or changes it; no request is answered meanwhile.
    pub fn world<T>(&self, visit: impl FnOnce(&mut World) -> T) -> T {
        visit(&mut self.shared.write())
    }

    /// The realm: tokens, keys and clients.
    pub fn realm(&self) -> &Realm {
        &self.shared.realm
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`; the base of Waldur's URLs too: its API is at `{base}/api`.
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

    /// The requests received so far, oldest first; those below `/_simulator/` are not among them.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.log.all()
    }

    /// Forgets the requests received so far.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Spoils every answer on this route until cleared; see [`FaultRule::route`] for the pattern.
    pub fn set_fault(&self, route: &str, fault: Fault) {
        self.shared.faults.add(FaultRule { route: route.to_owned(), fault, times: None });
    }

    /// Spoils the next answers on this route, these many of them.
    pub fn set_fault_times(&self, route: &str, fault: Fault, times: u32) {
        self.shared.faults.add(FaultRule { route: route.to_owned(), fault, times: Some(times) });
    }

    /// The faults in force.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.shared.faults.all()
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Changes the world once, right after the next answer on this route was made and before it is sent: what happens
    /// while a client reads page after page.
    pub fn after_answer(&self, route: &str, change: impl FnOnce(&mut World) + Send + 'static) {
        let mut waiting = self.shared.sequels.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((route.to_owned(), Box::new(change)));
    }

    /// How long Waldur's pages take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.shared.pace.set(latency);
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open(shared: &Arc<Shared>, address: SocketAddr) -> anyhow::Result<(Runtime, SocketAddr)> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let door = {
        let _inside = runtime.enter();
        Door::new(tokio::net::TcpListener::from_std(listener)?, Arc::clone(&shared.connections))
    };
    let router = Router::new().fallback(spoil::serve).with_state(Arc::clone(shared));
    let service = router.into_make_service_with_connect_info::<Peer>();
    runtime.spawn(async move { axum::serve(door, service).await });
    Ok((runtime, address))
}

/// The right answer to a request.
fn answer(shared: &Shared, call: &Call) -> Reply {
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
