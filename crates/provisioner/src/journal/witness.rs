//! How much time has passed, as far as the journal bears witness to it: a clock that was wrong for a while proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Event, JournalError, Line, files};

/// How many seconds between two lines count at most: [`super::HEARTBEAT`] twice. What is longer is a clock that was set, or
/// a time in which no provisioner ran.
const LONGEST: i64 = 2 * 86_400;

/// The time between the lines of a journal, in seconds.
#[derive(Debug, Default)]
pub struct Witness {
    /// From the first line to the last.
    total: u64,
    /// From the first line to the last about each resource.
    until: BTreeMap<Uuid, u64>,
    /// Time of the last line, in seconds since 1970.
    last: Option<i64>,
    /// Resources about which the last lines are those of a purge.
    purged: BTreeSet<Uuid>,
}

impl Witness {
    /// For how many seconds nothing was done to a resource, as far as the journal shows that; `now` in seconds since 1970.
    pub fn quiet(&self, resource: Uuid, now: u64) -> u64 {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let since_last = self.last.map_or(0, |last| passed(last, now));
        self.total + since_last - self.until.get(&resource).copied().unwrap_or_default()
    }

    /// The time of the last line, in seconds since 1970.
    pub fn last(&self) -> Option<u64> {
        self.last.and_then(|last| u64::try_from(last).ok())
    }

    fn take(&mut self, line: &Line) {
        if let Ok(time) = OffsetDateTime::parse(&line.time, &Rfc3339) {
            let time = time.unix_timestamp();
            self.total += self.last.map_or(0, |last| passed(last, time));
            self.last = Some(time);
        }
        let Some(resource) = line.resource else { return };
        // A purge that was refused or failed does not restart the time in the trash.
        if let Event::Begun { by, .. } = &line.event {
            if by.starts_with("purge ") {
                self.purged.insert(resource);
            } else {
                self.purged.remove(&resource);
            }
        }
        if !self.purged.contains(&resource) {
            self.until.insert(resource, self.total);
        }
    }
}

/// The seconds from one time to another that count.
fn passed(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from).clamp(0, LONGEST)).unwrap_or_default()
}

/// What the journal at this path, with the files that were put aside, shows of the time. Does not prove the chain.
pub fn witness(path: &Path) -> Result<Witness, JournalError> {
    let mut witness = Witness::default();
    for path in files(path)? {
        let unreadable = |source| JournalError::Io { path: path.clone(), verb: "read", source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.map_err(unreadable)?,
        };
        for text in BufReader::new(file).split(b'\n') {
            if let Ok(line) = serde_json::from_slice::<Line>(&text.map_err(unreadable)?) {
                witness.take(&line);
            }
        }
    }
    Ok(witness)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use super::super::Journal;
    use super::*;
    use program::Clock;

    const DAY: u64 = 86_400;
    const NOW: u64 = 1_790_000_000;

    /// Writes a line at each of these times, of which one is about the resource, with a heartbeat for every other.
    fn journal(path: &Path, times: &[(u64, bool)], resource: Uuid) {
        let time = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&time);
        let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
        let journal = Journal::open(path, &clock).unwrap();
        for (at, about) in times {
            time.store(*at, Ordering::Relaxed);
            if *about { journal.write(Some(resource), Event::Ended).unwrap() } else { journal.beat().unwrap() }
        }
    }

    #[test]
    fn days_count_while_the_provisioner_runs_and_a_clock_that_jumps_proves_nothing() {
        let resource = Uuid::from_u128(7);
        let days = |from: u64, count: u64| (1..=count).map(move |day| (from + day * DAY, false));
        let began = (NOW - 100 * DAY, true);
        let steady: Vec<_> = [began].into_iter().chain(days(NOW - 100 * DAY, 100)).collect();
        // Retired 26 years back.
        let back: Vec<_> = [(NOW - DAY, false), (NOW - 26 * 365 * DAY, true), (NOW, false)].into();
        let silent = vec![began];
        for (times, now, quiet) in [
            (&steady, NOW, 100),
            // 100 days forward when purged, and after the heartbeat that was written then.
            (&steady, NOW + 100 * DAY, 102),
            (&[&steady[..], &[(NOW + 100 * DAY, false)]].concat(), NOW + 100 * DAY, 102),
            (&back, NOW, 2),
            (&back, NOW - 26 * 365 * DAY, 2),
            (&silent, NOW, 2),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            journal(&path, times, resource);
            let witness = witness(&path).unwrap();
            assert_eq!(witness.quiet(resource, now) / DAY, quiet, "{times:?} {now}");
        }
    }

    #[test]
    fn without_a_journal_no_time_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let witness = witness(&folder.path().join("journal")).unwrap();
        assert_eq!((witness.quiet(Uuid::from_u128(7), NOW), witness.last()), (0, None));
    }
}
