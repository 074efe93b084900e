//! State machines of orders and resources: allowed transitions and their side effects.
//!
//! [`Release::V7_0`] follows recordings, [`Release::Newer`] follows the sources of newer releases.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{OfferingType, OrderState, OrderType, Queued, Release, ResourceState, World};

/// Why a transition is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The order or resource does not exist.
    Unknown,
    /// The state does not allow it (409); the text names the states that do.
    WrongState(&'static str),
    /// The offering's type does not support the action (405).
    OfferingType(OfferingType),
    /// The project or its customer is expired or blocked (400).
    Unavailable(String),
    /// Waldur fails with an HTML page (500).
    Crash,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => out.write_str("unknown order or resource"),
            Self::WrongState(states) => write!(out, "Valid states for operation: {states}."),
            Self::OfferingType(kind) => {
                write!(out, "The order's offering with {} type does not support this action", kind.as_str())
            }
            Self::Unavailable(text) => out.write_str(text),
            Self::Crash => out.write_str("Server Error (500)"),
        }
    }
}

impl std::error::Error for Refusal {}

impl World {
    /// Approval by the consumer: `pending-consumer` → `pending-provider`.
    pub fn consumer_approve(&mut self, order: Uuid) -> Result<(), Refusal> {
        self.expect(order, &[OrderState::PendingConsumer], "pending-consumer")?;
        self.move_order(order, OrderState::PendingProvider);
        Ok(())
    }

    /// Rejection by the consumer: `pending-consumer` → `rejected`; the resource changes as in [`World::provider_reject`].
    pub fn consumer_reject(&mut self, order: Uuid) -> Result<(), Refusal> {
        self.expect(order, &[OrderState::PendingConsumer], "pending-consumer")?;
        self.reject(order)
    }

    /// Approval by the provider: `pending-provider` → `executing`. The background worker completes orders for offerings of
    /// type Basic, and in newer releases orders of options, immediately unless it lags. Newer releases merge `attributes`
    /// into the order.
    pub fn approve(&mut self, order: Uuid, attributes: Map<String, Value>) -> Result<(), Refusal> {
        self.expect(order, &[OrderState::PendingProvider], "pending-provider")?;
        self.available(order)?;
        let (kind, resource) = self.kind_and_resource(order)?;
        if self.release == Release::Newer
            && let Some(row) = self.orders.get_mut(&order)
            && let Some(Value::Object(own)) = row.record.get_mut("attributes")
        {
            own.extend(attributes);
        }
        let options = self.orders.get(&order).is_some_and(super::Order::is_options_order);
        let ends_options = self.release == Release::Newer && self.options_end_on_approval;
        let ends = self.offering_type(order) == OfferingType::Basic || (options && ends_options);
        if ends && !self.worker_lags {
            return self.finish(order);
        }
        self.move_order(order, OrderState::Executing);
        match kind.in_progress() {
            _ if ends => self.queued.push(Queued::Finish(order)),
            state if self.worker_lags && state != ResourceState::Creating => {
                self.queued.push(Queued::State(resource, state));
            }
            state => self.change_state(resource, state),
        }
        Ok(())
    }

    /// Runs the deferred tasks of a lagging worker: sets the states that approvals have deferred, even if the order has ended
    /// meanwhile, and completes the orders that approvals complete.
    pub fn run_worker(&mut self) {
        for queued in std::mem::take(&mut self.queued) {
            match queued {
                Queued::State(resource, state) => self.change_state(resource, state),
                Queued::Finish(order) => {
                    if self.orders.get(&order).and_then(super::Order::state) == Some(OrderState::Executing) {
                        // The order exists and is executing, so it can be completed.
                        let _ = self.finish(order);
                    }
                }
            }
        }
    }

    /// Rejection by the provider: `pending-provider` → `rejected`. A new resource becomes Terminated, any other OK.
    pub fn provider_reject(&mut self, order: Uuid, comment: &str) -> Result<(), Refusal> {
        self.expect(order, &[OrderState::PendingProvider], "pending-provider")?;
        if self.release == Release::Newer
            && !comment.is_empty()
            && let Some(row) = self.orders.get_mut(&order)
        {
            row.set("provider_rejection_comment", comment);
        }
        self.reject(order)
    }

    /// `executing` → `done`: limits and options take effect, and the resource becomes OK or Terminated.
    pub fn set_done(&mut self, order: Uuid) -> Result<(), Refusal> {
        self.expect(order, &[OrderState::Executing], "executing")?;
        self.finish(order)
    }

    /// `pending-consumer`, `pending-provider` or `erred` → `executing`; the resource does not change.
    pub fn set_executing(&mut self, order: Uuid) -> Result<(), Refusal> {
        const FROM: [OrderState; 3] = [OrderState::PendingConsumer, OrderState::PendingProvider, OrderState::Erred];
        self.expect(order, &FROM, "pending-consumer, pending-provider, erred")?;
        self.slurm_only(order)?;
        self.move_order(order, OrderState::Executing);
        Ok(())
    }

    /// Any state → `erred` (7.0.x: only the resource becomes Erred, unless the order is executing).
    pub fn set_erred(&mut self, order: Uuid, message: &str, traceback: &str) -> Result<(), Refusal> {
        let (kind, resource) = self.kind_and_resource(order)?;
        self.slurm_only(order)?;
        let state = self.orders.get(&order).and_then(super::Order::state);
        let of_resource = self.resources.get(&resource).and_then(super::Resource::state);
        let old = self.release == Release::V7_0;
        if old && kind == OrderType::Terminate && of_resource != Some(ResourceState::Terminating) {
            return Err(Refusal::Crash);
        }
        if let Some(row) = self.orders.get_mut(&order) {
            row.set("error_message", message);
            row.set("error_traceback", traceback);
        }
        if !old || state == Some(OrderState::Executing) {
            self.move_order(order, OrderState::Erred);
        }
        let unnamed = self.resources.get(&resource).is_some_and(|row| row.text("backend_id").is_empty());
        let next = match kind {
            OrderType::Terminate => ResourceState::Ok,
            OrderType::Create if !old && unnamed => ResourceState::Terminated,
            OrderType::Create | OrderType::Update | OrderType::Restore => ResourceState::Erred,
        };
        if next == ResourceState::Erred
            && let Some(row) = self.resources.get_mut(&resource)
        {
            row.set("error_message", message);
            row.set("error_traceback", traceback);
        }
        self.change_state(resource, next);
        Ok(())
    }

    /// Cancellation of a pending order by the consumer: → `canceled`; newer releases set the resource to OK.
    pub fn cancel(&mut self, order: Uuid) -> Result<(), Refusal> {
        const FROM: [OrderState; 4] = [
            OrderState::PendingConsumer,
            OrderState::PendingProvider,
            OrderState::PendingProject,
            OrderState::PendingStartDate,
        ];
        self.expect(order, &FROM, "pending-consumer, pending-provider, pending-project, pending-start-date")?;
        let (kind, resource) = self.kind_and_resource(order)?;
        self.move_order(order, OrderState::Canceled);
        if self.release == Release::Newer {
            self.leave_order(kind, resource);
        }
        Ok(())
    }

    /// Deletes a pending order of a new resource: the resource stays Creating, without an order.
    pub fn delete_order(&mut self, order: Uuid) -> Result<(), Refusal> {
        const FROM: [OrderState; 2] = [OrderState::PendingConsumer, OrderState::PendingProvider];
        self.expect(order, &FROM, "pending-consumer, pending-provider")?;
        if let Some(row) = self.orders.shift_remove(&order)
            && let Some(resource) = self.resources.get_mut(&row.resource)
        {
            resource.orders.retain(|known| *known != order);
            self.update_recorded_order(row.resource);
        }
        Ok(())
    }

    /// `set_state_ok` of a resource in Erred, Creating, Updating or Terminating; its order does not change.
    pub fn resource_ok(&mut self, resource: Uuid) -> Result<(), Refusal> {
        use ResourceState::{Creating, Erred, Terminating, Updating};
        let row = self.resources.get_mut(&resource).ok_or(Refusal::Unknown)?;
        if !matches!(row.state(), Some(Erred | Creating | Updating | Terminating)) {
            return Err(Refusal::WrongState("Erred, Creating, Updating, Terminating"));
        }
        row.set("error_message", "");
        row.set("error_traceback", "");
        self.change_state(resource, ResourceState::Ok);
        Ok(())
    }

    /// Sets a field of a resource and its `modified`; returns whether the value changed.
    pub fn change(&mut self, resource: Uuid, key: &str, value: Value) -> bool {
        let now = self.tick().text();
        match self.resources.get_mut(&resource) {
            Some(row) if row.record.get(key) != Some(&value) => {
                row.set(key, value);
                row.set("modified", now);
                self.announce_resource(resource);
                true
            }
            _ => false,
        }
    }

    /// Sets the state of a resource and its `modified`, also if the state stays the same.
    pub(crate) fn change_state(&mut self, resource: Uuid, state: ResourceState) {
        let now = self.tick().text();
        if let Some(row) = self.resources.get_mut(&resource) {
            row.set_state(state);
            row.set("modified", now);
            self.announce_resource(resource);
        }
    }

    fn reject(&mut self, order: Uuid) -> Result<(), Refusal> {
        let (kind, resource) = self.kind_and_resource(order)?;
        self.move_order(order, OrderState::Rejected);
        self.leave_order(kind, resource);
        Ok(())
    }

    /// Sets the state of a resource whose order is rejected or cancelled. Only a new resource gets another `modified`.
    fn leave_order(&mut self, kind: OrderType, resource: Uuid) {
        match kind {
            OrderType::Create | OrderType::Restore => self.change_state(resource, ResourceState::Terminated),
            OrderType::Update | OrderType::Terminate => {
                if let Some(row) = self.resources.get_mut(&resource) {
                    row.set_state(ResourceState::Ok);
                }
            }
        }
    }

    fn finish(&mut self, order: Uuid) -> Result<(), Refusal> {
        let (kind, resource) = self.kind_and_resource(order)?;
        let row = self.orders.get(&order).ok_or(Refusal::Unknown)?;
        let options = row.is_options_order();
        let limits = row.record.get("limits").cloned();
        let new = row.record.get("attributes").and_then(|attributes| attributes.get("new_options")).cloned();
        self.move_order(order, OrderState::Done);
        match kind {
            OrderType::Create | OrderType::Restore => {}
            OrderType::Update if options => {
                self.change(resource, "options", new.unwrap_or(Value::Null));
            }
            OrderType::Update => {
                self.change(resource, "limits", limits.unwrap_or(Value::Null));
            }
            OrderType::Terminate => {
                self.change_state(resource, ResourceState::Terminated);
                return Ok(());
            }
        }
        self.change_state(resource, ResourceState::Ok);
        Ok(())
    }

    fn move_order(&mut self, order: Uuid, state: OrderState) {
        let now = self.tick().text();
        if let Some(row) = self.orders.get_mut(&order) {
            row.set("state", state.as_str());
            row.set("modified", now);
            let resource = row.resource;
            self.update_recorded_order(resource);
            self.announce_order(order);
        }
    }

    fn expect(&self, order: Uuid, from: &[OrderState], names: &'static str) -> Result<(), Refusal> {
        let state = self.orders.get(&order).ok_or(Refusal::Unknown)?.state();
        if state.is_some_and(|state| from.contains(&state)) { Ok(()) } else { Err(Refusal::WrongState(names)) }
    }

    fn kind_and_resource(&self, order: Uuid) -> Result<(OrderType, Uuid), Refusal> {
        let row = self.orders.get(&order).ok_or(Refusal::Unknown)?;
        Ok((row.kind().ok_or(Refusal::Crash)?, row.resource))
    }

    fn offering_type(&self, order: Uuid) -> OfferingType {
        self.orders
            .get(&order)
            .and_then(|row| self.resources.get(&row.resource))
            .and_then(|row| self.offerings.get(&row.offering))
            .map_or(OfferingType::Slurm, |offering| offering.kind)
    }

    /// Refuses unless the offering is of type Slurm.
    pub(crate) fn slurm_only(&self, order: Uuid) -> Result<(), Refusal> {
        match self.offering_type(order) {
            OfferingType::Slurm => Ok(()),
            kind @ OfferingType::Basic => Err(Refusal::OfferingType(kind)),
        }
    }

    fn available(&self, order: Uuid) -> Result<(), Refusal> {
        let project = self
            .orders
            .get(&order)
            .and_then(|row| self.resources.get(&row.resource))
            .and_then(|row| self.projects.get(&row.project));
        let Some(project) = project else { return Ok(()) };
        let Some(customer) = self.customers.get(&project.customer) else { return Ok(()) };
        if customer.blocked {
            return Err(Refusal::Unavailable("Blocked organization is not available.".to_owned()));
        }
        if project.expired {
            let text = format!("Project '{} | {}' is expired.", project.name, customer.name);
            return Err(Refusal::Unavailable(text));
        }
        Ok(())
    }
}
