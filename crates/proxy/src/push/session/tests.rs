use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef01234567";

pub(in crate::push) fn token() -> SecretString {
    SecretString::from(TOKEN)
}

fn consumer() -> Consumer {
    Consumer { rmq_username: "user".into(), queue_name: "consumer_1".into(), vhost: "host".into() }
}

/// Both ends of a WebSocket.
async fn sockets() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (client, server) = tokio::io::duplex(1 << 16);
    (
        WebSocketStream::from_raw_socket(client, Role::Client, None).await,
        WebSocketStream::from_raw_socket(server, Role::Server, None).await,
    )
}

pub(in crate::push) async fn received(server: &mut WebSocketStream<DuplexStream>) -> String {
    server.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

/// A session whose broker gave these answers to CONNECT and SUBSCRIBE, with the broker's end.
pub(in crate::push) async fn open(
    connected: &str,
    subscribed: &str,
) -> (Result<Session<DuplexStream>, SessionError>, WebSocketStream<DuplexStream>) {
    let (client, mut server) = sockets().await;
    let (consumer, token) = (consumer(), token());
    let (session, server) = tokio::join!(Session::open(client, &consumer, &token), async {
        assert_eq!(
            received(&mut server).await,
            format!(
                "CONNECT\naccept-version:1.2\nhost:host\nlogin:user\npasscode:{TOKEN}\nheart-beat:10000,10000\n\n\0"
            )
        );
        server.send(Message::text(connected)).await.unwrap();
        if connected.starts_with("CONNECTED") {
            assert_eq!(
                received(&mut server).await,
                "SUBSCRIBE\nid:events\ndestination:/amq/queue/consumer_1\nack:auto\nreceipt:events\n\n\0"
            );
            server.send(Message::text(subscribed)).await.unwrap();
        }
        server
    });
    (session, server)
}

pub(in crate::push) const CONNECTED: &str = "CONNECTED\nversion:1.2\nheart-beat:10000,10000\n\n\0\n";
pub(in crate::push) const RECEIPT: &str = "RECEIPT\nreceipt-id:events\n\n\0";

#[tokio::test(start_paused = true)]
async fn a_refused_login_or_subscription_gives_the_reason() {
    let refused = format!("ERROR\nmessage:Access refused {TOKEN}\n\n\0");
    for (connected, subscribed, error) in [
        ("ERROR\nmessage:Bad CONNECT\n\n\0", "", "the broker refuses: Bad CONNECT"),
        (&refused, "", "the broker refuses: no reason given"),
        (CONNECTED, "ERROR\nmessage:not\\nfound\n\n\0", "the broker refuses: not found"),
        ("HELLO\n\n\0", "", "the broker did not answer with CONNECTED"),
        ("CONNECTED\nversion:1.2\n\n\0", RECEIPT, "the broker sends no heart-beats"),
        (
            "CONNECTED\nversion",
            "",
            "the connection to the broker failed: WebSocket protocol error: Connection reset without closing handshake",
        ),
    ] {
        let (client, mut server) = sockets().await;
        let (consumer, token) = (consumer(), token());
        let answers = async {
            for answer in [connected, subscribed].into_iter().filter(|answer| !answer.is_empty()) {
                received(&mut server).await;
                server.send(Message::text(answer)).await.unwrap();
            }
            drop(server);
        };
        let outcome = tokio::select! {
            session = Session::open(client, &consumer, &token) => session.err().unwrap(),
            () = async { answers.await; std::future::pending().await } => unreachable!(),
        };
        assert_eq!(outcome.to_string(), error);
        assert!(!program::error_chain(&outcome).contains(TOKEN));
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_counted_and_heart_beats_sent() {
    let (session, mut server) = open(CONNECTED, &format!("MESSAGE\nmessage-id:0\n\nearly\0{RECEIPT}")).await;
    let mut session = session.ok().unwrap();
    let begun = Instant::now();
    let mut events = 0;
    let token = token();
    let broker = async {
        for number in 0..5 {
            assert_eq!(received(&mut server).await, "\n", "{number}");
            server.send(Message::text("MESSAGE\nmessage-id:1\n\n{}\0\nMESSAGE\nmes")).await.unwrap();
            server.send(Message::binary(&b"sage-id:2\ncontent-length:1\n\n\0\0"[..])).await.unwrap();
        }
        assert_eq!(begun.elapsed(), 5 * BEAT);
        // Nothing more is sent.
        loop {
            received(&mut server).await;
        }
    };
    let ended = tokio::select! {
        ended = async {
            loop {
                match session.event(&token).await {
                    Ok(()) => events += 1,
                    Err(error) => break error,
                }
            }
        } => ended,
        () = broker => unreachable!(),
    };
    assert!(matches!(ended, SessionError::Silent(20)), "{ended}");
    assert_eq!((events, begun.elapsed()), (10, 5 * BEAT + MISSED_BEATS * BEAT));
}

#[tokio::test(start_paused = true)]
async fn heart_beats_of_the_broker_keep_a_session_alive() {
    // The broker wants no heart-beats, and sends its own less often.
    let (session, mut server) = open("CONNECTED\nheart-beat:30000,0\n\n\0", RECEIPT).await;
    let mut session = session.ok().unwrap();
    let begun = Instant::now();
    let token = token();
    let broker = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(59)).await;
            server.send(Message::text("\n")).await.unwrap();
        }
        server.send(Message::text("ERROR\nmessage:gone\n\n\0")).await.unwrap();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = session.event(&token) => ended.err().unwrap(),
        () = broker => unreachable!(),
    };
    assert_eq!(ended.to_string(), "the broker refuses: gone");
    assert_eq!(begun.elapsed(), Duration::from_secs(590));
}

#[tokio::test(start_paused = true)]
async fn invalid_frames_end_a_session() {
    let (session, mut server) = open(CONNECTED, RECEIPT).await;
    let mut session = session.ok().unwrap();
    server.send(Message::text("MESSAGE\nno colon\n\n\0")).await.unwrap();
    let ended = session.event(&token()).await.err().unwrap();
    assert!(matches!(ended, SessionError::Frame(FrameError::Invalid(_))), "{ended}");
}
