//! What has to be known of the past: neither the document nor the storage tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Event;
use crate::plan::{LastOrder, Lately, Mass};

/// For how long what was begun without a person's yes counts.
const LATELY: Duration = Duration::from_hours(24);
/// For how long the newest order of a resource is remembered after its last line.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);
/// What a journal tells of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Resources on which work was begun and not brought to its end.
    pub begun: BTreeSet<Uuid>,
    unasked: Vec<Unasked>,
    /// The newest order of each resource for which something was done lately.
    orders: BTreeMap<Uuid, LastOrder>,
}

/// Something of which many need a person's yes, begun without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unasked {
    /// Seconds since 1970.
    at: u64,
    system: String,
    resource: Uuid,
    mass: Mass,
}

impl Past {
    /// What was begun without a person's yes in the last 24 hours, as of the last [`Past::forget`].
    pub fn lately(&self) -> Lately {
        let mut lately = BTreeMap::<_, BTreeSet<_>>::new();
        for it in &self.unasked {
            lately.entry((it.system.clone(), it.mass)).or_default().insert(it.resource);
        }
        lately
    }

    /// The newest order of a resource, if it is remembered.
    pub fn last_order(&self, resource: Uuid) -> Option<&LastOrder> {
        self.orders.get(&resource)
    }

    pub(super) fn unasked(&self) -> &[Unasked] {
        &self.unasked
    }

    pub(super) fn orders(&self) -> &BTreeMap<Uuid, LastOrder> {
        &self.orders
    }

    /// Takes in what a line says.
    pub(super) fn note(&mut self, time: &str, resource: Option<Uuid>, event: &Event) {
        match (resource, event) {
            (Some(resource), Event::Begun { system, steps, unasked, order, kind, by, .. }) => {
                if let (Some(order), Some(kind)) = (*order, *kind) {
                    let new = LastOrder::new(order, kind, seconds(time));
                    let last = self.orders.entry(resource).or_insert_with(|| new.clone());
                    if last.order == order {
                        last.at = new.at;
                    } else {
                        *last = new;
                    }
                }
                // A refusal is no work: it leaves nothing on the storage, whether it is brought to its end or not. Nor is an
                // adoption: it sets the mark and nothing else, and nobody has ordered what differs from the document.
                if !steps.iter().any(|step| refuses(step)) && !by.starts_with("adopt ") {
                    self.begun.insert(resource);
                }
                if let Some(mass) = *unasked {
                    let at = seconds(time);
                    self.unasked.push(Unasked { at, system: system.clone(), resource, mass });
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
                self.begun.remove(&resource);
                if let Some(last) = self.orders.get_mut(&resource) {
                    last.refused = None;
                }
            }
            (None, Event::Continues { begun, lately, orders, .. }) => {
                self.begun.clone_from(begun);
                self.unasked.clone_from(lately);
                self.orders.clone_from(orders);
            }
            _ => {}
        }
    }

    /// Forgets what was begun too long ago to count. A clock that was set back forgets nothing.
    pub(super) fn forget(&mut self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.unasked.retain(|it| it.at >= now.saturating_sub(LATELY).as_secs());
        self.orders.retain(|_, last| last.at >= now.saturating_sub(REMEMBERED).as_secs());
        for refused in self.orders.values_mut().filter_map(|last| last.refused.as_mut()) {
            // A clock that was set back keeps nobody waiting.
            refused.backs_off = refused.backs_off_at(now.as_secs());
        }
    }
}

/// The time of a line in seconds since 1970. A time that cannot be read counts as now, for as long as there is this file.
fn seconds(time: &str) -> u64 {
    let at = OffsetDateTime::parse(time, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
    at.and_then(|at| u64::try_from(at).ok()).unwrap_or(u64::MAX)
}

/// Whether a step with this name in the journal refuses an order.
fn refuses(name: &str) -> bool {
    name.starts_with("reject: ") || name.starts_with("erred: ")
}
