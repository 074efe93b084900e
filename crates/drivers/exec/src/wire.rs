//! Requests and answers: one JSON object each. Unknown fields of an answer are an error, so that a typing error is noticed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::{Desired, DriverError, Marked, Mode, Observed, Present, Trashed};
use uuid::Uuid;

/// The version of the protocol.
pub(crate) const VERSION: u32 = 1;
/// How much of a program's texts is shown, in characters.
const MAX_SHOWN: usize = 1000;

#[derive(Serialize)]
pub(crate) struct Request<'a, F> {
    pub(crate) version: u32,
    pub(crate) verb: &'a str,
    pub(crate) root: &'a Path,
    #[serde(flatten)]
    pub(crate) fields: F,
}

/// No fields of a request, or an answer without fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Serialize)]
pub(crate) struct Directory<'a> {
    id: Uuid,
    path: &'a Place,
    /// From the root down, with the modes for those that do not exist.
    parents: Vec<Parent>,
    uid: u32,
    gid: u32,
    mode: Mode,
    limits: QuotaLimits,
}

#[derive(Serialize)]
struct Parent {
    path: Place,
    mode: Mode,
}

impl<'a> Directory<'a> {
    pub(crate) fn of(desired: &'a Desired) -> Self {
        let Desired { id, place, parents, uid, gid, mode: _, limits, project: _ } = desired;
        let mut paths: Vec<_> = std::iter::successors(place.parent(), Place::parent).collect();
        paths.reverse();
        let mode = |at: usize| parents.get(at).copied().unwrap_or(Mode(0o755));
        let parents = paths.into_iter().enumerate().map(|(at, path)| Parent { path, mode: mode(at) }).collect();
        Self { id: *id, path: place, parents, uid: *uid, gid: *gid, mode: desired.mode, limits: *limits }
    }

    pub(crate) fn alone(self, now: Option<u64>) -> OneDirectory<'a> {
        OneDirectory { directory: self, now }
    }
}

#[derive(Serialize)]
pub(crate) struct OneDirectory<'a> {
    directory: Directory<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct OneTrashed<'a> {
    pub(crate) trashed: &'a Trashed,
}

#[derive(Serialize)]
pub(crate) struct Levels {
    pub(crate) levels: usize,
}

/// The directories of a request.
#[derive(Serialize)]
pub(crate) struct Directories<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) directories: Vec<Directory<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trashed: Vec<&'a Trashed>,
}

impl<'a> Directories<'a> {
    pub(crate) fn of(desired: &[&'a Desired]) -> Self {
        Self { directories: desired.iter().map(|desired| Directory::of(desired)).collect(), trashed: Vec::new() }
    }

    fn ids(&self) -> Vec<Uuid> {
        let directories = self.directories.iter().map(|it| it.id);
        directories.chain(self.trashed.iter().map(|it| it.id)).collect()
    }
}

/// What a program reports about itself.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capabilities {
    version: u32,
    /// Limits of space are multiples of this many bytes.
    #[serde(default = "one")]
    pub(crate) block: u64,
    /// Whether soft limits can differ from hard limits.
    #[serde(default = "yes")]
    pub(crate) soft_limits: bool,
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { version: VERSION, block: one(), soft_limits: yes() }
    }
}

impl Capabilities {
    pub(crate) fn validated(self) -> Result<Self, String> {
        if self.version != VERSION {
            return Err(format!("it has version {} of the protocol, and this program has {VERSION}", self.version));
        }
        if self.block == 0 || self.block > 1 << 40 {
            return Err(format!("`block` is {}, and not between 1 and 2^40 bytes", self.block));
        }
        Ok(self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observations {
    directories: Vec<Observation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Absent,
    Ours,
    Unmarked,
    Obstructed,
    Trashed,
    Purging,
    Unknown,
}

/// The state of a directory. The fields depend on the state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Observation {
    id: Uuid,
    state: State,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<Mode>,
    limits: Option<QuotaLimits>,
    usage: Option<Usage>,
    since: Option<u64>,
    why: Option<String>,
}

impl Observations {
    /// The state of each requested directory.
    pub(crate) fn states(self, requested: &[&Desired]) -> Result<Vec<Result<Observed, DriverError>>, String> {
        let ids: Vec<_> = requested.iter().map(|desired| desired.id).collect();
        same_ids(&ids, self.directories.iter().map(|it| it.id))?;
        self.directories.into_iter().map(Observation::observed).collect()
    }
}

impl Observation {
    fn observed(self) -> Result<Result<Observed, DriverError>, String> {
        let id = self.id;
        let missing = |field: &str| format!("the state of {id} has no `{field}`");
        let since = || self.since.ok_or_else(|| missing("since"));
        let why = || self.why.as_deref().map(shown).ok_or_else(|| missing("why"));
        let present = || {
            let mode = self.mode.filter(|mode| mode.0 <= 0o7777).ok_or_else(|| missing("mode"))?;
            Ok::<_, String>(Present {
                uid: self.uid.ok_or_else(|| missing("uid"))?,
                gid: self.gid.ok_or_else(|| missing("gid"))?,
                mode,
                limits: self.limits,
                project: None,
                usage: self.usage,
                acl: None,
            })
        };
        Ok(Ok(match self.state {
            State::Absent => Observed::Absent,
            State::Ours => Observed::Ours(present()?),
            State::Unmarked => Observed::Unmarked(present()?),
            State::Obstructed => Observed::Obstructed(why()?),
            State::Trashed => Observed::Trashed { since: since()? },
            State::Purging => Observed::Purging { since: since()? },
            State::Unknown => return Ok(Err(DriverError::temporary(why()?))),
        }))
    }
}

/// Fails unless an answer is about the requested resources, in the same order.
fn same_ids(requested: &[Uuid], answered: impl Iterator<Item = Uuid>) -> Result<(), String> {
    if answered.eq(requested.iter().copied()) {
        Ok(())
    } else {
        Err("it does not have one entry for each requested directory, in the same order".into())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usages {
    usages: Vec<OneUsage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneUsage {
    id: Uuid,
    usage: Option<Usage>,
}

impl Usages {
    pub(crate) fn usages(self, of: &Directories<'_>) -> Result<Vec<Option<Usage>>, String> {
        same_ids(&of.ids(), self.usages.iter().map(|it| it.id))?;
        Ok(self.usages.into_iter().map(|it| it.usage).collect())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trashes {
    pub(crate) trash: Vec<Trash>,
}

/// A directory in the trash.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trash {
    id: Uuid,
    since: u64,
    pub(crate) claimed: bool,
    /// When it was last changed, in seconds since 1970 by the clock of the storage system.
    pub(crate) changed: Option<u64>,
}

impl Trash {
    pub(crate) fn trashed(&self) -> Trashed {
        Trashed { id: self.id, since: self.since }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marks {
    marked: Vec<Mark>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    id: Uuid,
    path: String,
}

impl From<Marks> for Vec<Marked> {
    fn from(marks: Marks) -> Self {
        marks.marked.into_iter().map(|Mark { id, path }| Marked { id, path }).collect()
    }
}

/// A text of a program in one line: the end of it if it is long, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = if lines.is_empty() { "no error message".to_owned() } else { lines.join("; ") };
    let skipped = text.chars().count().saturating_sub(MAX_SHOWN);
    let end = text.chars().skip(skipped).flat_map(escape);
    let ellipsis = if skipped > 0 { "…" } else { "" };
    ellipsis.chars().chain(end).collect()
}

/// Escapes what is not printable; keeps quotes and backslashes.
fn escape(c: char) -> impl Iterator<Item = char> {
    let plain = matches!(c, '"' | '\'' | '\\').then_some(c);
    let escaped = plain.is_none().then(|| c.escape_debug());
    plain.into_iter().chain(escaped.into_iter().flatten())
}
