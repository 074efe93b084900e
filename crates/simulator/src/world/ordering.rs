//! Creates orders. A test uses these methods instead of Waldur's HTTP calls, which storage services do not need.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Order, OrderState, OrderType, Release, Resource, ResourceState, World};

/// The parameters of an order for a new resource.
#[derive(Debug, Clone)]
pub struct NewResource {
    pub offering: Uuid,
    pub project: Uuid,
    /// Name and slug.
    pub slug: String,
    /// `limits`, normally `{"storage": TB}`.
    pub limits: Value,
    /// `attributes`, normally `{"storage_data_type", "permissions"}`.
    pub attributes: Value,
}

impl World {
    /// Orders a new resource: creates a `Creating` resource and its order in `pending-consumer`. Returns the order.
    pub fn order_create(&mut self, new: NewResource) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick();
        let mut resource = Resource::new(uuid, new.offering, new.project, &new.slug, ResourceState::Creating, created);
        resource.set("limits", new.limits.clone());
        resource.set("attributes", new.attributes.clone());
        self.resources.insert(uuid, resource);
        self.add_order(uuid, OrderType::Create, new.attributes, new.limits)
    }

    /// Orders new limits. `None` for an unknown resource.
    pub fn order_update_limits(&mut self, resource: Uuid, limits: Value) -> Option<Uuid> {
        let old = self.resources.get(&resource)?.record.get("limits").cloned().unwrap_or(Value::Null);
        self.change_state_on_order(resource, ResourceState::Updating);
        Some(self.add_order(resource, OrderType::Update, json!({ "old_limits": old }), limits))
    }

    /// Orders new options, which are merged into the old ones. `None` for an unknown resource.
    pub fn order_update_options(&mut self, resource: Uuid, options: &Map<String, Value>) -> Option<Uuid> {
        let row = self.resources.get(&resource)?;
        let old = row.record.get("options").cloned().unwrap_or(Value::Null);
        let limits = row.record.get("limits").cloned().unwrap_or_else(|| json!({}));
        let mut new = old.as_object().cloned().unwrap_or_default();
        new.extend(options.clone());
        self.change_state_on_order(resource, ResourceState::Updating);
        let attributes = json!({ "old_options": old, "new_options": new });
        Some(self.add_order(resource, OrderType::Update, attributes, limits))
    }

    /// Orders the termination of a resource. `None` for an unknown resource.
    pub fn order_terminate(&mut self, resource: Uuid) -> Option<Uuid> {
        self.resources.get(&resource)?;
        self.change_state_on_order(resource, ResourceState::Terminating);
        Some(self.add_order(resource, OrderType::Terminate, json!({}), json!({})))
    }

    /// Orders the restoration of a terminated resource. `None` for an unknown resource.
    pub fn order_restore(&mut self, resource: Uuid) -> Option<Uuid> {
        self.resources.get(&resource)?;
        self.change_state_on_order(resource, ResourceState::Creating);
        Some(self.add_order(resource, OrderType::Restore, json!({}), json!({})))
    }

    /// Sets an order's state without the side effects of a transition, to prepare a test.
    pub fn force_order(&mut self, order: Uuid, state: OrderState) {
        if let Some(row) = self.orders.get_mut(&order) {
            row.set("state", state.as_str());
            let resource = row.resource;
            self.update_recorded_order(resource);
        }
    }

    /// Changes the resource's state when an order is placed. Waldur 7.0.x does that on approval instead.
    fn change_state_on_order(&mut self, resource: Uuid, state: ResourceState) {
        if self.release == Release::Newer {
            self.change_state(resource, state);
        }
    }

    fn add_order(&mut self, resource: Uuid, kind: OrderType, attributes: Value, limits: Value) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick().text();
        let mut record = Map::new();
        record.insert("type".into(), kind.as_str().into());
        record.insert("state".into(), OrderState::PendingConsumer.as_str().into());
        record.insert("attributes".into(), attributes);
        record.insert("limits".into(), limits);
        record.insert("created".into(), created.clone().into());
        record.insert("modified".into(), created.into());
        self.orders.insert(uuid, Order { uuid, resource, verbatim: false, record });
        if let Some(row) = self.resources.get_mut(&resource) {
            row.orders.push(uuid);
        }
        self.update_recorded_order(resource);
        self.announce_order(uuid);
        uuid
    }

    /// Updates the copy of an order in a recorded resource.
    pub(super) fn update_recorded_order(&mut self, resource: Uuid) {
        let Some(row) = self.resources.get(&resource) else { return };
        if !row.record.contains_key("order_in_progress") {
            return;
        }
        let copy = self.order_in_progress(row).map_or(Value::Null, |order| {
            let mut record = order.record.clone();
            record.entry("uuid").or_insert_with(|| order.uuid.simple().to_string().into());
            Value::Object(record)
        });
        if let Some(row) = self.resources.get_mut(&resource) {
            row.set("order_in_progress", copy);
        }
    }
}
