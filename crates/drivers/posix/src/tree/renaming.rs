//! Renaming directories, and never over anything.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RenameFlags, Stat};
use rustix::io::Errno;

use super::handle::{passing, stat};
#[cfg(test)]
use super::injected::{self, Moment};
use storage_driver::DriverError;

/// What a renaming came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renamed {
    /// The directory has its new name.
    Done,
    /// Something has that name already. Nothing was renamed.
    Taken,
    /// Under the new name there is something else: who may write there exchanged the directory meanwhile.
    Exchanged,
}

impl Renamed {
    /// A conflict, unless it was done.
    pub(crate) fn or_conflict(self, new: &str) -> Result<(), DriverError> {
        match self {
            Self::Done => Ok(()),
            Self::Taken => Err(DriverError::Conflict(format!("{new} is there already"))),
            Self::Exchanged => Err(DriverError::Conflict(format!(
                "{new} was exchanged while it was being renamed: look at what is there now"
            ))),
        }
    }
}

/// Renames the directory that was opened, and looks whether it was that one.
pub(crate) fn rename(
    directory: &OwnedFd,
    [from, to]: [&OwnedFd; 2],
    [old, new]: [&str; 2],
) -> Result<Renamed, DriverError> {
    if !rename_named([from, to], [old, new])? {
        return Ok(Renamed::Taken);
    }
    let judged = stat(directory)?;
    let there = rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW);
    let same = there.is_ok_and(|there| (there.st_dev, there.st_ino) == (judged.st_dev, judged.st_ino));
    Ok(if same { Renamed::Done } else { Renamed::Exchanged })
}

/// Renames whatever directory has this name; `false` where something has the new one already.
pub(crate) fn rename_named([from, to]: [&OwnedFd; 2], [old, new]: [&str; 2]) -> Result<bool, DriverError> {
    let renamed = match without_replacing([from, to], [old, new]) {
        Err(Errno::INVAL | Errno::NOSYS) => looked_before([from, to], [old, new]),
        renamed => renamed,
    };
    #[cfg(test)]
    injected::at(Moment::Renamed);
    match renamed {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(passing(format!("{old} cannot be renamed to {new}"), error)),
    }
}

fn without_replacing([from, to]: [&OwnedFd; 2], [old, new]: [&str; 2]) -> Result<(), Errno> {
    #[cfg(test)]
    if let Some(error) = injected::refusal() {
        return Err(error);
    }
    rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
}

/// For clients whose file system knows no such flag: CephFS's and Lustre's in the kernel, NFS. Who makes the new name
/// after it was looked for loses no more than an empty directory, for a directory replaces nothing else.
fn looked_before([from, to]: [&OwnedFd; 2], [old, new]: [&str; 2]) -> Result<(), Errno> {
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
