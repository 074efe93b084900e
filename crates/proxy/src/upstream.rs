//! HTTP exchanges with an upstream: limited in size and time, retried where that can help, and without redirects. No error
//! or log line contains a secret.

mod breaker;
mod outcome;
mod repeat;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use opentelemetry::context::FutureExt;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument, Span, debug, debug_span, field, info};
use url::Url;

use crate::metrics;
use crate::telemetry::spans;
use crate::transport::{Transport, TransportError};
pub use breaker::State as BreakerState;
use breaker::{Admission, Breaker};
pub use outcome::Last;
use program::lock;
#[cfg(test)]
pub(crate) use repeat::ATTEMPTS;
use repeat::Verdict;
pub use settings::check::public_part;

/// Size in bytes from which a body gets a buffer for the largest one that is allowed. Only the part in use takes memory. The
/// allocator of glibc returns buffers above 32 MiB to the kernel, but a buffer that grows passes through smaller sizes, and its
/// heaps keep those.
const LARGE: usize = 1 << 20;

/// A client for one upstream. It keeps connections open and follows no redirects.
#[derive(Debug)]
pub struct Upstream {
    name: &'static str,
    http: reqwest::Client,
    /// The proxy's URL without credentials, for the log.
    proxy: Option<String>,
    proxy_announced: AtomicBool,
    timeout: Duration,
    breaker: Mutex<Breaker>,
    last: Mutex<Last>,
    /// Notified when an exchange ends. Others may be waiting for it if it was the breaker's trial request.
    ended: Notify,
}

/// A response with any status but a redirect, and its complete body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An exchange without a usable answer. Contains neither a body nor a credential.
#[derive(Debug, Error)]
#[error("{upstream} returned no usable answer to {method} {url}")]
pub struct ExchangeError {
    pub upstream: &'static str,
    pub method: http::Method,
    /// URL without query and credentials.
    pub url: String,
    #[source]
    pub cause: UpstreamError,
}

/// Why an exchange failed.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Connection refused, unknown name, or a failure of TLS or of the SOCKS or HTTP proxy.
    #[error("cannot connect")]
    Unreachable(#[source] reqwest::Error),
    /// The deadline passed.
    #[error("no complete answer in time")]
    TimedOut,
    /// Nothing was sent, because of earlier failures or a `Retry-After`.
    #[error("the circuit breaker is open for {} ms more, after failures or a Retry-After", .0.as_millis())]
    CircuitOpen(Duration),
    /// The connection ended before the answer did.
    #[error("the connection ended before the answer was complete")]
    Interrupted(#[source] reqwest::Error),
    /// The body is larger than the limit, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// Not followed, because the request carries a credential.
    #[error("it redirects to {0}; redirects are not followed, correct the configured URL")]
    Redirected(String),
    /// Unexpected status.
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("the answer is not the expected JSON (line {line}, column {column})")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// The body is JSON, but its content violates the agreed format.
    #[error("invalid answer: {0}")]
    Invalid(String),
}

impl Upstream {
    /// Sends nothing yet.
    pub fn new(name: &'static str, transport: &Transport) -> Result<Self, TransportError> {
        Ok(Self {
            name,
            http: transport.client(name)?,
            proxy: transport.proxy.as_ref().map(public_part),
            proxy_announced: AtomicBool::new(false),
            timeout: transport.timeout,
            breaker: Mutex::default(),
            last: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// The name in errors and logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn get(&self, url: Url) -> RequestBuilder {
        self.http.get(url)
    }

    pub fn post(&self, url: Url) -> RequestBuilder {
        self.http.post(url)
    }

    pub fn breaker(&self) -> BreakerState {
        lock(&self.breaker).state(Instant::now())
    }

    /// When the last exchanges succeeded and failed.
    pub fn last(&self) -> Last {
        *lock(&self.last)
    }

    /// Sends a request and reads the whole answer. Transient failures are tried up to three times within the deadline; if
    /// the last attempt gets a status such as 503, that answer is returned.
    ///
    /// # Errors
    ///
    /// No usable answer, a body of more than `max_body` bytes, or an open circuit breaker.
    pub async fn exchange(&self, request: RequestBuilder, max_body: usize) -> Result<Answer, ExchangeError> {
        self.send(request, max_body, self.timeout, true).await
    }

    /// Like [`exchange`](Self::exchange), for a request that changes something: sent once, with its own `timeout`.
    ///
    /// # Errors
    ///
    /// No usable answer. The request may have taken effect unless the error is [`UpstreamError::Unreachable`] or
    /// [`UpstreamError::CircuitOpen`].
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
        retried: bool,
    ) -> Result<Answer, ExchangeError> {
        let request = match request.build() {
            Ok(request) => request,
            Err(error) => {
                return Err(ExchangeError {
                    upstream: self.name,
                    method: http::Method::GET,
                    url: String::from("unknown"),
                    cause: UpstreamError::Unreachable(error.without_url()),
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
        // Without the URL: it may contain a user name.
        let span = debug_span!(
            "exchange",
            sentry.op = "http.client",
            sentry.name = format!("{method} {}", self.name),
            upstream = self.name,
            status = field::Empty,
        );
        let began = Instant::now();
        let outcome = self.attempts(request, max_body, Instant::now() + timeout, retried).instrument(span).await;
        metrics::exchange(self.name, outcome::name(&outcome), began.elapsed());
        lock(&self.last).note(&outcome, Instant::now());
        match outcome {
            Ok(answer) => {
                debug!(
                    upstream = self.name, %method, url, status = answer.status.as_u16(), bytes = answer.body.len(),
                    "upstream exchange"
                );
                Ok(answer)
            }
            Err(cause) => {
                debug!(upstream = self.name, %method, url, %cause, "upstream exchange failed");
                Err(ExchangeError { upstream: self.name, method, url, cause })
            }
        }
    }

    async fn attempts(
        &self,
        request: reqwest::Request,
        max_body: usize,
        deadline: Instant,
        retried: bool,
    ) -> Result<Answer, UpstreamError> {
        self.admission(deadline).await?;
        let running = Running { upstream: self, recorded: false };
        let mut pauses = repeat::pauses();
        let mut first_attempt = true;
        let mut number = 0;
        loop {
            number += 1;
            // Bodies are text, so every request can be cloned.
            let mut attempt =
                request.try_clone().unwrap_or_else(|| reqwest::Request::new(http::Method::GET, request.url().clone()));
            let span = spans::attempt(self.name, &mut attempt, number);
            let outcome = timeout_at(deadline, self.read(attempt, max_body)).with_context(span.clone()).await;
            let outcome = outcome.unwrap_or(Err(UpstreamError::TimedOut));
            spans::attempted(&span, outcome.as_ref().ok().map(|answer| answer.status), outcome::name(&outcome));
            let retry_after = match repeat::verdict(&outcome) {
                Verdict::Works => {
                    running.ended(|breaker| breaker.succeeded(first_attempt));
                    return outcome;
                }
                Verdict::Lasting => None,
                Verdict::Transient(retry_after) => {
                    let pause = pauses.next().map(|pause| pause.max(retry_after.unwrap_or_default()));
                    let in_time =
                        |pause: &Duration| Instant::now().checked_add(*pause).is_some_and(|later| later < deadline);
                    if let Some(pause) = pause.filter(in_time).filter(|_| retried)
                        && lock(&self.breaker).may_retry()
                    {
                        metrics::repeat(self.name);
                        debug!(upstream = self.name, pause_ms = pause.as_millis(), "retrying an exchange");
                        first_attempt = false;
                        sleep(pause).await;
                        continue;
                    }
                    retry_after
                }
            };
            running.ended(|breaker| breaker.failed(retry_after, Instant::now()));
            return outcome;
        }
    }

    /// Waits until an exchange may begin: through one pause of the breaker, and for the breaker's trial request. So the first
    /// refresh after an outage succeeds as a whole.
    async fn admission(&self, deadline: Instant) -> Result<(), UpstreamError> {
        let mut waited = false;
        loop {
            let ended = self.ended.notified();
            let admission = lock(&self.breaker).admit(Instant::now());
            match admission {
                Admission::Now => return Ok(()),
                Admission::After(pause)
                    if waited || Instant::now().checked_add(pause).is_none_or(|later| later >= deadline) =>
                {
                    return Err(UpstreamError::CircuitOpen(pause));
                }
                Admission::After(pause) => sleep(pause).await,
                Admission::AfterTrial => timeout_at(deadline, ended).await.map_err(|_| UpstreamError::TimedOut)?,
            }
            waited = true;
        }
    }

    async fn read(&self, request: reqwest::Request, max_body: usize) -> Result<Answer, UpstreamError> {
        let mut response = self.http.execute(request).await.map_err(|error| upstream_error(error, false))?;
        let status = response.status();
        Span::current().record("status", status.as_u16());
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(UpstreamError::Redirected(redirect_target(&response)));
        }
        let headers = std::mem::take(response.headers_mut());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| upstream_error(error, true))? {
            let length = body.len() + chunk.len();
            if length > max_body {
                return Err(UpstreamError::TooLarge(max_body));
            }
            if length > LARGE {
                body.reserve(max_body - body.len());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }

    /// The error for an answer that cannot be used.
    pub fn error(&self, method: http::Method, url: &Url, cause: UpstreamError) -> ExchangeError {
        ExchangeError { upstream: self.name, method, url: public_part(url), cause }
    }
}

/// A running exchange. If it is dropped before it ends, it does not count as a success or a failure.
struct Running<'a> {
    upstream: &'a Upstream,
    recorded: bool,
}

impl Running<'_> {
    fn ended(mut self, record: impl FnOnce(&mut Breaker)) {
        record(&mut lock(&self.upstream.breaker));
        self.recorded = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            lock(&self.upstream.breaker).abandoned();
        }
        self.upstream.ended.notify_waiters();
    }
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, UpstreamError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| UpstreamError::NotJson { line: error.line(), column: error.column() })
    }
}

fn upstream_error(error: reqwest::Error, body: bool) -> UpstreamError {
    // The URL may hold slugs and, in a misconfiguration, credentials.
    let error = error.without_url();
    if error.is_timeout() {
        UpstreamError::TimedOut
    } else if body || !error.is_connect() {
        UpstreamError::Interrupted(error)
    } else {
        UpstreamError::Unreachable(error)
    }
}

fn redirect_target(response: &reqwest::Response) -> String {
    response
        .headers()
        .get(http::header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| response.url().join(location).ok())
        .map_or_else(|| String::from("an invalid URL"), |url| public_part(&url))
}

#[cfg(test)]
mod tests;
