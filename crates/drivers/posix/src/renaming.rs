//! Renames directories without replacing anything.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RenameFlags, Stat};
use rustix::io::Errno;

use crate::handle::{stat, temporary_error};
#[cfg(test)]
use crate::injected::{self, Moment};
use storage_driver::DriverError;

/// The outcome of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renamed {
    /// The directory has its new name.
    Done,
    /// The new name exists. Nothing was renamed.
    Taken,
    /// Another directory was renamed, because a user had swapped it.
    Swapped,
}

impl Renamed {
    /// Returns a conflict unless the directory was renamed.
    pub(crate) fn or_conflict(self, new: &str) -> Result<(), DriverError> {
        match self {
            Self::Done => Ok(()),
            Self::Taken => Err(DriverError::Conflict(format!("{new} exists already"))),
            Self::Swapped => Err(DriverError::Conflict(format!(
                "{new} was swapped with another directory while it was being renamed: check what is there now"
            ))),
        }
    }
}

/// Renames the opened directory, and checks that no other one was renamed.
pub(crate) fn rename(
    directory: &OwnedFd,
    [from, to]: [&OwnedFd; 2],
    [old, new]: [&str; 2],
) -> Result<Renamed, DriverError> {
    if !rename_named([from, to], [old, new])? {
        return Ok(Renamed::Taken);
    }
    let opened = stat(directory)?;
    let there = rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW);
    let same = there.is_ok_and(|there| (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino));
    Ok(if same { Renamed::Done } else { Renamed::Swapped })
}

/// Renames the directory with this name; `false` if the new name exists.
pub(crate) fn rename_named([from, to]: [&OwnedFd; 2], [old, new]: [&str; 2]) -> Result<bool, DriverError> {
    let renamed = match rename_without_replacing([from, to], [old, new]) {
        Err(Errno::INVAL | Errno::NOSYS) => rename_if_absent([from, to], [old, new]),
        renamed => renamed,
    };
    #[cfg(test)]
    injected::at(Moment::Renamed);
    match renamed {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(temporary_error(format!("{old} cannot be renamed to {new}"), error)),
    }
}

fn rename_without_replacing([from, to]: [&OwnedFd; 2], [old, new]: [&str; 2]) -> Result<(), Errno> {
    #[cfg(test)]
    if let Some(error) = injected::rename_error() {
        return Err(error);
    }
    rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
}

/// Checks for the new name before the rename. For file systems that cannot rename without replacing: CephFS and Lustre in the
/// kernel, NFS. A user who creates the new name after the check
/// loses at most an empty directory, because a directory replaces nothing else.
fn rename_if_absent([from, to]: [&OwnedFd; 2], [old, new]: [&str; 2]) -> Result<(), Errno> {
    let look = |above: &OwnedFd, name: &str| rustix::fs::statat(above.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    let is_directory = |it: Stat| FileType::from_raw_mode(it.st_mode).is_dir();
    match look(to, new) {
        Err(Errno::NOENT) => {}
        Ok(_) => return Err(Errno::EXIST),
        Err(error) => return Err(error),
    }
    if !is_directory(look(from, old)?) {
        return Err(Errno::NOTDIR);
    }
    rustix::fs::renameat(from, old, to, new)
}
