//! Floods that HTTP/2 makes cheap for who sends them. Frames are written by hand: no client would send these.

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

/// A connection that has said hello.
fn greeted(target: &Target) -> TcpStream {
    let mut stream = target.connect();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    stream
}

/// The numbers of client streams.
fn streams() -> impl Iterator<Item = u32> {
    (0..).map(|number| 2 * number + 1)
}

/// How many pieces the program takes before it ends the connection, of at most so many.
fn taken(stream: &mut TcpStream, most: usize, pieces: impl Iterator<Item = Vec<u8>>) -> usize {
    pieces.take(most).take_while(|piece| stream.write_all(piece).is_ok()).count()
}

/// The next frame that comes, kind and payload; `None` at the end of the connection.
fn next_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
}

/// Requests that are taken back at once (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_at_once_end_the_connection() {
    let target = Target::start().await;
    let mut stream = greeted(&target);
    let most = 200_000;
    let reset = |id| {
        [frame(HEADERS, END_STREAM | END_HEADERS, id, REQUEST), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
    };
    let sent = taken(&mut stream, most, streams().map(reset));
    assert!(sent < most, "all {sent} were taken");
    drop(stream);
    target.is_unharmed().await;
}

/// A head that never ends (CVE-2024-27316).
#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_an_end_ends_the_connection() {
    let target = Target::start().await;
    let mut stream = greeted(&target);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, REQUEST)).unwrap();
    let field = [b"\0\x01x\x7f\x81\x1e".as_slice(), &[b'y'; 286]].concat();
    let most = 10_000;
    let sent = taken(&mut stream, most, std::iter::repeat(frame(CONTINUATION, 0, 1, &field.repeat(50))));
    assert!(sent < most, "all {sent} of 14 KiB were taken");
    drop(stream);
    target.is_unharmed().await;
}

/// A head of references to one large entry of the table, each a byte on the wire.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_unpacks_to_too_much_is_refused() {
    let target = Target::start().await;
    let mut stream = greeted(&target);
    // An entry of 3,000 bytes, then itself 10,000 times.
    let entry = [b"\x40\x01x\x7f\xb9\x16".as_slice(), &[b'y'; 3000]].concat();
    let bomb = [REQUEST, &entry, &[0xbe; 10_000]].concat();
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).unwrap();
    let verdict =
        std::iter::from_fn(|| next_frame(&mut stream)).find(|(kind, _)| [HEADERS, RST_STREAM, GOAWAY].contains(kind));
    // 0x88 is `:status: 200`.
    assert!(!matches!(&verdict, Some((HEADERS, payload)) if payload.contains(&0x88)), "{verdict:?}");
    target.is_unharmed().await;
}

/// More requests at one time than may be: they are refused one by one, and nothing of them is kept.
#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_bound_take_nothing() {
    let target = Target::start().await;
    let mut stream = greeted(&target);
    // None of them ends: all wait for their bodies.
    let open = |id| frame(HEADERS, END_HEADERS, id, REQUEST);
    let most = 100_000;
    let sent = taken(&mut stream, most, streams().map(open));
    drop(stream);
    assert!(sent > 0);
    target.is_unharmed().await;
}

/// Questions that have to be answered, from a client that does not read.
#[tokio::test(flavor = "multi_thread")]
async fn pings_and_settings_without_end_are_not_hoarded() {
    let target = Target::start().await;
    for question in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = greeted(&target);
        stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        // Either it stops reading or it ends the connection; what it holds meanwhile is bounded.
        taken(&mut stream, 2_000, std::iter::repeat(question.repeat(1000)));
        target.is_unharmed().await;
    }
}

/// Answers that nobody takes: they keep the places of their requests, so that there are never more of them than those, and
/// a stranger's keep none.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_counted() {
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
        // No room for any answer.
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
        assert!(served, "their places are free again");
    }
    target.is_unharmed().await;
}

/// What is no HTTP at all.
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
