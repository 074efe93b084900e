//! Receives Waldur's events and refreshes at once. An event is only a reason to refresh: its content is not read, and without
//! events, refreshes happen as configured.

mod frame;
mod session;
mod watchdog;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{StatusCode, header};
use reqwest::Upgraded;
use secrecy::SecretString;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::{debug, info, warn};
use url::Url;

use crate::config::WaldurApi;
use crate::metrics;
use crate::store::Store;
use crate::transport::{Transport, TransportError};
use crate::upstream::{UpstreamError, public_part};
use crate::waldur::{Waldur, WaldurError};
use program::error_chain;
use session::{Session, SessionError, until};
use watchdog::Watchdog;

/// Pauses between attempts to connect.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// Pause if Waldur has no events for this token.
const UNSUPPORTED_PAUSE: Duration = Duration::from_mins(10);
/// An event may come before its change is visible. So everything is refreshed once more this long after the last event.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Shortest pause between two refreshes because of events.
const REFRESH_PAUSE: Duration = Duration::from_millis(500);
/// After a refresh that took long, as during a burst of events, the pause is this multiple of its duration.
const PAUSE_FACTOR: u32 = 2;
/// Subprotocol of the WebSocket.
const PROTOCOL: &str = "v12.stomp";

#[derive(Debug)]
pub(crate) struct Push {
    store: Arc<Store>,
    http: reqwest::Client,
    /// With the scheme `ws` or `wss`.
    url: Url,
    /// Maximum time until the events of a connection are received.
    timeout: Duration,
    /// Notified by each event.
    woken: Notify,
}

/// Why no events are received.
#[derive(Debug, Error)]
enum PushError {
    #[error("cannot look up the offerings")]
    Offerings(#[source] WaldurError),
    #[error("the token can see none of the offerings; check storage_systems")]
    NoOffering,
    #[error(
        "this Waldur has no events for this token ({0}); update Waldur, give its user the role of a service provider's owner, or \
         set waldur_api.push to false"
    )]
    Unsupported(StatusCode),
    #[error("cannot register for events")]
    Registration(#[source] WaldurError),
    #[error("cannot connect to {url}; check waldur_api.push_url")]
    Unreachable {
        url: String,
        #[source]
        cause: reqwest::Error,
    },
    #[error("{url} is not a WebSocket with the protocol {PROTOCOL} (it answered {status}); check waldur_api.push_url")]
    NoWebSocket { url: String, status: StatusCode },
    #[error("no subscription within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    #[error("the session with Waldur's RabbitMQ ended")]
    Session(#[from] SessionError),
    #[error(
        "refreshes found several changes that no event announced; another client with the same token may receive the events, or \
         Waldur does not send them"
    )]
    NoEvents,
}

impl Push {
    /// Sends nothing yet; `None` without `waldur_api.push`.
    pub(crate) fn new(settings: &WaldurApi, store: &Arc<Store>) -> Result<Option<Self>, TransportError> {
        let Some(url) = &settings.push else { return Ok(None) };
        let mut transport = Transport::new(settings.verify_ssl, settings.socks_proxy.clone(), settings.timeout);
        if let Some(user_agent) = &settings.agent_header {
            transport.user_agent.clone_from(user_agent);
        }
        Ok(Some(Self {
            store: Arc::clone(store),
            http: transport.websocket_client("Waldur's events")?,
            url: url.clone(),
            timeout: settings.timeout,
            woken: Notify::new(),
        }))
    }

    /// Receives events, and refreshes. Never resolves.
    pub(crate) async fn run(&self) {
        futures::join!(self.refresh_on_events(), self.stay_connected());
    }

    /// Refreshes after events. All events during a refresh are answered by one more.
    async fn refresh_on_events(&self) {
        let mut again_at = None;
        loop {
            again_at = tokio::select! {
                () = self.woken.notified() => {
                    // Not at each event: thousands a second would make each request refresh.
                    self.store.note_announcement();
                    Some(Instant::now() + AGAIN_AFTER)
                }
                () = until(again_at) => None,
            };
            let began = Instant::now();
            // Logs its failure.
            let _ = self.store.get(true).await;
            sleep(REFRESH_PAUSE.max(began.elapsed() * PAUSE_FACTOR)).await;
        }
    }

    async fn stay_connected(&self) {
        let mut pauses = pauses();
        // Each reason is logged once, until connections work again.
        let (mut failing, mut silent) = (false, false);
        loop {
            let (began, mut received) = (Instant::now(), false);
            let Err(error) = self.receive(&mut received).await;
            let lasted = self.store.waldur_announces() && began.elapsed() >= MAX_PAUSE;
            self.store.set_waldur_announces(false);
            silent &= !received;
            failing &= !(received || lasted);
            if lasted {
                pauses = self::pauses();
            }
            let unannounced = matches!(error, PushError::NoEvents);
            let known = if unannounced { &mut silent } else { &mut failing };
            let reason = error_chain(&error);
            if std::mem::replace(known, true) {
                debug!(error = reason, "no events from Waldur");
            } else {
                warn!(error = reason, "no events from Waldur; changes are found by polling, and connecting is retried");
            }
            if unannounced {
                metrics::push_silence();
            }
            let lasting = matches!(error, PushError::Unsupported(_) | PushError::NoOffering);
            let pause = if lasting { UNSUPPORTED_PAUSE } else { pauses.next().unwrap_or(MAX_PAUSE) };
            sleep(pause).await;
            metrics::push_reconnect();
        }
    }

    /// Registers, connects and receives events until that fails. The first event sets `received`.
    async fn receive(&self, received: &mut bool) -> Result<Infallible, PushError> {
        let waldur = self.store.source().waldur();
        let opened = timeout(self.timeout, self.open(waldur)).await;
        let mut session = opened.map_err(|_| PushError::TooSlow(self.timeout))??;
        info!(url = public_part(&self.url), "receiving events from Waldur");
        self.store.set_waldur_announces(true);
        // Events before this moment may have been lost.
        self.woken.notify_one();
        let event = || {
            metrics::push_event();
            *received = true;
            self.woken.notify_one();
        };
        listen(&mut session, waldur.token(), self.store.source().found_changes(), event).await
    }

    async fn open(&self, waldur: &Waldur) -> Result<Session<Upgraded>, PushError> {
        let mut offerings = Vec::new();
        for system in &self.store.policy().systems {
            let visible = waldur.offerings(&system.offering_slug).await.map_err(PushError::Offerings)?;
            offerings.extend(visible.into_iter().filter_map(|offering| offering.uuid));
        }
        if offerings.is_empty() {
            // Without a scope, Waldur would send the events of all users.
            return Err(PushError::NoOffering);
        }
        // Each time: it is cheap, and restores a queue or a password that is gone.
        let consumer = waldur.register_consumer(&offerings).await.map_err(|error| match error {
            WaldurError::Refused(status @ StatusCode::FORBIDDEN) => PushError::Unsupported(status),
            WaldurError::Exchange(error) if matches!(error.cause, UpstreamError::Status(StatusCode::NOT_FOUND)) => {
                PushError::Unsupported(StatusCode::NOT_FOUND)
            }
            error => PushError::Registration(error),
        })?;
        let socket = self.connect().await?;
        Ok(Session::open(socket, &consumer, waldur.token()).await?)
    }

    /// Opens the WebSocket (RFC 6455, 4.1).
    async fn connect(&self) -> Result<WebSocketStream<Upgraded>, PushError> {
        let url = || public_part(&self.url);
        let unreachable = |cause: reqwest::Error| PushError::Unreachable { url: url(), cause: cause.without_url() };
        let key = generate_key();
        let request = self
            .http
            .get(with_http_scheme(&self.url))
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let response = request.send().await.map_err(unreachable)?;
        let is =
            |name, value: &str| response.headers().get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS
            || !is(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
            || !is(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        {
            return Err(PushError::NoWebSocket { url: url(), status });
        }
        let upgraded = response.upgrade().await.map_err(unreachable)?;
        let limits =
            WebSocketConfig::default().max_message_size(Some(frame::MAX_FRAME)).max_frame_size(Some(frame::MAX_FRAME));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
    }
}

/// Calls `event` for each event, until the session ends or too many of the `changes` that refreshes find are not announced.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    token: &SecretString,
    changes: &Notify,
    mut event: impl FnMut(),
) -> Result<Infallible, PushError> {
    let mut watchdog = Watchdog::new(Instant::now());
    loop {
        tokio::select! {
            received = session.event(token) => {
                received?;
                watchdog.event(Instant::now());
                event();
            }
            () = changes.notified() => watchdog.change(Instant::now()),
            () = until(watchdog.deadline()) => {
                if watchdog.check(Instant::now()) {
                    return Err(PushError::NoEvents);
                }
            }
        }
    }
}

/// Between 1 s and 1 min, each up to doubled by random jitter, without an end.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

/// The HTTP client knows no WebSockets.
fn with_http_scheme(url: &Url) -> Url {
    let mut url = url.clone();
    // Possible between these schemes.
    let _ = url.set_scheme(if url.scheme() == "wss" { "https" } else { "http" });
    url
}

#[cfg(test)]
mod tests;
