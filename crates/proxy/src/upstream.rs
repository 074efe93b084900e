//! One way to talk to an upstream: bounded, timed, repeated where that may help, never redirected, and silent about
//! secrets.

mod breaker;
mod outcome;
mod repeat;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use opentelemetry::context::FutureExt;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument, Span, debug, debug_span, field, info, warn};
use url::Url;

use crate::metrics;
use crate::telemetry::spans;
pub use breaker::State as BreakerState;
use breaker::{Admission, Breaker};
pub use outcome::Last;
#[cfg(test)]
pub(crate) use repeat::ATTEMPTS;
use repeat::Verdict;
pub use settings::check::public_part;

/// How an upstream is reached.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Whether certificates are verified.
    pub verify_tls: bool,
    /// `socks5`, `socks5h`, `http` or `https` proxy. `socks5` resolves names at the proxy, as `socks5h` does.
    pub proxy: Option<Url>,
    /// `User-Agent` header.
    pub user_agent: String,
    /// Deadline of one exchange, from connecting to the last byte of the body, with all its attempts.
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
    #[error(
        "the HTTP client cannot be built; are the system's CA certificates installed, and does SSL_CERT_FILE, if it is set, \
         name a file that holds certificates?"
    )]
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
    timeout: Duration,
    breaker: Mutex<Breaker>,
    last: Mutex<Last>,
    /// Tells that an exchange has ended, and with it perhaps the trial that others wait for.
    ended: Notify,
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
    /// It failed again and again, or asked to be left alone; nothing was sent.
    #[error("it is left alone for {} ms more, since it failed or asked for it", .0.as_millis())]
    LeftAlone(Duration),
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
            timeout: transport.timeout,
            breaker: Mutex::default(),
            last: Mutex::default(),
            ended: Notify::new(),
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

    /// Whether requests go through.
    pub fn breaker(&self) -> BreakerState {
        self.lock().state(Instant::now())
    }

    /// When it last answered, and when it last failed to.
    pub fn last(&self) -> Last {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and reads the whole answer, at most `max_body` bytes of it. What may pass is tried up to three
    /// times within the deadline; an answer that says so at the last attempt is handed out as it is.
    ///
    /// # Errors
    ///
    /// No usable answer, or the upstream is left alone for a moment because it failed before.
    pub async fn exchange(&self, request: RequestBuilder, max_body: usize) -> Result<Answer, ExchangeError> {
        self.send(request, max_body, self.timeout, true).await
    }

    /// The same for a request that changes something: it is sent once, and the deadline is its own.
    ///
    /// # Errors
    ///
    /// No usable answer. Unless it is [`Fault::Unreachable`] or [`Fault::LeftAlone`], the request may have had its effect.
    pub async fn exchange_once(
        &self,
        request: RequestBuilder,
        max_body: usize,
        timeout: Duration,
    ) -> Result<Answer, ExchangeError> {
        self.send(request.timeout(timeout), max_body, timeout, false).await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        max_body: usize,
        timeout: Duration,
        repeated: bool,
    ) -> Result<Answer, ExchangeError> {
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
        let began = Instant::now();
        let outcome = self.attempts(request, max_body, Instant::now() + timeout, repeated).instrument(span).await;
        metrics::exchange(self.name, outcome::name(&outcome), began.elapsed());
        self.last.lock().unwrap_or_else(PoisonError::into_inner).note(&outcome, Instant::now());
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

    async fn attempts(
        &self,
        request: reqwest::Request,
        max_body: usize,
        deadline: Instant,
        repeated: bool,
    ) -> Result<Answer, Fault> {
        self.admission(deadline).await?;
        let running = Running { upstream: self, told: false };
        let mut pauses = repeat::pauses();
        let mut at_once = true;
        let mut number = 0;
        loop {
            number += 1;
            // Bodies are texts, so that a request can always be sent again.
            let mut attempt =
                request.try_clone().unwrap_or_else(|| reqwest::Request::new(http::Method::GET, request.url().clone()));
            let span = spans::attempt(self.name, &mut attempt, number);
            let outcome = timeout_at(deadline, self.read(attempt, max_body)).with_context(span.clone()).await;
            let outcome = outcome.unwrap_or(Err(Fault::TimedOut));
            spans::attempted(&span, outcome.as_ref().ok().map(|answer| answer.status), outcome::name(&outcome));
            let rest = match repeat::judge(&outcome) {
                Verdict::Works => {
                    running.ended(|breaker| breaker.succeeded(at_once));
                    return outcome;
                }
                Verdict::Fails => None,
                Verdict::MayPass(rest) => {
                    let pause = pauses.next().map(|pause| pause.max(rest.unwrap_or_default()));
                    let in_time =
                        |pause: &Duration| Instant::now().checked_add(*pause).is_some_and(|later| later < deadline);
                    if let Some(pause) = pause.filter(in_time).filter(|_| repeated)
                        && self.lock().may_repeat()
                    {
                        metrics::repeat(self.name);
                        debug!(upstream = self.name, pause_ms = pause.as_millis(), "an exchange is repeated");
                        at_once = false;
                        sleep(pause).await;
                        continue;
                    }
                    rest
                }
            };
            running.ended(|breaker| breaker.failed(rest, Instant::now()));
            return outcome;
        }
    }

    /// Waits until an exchange may begin: through one rest of the upstream, and for the exchange that tries whether it is
    /// back, so that the first reading after an outage succeeds as a whole.
    async fn admission(&self, deadline: Instant) -> Result<(), Fault> {
        let mut waited = false;
        loop {
            let ended = self.ended.notified();
            let admission = self.lock().admit(Instant::now());
            match admission {
                Admission::Now => return Ok(()),
                Admission::Rests(rest)
                    if waited || Instant::now().checked_add(rest).is_none_or(|later| later >= deadline) =>
                {
                    return Err(Fault::LeftAlone(rest));
                }
                Admission::Rests(rest) => sleep(rest).await,
                Admission::Probed => timeout_at(deadline, ended).await.map_err(|_| Fault::TimedOut)?,
            }
            waited = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        // No step under the lock leaves it half changed.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
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

/// An exchange that runs; when nobody waits for it any more it says nothing about the upstream.
struct Running<'a> {
    upstream: &'a Upstream,
    told: bool,
}

impl Running<'_> {
    fn ended(mut self, tell: impl FnOnce(&mut Breaker)) {
        tell(&mut self.upstream.lock());
        self.told = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.upstream.lock().abandoned();
        }
        self.upstream.ended.notify_waiters();
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

#[cfg(test)]
mod tests;
