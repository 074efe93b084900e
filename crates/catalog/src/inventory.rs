//! All resources of Waldur with their open orders, kept up to date by what changed.
//!
//! Resources and orders come from two lists, and Waldur may change between the two requests. The orders are read first. So a
//! resource that is the same before and after had the order of the list at the moment when the orders were read. If that is not certain, the
//! resource must be read once more, together with its order: [`Inventory::update`] returns which ones.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::resource::{Rejected, Resource};
use crate::row::{OpenOrder, Parsed, Row, fits};
use crate::stamp::Stamp;
use crate::watermark::Depth;

/// The resources in Waldur's order, with their open orders.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    entries: Vec<Entry>,
    positions: HashMap<Uuid, usize>,
    /// By resource: the oldest open order in the list of orders.
    orders: HashMap<Uuid, OpenOrder>,
    /// Resources to read once more, with their order.
    uncertain: BTreeSet<Uuid>,
    /// Resources that were read together with an order other than the one in the list of orders.
    ahead: BTreeSet<Uuid>,
    /// Those of the update before, if the list of orders still has the same order for them.
    still_ahead: BTreeSet<Uuid>,
    /// Resources of open orders that are not in the list of resources.
    foreign: HashSet<Uuid>,
    /// Resources with an open order, by its UUID, that the list of orders lacked.
    unlisted: HashSet<(Uuid, Option<Uuid>)>,
    lacks_orders: bool,
    /// Resources of a full reading that need an order, before the first update.
    in_transition: Vec<Uuid>,
    changed: HashSet<Uuid>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    /// The row as it is in the list of resources, without an order.
    row: Row,
    /// The row with the order.
    complete: Parsed,
}

/// What a full reading found that the updates before had missed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Changes that no update can see: of names and slugs of customers, projects, providers and offerings, other projects, deletions.
    pub expected: usize,
    /// Resources with other changes.
    pub unexpected: Vec<Uuid>,
}

impl Inventory {
    /// An inventory of all rows, in Waldur's order. Without `nested_orders`, it has no orders before [`update`](Self::update).
    pub fn new(rows: impl IntoIterator<Item = Row>, nested_orders: bool) -> Self {
        let mut inventory = Self::default();
        for row in rows {
            let complete = row.resource.clone();
            if !nested_orders && needs_order(&row) {
                inventory.in_transition.push(row.uuid);
            }
            inventory.entries.push(Entry { row, complete });
        }
        inventory.number(0);
        inventory
    }

    /// The valid resources, in Waldur's order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.entries.iter().filter_map(|entry| entry.complete.as_ref().ok())
    }

    /// The valid resources by UUID, without the orders from the list of orders.
    pub fn listed(&self) -> HashMap<Uuid, Arc<Resource>> {
        let listed = self.entries.iter().filter_map(|Entry { row, .. }| Some((row.uuid, row.resource.as_ref().ok()?)));
        listed.map(|(uuid, resource)| (uuid, Arc::clone(resource))).collect()
    }

    /// The malformed records (decision D8).
    pub fn malformed(&self) -> impl Iterator<Item = &Rejected> {
        self.entries.iter().filter_map(|entry| entry.complete.as_ref().err().map(AsRef::as_ref))
    }

    /// Updates the inventory by all open orders, and then by the changed resources, read in this order; both may contain more.
    /// Returns the resources whose order is uncertain: they must be read once more, together with their order, and given to
    /// [`settle`](Self::settle).
    ///
    /// A resource that a deep request did not return is unchanged. A shallow one may miss a late commit, so a resource whose order
    /// changed is always uncertain after it.
    pub fn update(&mut self, orders: Vec<OpenOrder>, depth: Depth, rows: Vec<Row>) -> Vec<Uuid> {
        let mut open: HashMap<Uuid, OpenOrder> = HashMap::with_capacity(orders.len());
        for order in orders {
            match open.get(&order.resource) {
                Some(other) if !order.is_older_than(other) => {}
                _ => drop(open.insert(order.resource, order)),
            }
        }
        let before = std::mem::replace(&mut self.orders, open);
        for row in rows {
            if self.entry(row.uuid).is_some_and(|entry| entry.row.resource == row.resource) {
                continue;
            }
            let has_order = before.contains_key(&row.uuid) || self.orders.contains_key(&row.uuid);
            if has_order || needs_order(&row) {
                self.uncertain.insert(row.uuid);
            } else {
                let complete = row.resource.clone();
                self.put(Entry { row, complete });
            }
        }
        let same = |uuid: &Uuid| before.get(uuid) == self.orders.get(uuid);
        let ahead = std::mem::take(&mut self.ahead);
        self.still_ahead = ahead.iter().filter(|uuid| same(uuid)).copied().collect();
        let touched: BTreeSet<Uuid> =
            before.keys().chain(self.orders.keys()).filter(|uuid| !same(uuid)).copied().chain(ahead).collect();
        for uuid in touched {
            if depth == Depth::Shallow && self.contains(uuid) {
                self.uncertain.insert(uuid);
            } else {
                self.join(uuid);
            }
        }
        let orders = &self.orders;
        self.uncertain.extend(self.in_transition.drain(..).filter(|uuid| !orders.contains_key(uuid)));
        self.uncertain.iter().copied().collect()
    }

    /// Takes over a resource that was read together with its order; `row` is `None` if Waldur does not return it any more.
    pub fn settle(&mut self, uuid: Uuid, row: Option<Row>) {
        self.uncertain.remove(&uuid);
        let Some(row) = row else {
            self.foreign.insert(uuid);
            self.remove(uuid);
            return;
        };
        let order = row.resource.as_ref().ok().and_then(|resource| resource.order.as_deref());
        let listed = self.orders.get(&uuid);
        let contradicts = !listed.map_or(order.is_none(), |listed| listed.is_same_as(order));
        if let (Some(order), None) = (order, listed) {
            // Either the order is newer than the list, or the list does not contain it.
            self.lacks_orders |= !self.unlisted.insert((uuid, order.uuid));
        }
        let normal = row.resource.as_ref().map_or(true, |resource| fits(resource.state, order));
        let complete = row.resource.clone();
        let without_order = |resource: Arc<Resource>| match resource.order {
            Some(_) => Arc::new(Resource { order: None, ..Resource::clone(&resource) }),
            None => resource,
        };
        let entry = Entry { row: Row { resource: row.resource.map(without_order), ..row }, complete };
        // Waldur may have answered in the middle of a change: an unusual combination is accepted only after it was read twice.
        let is_new = self.entry(uuid).is_none_or(|known| known.complete != entry.complete);
        if !normal && is_new {
            self.uncertain.insert(uuid);
        }
        // The same contradiction twice is permanent, and is not read again.
        if contradicts && (is_new || !self.still_ahead.contains(&uuid)) {
            self.ahead.insert(uuid);
        }
        self.put(entry);
    }

    /// Whether the resource is in the inventory.
    pub fn contains(&self, uuid: Uuid) -> bool {
        self.positions.contains_key(&uuid)
    }

    /// Whether the list of orders repeatedly lacked an order that a resource has: the token may not see orders.
    pub fn lacks_orders(&self) -> bool {
        self.lacks_orders
    }

    /// The valid resource with this UUID.
    pub fn resource(&self, uuid: Uuid) -> Option<&Arc<Resource>> {
        self.entry(uuid)?.complete.as_ref().ok()
    }

    /// The resources that changed, appeared, moved or disappeared since the last call.
    pub fn take_changed(&mut self) -> HashSet<Uuid> {
        std::mem::take(&mut self.changed)
    }

    /// Shares equal resources with the inventory before, and finds what that inventory had missed: changes dated before
    /// `since`, which no update would have returned.
    pub fn replace(&mut self, before: &Self, since: Option<Stamp>) -> Missed {
        let mut missed = Missed::default();
        self.changed.clear();
        for (position, entry) in self.entries.iter_mut().enumerate() {
            let uuid = entry.row.uuid;
            let old = before.entry(uuid);
            if before.entries.get(position).is_none_or(|old| old.row.uuid != uuid) {
                self.changed.insert(uuid);
            }
            match old.filter(|old| old.complete == entry.complete) {
                Some(old) => entry.complete.clone_from(&old.complete),
                None => drop(self.changed.insert(uuid)),
            }
            let late = entry.row.modified.zip(since).is_some_and(|(modified, since)| modified < since);
            match old {
                Some(old) if old.row.resource == entry.row.resource => {
                    entry.row.resource.clone_from(&old.row.resource);
                }
                Some(old) if late && is_renamed(&old.row, &entry.row) => missed.expected += 1,
                // The next update would have noticed the order.
                _ if self.orders.get(&uuid) != before.orders.get(&uuid) => {}
                _ if late => missed.unexpected.push(uuid),
                _ => {}
            }
        }
        let gone = before.entries.iter().map(|old| old.row.uuid).filter(|uuid| !self.positions.contains_key(uuid));
        for uuid in gone {
            missed.expected += 1;
            self.changed.insert(uuid);
        }
        missed
    }

    fn entry(&self, uuid: Uuid) -> Option<&Entry> {
        self.positions.get(&uuid).map(|position| &self.entries[*position])
    }

    /// Joins an unchanged resource to its order in the list of orders, or to none, if that is certain.
    fn join(&mut self, uuid: Uuid) {
        if self.uncertain.contains(&uuid) {
            return;
        }
        let order = self.orders.get(&uuid);
        let Some(Entry { row, .. }) = self.entry(uuid) else {
            // Without its order, a resource is no longer hidden.
            if order.is_none_or(|order| !order.hides_resource()) && !self.foreign.contains(&uuid) {
                self.uncertain.insert(uuid);
            }
            return;
        };
        let complete = row.resource.as_ref().ok().and_then(|resource| match order {
            Some(order) => order.joined_to(resource).map(Arc::new),
            None => fits(resource.state, None).then(|| Arc::clone(resource)),
        });
        match complete {
            Some(resource) => self.put(Entry { row: row.clone(), complete: Ok(resource) }),
            None => drop(self.uncertain.insert(uuid)),
        }
    }

    /// Adds or replaces an entry.
    fn put(&mut self, entry: Entry) {
        if let Some(position) = self.positions.get(&entry.row.uuid).copied() {
            if self.entries[position].complete != entry.complete {
                self.changed.insert(entry.row.uuid);
            }
            self.entries[position] = entry;
            return;
        }
        // A resource that is created in a long transaction may belong before others.
        let position = self.entries.partition_point(|other| other.row.created <= entry.row.created);
        self.foreign.remove(&entry.row.uuid);
        self.changed.insert(entry.row.uuid);
        self.entries.insert(position, entry);
        self.number(position);
    }

    fn remove(&mut self, uuid: Uuid) {
        if let Some(position) = self.positions.remove(&uuid) {
            self.entries.remove(position);
            self.number(position);
            self.changed.insert(uuid);
        }
    }

    fn number(&mut self, from: usize) {
        for (position, entry) in self.entries.iter().enumerate().skip(from) {
            self.positions.insert(entry.row.uuid, position);
        }
    }
}

/// Whether a resource in this state must have an order that the row does not contain.
fn needs_order(row: &Row) -> bool {
    row.resource.as_ref().is_ok_and(|resource| !fits(resource.state, None))
}

/// Whether two records differ only in what they repeat of other objects, which Waldur changes without a new `modified`.
fn is_renamed(old: &Row, new: &Row) -> bool {
    let (Ok(old), Ok(new)) = (&old.resource, &new.resource) else { return false };
    let mut renamed = Resource::clone(old);
    renamed.offering_slug.clone_from(&new.offering_slug);
    renamed.offering_type.clone_from(&new.offering_type);
    renamed.project_slug.clone_from(&new.project_slug);
    renamed.customer_slug.clone_from(&new.customer_slug);
    renamed.customer_uuid = new.customer_uuid;
    renamed.customer_name.clone_from(&new.customer_name);
    renamed.provider_slug.clone_from(&new.provider_slug);
    renamed.provider_name.clone_from(&new.provider_name);
    renamed == **new
}

#[cfg(test)]
mod tests;
