//! Ends orders without carrying them out.

use storage_driver::Observed;

use super::{Case, Step, Task};
use crate::document::{Offering, Order, OrderState};

/// The steps that end an order without carrying it out. `begun`: whether something may exist on the storage.
pub(super) fn steps(order: &Order, begun: bool, reason: &str) -> Vec<Step> {
    match order.state {
        OrderState::PendingProvider => vec![Step::Reject(reason.to_owned())],
        // Without a backend ID, Waldur terminates the resource of a failed Create.
        _ if begun => vec![Step::SetBackendId, Step::Erred(reason.to_owned())],
        _ => vec![Step::Erred(reason.to_owned())],
    }
}

/// The task with which an operator ends a resource's order without carrying it out, or why that is impossible.
pub fn reject(case: &Case, reason: &str) -> Result<Task, String> {
    let Some(order) = &case.resource.order else { return Err("it has no order in progress".to_owned()) };
    if order.state == OrderState::Other {
        return Err("its order does not wait for the provider: only Waldur's users can end it".to_owned());
    }
    if order.offering == Offering::Basic && order.state == OrderState::Executing {
        return Err("its order was approved, and Waldur completes it by itself".to_owned());
    }
    // Without a desired state, the storage was not observed.
    let begun = case.unfinished || case.desired.is_err() || !matches!(case.observed, Ok(Observed::Absent));
    Ok(Task::new(case, steps(order, begun, reason), format!("rejected: {reason}")))
}
