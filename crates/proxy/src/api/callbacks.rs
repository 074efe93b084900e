//! Callbacks that are relayed to Waldur (`callbacks.relay`).
//!
//! A caller names an order or a resource and an action. Where that leads is looked up in the snapshot, so nothing that
//! a caller writes becomes part of a URL. Each relayed callback leaves two lines in the log, the second with its outcome.

use std::time::Duration;

use axum::Router;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use catalog::{Callbacks, ORDER_ACTIONS, RESOURCE_ACTIONS};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, error, info};
use uuid::Uuid;

use super::Service;
use super::failure::{self, Failure};
use crate::auth::{AuthError, Caller};
use crate::telemetry;
use crate::waldur::relay::Relayed;

/// Largest body of a callback, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Most time for the body of a callback to arrive; where requests have less than twice as much, half of their time.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Target of the lines that callbacks leave in the log.
const JOURNAL: &str = "proxy::callbacks";

/// What a path names.
#[derive(Debug, Clone, Copy)]
enum Of {
    Order,
    Resource,
}

/// The routes; both spellings answer (decision D16).
pub(super) fn routes() -> Router<Service> {
    let orders = || action(Of::Order);
    let resources = || action(Of::Resource);
    Router::new()
        .route("/api/callbacks/orders/{order}/{action}/", orders())
        .route("/api/callbacks/orders/{order}/{action}", orders())
        .route("/api/callbacks/resources/{resource}/{action}/", resources())
        .route("/api/callbacks/resources/{resource}/{action}", resources())
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

fn action(of: Of) -> MethodRouter<Service> {
    let handler = move |caller, service, path, request| relay(of, caller, service, path, request);
    post(handler).fallback(|| async { Failure::MethodNotAllowed("POST") })
}

async fn relay(
    of: Of,
    caller: Caller,
    State(service): State<Service>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    // Before the body, which may come slowly.
    let deadline = Instant::now() + service.store.patience();
    let Caller { username, missing_for_callbacks: missing } = caller;
    if !missing.is_empty() {
        return Ok(service.verifier.rejection(&AuthError::Forbidden { missing }).into_response());
    }
    // What is not even text names nothing.
    let Path((id, action)) = path.map_err(|_| Failure::NotFound)?;
    let actions = match of {
        Of::Order => ORDER_ACTIONS.as_slice(),
        Of::Resource => RESOURCE_ACTIONS.as_slice(),
    };
    let action = *actions.iter().find(|known| **known == action).ok_or(Failure::NotFound)?;
    let body_time = BODY_TIME.min(service.store.patience() / 2);
    let Ok(body) = timeout(body_time, Bytes::from_request(request, &service)).await else {
        let detail = format!("the body is not complete after {} s", body_time.as_secs_f64());
        let refusal = Failure::Callback(StatusCode::REQUEST_TIMEOUT, detail);
        return Ok(([(header::CONNECTION, "close")], refusal).into_response());
    };
    let body = object(body)?;
    let Ok(id) = Uuid::parse_str(&id) else { return Err(nothing(of)) };
    let Found { link, order } = find(&service, of, id, action).await?;
    // A task of its own, so that whoever stops waiting leaves neither the order half done nor the log half told.
    let task = async move {
        let order = order.map(tracing::field::display);
        let resource = matches!(of, Of::Resource).then(|| tracing::field::display(id));
        info!(target: JOURNAL, caller = username, order, resource, action, "a callback is relayed");
        let rest = deadline.saturating_duration_since(Instant::now());
        let outcome = service.store.source().waldur().call(&link, body, rest).await;
        service.store.note_change();
        let status = status(&outcome).as_u16();
        info!(
            target: JOURNAL, caller = username, order, resource, action, outcome = outcome.name(), status,
            "a callback has ended"
        );
        outcome
    };
    match tokio::spawn(telemetry::in_current_request(task.instrument(Span::current()))).await {
        Ok(outcome) => Ok(answer(outcome)),
        Err(error) => {
            error!(target: JOURNAL, %error, "a callback was cut short by a fault of this program");
            Ok(failure::internal())
        }
    }
}

/// The body as it came: a JSON object, or nothing.
fn object(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Failure> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::Callback(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY} bytes"))
        }
        status => Failure::Callback(status, "the body breaks off".to_owned()),
    })?;
    let is_object = || serde_json::from_slice::<&RawValue>(&body).is_ok_and(|value| value.get().starts_with('{'));
    if body.is_empty() || is_object() {
        return Ok(body);
    }
    Err(Failure::Callback(StatusCode::BAD_REQUEST, "the body is neither empty nor a JSON object".to_owned()))
}

/// How old a snapshot may be in which a callback is looked up first.
const RECENT: Duration = Duration::from_mins(1);

/// Where a callback leads.
struct Found {
    link: String,
    order: Option<Uuid>,
}

/// Looks in the newest snapshot, and once more in a new one: what a caller has just learned elsewhere may be news here.
async fn find(service: &Service, of: Of, id: Uuid, action: &str) -> Result<Found, Failure> {
    let mut refusal = nothing(of);
    // A caller tells of many orders one after the other, and each call makes the snapshot old: what it has is enough where
    // Waldur itself judges the state.
    for fresh in [false, true] {
        let newest = service.store.newest().filter(|reading| !fresh && reading.age() < RECENT);
        let reading = match newest {
            Some(reading) => reading,
            None if fresh => service.store.get(true).await?.reading,
            None => continue,
        };
        let is_meant = |callbacks: &&Callbacks| match of {
            Of::Order => callbacks.order == Some(id),
            Of::Resource => callbacks.resource == id,
        };
        let Some(found) = reading.snapshot.callbacks().iter().find(is_meant) else {
            refusal = nothing(of);
            continue;
        };
        if let Some(link) = found.links.get(action) {
            return Ok(Found { link: link.clone(), order: found.order });
        }
        let detail = match (&found.order, &found.state) {
            (None, None) => {
                format!("the resource has no order in progress, which does not allow {action}; read the listing again")
            }
            (_, state) => {
                let state = state.as_deref().unwrap_or("in an unknown state");
                format!("the order is {state}, which does not allow {action}; read the listing again")
            }
        };
        refusal = Failure::Callback(StatusCode::CONFLICT, detail);
    }
    Err(refusal)
}

fn nothing(of: Of) -> Failure {
    let detail = match of {
        Of::Order => "no order in progress has this UUID; the listing's `orders` has those that there are",
        Of::Resource => {
            "no resource with an order in progress, or in transition, has this UUID; the listing's `orders` and `resourceLinks` \
             have those that there are"
        }
    };
    Failure::Callback(StatusCode::NOT_FOUND, detail.to_owned())
}

fn status(outcome: &Relayed) -> StatusCode {
    match outcome {
        Relayed::Done(_) => StatusCode::OK,
        Relayed::Refused(status, _) => *status,
        Relayed::Failed(_) => StatusCode::BAD_GATEWAY,
        Relayed::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn answer(outcome: Relayed) -> Response {
    let status = status(&outcome);
    let detail = match outcome {
        Relayed::Done(detail) => detail.unwrap_or_else(|| "Waldur has done it.".to_owned()),
        Relayed::Refused(status, detail) => detail.unwrap_or_else(|| format!("Waldur refuses it ({status}).")),
        Relayed::Failed(why) => format!("The callback could not be relayed: {why}"),
        Relayed::Unknown(why) => {
            format!(
                "Whether the callback had its effect is unknown: {why}. Read the listing again before the next attempt"
            )
        }
    };
    (status, axum::Json(json!({ "detail": detail }))).into_response()
}
