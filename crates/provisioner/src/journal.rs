//! The journal: what was begun, with what came of it; the audit log in one.
//!
//! Lines of JSON, each with the hash of the line before it, so that a line that was changed or taken out shows. What is
//! begun is synced to the disk before its first effect. A line cut off by a crash is dropped at the next start: what it
//! would have said was not synced, so nothing was done for it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::clock::Clock;
use crate::plan::Step;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Work on a resource begins.
    Begun {
        /// Its system.
        system: String,
        /// Its path.
        path: String,
        /// Fencing token of the system's lease.
        token: u64,
        /// On whose command: `run`, or which command by which user.
        by: String,
        /// Its order.
        order: Option<Uuid>,
        /// What will be done.
        steps: Vec<String>,
        /// Why.
        why: String,
    },
    /// An effect is about to be had.
    Effect {
        /// Which.
        what: String,
    },
    /// Waldur is told something.
    Callback {
        /// Which call.
        call: String,
        /// What came of it.
        outcome: String,
    },
    /// Work on a resource came to its end.
    Ended,
    /// Work on a resource was broken off; the next pass takes it up.
    Failed {
        /// Why.
        fault: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    seq: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Uuid>,
    #[serde(flatten)]
    event: Event,
    /// Hash of the line before, as hexadecimal digits of SHA-256; of nothing for the first.
    prev: String,
}

/// Why the journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The disk.
    #[error("the journal {path} cannot be {verb}")]
    Io {
        /// Its file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody changed it, or the disk did.
    #[error(
        "the journal {path} is broken at line {line}: {what}. It was changed after it was written: keep it for the audit, \
         move it aside and start with a new one; the next pass finds what is to be done from the storage itself"
    )]
    Broken {
        /// Its file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// Told to stop by a test that breaks off at each line.
    #[error("the journal is closed")]
    Closed,
}

/// An open journal, at its end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    clock: Clock,
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    seq: u64,
    prev: String,
    begun: BTreeSet<Uuid>,
    /// Bytes of the whole lines.
    length: u64,
    /// Lines left before the journal closes, for tests of crashes.
    left: Option<u64>,
}

impl Journal {
    /// Opens the journal in this file, or begins it; proves its chain on the way.
    pub fn open(path: &Path, clock: &Clock) -> Result<Self, JournalError> {
        let failed = |verb| move |source| JournalError::Io { path: path.to_owned(), verb, source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed("opened"))?;
        let Chain { seq, hash: prev, begun, length } = chain(path, &file)?;
        file.set_len(length).map_err(failed("written"))?;
        file.seek(io::SeekFrom::End(0)).map_err(failed("read"))?;
        let tail = Mutex::new(Tail { file, seq, prev, begun, length, left: None });
        Ok(Self { path: path.to_owned(), clock: clock.clone(), tail })
    }

    /// Proves the chain of the journal in this file, and gives the number of its lines. Changes nothing.
    pub fn prove(path: &Path) -> Result<u64, JournalError> {
        let file =
            File::open(path).map_err(|source| JournalError::Io { path: path.to_owned(), verb: "read", source })?;
        chain(path, &file).map(|chain| chain.seq)
    }

    /// Closes the journal after so many more lines, as a crash would: every line after that fails.
    #[cfg(test)]
    pub(crate) fn closes_after(&self, lines: u64) {
        self.tail().left = Some(lines);
    }

    /// Writes a line. It may be lost with the machine, not with the program, until [`Journal::sync`].
    pub fn write(&self, resource: Option<Uuid>, event: Event) -> Result<(), JournalError> {
        let mut tail = self.tail();
        if let Some(left) = &mut tail.left {
            *left = left.checked_sub(1).ok_or(JournalError::Closed)?;
        }
        let time = OffsetDateTime::from(self.clock.now()).format(&Rfc3339).unwrap_or_default();
        let line = Line { seq: tail.seq + 1, time, resource, event, prev: tail.prev.clone() };
        let failed = |source| JournalError::Io { path: self.path.clone(), verb: "written", source };
        let mut text = serde_json::to_vec(&line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        if let Err(error) = tail.file.write_all(&text) {
            // Half a line would break the chain for whoever writes next.
            let length = tail.length;
            tail.file.set_len(length).map_err(failed)?;
            return Err(failed(error));
        }
        tail.length += text.len() as u64;
        tail.seq = line.seq;
        tail.prev = hash(&text);
        note(&mut tail.begun, resource, &line.event);
        Ok(())
    }

    /// Makes all lines so far last.
    pub fn sync(&self) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), verb: "synced", source };
        self.tail().file.sync_data().map_err(failed)
    }

    /// Resources on which work was begun and not brought to its end.
    pub fn begun(&self) -> BTreeSet<Uuid> {
        self.tail().begun.clone()
    }

    /// Number of the last line.
    pub fn lines(&self) -> u64 {
        self.tail().seq
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the whole lines of a journal say together.
struct Chain {
    seq: u64,
    hash: String,
    begun: BTreeSet<Uuid>,
    /// Bytes of the whole lines.
    length: u64,
}

/// Proves that each line follows the one before. A last line without an end was cut off by a crash: it does not count.
fn chain(path: &Path, file: &File) -> Result<Chain, JournalError> {
    let mut chain = Chain { seq: 0, hash: hash(b""), begun: BTreeSet::new(), length: 0 };
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text);
        read.map_err(|source| JournalError::Io { path: path.to_owned(), verb: "read", source })?;
        if text.last() != Some(&b'\n') {
            return Ok(chain);
        }
        let broken = |what| JournalError::Broken { path: path.to_owned(), line: chain.seq + 1, what };
        let line: Line = serde_json::from_slice(&text).map_err(|_| broken("it is no line of a journal"))?;
        if line.seq != chain.seq + 1 {
            return Err(broken("lines are missing before it"));
        }
        if line.prev != chain.hash {
            return Err(broken("it does not follow the line before it"));
        }
        note(&mut chain.begun, line.resource, &line.event);
        chain = Chain { seq: line.seq, hash: hash(&text), length: chain.length + text.len() as u64, ..chain };
    }
}

/// Resources on which work was begun and not brought to its end, for those who may only read; nothing where there is no
/// journal yet.
pub fn begun(path: &Path) -> Result<BTreeSet<Uuid>, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        opened => opened.map_err(|source| JournalError::Io { path: path.to_owned(), verb: "read", source })?,
    };
    Ok(chain(path, &file)?.begun)
}

/// The lines about one resource, for people: time and what happened. Does not prove the chain.
pub fn story(path: &Path, resource: Uuid) -> io::Result<Vec<(String, Event)>> {
    let mut story = Vec::new();
    for text in BufReader::new(File::open(path)?).split(b'\n') {
        if let Ok(line) = serde_json::from_slice::<Line>(&text?)
            && line.resource == Some(resource)
        {
            story.push((line.time, line.event));
        }
    }
    Ok(story)
}

fn note(begun: &mut BTreeSet<Uuid>, resource: Option<Uuid>, event: &Event) {
    match (resource, event) {
        (Some(resource), Event::Begun { .. }) => _ = begun.insert(resource),
        (Some(resource), Event::Ended) => _ = begun.remove(&resource),
        _ => {}
    }
}

fn hash(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Cannot fail: writing to a text.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A step as the journal names it.
pub fn name(step: &Step) -> String {
    match step {
        Step::Reject(reason) | Step::Erred(reason) => format!("{}: {reason}", step.name()),
        Step::Ensure(wanted) => {
            format!("ensure: {}, mode {:o}, owner {}:{}", wanted.limits, wanted.mode.0, wanted.uid, wanted.gid)
        }
        _ => step.name().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::begun as begun_in;
    use super::*;

    fn clock() -> Clock {
        Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(500_000))
    }

    fn begun() -> Event {
        let (system, path, by, why) = ("capstor".into(), "/a".into(), "run".into(), "test".into());
        Event::Begun { system, path, token: 1, by, order: None, steps: vec![], why }
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
        assert_eq!((journal.begun(), begun_in(&path).unwrap()), ([b].into(), [b].into()));
        assert_eq!((journal.lines(), story(&path, a).unwrap().len()), (3, 2));
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
}
