//! The listing of a proxy that runs: this one, another instance of it, or the Python proxy.
//!
//! The Python proxy reads Waldur anew for each page. Pages that contradict each other are read again from the first.

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
use crate::transport::{Transport, TransportError, USER_AGENT};
use crate::upstream::{Answer, ExchangeError, Upstream, UpstreamError, public_part};

const LISTING: &str = "/api/storage-resources";
/// Sizes of a page, the best first; the next one is tried where a size is refused.
const PAGE_SIZES: [usize; 2] = [500, 100];
/// Largest page read, in bytes: an item has some 2,000.
const MAX_PAGE: usize = 32 << 20;
/// Largest listing read, in bytes.
const MAX_LISTING: usize = 256 << 20;
/// How often the pages are read until they agree.
const READINGS: usize = 3;
/// Longest reading. The Python proxy takes minutes for ten thousand resources.
const PATIENCE: Duration = Duration::from_hours(1);

/// What opens the door.
#[derive(Debug)]
pub enum Credential {
    /// Nothing: the proxy serves everybody.
    None,
    /// An access token as the value of an `Authorization` header.
    Token(HeaderValue),
    /// A token by client credentials, renewed while pages are read.
    Client(Box<MachineToken>),
}

/// Why there is no listing.
#[derive(Debug, Error)]
pub enum PeerError {
    /// No usable answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The token endpoint gave no usable answer.
    #[error("there is no token for {url}")]
    NoToken {
        /// Where it was to go.
        url: String,
        /// Why there is none.
        #[source]
        error: Arc<TokenError>,
    },
    /// The token endpoint refused.
    #[error("the token endpoint {endpoint} refuses ({code}): check {check}")]
    TokenRefused {
        /// The token endpoint.
        endpoint: String,
        /// What it said.
        code: &'static str,
        /// Options of the command line.
        check: &'static str,
    },
    /// It wants a token, or another one.
    #[error("{url} answers {status}: {remedy}")]
    Refused {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// What to do.
        remedy: &'static str,
    },
    /// More than is read.
    #[error("the listing at {url} is larger than {MAX_LISTING} bytes")]
    TooLarge {
        /// Where.
        url: String,
    },
    /// It took too long.
    #[error("reading {url} took longer than {} min", PATIENCE.as_secs() / 60)]
    TooSlow {
        /// Where.
        url: String,
    },
    /// Its pages never agreed.
    #[error(
        "the pages at {url} contradict each other, {READINGS} times in a row: its contents change while they are read"
    )]
    Unsteady {
        /// Where.
        url: String,
    },
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

/// Whether the pages agreed.
enum Outcome {
    Steady(Document),
    Torn,
    /// A page of this size is refused.
    TooLong,
}

impl Peer {
    /// A proxy by its base URL, or by that of its listing. The credential goes there and nowhere else, since no redirect
    /// is followed. `timeout` is the time for a page.
    pub fn new(mut url: Url, credential: Credential, timeout: Duration) -> Result<Self, TransportError> {
        let transport = Transport { verify_tls: true, proxy: None, user_agent: USER_AGENT.to_owned(), timeout };
        let upstream = Upstream::new("The other proxy", &transport)?;
        let base = url.path().trim_end_matches('/');
        let base = base.strip_suffix(LISTING).unwrap_or(base);
        url.set_path(&format!("{base}{LISTING}/"));
        Ok(Self { upstream, url, credential })
    }

    /// The URL of the listing, as it may be shown.
    pub fn url(&self) -> String {
        public_part(&self.url)
    }

    /// Reads all pages; `told` hears how many items are there, and how many there will be.
    ///
    /// # Errors
    ///
    /// Anything less than the whole listing.
    pub async fn read(&self, told: &(dyn Fn(usize, usize) + Sync)) -> Result<Document, PeerError> {
        timeout(PATIENCE, self.readings(told)).await.unwrap_or_else(|_| Err(PeerError::TooSlow { url: self.url() }))
    }

    async fn readings(&self, told: &(dyn Fn(usize, usize) + Sync)) -> Result<Document, PeerError> {
        let mut sizes = PAGE_SIZES.into_iter().peekable();
        let mut readings = 0;
        while let Some(size) = sizes.peek() {
            match self.pages(*size, told).await? {
                Outcome::Steady(document) => return Ok(document),
                Outcome::TooLong => drop(sizes.next()),
                Outcome::Torn => {
                    readings += 1;
                    if readings == READINGS {
                        return Err(PeerError::Unsteady { url: self.url() });
                    }
                }
            }
        }
        Err(self.fault(UpstreamError::Status(StatusCode::UNPROCESSABLE_ENTITY)))
    }

    async fn pages(&self, size: usize, told: &(dyn Fn(usize, usize) + Sync)) -> Result<Outcome, PeerError> {
        let mut document = Document::default();
        let mut total = None;
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for number in 1.. {
            let answer = self.page(number, size).await?;
            if answer.status == StatusCode::UNPROCESSABLE_ENTITY && number == 1 {
                return Ok(Outcome::TooLong);
            }
            self.judge(answer.status)?;
            bytes += answer.body.len();
            if bytes > MAX_LISTING {
                return Err(PeerError::TooLarge { url: self.url() });
            }
            let page: Page = answer.json().map_err(|fault| self.fault(fault))?;
            let all = *total.get_or_insert(page.pagination.total);
            let due = size.min(all - document.items.len());
            let mark = |item: &Value| [ID, KIND, SYSTEM, "/storageDataType/key"].map(|at| text(item, at).to_owned());
            let is_new = page.resources.iter().all(|item| seen.insert(mark(item)));
            // A single page cannot be torn.
            if page.pagination.total != all || page.resources.len() != due || (!is_new && all > size) {
                return Ok(Outcome::Torn);
            }
            document.items.extend(page.resources);
            document.skipped = page.skipped;
            told(document.items.len(), all);
            if document.items.len() == all {
                break;
            }
        }
        Ok(Outcome::Steady(document))
    }

    async fn page(&self, number: usize, size: usize) -> Result<Answer, PeerError> {
        let query = [("page", number), ("page_size", size)];
        let mut request = self.upstream.get(self.url.clone()).query(&query).header(header::ACCEPT, "application/json");
        if number == 1 {
            // The pages that follow are of that same reading.
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

    /// The error in the words of the command line: those of [`TokenError`] name settings.
    fn no_token(&self, error: Arc<TokenError>) -> PeerError {
        let (endpoint, code, check) = match &*error {
            TokenError::ClientRefused { url, code } => (url, *code, "--client-id and --client-secret-file"),
            TokenError::ScopeRefused { url } => (url, "invalid_scope", "--scope"),
            TokenError::NotATokenEndpoint { url, code } => (url, *code, "--token-url"),
            TokenError::Exchange(_) => return PeerError::NoToken { url: self.url(), error },
        };
        PeerError::TokenRefused { endpoint: endpoint.clone(), code, check }
    }

    fn judge(&self, status: StatusCode) -> Result<(), PeerError> {
        let remedy = match (status, &self.credential) {
            (StatusCode::OK, _) => return Ok(()),
            (StatusCode::UNAUTHORIZED, Credential::None) => "it wants a token, give one with --token-file",
            (StatusCode::UNAUTHORIZED, _) => "it does not accept the token; is it expired, or of another realm?",
            (StatusCode::FORBIDDEN, _) => "the token is good, but lacks a role that is needed there",
            (StatusCode::NOT_FOUND, _) => "give the base URL of a storage proxy",
            (status, _) if status.is_server_error() => "its own log says why",
            _ => return Err(self.fault(UpstreamError::Status(status))),
        };
        Err(PeerError::Refused { url: self.url(), status, remedy })
    }

    fn fault(&self, fault: UpstreamError) -> PeerError {
        self.upstream.error(Method::GET, &self.url, fault).into()
    }
}
