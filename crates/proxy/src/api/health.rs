//! `/health/live`, `/health/ready` and `/metrics`.
//!
//! They show no URL, project or caller. They bypass the middleware of the API, so that they work when the request limit is
//! reached, and probes do not fill the log.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::Serialize;
use tokio::time::Instant;

use super::Service;
use super::failure::Failure;
use super::gauges;
use super::layers::NO_SNIFF;
use crate::auth::KeysStatus;
use crate::upstream::Upstream;

/// Content type of Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes(service: Service) -> Router {
    // With and without a trailing slash, as in the API.
    let both = |router: Router<Service>, path: &str, handler: MethodRouter<Service>| {
        router.route(path, handler.clone()).route(&format!("{path}/"), handler)
    };
    let router = both(Router::new(), "/health/live", get(live));
    let router = both(router, "/health/ready", get(ready));
    both(router, "/metrics", get(metrics))
        .method_not_allowed_fallback(|| async { Failure::MethodNotAllowed("GET, HEAD") })
        .with_state(service)
        .layer(middleware::from_fn(add_headers))
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// 200 while the process runs.
async fn live() -> Response {
    Json(serde_json::json!({ "live": true })).into_response()
}

async fn metrics(State(service): State<Service>) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], gauges::render(&service)).into_response()
}

/// Whether requests can be served. If not, starts to fetch what is missing, without waiting for it.
async fn ready(State(service): State<Service>) -> Response {
    let health = Health::of(&service);
    if health.ready {
        return Json(health).into_response();
    }
    if !service.store.is_ready() {
        service.store.prompt();
    }
    service.verifier.prompt();
    (StatusCode::SERVICE_UNAVAILABLE, Json(health)).into_response()
}

/// The state of the proxy. Ages are in seconds.
#[derive(Debug, Serialize)]
struct Health {
    ready: bool,
    /// Why it is not ready.
    reasons: Vec<&'static str>,
    snapshot: SnapshotHealth,
    /// `None`: authentication is disabled.
    keys: Option<KeysHealth>,
    upstreams: Vec<UpstreamHealth>,
    /// State of the shared cache, which does not affect readiness. `None`: not configured, or not used yet.
    shared_cache: Option<&'static str>,
    /// Whether Waldur's events are received, which does not affect readiness. `None`: not configured.
    push: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct SnapshotHealth {
    age_s: Option<f64>,
    last_refresh: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct KeysHealth {
    age_s: Option<f64>,
    usable: bool,
}

#[derive(Debug, Serialize)]
struct UpstreamHealth {
    name: &'static str,
    last_success_s: Option<f64>,
    last_failure_s: Option<f64>,
    breaker: &'static str,
}

impl Health {
    fn of(service: &Service) -> Self {
        let newest = service.store.newest();
        let last_refresh = service.store.last_refresh();
        let keys = service.verifier.keys();
        let mut reasons = Vec::new();
        if !service.store.is_ready() {
            reasons.push(match (&newest, last_refresh) {
                (Some(_), _) => "the last refresh failed, and the snapshot is too old to be served",
                (None, Some(_)) => "no refresh has succeeded yet",
                (None, None) => "the first refresh is still running",
            });
        }
        match keys {
            Some(KeysStatus { age: None, .. }) => reasons.push("the realm's keys have not been fetched yet"),
            Some(KeysStatus { usable: false, .. }) => reasons.push("the realm's keys are too old to be used"),
            _ => {}
        }
        Self {
            ready: reasons.is_empty(),
            reasons,
            snapshot: SnapshotHealth {
                age_s: newest.map(|reading| seconds(reading.age())),
                last_refresh: last_refresh.map(|succeeded| if succeeded { "succeeded" } else { "failed" }),
            },
            keys: keys.map(|KeysStatus { age, usable }| KeysHealth { age_s: age.map(seconds), usable }),
            upstreams: service.upstreams().map(upstream).collect(),
            shared_cache: service.store.shared_cache_works().map(|works| if works { "in use" } else { "away" }),
            push: service.push.as_ref().map(|_| if service.store.waldur_announces() { "connected" } else { "away" }),
        }
    }
}

fn upstream(upstream: &Upstream) -> UpstreamHealth {
    let last = upstream.last();
    let since = |at: Option<Instant>| at.map(|at| seconds(at.elapsed()));
    UpstreamHealth {
        name: upstream.name(),
        last_success_s: since(last.success),
        last_failure_s: since(last.failure),
        breaker: upstream.breaker().as_str(),
    }
}

/// Rounded to tenths of a second.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
