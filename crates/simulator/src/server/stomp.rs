//! A session with the broker: STOMP 1.2 over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::time::{Instant, sleep_until};

use crate::broker::{self, Subscribed};
use crate::state::ServiceState;

/// How often a session looks for events.
const POLL: Duration = Duration::from_millis(2);
/// Interval of heart-beats.
const BEAT: Duration = Duration::from_secs(10);

/// Serves a session.
pub(super) fn upgrade(shared: Arc<ServiceState>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["v12.stomp"]).on_upgrade(move |socket| async move {
        let mut socket = socket;
        let ended = serve(&shared, &mut socket).await;
        if let Err(Some(reason)) = ended {
            // The client may be gone.
            let _ = socket
                .send(Message::text(format!("ERROR\nmessage:{reason}\ncontent-type:text/plain\n\n{reason}\0")))
                .await;
        }
    })
}

/// Ends with the reason for an ERROR frame; without one the connection just ends.
async fn serve(shared: &ServiceState, socket: &mut WebSocket) -> Result<(), Option<String>> {
    let broker = &shared.broker;
    let endings = broker.endings();
    let mut queue = None;
    let mut subscribed = None;
    let mut beat = Instant::now() + BEAT;
    loop {
        tokio::select! {
            received = socket.recv() => {
                let Some(Ok(message)) = received else { return Err(None) };
                let Message::Text(text) = message else { continue };
                let text = text.trim_start_matches('\n');
                let Some(head) = text.split("\n\n").next().filter(|head| !head.is_empty()) else { continue };
                let header = |name: &str| {
                    let mut pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
                    pairs.find(|(key, _)| *key == name).map(|(_, value)| value).unwrap_or_default()
                };
                match head.lines().next() {
                    Some("CONNECT") => {
                        queue = broker::login(broker, header("login"), header("passcode"), header("host"));
                        if queue.is_none() {
                            return Err(Some(String::from("Bad CONNECT")));
                        }
                        send(socket, "CONNECTED\nversion:1.2\nheart-beat:10000,10000\nserver:simulator\n\n\0").await?;
                    }
                    Some("SUBSCRIBE") => {
                        let destination = queue.as_ref().map(|queue| format!("/amq/queue/{queue}"));
                        if destination.as_deref() != Some(header("destination")) {
                            return Err(Some(String::from("not_found")));
                        }
                        subscribed = Some(Subscribed::new(broker));
                        send(socket, &format!("RECEIPT\nreceipt-id:{}\n\n\0", header("receipt"))).await?;
                    }
                    _ => return Err(Some(String::from("Unknown command"))),
                }
            }
            () = tokio::time::sleep(POLL) => broker.check(endings)?,
            () = sleep_until(beat) => {
                send(socket, "\n").await?;
                beat = Instant::now() + BEAT;
            }
        }
        if let (Some(queue), Some(_)) = (&queue, &subscribed) {
            while let Some((number, body)) = take(shared, queue) {
                let head = format!("subscription:events\nmessage-id:{number}\ncontent-length:{}", body.len());
                send(socket, &format!("MESSAGE\n{head}\n\n{body}\0")).await?;
            }
        }
    }
}

async fn send(socket: &mut WebSocket, frame: &str) -> Result<(), Option<String>> {
    socket.send(Message::text(frame)).await.map_err(|_| None)
}

fn take(shared: &ServiceState, queue: &str) -> Option<(u64, String)> {
    broker::next_event(&shared.broker, &shared.read(), queue)
}
