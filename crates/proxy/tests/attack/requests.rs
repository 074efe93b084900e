//! Unusual targets, methods, headers and bodies.

use std::io::Write;

use crate::target::{Target, rest};

const LISTING: &str = "/api/storage-resources/";

fn get(target: &str, more: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n{more}connection: close\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_spellings_do_not_bypass_authentication() {
    let target = Target::start().await;
    for (path, expected) in [
        // The listing requires a token.
        (LISTING.to_owned(), 401),
        (format!("http://x{LISTING}"), 401),
        (format!("{LISTING}?access_token=a&token=b"), 401),
        (format!("{LISTING}%00"), 401),
        (format!("{LISTING}%2e%2e"), 401),
        (format!("{LISTING}{}", "%41".repeat(10_000)), 401),
        (format!("{LISTING}?{}", "page=1&".repeat(5_000)), 401),
        (format!("{LISTING}?{}", "%".repeat(10_000)), 401),
        // Paths are compared without decoding or normalization, so these do not exist.
        (format!("/{LISTING}"), 404),
        ("/api//storage-resources/".into(), 404),
        ("/api/./storage-resources/".into(), 404),
        ("/api/version/../storage-resources/".into(), 404),
        ("/api/%73torage-resources/".into(), 404),
        ("/API/STORAGE-RESOURCES/".into(), 404),
        ("/api/storage-resources%00/".into(), 404),
        ("/api/storage-resources;/".into(), 404),
        (format!("{LISTING}a/b"), 404),
        ("/../../etc/passwd".into(), 404),
        ("/docs/..%2f..%2fetc/passwd".into(), 404),
        ("/%".into(), 404),
        ("/%ff%fe".into(), 404),
        ("/\u{e9}".into(), 404),
        // Not valid targets.
        ("/a\0b".into(), 400),
        ("/a\x7fb".into(), 400),
        ("/a b".into(), 400),
        (String::new(), 400),
        (format!("/{}", "a".repeat(70_000)), 431),
    ] {
        let statuses = target.statuses(&get(&path, ""));
        let known = [404, 400].contains(&expected) && path.bytes().any(|byte| byte >= 0x7f);
        let accepted: &[u16] = if known { &[400, 404] } else { &[expected] };
        assert!(statuses.len() == 1 && accepted.contains(&statuses[0]), "{statuses:?}: {}", path.escape_debug());
    }
    target.is_unharmed().await;
}

/// RFC 9112, 3.2: a reverse proxy may have used another host than this program would.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_must_have_exactly_one_host() {
    let target = Target::start().await;
    for (version, hosts, status) in [
        ("1.1", "host: x\r\n", 200),
        ("1.1", "", 400),
        ("1.1", "host: x\r\nhost: y\r\n", 400),
        ("1.1", "host: x\r\nHost: x\r\n", 400),
        ("1.1", "host: a b\r\n", 400),
        ("1.1", "host: x/y\r\n", 400),
        ("1.1", "host: u@x\r\n", 400),
        ("1.1", "host: x:99999\r\n", 400),
        ("1.0", "host: a b\r\n", 400),
        ("1.0", "", 200),
    ] {
        let request = format!("GET /api/version HTTP/{version}\r\n{hosts}\r\n");
        // After a refusal, later requests on the connection are not served.
        let last = get("/api/version", "");
        let answer = target.send(&[request.as_bytes(), &last].concat());
        assert!(answer.starts_with(&format!("HTTP/{version} {status} ")), "{request:?}: {answer}");
        let answers = answer.matches("HTTP/1.").count();
        assert_eq!(answers, if (version, status) == ("1.1", 200) { 2 } else { 1 }, "{request:?}: {answer}");
    }
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused() {
    let target = Target::start().await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X"] {
        for path in [LISTING, "/api/version", "/docs"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nx-http-method-override: GET\r\ncookie: echo-me\r\n\
                 content-length: 2\r\nconnection: close\r\n\r\n{{}}"
            );
            let answer = target.send(request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {path}: {answer}");
            assert!(!answer.contains("echo-me"), "{answer}");
        }
    }
    let answer = target.send(b"CONNECT waldur.example.org:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 4"), "not a forward proxy: {answer}");
    target.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_limited_in_number_and_size_and_unusual_ones_have_no_effect() {
    let target = Target::start().await;
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    for (headers, expected) in [
        (String::new(), 200),
        ("range: bytes=0-,0-,0-,0-18446744073709551616\r\n".into(), 200),
        (format!("range: bytes={}\r\n", "0-1,".repeat(5_000)), 200),
        (format!("accept-encoding: {}\r\n", "gzip;q=0.001,".repeat(4_000)), 200),
        (format!("if-none-match: {}\r\n", "\"a\",".repeat(10_000)), 200),
        (format!("x-request-id: {}\r\n", "a".repeat(50_000)), 200),
        ("x-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1\r\nx-original-url: /docs\r\n".into(), 200),
        ("upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n".into(), 200),
        ("expect: 100-continue\r\n".into(), 200),
        ("x: y\r\n".repeat(200), 431),
        (format!("x: {}\r\n", "y".repeat(70_000)), 431),
        ("x: a\0b\r\n".into(), 400),
        ("x : y\r\n".into(), 400),
        ("x: y\r\n folded\r\n".into(), 400),
        ("\r x: y\r\n".into(), 400),
    ] {
        let statuses = target.statuses(&get("/api/version", &headers));
        assert_eq!(statuses, [expected], "{:.80}", headers.escape_debug());
    }
    for (headers, expected) in [
        (bearer("a.b.c"), 401),
        (bearer(&"a".repeat(60_000)), 401),
        (bearer(&format!("{}.e30.e30", "e30".repeat(4_000))), 401),
        (bearer("a").repeat(50), 401),
        (String::from("authorization:\r\n"), 401),
        (String::from("authorization: Bearer \u{1f600}\r\n"), 401),
        (String::from("cookie: token=a.b.c\r\nx-user: admin\r\n"), 401),
    ] {
        assert_eq!(target.statuses(&get(LISTING, &headers)), [expected], "{:.80}", headers.escape_debug());
    }
    target.is_unharmed().await;
}

/// No request needs a body, so bodies are not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_read() {
    let target = Target::start().await;
    for length in ["content-length: 1099511627776", "transfer-encoding: chunked"] {
        let mut stream = target.connect();
        let head = format!("GET /api/version HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Until the program closes the connection. Only socket buffers accept data meanwhile.
        let chunk = [b"40000\r\n".as_slice(), &vec![b'x'; 0x40000], b"\r\n"].concat();
        let sent = (0..4096).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(sent < 200, "{sent} chunks of 256 KiB were accepted");
        drop(stream);
    }
    let answer = {
        let mut stream = target.connect();
        stream.write_all(&get("/api/version", "content-length: 5\r\n")).unwrap();
        stream.write_all(b"hello").unwrap();
        rest(&mut stream)
    };
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    target.is_unharmed().await;
}
