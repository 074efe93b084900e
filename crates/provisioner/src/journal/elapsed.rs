//! How much time has passed according to the journal. A clock that was wrong for a while is not enough to prove that
//! time has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Event, JournalError, Line, for_each_line};

/// The most seconds that count between two lines: twice [`super::HEARTBEAT`]. A longer gap means that the clock was
/// set, or that no provisioner was running.
const LONGEST: i64 = 2 * 86_400;

/// Sums of the time between the lines of a journal, in seconds.
#[derive(Debug, Default)]
pub struct Elapsed {
    /// From the first line to the last.
    total: u64,
    /// From the first line to the last one about each resource.
    until: BTreeMap<Uuid, u64>,
    /// Time of the last line, in seconds since 1970.
    last: Option<i64>,
    /// Resources whose last lines are those of a purge.
    purged: BTreeSet<Uuid>,
}

impl Elapsed {
    /// How many seconds ago a resource was last changed; `now` in seconds since 1970.
    pub fn since_change(&self, resource: Uuid, now: u64) -> u64 {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let since_last = self.last.map_or(0, |last| counted(last, now));
        self.total + since_last - self.until.get(&resource).copied().unwrap_or_default()
    }

    /// The time of the last line, in seconds since 1970.
    pub fn last(&self) -> Option<u64> {
        self.last.and_then(|last| u64::try_from(last).ok())
    }

    fn take(&mut self, line: &Line) {
        if let Ok(time) = OffsetDateTime::parse(&line.time, &Rfc3339) {
            let time = time.unix_timestamp();
            self.total += self.last.map_or(0, |last| counted(last, time));
            self.last = Some(time);
        }
        let Some(resource) = line.resource else { return };
        // A purge that was refused or failed does not restart the time in the trash.
        if let Event::Begun(begun) = &line.event {
            if begun.by.starts_with("purge ") {
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

/// The seconds between two times that count.
fn counted(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from).clamp(0, LONGEST)).unwrap_or_default()
}

/// Reads all files of the journal. Ignores lines that cannot be parsed.
pub fn elapsed(path: &Path) -> Result<Elapsed, JournalError> {
    let mut elapsed = Elapsed::default();
    for_each_line(path, |line| elapsed.take(&line))?;
    Ok(elapsed)
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

    /// Writes a line about the resource (`true`) or a heartbeat at each of these times.
    fn journal(path: &Path, times: &[(u64, bool)], resource: Uuid) {
        let time = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&time);
        let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
        let journal = Journal::open(path, &clock).unwrap();
        for (at, about) in times {
            time.store(*at, Ordering::Relaxed);
            if *about { journal.write(Some(resource), Event::Ended).unwrap() } else { journal.heartbeat().unwrap() }
        }
    }

    #[test]
    fn days_count_while_the_provisioner_runs_and_jumps_of_the_clock_do_not() {
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
            let elapsed = elapsed(&path).unwrap();
            assert_eq!(elapsed.since_change(resource, now) / DAY, quiet, "{times:?} {now}");
        }
    }

    #[test]
    fn without_a_journal_no_time_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let elapsed = elapsed(&folder.path().join("journal")).unwrap();
        assert_eq!((elapsed.since_change(Uuid::from_u128(7), NOW), elapsed.last()), (0, None));
    }
}
