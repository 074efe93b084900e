//! HTTP/2 floods that are cheap for the sender. The tests write the frames themselves, because no client library would send them.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::target::{Target, rest};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET /api/version`, with indexed names.
const REQUEST: &[u8] = b"\x82\x86\x04\x0c/api/version\x01\x01x";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Connects, and sends the preface and empty settings.
fn connect(target: &Target) -> TcpStream {
    let mut stream = target.connect();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    stream
}

/// The IDs of client streams.
fn streams() -> impl Iterator<Item = u32> {
    (0..).map(|number| 2 * number + 1)
}

/// Sends up to `max` pieces, or until the program closes the connection; returns how many were sent.
fn send_until_closed(stream: &mut TcpStream, max: usize, pieces: impl Iterator<Item = Vec<u8>>) -> usize {
    pieces.take(max).take_while(|piece| stream.write_all(piece).is_ok()).count()
}

/// Kind and payload of the next frame; `None` at the end of the connection.
fn next_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
}

/// Requests that are reset immediately (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_immediately_end_the_connection() {
    let target = Target::start().await;
    let mut stream = connect(&target);
    let max = 200_000;
    let reset = |id| {
        [frame(HEADERS, END_STREAM | END_HEADERS, id, REQUEST), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
    };
    let sent = send_until_closed(&mut stream, max, streams().map(reset));
    assert!(sent < max, "all {sent} were accepted");
    drop(stream);
    target.is_unharmed().await;
}

/// An endless header section (CVE-2024-27316).
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_header_section_ends_the_connection() {
    let target = Target::start().await;
    let mut stream = connect(&target);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, REQUEST)).unwrap();
    let field = [b"\0\x01x\x7f\x81\x1e".as_slice(), &[b'y'; 286]].concat();
    let max = 10_000;
    let sent = send_until_closed(&mut stream, max, std::iter::repeat(frame(CONTINUATION, 0, 1, &field.repeat(50))));
    assert!(sent < max, "all {sent} of 14 KiB were accepted");
    drop(stream);
    target.is_unharmed().await;
}

/// A header section of references to one large entry of the table, each of one byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_section_that_expands_too_much_is_refused() {
    let target = Target::start().await;
    let mut stream = connect(&target);
    // An entry of 3,000 bytes, then 10,000 references to it.
    let entry = [b"\x40\x01x\x7f\xb9\x16".as_slice(), &[b'y'; 3000]].concat();
    let bomb = [REQUEST, &entry, &[0xbe; 10_000]].concat();
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).unwrap();
    let answer =
        std::iter::from_fn(|| next_frame(&mut stream)).find(|(kind, _)| [HEADERS, RST_STREAM, GOAWAY].contains(kind));
    // 0x88 is `:status: 200`.
    assert!(!matches!(&answer, Some((HEADERS, payload)) if payload.contains(&0x88)), "{answer:?}");
    target.is_unharmed().await;
}

/// More concurrent requests than allowed: those above the limit are refused and take no memory.
#[tokio::test(flavor = "multi_thread")]
async fn streams_above_the_limit_take_no_memory() {
    let target = Target::start().await;
    let mut stream = connect(&target);
    // None of them ends: all wait for their bodies.
    let open = |id| frame(HEADERS, END_HEADERS, id, REQUEST);
    let max = 100_000;
    let sent = send_until_closed(&mut stream, max, streams().map(open));
    drop(stream);
    assert!(sent > 0);
    target.is_unharmed().await;
}

/// Frames that require an answer, from a client that does not read.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_endless_pings_and_settings_are_limited() {
    let target = Target::start().await;
    for request in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = connect(&target);
        stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        // The program either stops reading or closes the connection.
        send_until_closed(&mut stream, 2_000, std::iter::repeat(request.repeat(1000)));
        target.is_unharmed().await;
    }
}

/// Answers that the client does not read count towards the request limit, but only those of authenticated clients.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_count_towards_the_request_limit() {
    let target = Target::with(&[("SERVER_MAX_REQUESTS", "3")]).await;
    let length = target.token.len() + "Bearer ".len() - 127;
    let varint = [length % 128 + 128, length / 128].map(|byte| u8::try_from(byte).unwrap());
    let path = b"\x82\x86\x04\x17/api/storage-resources/\x01\x01x".as_slice();
    let caller = [path, b"\x0f\x08\x7f", &varint, b"Bearer ", target.token.as_bytes()].concat();
    let listing = format!(
        "GET /api/storage-resources/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        target.token
    );
    for (head, status) in [(path, 200), (&caller, 503)] {
        let mut stream = target.connect();
        // A window of 0 bytes for answers.
        let settings = frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0");
        stream.write_all(&[PREFACE, &settings].concat()).unwrap();
        for id in streams().take(3) {
            stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, id, head)).unwrap();
        }
        let answers = std::iter::from_fn(|| next_frame(&mut stream)).filter(|(kind, _)| *kind == HEADERS);
        assert_eq!(answers.take(3).count(), 3);
        assert_eq!(target.statuses(listing.as_bytes()), [status]);
        drop(stream);
        let served = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            target.statuses(listing.as_bytes()) == [200]
        });
        assert!(served, "requests are served again");
    }
    target.is_unharmed().await;
}

/// Bytes that are not HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn noise_is_refused() {
    let target = Target::start().await;
    for noise in
        [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], b"PRI * HTTP/2.0\r\n\r\nXX", b"\0\0\0\0", b"\r\n\r\n\r\n"]
    {
        let mut stream = target.connect();
        stream.write_all(&noise.repeat(100)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 ") || !answer.contains("200 OK"), "{answer}");
    }
    target.is_unharmed().await;
}
