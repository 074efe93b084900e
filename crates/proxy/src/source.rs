//! Makes a snapshot: reads the upstreams, builds the catalogue and renders it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use catalog::{Catalogue, Customers, Identities, InodeRule, Policy, Resource, Skipped, System, UserIdentity};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use opentelemetry::Context;
use thiserror::Error;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::config::{OnProcessingError, Settings, SystemIdentifier};
use crate::hpc_user::{self, Gids, HpcUserApi, HpcUserError};
use crate::metrics;
use crate::snapshot::Snapshot;
use crate::telemetry::spans;
use crate::transport::TransportError;
use crate::upstream::{BreakerState, Upstream};
use crate::waldur::{self, Listing, Waldur, WaldurError};
use program::error_chain;
use program::lock;

#[derive(Debug)]
pub struct Source {
    waldur: Waldur,
    identities: HpcUserApi,
    policy: Policy,
    on_processing_error: OnProcessingError,
    /// Skipped resources that have been logged, so that each is logged once.
    logged: Mutex<HashSet<(Option<Uuid>, String)>>,
    /// Slugs of the offerings that have no resources.
    empty: Mutex<HashSet<String>>,
    /// Whether it was logged that Waldur is too old.
    too_old: AtomicBool,
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
            policy: policy(settings),
            on_processing_error: settings.backend_settings.on_processing_error,
            logged: Mutex::default(),
            empty: Mutex::default(),
            too_old: AtomicBool::new(false),
        })
    }

    pub fn policy(&self) -> &Policy {
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

    /// Reads the upstreams. The new snapshot shares unchanged parts with `before`.
    ///
    /// # Errors
    ///
    /// The catalogue could not be read completely. Single resources that cannot be processed are skipped and reported in the
    /// snapshot.
    pub async fn read(&self, before: Option<Arc<Snapshot>>) -> Result<Snapshot, SourceError> {
        let inputs = self.gather().await?;
        // Building and rendering take milliseconds for thousands of resources, too long for an async task.
        let policy = self.policy.clone();
        let trace = Context::current();
        let rendering = tokio::task::spawn_blocking(move || {
            let (began, span) = (Instant::now(), spans::phase(&trace, "build"));
            let catalogue = inputs.build(&policy);
            metrics::phase("build", began.elapsed());
            drop(span);
            let (began, _span) = (Instant::now(), spans::phase(&trace, "render"));
            let snapshot = Snapshot::render(catalogue, inputs.malformed().collect(), before.as_deref());
            metrics::phase("render", began.elapsed());
            snapshot
        });
        let snapshot = rendering.await.map_err(SourceError::Panicked)?.map_err(SourceError::Render)?;
        self.log_skipped(&snapshot);
        Ok(snapshot)
    }

    /// Reads everything from which a catalogue is built.
    ///
    /// # Errors
    ///
    /// Any failure other than single records that cannot be parsed.
    pub async fn gather(&self) -> Result<Inputs, SourceError> {
        let began = Instant::now();
        let slugs: Vec<_> = self.policy.systems.iter().map(|system| system.offering_slug.as_str()).collect();
        let (sender, found) = mpsc::unbounded_channel();
        let listing = async {
            let found = |resource: &Resource| {
                // Fails if a dependent request has failed already.
                let _ = sender.send(Dependencies::of(resource, &self.policy));
            };
            let listing = self.waldur.resources(&slugs, &found).await?;
            drop(sender);
            Ok(listing)
        };
        let reading = async {
            let (listing, related) = tokio::try_join!(listing, self.related(found))?;
            if listing.lacks_offering_slugs && !self.too_old.swap(true, Ordering::Relaxed) {
                error!("{}", waldur::TOO_OLD);
            }
            self.check_empty_offerings(&listing).await;
            Ok::<_, SourceError>((listing, related))
        };
        let (listing, mut related) = spans::within("read", reading).await?;
        let customers = related.customers(&listing);
        let identities =
            Identities { gids: std::mem::take(&mut related.gids), users: std::mem::take(&mut related.users) };
        self.identities.keep_only(&related.projects, &related.names);
        metrics::phase("read", began.elapsed());
        Ok(Inputs { listing, customers, identities })
    }

    /// Requests the dependencies of resources as these are read: customers of their offerings, GIDs and users.
    async fn related(&self, mut found: UnboundedReceiver<Dependencies>) -> Result<Related, SourceError> {
        let mut related = Related::default();
        let mut requests = FuturesUnordered::new();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                // All that is available at once, so that few requests are sent.
                count = found.recv_many(&mut batch, usize::MAX) => {
                    if count == 0 {
                        break;
                    }
                    let new = related.add(batch.drain(..));
                    requests.extend(new.offerings.into_iter().map(|offering| self.customers(offering).boxed()));
                    if !new.projects.is_empty() {
                        requests.push(self.gids(new.projects).boxed());
                    }
                    if !new.names.is_empty() {
                        requests.push(self.users(new.names).boxed());
                    }
                }
                Some(answer) = requests.next() => related.receive(answer?),
            }
        }
        while let Some(answer) = requests.next().await {
            related.receive(answer?);
        }
        // All pages have been read, so Waldur is less busy.
        for offering in std::mem::take(&mut related.failed) {
            let customers = self.waldur.customers(offering).await?;
            related.receive(Answer::Customers(offering, customers));
        }
        Ok(related)
    }

    /// The customers of an offering. A failed exchange is not an error yet: it is repeated after all pages have been read,
    /// because a small Waldur may be busy with them.
    async fn customers(&self, offering: Uuid) -> Result<Answer, SourceError> {
        match self.waldur.customers(offering).await {
            Ok(customers) => Ok(Answer::Customers(offering, customers)),
            Err(error @ WaldurError::Exchange(_)) => {
                warn!(error = error_chain(&error), %offering, "cannot read the customers of an offering; will try again");
                Ok(Answer::Failed(offering))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn gids(&self, projects: Vec<String>) -> Result<Answer, SourceError> {
        Ok(Answer::Gids(self.identities.resolve(projects).await?))
    }

    async fn users(&self, names: Vec<String>) -> Result<Answer, SourceError> {
        Ok(Answer::Users(self.identities.users(names).await))
    }

    /// Tests whether the token can see the offerings without resources: a mistyped slug looks like a system whose resources
    /// are all gone. Logs each once, until there are resources.
    async fn check_empty_offerings(&self, listing: &Listing) {
        for System { name, offering_slug: slug, .. } in &self.policy.systems {
            let is_empty = !listing.resources().any(|resource| resource.offering_slug == *slug);
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
#[derive(Debug)]
pub struct Inputs {
    listing: Listing,
    customers: Customers,
    identities: Identities,
}

impl Inputs {
    /// Builds the catalogue; with `DEBUG`, logs the mapping of each item.
    pub fn build<'a>(&'a self, policy: &'a Policy) -> Catalogue<'a> {
        let catalogue = catalog::build(self.listing.resources(), &self.customers, &self.identities, policy);
        log_mapping(&catalogue);
        catalogue
    }

    /// The records that cannot be parsed.
    pub fn malformed(&self) -> impl Iterator<Item = Skipped> {
        self.listing.malformed.iter().map(Skipped::malformed)
    }
}

/// What has to be requested for a resource.
struct Dependencies {
    offering: Uuid,
    project: Option<String>,
    name: Option<String>,
}

impl Dependencies {
    fn of(resource: &Resource, policy: &Policy) -> Self {
        Self {
            offering: resource.offering_uuid,
            project: catalog::project_to_resolve(resource, policy).map(String::from),
            name: catalog::user_to_resolve(resource, policy).map(String::from),
        }
    }
}

/// Data that was requested in addition to the resources.
#[derive(Default)]
struct Related {
    offerings: HashMap<Uuid, Option<Customers>>,
    gids: HashMap<String, Result<u32, String>>,
    users: HashMap<String, UserIdentity>,
    projects: HashSet<String>,
    names: HashSet<String>,
    /// Offerings whose customers must be requested again.
    failed: Vec<Uuid>,
}

/// What has not been requested yet.
#[derive(Default)]
struct New {
    offerings: Vec<Uuid>,
    projects: Vec<String>,
    names: Vec<String>,
}

enum Answer {
    Customers(Uuid, Option<Customers>),
    /// The request for the offering's customers failed.
    Failed(Uuid),
    Gids(Gids),
    Users(HashMap<String, hpc_user::UserIdentity>),
}

impl Related {
    fn add(&mut self, resources: impl Iterator<Item = Dependencies>) -> New {
        let mut new = New::default();
        for Dependencies { offering, project, name } in resources {
            if let Entry::Vacant(place) = self.offerings.entry(offering) {
                place.insert(None);
                new.offerings.push(offering);
            }
            new.projects.extend(project.filter(|project| is_new(&mut self.projects, project)));
            new.names.extend(name.filter(|name| is_new(&mut self.names, name)));
        }
        new
    }

    fn receive(&mut self, answer: Answer) {
        match answer {
            Answer::Customers(offering, customers) => drop(self.offerings.insert(offering, customers)),
            Answer::Failed(offering) => self.failed.push(offering),
            Answer::Gids(gids) => {
                let gids = gids.into_iter().map(|(slug, gid)| (slug, gid.map_err(|reason| reason.to_string())));
                self.gids.extend(gids);
            }
            Answer::Users(users) => {
                let known = |user: hpc_user::UserIdentity| UserIdentity { uid: user.uid, email: user.email };
                self.users.extend(users.into_iter().map(|(name, user)| (name, known(user))));
            }
        }
    }

    /// The customers of all offerings in the order of the resources; a later offering wins. Customers of an offering that
    /// does not report them are taken from its resources (decision D18).
    fn customers(&mut self, listing: &Listing) -> Customers {
        let mut customers = Customers::new();
        let mut seen = HashSet::new();
        for offering in listing.resources().map(|resource| resource.offering_uuid).filter(|uuid| seen.insert(*uuid)) {
            let own = listing.resources().filter(|resource| resource.offering_uuid == offering);
            let reported = self.offerings.remove(&offering).flatten();
            customers.extend(reported.unwrap_or_else(|| catalog::customers_of_resources(own)));
        }
        customers
    }
}

/// Adds a name; returns whether it is new.
fn is_new(names: &mut HashSet<String>, name: &str) -> bool {
    !names.contains(name) && names.insert(name.to_owned())
}

fn log_mapping(catalogue: &Catalogue<'_>) {
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
