//! Requests and answers, independent of the server. The simulated services are functions from one to the other.

use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use serde_json::Value;

/// A request with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Path and query as written in the request line.
    pub(crate) target: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// `http://host` as addressed by the client.
    pub(crate) base: String,
    /// Whether the fault [`EndlessPages`](crate::Fault::EndlessPages) applies.
    pub(crate) endless: bool,
}

impl Call {
    /// All values of a query parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The last value of a query parameter, the one that Django uses.
    pub(crate) fn last<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).last()
    }

    /// The value of a header, if it is ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The bearer token in the request.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

/// An answer before fault injection.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Number of rows if this is a page of a list; determines the latency.
    pub(crate) items: Option<usize>,
}

impl Reply {
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), items: None }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::raw(status, "application/json", body.to_string())
    }

    pub(crate) fn raw(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::empty(status).with("Content-Type", content_type).with_body(body.into())
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces headers of the same names.
    pub(crate) fn replace(&mut self, headers: &[(String, String)]) {
        self.headers.retain(|(name, _)| !headers.iter().any(|(new, _)| name.eq_ignore_ascii_case(new)));
        self.headers.extend_from_slice(headers);
    }

    fn with_body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

/// Decodes the fields of a form or a query string.
pub(crate) fn form(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}
