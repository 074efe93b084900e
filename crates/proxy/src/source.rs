//! From the upstreams to a snapshot: read, resolve, build, render.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use catalog::{Catalogue, Customers, Identities, InodeRule, Policy, Resource, Skipped, System, UserIdentity};
use thiserror::Error;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::hpc_user::{HpcUserApi, HpcUserError};
use crate::settings::{OnProcessingError, Settings, SystemIdentifier};
use crate::snapshot::Snapshot;
use crate::upstream::TransportError;
use crate::waldur::{Waldur, WaldurError};

/// Reads the catalogue from the upstreams.
#[derive(Debug)]
pub struct Source {
    waldur: Waldur,
    identities: HpcUserApi,
    policy: Policy,
    on_processing_error: OnProcessingError,
    /// What was reported as left out, so that each is reported once.
    reported: Mutex<HashSet<(Option<Uuid>, String)>>,
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
    /// The catalogue cannot be rendered: a fault of this program.
    #[error("the catalogue cannot be rendered")]
    Render(#[source] serde_json::Error),
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
        })
    }

    /// What the site decided about its catalogue.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether one resource that cannot be processed fails the whole listing (decision D7).
    pub fn fails_on_processing_error(&self) -> bool {
        self.on_processing_error == OnProcessingError::Fail
    }

    /// The client for Waldur.
    pub fn waldur(&self) -> &Waldur {
        &self.waldur
    }

    /// The client for the HPC User API.
    pub fn identities(&self) -> &HpcUserApi {
        &self.identities
    }

    /// Reads everything anew.
    ///
    /// # Errors
    ///
    /// Anything less than the whole catalogue, but for single resources that are left out and named.
    pub async fn read(&self) -> Result<Arc<Snapshot>, SourceError> {
        let slugs: Vec<_> = self.policy.systems.iter().map(|system| system.offering_slug.as_str()).collect();
        let listing = self.waldur.resources(&slugs).await?;
        let (customers, identities) =
            tokio::try_join!(self.customers(&listing.resources), self.identities_of(&listing.resources))?;
        let catalogue = catalog::build(&listing.resources, &customers, &identities, &self.policy);
        log_mapping(&catalogue);
        let snapshot = Snapshot::render(&catalogue, listing.malformed).map_err(SourceError::Render)?;
        self.report(&snapshot);
        Ok(Arc::new(snapshot))
    }

    /// The customers of all offerings in the order in which resources name these; a later offering wins.
    async fn customers(&self, resources: &[Resource]) -> Result<Customers, SourceError> {
        let mut seen = HashSet::new();
        let offerings: Vec<_> =
            resources.iter().map(|resource| resource.offering_uuid).filter(|uuid| seen.insert(*uuid)).collect();
        let mut told = self.waldur.customers_of(&offerings).await?;
        let mut customers = Customers::new();
        for offering in offerings {
            let own = resources.iter().filter(|resource| resource.offering_uuid == offering);
            customers.extend(told.remove(&offering).flatten().unwrap_or_else(|| catalog::customers_of_resources(own)));
        }
        Ok(customers)
    }

    async fn identities_of(&self, resources: &[Resource]) -> Result<Identities, SourceError> {
        let projects: BTreeSet<_> = catalog::wanted_project_slugs(resources, &self.policy).collect();
        let users: BTreeSet<_> = catalog::wanted_user_slugs(resources, &self.policy).collect();
        let (gids, users) = tokio::join!(self.identities.resolve(projects), self.identities.users(users));
        let gids = gids?.into_iter().map(|(slug, gid)| (slug, gid.map_err(|reason| reason.to_string())));
        let users = users.into_iter().map(|(slug, user)| (slug, UserIdentity { uid: user.uid, email: user.email }));
        Ok(Identities { gids: gids.collect::<HashMap<_, _>>(), users: users.collect() })
    }

    /// Logs what is left out: each once, until it is back.
    fn report(&self, snapshot: &Snapshot) {
        let now: HashSet<_> = snapshot.skipped().map(|skipped| (skipped.item_id, skipped.detail.clone())).collect();
        let mut before = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for Skipped { item_id, error, detail } in snapshot.skipped() {
            if !before.contains(&(*item_id, detail.clone())) {
                warn!(item_id = item_id.map(tracing::field::display), error, detail, "a resource is left out");
            }
        }
        let back = before.difference(&now).count();
        if back > 0 {
            info!(resources = back, "resources that were left out are back or gone");
        }
        *before = now;
    }
}

fn log_mapping(catalogue: &Catalogue<'_>) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for item in &catalogue.items {
        debug!(
            item_id = %item.item_id,
            status = item.status.as_str(),
            target = ?item.target.target_type,
            mount_point = %item.mount_point.default,
            permission = item.permission.value,
            parent = item.parent_item_id.map(tracing::field::display),
            quotas = ?item.quotas.map(|quotas| quotas.map(|quota| quota.quota)),
            "mapped"
        );
    }
}

/// What the settings decide about the catalogue.
pub fn policy(settings: &Settings) -> Policy {
    let backend = &settings.backend_settings;
    let by_slug = backend.system_identifier == Some(SystemIdentifier::OfferingSlug);
    let system = |system: &crate::settings::StorageSystem| System {
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
    }
}
