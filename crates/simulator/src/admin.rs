//! The endpoints below `/_simulator/`: faults, requests, costs, orders, changes, the world, sessions and keys, for use from a shell.

use std::collections::HashMap;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::faults::FaultRule;
use crate::http::{Call, Reply};
use crate::state::ServiceState;
use crate::world::{NewResource, Resource, ResourceState, World};

/// A request to place an order.
#[derive(Deserialize)]
struct NewOrder {
    #[serde(flatten)]
    request: OrderRequest,
    /// Whether the order still needs the consumer's approval.
    #[serde(default)]
    pending_consumer: bool,
}

/// The order to place. Offerings, projects and resources are given by slug.
#[derive(Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
enum OrderRequest {
    Create {
        offering: String,
        project: String,
        slug: String,
        limits: Value,
        #[serde(default)]
        attributes: Map<String, Value>,
    },
    UpdateLimits {
        resource: String,
        limits: Value,
    },
    UpdateOptions {
        resource: String,
        options: Map<String, Value>,
    },
    Terminate {
        resource: String,
    },
    Restore {
        resource: String,
    },
    /// Cancels the resource's oldest open order, as its consumer.
    Cancel {
        resource: String,
    },
}

/// A change that is not an order. Customers, projects and resources are given by slug.
#[derive(Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
enum Change {
    /// Adds a project with a GID.
    NewProject { customer: String, slug: String, gid: u32 },
    /// Sets the GID of a project.
    Gid { project: String, gid: Option<u32> },
    /// Renames a project in Waldur and in the HPC User API.
    Slug { project: String, slug: String },
    /// Moves a resource to another project.
    Project { resource: String, project: String },
    /// Sets the state of a resource, as in Waldur's administration.
    State { resource: String, state: String },
    /// Whether a project is expired.
    Expired { project: String, expired: bool },
    /// Whether a customer is blocked.
    Blocked { customer: String, blocked: bool },
    /// By how many seconds the clock of the header `Date` is ahead of the clock that dates rows.
    Clocks { date_ahead: i32 },
    /// Whether Waldur's background worker lags. If not, it carries out its deferred tasks now.
    WorkerLags { lags: bool },
}

/// Answers a request below `/_simulator/`.
pub(crate) fn answer(shared: &ServiceState, call: &Call) -> Reply {
    match (&call.method, call.path.trim_end_matches('/')) {
        (&Method::GET, "/_simulator/faults") => Reply::json(StatusCode::OK, &json!(shared.faults.all())),
        (&Method::POST, "/_simulator/faults") => {
            let example = json!({ "route": "GET /api/*", "times": 3,
                "fault": { "kind": "answer", "status": 503, "headers": [["Retry-After", "2"]] } });
            match parsed::<FaultRule>(call, "fault", &example) {
                Ok(rule) => {
                    shared.faults.add(rule);
                    Reply::empty(StatusCode::NO_CONTENT)
                }
                Err(reply) => reply,
            }
        }
        (&Method::DELETE, "/_simulator/faults") => {
            shared.faults.clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        (&Method::GET, "/_simulator/requests") => Reply::json(StatusCode::OK, &json!(shared.log.all())),
        (&Method::DELETE, "/_simulator/requests") => {
            shared.log.clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        (&Method::GET, "/_simulator/costs") => Reply::json(StatusCode::OK, &shared.costs.shown()),
        (&Method::DELETE, "/_simulator/costs") => {
            shared.costs.clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        (&Method::POST, "/_simulator/orders") => order(shared, call),
        (&Method::POST, "/_simulator/changes") => change(shared, call),
        (&Method::GET, "/_simulator/world") => {
            let world = shared.read();
            Reply::json(StatusCode::OK, &summary(&world, &shared.projects(&world)))
        }
        (&Method::DELETE, "/_simulator/sessions") => {
            shared.realm.end_sessions();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        (&Method::POST, "/_simulator/rotate-keys") => {
            let keep = call.last("keep") == Some("true");
            match shared.realm.rotate(keep) {
                Ok(kid) => Reply::json(StatusCode::OK, &json!({ "kid": kid, "kept_old": keep })),
                Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        _ => refuse(
            StatusCode::NOT_FOUND,
            "GET|POST|DELETE faults, GET|DELETE requests, GET|DELETE costs, POST orders, POST changes, GET world, DELETE sessions, POST rotate-keys[?keep=true]",
        ),
    }
}

fn refuse(status: StatusCode, text: &str) -> Reply {
    Reply::json(status, &json!({ "detail": text }))
}

fn parsed<T: DeserializeOwned>(call: &Call, what: &str, example: &Value) -> Result<T, Reply> {
    serde_json::from_slice(&call.body).map_err(|error| {
        let body = json!({ "detail": format!("invalid {what}: {error}"), "example": example });
        Reply::json(StatusCode::BAD_REQUEST, &body)
    })
}

fn order(shared: &ServiceState, call: &Call) -> Reply {
    let example = json!({ "order": "update_limits", "resource": "capstor-store-0", "limits": { "storage": 50 } });
    let new = match parsed::<NewOrder>(call, "order", &example) {
        Ok(new) => new,
        Err(reply) => return reply,
    };
    let mut world = shared.write();
    let is_cancelled = matches!(new.request, OrderRequest::Cancel { .. });
    let Some(order) = place(&mut world, new.request) else {
        return refuse(StatusCode::NOT_FOUND, "unknown slug of an offering, project or resource, or no open order");
    };
    if is_cancelled {
        if let Err(refusal) = world.cancel(order) {
            return refuse(StatusCode::CONFLICT, &refusal.to_string());
        }
    } else if !new.pending_consumer
        && let Err(refusal) = world.consumer_approve(order)
    {
        return refuse(StatusCode::CONFLICT, &refusal.to_string());
    }
    let row = &world.orders[&order];
    let url = format!("{}/api/marketplace-orders/{}/", call.base, order.simple());
    Reply::json(
        StatusCode::CREATED,
        &json!({ "order": url, "state": row.text("state"), "resource": row.resource.simple() }),
    )
}

fn place(world: &mut World, request: OrderRequest) -> Option<Uuid> {
    let resource = |world: &World, slug: &str| world.resource_by_slug(slug).map(|row| row.uuid);
    match request {
        OrderRequest::Create { offering, project, slug, limits, attributes } => {
            let offering = world.offering_by_slug(&offering)?.uuid;
            let project = world.projects.values().find(|row| row.slug == project)?.uuid;
            Some(world.order_create(NewResource { offering, project, slug, limits, attributes: attributes.into() }))
        }
        OrderRequest::UpdateLimits { resource: slug, limits } => {
            let id = resource(world, &slug)?;
            world.order_update_limits(id, limits)
        }
        OrderRequest::UpdateOptions { resource: slug, options } => {
            let id = resource(world, &slug)?;
            world.order_update_options(id, &options)
        }
        OrderRequest::Terminate { resource: slug } => {
            let id = resource(world, &slug)?;
            world.order_terminate(id)
        }
        OrderRequest::Restore { resource: slug } => {
            let id = resource(world, &slug)?;
            world.order_restore(id)
        }
        OrderRequest::Cancel { resource: slug } => {
            let row = world.resource_by_slug(&slug)?;
            world.order_in_progress(row).map(|order| order.uuid)
        }
    }
}

fn change(shared: &ServiceState, call: &Call) -> Reply {
    let example = json!({ "change": "gid", "project": "mch-p1", "gid": 30999 });
    let change = match parsed::<Change>(call, "change", &example) {
        Ok(change) => change,
        Err(reply) => return reply,
    };
    match apply(&mut shared.write(), change) {
        Some(()) => Reply::empty(StatusCode::NO_CONTENT),
        None => refuse(StatusCode::NOT_FOUND, "unknown slug of a customer, project or resource, or unknown state"),
    }
}

fn apply(world: &mut World, change: Change) -> Option<()> {
    let project = |world: &World, slug: &str| world.projects.values().find(|row| row.slug == slug).map(|row| row.uuid);
    match change {
        Change::NewProject { customer, slug, gid } => {
            let customer = world.customers.values().find(|row| row.slug == customer)?.uuid;
            world.add_project(customer, &slug, &slug);
            world.hpc.add_project(&slug, Some(gid));
        }
        Change::Gid { project: slug, gid } => {
            project(world, &slug)?;
            world.hpc.set_gid(&slug, gid);
        }
        Change::Slug { project: old, slug } => {
            let id = project(world, &old)?;
            world.projects.get_mut(&id)?.slug.clone_from(&slug);
            for row in world.hpc.projects.iter_mut().filter(|row| row["posixName"] == old) {
                row["posixName"] = json!(slug);
            }
        }
        Change::Project { resource, project: slug } => {
            let project = project(world, &slug)?;
            world.resource_by_slug_mut(&resource)?.project = project;
        }
        Change::State { resource, state } => {
            let id = world.resource_by_slug(&resource)?.uuid;
            world.change_state(id, ResourceState::parse(&state)?);
        }
        Change::Expired { project: slug, expired } => {
            let id = project(world, &slug)?;
            world.projects.get_mut(&id)?.expired = expired;
        }
        Change::Blocked { customer, blocked } => {
            world.customers.values_mut().find(|row| row.slug == customer)?.blocked = blocked;
        }
        Change::Clocks { date_ahead } => world.date_ahead = i64::from(date_ahead) * 1_000_000,
        Change::WorkerLags { lags } => {
            world.worker_lags = lags;
            if !lags {
                world.run_worker();
            }
        }
    }
    Some(())
}

/// The resources with their orders, without faults and permissions. `projects`: positions in `world.hpc.projects` by name.
fn summary(world: &World, projects: &HashMap<String, Vec<usize>>) -> Value {
    let hpc = |slug: &str| projects.get(slug).and_then(|positions| world.hpc.projects.get(*positions.first()?));
    let orders = |resource: &Resource| {
        let rows = resource.orders.iter().filter_map(|order| world.orders.get(order));
        let rows = rows.map(|row| json!({ "uuid": row.uuid, "type": row.text("type"), "state": row.text("state") }));
        rows.collect::<Vec<_>>()
    };
    let rows = world.resources.values().map(|row| {
        let project = world.projects.get(&row.project);
        json!({
            "uuid": row.uuid, "slug": row.text("slug"), "state": row.text("state"), "backend_id": row.text("backend_id"),
            "limits": row.record.get("limits"), "options": row.record.get("options"), "attributes": row.record.get("attributes"),
            "offering": world.offerings.get(&row.offering).map(|offering| &offering.slug),
            "project": project.map(|project| &project.slug),
            "gid": project.and_then(|project| hpc(&project.slug)).map(|row| &row["unixGid"]),
            "orders": orders(row),
        })
    });
    rows.collect()
}
