//! Calls that change an order or a resource.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::access::{self, Caller};
use super::refusals;
use crate::World;
use crate::http::{Call, Reply};
use crate::state::ServiceState;
use crate::world::{OrderState, Release, Resource, ResourceState};

pub(super) const ORDER: [&str; 6] =
    ["approve_by_provider", "reject_by_provider", "set_state_done", "set_state_erred", "set_state_executing", "cancel"];

/// Whether this release has this action of a provider's resource.
pub(super) fn known(shared: &ServiceState, action: &str) -> bool {
    match action {
        "set_backend_id" | "set_backend_metadata" | "submit_report" => true,
        "update_options_direct" => shared.read().release == Release::Newer,
        "set_state_ok" => {
            let world = shared.read();
            world.release == Release::Newer && world.has_set_state_ok
        }
        _ => false,
    }
}

pub(super) fn order(shared: &ServiceState, call: &Call, id: Option<Uuid>, action: &str) -> Reply {
    let mut world = shared.write();
    let user = match access::authenticate(&world, call) {
        Ok(user) => user.clone(),
        Err(reply) => return reply,
    };
    let id = {
        let caller = Caller::new(&world, &user);
        let found = id.and_then(|id| world.orders.get(&id)).and_then(|order| {
            let resource = world.resources.get(&order.resource)?;
            let visible = caller.sees_as_provider(resource.offering) || caller.sees_as_consumer(resource);
            visible.then_some((order.uuid, resource))
        });
        let Some((id, resource)) = found else { return refusals::missing("Order") };
        let allowed = if action == "cancel" {
            caller.consumes(resource)
        } else {
            world.offerings.get(&resource.offering).is_some_and(|offering| caller.owns(offering))
        };
        if !allowed {
            return refusals::forbidden();
        }
        id
    };
    let newer = world.release == Release::Newer;
    let done = match action {
        "approve_by_provider" => match approval(call, newer) {
            // 409 is checked before 400.
            Err(reply) if world.orders[&id].state() == Some(OrderState::PendingProvider) => return reply,
            attributes => world.approve(id, attributes.unwrap_or_default()),
        },
        "reject_by_provider" => {
            let body = refusals::body(call).unwrap_or(Value::Null);
            world.provider_reject(id, body["provider_rejection_comment"].as_str().unwrap_or_default())
        }
        "set_state_done" => world.set_done(id),
        "set_state_executing" => world.set_executing(id),
        "cancel" => world.cancel(id),
        _ => return erred(&mut world, call, id),
    };
    match done {
        Err(refusal) => refusals::transition(&refusal, "Order"),
        // The exact text of newer releases is not known, but the body is an object with `detail`.
        Ok(()) if newer && action == "approve_by_provider" => {
            refusals::detail(StatusCode::OK, "Order has been approved.")
        }
        Ok(()) => Reply::empty(StatusCode::OK),
    }
}

/// `DELETE` of an order by its consumer.
pub(super) fn delete(shared: &ServiceState, call: &Call, id: Option<Uuid>) -> Reply {
    let mut world = shared.write();
    let user = match access::authenticate(&world, call) {
        Ok(user) => user.clone(),
        Err(reply) => return reply,
    };
    let caller = Caller::new(&world, &user);
    let found = id.and_then(|id| world.orders.get(&id)).and_then(|order| {
        let resource = world.resources.get(&order.resource)?;
        (caller.sees_as_provider(resource.offering) || caller.sees_as_consumer(resource)).then_some((order, resource))
    });
    let Some((order, resource)) = found else { return refusals::missing("Order") };
    if !caller.sees_as_consumer(resource) || user.is_support {
        return refusals::forbidden();
    }
    let id = order.uuid;
    match world.delete_order(id) {
        Ok(()) => Reply::empty(StatusCode::NO_CONTENT),
        Err(refusal) => refusals::transition(&refusal, "Order"),
    }
}

/// The attributes in an approval; 7.0.x ignores the body.
fn approval(call: &Call, newer: bool) -> Result<Map<String, Value>, Reply> {
    if !newer {
        return Ok(Map::new());
    }
    match refusals::body(call)? {
        Value::Object(mut body) => match body.remove("attributes") {
            None => Ok(Map::new()),
            Some(Value::Object(attributes)) => Ok(attributes),
            Some(_) => Err(refusals::invalid("attributes", "Expected a dictionary of items.")),
        },
        _ => Err(refusals::invalid("non_field_errors", "Invalid data. Expected a dictionary.")),
    }
}

fn erred(world: &mut World, call: &Call, id: Uuid) -> Reply {
    // The type of the offering is checked before the body.
    if let Err(refusal) = world.slurm_only(id) {
        return refusals::transition(&refusal, "Order");
    }
    let body = match refusals::body(call) {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let fields =
        ["error_message", "error_traceback"].map(|field| (field, refusals::text_field(&body, field, usize::MAX)));
    let faults: Map<String, Value> = fields
        .iter()
        .filter_map(|(field, validated)| validated.as_ref().err().map(|fault| ((*field).to_owned(), fault.clone())))
        .collect();
    if !faults.is_empty() {
        return Reply::json(StatusCode::BAD_REQUEST, &Value::Object(faults));
    }
    let [message, traceback] = fields.map(|(_, validated)| validated.unwrap_or_default());
    if world.release == Release::V7_0 && (message.is_none() || traceback.is_none()) {
        return refusals::crash();
    }
    match world.set_erred(id, &message.unwrap_or_default(), &traceback.unwrap_or_default()) {
        Ok(()) => Reply::empty(StatusCode::OK),
        Err(refusal) => refusals::transition(&refusal, "Order"),
    }
}

pub(super) fn resource(shared: &ServiceState, call: &Call, id: Option<Uuid>, action: &str) -> Reply {
    let mut world = shared.write();
    let user = match access::authenticate(&world, call) {
        Ok(user) => user.clone(),
        Err(reply) => return reply,
    };
    let id = match permitted(&Caller::new(&world, &user), id, action) {
        Ok(id) => id,
        Err(reply) => return reply,
    };
    if action == "set_state_ok" {
        return match world.resource_ok(id) {
            Ok(()) => status("Resource state has been set to OK."),
            Err(refusal) => refusals::transition(&refusal, "Resource"),
        };
    }
    if action == "update_options_direct" && has_open_options_order(&world, id) {
        return refusals::detail(StatusCode::CONFLICT, "An order that changes the options is in progress.");
    }
    let body = match refusals::body(call) {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    match action {
        "set_backend_id" => set_backend_id(&mut world, id, &body),
        "set_backend_metadata" => {
            set_field(&mut world, id, &body, "backend_metadata", "The backend metadata is updated")
        }
        "submit_report" => set_field(&mut world, id, &body, "report", "Report is submitted"),
        _ => merge_options(&mut world, id, &body),
    }
}

fn permitted(caller: &Caller<'_>, id: Option<Uuid>, action: &str) -> Result<Uuid, Reply> {
    let consumer_side = action == "update_options";
    let sees = |row: &&Resource| {
        if consumer_side { caller.sees_as_consumer(row) } else { caller.sees_as_provider(row.offering) }
    };
    let Some(row) = id.and_then(|id| caller.world.resources.get(&id)).filter(sees) else {
        return Err(refusals::missing("Resource"));
    };
    let allowed = if consumer_side {
        caller.consumes(row)
    } else {
        caller.world.offerings.get(&row.offering).is_some_and(|offering| caller.serves(offering))
    };
    if allowed { Ok(row.uuid) } else { Err(refusals::forbidden()) }
}

fn has_open_options_order(world: &World, id: Uuid) -> bool {
    world
        .resources
        .get(&id)
        .and_then(|row| world.order_in_progress(row))
        .is_some_and(crate::world::Order::is_options_order)
}

fn set_backend_id(world: &mut World, id: Uuid, body: &Value) -> Reply {
    match refusals::text_field(body, "backend_id", 255) {
        Err(fault) => Reply::json(StatusCode::BAD_REQUEST, &json!({ "backend_id": fault })),
        Ok(None) if world.release == Release::V7_0 => refusals::crash(),
        Ok(None) => refusals::invalid("backend_id", "This field is required."),
        Ok(Some(text)) if world.unique_backend_ids && is_used_by_another(world, id, &text) => {
            refusals::invalid("backend_id", "This backend ID is not unique within the offering.")
        }
        Ok(Some(text)) if world.change(id, "backend_id", text.clone().into()) => {
            status("Resource backend_id has been changed.")
        }
        Ok(Some(_)) => status("Resource backend_id is not changed."),
    }
}

/// Whether another resource of the same offering, not terminated, has this `backend_id`.
fn is_used_by_another(world: &World, id: Uuid, backend_id: &str) -> bool {
    let offering = world.resources.get(&id).map(|row| row.offering);
    world.resources.values().any(|row| {
        row.uuid != id
            && Some(row.offering) == offering
            && row.state() != Some(ResourceState::Terminated)
            && row.text("backend_id") == backend_id
    })
}

fn set_field(world: &mut World, id: Uuid, body: &Value, field: &str, done: &str) -> Reply {
    match body.get(field) {
        None => refusals::invalid(field, "This field is required."),
        Some(Value::Null) => refusals::invalid(field, "This field may not be null."),
        Some(value) => {
            world.change(id, field, value.clone());
            status(done)
        }
    }
}

/// Merges the options into the existing ones. Types that an offering may prescribe are not checked.
fn merge_options(world: &mut World, id: Uuid, body: &Value) -> Reply {
    let new = match body.get("options") {
        None => &Map::new(),
        Some(Value::Object(new)) => new,
        Some(Value::Null) => {
            let fault = json!({ "options": { "non_field_errors": ["No data provided"] } });
            return Reply::json(StatusCode::BAD_REQUEST, &fault);
        }
        Some(_) => return refusals::invalid("options", "Invalid data. Expected a dictionary."),
    };
    let old = world.resources.get(&id).and_then(|row| row.record.get("options")).and_then(Value::as_object);
    let mut options = old.cloned().unwrap_or_default();
    options.extend(new.clone());
    world.change(id, "options", Value::Object(options));
    status("Resource options are submitted")
}

fn status(text: &str) -> Reply {
    Reply::json(StatusCode::OK, &json!({ "status": text }))
}
