//! Builds the catalogue: first the tenants and customers in order of first mention, then the resources.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::{Item, MountPoint, Named, NodeTarget, OrderInProgress, Permission, Target, TargetOf};
use crate::identity::{self, Identities};
use crate::mount;
use crate::order::{self, Callbacks, Order, ResourceLinks};
use crate::policy::Policy;
use crate::quota::{self, Quota};
use crate::quota_problem::QuotaProblem;
use crate::resource::{Rejected, Resource};
use crate::select::{Index, Leaf, NODE_STATUS, Outcome};
use crate::status::Status;
use crate::target::{self, PrimaryProject, ProjectTarget, TargetItem, TargetType, UserTarget};

/// Customers by slug.
pub type Customers = HashMap<String, Customer>;

/// A customer of an offering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// UUID of the customer in Waldur, and `itemId` of its items.
    pub uuid: Uuid,
    /// Display name.
    pub name: Option<String>,
}

/// The whole catalogue. It borrows text from the resources and customers that it was built from.
///
/// Items are ordered: tenants and customers by first mention, then resources in Waldur's order. Resource items are
/// built on demand: all at once they would take half as much memory as the document.
#[derive(Debug)]
pub struct Catalogue<'a> {
    nodes: Vec<Item<'a>>,
    seeds: Vec<Seed<'a>>,
    names: Names,
    policy: &'a Policy,
    identities: &'a Identities,
    /// Index for [`Index::select`].
    pub index: Index,
    /// Resources skipped because an identity is missing (decision D7), in Waldur's order.
    pub skipped: Vec<Skipped>,
    /// Resources that break the mapping rules (decision D8), in Waldur's order.
    pub malformed: Vec<Skipped>,
}

/// A resource that is skipped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// UUID of the resource; null when the record has no readable UUID.
    pub item_id: Option<Uuid>,
    /// `MissingIdentityError`: the project has no Unix GID. `MalformedResourceError`: the record breaks the mapping rules.
    #[cfg_attr(feature = "schema", schema(value_type = crate::document::schema::SkippedError))]
    #[serde(deserialize_with = "known_error")]
    pub error: ErrorName,
    /// What is missing or malformed, as readable text.
    pub detail: String,
}

/// Name of an error. With this alias, serde does not borrow the field from the input.
type ErrorName = &'static str;

fn known_error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = Skipped::REASONS.into_iter().find(|known| *known == text);
    known.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"an error name of a skipped resource"))
}

impl Skipped {
    /// The values of [`error`](Self::error).
    pub const REASONS: [&'static str; 2] = ["MissingIdentityError", "MalformedResourceError"];

    /// A record that breaks the mapping rules (decision D8).
    pub fn malformed(rejected: &Rejected) -> Self {
        Self { item_id: rejected.uuid, error: "MalformedResourceError", detail: rejected.to_string() }
    }

    fn missing_identity(resource: &Resource, reason: &str) -> Self {
        let Resource { uuid, slug, project_slug, offering_slug, .. } = resource;
        let detail = format!(
            "Could not resolve identity 'gid for {project_slug}' for resource {uuid}: {reason} \
             (resource '{slug}', offering '{offering_slug}')"
        );
        Self { item_id: Some(*uuid), error: "MissingIdentityError", detail }
    }
}

/// The customers that the resources name. Used when Waldur refuses the offering's own list of customers (decision D18).
pub fn customers_of_resources<'a>(resources: impl Iterator<Item = &'a Resource>) -> Customers {
    let mut customers = Customers::new();
    for resource in resources {
        if let (Some(uuid), false) = (resource.customer_uuid, resource.customer_slug.is_empty()) {
            let name = resource.customer_name.clone();
            customers.insert(resource.customer_slug.clone(), Customer { uuid, name });
        }
    }
    customers
}

impl<'a> Catalogue<'a> {
    pub fn len(&self) -> usize {
        self.nodes.len() + self.seeds.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `position`.
    ///
    /// # Panics
    ///
    /// If `position` is out of range.
    pub fn item(&self, position: usize) -> Item<'a> {
        match position.checked_sub(self.nodes.len()) {
            None => self.nodes[position].clone(),
            Some(leaf) => self.leaf(&self.seeds[leaf]),
        }
    }

    pub fn items(&self) -> impl Iterator<Item = Item<'a>> {
        (0..self.len()).map(|position| self.item(position))
    }

    /// The orders in progress, each with the position and ID of its item, in the order of the items.
    pub fn orders(&self) -> impl Iterator<Item = (usize, Uuid, OrderInProgress<'a>)> {
        self.seeds.iter().enumerate().filter_map(|(leaf, Seed { resource, .. })| {
            let order = resource.order.as_deref()?;
            let order = OrderInProgress {
                uuid: order.uuid,
                kind: order.kind_name.as_deref(),
                state: order.state_name.as_deref(),
                offering_type: resource.offering_type.as_deref(),
                new_options: order.new_options.as_ref(),
            };
            Some((self.nodes.len() + leaf, resource.uuid, order))
        })
    }

    /// The quota problems, each with the position and ID of its item, in the order of the items.
    pub fn quota_problems(&self) -> impl Iterator<Item = (usize, Uuid, QuotaProblem)> {
        self.seeds.iter().enumerate().filter_map(|(leaf, Seed { resource, .. })| {
            let problem = QuotaProblem::of(resource, self.policy.inodes)?;
            Some((self.nodes.len() + leaf, resource.uuid, problem))
        })
    }

    /// The resources in transition without an order, each with the position and ID of its item, in the order of the items.
    pub fn resource_links(&self) -> impl Iterator<Item = (usize, Uuid, ResourceLinks<'a>)> {
        let seeds = self.seeds.iter().enumerate().filter(|(_, seed)| seed.resource.order.is_none());
        seeds.filter_map(|(leaf, Seed { resource, .. })| {
            let direct = order::set_state_ok_url(&self.policy.waldur, resource.uuid, resource.effective_state())?;
            let relay = self.policy.relay.as_deref();
            let set_state_ok_url = relay.map_or(direct, |relay| order::relayed_set_state_ok_url(relay, resource.uuid));
            let links = ResourceLinks { set_state_ok_url, backend_id: resource.backend_id.as_deref() };
            Some((self.nodes.len() + leaf, resource.uuid, links))
        })
    }

    /// The callbacks that the relay needs: of every item with an order in progress, or in transition without one. Empty if no
    /// relay is configured.
    pub fn callbacks(&self) -> Vec<Callbacks> {
        let seeds = self.seeds.iter().filter(|_| self.policy.relay.is_some());
        let of = |seed: &Seed<'_>| {
            let (resource, effective) = (seed.resource.uuid, seed.resource.effective_state());
            match seed.resource.order.as_deref() {
                Some(order) => Some(order.callbacks(resource, effective)),
                None => Callbacks::without_order(&self.policy.waldur, resource, effective),
            }
        };
        seeds.filter_map(of).collect()
    }
}

/// Builds the catalogue.
///
/// Ignores resources of offerings that `policy` does not list. The result depends on the arguments alone, and the order
/// of the items on the order of `resources`.
pub fn build<'a>(
    resources: impl IntoIterator<Item = &'a Resource>,
    customers: &'a Customers,
    identities: &'a Identities,
    policy: &'a Policy,
) -> Catalogue<'a> {
    let mut nodes = Nodes::default();
    let mut names = Names::new(policy);
    let resources = resources.into_iter();
    let expected = resources.size_hint().0;
    let mut seeds = Vec::with_capacity(expected);
    let mut index = Index { leaves: Vec::with_capacity(expected), ..Index::default() };
    let (mut skipped, mut malformed) = (Vec::new(), Vec::new());
    for resource in resources {
        let Some(system) = policy.systems.iter().position(|system| system.offering_slug == resource.offering_slug)
        else {
            continue;
        };
        // A record whose quotas are out of range is malformed: it adds no item and no tenant or customer.
        if let Err(error) = quota::calculate(&resource.limits, &resource.options, policy.inodes) {
            malformed.push(Skipped::malformed(&Rejected::of(resource, error)));
            continue;
        }
        let place = names.place(system, resource);
        let above = nodes.above(names.names(place), resource, customers);
        let outcome = match owner(resource, identities, policy) {
            Ok(owner) => {
                let parent = above[1].map(|customer| nodes.items[customer as usize].item_id);
                seeds.push(Seed { resource, place, owner, parent });
                Outcome::Item(to_u32(seeds.len() - 1))
            }
            Err(reason) => {
                skipped.push(Skipped::missing_identity(resource, &reason));
                Outcome::Skipped(to_u32(skipped.len() - 1))
            }
        };
        index.leaves.push(Leaf {
            system: place.system,
            data_type: place.data_type,
            state: resource.state,
            status: resource.status(),
            above,
            outcome,
        });
    }
    let nodes = nodes.items;
    for leaf in &mut index.leaves {
        if let Outcome::Item(position) = &mut leaf.outcome {
            *position += to_u32(nodes.len());
        }
    }
    index.nodes = to_u32(nodes.len());
    index.systems = policy.systems.iter().map(|system| system.name.clone()).collect();
    index.data_types = names.data_types.iter().map(|named| named.key.clone()).collect();
    Catalogue { nodes, seeds, names, policy, identities, index, skipped, malformed }
}

#[expect(clippy::expect_used, reason = "a catalogue of four billion items does not fit into memory")]
fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 items")
}

/// Names shared by many items.
#[derive(Debug)]
struct Names {
    systems: Vec<System>,
    file_system: Arc<Named>,
    data_types: Vec<Arc<Named>>,
}

#[derive(Debug)]
struct System {
    identifier: String,
    named: Arc<Named>,
}

/// The storage system and the data type of a resource, as positions in [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    system: u32,
    data_type: u32,
}

#[derive(Debug, Clone, Copy)]
struct PlaceNames<'a> {
    place: Place,
    system: &'a System,
    file_system: &'a Arc<Named>,
    data_type: &'a Arc<Named>,
}

impl Names {
    fn new(policy: &Policy) -> Self {
        let named = |scope: &str, name: &str| Arc::new(Named::new(scope, name));
        let system =
            |identifier: &String| System { identifier: identifier.clone(), named: named("storage_system", identifier) };
        Self {
            systems: policy.systems.iter().map(|policy| system(&policy.identifier)).collect(),
            file_system: named("storage_file_system", &policy.file_system),
            data_types: Vec::new(),
        }
    }

    fn place(&mut self, system: usize, resource: &Resource) -> Place {
        let known = self.data_types.iter().position(|named| named.key == resource.data_type);
        let data_type = known.unwrap_or_else(|| {
            self.data_types.push(Arc::new(Named::new("storage_data_type", &resource.data_type)));
            self.data_types.len() - 1
        });
        Place { system: to_u32(system), data_type: to_u32(data_type) }
    }

    fn names(&self, place: Place) -> PlaceNames<'_> {
        PlaceNames {
            place,
            system: &self.systems[place.system as usize],
            file_system: &self.file_system,
            data_type: &self.data_types[place.data_type as usize],
        }
    }
}

/// The data from which a resource's item is built on demand.
#[derive(Debug)]
struct Seed<'a> {
    resource: &'a Resource,
    place: Place,
    owner: Owner<'a>,
    parent: Option<Uuid>,
}

#[derive(Debug, Clone, Copy)]
enum Owner<'a> {
    /// The target item is in `backend_metadata`.
    FromMetadata(&'a TargetItem),
    /// The target is built from this project and GID.
    Group { project: &'a str, gid: u32 },
}

/// Tenants and customers. The first resource that names one creates it.
#[derive(Default)]
struct Nodes<'a> {
    items: Vec<Item<'a>>,
    tenants: HashMap<(&'a str, Place), u32>,
    customers: HashMap<(&'a str, Place), (u32, u32)>,
}

impl<'a> Nodes<'a> {
    /// The nodes above a resource, created if missing: its tenant, its customer, the customer's own tenant.
    fn above(&mut self, names: PlaceNames<'_>, resource: &'a Resource, customers: &'a Customers) -> [Option<u32>; 3] {
        let (system, data_type) = (names.system.identifier.as_str(), names.data_type.key.as_str());
        let (customer_path, tenant_path) = resource.backend_id.as_deref().map_or((None, None), mount::above);
        let Resource { provider_slug, customer_slug, offering_uuid, .. } = resource;
        let tenant = *self.tenants.entry((provider_slug, names.place)).or_insert_with(|| {
            let path = tenant_path
                .map_or_else(|| Cow::Owned(mount::of_tenant(system, data_type, provider_slug)), Cow::Borrowed);
            let name = if resource.provider_name.is_empty() {
                Cow::Owned(provider_slug.to_uppercase())
            } else {
                Cow::Borrowed(resource.provider_name.as_str())
            };
            let target =
                NodeTarget { item_id: *offering_uuid, key: Cow::Owned(provider_slug.to_lowercase()), name: Some(name) };
            self.items.push(node(names, TargetType::Tenant, target, path, None));
            to_u32(self.items.len() - 1)
        });
        let Some(customer) = customers.get(customer_slug).filter(|_| !customer_slug.is_empty()) else {
            return [Some(tenant), None, None];
        };
        let (customer, customers_tenant) = *self.customers.entry((customer_slug, names.place)).or_insert_with(|| {
            let path = customer_path.map_or_else(
                || Cow::Owned(mount::of_customer(system, data_type, provider_slug, customer_slug)),
                Cow::Borrowed,
            );
            let parent = self.items[tenant as usize].item_id;
            let target = NodeTarget {
                item_id: customer.uuid,
                key: Cow::Borrowed(customer_slug.as_str()),
                name: customer.name.as_deref().map(Cow::Borrowed),
            };
            self.items.push(node(names, TargetType::Customer, target, path, Some(parent)));
            (to_u32(self.items.len() - 1), tenant)
        });
        [Some(tenant), Some(customer), Some(customers_tenant)]
    }
}

fn node<'a>(
    names: PlaceNames<'_>,
    target_type: TargetType,
    target: NodeTarget<'a>,
    path: Cow<'a, str>,
    parent: Option<Uuid>,
) -> Item<'a> {
    Item {
        item_id: target.item_id,
        status: NODE_STATUS,
        mount_point: MountPoint { default: path },
        permission: Permission::octal("775"),
        storage_system: Arc::clone(&names.system.named),
        storage_file_system: Arc::clone(names.file_system),
        storage_data_type: Arc::clone(names.data_type),
        target: Target { target_type, target_item: TargetOf::Node(target) },
        quotas: None,
        old_quotas: None,
        new_quotas: None,
        parent_item_id: parent,
        approve_by_provider_url: None,
        reject_by_provider_url: None,
        set_state_done_url: None,
        set_state_erred_url: None,
        set_backend_id_url: None,
        update_resource_options_url: None,
        set_state_ok_url: None,
    }
}

impl<'a> Catalogue<'a> {
    fn leaf(&self, seed: &Seed<'a>) -> Item<'a> {
        let Seed { resource, place, owner, parent } = *seed;
        let names = self.names.names(place);
        let path = resource.backend_id.as_deref().map_or_else(
            || {
                let Resource { provider_slug, customer_slug, project_slug, .. } = resource;
                let (system, data_type) = (&names.system.identifier, &names.data_type.key);
                Cow::Owned(mount::of_project(system, data_type, provider_slug, customer_slug, project_slug))
            },
            Cow::Borrowed,
        );
        let (old_quotas, new_quotas) = update_quotas(resource, self.policy).unwrap_or_default();
        let links = |order: &Order| {
            let links = order.callback_links(resource.uuid, resource.effective_state());
            match &self.policy.relay {
                Some(relay) => links.relayed(relay, order.uuid, resource.uuid),
                None => links,
            }
        };
        let links = resource.order.as_deref().map(links).unwrap_or_default();
        Item {
            item_id: resource.uuid,
            status: resource.status(),
            mount_point: MountPoint { default: path },
            permission: Permission::octal(resource.permission.as_str()),
            storage_system: Arc::clone(&names.system.named),
            storage_file_system: Arc::clone(names.file_system),
            storage_data_type: Arc::clone(names.data_type),
            target: Target {
                target_type: resource.target_type(),
                target_item: target(resource, owner, self.identities, self.policy),
            },
            // A resource whose quotas are out of range has no seed.
            quotas: quota::calculate(&resource.limits, &resource.options, self.policy.inodes).unwrap_or_default(),
            old_quotas,
            new_quotas,
            parent_item_id: parent,
            approve_by_provider_url: links.approve_by_provider_url,
            reject_by_provider_url: links.reject_by_provider_url,
            set_state_done_url: links.set_state_done_url,
            set_state_erred_url: links.set_state_erred_url,
            set_backend_id_url: links.set_backend_id_url,
            update_resource_options_url: links.update_resource_options_url,
            set_state_ok_url: links.set_state_ok_url,
        }
    }
}

type OldAndNew = (Option<[Quota; 4]>, Option<[Quota; 4]>);

/// Quotas before and after the update in progress; `None` without an update or when its quotas are out of range.
fn update_quotas(resource: &Resource, policy: &Policy) -> Option<OldAndNew> {
    let update = resource.order.as_ref()?.update.as_ref()?;
    let quotas = |limits: &Option<_>, options: &Option<_>| {
        let (limits, options) =
            (limits.as_ref().unwrap_or(&resource.limits), options.as_ref().unwrap_or(&resource.options));
        quota::calculate(limits, options, policy.inodes).ok()
    };
    Some((quotas(&update.old_limits, &update.old_options)?, quotas(&update.new_limits, &update.new_options)?))
}

/// The owner of a resource, or why its GID is unknown.
fn owner<'a>(resource: &'a Resource, identities: &Identities, policy: &Policy) -> Result<Owner<'a>, String> {
    if let (Some(given), false) = (&resource.metadata_target, policy.ignore_metadata_targets) {
        return Ok(Owner::FromMetadata(given));
    }
    let (project, gid) = gid(resource, identities, policy)?;
    Ok(Owner::Group { project, gid })
}

fn target<'a>(resource: &Resource, owner: Owner<'a>, identities: &Identities, policy: &Policy) -> TargetOf<'a> {
    let (project, gid) = match owner {
        Owner::FromMetadata(given) => return TargetOf::FromMetadata(given),
        Owner::Group { project, gid } => (project, gid),
    };
    let status = resource.status();
    let active = status == Status::Active;
    TargetOf::Built(if resource.target_type() == TargetType::User {
        let known = identities.users.get(&resource.slug).cloned().unwrap_or_default();
        let development = policy.development_mode;
        let uid = known.uid.or_else(|| development.then(|| identity::mock_uid(&resource.slug)));
        TargetItem::User(UserTarget {
            item_id: target::id("user", &resource.slug),
            key: None,
            name: None,
            status: Some(status),
            email: known.email.or_else(|| development.then(|| identity::mock_email(&resource.slug))),
            unix_uid: uid.map(i64::from),
            primary_project: Some(PrimaryProject { name: project.to_owned(), unix_gid: i64::from(gid), active }),
            active: Some(active),
        })
    } else {
        TargetItem::Project(ProjectTarget {
            item_id: target::id("project", &resource.slug),
            key: None,
            name: Some(resource.slug.clone()),
            status: Some(status),
            unix_gid: Some(i64::from(gid)),
            active: Some(active),
        })
    })
}

/// The project that owns the resource's GID, and the GID.
fn gid<'a>(resource: &'a Resource, identities: &Identities, policy: &Policy) -> Result<(&'a str, u32), String> {
    let slug = resource.project_slug.as_str();
    let reason = match identities.gids.get(slug) {
        Some(Ok(gid)) if !slug.is_empty() => return Ok((slug, *gid)),
        _ if slug.is_empty() => "the resource names no project",
        Some(Err(reason)) => reason,
        _ => "the project was not looked up",
    };
    if !policy.development_mode {
        return Err(reason.to_owned());
    }
    let slug = match (slug, resource.target_type()) {
        // The Python proxy uses this name for a project without a slug.
        ("", TargetType::User) => "default-project",
        ("", _) => "unknown",
        _ => slug,
    };
    Ok((slug, identity::mock_gid(slug)))
}

#[cfg(test)]
mod tests;
