//! The desired state of a resource's directory, or the obstacle to it: decided before anything is touched.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::document::{Document, Kind, Mode, Order, OrderKind, OrderState, Quotas, Resource, Status};
use crate::driver::{Desired, Observed};
use crate::ledger::{Ledger, ProjectIds};
use crate::limits::{Bytes, Inodes, NoLimits, QuotaLimits, Terabyte, round_up};
use crate::pass::System;
use crate::place::{NoPlace, Place};
use program::error_chain;

/// Mode of directories above a resource that are neither a tenant's nor a customer's.
const COMMON_PARENT: Mode = Mode(0o755);

/// The bit of a mode that has programs run as the file's owner.
const SETUID: u32 = 0o4000;

/// What preflight knows of a storage system.
#[derive(Debug, Clone)]
pub struct Site {
    /// Root of the system in published paths, for example `/capstor`.
    pub published_root: String,
    /// What a TB is.
    pub terabyte: Terabyte,
    /// Owner of projects' directories.
    pub owner_uid: u32,
    /// The lowest GID and UID that are taken for real. What is below belongs to the machine.
    pub lowest_id: u32,
    /// Where project IDs come from; `None` on systems that have none.
    pub projects: Option<ProjectIds>,
    /// The modes that are accepted.
    pub modes: Modes,
}

/// The modes of directories that a system accepts. A mode outside holds the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Bits that each mode must have.
    pub lowest: Mode,
    /// Bits that a mode may have.
    pub highest: Mode,
}

/// Everything but setuid, which serves no directory and is most likely a mistake. Setgid hands a project's group down.
impl Default for Modes {
    fn default() -> Self {
        Self { lowest: Mode(0), highest: Mode(0o3777) }
    }
}

impl Modes {
    /// Checks the mode of a resource's directory, and for setuid those of the directories above, which have others than those
    /// of resources.
    fn check(self, mode: Mode, above: &[Mode]) -> Result<(), Obstacle> {
        let (excess, missing) = (mode.0 & !self.highest.0, self.lowest.0 & !mode.0);
        let above = above.iter().find(|above| above.0 & SETUID & !self.highest.0 != 0);
        let obstacle = |what: String, key: &str, value: Mode| {
            Err(Obstacle::person(format!(
                "{what}: correct it at its source, or `{key}` ({:04o}) of this system",
                value.0
            )))
        };
        if let Some(above) = above {
            let what = format!("a directory above has the mode {:04o}, with setuid", above.0);
            obstacle(what, "highest_mode", self.highest)
        } else if excess != 0 {
            let setuid = if excess & SETUID == 0 { "" } else { " (setuid)" };
            let what = format!("the mode {:04o} has bits that are not accepted, {excess:04o}{setuid}", mode.0);
            obstacle(what, "highest_mode", self.highest)
        } else if missing != 0 {
            let what = format!("the mode {:04o} lacks bits that each must have, {missing:04o}", mode.0);
            obstacle(what, "lowest_mode", self.lowest)
        } else {
            Ok(())
        }
    }
}

/// Why there is no desired state for a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Who or what removes it.
    pub kind: ObstacleKind,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Who or what removes an obstacle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstacleKind {
    /// It goes away by itself: somebody else's turn.
    Waiting,
    /// A person changes something in Waldur, at the proxy or in the settings.
    Person,
    /// Two resources have the same place.
    Conflict,
    /// Only another order does: this one literally asks for something that cannot be, whatever changes outside it. The only
    /// kind for which an order may be rejected, and only with `policy.refuse` (decision D20).
    Impossible,
}

impl Obstacle {
    fn new(kind: ObstacleKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    fn waiting(reason: impl Into<String>) -> Self {
        Self::new(ObstacleKind::Waiting, reason)
    }

    fn person(reason: impl Into<String>) -> Self {
        Self::new(ObstacleKind::Person, reason)
    }

    fn conflict(reason: impl Into<String>) -> Self {
        Self::new(ObstacleKind::Conflict, reason)
    }

    fn impossible(reason: impl Into<String>) -> Self {
        Self::new(ObstacleKind::Impossible, reason)
    }
}

/// What is wanted for each of these resources, all of one system, in their order; its project ID is 0 until it is
/// [`number`]ed. `ended`: whether the termination of a resource was carried out here, by the journal.
pub fn judge(
    resources: &[&Resource],
    document: &Document,
    system: &str,
    site: &Site,
    ended: &dyn Fn(&Resource) -> bool,
) -> Vec<Result<Desired, Obstacle>> {
    let place = |path: &str| Place::parse(path, &site.published_root);
    let nodes: BTreeMap<Place, Mode> = document
        .nodes
        .iter()
        .filter(|node| node.system == system)
        .filter_map(|node| Some((place(&node.path).ok()?, node.mode)))
        .collect();
    let places: Vec<_> = resources.iter().map(|resource| place(&resource.path)).collect();
    let comes = |kind| matches!(kind, OrderKind::Create | OrderKind::Restore);
    let newcomer = |resource: &Resource| resource.order.as_ref().is_some_and(|order| comes(order.kind));
    // Waldur may show a termination as in progress after it was carried out: its worker set the state late.
    let gone = |resource: &Resource| match resource.status {
        Status::Removed => true,
        Status::Removing => resource.order.is_none() && ended(resource),
        _ => false,
    };
    // What is terminated claims nothing: its place may be another's by now. Whoever was there before keeps his place.
    // A ghost neither: see `ghosts`.
    let settled = |resource: &Resource| !gone(resource) && !newcomer(resource) && !resource.unclaimed;
    let leaves = |resource: &Resource| resource.order.as_ref().is_some_and(|order| order.kind == OrderKind::Terminate);
    let (mut claimed, mut leaving) = (BTreeMap::<Place, usize>::new(), BTreeMap::<Place, usize>::new());
    for (resource, place) in resources.iter().zip(&places).filter(|(resource, _)| settled(resource)) {
        if let Ok(place) = place {
            *claimed.entry(place.clone()).or_default() += 1;
            *leaving.entry(place.clone()).or_default() += usize::from(leaves(resource));
        }
    }
    let one = |(resource, place): (&&Resource, Result<Place, NoPlace>)| {
        let place = place.map_err(|error| no_place(resource, &error))?;
        let (settled, newcomer) = (settled(resource), newcomer(resource));
        let claims = claimed.get(&place).copied().unwrap_or_default();
        let leaving = leaving.get(&place).copied().unwrap_or_default();
        // A termination takes away only what bears the resource's own mark, so it needs no place of its own, and keeps none from
        // a resource that has one.
        let shared = if leaves(resource) {
            false
        } else if newcomer {
            claims > 0
        } else {
            claims > leaving + 1
        };
        if (settled || newcomer) && (shared || nested(&place, &claimed, &nodes)) {
            // Ended and ordered anew: the one goes before the other comes.
            if newcomer && leaving > 0 && !nested(&place, &claimed, &nodes) {
                let reason =
                    format!("another resource still has the path {}; its termination is in progress", resource.path);
                return Err(Obstacle::waiting(reason));
            }
            return Err(Obstacle::conflict(format!(
                "the path {} is also the path of another item, or lies above or below one: give the project, customer or \
                 resource a slug of its own in Waldur",
                resource.path
            )));
        }
        if newcomer {
            *claimed.entry(place.clone()).or_default() += 1;
        }
        let leaves = leaves(resource) || gone(resource);
        if !leaves {
            asked_mode(resource)?;
        }
        // What is to go needs neither an owner nor quotas to be found.
        let (uid, gid) =
            if leaves { (site.owner_uid, resource.gid.unwrap_or(site.lowest_id)) } else { owner(resource, site)? };
        let limits = match limits(resource, site.terabyte) {
            Err(_) if leaves => QuotaLimits::least(),
            limits => limits?,
        };
        let above = std::iter::successors(place.parent(), Place::parent);
        let mut parents: Vec<_> = above.map(|above| nodes.get(&above).copied().unwrap_or(COMMON_PARENT)).collect();
        parents.reverse();
        if !leaves {
            site.modes.check(mode(resource), &parents)?;
        }
        Ok(Desired { id: resource.id, place, parents, uid, gid, mode: mode(resource), limits, project: None })
    };
    resources.iter().zip(places).map(one).collect()
}

/// Holds the new resources whose path a ghost has that does have something on the storage: a resource that is Creating in Waldur
/// without an order or a backend ID keeps its path from others only by that.
pub fn ghosts(
    resources: &[&Resource],
    desired: &mut [Result<Desired, Obstacle>],
    observed: &[Result<Observed, String>],
) {
    let has_something =
        |observed: &Result<Observed, String>| !matches!(observed, Ok(Observed::Absent | Observed::Obstructed(_)));
    let ghosts =
        resources.iter().zip(observed).filter(|(resource, observed)| resource.unclaimed && has_something(observed));
    let ghosts: BTreeMap<_, _> = ghosts.map(|(resource, _)| (&*resource.path, resource.id)).collect();
    for (resource, desired) in resources.iter().zip(desired).filter(|(resource, _)| !resource.unclaimed) {
        if let Some(ghost) = ghosts.get(&*resource.path)
            && desired.is_ok()
            && resource.order.as_ref().is_some_and(|order| order.kind == OrderKind::Create)
        {
            *desired = Err(Obstacle::conflict(format!(
                "the path {} is also that of {ghost}, which is Creating in Waldur without an order but has a directory there or in \
                 the trash: look at both, and set the wrong one's state to Terminated in Waldur's administration",
                resource.path
            )));
        }
    }
}

/// Gives what is wanted its project ID: that of the ledger, or the one found on its tree, or a new one. `cases` are all of
/// one system: each resource, what is wanted for it, and what is found.
pub fn number<'a>(
    cases: impl Iterator<Item = (&'a Resource, &'a mut Result<Desired, Obstacle>, &'a Result<Observed, String>)>,
    system: &System,
    ledger: &mut Ledger,
) {
    let Some(ids) = system.site.projects else { return };
    let bears = |observed: &Result<Observed, String>| match observed {
        Ok(Observed::Ours(present)) => present.project.unwrap_or_default(),
        _ => 0,
    };
    let cases: Vec<_> = cases.collect();
    let mut trees = BTreeMap::<u32, usize>::new();
    for (_, _, observed) in &cases {
        *trees.entry(bears(observed)).or_default() += 1;
    }
    let mut new = Vec::new();
    for (resource, judged, observed) in cases {
        let Ok(desired) = judged else { continue };
        if let Some(id) = ledger.known(&system.key, desired.id) {
            desired.project = Some(id);
            continue;
        }
        let found = bears(observed);
        // A number that two trees bear is one's, and nothing tells whose: an owner can change it.
        let is_its_own = trees[&found] == 1 && !ledger.is_anothers(&system.key, desired.id, found);
        if let (ProjectIds::From(first), true) = (ids, is_its_own) {
            ledger.learn(&system.key, desired.id, found, first);
        }
        // What is to go, or gone, gets no new one: it is frozen under the one that it has.
        let leaves = resource.order.as_ref().is_some_and(|order| order.kind == OrderKind::Terminate);
        if let Some(id) = ledger.known(&system.key, desired.id) {
            desired.project = Some(id);
        } else if leaves || resource.unclaimed || resource.status == Status::Removed {
            desired.project = (is_its_own && found != 0).then_some(found);
        } else {
            new.push((judged, observed));
        }
    }
    // After all that is there was learned: none of those numbers is given to another.
    for (judged, observed) in new {
        let Ok(desired) = judged else { continue };
        // A tree that is there is what counts under its GID.
        let is_its_own = ids == ProjectIds::Gid && !matches!(observed, Ok(Observed::Absent));
        let is_free = |id| if is_its_own { Ok(true) } else { system.driver.is_free(id) };
        match ledger.project(&system.key, desired.id, desired.gid, ids, &is_free) {
            Ok(id) => desired.project = Some(id),
            Err(error) => *judged = Err(Obstacle::waiting(error_chain(&error))),
        }
    }
}

/// Whether a place is a node's, or lies above or below another's.
fn nested(place: &Place, claimed: &BTreeMap<Place, usize>, nodes: &BTreeMap<Place, Mode>) -> bool {
    // What is below a place sorts right after it.
    let after = || (Bound::Excluded(place), Bound::Unbounded);
    let below = |next: Option<&Place>| next.is_some_and(|next| place.holds(next));
    nodes.contains_key(place)
        || below(nodes.range(after()).next().map(|(next, _)| next))
        || below(claimed.range(after()).next().map(|(next, _)| next))
        || std::iter::successors(place.parent(), Place::parent).any(|above| claimed.contains_key(&above))
}

/// The obstacle that a path is which is no place on this system. Slugs, the back-end ID and the roots in the settings of both
/// programs make a path: none of them is what an order asks for.
fn no_place(resource: &Resource, error: &NoPlace) -> Obstacle {
    if resource.path.starts_with('/') {
        return Obstacle::person(format!(
            "{error}; check the slugs and backend_id in Waldur, and the roots in the settings"
        ));
    }
    Obstacle::person(format!("backend_id in Waldur ({}) is not a path of this system; clear it there", resource.path))
}

/// Owner and group: those of a real user and project.
fn owner(resource: &Resource, site: &Site) -> Result<(u32, u32), Obstacle> {
    let real = |id: u32| id >= site.lowest_id && id != u32::MAX;
    let reserved = |what: &str, id: u32| {
        let lowest = site.lowest_id;
        Obstacle::person(format!(
            "the {what} {id} is reserved for the system (below `lowest_id`, {lowest}): correct it at its source"
        ))
    };
    let gid = resource
        .gid
        .ok_or_else(|| Obstacle::waiting("the project has no GID yet: the HPC User API does not know it"))?;
    if !real(gid) {
        return Err(reserved("GID", gid));
    }
    let uid = match resource.kind {
        Kind::Project => return Ok((site.owner_uid, gid)),
        Kind::User => resource
            .uid
            .ok_or_else(|| Obstacle::waiting("the user has no UID yet: see `hpc_user_api.user_path` of the proxy"))?,
    };
    if real(uid) { Ok((uid, gid)) } else { Err(reserved("UID", uid)) }
}

/// The order in progress, if it is the provider's turn. What it asks for does not hold while a customer has yet to approve it.
fn due_order(resource: &Resource) -> Option<&Order> {
    resource.order.as_ref().filter(|order| order.state != OrderState::Other)
}

/// The desired mode: that of the order in progress, if it changes the mode.
pub fn mode(resource: &Resource) -> Mode {
    asked_mode(resource).ok().flatten().unwrap_or(resource.mode)
}

/// The mode that the order in progress asks for, if it does.
fn asked_mode(resource: &Resource) -> Result<Option<Mode>, Obstacle> {
    let asked = due_order(resource).and_then(|order| order.new_options.as_ref()?.get("permissions"));
    let Some(asked) = asked.filter(|asked| !asked.is_null()) else { return Ok(None) };
    match asked.as_str() {
        // Waldur's form sends an empty text for an option that is cleared.
        Some(text) if !text.trim().is_empty() => Mode::parse(text).map(Some).ok_or_else(|| {
            Obstacle::impossible(
                "the order asks for permissions that are not three or four octal digits, as in \"2770\"",
            )
        }),
        _ => Err(Obstacle::person(
            "the order's new_options.permissions is empty or not text, so that it is not clear which permissions it asks for: \
             look at the order in Waldur",
        )),
    }
}

/// The desired quotas: those of the order in progress, if it changes them. A number that nobody asked for is an obstacle, never
/// a quota of 0.
fn limits(resource: &Resource, terabyte: Terabyte) -> Result<QuotaLimits, Obstacle> {
    if let Some(problem) = &resource.quota_problem {
        let detail = problem.detail.clone();
        return Err(if !(problem.zero_ordered && asks_for_quotas(resource)) {
            Obstacle::person(detail)
        } else if ordered_quotas(resource).is_some_and(|quotas| quotas.space.iter().all(|space| *space > 0.0)) {
            Obstacle::person(format!(
                "the proxy reports that the order asks for a quota of 0 ({detail}), but publishes other quotas for it: look at \
                 the order in Waldur"
            ))
        } else {
            Obstacle::impossible(format!("the order asks for a quota of 0: {detail}"))
        });
    }
    let quotas = ordered_quotas(resource)
        .or(resource.quotas)
        .ok_or_else(|| Obstacle::person("the document has no quotas for it: look at its limits in Waldur"))?;
    let limits = || {
        let [space_soft, space_hard] = quotas.space.map(|value| round_up(value, terabyte.bytes(), "bytes").map(Bytes));
        let [inodes_soft, inodes_hard] = quotas.inodes.map(|value| round_up(value, 1, "inodes").map(Inodes));
        QuotaLimits::new([space_soft?, space_hard?], [inodes_soft?, inodes_hard?])
    };
    limits().map_err(|error: NoLimits| Obstacle::person(format!("{error}: look at its limits and options in Waldur")))
}

/// The quotas that the order in progress asks for, as published.
fn ordered_quotas(resource: &Resource) -> Option<Quotas> {
    match due_order(resource)?.kind {
        OrderKind::Update => resource.new_quotas,
        OrderKind::Create => resource.quotas,
        _ => None,
    }
}

/// Whether the order in progress is one that sets quotas.
fn asks_for_quotas(resource: &Resource) -> bool {
    due_order(resource).is_some_and(|order| matches!(order.kind, OrderKind::Create | OrderKind::Update))
}

#[cfg(test)]
mod tests;
