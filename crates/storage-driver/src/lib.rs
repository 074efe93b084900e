//! The interface between the storage provisioner and the storage systems that it manages.
//!
//! A *driver* implements [`Driver`] for one kind of storage. The provisioner decides what should happen; the driver
//! reports the state of directories ([`Observed`]) and changes it to a [`Desired`] one. Each Waldur resource has one
//! directory with an owner, a mode and quotas. A removed directory first goes into a trash on the same storage, from which
//! it can be restored until it is purged.
//!
//! To write a driver:
//!
//! 1. Implement [`Driver`]. `examples/inventory.rs` is a complete driver in under 150 lines; [`memory`] is another one.
//! 2. Run the suite in `conformance` (feature `conformance`) against it.
//! 3. Export a list of [`registration::Registration`]s, and name it in the provisioner's `drivers.rs`.
//!
//! `docs/drivers.md` in the repository explains each step.
//!
//! # Rules for drivers
//!
//! - **Work from the current state.** Every operation can be called again after it failed or was killed at any point, and
//!   then completes. It does nothing if there is nothing to do.
//! - **Call the [`Guard`] before every side effect**, and return its error at once. The provisioner logs the side effect
//!   and checks that it still holds the lease.
//! - **Mark directories.** A driver recognizes a resource's directory by a mark on the storage that holds the resource's
//!   UUID. It never changes a directory that has no mark or the mark of another resource.
//! - **Unknown is not absent.** If the state cannot be read, return an error.
//! - **Block.** Calls come from several threads; there is no async runtime.

#![warn(missing_docs)]

use std::error::Error;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::limits::{QuotaLimits, Terabyte, Usage};
use crate::place::Place;

#[cfg(any(test, feature = "conformance"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "on constants, and in helpers for tests")]
pub mod conformance;
pub mod credential;
pub mod limits;
pub mod memory;
mod mode;
pub mod place;
pub mod registration;
pub mod walked;

pub use mode::Mode;

/// The desired state of a resource's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// UUID of the Waldur resource, which marks the directory.
    pub id: Uuid,
    /// Path below the root of the system.
    pub place: Place,
    /// Modes of the parent directories, from the root down. Missing parents are created with these modes.
    pub parents: Vec<Mode>,
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Permissions.
    pub mode: Mode,
    /// Quotas as the system stores them (see [`Driver::stored_limits`]).
    pub limits: QuotaLimits,
    /// Project ID. `None` on systems without project IDs, and for a directory that is to be removed and has none.
    pub project: Option<u32>,
}

impl Desired {
    /// Quotas, mode and owner as text, with space in units of `terabyte`.
    pub fn describe(&self, terabyte: Terabyte) -> String {
        let Self { uid, gid, mode, .. } = self;
        format!("{}, mode {:o}, owner {uid}:{gid}", self.limits.describe(terabyte), mode.0)
    }
}

/// The observed state of a resource's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// The directory is neither at its place nor in the trash.
    Absent,
    /// The directory at the place has the mark of this resource.
    Ours(Present),
    /// The directory at the place has no mark.
    Unmarked(Present),
    /// Something else is at the place: another resource's directory, a file, a symlink. Holds a description.
    Obstructed(String),
    /// In the trash.
    Trashed {
        /// When it was put there, in seconds since 1970.
        since: u64,
    },
    /// In the trash and claimed by a purge: it cannot be restored.
    Purging {
        /// When it was put into the trash, in seconds since 1970.
        since: u64,
    },
}

impl Observed {
    /// The usage of the resource's own directory, if it is known.
    pub fn usage(self) -> Option<Usage> {
        if let Self::Ours(present) = self { present.usage } else { None }
    }

    /// The state without the usage, which also changes by itself.
    #[must_use]
    pub fn without_usage(mut self) -> Self {
        if let Self::Ours(present) | Self::Unmarked(present) = &mut self {
            present.usage = None;
        }
        self
    }
}

/// The state of an existing directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Permissions.
    pub mode: Mode,
    /// Quotas; `None` if none are set.
    pub limits: Option<QuotaLimits>,
    /// Project ID; `None` on systems without project IDs.
    pub project: Option<u32>,
    /// Usage, if the system knows it without a walk over the files.
    pub usage: Option<Usage>,
    /// ACLs; `None` if the driver does not manage them.
    pub acl: Option<Acl>,
}

/// The ACL entries of a directory beyond its mode, in the syntax of `setfacl`. Empty if there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// The observed entries.
    pub found: String,
    /// The entries that the system's settings require.
    #[serde(rename = "wanted")]
    pub desired: String,
}

impl Present {
    /// The values that differ from `desired`.
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

/// A value of a directory that differs from the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
#[expect(missing_docs, reason = "`old` is the observed value, `new` the desired one")]
pub enum Difference {
    /// Quotas. `old` is `None` if none are set.
    Quota { old: Option<QuotaLimits>, new: QuotaLimits },
    /// Permissions.
    Mode { old: Mode, new: Mode },
    /// Owner and group, as `UID:GID`.
    Owner { old: String, new: String },
    /// Project ID.
    Project { old: u32, new: u32 },
    /// ACL entries beyond the mode.
    Acl { old: String, new: String },
}

impl Difference {
    /// The name of the value in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quota { .. } => "quota",
            Self::Mode { .. } => "mode",
            Self::Owner { .. } => "owner",
            Self::Project { .. } => "project ID",
            Self::Acl { .. } => "ACL",
        }
    }

    /// Name, old and new value as text, with space in units of `terabyte`.
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

/// A directory in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trashed {
    /// UUID of the resource.
    pub id: Uuid,
    /// When it was put there, in seconds since 1970.
    pub since: u64,
}

/// A directory with the mark of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Marked {
    /// UUID of the resource.
    pub id: Uuid,
    /// Path below the root of the system.
    pub path: String,
}

/// Why an operation of a driver failed.
#[derive(Debug, Error)]
pub enum DriverError {
    /// The operation may succeed later: the system is unavailable, busy, full or not configured.
    #[error("{what}")]
    Temporary {
        /// What failed, and what to do.
        what: String,
        /// The cause.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Something that does not belong to the resource is in the way. An operator has to resolve it.
    #[error("{0}")]
    Conflict(String),
    /// The guard refused this side effect, because of a signal or a lost lease.
    #[error("stopped before: {0}")]
    Stopped(String),
}

impl DriverError {
    /// A [`DriverError::Temporary`] with its cause.
    pub fn temporary_from(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Temporary { what: what.into(), source: Some(source.into()) }
    }

    /// A [`DriverError::Temporary`] without a cause.
    pub fn temporary(what: impl Into<String>) -> Self {
        Self::Temporary { what: what.into(), source: None }
    }
}

/// The text of [`Observed::Obstructed`] for a place within the directory of another resource. Such a directory would be
/// removed together with the other one.
pub fn nested(above: &str, other: Uuid) -> String {
    format!(
        "it would be inside {above}, which is marked as the directory of another resource, {other}: change the path of one of \
         them in Waldur"
    )
}

/// The error of [`Driver::restore`] for a directory that a purge has claimed.
pub fn being_purged() -> DriverError {
    DriverError::Conflict(
        "`purge` is deleting its directory, and what is left cannot be restored; when `purge` has ended, `restore --make` \
         creates an empty one"
            .into(),
    )
}

/// Repeats the error of a list request for every requested item.
pub fn same_for_all<T>(error: &DriverError, count: usize) -> Vec<Result<T, DriverError>> {
    let text = error_chain(error);
    (0..count).map(|_| Err(DriverError::temporary(text.clone()))).collect()
}

/// An error and its causes in one line.
// The crate `program` has the same function, but drivers of third parties must not depend on our programs.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Called with a description before every side effect; an error aborts the operation. During a long side effect, such as a
/// walk over a tree, it is called again with the same description, which is logged once.
pub type Guard<'a> = &'a (dyn Fn(&str) -> Result<(), DriverError> + Sync);

/// One storage system.
///
/// Methods that take several items return one result for each, in the same order. A project ID (`project`) is `None` on
/// systems without project IDs.
pub trait Driver: Debug + Send + Sync {
    /// Checks that the system is available and configured. Called before each pass; the error says what to do.
    fn ready(&self) -> Result<(), DriverError>;

    /// The limits that [`Driver::observe`] reports after these are set, for example rounded up to blocks. By default,
    /// unchanged.
    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        limits
    }

    /// Whether no file has this project ID and no limit is set for it. Called only on systems with project IDs.
    fn is_free(&self, _project: u32) -> Result<bool, DriverError> {
        Ok(true)
    }

    /// The project ID of a directory in the trash; `None` if it has none, or the system has no project IDs. Called for resources
    /// whose ID the record does not contain.
    fn trash_project(&self, _trashed: &Trashed) -> Result<Option<u32>, DriverError> {
        Ok(None)
    }

    /// Reads the record: a text that lives with the storage, so that every provisioner of this system reads the same one.
    /// Empty at first. `None` if the driver keeps none, as by default; systems with project IDs need one.
    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        Ok(None)
    }

    /// Appends to the record, and makes it durable. Must never overwrite what another provisioner has appended, and users must not be
    /// able to read or change it. If the program is killed, any part of `text` can be missing at its end.
    fn append_to_record(&self, _text: &[u8]) -> Result<(), DriverError> {
        Ok(())
    }

    /// Looks for problems that [`Driver::ready`] does not report: notes, and errors that will make orders fail. `above` are
    /// the parent directories of the resources. Called only by the command `check`; changes nothing.
    fn inspect(&self, _above: &[Place]) -> Vec<Result<String, DriverError>> {
        Vec::new()
    }

    /// Reads the state of each directory.
    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>>;

    /// Lists the directories in the trash that no purge has claimed.
    fn trash(&self) -> Result<Vec<Trashed>, DriverError>;

    /// Lists the directories in the trash that a running or aborted purge has claimed.
    fn claimed(&self) -> Result<Vec<Trashed>, DriverError>;

    /// Lists all marked directories up to `levels` below the root, except those in the trash.
    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError>;

    /// Usage of directories in the trash, given with their project IDs; `None` if the directory is not there. May walk over
    /// the files.
    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>>;

    /// When a directory in the trash was last changed, in seconds since 1970 by the clock of the storage system; `None` if
    /// the system does not report it.
    fn changed(&self, _trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        Ok(None)
    }

    /// Creates the directory, or changes the existing one to the desired state. A [`DriverError::Conflict`] if something
    /// else is at the place, or if the place is inside another resource's directory.
    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Freezes the directory (no access, no growth) and moves it into the trash, with the time `now` in seconds since
    /// 1970.
    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Moves the directory from the trash back to its place, in the desired state. A [`DriverError::Conflict`] if a purge
    /// has claimed it ([`being_purged`]).
    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Marks the unmarked directory at the place as this resource's.
    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Claims a directory in the trash for a purge, in one atomic step that excludes a concurrent [`Driver::restore`]. From
    /// then on only [`Driver::purge`] changes it. Quick even for large directories.
    ///
    /// Removes the limits of `project`. Does not use the project ID of the files, because their owner can change it to that of
    /// another project.
    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Claims a directory in the trash, unless it is claimed already, and deletes it.
    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError>;

    /// Usage of each directory; `None` if it does not exist or is not the resource's. By default as [`Driver::observe`]
    /// reports it; a driver for systems without accounting walks over the files.
    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        self.observe(desired).into_iter().map(|observed| observed.map(Observed::usage)).collect()
    }
}
