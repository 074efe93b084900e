//! The half of a directory driver that differs between file systems: project IDs and quotas.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::path::Path;

use storage_driver::DriverError;
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::walked::Walked;

pub mod ceph;
pub mod declared;
pub mod kernel;
pub mod lustre;
mod tagging;

/// How a file system limits a directory. All calls name the directory by an open handle, never by a path that somebody
/// could exchange.
pub trait Quotas: Debug + Send + Sync {
    /// Whether quotas are on for the file system of this root; the fault says what to do.
    fn ready(&self, root: BorrowedFd<'_>) -> Result<(), DriverError>;

    /// What `check` reports about the quotas of this root: a note, or a fault for what will stop orders.
    fn inspect(&self, _root: BorrowedFd<'_>) -> Vec<Result<String, DriverError>> {
        Vec::new()
    }

    /// In what blocks of bytes limits of space are held.
    fn block(&self) -> u64;

    /// What is read back when these limits are set.
    fn held_as(&self, limits: &QuotaLimits) -> QuotaLimits {
        limits.in_blocks_of(self.block())
    }

    /// The directory's project ID; `None` where the system has none, 0 where none is set.
    fn project(&self, directory: BorrowedFd<'_>) -> Result<Option<u32>, DriverError>;

    /// The project ID that the directory hands down to what is made in it, 0 too; `None` where it hands down none. Nothing
    /// with another ID can be renamed into one that does.
    fn hands_down(&self, _: BorrowedFd<'_>) -> Result<Option<u32>, DriverError> {
        Ok(None)
    }

    /// Whether the directory has a quota that nothing can be renamed across.
    fn is_realm(&self, _directory: BorrowedFd<'_>) -> Result<bool, DriverError> {
        Ok(false)
    }

    /// The number of snapshots that keep the directory from being deleted.
    fn snapshots(&self, _directory: BorrowedFd<'_>) -> Result<u64, DriverError> {
        Ok(0)
    }

    /// The index of the metadata server that holds the directory; `None` where there are not several.
    fn metadata_server(&self, _directory: BorrowedFd<'_>, _path: &Path) -> Result<Option<u32>, DriverError> {
        Ok(None)
    }

    /// Why this file system may refuse to rename a directory to another parent (EXDEV), with the remedy.
    fn why_across(&self) -> Option<&'static str> {
        None
    }

    /// Whether limits that a project without files shows are the file system's default, and not its own.
    fn are_default(&self, _root: BorrowedFd<'_>, _limits: &QuotaLimits) -> Result<bool, DriverError> {
        Ok(false)
    }

    /// Has the directory hand nothing down, and count nowhere.
    fn untag(&self, _: BorrowedFd<'_>) -> Result<(), DriverError> {
        Ok(())
    }

    /// Gives the directory, and all that will be made in it, a project ID. Where it is not new, what is in it
    /// gets the ID, too, which may be many files: `within` counts them.
    fn tag(&self, directory: BorrowedFd<'_>, project: u32, within: Option<&Walked>) -> Result<(), DriverError>;

    /// Limits and usage of the directory; `None` for what is not set or not known without a walk.
    fn read(
        &self,
        directory: BorrowedFd<'_>,
        project: u32,
    ) -> Result<(Option<QuotaLimits>, Option<Usage>), DriverError>;

    /// Sets all four limits.
    fn set(&self, directory: BorrowedFd<'_>, project: u32, limits: &QuotaLimits) -> Result<(), DriverError>;

    /// Takes limits away, when the tree with this project ID has been purged.
    fn clear(&self, root: BorrowedFd<'_>, project: u32) -> Result<(), DriverError>;
}
