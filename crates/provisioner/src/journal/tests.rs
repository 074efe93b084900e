use std::fs;
use std::time::{Duration, SystemTime};

use super::past as past_in;
use super::*;

/// A journal in a temporary directory.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn open(&self) -> Journal {
        Journal::open(&self.path(), &clock()).unwrap()
    }

    /// Opens the journal and moves it aside.
    fn open_large(&self, clock: &Clock) -> Result<Journal, JournalError> {
        Journal::open_with_limit(&self.path(), clock, 100)
    }
}

fn clock() -> Clock {
    Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(500_000))
}

fn begun() -> Begun {
    let (system, path, by, why) = ("capstor".into(), "/a".into(), "run".into(), "test".into());
    Begun { system, path, token: 1, by, why, ..Begun::default() }
}

fn lines(journal: &Journal) -> u64 {
    journal.tail().contents.last
}

#[test]
fn unfinished_work_is_known_after_a_restart() {
    let folder = Folder::new();
    let [a, b] = [1, 2].map(Uuid::from_u128);
    let journal = folder.open();
    for (resource, event) in [(a, Event::Begun(begun())), (b, Event::Begun(begun())), (a, Event::Ended)] {
        journal.write(Some(resource), event).unwrap();
    }
    drop(journal);
    let journal = folder.open();
    let pasts = [journal.past(), past_in(&folder.path(), &clock()).unwrap()];
    assert_eq!(pasts.map(|past| past.unfinished), [[b].into(), [b].into()]);
    assert_eq!((lines(&journal), history(&folder.path(), a).unwrap().len()), (3, 2));
}

#[test]
fn an_interrupted_rejection_is_not_unfinished_work() {
    let folder = Folder::new();
    let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
    let begin = |step: &Step| Event::Begun(Begun { steps: vec![step_text(step)], ..begun() });
    let journal = folder.open();
    journal.write(Some(a), begin(&Step::Erred("no quota".into()))).unwrap();
    journal.write(Some(b), begin(&Step::Reject("no quota".into()))).unwrap();
    journal.write(Some(c), Event::Begun(begun())).unwrap();
    journal.write(Some(c), begin(&Step::Erred("no quota".into()))).unwrap();
    let pasts = [journal.past(), past_in(&folder.path(), &clock()).unwrap()];
    assert_eq!(pasts.map(|past| past.unfinished), [[c].into(), [c].into()]);
}

#[test]
fn an_interrupted_adoption_is_not_unfinished_work() {
    let folder = Folder::new();
    let [a, b] = [1, 2].map(Uuid::from_u128);
    let journal = folder.open();
    for (resource, by) in [(a, "adopt by user 0"), (b, "restore by user 0")] {
        journal.write(Some(resource), Event::Begun(Begun { by: by.into(), ..begun() })).unwrap();
    }
    assert_eq!(journal.past().unfinished, [b].into());
}

#[test]
fn a_line_cut_off_by_a_crash_is_dropped() {
    let folder = Folder::new();
    let journal = folder.open();
    journal.write(None, Event::Begun(begun())).unwrap();
    journal.write(None, Event::Begun(begun())).unwrap();
    let text = fs::read(folder.path()).unwrap();
    fs::write(folder.path(), &text[..text.len() - 20]).unwrap();
    let journal = folder.open();
    assert_eq!(lines(&journal), 1);
    journal.write(None, Event::Ended).unwrap();
    assert_eq!(lines(&folder.open()), 2);
}

#[test]
fn unreadable_and_missing_lines_are_detected() {
    let folder = Folder::new();
    let journal = folder.open();
    for _ in 0..3 {
        journal.write(None, Event::Begun(begun())).unwrap();
    }
    let text = fs::read_to_string(folder.path()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let unreadable = format!("{}\n{}\n{}\n", lines[0], &lines[1][1..], lines[2]);
    let without_second = format!("{}\n{}\n", lines[0], lines[2]);
    for broken in [unreadable, without_second] {
        fs::write(folder.path(), broken).unwrap();
        let result = Journal::open(&folder.path(), &clock());
        assert!(matches!(result, Err(JournalError::Broken { line: 2, .. })), "{result:?}");
    }
}

#[test]
fn a_line_with_the_highest_number_is_an_error() {
    let folder = Folder::new();
    let line = format!(
        r#"{{"seq":{},"time":"2026-11-28T15:49:03Z","event":"continues","after":"journal","begun":[],"lately":[]}}"#,
        u64::MAX
    );
    fs::write(folder.path(), line + "\n").unwrap();
    let result = Journal::open(&folder.path(), &clock());
    assert!(matches!(result, Err(JournalError::Broken { line: 1, .. })), "{result:?}");
}

/// Recorded with the version that still wrote hashes: two files, with an order that was ended and one that Waldur
/// refuses.
#[test]
fn a_journal_with_hashes_is_read_and_continued() {
    const OLD: &str = include_str!("../../tests/recorded/journal-with-hashes/journal-000000000012");
    const NEW: &str = include_str!("../../tests/recorded/journal-with-hashes/journal");
    let folder = Folder::new();
    fs::write(folder.0.path().join("journal-000000000012"), OLD).unwrap();
    fs::write(folder.path(), NEW).unwrap();
    let id = |n: u128| Uuid::from_u128(0x5c1f_3a00_7b44_4d0e_9a55_0000_0000_0000 + n);
    let clock = Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(497_250));
    assert_eq!(Journal::check(&folder.path()).unwrap(), (1, 16));
    let journal = Journal::open(&folder.path(), &clock).unwrap();
    let past = journal.past();
    assert_eq!(past.unfinished, [id(2), id(4)].into(), "neither the ended one nor the adoption");
    assert!(past.last_order(id(1)).is_some_and(|last| last.order == id(101) && last.sent && last.refused.is_none()));
    let refused = past.last_order(id(2)).and_then(|last| last.refused.clone()).unwrap();
    assert_eq!((&*refused.call, &*refused.reason), ("approve_by_provider", "Project 'x' is expired."));
    assert_eq!(history(&folder.path(), id(1)).unwrap().len(), 7);
    // The first file alone, before it was moved aside.
    let alone = Folder::new();
    fs::write(alone.path(), OLD).unwrap();
    assert_eq!(past_in(&alone.path(), &clock).unwrap().last_order(id(1)), past.last_order(id(1)));
    let removals = Journal::open(&alone.path(), &Clock::from_fn(|| SystemTime::UNIX_EPOCH)).unwrap().past().lately();
    assert_eq!(removals[&("capstor".to_owned(), Mass::Removal)], [id(2)].into());
    journal.write(Some(id(2)), Event::Ended).unwrap();
    let journal = folder.open_large(&clock).unwrap();
    assert_eq!(journal.past().unfinished, [id(4)].into());
    assert_eq!(Journal::check(&folder.path()).unwrap(), (1, 18));
    assert!(!fs::read_to_string(folder.path()).unwrap().contains("\"prev\""));
}

#[test]
fn a_large_journal_continues_in_a_new_file() {
    let folder = Folder::new();
    let [a, b] = [1, 2].map(Uuid::from_u128);
    let journal = folder.open();
    let removal = Begun { unconfirmed: Some(Mass::Removal), ..begun() };
    for (resource, event) in [(a, Event::Begun(begun())), (a, Event::Ended), (b, Event::Begun(removal))] {
        journal.write(Some(resource), event).unwrap();
    }
    let past = journal.past();
    assert_eq!(past.lately()[&("capstor".to_owned(), Mass::Removal)], [b].into());
    drop(journal);
    for round in 1..=3 {
        let journal = folder.open_large(&clock()).unwrap();
        assert_eq!((journal.past(), lines(&journal)), (past.clone(), 3 + round));
    }
    let names = || {
        let names =
            fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>()
    };
    let aside = |n| format!("journal-{n:012}");
    assert_eq!(names(), ["journal".into(), aside(3), aside(4), aside(5)].into());
    folder.open().write(Some(b), Event::Ended).unwrap();
    assert_eq!(Journal::check(&folder.path()).unwrap(), (1, 7));
    assert_eq!(history(&folder.path(), b).unwrap().len(), 2);
    // The oldest file may be removed; a gap, or damage to a file that was moved aside, is detected.
    fs::remove_file(folder.0.path().join(aside(3))).unwrap();
    assert_eq!(Journal::check(&folder.path()).unwrap(), (4, 7));
    let file = folder.0.path().join(aside(4));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"seq\"", "seq")).unwrap();
    assert!(matches!(Journal::check(&folder.path()), Err(JournalError::Broken { line: 1, .. })));
    fs::write(&file, text).unwrap();
    fs::remove_file(folder.0.path().join(aside(5))).unwrap();
    assert!(matches!(Journal::check(&folder.path()), Err(JournalError::Broken { .. })));
}

#[test]
fn a_crash_while_a_large_journal_is_moved_aside_is_repaired_by_the_next_start() {
    let folder = Folder::new();
    folder.open().write(Some(Uuid::from_u128(1)), Event::Begun(begun())).unwrap();
    // Linked, and half of the new one written.
    fs::hard_link(folder.path(), folder.0.path().join("journal-000000000001")).unwrap();
    fs::write(folder.path().with_extension("new"), "{\"seq\":").unwrap();
    let journal = folder.open_large(&clock()).unwrap();
    assert_eq!((lines(&journal), journal.past().unfinished.len()), (2, 1));
    assert_eq!(Journal::check(&folder.path()).unwrap(), (1, 2));
    // Another file with that name is never overwritten.
    fs::write(folder.0.path().join("journal-000000000002"), "kept").unwrap();
    assert!(matches!(folder.open_large(&clock()), Err(JournalError::Io { verb: "moved aside", .. })));
    assert_eq!(lines(&folder.open()), 2);
}

#[test]
fn unconfirmed_work_counts_for_a_day() {
    let folder = Folder::new();
    let refusal = Begun { unconfirmed: Some(Mass::Refusal), ..begun() };
    folder.open().write(Some(Uuid::from_u128(1)), Event::Begun(refusal)).unwrap();
    let after = |hours: u64| {
        let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_hours(500_000 + hours));
        past_in(&folder.path(), &clock).unwrap().lately().len()
    };
    assert_eq!([after(0), after(24), after(25)], [1, 1, 0]);
    let earlier = Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(499_000));
    assert_eq!(past_in(&folder.path(), &earlier).unwrap().lately().len(), 1, "the clock was set back");
}

#[test]
fn work_from_the_future_counts_until_a_day_after_the_clock_was_set_back() {
    let folder = Folder::new();
    let at = |hours: u64| Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_hours(500_000 + hours));
    let refusal = || Event::Begun(Begun { unconfirmed: Some(Mass::Refusal), ..begun() });
    let count =
        |hours| past_in(&folder.path(), &at(hours)).unwrap().lately().values().map(BTreeSet::len).sum::<usize>();
    // Written while the clock was 10 years ahead.
    let journal = Journal::open(&folder.path(), &at(10 * 365 * 24)).unwrap();
    journal.write(Some(Uuid::from_u128(1)), refusal()).unwrap();
    drop(journal);
    assert_eq!(count(1000), 1, "the journal does not show that the clock is right again");
    Journal::open(&folder.path(), &at(0)).unwrap().heartbeat().unwrap();
    assert_eq!([0, 24, 25].map(count), [1, 1, 0]);
    // A clock that is wrong for a moment removes nothing.
    Journal::open(&folder.path(), &at(0)).unwrap().write(Some(Uuid::from_u128(2)), refusal()).unwrap();
    Journal::open(&folder.path(), &Clock::from_fn(|| SystemTime::UNIX_EPOCH)).unwrap().heartbeat().unwrap();
    assert_eq!([1, 24, 25].map(count), [2, 2, 0]);
}

#[test]
fn refusals_of_waldur_are_remembered_across_restarts_and_files() {
    let folder = Folder::new();
    let [resource, order] = [1, 2].map(Uuid::from_u128);
    let begun = Event::Begun(Begun { order: Some(order), kind: Some(OrderKind::Terminate), ..begun() });
    let call = |outcome: &str, refused| Event::Callback {
        call: "approve_by_provider".into(),
        outcome: outcome.into(),
        refused,
        denied: false,
    };
    let journal = folder.open();
    for event in [begun.clone(), call("sent", false), call("Project 'x' is expired.", true)] {
        journal.write(Some(resource), event).unwrap();
    }
    drop(journal);
    let after = |minutes: u64| Clock::from_fn(move || clock().now() + Duration::from_mins(minutes));
    let refused = |past: &Past| {
        let refused = past.last_order(resource).and_then(|last| last.refused.clone());
        refused.map(|refused| (refused.times, refused.backs_off, refused.reason))
    };
    let once = |backs_off| Some((1, backs_off, "Project 'x' is expired.".to_owned()));
    assert_eq!(refused(&Journal::open(&folder.path(), &after(4)).unwrap().past()), once(true));
    assert_eq!(refused(&Journal::open(&folder.path(), &after(5)).unwrap().past()), once(false));
    let journal = folder.open_large(&after(5)).unwrap();
    assert_eq!(refused(&journal.past()), once(false));
    for event in [begun, call("sent", false), call("Project 'x' is expired.", true)] {
        journal.write(Some(resource), event).unwrap();
    }
    assert_eq!(refused(&journal.past()).map(|(times, backs_off, _)| (times, backs_off)), Some((2, true)));
    journal.write(Some(resource), call("accepted", false)).unwrap();
    assert_eq!(refused(&journal.past()), None);
    let week = past_in(&folder.path(), &after(8 * 24 * 60)).unwrap();
    assert!(week.last_order(resource).is_none(), "orders of long ago are forgotten");
}
