//! A fake Sentry endpoint that stores the envelopes it receives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;

/// The received envelopes.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    envelopes: Arc<Mutex<Vec<String>>>,
    address: String,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self { address: listener.local_addr().unwrap().to_string(), ..Self::default() };
        let router = Router::new().route("/api/{project}/envelope/", post(keep)).with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        sink
    }

    /// The DSN of project 7.
    pub(crate) fn dsn(&self) -> String {
        format!("http://publickey@{}/7", self.address)
    }

    /// All received headers and bodies.
    pub(crate) fn everything(&self) -> String {
        self.envelopes.lock().unwrap().join("\n")
    }

    /// Events: errors and panics.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.items("event")
    }

    /// Transactions: requests and background exchanges.
    pub(crate) fn transactions(&self) -> Vec<Value> {
        self.items("transaction")
    }

    /// An item of an envelope is a line with its type and a line with its content.
    fn items(&self, kind: &str) -> Vec<Value> {
        let everything = self.everything();
        let mut lines = everything.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut items = Vec::new();
        while let Some(line) = lines.next() {
            if line["type"] == kind {
                items.extend(lines.next());
            }
        }
        items
    }
}

async fn keep(State(sink): State<Sink>, Path(project): Path<String>, headers: HeaderMap, body: Bytes) {
    assert_eq!(project, "7");
    assert!(!headers.contains_key("content-encoding"), "this endpoint supports no encodings");
    let body = String::from_utf8(body.to_vec()).unwrap();
    sink.envelopes.lock().unwrap().push(format!("{headers:?}\n{body}"));
}

/// A server that accepts connections and never responds.
pub(crate) struct SilentServer {
    pub(crate) address: std::net::SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl SilentServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, connections }
    }

    /// Number of connections so far: one for each attempt to send something.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
