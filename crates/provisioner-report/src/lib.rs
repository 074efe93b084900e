//! The report that a provisioner sends to the proxy after each pass, for the pages for operators.
//!
//! Any provisioner may send one: `PUT /api/provisioners/{name}/status`. The proxy shows it and never acts on it. Keys that
//! this version does not know are ignored; [`Report::parse`] rejects everything else that it does not understand.

mod utc;

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

/// Maximum size of a report as JSON, in bytes.
pub const MAX_BYTES: usize = 32 << 20;
/// Maximum number of resources, and of directories in the trash.
pub const MAX_RESOURCES: usize = 100_000;
/// Maximum length of a text, in characters. [`shortened`] cuts longer ones.
pub const MAX_TEXT: usize = 4_096;
/// Maximum number of systems.
pub const MAX_SYSTEMS: usize = 64;
/// Maximum number of steps and of changes of a task, and of events in the history of a resource.
pub const MAX_LINES: usize = 64;

/// The state of a provisioner and of its systems at the end of a pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ProvisionerReport))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name and version of the program.
    pub program: String,
    /// When the report was made.
    #[serde(with = "utc")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub reported_at: OffsetDateTime,
    /// The provisioner counts as silent if its next report does not arrive within this time, in seconds; positive.
    pub next_within_seconds: u32,
    /// The last pass.
    pub pass: Pass,
    /// The storage systems of the provisioner.
    #[serde(deserialize_with = "at_most::<_, _, MAX_SYSTEMS>")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub systems: Vec<System>,
    /// Every resource on these systems that the provisioner knows; each at most once.
    #[serde(deserialize_with = "at_most::<_, _, MAX_RESOURCES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 100_000))]
    pub resources: Vec<Resource>,
    /// The directories in the trash.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_RESOURCES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 100_000))]
    pub trash: Vec<Trashed>,
    /// Items of the document that the provisioner rejects.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_RESOURCES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 100_000))]
    pub rejected: Vec<Rejected>,
}

/// A pass: the document was read, and the storage was brought closer to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedPass))]
#[serde(rename_all = "camelCase")]
pub struct Pass {
    /// When it ended.
    #[serde(with = "utc")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub ended_at: OffsetDateTime,
    /// Its duration in seconds.
    pub duration_seconds: f64,
    /// Why it failed as a whole. The rest of the report is then that of the last complete pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A storage system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedSystem))]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// Its key in the document, in lower case.
    pub name: String,
    /// The unit in which its quotas are shown.
    pub terabyte: Terabyte,
    /// Why it cannot be read, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a "TB" of a quota means on a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedTerabyte))]
pub enum Terabyte {
    /// 10^12 bytes.
    #[serde(rename = "TB")]
    Decimal,
    /// 2^40 bytes.
    #[serde(rename = "TiB")]
    Binary,
}

/// A resource as the provisioner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedResource))]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// UUID of the Waldur resource.
    pub id: Uuid,
    /// Name of its system.
    pub system: String,
    /// Its path as published.
    pub path: String,
    /// What is at the path.
    pub observed: Observed,
    /// The observed state in words, such as owner and mode, or why it cannot be read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Usage; `null` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Amount>,
    /// Hard quotas on the storage; `null` if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Amount>,
    /// What the provisioner does, or did in the last pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Why nothing is done, if something should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// What happened to it, oldest first. May be incomplete.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "at_most::<_, _, MAX_LINES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub history: Vec<Event>,
}

/// What is at the path of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedObservation))]
#[serde(rename_all = "camelCase")]
pub enum Observed {
    /// The directory of the resource.
    Present,
    /// Nothing.
    Absent,
    /// A directory that is not known to be that of the resource.
    Unmarked,
    /// Something else.
    Obstructed,
    /// Nothing; the directory is in the trash.
    Trashed,
    /// Nothing; the directory is being deleted from the trash.
    Purging,
    /// The storage was not read.
    Unknown,
}

/// Disk space and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedAmount))]
#[serde(rename_all = "camelCase")]
pub struct Amount {
    /// Bytes of disk space.
    pub bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// Work on one resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedTask))]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// What it does, in one word such as `create` or `resize`.
    pub action: String,
    /// The reason.
    pub why: String,
    /// What became of it.
    pub state: TaskState,
    /// Its steps in order.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_LINES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub steps: Vec<String>,
    /// The values that change.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_LINES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub changes: Vec<Change>,
    /// Since when the work is due, as far as the provisioner knows.
    #[serde(default, with = "utc::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<OffsetDateTime>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedTaskState))]
#[serde(rename_all = "camelCase")]
pub enum TaskState {
    /// The next pass performs or continues it.
    Due,
    /// The last pass completed it.
    Done,
    /// The last pass failed; the next one retries.
    Failed,
}

/// A value that differs between the document and the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedChange))]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its name, such as `quota` or `mode`.
    pub what: String,
    /// The observed value, for people; empty if there is none.
    pub old: String,
    /// The desired value, for people.
    pub new: String,
}

/// Why a resource is held: nothing is done for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedHold))]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The kind of the hold.
    pub kind: HoldKind,
    /// Who has to act.
    pub turn: Turn,
    /// The cause, and what to do about it.
    pub reason: String,
    /// The values that differ.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_LINES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub changes: Vec<Change>,
    /// Since when, as far as the provisioner knows.
    #[serde(default, with = "utc::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<OffsetDateTime>,
    /// The commands with which an operator can resolve it, in this order, to be pasted into a shell on the provisioner's host.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "at_most::<_, _, MAX_LINES>")]
    #[cfg_attr(feature = "schema", schema(max_items = 64))]
    pub commands: Vec<String>,
}

/// The kind of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedHoldKind))]
#[serde(rename_all = "camelCase")]
pub enum HoldKind {
    /// Another party has to act.
    Waiting,
    /// A temporary error; the provisioner retries.
    Fault,
    /// In use, but different from the document.
    Drift,
    /// Something else is at the path, or Waldur and the storage contradict each other.
    Conflict,
    /// Invalid, or against the rules.
    Refused,
    /// Needs an operator's confirmation.
    Asks,
    /// Waldur refuses a call; the provisioner retries later.
    Declined,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedTurn))]
#[serde(rename_all = "camelCase")]
pub enum Turn {
    /// The customer: an approval in Waldur, a project that has not started, or files to remove.
    Customer,
    /// The provider's staff, in Waldur.
    Provider,
    /// The identity service, which does not know the group or user.
    Identity,
    /// The storage system, which is unavailable or full.
    Storage,
    /// An operator of the provisioner.
    Operator,
    /// The provisioner itself: it works on it or retries.
    Provisioner,
}

/// Something that happened to a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedEvent))]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it happened.
    #[serde(with = "utc")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub at: OffsetDateTime,
    /// What happened.
    pub text: String,
}

/// A directory in the trash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedTrash))]
#[serde(rename_all = "camelCase")]
pub struct Trashed {
    /// UUID of the Waldur resource.
    pub id: Uuid,
    /// Name of its system.
    pub system: String,
    /// When it was moved there.
    #[serde(with = "utc")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub since: OffsetDateTime,
    /// When it can be purged; `null` if nothing purges it.
    #[serde(default, with = "utc::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub expires: Option<OffsetDateTime>,
    /// Usage; `null` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Amount>,
}

/// An item of the document that the provisioner rejects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ReportedRejection))]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// UUID of the Waldur resource, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Why it is rejected.
    pub reason: String,
}

/// Why a report is not accepted.
#[derive(Debug, Error)]
pub enum InvalidReport {
    /// Not JSON, a missing key, an unknown value of an enumeration, or a list that is too long.
    #[error("the report is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Above [`MAX_BYTES`].
    #[error("the report is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// A text above [`MAX_TEXT`].
    #[error("a text of the report is too long ({0}): at most {MAX_TEXT} characters are accepted")]
    TooLong(&'static str),
    /// A control character in a command or a name.
    #[error("{0} contains a control character")]
    ControlCharacter(&'static str),
    /// A number out of range.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// Two entries for one resource.
    #[error("resource {0} occurs twice")]
    Duplicate(Uuid),
}

impl Report {
    /// Parses and validates a report.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidReport> {
        if json.len() > MAX_BYTES {
            return Err(InvalidReport::TooLarge);
        }
        let report: Self = serde_json::from_slice(json)?;
        report.validate()?;
        Ok(report)
    }

    fn validate(&self) -> Result<(), InvalidReport> {
        if self.next_within_seconds == 0 {
            return Err(InvalidReport::OutOfRange("nextWithinSeconds"));
        }
        if !(0.0..=1e9).contains(&self.pass.duration_seconds) {
            return Err(InvalidReport::OutOfRange("pass.durationSeconds"));
        }
        plain("program", &self.program)?;
        short("pass.error", self.pass.error.as_deref().unwrap_or_default())?;
        for system in &self.systems {
            plain("systems.name", &system.name)?;
            short("systems.error", system.error.as_deref().unwrap_or_default())?;
        }
        let mut ids = HashSet::with_capacity(self.resources.len());
        for resource in &self.resources {
            if !ids.insert(resource.id) {
                return Err(InvalidReport::Duplicate(resource.id));
            }
            resource.validate()?;
        }
        self.trash.iter().try_for_each(|it| plain("trash.system", &it.system))?;
        self.rejected.iter().try_for_each(|it| short("rejected.reason", &it.reason))
    }
}

impl Resource {
    fn validate(&self) -> Result<(), InvalidReport> {
        plain("resources.system", &self.system)?;
        plain("resources.path", &self.path)?;
        short("resources.detail", &self.detail)?;
        self.history.iter().try_for_each(|event| short("resources.history", &event.text))?;
        if let Some(task) = &self.task {
            plain("resources.task.action", &task.action)?;
            short("resources.task.why", &task.why)?;
            short("resources.task.error", task.error.as_deref().unwrap_or_default())?;
            task.steps.iter().try_for_each(|step| short("resources.task.steps", step))?;
            validate_changes(&task.changes)?;
        }
        if let Some(hold) = &self.hold {
            short("resources.hold.reason", &hold.reason)?;
            hold.commands.iter().try_for_each(|command| plain("resources.hold.commands", command))?;
            validate_changes(&hold.changes)?;
        }
        Ok(())
    }
}

fn validate_changes(changes: &[Change]) -> Result<(), InvalidReport> {
    changes.iter().flat_map(|it| [&it.what, &it.old, &it.new]).try_for_each(|text| short("changes", text))
}

/// Reads a list, and stops at the entry that is too many, so that a hostile report needs little memory.
fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(entry);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

/// Like [`short`], without control characters, which could end a line where somebody pastes it.
fn plain(what: &'static str, text: &str) -> Result<(), InvalidReport> {
    short(what, text)?;
    if text.chars().any(char::is_control) { Err(InvalidReport::ControlCharacter(what)) } else { Ok(()) }
}

fn short(what: &'static str, text: &str) -> Result<(), InvalidReport> {
    // Bytes first, because counting characters takes longer.
    if text.len() > MAX_TEXT && text.chars().count() > MAX_TEXT { Err(InvalidReport::TooLong(what)) } else { Ok(()) }
}

/// The text, cut to the maximum length that is accepted.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        None => text.to_owned(),
        Some(_) => text.chars().take(MAX_TEXT - 1).chain(['…']).collect(),
    }
}

/// Whether a provisioner can have this name: 1 to 63 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter
/// or digit.
pub fn is_valid_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
