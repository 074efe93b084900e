//! Reports each pass to the proxy, for the pages for operators.
//!
//! A report never delays or fails a pass: a thread of its own builds and sends it, and only the newest pass waits to be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use program::{Clock, error_chain, lock};
use provisioner_core::document::{OrderKind, Resource, Status};
use provisioner_core::plan::{self, Case, Held};
use provisioner_core::preflight::ObstacleKind;
use provisioner_report::{
    Amount, Change, Event, Hold, HoldKind, MAX_BYTES, Observed, Pass, Rejected, Report, Task, TaskState, Terabyte,
    Trashed, is_valid_name, shortened,
};
use storage_driver::limits::{self, Usage};
use storage_driver::{Difference, Observed as Found};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{info, warn};
use uuid::Uuid;

use crate::journal;
use crate::metrics::{MAX_PASS_DURATION, REPORTS};
use crate::pass::{self, Survey};
use crate::provisioner::Provisioner;
use crate::source::{Source, Unreported};

/// The shortest time between the starts of two reports.
const SHORTEST: Duration = Duration::from_secs(5);
/// Pause after the proxy had no such path: it may be upgraded.
const UNSUPPORTED_PAUSE: Duration = Duration::from_hours(1);
/// The events of a resource are also reported if one of them is younger.
const RECENT: Duration = Duration::from_hours(24);
/// The newest events of a resource that are reported.
const MAX_EVENTS: usize = 32;

/// A complete pass.
#[derive(Debug)]
pub struct Complete {
    pub survey: Survey,
    pub report: pass::Report,
}

/// What the reports of a provisioner are made with. Changed settings change it.
#[derive(Debug)]
struct Site {
    name: String,
    source: Arc<Source>,
    /// The systems, with the unit of their quotas.
    systems: Vec<(String, limits::Terabyte)>,
    journal: PathBuf,
    /// Seconds that a directory stays in the trash; `None` if nothing deletes it.
    retention: Option<u64>,
    next_within: Duration,
}

/// What is to be sent next.
#[derive(Debug, Default)]
struct Pending {
    /// The last complete pass, with its end and duration.
    complete: Option<(Complete, Ended)>,
    /// The failed pass after it.
    failed: Option<(String, Ended)>,
    site: Option<Site>,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    at: OffsetDateTime,
    took: Duration,
}

/// Sends reports in a thread of its own.
#[derive(Debug)]
pub struct Reporter {
    pending: Arc<(Mutex<Pending>, Condvar)>,
    clock: Clock,
}

impl Reporter {
    pub fn start(clock: &Clock) -> Self {
        let pending = Arc::new((Mutex::new(Pending::default()), Condvar::new()));
        let (taken, own) = (Arc::clone(&pending), clock.clone());
        std::thread::spawn(move || {
            let mut sender = Sender { clock: own, ..Sender::default() };
            loop {
                let began = Instant::now();
                let (pending, changed) = &*taken;
                let idle = |pending: &mut Pending| pending.complete.is_none() && pending.failed.is_none();
                let next = std::mem::take(
                    &mut *changed.wait_while(lock(pending), idle).unwrap_or_else(PoisonError::into_inner),
                );
                sender.send(next);
                std::thread::sleep(SHORTEST.saturating_sub(began.elapsed()));
            }
        });
        Self { pending, clock: clock.clone() }
    }

    /// Reports a complete pass that took so long.
    pub fn completed(&self, provisioner: &Provisioner, pass: Complete, took: Duration) {
        let ended = self.ended(took);
        self.add(provisioner, |pending| (pending.complete, pending.failed) = (Some((pass, ended)), None));
    }

    /// Reports a failed pass.
    pub fn failed(&self, provisioner: &Provisioner, error: String, took: Duration) {
        let ended = self.ended(took);
        self.add(provisioner, |pending| pending.failed = Some((error, ended)));
    }

    fn ended(&self, took: Duration) -> Ended {
        Ended { at: self.clock.now().into(), took }
    }

    fn add(&self, provisioner: &Provisioner, add: impl FnOnce(&mut Pending)) {
        let settings = &provisioner.settings;
        if !settings.report.enabled {
            return;
        }
        let (pending, changed) = &*self.pending;
        let mut pending = lock(pending);
        add(&mut pending);
        pending.site = Some(Site {
            name: settings.report.name.clone().unwrap_or_else(|| default_name(provisioner)),
            source: Arc::clone(&provisioner.source),
            systems: provisioner.systems.iter().map(|system| (system.key.clone(), system.rules.terabyte)).collect(),
            journal: provisioner.journal_path(),
            retention: settings.purge.enabled.then(|| settings.purge.retention_days as u64 * 86_400),
            next_within: settings.run.interval + MAX_PASS_DURATION,
        });
        changed.notify_one();
    }
}

/// The names of the systems, so that provisioners that take over from each other have the same one.
fn default_name(provisioner: &Provisioner) -> String {
    let names: Vec<_> = provisioner.systems.iter().map(|system| &*system.key).collect();
    let valid = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c) { c } else { '-' };
    let name: String = names.join("-").chars().map(valid).take(63).collect();
    if is_valid_name(&name) { name } else { "provisioner".to_owned() }
}

/// What the thread remembers.
#[derive(Debug)]
struct Sender {
    clock: Clock,
    /// The last complete report.
    last: Option<Report>,
    /// Since when each resource has had this hold or task.
    since: Since,
    /// Why the last report was not accepted.
    problem: Option<String>,
    paused_until: Option<Instant>,
}

type Since = BTreeMap<Uuid, (&'static str, OffsetDateTime)>;

impl Default for Sender {
    fn default() -> Self {
        Self { clock: Clock::system(), last: None, since: Since::new(), problem: None, paused_until: None }
    }
}

impl Sender {
    fn send(&mut self, Pending { complete, failed, site }: Pending) {
        let Some(site) = site else { return };
        let now = OffsetDateTime::from(self.clock.now());
        if let Some((complete, ended)) = complete {
            self.last = Some(build(&site, complete, ended, &mut self.since));
        }
        let mut report = self.last.take().unwrap_or_else(|| empty(&site, now));
        report.reported_at = now;
        report.next_within_seconds = u32::try_from(site.next_within.as_secs()).unwrap_or(u32::MAX).max(1);
        if let Some((error, ended)) = failed {
            report.pass = of_pass(ended, Some(shortened(&error)));
        }
        if self.paused_until.is_none_or(|until| Instant::now() >= until) {
            let sent = rendered(&report).and_then(|json| site.source.report(&site.name, json));
            self.log(sent);
        }
        self.last = Some(report);
    }

    /// Counts the outcome, and logs it if it differs from the last one.
    fn log(&mut self, sent: Result<(), Unreported>) {
        let outcome = match &sent {
            Ok(()) => "accepted",
            Err(Unreported::Unsupported) => "unsupported",
            Err(Unreported::Rejected(_)) => "rejected",
            Err(Unreported::Failed(_)) => "failed",
        };
        counter!(REPORTS, "outcome" => outcome).increment(1);
        self.paused_until = None;
        let problem = match sent {
            Ok(()) => None,
            Err(Unreported::Unsupported) => {
                self.paused_until = Some(Instant::now() + UNSUPPORTED_PAUSE);
                Some("the proxy is an older version that takes no reports".to_owned())
            }
            Err(Unreported::Rejected(why) | Unreported::Failed(why)) => Some(why),
        };
        match (&self.problem, &problem) {
            (before, Some(now)) if before.as_ref() != Some(now) => {
                let what = "operators do not see this provisioner's state, because its report was not accepted";
                // An older proxy is no fault.
                if outcome == "unsupported" { info!("{what}: {now}") } else { warn!("{what}: {now}") }
            }
            (Some(_), None) => info!("the proxy accepts reports again"),
            _ => {}
        }
        self.problem = problem;
    }
}

/// The report as JSON, without details if it is too large with them.
fn rendered(report: &Report) -> Result<Vec<u8>, Unreported> {
    let render = |report: &Report| serde_json::to_vec(report).map_err(|error| Unreported::Failed(error.to_string()));
    let json = render(report)?;
    if json.len() <= MAX_BYTES {
        return Ok(json);
    }
    let mut shorter = report.clone();
    for resource in &mut shorter.resources {
        resource.history.clear();
        if resource.task.is_none() && resource.hold.is_none() {
            resource.detail.clear();
        }
    }
    let json = render(&shorter)?;
    if json.len() <= MAX_BYTES {
        return Ok(json);
    }
    Err(Unreported::Failed(format!("the report is larger than {MAX_BYTES} bytes, also without details")))
}

fn of_pass(Ended { at, took }: Ended, error: Option<String>) -> Pass {
    Pass { ended_at: at, duration_seconds: took.as_secs_f64(), error }
}

/// The report before the first complete pass.
fn empty(site: &Site, now: OffsetDateTime) -> Report {
    Report {
        program: concat!("hpc-storage-provisioner ", env!("CARGO_PKG_VERSION")).to_owned(),
        reported_at: now,
        next_within_seconds: 1,
        pass: of_pass(Ended { at: now, took: Duration::ZERO }, None),
        systems: site.systems.iter().map(|(name, terabyte)| system(name, *terabyte, None)).collect(),
        resources: Vec::new(),
        trash: Vec::new(),
        rejected: Vec::new(),
    }
}

fn system(name: &str, terabyte: limits::Terabyte, error: Option<String>) -> provisioner_report::System {
    let terabyte = match terabyte {
        limits::Terabyte::Decimal => Terabyte::Decimal,
        limits::Terabyte::Binary => Terabyte::Binary,
    };
    provisioner_report::System { name: name.to_owned(), terabyte, error }
}

fn build(site: &Site, Complete { survey, report: pass }: Complete, ended: Ended, since: &mut Since) -> Report {
    let holds: BTreeMap<_, _> = pass.plan.held.iter().filter_map(|held| Some((held.id?, held))).collect();
    let tasks: BTreeMap<_, _> = pass.plan.tasks.iter().map(|task| (task.id, task)).collect();
    let concerned: BTreeSet<_> = holds.keys().chain(tasks.keys()).copied().collect();
    let mut histories = journal::recent(&site.journal, &concerned, ended.at - RECENT, MAX_EVENTS).unwrap_or_default();
    let mut seen = Since::new();
    let mut since_of = |id: Uuid, what: &'static str, begun: Option<OffsetDateTime>| {
        let known = since.get(&id).filter(|(before, _)| *before == what).map(|(_, at)| *at);
        let at = known.or(begun).unwrap_or(ended.at);
        seen.insert(id, (what, at));
        Some(at)
    };
    let mut resources = Vec::new();
    let mut trash = Vec::new();
    for case in &survey.cases {
        let Resource { id, system, path, status, .. } = &case.resource;
        let terabyte = site.systems.iter().find(|(name, _)| name == system).map(|(_, terabyte)| *terabyte);
        let terabyte = terabyte.unwrap_or(limits::Terabyte::Decimal);
        let events = histories.remove(id).unwrap_or_default();
        // Work that was begun earlier and has not ended is due since then.
        let begun =
            case.unfinished.then(|| events.iter().rev().take_while(|(_, event)| *event != journal::Event::Ended));
        let begun = begun.and_then(|events| OffsetDateTime::parse(&events.last()?.0, &Rfc3339).ok());
        let task = tasks.get(id).map(|task| {
            let since = since_of(*id, task.action.name(), begun);
            reported_task(task, &pass, terabyte, since)
        });
        let hold = holds.get(id).map(|held| {
            let since = since_of(*id, held.hold.name(), begun);
            reported_hold(held, case, terabyte, since)
        });
        if let Ok(Found::Trashed { since } | Found::Purging { since }) = &case.observed
            && let Some(since_then) = timestamp(*since)
        {
            let expires = site.retention.and_then(|retention| timestamp(since.saturating_add(retention)));
            trash.push(Trashed { id: *id, system: system.clone(), since: since_then, expires, usage: None });
        }
        let is_gone = *status == Status::Removed && matches!(case.observed, Ok(Found::Absent));
        if is_gone && task.is_none() && hold.is_none() {
            continue;
        }
        let (observed, detail) = observation(case);
        let present = match &case.observed {
            Ok(Found::Ours(present)) => Some(present),
            _ => None,
        };
        let quota = present.and_then(|present| present.limits);
        resources.push(provisioner_report::Resource {
            id: *id,
            system: system.clone(),
            path: plain(path),
            observed,
            detail: shortened(&detail),
            usage: present.and_then(|present| present.usage).map(|Usage { space, inodes }| amount(space, inodes)),
            quota: quota.map(|quota| amount(quota.space_hard(), quota.inodes_hard())),
            task,
            hold,
            history: events.iter().filter_map(reported_event).collect(),
        });
    }
    *since = seen;
    let rejected = |held: &Held| Rejected { id: held.id, reason: shortened(&held.reason) };
    Report {
        pass: of_pass(ended, None),
        systems: site
            .systems
            .iter()
            .map(|(name, terabyte)| system(name, *terabyte, unreadable(&survey, name)))
            .collect(),
        resources,
        trash,
        rejected: survey.held.iter().map(rejected).collect(),
        ..empty(site, ended.at)
    }
}

/// Why a system cannot be read: the error that all of its resources share.
fn unreadable(survey: &Survey, system: &str) -> Option<String> {
    let mut errors =
        survey.cases.iter().filter(|case| case.resource.system == system).map(|case| case.observed.as_ref().err());
    let first = errors.next()??;
    errors.all(|error| error.is_some_and(|error| Arc::ptr_eq(error, first))).then(|| shortened(&error_chain(&**first)))
}

fn reported_task(
    task: &plan::Task,
    pass: &pass::Report,
    terabyte: limits::Terabyte,
    since: Option<OffsetDateTime>,
) -> Task {
    let error = pass.failed.get(&task.id);
    let state = match error {
        Some(_) => TaskState::Failed,
        None if pass.ended.contains(&task.id) => TaskState::Done,
        None => TaskState::Due,
    };
    let mut changes: Vec<_> = task.changes.iter().map(|difference| change(difference, terabyte)).collect();
    let made = task.steps.iter().find_map(|step| match step {
        plan::Step::Ensure(desired) if changes.is_empty() => Some(desired.describe(terabyte)),
        _ => None,
    });
    changes.extend(made.map(|new| Change { what: "directory".to_owned(), old: String::new(), new: shortened(&new) }));
    Task {
        action: task.action.name().to_owned(),
        why: shortened(&task.why),
        state,
        steps: task.steps.iter().map(|step| shortened(&journal::step_text(step))).collect(),
        changes,
        since,
        error: error.map(|error| shortened(error)),
    }
}

fn reported_hold(held: &Held, case: &Case, terabyte: limits::Terabyte, since: Option<OffsetDateTime>) -> Hold {
    let kind = match held.hold {
        plan::Hold::Waiting => HoldKind::Waiting,
        plan::Hold::Fault => HoldKind::Fault,
        plan::Hold::Drift => HoldKind::Drift,
        plan::Hold::Conflict => HoldKind::Conflict,
        plan::Hold::Refused => HoldKind::Refused,
        plan::Hold::Asks => HoldKind::Asks,
        plan::Hold::Declined => HoldKind::Declined,
    };
    let mut changes: Vec<_> = held.changes.iter().map(|difference| change(difference, terabyte)).collect();
    if kind == HoldKind::Asks {
        changes.extend(change_to_confirm(case, terabyte));
    }
    Hold { kind, turn: held.turn, reason: shortened(&held.reason), changes, since, commands: commands(held, case) }
}

/// The commands with which an operator can resolve a hold.
fn commands(held: &Held, case: &Case) -> Vec<String> {
    let Resource { id, path, order, status, .. } = &case.resource;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    // A path that a shell would change is not given, nor one that could be a terminated resource's.
    let name = if path.chars().all(is_plain) && *status != Status::Removed { path.clone() } else { id.to_string() };
    let restores = order.as_ref().is_some_and(|order| order.kind == OrderKind::Restore);
    let impossible = case.desired.as_ref().is_err_and(|obstacle| obstacle.kind == ObstacleKind::Impossible);
    let arguments = match (held.hold, &case.observed) {
        // The file ensures that nothing is done that was not reviewed.
        (plan::Hold::Asks, _) => {
            return ["plan --out plan.json", "apply plan.json --yes-to-many"].map(command).to_vec();
        }
        // Unlike the loop, a command retries at once.
        (plan::Hold::Declined, _) => "apply".to_owned(),
        (plan::Hold::Drift, Ok(Found::Absent)) => format!("restore {name} --make"),
        (plan::Hold::Conflict, Ok(Found::Unmarked(_))) => format!("adopt {name}"),
        (plan::Hold::Conflict, Ok(Found::Ours(_))) if *status == Status::Removed => format!("retire {name}"),
        (plan::Hold::Conflict, Ok(Found::Absent)) if restores => {
            format!("reject {name} --reason 'The directory is lost: please order a new one' --yes")
        }
        (plan::Hold::Refused, _) if impossible && order.is_some() => {
            format!("reject {name} --reason 'The order asks for something impossible' --yes")
        }
        _ => return Vec::new(),
    };
    vec![command(&arguments)]
}

fn command(arguments: &str) -> String {
    format!("hpc-storage-provisioner {arguments}")
}

/// What a confirmation would do to a directory as a whole.
fn change_to_confirm(case: &Case, terabyte: limits::Terabyte) -> Option<Change> {
    let Resource { status, order, .. } = &case.resource;
    let is_removal = matches!(status, Status::Removing | Status::Removed)
        || order.as_ref().is_some_and(|order| order.kind == OrderKind::Terminate);
    let (old, new) = match (&case.observed, &case.desired) {
        (Ok(Found::Ours(_)), _) if is_removal => ("in place", "in the trash".to_owned()),
        (Ok(Found::Absent), Ok(desired)) if !is_removal => ("", desired.describe(terabyte)),
        _ => return None,
    };
    Some(Change { what: "directory".to_owned(), old: old.to_owned(), new: shortened(&new) })
}

fn change(difference: &Difference, terabyte: limits::Terabyte) -> Change {
    let (old, new) = match difference {
        Difference::Quota { old, new } => {
            (old.map_or(String::new(), |old| old.describe(terabyte)), new.describe(terabyte))
        }
        Difference::Mode { old, new } => (format!("{:o}", old.0), format!("{:o}", new.0)),
        Difference::Owner { old, new } | Difference::Acl { old, new } => (old.clone(), new.clone()),
        Difference::Project { old, new } => (old.to_string(), new.to_string()),
    };
    Change { what: difference.name().to_owned(), old: shortened(&old), new: shortened(&new) }
}

fn observation(case: &Case) -> (Observed, String) {
    // A resource with an obstacle is not observed.
    if case.desired.is_err() && matches!(case.observed, Ok(Found::Absent)) {
        return (Observed::Unknown, String::new());
    }
    match &case.observed {
        Err(error) => (Observed::Unknown, error_chain(&**error)),
        Ok(Found::Absent) => (Observed::Absent, String::new()),
        Ok(Found::Ours(present)) => {
            (Observed::Present, format!("mode {:o}, owner {}:{}", present.mode.0, present.uid, present.gid))
        }
        Ok(Found::Unmarked(present)) => {
            (Observed::Unmarked, format!("mode {:o}, owner {}:{}", present.mode.0, present.uid, present.gid))
        }
        Ok(Found::Obstructed(what)) => (Observed::Obstructed, what.clone()),
        Ok(Found::Trashed { .. }) => (Observed::Trashed, String::new()),
        Ok(Found::Purging { .. }) => (Observed::Purging, String::new()),
    }
}

fn reported_event((at, event): &(String, journal::Event)) -> Option<Event> {
    let at = OffsetDateTime::parse(at, &Rfc3339).ok()?;
    Some(Event { at, text: shortened(&event.to_string()) })
}

fn amount(space: limits::Bytes, inodes: limits::Inodes) -> Amount {
    Amount { bytes: space.0, inodes: inodes.0 }
}

fn timestamp(seconds: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

/// The text without control characters, which the proxy rejects in a path.
fn plain(text: &str) -> String {
    shortened(&text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>())
}

#[cfg(test)]
mod tests;
