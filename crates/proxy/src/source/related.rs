//! Data that is requested in addition to the resources: customers of their offerings, GIDs of projects, and users.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use catalog::{Customers, Identities, Inventory, Policy, Resource, UserIdentity};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::warn;
use uuid::Uuid;

use super::{Inputs, Source, SourceError};
use crate::hpc_user::{self, Gids};
use crate::waldur::WaldurError;
use program::error_chain;

/// What has to be requested for a resource.
pub(super) struct Dependencies {
    offering: Uuid,
    project: Option<String>,
    name: Option<String>,
}

impl Dependencies {
    pub(super) fn of(resource: &Resource, policy: &Policy) -> Self {
        Self {
            offering: resource.offering_uuid,
            project: catalog::project_to_resolve(resource, policy).map(String::from),
            name: catalog::user_to_resolve(resource, policy).map(String::from),
        }
    }
}

/// What was requested, and the answers.
#[derive(Debug, Default)]
pub(super) struct Related {
    offerings: HashMap<Uuid, Option<Customers>>,
    pub(super) projects: HashSet<String>,
    pub(super) names: HashSet<String>,
    /// Projects without a GID: requested each time, so that a new GID is used at once.
    without_gid: BTreeSet<String>,
    /// Offerings whose customers must be requested again.
    failed: Vec<Uuid>,
}

/// What has to be requested now.
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

    /// Adds an answer. Returns whether an identity has changed; only then are the identities copied, if they are shared.
    fn receive(&mut self, answer: Answer, identities: &mut Arc<Identities>) -> bool {
        let mut changed = false;
        match answer {
            Answer::Customers(offering, customers) => drop(self.offerings.insert(offering, customers)),
            Answer::Failed(offering) => self.failed.push(offering),
            Answer::Gids(gids) => {
                for (slug, gid) in gids {
                    let gid = gid.map_err(|reason| reason.to_string());
                    match gid {
                        Ok(_) => drop(self.without_gid.remove(&slug)),
                        Err(_) => drop(self.without_gid.insert(slug.clone())),
                    }
                    if identities.gids.get(&slug) != Some(&gid) {
                        changed = true;
                        Arc::make_mut(identities).gids.insert(slug, gid);
                    }
                }
            }
            Answer::Users(users) => {
                for (name, user) in users {
                    let user = UserIdentity { uid: user.uid, email: user.email };
                    if identities.users.get(&name) != Some(&user) {
                        changed = true;
                        Arc::make_mut(identities).users.insert(name, user);
                    }
                }
            }
        }
        changed
    }

    /// The customers of all offerings in the order of the resources; a later offering wins. Customers of an offering that
    /// does not report them are taken from its resources (decision D18).
    pub(super) fn customers(&self, inventory: &Inventory) -> Customers {
        let mut customers = Customers::new();
        let mut seen = HashSet::new();
        for offering in inventory.resources().map(|resource| resource.offering_uuid).filter(|uuid| seen.insert(*uuid)) {
            if let Some(Some(reported)) = self.offerings.get(&offering) {
                customers.extend(reported.iter().map(|(slug, customer)| (slug.clone(), customer.clone())));
            } else {
                let own = inventory.resources().map(AsRef::as_ref);
                let own = own.filter(|resource: &&Resource| resource.offering_uuid == offering);
                customers.extend(catalog::customers_of_resources(own));
            }
        }
        customers
    }

    /// Whether the customers depend on these resources alone, or these name a customer that is not known.
    fn lacks_customers<'a>(&self, mut resources: impl Iterator<Item = &'a Resource>, known: &Customers) -> bool {
        resources.any(|resource| {
            let reported = self.offerings.get(&resource.offering_uuid).is_some_and(Option::is_some);
            !reported || !known.contains_key(&resource.customer_slug)
        })
    }
}

/// Adds a name; returns whether it is new.
fn is_new(names: &mut HashSet<String>, name: &str) -> bool {
    !names.contains(name) && names.insert(name.to_owned())
}

impl Source {
    /// Requests the dependencies of resources as these are read: customers of their offerings, GIDs and users.
    pub(super) async fn related(
        &self,
        mut found: UnboundedReceiver<Dependencies>,
    ) -> Result<(Related, Arc<Identities>), SourceError> {
        let (mut related, mut identities) = (Related::default(), Arc::default());
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
                    requests.extend(self.requests(new));
                }
                Some(answer) = requests.next() => drop(related.receive(answer?, &mut identities)),
            }
        }
        while let Some(answer) = requests.next().await {
            related.receive(answer?, &mut identities);
        }
        // All pages have been read, so Waldur is less busy.
        self.customers_again(&mut related).await?;
        Ok((related, identities))
    }

    /// Requests what changed resources depend on, if it is not known; with `again`, also identities that are missing or expired.
    /// Returns whether customers or identities have changed.
    pub(super) async fn update_related(
        &self,
        related: &mut Related,
        inputs: &mut Inputs,
        changed: &HashSet<Uuid>,
        again: bool,
    ) -> Result<bool, SourceError> {
        let Inputs { inventory, customers, identities } = inputs;
        let resources = || changed.iter().filter_map(|uuid| inventory.resource(*uuid)).map(AsRef::as_ref);
        let mut new = related.add(resources().map(|resource| Dependencies::of(resource, &self.policy)));
        let renew_customers = related.lacks_customers(resources(), customers);
        if renew_customers {
            let offerings: BTreeSet<_> = resources().map(|resource: &Resource| resource.offering_uuid).collect();
            new.offerings = offerings.into_iter().collect();
        }
        if again {
            let (gids, users) = self.identities.expired();
            new.projects.extend(related.without_gid.iter().cloned().chain(gids));
            new.names.extend(users);
        }
        let mut is_changed = false;
        let mut requests: FuturesUnordered<_> = self.requests(new).collect();
        while let Some(answer) = requests.next().await {
            is_changed |= related.receive(answer?, identities);
        }
        drop(requests);
        self.customers_again(related).await?;
        if renew_customers {
            let renewed = related.customers(inventory);
            if renewed != **customers {
                is_changed = true;
                *customers = Arc::new(renewed);
            }
        }
        Ok(is_changed)
    }

    fn requests(&self, new: New) -> impl Iterator<Item = futures::future::BoxFuture<'_, Result<Answer, SourceError>>> {
        let New { offerings, projects, names } = new;
        let customers = offerings.into_iter().map(|offering| self.customers(offering).boxed());
        let gids = (!projects.is_empty()).then(|| self.gids(projects).boxed());
        let users = (!names.is_empty()).then(|| self.users(names).boxed());
        customers.chain(gids).chain(users)
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

    async fn customers_again(&self, related: &mut Related) -> Result<(), SourceError> {
        for offering in std::mem::take(&mut related.failed) {
            let customers = self.waldur.customers(offering).await?;
            related.offerings.insert(offering, customers);
        }
        Ok(())
    }

    async fn gids(&self, projects: Vec<String>) -> Result<Answer, SourceError> {
        Ok(Answer::Gids(self.identities.resolve(projects).await?))
    }

    async fn users(&self, names: Vec<String>) -> Result<Answer, SourceError> {
        Ok(Answer::Users(self.identities.users(names).await))
    }
}
