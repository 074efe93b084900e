//! `serve`: serves the API until a signal.

mod reload;
mod supervisor;

use std::future::{self, Future};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use self::reload::Reloader;
use super::{EXIT_SETTINGS, Failure, report_error};
use crate::api::{self, Service, VERSION};
use crate::config::{Loaded, LogFormat, Problem, Problems, Settings};
use crate::metrics;
use crate::server::{self, Frontend, Listener, TlsIdentity};
use crate::telemetry;
use program::Clock;
use program::error_chain;

/// Time for running requests after the first signal. Supervisors usually kill after 30 seconds; the rest is for sending the
/// last reports.
const GRACE: Duration = Duration::from_secs(25);

/// Serves with these settings; `load` reloads them.
pub(super) fn run(
    loaded: Loaded,
    load: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> Result<u8, Failure> {
    let pair = match TlsIdentity::read(&loaded) {
        Ok(pair) => pair,
        Err(fault) => return Ok(report_error(&Problems::from(fault), EXIT_SETTINGS)),
    };
    let _telemetry = telemetry::start(&loaded.settings).map_err(|error| error_chain(&error))?;
    let format = loaded.settings.log.format;
    let outcome = block_until_stopped(loaded, pair, load);
    if let (LogFormat::Json, Err(failure)) = (format, &outcome) {
        // People read standard error; machines read only the log.
        error!("{failure}");
    }
    outcome.map(|()| 0)
}

fn block_until_stopped(
    loaded: Loaded,
    pair: Option<TlsIdentity>,
    load: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let outcome = runtime.block_on(serve(loaded, pair, load));
    // Do not wait for background work.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    loaded: Loaded,
    pair: Option<TlsIdentity>,
    load: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> Result<(), Failure> {
    info!(version = VERSION, "starting hpc-storage-proxy");
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (key, value, source) in loaded.report() {
        info!(target: telemetry::SETTINGS, "{key} = {value} ({source})");
    }
    let settings = &loaded.settings;
    let service = Service::new(settings, &Clock::system()).map_err(|error| error_chain(&error))?;
    let signals = Signals::receive().map_err(|error| format!("cannot receive signals: {error}"))?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| format!("cannot receive signals: {error}"))?;
    let listeners = server::bind(&settings.server.listen).await.map_err(|error| error_chain(&error))?;
    let admin = server::open(&settings.server.admin_listen).await.map_err(|error| error_chain(&error))?;
    let local = listeners.iter().all(Listener::is_local);
    if let Some(problem) = open_dashboard(settings, local) {
        return Err(problem.to_string());
    }
    let fronts = Fronts::new(&service, pair, !admin.is_empty());
    // Not affected by changed settings.
    tokio::spawn(metrics::run_upkeep());
    let refreshing = tokio::spawn(service.clone().run_in_background());
    let waiting = service.waiting();
    let reloader = Reloader::new(loaded, load, service, refreshing, fronts.clone(), local);
    let reloading = tokio::spawn(reloader.run(hangup));
    tokio::spawn(supervisor::ping());
    supervisor::ready();
    #[expect(clippy::async_yields_async, reason = "it returns the deadline of running requests")]
    let stop = async {
        let deadline = stop(signals).await;
        supervisor::stopping();
        waiting.stop();
        // No more reloads.
        reloading.abort();
        deadline
    };
    let served = serve_both(listeners, admin, fronts, stop).await;
    served.map_err(|error| format!("cannot serve: {error}"))?;
    info!("stopped");
    Ok(())
}

/// The problem if everybody could read the dashboard from other machines. The settings are checked for this when they are read, but
/// systemd may have passed other addresses, and a reload does not change the addresses.
fn open_dashboard(settings: &Settings, local: bool) -> Option<Problem> {
    let is_open = settings.dashboard.as_ref().is_some_and(|dashboard| dashboard.sign_in.is_none());
    (is_open && !local).then(|| Problem {
        key: String::from("dashboard.enabled"),
        source: None,
        what: String::from("auth.disable_auth is true, and this process listens on addresses that are not loopback"),
        remedy: String::from("listen only on loopback, and restart, or set auth.disable_auth to false"),
    })
}

/// The frontends of the two kinds of addresses.
#[derive(Clone)]
struct Fronts {
    api: Arc<Frontend>,
    /// For separate addresses of health and metrics; if `None`, the API's frontend serves them.
    admin: Option<Arc<Frontend>>,
}

impl Fronts {
    fn new(service: &Service, pair: Option<TlsIdentity>, separate: bool) -> Self {
        let fronts = Self {
            api: Frontend::new(Router::new(), pair),
            admin: separate.then(|| Frontend::new(Router::new(), None)),
        };
        fronts.route(service);
        fronts
    }

    /// Uses this service for new requests.
    fn route(&self, service: &Service) {
        let (api, health) = (api::router(service), api::health_router(service));
        match &self.admin {
            None => self.api.set_router(api.merge(health)),
            Some(admin) => {
                self.api.set_router(api);
                admin.set_router(health.fallback(api::not_found));
            }
        }
    }
}

/// Serves the API on `listeners`, and health and metrics on `admin` if that is separate.
async fn serve_both<C: Future<Output = ()>>(
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    fronts: Fronts,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    let Some(front) = fronts.admin else {
        return server::serve(listeners, fronts.api, stop).await;
    };
    // Probes are served until the last request of the API has finished.
    let (finished, ended) = oneshot::channel::<()>();
    let api = async {
        let served = server::serve(listeners, fronts.api, stop).await;
        drop(finished);
        served
    };
    #[expect(clippy::async_yields_async, reason = "it returns the deadline of running requests: none")]
    let stop_immediately = async {
        // The error is the signal: the sender was dropped.
        let _ = ended.await;
        future::ready(())
    };
    let health = server::serve_health(admin, front, stop_immediately);
    tokio::try_join!(api, health).map(|_| ())
}

/// Resolves at the first signal. The returned future resolves at the second one, or when the time for running requests is over.
async fn stop(mut signals: Signals) -> impl Future<Output = ()> {
    let name = signals.next().await;
    info!(signal = name, "stopping: finishing running requests, refusing new ones");
    async move {
        tokio::select! {
            name = signals.next() => warn!(signal = name, "stopping immediately: running requests are aborted"),
            () = tokio::time::sleep(GRACE) => {
                warn!(seconds = GRACE.as_secs(), "stopping: requests that are still running are aborted");
            }
        }
    }
}

/// The signals that stop the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to receive the signals.
    fn receive() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal; returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
