//! Serves one connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use http::header;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::Service;
use tracing::debug;

use super::activity::Activity;
use super::frontend::Frontend;
use super::limits::{ConnectionLimits, MAX_HEAD, MAX_STREAMS};
use super::tracked_body::TrackedBody;
use super::unread_body;
use program::lock;

/// Whether the server accepts requests or shuts down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Serving,
    /// Running requests are finished; the server waits for nothing else.
    Stopping,
}

/// Serves an HTTP/1 or HTTP/2 connection until it ends, the client is too slow, or the server stops. It ends immediately
/// when the sender of `phase` is dropped.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    front: Arc<Frontend>,
    limits: &ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
) {
    let activity = SharedActivity::new();
    let stream = SharedStream::new(stream);
    let tracked = activity.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let is_sequential = request.version() < http::Version::HTTP_2;
        let running = Running::new(tracked.clone(), !is_sequential);
        // HTTP/1 sends one response at a time, so counting the connection's bytes is enough.
        let per_response = (!is_sequential).then(|| tracked.clone());
        let response = has_valid_host(&request).then(|| {
            // The body of an HTTP/2 request is a stream of its own, which does not block other requests.
            let (mut request, rest) = unread_body::split(request);
            // The end of an HTTP/2 stream does not go unnoticed.
            if is_sequential && request.headers().contains_key("prefer") {
                request.extensions_mut().insert(Patience(tracked.clone()));
            }
            (front.router().call(request), rest.filter(|_| is_sequential))
        });
        async move {
            let _running = running;
            let Some((response, rest)) = response else { return Ok::<_, Infallible>(invalid_host()) };
            let mut response = response.await?;
            if let Some(rest) = rest {
                rest.finish(&mut response).await;
            }
            Ok(response.map(|body| TrackedBody::new(body, per_response)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The timers of hyper are not used: `Activity` has the only one. A client that has closed its sending side may still
    // read. It cannot be distinguished from one that has gone, so its request runs to its response or timeout, unless it only waits
    // for a change (see `departed`).
    builder.http1().max_buf_size(MAX_HEAD as usize).half_close(true);
    builder.http2().max_header_list_size(MAX_HEAD).max_concurrent_streams(MAX_STREAMS);
    let tracked = TrackedStream { stream: stream.clone(), activity: activity.clone(), drained: 0 };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tracked), service));
    tokio::select! {
        biased;
        stopped = phase.wait_for(|phase| *phase == Phase::Stopping) => {
            if stopped.is_err() {
                return;
            }
        }
        // Errors of a connection are of no interest to the server.
        _ = connection.as_mut() => return,
        () = departed(&stream, &activity) => return,
        () = overdue(&activity, limits) => debug!("closing the connection of a slow client"),
    }
    activity.lock().closing(Instant::now());
    // The first request of a new connection may not have been read yet. Otherwise it would be lost when the service restarts and
    // its socket stays open.
    tokio::select! {
        biased;
        () = sender_dropped(phase.clone()) => return,
        _ = connection.as_mut() => return,
        () = no_longer_silent(&activity) => {}
        () = overdue(&activity, limits) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        () = sender_dropped(phase) => {}
        _ = connection => {}
        () = overdue(&activity, limits) => {}
    }
}

/// Whether a request has exactly one valid `Host` header (RFC 9112, 3.2), which only HTTP/1.1 requires.
fn has_valid_host<B>(request: &http::Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() != http::Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// Whether this is a host with an optional port (RFC 3986, 3.2.2). The host may be empty.
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("", port),
        Some(_) => return false,
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    let escaped = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let mut parts = host.split('%');
    parts.next().is_some_and(|first| first.bytes().all(valid))
        && parts.all(|part| escaped(part) && part.bytes().all(valid))
        && (port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.is_empty() || is_port(port)))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The response to a request whose `Host` header is missing, repeated or invalid.
fn invalid_host() -> http::Response<TrackedBody> {
    let mut response = http::Response::new(TrackedBody::new(axum::body::Body::empty(), None));
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

/// Resolves when the sender is dropped.
async fn sender_dropped(mut phase: watch::Receiver<Phase>) {
    while phase.changed().await.is_ok() {}
}

/// Resolves when something was received. It must be polled each time after the connection is.
async fn no_longer_silent(activity: &SharedActivity) {
    poll_fn(|_| if activity.lock().is_silent() { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// Resolves when the client has closed its sending side while a request waits for a change ([`Patience`]): otherwise clients that are gone
/// would count as waiting for minutes. It must be polled each time after the connection is.
async fn departed<S: AsyncRead + Unpin>(stream: &SharedStream<S>, activity: &SharedActivity) {
    poll_fn(|context| if activity.lock().is_waiting() { stream.lock().poll_end(context) } else { Poll::Pending }).await;
}

/// Resolves when a connection's deadline has passed. It must be polled each time after the connection is, because activity
/// on the connection changes the deadline.
async fn overdue(activity: &SharedActivity, limits: &ConnectionLimits) {
    let mut sleep = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        while let Some(deadline) = activity.lock().deadline(limits) {
            // A later deadline takes effect when the earlier one has passed, which saves two timer updates per request.
            if deadline < sleep.deadline() {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(context));
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await;
}

/// The activity of a connection, shared by its stream and its requests.
#[derive(Debug, Clone)]
pub(super) struct SharedActivity(Arc<Mutex<Activity>>);

impl SharedActivity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Activity::new(Instant::now()))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Activity> {
        // No code panics with the lock held.
        lock(&self.0)
    }
}

/// Counts a running request until it is dropped.
struct Running(SharedActivity);

impl Running {
    fn new(activity: SharedActivity, multiplexed: bool) -> Self {
        activity.lock().request_started(multiplexed);
        Self(activity)
    }
}

/// An extension of HTTP/1 requests with a preference, for handlers that wait for a change.
#[derive(Debug, Clone)]
pub struct Patience(SharedActivity);

impl Patience {
    /// Until the result is dropped, the request is cancelled when the client closes its sending side.
    pub fn wait(&self) -> impl Drop + use<> {
        self.0.lock().set_waiting(true);
        WaitsForChange(self.0.clone())
    }
}

struct WaitsForChange(SharedActivity);

impl Drop for WaitsForChange {
    fn drop(&mut self) {
        self.0.lock().set_waiting(false);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().request_answered(Instant::now());
    }
}

/// A stream that can be read ahead by one byte, to notice its end while nothing else reads it.
struct ReadAhead<S> {
    stream: S,
    byte: Option<u8>,
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(byte) = self.byte.take()
        {
            buffer.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }

    /// Ready when the stream has ended or failed. A stream with unread bytes is pending.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.byte.is_none() {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            // After an error, nothing is filled.
            let _ = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            self.byte = buffer.filled().first().copied();
        }
        if self.byte.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// A stream, shared by the connection and [`departed`].
struct SharedStream<S>(Arc<Mutex<ReadAhead<S>>>);

impl<S> SharedStream<S> {
    fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(ReadAhead { stream, byte: None })))
    }

    fn lock(&self) -> MutexGuard<'_, ReadAhead<S>> {
        // One task uses both.
        lock(&self.0)
    }
}

impl<S> Clone for SharedStream<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A stream that records its activity.
struct TrackedStream<S> {
    stream: SharedStream<S>,
    activity: SharedActivity,
    /// Bytes discarded after the shutdown.
    drained: usize,
}

impl<S> TrackedStream<S> {
    fn record_write(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(bytes)) => self.activity.lock().sent(bytes, Instant::now()),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.lock().blocked(),
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream.lock().poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.lock().received(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream.lock().stream).poll_write(context, bytes);
        self.record_write(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream.lock().stream).poll_write_vectored(context, slices);
        self.record_write(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.lock().stream).poll_flush(context)
    }

    /// Closes the sending side, then waits for the client to close: closing with unread bytes would discard the last
    /// response of a client that is still sending.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream.lock().stream).poll_shutdown(context))?;
        self.activity.lock().closing(Instant::now());
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(self.stream.lock().poll_read(context, &mut buffer))?;
            self.drained += buffer.filled().len();
            if buffer.filled().is_empty() || self.drained > 4 * MAX_HEAD as usize {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn hosts_are_validated() {
        for host in ["x", "", "x.example.org", "x:80", "x:", "127.0.0.1:8000", "[::1]", "[::1]:80", "a_b", "%41", ":80"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a/b", "a@b", "a?b", "a#b", "a\\b", "x:y", "x:80:80", "x:65536", "x:+1", "::1", "[::1", "[x]",
            "[::1]x", "%4", "%zz", "<x>", "a,b/", "\u{fc}", "http://x",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"\xff"));
    }
}
