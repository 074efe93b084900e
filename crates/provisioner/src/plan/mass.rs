//! What must not happen many times without a person's yes: a wrong list at the source, or a wrong file system at the root,
//! must not become a cascade.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Case, Held, Hold, Plan, Step, Task};
use crate::document::Status;
use crate::driver::Observed;

/// What a wrong list at the source, or a wrong file system at the root, would make many of. These ask when they are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mass {
    /// A directory goes away.
    Removal,
    /// A directory is changed for which nobody has ordered anything.
    ChangeWithoutOrder,
    /// An order comes to nothing.
    Refusal,
}

impl Mass {
    const ALL: [Self; 3] = [Self::Removal, Self::ChangeWithoutOrder, Self::Refusal];

    fn name(self) -> &'static str {
        match self {
            Self::Removal => "removals",
            Self::ChangeWithoutOrder => "changes without an order",
            Self::Refusal => "rejections",
        }
    }
}

/// What was begun in the last 24 hours without a person's yes: resources, by system and kind.
pub type Lately = BTreeMap<(String, Mass), BTreeSet<Uuid>>;

/// How many times as much as in one pass goes without asking in 24 hours: a source that is wrong may be so bit by bit.
pub const DAY: usize = 4;

/// Whether a person has said yes to as much as it is.
#[derive(Debug, Clone, Copy)]
pub enum Consent<'a> {
    /// They have seen it and said yes.
    Given,
    /// They have to be asked when it is much, together with what was begun lately.
    Needed(&'a Lately),
}

impl Task {
    /// What it is of which many ask.
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

/// Holds what is too much on a system, where `allowed` of each kind go without asking in one pass.
pub(super) fn hold(plan: &mut Plan, cases: &[Case], system: &str, allowed: usize, lately: &Lately) {
    for mass in Mass::ALL {
        hold_many(plan, system, allowed, mass, lately.get(&(system.to_owned(), mass)));
    }
    hold_on_an_empty_system(plan, system, cases);
}

/// Holds all tasks of a kind on a system when they are more than go without asking, in this pass or together with those that
/// were begun `lately`: a wrong list at the source must not become a cascade.
fn hold_many(plan: &mut Plan, system: &str, allowed: usize, mass: Mass, lately: Option<&BTreeSet<Uuid>>) {
    let concerned = |task: &Task| task.system == system && task.mass() == Some(mass);
    let many = plan.tasks.iter().filter(|task| concerned(task)).count();
    // What was begun goes on: to stop it halfway helps nobody.
    let is_new = |task: &Task| concerned(task) && !lately.is_some_and(|lately| lately.contains(&task.id));
    let new = plan.tasks.iter().filter(|task| is_new(task)).count();
    let in_a_day = new + lately.map_or(0, BTreeSet::len);
    let (what, remedy) = (mass.name(), "look at them with `plan --out FILE`, then `apply FILE --yes-to-many`");
    if many > allowed {
        let reason = format!("{many} {what} on {system} in one pass, where {allowed} go without asking: {remedy}");
        ask(plan, concerned, &reason);
    } else if new > 0 && in_a_day > allowed * DAY {
        let allowed = allowed * DAY;
        let reason =
            format!("{in_a_day} {what} on {system} within 24 hours, where {allowed} go without asking: {remedy}");
        ask(plan, is_new, &reason);
    }
}

/// Holds what would be made, or said to be gone, on a system where nothing is that is in use: another file system may be at its
/// root.
fn hold_on_an_empty_system(plan: &mut Plan, system: &str, cases: &[Case]) {
    let in_use = |case: &&Case| {
        let used = matches!(case.resource.status, Status::Active | Status::Updating | Status::Removing);
        case.resource.system == system && used
    };
    // What cannot be looked for is not seen there.
    let absent = |case: &Case| matches!(case.observed, Ok(Observed::Absent));
    let count = cases.iter().filter(in_use).count();
    if count == 0 || !cases.iter().filter(in_use).all(absent) {
        return;
    }
    let reason = format!(
        "none of the {count} directories in use on {system} is there: is the right file system at its root? If it is, look at \
         what is to be done with `plan --out FILE`, then `apply FILE --yes-to-many`"
    );
    let acts = |step: &Step| matches!(step, Step::Ensure(_) | Step::Gone(_));
    ask(plan, |task| task.system == system && task.steps.iter().any(acts), &reason);
}

/// Holds these tasks until a person says yes.
fn ask(plan: &mut Plan, concerned: impl Fn(&Task) -> bool, reason: &str) {
    let (asked, rest): (Vec<_>, _) = std::mem::take(&mut plan.tasks).into_iter().partition(concerned);
    plan.tasks = rest;
    plan.held.extend(asked.into_iter().map(|task| Held {
        id: Some(task.id),
        system: task.system,
        path: task.path,
        hold: Hold::Asks,
        reason: reason.to_owned(),
        changes: task.changes,
    }));
}
