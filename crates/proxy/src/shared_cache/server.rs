//! The connection to the server: reconnects when it breaks, limits the time of each command, and pauses after failures so
//! that not every request waits for a failing server.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, RedisResult};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use url::Url;

use super::SetupError;
use crate::config::Settings;
use crate::metrics;
use crate::upstream::public_part;
use program::lock;

/// Pause after a failure, and timeout for connecting. Commands wait less, but the next one finds the connection.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause after invalid answers, which are likely to recur.
const LONG_PAUSE: Duration = Duration::from_mins(5);
/// How long a server that refused a command counts as failing although it answers others, unless it accepts a write.
/// Otherwise a server that answers reads and refuses writes would be logged as unavailable and back at each reading.
const DOUBT: Duration = Duration::from_mins(10);

/// The server gave no usable answer, with the reason. It has been logged.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unavailable(String);

#[derive(Debug)]
pub(crate) struct Server {
    client: Client,
    /// What replicas share through this connection, for the log.
    shared: &'static str,
    /// Address without credentials.
    pub(super) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Whether the server works; `None` before the first command.
    works: Option<bool>,
    /// Nothing is sent before this.
    paused_until: Option<Instant>,
    /// When it last refused a command or gave an invalid answer.
    refused: Option<Instant>,
}

impl Server {
    /// The server of the settings, if configured. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// None for validated settings.
    pub(crate) fn new(settings: &Settings, shared: &'static str) -> Result<Option<Self>, SetupError> {
        let Some(url) = &settings.shared_cache else { return Ok(None) };
        let url = url.expose_secret();
        let address = public_part(&Url::parse(url).map_err(|_| SetupError::Url)?);
        let client = Client::open(url).map_err(|_| SetupError::Url)?;
        Ok(Some(Self { client, shared, address, state: Arc::default() }))
    }

    /// Sends a command, which may reach the server twice, and waits for the answer; at most for `limit`, including the time to
    /// connect.
    pub(crate) async fn send<T: FromRedisValue>(&self, command: &Cmd, limit: Duration) -> Result<T, Unavailable> {
        if self.lock().paused_until.is_some_and(|until| Instant::now() < until) {
            metrics::shared_exchange("left_alone");
            return Err(Unavailable(String::from("it failed recently")));
        }
        match timeout(limit, self.exchange(command)).await {
            Ok(Ok(answer)) => {
                metrics::shared_exchange("success");
                if self.lock().refused.is_none_or(|refused| refused.elapsed() > DOUBT) {
                    self.accepted();
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                metrics::shared_exchange("failed");
                let refused = !error.is_io_error();
                Err(self.failed(reason(&error), PAUSE, refused))
            }
            Err(_) => {
                metrics::shared_exchange("timed_out");
                Err(self.failed(format!("no answer within {} ms", limit.as_millis()), PAUSE, false))
            }
        }
    }

    /// Records that the server accepts commands, including writes.
    pub(crate) fn accepted(&self) {
        let mut state = self.lock();
        state.refused = None;
        if state.works.replace(true) != Some(true) {
            info!(server = self.address, "using the shared cache for {}", self.shared);
        }
    }

    /// Records that the server's answers are invalid: it is not used for some minutes.
    pub(super) fn distrust(&self, reason: &str) {
        self.failed(reason.to_owned(), LONG_PAUSE, true);
    }

    /// Whether the server works; `None` before the first command.
    pub(super) fn works(&self) -> Option<bool> {
        self.lock().works
    }

    async fn exchange<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let known = self.lock().connection.clone();
        if let Some(mut connection) = known {
            match command.query_async(&mut connection).await {
                // The server may have been restarted.
                Err(error) if error.is_io_error() || error.is_unrecoverable_error() => {}
                outcome => return outcome,
            }
        }
        let mut connection = self.connect().await?;
        command.query_async(&mut connection).await
    }

    /// Connects, in a task that continues when the caller stops waiting.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let (client, state) = (self.client.clone(), Arc::clone(&self.state));
        let connecting = tokio::spawn(async move {
            // Each command has its own timeout.
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PAUSE)).set_response_timeout(None);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            lock(&state).connection = Some(connection.clone());
            Ok(connection)
        });
        connecting.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    fn failed(&self, reason: String, pause: Duration, refused: bool) -> Unavailable {
        let mut state = self.lock();
        state.connection = None;
        state.paused_until = Some(Instant::now() + pause);
        if refused {
            state.refused = Some(Instant::now());
        }
        if state.works.replace(false) != Some(false) {
            warn!(
                server = self.address,
                reason,
                "the shared cache is unavailable for {}; this replica works alone until it is back",
                self.shared
            );
        }
        Unavailable(reason)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The reason without the server's text, except for its error code.
fn reason(error: &RedisError) -> String {
    match error.code() {
        _ if error.is_io_error() => error.to_string(),
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    }
}
