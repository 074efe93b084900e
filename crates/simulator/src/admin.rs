//! The endpoints below `/_simulator/`: faults, requests, orders and keys, for use from a shell.

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::faults::FaultRule;
use crate::http::{Call, Reply};
use crate::state::ServiceState;
use crate::world::{NewResource, World};

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
        (&Method::POST, "/_simulator/orders") => order(shared, call),
        (&Method::POST, "/_simulator/rotate-keys") => {
            let keep = call.last("keep") == Some("true");
            match shared.realm.rotate(keep) {
                Ok(kid) => Reply::json(StatusCode::OK, &json!({ "kid": kid, "kept_old": keep })),
                Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        _ => refuse(
            StatusCode::NOT_FOUND,
            "GET|POST|DELETE faults, GET|DELETE requests, POST orders, POST rotate-keys[?keep=true]",
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
    let Some(order) = place(&mut world, new.request) else {
        return refuse(StatusCode::NOT_FOUND, "unknown slug of an offering, project or resource");
    };
    if !new.pending_consumer
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
    }
}
