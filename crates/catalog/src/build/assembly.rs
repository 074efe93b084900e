//! Builds a catalogue from changed resources and the previous catalogue.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use super::{Catalogue, Customers, KnownNodes, Names, Node, Run, Skipped, missing_identity, to_u32};
use crate::identity::Identities;
use crate::policy::Policy;
use crate::quota;
use crate::resource::{Rejected, Resource};
use crate::select::{Index, Leaf, Outcome};

/// If resources were removed, the next one is searched among this many resources of the previous catalogue. A resource that is not
/// found is treated as changed.
const AHEAD: usize = 256;

/// See [`build`](super::build).
pub(super) fn assemble<'a>(
    resources: impl Iterator<Item = &'a Arc<Resource>>,
    customers: Arc<Customers>,
    identities: Arc<Identities>,
    policy: Arc<Policy>,
    before: Option<Catalogue>,
) -> Catalogue {
    let before = before.filter(|before| *before.policy == *policy);
    let before = before.unwrap_or_else(|| Catalogue::empty(&customers, &identities, &policy));
    let affected = Affected {
        customers: differing(&before.customers, &customers),
        gids: differing(&before.identities.gids, &identities.gids),
        users: differing(&before.identities.users, &identities.users),
    };
    let expected = before.resources.len().max(resources.size_hint().0);
    let mut assembly = Assembly {
        customers: &customers,
        identities: &identities,
        policy: &policy,
        old_index: &before.index,
        old_nodes: &before.nodes,
        old_skipped: before.skipped,
        resources: Vec::with_capacity(expected),
        leaves: Vec::with_capacity(expected),
        nodes: Vec::with_capacity(before.nodes.len()),
        origins: Vec::with_capacity(before.nodes.len()),
        node_numbers: vec![None; before.nodes.len()],
        data_type_numbers: vec![None; before.names.data_types.len()],
        data_types: 0,
        known: before.known,
        names: before.names,
        items_before_skipped: Vec::new(),
        unchanged: Vec::new(),
        skipped: Vec::new(),
        malformed: Vec::new(),
    };
    let count = before.resources.len();
    let mut rest = before.resources.into_iter();
    for resource in resources {
        let skip = match rest.as_slice().first() {
            Some(next) if Arc::ptr_eq(next, resource) => Some(0),
            Some(next) if next.uuid == resource.uuid => {
                rest.next();
                None
            }
            _ => rest.as_slice().iter().take(AHEAD).position(|known| Arc::ptr_eq(known, resource)),
        };
        match skip.and_then(|skip| rest.nth(skip)).filter(|known| !affected.contains(known)) {
            Some(known) => assembly.keep(known, count - rest.len() - 1),
            None => assembly.add(resource),
        }
    }
    assembly.renumber();
    let unchanged = assembly.runs();
    let Assembly { resources, mut leaves, nodes, names, known, items_before_skipped, skipped, malformed, .. } =
        assembly;
    let count = to_u32(nodes.len());
    for leaf in &mut leaves {
        if let Outcome::Item(position) = &mut leaf.outcome {
            *position += count;
        }
    }
    let index = Index {
        systems: policy.systems.iter().map(|system| system.name.clone()).collect(),
        data_types: names.data_types.iter().map(|named| named.key.clone()).collect(),
        nodes: count,
        leaves,
    };
    Catalogue {
        resources,
        nodes,
        items_before_skipped,
        names,
        known,
        before: Arc::downgrade(&before.index),
        unchanged,
        index: Arc::new(index),
        skipped,
        malformed,
        policy,
        customers,
        identities,
    }
}

impl Catalogue {
    fn empty(customers: &Arc<Customers>, identities: &Arc<Identities>, policy: &Arc<Policy>) -> Self {
        Self {
            resources: Vec::new(),
            nodes: Vec::new(),
            items_before_skipped: Vec::new(),
            names: Names::new(policy),
            known: Vec::new(),
            policy: Arc::clone(policy),
            customers: Arc::clone(customers),
            identities: Arc::clone(identities),
            before: Weak::new(),
            unchanged: Vec::new(),
            index: Arc::default(),
            skipped: Vec::new(),
            malformed: Vec::new(),
        }
    }
}

/// A catalogue that is being built.
///
/// Tenants, customers and data types of the catalogue before keep their numbers in `known` and `names` until the end; new ones get
/// the numbers that follow. `leaves` and `nodes` have the new numbers, which follow from the order of first mention.
struct Assembly<'a> {
    customers: &'a Customers,
    identities: &'a Identities,
    policy: &'a Policy,
    old_index: &'a Index,
    old_nodes: &'a [Node],
    old_skipped: Vec<Skipped>,
    resources: Vec<Arc<Resource>>,
    /// Their item positions do not count tenants and customers.
    leaves: Vec<Leaf>,
    nodes: Vec<Node>,
    /// For each node, the position of an equal node in the catalogue before.
    origins: Vec<Option<u32>>,
    /// The new number for each old one; `None` if no resource has mentioned it yet.
    node_numbers: Vec<Option<u32>>,
    data_type_numbers: Vec<Option<u32>>,
    /// Number of data types mentioned.
    data_types: u32,
    known: Vec<KnownNodes>,
    names: Names,
    items_before_skipped: Vec<u32>,
    /// Unchanged items of resources. Positions do not count tenants and customers.
    unchanged: Vec<Run>,
    skipped: Vec<Skipped>,
    malformed: Vec<Skipped>,
}

impl Assembly<'_> {
    /// Adds a resource that is new or changed.
    fn add(&mut self, resource: &Arc<Resource>) {
        let systems = &self.policy.systems;
        let Some(system) = systems.iter().position(|system| system.offering_slug == resource.offering_slug) else {
            return;
        };
        // A record whose quotas are out of range is malformed: it adds no item and no tenant or customer.
        if let Err(error) = quota::calculate(&resource.limits, &resource.options, self.policy.inodes) {
            self.malformed.push(Skipped::malformed(&Rejected::of(resource, error)));
            return;
        }
        let data_type = self.names.data_type(&resource.data_type);
        self.data_type_numbers.resize(self.names.data_types.len(), None);
        self.known.resize_with(self.names.data_types.len() * systems.len(), KnownNodes::default);
        let known = &mut self.known[data_type as usize * systems.len() + system];
        let mut number = |known: &mut HashMap<String, u32>, slug: &String| {
            known.get(slug).copied().unwrap_or_else(|| {
                let number = to_u32(self.node_numbers.len());
                self.node_numbers.push(None);
                known.insert(slug.clone(), number);
                number
            })
        };
        let tenant = number(&mut known.tenants, &resource.provider_slug);
        let slug = &resource.customer_slug;
        let has_customer = !slug.is_empty() && self.customers.contains_key(slug);
        let customer = has_customer.then(|| number(&mut known.customers, slug));
        let outcome = match missing_identity(resource, self.identities, self.policy) {
            None => Outcome::Item(self.item()),
            Some(reason) => self.skip(Skipped::missing_identity(resource, &reason)),
        };
        let leaf = Leaf {
            system: to_u32(system),
            data_type,
            state: resource.state,
            status: resource.status(),
            above: [Some(tenant), customer, None],
            outcome,
        };
        self.push(Arc::clone(resource), leaf, None);
    }

    /// Adds a resource that is unchanged since the catalogue before, where its leaf was number `old`.
    fn keep(&mut self, resource: Arc<Resource>, old: usize) {
        let leaf = self.old_index.leaves[old];
        let outcome = match leaf.outcome {
            Outcome::Item(position) => {
                let item = self.item();
                let before = (position - self.old_index.nodes) as usize;
                extend(&mut self.unchanged, Run { start: item as usize, before, len: 1 });
                Outcome::Item(item)
            }
            Outcome::Skipped(position) => {
                let skipped = self.old_skipped[position as usize].clone();
                self.skip(skipped)
            }
        };
        self.push(resource, Leaf { outcome, ..leaf }, Some(to_u32(old)));
    }

    /// Position of the next item among those of resources.
    fn item(&self) -> u32 {
        to_u32(self.leaves.len() - self.skipped.len())
    }

    fn skip(&mut self, skipped: Skipped) -> Outcome {
        self.items_before_skipped.push(self.item());
        self.skipped.push(skipped);
        Outcome::Skipped(to_u32(self.skipped.len() - 1))
    }

    /// Adds a leaf with old numbers. `old` is its number in the catalogue before, if it is unchanged.
    fn push(&mut self, resource: Arc<Resource>, mut leaf: Leaf, old: Option<u32>) {
        leaf.data_type = *self.data_type_numbers[leaf.data_type as usize].get_or_insert_with(|| {
            self.data_types += 1;
            self.data_types - 1
        });
        let [tenant, customer, _] = leaf.above;
        let tenant = tenant.map(|tenant| self.node(tenant, None, old));
        let customer = customer.map(|customer| self.node(customer, tenant, old));
        let customers_tenant = customer.and_then(|customer| self.nodes[customer as usize].tenant);
        leaf.above = [tenant, customer, customers_tenant];
        self.resources.push(resource);
        self.leaves.push(leaf);
    }

    /// Position of a tenant or customer. Adds it if no leaf so far has mentioned it.
    fn node(&mut self, number: u32, tenant: Option<u32>, old: Option<u32>) -> u32 {
        if let Some(position) = self.node_numbers[number as usize] {
            return position;
        }
        let position = to_u32(self.nodes.len());
        self.node_numbers[number as usize] = Some(position);
        self.nodes.push(Node { first: to_u32(self.leaves.len()), tenant });
        // A node depends on the first resource that mentions it, and a customer on its tenant.
        let was_first = self.old_nodes.get(number as usize).is_some_and(|node| Some(node.first) == old);
        let is_unchanged = was_first && tenant.is_none_or(|tenant| self.origins[tenant as usize].is_some());
        self.origins.push(is_unchanged.then_some(number));
        position
    }

    /// Replaces the old numbers in `known` and `names` by the new ones.
    fn renumber(&mut self) {
        let is_same = |numbers: &[Option<u32>]| (0..).zip(numbers).all(|(old, new)| *new == Some(old));
        if !is_same(&self.node_numbers) {
            let renumber = |number: &mut u32| match self.node_numbers[*number as usize] {
                Some(new) => {
                    *number = new;
                    true
                }
                None => false,
            };
            for KnownNodes { tenants, customers } in &mut self.known {
                tenants.retain(|_, number| renumber(number));
                customers.retain(|_, number| renumber(number));
            }
        }
        if !is_same(&self.data_type_numbers) {
            let mut order: Vec<_> = (0..self.data_type_numbers.len()).collect();
            order.retain(|old| self.data_type_numbers[*old].is_some());
            order.sort_unstable_by_key(|old| self.data_type_numbers[*old]);
            let systems = self.policy.systems.len();
            let known = order.iter().flat_map(|old| old * systems..(old + 1) * systems);
            self.known = known.map(|place| std::mem::take(&mut self.known[place])).collect();
            self.names.data_types = order.iter().map(|old| Arc::clone(&self.names.data_types[*old])).collect();
        }
    }

    /// All unchanged items.
    fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (start, origin) in self.origins.iter().enumerate() {
            if let Some(origin) = origin {
                extend(&mut runs, Run { start, before: *origin as usize, len: 1 });
            }
        }
        let (nodes, old_nodes) = (self.nodes.len(), self.old_nodes.len());
        for run in &self.unchanged {
            extend(&mut runs, Run { start: run.start + nodes, before: run.before + old_nodes, ..*run });
        }
        runs
    }
}

/// Adds unchanged items.
fn extend(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if (last.start + last.len, last.before + last.len) == (run.start, run.before) => last.len += run.len,
        _ => runs.push(run),
    }
}

/// What changed besides resources, by slug.
struct Affected<'a> {
    customers: HashSet<&'a str>,
    gids: HashSet<&'a str>,
    users: HashSet<&'a str>,
}

impl Affected<'_> {
    /// Whether the item of a resource, or the reason why it has none, may have changed.
    fn contains(&self, resource: &Resource) -> bool {
        let contains = |slugs: &HashSet<&str>, slug: &str| !slugs.is_empty() && slugs.contains(slug);
        contains(&self.customers, &resource.customer_slug)
            || contains(&self.gids, &resource.project_slug)
            || contains(&self.users, &resource.slug)
    }
}

/// The keys with different values.
fn differing<'a, V: PartialEq>(before: &'a HashMap<String, V>, now: &'a HashMap<String, V>) -> HashSet<&'a str> {
    if std::ptr::eq(before, now) {
        return HashSet::new();
    }
    let changed = before.iter().filter(|(key, value)| now.get(*key) != Some(value)).map(|(key, _)| key.as_str());
    let added = now.keys().filter(|key| !before.contains_key(*key)).map(String::as_str);
    changed.chain(added).collect()
}

#[cfg(test)]
mod tests;
