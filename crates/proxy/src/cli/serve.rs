//! `serve`: the API until a signal.

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
use super::{EXIT_SETTINGS, Failure, complain};
use crate::api::{self, Service, VERSION};
use crate::config::{Loaded, LogFormat, Problems};
use crate::metrics;
use crate::server::{self, Frontend, Listener, TlsIdentity};
use crate::telemetry;
use program::Clock;
use program::error_chain;

/// How long running requests have after the first signal. Supervisors usually kill after 30 seconds; what is left of
/// them is for the last reports.
const GRACE: Duration = Duration::from_secs(25);

/// Serves with these settings, and with what `load` gives when they are to be read anew.
pub(super) fn run(
    loaded: Loaded,
    load: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> Result<u8, Failure> {
    let pair = match TlsIdentity::read(&loaded) {
        Ok(pair) => pair,
        Err(fault) => return Ok(complain(&Problems::from(fault), EXIT_SETTINGS)),
    };
    let _telemetry = telemetry::start(&loaded.settings).map_err(|error| error_chain(&error))?;
    let format = loaded.settings.log.format;
    let outcome = until_the_end(loaded, pair, load);
    if let (LogFormat::Json, Err(failure)) = (format, &outcome) {
        // Standard error tells people; a machine reads the log alone.
        error!("{failure}");
    }
    outcome.map(|()| 0)
}

fn until_the_end(
    loaded: Loaded,
    pair: Option<TlsIdentity>,
    load: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the threads cannot be started: {error}"))?;
    let outcome = runtime.block_on(serve(loaded, pair, load));
    // Work that nobody waits for any more is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    loaded: Loaded,
    pair: Option<TlsIdentity>,
    load: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> Result<(), Failure> {
    info!(version = VERSION, "hpc-storage-proxy starts");
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (key, value, source) in loaded.report() {
        info!(target: telemetry::SETTINGS, "{key} = {value} ({source})");
    }
    let settings = &loaded.settings;
    let service = Service::new(settings, &Clock::system()).map_err(|error| error_chain(&error))?;
    let signals = Signals::receive().map_err(|error| format!("signals cannot be received: {error}"))?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| format!("signals cannot be received: {error}"))?;
    let listeners = server::bind(&settings.server.listen).await.map_err(|error| error_chain(&error))?;
    let admin = server::open(&settings.server.admin_listen).await.map_err(|error| error_chain(&error))?;
    let fronts = Fronts::new(&service, pair, !admin.is_empty());
    // Not affected by changed settings.
    tokio::spawn(metrics::run_upkeep());
    let refreshing = tokio::spawn(service.clone().run_in_background());
    let reloader = Reloader::new(loaded, load, service, refreshing, fronts.clone());
    let reloading = tokio::spawn(reloader.run(hangup));
    tokio::spawn(supervisor::ping());
    supervisor::ready();
    #[expect(clippy::async_yields_async, reason = "what it yields says how long running requests have")]
    let stop = async {
        let cut = stop(signals).await;
        supervisor::stopping();
        // Whoever leaves does not change any more.
        reloading.abort();
        cut
    };
    let served = serve_both(listeners, admin, fronts, stop).await;
    served.map_err(|error| format!("serving failed: {error}"))?;
    info!("stopped");
    Ok(())
}

/// What is served at the two kinds of addresses.
#[derive(Clone)]
struct Fronts {
    api: Arc<Frontend>,
    /// Health and metrics at addresses of their own; without any they are served beside the API.
    admin: Option<Arc<Frontend>>,
}

impl Fronts {
    fn new(service: &Service, pair: Option<TlsIdentity>, apart: bool) -> Self {
        let fronts =
            Self { api: Frontend::new(Router::new(), pair), admin: apart.then(|| Frontend::new(Router::new(), None)) };
        fronts.route(service);
        fronts
    }

    /// Requests that come from now on see this service.
    fn route(&self, service: &Service) {
        let (api, operators) = (api::router(service), api::health_router(service));
        match &self.admin {
            None => self.api.set_router(api.merge(operators)),
            Some(admin) => {
                self.api.set_router(api);
                admin.set_router(operators.fallback(api::not_found));
            }
        }
    }
}

/// Serves the API on `listeners`; health and metrics on `admin` where they are apart.
async fn serve_both<C: Future<Output = ()>>(
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    fronts: Fronts,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    let Some(front) = fronts.admin else {
        return server::serve(listeners, fronts.api, stop).await;
    };
    // Probes are answered until the last request of the API is finished.
    let (finished, ended) = oneshot::channel::<()>();
    let api = async {
        let served = server::serve(listeners, fronts.api, stop).await;
        drop(finished);
        served
    };
    #[expect(clippy::async_yields_async, reason = "what it yields says how long running requests have: no time")]
    let stop_at_once = async {
        // An error says that the other end is gone, which is the signal.
        let _ = ended.await;
        future::ready(())
    };
    let operators = server::serve_health(admin, front, stop_at_once);
    tokio::try_join!(api, operators).map(|_| ())
}

/// Resolves at the first signal, to what resolves at the second one or when running requests have had their time.
async fn stop(mut signals: Signals) -> impl Future<Output = ()> {
    let name = signals.next().await;
    info!(signal = name, "stopping: running requests are finished, new ones refused");
    async move {
        tokio::select! {
            name = signals.next() => warn!(signal = name, "stopping at once: running requests are cut off"),
            () = tokio::time::sleep(GRACE) => {
                warn!(seconds = GRACE.as_secs(), "stopping: requests that still run are cut off");
            }
        }
    }
}

/// The signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on the signals come here.
    fn receive() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
