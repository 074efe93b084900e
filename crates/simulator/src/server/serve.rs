//! Serves a request: logs it, builds the answer, and injects the fault, if any.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::Value;

use super::{Peer, stomp};
use crate::faults::Fault;
use crate::http::{Call, Reply, form};
use crate::state::ServiceState;

/// Maximum size of a request body in bytes.
const MAX_BODY: usize = 64 << 20;

pub(super) async fn serve(
    State(shared): State<Arc<ServiceState>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let Some(mut call) = read(request).await else {
        return whole(&Reply::raw(StatusCode::BAD_REQUEST, "text/plain", "the body cannot be read"));
    };
    shared.commit();
    if call.path.starts_with("/_simulator/") {
        return whole(&crate::admin::answer(&shared, &call));
    }
    let number = shared.log.add(&call, peer.number, peer.address);
    let fault = shared.faults.take(&call);
    match &fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Hold) => shared.faults.released().await,
        Some(Fault::Reset) => {
            peer.reset();
            return whole(&Reply::empty(StatusCode::OK));
        }
        Some(Fault::Delay { millis }) => tokio::time::sleep(Duration::from_millis(*millis)).await,
        Some(Fault::EndlessPages) => call.endless = true,
        _ => {}
    }
    let mut reply = match &fault {
        Some(Fault::Answer { status, headers, body }) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Reply { status, headers: headers.clone(), body: body.clone().into(), items: None }
        }
        _ => super::answer(&shared, &call),
    };
    match &fault {
        Some(Fault::Headers { headers }) => reply.replace(headers),
        Some(Fault::BadRecord) => reply.body = with_a_bad_record(&reply.body, |record| *record = Value::Null),
        Some(Fault::BadMembers) => reply.body = with_a_bad_record(&reply.body, break_members),
        _ => {}
    }
    if call.path.starts_with("/api/") {
        shared.costs.add(&call, &reply);
    }
    shared.follow_up(&call);
    if let Some(items) = reply.items {
        shared.latency.wait(items).await;
    }
    shared.log.set_status(number, reply.status.as_u16());
    match fault {
        Some(Fault::Dribble { millis }) => dribble(&reply, Duration::from_millis(millis)),
        Some(Fault::CutOff { after }) => cut_off(&reply, after),
        Some(Fault::EndlessBody) => endless(),
        Some(Fault::LoseRows { rows }) => {
            let mut world = shared.write();
            let lost = rows.min(world.resources.len());
            world.resources.drain(..lost);
            whole(&reply)
        }
        _ => whole(&reply),
    }
}

/// Serves a session with the broker, or the fault.
pub(super) async fn websocket(
    State(shared): State<Arc<ServiceState>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let Some(call) = read(request).await else {
        return whole(&Reply::empty(StatusCode::BAD_REQUEST));
    };
    shared.log.add(&call, peer.number, peer.address);
    match (shared.faults.take(&call), upgrade) {
        (Some(Fault::Answer { status, headers, body }), _) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            whole(&Reply { status, headers, body: body.into(), items: None })
        }
        (_, Ok(upgrade)) => stomp::upgrade(shared, upgrade),
        (_, Err(rejection)) => rejection.into_response(),
    }
}

async fn read(request: Request) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await.ok()?;
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str)).unwrap_or("localhost");
    Some(Call {
        base: format!("http://{host}"),
        path: parts.uri.path().to_owned(),
        target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        query: form(parts.uri.query().unwrap_or_default().as_bytes()),
        method: parts.method,
        headers: parts.headers,
        body,
        endless: false,
    })
}

fn whole(reply: &Reply) -> Response {
    let body = Body::from(reply.body.clone());
    head(reply, body)
}

fn head(reply: &Reply, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        } else {
            tracing::warn!(name, "skipped an invalid header");
        }
    }
    response
}

/// An answer that declares its full length, even if the body is not sent completely.
fn declared(reply: &Reply, body: Body) -> Response {
    let mut response = head(reply, body);
    response.headers_mut().insert("content-length", reply.body.len().into());
    response
}

fn break_members(record: &mut Value) {
    let members = record.as_object_mut().into_iter().flatten();
    for (_, value) in members.filter(|(name, _)| !matches!(name.as_str(), "uuid" | "posixName")) {
        *value = Value::Array(Vec::new());
    }
}

/// The body with the first record of its first list changed; unchanged if there is no such list.
fn with_a_bad_record(body: &Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    let Ok(mut body_read) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    let list = match &mut body_read {
        Value::Array(list) => Some(list),
        Value::Object(members) => members.values_mut().find_map(Value::as_array_mut),
        _ => None,
    };
    match list.and_then(|list| list.first_mut()) {
        Some(record) => change(record),
        None => return body.clone(),
    }
    body_read.to_string().into()
}

fn dribble(reply: &Reply, pause: Duration) -> Response {
    let bytes = reply.body.clone();
    let stream = stream::iter(0..bytes.len()).then(move |at| {
        let byte = bytes.slice(at..=at);
        async move {
            tokio::time::sleep(pause).await;
            Ok::<_, Infallible>(byte)
        }
    });
    declared(reply, Body::from_stream(stream))
}

fn cut_off(reply: &Reply, after: usize) -> Response {
    let start = reply.body.slice(..after.min(reply.body.len()));
    let end = stream::once(async {
        // Let the data sent so far leave before the connection closes.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    });
    let stream = stream::once(async move { Ok(start) }).chain(end);
    declared(reply, Body::from_stream(stream))
}

fn endless() -> Response {
    let row = r#"{"uuid":"00000000000000000000000000000000"},"#;
    let chunk = Bytes::from(row.repeat(1024));
    let stream = stream::once(async { Bytes::from_static(b"[") }).chain(stream::repeat(chunk)).map(Ok::<_, Infallible>);
    let head_only = Reply::raw(StatusCode::OK, "application/json", "");
    head(&head_only, Body::from_stream(stream))
}
