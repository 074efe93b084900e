//! Listening and serving.

mod acceptor;
mod activity;
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

pub use self::frontend::Frontend;
pub use self::listeners::{BindError, Listener, bind, open};
pub use self::tls::TlsIdentity;

/// Serves `front` on all listeners until `stop` resolves, and then on until the requests that run by then are finished or what
/// `stop` resolved to resolves as well. Clients that are slow, idle or many are kept within limits.
pub async fn serve<C: Future<Output = ()>>(
    listeners: Vec<Listener>,
    front: Arc<Frontend>,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    serve_within(ConnectionLimits::of_this_process(), listeners, front, stop).await
}

/// The same for the few who ask how the process is: they get few connections, and those beside the others.
pub async fn serve_few<C: Future<Output = ()>>(
    listeners: Vec<Listener>,
    front: Arc<Frontend>,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    serve_within(ConnectionLimits::of_this_process().for_few(), listeners, front, stop).await
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
    let door = Arc::new(Acceptor::new(limits));
    // Connections end when this sender is dropped, which is whenever this function ends.
    let (phase, phases) = watch::channel(Phase::Serving);
    let accept = |listener| door.clone().accept(listener, front.clone(), phases.clone());
    let accepting = async {
        future::join_all(listeners.into_iter().map(accept)).await;
        future::pending::<Infallible>().await
    };
    let cut = tokio::select! {
        never = accepting => match never {},
        cut = stop => cut,
    };
    phase.send_replace(Phase::Stopping);
    tokio::select! {
        () = door.empty() => {}
        () = cut => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
