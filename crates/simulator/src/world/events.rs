//! Announcements of changes, as Waldur publishes them.

use std::collections::VecDeque;

use serde_json::{Value, json};
use uuid::Uuid;

use super::World;

/// Newer Waldur limits its queues to this length.
const MAX_EVENTS: usize = 10_000;

/// Announces a change of an order or a resource.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// `order` or `resource`.
    pub(crate) object_type: &'static str,
    pub(crate) offering: Uuid,
    pub(crate) body: Value,
}

/// The newest events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    /// Number of the next event, from 0.
    next: u64,
    recent: VecDeque<Event>,
}

impl Events {
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The events from this number on.
    pub(crate) fn since(&self, number: u64) -> impl Iterator<Item = (u64, &Event)> {
        let first = self.next - self.recent.len() as u64;
        (first..).zip(&self.recent).skip_while(move |(at, _)| *at < number)
    }

    fn add(&mut self, event: Event) {
        self.next += 1;
        self.recent.push_back(event);
        if self.recent.len() > MAX_EVENTS {
            self.recent.pop_front();
        }
    }
}

impl World {
    /// Announces a change of a resource; of an unknown one, nothing.
    pub fn announce_resource(&mut self, resource: Uuid) {
        self.announce("resource", resource, json!({ "resource_uuid": resource.simple() }));
    }

    pub(super) fn announce_order(&mut self, order: Uuid) {
        let Some(row) = self.orders.get(&order) else { return };
        let (resource, state) = (row.resource, row.text("state").to_owned());
        self.announce("order", resource, json!({ "order_uuid": order.simple(), "order_state": state }));
    }

    fn announce(&mut self, object_type: &'static str, resource: Uuid, mut body: Value) {
        let Some(row) = self.resources.get(&resource) else { return };
        let offering = row.offering;
        body["object_type"] = json!(object_type);
        body["offering_uuid"] = json!(offering.simple());
        self.events.add(Event { object_type, offering, body });
    }
}
