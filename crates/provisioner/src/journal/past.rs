//! What must be remembered because neither the document nor the storage shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use provisioner_core::last_order::LastOrder;
use provisioner_core::plan::{Mass, Recent};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Begun, Event};
use crate::record::{self, Approved};

/// How long unconfirmed work counts.
const LATELY: Duration = Duration::from_hours(24);
/// How long the newest order of a resource is remembered after its last line.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Resources with work that was begun and has not ended.
    pub unfinished: BTreeSet<Uuid>,
    unconfirmed: Vec<Unconfirmed>,
    orders: BTreeMap<Uuid, LastOrder>,
}

/// Work that was begun without confirmation and of which many would have needed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// Seconds since 1970.
    at: u64,
    system: String,
    resource: Uuid,
    mass: Mass,
    /// Time of the first later line with an earlier time: the clock was set back before it.
    #[serde(skip)]
    set_back: Option<u64>,
}

impl Past {
    /// What was begun without confirmation in the last 24 hours, as of the last [`Past::forget`].
    pub fn lately(&self) -> Recent {
        let mut lately = BTreeMap::<_, BTreeSet<_>>::new();
        for it in &self.unconfirmed {
            lately.entry((it.system.clone(), it.mass)).or_default().insert(it.resource);
        }
        lately
    }

    /// Adds work that the record of a storage system shows as begun, by this host or another one.
    pub fn add(&mut self, resource: Uuid, begun: &record::Begun) {
        self.unfinished.insert(resource);
        let Some(Approved { order, kind }) = begun.approved else { return };
        let new = || LastOrder { sent: true, ..LastOrder::new(order, kind, begun.at) };
        let last = self.orders.entry(resource).or_insert_with(new);
        // What this host knows is only better if it is newer.
        if begun.at >= last.at {
            if last.order == order {
                last.sent = true;
            } else {
                *last = new();
            }
        }
    }

    /// The newest order of a resource, if there was work for it lately.
    pub fn last_order(&self, resource: Uuid) -> Option<&LastOrder> {
        self.orders.get(&resource)
    }

    /// The first line of a journal that continues the file `after`.
    pub(super) fn carried_over(&self, after: String) -> Event {
        let Self { unfinished, unconfirmed, orders } = self.clone();
        Event::Continues { after, begun: unfinished, lately: unconfirmed, orders }
    }

    pub(super) fn note(&mut self, time: &str, resource: Option<Uuid>, event: &Event) {
        let at = seconds(time);
        for it in self.unconfirmed.iter_mut().filter(|it| at < it.at) {
            it.set_back.get_or_insert(at);
        }
        match (resource, event) {
            (Some(resource), Event::Begun(begun)) => {
                let Begun { system, steps, unconfirmed, order, kind, by, .. } = begun;
                if let (Some(order), Some(kind)) = (*order, *kind) {
                    let new = LastOrder::new(order, kind, seconds(time));
                    let last = self.orders.entry(resource).or_insert_with(|| new.clone());
                    if last.order == order {
                        last.at = new.at;
                    } else {
                        *last = new;
                    }
                }
                // Neither a rejection nor an adoption leaves anything to finish: a rejection does not touch the
                // storage, and an adoption sets only the mark. Nobody has ordered to change what differs from the
                // document.
                if !steps.iter().any(|step| rejects(step)) && !by.starts_with("adopt ") {
                    self.unfinished.insert(resource);
                }
                if let Some(mass) = *unconfirmed {
                    let (at, system) = (seconds(time), system.clone());
                    self.unconfirmed.push(Unconfirmed { at, system, resource, mass, set_back: None });
                }
            }
            (Some(resource), Event::Callback { call, outcome, refused, denied }) => {
                if let Some(last) = self.orders.get_mut(&resource) {
                    last.note(seconds(time), call, outcome, *refused);
                    if *denied {
                        last.denied(call);
                    }
                }
            }
            (Some(resource), Event::Ended) => {
                self.unfinished.remove(&resource);
                if let Some(last) = self.orders.get_mut(&resource) {
                    last.refused = None;
                }
            }
            (None, Event::Continues { begun, lately, orders, .. }) => {
                *self = Self { unfinished: begun.clone(), unconfirmed: lately.clone(), orders: orders.clone() };
            }
            _ => {}
        }
    }

    /// Removes what is too old to count. If the clock was set back, work counts until 24 hours after that.
    pub(super) fn forget(&mut self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest = now.saturating_sub(LATELY).as_secs();
        self.unconfirmed.retain(|it| {
            let is_in_future = it.at > now.as_secs();
            it.at >= oldest && it.set_back.is_none_or(|at| !is_in_future || at >= oldest)
        });
        self.orders.retain(|_, last| last.at >= now.saturating_sub(REMEMBERED).as_secs());
        for refused in self.orders.values_mut().filter_map(|last| last.refused.as_mut()) {
            refused.backs_off = refused.backs_off_at(now.as_secs());
        }
    }
}

/// The time of a line in seconds since 1970. If it cannot be parsed, the line never becomes too old.
fn seconds(time: &str) -> u64 {
    let at = OffsetDateTime::parse(time, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
    at.and_then(|at| u64::try_from(at).ok()).unwrap_or(u64::MAX)
}

/// Whether a step, as [`super::step_text`] writes it, ends an order without carrying it out.
fn rejects(step: &str) -> bool {
    step.starts_with("reject: ") || step.starts_with("erred: ")
}
