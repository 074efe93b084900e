//! The HTTP server: listeners, TLS, connections and their limits.

mod acceptor;
mod activity;
mod chunks;
mod connection;
mod frontend;
mod limits;
mod listeners;
mod tls;
mod tracked_body;
mod unix_socket;
mod unread_body;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::future;
use tokio::sync::watch;
use tracing::info;

use self::acceptor::Acceptor;
use self::connection::Phase;
use self::limits::ConnectionLimits;

pub use self::connection::Patience;
pub use self::frontend::Frontend;
pub use self::listeners::{BindError, Listener, bind, open};
pub use self::tls::TlsIdentity;

/// Serves `front` on all listeners until `stop` resolves. Requests in progress may then continue until the
/// future that `stop` returned resolves. [`ConnectionLimits`] limits slow clients, idle clients and the number of connections.
pub async fn serve<C: Future<Output = ()>>(
    listeners: Vec<Listener>,
    front: Arc<Frontend>,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    serve_within(ConnectionLimits::of_this_process(), listeners, front, stop).await
}

/// Like [`serve`], for the addresses of health and metrics: with fewer connections, counted separately.
pub async fn serve_health<C: Future<Output = ()>>(
    listeners: Vec<Listener>,
    front: Arc<Frontend>,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    serve_within(ConnectionLimits::of_this_process().for_health(), listeners, front, stop).await
}

async fn serve_within<C: Future<Output = ()>>(
    limits: ConnectionLimits,
    listeners: Vec<Listener>,
    front: Arc<Frontend>,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    for listener in &listeners {
        info!(address = %listener.address(), "listening");
    }
    let acceptor = Arc::new(Acceptor::new(limits));
    // Dropping this sender, when this function returns, ends all connections.
    let (phase, phase_receiver) = watch::channel(Phase::Serving);
    let accept = |listener| acceptor.clone().accept(listener, front.clone(), phase_receiver.clone());
    let accepting = async {
        future::join_all(listeners.into_iter().map(accept)).await;
        future::pending::<Infallible>().await
    };
    let deadline = tokio::select! {
        never = accepting => match never {},
        deadline = stop => deadline,
    };
    phase.send_replace(Phase::Stopping);
    tokio::select! {
        () = acceptor.wait_until_empty() => {}
        () = deadline => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
