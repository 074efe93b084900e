//! Project IDs and quotas: what differs between file systems.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::deletion::EachFile;
use project_quota::Project;
use storage_driver::DriverError;
use storage_driver::limits::{QuotaLimits, Usage};

pub mod ceph;
pub mod declared;
pub mod kernel;
pub mod lustre;
mod tagging;

/// Quotas of a file system. All calls take an open handle, because users could swap the directory at a path.
pub trait Quotas: Debug + Send + Sync {
    /// Checks that quotas are enabled for the file system of this root. The error says what to do.
    fn ready(&self, root: BorrowedFd<'_>) -> Result<(), DriverError>;

    /// What `check` reports about the quotas of this root: notes, and errors that will make orders fail.
    fn inspect(&self, _root: BorrowedFd<'_>) -> Vec<Result<String, DriverError>> {
        Vec::new()
    }

    /// Block size of space limits, in bytes.
    fn block(&self) -> u64;

    /// The limits as they are read back after these are set.
    fn stored_limits(&self, limits: &QuotaLimits) -> QuotaLimits {
        limits.in_blocks_of(self.block())
    }

    /// Whether quotas are those of project IDs, which the kernel stores with each file.
    fn has_project_ids(&self) -> bool {
        false
    }

    /// The directory's project ID; `None` on file systems without project IDs, 0 if none is set.
    fn project(&self, directory: BorrowedFd<'_>) -> Result<Option<u32>, DriverError> {
        if self.has_project_ids() { tagging::project(directory).map(Some) } else { Ok(None) }
    }

    /// The project ID, possibly 0, that new files in the directory inherit; `None` if they inherit none. Directories with other
    /// IDs cannot be renamed into a directory whose ID is inherited.
    fn inherited_project(&self, directory: BorrowedFd<'_>) -> Result<Option<u32>, DriverError> {
        if self.has_project_ids() { tagging::inherited_project(directory) } else { Ok(None) }
    }

    /// Whether the directory has a quota of its own, so that nothing can be renamed into or out of it.
    fn is_quota_realm(&self, _directory: BorrowedFd<'_>) -> Result<bool, DriverError> {
        Ok(false)
    }

    /// Number of snapshots that prevent the deletion of the directory.
    fn snapshots(&self, _directory: BorrowedFd<'_>) -> Result<u64, DriverError> {
        Ok(0)
    }

    /// Index of the directory's metadata server; `None` on file systems that have only one.
    fn metadata_server(&self, _directory: BorrowedFd<'_>, _path: &Path) -> Result<Option<u32>, DriverError> {
        Ok(None)
    }

    /// Why this file system can refuse to rename a directory to another parent (EXDEV), with the remedy.
    fn why_renames_fail(&self) -> Option<&'static str> {
        None
    }

    /// Whether the limits of a project without files are the default of the file system.
    fn are_default(&self, _root: BorrowedFd<'_>, _limits: &QuotaLimits) -> Result<bool, DriverError> {
        Ok(false)
    }

    /// Removes the directory's project ID, and stops new files from inheriting it.
    fn untag(&self, directory: BorrowedFd<'_>) -> Result<(), DriverError> {
        if self.has_project_ids() { tagging::untag(directory) } else { Ok(()) }
    }

    /// Sets the project ID of the directory and of new files in it. With `within`, also tags all existing files in it, and
    /// calls it for each.
    fn tag(&self, directory: BorrowedFd<'_>, project: u32, within: Option<EachFile<'_>>) -> Result<(), DriverError> {
        if self.has_project_ids() { tagging::tag(directory, number(project)?, within) } else { Ok(()) }
    }

    /// Limits and usage of the directory; `None` if not set, or not known without a walk.
    fn read(
        &self,
        directory: BorrowedFd<'_>,
        project: u32,
    ) -> Result<(Option<QuotaLimits>, Option<Usage>), DriverError>;

    /// Sets all four limits.
    fn set(&self, directory: BorrowedFd<'_>, project: u32, limits: &QuotaLimits) -> Result<(), DriverError>;

    /// Removes the limits of a purged directory with this project ID.
    fn clear(&self, root: BorrowedFd<'_>, project: u32) -> Result<(), DriverError>;
}

/// Validates a project ID.
fn number(project: u32) -> Result<Project, DriverError> {
    Project::new(project).ok_or_else(|| DriverError::Conflict(format!("{project} is not a valid project ID")))
}
