//! Faults that are injected into answers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::http::Call;

/// A fault in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// This answer instead of the normal one.
    Answer {
        status: u16,
        /// Headers, such as `Retry-After`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        #[serde(default)]
        body: String,
    },
    /// The normal answer after a delay.
    Delay { millis: u64 },
    /// No answer; the connection stays open.
    Silence,
    /// The normal answer, once the faults have been cleared.
    Hold,
    /// The normal answer, one byte at a time.
    Dribble {
        /// Milliseconds between two bytes.
        millis: u64,
    },
    /// The normal head, then the connection closes within the body.
    CutOff {
        /// Number of bytes of the body that are sent.
        after: usize,
    },
    /// The connection is reset without an answer.
    Reset,
    /// Status 200 and an endless list of rows.
    EndlessBody,
    /// The normal answer, with these headers replacing headers of the same name.
    Headers {
        /// Headers, such as `Date`.
        headers: Vec<(String, String)>,
    },
    /// The normal answer, with `null` in place of the first record of its first list.
    BadRecord,
    /// The normal answer, with `[]` in place of each member of the first record of its first list, except `uuid` and
    /// `posixName`.
    BadMembers,
    /// Every page of a list exists and links to a next page.
    EndlessPages,
    /// The normal answer; then this many of the oldest resources are removed, so that a client that reads pages misses rows.
    LoseRows { rows: usize },
}

impl Fault {
    /// An answer with this status and a short text.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: "simulated fault".to_owned() }
    }

    /// An answer with this status and `Retry-After` in seconds.
    pub fn retry_after(status: u16, seconds: u32) -> Self {
        let headers = vec![("Retry-After".to_owned(), seconds.to_string())];
        Self::Answer { status, headers, body: "simulated fault".to_owned() }
    }

    /// An answer with this status and `Retry-After` as a date, `seconds` after the `Date` of the answer, which is years ago.
    pub fn retry_after_date(status: u16, seconds: u32) -> Self {
        let date = |seconds: u32| format!("Sun, 06 Nov 1994 08:49:{:02} GMT", seconds.min(59));
        let headers = vec![("Date".to_owned(), date(0)), ("Retry-After".to_owned(), date(seconds))];
        Self::Answer { status, headers, body: "simulated fault".to_owned() }
    }

    /// The normal answer, with this header replaced.
    pub fn header(name: &str, value: &str) -> Self {
        Self::Headers { headers: vec![(name.to_owned(), value.to_owned())] }
    }

    /// Status 200 with an HTML page, as sent by a misconfigured reverse proxy.
    pub fn not_json() -> Self {
        Self::ok("text/html; charset=utf-8", "<html><body>maintenance</body></html>")
    }

    /// Status 200 with JSON of a different type than the normal answer.
    pub fn wrong_type() -> Self {
        Self::ok("application/json", "42")
    }

    /// Status 302 to another address.
    pub fn redirect(to: &str) -> Self {
        Self::Answer { status: 302, headers: vec![("Location".to_owned(), to.to_owned())], body: String::new() }
    }

    /// Status 200 with this body.
    pub fn ok(content_type: &str, body: &str) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self::Answer { status: 200, headers, body: body.to_owned() }
    }

    /// The normal answer after this time.
    pub fn delay(time: Duration) -> Self {
        Self::Delay { millis: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// Where a fault applies, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// `[METHOD ]PATH[?QUERY]`, where `*` matches any text. Without `?` the query is ignored; with it, the query is compared as
    /// written in the request line. For example `GET /api/marketplace-*`, `*?*page=2*`.
    pub route: String,
    pub fault: Fault,
    /// Number of further requests that it applies to; `None` = all.
    #[serde(default)]
    pub times: Option<u32>,
}

/// Whether a request matches the route.
pub(crate) fn route_matches(route: &str, call: &Call) -> bool {
    let (method, path) = match route.split_once(' ') {
        Some((method, path)) => (Some(method), path),
        None => (None, route),
    };
    let subject = if path.contains('?') { &call.target } else { &call.path };
    method.is_none_or(|method| call.method.as_str() == method) && matches(path, subject)
}

/// Whether the text matches the pattern; `*` matches any text, including the empty text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

/// The active faults; the newest match applies.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<FaultRule>>);

impl Faults {
    pub(crate) fn add(&self, rule: FaultRule) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    pub(crate) fn all(&self) -> Vec<FaultRule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until there is no [`Fault::Hold`].
    pub(crate) async fn released(&self) {
        while self.all().iter().any(|rule| rule.fault == Fault::Hold) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The fault for this request; counts it as used.
    pub(crate) fn take(&self, call: &Call) -> Option<Fault> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rules.iter().rposition(|rule| rule.times != Some(0) && route_matches(&rule.route, call))?;
        let rule = &mut rules[at];
        let fault = rule.fault.clone();
        rule.times = rule.times.map(|times| times - 1);
        if rule.times == Some(0) {
            rules.remove(at);
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_matches_any_text() {
        for (pattern, text) in
            [("/a/b", "/a/b"), ("*", ""), ("/a/*", "/a/"), ("*page=2*", "/a?page=2&x"), ("/*/c/", "/a/b/c/")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("/a/b", "/a/b/"), ("/a*", "/b"), ("*c*d", "/d/c"), ("/a*/a", "/a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
