//! The server: one port for all three services, with a request log and fault injection.

mod connection;
mod serve;
mod stomp;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use tokio::runtime::Runtime;

use crate::broker::BrokerMode;
use crate::faults::{Fault, FaultRule};
use crate::http::{Call, Reply};
use crate::keycloak::{REALM, Realm};
use crate::latency::Latency;
use crate::requests::Received;
use crate::state::ServiceState;
use crate::world::{PROVIDER_TOKEN, World};
use connection::{NumberedListener, Peer};

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
        let shared = Arc::new(ServiceState::new(world)?);
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
        self.shared.commit();
        visit(&mut self.shared.write())
    }

    /// Begins a transaction: the change is dated now, but becomes visible only after `duration` by the world's clock. A reading
    /// before that sees the rows as they were.
    pub fn commit_after(&self, duration: Duration, change: impl FnOnce(&mut World) + Send + 'static) {
        self.shared.begin(duration, Box::new(change));
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

    /// Environment variables of a proxy that uses these services, without `STORAGE_SYSTEMS`.
    pub fn proxy_variables(&self) -> [(&'static str, String); 8] {
        [
            ("WALDUR_API_URL", format!("{}/api", self.base_url())),
            ("WALDUR_API_TOKEN", PROVIDER_TOKEN.to_owned()),
            ("CSCS_KEYCLOAK_URL", self.keycloak_url()),
            ("CSCS_KEYCLOAK_REALM", REALM.to_owned()),
            ("HPC_USER_API_URL", self.hpc_url()),
            ("HPC_USER_CLIENT_ID", "hpc-client".to_owned()),
            ("HPC_USER_CLIENT_SECRET", "hpc-secret".to_owned()),
            ("HPC_USER_OIDC_TOKEN_URL", self.token_url()),
        ]
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
        self.shared.add_follow_up(route.to_owned(), Box::new(change));
    }

    /// Sets how the broker of Waldur's events behaves.
    pub fn set_broker(&self, mode: BrokerMode) {
        self.shared.broker.set_mode(mode);
    }

    /// Number of sessions that receive Waldur's events.
    pub fn broker_sessions(&self) -> usize {
        self.shared.broker.sessions()
    }

    /// Ends the sessions that receive events, with an ERROR frame if there is a reason.
    pub fn end_broker_sessions(&self, reason: Option<&str>) {
        self.shared.broker.end_sessions(reason);
    }

    /// Deletes the queues of events and their users, which ends the sessions.
    pub fn delete_queues(&self) {
        self.shared.broker.delete_queues();
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
    let router = Router::new()
        .route("/rmqws-stomp", get(serve::websocket))
        .fallback(serve::serve)
        .with_state(Arc::clone(shared));
    let service = router.into_make_service_with_connect_info::<Peer>();
    runtime.spawn(async move { axum::serve(listener, service).await });
    Ok((runtime, address))
}

/// The normal answer to a request.
fn answer(shared: &ServiceState, call: &Call) -> Reply {
    match call.path.split('/').nth(1) {
        Some("api") => crate::waldur::answer(shared, call),
        Some("hpc") => crate::hpc::answer(shared, call),
        Some("auth") => crate::keycloak::answer(&shared.realm, call),
        _ => Reply::raw(
            axum::http::StatusCode::NOT_FOUND,
            "text/plain",
            "Waldur is at /api/, the HPC User API at /hpc/, Keycloak at /auth/, faults at /_simulator/.\n",
        ),
    }
}
