//! Reads the listing of a running proxy: this program or the Python proxy.
//!
//! The Python proxy reads Waldur for each page. If pages are inconsistent, all are read again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Filter, State, Status};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::time::timeout;
use url::Url;

use crate::oauth::{MachineToken, TokenError};
use crate::transport::{Transport, TransportError};
use crate::upstream::{ExchangeError, Upstream, UpstreamError, public_part};

pub(crate) const ID: &str = "/itemId";
pub(crate) const KIND: &str = "/target/targetType";
pub(crate) const MOUNT: &str = "/mountPoint/default";
pub(crate) const SYSTEM: &str = "/storageSystem/key";
pub(crate) const DATA_TYPE: &str = "/storageDataType/key";

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(item: &'a Value, at: &str) -> &'a str {
    item.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// What identifies an item. Tenants and customers have one ID for all storage systems and data types.
pub(crate) fn identity(item: &Value) -> [&str; 4] {
    [ID, KIND, SYSTEM, DATA_TYPE].map(|at| text(item, at))
}

const LISTING: &str = "/api/storage-resources";
/// Page sizes, the best first; the next one is tried if a size is rejected.
const PAGE_SIZES: [usize; 2] = [500, 100];
/// Maximum size of a page, in bytes: an item has about 2,000.
const MAX_PAGE: usize = 32 << 20;
/// Maximum size of a listing, in bytes.
const MAX_LISTING: usize = 256 << 20;
/// Maximum number of times that inconsistent pages are read.
const READINGS: usize = 3;
/// Maximum time for the listing. The Python proxy takes minutes for ten thousand resources.
const MAX_TIME: Duration = Duration::from_hours(1);

/// How long the other proxy may wait for a change, in seconds. Less than the minute after which most gateways give up.
const WAIT: u64 = 45;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A complete listing: the items of all pages, and the skipped resources.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// The items in order.
    pub items: Vec<Value>,
    /// The entries of `skipped`; empty if a proxy has no such list.
    pub skipped: Vec<Value>,
    /// The tag of the listing, by which a change can be waited for; `None` if a proxy sends none.
    pub tag: Option<HeaderValue>,
}

/// How to authenticate.
#[derive(Debug)]
pub enum Credential {
    /// Not at all: the proxy needs no token.
    None,
    /// An access token as the value of an `Authorization` header.
    Token(HeaderValue),
    /// A token fetched with client credentials, renewed while pages are read.
    Client(Box<MachineToken>),
}

/// Why a listing could not be read.
#[derive(Debug, Error)]
pub enum PeerError {
    /// No usable response.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// No usable response from the token endpoint.
    #[error("cannot get a token for {url}")]
    NoToken {
        /// The URL of the listing.
        url: String,
        #[source]
        error: Arc<TokenError>,
    },
    /// The token endpoint rejected the request.
    #[error("the token endpoint {endpoint} rejects the request ({code}): check {check}")]
    TokenRefused {
        endpoint: String,
        /// The OAuth error code.
        code: &'static str,
        /// Command line options to check.
        check: &'static str,
    },
    /// The proxy rejected the request.
    #[error("{url} returns {status}: {remedy}")]
    Refused {
        url: String,
        status: StatusCode,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The listing is larger than [`MAX_LISTING`].
    #[error("the listing at {url} is larger than {MAX_LISTING} bytes")]
    TooLarge { url: String },
    /// Reading took longer than [`MAX_TIME`].
    #[error("reading {url} took longer than {} min", MAX_TIME.as_secs() / 60)]
    TooSlow { url: String },
    /// The pages were inconsistent each time.
    #[error("the pages at {url} were inconsistent {READINGS} times in a row: the listing changes while it is read")]
    Unsteady { url: String },
    /// The proxy does not wait for changes.
    #[error("{url} does not wait for changes: use the address of an hpc-storage-proxy")]
    DoesNotWait { url: String },
}

impl PeerError {
    /// Whether the same request can succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange(_) | Self::NoToken { .. } | Self::TooSlow { .. } | Self::Unsteady { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::TokenRefused { .. } | Self::TooLarge { .. } | Self::DoesNotWait { .. } => false,
        }
    }
}

/// A proxy whose listing is read.
#[derive(Debug)]
pub struct Peer {
    upstream: Upstream,
    url: Url,
    credential: Credential,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Page {
    resources: Vec<Value>,
    pagination: Pagination,
    #[serde(default)]
    skipped: Vec<Value>,
}

#[derive(Deserialize)]
struct Pagination {
    total: usize,
}

/// The result of reading all pages.
enum Outcome {
    Consistent(Document),
    Inconsistent,
    /// The page size was rejected.
    PageTooLarge,
}

impl Peer {
    /// A proxy with this base URL, or URL of its listing. The credential is sent only there, because redirects are not
    /// followed. `timeout` applies to each page.
    pub fn new(mut url: Url, credential: Credential, timeout: Duration) -> Result<Self, TransportError> {
        let transport = Transport::new(true, None, timeout);
        let upstream = Upstream::new("The other proxy", &transport)?;
        let base = url.path().trim_end_matches('/');
        let base = base.strip_suffix(LISTING).unwrap_or(base);
        url.set_path(&format!("{base}{LISTING}/"));
        Ok(Self { upstream, url, credential, timeout })
    }

    /// Reads only what the filter selects.
    pub fn select(&mut self, filter: &Filter) {
        let Filter { storage_system, data_type, status, state } = filter;
        let pairs = [
            ("storage_system", storage_system.as_deref()),
            ("data_type", data_type.as_deref()),
            ("status", status.map(Status::as_str)),
            ("state", state.map(State::as_str)),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                self.url.query_pairs_mut().append_pair(name, value);
            }
        }
    }

    /// The URL of the listing, without secrets.
    pub fn url(&self) -> String {
        public_part(&self.url)
    }

    /// Reads all pages; calls `progress` with the number of items read and the total. With `fresh`, the proxy reads its upstreams
    /// first.
    ///
    /// # Errors
    ///
    /// Any failure to read the complete listing.
    pub async fn read(&self, fresh: bool, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Document, PeerError> {
        timeout(MAX_TIME, self.read_repeatedly(fresh, progress))
            .await
            .unwrap_or_else(|_| Err(PeerError::TooSlow { url: self.url() }))
    }

    /// Waits until the listing has another tag, for at most [`WAIT`] seconds. Returns whether it has.
    ///
    /// # Errors
    ///
    /// The proxy does not wait, or cannot be asked.
    pub async fn wait_for_change(&self, tag: Option<&HeaderValue>) -> Result<bool, PeerError> {
        let cannot_wait = || PeerError::DoesNotWait { url: self.url() };
        let request = self.request(1, 1).await?.header(header::IF_NONE_MATCH, tag.ok_or_else(cannot_wait)?);
        let request = request.header(PREFER, format!("wait={WAIT}"));
        let answer = self.upstream.exchange_once(request, MAX_PAGE, self.timeout + Duration::from_secs(WAIT)).await?;
        if answer.status != StatusCode::NOT_MODIFIED {
            return self.check_status(answer.status).map(|()| true);
        }
        answer.headers.contains_key(PREFERENCE_APPLIED).then_some(false).ok_or_else(cannot_wait)
    }

    async fn read_repeatedly(
        &self,
        fresh: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Document, PeerError> {
        let mut sizes = PAGE_SIZES.into_iter().peekable();
        let mut readings = 0;
        while let Some(size) = sizes.peek() {
            match self.pages(*size, fresh, progress).await? {
                Outcome::Consistent(document) => return Ok(document),
                Outcome::PageTooLarge => drop(sizes.next()),
                Outcome::Inconsistent => {
                    readings += 1;
                    if readings == READINGS {
                        return Err(PeerError::Unsteady { url: self.url() });
                    }
                }
            }
        }
        Err(self.refused(StatusCode::UNPROCESSABLE_ENTITY))
    }

    async fn pages(
        &self,
        size: usize,
        fresh: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Outcome, PeerError> {
        let mut document = Document::default();
        let mut total = None;
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for number in 1.. {
            let mut request = self.request(number, size).await?;
            if fresh && number == 1 {
                // The following pages come from the same snapshot.
                request = request.header(header::CACHE_CONTROL, "no-cache");
            }
            let answer = self.upstream.exchange(request, MAX_PAGE).await?;
            if answer.status == StatusCode::UNPROCESSABLE_ENTITY && number == 1 {
                return Ok(Outcome::PageTooLarge);
            }
            self.check_status(answer.status)?;
            bytes += answer.body.len();
            if bytes > MAX_LISTING {
                return Err(PeerError::TooLarge { url: self.url() });
            }
            let tag = answer.headers.get(header::ETAG).cloned();
            let page: Page = answer.json().map_err(|fault| self.fault(fault))?;
            let all = *total.get_or_insert(page.pagination.total);
            let due = size.min(all - document.items.len());
            let key = |item: &Value| identity(item).map(str::to_owned);
            let is_new = page.resources.iter().all(|item| seen.insert(key(item)));
            // A single page is always consistent.
            if page.pagination.total != all || page.resources.len() != due || (!is_new && all > size) {
                return Ok(Outcome::Inconsistent);
            }
            document.items.extend(page.resources);
            document.skipped = page.skipped;
            // With the tag of the first page, a change while the pages are read ends the next wait at once.
            document.tag = document.tag.or(tag);
            progress(document.items.len(), all);
            if document.items.len() == all {
                break;
            }
        }
        Ok(Outcome::Consistent(document))
    }

    async fn request(&self, page: usize, size: usize) -> Result<RequestBuilder, PeerError> {
        let query = [("page", page), ("page_size", size)];
        let request = self.upstream.get(self.url.clone()).query(&query).header(header::ACCEPT, "application/json");
        let authorization = match &self.credential {
            Credential::None => None,
            Credential::Token(token) => Some(token.clone()),
            Credential::Client(token) => {
                let token = token.get().await.map_err(|error| self.no_token(error))?;
                Some(token.authorization())
            }
        };
        Ok(match authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        })
    }

    /// Converts the error to one that names command line options, because [`TokenError`] names settings.
    fn no_token(&self, error: Arc<TokenError>) -> PeerError {
        let (endpoint, code, check) = match &*error {
            TokenError::ClientRefused { url, code } => (url, *code, "--client-id and --client-secret-file"),
            TokenError::ScopeRefused { url } => (url, "invalid_scope", "--scope"),
            TokenError::NotATokenEndpoint { url, code } => (url, *code, "--token-url"),
            TokenError::Exchange(_) => return PeerError::NoToken { url: self.url(), error },
        };
        PeerError::TokenRefused { endpoint: endpoint.clone(), code, check }
    }

    fn check_status(&self, status: StatusCode) -> Result<(), PeerError> {
        if status == StatusCode::OK { Ok(()) } else { Err(self.refused(status)) }
    }

    fn refused(&self, status: StatusCode) -> PeerError {
        let remedy = match (status, &self.credential) {
            (StatusCode::UNAUTHORIZED, Credential::None) => "a token is required, use --token-file",
            (StatusCode::UNAUTHORIZED, _) => "the token is rejected; it may be expired or issued by another realm",
            (StatusCode::FORBIDDEN, _) => "the token is valid, but lacks a required role",
            (StatusCode::NOT_FOUND, _) => "use the base URL of a storage proxy",
            (StatusCode::UNPROCESSABLE_ENTITY, _) => "it does not know the storage system, or is not a storage proxy",
            (status, _) if status.is_server_error() => "see the log of that proxy",
            _ => return self.fault(UpstreamError::Status(status)),
        };
        PeerError::Refused { url: self.url(), status, remedy }
    }

    fn fault(&self, fault: UpstreamError) -> PeerError {
        self.upstream.error(Method::GET, &self.url, fault).into()
    }
}
