//! The HTTP API.

mod caching;
mod callbacks;
mod docs;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gauges;
mod health;
pub mod layers;
mod listing;
mod pieces;
mod provisioners;
mod query;
mod waiting;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRef, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use catalog::Filter;
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use crate::auth::{self, Caller, Verifier};
use crate::compression::Coding;
use crate::config::Settings;
use crate::dashboard::{self, Dashboard};
use crate::metrics;
use crate::push::Push;
use crate::reports::Reports;
use crate::reports::shared::SharedReports;
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
use query::{InvalidParameter, Query};
pub use waiting::Waiting;

/// The state shared by all requests.
#[derive(Debug, Clone)]
pub struct Service {
    /// Authenticates callers.
    pub verifier: Arc<Verifier>,
    /// Holds the newest snapshot of the catalogue.
    pub store: Arc<Store>,
    /// Timeout and maximum concurrency of requests.
    pub limits: layers::RequestLimits,
    /// The ages shown by `/metrics`; they survive a change of the settings.
    pub(crate) ages: Ages,
    /// Receives Waldur's events, with `waldur_api.push`.
    pub(crate) push: Option<Arc<Push>>,
    /// The pages for operators, if they are enabled.
    pub(crate) dashboard: Option<Arc<Dashboard>>,
    /// The reports of provisioners; they survive a change of the settings.
    pub reports: Arc<Reports>,
    /// The reports on the server of the shared cache.
    shared_reports: Option<Arc<SharedReports>>,
    /// For the times that pages show.
    pub(crate) clock: Clock,
    /// Clients that wait for other content; they survive a change of the settings.
    waiting: Arc<Waiting>,
}

/// Why a service could not be created.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A client for an upstream.
    #[error("cannot create the HTTP client for an upstream")]
    Upstream(#[from] TransportError),
    /// Authentication.
    #[error("invalid authentication settings")]
    Verifier(#[from] auth::SetupError),
    /// The shared cache.
    #[error("cannot create the shared cache")]
    SharedCache(#[from] shared_cache::SetupError),
    /// The pages for operators.
    #[error(transparent)]
    Dashboard(#[from] dashboard::KeyError),
}

impl Service {
    /// Creates the service without sending anything.
    pub fn new(settings: &Settings, clock: &Clock) -> Result<Self, SetupError> {
        metrics::start();
        let source = Source::new(settings)?;
        let shared = SharedCache::new(settings)?;
        let shared_reports = SharedReports::new(settings)?.map(Arc::new);
        // Less than a request's timeout, so that an older snapshot can be served instead.
        let patience = settings.server.request_timeout.mul_f64(0.9);
        let store = Store::new(source, shared, settings.cache, patience, clock.clone());
        let verifier = Arc::new(Verifier::new(&settings.auth, clock.clone())?);
        Ok(Self {
            waiting: Arc::new(Waiting::new(Arc::clone(&store))),
            push: Push::new(&settings.waldur_api, &store)?.map(Arc::new),
            store,
            limits: layers::RequestLimits::of(&settings.server),
            ages: Ages::default(),
            dashboard: dashboard(settings, &verifier)?,
            clock: clock.clone(),
            reports: Arc::new(Reports::new(clock.clone())),
            shared_reports,
            verifier,
        })
    }

    /// A service with changed settings that reuses what is still valid: the verifier if `same_auth`, and the snapshot if
    /// `same_catalogue`.
    pub fn with_settings(
        &self,
        settings: &Settings,
        clock: &Clock,
        same_auth: bool,
        same_catalogue: bool,
    ) -> Result<Self, SetupError> {
        let mut service = Self::new(settings, clock)?;
        service.ages = self.ages.clone();
        service.limits = self.limits.with_settings(&settings.server);
        service.waiting = Arc::clone(&self.waiting);
        service.reports = Arc::clone(&self.reports);
        if same_auth {
            service.verifier = Arc::clone(&self.verifier);
        }
        if same_catalogue {
            service.store.inherit(&self.store);
        }
        // Last, because it has parts of the above.
        service.dashboard = dashboard(settings, &service.verifier)?;
        Ok(service)
    }

    /// Fetches the realm's keys and the first snapshot. Returns whether the upstreams could be read.
    pub async fn warm_up(&self) -> bool {
        futures::join!(self.verifier.warm(), self.store.refresh()).1
    }

    /// Makes the next requests see everything in Waldur as it is from now on.
    pub fn read_all_next(&self) {
        self.store.note_change(true);
    }

    /// Fetches the realm's keys and the first snapshot, then keeps the snapshot fresh as configured, and shares reports. Never
    /// resolves.
    pub async fn run_in_background(self) {
        futures::join!(
            self.verifier.warm(),
            self.store.clone().keep_fresh(),
            self.receive_events(),
            self.share_reports()
        );
    }

    /// Keeps the snapshot fresh as configured, after [`warm_up`](Self::warm_up), and shares reports. Never resolves.
    pub async fn stay_fresh(self) {
        futures::join!(self.store.clone().stay_fresh(), self.receive_events(), self.share_reports());
    }

    async fn receive_events(&self) {
        if let Some(push) = &self.push {
            push.run().await;
        }
    }

    async fn share_reports(&self) {
        if let Some(shared) = &self.shared_reports {
            shared.run(&self.reports).await;
        }
    }

    /// Makes waiting clients wait for this service, which replaces another one. With other rules for authentication, they have to
    /// come again.
    pub(crate) fn take_over_waiting(&self, same_auth: bool) {
        self.waiting.replace(&self.store, same_auth);
    }

    /// The clients that wait.
    pub fn waiting(&self) -> Arc<Waiting> {
        Arc::clone(&self.waiting)
    }

    /// Whether requests can be served, as far as is known without contacting an upstream.
    pub fn is_ready(&self) -> bool {
        self.store.is_ready() && self.verifier.keys().is_none_or(|keys| keys.usable)
    }

    /// The upstreams in use.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.store.source().upstreams().chain(self.verifier.upstream())
    }
}

fn dashboard(settings: &Settings, verifier: &Arc<Verifier>) -> Result<Option<Arc<Dashboard>>, SetupError> {
    let dashboard = settings.dashboard.as_ref().map(|dashboard| Dashboard::new(dashboard, verifier)).transpose()?;
    Ok(dashboard.map(Arc::new))
}

/// The state of the routes: the service behind one pointer, because each request clones it several times.
#[derive(Debug, Clone)]
struct SharedService(Arc<Service>);

impl Deref for SharedService {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

impl FromRef<SharedService> for Arc<Verifier> {
    fn from_ref(service: &SharedService) -> Self {
        Self::clone(&service.verifier)
    }
}

/// The routes of the listing: with and without a trailing slash, neither redirects (decision D16).
const LISTING: [&str; 2] = ["/api/storage-resources/", "/api/storage-resources"];

/// All routes of the API, with the middleware of [`layers`].
pub fn router(service: &Service) -> Router {
    let systems: Vec<_> = service.store.policy().systems.iter().map(|system| system.name.as_str()).collect();
    let mut routes = Router::new()
        .route(LISTING[0], get(list))
        .route(LISTING[1], get(list))
        .route("/api/storage-resources/{item_id}/", get(one))
        .route("/api/storage-resources/{item_id}", get(one))
        .route("/api/version", get(version))
        .route("/api/version/", get(version))
        .merge(provisioners::routes())
        .merge(docs::routes(&systems, if service.dashboard.is_some() { "ui/" } else { "docs" }));
    if let Some(dashboard) = &service.dashboard {
        let sources = dashboard::Sources {
            store: Arc::clone(&service.store),
            reports: Arc::clone(&service.reports),
            verifier: Arc::clone(&service.verifier),
            has_push: service.push.is_some(),
            clock: service.clock.clone(),
        };
        routes = routes.merge(dashboard::router(Arc::clone(dashboard), sources));
    }
    if service.store.policy().relay.is_some() {
        routes = routes.merge(callbacks::routes());
    }
    let routes = routes
        .fallback(not_found)
        .method_not_allowed_fallback(|| async { Failure::MethodNotAllowed("GET, HEAD") })
        .with_state(SharedService(Arc::new(service.clone())));
    layers::wrap(routes, service.limits.clone())
}

/// The response if no route matches.
pub async fn not_found() -> Response {
    Failure::NotFound.into_response()
}

/// Routes of health and metrics. They need no token and bypass the request limit.
pub fn health_router(service: &Service) -> Router {
    health::routes(service.clone())
}

/// The storage resources that the query selects.
async fn list(_caller: Caller, State(service): State<SharedService>, request: Request) -> Result<Response, Failure> {
    let request = request.into_parts().0;
    let (store, headers) = (&service.store, &request.headers);
    let policy = store.policy();
    let names: Vec<_> = policy.systems.iter().map(|system| system.name.as_str()).collect();
    let query = query::parse(request.uri.query().unwrap_or_default(), &names).map_err(Failure::Query)?;
    let served = store.get(caching::wants_fresh(headers)).await?;
    let Some(wait) = waiting::requested(headers) else {
        return respond(store, &served, &query, headers).await;
    };
    let wait_and_respond = async {
        let is_current = |store: &Store, served: &Served| {
            caching::is_current(headers, &caching::etag(served, &query.filter, store.policy()))
        };
        let waited = service.waiting.wait(wait, (Arc::clone(store), served), is_current, &request.extensions);
        let (store, served) = waited.await?;
        let mut response = respond(&store, &served, &query, headers).await?;
        response.headers_mut().insert(waiting::APPLIED, waiting::applied(wait));
        Ok(response)
    };
    // Boxed, because other requests would need its memory too.
    Box::pin(wait_and_respond).await
}

/// The response to a request for a listing.
async fn respond(store: &Store, served: &Served, query: &Query, headers: &HeaderMap) -> Result<Response, Failure> {
    let (snapshot, policy) = (&served.reading.snapshot, store.policy());
    if store.source().fails_on_processing_error()
        && let Some(skipped) = snapshot.skipped().next()
    {
        return Err(Failure::Processing(skipped.detail.clone()));
    }
    let etag = caching::etag(served, &query.filter, policy);
    if caching::is_current(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, caching::headers(served, &etag)).into_response());
    }
    let pieces = listing::render(snapshot, query, policy).map_err(Failure::Internal)?;
    Ok(send(served, headers, &etag, || format!("{query:?}"), pieces).await)
}

/// One storage resource, tenant or customer by its `itemId`.
async fn one(
    _caller: Caller,
    State(service): State<SharedService>,
    item_id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    // An ID that is not valid text is not a UUID either.
    let item_id = item_id.map(|Path(item_id)| item_id).unwrap_or_default();
    let Ok(id) = Uuid::parse_str(&item_id) else {
        return Err(Failure::Query(vec![InvalidParameter::uuid(&item_id)]));
    };
    let served = service.store.get(caching::wants_fresh(&headers)).await?;
    match served.reading.snapshot.find(id) {
        Found::Item(item) => {
            let etag = caching::etag(&served, &Filter::default(), service.store.policy());
            if caching::is_current(&headers, &etag) {
                return Ok((StatusCode::NOT_MODIFIED, caching::headers(&served, &etag)).into_response());
            }
            Ok(send(&served, &headers, &etag, || id.to_string(), vec![item]).await)
        }
        Found::Skipped(skipped) => Err(Failure::Processing(skipped.detail.clone())),
        Found::Nothing => Err(Failure::NotFound),
    }
}

/// Sends rendered JSON, compressed if the client accepts it and it is worthwhile. `key` identifies the response among those of a snapshot.
async fn send(
    served: &Served,
    request: &HeaderMap,
    etag: &str,
    key: impl Fn() -> String,
    pieces: Vec<Bytes>,
) -> Response {
    let mut headers = caching::headers(served, etag);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let encoded = match Coding::preferred(request) {
        // Boxed, because other requests would need its memory too.
        Some(coding) => Box::pin(served.reading.encoded.get(key(), coding, &pieces)).await.map(|body| (coding, body)),
        None => None,
    };
    let body = match encoded {
        Some((coding, body)) => {
            headers.insert(header::CONTENT_ENCODING, coding.header());
            Body::from(body)
        }
        None => Body::new(Pieces::new(pieces)),
    };
    let mut response = Response::new(body);
    // Not copied one by one.
    *response.headers_mut() = headers;
    response
}

/// The version of this proxy. It needs no token: `/openapi.json` shows the version too.
async fn version() -> Response {
    axum::Json(json!({ "version": VERSION })).into_response()
}

/// The version of this proxy.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
