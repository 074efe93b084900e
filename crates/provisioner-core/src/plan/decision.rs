//! Decides what to do for one resource.

use storage_driver::{Desired, Difference, Observed, Present, error_chain};

use super::{Case, Hold, Policy, Step, rejection};
use crate::Turn;
use crate::document::{Offering, Order, OrderKind, OrderState, Status};
use crate::last_order::SET_STATE_OK;
use crate::preflight::{Obstacle, ObstacleKind};

/// Why a resource is held whose directory a purge has claimed.
const PURGING: &str = "`purge` is deleting its directory, or was killed while it did, and what is left cannot be restored: let \
                       `purge` finish, then create an empty directory with `restore PATH --make`";

const UNMARKED: &str =
    "the directory at its path does not have the provisioner's mark: `adopt` it if it is the right one";

/// The steps and the reason, without steps if nothing has to be done; or how, for whom and why the resource is held.
pub(super) type Decision = Result<(Vec<Step>, String), (Hold, Turn, String)>;

/// Decides what to do. Holds the resource if that needs a call that Waldur refused and that is not due for a retry.
pub(super) fn decide(case: &Case, policy: Policy) -> Decision {
    let (steps, why) = decide_ignoring_refusals(case, policy)?;
    let refused = case
        .refused()
        .filter(|refused| refused.backs_off && steps.iter().any(|step| step.call() == Some(&*refused.call)));
    match refused {
        None => Ok((steps, why)),
        Some(refused) if refused.call == SET_STATE_OK => {
            conflict(Turn::Provider, set_ok_in_waldur(case, &refused.reason))
        }
        Some(refused) => hold(Hold::Declined, Turn::Provider, refused.to_string()),
    }
}

fn decide_ignoring_refusals(case: &Case, policy: Policy) -> Decision {
    let unreadable =
        |error| (Hold::Fault, Turn::Storage, format!("the storage cannot be read: {}", error_chain(error)));
    let observed = case.observed.as_ref().map_err(|error| unreadable(error))?;
    let status = case.resource.status;
    let Some(order) = &case.resource.order else { return without_order(case, observed, policy) };
    if order.state == OrderState::Other {
        return hold(Hold::Waiting, Turn::Customer, "its order waits for another party's approval in Waldur");
    }
    match (order.offering, order.kind) {
        (Offering::Other, _) => hold(
            Hold::Refused,
            Turn::Provider,
            "the type of its offering is neither Marketplace.Slurm nor Marketplace.Basic: it is unknown how its orders are \
             completed",
        ),
        (_, OrderKind::Other) => {
            hold(Hold::Refused, Turn::Provider, "its order has an unknown type: handle it in Waldur")
        }
        (Offering::Basic, _) if order.state == OrderState::Executing => {
            hold(Hold::Waiting, Turn::Provider, "its order was approved, and Waldur completes it by itself")
        }
        (_, kind) if !is_possible(kind, status) => hold(
            Hold::Refused,
            Turn::Provider,
            format!("its {kind:?} order contradicts its status {status:?}: check both in Waldur"),
        ),
        (_, OrderKind::Terminate) => terminate(case, order, observed, policy),
        (_, OrderKind::Create | OrderKind::Update | OrderKind::Restore) => carry_out(case, order, observed, policy),
    }
}

/// Whether a resource with this status can have such an order. Older versions of Waldur change the status only when the order is
/// approved.
fn is_possible(kind: OrderKind, status: Status) -> bool {
    let possible: &[Status] = match kind {
        OrderKind::Create | OrderKind::Restore => &[Status::Pending],
        OrderKind::Update => &[Status::Updating, Status::Active],
        OrderKind::Terminate => &[Status::Removing, Status::Active, Status::Error],
        OrderKind::Other => &[],
    };
    possible.contains(&status)
}

fn without_order(case: &Case, observed: &Observed, policy: Policy) -> Decision {
    match case.resource.status {
        Status::Pending | Status::Updating | Status::Removing => in_transition(case, observed, policy),
        Status::Error => hold(Hold::Refused, Turn::Provider, "its state in Waldur is Erred: correct it there"),
        // Only an order removes a directory.
        Status::Removed => match (observed, &case.desired) {
            // With Basic offerings, approval comes first. Finish what was interrupted after it.
            (Observed::Ours(_), Ok(desired)) if case.unfinished && case.completed_order().is_some() => {
                let why = "its termination was approved here, and Waldur shows it as terminated".into();
                Ok((vec![Step::Retire(desired.clone())], why))
            }
            (Observed::Ours(_), _) => conflict(
                Turn::Operator,
                format!(
                    "terminated in Waldur without an order that was carried out here: `retire {}` moves the directory to the trash",
                    case.resource.id
                ),
            ),
            _ => Ok((Vec::new(), String::new())),
        },
        Status::Active => in_use(case, observed, policy, None),
    }
}

/// Decides about a resource that Waldur shows as changing without an order. Waldur does not correct that by itself: the order was
/// deleted, or Waldur's worker set the state late, after the order was completed here.
fn in_transition(case: &Case, observed: &Observed, policy: Policy) -> Decision {
    let (resource, status) = (&case.resource, case.resource.status);
    let is_ours = matches!(observed, Observed::Ours(_));
    // If the directory is still there, the termination was withdrawn before its approval arrived.
    let Some(last) = case.completed_order().filter(|_| status != Status::Removing || !is_ours) else {
        if resource.unclaimed && !is_ours && !matches!(observed, Observed::Trashed { .. }) {
            return conflict(
                Turn::Provider,
                "Creating in Waldur without an order, a backend_id or a directory, because its order was deleted before it was \
                 carried out. Other resources can use its path. Users cannot terminate a resource that is Creating: set its \
                 state to Terminated in Waldur's administration",
            );
        }
        return conflict(
            Turn::Provider,
            format!(
                "{} in Waldur, but it has no order in progress: check its past orders in Waldur, and set its state accordingly",
                waldur_state(status)
            ),
        );
    };
    if status == Status::Removing {
        return conflict(
            Turn::Provider,
            format!(
                "its termination (order {}) was carried out here, but Waldur shows it as Terminating without an order: set its \
             state to Terminated in Waldur's administration; its directory is in the trash already",
                last.order
            ),
        );
    }
    if resource.links.ok.is_none() {
        return conflict(Turn::Provider, set_ok_in_waldur(case, "the document has no link for it"));
    }
    in_use(case, observed, policy, Some(Step::SetStateOk))
}

/// The remedy if Waldur does not accept that a resource is in use.
fn set_ok_in_waldur(case: &Case, reason: &str) -> String {
    let order = case.last_order.as_ref().map(|last| format!(" {}", last.order)).unwrap_or_default();
    format!(
        "its order{order} was carried out, but Waldur shows it as {} without an order, and refuses set_state_ok ({reason}): set \
         its state to OK in Waldur's administration",
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

/// Decides about a resource in use. `last` is added after the other steps.
fn in_use(case: &Case, observed: &Observed, policy: Policy, last: Option<Step>) -> Decision {
    let desired = case.desired.as_ref().map_err(hold_for)?;
    let with_last = |step| std::iter::once(step).chain(last.clone()).collect();
    match observed {
        Observed::Ours(present) => {
            let differences = present.differences(desired);
            if differences.is_empty() {
                let why = "carried out here, but Waldur shows it as changing without an order";
                return Ok((last.into_iter().collect(), why.to_owned()));
            }
            if let Some(reason) = reason_not_to_shrink(present, desired, policy) {
                return hold(Hold::Drift, Turn::Customer, reason);
            }
            let names: Vec<_> = differences.iter().map(Difference::name).collect();
            let differ = if names.len() == 1 { "differs" } else { "differ" };
            let why = format!("{} {differ} from the document", names.join(", "));
            // Interrupted work of an approved order is not drift: in Waldur it is complete.
            if policy.heal || case.unfinished {
                return Ok((with_last(Step::Ensure(desired.clone())), why));
            }
            hold(Hold::Drift, Turn::Operator, format!("{why}; `drift.heal` corrects it"))
        }
        Observed::Trashed { .. } => {
            let why = "in use in Waldur, but in the trash: its termination was not completed";
            Ok((with_last(Step::Restore(desired.clone())), why.to_owned()))
        }
        Observed::Purging { .. } => conflict(Turn::Operator, PURGING),
        Observed::Absent => hold(
            Hold::Drift,
            Turn::Operator,
            "in use in Waldur, but there is no directory: create one with `restore PATH --make`",
        ),
        Observed::Unmarked(_) => conflict(Turn::Operator, UNMARKED),
        Observed::Obstructed(what) => conflict(Turn::Operator, what),
    }
}

/// Carries out an order that creates, changes or restores a directory, in the state pending-provider or executing.
fn carry_out(case: &Case, order: &Order, observed: &Observed, policy: Policy) -> Decision {
    let desired = match &case.desired {
        Ok(desired) => desired,
        Err(obstacle) if obstacle.kind == ObstacleKind::Impossible && policy.refuse => {
            let reason = &obstacle.reason;
            let why = format!("{:?} order {} cannot be carried out: {reason}", order.kind, state_name(order));
            return Ok((rejection::steps(order, case.unfinished, reason), why));
        }
        Err(obstacle) => return Err(hold_for(obstacle)),
    };
    let mut work = match observed {
        Observed::Absent if order.kind == OrderKind::Create => vec![Step::Ensure(desired.clone())],
        Observed::Absent if order.kind == OrderKind::Restore => {
            return conflict(
                Turn::Operator,
                "to be restored, but its directory is not in the trash: if it is lost, `reject` the order and have a new \
                 resource ordered",
            );
        }
        Observed::Absent => {
            return hold(
                Hold::Drift,
                Turn::Operator,
                "its quotas are to change, but there is no directory: create one with `restore PATH --make`",
            );
        }
        Observed::Trashed { .. } => vec![Step::Restore(desired.clone())],
        Observed::Purging { .. } => return conflict(Turn::Operator, PURGING),
        Observed::Ours(present) => {
            if let Some(reason) = reason_not_to_shrink(present, desired, policy) {
                return hold(Hold::Refused, Turn::Customer, reason);
            }
            if present.differences(desired).is_empty() { Vec::new() } else { vec![Step::Ensure(desired.clone())] }
        }
        Observed::Unmarked(_) => return conflict(Turn::Operator, UNMARKED),
        Observed::Obstructed(what) => return conflict(Turn::Operator, what),
    };
    work.push(Step::SetBackendId);
    let why = format!("{:?} order {}", order.kind, state_name(order));
    Ok((with_calls(work, order), why))
}

/// Carries out an order that terminates a resource. Nothing else removes a directory; the status `removing` alone does not.
fn terminate(case: &Case, order: &Order, observed: &Observed, policy: Policy) -> Decision {
    let desired = case.desired.as_ref().map_err(hold_for)?;
    let work = match observed {
        Observed::Ours(_) => vec![Step::Retire(desired.clone())],
        Observed::Trashed { .. } | Observed::Purging { .. } => Vec::new(),
        Observed::Absent if policy.absent_is_gone => vec![Step::Gone(desired.clone())],
        Observed::Absent => {
            return conflict(
                Turn::Operator,
                "to be removed, but there is no directory at its path: if it was not moved away, approve its order and set it \
                 done in Waldur, or set `policy.absent_is_gone`",
            );
        }
        Observed::Unmarked(_) => {
            return conflict(
                Turn::Operator,
                "to be removed, but the directory at its path does not have the provisioner's mark: `adopt` it first if it is the right one",
            );
        }
        Observed::Obstructed(what) => {
            return conflict(
                Turn::Operator,
                format!(
                    "to be removed, but {what}: if it has no directory anywhere else, approve its order and set it done in Waldur"
                ),
            );
        }
    };
    Ok((with_calls(work, order), format!("Terminate order {}", state_name(order))))
}

/// Adds the calls to Waldur before and after the work on the storage.
fn with_calls(mut work: Vec<Step>, order: &Order) -> Vec<Step> {
    match (order.offering, order.state) {
        // Approval completes the order. Users keep their access until Waldur has accepted the termination (see `pass::executor`).
        (Offering::Basic, _) if matches!(work[..], [Step::Retire(_)]) => work.insert(0, Step::Approve),
        // Approval completes the order, so the directory is created or changed before.
        (Offering::Basic, _) => work.push(Step::Approve),
        (_, OrderState::PendingProvider) => {
            work.insert(0, Step::Approve);
            work.push(Step::Done);
        }
        _ => work.push(Step::Done),
    }
    work
}

/// Why the quotas must not be reduced to the desired ones, if so.
fn reason_not_to_shrink(present: &Present, desired: &Desired, policy: Policy) -> Option<String> {
    let (usage, limits) = (present.usage?, present.limits?);
    let below = desired.limits.shrink(&limits) && desired.limits.are_below(usage);
    (below && !policy.shrink_below_usage).then(|| {
        format!(
            "its quotas would shrink below the usage ({} bytes, {} inodes): free space first, or allow it with \
             `policy.shrink_below_usage`",
            usage.space.0, usage.inodes.0
        )
    })
}

fn hold(hold: Hold, turn: Turn, reason: impl Into<String>) -> Decision {
    Err((hold, turn, reason.into()))
}

fn conflict(turn: Turn, reason: impl Into<String>) -> Decision {
    hold(Hold::Conflict, turn, reason)
}

fn hold_for(Obstacle { kind, turn, reason }: &Obstacle) -> (Hold, Turn, String) {
    let hold = match kind {
        ObstacleKind::Waiting => Hold::Waiting,
        ObstacleKind::Conflict => Hold::Conflict,
        ObstacleKind::NeedsOperator | ObstacleKind::Impossible => Hold::Refused,
    };
    (hold, *turn, reason.clone())
}

fn state_name(order: &Order) -> &'static str {
    if order.state == OrderState::Executing { "executing" } else { "pending-provider" }
}
