//! `serve`: the API until a signal.

use std::future::{self, Future};
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Failure;
use crate::api::{self, Service, VERSION};
use crate::clock::Clock;
use crate::errors;
use crate::server;
use crate::settings::{Loaded, LogFormat};
use crate::telemetry;

/// How long running requests have after the first signal. Supervisors usually kill after 30 seconds; what is left of
/// them is for the last reports.
const GRACE: Duration = Duration::from_secs(25);

pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    let _telemetry = telemetry::start(&loaded.settings).map_err(|error| errors::chain(&error))?;
    let format = loaded.settings.log.format;
    let outcome = until_the_end(loaded);
    if let (LogFormat::Json, Err(failure)) = (format, &outcome) {
        // Standard error tells people; a machine reads the log alone.
        error!("{failure}");
    }
    outcome
}

fn until_the_end(loaded: Loaded) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the threads cannot be started: {error}"))?;
    let outcome = runtime.block_on(serve(loaded));
    // Work that nobody waits for any more is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(loaded: Loaded) -> Result<(), Failure> {
    info!(version = VERSION, "hpc-storage-proxy starts");
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (key, value, source) in loaded.report() {
        info!(target: telemetry::SETTINGS, "{key} = {value} ({source})");
    }
    let settings = loaded.settings;
    let service = Service::new(&settings, &Clock::system()).map_err(|error| errors::chain(&error))?;
    let signals = Signals::receive().map_err(|error| format!("signals cannot be received: {error}"))?;
    let listeners = server::bind(&settings.server.listen).await.map_err(|error| errors::chain(&error))?;
    let admin = server::bind(&settings.server.admin_listen).await.map_err(|error| errors::chain(&error))?;
    tokio::spawn(service.clone().warm());
    let served = serve_both(listeners, admin, &service, stop(signals)).await;
    served.map_err(|error| format!("serving failed: {error}"))?;
    info!("stopped");
    Ok(())
}

/// Serves the API on `listeners`; health and metrics on `admin`, or where that is empty beside the API.
async fn serve_both<C: Future<Output = ()>>(
    listeners: Vec<TcpListener>,
    admin: Vec<TcpListener>,
    service: &Service,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    let (api, operators) = (api::router(service), api::operators_router(service));
    if admin.is_empty() {
        return server::serve(listeners, api.merge(operators), stop).await;
    }
    // Probes are answered until the last request of the API is finished.
    let (finished, ended) = oneshot::channel::<()>();
    let api = async {
        let served = server::serve(listeners, api, stop).await;
        drop(finished);
        served
    };
    #[expect(clippy::async_yields_async, reason = "what it yields says how long running requests have: no time")]
    let stop_at_once = async {
        // An error says that the other end is gone, which is the signal.
        let _ = ended.await;
        future::ready(())
    };
    let operators = server::serve_few(admin, operators.fallback(api::nothing_here), stop_at_once);
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
