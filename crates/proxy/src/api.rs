//! The HTTP API.

mod answer;
mod failure;
pub mod layers;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use uuid::Uuid;

use crate::auth::{Caller, Verifier};
use crate::docs;
use crate::snapshot::Found;
use crate::source::Source;
use failure::Failure;
use query::QueryFault;

/// Everything that requests share.
#[derive(Debug, Clone)]
pub struct Service {
    /// Judges callers.
    pub verifier: Arc<Verifier>,
    /// Reads the catalogue.
    pub source: Arc<Source>,
}

impl FromRef<Service> for Arc<Verifier> {
    fn from_ref(service: &Service) -> Self {
        Self::clone(&service.verifier)
    }
}

/// All routes, each within what wraps every request.
pub fn router(service: Service) -> Router {
    let routes = Router::new()
        // Both spellings answer, neither redirects (decision D16).
        .route("/api/storage-resources/", get(list))
        .route("/api/storage-resources", get(list))
        .route("/api/storage-resources/{item_id}/", get(one))
        .route("/api/storage-resources/{item_id}", get(one))
        .route("/api/version", get(version))
        .route("/api/version/", get(version))
        .merge(docs::routes())
        .fallback(|| async { Failure::NotFound })
        .method_not_allowed_fallback(|| async { Failure::MethodNotAllowed })
        .with_state(service);
    layers::around(routes)
}

/// The storage resources that the query selects.
async fn list(_caller: Caller, State(service): State<Service>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let policy = service.source.policy();
    let names: Vec<_> = policy.systems.iter().map(|system| system.name.as_str()).collect();
    let query = query::parse(query.as_deref().unwrap_or_default(), &names).map_err(Failure::Query)?;
    let snapshot = service.source.read().await?;
    if service.source.fails_on_processing_error()
        && let Some(skipped) = snapshot.skipped().next()
    {
        return Err(Failure::Processing(skipped.detail.clone()));
    }
    Ok(answer::listing(&snapshot, &query, policy))
}

/// One storage resource, tenant or customer by its `itemId`.
async fn one(
    _caller: Caller,
    State(service): State<Service>,
    Path(item_id): Path<String>,
) -> Result<Response, Failure> {
    let Ok(id) = Uuid::parse_str(&item_id) else {
        return Err(Failure::Query(vec![QueryFault::no_uuid(&item_id)]));
    };
    match service.source.read().await?.find(id) {
        Found::Item(item) => Ok(answer::json_bytes(StatusCode::OK, item)),
        Found::Skipped(skipped) => Err(Failure::Processing(skipped.detail.clone())),
        Found::Nothing => Err(Failure::NotFound),
    }
}

/// The version of this proxy. It needs no token, as it says nothing that `/openapi.json` does not.
async fn version() -> Response {
    axum::Json(json!({ "version": VERSION })).into_response()
}

/// The version of this proxy.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
