//! What Waldur is told, and what it answers.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{OrderKind, OrderState, Resource, Status};
use crate::document::Links;
use crate::preflight;

/// One thing to tell Waldur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The resource it is about.
    pub resource: Uuid,
    /// The order in progress.
    pub order: Option<Uuid>,
    /// Its path as published.
    pub path: String,
    /// Where to send it, as the document says.
    pub link: String,
    /// What to say.
    pub action: Action,
}

/// What can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The order is accepted, with the options that it asks for.
    Approve(Option<serde_json::Map<String, Value>>),
    /// The order is refused, for this reason.
    Reject(String),
    /// The resource is at the call's path.
    SetBackendId,
    /// The order is carried out.
    Done,
    /// The order failed for good, for this reason.
    Erred(String),
    /// The resource is in use: what was ordered for it is done, whatever its state says.
    SetStateOk,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Waldur took it.
    Accepted,
    /// Waldur did not take it, or nobody knows: read the order again. Why.
    Unclear(String),
    /// There is no such order, at least not for these credentials: it was not carried out, and the document may be out of date.
    Missing(String),
    /// Waldur refuses it, and will again until something changes there. Waldur's reason.
    Refused(String),
    /// Whoever asks may not. For an operator: no order is to blame.
    Denied(String),
}

impl Action {
    /// The names of all of them.
    pub const NAMES: [&'static str; 6] = [
        "approve_by_provider",
        "reject_by_provider",
        "set_backend_id",
        "set_state_done",
        "set_state_erred",
        "set_state_ok",
    ];

    /// Its name in links and in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approve(_) => Self::NAMES[0],
            Self::Reject(_) => Self::NAMES[1],
            Self::SetBackendId => Self::NAMES[2],
            Self::Done => Self::NAMES[3],
            Self::Erred(_) => Self::NAMES[4],
            Self::SetStateOk => Self::NAMES[5],
        }
    }

    /// The link for it.
    pub(super) fn link<'a>(&self, links: &'a Links) -> Option<&'a str> {
        match self {
            Self::Approve(_) => &links.approve,
            Self::Reject(_) => &links.reject,
            Self::SetBackendId => &links.backend_id,
            Self::Done => &links.done,
            Self::Erred(_) => &links.erred,
            Self::SetStateOk => &links.ok,
        }
        .as_deref()
    }

    /// Whether what it aims at is reached, as a document that was read afterwards shows; `now`: the resource in it.
    pub(super) fn reached(&self, before: &Resource, now: Option<&Resource>) -> bool {
        if *self == Self::SetStateOk {
            return now.is_some_and(|now| now.status == Status::Active);
        }
        let order = before.order.as_ref();
        let kind = order.map(|order| order.kind);
        let same = now.and_then(|now| now.order.as_ref()).filter(|now| Some(now.id) == order.map(|order| order.id));
        match (self, same) {
            // Still the same order: approval shows in its state, all else would have ended it.
            (Self::Approve(_), Some(order)) => order.state == OrderState::Executing,
            (_, Some(_)) | (Self::SetBackendId | Self::SetStateOk, None) => false,
            (Self::Reject(_) | Self::Erred(_), None) => true,
            (Self::Approve(_) | Self::Done, None) => match (kind, now.map(|now| now.status)) {
                (Some(OrderKind::Terminate), status) => status.is_none_or(|status| status == Status::Removed),
                // Called off it leaves the resource as it was.
                (Some(OrderKind::Update), Some(Status::Active)) => now.is_some_and(|now| {
                    let wanted = |it: &Resource| (preflight::mode(it), it.new_quotas.or(it.quotas));
                    wanted(before) == wanted(now)
                }),
                (_, status) => matches!(status, Some(Status::Active | Status::Updating | Status::Removing)),
            },
        }
    }
}

impl Call {
    /// The body of the POST; `None` for an empty one.
    pub fn body(&self) -> Option<Value> {
        match &self.action {
            Action::Approve(None) | Action::Done | Action::SetStateOk => None,
            Action::Approve(Some(options)) => Some(json!({"attributes": {"new_options": options}})),
            Action::Reject(reason) => Some(json!({"provider_rejection_comment": reason})),
            Action::SetBackendId => Some(json!({"backend_id": self.path})),
            // Waldur asks for both.
            Action::Erred(reason) => Some(json!({"error_message": reason, "error_traceback": reason})),
        }
    }
}
