//! The proxy and Waldur over HTTP: reads the document, sends callbacks.
//!
//! Credentials are sent to their own origin only: the Keycloak token to the proxy, the Waldur token to Waldur. A link that leads
//! elsewhere is refused, whatever the document says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backon::{BlockingRetryable, ExponentialBuilder};
use provisioner_core::document::{self, Document};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AGE, AUTHORIZATION, CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::redirect::Policy;
use storage_driver::DriverError;
use storage_driver::credential::CredentialGuard;

use crate::config::Settings;
use program::lock;

mod link;
mod report;
mod response;
mod token;
mod waldur;

pub use report::Unreported;
pub use waldur::WaldurError;

pub(crate) use response::read_body;
use response::{Failure, base, reason, unreachable};

/// The largest accepted page in bytes; 500 items take about 1 MB.
const MAX_PAGE: u64 = 64 << 20;
/// The largest accepted document in bytes; a million items.
const MAX_DOCUMENT: usize = 2 << 30;
/// The most accepted pages; ten million items.
const MAX_PAGES: usize = 20_000;
/// Items per page, the most that the proxy allows.
const PAGE_SIZE: usize = 500;
/// The deadline for all pages, in time-outs of one exchange.
const DOCUMENT_TIMEOUTS: u32 = 10;
/// How many times the pages are read if they change meanwhile.
const MAX_READS: usize = 3;
/// How long the proxy may wait for the document to change, in seconds. Less than the minute after which most gateways give up.
const WAIT: u64 = 45;
/// A refused secret or token is sent again after this time, in case the server was at fault.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_mins(15);

/// The proxy, and Waldur if callbacks go there directly.
#[derive(Debug)]
pub struct Source {
    http: Client,
    settings: Settings,
    /// When set, reading stops.
    stop: Arc<AtomicBool>,
    token: Mutex<Option<token::Token>>,
    /// The tag of the document that was read last.
    tag: Mutex<Option<HeaderValue>>,
    /// When a callback was last sent: a document that was read before does not show what it changed.
    called: Mutex<Option<Instant>>,
    /// Whether the token endpoint refused the client.
    client: CredentialGuard,
    /// Whether Waldur refused its token.
    waldur: CredentialGuard,
}

/// How a wait for another document ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The document differs from the one that was read last.
    Changed,
    Unchanged,
    /// The proxy or a gateway before it does not support the wait, or no document was read yet.
    Unsupported,
}

struct Page {
    body: Vec<u8>,
    age: Duration,
    /// Identifies the reading of the proxy that the page belongs to; `None` without an `ETag`.
    tag: Option<HeaderValue>,
}

impl Source {
    pub fn new(settings: &Settings, stop: &Arc<AtomicBool>) -> Result<Self, DriverError> {
        let http = Client::builder()
            .redirect(Policy::none())
            // Credentials go straight to their own origins, whatever the user's environment says about proxies.
            .no_proxy()
            .timeout(settings.proxy.timeout)
            .user_agent(concat!("hpc-storage-provisioner/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                let what = "cannot create an HTTP client: check that the system's CA certificates are installed";
                DriverError::temporary_from(what, error)
            })?;
        let guard = || CredentialGuard::lasting(PAUSE_AFTER_REFUSAL);
        let (settings, stop) = (settings.clone(), Arc::clone(stop));
        let (client, waldur) = (guard(), guard());
        Ok(Self {
            http,
            settings,
            stop,
            token: Mutex::default(),
            tag: Mutex::default(),
            called: Mutex::default(),
            client,
            waldur,
        })
    }

    fn body(&self, response: Response, max: u64) -> Result<Vec<u8>, DriverError> {
        read_body(response, self.settings.proxy.timeout, max, &self.stop)
    }

    /// Has the proxy read Waldur now, and returns the whole document.
    pub fn read(&self) -> Result<Document, DriverError> {
        self.document(true)
    }

    /// Returns the whole document as the proxy has it; [`Document::age`] says how old it is.
    pub fn newest(&self) -> Result<Document, DriverError> {
        self.document(false)
    }

    /// Returns the whole document as the proxy has it. If that is not younger than `max_age`, or from before the last callback, has the
    /// proxy read Waldur now.
    pub fn recent(&self, max_age: Duration) -> Result<Document, DriverError> {
        let called = *lock(&self.called);
        let document = self.newest()?;
        // The age is in whole seconds.
        let oldest = document.age + Duration::from_secs(1);
        let is_recent = document.age < max_age && called.is_none_or(|called| called.elapsed() > oldest);
        if is_recent { Ok(document) } else { self.read() }
    }

    /// Waits until the document differs from the one that was read last, for at most [`WAIT`] seconds.
    pub fn wait_for_change(&self) -> Result<Waited, DriverError> {
        let Some(tag) = lock(&self.tag).clone() else { return Ok(Waited::Unsupported) };
        let prefer = |request: RequestBuilder| {
            let timeout = Duration::from_secs(WAIT) + self.settings.proxy.timeout;
            request.header(IF_NONE_MATCH, &tag).header("prefer", format!("wait={WAIT}")).timeout(timeout)
        };
        let response = self.send(1, prefer).map_err(Failure::into_error)?;
        let (has_waited, answered) =
            (response.headers().contains_key("preference-applied"), response.headers().get(ETAG));
        Ok(match response.status() {
            StatusCode::NOT_MODIFIED if has_waited => Waited::Unchanged,
            StatusCode::NOT_MODIFIED => Waited::Unsupported,
            // The proxy did not get the tag as it was sent: a gateway has removed or changed it.
            _ if answered == Some(&tag) => Waited::Unsupported,
            // Meanwhile a pass may have read this document.
            _ if answered == lock(&self.tag).as_ref() => Waited::Unchanged,
            _ => Waited::Changed,
        })
    }

    fn document(&self, fresh: bool) -> Result<Document, DriverError> {
        let deadline = Instant::now() + self.settings.proxy.timeout * DOCUMENT_TIMEOUTS;
        for _ in 0..MAX_READS {
            // Always fresh again: another replica of the proxy behind the same address may have an older reading.
            if let Some(document) = self.pages(fresh, deadline)? {
                return Ok(document);
            }
        }
        Err(DriverError::temporary(format!(
            "the document changed while its pages were read, {MAX_READS} times (the `ETag` of its pages differs)"
        )))
    }

    /// Reads all pages; `None` if they belong to different readings of the proxy.
    fn pages(&self, fresh: bool, deadline: Instant) -> Result<Option<Document>, DriverError> {
        let first = self.page(1, fresh)?;
        let mut bodies = vec![first.body];
        let pages = document::page_count(&bodies[0])
            .map_err(|error| DriverError::temporary_from("the document cannot be read", error))?;
        if pages > MAX_PAGES {
            return Err(DriverError::temporary(format!("the document has {pages} pages, more than {MAX_PAGES}")));
        }
        for number in 2..=pages {
            let page = self.page(number, false)?;
            // All pages of one reading have the same tag.
            if first.tag.as_ref().zip(page.tag.as_ref()).is_some_and(|(first, other)| first != other) {
                return Ok(None);
            }
            bodies.push(page.body);
            if Instant::now() > deadline {
                let (read, seconds) = (bodies.len(), (self.settings.proxy.timeout * DOCUMENT_TIMEOUTS).as_secs());
                return Err(DriverError::temporary(format!(
                    "the proxy returned only {read} of {pages} pages of the document within {seconds} s"
                )));
            }
            if bodies.iter().map(Vec::len).sum::<usize>() > MAX_DOCUMENT {
                return Err(DriverError::temporary(format!("the document is larger than {MAX_DOCUMENT} bytes")));
            }
        }
        let document = document::parse(&bodies, self.settings.mock_identities)
            .map_err(|error| DriverError::temporary_from("the document cannot be used", error))?;
        *lock(&self.tag) = first.tag;
        Ok(Some(Document { age: first.age, ..document }))
    }

    /// Reads one page, with retries.
    fn page(&self, page: usize, fresh: bool) -> Result<Page, DriverError> {
        let retries =
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(2).with_jitter();
        let is_temporary =
            |failure: &Failure| matches!(failure, Failure::Temporary(_)) && !self.stop.load(Ordering::Relaxed);
        let once = || self.page_once(page, fresh);
        once.retry(retries).sleep(std::thread::sleep).when(is_temporary).call().map_err(Failure::into_error)
    }

    fn page_once(&self, page: usize, fresh: bool) -> Result<Page, Failure> {
        // Only the first page asks for a new reading; the others come from the same one.
        let response =
            self.send(page, |request| if fresh { request.header(CACHE_CONTROL, "no-cache") } else { request })?;
        let age = response.headers().get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or_default();
        let tag = response.headers().get(ETAG).cloned();
        let body = self.body(response, MAX_PAGE).map_err(Failure::Temporary)?;
        Ok(Page { body, age: Duration::from_secs(age), tag })
    }

    /// Requests one page. The status of the response is 2xx or 304.
    fn send(&self, page: usize, with: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<Response, Failure> {
        let url =
            format!("{}/api/storage-resources/?page={page}&page_size={PAGE_SIZE}", base(&self.settings.proxy.url));
        let asked = Instant::now();
        let mut request = with(self.http.get(&url));
        let bearer = self.bearer()?;
        if let Some(bearer) = &bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        let response =
            request.send().map_err(|error| Failure::Temporary(unreachable(&self.settings.proxy.url, error)))?;
        let status = response.status();
        if !status.is_success() && status != StatusCode::NOT_MODIFIED {
            let hint = match status {
                StatusCode::NOT_FOUND => " (proxy.url must be the URL of the proxy, without `/api`)",
                StatusCode::UNAUTHORIZED if bearer.is_none() => {
                    " (set proxy.token_url, proxy.client_id and proxy.client_secret)"
                }
                _ => "",
            };
            let error =
                DriverError::temporary(format!("the proxy answers {status} to {url}{hint}: {}", reason(response)));
            // An old token may have been revoked. A token obtained just now is not replaced: the next would be refused, too.
            let was_old =
                status == StatusCode::UNAUTHORIZED && bearer.is_some_and(|bearer| self.forget(&bearer, asked));
            return Err(if was_old { Failure::Temporary(error) } else { Failure::of_status(status, error) });
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests;
