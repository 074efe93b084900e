//! What the journal remembers of a resource's newest order: whether it was ended here, and what Waldur refuses.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::document::{OrderKind, Status};

/// How the journal names a call before there is an answer.
pub const SENT: &str = "sent";
/// How the journal names a call that Waldur accepted.
pub const ACCEPTED: &str = "accepted";
/// The call that leads a resource out of a state that no order keeps it in.
pub const SET_STATE_OK: &str = "set_state_ok";
/// The calls that lead to the end of an order, as one that was carried out.
const ENDS: [&str; 2] = ["approve_by_provider", "set_state_done"];
/// How many seconds after its first refusal a call is tried again. After each further refusal it is three times as long.
const FIRST_RETRY: u64 = 5 * 60;
/// The longest time between two tries, in seconds.
const SLOWEST_RETRY: u64 = 6 * 3600;

/// The newest order of a resource, as far as this program took part in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastOrder {
    /// Its UUID.
    pub order: Uuid,
    /// What it does.
    pub kind: OrderKind,
    /// Whether Waldur was sent a call that leads to its end: an approval that was not refused, or that it is done.
    pub sent: bool,
    /// What Waldur refused last and has not accepted since.
    pub refused: Option<WaldurRefusal>,
    /// Time of its last line in the journal, in seconds since 1970.
    pub at: u64,
}

/// A call that Waldur refuses for good: nothing but a change in Waldur helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaldurRefusal {
    /// Name of the call.
    pub call: String,
    /// Waldur's reason.
    pub reason: String,
    /// How many times it was refused, one after the other.
    pub times: u32,
    /// When it was refused last, in seconds since 1970.
    at: u64,
    /// Whether it is too early to try again, as of when the journal was read.
    #[serde(skip)]
    pub backs_off: bool,
}

/// For people: which call, why, and when it is tried again.
impl fmt::Display for WaldurRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, reason, times, .. } = self;
        let end = if reason.ends_with(['.', '…']) { "" } else { "." };
        let tried = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        let next = i64::try_from(self.next()).ok().and_then(|next| OffsetDateTime::from_unix_timestamp(next).ok());
        let next = next.and_then(|next| next.format(&Rfc3339).ok()).unwrap_or_default();
        write!(f, "Waldur refuses {call}: {reason}{end} Tried {tried}, again from {next} on; `apply` tries at once")
    }
}

impl WaldurRefusal {
    /// The values of [`kind`](Self::kind).
    pub const KINDS: [&str; 5] = ["expired_project", "blocked_organization", "backend_id", "missing_call", "other"];

    /// What is refused, in a word.
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

    /// Whether it is too early at this time, in seconds since 1970. A clock that was set back keeps nobody waiting.
    pub fn backs_off_at(&self, now: u64) -> bool {
        (self.at..self.next()).contains(&now)
    }

    /// When it is tried again, in seconds since 1970.
    pub fn next(&self) -> u64 {
        let pause = 3_u64.checked_pow(self.times.saturating_sub(1)).and_then(|factor| FIRST_RETRY.checked_mul(factor));
        self.at.saturating_add(pause.map_or(SLOWEST_RETRY, |pause| pause.min(SLOWEST_RETRY)))
    }
}

impl LastOrder {
    /// An order for which work begins.
    pub fn new(order: Uuid, kind: OrderKind, at: u64) -> Self {
        Self { order, kind, sent: false, refused: None, at }
    }

    /// Whether it was ended here, and a resource without an order has this status because Waldur still shows it as in progress,
    /// or because it was the last.
    pub fn explains(&self, status: Status) -> bool {
        let kinds: &[OrderKind] = match status {
            Status::Pending => &[OrderKind::Create, OrderKind::Restore],
            Status::Updating => &[OrderKind::Update],
            Status::Removing | Status::Removed => &[OrderKind::Terminate],
            Status::Active | Status::Error => &[],
        };
        self.sent && kinds.contains(&self.kind)
    }

    /// Takes in that a call was certainly not carried out. An approval that was denied does not explain how the order ended:
    /// a resource that somebody else terminates later keeps its directory.
    pub fn denied(&mut self, call: &str) {
        self.sent &= call != ENDS[0];
    }

    /// Takes in what came of a call, as the journal names it.
    pub fn note(&mut self, at: u64, call: &str, outcome: &str, refused: bool) {
        self.at = at;
        if refused {
            let before = self.refused.take().filter(|before| before.call == call).map_or(0, |before| before.times);
            let (call, reason) = (call.to_owned(), outcome.to_owned());
            self.denied(&call);
            self.refused = Some(WaldurRefusal { call, reason, times: before + 1, at, backs_off: false });
        } else if outcome == SENT {
            self.sent |= ENDS.contains(&call);
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
    fn pauses_grow_from_minutes_to_hours() {
        let mut last = LastOrder::new(ORDER, OrderKind::Terminate, 0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            last.note(1_000, ENDS[0], "Project 'x' is expired.", true);
            let refused = last.refused.as_ref().unwrap();
            pauses.push((refused.next() - 1_000) / 60);
            assert!(refused.backs_off_at(1_000) && refused.backs_off_at(refused.next() - 1));
            assert!(!refused.backs_off_at(refused.next()) && !refused.backs_off_at(999));
        }
        assert_eq!(pauses, [5, 15, 45, 135, 360, 360]);
    }

    #[test]
    fn a_denied_approval_ends_nothing() {
        let mut last = LastOrder::new(ORDER, OrderKind::Terminate, 0);
        last.note(1, ENDS[0], SENT, false);
        last.note(1, ENDS[0], "approve_by_provider is refused (403)", false);
        last.denied(ENDS[0]);
        assert!(!last.explains(Status::Removed));
        // Once it was approved, a call that comes later does not undo that.
        last.note(2, ENDS[0], SENT, false);
        last.denied(ENDS[1]);
        assert!(last.explains(Status::Removed));
    }

    #[test]
    fn what_is_accepted_is_not_refused_any_more() {
        let mut last = LastOrder::new(ORDER, OrderKind::Create, 0);
        last.note(1, ENDS[0], SENT, false);
        assert!(last.sent);
        last.note(1, ENDS[0], "Blocked organization is not available.", true);
        assert!(!last.sent, "a refused approval ends nothing");
        last.note(2, ENDS[0], SENT, false);
        last.note(2, ENDS[0], ACCEPTED, false);
        assert_eq!((last.sent, &last.refused), (true, &None));
        last.note(3, "set_backend_id", "It is not unique.", true);
        last.note(4, ENDS[0], ACCEPTED, false);
        assert_eq!(last.refused.map(|refused| (refused.call, refused.times)), Some(("set_backend_id".into(), 1)));
    }
}
