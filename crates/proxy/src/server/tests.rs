//! Clients over real sockets. Time is paused: when every task waits, it jumps to the next deadline.

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::config::Listen;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const HALF: &str = "GET / HTTP/1.1\r\nhost: x\r\nX";
/// The first bytes of an HTTP/2 client: the preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// More than fits into the buffers of a connection.
const BIG: usize = 32 << 20;

const LIMITS: ConnectionLimits = ConnectionLimits {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    farewell: Duration::from_secs(1),
    connections: 100,
};

/// A server that can be stopped, with a route whose requests run until the test lets them finish.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    abort: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
    /// Gets a permit for each request that starts to run.
    entered: Arc<Semaphore>,
    /// One request finishes for each permit that is added.
    leave: Arc<Semaphore>,
}

async fn start(limits: ConnectionLimits) -> Server {
    let listeners = bind(&[Listen::Tcp("127.0.0.1:0".parse().unwrap())]).await.unwrap();
    let address = listeners[0].address().parse().unwrap();
    let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (entering, leaving) = (entered.clone(), leave.clone());
    let run = move || async move {
        entering.add_permits(1);
        leaving.acquire().await.unwrap().forget();
        "ran"
    };
    let running = run.clone();
    let wait = move |Extension(patience): Extension<Patience>| async move {
        let _waits = patience.wait();
        running().await
    };
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/run", get(run))
        .route("/wait", get(wait))
        .route("/big", get(async || vec![b'x'; BIG]));
    let (stop, stopped) = oneshot::channel::<()>();
    let (abort, aborted) = oneshot::channel::<()>();
    #[expect(clippy::async_yields_async, reason = "`serve` takes such a future")]
    let stopping = async move {
        stopped.await.unwrap();
        async move {
            if aborted.await.is_err() {
                future::pending::<()>().await;
            }
        }
    };
    let served = tokio::spawn(serve_within(limits, listeners, Frontend::new(router, None), stopping));
    Server { address, stop, abort, served, entered, leave }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which these bytes have been sent.
    async fn sent(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    fn http2(&self) -> (reqwest::Client, String) {
        crate::transport::install_tls_provider();
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        (client, format!("http://{}/", self.address))
    }
}

/// Reads until this text.
async fn read_to(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        let byte = stream.read_u8().await;
        read.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&read))));
    }
    String::from_utf8(read).unwrap()
}

async fn answered(stream: &mut TcpStream) {
    assert!(read_to(stream, "hello").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

/// Reads until the connection ends in any way; returns the number of bytes.
async fn to_the_end(stream: &mut TcpStream) -> usize {
    let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
    while let Ok(more @ 1..) = stream.read(&mut buffer).await {
        total += more;
    }
    total
}

/// The seconds of the paused clock that a future takes, and its result.
async fn seconds<T>(what: impl Future<Output = T>) -> (u64, T) {
    let start = Instant::now();
    let outcome = what.await;
    ((Instant::now() - start).as_secs(), outcome)
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_times_out_while_others_are_served() {
    let server = start(LIMITS).await;
    let mut silent = server.connect().await;
    let mut half = server.sent(HALF).await;
    let mut dripping = server.sent("G").await;
    sleep(Duration::from_secs(9)).await;
    dripping.write_all(b"E").await.unwrap();
    answered(&mut server.sent(REQUEST).await).await;
    for stream in [&mut silent, &mut half, &mut dripping] {
        let (waited, read) = seconds(to_the_end(stream)).await;
        assert_eq!(read, 0);
        assert!(waited <= 2, "{waited} s more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_head_has_the_same_time() {
    let server = start(LIMITS).await;
    let mut stream = server.sent(REQUEST).await;
    answered(&mut stream).await;
    sleep(Duration::from_secs(30)).await;
    stream.write_all(HALF.as_bytes()).await.unwrap();
    let (waited, _) = seconds(to_the_end(&mut stream)).await;
    assert!((9..=12).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_open_for_the_idle_time() {
    let server = start(LIMITS).await;
    let mut stream = server.sent(REQUEST).await;
    answered(&mut stream).await;
    sleep(Duration::from_secs(70)).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    answered(&mut stream).await;
    let (waited, _) = seconds(to_the_end(&mut stream)).await;
    assert!((74..=76).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_the_client_does_not_read_is_dropped() {
    let server = start(LIMITS).await;
    let mut stream = server.sent("GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_to(&mut stream, "\r\n\r\n").await;
    sleep(Duration::from_secs(80)).await;
    let read = to_the_end(&mut stream).await;
    assert!(read < BIG, "{read}");
}

/// Requests a route that waits for a change.
const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: x\r\nprefer: wait=300\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_does_not_wait_for_a_change() {
    let server = start(ConnectionLimits { connections: 1, ..LIMITS }).await;
    let runs = ["GET /run HTTP/1.1\r\nhost: x\r\n\r\n", "GET /run HTTP/1.1\r\nhost: x\r\nprefer: wait=300\r\n\r\n"];
    for request in [WAIT, runs[0], runs[1]] {
        let mut stream = server.sent(request).await;
        server.entered.acquire().await.unwrap().forget();
        stream.shutdown().await.unwrap();
        // There is one connection at a time.
        let mut other = server.sent(REQUEST).await;
        if request == WAIT {
            timeout(Duration::from_mins(1), answered(&mut other)).await.unwrap();
            assert_eq!(to_the_end(&mut stream).await, 0);
        } else {
            assert!(timeout(Duration::from_mins(1), answered(&mut other)).await.is_err());
            server.leave.add_permits(1);
            read_to(&mut stream, "ran").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_sent_during_a_wait_is_answered_after_it() {
    let server = start(LIMITS).await;
    let mut stream = server.sent(WAIT).await;
    server.entered.acquire().await.unwrap().forget();
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    sleep(Duration::from_secs(80)).await;
    server.leave.add_permits(1);
    read_to(&mut stream, "ran").await;
    answered(&mut stream).await;
}

/// An HTTP/2 frame with the whole head of a request.
fn http2_request(stream: u8, block: &[u8]) -> Vec<u8> {
    let length = u8::try_from(block.len()).unwrap();
    [&[0, 0, length, 1, 5, 0, 0, 0, stream], block].concat()
}

#[tokio::test(start_paused = true)]
async fn an_active_stream_does_not_keep_a_response_that_is_not_read() {
    let server = start(LIMITS).await;
    // Settings with a window of zero bytes for responses.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let big = http2_request(1, b"\x82\x86\x04\x04/big\x01\x01x");
    let stream = server.sent([hello.as_slice(), &big].concat()).await;
    let (mut read, mut write) = stream.into_split();
    let start = Instant::now();
    let ended = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(1..) = read.read(&mut buffer).await {}
        Instant::now()
    });
    // HEAD requests, whose responses need no window. The client never acknowledges that the connection closes.
    let active = async {
        for number in 1_u8..100 {
            sleep(Duration::from_secs(5)).await;
            let head = http2_request(2 * number + 1, b"\x02\x04HEAD\x86\x84\x01\x01x");
            if write.write_all(&head).await.is_err() {
                break;
            }
        }
        future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = ended => ended.unwrap(),
        () = active => unreachable!("it waits"),
    };
    let lasted = (ended - start).as_secs();
    assert!((75..=77).contains(&lasted), "{lasted} s");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_read_slowly_is_sent_completely() {
    let server = start(LIMITS).await;
    let mut stream = server.sent("GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_to(&mut stream, "\r\n\r\n").await;
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..BIG / chunk.len() {
        sleep(Duration::from_secs(20)).await;
        stream.read_exact(&mut chunk).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_being_sent_when_the_server_stops_is_sent_completely() {
    let server = start(LIMITS).await;
    let mut stream = server.sent("GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_to(&mut stream, "\r\n\r\n").await;
    server.stop.send(()).unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(to_the_end(&mut stream).await, BIG);
    server.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_running_requests_delay_the_stop() {
    let server = start(LIMITS).await;
    let mut half = server.sent(HALF).await;
    let mut half_later = server.sent(REQUEST).await;
    answered(&mut half_later).await;
    half_later.write_all(HALF.as_bytes()).await.unwrap();
    let mut idle = server.sent(REQUEST).await;
    answered(&mut idle).await;
    let silent = server.connect().await;
    // It answers no ping, so it never confirms that no more requests will come.
    let http2_silent = server.sent(HTTP2).await;
    let (client, url) = server.http2();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    let mut running = server.sent("GET /run HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.entered.acquire().await.unwrap().forget();
    let running_http2 = tokio::spawn(client.get(format!("{url}run")).send());
    server.entered.acquire().await.unwrap().forget();

    server.stop.send(()).unwrap();
    let (waited, _) = seconds(to_the_end(&mut idle)).await;
    assert_eq!(waited, 0, "an idle connection is closed immediately");
    let (waited, _) = seconds(to_the_end(&mut half)).await;
    assert!(waited <= 1, "{waited} s");
    sleep(Duration::from_secs(20)).await;
    assert!(!server.served.is_finished());
    assert!(TcpStream::connect(server.address).await.is_err(), "new connections are refused");
    server.leave.add_permits(2);
    read_to(&mut running, "ran").await;
    assert_eq!(running_http2.await.unwrap().unwrap().text().await.unwrap(), "ran");
    let (waited, outcome) = seconds(server.served).await;
    outcome.unwrap().unwrap();
    assert!(waited <= 1, "{waited} s");
    drop((half_later, silent, http2_silent));
}

#[tokio::test(start_paused = true)]
async fn waiting_connections_do_not_delay_the_stop() {
    let server = start(LIMITS).await;
    let waiting = [server.sent(HALF).await, server.connect().await, server.sent(HTTP2).await];
    // This one is served, so all before it have been accepted.
    answered(&mut server.sent(REQUEST).await).await;
    server.stop.send(()).unwrap();
    let (waited, outcome) = seconds(server.served).await;
    outcome.unwrap().unwrap();
    assert!(waited <= 1, "{waited} s");
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn the_first_request_of_a_connection_is_answered_although_the_server_stops() {
    let server = start(LIMITS).await;
    let mut silent = server.connect().await;
    // This one is served, so the one before it has been accepted.
    answered(&mut server.sent(REQUEST).await).await;
    server.stop.send(()).unwrap();
    sleep(Duration::from_millis(500)).await;
    silent.write_all(REQUEST.as_bytes()).await.unwrap();
    answered(&mut silent).await;
    assert_eq!(to_the_end(&mut silent).await, 0, "no further request is accepted");
    server.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn serving_ends_immediately_when_the_grace_period_of_running_requests_is_over() {
    let server = start(LIMITS).await;
    let mut running = server.sent("GET /run HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.entered.acquire().await.unwrap().forget();
    server.stop.send(()).unwrap();
    sleep(Duration::from_secs(20)).await;
    assert!(!server.served.is_finished());
    server.abort.send(()).unwrap();
    server.served.await.unwrap().unwrap();
    assert_eq!(to_the_end(&mut running).await, 0, "the connection ends without a response");
}

#[tokio::test(start_paused = true)]
async fn connections_above_the_limit_wait_until_others_end() {
    let server = start(ConnectionLimits { connections: 2, ..LIMITS }).await;
    let mut first = server.sent(REQUEST).await;
    answered(&mut first).await;
    let mut second = server.sent(REQUEST).await;
    answered(&mut second).await;
    let mut third = server.sent(REQUEST).await;
    let waits = timeout(Duration::from_mins(1), third.readable()).await;
    assert!(waits.is_err(), "no permit, no response");
    first.write_all(REQUEST.as_bytes()).await.unwrap();
    answered(&mut first).await;
    drop(second);
    answered(&mut third).await;
    // Both permits are held by clients that send nothing more: their connections time out.
    let mut fourth = server.sent(REQUEST).await;
    let (waited, ()) = seconds(answered(&mut fourth)).await;
    assert!((70..=76).contains(&waited), "{waited} s");
    drop((first, third));
}

#[tokio::test(start_paused = true)]
async fn an_oversized_head_is_rejected() {
    let server = start(LIMITS).await;
    let with = |bytes: usize| format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    answered(&mut server.sent(with(60_000)).await).await;
    for bytes in [70_000, 200_000] {
        let mut stream = server.sent(with(bytes)).await;
        let head = read_to(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert_eq!(to_the_end(&mut stream).await, 0);
    }
    // A client that is still sending can read the response.
    let mut stream = server.sent(with(100_000).trim_end()).await;
    for _ in 0..3 {
        sleep(Duration::from_millis(200)).await;
        stream.write_all(&[b'y'; 10_000]).await.unwrap();
    }
    assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 431 "));
    let (client, url) = server.http2();
    for (bytes, expected) in [(10_000, StatusCode::OK), (70_000, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)] {
        // Several headers, because HTTP/2 limits a single one as well.
        let request =
            (0..10).fold(client.get(&url), |request, n| request.header(format!("x-{n}"), "y".repeat(bytes / 10)));
        assert_eq!(request.send().await.unwrap().status(), expected, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn http2_works_and_its_idle_connections_are_closed() {
    let server = start(ConnectionLimits { connections: 1, ..LIMITS }).await;
    let (client, url) = server.http2();
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!((answer.version(), answer.status()), (http::Version::HTTP_2, StatusCode::OK));
    assert_eq!(answer.text().await.unwrap(), "hello");
    // There is only one permit, so it is free when this request is served.
    let (waited, ()) = seconds(answered(&mut server.sent(REQUEST).await)).await;
    assert!((74..=76).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_response_blocked_by_http2_flow_control_is_dropped() {
    let server = start(LIMITS).await;
    // The preface; settings with a window of zero bytes; an uncompressed request for `/big`.
    let mut stream = server.sent(&HTTP2[..24]).await;
    stream.write_all(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0").await.unwrap();
    stream.write_all(b"\0\0\x0b\x01\x05\0\0\0\x01\x82\x86\x04\x04/big\x01\x01x").await.unwrap();
    let start = Instant::now();
    // A client that is alive: it acknowledges, and sends pings.
    let ping = b"\0\0\x08\x06\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
    let mut read = vec![0; 1 << 16];
    let mut total = 0;
    for _ in 0..100 {
        let Ok(more @ 1..) = stream.read(&mut read).await else { break };
        total += more;
        sleep(Duration::from_secs(1)).await;
        // The read reports an error as well.
        drop(stream.write_all(ping).await);
    }
    let waited = (Instant::now() - start).as_secs();
    assert!((74..=78).contains(&waited), "{waited} s");
    assert!(total > 75 * ping.len(), "pings were answered: {total} bytes");
}

#[tokio::test(start_paused = true)]
async fn connections_release_their_permits() {
    let server = start(ConnectionLimits { connections: 3, ..LIMITS }).await;
    for _ in 0..1000 {
        answered(&mut server.sent(REQUEST).await).await;
    }
}

#[tokio::test]
async fn the_error_for_a_port_in_use_has_a_remedy() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(&[Listen::Tcp(address)]).await.unwrap_err();
    let hint = "another program uses it: stop that program, or choose another --listen";
    assert_eq!(error.to_string(), format!("cannot listen on {address} ({hint})"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_closed_its_sending_side_gets_its_response() {
    let server = start(ConnectionLimits { connections: 1, ..LIMITS }).await;
    let mut stream = server.sent("GET /run HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.entered.acquire().await.unwrap().forget();
    stream.shutdown().await.unwrap();
    sleep(Duration::from_secs(20)).await;
    server.leave.add_permits(1);
    assert!(read_to(&mut stream, "ran").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(to_the_end(&mut stream).await, 0);
    // A client that has closed its connection frees its permit once its request is done: there is only one permit.
    let gone = server.sent("GET /run HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.entered.acquire().await.unwrap().forget();
    drop(gone);
    server.leave.add_permits(1);
    answered(&mut server.sent(REQUEST).await).await;
}

#[tokio::test(start_paused = true)]
async fn after_an_unread_body_the_connection_is_usable_or_announced_as_closing() {
    let server = start(LIMITS).await;
    let head = |length: &str| format!("GET / HTTP/1.1\r\nhost: x\r\n{length}\r\n");
    // The body arrives after its head, and before or after the response is ready.
    let mut stream = server.sent(head("content-length: 5\r\n")).await;
    tokio::task::yield_now().await;
    stream.write_all(b"12345").await.unwrap();
    assert!(!read_to(&mut stream, "hello").await.contains("connection: close"));
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    answered(&mut stream).await;
    // The body never arrives, or is too long to wait for.
    for length in ["content-length: 5\r\n", "content-length: 1000000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = server.sent(head(length)).await;
        let answer = read_to(&mut stream, "hello").await;
        assert!(answer.contains("connection: close"), "{length}: {answer}");
        assert_eq!(to_the_end(&mut stream).await, 0);
    }
}
