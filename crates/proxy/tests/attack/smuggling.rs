//! Requests with an ambiguous end. A reverse proxy may treat what follows as part of the body, so it must never be answered
//! as a separate request.

use crate::target::Target;

const SMUGGLED: &str = "GET /api/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_ambiguous_length_is_the_last_of_its_connection() {
    let target = Target::start().await;
    let both = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", 5 + SMUGGLED.len());
    let both_reversed = format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", 5 + SMUGGLED.len());
    for (headers, body, expected) in [
        // The request ends with its chunks, and the connection is closed.
        (both.as_str(), "0\r\n\r\n", &[200][..]),
        (&both_reversed, "0\r\n\r\n", &[200]),
        ("content-length: 0\r\ncontent-length: 5\r\n", "", &[400]),
        ("content-length: 0, 5\r\n", "", &[400]),
        ("content-length: +0\r\n", "", &[400]),
        ("content-length: -1\r\n", "", &[400]),
        ("content-length: 0x5\r\n", "", &[400]),
        ("content-length: 18446744073709551616\r\n", "", &[400]),
        ("content-length : 5\r\n", "", &[400]),
        ("transfer-encoding : chunked\r\n", "", &[400]),
        ("transfer-encoding: xchunked\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding:\x0bchunked\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n", &[400]),
        // Invalid chunks.
        ("transfer-encoding: chunked\r\n", "-1\r\n", &[200]),
        ("transfer-encoding: chunked\r\n", "0x0\r\n\r\n", &[200]),
        ("transfer-encoding: chunked\r\n", "10000000000000000\r\n", &[200]),
    ] {
        let request = format!("GET /api/version HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}{SMUGGLED}");
        assert_eq!(target.statuses(request.as_bytes()), expected, "{headers}{body}");
    }
    // HTTP/1.0 has no chunks.
    let old = format!("GET /api/version HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    assert_eq!(target.statuses(old.as_bytes()), [400]);
    target.is_unharmed().await;
}

/// The counterpart: unambiguous requests share a connection.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_unambiguous_length_share_a_connection() {
    let target = Target::start().await;
    for (headers, body) in [
        ("", ""),
        ("content-length: 5\r\n", "hello"),
        ("transfer-encoding: chunked\r\n", "5;extension=x\r\nhello\r\n0\r\ntrailer: x\r\n\r\n"),
    ] {
        let request = format!("GET /api/version HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}{SMUGGLED}");
        assert_eq!(target.statuses(request.as_bytes()), [200, 200], "{headers}{body}");
    }
    target.is_unharmed().await;
}
