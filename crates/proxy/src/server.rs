//! Listening and serving.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use axum::Router;
use axum::serve::ListenerExt;
use futures::future;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

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
/// `stop` resolved to resolves as well.
pub async fn serve<C: Future<Output = ()>>(
    listeners: Vec<TcpListener>,
    router: Router,
    stop: impl Future<Output = C>,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let servers = listeners.into_iter().map(|listener| {
        let router = router.clone();
        let mut stopped = stopped.clone();
        async move {
            info!(address = %listener.local_addr()?, "listening");
            // Answers go out at once; a failure to say so costs speed alone.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            let stop = async move {
                // An error says that the sender is gone, which happens after stopping only.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            axum::serve(listener, router).with_graceful_shutdown(stop).await
        }
    });
    let mut served = pin!(future::try_join_all(servers));
    let cut = tokio::select! {
        outcome = &mut served => return outcome.map(drop),
        cut = stop => cut,
    };
    stopping.send_replace(true);
    tokio::select! {
        outcome = served => outcome.map(drop),
        () = cut => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::sync::oneshot;

    use super::*;

    /// Serves a route that never answers; gives its URL and the listener.
    async fn hanging() -> (String, Vec<TcpListener>, Router, oneshot::Receiver<()>) {
        let listeners = bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let url = format!("http://{}/", listeners[0].local_addr().unwrap());
        let (entered, running) = oneshot::channel();
        let entered = std::sync::Arc::new(std::sync::Mutex::new(Some(entered)));
        let hang = move || async move {
            if let Some(entered) = entered.lock().unwrap().take() {
                entered.send(()).unwrap();
            }
            future::pending::<()>().await;
        };
        (url, listeners, Router::new().route("/", get(hang)), running)
    }

    #[tokio::test]
    async fn serving_ends_at_once_when_running_requests_have_had_their_time() {
        crate::upstream::install_tls_provider();
        let (url, listeners, router, running) = hanging().await;
        let (cut, was_cut) = oneshot::channel::<()>();
        #[expect(clippy::async_yields_async, reason = "that is what `serve` takes")]
        let stop = async move {
            running.await.unwrap();
            async move { was_cut.await.unwrap() }
        };
        let served = tokio::spawn(serve(listeners, router, stop));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = tokio::spawn(client.get(&url).send());
        // The listener closes when serving stops, while the request runs on.
        while tokio::net::TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!served.is_finished());
        cut.send(()).unwrap();
        served.await.unwrap().unwrap();
        request.abort();
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(&[address]).await.unwrap_err();
        let hint = "another program does: stop it, or give another --listen";
        assert_eq!(error.to_string(), format!("cannot listen on {address} ({hint})"));
    }
}
