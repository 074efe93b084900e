//! Calls to Waldur, and its answers.

use serde_json::{Value, json};
use uuid::Uuid;

use provisioner_core::document::{OrderKind, OrderState, Resource, Status};
use provisioner_core::plan::{Step, Task};
use provisioner_core::preflight;

/// A POST to Waldur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub resource: Uuid,
    pub order: Option<Uuid>,
    /// Its name, as at the end of `link` and in the journal.
    pub action: &'static str,
    /// The URL in the document.
    pub link: String,
    pub body: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// Waldur did not accept it, or there was no answer: read the order again. The text says why.
    Unclear(String),
    /// There is no such order, or these credentials do not see it: it was not carried out, and the document may be out
    /// of date.
    Missing(String),
    /// Waldur refuses it until something changes there, for this reason.
    Refused(String),
    /// The credentials do not allow it. An operator must act; no order is to blame.
    Denied(String),
}

impl Call {
    /// The call of a step; `None` for a step on the storage. Fails if the document has no link for it.
    pub(super) fn new(step: &Step, task: &Task, resource: &Resource) -> Option<Result<Self, String>> {
        let links = &resource.links;
        let (link, body) = match step {
            // An approval repeats the options of the order.
            Step::Approve => {
                let options = resource.order.as_ref().and_then(|order| order.new_options.as_ref());
                (&links.approve, options.map(|options| json!({"attributes": {"new_options": options}})))
            }
            Step::Reject(reason) => (&links.reject, Some(json!({"provider_rejection_comment": reason}))),
            Step::SetBackendId => (&links.backend_id, Some(json!({"backend_id": task.path}))),
            Step::Done => (&links.done, None),
            // Waldur requires both.
            Step::Erred(reason) => (&links.erred, Some(json!({"error_message": reason, "error_traceback": reason}))),
            Step::SetStateOk => (&links.ok, None),
            Step::Adopt(_) | Step::Restore(_) | Step::Ensure(_) | Step::Retire(_) | Step::Gone(_) => return None,
        };
        let action = step.call()?;
        let link = link.clone().ok_or_else(|| format!("the document has no link for {action}"));
        Some(link.map(|link| Self { resource: task.id, order: task.order, action, link, body }))
    }
}

/// Whether the aim of a step's call is reached, according to `now`: the resource in a document that was read
/// afterwards.
pub(super) fn reached(step: &Step, before: &Resource, now: Option<&Resource>) -> bool {
    let order = before.order.as_ref();
    let same = now.and_then(|now| now.order.as_ref()).filter(|now| Some(now.id) == order.map(|order| order.id));
    match (step, same) {
        (Step::SetStateOk, _) => now.is_some_and(|now| now.status == Status::Active),
        // Approval shows in the order's state; any other call would have ended it.
        (Step::Approve, Some(order)) => order.state == OrderState::Executing,
        (Step::Reject(_) | Step::Erred(_), None) => true,
        (Step::Approve | Step::Done, None) => match (order.map(|order| order.kind), now.map(|now| now.status)) {
            (Some(OrderKind::Terminate), status) => status.is_none_or(|status| status == Status::Removed),
            // A cancelled order leaves the resource as it was.
            (Some(OrderKind::Update), Some(Status::Active)) => now.is_some_and(|now| {
                let ordered = |it: &Resource| (preflight::desired_mode(it), it.new_quotas.or(it.quotas));
                ordered(before) == ordered(now)
            }),
            (_, status) => matches!(status, Some(Status::Active | Status::Updating | Status::Removing)),
        },
        _ => false,
    }
}
