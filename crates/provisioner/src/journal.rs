//! The journal: what was begun, with what came of it; the audit log in one.
//!
//! Lines of JSON, each with the hash of the line before it, so that a line that was changed or taken out shows. What is
//! begun is synced to the disk before its first effect. A line cut off by a crash is dropped at the next start: what it
//! would have said was not synced, so nothing was done for it.
//!
//! A journal that has grown large is put aside as `journal-LAST`, named by its last line, and goes on in a new file, whose
//! first line has the hash of that last one and whatever must be known of the past.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::document::OrderKind;
use crate::plan::{LastOrder, Mass, Step};
use program::Clock;

mod past;
mod witness;

pub use past::Past;
use past::Unasked;
pub use witness::{Witness, witness};

/// From how many bytes on a journal is put aside at the next start: it is proved whole with each pass.
const LARGE: u64 = 8 << 20;

/// How old the last line may become before a heartbeat is written.
const HEARTBEAT: Duration = Duration::from_hours(24);

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
        /// What that order does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<OrderKind>,
        /// What will be done.
        steps: Vec<String>,
        /// Why.
        why: String,
        /// What it is of which many need a person's yes; `None` where it has that, or needs none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unasked: Option<Mass>,
    },
    /// The first line of a file that goes on from another one.
    Continues {
        /// The name of that file.
        after: String,
        /// Resources on which work was begun there and not brought to its end.
        begun: BTreeSet<Uuid>,
        /// What was begun there lately without a person's yes.
        lately: Vec<Unasked>,
        /// The newest order of each resource, where something was done for it lately.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        orders: BTreeMap<Uuid, LastOrder>,
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
        /// Whether Waldur refuses it for good; the outcome says why.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
        /// Whether it was certainly not carried out: the credentials do not allow it, or there is no such order.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        denied: bool,
    },
    /// The provisioner runs. Written where nothing else was for a day, so that the journal shows how time passed.
    Heartbeat,
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
        "the journal {path} is broken at line {line}: {what}. It, or the line before, was changed after it was written: keep \
         it for the audit, move it aside with all `journal-…` beside it, and start with a new one; the next pass finds what \
         is to be done from the storage itself"
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
    /// Time of the last line; empty where there is none.
    time: String,
    past: Past,
    /// Bytes of the whole lines.
    length: u64,
    /// Lines left before the journal closes, for tests of crashes.
    left: Option<u64>,
}

impl Journal {
    /// Opens the journal in this file, or begins it; proves its chain on the way. A large one is put aside.
    pub fn open(path: &Path, clock: &Clock) -> Result<Self, JournalError> {
        Self::opened(path, clock, LARGE)
    }

    fn opened(path: &Path, clock: &Clock, large: u64) -> Result<Self, JournalError> {
        let failed = |verb| move |source| JournalError::Io { path: path.to_owned(), verb, source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed("opened"))?;
        let mut chain = chain(path, &file)?;
        file.set_len(chain.length).map_err(failed("written"))?;
        if chain.length > large {
            chain = put_aside(path, &file, chain, clock).map_err(failed("put aside"))?;
            file = OpenOptions::new().read(true).append(true).open(path).map_err(failed("opened"))?;
        }
        file.seek(io::SeekFrom::End(0)).map_err(failed("read"))?;
        let Chain { seq, hash: prev, time, past, length, .. } = chain;
        let tail = Mutex::new(Tail { file, seq, prev, time, past, length, left: None });
        Ok(Self { path: path.to_owned(), clock: clock.clone(), tail })
    }

    /// Proves the chain of the journal in this file and in those before it, as far back as they are there. Gives the numbers
    /// of the first and the last line. Changes nothing.
    pub fn prove(path: &Path) -> Result<(u64, u64), JournalError> {
        let (mut first, mut before) = (None, None::<Chain>);
        for path in files(path)? {
            let file = File::open(&path);
            let file = file.map_err(|source| JournalError::Io { path: path.clone(), verb: "read", source })?;
            let chain = chain(&path, &file)?;
            let follows = |before: &Chain| (before.seq + 1, &before.hash) == (chain.first, &chain.prev);
            if !before.as_ref().is_none_or(follows) {
                let what = "it does not follow the file before it";
                return Err(JournalError::Broken { path, line: chain.first, what });
            }
            first.get_or_insert(chain.first);
            before = Some(chain);
        }
        Ok((first.unwrap_or_default(), before.map_or(0, |chain| chain.seq)))
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
        let text = written(&line).map_err(failed)?;
        if let Err(error) = tail.file.write_all(&text) {
            // Half a line would break the chain for whoever writes next.
            let length = tail.length;
            tail.file.set_len(length).map_err(failed)?;
            return Err(failed(error));
        }
        tail.length += text.len() as u64;
        tail.seq = line.seq;
        tail.prev = hash(&text);
        tail.past.note(&line.time, line.resource, &line.event);
        tail.time = line.time;
        Ok(())
    }

    /// Writes a heartbeat where the last line is more than a day away from now. A journal that was just begun gets none.
    pub fn beat(&self) -> Result<(), JournalError> {
        let last = OffsetDateTime::parse(&self.tail().time, &Rfc3339).ok();
        let now = OffsetDateTime::from(self.clock.now());
        if last.is_some_and(|last| (now - last).unsigned_abs() >= HEARTBEAT) {
            self.write(None, Event::Heartbeat)?;
        }
        Ok(())
    }

    /// Makes all lines so far last.
    pub fn sync(&self) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), verb: "synced", source };
        self.tail().file.sync_data().map_err(failed)
    }

    /// What is to be known of the past now.
    pub fn past(&self) -> Past {
        let mut past = self.tail().past.clone();
        past.forget(self.clock.now());
        past
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
    /// Number of the first line; 1 where there is none yet.
    first: u64,
    /// What the first line says of the line before it.
    prev: String,
    /// Number of the last line.
    seq: u64,
    /// Hash of the last line.
    hash: String,
    /// Time of the last line; empty where there is none.
    time: String,
    past: Past,
    /// Bytes of the whole lines.
    length: u64,
}

/// Proves that each line follows the one before. A last line without an end was cut off by a crash: it does not count.
fn chain(path: &Path, file: &File) -> Result<Chain, JournalError> {
    let mut chain = Chain {
        first: 1,
        prev: hash(b""),
        seq: 0,
        hash: hash(b""),
        time: String::new(),
        past: Past::default(),
        length: 0,
    };
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text);
        read.map_err(|source| JournalError::Io { path: path.to_owned(), verb: "read", source })?;
        if text.last() != Some(&b'\n') {
            return Ok(chain);
        }
        let broken = |line, what| JournalError::Broken { path: path.to_owned(), line, what };
        let line: Line =
            serde_json::from_slice(&text).map_err(|_| broken(chain.seq + 1, "it is no line of a journal"))?;
        if chain.length == 0 && matches!(line.event, Event::Continues { .. }) {
            let (before, prev) = (line.seq.saturating_sub(1), line.prev.clone());
            chain = Chain { first: line.seq, prev: prev.clone(), seq: before, hash: prev, ..chain };
        }
        if line.seq != chain.seq + 1 {
            return Err(broken(chain.seq + 1, "lines are missing before it"));
        }
        if line.prev != chain.hash {
            return Err(broken(chain.seq + 1, "it does not follow the line before it"));
        }
        chain.past.note(&line.time, line.resource, &line.event);
        let length = chain.length + text.len() as u64;
        chain = Chain { seq: line.seq, hash: hash(&text), time: line.time, length, ..chain };
    }
}

/// Puts a journal aside under the number of its last line and begins a new one, which goes on from there. A crash leaves the
/// old one in place, or the new one: never none.
fn put_aside(path: &Path, file: &File, chain: Chain, clock: &Clock) -> io::Result<Chain> {
    let Chain { seq, hash: prev, mut past, .. } = chain;
    past.forget(clock.now());
    file.sync_data()?;
    let aside = path.with_file_name(format!("{}-{seq:012}", name_of(path)));
    match fs::hard_link(path, &aside) {
        // From a start that broke off here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let identity = |file: fs::Metadata| (file.dev(), file.ino());
            if identity(fs::metadata(&aside)?) != identity(file.metadata()?) {
                return Err(io::Error::new(error.kind(), format!("another {} is there already", aside.display())));
            }
        }
        linked => linked?,
    }
    let time = OffsetDateTime::from(clock.now()).format(&Rfc3339).unwrap_or_default();
    let event = Event::Continues {
        after: name_of(&aside),
        begun: past.begun.clone(),
        lately: past.unasked().to_vec(),
        orders: past.orders().clone(),
    };
    let line = Line { seq: seq + 1, time: time.clone(), resource: None, event, prev: prev.clone() };
    let text = written(&line)?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut begun = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    begun.write_all(&text)?;
    begun.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(Chain { first: seq + 1, prev, seq: seq + 1, hash: hash(&text), time, past, length: text.len() as u64 })
}

/// The files of the journal at this path, those that were put aside first, in the order of their lines.
fn files(path: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let unreadable = |source| JournalError::Io { path: path.to_owned(), verb: "read", source };
    let (directory, prefix) = (path.parent().unwrap_or(Path::new("/")), name_of(path) + "-");
    let is_ours = |name: &str| name.strip_prefix(&prefix).is_some_and(|n| n.bytes().all(|byte| byte.is_ascii_digit()));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        files.extend(entry.file_name().to_str().is_some_and(is_ours).then(|| entry.path()));
    }
    // By their numbers, which have leading zeros.
    files.sort();
    files.push(path.to_owned());
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is to be known of the past, for those who may only read; nothing where there is no journal yet.
pub fn past(path: &Path, clock: &Clock) -> Result<Past, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Past::default()),
        opened => opened.map_err(|source| JournalError::Io { path: path.to_owned(), verb: "read", source })?,
    };
    let mut past = chain(path, &file)?.past;
    past.forget(clock.now());
    Ok(past)
}

/// The lines about one resource, for people: time and what happened. Does not prove the chain.
pub fn story(path: &Path, resource: Uuid) -> Result<Vec<(String, Event)>, JournalError> {
    let mut story = Vec::new();
    for path in files(path)? {
        let unreadable = |source| JournalError::Io { path: path.clone(), verb: "read", source };
        for text in BufReader::new(File::open(&path).map_err(unreadable)?).split(b'\n') {
            if let Ok(line) = serde_json::from_slice::<Line>(&text.map_err(unreadable)?)
                && line.resource == Some(resource)
            {
                story.push((line.time, line.event));
            }
        }
    }
    Ok(story)
}

/// A line as it stands in the file.
fn written(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// SHA-256 in hexadecimal digits, as `sha256sum` says it.
fn hash(text: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A step as the journal names it.
pub fn name(step: &Step) -> String {
    match step {
        Step::Reject(reason) | Step::Erred(reason) => format!("{}: {reason}", step.name()),
        Step::Ensure(desired) => {
            format!("ensure: {}, mode {:o}, owner {}:{}", desired.limits, desired.mode.0, desired.uid, desired.gid)
        }
        _ => step.name().into(),
    }
}

#[cfg(test)]
mod tests;
