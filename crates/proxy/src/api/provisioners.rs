//! Receives the reports of provisioners.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, put};
use bytes::Bytes;
use provisioner_report::{InvalidReport, MAX_BYTES, is_valid_name};
use serde_json::error::Category;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::SharedService;
use super::failure::{self, Failure};
use crate::auth::{AuthError, Caller};
use crate::reports::Rejected;

/// Time for a report to arrive, but at most half of a request's time.
const BODY_TIME: Duration = Duration::from_secs(20);

/// The routes, with and without a trailing slash (decision D16).
pub(super) fn routes() -> Router<SharedService> {
    Router::new()
        .route("/api/provisioners/{name}/status/", report())
        .route("/api/provisioners/{name}/status", report())
        .layer(DefaultBodyLimit::max(MAX_BYTES))
}

fn report() -> MethodRouter<SharedService> {
    put(receive).fallback(|| async { Failure::MethodNotAllowed("PUT") })
}

async fn receive(
    caller: Caller,
    State(service): State<SharedService>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let missing = caller.missing_for_reports;
    if !missing.is_empty() {
        return Ok(service.verifier.rejection(&AuthError::Forbidden { missing }).into_response());
    }
    let name = name.ok().map(|Path(name)| name).filter(|name| is_valid_name(name)).ok_or_else(|| {
        let detail = "invalid name of a provisioner: 1 to 63 lower-case letters, digits, dots, hyphens and underscores are \
                      allowed, beginning with a letter or digit";
        Failure::Refused(StatusCode::UNPROCESSABLE_ENTITY, detail.to_owned())
    })?;
    let body_time = BODY_TIME.min(service.store.patience() / 2);
    let Ok(Ok(permit)) = timeout(body_time, Arc::clone(&service.reports.receiving).acquire_owned()).await else {
        return Err(Failure::TooMany("Too many reports of provisioners arrive at the same time."));
    };
    let Ok(body) = timeout(body_time, Bytes::from_request(request, &service)).await else {
        let detail = format!("the report is incomplete after {} s", body_time.as_secs_f64());
        let refusal = Failure::Refused(StatusCode::REQUEST_TIMEOUT, detail);
        return Ok(([(header::CONNECTION, "close")], refusal).into_response());
    };
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::Refused(StatusCode::PAYLOAD_TOO_LARGE, format!("the report is larger than {MAX_BYTES} bytes"))
        }
        status => Failure::Refused(status, "the report is incomplete".to_owned()),
    })?;
    // Parsing a large report takes a while. It continues with its permit if the client disconnects.
    let reports = Arc::clone(&service.reports);
    let taking = spawn_blocking(move || {
        let taken = reports.take(&name, &body);
        drop(permit);
        taken
    });
    match taking.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Err(rejected)) => Err(Failure::Refused(status(&rejected), rejected.to_string())),
        // The panic hook has reported the panic.
        Err(_) => Ok(failure::internal()),
    }
}

fn status(rejected: &Rejected) -> StatusCode {
    match rejected {
        Rejected::Invalid(InvalidReport::Json(error)) if error.classify() != Category::Data => StatusCode::BAD_REQUEST,
        Rejected::Invalid(_) | Rejected::Future { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Rejected::Older { .. } => StatusCode::CONFLICT,
        Rejected::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Rejected::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
    }
}
