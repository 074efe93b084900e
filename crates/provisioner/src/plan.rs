//! What is to be done, and why: pure, from the document and from what is found on the storage.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::document::{Offering, Order, OrderKind, OrderState, Resource, Status};
use crate::driver::{Desired, Difference, Observed, Present};
use crate::preflight::{Obstacle, ObstacleKind};

mod last_order;
mod mass;

pub use last_order::{ACCEPTED, LastOrder, SENT, SET_STATE_OK, WaldurRefusal};
pub use mass::{Consent, DAY, Lately, Mass};

/// A resource, what is wanted for it, and what is found.
#[derive(Debug, Clone)]
pub struct Case {
    /// As published.
    pub resource: Resource,
    /// The directory's desired state, or why there is none.
    pub desired: Result<Desired, Obstacle>,
    /// What is found; an error text where it could not be read.
    pub observed: Result<Observed, String>,
    /// Whether work on it was begun in an earlier pass and not brought to its end.
    pub unfinished: bool,
    /// Its newest order in the journal, if something was done for one lately.
    pub last_order: Option<LastOrder>,
}

impl Case {
    /// What Waldur refuses of what is to be done for it now.
    pub fn refused(&self) -> Option<&WaldurRefusal> {
        let last = self.last_order.as_ref()?;
        let is_current = match &self.resource.order {
            Some(order) => order.id == last.order,
            None => ended_here(self).is_some(),
        };
        last.refused.as_ref().filter(|_| is_current)
    }
}

/// What the site allows.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Whether quotas, mode, owner and ACLs of a directory in use are put right when they differ from the document.
    pub heal: bool,
    /// Whether quotas may shrink below what is used.
    pub shrink_below_usage: bool,
    /// Whether an order that literally asks for something impossible ([`ObstacleKind::Impossible`]) is rejected (before
    /// approval) or set erred (after it). Otherwise it is held for a person, like all others (decision D20).
    pub refuse: bool,
    /// Whether the termination of a resource whose directory is neither at its place nor in the trash is carried out.
    /// Otherwise a person looks first: it may have been moved away.
    pub absent_is_gone: bool,
    /// How many of each kind of [`Mass`] one pass may have on a system without asking: this number or two in a hundred of
    /// the system's resources, whichever is more. In 24 hours [`DAY`] times as many.
    pub mass: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { heal: false, shrink_below_usage: false, refuse: false, absent_is_gone: false, mass: 5 }
    }
}

/// What is to be done, in the document's order, and what is held.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Plan {
    /// What is to be done; each task is for one resource.
    pub tasks: Vec<Task>,
    /// What waits, and for what.
    pub held: Vec<Held>,
}

/// All that is to be done for one resource, in this order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// UUID of the resource.
    pub id: Uuid,
    /// Key of its storage system.
    pub system: String,
    /// Its path as published.
    pub path: String,
    /// Why it is done.
    pub why: String,
    /// The order that it is done for.
    pub order: Option<Uuid>,
    /// What it comes to.
    pub action: TaskAction,
    /// The values that change, of a directory that is there.
    pub changes: Vec<Difference>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// What a task comes to, for people and for filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskAction {
    /// A directory is made.
    Create,
    /// Nothing but quotas of a directory change.
    Resize,
    /// Other values of a directory change.
    Change,
    /// A directory comes back from the trash.
    Restore,
    /// A directory is moved to the trash.
    Trash,
    /// A directory that is not there is taken for gone.
    Gone,
    /// Nothing changes on the storage: Waldur is notified.
    Report,
    /// The order is rejected.
    Reject,
    /// The order is set erred.
    Fail,
}

impl TaskAction {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Resize,
        Self::Change,
        Self::Restore,
        Self::Trash,
        Self::Gone,
        Self::Report,
        Self::Reject,
        Self::Fail,
    ];

    /// Its name, as in `--action`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Resize => "resize",
            Self::Change => "change",
            Self::Restore => "restore",
            Self::Trash => "trash",
            Self::Gone => "gone",
            Self::Report => "report",
            Self::Reject => "reject",
            Self::Fail => "fail",
        }
    }

    /// What has been done.
    pub fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Resize => "resized",
            Self::Change => "changed",
            Self::Restore => "restored from trash",
            Self::Trash => "moved to trash",
            Self::Gone => "taken for gone",
            Self::Report => "reported to Waldur",
            Self::Reject => "rejected",
            Self::Fail => "set erred",
        }
    }

    fn of(steps: &[Step], changes: &[Difference]) -> Self {
        let one = |step: &Step| match step {
            Step::Ensure(_) if changes.is_empty() => Some(Self::Create),
            Step::Ensure(_) if changes.iter().all(|it| matches!(it, Difference::Quota { .. })) => Some(Self::Resize),
            Step::Ensure(_) | Step::Adopt(_) => Some(Self::Change),
            Step::Restore(_) => Some(Self::Restore),
            Step::Retire(_) => Some(Self::Trash),
            Step::Gone(_) => Some(Self::Gone),
            Step::Reject(_) => Some(Self::Reject),
            Step::Erred(_) => Some(Self::Fail),
            Step::Approve | Step::SetBackendId | Step::Done | Step::SetStateOk => None,
        };
        steps.iter().find_map(one).unwrap_or(Self::Report)
    }
}

/// One step of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Accept the order. Where that leads to executing, what follows waits until the document says so.
    Approve,
    /// Refuse the order.
    Reject(String),
    /// Bring the directory back from the trash, and make it as wanted.
    Restore(Desired),
    /// Set the resource's mark on the directory, and change nothing else of it.
    Adopt(Desired),
    /// Make the directory, or make it as wanted.
    Ensure(Desired),
    /// Freeze the directory and put it into the trash.
    Retire(Desired),
    /// See that there is no directory, and take it for gone (`policy.absent_is_gone`).
    Gone(Desired),
    /// Tell Waldur the path.
    SetBackendId,
    /// Say that the order is carried out.
    Done,
    /// Say that the order failed for good.
    Erred(String),
    /// Say that the resource is in use, where Waldur shows it as changing without an order.
    SetStateOk,
}

impl Step {
    /// Its name, for people and for numbers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject(_) => "reject",
            Self::Restore(_) => "restore",
            Self::Ensure(_) => "ensure",
            Self::Adopt(_) => "adopt",
            Self::Retire(_) => "retire",
            Self::Gone(_) => "gone",
            Self::SetBackendId => "set_backend_id",
            Self::Done => "done",
            Self::Erred(_) => "erred",
            Self::SetStateOk => "set_state_ok",
        }
    }

    /// The names of all calls to Waldur.
    pub const CALLS: [&'static str; 6] = [
        "approve_by_provider",
        "reject_by_provider",
        "set_backend_id",
        "set_state_done",
        "set_state_erred",
        SET_STATE_OK,
    ];

    /// The name of its call to Waldur; `None` for a step on the storage.
    pub fn call(&self) -> Option<&'static str> {
        match self {
            Self::Approve => Some("approve_by_provider"),
            Self::Reject(_) => Some("reject_by_provider"),
            Self::SetBackendId => Some("set_backend_id"),
            Self::Done => Some("set_state_done"),
            Self::Erred(_) => Some("set_state_erred"),
            Self::SetStateOk => Some(SET_STATE_OK),
            Self::Restore(_) | Self::Ensure(_) | Self::Adopt(_) | Self::Retire(_) | Self::Gone(_) => None,
        }
    }
}

/// A resource for which nothing is done now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Held {
    /// UUID of the resource.
    pub id: Option<Uuid>,
    /// Key of its storage system; empty where it cannot be read.
    pub system: String,
    /// Its path as published; empty where it cannot be read.
    pub path: String,
    /// What kind of obstacle it is.
    pub hold: Hold,
    /// What it waits for, and what to do about it.
    pub reason: String,
    /// The values of its directory that differ from the document, where that is what holds it.
    pub changes: Vec<Difference>,
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Somebody else's turn: it will move by itself.
    Waiting,
    /// A passing fault: tried again in the next pass.
    Fault,
    /// In use, but not as the document says.
    Drift,
    /// Something is in the way. For a person.
    Conflict,
    /// Not understood, or against the rules. For a person.
    Refused,
    /// So much at once that a person must say yes.
    Asks,
    /// Waldur refuses a call that it needs: tried again after a while.
    Declined,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Fault, Self::Drift, Self::Conflict, Self::Refused, Self::Asks, Self::Declined];

    /// Its name, as in `--hold`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fault => "fault",
            Self::Drift => "drift",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Asks => "asks",
            Self::Declined => "declined",
        }
    }
}

/// Why nothing is done for a directory that a purge has claimed.
const PURGING: &str = "its directory is being deleted for good by `purge`, or was when that was killed, and what is left of it \
                       cannot be brought back; let `purge` end, then make an empty one: `restore PATH --make`";

/// What becomes of one case.
enum Outcome {
    /// All is as it should be.
    Settled,
    Do(Vec<Step>, String),
    Hold(Hold, String),
}

/// The plan for these cases.
pub fn plan(cases: &[Case], policy: Policy, consent: Consent<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut population = BTreeMap::<&str, usize>::new();
    for case in cases {
        let resource = &case.resource;
        // What is terminated stays in the list for ever; what is there is what can be lost.
        *population.entry(&resource.system).or_default() += usize::from(matches!(case.observed, Ok(Observed::Ours(_))));
        let (system, path) = (resource.system.clone(), resource.path.clone());
        match unless_declined(case, outcome(case, policy)) {
            Outcome::Settled => {}
            Outcome::Do(steps, why) => {
                let order = resource.order.as_ref().map(|order| order.id);
                let ensures = steps.iter().any(|step| matches!(step, Step::Ensure(_)));
                let changes = if ensures { changes(case) } else { Vec::new() };
                let action = TaskAction::of(&steps, &changes);
                plan.tasks.push(Task { id: resource.id, system, path, why, order, action, changes, steps });
            }
            Outcome::Hold(hold, reason) => {
                let changes = if hold == Hold::Drift { changes(case) } else { Vec::new() };
                plan.held.push(Held { id: Some(resource.id), system, path, hold, reason, changes });
            }
        }
    }
    if let Consent::Needed(lately) = consent {
        for (system, count) in population {
            mass::hold(&mut plan, cases, system, policy.mass.max(count / 50), lately);
        }
    }
    plan
}

impl Task {
    /// The task of a person's command: one step, without an order.
    pub fn manual(case: &Case, step: Step) -> Self {
        let Resource { id, system, path, .. } = case.resource.clone();
        let action = TaskAction::of(std::slice::from_ref(&step), &[]);
        let why = "a person's decision".to_owned();
        Self { id, system, path, why, order: None, action, changes: Vec::new(), steps: vec![step] }
    }

    /// Whether a directory goes away by it, or is said to be gone.
    pub fn removes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Retire(_) | Step::Gone(_)))
    }

    /// Whether it waits, after its first step, for Waldur to say that the order is executing.
    pub fn approves_first(&self) -> bool {
        self.steps.len() > 1 && self.steps[0] == Step::Approve
    }
}

/// The values of a directory of ours that differ from the document.
fn changes(case: &Case) -> Vec<Difference> {
    match (&case.observed, &case.desired) {
        (Ok(Observed::Ours(present)), Ok(desired)) => present.differences(desired),
        _ => Vec::new(),
    }
}

/// The same outcome, unless it needs a call that Waldur refused so lately that it is too early to try again.
fn unless_declined(case: &Case, outcome: Outcome) -> Outcome {
    let Outcome::Do(steps, _) = &outcome else { return outcome };
    let refused = case
        .refused()
        .filter(|refused| refused.backs_off && steps.iter().any(|step| step.call() == Some(&*refused.call)));
    match refused {
        None => outcome,
        Some(refused) if refused.call == SET_STATE_OK => hold(Hold::Conflict, set_ok_in_waldur(case, &refused.reason)),
        Some(refused) => hold(Hold::Declined, refused.to_string()),
    }
}

fn outcome(case: &Case, policy: Policy) -> Outcome {
    let observed = match &case.observed {
        Ok(observed) => observed,
        Err(fault) => return hold(Hold::Fault, format!("the storage cannot be read: {fault}")),
    };
    let Some(order) = &case.resource.order else { return without_order(case, observed, policy) };
    if order.state == OrderState::Other {
        return hold(Hold::Waiting, "its order waits for another party's approval in Waldur");
    }
    match (order.offering, order.kind) {
        (Offering::Other, _) => hold(
            Hold::Refused,
            "its offering is neither of the type Marketplace.Slurm nor Marketplace.Basic: how its orders end is not known",
        ),
        (_, OrderKind::Other) => hold(Hold::Refused, "its order is of an unknown type: handle it in Waldur"),
        (Offering::Basic, _) if order.state == OrderState::Executing => {
            hold(Hold::Waiting, "its order was approved, and Waldur carries it out by itself")
        }
        _ if contradicts(order.kind, case.resource.status) => hold(
            Hold::Refused,
            format!(
                "its {:?} order and its status {:?} contradict each other: look at it in Waldur",
                order.kind, case.resource.status
            ),
        ),
        (_, OrderKind::Terminate) => terminate(case, order, observed, policy),
        (_, OrderKind::Create | OrderKind::Update | OrderKind::Restore) => make(case, order, observed, policy),
    }
}

/// Whether no Waldur has such an order of a resource in this state. Older ones announce an order in the resource's state
/// only when it is approved.
fn contradicts(kind: OrderKind, status: Status) -> bool {
    let fits: &[Status] = match kind {
        OrderKind::Create | OrderKind::Restore => &[Status::Pending],
        OrderKind::Update => &[Status::Updating, Status::Active],
        OrderKind::Terminate => &[Status::Removing, Status::Active, Status::Error],
        OrderKind::Other => &[],
    };
    !fits.contains(&status)
}

/// A resource that nobody has ordered anything for.
fn without_order(case: &Case, observed: &Observed, policy: Policy) -> Outcome {
    match case.resource.status {
        Status::Pending | Status::Updating | Status::Removing => in_transition(case, observed, policy),
        Status::Error => hold(Hold::Refused, "it is erred in Waldur: set it right there"),
        // Only an order removes. The trash is where it belongs.
        Status::Removed => match (observed, &case.desired) {
            // With Basic, approval comes first; what was broken off after it goes on here.
            (Observed::Ours(_), Ok(desired)) if case.unfinished && ended_here(case).is_some() => {
                let why = "its termination was approved here, and Waldur shows it as terminated".into();
                Outcome::Do(vec![Step::Retire(desired.clone())], why)
            }
            (Observed::Ours(_), _) => hold(
                Hold::Conflict,
                format!(
                    "terminated in Waldur without an order that was carried out here: `retire {}` puts the directory into the \
                     trash",
                    case.resource.id
                ),
            ),
            _ => Outcome::Settled,
        },
        Status::Active => in_use(case, observed, policy, None),
    }
}

/// The order that was ended here and that the status still shows as in progress, or for a terminated resource as the last.
fn ended_here(case: &Case) -> Option<&LastOrder> {
    case.last_order.as_ref().filter(|last| last.explains(case.resource.status))
}

/// A resource that Waldur shows as changing, without an order. Nobody will change that by himself: its order was deleted, or
/// Waldur's worker set the state late, after the order had been ended here.
fn in_transition(case: &Case, observed: &Observed, policy: Policy) -> Outcome {
    let (resource, status) = (&case.resource, case.resource.status);
    // A termination whose directory is still there was not carried out: its order was withdrawn before its approval arrived.
    let carried_out = |_: &&LastOrder| status != Status::Removing || !matches!(observed, Observed::Ours(_));
    let Some(last) = ended_here(case).filter(carried_out) else {
        if resource.unclaimed && !matches!(observed, Observed::Ours(_) | Observed::Trashed { .. }) {
            return hold(
                Hold::Conflict,
                "a ghost: Creating in Waldur without an order, a backend_id or a directory, because its order was deleted before \
                 it was carried out. It does not keep its path from others. Users cannot terminate what is Creating: set its state to \
                 Terminated in Waldur's administration",
            );
        }
        return hold(
            Hold::Conflict,
            format!(
                "{} in Waldur, but no order of it is in progress: look at its orders in Waldur, and set its state to what \
                 they came to",
                waldur_state(status)
            ),
        );
    };
    if status == Status::Removing {
        return hold(
            Hold::Conflict,
            format!(
                "its termination (order {}) was carried out here, but Waldur shows it as Terminating without an order: set \
                 its state to Terminated in Waldur's administration; its directory is in the trash already",
                last.order
            ),
        );
    }
    if resource.links.ok.is_none() {
        return hold(Hold::Conflict, set_ok_in_waldur(case, "the document has no link for it"));
    }
    in_use(case, observed, policy, Some(Step::SetStateOk))
}

/// What a person does where Waldur cannot be told that a resource is in use.
fn set_ok_in_waldur(case: &Case, reason: &str) -> String {
    let order = case.last_order.as_ref().map(|last| format!(" (order {})", last.order)).unwrap_or_default();
    format!(
        "what was ordered for it is done{order}, but Waldur shows it as {} without an order, and refuses set_state_ok \
         ({reason}): set its state to OK in Waldur's administration",
        waldur_state(case.resource.status)
    )
}

/// The state of a resource as Waldur spells it.
fn waldur_state(status: Status) -> &'static str {
    match status {
        Status::Pending => "Creating",
        Status::Active => "OK",
        Status::Updating => "Updating",
        Status::Removing => "Terminating",
        Status::Removed => "Terminated",
        Status::Error => "Erred",
    }
}

/// A resource that is in use; `last`: the step that ends what is done for it.
fn in_use(case: &Case, observed: &Observed, policy: Policy, last: Option<Step>) -> Outcome {
    let desired = match &case.desired {
        Ok(desired) => desired,
        Err(obstacle) => return held_back(obstacle),
    };
    let with_last = |step| std::iter::once(step).chain(last.clone()).collect();
    match observed {
        Observed::Ours(present) => {
            let differences = present.differences(desired);
            if differences.is_empty() {
                let why = || "done here, but Waldur shows it as changing without an order".to_owned();
                return last.map_or(Outcome::Settled, |last| Outcome::Do(vec![last], why()));
            }
            if let Some(reason) = shrinks(present, desired, policy) {
                return hold(Hold::Drift, reason);
            }
            // What an approved order of ours left half done is no drift: Waldur has it as done.
            if policy.heal || case.unfinished {
                let why = format!("{} differ{} from the document", list(&differences), plural(&differences));
                return Outcome::Do(with_last(Step::Ensure(desired.clone())), why);
            }
            hold(
                Hold::Drift,
                format!(
                    "{} differ{} from the document; `drift.heal` puts it right",
                    list(&differences),
                    plural(&differences)
                ),
            )
        }
        Observed::Trashed { .. } => Outcome::Do(
            with_last(Step::Restore(desired.clone())),
            "in use in Waldur, but in the trash: its termination was not carried through".into(),
        ),
        Observed::Purging { .. } => hold(Hold::Conflict, PURGING),
        Observed::Absent => {
            hold(Hold::Drift, "in use in Waldur, but there is no directory: make it by `restore PATH --make`")
        }
        Observed::Unmarked(_) => {
            hold(Hold::Conflict, "its directory has no mark of ours: `adopt` it if it is the right one")
        }
        Observed::Obstructed(what) => hold(Hold::Conflict, what.clone()),
    }
}

/// An order that makes or changes a directory, pending-provider or executing.
fn make(case: &Case, order: &Order, observed: &Observed, policy: Policy) -> Outcome {
    let desired = match &case.desired {
        Ok(desired) => desired,
        Err(obstacle) => return obstructed(obstacle, order, case.unfinished, policy),
    };
    let creates = order.kind == OrderKind::Create;
    let mut work = match observed {
        Observed::Absent if creates => vec![Step::Ensure(desired.clone())],
        Observed::Absent if order.kind == OrderKind::Restore => {
            return hold(
                Hold::Conflict,
                "to be brought back, but its directory is not in the trash: if nobody has it any more, `reject` the order, \
                 and have a new resource ordered",
            );
        }
        Observed::Absent => {
            return hold(
                Hold::Drift,
                "its quotas are to change, but there is no directory: make it by `restore PATH --make`",
            );
        }
        Observed::Trashed { .. } => vec![Step::Restore(desired.clone())],
        Observed::Purging { .. } => return hold(Hold::Conflict, PURGING),
        Observed::Ours(present) => {
            if let Some(reason) = shrinks(present, desired, policy) {
                return hold(Hold::Refused, reason);
            }
            // Also where nothing differs: verified is what was read back after the order.
            if present.differences(desired).is_empty() { Vec::new() } else { vec![Step::Ensure(desired.clone())] }
        }
        Observed::Unmarked(_) => {
            return hold(
                Hold::Conflict,
                "a directory that is not ours is at its place: `adopt` it if it is the right one",
            );
        }
        Observed::Obstructed(what) => return hold(Hold::Conflict, what.clone()),
    };
    work.push(Step::SetBackendId);
    let why = format!("{:?} order {}", order.kind, state(order));
    Outcome::Do(around(work, order), why)
}

/// An order that ends a resource. `removing` alone touches nothing: only this does.
fn terminate(case: &Case, order: &Order, observed: &Observed, policy: Policy) -> Outcome {
    let desired = match &case.desired {
        Ok(desired) => desired,
        Err(obstacle) => return held_back(obstacle),
    };
    let work = match observed {
        Observed::Ours(_) => vec![Step::Retire(desired.clone())],
        Observed::Trashed { .. } | Observed::Purging { .. } => Vec::new(),
        Observed::Absent if policy.absent_is_gone => vec![Step::Gone(desired.clone())],
        Observed::Absent => {
            return hold(
                Hold::Conflict,
                "to be removed, but there is no directory at its place: if it was not moved away, approve its order and set it \
                 done in Waldur, or set `policy.absent_is_gone`",
            );
        }
        Observed::Unmarked(_) => {
            return hold(
                Hold::Conflict,
                "the directory to be removed has no mark of ours: `adopt` it first if it is the right one",
            );
        }
        Observed::Obstructed(what) => {
            return hold(
                Hold::Conflict,
                format!(
                    "to be removed, but {what}: if nothing of it is anywhere else, approve its order and set it done in Waldur"
                ),
            );
        }
    };
    Outcome::Do(around(work, order), format!("Terminate order {}", state(order)))
}

/// The work with what Waldur is told before and after it.
fn around(mut work: Vec<Step>, order: &Order) -> Vec<Step> {
    match (order.offering, order.state) {
        // Approval ends the order. Nobody is cut off before Waldur has accepted that (see `pass::work`).
        (Offering::Basic, _) if matches!(work[..], [Step::Retire(_)]) => work.insert(0, Step::Approve),
        // Approval ends the order: what is ordered is there by then.
        (Offering::Basic, _) => work.push(Step::Approve),
        (_, OrderState::PendingProvider) => {
            work.insert(0, Step::Approve);
            work.push(Step::Done);
        }
        _ => work.push(Step::Done),
    }
    work
}

/// An order that there is an obstacle to.
fn obstructed(obstacle: &Obstacle, order: &Order, begun: bool, policy: Policy) -> Outcome {
    if obstacle.kind != ObstacleKind::Impossible || !policy.refuse {
        return held_back(obstacle);
    }
    let why = format!("{:?} order {} cannot be carried out: {}", order.kind, state(order), obstacle.reason);
    Outcome::Do(refusal(order, begun, &obstacle.reason), why)
}

/// The steps that end an order without carrying it out. `begun`: something may exist on the storage.
fn refusal(order: &Order, begun: bool, reason: &str) -> Vec<Step> {
    match order.state {
        OrderState::PendingProvider => vec![Step::Reject(reason.to_owned())],
        // Without a back-end ID, Waldur takes the resource of a failed Create for gone.
        _ if begun => vec![Step::SetBackendId, Step::Erred(reason.to_owned())],
        _ => vec![Step::Erred(reason.to_owned())],
    }
}

/// The task by which a person ends the order of a resource without carrying it out; why there is none.
pub fn reject(case: &Case, reason: &str) -> Result<Task, String> {
    let Resource { id, system, path, .. } = &case.resource;
    let Some(order) = &case.resource.order else { return Err("it has no order in progress".to_owned()) };
    if order.state == OrderState::Other {
        return Err("its order does not wait for the provider: only Waldur's users can end it".to_owned());
    }
    if order.offering == Offering::Basic && order.state == OrderState::Executing {
        return Err("its order was approved, and Waldur completes it by itself".to_owned());
    }
    // Where there is no desired state, the storage was not looked at.
    let begun = case.unfinished || case.desired.is_err() || !matches!(case.observed, Ok(Observed::Absent));
    let steps = refusal(order, begun, reason);
    let (system, path) = (system.clone(), path.clone());
    let (order, why) = (Some(order.id), format!("rejected: {reason}"));
    let (action, changes) = (TaskAction::of(&steps, &[]), Vec::new());
    Ok(Task { id: *id, system, path, why, order, action, changes, steps })
}

/// Why a shrink is held.
fn shrinks(present: &Present, desired: &Desired, policy: Policy) -> Option<String> {
    let (usage, limits) = (present.usage?, present.limits?);
    let below = desired.limits.shrink(&limits) && desired.limits.are_below(usage);
    (below && !policy.shrink_below_usage).then(|| {
        format!(
            "its quotas would shrink below what is used ({} bytes, {} inodes): free space first, or allow it by \
             `policy.shrink_below_usage`",
            usage.space.0, usage.inodes.0
        )
    })
}

fn hold(hold: Hold, reason: impl Into<String>) -> Outcome {
    Outcome::Hold(hold, reason.into())
}

fn held_back(Obstacle { kind, reason }: &Obstacle) -> Outcome {
    let why = match kind {
        ObstacleKind::Waiting => Hold::Waiting,
        ObstacleKind::Conflict => Hold::Conflict,
        ObstacleKind::Person | ObstacleKind::Impossible => Hold::Refused,
    };
    hold(why, reason.clone())
}

fn state(order: &Order) -> &'static str {
    if order.state == OrderState::Executing { "executing" } else { "pending-provider" }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(Difference::name).collect::<Vec<_>>().join(", ")
}

fn plural(differences: &[Difference]) -> &'static str {
    if differences.len() == 1 { "s" } else { "" }
}

#[cfg(test)]
mod tests;
