//! The log of the exchanges between the command under test and its counterparts.

use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::probe::Probed;

/// With whom the command speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    Proxy,
    Waldur,
    /// An origin to which no credential belongs.
    Foreign,
}

impl Front {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Waldur => "Waldur",
            Self::Foreign => "another origin",
        }
    }
}

/// A call that reports back to Waldur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Callback {
    /// The order, or the resource.
    pub(crate) id: Uuid,
    /// For example `set_state_done`.
    pub(crate) action: String,
}

/// The answer to a request for a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) number: u64,
    pub(crate) pages: u64,
    pub(crate) items: usize,
}

/// A request of the command, with its answer.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) started: Instant,
    /// When the answer was complete; `None` if there is none yet, or none at all.
    pub(crate) ended: Option<Instant>,
    pub(crate) front: Front,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: String,
    /// `If-None-Match`.
    pub(crate) known: Option<String>,
    /// Whether it waits for a change.
    pub(crate) waits: bool,
    pub(crate) callback: Option<Callback>,
    /// The status that the proxy or Waldur answered; `None` if the request did not reach them.
    pub(crate) effect: Option<u16>,
    /// The status that the command received.
    pub(crate) status: Option<u16>,
    pub(crate) page: Option<Page>,
    pub(crate) tag: Option<String>,
    /// The text of an answer that is not a listing, shortened.
    pub(crate) answer: String,
    /// What was done to this exchange.
    pub(crate) fault: Option<String>,
    /// A credential that went where it does not belong.
    pub(crate) leak: Option<&'static str>,
    /// The directory at the arrival of a callback.
    pub(crate) probed: Option<Probed>,
}

impl Exchange {
    pub(crate) fn is_listing(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        self.front == Front::Proxy && self.method == "GET" && path.trim_end_matches('/') == "/api/storage-resources"
    }

    /// Whether the command has what it gets of the whole listing: its last page, that nothing changed, or an error.
    fn completes_a_read(&self) -> bool {
        self.is_listing() && self.ended.is_some() && self.page.is_none_or(|page| page.number >= page.pages)
    }

    pub(crate) fn action(&self) -> Option<&str> {
        self.callback.as_ref().map(|callback| callback.action.as_str())
    }

    /// Whether Waldur accepted the callback.
    pub(crate) fn is_accepted(&self) -> bool {
        self.callback.is_some() && self.effect.is_some_and(|status| (200..300).contains(&status))
    }

    /// One line for people; `since` is the begin of the case.
    pub(crate) fn line(&self, since: Instant) -> String {
        let wait = if self.waits { " (waits)" } else { "" };
        let status = self.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let mut line = format!(
            "{:7.3} {} {} {}{wait} {} → {status}",
            self.started.saturating_duration_since(since).as_secs_f64(),
            self.front.as_str(),
            self.method,
            self.target,
            self.body,
        );
        if let Some(page) = self.page {
            let _ = write!(line, " page {} of {}, {} items", page.number, page.pages, page.items);
        }
        for text in [Some(&self.answer), self.fault.as_ref()].into_iter().flatten().filter(|text| !text.is_empty()) {
            let _ = write!(line, " [{text}]");
        }
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    pub(crate) fn json(&self, since: Instant) -> Value {
        json!({
            "at": self.started.saturating_duration_since(since).as_secs_f64(), "to": self.front.as_str(),
            "method": self.method, "target": self.target, "body": self.body, "status": self.status,
            "answer": self.answer, "fault": self.fault, "directory": self.probed,
        })
    }
}

/// Whether the command has read the whole listing twice after `since`, and has begun again.
pub(crate) fn has_read_twice(log: &[Exchange], since: Instant) -> bool {
    let mut reads = 0;
    for exchange in log.iter().filter(|exchange| exchange.started >= since) {
        if reads >= 2 && exchange.is_listing() {
            return true;
        }
        reads += usize::from(exchange.completes_a_read());
    }
    false
}

/// The request with which the command waits for a change, if it has done nothing else since.
pub(crate) fn open_wait(log: &[Exchange]) -> Option<&Exchange> {
    log.last().filter(|exchange| exchange.waits && exchange.is_listing() && exchange.ended.is_none())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Exchange, Front, Page, has_read_twice, open_wait};

    fn listing(started: Instant, page: Option<(u64, u64)>) -> Exchange {
        Exchange {
            started,
            ended: Some(started),
            front: Front::Proxy,
            method: "GET".into(),
            target: "/api/storage-resources/?page=1".into(),
            body: String::new(),
            known: None,
            waits: false,
            callback: None,
            effect: Some(200),
            status: Some(200),
            page: page.map(|(number, pages)| Page { number, pages, items: 1 }),
            tag: Some("a".into()),
            answer: String::new(),
            fault: None,
            leak: None,
            probed: None,
        }
    }

    #[test]
    fn two_whole_reads_and_the_begin_of_a_third_settle() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let old = listing(begin, Some((1, 1)));
        let half = |seconds| [listing(at(seconds), Some((1, 2))), listing(at(seconds), Some((2, 2)))];
        let log = [vec![old.clone(), old], half(1).into(), half(2).into()].concat();
        assert!(!has_read_twice(&log, at(1)));
        assert!(has_read_twice(&[log.clone(), half(3).into()].concat(), at(1)));
        assert!(!has_read_twice(&[log, half(3).into()].concat(), at(2)));
    }

    #[test]
    fn the_last_request_may_wait() {
        let read = listing(Instant::now(), Some((1, 1)));
        let wait = Exchange { ended: None, waits: true, ..read.clone() };
        assert!(open_wait(&[read.clone(), wait.clone()]).is_some());
        assert!(open_wait(&[wait, read]).is_none());
    }
}
