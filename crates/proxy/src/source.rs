//! Makes a snapshot: reads the upstreams, builds the catalogue and renders it.

mod full;
mod held;
mod related;
mod update;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::{Catalogue, Customers, Identities, InodeRule, Inventory, Policy, Skipped, System};
use opentelemetry::Context;
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::config::{OnProcessingError, Settings, SystemIdentifier};
use crate::hpc_user::{HpcUserApi, HpcUserError};
use crate::metrics;
use crate::snapshot::Snapshot;
use crate::telemetry::spans;
use crate::transport::TransportError;
use crate::upstream::{BreakerState, Upstream};
use crate::waldur::{Waldur, WaldurError};
use held::Held;
use program::error_chain;
use program::lock;

/// A change is committed at most this long after its `modified`.
const LONGEST_TRANSACTION: Duration = Duration::from_mins(2);

#[derive(Debug)]
pub struct Source {
    waldur: Waldur,
    identities: HpcUserApi,
    policy: Arc<Policy>,
    on_processing_error: OnProcessingError,
    /// Skipped resources that have been logged, so that each is logged once.
    logged: Mutex<HashSet<(Option<Uuid>, String)>>,
    /// Slugs of the offerings that have no resources.
    empty: Mutex<HashSet<String>>,
    /// Whether it was logged that Waldur is too old.
    too_old: AtomicBool,
    full_interval: Duration,
    overlap: Duration,
    /// What the last reading found; `None` before it and after an error.
    held: AsyncMutex<Option<Held>>,
    full_next: AtomicBool,
    /// Until when resources are read with their orders, because Waldur does not list these.
    nested_until: Mutex<Option<Instant>>,
    /// Whether Waldur accepts a time as filter for `modified`.
    lists_changes: AtomicBool,
    /// Notified when an update finds changes of resources or orders.
    found_changes: Notify,
}

/// The catalogue could not be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Decision D10.
    #[error("storage resources are not available")]
    Waldur(#[from] WaldurError),
    /// Decision D9.
    #[error("Unix identities are not available")]
    Identities(#[from] HpcUserError),
    #[error("reading the upstreams took longer than {0} s")]
    TooSlow(u64),
    /// A bug in this program.
    #[error("the catalogue cannot be rendered")]
    Render(#[source] serde_json::Error),
    /// A bug in this program.
    #[error("this program panicked while building the catalogue")]
    Panicked(#[source] JoinError),
}

impl Source {
    /// Sends nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, TransportError> {
        Ok(Self {
            waldur: Waldur::new(&settings.waldur_api)?,
            identities: HpcUserApi::new(&settings.hpc_user_api)?,
            policy: Arc::new(policy(settings)),
            on_processing_error: settings.backend_settings.on_processing_error,
            logged: Mutex::default(),
            empty: Mutex::default(),
            too_old: AtomicBool::new(false),
            full_interval: settings.cache.full_interval,
            overlap: LONGEST_TRANSACTION + settings.waldur_api.timeout,
            held: AsyncMutex::default(),
            full_next: AtomicBool::new(false),
            nested_until: Mutex::default(),
            lists_changes: AtomicBool::new(true),
            found_changes: Notify::new(),
        })
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        std::iter::once(self.waldur.upstream()).chain(self.identities.upstreams())
    }

    /// Whether the circuit breaker of Waldur is open.
    pub fn circuit_is_open(&self) -> bool {
        self.waldur.upstream().breaker() == BreakerState::Open
    }

    pub fn cached_gids(&self) -> usize {
        self.identities.cached_gids()
    }

    pub fn waldur(&self) -> &Waldur {
        &self.waldur
    }

    pub fn identities(&self) -> &HpcUserApi {
        &self.identities
    }

    /// Whether a resource that cannot be processed fails the whole listing (decision D7).
    pub fn fails_on_processing_error(&self) -> bool {
        self.on_processing_error == OnProcessingError::Fail
    }

    /// Reads the upstreams. The new snapshot shares unchanged parts with `before`; if nothing has changed since the last
    /// reading, its snapshot is returned.
    ///
    /// # Errors
    ///
    /// The catalogue could not be read completely. Single resources that cannot be processed are skipped and reported in the
    /// snapshot.
    pub async fn read(self: &Arc<Self>, before: Option<Arc<Snapshot>>) -> Result<Arc<Snapshot>, SourceError> {
        let mut held = self.held.lock().await;
        let began = Instant::now();
        // Taken, so that nothing is held after an error, and the next reading is a full one.
        let known = held.take();
        let mut current = self.advance(known).await?;
        metrics::phase("read", began.elapsed());
        if let Some(snapshot) = current.snapshot.upgrade() {
            metrics::reading("unchanged");
            *held = Some(current);
            return Ok(snapshot);
        }
        // Building and rendering take milliseconds for thousands of resources, too long for an async task.
        let policy = Arc::clone(&self.policy);
        let trace = Context::current();
        let inputs = Arc::clone(&current.inputs);
        let last = current.catalogue.take();
        let rendering = tokio::task::spawn_blocking(move || {
            let (began, span) = (Instant::now(), spans::phase(&trace, "build"));
            let catalogue = inputs.build(policy, last);
            metrics::phase("build", began.elapsed());
            drop(span);
            let (began, _span) = (Instant::now(), spans::phase(&trace, "render"));
            let snapshot = Snapshot::render(&catalogue, inputs.malformed().collect(), before.as_deref());
            metrics::phase("render", began.elapsed());
            Ok((snapshot?, catalogue))
        });
        let (snapshot, catalogue) = rendering.await.map_err(SourceError::Panicked)?.map_err(SourceError::Render)?;
        let snapshot = Arc::new(snapshot);
        current.snapshot = Arc::downgrade(&snapshot);
        current.catalogue = Some(catalogue);
        *held = Some(current);
        self.log_skipped(&snapshot);
        Ok(snapshot)
    }

    /// Reads everything from which a catalogue is built.
    ///
    /// # Errors
    ///
    /// Any failure other than single records that cannot be parsed.
    pub async fn gather(&self) -> Result<Arc<Inputs>, SourceError> {
        Ok(self.read_all(None).await?.inputs)
    }

    /// Slugs of the offerings of the storage systems.
    fn slugs(&self) -> Vec<&str> {
        self.policy.systems.iter().map(|system| system.offering_slug.as_str()).collect()
    }

    /// Notified when an update finds changes of resources or orders.
    pub(crate) fn found_changes(&self) -> &Notify {
        &self.found_changes
    }

    /// Ends a full reading in the background, which would go on with settings that are no longer in force. No reading may be running.
    pub(crate) fn stop(&self) {
        if let Ok(mut held) = self.held.try_lock() {
            *held = None;
        }
    }

    /// Makes the next reading a full one.
    pub fn read_all_next(&self) {
        self.full_next.store(true, Ordering::Relaxed);
    }

    /// Tests whether the token can see the offerings without resources: a mistyped slug looks like a system whose resources
    /// are all gone. Logs each once, until there are resources.
    async fn check_empty_offerings(&self, inventory: &Inventory) {
        for System { name, offering_slug: slug, .. } in &self.policy.systems {
            let is_empty = !inventory.resources().any(|resource| resource.offering_slug == *slug);
            let is_new = {
                let mut empty = lock(&self.empty);
                if is_empty { empty.insert(slug.clone()) } else { empty.remove(slug) }
            };
            if !is_empty || !is_new {
                continue;
            }
            match self.waldur.offerings(slug).await {
                Ok(offerings) if offerings.is_empty() => error!(
                    storage_system = name,
                    offering = slug,
                    "the token can see no offering with this slug, so the storage system seems empty; check storage_systems, \
                     and that the token's user belongs to the offering's service provider"
                ),
                Ok(_) => info!(storage_system = name, offering = slug, "the offering has no resources"),
                Err(error) => {
                    debug!(error = error_chain(&error), offering = slug, "cannot test whether the offering exists");
                }
            }
        }
    }

    /// Logs the skipped resources, each once until it is no longer skipped.
    pub fn log_skipped(&self, snapshot: &Snapshot) {
        let now: HashSet<_> = snapshot.skipped().map(|skipped| (skipped.item_id, skipped.detail.clone())).collect();
        let mut before = lock(&self.logged);
        for Skipped { item_id, error, detail } in snapshot.skipped() {
            if !before.contains(&(*item_id, detail.clone())) {
                warn!(item_id = item_id.map(tracing::field::display), error, detail, "a resource is skipped");
            }
        }
        let back = before.difference(&now).count();
        if back > 0 {
            info!(resources = back, "resources are no longer skipped");
        }
        *before = now;
    }
}

/// Everything from which a catalogue is built.
#[derive(Debug, Clone)]
pub struct Inputs {
    inventory: Inventory,
    customers: Arc<Customers>,
    identities: Arc<Identities>,
}

impl Inputs {
    /// Builds the catalogue, with what is unchanged since the `last` one; with `DEBUG`, logs the mapping of each item.
    pub fn build(&self, policy: Arc<Policy>, last: Option<Catalogue>) -> Catalogue {
        let (customers, identities) = (Arc::clone(&self.customers), Arc::clone(&self.identities));
        let catalogue = catalog::build(self.inventory.resources(), customers, identities, policy, last);
        log_mapping(&catalogue);
        catalogue
    }

    /// The records that cannot be parsed.
    pub fn malformed(&self) -> impl Iterator<Item = Skipped> {
        self.inventory.malformed().map(Skipped::malformed)
    }
}

fn log_mapping(catalogue: &Catalogue) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for item in catalogue.items() {
        let quotas = item.quotas.map(|quotas| quotas.map(|quota| quota.quota.to_string()).join(" "));
        debug!(
            item_id = %item.item_id,
            status = item.status.as_str(),
            target = ?item.target.target_type,
            mount_point = %item.mount_point.default,
            permission = item.permission.value,
            parent = item.parent_item_id.map(tracing::field::display),
            quotas,
            "mapped"
        );
    }
}

pub fn policy(settings: &Settings) -> Policy {
    let backend = &settings.backend_settings;
    let by_slug = backend.system_identifier == Some(SystemIdentifier::OfferingSlug);
    let system = |system: &crate::config::StorageSystem| System {
        name: system.name.clone(),
        identifier: if by_slug { system.offering_slug.clone() } else { system.name.clone() },
        offering_slug: system.offering_slug.clone(),
    };
    Policy {
        systems: settings.storage_systems.iter().map(system).collect(),
        file_system: backend.storage_file_system.clone(),
        inodes: InodeRule {
            base_multiplier: backend.inode_base_multiplier,
            soft_coefficient: backend.inode_soft_coefficient,
            hard_coefficient: backend.inode_hard_coefficient,
        },
        ignore_metadata_targets: backend.use_mock_target_items,
        development_mode: settings.hpc_user_api.development_mode,
        relay: settings
            .server
            .public_url
            .as_ref()
            .filter(|_| settings.relay_callbacks)
            .map(|url| url.as_str().trim_end_matches('/').to_owned()),
        waldur: format!("{}/api", settings.waldur_api.api_url.as_str().trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests;
