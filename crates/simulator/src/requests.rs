//! The log of received requests, for assertions in tests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::http::Call;

/// Maximum number of requests kept; the oldest are dropped.
const MAX_REQUESTS: usize = 20_000;

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Sequence number, from 0.
    pub number: u64,
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Decoded query parameters, in order.
    pub query: Vec<(String, String)>,
    /// Headers in order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text; invalid UTF-8 is replaced.
    pub body: String,
    /// Number of the connection, from 0.
    pub connection: u64,
    /// Address of the client.
    pub peer: SocketAddr,
    /// Status of the answer; `None` until it is sent, or if a fault suppressed it.
    pub status: Option<u16>,
}

impl Received {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All values of a query parameter.
    pub fn query_all(&self, name: &str) -> Vec<&str> {
        self.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Decoded path and query, for messages.
    pub fn line(&self) -> String {
        let query: Vec<String> = self.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let question = if query.is_empty() { "" } else { "?" };
        format!("{} {}{question}{}", self.method, self.path, query.join("&"))
    }
}

#[derive(Default)]
pub(crate) struct Log(Mutex<(u64, VecDeque<Received>)>);

impl Log {
    /// Logs a request and returns its number.
    pub(crate) fn add(&self, call: &Call, connection: u64, peer: SocketAddr) -> u64 {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = log.0;
        log.0 += 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        log.1.push_back(Received {
            number,
            method: call.method.to_string(),
            path: call.path.clone(),
            query: call.query.clone(),
            headers: call.headers.iter().map(|(key, value)| (key.to_string(), text(value.as_bytes()))).collect(),
            body: text(&call.body),
            connection,
            peer,
            status: None,
        });
        if log.1.len() > MAX_REQUESTS {
            log.1.pop_front();
        }
        number
    }

    /// Logs the status of the answer.
    pub(crate) fn set_status(&self, number: u64, status: u16) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = log.1.iter_mut().rev().find(|entry| entry.number == number) {
            entry.status = Some(status);
        }
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clear();
    }
}
