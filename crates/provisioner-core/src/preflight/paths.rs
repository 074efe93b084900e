//! Checks that no two resources use the same or nested paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use storage_driver::place::Place;
use storage_driver::{Mode, Observed};

use super::{COMMON_PARENT, Obstacle, Unnumbered, is_being_terminated};
use crate::Observation;
use crate::Turn;
use crate::document::{Document, OrderKind, Resource, Status};

/// The places of a system that are in use.
pub(super) struct Paths<'a> {
    /// Directories of tenants and customers.
    nodes: BTreeMap<Place, Mode>,
    /// Number of resources at each place.
    claimed: BTreeMap<Place, usize>,
    /// Number of those that are being terminated.
    being_terminated: BTreeMap<Place, usize>,
    /// Those with an order that terminates the resource, even if it waits for another party's approval.
    to_be_free: BTreeSet<Place>,
    was_terminated_here: &'a dyn Fn(&Resource) -> bool,
}

impl<'a> Paths<'a> {
    pub(super) fn new(
        resources: &[&Resource],
        document: &Document,
        system: &str,
        root: &str,
        was_terminated_here: &'a dyn Fn(&Resource) -> bool,
    ) -> Self {
        let place = |path: &str| Place::parse(path, root).ok();
        let nodes = document.nodes.iter().filter(|node| node.system == system);
        let nodes = nodes.filter_map(|node| Some((place(&node.path)?, node.mode))).collect();
        let (claimed, being_terminated, to_be_free) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut paths = Self { nodes, claimed, being_terminated, to_be_free, was_terminated_here };
        for resource in resources {
            if let Some(place) = place(&resource.path).filter(|_| paths.is_settled(resource)) {
                *paths.being_terminated.entry(place.clone()).or_default() += usize::from(is_being_terminated(resource));
                *paths.claimed.entry(place.clone()).or_default() += 1;
                if resource.order.as_ref().is_some_and(|order| order.kind == OrderKind::Terminate) {
                    paths.to_be_free.insert(place);
                }
            }
        }
        paths
    }

    /// Checks that a resource may use its place, and reserves the place for a new one.
    pub(super) fn claim(&mut self, resource: &Resource, place: &Place) -> Result<(), Obstacle> {
        let is_new = is_new(resource);
        let count = |places: &BTreeMap<Place, usize>| places.get(place).copied().unwrap_or_default();
        let (claims, ending) = (count(&self.claimed), count(&self.being_terminated));
        // A termination removes only a directory with the resource's own mark, so it neither needs the place nor keeps it from a
        // resource in use.
        let is_shared = !is_being_terminated(resource) && if is_new { claims > 0 } else { claims > ending + 1 };
        let is_nested = self.is_nested(place);
        if (self.is_settled(resource) || is_new) && (is_shared || is_nested) {
            // Terminated and ordered again: the old directory has to be removed first.
            if is_new && self.to_be_free.contains(place) && !is_nested {
                let reason = format!("the path {} belongs to another resource that is to be terminated", resource.path);
                return Err(Obstacle::waiting(Turn::Provisioner, reason));
            }
            return Err(Obstacle::conflict(format!(
                "the path {} is also the path of another item, or lies above or below one: give the project, customer or \
                 resource another slug in Waldur",
                resource.path
            )));
        }
        if is_new {
            *self.claimed.entry(place.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// The modes of the directories above a place, from the root down.
    pub(super) fn modes_above(&self, place: &Place) -> Vec<Mode> {
        let above = std::iter::successors(place.parent(), Place::parent);
        let mut modes: Vec<_> = above.map(|above| self.nodes.get(&above).copied().unwrap_or(COMMON_PARENT)).collect();
        modes.reverse();
        modes
    }

    /// Whether a resource is terminated. Waldur may show a termination as in progress after it was carried out, because its worker
    /// set the state late.
    pub(super) fn is_terminated(&self, resource: &Resource) -> bool {
        match resource.status {
            Status::Removed => true,
            Status::Removing => resource.order.is_none() && (self.was_terminated_here)(resource),
            _ => false,
        }
    }

    /// Whether a resource already has its place. A terminated resource does not, because another one may have the place by now.
    /// Neither does an unclaimed resource (see [`hold_paths_of_unclaimed`]).
    fn is_settled(&self, resource: &Resource) -> bool {
        !self.is_terminated(resource) && !is_new(resource) && !resource.unclaimed
    }

    /// Whether a place is that of a tenant or customer, or lies above or below a place in use.
    fn is_nested(&self, place: &Place) -> bool {
        // Places below this one sort right after it.
        let after = || (Bound::Excluded(place), Bound::Unbounded);
        let is_below = |next: Option<&Place>| next.is_some_and(|next| place.holds(next));
        self.nodes.contains_key(place)
            || is_below(self.nodes.range(after()).next().map(|(next, _)| next))
            || is_below(self.claimed.range(after()).next().map(|(next, _)| next))
            || std::iter::successors(place.parent(), Place::parent).any(|above| self.claimed.contains_key(&above))
    }
}

/// Whether an order in progress creates or restores the resource.
fn is_new(resource: &Resource) -> bool {
    resource.order.as_ref().is_some_and(|order| matches!(order.kind, OrderKind::Create | OrderKind::Restore))
}

/// Holds a new resource if an unclaimed one with the same path has a directory. Without a directory, an unclaimed resource does
/// not reserve its path.
pub fn hold_paths_of_unclaimed(
    resources: &[&Resource],
    desired: &mut [Result<Unnumbered, Obstacle>],
    observed: &[Observation],
) {
    let exists = |observed: &Observation| !matches!(observed, Ok(Observed::Absent | Observed::Obstructed(_)));
    let unclaimed =
        resources.iter().zip(observed).filter(|(resource, observed)| resource.unclaimed && exists(observed));
    let unclaimed: BTreeMap<_, _> = unclaimed.map(|(resource, _)| (&*resource.path, resource.id)).collect();
    for (resource, desired) in resources.iter().zip(desired).filter(|(resource, _)| !resource.unclaimed) {
        if let Some(other) = unclaimed.get(&*resource.path)
            && desired.is_ok()
            && resource.order.as_ref().is_some_and(|order| order.kind == OrderKind::Create)
        {
            *desired = Err(Obstacle::conflict(format!(
                "the path {} is also that of {other}, which is Creating in Waldur without an order, but has a directory there \
                 or in the trash: compare both, and set the state of the wrong one to Terminated in Waldur's administration",
                resource.path
            )));
        }
    }
}
