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

/// How long a server that failed is left alone, and the longest time that a connection may take to be made: nobody waits for
/// all of it, but the next one finds the connection.
const REST: Duration = Duration::from_secs(2);

/// The server gave no answer that can be used, and why not; this has been told.
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
    /// Whether the last exchange worked; nobody knows before the first.
    works: Option<bool>,
    /// The server is left alone until then.
    rest: Option<Instant>,
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
                if self.lock().works.replace(true) != Some(true) {
                    info!(server = self.place, "the cache of the replicas is used");
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                metrics::shared_exchange("failed");
                Err(self.failed(reason(&error)))
            }
            Err(_) => {
                metrics::shared_exchange("timed_out");
                Err(self.failed(format!("no answer within {} ms", limit.as_millis())))
            }
        }
    }

    /// Whether the last exchange worked; `None` before the first.
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

    fn failed(&self, reason: String) -> Away {
        let mut state = self.lock();
        state.connection = None;
        state.rest = Some(Instant::now() + REST);
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
