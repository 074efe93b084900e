//! What replicas share of a provisioner: its report and its samples.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use provisioner_report::{Amount, is_valid_name};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::{MAX_SAMPLES, Received, SAMPLE_INTERVAL, Sample};
use crate::shared_cache::{pack, unpack};

/// Follows the name of the provisioner in the field with its samples. No name contains a space.
const SAMPLES: &str = " samples";
/// Size limit of samples in bytes, uncompressed: all of 100,000 resources.
const MAX_BYTES: u64 = 256 << 20;

/// A field on the server. Reports sort before samples.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Item {
    /// The report of this provisioner.
    Report(String),
    /// The samples of this provisioner.
    Samples(String),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(name) => f.write_str(name),
            Self::Samples(name) => write!(f, "{name}{SAMPLES}"),
        }
    }
}

impl Item {
    pub(super) fn parse(field: &[u8]) -> Option<Self> {
        let field = str::from_utf8(field).ok()?;
        let (name, item): (_, fn(String) -> Self) = match field.strip_suffix(SAMPLES) {
            Some(name) => (name, Self::Samples),
            None => (field, Self::Report),
        };
        is_valid_name(name).then(|| item(name.to_owned()))
    }

    pub(super) fn provisioner(&self) -> &str {
        match self {
            Self::Report(name) | Self::Samples(name) => name,
        }
    }

    /// The stamp of what is kept; `None` if there are no samples.
    pub(super) fn stamp(&self, received: &Received) -> Option<Stamp> {
        match self {
            Self::Report(_) => Some(Stamp::of(received)),
            Self::Samples(_) => {
                let last = received.samples.last()?;
                Some(Stamp(micros(last.at), received.samples.len() as u64))
            }
        }
    }
}

/// Which of two values is newer: for a report, when it was made and when it arrived, in microseconds since 1970; for samples,
/// the time of the last one and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64, u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Stamp {
    /// The stamp of a report.
    pub(super) fn of(received: &Received) -> Self {
        Self(micros(received.report.reported_at), micros(received.received_at))
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (first, second) = str::from_utf8(text).ok()?.split_once('.')?;
        let stamp = Self(first.parse().ok()?, second.parse().ok()?);
        // Exactly as it is written, since it is compared as text.
        (stamp.to_string().as_bytes() == text).then_some(stamp)
    }

    /// Whether one of its times is after this one. A number of samples never is.
    pub(super) fn is_after(self, time: OffsetDateTime) -> bool {
        self.0.max(self.1) > micros(time)
    }

    /// When a report arrived.
    pub(super) fn received_at(self) -> OffsetDateTime {
        time_at(self.1)
    }
}

/// Microseconds since 1970; 0 for earlier times.
fn micros(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(0)
}

/// The time after this many microseconds since 1970; 1970 for times that cannot be represented.
fn time_at(micros: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Samples as they are published: by resource, because most values hardly change, and so compress well.
#[derive(Serialize, Deserialize)]
struct Packed {
    /// The times in microseconds since 1970.
    at: Vec<u64>,
    /// The usage of each resource at these times; as many values as times.
    usage: BTreeMap<Uuid, Vec<Option<(u64, u64)>>>,
}

/// Packs samples.
pub(super) fn pack_samples(samples: &[Arc<Sample>]) -> Option<Vec<u8>> {
    let mut usage: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, sample) in samples.iter().enumerate() {
        for (id, amount) in &sample.usage {
            usage.entry(*id).or_insert_with(|| vec![None; samples.len()])[number] = Some((amount.bytes, amount.inodes));
        }
    }
    let packed = Packed { at: samples.iter().map(|sample| micros(sample.at)).collect(), usage };
    pack(&serde_json::to_vec(&packed).ok()?).ok()
}

/// The samples, oldest first; `None` if they are not valid.
pub(super) fn unpack_samples(packed: &[u8]) -> Option<Vec<Arc<Sample>>> {
    let Packed { at, usage } = serde_json::from_slice(&unpack(packed, MAX_BYTES).ok()?).ok()?;
    if at.len() > MAX_SAMPLES || usage.values().any(|amounts| amounts.len() != at.len()) {
        return None;
    }
    let sample = |(number, at): (usize, u64)| {
        let amount = |(bytes, inodes)| Amount { bytes, inodes };
        let usage: HashMap<_, _> =
            usage.iter().filter_map(|(id, amounts)| Some((*id, amounts[number].map(amount)?))).collect();
        Arc::new(Sample { at: time_at(at), usage })
    };
    Some(at.into_iter().enumerate().map(sample).collect())
}

/// The samples of two replicas, oldest first: at least an hour apart, and the newest ones if there are too many.
pub(super) fn merge_samples(one: &[Arc<Sample>], other: &[Arc<Sample>]) -> Vec<Arc<Sample>> {
    let mut all: Vec<_> = one.iter().chain(other).map(Arc::clone).collect();
    all.sort_by_key(|sample| sample.at);
    all.dedup_by(|later, earlier| later.at - earlier.at < SAMPLE_INTERVAL);
    let surplus = all.len().saturating_sub(MAX_SAMPLES);
    all.drain(..surplus);
    all
}
