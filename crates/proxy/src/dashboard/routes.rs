//! The handlers of the pages. They read the newest snapshot and reports, and join them once for all requests.

use std::num::NonZero;
use std::sync::{Arc, Mutex, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use maud::Markup;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use uuid::Uuid;

use super::filter::Query;
use super::layout::{ICON, STYLE};
use super::pages::{self, View};
use super::story::{Story, join};
use super::{Dashboard, Operator, export, health, message};
use crate::auth::Verifier;
use crate::reading::Reading;
use crate::reports::{Received, Reports};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::upstream::Upstream;
use program::{Clock, lock};

/// A page does not wait longer for a refresh: it shows an older snapshot, with its age.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Sources {
    pub store: Arc<Store>,
    pub reports: Arc<Reports>,
    pub verifier: Arc<Verifier>,
    /// Whether Waldur's events are to be received.
    pub has_push: bool,
    pub clock: Clock,
}

impl Sources {
    /// The upstreams in use.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.store.source().upstreams().chain(self.verifier.upstream())
    }
}

#[derive(Debug)]
struct Pages {
    dashboard: Arc<Dashboard>,
    sources: Sources,
    joined: Mutex<Option<Joined>>,
    /// Limits how many pages are made at the same time, so that many do not starve the API of processors and memory.
    making: Arc<Semaphore>,
}

/// A story, and what it was made from.
#[derive(Debug)]
struct Joined {
    snapshot: Option<Weak<Snapshot>>,
    reports: Vec<Arc<Received>>,
    /// Which provisioners were silent.
    silent: Vec<bool>,
    story: Arc<Story>,
}

/// The routes of the pages. They need a signed-in operator.
pub(super) fn pages<S: Clone + Send + Sync + 'static>(dashboard: Arc<Dashboard>, sources: Sources) -> Router<S> {
    let pages = Pages::new(dashboard, sources);
    Router::new()
        .route("/ui/", get(now))
        .route("/ui/resources", get(resources))
        .route("/ui/resources.csv", get(csv))
        .route("/ui/resources.json", get(json))
        .route("/ui/resources/{id}", get(resource))
        .route("/ui/changes", get(changes))
        .route("/ui/trash", get(trash))
        .with_state(Arc::new(pages))
}

/// The routes of the stylesheet and the icon. They need nobody.
pub(super) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let asset = |kind: &'static str, content: &'static str| {
        get(async move || ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=3600")], content))
    };
    Router::new()
        .route("/ui/style.css", asset("text/css; charset=utf-8", STYLE))
        .route("/ui/icon.svg", asset("image/svg+xml", ICON))
}

impl Pages {
    fn new(dashboard: Arc<Dashboard>, sources: Sources) -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self { dashboard, sources, joined: Mutex::default(), making: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }

    /// The snapshot to show, of any age.
    async fn reading(&self) -> Option<Arc<Reading>> {
        let store = &self.sources.store;
        // The page shows a failed refresh in its own words.
        let served = timeout(PATIENCE, store.get(false)).await.ok().and_then(Result::ok);
        served.map(|served| served.reading).or_else(|| store.newest())
    }

    /// The story of this snapshot and the newest reports. Kept until something changes.
    fn story(&self, snapshot: Option<&Arc<Snapshot>>, now: OffsetDateTime) -> Arc<Story> {
        let reports = self.sources.reports.all();
        let silent: Vec<_> = reports.iter().map(|received| received.is_silent(now)).collect();
        // Locked while it is made, so that it is made once for many requests.
        let mut joined = lock(&self.joined);
        let is_same = |joined: &&Joined| {
            let known = joined.snapshot.as_ref().map(Weak::as_ptr);
            let same_reports = joined.reports.len() == reports.len()
                && joined.reports.iter().zip(&reports).all(|(one, other)| Arc::ptr_eq(one, other));
            known == snapshot.map(Arc::as_ptr) && same_reports && joined.silent == silent
        };
        if let Some(joined) = joined.as_ref().filter(is_same) {
            return Arc::clone(&joined.story);
        }
        let policy = self.sources.store.policy();
        let story = Arc::new(join(snapshot.map(|snapshot| &**snapshot), policy, &reports, now));
        let snapshot = snapshot.map(Arc::downgrade);
        *joined = Some(Joined { snapshot, reports, silent, story: Arc::clone(&story) });
        story
    }

    /// Makes an answer from the newest data, on a thread where that may take a while.
    async fn answer(
        self: Arc<Self>,
        operator: Operator,
        make: impl FnOnce(&View<'_>, &Self) -> Response + Send + 'static,
    ) -> Response {
        let reading = self.reading().await;
        // Never closed. A page that nobody waits for any more keeps its permit until it is made.
        let permit = Arc::clone(&self.making).acquire_owned().await;
        let answer = spawn_blocking(move || {
            let _permit = permit;
            let now = OffsetDateTime::from(self.sources.clock.now());
            let story = self.story(reading.as_ref().map(|reading| &reading.snapshot), now);
            let age = reading.and_then(|reading| time::Duration::try_from(reading.age()).ok());
            let view = View {
                frame: self.dashboard.frame(Some(&operator)),
                story: &story,
                now,
                waldur: self.dashboard.settings.waldur_url.as_str(),
                read_at: age.and_then(|age| now.checked_sub(age)),
            };
            make(&view, &self)
        });
        // The panic hook has reported a panic.
        answer.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    async fn page(
        self: Arc<Self>,
        operator: Operator,
        make: impl FnOnce(&View<'_>, &Self) -> Markup + Send + 'static,
    ) -> Response {
        self.answer(operator, |view, pages| make(view, pages).into_response()).await
    }
}

async fn now(State(pages): State<Arc<Pages>>, operator: Operator) -> Response {
    let make =
        |view: &View<'_>, pages: &Pages| pages::now::page(view, &health::lines(&pages.sources, view.story, view.now));
    pages.page(operator, make).await
}

async fn resources(State(pages): State<Arc<Pages>>, operator: Operator, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    pages.page(operator, move |view, _| pages::resources::page(view, &query)).await
}

async fn csv(State(pages): State<Arc<Pages>>, operator: Operator, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let make = move |view: &View<'_>, _: &Pages| {
        download("text/csv; charset=utf-8; header=present", "csv", export::csv(&query.select(view.story)))
    };
    pages.answer(operator, make).await
}

async fn json(State(pages): State<Arc<Pages>>, operator: Operator, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let make = move |view: &View<'_>, _: &Pages| match export::json(&query.select(view.story)) {
        Ok(json) => download("application/json", "json", json),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    pages.answer(operator, make).await
}

fn download(kind: &'static str, ending: &str, content: String) -> Response {
    let disposition = format!("attachment; filename=\"storage-resources.{ending}\"");
    ([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)], content).into_response()
}

async fn resource(
    State(pages): State<Arc<Pages>>,
    operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    // An ID that is not valid text is not a UUID either.
    let id = id.ok().and_then(|Path(id)| Uuid::parse_str(&id).ok());
    let make = move |view: &View<'_>, _: &Pages| {
        if let Some(row) = id.and_then(|id| view.story.find(id)) {
            return pages::resource::page(view, row).into_response();
        }
        let text =
            "Waldur does not list a resource with this UUID on these storage systems, and no provisioner reports it.";
        message(&view.frame, StatusCode::NOT_FOUND, "There is no such resource", text)
    };
    pages.answer(operator, make).await
}

async fn changes(State(pages): State<Arc<Pages>>, operator: Operator, RawQuery(query): RawQuery) -> Response {
    let query = pages::changes::Query::parse(&query.unwrap_or_default());
    pages.page(operator, move |view, _| pages::changes::page(view, &query)).await
}

async fn trash(State(pages): State<Arc<Pages>>, operator: Operator, RawQuery(query): RawQuery) -> Response {
    let query = pages::trash::Query::parse(&query.unwrap_or_default());
    pages.page(operator, move |view, _| pages::trash::page(view, query)).await
}

#[cfg(test)]
mod tests;
