//! Reloads settings while the proxy runs: on SIGHUP, and when a file with a secret or certificate changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Fronts, open_dashboard, supervisor};
use crate::api::Service;
use crate::config::{Change, Loaded, Problem, Problems};
use crate::file_watch::FileWatch;
use crate::server::TlsIdentity;
use crate::telemetry;
use program::Clock;
use program::error_chain;

/// Maximum time that the old settings stay in force while the first refresh with the new ones runs.
const WARM_UP_TIMEOUT: Duration = Duration::from_mins(1);
/// Keys, or prefixes of keys, that take effect only after a restart.
const RESTART_ONLY: [&str; 6] = ["debug", "log.", "sentry.", "otlp.", "server.listen", "server.admin_listen"];
/// Prefix of the keys for the certificate.
const TLS: [&str; 1] = ["server.tls_"];
/// Settings that affect authentication.
const AUTH: [&str; 3] = ["auth.", "callbacks.required_roles", "provisioners.required_roles"];
/// Settings that affect the catalogue.
const CATALOGUE: [&str; 6] = [
    "backend_settings.",
    "callbacks.relay",
    "hpc_user_api.",
    "server.public_url",
    "storage_systems",
    "waldur_api.api_url",
];

/// Applies changed settings.
pub(super) struct Reloader<L> {
    load: Arc<L>,
    /// The settings at the start, some of which stay in force until a restart.
    started: Loaded,
    in_force: Loaded,
    service: Service,
    /// The task that keeps the snapshot fresh.
    refreshing: JoinHandle<()>,
    fronts: Fronts,
    /// Whether all addresses are loopback or Unix sockets.
    local: bool,
}

impl<L: Fn() -> Result<Loaded, Problems> + Send + Sync + 'static> Reloader<L> {
    /// `load` reads the settings again.
    pub(super) fn new(
        loaded: Loaded,
        load: L,
        service: Service,
        refreshing: JoinHandle<()>,
        fronts: Fronts,
        local: bool,
    ) -> Self {
        Self { load: Arc::new(load), started: loaded.clone(), in_force: loaded, service, refreshing, fronts, local }
    }

    /// Never resolves.
    pub(super) async fn run(mut self, mut hangup: Signal) {
        let mut secrets = FileWatch::new(self.secrets()).await;
        let mut pair = FileWatch::new(self.pair()).await;
        loop {
            let outcome = tokio::select! {
                Some(()) = hangup.recv() => {
                    supervisor::reloading();
                    self.reload("SIGHUP", true).await
                }
                () = secrets.changed() => {
                    supervisor::reloading();
                    self.reload("a file with a secret has changed", false).await
                }
                () = pair.changed() => {
                    supervisor::reloading();
                    self.renew_pair().await
                }
            };
            match outcome {
                Ok(()) => {
                    secrets.follow(self.secrets()).await;
                    pair.follow(self.pair()).await;
                }
                Err(Problems { problems, warnings }) => {
                    for warning in warnings {
                        warn!("{warning}");
                    }
                    for problem in problems {
                        error!("invalid change, the old settings stay in force: {problem}");
                    }
                }
            }
            supervisor::ready();
        }
    }

    /// The files with secrets.
    fn secrets(&self) -> Vec<PathBuf> {
        self.in_force.secret_files().map(Path::to_owned).collect()
    }

    /// The files with the certificate and its key.
    fn pair(&self) -> Vec<PathBuf> {
        let server = &self.in_force.settings.server;
        [&server.tls_certificate, &server.tls_key].into_iter().flatten().cloned().collect()
    }

    /// Reloads all settings; with `all`, also the certificate and all of Waldur's resources, even if no setting that affects them has
    /// changed. Applies everything or nothing.
    async fn reload(&mut self, why: &'static str, all: bool) -> Result<(), Problems> {
        info!(why, "reloading the settings");
        let load = Arc::clone(&self.load);
        let loaded = blocking(move || load()).await?;
        if let Some(problem) = open_dashboard(&loaded.settings, self.local) {
            return Err(Problems::from(problem));
        }
        let changes = loaded.changes_since(&self.in_force);
        let pair = if all || changes.iter().any(|change| is_in(change, &TLS)) {
            let loaded = loaded.clone();
            Some(blocking(move || TlsIdentity::read(&loaded).map_err(Problems::from)).await?)
        } else {
            None
        };
        if changes.iter().any(|change| !is_in(change, &RESTART_ONLY) && !is_in(change, &TLS)) {
            self.replace(&loaded, &changes).await?;
        } else if all {
            self.service.read_all_next();
        }
        if let Some(pair) = pair {
            self.fronts.api.set_tls(pair);
        }
        for warning in loaded.warnings.iter().filter(|warning| !self.in_force.warnings.contains(warning)) {
            warn!("{warning}");
        }
        for Change { key, before, after, source } in &changes {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| String::from("not set"));
            info!(target: telemetry::SETTINGS, "{key} = {} ({source}), was {}", shown(after), shown(before));
        }
        for change in loaded.changes_since(&self.started).iter().filter(|change| is_in(change, &RESTART_ONLY)) {
            warn!(key = change.key, "this changed setting takes effect after a restart");
        }
        info!(changes = changes.len(), "the settings are in force");
        self.in_force = loaded;
        Ok(())
    }

    /// Switches to a service with the changed settings after its first refresh.
    async fn replace(&mut self, loaded: &Loaded, changes: &[Change]) -> Result<(), Problems> {
        let none = |keys: &[&str]| !changes.iter().any(|change| is_in(change, keys));
        let outcome = self.service.with_settings(&loaded.settings, &Clock::system(), none(&AUTH), none(&CATALOGUE));
        let service = outcome.map_err(|error| {
            let what = error_chain(&error);
            Problems::from(Problem {
                key: String::from("settings"),
                source: None,
                what,
                remedy: String::from("correct them"),
            })
        })?;
        if timeout(WARM_UP_TIMEOUT, service.warm_up()).await != Ok(true) {
            warn!("the upstreams could not be read with the new settings, which take effect anyway");
        }
        self.fronts.route(&service);
        service.take_over_waiting(none(&AUTH));
        self.refreshing.abort();
        self.refreshing = tokio::spawn(service.clone().stay_fresh());
        self.service = service;
        Ok(())
    }

    /// Reloads the certificate.
    async fn renew_pair(&mut self) -> Result<(), Problems> {
        let loaded = self.in_force.clone();
        let pair = blocking(move || TlsIdentity::read(&loaded).map_err(Problems::from)).await?;
        self.fronts.api.set_tls(pair);
        info!("the certificate was reloaded for new connections");
        Ok(())
    }
}

fn is_in(change: &Change, keys: &[&str]) -> bool {
    keys.iter().any(|key| change.key.starts_with(key))
}

/// Reads files on a blocking thread, because a file system may be slow.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Problems> + Send + 'static,
) -> Result<T, Problems> {
    spawn_blocking(read).await.unwrap_or_else(|error| {
        let remedy = String::from("see the panic in the log");
        Err(Problem { key: String::from("settings"), source: None, what: error.to_string(), remedy }.into())
    })
}
