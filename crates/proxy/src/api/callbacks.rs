//! Relays callbacks to Waldur (`callbacks.relay`).
//!
//! A caller names an order or a resource and an action. The URL is looked up in the snapshot, so no input of a caller
//! becomes part of a URL. Each relayed callback writes two log lines, the second with its outcome.

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

use super::failure::{self, Failure};
use super::{Service, SharedService};
use crate::auth::{AuthError, Caller};
use crate::telemetry;
use crate::waldur::relay::Relayed;

/// Maximum size of a callback's body, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Time for the body of a callback to arrive, but at most half of a request's time.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Target of the log lines of callbacks.
const LOG_TARGET: &str = "proxy::callbacks";

/// What the path of a callback names.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Order,
    Resource,
}

/// The routes, with and without a trailing slash (decision D16).
pub(super) fn routes() -> Router<SharedService> {
    let orders = || action(Subject::Order);
    let resources = || action(Subject::Resource);
    Router::new()
        .route("/api/callbacks/orders/{order}/{action}/", orders())
        .route("/api/callbacks/orders/{order}/{action}", orders())
        .route("/api/callbacks/resources/{resource}/{action}/", resources())
        .route("/api/callbacks/resources/{resource}/{action}", resources())
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

fn action(subject: Subject) -> MethodRouter<SharedService> {
    let handler = move |caller, service, path, request| relay(subject, caller, service, path, request);
    post(handler).fallback(|| async { Failure::MethodNotAllowed("POST") })
}

async fn relay(
    subject: Subject,
    caller: Caller,
    State(service): State<SharedService>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    // Counts from before the body, which may arrive slowly.
    let deadline = Instant::now() + service.store.patience();
    let Caller { username, missing_for_callbacks: missing, .. } = caller;
    if !missing.is_empty() {
        return Ok(service.verifier.rejection(&AuthError::Forbidden { missing }).into_response());
    }
    // A path that is not valid text matches nothing.
    let Path((id, action)) = path.map_err(|_| Failure::NotFound)?;
    let actions = match subject {
        Subject::Order => ORDER_ACTIONS.as_slice(),
        Subject::Resource => RESOURCE_ACTIONS.as_slice(),
    };
    let action = *actions.iter().find(|known| **known == action).ok_or(Failure::NotFound)?;
    let body_time = BODY_TIME.min(service.store.patience() / 2);
    let Ok(body) = timeout(body_time, Bytes::from_request(request, &service)).await else {
        let detail = format!("the body is incomplete after {} s", body_time.as_secs_f64());
        let refusal = Failure::Refused(StatusCode::REQUEST_TIMEOUT, detail);
        return Ok(([(header::CONNECTION, "close")], refusal).into_response());
    };
    let body = object(body)?;
    let Ok(id) = Uuid::parse_str(&id) else { return Err(not_found(subject)) };
    let Found { link, order } = find(&service, subject, id, action).await?;
    // A separate task, so that the call and its log lines are completed even if the client disconnects.
    let task = async move {
        let order = order.map(tracing::field::display);
        let resource = matches!(subject, Subject::Resource).then(|| tracing::field::display(id));
        info!(target: LOG_TARGET, caller = username, order, resource, action, "relaying a callback");
        let rest = deadline.saturating_duration_since(Instant::now());
        let outcome = service.store.source().waldur().call(&link, body, rest).await;
        service.store.note_change(matches!(outcome, Relayed::Unknown(_)));
        let status = status(&outcome).as_u16();
        info!(
            target: LOG_TARGET, caller = username, order, resource, action, outcome = outcome.name(), status,
            "callback finished"
        );
        outcome
    };
    match tokio::spawn(telemetry::in_current_request(task.instrument(Span::current()))).await {
        Ok(outcome) => Ok(response(outcome)),
        Err(error) => {
            error!(target: LOG_TARGET, %error, "a callback was aborted by an internal error");
            Ok(failure::internal())
        }
    }
}

/// The unchanged body, if it is empty or a JSON object.
fn object(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Failure> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::Refused(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY} bytes"))
        }
        status => Failure::Refused(status, "the body is incomplete".to_owned()),
    })?;
    let is_object = || serde_json::from_slice::<&RawValue>(&body).is_ok_and(|value| value.get().starts_with('{'));
    if body.is_empty() || is_object() {
        return Ok(body);
    }
    Err(Failure::Refused(StatusCode::BAD_REQUEST, "the body must be empty or a JSON object".to_owned()))
}

/// Maximum age of the snapshot in which a callback is looked up first.
const RECENT: Duration = Duration::from_mins(1);

/// The target of a callback.
struct Found {
    link: String,
    order: Option<Uuid>,
}

/// Looks in the newest snapshot, then in a new one: the caller may know something that is newer than the snapshot.
async fn find(service: &Service, subject: Subject, id: Uuid, action: &str) -> Result<Found, Failure> {
    let mut refusal = not_found(subject);
    // Each call invalidates the snapshot, and a caller may act on many orders in a row. If the old snapshot has the link,
    // it suffices, because Waldur checks the state itself.
    for fresh in [false, true] {
        let newest = service.store.newest().filter(|reading| !fresh && reading.age() < RECENT);
        let reading = match newest {
            Some(reading) => reading,
            None if fresh => service.store.get(true).await?.reading,
            None => continue,
        };
        let matches = |callbacks: &&Callbacks| match subject {
            Subject::Order => callbacks.order == Some(id),
            Subject::Resource => callbacks.resource == id,
        };
        let Some(found) = reading.snapshot.callbacks().find(matches) else {
            refusal = not_found(subject);
            continue;
        };
        if let Some(link) = found.links.get(action) {
            return Ok(Found { link: link.clone(), order: found.order });
        }
        let detail = match (&found.order, &found.state) {
            (None, None) => {
                format!("the resource has no order in progress, so {action} is not possible; read the listing again")
            }
            (_, state) => {
                let state = state.as_deref().unwrap_or("in an unknown state");
                format!("the order is {state}, so {action} is not possible; read the listing again")
            }
        };
        refusal = Failure::Refused(StatusCode::CONFLICT, detail);
    }
    Err(refusal)
}

fn not_found(subject: Subject) -> Failure {
    let detail = match subject {
        Subject::Order => "no order in progress has this UUID; see `orders` in the listing",
        Subject::Resource => {
            "no resource with an order in progress, or in transition, has this UUID; see `orders` and `resourceLinks` in the \
             listing"
        }
    };
    Failure::Refused(StatusCode::NOT_FOUND, detail.to_owned())
}

fn status(outcome: &Relayed) -> StatusCode {
    match outcome {
        Relayed::Done(_) => StatusCode::OK,
        Relayed::Refused(status, _) => *status,
        Relayed::Failed(_) => StatusCode::BAD_GATEWAY,
        Relayed::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn response(outcome: Relayed) -> Response {
    let status = status(&outcome);
    let detail = match outcome {
        Relayed::Done(detail) => detail.unwrap_or_else(|| "Waldur accepted the callback.".to_owned()),
        Relayed::Refused(status, detail) => {
            detail.unwrap_or_else(|| format!("Waldur rejected the callback ({status})."))
        }
        Relayed::Failed(why) => format!("The callback could not be relayed: {why}"),
        Relayed::Unknown(why) => {
            format!("It is unknown whether the callback took effect: {why}. Read the listing again before you retry")
        }
    };
    (status, axum::Json(json!({ "detail": detail }))).into_response()
}
