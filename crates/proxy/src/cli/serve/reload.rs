//! New settings for a program that serves: on SIGHUP, and when a file with a secret or a certificate has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Fronts, supervisor};
use crate::api::Service;
use crate::config::{Change, Loaded, Problem, Problems};
use crate::file_watch::FileWatch;
use crate::server::TlsIdentity;
use crate::telemetry;
use program::Clock;
use program::error_chain;

/// How long requests are answered with the old settings while the first reading with the new ones goes on.
const PATIENCE: Duration = Duration::from_mins(1);
/// Keys, or how they begin, that count from the next start on.
const AT_START: [&str; 6] = ["debug", "log.", "sentry.", "otlp.", "server.listen", "server.admin_listen"];
/// Those of the certificate.
const TLS: [&str; 1] = ["server.tls_"];
/// Those on which it depends who may ask.
const AUTH: [&str; 2] = ["auth.", "callbacks.required_roles"];
/// Those on which it depends what is in the catalogue.
const CATALOGUE: [&str; 6] = [
    "backend_settings.",
    "callbacks.relay",
    "hpc_user_api.",
    "server.public_url",
    "storage_systems",
    "waldur_api.api_url",
];

/// Puts new settings into force.
pub(super) struct Reloader<L> {
    load: Arc<L>,
    /// The settings at the start, some of which stay in force until the end.
    started: Loaded,
    in_force: Loaded,
    service: Service,
    /// What keeps the service's catalogue fresh.
    refreshing: JoinHandle<()>,
    fronts: Fronts,
}

impl<L: Fn() -> Result<Loaded, Problems> + Send + Sync + 'static> Reloader<L> {
    /// For a program that serves `service` with these settings; `load` reads them anew.
    pub(super) fn new(loaded: Loaded, load: L, service: Service, refreshing: JoinHandle<()>, fronts: Fronts) -> Self {
        Self { load: Arc::new(load), started: loaded.clone(), in_force: loaded, service, refreshing, fronts }
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
                        error!("what is new cannot be used, so that the old stays in force: {problem}");
                    }
                }
            }
            supervisor::ready();
        }
    }

    /// The files of secrets.
    fn secrets(&self) -> Vec<PathBuf> {
        self.in_force.secret_files().map(Path::to_owned).collect()
    }

    /// The files of the certificate.
    fn pair(&self) -> Vec<PathBuf> {
        let server = &self.in_force.settings.server;
        [&server.tls_certificate, &server.tls_key].into_iter().flatten().cloned().collect()
    }

    /// Reads all settings anew, the certificate too if `all` says so or other files are named. All of it comes into force, or
    /// nothing.
    async fn reload(&mut self, why: &'static str, all: bool) -> Result<(), Problems> {
        info!(why, "the settings are read anew");
        let load = Arc::clone(&self.load);
        let loaded = beside(move || load()).await?;
        let changes = loaded.changes_since(&self.in_force);
        let pair = if all || changes.iter().any(|change| is_in(change, &TLS)) {
            let loaded = loaded.clone();
            Some(beside(move || TlsIdentity::read(&loaded).map_err(Problems::from)).await?)
        } else {
            None
        };
        if changes.iter().any(|change| !is_in(change, &AT_START) && !is_in(change, &TLS)) {
            self.replace(&loaded, &changes).await?;
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
        for change in loaded.changes_since(&self.started).iter().filter(|change| is_in(change, &AT_START)) {
            warn!(key = change.key, "this setting has changed and counts from the next start on");
        }
        info!(changes = changes.len(), "the settings are in force");
        self.in_force = loaded;
        Ok(())
    }

    /// Serves with other settings as soon as nobody has to wait because of them.
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
        if timeout(PATIENCE, service.warm_up()).await != Ok(true) {
            warn!("the upstreams could not be read with the new settings; they come into force all the same");
        }
        self.fronts.route(&service);
        self.refreshing.abort();
        self.refreshing = tokio::spawn(service.store.clone().stay_fresh());
        self.service = service;
        Ok(())
    }

    /// Reads the certificate anew.
    async fn renew_pair(&mut self) -> Result<(), Problems> {
        let loaded = self.in_force.clone();
        let pair = beside(move || TlsIdentity::read(&loaded).map_err(Problems::from)).await?;
        self.fronts.api.set_tls(pair);
        info!("the certificate has changed: new connections get the new one");
        Ok(())
    }
}

fn is_in(change: &Change, keys: &[&str]) -> bool {
    keys.iter().any(|key| change.key.starts_with(key))
}

/// Reads files beside the threads that serve: a file system may be slow.
async fn beside<T: Send + 'static>(read: impl FnOnce() -> Result<T, Problems> + Send + 'static) -> Result<T, Problems> {
    spawn_blocking(read).await.unwrap_or_else(|error| {
        let remedy = String::from("look for its report above");
        Err(Problem { key: String::from("settings"), source: None, what: error.to_string(), remedy }.into())
    })
}
