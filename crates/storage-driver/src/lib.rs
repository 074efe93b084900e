//! What a storage system can do for a resource, whatever it is made of.
//!
//! A driver is level-triggered: [`Driver::ensure`] leads from whatever is there to what is wanted, and can be called
//! again after having been killed at any of its effects. It tells each effect before it has it, by `guard`; when that
//! fails (the lease is lost, the program is told to stop), it stops there and then.

use std::error::Error;
use std::fmt::Debug;

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use crate::limits::{QuotaLimits, Terabyte, Usage};
use crate::place::Place;

#[cfg(any(test, feature = "conformance"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub mod conformance;
pub mod credential;
pub mod limits;
pub mod memory;
mod mode;
pub mod place;
pub mod registration;
pub mod walked;

pub use mode::Mode;

/// A directory as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// UUID of the Waldur resource: the mark by which the directory is known as ours.
    pub id: Uuid,
    /// Where it is.
    pub place: Place,
    /// Modes of the directories above, from the root down; those that are missing are made with them.
    pub parents: Vec<Mode>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode.
    pub mode: Mode,
    /// Quotas, as the system holds them (see [`Driver::held_as`]).
    pub limits: QuotaLimits,
    /// Project ID; `None` on systems without them, and for a directory that goes away and has none.
    pub project: Option<u32>,
}

impl Desired {
    /// Quotas, mode and owner, for people; space in the unit of the system.
    pub fn describe(&self, terabyte: Terabyte) -> String {
        let Self { uid, gid, mode, .. } = self;
        format!("{}, mode {:o}, owner {uid}:{gid}", self.limits.describe(terabyte), mode.0)
    }
}

/// What is found for a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// Nothing, neither at its place nor in the trash.
    Absent,
    /// A directory of this resource.
    Ours(Present),
    /// A directory that nobody has marked.
    Unmarked(Present),
    /// Something else is in the way: another resource's directory, a file, a symlink. Why it is in the way.
    Obstructed(String),
    /// In the trash, by the time since when (seconds since 1970).
    Trashed {
        /// When it was put there.
        since: u64,
    },
    /// In the trash, claimed by a purge: what is left of it cannot be brought back.
    Purging {
        /// When it was put into the trash.
        since: u64,
    },
}

/// A directory that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Present {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode.
    pub mode: Mode,
    /// Quotas; `None` where none are set.
    pub limits: Option<QuotaLimits>,
    /// Project ID; `None` on systems that have none.
    pub project: Option<u32>,
    /// What is used, where that is known without a walk.
    pub usage: Option<Usage>,
    /// ACLs; `None` where they are left alone.
    pub acl: Option<Acl>,
}

/// The ACLs of a directory beyond what its mode says, as `setfacl` takes them. Empty: the mode says all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acl {
    /// As they are.
    pub found: String,
    /// As the system's settings have them, which no document knows.
    #[serde(rename = "wanted")]
    pub desired: String,
}

impl Present {
    /// The values that differ from what is wanted.
    pub fn differences(&self, desired: &Desired) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.limits != Some(desired.limits) {
            differences.push(Difference::Quota { old: self.limits, new: desired.limits });
        }
        if self.mode != desired.mode {
            differences.push(Difference::Mode { old: self.mode, new: desired.mode });
        }
        if (self.uid, self.gid) != (desired.uid, desired.gid) {
            let shown = |uid: u32, gid: u32| format!("{uid}:{gid}");
            differences
                .push(Difference::Owner { old: shown(self.uid, self.gid), new: shown(desired.uid, desired.gid) });
        }
        if let (Some(old), Some(new)) = (self.project, desired.project)
            && old != new
        {
            differences.push(Difference::Project { old, new });
        }
        if let Some(acl) = self.acl.as_ref().filter(|acl| acl.found != acl.desired) {
            differences.push(Difference::Acl { old: acl.found.clone(), new: acl.desired.clone() });
        }
        differences
    }
}

/// A value of a directory that differs from what is wanted: as it is, and as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Difference {
    /// Quotas; no old ones where none are set.
    Quota { old: Option<QuotaLimits>, new: QuotaLimits },
    /// Mode.
    Mode { old: Mode, new: Mode },
    /// Owner and group, as `UID:GID`.
    Owner { old: String, new: String },
    /// Project ID.
    Project { old: u32, new: u32 },
    /// ACLs beyond the mode.
    Acl { old: String, new: String },
}

impl Difference {
    /// What differs, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quota { .. } => "quota",
            Self::Mode { .. } => "mode",
            Self::Owner { .. } => "owner",
            Self::Project { .. } => "project ID",
            Self::Acl { .. } => "ACL",
        }
    }

    /// Old and new value, for people; space in the unit of the system.
    pub fn describe(&self, terabyte: Terabyte) -> String {
        let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        let name = self.name();
        match self {
            Self::Quota { old, new } => limits::change(old.as_ref(), new, terabyte),
            Self::Mode { old, new } => format!("{name} {:o} → {:o}", old.0, new.0),
            Self::Owner { old, new } => format!("{name} {old} → {new}"),
            Self::Project { old, new } => format!("{name} {old} → {new}"),
            Self::Acl { old, new } => format!("{name} {} → {}", or_none(old), or_none(new)),
        }
    }
}

/// A tree in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trashed {
    /// UUID of its resource.
    pub id: Uuid,
    /// When it was put there, in seconds since 1970.
    pub since: u64,
}

/// Why a place within another resource's directory is not used. The data of the one would go away with the other.
pub fn nested(above: &str, other: Uuid) -> String {
    format!(
        "it would lie within {above}, which is marked as the directory of another resource, {other}: give one of them another \
         path in Waldur"
    )
}

/// A directory that bears the mark of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Marked {
    /// UUID of the resource.
    pub id: Uuid,
    /// Where it is, below the root of the system.
    pub path: String,
}

/// What stopped a driver.
#[derive(Debug, Error)]
pub enum DriverError {
    /// It may work the next time: the system is away, busy, full, or not set up.
    #[error("{what}")]
    Passing {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Something is in the way that is not ours. For a person.
    #[error("{0}")]
    Conflict(String),
    /// Told to stop before an effect: by a signal, or because the lease is lost.
    #[error("stopped before: {0}")]
    Stopped(String),
}

impl DriverError {
    /// A passing fault with its cause.
    pub fn passing(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Passing { what: what.into(), source: Some(source.into()) }
    }

    /// A passing fault that says all.
    pub fn unclear(what: impl Into<String>) -> Self {
        Self::Passing { what: what.into(), source: None }
    }
}

/// Why a tree does not come back from the trash.
pub fn being_purged() -> DriverError {
    DriverError::Conflict(
        "its directory is being deleted for good by `purge`, and what is left of it cannot be brought back; once `purge` has \
         ended, `restore --make` makes an empty one"
            .into(),
    )
}

/// A fault of reading a whole list, for each of those that were asked for.
pub fn same_for_all<T>(fault: &DriverError, count: usize) -> Vec<Result<T, DriverError>> {
    let told = error_chain(fault);
    (0..count).map(|_| Err(DriverError::unclear(told.clone()))).collect()
}

/// Is told each effect before it is had; an error stops the driver.
pub type Guard<'a> = &'a (dyn Fn(&str) -> Result<(), DriverError> + Sync);

/// One storage system. Every fault of reading is a [`DriverError`], never an answer: what is not known is not absent.
pub trait Driver: Debug + Send + Sync {
    /// Whether the system is there and set up as it must be; called before each pass. The fault says what to do.
    fn ready(&self) -> Result<(), DriverError>;

    /// The limits that the system reads back when it is told these: rounded up to its blocks.
    fn held_as(&self, limits: QuotaLimits) -> QuotaLimits;

    /// Whether nothing counts under this project ID, and nothing is limited by it; asked only of systems that have project
    /// IDs.
    fn is_free(&self, project: u32) -> Result<bool, DriverError>;

    /// What an operator should know before the first order, beyond [`Driver::ready`]: a note, or a fault for what will stop
    /// orders. `above` are the directories above those of the resources. Called by `check` alone; changes nothing.
    fn inspect(&self, _above: &[Place]) -> Vec<Result<String, DriverError>> {
        Vec::new()
    }

    /// What is there, one answer for each that is wanted, in their order.
    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>>;

    /// Everything in the trash that no purge has claimed.
    fn trash(&self) -> Result<Vec<Trashed>, DriverError>;

    /// Everything in the trash that a purge has claimed and not deleted yet: it goes on, or was killed.
    fn claimed(&self) -> Result<Vec<Trashed>, DriverError>;

    /// All directories with a mark, of whatever resource, down to `levels` below the root; not those in the trash.
    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError>;

    /// What the files of trees in the trash take, each given with its project ID on systems that have them; `None` where it is
    /// not there. May walk.
    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>>;

    /// When the tree in the trash was last changed, in seconds since 1970, by the clock of the storage system; `None` where
    /// the system does not say.
    fn changed(&self, _trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        Ok(None)
    }

    /// Makes the directory, or makes the one that is there and ours as wanted. Never touches what is not ours.
    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Freezes the directory (nobody enters, nothing grows) and puts it into the trash, under its UUID and `now` (seconds
    /// since 1970). Nothing to do where it is there already.
    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Brings the directory back from the trash, as wanted.
    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Marks the unmarked directory at the place as this resource's.
    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Claims a tree in the trash for a purge, in one step that cannot happen at the same time as [`Driver::restore`]:
    /// afterwards nothing but [`Driver::purge`] touches it. Only what [`Driver::trash`] named, and only that. Takes no longer
    /// for large trees. Nothing to do where it is claimed already, or gone.
    ///
    /// `project` is the ID that it was given, on systems that have them: its limits are removed. What the tree says of itself
    /// does not count, for its owner can change that to another's.
    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Deletes a tree in the trash for good, after claiming it. Killed midway, it is taken up by the next call.
    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError>;

    /// What the files of each take; `None` where the directory is not there or not ours. May walk.
    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>>;
}

/// An error with its causes, as one line.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
