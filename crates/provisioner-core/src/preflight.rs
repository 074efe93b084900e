//! Computes the desired state of each directory, or the obstacle to it, before the storage is changed.

use storage_driver::limits::{QuotaLimits, Terabyte};
use storage_driver::place::{InvalidPlace, Place};
use storage_driver::{Desired, Mode};

use crate::Turn;
use crate::document::{Document, Kind, Order, OrderKind, OrderState, Resource};

mod modes;
mod paths;
mod quotas;

pub use modes::Modes;
pub use paths::hold_paths_of_unclaimed;

/// Mode of directories above a resource that belong to no tenant or customer.
const COMMON_PARENT: Mode = Mode(0o755);

/// The settings of a storage system that preflight needs.
#[derive(Debug, Clone)]
pub struct SystemRules {
    /// Root of the system in published paths, for example `/capstor`.
    pub published_root: String,
    /// Size of a TB.
    pub terabyte: Terabyte,
    /// Owner of projects' directories.
    pub owner_uid: u32,
    /// The lowest GID and UID of a real project or user; lower ones are reserved for the system.
    pub lowest_id: u32,
    /// Accepted modes.
    pub modes: Modes,
}

/// The desired state of a directory that has no project ID yet. It can be observed, but not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnumbered(Desired);

impl Unnumbered {
    /// For [`Driver::observe`](storage_driver::Driver::observe), which does not use the project ID.
    pub fn to_observe(&self) -> &Desired {
        &self.0
    }

    /// Converts the quotas to those that the system stores.
    #[must_use]
    pub fn map_limits(mut self, stored: impl FnOnce(QuotaLimits) -> QuotaLimits) -> Self {
        self.0.limits = stored(self.0.limits);
        self
    }

    /// Adds the project ID; `None` on systems without project IDs, and for a directory that is neither created nor changed and has none.
    pub fn with_project(self, project: Option<u32>) -> Desired {
        Desired { project, ..self.0 }
    }
}

/// Why there is no desired state for a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub kind: ObstacleKind,
    /// Who has to act.
    pub turn: Turn,
    /// What is wrong and what to do about it.
    pub reason: String,
}

/// Who removes an obstacle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstacleKind {
    /// Another party, without action by an operator.
    Waiting,
    /// An operator, with a change in Waldur, in the proxy or in the settings.
    NeedsOperator,
    /// An operator, because two resources have the same path.
    Conflict,
    /// Nobody: the order itself requests something impossible. Only such an order may be rejected, and only with
    /// `policy.refuse` (decision D20).
    Impossible,
}

impl Obstacle {
    pub fn waiting(turn: Turn, reason: impl Into<String>) -> Self {
        Self { kind: ObstacleKind::Waiting, turn, reason: reason.into() }
    }

    fn needs_operator(reason: impl Into<String>) -> Self {
        Self { kind: ObstacleKind::NeedsOperator, turn: Turn::Operator, reason: reason.into() }
    }

    fn conflict(reason: impl Into<String>) -> Self {
        Self { kind: ObstacleKind::Conflict, turn: Turn::Provider, reason: reason.into() }
    }

    fn impossible(reason: impl Into<String>) -> Self {
        Self { kind: ObstacleKind::Impossible, turn: Turn::Operator, reason: reason.into() }
    }
}

/// Computes the desired state of each resource. All resources must belong to `system`. `is_terminated` returns whether this
/// program carried out the termination of a resource, according to the journal.
pub fn check(
    resources: &[&Resource],
    document: &Document,
    system: &str,
    rules: &SystemRules,
    is_terminated: &dyn Fn(&Resource) -> bool,
) -> Vec<Result<Unnumbered, Obstacle>> {
    let mut paths = paths::Paths::new(resources, document, system, &rules.published_root, is_terminated);
    let check = |resource: &&Resource| {
        let place = Place::parse(&resource.path, &rules.published_root).map_err(|error| bad_path(resource, &error))?;
        paths.claim(resource, &place)?;
        let removal = is_being_terminated(resource) || paths.is_terminated(resource);
        let parents = paths.modes_above(&place);
        desired(resource, place, parents, rules, removal)
    };
    resources.iter().map(check).collect()
}

/// `removal`: whether the directory is to be removed. Then owner, quotas and modes may be missing or invalid.
fn desired(
    resource: &Resource,
    place: Place,
    parents: Vec<Mode>,
    rules: &SystemRules,
    removal: bool,
) -> Result<Unnumbered, Obstacle> {
    if !removal {
        modes::ordered(resource)?;
    }
    let (uid, gid) =
        if removal { (rules.owner_uid, resource.gid.unwrap_or(rules.lowest_id)) } else { owner(resource, rules)? };
    let limits = match quotas::limits(resource, rules.terabyte) {
        Err(_) if removal => QuotaLimits::minimum(),
        limits => limits?,
    };
    let mode = desired_mode(resource);
    if !removal {
        rules.modes.check(mode, &parents)?;
    }
    Ok(Unnumbered(Desired { id: resource.id, place, parents, uid, gid, mode, limits, project: None }))
}

/// The desired mode of a directory, including the change that a due order requests.
pub fn desired_mode(resource: &Resource) -> Mode {
    modes::ordered(resource).ok().flatten().unwrap_or(resource.mode)
}

/// Whether an order terminates the resource, and waits for nobody but this program or Waldur. Until then the resource is in use.
pub fn is_being_terminated(resource: &Resource) -> bool {
    due_order(resource).is_some_and(|order| order.kind == OrderKind::Terminate)
}

/// The order in progress, unless it waits for another party: until then its changes do not apply.
fn due_order(resource: &Resource) -> Option<&Order> {
    resource.order.as_ref().filter(|order| order.state != OrderState::Other)
}

/// The obstacle for a path that cannot be used on this system. The path depends on slugs, the backend ID and the roots in the
/// settings of both programs, never on an order.
fn bad_path(resource: &Resource, error: &InvalidPlace) -> Obstacle {
    if resource.path.starts_with('/') {
        return Obstacle::needs_operator(format!(
            "{error}; check the slugs and backend_id in Waldur, and the roots in the settings"
        ));
    }
    Obstacle::needs_operator(format!(
        "backend_id in Waldur ({}) is not a path of this system; clear it there",
        resource.path
    ))
}

/// Owner and group, which must not be reserved for the system.
fn owner(resource: &Resource, rules: &SystemRules) -> Result<(u32, u32), Obstacle> {
    let check_id = |what: &str, id: u32| {
        let lowest = rules.lowest_id;
        if id >= lowest && id != u32::MAX {
            return Ok(id);
        }
        Err(Obstacle::needs_operator(format!(
            "the {what} {id} is reserved for the system (below `lowest_id`, {lowest}): correct it at its source"
        )))
    };
    let gid = resource.gid.ok_or_else(|| {
        Obstacle::waiting(Turn::Identity, "the project has no GID yet: the HPC User API does not know it")
    })?;
    let gid = check_id("GID", gid)?;
    match resource.kind {
        Kind::Project => Ok((rules.owner_uid, gid)),
        Kind::User => {
            let missing = "the user has no UID yet: check `hpc_user_api.user_path` of the proxy";
            Ok((check_id("UID", resource.uid.ok_or_else(|| Obstacle::waiting(Turn::Identity, missing))?)?, gid))
        }
    }
}

#[cfg(test)]
mod tests;
