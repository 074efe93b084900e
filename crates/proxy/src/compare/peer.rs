//! Reads the listing of a running proxy: this program or the Python proxy.
//!
//! The Python proxy reads Waldur for each page. If pages are inconsistent, all are read again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::time::timeout;
use url::Url;

use super::Document;
use super::pairs::{ID, KIND, SYSTEM, text};
use crate::oauth::{MachineToken, TokenError};
use crate::transport::{Transport, TransportError};
use crate::upstream::{Answer, ExchangeError, Upstream, UpstreamError, public_part};

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
}

/// A proxy whose listing is read.
#[derive(Debug)]
pub struct Peer {
    upstream: Upstream,
    url: Url,
    credential: Credential,
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
        Ok(Self { upstream, url, credential })
    }

    /// The URL of the listing, without secrets.
    pub fn url(&self) -> String {
        public_part(&self.url)
    }

    /// Reads all pages; calls `progress` with the number of items read and the total.
    ///
    /// # Errors
    ///
    /// Any failure to read the complete listing.
    pub async fn read(&self, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Document, PeerError> {
        timeout(MAX_TIME, self.read_repeatedly(progress))
            .await
            .unwrap_or_else(|_| Err(PeerError::TooSlow { url: self.url() }))
    }

    async fn read_repeatedly(&self, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Document, PeerError> {
        let mut sizes = PAGE_SIZES.into_iter().peekable();
        let mut readings = 0;
        while let Some(size) = sizes.peek() {
            match self.pages(*size, progress).await? {
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
        Err(self.fault(UpstreamError::Status(StatusCode::UNPROCESSABLE_ENTITY)))
    }

    async fn pages(&self, size: usize, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Outcome, PeerError> {
        let mut document = Document::default();
        let mut total = None;
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for number in 1.. {
            let answer = self.page(number, size).await?;
            if answer.status == StatusCode::UNPROCESSABLE_ENTITY && number == 1 {
                return Ok(Outcome::PageTooLarge);
            }
            self.check_status(answer.status)?;
            bytes += answer.body.len();
            if bytes > MAX_LISTING {
                return Err(PeerError::TooLarge { url: self.url() });
            }
            let page: Page = answer.json().map_err(|fault| self.fault(fault))?;
            let all = *total.get_or_insert(page.pagination.total);
            let due = size.min(all - document.items.len());
            let key = |item: &Value| [ID, KIND, SYSTEM, "/storageDataType/key"].map(|at| text(item, at).to_owned());
            let is_new = page.resources.iter().all(|item| seen.insert(key(item)));
            // A single page is always consistent.
            if page.pagination.total != all || page.resources.len() != due || (!is_new && all > size) {
                return Ok(Outcome::Inconsistent);
            }
            document.items.extend(page.resources);
            document.skipped = page.skipped;
            progress(document.items.len(), all);
            if document.items.len() == all {
                break;
            }
        }
        Ok(Outcome::Consistent(document))
    }

    async fn page(&self, number: usize, size: usize) -> Result<Answer, PeerError> {
        let query = [("page", number), ("page_size", size)];
        let mut request = self.upstream.get(self.url.clone()).query(&query).header(header::ACCEPT, "application/json");
        if number == 1 {
            // The following pages come from the same snapshot.
            request = request.header(header::CACHE_CONTROL, "no-cache");
        }
        let authorization = match &self.credential {
            Credential::None => None,
            Credential::Token(token) => Some(token.clone()),
            Credential::Client(token) => {
                let token = token.get().await.map_err(|error| self.no_token(error))?;
                Some(token.authorization())
            }
        };
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        Ok(self.upstream.exchange(request, MAX_PAGE).await?)
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
        let remedy = match (status, &self.credential) {
            (StatusCode::OK, _) => return Ok(()),
            (StatusCode::UNAUTHORIZED, Credential::None) => "a token is required, use --token-file",
            (StatusCode::UNAUTHORIZED, _) => "the token is rejected; it may be expired or issued by another realm",
            (StatusCode::FORBIDDEN, _) => "the token is valid, but lacks a required role",
            (StatusCode::NOT_FOUND, _) => "use the base URL of a storage proxy",
            (status, _) if status.is_server_error() => "see the log of that proxy",
            _ => return Err(self.fault(UpstreamError::Status(status))),
        };
        Err(PeerError::Refused { url: self.url(), status, remedy })
    }

    fn fault(&self, fault: UpstreamError) -> PeerError {
        self.upstream.error(Method::GET, &self.url, fault).into()
    }
}
