//! One way to talk to an upstream: bounded, timed, never redirected, and silent about secrets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tracing::{Instrument, Span, debug, debug_span, field, info, warn};
use url::Url;

/// How an upstream is reached.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Whether certificates are verified.
    pub verify_tls: bool,
    /// `socks5`, `socks5h`, `http` or `https` proxy. `socks5` resolves names at the proxy, as `socks5h` does.
    pub proxy: Option<Url>,
    /// `User-Agent` header.
    pub user_agent: String,
    /// Deadline of one exchange, from connecting to the last byte of the body.
    pub timeout: Duration,
}

/// The proxy's own `User-Agent`.
pub const USER_AGENT: &str = concat!("hpc-storage-proxy/", env!("CARGO_PKG_VERSION"));

/// A transport that cannot be set up.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The proxy's scheme is none of those that work. It is refused, since the HTTP library would connect directly.
    #[error("the proxy scheme `{0}` is not supported: use socks5, socks5h, http or https")]
    ProxyScheme(String),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built; are the system's CA certificates installed?")]
    Client(#[source] reqwest::Error),
}

/// A client for one upstream: keeps connections, follows no redirect.
#[derive(Debug)]
pub struct Upstream {
    name: &'static str,
    http: reqwest::Client,
    /// The proxy without its credentials, for the log.
    proxy: Option<String>,
    proxy_announced: AtomicBool,
}

/// What came back: any status but a redirect, with the whole body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, complete and within the limit.
    pub body: Bytes,
}

/// An exchange without a usable answer. Neither a body nor a credential is ever part of it.
#[derive(Debug, Error)]
#[error("{upstream} gives no usable answer to {method} {url}")]
pub struct ExchangeError {
    /// Which upstream.
    pub upstream: &'static str,
    /// Method of the request.
    pub method: http::Method,
    /// URL without query and credentials.
    pub url: String,
    /// What went wrong.
    #[source]
    pub fault: Fault,
}

/// What went wrong in an exchange.
#[derive(Debug, Error)]
pub enum Fault {
    /// No connection: refused, unknown name, failed TLS, failed proxy.
    #[error("cannot connect")]
    Unreachable(#[source] reqwest::Error),
    /// The deadline passed.
    #[error("no complete answer in time")]
    TimedOut,
    /// The connection ended before the answer did.
    #[error("the answer broke off")]
    BrokenOff(#[source] reqwest::Error),
    /// The body is larger than the limit, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// A redirect. It is not followed, since the request carries a credential.
    #[error("it redirects to {0}, which is not followed; correct the configured URL")]
    Redirected(String),
    /// A status that the caller did not expect.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// The body is not the JSON that was expected.
    #[error("the answer is not the JSON expected (line {line}, column {column})")]
    NotJson {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// The body is JSON that says something impossible.
    #[error("the answer makes no sense: {0}")]
    Senseless(String),
}

/// Chooses the cryptography for TLS, once for the process; later calls change nothing.
pub fn install_tls_provider() {
    // An error says that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Upstream {
    /// Sets up a client. Nothing is sent yet.
    pub fn new(name: &'static str, transport: &Transport) -> Result<Self, TransportError> {
        install_tls_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(&transport.user_agent)
            .timeout(transport.timeout)
            .connect_timeout(transport.timeout.min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(!transport.verify_tls)
            .no_proxy();
        if !transport.verify_tls {
            warn!(
                upstream = name,
                "the certificate is not verified: whoever is on the way can read and change everything"
            );
        }
        if let Some(proxy) = &transport.proxy {
            builder = builder.proxy(reqwest_proxy(proxy)?);
        }
        Ok(Self {
            name,
            http: builder.build().map_err(TransportError::Client)?,
            proxy: transport.proxy.as_ref().map(public_part),
            proxy_announced: AtomicBool::new(false),
        })
    }

    /// Name of the upstream, as errors and logs say it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts a GET request.
    pub fn get(&self, url: Url) -> RequestBuilder {
        self.http.get(url)
    }

    /// Starts a POST request.
    pub fn post(&self, url: Url) -> RequestBuilder {
        self.http.post(url)
    }

    /// Sends a request and reads the whole answer, at most `max_body` bytes of it.
    pub async fn exchange(&self, request: RequestBuilder, max_body: usize) -> Result<Answer, ExchangeError> {
        let request = match request.build() {
            Ok(request) => request,
            Err(error) => {
                return Err(ExchangeError {
                    upstream: self.name,
                    method: http::Method::GET,
                    url: String::from("unknown"),
                    fault: Fault::Unreachable(error.without_url()),
                });
            }
        };
        let method = request.method().clone();
        let url = public_part(request.url());
        if let Some(proxy) = &self.proxy {
            if self.proxy_announced.swap(true, Ordering::Relaxed) {
                debug!(upstream = self.name, "Using SOCKS proxy for API request: {proxy}");
            } else {
                info!(upstream = self.name, "Using SOCKS proxy for API request: {proxy}");
            }
        }
        // Traces show no URL, since one may name a user.
        let span = debug_span!(
            "exchange",
            sentry.op = "http.client",
            sentry.name = format!("{method} {}", self.name),
            upstream = self.name,
            status = field::Empty,
        );
        let outcome = self.read(request, max_body).instrument(span).await;
        match outcome {
            Ok(answer) => {
                debug!(
                    upstream = self.name, %method, url, status = answer.status.as_u16(), bytes = answer.body.len(),
                    "upstream exchange"
                );
                Ok(answer)
            }
            Err(fault) => {
                debug!(upstream = self.name, %method, url, %fault, "upstream exchange failed");
                Err(ExchangeError { upstream: self.name, method, url, fault })
            }
        }
    }

    async fn read(&self, request: reqwest::Request, max_body: usize) -> Result<Answer, Fault> {
        let mut response = self.http.execute(request).await.map_err(|error| fault_of(error, false))?;
        let status = response.status();
        Span::current().record("status", status.as_u16());
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(Fault::Redirected(redirect_target(&response)));
        }
        let headers = std::mem::take(response.headers_mut());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| fault_of(error, true))? {
            if body.len() + chunk.len() > max_body {
                return Err(Fault::TooLarge(max_body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }

    /// An error of this upstream about an answer that came but cannot be used.
    pub fn error(&self, method: http::Method, url: &Url, fault: Fault) -> ExchangeError {
        ExchangeError { upstream: self.name, method, url: public_part(url), fault }
    }
}

impl Answer {
    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Fault::NotJson { line: error.line(), column: error.column() })
    }
}

fn fault_of(error: reqwest::Error, body: bool) -> Fault {
    // The URL may hold slugs and, in a misconfiguration, credentials.
    let error = error.without_url();
    if error.is_timeout() {
        Fault::TimedOut
    } else if body || !error.is_connect() {
        Fault::BrokenOff(error)
    } else {
        Fault::Unreachable(error)
    }
}

fn redirect_target(response: &reqwest::Response) -> String {
    response
        .headers()
        .get(http::header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| response.url().join(location).ok())
        .map_or_else(|| String::from("an unreadable place"), |url| public_part(&url))
}

fn reqwest_proxy(proxy: &Url) -> Result<reqwest::Proxy, TransportError> {
    let mut address = proxy.to_string();
    match proxy.scheme() {
        // The Python proxy's HTTP library resolves names at the SOCKS server for both schemes.
        "socks5" => address.replace_range(.."socks5".len(), "socks5h"),
        "socks5h" | "http" | "https" => {}
        // An unknown scheme would be ignored by the HTTP library and the connection made directly.
        other => return Err(TransportError::ProxyScheme(other.to_owned())),
    }
    reqwest::Proxy::all(address).map_err(TransportError::Client)
}

/// A URL as it may be shown: without credentials, query and fragment.
pub fn public_part(url: &Url) -> String {
    let mut url = url.clone();
    // These two fail only for URLs that cannot have credentials at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests;
