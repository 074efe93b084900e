//! The journal: what was begun and what came of it. It is also the audit log.
//!
//! It has one JSON object a line; the lines are numbered from 1. The lines about the beginning of work are synced to
//! the disk before the first side effect. A last line without a line break was cut off by a crash; the next start drops
//! it.
//!
//! At the next start after it has grown large, the journal is moved aside as `journal-LAST`, named after the number of
//! its last line. The new file starts with a line that carries over what must be remembered.
//!
//! Lines of earlier versions also have the hash of the line before them (`prev`), which is ignored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use program::Clock;
use program::lock;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use provisioner_core::document::OrderKind;
use provisioner_core::last_order::LastOrder;
use provisioner_core::plan::{Mass, Step};

mod elapsed;
mod past;

pub use elapsed::{Elapsed, elapsed};
pub use past::Past;
use past::Unconfirmed;

/// Size in bytes above which the journal is moved aside at the next start: every pass reads it completely.
const LARGE: u64 = 8 << 20;

/// Age of the last line after which a heartbeat is written.
const HEARTBEAT: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Work on a resource begins.
    Begun(Begun),
    /// The first line of a file that continues another one.
    Continues {
        /// The name of that file.
        after: String,
        /// Resources with work that was begun there and has not ended.
        begun: BTreeSet<Uuid>,
        /// What was begun there lately without confirmation.
        lately: Vec<Unconfirmed>,
        /// The newest order of each resource that had work lately.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        orders: BTreeMap<Uuid, LastOrder>,
    },
    /// A side effect follows.
    Effect { what: String },
    /// A call to Waldur.
    Callback {
        call: String,
        /// `sent`, and in a second line `accepted` or why it was not.
        outcome: String,
        /// Whether Waldur refuses the call until something changes there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
        /// Whether the call certainly had no effect: the credentials do not allow it, or there is no such order.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        denied: bool,
    },
    /// The provisioner is running. Written if there was no other line for a day, so that the journal shows how much
    /// time has passed.
    Heartbeat,
    /// Work on a resource is complete.
    Ended,
    /// Work on a resource failed; the next pass continues it.
    Failed { fault: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun(Begun { steps, why, by, .. }) if steps.is_empty() => write!(f, "begun by {by} ({why})"),
            Self::Begun(Begun { steps, why, by, .. }) => write!(f, "begun by {by} ({why}): {}", steps.join("; ")),
            Self::Effect { what } => f.write_str(what),
            Self::Callback { call, outcome, refused: true, .. } => write!(f, "Waldur refuses {call}: {outcome}"),
            Self::Callback { call, outcome, .. } => write!(f, "{call}: {outcome}"),
            Self::Continues { after, .. } => write!(f, "the journal continues after {after}"),
            Self::Ended => f.write_str("ended"),
            Self::Heartbeat => f.write_str("running"),
            Self::Failed { fault } => write!(f, "failed: {fault}"),
        }
    }
}

/// The work that begins on a resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    pub system: String,
    pub path: String,
    /// Fencing token of the system's lease.
    pub token: u64,
    /// `run`, or the command and its user.
    pub by: String,
    /// The order that it is done for.
    pub order: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<OrderKind>,
    pub steps: Vec<String>,
    pub why: String,
    /// The kind of work of which many need confirmation; `None` if it was confirmed or needs none.
    #[serde(rename = "unasked", default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Mass>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    seq: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Uuid>,
    #[serde(flatten)]
    event: Event,
}

#[derive(Debug, Error)]
pub enum JournalError {
    #[error("the journal {path} cannot be {verb}")]
    Io { path: PathBuf, verb: &'static str, source: io::Error },
    #[error(
        "the journal {path} is broken at line {line}: {what}. Keep it for the audit: move it aside together with all `journal-…` files next \
         to it. A new journal is created, and the next pass determines from the storage what is to be done"
    )]
    Broken {
        path: PathBuf,
        /// Counted in this file, from 1.
        line: u64,
        what: &'static str,
    },
    /// Only in tests that simulate a crash at each line.
    #[error("the journal is closed")]
    Closed,
}

/// A journal that is open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    clock: Clock,
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    contents: Contents,
}

/// What the complete lines of a file say together.
#[derive(Debug)]
struct Contents {
    /// Number of the first line; 1 if the file is empty.
    first: u64,
    /// Number of the last line.
    last: u64,
    /// Time of the last line; empty if there is none.
    time: String,
    past: Past,
    /// Length in bytes.
    length: u64,
}

impl Journal {
    /// Opens or creates the journal. A large one is moved aside.
    pub fn open(path: &Path, clock: &Clock) -> Result<Self, JournalError> {
        Self::open_with_limit(path, clock, LARGE)
    }

    fn open_with_limit(path: &Path, clock: &Clock, large: u64) -> Result<Self, JournalError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path).map_err(failed(path, "opened"))?;
        let mut contents = Contents::read(path, &file)?;
        file.set_len(contents.length).map_err(failed(path, "written"))?;
        if contents.length > large {
            contents = move_aside(path, &file, contents, clock).map_err(failed(path, "moved aside"))?;
            file = options.open(path).map_err(failed(path, "opened"))?;
        }
        file.seek(io::SeekFrom::End(0)).map_err(failed(path, "read"))?;
        Ok(Self { path: path.to_owned(), clock: clock.clone(), tail: Mutex::new(Tail { file, contents }) })
    }

    /// Reads all files of the journal without changing them. Returns the numbers of the first and the last line.
    pub fn check(path: &Path) -> Result<(u64, u64), JournalError> {
        let mut lines = None::<(u64, u64)>;
        for path in files(path)? {
            let Contents { first, last, .. } =
                Contents::read(&path, &File::open(&path).map_err(failed(&path, "read"))?)?;
            if lines.is_some_and(|(_, before)| before + 1 != first) {
                let what = "its number does not follow the last one of the file before it";
                return Err(JournalError::Broken { path, line: 1, what });
            }
            lines = Some((lines.map_or(first, |(first, _)| first), last));
        }
        Ok(lines.unwrap_or_default())
    }

    /// Appends a line. Until [`Journal::sync`] it survives a crash of the program, but not of the machine.
    pub fn write(&self, resource: Option<Uuid>, event: Event) -> Result<(), JournalError> {
        let mut tail = self.tail();
        #[cfg(test)]
        let last = crate::killed::before_write().map_err(|_| JournalError::Closed)?;
        let line = Line { seq: tail.contents.last + 1, time: timestamp(&self.clock), resource, event };
        let text = line.text().map_err(failed(&self.path, "written"))?;
        if let Err(error) = tail.file.write_all(&text) {
            // The next line must not follow half a line.
            tail.file.set_len(tail.contents.length).map_err(failed(&self.path, "written"))?;
            return Err(failed(&self.path, "written")(error));
        }
        tail.contents.take(line, text.len());
        #[cfg(test)]
        if last {
            return Err(JournalError::Closed);
        }
        Ok(())
    }

    /// Writes a heartbeat if the last line is more than a day older or newer than now. A new journal gets none.
    pub fn heartbeat(&self) -> Result<(), JournalError> {
        let last = OffsetDateTime::parse(&self.tail().contents.time, &Rfc3339).ok();
        let now = OffsetDateTime::from(self.clock.now());
        if last.is_some_and(|last| (now - last).unsigned_abs() >= HEARTBEAT) {
            self.write(None, Event::Heartbeat)?;
        }
        Ok(())
    }

    /// Makes all lines durable.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.tail().file.sync_data().map_err(failed(&self.path, "synced"))
    }

    pub fn past(&self) -> Past {
        let mut past = self.tail().contents.past.clone();
        past.forget(self.clock.now());
        past
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        lock(&self.tail)
    }
}

impl Contents {
    /// Reads one file. Fails at a line that cannot be parsed, or whose number does not follow.
    fn read(path: &Path, file: &File) -> Result<Self, JournalError> {
        let mut contents = Self { first: 1, last: 0, time: String::new(), past: Past::default(), length: 0 };
        let (mut reader, mut text) = (BufReader::new(file), Vec::new());
        for number in 1.. {
            text.clear();
            reader.read_until(b'\n', &mut text).map_err(failed(path, "read"))?;
            if text.last() != Some(&b'\n') {
                break;
            }
            let broken = |what| JournalError::Broken { path: path.to_owned(), line: number, what };
            let line: Line = serde_json::from_slice(&text).map_err(|_| broken("it is not a line of a journal"))?;
            if number == 1 && matches!(line.event, Event::Continues { .. }) {
                (contents.first, contents.last) = (line.seq, line.seq.saturating_sub(1));
            }
            if line.seq != contents.last + 1 {
                return Err(broken("its number (`seq`) does not follow that of the line before it"));
            }
            if line.seq == u64::MAX {
                return Err(broken("no number (`seq`) can follow its number"));
            }
            contents.take(line, text.len());
        }
        Ok(contents)
    }

    fn take(&mut self, line: Line, length: usize) {
        self.past.note(&line.time, line.resource, &line.event);
        (self.last, self.time) = (line.seq, line.time);
        self.length += length as u64;
    }
}

impl Line {
    fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

fn failed(path: &Path, verb: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { path: path.to_owned(), verb, source }
}

fn timestamp(clock: &Clock) -> String {
    OffsetDateTime::from(clock.now()).format(&Rfc3339).unwrap_or_default()
}

/// Moves a journal aside and creates its continuation. At any time of a crash there is a journal: the old one or the
/// new one.
fn move_aside(path: &Path, file: &File, mut contents: Contents, clock: &Clock) -> io::Result<Contents> {
    file.sync_data()?;
    let aside = path.with_file_name(format!("{}-{:012}", name_of(path), contents.last));
    match fs::hard_link(path, &aside) {
        // A start that was killed after the link made it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let identity = |file: fs::Metadata| (file.dev(), file.ino());
            if identity(fs::metadata(&aside)?) != identity(file.metadata()?) {
                return Err(io::Error::new(error.kind(), format!("there is another {} already", aside.display())));
            }
        }
        linked => linked?,
    }
    contents.past.forget(clock.now());
    let event = contents.past.carried_over(name_of(&aside));
    let line = Line { seq: contents.last + 1, time: timestamp(clock), resource: None, event };
    let text = line.text()?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    (contents.first, contents.length) = (line.seq, 0);
    contents.take(line, text.len());
    Ok(contents)
}

/// The files of the journal at this path in the order of their lines.
fn files(path: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let (directory, prefix) = (path.parent().unwrap_or(Path::new("/")), name_of(path) + "-");
    let is_ours = |name: &str| name.strip_prefix(&prefix).is_some_and(|n| n.bytes().all(|byte| byte.is_ascii_digit()));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(path, "read"))? {
        let entry = entry.map_err(failed(path, "read"))?;
        files.extend(entry.file_name().to_str().is_some_and(is_ours).then(|| entry.path()));
    }
    // By number: they have leading zeros.
    files.sort();
    files.push(path.to_owned());
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What must be remembered, read without write access. Empty if there is no journal yet.
pub fn past(path: &Path, clock: &Clock) -> Result<Past, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Past::default()),
        opened => opened.map_err(failed(path, "read"))?,
    };
    let mut past = Contents::read(path, &file)?.past;
    past.forget(clock.now());
    Ok(past)
}

/// The lines about one resource: time and event. Ignores lines that cannot be parsed.
pub fn history(path: &Path, resource: Uuid) -> Result<Vec<(String, Event)>, JournalError> {
    let mut story = Vec::new();
    for_each_line(path, |line| story.extend((line.resource == Some(resource)).then_some((line.time, line.event))))?;
    Ok(story)
}

/// The newest lines about each of these resources, and about those with a line since then: at most `most`, oldest first. Reads the
/// current file only, and ignores lines that cannot be parsed.
pub fn recent(
    path: &Path,
    resources: &BTreeSet<Uuid>,
    since: OffsetDateTime,
    most: usize,
) -> Result<BTreeMap<Uuid, Vec<(String, Event)>>, JournalError> {
    let mut found = BTreeMap::<_, VecDeque<_>>::new();
    for_each_line_of(path, |line| {
        let Some(id) = line.resource else { return };
        let lines = found.entry(id).or_default();
        if lines.len() == most {
            lines.pop_front();
        }
        lines.push_back((line.time, line.event));
    })?;
    let is_recent = |lines: &VecDeque<(String, Event)>| {
        let last = lines.back().and_then(|(at, _)| OffsetDateTime::parse(at, &Rfc3339).ok());
        last.is_some_and(|last| last >= since)
    };
    found.retain(|id, lines| resources.contains(id) || is_recent(lines));
    Ok(found.into_iter().map(|(id, lines)| (id, lines.into())).collect())
}

/// Reads all files of the journal. Ignores lines that cannot be parsed.
fn for_each_line(path: &Path, mut each: impl FnMut(Line)) -> Result<(), JournalError> {
    files(path)?.iter().try_for_each(|path| for_each_line_of(path, &mut each))
}

/// Reads one file of the journal, if it exists.
fn for_each_line_of(path: &Path, mut each: impl FnMut(Line)) -> Result<(), JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed(path, "read"))?,
    };
    for text in BufReader::new(file).split(b'\n') {
        if let Ok(line) = serde_json::from_slice(&text.map_err(failed(path, "read"))?) {
            each(line);
        }
    }
    Ok(())
}

/// The text for a step in [`Begun::steps`].
pub fn step_text(step: &Step) -> String {
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
