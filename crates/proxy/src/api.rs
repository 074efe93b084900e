//! The HTTP API.

mod answer;
mod caching;
mod callbacks;
mod docs;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gauges;
pub mod layers;
mod operator;
mod pieces;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRef, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use crate::auth::{self, Caller, Verifier};
use crate::compression::Coding;
use crate::config::Settings;
use crate::metrics;
use crate::shared_cache::{self, SharedCache};
use crate::snapshot::Found;
use crate::source::Source;
use crate::store::{Served, Store};
use crate::transport::TransportError;
use crate::upstream::Upstream;
use failure::Failure;
use gauges::Ages;
use pieces::Pieces;
use program::Clock;
use query::QueryFault;

/// Everything that requests share.
#[derive(Debug, Clone)]
pub struct Service {
    /// Judges callers.
    pub verifier: Arc<Verifier>,
    /// Keeps the catalogue.
    pub store: Arc<Store>,
    /// Timeout and maximum concurrency of requests.
    pub limits: layers::RequestLimits,
    /// The ages that `/metrics` shows; they outlive a change of the settings.
    pub(crate) ages: Ages,
}

/// A service that cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A client of an upstream.
    #[error("an upstream cannot be reached like that")]
    Upstream(#[from] TransportError),
    /// The judge of callers.
    #[error("callers cannot be judged like that")]
    Verifier(#[from] auth::SetupError),
    /// What replicas share.
    #[error("nothing can be shared like that")]
    SharedCache(#[from] shared_cache::SetupError),
}

impl Service {
    /// Sets everything up. Nothing is sent yet.
    pub fn new(settings: &Settings, clock: &Clock) -> Result<Self, SetupError> {
        metrics::start();
        let source = Source::new(settings)?;
        let shared = SharedCache::new(settings)?;
        // A little less than the whole request has, so that an old answer can stand in.
        let patience = settings.server.request_timeout.mul_f64(0.9);
        Ok(Self {
            verifier: Arc::new(Verifier::new(&settings.auth, clock.clone())?),
            store: Store::new(source, shared, settings.cache, patience, clock.clone()),
            limits: layers::RequestLimits::new(settings.server.request_timeout, settings.server.max_requests),
            ages: Ages::default(),
        })
    }

    /// A service with other settings that takes over whatever stays right: `same_auth` says that callers are judged as
    /// before, `same_catalogue` that the same upstreams are asked about the same.
    pub fn changed(
        &self,
        settings: &Settings,
        clock: &Clock,
        same_auth: bool,
        same_catalogue: bool,
    ) -> Result<Self, SetupError> {
        let mut service = Self::new(settings, clock)?;
        service.ages = self.ages.clone();
        service.limits = self.limits.changed(settings.server.request_timeout, settings.server.max_requests);
        if same_auth {
            service.verifier = Arc::clone(&self.verifier);
        }
        if same_catalogue {
            service.store.inherit(&self.store);
        }
        Ok(service)
    }

    /// Fetches, once, what the first request would have to wait for. Whether the upstreams could be read.
    pub async fn warmed(&self) -> bool {
        futures::join!(self.verifier.warm(), self.store.refresh()).1
    }

    /// Fetches what the first request would have to wait for, and keeps it fresh where the settings say so.
    pub async fn warm(self) {
        futures::join!(self.verifier.warm(), self.store.keep_fresh());
    }

    /// Whether a request would be answered, as far as can be told without asking anybody.
    pub fn is_ready(&self) -> bool {
        self.store.is_ready() && self.verifier.keys().is_none_or(|keys| keys.usable)
    }

    /// The upstreams that are asked.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.store.source().upstreams().chain(self.verifier.upstream())
    }
}

impl FromRef<Service> for Arc<Verifier> {
    fn from_ref(service: &Service) -> Self {
        Self::clone(&service.verifier)
    }
}

/// All routes of the API, each within what wraps every request.
pub fn router(service: &Service) -> Router {
    let mut routes = Router::new()
        // Both spellings answer, neither redirects (decision D16).
        .route("/api/storage-resources/", get(list))
        .route("/api/storage-resources", get(list))
        .route("/api/storage-resources/{item_id}/", get(one))
        .route("/api/storage-resources/{item_id}", get(one))
        .route("/api/version", get(version))
        .route("/api/version/", get(version))
        .merge(docs::routes());
    if service.store.policy().relay.is_some() {
        routes = routes.merge(callbacks::routes());
    }
    let routes = routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(|| async { Failure::MethodNotAllowed("GET, HEAD") })
        .with_state(service.clone());
    layers::around(routes, service.limits.clone())
}

/// The answer where there is no route.
pub async fn nothing_here() -> Response {
    Failure::NotFound.into_response()
}

/// Routes for those who run the proxy: health and metrics. They ask for no token and wait for no place.
pub fn operators_router(service: &Service) -> Router {
    operator::routes(service.clone())
}

/// The storage resources that the query selects.
async fn list(
    _caller: Caller,
    State(service): State<Service>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let store = &service.store;
    let policy = store.policy();
    let names: Vec<_> = policy.systems.iter().map(|system| system.name.as_str()).collect();
    let query = query::parse(query.as_deref().unwrap_or_default(), &names).map_err(Failure::Query)?;
    let served = store.get(caching::wants_fresh(&headers)).await?;
    let snapshot = &served.reading.snapshot;
    if store.source().fails_on_processing_error()
        && let Some(skipped) = snapshot.skipped().next()
    {
        return Err(Failure::Processing(skipped.detail.clone()));
    }
    let etag = caching::etag(&served, policy);
    if caching::has_it(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, caching::headers(&served, &etag)).into_response());
    }
    let pieces = answer::listing(snapshot, &query, policy).map_err(Failure::Internal)?;
    Ok(send(&served, &headers, &etag, || format!("{query:?}"), pieces).await)
}

/// One storage resource, tenant or customer by its `itemId`.
async fn one(
    _caller: Caller,
    State(service): State<Service>,
    item_id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    // An id that is not even text is no UUID either.
    let item_id = item_id.map(|Path(item_id)| item_id).unwrap_or_default();
    let Ok(id) = Uuid::parse_str(&item_id) else {
        return Err(Failure::Query(vec![QueryFault::no_uuid(&item_id)]));
    };
    let served = service.store.get(caching::wants_fresh(&headers)).await?;
    match served.reading.snapshot.find(id) {
        Found::Item(item) => {
            let etag = caching::etag(&served, service.store.policy());
            if caching::has_it(&headers, &etag) {
                return Ok((StatusCode::NOT_MODIFIED, caching::headers(&served, &etag)).into_response());
            }
            Ok(send(&served, &headers, &etag, || id.to_string(), vec![item]).await)
        }
        Found::Skipped(skipped) => Err(Failure::Processing(skipped.detail.clone())),
        Found::Nothing => Err(Failure::NotFound),
    }
}

/// Sends rendered JSON, compressed where the client asks for it and it pays. `key` tells the answers of a reading apart.
async fn send(
    served: &Served,
    request: &HeaderMap,
    etag: &str,
    key: impl Fn() -> String,
    pieces: Vec<Bytes>,
) -> Response {
    let mut headers = caching::headers(served, etag);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let encoded = match Coding::wanted(request) {
        Some(coding) => served.reading.encoded.get(key(), coding, &pieces).await.map(|body| (coding, body)),
        None => None,
    };
    match encoded {
        Some((coding, body)) => {
            headers.insert(header::CONTENT_ENCODING, coding.header());
            (headers, Body::from(body)).into_response()
        }
        None => (headers, Body::new(Pieces::new(pieces))).into_response(),
    }
}

/// The version of this proxy. It needs no token, as it says nothing that `/openapi.json` does not.
async fn version() -> Response {
    axum::Json(json!({ "version": VERSION })).into_response()
}

/// The version of this proxy.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
