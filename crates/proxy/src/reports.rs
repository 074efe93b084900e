//! The newest report of each provisioner, for the pages for operators. The proxy never acts on a report.

pub(crate) mod shared;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use provisioner_report::{Amount, InvalidReport, MAX_BYTES, Report};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{Notify, Semaphore};
use tracing::info;
use uuid::Uuid;

use crate::shared_cache::pack;
use program::{Clock, lock};

/// Maximum number of provisioners.
const MAX_PROVISIONERS: usize = 32;
/// Maximum size of all reports together, in bytes as JSON.
const MAX_TOTAL: usize = 4 * MAX_BYTES;
/// A provisioner that has sent nothing for this long makes room for a new one.
const REPLACEABLE_AFTER: Duration = Duration::from_hours(24);
/// A provisioner that has sent nothing for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(7 * 24);
/// How far `reportedAt` may be in the future: clocks differ.
const MAX_AHEAD: Duration = Duration::from_mins(5);
/// Maximum number of samples of a provisioner.
const MAX_SAMPLES: usize = 24;
/// Minimum interval of samples.
const SAMPLE_INTERVAL: Duration = Duration::from_hours(1);
/// Maximum number of reports that are received at the same time: each can need some hundred MB until it is parsed.
const MAX_RECEIVING: usize = 2;

/// The newest report of a provisioner.
#[derive(Debug, Clone)]
pub struct Received {
    /// Name of the provisioner.
    pub name: String,
    /// When it arrived, by the clock of the replica that received it. In whole microseconds.
    pub received_at: OffsetDateTime,
    pub report: Report,
    /// Usage at earlier times and, at most an hour ago, now; oldest first. At most 24, at least an hour apart.
    pub samples: Vec<Arc<Sample>>,
}

impl Received {
    /// Whether the next report should have arrived by now.
    pub fn is_silent(&self, now: OffsetDateTime) -> bool {
        now - self.received_at > time::Duration::seconds(self.report.next_within_seconds.into())
    }

    fn is_older_than(&self, age: Duration, now: OffsetDateTime) -> bool {
        now - self.received_at > age
    }
}

/// The newest report of a provisioner, as it is kept.
#[derive(Debug)]
struct Entry {
    received: Arc<Received>,
    /// Its JSON, compressed: other replicas may know keys that this one does not.
    packed: Arc<[u8]>,
    /// Size of the JSON in bytes.
    bytes: usize,
}

/// The usage of all resources of a provisioner at one time.
#[derive(Debug, PartialEq)]
pub struct Sample {
    pub at: OffsetDateTime,
    /// Only resources whose usage is known.
    pub usage: HashMap<Uuid, Amount>,
}

/// Why a report is not kept.
#[derive(Debug, Error)]
pub(crate) enum Rejected {
    #[error(transparent)]
    Invalid(#[from] InvalidReport),
    #[error("reportedAt is {reported_at}, but it is {now}: set the clock of the provisioner's host")]
    Future { reported_at: OffsetDateTime, now: OffsetDateTime },
    #[error(
        "a report of this provisioner from {kept} is known, and this one is from {reported_at}: give each provisioner a name of \
         its own, and set the clocks of their hosts"
    )]
    Older { reported_at: OffsetDateTime, kept: OffsetDateTime },
    #[error(
        "{MAX_PROVISIONERS} provisioners have sent reports, and each of them within the last day; use a name that is known, or \
         wait for a day after one of them has stopped"
    )]
    TooMany,
    #[error("the reports of all provisioners together would be larger than {MAX_TOTAL} bytes; send a smaller one")]
    TooLarge,
}

/// The newest reports of all provisioners.
#[derive(Debug)]
pub struct Reports {
    kept: Mutex<Kept>,
    /// Limits how many reports are received at the same time.
    pub(crate) receiving: Arc<Semaphore>,
    /// Notified of each report that arrives.
    arrived: Notify,
    clock: Clock,
}

/// The reports by name.
type Kept = BTreeMap<String, Entry>;

impl Reports {
    pub(crate) fn new(clock: Clock) -> Self {
        let receiving = Arc::new(Semaphore::new(MAX_RECEIVING));
        Self { kept: Mutex::default(), receiving, arrived: Notify::new(), clock }
    }

    /// The newest report of each provisioner, by name.
    pub fn all(&self) -> Vec<Arc<Received>> {
        self.lock().values().map(|entry| Arc::clone(&entry.received)).collect()
    }

    /// The time by the clock with which reports are received, in whole microseconds.
    pub(crate) fn now(&self) -> OffsetDateTime {
        let now: OffsetDateTime = self.clock.now().into();
        now.truncate_to_microsecond()
    }

    /// Parses and keeps a report.
    pub(crate) fn take(&self, name: &str, json: &[u8]) -> Result<(), Rejected> {
        let report = Report::parse(json)?;
        let now = self.now();
        if report.reported_at - now > MAX_AHEAD {
            return Err(Rejected::Future { reported_at: report.reported_at, now });
        }
        // Fails only without memory. The report is then not shared.
        let packed = pack(json).unwrap_or_default().into();
        let mut kept = self.lock();
        let samples = samples(kept.get(name).map(|before| &*before.received), &report, now);
        let received = Received { name: name.to_owned(), received_at: now, report, samples };
        let replaced = keep(&mut kept, Entry { received: Arc::new(received), packed, bytes: json.len() }, now)?;
        drop(kept);
        // Takes a while for a large one.
        drop(replaced);
        self.arrived.notify_one();
        Ok(())
    }

    /// The reports without those of forgotten provisioners.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        let now = self.now();
        let mut kept = lock(&self.kept);
        kept.retain(|_, entry| !entry.received.is_older_than(FORGOTTEN_AFTER, now));
        kept
    }
}

/// Keeps a report; returns the one that it replaces.
fn keep(kept: &mut Kept, entry: Entry, now: OffsetDateTime) -> Result<Option<Entry>, Rejected> {
    let name = &entry.received.name;
    let before = kept.get(name);
    if let Some(before) = before
        && entry.received.report.reported_at < before.received.report.reported_at
    {
        let (reported_at, kept) = (entry.received.report.reported_at, before.received.report.reported_at);
        return Err(Rejected::Older { reported_at, kept });
    }
    let longest_silent = kept.values().map(|entry| &entry.received).min_by_key(|received| received.received_at);
    let replaceable = match longest_silent {
        Some(silent) if before.is_none() && kept.len() >= MAX_PROVISIONERS => {
            if !silent.is_older_than(REPLACEABLE_AFTER, now) {
                return Err(Rejected::TooMany);
            }
            Some(silent.name.clone())
        }
        _ => None,
    };
    let others: usize = kept.iter().filter(|(other, _)| *other != name).map(|(_, entry)| entry.bytes).sum();
    if others + entry.bytes > MAX_TOTAL {
        return Err(Rejected::TooLarge);
    }
    if let Some(silent) = replaceable {
        info!(provisioner = silent, "forgetting a provisioner that is silent, because a new one sends reports");
        kept.remove(&silent);
    }
    Ok(kept.insert(name.clone(), entry))
}

/// The samples before, and that of this report if it is time for one.
fn samples(before: Option<&Received>, report: &Report, now: OffsetDateTime) -> Vec<Arc<Sample>> {
    let mut samples = before.map(|before| before.samples.clone()).unwrap_or_default();
    // After a failed pass, the report repeats the usage of an earlier one.
    let is_due = samples.last().is_none_or(|last| now - last.at >= SAMPLE_INTERVAL) && report.pass.error.is_none();
    if is_due {
        let usage: HashMap<_, _> = report.resources.iter().filter_map(|it| Some((it.id, it.usage?))).collect();
        if !usage.is_empty() {
            samples.push(Arc::new(Sample { at: now, usage }));
        }
    }
    let surplus = samples.len().saturating_sub(MAX_SAMPLES);
    samples.drain(..surplus);
    samples
}

#[cfg(test)]
mod tests;
