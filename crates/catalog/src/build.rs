//! Building the catalogue: nodes in the order in which the resources name them, then the resources.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::document::{Item, MountPoint, Named, NodeTarget, Permission, Target, TargetOf};
use crate::identity::{self, Identities};
use crate::mount;
use crate::order::CallbackLinks;
use crate::policy::Policy;
use crate::quota::{self, Quota};
use crate::resource::{Rejected, Resource, Status};
use crate::select::{Index, Leaf, NODE_STATUS, Outcome};
use crate::target::{self, PrimaryProject, ProjectTarget, TargetItem, TargetType, UserTarget};

/// Customers by slug.
pub type Customers = HashMap<String, Customer>;

/// A customer of an offering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// UUID of the customer and of its items.
    pub uuid: Uuid,
    /// Name for people, where there is one.
    pub name: Option<String>,
}

/// The whole catalogue, borrowing texts from the resources and customers it was made of.
#[derive(Debug, Clone, Default)]
pub struct Catalogue<'a> {
    /// Tenants and customers in the order in which they were met, then the resources in Waldur's order.
    pub items: Vec<Item<'a>>,
    /// What selection needs.
    pub index: Index,
    /// Resources that were left out for want of an identity (decision D7), in Waldur's order.
    pub skipped: Vec<Skipped>,
    /// Resources that cannot be mapped (decision D8), in Waldur's order.
    pub malformed: Vec<Skipped>,
}

/// A resource that is left out of the items, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// UUID of the resource; null when the record has none that can be read.
    pub item_id: Option<Uuid>,
    /// `MissingIdentityError`: its project has no Unix GID. `MalformedResourceError`: it does not follow the rules.
    #[cfg_attr(feature = "schema", schema(value_type = crate::schema::SkippedError))]
    pub error: &'static str,
    /// What is missing or malformed, for people.
    pub detail: String,
}

impl Skipped {
    /// A record that does not follow the mapping rules (decision D8).
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

/// The customers of an offering whose own list is refused, as its resources name them (decision D18).
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

/// Builds the catalogue.
///
/// Resources of offerings that `policy` does not name are left out. The result is a function of the arguments alone;
/// items stand in an order that follows from the order of `resources`.
pub fn build<'a>(
    resources: &'a [Resource],
    customers: &'a Customers,
    identities: &Identities,
    policy: &Policy,
) -> Catalogue<'a> {
    let mut nodes = Nodes::default();
    let mut names = Names::new(policy);
    let mut leaves = Vec::new();
    let mut catalogue = Catalogue::default();
    for resource in resources {
        let Some(system) = policy.systems.iter().position(|system| system.offering_slug == resource.offering_slug)
        else {
            continue;
        };
        // A record whose quotas do not compute is malformed and leaves no trace, not even nodes.
        let quotas = match quota::calculate(resource.limits, &resource.options, policy.inodes) {
            Ok(quotas) => quotas,
            Err(fault) => {
                catalogue.malformed.push(Skipped::malformed(&Rejected::of(resource, fault)));
                continue;
            }
        };
        let place = names.place(policy, system, resource);
        let above = nodes.above(&place, resource, customers);
        let outcome = match target(resource, identities, policy) {
            Ok(target) => {
                let parent = above[1].map(|customer| nodes.items[customer as usize].item_id);
                leaves.push(leaf(&place, resource, target, quotas, parent, policy));
                Outcome::Item(count(leaves.len() - 1))
            }
            Err(reason) => {
                catalogue.skipped.push(Skipped::missing_identity(resource, &reason));
                Outcome::Skipped(count(catalogue.skipped.len() - 1))
            }
        };
        catalogue.index.leaves.push(Leaf {
            system: count(system),
            data_type: place.data_type_position,
            state: resource.state,
            status: resource.status(),
            above,
            outcome,
        });
    }
    let nodes = nodes.items;
    for leaf in &mut catalogue.index.leaves {
        if let Outcome::Item(position) = &mut leaf.outcome {
            *position += count(nodes.len());
        }
    }
    catalogue.index.nodes = count(nodes.len());
    catalogue.index.systems = policy.systems.iter().map(|system| system.name.clone()).collect();
    catalogue.index.data_types = names.data_types.into_iter().map(|named| named.key.clone()).collect();
    catalogue.items = nodes;
    catalogue.items.append(&mut leaves);
    catalogue
}

#[expect(clippy::expect_used, reason = "a catalogue of four billion items does not fit into memory")]
fn count(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 items")
}

/// The names that items share.
struct Names {
    systems: Vec<Arc<Named>>,
    file_system: Arc<Named>,
    data_types: Vec<Arc<Named>>,
}

/// Where a resource stands in the hierarchy.
struct Place<'a> {
    /// Position among the systems of the settings.
    system_position: usize,
    /// Segment of the path.
    system: String,
    data_type: &'a str,
    data_type_position: u32,
    storage_system: Arc<Named>,
    storage_file_system: Arc<Named>,
    storage_data_type: Arc<Named>,
}

impl Names {
    fn new(policy: &Policy) -> Self {
        let named = |scope: &str, name: &str| Arc::new(Named::new(scope, name));
        Self {
            systems: policy.systems.iter().map(|system| named("storage_system", &system.identifier)).collect(),
            file_system: named("storage_file_system", &policy.file_system),
            data_types: Vec::new(),
        }
    }

    fn place<'a>(&mut self, policy: &Policy, system: usize, resource: &'a Resource) -> Place<'a> {
        let data_type = resource.data_type.as_str();
        let position = self.data_types.iter().position(|named| named.key == data_type).unwrap_or_else(|| {
            self.data_types.push(Arc::new(Named::new("storage_data_type", data_type)));
            self.data_types.len() - 1
        });
        Place {
            system_position: system,
            system: policy.systems[system].identifier.clone(),
            data_type,
            data_type_position: count(position),
            storage_system: Arc::clone(&self.systems[system]),
            storage_file_system: Arc::clone(&self.file_system),
            storage_data_type: Arc::clone(&self.data_types[position]),
        }
    }
}

/// Tenants and customers, each made by the first resource that names it.
#[derive(Default)]
struct Nodes<'a> {
    items: Vec<Item<'a>>,
    tenants: HashMap<(&'a str, usize, &'a str), u32>,
    customers: HashMap<(&'a str, usize, &'a str), (u32, u32)>,
}

impl<'a> Nodes<'a> {
    /// The nodes above a resource, made where they are missing: its tenant, its customer, the customer's own tenant.
    fn above(&mut self, place: &Place<'a>, resource: &'a Resource, customers: &'a Customers) -> [Option<u32>; 3] {
        let (customer_path, tenant_path) = resource.backend_id.as_deref().map_or((None, None), mount::above);
        let Resource { provider_slug, customer_slug, offering_uuid, .. } = resource;
        let tenant_key = (provider_slug.as_str(), place.system_position, place.data_type);
        let tenant = *self.tenants.entry(tenant_key).or_insert_with(|| {
            let path = tenant_path.map_or_else(
                || Cow::Owned(mount::of_tenant(&place.system, place.data_type, provider_slug)),
                Cow::Borrowed,
            );
            let name = if resource.provider_name.is_empty() {
                Cow::Owned(provider_slug.to_uppercase())
            } else {
                Cow::Borrowed(resource.provider_name.as_str())
            };
            let target =
                NodeTarget { item_id: *offering_uuid, key: Cow::Owned(provider_slug.to_lowercase()), name: Some(name) };
            self.items.push(node(place, TargetType::Tenant, target, path, None));
            count(self.items.len() - 1)
        });
        let Some(customer) = customers.get(customer_slug).filter(|_| !customer_slug.is_empty()) else {
            return [Some(tenant), None, None];
        };
        let customer_key = (customer_slug.as_str(), place.system_position, place.data_type);
        let (customer, customers_tenant) = *self.customers.entry(customer_key).or_insert_with(|| {
            let path = customer_path.map_or_else(
                || Cow::Owned(mount::of_customer(&place.system, place.data_type, provider_slug, customer_slug)),
                Cow::Borrowed,
            );
            let parent = self.items[tenant as usize].item_id;
            let target = NodeTarget {
                item_id: customer.uuid,
                key: Cow::Borrowed(customer_slug.as_str()),
                name: customer.name.as_deref().map(Cow::Borrowed),
            };
            self.items.push(node(place, TargetType::Customer, target, path, Some(parent)));
            (count(self.items.len() - 1), tenant)
        });
        [Some(tenant), Some(customer), Some(customers_tenant)]
    }
}

fn node<'a>(
    place: &Place<'a>,
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
        storage_system: Arc::clone(&place.storage_system),
        storage_file_system: Arc::clone(&place.storage_file_system),
        storage_data_type: Arc::clone(&place.storage_data_type),
        target: Target { target_type, target_item: TargetOf::Node(target) },
        quotas: None,
        old_quotas: None,
        new_quotas: None,
        parent_item_id: parent,
        links: CallbackLinks::default(),
    }
}

fn leaf<'a>(
    place: &Place<'a>,
    resource: &'a Resource,
    target: TargetOf<'a>,
    quotas: Option<[Quota; 4]>,
    parent: Option<Uuid>,
    policy: &Policy,
) -> Item<'a> {
    let path = resource.backend_id.as_deref().map_or_else(
        || {
            let Resource { provider_slug, customer_slug, project_slug, .. } = resource;
            Cow::Owned(mount::of_project(&place.system, place.data_type, provider_slug, customer_slug, project_slug))
        },
        Cow::Borrowed,
    );
    let (old_quotas, new_quotas) = update_quotas(resource, policy).unwrap_or_default();
    Item {
        item_id: resource.uuid,
        status: resource.status(),
        mount_point: MountPoint { default: path },
        permission: Permission::octal(&resource.permission),
        storage_system: Arc::clone(&place.storage_system),
        storage_file_system: Arc::clone(&place.storage_file_system),
        storage_data_type: Arc::clone(&place.storage_data_type),
        target: Target { target_type: resource.target_type(), target_item: target },
        quotas,
        old_quotas,
        new_quotas,
        parent_item_id: parent,
        links: resource
            .order
            .as_ref()
            .map(|order| order.callback_links(resource.uuid, resource.effective_state()))
            .unwrap_or_default(),
    }
}

type OldAndNew = (Option<[Quota; 4]>, Option<[Quota; 4]>);

/// Quotas before and after the update in progress; none when there is no update or it does not compute.
fn update_quotas(resource: &Resource, policy: &Policy) -> Option<OldAndNew> {
    let update = resource.order.as_ref()?.update.as_ref()?;
    let quotas = |limits: &Option<_>, options: &Option<_>| {
        let options = options.as_ref().unwrap_or(&resource.options);
        quota::calculate(limits.unwrap_or(resource.limits), options, policy.inodes).ok()
    };
    Some((quotas(&update.old_limits, &update.old_options)?, quotas(&update.new_limits, &update.new_options)?))
}

/// The target of a resource, or why its GID is unknown.
fn target<'a>(resource: &'a Resource, identities: &Identities, policy: &Policy) -> Result<TargetOf<'a>, String> {
    if let (Some(given), false) = (&resource.metadata_target, policy.ignore_metadata_targets) {
        return Ok(TargetOf::Given(given));
    }
    let target_type = resource.target_type();
    let (project, gid) = gid(resource, target_type, identities, policy)?;
    let status = resource.status();
    let active = status == Status::Active;
    let made = if target_type == TargetType::User {
        let known = identities.users.get(&resource.slug).cloned().unwrap_or_default();
        let invented = policy.development_mode;
        let uid = known.uid.or_else(|| invented.then(|| identity::mock_uid(&resource.slug)));
        TargetItem::User(UserTarget {
            item_id: target::id("user", &resource.slug),
            key: None,
            name: None,
            status: Some(status),
            email: known.email.or_else(|| invented.then(|| identity::mock_email(&resource.slug))),
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
    };
    Ok(TargetOf::Made(made))
}

/// The project that a resource's GID belongs to, and the GID.
fn gid<'a>(
    resource: &'a Resource,
    target_type: TargetType,
    identities: &Identities,
    policy: &Policy,
) -> Result<(&'a str, u32), String> {
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
    let slug = match (slug, target_type) {
        // What the Python proxy calls a project without a slug.
        ("", TargetType::User) => "default-project",
        ("", _) => "unknown",
        _ => slug,
    };
    Ok((slug, identity::mock_gid(slug)))
}

#[cfg(test)]
mod tests;
