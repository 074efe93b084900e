//! The loop's little listener: health, numbers, and a nudge. Nothing here is secret, and nothing can be ordered but a
//! pass that would come anyway.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use program::unix_socket;
use settings::Listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::cli::Wake;
use crate::seen::Seen;

/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How many connections there may be at one time.
const CONNECTIONS: usize = 64;

/// Serves at these addresses, in a thread of its own; none is fine.
pub(crate) fn serve(addresses: &[Listen], seen: &Seen, wake: &Sender<Wake>) -> io::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let door = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    for address in addresses {
        let _inside = runtime.enter();
        let (seen, wake, door) = (seen.clone(), wake.clone(), std::sync::Arc::clone(&door));
        let named = |error: io::Error| io::Error::new(error.kind(), format!("run.listen {address}: {error}"));
        match address {
            Listen::Tcp(address) => {
                let listener = runtime.block_on(TcpListener::bind(address)).map_err(named)?;
                runtime.spawn(async move {
                    while let Ok(place) = std::sync::Arc::clone(&door).acquire_owned().await {
                        if let Ok((stream, _)) = listener.accept().await {
                            tokio::spawn(connection(stream, seen.clone(), wake.clone(), place));
                        }
                    }
                });
            }
            Listen::Unix(path) => {
                unix_socket::remove_stale(path).map_err(named)?;
                let listener = UnixListener::bind(path).map_err(named)?;
                runtime.spawn(async move {
                    while let Ok(place) = std::sync::Arc::clone(&door).acquire_owned().await {
                        if let Ok((stream, _)) = listener.accept().await {
                            tokio::spawn(connection(stream, seen.clone(), wake.clone(), place));
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
    seen: Seen,
    wake: Sender<Wake>,
    place: tokio::sync::OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &seen, &wake);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
    // A client that breaks off is its own affair.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
    drop(place);
}

fn answer(method: &Method, path: &str, seen: &Seen, wake: &Sender<Wake>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/health/live") => (200, "application/json", r#"{"live": true}"#.to_owned()),
        (&Method::GET | &Method::HEAD, "/health/ready") => {
            let (ready, body) = seen.ready();
            (if ready { 200 } else { 503 }, "application/json", body.to_string())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => (200, "text/plain; version=0.0.4", seen.render()),
        (&Method::POST, "/nudge") => match wake.send(Wake::Nudge) {
            Ok(()) => (202, "application/json", r#"{"detail": "a pass begins"}"#.to_owned()),
            Err(_) => (503, "application/json", r#"{"detail": "the loop has ended"}"#.to_owned()),
        },
        (_, "/health/live" | "/health/ready" | "/metrics" | "/nudge") => {
            (405, "application/json", r#"{"detail": "Method Not Allowed"}"#.to_owned())
        }
        _ => (404, "application/json", r#"{"detail": "Not Found"}"#.to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == 405 {
        let allowed = if path == "/nudge" { "POST" } else { "GET, HEAD" };
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static(allowed));
    }
    response
}
