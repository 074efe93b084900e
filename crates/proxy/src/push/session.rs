//! A session with the broker: STOMP 1.2 over a WebSocket, from CONNECT to its end.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::frame::{Decoder, Frame, FrameError, encode};
use crate::waldur::Consumer;

/// Interval of heart-beats in both directions, unless the broker asks for a longer one.
const BEAT: Duration = Duration::from_secs(10);
/// The connection is dead after this many intervals without a byte.
const MISSED_BEATS: u32 = 2;
/// Longest interval that is accepted from a broker.
const MAX_BEAT: Duration = Duration::from_mins(1);
/// Longest reason in an error, in characters.
const MAX_REASON: usize = 200;
/// Identifies the subscription and its receipt.
const SUBSCRIPTION: &str = "events";

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    /// The library's text contains its causes.
    #[error("the connection to the broker failed: {0}")]
    Connection(Box<tungstenite::Error>),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker's answer is not valid STOMP")]
    Frame(#[from] FrameError),
    /// With the broker's reason.
    #[error("the broker refuses: {0}")]
    Refused(String),
    /// Without the answer, which may repeat the token.
    #[error("the broker did not answer with {0}")]
    Unexpected(&'static str),
    #[error("the broker sends no heart-beats")]
    NoBeats,
    #[error("nothing came from the broker for {0} s")]
    Silent(u64),
}

impl From<tungstenite::Error> for SessionError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            error => Self::Connection(Box::new(error)),
        }
    }
}

/// A session whose subscription the broker has confirmed.
pub(super) struct Session<S> {
    link: Link<S>,
    /// Interval of our heart-beats; `None` if the broker wants none.
    beat: Option<Duration>,
    /// After this time without a byte the connection is dead.
    patience: Duration,
    /// When the last byte came.
    heard: Instant,
    next_beat: Option<Instant>,
}

struct Link<S> {
    socket: WebSocketStream<S>,
    decoder: Decoder,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Logs in and subscribes to the consumer's queue. The token is the password.
    pub(super) async fn open(
        socket: WebSocketStream<S>,
        consumer: &Consumer,
        token: &SecretString,
    ) -> Result<Self, SessionError> {
        let mut link = Link { socket, decoder: Decoder::default() };
        let reason = |frame: &Frame| reason(frame, token.expose_secret());
        let beats = format!("{0},{0}", BEAT.as_millis());
        let login = [
            ("accept-version", "1.2"),
            ("host", &consumer.vhost),
            ("login", &consumer.rmq_username),
            ("passcode", token.expose_secret()),
            ("heart-beat", &beats),
        ];
        link.send(encode("CONNECT", &login)).await?;
        let connected = link.expect("CONNECTED", reason).await?;
        let (theirs, wanted) = beats_of(&connected);
        let queue = format!("/amq/queue/{}", consumer.queue_name);
        let subscription = [("id", SUBSCRIPTION), ("destination", &queue), ("ack", "auto"), ("receipt", SUBSCRIPTION)];
        link.send(encode("SUBSCRIBE", &subscription)).await?;
        // An event may come first. It can be ignored, because everything is refreshed once the session is open.
        while link.expect_any(reason).await?.command != "RECEIPT" {}
        if theirs.is_zero() {
            return Err(SessionError::NoBeats);
        }
        let beat = (!wanted.is_zero()).then(|| wanted.clamp(BEAT, MAX_BEAT));
        let heard = Instant::now();
        Ok(Self {
            link,
            beat,
            patience: theirs.clamp(BEAT, MAX_BEAT) * MISSED_BEATS,
            heard,
            next_beat: beat.map(|beat| heard + beat),
        })
    }

    /// Waits for an event. Can be cancelled.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub(super) async fn event(&mut self, token: &SecretString) -> Result<(), SessionError> {
        loop {
            while let Some(frame) = self.link.decoder.next()? {
                match frame.command.as_str() {
                    "MESSAGE" => return Ok(()),
                    "ERROR" => return Err(SessionError::Refused(reason(&frame, token.expose_secret()))),
                    _ => {}
                }
            }
            tokio::select! {
                received = self.link.receive() => {
                    received?;
                    self.heard = Instant::now();
                }
                () = until(self.next_beat) => {
                    self.next_beat = self.beat.map(|beat| Instant::now() + beat);
                    self.link.send(String::from("\n")).await?;
                }
                () = sleep_until(self.heard + self.patience) => {
                    return Err(SessionError::Silent(self.patience.as_secs()));
                }
            }
        }
    }
}

/// Resolves at this time; never without one.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    async fn send(&mut self, text: String) -> Result<(), SessionError> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// Adds the next message to the decoder. Can be cancelled.
    async fn receive(&mut self) -> Result<(), SessionError> {
        match self.socket.next().await.ok_or(SessionError::Closed)?? {
            Message::Text(text) => self.decoder.add(text.as_bytes()),
            Message::Binary(bytes) => self.decoder.add(&bytes),
            Message::Close(_) => return Err(SessionError::Closed),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(())
    }

    async fn expect_any(&mut self, reason: impl Fn(&Frame) -> String) -> Result<Frame, SessionError> {
        loop {
            match self.decoder.next()? {
                Some(frame) if frame.command == "ERROR" => return Err(SessionError::Refused(reason(&frame))),
                Some(frame) => return Ok(frame),
                None => self.receive().await?,
            }
        }
    }

    async fn expect(
        &mut self,
        command: &'static str,
        reason: impl Fn(&Frame) -> String,
    ) -> Result<Frame, SessionError> {
        let frame = self.expect_any(reason).await?;
        if frame.command == command { Ok(frame) } else { Err(SessionError::Unexpected(command)) }
    }
}

/// The heart-beats that the broker can send, and those that it wants.
fn beats_of(connected: &Frame) -> (Duration, Duration) {
    let beats = connected.header("heart-beat").and_then(|beats| beats.split_once(','));
    let millis = |text: &str| Duration::from_millis(text.trim().parse().unwrap_or(0));
    beats.map_or_else(Default::default, |(theirs, wanted)| (millis(theirs), millis(wanted)))
}

/// The reason in an ERROR frame, if it does not contain the token.
fn reason(error: &Frame, token: &str) -> String {
    let message = error.header("message").filter(|message| !message.contains(token));
    printable(message.unwrap_or("no reason given"))
}

fn printable(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
pub(super) mod tests;
