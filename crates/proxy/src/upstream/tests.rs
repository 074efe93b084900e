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
fn what_is_shown_of_a_url_holds_no_secret() {
    let url = "https://user:pass@waldur.example.org:8443/api/x/?token=abc#d".parse().unwrap();
    assert_eq!(public_part(&url), "https://waldur.example.org:8443/api/x/");
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
