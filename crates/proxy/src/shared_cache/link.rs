//! The way to the server: a connection that is made anew when it breaks, a bound on each exchange, and a rest for a server
//! that fails, so that nobody waits for it again and again.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, RedisResult};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::metrics;

/// Pause after a failure, and the longest time that a connection may take to be made: nobody waits for all of it, but the next
/// request finds the connection.
const REST: Duration = Duration::from_secs(2);
/// Pause after a failure that looks lasting: answers that make no sense.
const LONG_REST: Duration = Duration::from_mins(5);
/// How long a server that refused a command counts as failing although it answers others, unless it accepts a write. A server
/// that answers reads and refuses writes would otherwise be reported as gone and back at every reading.
const DOUBT: Duration = Duration::from_mins(10);

/// The server gave no usable answer, and why; this has been logged.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Away(String);

#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    /// The server as it may be shown.
    pub(super) place: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Whether the server works; unknown before the first exchange.
    works: Option<bool>,
    /// Nothing is sent to the server until then.
    rest: Option<Instant>,
    /// When it last refused a command or made no sense.
    refused: Option<Instant>,
}

impl Link {
    /// Nothing is sent yet.
    pub(super) fn new(url: &str, place: String) -> RedisResult<Self> {
        Ok(Self { client: Client::open(url)?, place, state: Arc::default() })
    }

    /// Sends a command, which may reach the server twice, and waits for `limit` at most, connecting included.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd, limit: Duration) -> Result<T, Away> {
        if self.lock().rest.is_some_and(|rest| Instant::now() < rest) {
            metrics::shared_exchange("left_alone");
            return Err(Away(String::from("it failed a moment ago")));
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
                Err(self.failed(reason(&error), REST, refused))
            }
            Err(_) => {
                metrics::shared_exchange("timed_out");
                Err(self.failed(format!("no answer within {} ms", limit.as_millis()), REST, false))
            }
        }
    }

    /// Notes that the server does what is asked of it, writes included.
    pub(super) fn accepted(&self) {
        let mut state = self.lock();
        state.refused = None;
        if state.works.replace(true) != Some(true) {
            info!(server = self.place, "the cache of the replicas is used");
        }
    }

    /// Notes that the server's answers make no sense: it is not used for some minutes.
    pub(super) fn distrust(&self, reason: &str) {
        self.failed(reason.to_owned(), LONG_REST, true);
    }

    /// Whether the server works; `None` before the first exchange.
    pub(super) fn works(&self) -> Option<bool> {
        self.lock().works
    }

    async fn exchange<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let known = self.lock().connection.clone();
        if let Some(mut connection) = known {
            match command.query_async(&mut connection).await {
                // The server may have been started anew since.
                Err(error) if error.is_io_error() || error.is_unrecoverable_error() => {}
                outcome => return outcome,
            }
        }
        let mut connection = self.connect().await?;
        command.query_async(&mut connection).await
    }

    /// Makes a connection, which goes on when nobody waits for it any more.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let (client, state) = (self.client.clone(), Arc::clone(&self.state));
        let connecting = tokio::spawn(async move {
            // Each exchange has a bound of its own.
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(REST)).set_response_timeout(None);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            lock(&state).connection = Some(connection.clone());
            Ok(connection)
        });
        connecting.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    fn failed(&self, reason: String, rest: Duration, refused: bool) -> Away {
        let mut state = self.lock();
        state.connection = None;
        state.rest = Some(Instant::now() + rest);
        if refused {
            state.refused = Some(Instant::now());
        }
        if state.works.replace(false) != Some(false) {
            warn!(
                server = self.place,
                reason, "the cache of the replicas is away; this replica stands alone until it is back"
            );
        }
        Away(reason)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong, without any text of the server's but its code.
fn reason(error: &RedisError) -> String {
    match error.code() {
        _ if error.is_io_error() => error.to_string(),
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    }
}
