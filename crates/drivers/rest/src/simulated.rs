//! A small HTTP server on the loopback, for simulated management servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::Backoff;

/// Short delays, for tests.
pub const FAST: Backoff =
    Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(20), patience: Duration::from_secs(5) };

#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Decoded segments.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    pub authorization: Option<String>,
    pub body: Value,
}

impl Request {
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }
}

pub enum Reply {
    /// Status, raw header lines, body.
    Json(u16, &'static str, Value),
    /// The request is carried out, but the connection is closed without a response.
    Lost,
}

/// Handles requests by `answer`, in a thread for each connection, until the process ends.
pub fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || handle(&stream.unwrap(), &*answer));
        }
    });
    url.parse().unwrap()
}

/// Handles one request. Every error closes the connection, which the client under test has to tolerate.
fn handle(stream: &TcpStream, answer: &dyn Fn(&Request) -> Reply) -> Option<()> {
    let mut lines = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let (mut length, mut authorization) = (0, None);
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let url = Url::parse("http://simulated").ok()?.join(target).ok()?;
    // Path segments without a `+` are decoded like the key of a query parameter.
    let decoded = |name: &str| url::form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name.into_owned());
    let path = url.path_segments()?.map(|name| decoded(name).unwrap_or_default()).collect();
    let query = url.query_pairs().into_owned().collect();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    match answer(&Request { method, path, query, authorization, body }) {
        Reply::Lost => None,
        Reply::Json(status, headers, body) => {
            let body = body.to_string();
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
            (&mut &*stream).write_all((head + &body).as_bytes()).ok()
        }
    }
}
