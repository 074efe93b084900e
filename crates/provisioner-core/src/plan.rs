//! Plans the work for each resource from its desired and its observed state.

use std::collections::BTreeMap;

use serde::Serialize;
use storage_driver::{Desired, Difference, Observed};
use strum::{IntoStaticStr, VariantArray};
use uuid::Uuid;

use crate::document::Resource;
use crate::last_order::{LastOrder, WaldurRefusal};
use crate::preflight::Obstacle;
use crate::{Observation, Turn};

mod decision;
mod mass;
mod rejection;
mod task;

pub use mass::{Consent, Mass, PASSES_PER_DAY, Recent};
pub use rejection::reject;
pub use task::{Step, Task, TaskAction};

/// A resource with its desired and its observed state.
#[derive(Debug, Clone)]
pub struct Case {
    pub resource: Resource,
    pub desired: Result<Desired, Obstacle>,
    pub observed: Observation,
    /// Whether an earlier pass began work on it and did not finish.
    pub unfinished: bool,
    /// Its most recent order in the journal, if recent enough to be remembered.
    pub last_order: Option<LastOrder>,
}

impl Case {
    /// The call that Waldur refused, if it belongs to the current order or to the completion of the last one.
    pub fn refused(&self) -> Option<&WaldurRefusal> {
        let last = self.last_order.as_ref()?;
        let is_current = match &self.resource.order {
            Some(order) => order.id == last.order,
            None => self.completed_order().is_some(),
        };
        last.refused.as_ref().filter(|_| is_current)
    }

    /// The order that this program completed, if it explains the status of a resource without an order.
    fn completed_order(&self) -> Option<&LastOrder> {
        self.last_order.as_ref().filter(|last| last.explains(self.resource.status))
    }

    /// The fields of the resource's own directory that differ from the document.
    fn differences(&self) -> Vec<Difference> {
        match (&self.observed, &self.desired) {
            (Ok(Observed::Ours(present)), Ok(desired)) => present.differences(desired),
            _ => Vec::new(),
        }
    }
}

/// The settings that limit what is done without an operator.
#[expect(clippy::struct_excessive_bools, reason = "each is a separate setting")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Whether quotas, mode, owner and ACLs of a directory in use are corrected if they differ from the document.
    pub heal: bool,
    /// Whether quotas may shrink below the usage.
    pub shrink_below_usage: bool,
    /// Whether an order that requests something impossible ([`ObstacleKind::Impossible`](crate::preflight::ObstacleKind)) is
    /// rejected before its approval, or set erred after it. Otherwise it is held for an operator (decision D20).
    pub refuse: bool,
    /// Whether a termination is carried out if the directory is neither at its path nor in the trash. Otherwise it is held for an
    /// operator, because the directory may have been moved.
    pub absent_is_gone: bool,
    /// The most tasks of each [`Mass`] kind that one pass performs on a system without confirmation; on large systems it is two
    /// percent of the resources. The limit for 24 hours is [`PASSES_PER_DAY`] times as high.
    pub mass: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { heal: false, shrink_below_usage: false, refuse: false, absent_is_gone: false, mass: 5 }
    }
}

/// What to do and what is held, in the document's order.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Plan {
    /// At most one task for each resource.
    pub tasks: Vec<Task>,
    pub held: Vec<Held>,
}

/// A resource that is held: nothing is done for it in this pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Held {
    /// UUID of the resource; `None` if it cannot be read.
    pub id: Option<Uuid>,
    /// Key of its storage system; empty if it cannot be read.
    pub system: String,
    /// Its path as published; empty if it cannot be read.
    pub path: String,
    pub hold: Hold,
    /// Who has to act.
    pub turn: Turn,
    /// The cause, and what to do about it.
    pub reason: String,
    /// The fields that differ from the document, if that is why it is held.
    pub changes: Vec<Difference>,
}

/// Why a resource is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Hold {
    /// Another party has to act.
    Waiting,
    /// A temporary error; the next pass retries.
    Fault,
    /// In use, but different from the document.
    Drift,
    /// Something else is at the path, or the state in Waldur contradicts the storage. Needs an operator.
    Conflict,
    /// Invalid, or against the rules. Needs an operator.
    Refused,
    /// Exceeds the limit without confirmation. Needs an operator's confirmation.
    Asks,
    /// Waldur refuses a call; retried later.
    Declined,
}

impl Hold {
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The value of `--hold` and of the metric's label.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Plans what to do for these cases.
pub fn plan(cases: &[Case], policy: Policy, consent: Consent<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut directories = BTreeMap::<&str, usize>::new();
    for case in cases {
        let resource = &case.resource;
        // Only existing directories count: terminated resources stay in the list forever.
        let exists = matches!(case.observed, Ok(Observed::Ours(_)));
        *directories.entry(&resource.system).or_default() += usize::from(exists);
        match decision::decide(case, policy) {
            Ok((steps, _)) if steps.is_empty() => {}
            Ok((steps, why)) => plan.tasks.push(Task::new(case, steps, why)),
            Err((hold, turn, reason)) => {
                let (system, path) = (resource.system.clone(), resource.path.clone());
                let changes = if hold == Hold::Drift { case.differences() } else { Vec::new() };
                plan.held.push(Held { id: Some(resource.id), system, path, hold, turn, reason, changes });
            }
        }
    }
    if let Consent::Needed(recent) = consent {
        for (system, count) in directories {
            mass::hold(&mut plan, cases, system, policy.mass.max(count / 50), recent);
        }
    }
    plan
}

#[cfg(test)]
mod tests;
