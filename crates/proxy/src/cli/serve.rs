//! `serve`: the API until a signal.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::Failure;
use crate::api::{self, Service, VERSION};
use crate::auth::Verifier;
use crate::clock::Clock;
use crate::errors;
use crate::server;
use crate::settings::Loaded;
use crate::source::Source;
use crate::telemetry;

pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    telemetry::log_to_stdout(&loaded.settings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the threads cannot be started: {error}"))?;
    runtime.block_on(serve(loaded))
}

async fn serve(loaded: Loaded) -> Result<(), Failure> {
    info!(version = VERSION, "hpc-storage-proxy starts");
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (key, value, source) in loaded.report() {
        info!(target: "settings", "{key} = {value} ({source})");
    }
    let settings = loaded.settings;
    let source = Source::new(&settings).map_err(|error| errors::chain(&error))?;
    let verifier = Verifier::new(&settings.auth, Clock::system()).map_err(|error| errors::chain(&error))?;
    let service = Service { source: Arc::new(source), verifier: Arc::new(verifier) };
    let listeners = server::bind(&settings.server.listen).await.map_err(|error| errors::chain(&error))?;
    let verifier = Arc::clone(&service.verifier);
    tokio::spawn(async move { verifier.warm().await });
    let stop = stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
    server::serve(listeners, api::router(service), stop).await.map_err(|error| format!("serving failed: {error}"))?;
    info!("stopped");
    Ok(())
}

/// Resolves at the first SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping: running requests are finished, new ones refused");
    })
}
