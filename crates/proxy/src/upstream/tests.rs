use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn transport(proxy: Option<&str>) -> Transport {
    Transport {
        verify_tls: true,
        proxy: proxy.map(|url| url.parse().unwrap()),
        user_agent: USER_AGENT.into(),
        timeout: Duration::from_secs(5),
    }
}

#[test]
fn a_proxy_scheme_that_would_be_ignored_is_refused() {
    let error = Upstream::new("Waldur", &transport(Some("ftp://127.0.0.1:1"))).unwrap_err();
    assert!(matches!(error, TransportError::ProxyScheme(scheme) if scheme == "ftp"));
}

/// A SOCKS5 server that serves one request itself, and returns the name that it was asked to connect to.
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

#[tokio::test]
async fn a_socks_proxy_resolves_the_names() {
    for scheme in ["socks5", "socks5h"] {
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

/// A server whose answers come from `moods`, the last one again and again, each on a connection of its own; an empty one
/// is a reset.
async fn server(moods: &'static [&'static str]) -> (Url, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mood = moods[counted.fetch_add(1, Ordering::SeqCst).min(moods.len() - 1)];
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await;
            let _ = client.write_all(mood.as_bytes()).await;
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

/// As long as a number can say.
const NEVER: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 18446744073709551615\r\ncontent-length: 0\r\n\r\n";

async fn status(upstream: &Upstream, url: &Url) -> Result<u16, Fault> {
    let outcome = upstream.exchange(upstream.get(url.clone()), 10).await;
    outcome.map(|answer| answer.status.as_u16()).map_err(|error| error.fault)
}

#[tokio::test]
async fn what_may_pass_is_asked_for_again() {
    for (moods, status_at_last, requests) in [
        (&[DOWN, FINE][..], 200, 2),
        (&["", CUT, FINE], 200, 3),
        (&[LATER, FINE], 200, 2),
        (&[DOWN, DOWN, DOWN], 503, 3),
        (&[REFUSED, FINE], 403, 1),
    ] {
        let (url, served) = server(moods).await;
        let upstream = Upstream::new("Waldur", &transport(None)).unwrap();
        let begun = Instant::now();
        assert_eq!(status(&upstream, &url).await.unwrap(), status_at_last, "{moods:?}");
        assert_eq!(served.load(Ordering::SeqCst), requests, "{moods:?}");
        let obeyed = begun.elapsed() >= Duration::from_secs(1);
        assert_eq!(obeyed, moods[0] == LATER, "{moods:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_wants_to_be_left_alone_for_ever_is_left_alone_for_a_while() {
    let (url, served) = server(&[NEVER]).await;
    let upstream = Upstream::new("Waldur", &transport(None)).unwrap();
    assert_eq!(status(&upstream, &url).await.unwrap(), 429);
    assert_eq!(upstream.breaker(), BreakerState::Open);
    let again = status(&upstream, &url).await;
    assert!(matches!(again, Err(Fault::LeftAlone(rest)) if rest <= breaker::LONGEST_REST), "{again:?}");
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn all_exchanges_after_an_outage_succeed_and_one_tries_first() {
    // Ten repetitions are saved up, so that five failures are five to fifteen requests.
    let (url, served) = server(&[DOWN; 15]).await;
    let upstream = Upstream::new("Waldur", &transport(None)).unwrap();
    for _ in 0..5 {
        assert_eq!(status(&upstream, &url).await.unwrap(), 503);
    }
    assert_eq!(upstream.breaker(), BreakerState::Open);
    assert_eq!(served.load(Ordering::SeqCst), 15);
    // Still down: one asks, once, and the others share what it learns.
    let all = futures::future::join_all((0..8).map(|_| status(&upstream, &url))).await;
    assert_eq!(all.iter().filter(|outcome| matches!(outcome, Ok(503))).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|outcome| matches!(outcome, Err(Fault::LeftAlone(_)))).count(), 7, "{all:?}");
    assert_eq!(served.load(Ordering::SeqCst), 16);

    let (back, _) = server(&[FINE]).await;
    let all = futures::future::join_all((0..8).map(|_| status(&upstream, &back))).await;
    assert!(all.iter().all(|outcome| matches!(outcome, Ok(200))), "{all:?}");
    assert_eq!(upstream.breaker(), BreakerState::Closed);
}
