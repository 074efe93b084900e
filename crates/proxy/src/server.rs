//! Listening and serving.

mod accept;
mod connection;
mod limits;
mod pace;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use futures::future;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use self::accept::Door;
use self::connection::Phase;
use self::limits::Limits;

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}{hint}", hint = hint(.source))]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program does: stop it, or give another --listen)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege: give another --listen)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has this address)",
        _ => "",
    }
}

/// Binds all addresses, or none.
pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.map_err(|source| BindError { address: *address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Serves on all listeners until `stop` resolves, and then on until the requests that run by then are finished or what
/// `stop` resolved to resolves as well. Clients that are slow, idle or many are kept within limits.
pub async fn serve<C: Future<Output = ()>>(
    listeners: Vec<TcpListener>,
    router: Router,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    serve_within(Limits::of_this_process(), listeners, router, stop).await
}

/// The same for the few who ask how the process is: they get few connections, and those beside the others.
pub async fn serve_few<C: Future<Output = ()>>(
    listeners: Vec<TcpListener>,
    router: Router,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    serve_within(Limits::of_this_process().for_few(), listeners, router, stop).await
}

async fn serve_within<C: Future<Output = ()>>(
    limits: Limits,
    listeners: Vec<TcpListener>,
    router: Router,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    for listener in &listeners {
        info!(address = %listener.local_addr()?, "listening");
    }
    let door = Arc::new(Door::new(limits));
    // Connections end when this sender is dropped, which is whenever this function ends.
    let (phase, phases) = watch::channel(Phase::Serving);
    let accept = |listener| door.clone().accept(listener, router.clone(), phases.clone());
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
