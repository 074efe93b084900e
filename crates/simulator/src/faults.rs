//! What goes wrong on demand.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::http::Call;

/// Something that goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// This answer instead of the right one.
    Answer {
        /// Status.
        status: u16,
        /// Headers, such as `Retry-After`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Body.
        #[serde(default)]
        body: String,
    },
    /// The right answer, later.
    Delay {
        /// Milliseconds.
        millis: u64,
    },
    /// No answer, ever; the connection stays open.
    Silence,
    /// The right answer, a byte at a time.
    Dribble {
        /// Milliseconds between two bytes.
        millis: u64,
    },
    /// The right head, then the connection ends within the body.
    CutOff {
        /// Bytes of the body that still come.
        after: usize,
    },
    /// The connection is reset without an answer.
    Reset,
    /// 200, and rows without end.
    EndlessBody,
    /// The right answer with these headers in place of its own of the same names.
    Headers {
        /// Headers, such as `Date`.
        headers: Vec<(String, String)>,
    },
    /// The right answer with `null` in place of the first record of its first list.
    BadRecord,
    /// The right answer with `[]` in place of each member of the first record of its first list, but for `uuid` and
    /// `posixName`.
    BadMembers,
    /// Every page of a list exists and names a next one.
    EndlessPages,
    /// The right answer; afterwards these many of the oldest resources are gone, so that a reader of pages misses rows.
    LoseRows {
        /// How many.
        rows: usize,
    },
}

impl Fault {
    /// This status with a short text.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: "simulated fault".to_owned() }
    }

    /// This status and `Retry-After` in seconds.
    pub fn retry_after(status: u16, seconds: u32) -> Self {
        let headers = vec![("Retry-After".to_owned(), seconds.to_string())];
        Self::Answer { status, headers, body: "simulated fault".to_owned() }
    }

    /// This status and `Retry-After` as a date, these many seconds after that of the answer, which is years ago.
    pub fn retry_after_date(status: u16, seconds: u32) -> Self {
        let date = |seconds: u32| format!("Sun, 06 Nov 1994 08:49:{:02} GMT", seconds.min(59));
        let headers = vec![("Date".to_owned(), date(0)), ("Retry-After".to_owned(), date(seconds))];
        Self::Answer { status, headers, body: "simulated fault".to_owned() }
    }

    /// The right answer with this header in place of its own.
    pub fn header(name: &str, value: &str) -> Self {
        Self::Headers { headers: vec![(name.to_owned(), value.to_owned())] }
    }

    /// 200 with a page of HTML, as a misconfigured reverse proxy gives.
    pub fn not_json() -> Self {
        Self::ok("text/html; charset=utf-8", "<html><body>maintenance</body></html>")
    }

    /// 200 with JSON of another type than the right answer's.
    pub fn wrong_type() -> Self {
        Self::ok("application/json", "42")
    }

    /// 302 to another address.
    pub fn redirect(to: &str) -> Self {
        Self::Answer { status: 302, headers: vec![("Location".to_owned(), to.to_owned())], body: String::new() }
    }

    /// 200 with this body.
    pub fn ok(content_type: &str, body: &str) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self::Answer { status: 200, headers, body: body.to_owned() }
    }

    /// The right answer after this time.
    pub fn delay(time: Duration) -> Self {
        Self::Delay { millis: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// Where a fault applies, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// `[METHOD ]PATH[?QUERY]`, `*` standing for anything. Without `?` the query does not count; with it, it is compared
    /// as it stands in the request line. For example `GET /api/marketplace-*`, `*?*page=2*`.
    pub route: String,
    /// What goes wrong.
    pub fault: Fault,
    /// How many more requests it hits; none = all.
    #[serde(default)]
    pub times: Option<u32>,
}

/// Whether a request goes where the route says.
pub(crate) fn hits(route: &str, call: &Call) -> bool {
    let (method, path) = match route.split_once(' ') {
        Some((method, path)) => (Some(method), path),
        None => (None, route),
    };
    let subject = if path.contains('?') { &call.target } else { &call.path };
    method.is_none_or(|method| call.method.as_str() == method) && matches(path, subject)
}

/// Whether the text is what the pattern describes; `*` stands for any text, also none.
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

/// The faults in force; the newest that matches wins.
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

    /// The fault that hits this request; it counts as used.
    pub(crate) fn take(&self, call: &Call) -> Option<Fault> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rules.iter().rposition(|rule| rule.times != Some(0) && hits(&rule.route, call))?;
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
    fn a_star_stands_for_any_text() {
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
