use std::fs;
use std::time::{Duration, SystemTime};

use super::past as past_in;
use super::*;

fn clock() -> Clock {
    Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(500_000))
}

fn begun() -> Event {
    begun_as(None)
}

fn begun_as(unasked: Option<Mass>) -> Event {
    let (system, path, by, why) = ("capstor".into(), "/a".into(), "run".into(), "test".into());
    Event::Begun { system, path, token: 1, by, order: None, kind: None, steps: vec![], why, unasked }
}

#[test]
fn what_was_begun_and_not_ended_is_known_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let [a, b] = [1, 2].map(Uuid::from_u128);
    let journal = Journal::open(&path, &clock()).unwrap();
    for (resource, event) in [(a, begun()), (b, begun()), (a, Event::Ended)] {
        journal.write(Some(resource), event).unwrap();
    }
    drop(journal);
    let journal = Journal::open(&path, &clock()).unwrap();
    let pasts = [journal.past(), past_in(&path, &clock()).unwrap()];
    assert_eq!(pasts.map(|past| past.begun), [[b].into(), [b].into()]);
    assert_eq!((journal.lines(), story(&path, a).unwrap().len()), (3, 2));
}

#[test]
fn a_refusal_that_was_broken_off_is_no_work_that_was_begun() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
    let refusing = |step: &Step| {
        let Event::Begun { system, path, token, by, order, kind, why, unasked, .. } = begun() else { panic!() };
        Event::Begun { system, path, token, by, order, kind, steps: vec![name(step)], why, unasked }
    };
    let journal = Journal::open(&path, &clock()).unwrap();
    journal.write(Some(a), refusing(&Step::Erred("no quota".into()))).unwrap();
    journal.write(Some(b), refusing(&Step::Reject("no quota".into()))).unwrap();
    journal.write(Some(c), begun()).unwrap();
    journal.write(Some(c), refusing(&Step::Erred("no quota".into()))).unwrap();
    let pasts = [journal.past(), past_in(&path, &clock()).unwrap()];
    assert_eq!(pasts.map(|past| past.begun), [[c].into(), [c].into()]);
}

#[test]
fn an_adoption_that_was_broken_off_leaves_nothing_to_be_brought_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let [a, b] = [1, 2].map(Uuid::from_u128);
    let by = |who: &str| {
        let Event::Begun { system, path, token, order, kind, steps, why, unasked, .. } = begun() else { panic!() };
        Event::Begun { system, path, token, by: who.into(), order, kind, steps, why, unasked }
    };
    let journal = Journal::open(&path, &clock()).unwrap();
    journal.write(Some(a), by("adopt by user 0")).unwrap();
    journal.write(Some(b), by("restore by user 0")).unwrap();
    assert_eq!(journal.past().begun, [b].into());
}

#[test]
fn a_line_cut_off_by_a_crash_is_dropped_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, &clock()).unwrap();
    journal.write(None, begun()).unwrap();
    journal.write(None, begun()).unwrap();
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 20]).unwrap();
    let journal = Journal::open(&path, &clock()).unwrap();
    assert_eq!(journal.lines(), 1);
    journal.write(None, Event::Ended).unwrap();
    assert_eq!(Journal::open(&path, &clock()).unwrap().lines(), 2);
}

#[test]
fn a_changed_line_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, &clock()).unwrap();
    for _ in 0..3 {
        journal.write(None, begun()).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let changed = text.replacen("test", "text", 1);
    let without_second = format!("{}\n{}\n", lines[0], lines[2]);
    for odd in [changed, without_second] {
        fs::write(&path, odd).unwrap();
        assert!(matches!(Journal::open(&path, &clock()), Err(JournalError::Broken { .. })));
    }
}

#[test]
fn a_large_journal_goes_on_in_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let [a, b] = [1, 2].map(Uuid::from_u128);
    let journal = Journal::open(&path, &clock()).unwrap();
    for (resource, event) in [(a, begun()), (a, Event::Ended), (b, begun_as(Some(Mass::Removal)))] {
        journal.write(Some(resource), event).unwrap();
    }
    let past = journal.past();
    assert_eq!(past.lately()[&("capstor".to_owned(), Mass::Removal)], [b].into());
    drop(journal);
    for round in 1..=3 {
        let journal = Journal::opened(&path, &clock(), 100).unwrap();
        assert_eq!((journal.past(), journal.lines()), (past.clone(), 3 + round));
    }
    let names = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>()
    };
    let aside = |n| format!("journal-{n:012}");
    assert_eq!(names(), ["journal".into(), aside(3), aside(4), aside(5)].into());
    let journal = Journal::open(&path, &clock()).unwrap();
    journal.write(Some(b), Event::Ended).unwrap();
    assert_eq!(Journal::prove(&path).unwrap(), (1, 7));
    assert_eq!(story(&path, b).unwrap().len(), 2);
    // What is old may be taken away; a gap shows, and so does a change in what was put aside.
    fs::remove_file(folder.path().join(aside(3))).unwrap();
    assert_eq!(Journal::prove(&path).unwrap(), (4, 7));
    let file = folder.path().join(aside(4));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("capstor", "scratch")).unwrap();
    assert!(matches!(Journal::prove(&path), Err(JournalError::Broken { line: 5, .. })));
    fs::write(&file, text).unwrap();
    fs::remove_file(folder.path().join(aside(5))).unwrap();
    assert!(matches!(Journal::prove(&path), Err(JournalError::Broken { .. })));
}

#[test]
fn killed_while_a_large_journal_is_put_aside_it_is_put_aside_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    Journal::open(&path, &clock()).unwrap().write(Some(Uuid::from_u128(1)), begun()).unwrap();
    // Linked, and half of the new one written.
    fs::hard_link(&path, folder.path().join("journal-000000000001")).unwrap();
    fs::write(path.with_extension("new"), "{\"seq\":").unwrap();
    let journal = Journal::opened(&path, &clock(), 100).unwrap();
    assert_eq!((journal.lines(), journal.past().begun.len()), (2, 1));
    assert_eq!(Journal::prove(&path).unwrap(), (1, 2));
    // A file of that name that is another one is never written over.
    fs::write(folder.path().join("journal-000000000002"), "kept").unwrap();
    assert!(matches!(Journal::opened(&path, &clock(), 100), Err(JournalError::Io { verb: "put aside", .. })));
    assert_eq!(Journal::open(&path, &clock()).unwrap().lines(), 2);
}

#[test]
fn what_was_begun_without_a_yes_counts_for_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, &clock()).unwrap();
    journal.write(Some(Uuid::from_u128(1)), begun_as(Some(Mass::Refusal))).unwrap();
    let after = |hours: u64| {
        let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_hours(500_000 + hours));
        past_in(&path, &clock).unwrap().lately().len()
    };
    assert_eq!([after(0), after(24), after(25)], [1, 1, 0]);
    let earlier = Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(499_000));
    assert_eq!(past_in(&path, &earlier).unwrap().lately().len(), 1, "a clock that was set back forgets nothing");
}

#[test]
fn what_waldur_refuses_is_remembered_over_starts_and_when_the_journal_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let [resource, order] = [1, 2].map(Uuid::from_u128);
    let Event::Begun { system, path: at, token, by, steps, why, unasked, .. } = begun() else { panic!() };
    let kind = Some(OrderKind::Terminate);
    let begun = Event::Begun { system, path: at, token, by, order: Some(order), kind, steps, why, unasked };
    let call = |outcome: &str, refused| Event::Callback {
        call: "approve_by_provider".into(),
        outcome: outcome.into(),
        refused,
        denied: false,
    };
    let journal = Journal::open(&path, &clock()).unwrap();
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
    assert_eq!(refused(&Journal::open(&path, &after(4)).unwrap().past()), once(true));
    assert_eq!(refused(&Journal::open(&path, &after(5)).unwrap().past()), once(false));
    // Put aside: what is remembered goes on in the new file.
    let journal = Journal::opened(&path, &after(5), 100).unwrap();
    assert_eq!(refused(&journal.past()), once(false));
    for event in [begun, call("sent", false), call("Project 'x' is expired.", true)] {
        journal.write(Some(resource), event).unwrap();
    }
    assert_eq!(refused(&journal.past()).map(|(times, backs_off, _)| (times, backs_off)), Some((2, true)));
    journal.write(Some(resource), call("accepted", false)).unwrap();
    assert_eq!(refused(&journal.past()), None);
    let week = past_in(&path, &after(8 * 24 * 60)).unwrap();
    assert!(week.last_order(resource).is_none(), "what is long over takes no room");
}
