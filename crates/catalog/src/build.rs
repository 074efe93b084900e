//! Builds the catalogue: first the tenants and customers in order of first mention, then the resources.

mod assembly;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::details::Details;
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

/// The whole catalogue.
///
/// Items are ordered: tenants and customers by first mention, then resources in Waldur's order. Items are
/// built on demand: all at once they would take half as much memory as the document.
#[derive(Debug)]
pub struct Catalogue {
    /// The resources of the index's leaves.
    resources: Vec<Arc<Resource>>,
    /// Tenants and customers.
    nodes: Vec<Node>,
    /// The number of items of resources before each skipped resource.
    items_before_skipped: Vec<u32>,
    names: Names,
    /// By data type and system.
    known: Vec<KnownNodes>,
    policy: Arc<Policy>,
    customers: Arc<Customers>,
    identities: Arc<Identities>,
    /// The index of the catalogue to which `unchanged` refers.
    before: Weak<Index>,
    unchanged: Vec<Run>,
    /// Index for [`Index::select`].
    pub index: Arc<Index>,
    /// Resources skipped because an identity is missing (decision D7), in Waldur's order.
    pub skipped: Vec<Skipped>,
    /// Resources that break the mapping rules (decision D8), in Waldur's order.
    pub malformed: Vec<Skipped>,
}

/// A tenant or customer, named first by the resource of the leaf `first`.
#[derive(Debug, Clone, Copy)]
struct Node {
    first: u32,
    /// Position of a customer's tenant; `None` for a tenant.
    tenant: Option<u32>,
}

/// Positions of the tenants and customers with the same [`Place`], by slug.
#[derive(Debug, Default)]
struct KnownNodes {
    tenants: HashMap<String, u32>,
    customers: HashMap<String, u32>,
}

/// Adjacent items that are equal to adjacent items of the catalogue before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Position of the first item.
    pub start: usize,
    /// Its position in the catalogue before.
    pub before: usize,
    pub len: usize,
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

impl Catalogue {
    pub fn len(&self) -> usize {
        self.nodes.len() + self.resources.len() - self.skipped.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `position`.
    ///
    /// # Panics
    ///
    /// If `position` is out of range.
    pub fn item(&self, position: usize) -> Item<'_> {
        match self.leaf(position) {
            Some(leaf) => self.item_of_resource(leaf),
            None => self.item_of_node(self.nodes[position]),
        }
    }

    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        (0..self.len()).map(|position| self.item(position))
    }

    /// The order in progress of the item at `position`.
    pub fn order(&self, position: usize) -> Option<OrderInProgress<'_>> {
        let resource = self.resource(position)?;
        let order = resource.order.as_deref()?;
        Some(OrderInProgress {
            uuid: order.uuid,
            kind: order.kind_name.as_deref(),
            state: order.state_name.as_deref(),
            offering_type: resource.offering_type.as_deref(),
            new_options: order.new_options.as_ref(),
        })
    }

    /// What the document does not show of the resource at `position`; `None` for a tenant or customer.
    pub fn details(&self, position: usize) -> Option<Details> {
        self.resource(position).map(Details::of)
    }

    /// The same for the [`skipped`](Self::skipped) resources.
    pub fn details_of_skipped(&self) -> impl Iterator<Item = Details> {
        let leaves = self.index.leaves.iter().zip(&self.resources);
        let skipped = leaves.filter(|(leaf, _)| matches!(leaf.outcome, Outcome::Skipped(_)));
        skipped.map(|(_, resource)| Details::of(resource))
    }

    /// The problem with the quotas of the item at `position`.
    pub fn quota_problem(&self, position: usize) -> Option<QuotaProblem> {
        QuotaProblem::of(self.resource(position)?, self.policy.inodes)
    }

    /// The links of the item at `position`, if its resource is in transition without an order.
    pub fn resource_links(&self, position: usize) -> Option<ResourceLinks<'_>> {
        let resource = self.resource(position).filter(|resource| resource.order.is_none())?;
        let direct = order::set_state_ok_url(&self.policy.waldur, resource.uuid, resource.effective_state())?;
        let relay = self.policy.relay.as_deref();
        let set_state_ok_url = relay.map_or(direct, |relay| order::relayed_set_state_ok_url(relay, resource.uuid));
        Some(ResourceLinks { set_state_ok_url, backend_id: resource.backend_id.as_deref() })
    }

    /// The callbacks that the relay needs for the item at `position`, if it has an order in progress, or is in transition without
    /// one. `None` if no relay is configured.
    pub fn callbacks(&self, position: usize) -> Option<Callbacks> {
        self.policy.relay.as_ref()?;
        let resource = self.resource(position)?;
        match resource.order.as_deref() {
            Some(order) => Some(order.callbacks(resource.uuid, resource.effective_state())),
            None => Callbacks::without_order(&self.policy.waldur, resource.uuid, resource.effective_state()),
        }
    }

    /// The items that are equal to items of the catalogue with the index `before`, with their orders, quota problems, links and
    /// callbacks; ascending. Empty unless this catalogue was built from that one.
    pub fn unchanged_since(&self, before: &Arc<Index>) -> &[Run] {
        if self.before.as_ptr() == Arc::as_ptr(before) { &self.unchanged } else { &[] }
    }

    /// The resource of an item; `None` for a tenant or customer.
    fn resource(&self, position: usize) -> Option<&Resource> {
        self.leaf(position).map(|leaf| &*self.resources[leaf])
    }

    /// The leaf of an item; `None` for a tenant or customer.
    fn leaf(&self, position: usize) -> Option<usize> {
        let item = position.checked_sub(self.nodes.len())?;
        Some(item + self.items_before_skipped.partition_point(|before| *before as usize <= item))
    }
}

/// Builds the catalogue.
///
/// Ignores resources of offerings that `policy` does not list. The order of the items depends on the order of `resources`.
/// The result does not depend on `before`, a catalogue that was built from similar arguments: what is unchanged is taken over from it. A
/// resource is unchanged if it is the same [`Arc`].
pub fn build<'a>(
    resources: impl IntoIterator<Item = &'a Arc<Resource>>,
    customers: Arc<Customers>,
    identities: Arc<Identities>,
    policy: Arc<Policy>,
    before: Option<Catalogue>,
) -> Catalogue {
    assembly::assemble(resources.into_iter(), customers, identities, policy, before)
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

    /// The number of a data type.
    fn data_type(&mut self, data_type: &str) -> u32 {
        let known = self.data_types.iter().position(|named| named.key == data_type);
        to_u32(known.unwrap_or_else(|| {
            self.data_types.push(Arc::new(Named::new("storage_data_type", data_type)));
            self.data_types.len() - 1
        }))
    }

    fn names(&self, place: Place) -> PlaceNames<'_> {
        PlaceNames {
            system: &self.systems[place.system as usize],
            file_system: &self.file_system,
            data_type: &self.data_types[place.data_type as usize],
        }
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

impl Catalogue {
    fn place(&self, leaf: usize) -> Place {
        let Leaf { system, data_type, .. } = self.index.leaves[leaf];
        Place { system, data_type }
    }

    fn item_of_node(&self, node: Node) -> Item<'_> {
        let resource = &*self.resources[node.first as usize];
        let names = self.names.names(self.place(node.first as usize));
        let (system, data_type) = (names.system.identifier.as_str(), names.data_type.key.as_str());
        let (customer_path, tenant_path) = resource.backend_id.as_deref().map_or((None, None), mount::above);
        let Resource { provider_slug, provider_name, customer_slug, offering_uuid, .. } = resource;
        // A customer without an entry has no node.
        if let (Some(tenant), Some(customer)) = (node.tenant, self.customers.get(customer_slug)) {
            let path = customer_path.map_or_else(
                || Cow::Owned(mount::of_customer(system, data_type, provider_slug, customer_slug)),
                Cow::Borrowed,
            );
            let target = NodeTarget {
                item_id: customer.uuid,
                key: Cow::Borrowed(customer_slug.as_str()),
                name: customer.name.as_deref().map(Cow::Borrowed),
            };
            let tenant = self.nodes[tenant as usize].first;
            let parent = self.resources[tenant as usize].offering_uuid;
            return self::node(names, TargetType::Customer, target, path, Some(parent));
        }
        let path =
            tenant_path.map_or_else(|| Cow::Owned(mount::of_tenant(system, data_type, provider_slug)), Cow::Borrowed);
        let name = if provider_name.is_empty() {
            Cow::Owned(provider_slug.to_uppercase())
        } else {
            Cow::Borrowed(provider_name.as_str())
        };
        let target =
            NodeTarget { item_id: *offering_uuid, key: Cow::Owned(provider_slug.to_lowercase()), name: Some(name) };
        self::node(names, TargetType::Tenant, target, path, None)
    }

    fn item_of_resource(&self, leaf: usize) -> Item<'_> {
        let resource = &*self.resources[leaf];
        let names = self.names.names(self.place(leaf));
        let [_, customer, _] = self.index.leaves[leaf].above;
        let parent = customer.and_then(|_| self.customers.get(&resource.customer_slug)).map(|customer| customer.uuid);
        let path = resource.backend_id.as_deref().map_or_else(
            || {
                let Resource { provider_slug, customer_slug, project_slug, .. } = resource;
                let (system, data_type) = (&names.system.identifier, &names.data_type.key);
                Cow::Owned(mount::of_project(system, data_type, provider_slug, customer_slug, project_slug))
            },
            Cow::Borrowed,
        );
        let (old_quotas, new_quotas) = update_quotas(resource, &self.policy).unwrap_or_default();
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
                target_item: target(resource, &self.identities, &self.policy),
            },
            // A resource whose quotas are out of range has no item.
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

/// Why a resource has no item: its GID is unknown.
fn missing_identity(resource: &Resource, identities: &Identities, policy: &Policy) -> Option<String> {
    match metadata_target(resource, policy) {
        Some(_) => None,
        None => gid(resource, identities, policy).err(),
    }
}

/// The target item in `backend_metadata`, unless it is ignored.
fn metadata_target<'a>(resource: &'a Resource, policy: &Policy) -> Option<&'a TargetItem> {
    resource.metadata_target.as_deref().filter(|_| !policy.ignore_metadata_targets)
}

fn target<'a>(resource: &'a Resource, identities: &Identities, policy: &Policy) -> TargetOf<'a> {
    if let Some(given) = metadata_target(resource, policy) {
        return TargetOf::FromMetadata(given);
    }
    // A resource without a GID has no item.
    let (project, gid) = gid(resource, identities, policy).unwrap_or_default();
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
