use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::testing::metronome;

fn transport(proxy: Option<&str>) -> Transport {
    Transport::new(true, proxy.map(|url| url.parse().unwrap()), Duration::from_secs(5))
}

#[test]
fn an_unsupported_proxy_scheme_is_refused() {
    let error = Upstream::new("Waldur", &transport(Some("ftp://127.0.0.1:1"))).unwrap_err();
    assert!(matches!(error, TransportError::ProxyScheme(scheme) if scheme == "ftp"));
}

/// A SOCKS5 server that answers one request itself and returns the requested host name.
async fn socks_server(listener: TcpListener) -> String {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting[0], 5);
    client.write_all(&[5, 0]).await.unwrap();
    let mut head = [0; 5];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 3, "the address is a name");
    let mut name = vec![0; usize::from(head[4]) + 2];
    client.read_exact(&mut name).await.unwrap();
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.unwrap();
    let mut request = [0; 1024];
    assert!(client.read(&mut request).await.unwrap() > 0);
    client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    name.truncate(usize::from(head[4]));
    String::from_utf8(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_socks_proxy_resolves_names() {
    for scheme in ["socks5", "socks5h"] {
        metronome();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("{scheme}://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(socks_server(listener));
        let upstream = Upstream::new("Waldur", &transport(Some(&proxy))).unwrap();
        // No resolver knows this name.
        let request = upstream.get("http://waldur.invalid/api/".parse().unwrap());
        assert_eq!(upstream.exchange(request, 10).await.unwrap().body, "{}");
        assert_eq!(asked.await.unwrap(), "waldur.invalid", "{scheme}");
    }
}

/// A server that gives these answers in order and repeats the last one, each on its own connection; an empty answer resets
/// the connection.
async fn server(answers: &'static [&'static str]) -> (Url, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    metronome();
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let answer = answers[counted.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await;
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    (url, served)
}

const FINE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
const DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
const LATER: &str =
    "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// `Retry-After` with the largest 64-bit number.
const NEVER: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 18446744073709551615\r\ncontent-length: 0\r\n\r\n";

async fn status(upstream: &Upstream, url: &Url) -> Result<u16, UpstreamError> {
    let outcome = upstream.exchange(upstream.get(url.clone()), 10).await;
    outcome.map(|answer| answer.status.as_u16()).map_err(|error| error.cause)
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried() {
    for (answers, last_status, requests) in [
        (&[DOWN, FINE][..], 200, 2),
        (&["", CUT, FINE], 200, 3),
        (&[LATER, FINE], 200, 2),
        (&[DOWN, DOWN, DOWN], 503, 3),
        (&[REFUSED, FINE], 403, 1),
    ] {
        let (url, served) = server(answers).await;
        let upstream = Upstream::new("Waldur", &transport(None)).unwrap();
        let begun = Instant::now();
        assert_eq!(status(&upstream, &url).await.unwrap(), last_status, "{answers:?}");
        assert_eq!(served.load(Ordering::SeqCst), requests, "{answers:?}");
        let obeyed = begun.elapsed() >= Duration::from_secs(1);
        assert_eq!(obeyed, answers[0] == LATER, "{answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_retry_after_is_obeyed_for_a_limited_time() {
    let (url, served) = server(&[NEVER]).await;
    let upstream = Upstream::new("Waldur", &transport(None)).unwrap();
    assert_eq!(status(&upstream, &url).await.unwrap(), 429);
    assert_eq!(upstream.breaker(), BreakerState::Open);
    let again = status(&upstream, &url).await;
    assert!(matches!(again, Err(UpstreamError::CircuitOpen(pause)) if pause <= breaker::MAX_PAUSE), "{again:?}");
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn one_trial_request_closes_the_breaker_for_all_waiting_exchanges() {
    // The budget has ten retries, so five failures send fifteen requests.
    let (url, served) = server(&[DOWN; 15]).await;
    let upstream = Upstream::new("Waldur", &transport(None)).unwrap();
    for _ in 0..5 {
        assert_eq!(status(&upstream, &url).await.unwrap(), 503);
    }
    assert_eq!(upstream.breaker(), BreakerState::Open);
    assert_eq!(served.load(Ordering::SeqCst), 15);
    // Still down: one trial request is sent, and the others fail with it.
    let all = futures::future::join_all((0..8).map(|_| status(&upstream, &url))).await;
    assert_eq!(all.iter().filter(|outcome| matches!(outcome, Ok(503))).count(), 1, "{all:?}");
    assert_eq!(
        all.iter().filter(|outcome| matches!(outcome, Err(UpstreamError::CircuitOpen(_)))).count(),
        7,
        "{all:?}"
    );
    assert_eq!(served.load(Ordering::SeqCst), 16);

    let (back, _) = server(&[FINE]).await;
    let all = futures::future::join_all((0..8).map(|_| status(&upstream, &back))).await;
    assert!(all.iter().all(|outcome| matches!(outcome, Ok(200))), "{all:?}");
    assert_eq!(upstream.breaker(), BreakerState::Closed);
}
