//! The state of the proxy, its upstreams and the provisioners: a line for each.

use time::{Duration, OffsetDateTime};

use super::routes::Sources;
use super::story::Story;
use super::text::{plural, span};
use crate::auth::KeysStatus;
use crate::upstream::{BreakerState, Upstream};

/// How well something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Good,
    /// It needs a look.
    Doubtful,
    Bad,
    /// Not known yet.
    Unknown,
}

/// The state of one thing.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) what: String,
    pub(super) level: Level,
    /// When it last worked.
    pub(super) at: Option<OffsetDateTime>,
    pub(super) text: String,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "Works",
            Self::Doubtful => "Needs a look",
            Self::Bad => "Does not work",
            Self::Unknown => "Not known yet",
        }
    }
}

/// All lines: the proxy itself, then upstreams, provisioners and storage systems.
pub(super) fn lines(sources: &Sources, story: &Story, now: OffsetDateTime) -> Vec<Line> {
    let mut lines = vec![snapshot(sources, now)];
    lines.extend(sources.upstreams().map(|it| upstream(it, now)));
    if let Some(KeysStatus { age, usable }) = sources.verifier.keys() {
        let (level, text) = match (age, usable) {
            (_, true) => (Level::Good, ""),
            (None, false) => (Level::Unknown, "they have not been fetched yet"),
            (Some(_), false) => (Level::Bad, "they are too old, so that nobody can sign in"),
        };
        lines.push(Line { what: "Keys of the realm".into(), level, at: before(now, age), text: text.into() });
    }
    if let Some(works) = sources.store.shared_cache_works() {
        let (level, text) = if works {
            (Level::Good, "")
        } else {
            (Level::Doubtful, "the last command failed; each replica reads the upstreams by itself")
        };
        lines.push(Line { what: "Shared cache".into(), level, at: None, text: text.into() });
    }
    if sources.has_push {
        let (level, text) = if sources.store.waldur_announces() {
            (Level::Good, "connected")
        } else {
            (Level::Doubtful, "not connected; the proxy polls more often instead")
        };
        lines.push(Line { what: "Events of Waldur".into(), level, at: None, text: text.into() });
    }
    lines.extend(of_story(story, now));
    lines
}

/// The lines of provisioners and storage systems.
pub(super) fn of_story(story: &Story, now: OffsetDateTime) -> Vec<Line> {
    let mut lines = Vec::new();
    for provisioner in &story.provisioners {
        let received = &provisioner.received;
        let report = &received.report;
        let (level, text) = match &report.pass.error {
            _ if provisioner.is_silent => {
                let due = received.received_at + Duration::seconds(report.next_within_seconds.into());
                (Level::Bad, format!("silent: its report is {} overdue", span(now - due)))
            }
            Some(error) => {
                let ago = span(now - report.pass.ended_at);
                (Level::Bad, format!("its last pass failed {ago} ago, the next one retries: {error}"))
            }
            None => {
                let held = report.resources.iter().filter(|resource| resource.hold.is_some()).count();
                let held = if held == 0 { "nothing held".into() } else { format!("{held} held") };
                let of = plural(report.resources.len(), "resource", "resources");
                (
                    Level::Good,
                    format!(
                        "{}: {of}, {held}; the last pass took {:.1} s",
                        report.program, report.pass.duration_seconds
                    ),
                )
            }
        };
        let what = format!("Provisioner {}", received.name);
        // The report of a failed pass is no success.
        let at = report.pass.error.is_none().then_some(received.received_at);
        lines.push(Line { what, level, at, text });
    }
    for system in &story.systems {
        let names: Vec<_> = system.reporters.iter().map(|it| story.provisioners[*it].name()).collect();
        let alive = system.alive(story).count();
        let newest = system.reporters.first().map(|it| story.provisioners[*it].received.received_at);
        let (level, text) = match (names.len(), alive) {
            (0, _) => (Level::Doubtful, "nobody reports about it".to_owned()),
            (_, 0) => (Level::Doubtful, format!("{} is silent, so its state is unknown", names.join(" and "))),
            (_, 2..) => (Level::Bad, format!("{} report about it: stop all but one", names.join(" and "))),
            _ => match &system.error {
                Some(error) => (Level::Bad, format!("it cannot be read: {error}")),
                None if !system.is_configured => {
                    (Level::Doubtful, format!("{} reports about it, but the proxy does not publish it", names[0]))
                }
                None => (Level::Good, format!("{} reports about it", names[0])),
            },
        };
        lines.push(Line { what: format!("Storage system {}", system.name), level, at: newest, text });
    }
    lines
}

fn snapshot(sources: &Sources, now: OffsetDateTime) -> Line {
    let newest = sources.store.newest();
    let at = before(now, newest.as_ref().map(|reading| reading.age()));
    let (level, text) = match (&newest, sources.store.last_refresh()) {
        (None, None) => (Level::Unknown, "the first refresh is still running".to_owned()),
        (None, Some(_)) => (Level::Bad, "no refresh has succeeded yet: see the log".to_owned()),
        (Some(_), Some(false)) => (Level::Bad, "the last refresh failed: see the log".to_owned()),
        (Some(reading), _) => {
            let skipped = reading.snapshot.skipped().count();
            let text =
                if skipped == 0 { String::new() } else { plural(skipped, "skipped resource", "skipped resources") };
            (Level::Good, text)
        }
    };
    Line { what: "Document".into(), level, at, text }
}

fn upstream(upstream: &Upstream, now: OffsetDateTime) -> Line {
    let last = upstream.last();
    let ago = |at: Option<tokio::time::Instant>| at.map(|at| at.elapsed());
    let failed_last = match (last.success, last.failure) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(success), Some(failure)) => failure > success,
    };
    let failed = || {
        ago(last.failure).and_then(|ago| Duration::try_from(ago).ok()).map(|ago| format!("it failed {} ago", span(ago)))
    };
    let (level, text) = match upstream.breaker() {
        BreakerState::Open | BreakerState::HalfOpen => {
            (Level::Bad, "the circuit breaker is open after repeated failures: see the log".to_owned())
        }
        BreakerState::Closed if failed_last => (Level::Doubtful, failed().unwrap_or_default()),
        BreakerState::Closed if last.success.is_none() => (Level::Unknown, "it has not been used yet".to_owned()),
        BreakerState::Closed => (Level::Good, String::new()),
    };
    Line { what: upstream.name().to_owned(), level, at: before(now, ago(last.success)), text }
}

/// The time that is so long ago.
fn before(now: OffsetDateTime, age: Option<std::time::Duration>) -> Option<OffsetDateTime> {
    now.checked_sub(Duration::try_from(age?).ok()?)
}
