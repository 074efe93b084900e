//! Limits how much is done without confirmation, so that a wrong list in Waldur or the wrong file system at the root does not
//! cause the removal or change of many directories.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use storage_driver::Observed;
use strum::VariantArray;
use uuid::Uuid;

use super::{Case, Held, Hold, Plan, Step, Task};
use crate::Turn;
use crate::document::Status;

/// A kind of task that needs confirmation if there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, VariantArray)]
#[serde(rename_all = "snake_case")]
pub enum Mass {
    /// Removes a directory.
    Removal,
    /// Changes a directory without an order.
    ChangeWithoutOrder,
    /// Rejects an order or sets it erred.
    Refusal,
}

impl Mass {
    fn name(self) -> &'static str {
        match self {
            Self::Removal => "removals",
            Self::ChangeWithoutOrder => "changes without an order",
            Self::Refusal => "rejections",
        }
    }
}

/// The resources, by system and kind, on which work was begun without confirmation in the last 24 hours.
pub type Recent = BTreeMap<(String, Mass), BTreeSet<Uuid>>;

/// How many times the limit of one pass applies within 24 hours, because a wrong list can cause a few removals in each pass.
pub const PASSES_PER_DAY: usize = 4;

/// Whether an operator has confirmed the amount of work.
#[derive(Debug, Clone, Copy)]
pub enum Consent<'a> {
    /// An operator has reviewed the plan and confirmed it.
    Given,
    /// Large amounts need confirmation, counted together with the recent work.
    Needed(&'a Recent),
}

impl Task {
    /// The kind that this task counts as.
    pub fn mass(&self) -> Option<Mass> {
        let refuses = |step: &Step| matches!(step, Step::Reject(_) | Step::Erred(_));
        if self.removes() {
            Some(Mass::Removal)
        } else if self.order.is_none() {
            Some(Mass::ChangeWithoutOrder)
        } else {
            self.steps.iter().any(refuses).then_some(Mass::Refusal)
        }
    }
}

/// Holds the tasks on a system that need confirmation. `allowed` is the limit of each kind in one pass.
pub(super) fn hold(plan: &mut Plan, cases: &[Case], system: &str, allowed: usize, recent: &Recent) {
    for &mass in Mass::VARIANTS {
        hold_many(plan, system, allowed, mass, recent.get(&(system.to_owned(), mass)));
    }
    hold_on_an_empty_system(plan, system, cases);
}

/// Holds all tasks of a kind on a system if they are more than allowed, in this pass or together with `recent` ones.
fn hold_many(plan: &mut Plan, system: &str, allowed: usize, mass: Mass, recent: Option<&BTreeSet<Uuid>>) {
    let applies = |task: &Task| task.system == system && task.mass() == Some(mass);
    let many = plan.tasks.iter().filter(|task| applies(task)).count();
    // Begun work continues, because stopping it halfway has no benefit.
    let is_new = |task: &Task| applies(task) && !recent.is_some_and(|recent| recent.contains(&task.id));
    let new = plan.tasks.iter().filter(|task| is_new(task)).count();
    let (in_a_day, allowed_in_a_day) = (new + recent.map_or(0, BTreeSet::len), allowed * PASSES_PER_DAY);
    let reason = |count, when, allowed| {
        format!(
            "{count} {} on {system} {when}, more than the {allowed} that are allowed without confirmation: review them with \
             `plan --out FILE`, then run `apply FILE --yes-to-many`",
            mass.name()
        )
    };
    if many > allowed {
        hold_for_confirmation(plan, applies, &reason(many, "in one pass", allowed));
    } else if new > 0 && in_a_day > allowed_in_a_day {
        hold_for_confirmation(plan, is_new, &reason(in_a_day, "within 24 hours", allowed_in_a_day));
    }
}

/// Holds tasks that would create directories, or report missing ones as removed, on a system where no directory in use exists:
/// another file system may be mounted at its root.
fn hold_on_an_empty_system(plan: &mut Plan, system: &str, cases: &[Case]) {
    let in_use = |case: &&Case| {
        let used = matches!(case.resource.status, Status::Active | Status::Updating | Status::Removing);
        case.resource.system == system && used
    };
    // A resource with an obstacle is not observed and counts as absent.
    let absent = |case: &Case| matches!(case.observed, Ok(Observed::Absent));
    let count = cases.iter().filter(in_use).count();
    if count == 0 || !cases.iter().filter(in_use).all(absent) {
        return;
    }
    let reason = format!(
        "none of the {count} directories in use on {system} exists: check that the right file system is mounted at its root. If \
         it is, review the plan with `plan --out FILE`, then run `apply FILE --yes-to-many`"
    );
    let acts = |step: &Step| matches!(step, Step::Ensure(_) | Step::Gone(_));
    hold_for_confirmation(plan, |task| task.system == system && task.steps.iter().any(acts), &reason);
}

/// Holds these tasks until an operator confirms them.
fn hold_for_confirmation(plan: &mut Plan, applies: impl Fn(&Task) -> bool, reason: &str) {
    let (to_confirm, rest): (Vec<_>, _) = std::mem::take(&mut plan.tasks).into_iter().partition(applies);
    plan.tasks = rest;
    plan.held.extend(to_confirm.into_iter().map(|task| Held {
        id: Some(task.id),
        system: task.system,
        path: task.path,
        hold: Hold::Asks,
        turn: Turn::Operator,
        reason: reason.to_owned(),
        changes: task.changes,
    }));
}
