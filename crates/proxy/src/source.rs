//! From the upstreams to a snapshot: read, resolve, build, render.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// Reads the catalogue from the upstreams.
#[derive(Debug)]
pub struct Source {
    waldur: Waldur,
    identities: HpcUserApi,
    policy: Policy,
    on_processing_error: OnProcessingError,
    /// What was reported as left out, so that each is reported once.
    reported: Mutex<HashSet<(Option<Uuid>, String)>>,
    /// Slugs of the offerings that have no resources.
    empty: Mutex<HashSet<String>>,
    /// Whether it was logged that Waldur is too old.
    too_old: AtomicBool,
}

/// Why there is no catalogue.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Waldur cannot be read (decision D10).
    #[error("storage resources are not available")]
    Waldur(#[from] WaldurError),
    /// GIDs are needed and the HPC User API cannot be asked (decision D9).
    #[error("Unix identities are not available")]
    Identities(#[from] HpcUserError),
    /// The reading did not come to an end.
    #[error("reading everything took longer than {0} s")]
    TooSlow(u64),
    /// The catalogue cannot be rendered: a fault of this program.
    #[error("the catalogue cannot be rendered")]
    Render(#[source] serde_json::Error),
    /// Building it panicked: a fault of this program.
    #[error("building the catalogue was cut short by a fault of this program")]
    Panicked(#[source] JoinError),
}

impl Source {
    /// Sets up the clients. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, TransportError> {
        Ok(Self {
            waldur: Waldur::new(&settings.waldur_api)?,
            identities: HpcUserApi::new(&settings.hpc_user_api)?,
            policy: policy(settings),
            on_processing_error: settings.backend_settings.on_processing_error,
            reported: Mutex::default(),
            empty: Mutex::default(),
            too_old: AtomicBool::new(false),
        })
    }

    /// What the site decided about its catalogue.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The upstreams that are asked.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        std::iter::once(self.waldur.upstream()).chain(self.identities.upstreams())
    }

    /// Whether Waldur is left alone for a moment, because it failed or asked for it.
    pub fn circuit_is_open(&self) -> bool {
        self.waldur.upstream().breaker() == BreakerState::Open
    }

    /// Number of projects whose GID is cached.
    pub fn cached_gids(&self) -> usize {
        self.identities.cached_gids()
    }

    /// Waldur.
    pub fn waldur(&self) -> &Waldur {
        &self.waldur
    }

    /// What is known of projects and users.
    pub fn identities(&self) -> &HpcUserApi {
        &self.identities
    }

    /// Whether one resource that cannot be processed fails the whole listing (decision D7).
    pub fn fails_on_processing_error(&self) -> bool {
        self.on_processing_error == OnProcessingError::Fail
    }

    /// Reads everything anew. The snapshot `before` lends what has not changed.
    ///
    /// # Errors
    ///
    /// Anything less than the whole catalogue, but for single resources that are left out and named.
    pub async fn read(&self, before: Option<Arc<Snapshot>>) -> Result<Snapshot, SourceError> {
        let began = Instant::now();
        let slugs: Vec<_> = self.policy.systems.iter().map(|system| system.offering_slug.as_str()).collect();
        let (tell, met) = mpsc::unbounded_channel();
        let listing = async {
            let met = |resource: &Resource| {
                // An error says that nobody listens, since something failed already.
                let _ = tell.send(Met::of(resource, &self.policy));
            };
            let listing = self.waldur.resources(&slugs, &met).await?;
            drop(tell);
            Ok(listing)
        };
        let reading = async {
            let (listing, beside) = tokio::try_join!(listing, self.beside(met))?;
            if listing.lacks_offering_slugs && !self.too_old.swap(true, Ordering::Relaxed) {
                error!("{}", waldur::TOO_OLD);
            }
            self.look_for_offerings(&listing).await;
            Ok::<_, SourceError>((listing, beside))
        };
        let (mut listing, mut beside) = spans::within("read", reading).await?;
        let customers = beside.customers(&listing);
        let identities =
            Identities { gids: std::mem::take(&mut beside.gids), users: std::mem::take(&mut beside.users) };
        self.identities.keep_only(&beside.projects, &beside.names);
        metrics::phase("read", began.elapsed());
        // Mapping and rendering take milliseconds for thousands of resources: too long for a thread that serves.
        let policy = self.policy.clone();
        let trace = Context::current();
        let rendering = tokio::task::spawn_blocking(move || {
            let malformed = listing.malformed.drain(..).map(|rejected| Skipped::malformed(&rejected)).collect();
            let (began, span) = (Instant::now(), spans::phase(&trace, "build"));
            let catalogue = catalog::build(listing.resources(), &customers, &identities, &policy);
            metrics::phase("build", began.elapsed());
            drop(span);
            log_mapping(&catalogue);
            let (began, _span) = (Instant::now(), spans::phase(&trace, "render"));
            let snapshot = Snapshot::render(catalogue, malformed, before.as_deref());
            metrics::phase("render", began.elapsed());
            snapshot
        });
        let snapshot = rendering.await.map_err(SourceError::Panicked)?.map_err(SourceError::Render)?;
        self.report(&snapshot);
        Ok(snapshot)
    }

    /// Asks for what resources need as they are met: the customers of their offerings, GIDs and users.
    async fn beside(&self, mut met: UnboundedReceiver<Met>) -> Result<Beside, SourceError> {
        let mut beside = Beside::default();
        let mut asked = FuturesUnordered::new();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                // What is there is taken together, so that slugs go in few requests.
                count = met.recv_many(&mut batch, usize::MAX) => {
                    if count == 0 {
                        break;
                    }
                    let news = beside.note(batch.drain(..));
                    asked.extend(news.offerings.into_iter().map(|offering| self.customers(offering).boxed()));
                    if !news.projects.is_empty() {
                        asked.push(self.gids(news.projects).boxed());
                    }
                    if !news.names.is_empty() {
                        asked.push(self.users(news.names).boxed());
                    }
                }
                Some(answer) = asked.next() => beside.take(answer?),
            }
        }
        while let Some(answer) = asked.next().await {
            beside.take(answer?);
        }
        // By now all pages are read, so that Waldur has nothing else to do.
        for offering in std::mem::take(&mut beside.unanswered) {
            let customers = self.waldur.customers(offering).await?;
            beside.take(Told::Customers(offering, customers));
        }
        Ok(beside)
    }

    /// The customers of an offering. A failed exchange is no error yet: it is repeated when all pages are read, since a
    /// small Waldur may have been busy with them, and the pages are not to be lost.
    async fn customers(&self, offering: Uuid) -> Result<Told, SourceError> {
        match self.waldur.customers(offering).await {
            Ok(customers) => Ok(Told::Customers(offering, customers)),
            Err(error @ WaldurError::Exchange(_)) => {
                warn!(error = error_chain(&error), %offering, "the customers of an offering are asked for again");
                Ok(Told::NoAnswer(offering))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn gids(&self, projects: Vec<String>) -> Result<Told, SourceError> {
        Ok(Told::Gids(self.identities.resolve(projects).await?))
    }

    async fn users(&self, names: Vec<String>) -> Result<Told, SourceError> {
        Ok(Told::Users(self.identities.users(names).await))
    }

    /// Where an offering has no resources, sees whether the token sees the offering at all: a mistyped slug looks like a
    /// system whose resources are all gone. Each is told once, until there are resources.
    async fn look_for_offerings(&self, listing: &Listing) {
        for System { name, offering_slug: slug, .. } in &self.policy.systems {
            let is_empty = !listing.resources().any(|resource| resource.offering_slug == *slug);
            let is_news = {
                let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
                if is_empty { empty.insert(slug.clone()) } else { empty.remove(slug) }
            };
            if !is_empty || !is_news {
                continue;
            }
            match self.waldur.offerings(slug).await {
                Ok(offerings) if offerings.is_empty() => error!(
                    storage_system = name,
                    offering = slug,
                    "the token sees no offering with this slug, so that the storage system looks empty; check \
                     storage_systems, and that the token's user belongs to the offering's service provider"
                ),
                Ok(_) => info!(storage_system = name, offering = slug, "the offering has no resources"),
                Err(error) => debug!(error = error_chain(&error), offering = slug, "the offering was not looked for"),
            }
        }
    }

    /// Logs what is left out: each once, until it is back.
    pub fn report(&self, snapshot: &Snapshot) {
        let now: HashSet<_> = snapshot.skipped().map(|skipped| (skipped.item_id, skipped.detail.clone())).collect();
        let mut before = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for Skipped { item_id, error, detail } in snapshot.skipped() {
            if !before.contains(&(*item_id, detail.clone())) {
                warn!(item_id = item_id.map(tracing::field::display), error, detail, "a resource is skipped");
            }
        }
        let back = before.difference(&now).count();
        if back > 0 {
            info!(resources = back, "skipped resources are back or gone");
        }
        *before = now;
    }
}

/// A resource that was met, as far as something has to be asked for because of it.
struct Met {
    offering: Uuid,
    project: Option<String>,
    name: Option<String>,
}

impl Met {
    fn of(resource: &Resource, policy: &Policy) -> Self {
        Self {
            offering: resource.offering_uuid,
            project: catalog::wanted_project(resource, policy).map(String::from),
            name: catalog::wanted_user(resource, policy).map(String::from),
        }
    }
}

/// What was asked for beside the resources.
#[derive(Default)]
struct Beside {
    offerings: HashMap<Uuid, Option<Customers>>,
    gids: HashMap<String, Result<u32, String>>,
    users: HashMap<String, UserIdentity>,
    projects: HashSet<String>,
    names: HashSet<String>,
    /// Offerings whose customers are to be asked for again.
    unanswered: Vec<Uuid>,
}

/// What has not been asked for yet.
#[derive(Default)]
struct News {
    offerings: Vec<Uuid>,
    projects: Vec<String>,
    names: Vec<String>,
}

/// An answer about something that was asked for beside the resources.
enum Told {
    Customers(Uuid, Option<Customers>),
    /// The request for the customers of this offering failed.
    NoAnswer(Uuid),
    Gids(Gids),
    Users(HashMap<String, hpc_user::UserIdentity>),
}

impl Beside {
    fn note(&mut self, met: impl Iterator<Item = Met>) -> News {
        let mut news = News::default();
        for Met { offering, project, name } in met {
            if let Entry::Vacant(place) = self.offerings.entry(offering) {
                place.insert(None);
                news.offerings.push(offering);
            }
            news.projects.extend(project.filter(|project| is_new(&mut self.projects, project)));
            news.names.extend(name.filter(|name| is_new(&mut self.names, name)));
        }
        news
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Customers(offering, customers) => drop(self.offerings.insert(offering, customers)),
            Told::NoAnswer(offering) => self.unanswered.push(offering),
            Told::Gids(gids) => {
                let gids = gids.into_iter().map(|(slug, gid)| (slug, gid.map_err(|reason| reason.to_string())));
                self.gids.extend(gids);
            }
            Told::Users(users) => {
                let known = |user: hpc_user::UserIdentity| UserIdentity { uid: user.uid, email: user.email };
                self.users.extend(users.into_iter().map(|(name, user)| (name, known(user))));
            }
        }
    }

    /// The customers of all offerings in the order in which resources name these; a later offering wins. Those of an
    /// offering that does not tell its own come from its resources (decision D18).
    fn customers(&mut self, listing: &Listing) -> Customers {
        let mut customers = Customers::new();
        let mut seen = HashSet::new();
        for offering in listing.resources().map(|resource| resource.offering_uuid).filter(|uuid| seen.insert(*uuid)) {
            let own = listing.resources().filter(|resource| resource.offering_uuid == offering);
            let told = self.offerings.remove(&offering).flatten();
            customers.extend(told.unwrap_or_else(|| catalog::customers_of_resources(own)));
        }
        customers
    }
}

/// Notes a name; whether it is there for the first time.
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

/// What the settings decide about the catalogue.
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
