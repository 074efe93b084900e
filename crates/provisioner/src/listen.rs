//! HTTP server of `run`: health, metrics, and a request for a pass. None of it is secret, and all a client can do is start
//! a pass early.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use program::unix_socket;
use settings::Listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// Timeout for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of concurrent connections.
const MAX_CONNECTIONS: usize = 64;

/// Requests a pass; false if the loop has ended.
type Nudge = Arc<dyn Fn() -> bool + Send + Sync>;

/// Binds these addresses and serves them in a thread. Does nothing if there are none.
pub(crate) fn serve(
    addresses: &[Listen],
    metrics: &Metrics,
    nudge: impl Fn() -> bool + Send + Sync + 'static,
) -> io::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let nudge: Nudge = Arc::new(nudge);
    for address in addresses {
        let _inside = runtime.enter();
        let (metrics, nudge, connections) = (metrics.clone(), Arc::clone(&nudge), Arc::clone(&connections));
        let named = |error: io::Error| io::Error::new(error.kind(), format!("run.listen {address}: {error}"));
        match address {
            Listen::Tcp(address) => {
                let listener = runtime.block_on(TcpListener::bind(address)).map_err(named)?;
                runtime.spawn(async move {
                    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
                        if let Ok((stream, _)) = listener.accept().await {
                            tokio::spawn(connection(stream, metrics.clone(), Arc::clone(&nudge), permit));
                        }
                    }
                });
            }
            Listen::Unix(path) => {
                unix_socket::remove_stale(path).map_err(named)?;
                let listener = UnixListener::bind(path).map_err(named)?;
                runtime.spawn(async move {
                    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
                        if let Ok((stream, _)) = listener.accept().await {
                            tokio::spawn(connection(stream, metrics.clone(), Arc::clone(&nudge), permit));
                        }
                    }
                });
            }
        }
    }
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(())
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    metrics: Metrics,
    nudge: Nudge,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &metrics, &*nudge);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
    // Errors are the client's: it disconnected, or sent no HTTP.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
    drop(permit);
}

fn answer(method: &Method, path: &str, metrics: &Metrics, nudge: &dyn Fn() -> bool) -> Response<Full<Bytes>> {
    let json = "application/json";
    let (status, content_type, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/health/live") => (StatusCode::OK, json, r#"{"live": true}"#.to_owned()),
        (&Method::GET | &Method::HEAD, "/health/ready") => {
            let (ready, body) = metrics.ready();
            (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, json, body.to_string())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, "text/plain; version=0.0.4", metrics.render()),
        (&Method::POST, "/nudge") if nudge() => {
            (StatusCode::ACCEPTED, json, r#"{"detail": "a pass begins"}"#.to_owned())
        }
        (&Method::POST, "/nudge") => {
            (StatusCode::SERVICE_UNAVAILABLE, json, r#"{"detail": "the loop has ended"}"#.to_owned())
        }
        (_, "/health/live" | "/health/ready" | "/metrics" | "/nudge") => {
            (StatusCode::METHOD_NOT_ALLOWED, json, r#"{"detail": "Method Not Allowed"}"#.to_owned())
        }
        _ => (StatusCode::NOT_FOUND, json, r#"{"detail": "Not Found"}"#.to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static(if path == "/nudge" { "POST" } else { "GET, HEAD" }));
    }
    response
}
