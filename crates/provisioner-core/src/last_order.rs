//! A resource's most recent order, from the journal: whether this program completed it, and which call Waldur refused.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::document::{OrderKind, Status};

/// Outcome in the journal of a call that has no answer yet.
pub const SENT: &str = "sent";
/// Outcome in the journal of an accepted call.
pub const ACCEPTED: &str = "accepted";
/// The call that sets a resource without an order from a changing state to OK.
pub const SET_STATE_OK: &str = "set_state_ok";
const APPROVE: &str = "approve_by_provider";
const DONE: &str = "set_state_done";
/// Seconds until a refused call is retried. Each further refusal triples them.
const FIRST_RETRY: u64 = 5 * 60;
/// Maximum number of seconds between two retries.
const MAX_RETRY: u64 = 6 * 3600;

/// The most recent order of a resource that this program worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastOrder {
    pub order: Uuid,
    pub kind: OrderKind,
    /// Whether a call that can complete the order was sent: an approval that was not refused, or `set_state_done`.
    pub sent: bool,
    /// The last refused call, unless Waldur accepted it since.
    pub refused: Option<WaldurRefusal>,
    /// Time of the order's last line in the journal, in seconds since 1970.
    pub at: u64,
}

/// A call that Waldur refuses until something changes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaldurRefusal {
    pub call: String,
    /// Waldur's reason.
    pub reason: String,
    /// Number of refusals in a row.
    pub times: u32,
    /// Time of the last refusal, in seconds since 1970.
    at: u64,
    /// Whether it was too early for a retry when the journal was read.
    #[serde(skip)]
    pub backs_off: bool,
}

impl fmt::Display for WaldurRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, reason, times, .. } = self;
        let end = if reason.ends_with(['.', '…']) { "" } else { "." };
        let tried = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        let next = i64::try_from(self.next()).ok().and_then(|next| OffsetDateTime::from_unix_timestamp(next).ok());
        let next = next.and_then(|next| next.format(&Rfc3339).ok()).unwrap_or_default();
        write!(f, "Waldur refuses {call}: {reason}{end} Tried {tried}; next try after {next}, or now with `apply`")
    }
}

impl WaldurRefusal {
    /// All values of [`kind`](Self::kind).
    pub const KINDS: [&str; 5] = ["expired_project", "blocked_organization", "backend_id", "missing_call", "other"];

    /// The reason as a metric label.
    pub fn kind(&self) -> &'static str {
        let [expired, blocked, backend_id, missing, other] = Self::KINDS;
        match &*self.call {
            SET_STATE_OK => missing,
            "set_backend_id" => backend_id,
            _ if self.reason.contains("is expired") => expired,
            _ if self.reason.contains("Blocked organization") => blocked,
            _ => other,
        }
    }

    /// Whether it is too early for a retry at `now`, in seconds since 1970. False if the clock was set back.
    pub fn backs_off_at(&self, now: u64) -> bool {
        (self.at..self.next()).contains(&now)
    }

    /// Time of the next retry, in seconds since 1970.
    pub fn next(&self) -> u64 {
        let pause = 3_u64.checked_pow(self.times.saturating_sub(1)).and_then(|factor| FIRST_RETRY.checked_mul(factor));
        self.at.saturating_add(pause.map_or(MAX_RETRY, |pause| pause.min(MAX_RETRY)))
    }
}

impl LastOrder {
    pub fn new(order: Uuid, kind: OrderKind, at: u64) -> Self {
        Self { order, kind, sent: false, refused: None, at }
    }

    /// Whether this program completed the order, and so explains this status of a resource without an order: Waldur may show
    /// the order as in progress for a while, and a terminated resource has no later one.
    pub fn explains(&self, status: Status) -> bool {
        let kinds: &[OrderKind] = match status {
            Status::Pending => &[OrderKind::Create, OrderKind::Restore],
            Status::Updating => &[OrderKind::Update],
            Status::Removing | Status::Removed => &[OrderKind::Terminate],
            Status::Active | Status::Error => &[],
        };
        self.sent && kinds.contains(&self.kind)
    }

    /// Records that a call was certainly not carried out. After a denied approval this program did not complete the order, so
    /// the directory is kept if the resource is terminated elsewhere later.
    pub fn denied(&mut self, call: &str) {
        self.sent &= call != APPROVE;
    }

    /// Records the outcome of a call as the journal has it.
    pub fn note(&mut self, at: u64, call: &str, outcome: &str, refused: bool) {
        self.at = at;
        if refused {
            let before = self.refused.take().filter(|before| before.call == call).map_or(0, |before| before.times);
            let (call, reason) = (call.to_owned(), outcome.to_owned());
            self.denied(&call);
            self.refused = Some(WaldurRefusal { call, reason, times: before + 1, at, backs_off: false });
        } else if outcome == SENT {
            self.sent |= [APPROVE, DONE].contains(&call);
        } else if outcome == ACCEPTED {
            self.refused.take_if(|refused| refused.call == call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);

    #[test]
    fn retries_back_off_from_minutes_to_hours() {
        let mut last = LastOrder::new(ORDER, OrderKind::Terminate, 0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            last.note(1_000, APPROVE, "Project 'x' is expired.", true);
            let refused = last.refused.as_ref().unwrap();
            pauses.push((refused.next() - 1_000) / 60);
            assert!(refused.backs_off_at(1_000) && refused.backs_off_at(refused.next() - 1));
            assert!(!refused.backs_off_at(refused.next()) && !refused.backs_off_at(999));
        }
        assert_eq!(pauses, [5, 15, 45, 135, 360, 360]);
    }

    #[test]
    fn a_denied_approval_completes_no_order() {
        let mut last = LastOrder::new(ORDER, OrderKind::Terminate, 0);
        last.note(1, APPROVE, SENT, false);
        last.note(1, APPROVE, "approve_by_provider is refused (403)", false);
        last.denied(APPROVE);
        assert!(!last.explains(Status::Removed));
        // A later denied call does not undo an approval.
        last.note(2, APPROVE, SENT, false);
        last.denied(DONE);
        assert!(last.explains(Status::Removed));
    }

    #[test]
    fn an_accepted_call_clears_its_refusal() {
        let mut last = LastOrder::new(ORDER, OrderKind::Create, 0);
        last.note(1, APPROVE, SENT, false);
        assert!(last.sent);
        last.note(1, APPROVE, "Blocked organization is not available.", true);
        assert!(!last.sent, "a refused approval completes nothing");
        last.note(2, APPROVE, SENT, false);
        last.note(2, APPROVE, ACCEPTED, false);
        assert_eq!((last.sent, &last.refused), (true, &None));
        last.note(3, "set_backend_id", "It is not unique.", true);
        last.note(4, APPROVE, ACCEPTED, false);
        assert_eq!(last.refused.map(|refused| (refused.call, refused.times)), Some(("set_backend_id".into(), 1)));
    }
}
