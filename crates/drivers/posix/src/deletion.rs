//! Deletes trees of any depth: users must not be able to create a tree that cannot be deleted.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;

use crate::handle::{open_below, temporary_error};
#[cfg(test)]
use crate::injected::{self, Moment};
use storage_driver::DriverError;

/// How many levels the recursion descends. Each level needs two handles and stack space.
const DEEPEST: usize = 64;
/// How often a directory is read again if it is not empty.
const ROUNDS: u32 = 64;
/// The same for the top of a tree, to which deep directories are lifted. Each round descends [`DEEPEST`] levels.
const ROUNDS_OF_TOP: u32 = 1 << 14;

/// Deletes a tree in the trash by handles, without following symlinks, crossing mounts or using `..`. If it is killed, the next
/// call continues.
///
/// Directories deeper than [`DEEPEST`] are lifted: renamed to the top of the tree. File systems with project quotas refuse that
/// for a directory with another project ID than the top; `same_project` sets that ID. `ours` checks each directory before its content
/// is deleted.
pub fn delete(
    trash: &OwnedFd,
    name: &str,
    (same_project, ours): (OnDirectory<'_>, OnDirectory<'_>),
    one: EachFile<'_>,
) -> Result<(), DriverError> {
    let name = CString::new(name).map_err(|error| DriverError::temporary_from("a name in the trash", error))?;
    let top = match open_below(trash, &*name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(cannot(error)),
    };
    Deletion { top: &top, same_project, ours, one, lifted: 0 }.directory(trash.as_fd(), &name, top.as_fd(), 0)
}

/// Sets the project ID of the top directory, or checks that a directory is the resource's.
pub type OnDirectory<'a> = &'a dyn Fn(BorrowedFd<'_>) -> Result<(), DriverError>;

/// Called for each file or directory of a walk. An error stops the walk.
pub type EachFile<'a> = &'a dyn Fn() -> Result<(), DriverError>;

struct Deletion<'a> {
    top: &'a OwnedFd,
    same_project: OnDirectory<'a>,
    ours: OnDirectory<'a>,
    one: EachFile<'a>,
    /// Number of names that were tried for lifted directories.
    lifted: u64,
}

impl Deletion<'_> {
    /// Deletes a directory and its content. `name` is its name in `above`.
    fn directory(
        &mut self,
        above: BorrowedFd<'_>,
        name: &CStr,
        directory: BorrowedFd<'_>,
        depth: usize,
    ) -> Result<(), DriverError> {
        for _ in 0..if depth == 0 { ROUNDS_OF_TOP } else { ROUNDS } {
            let found = self.contents(directory, depth)?;
            #[cfg(test)]
            injected::at(Moment::Emptied);
            (self.one)()?;
            match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Lifted directories, and entries that were missed because others were deleted while the directory was read.
                Err(Errno::NOTEMPTY | Errno::EXIST) if found => close(directory),
                Err(error) => return Err(cannot(error)),
            }
        }
        Err(DriverError::temporary(
            "a directory in the trash does not become empty: a process has it open and creates files in it, or its file system \
             does not show them; the rest of the tree is still there",
        ))
    }

    /// Deletes or lifts all entries that one reading of a directory returns. Returns whether there were any.
    fn contents(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<bool, DriverError> {
        let mut found = false;
        for entry in Dir::read_from(directory).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            let refused = match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    (self.one)()?;
                    continue;
                }
                // Either means that it is a directory.
                Err(error @ (Errno::ISDIR | Errno::PERM)) => error,
                Err(error) => return Err(cannot(error)),
            };
            let below = match open_below(directory, name) {
                Ok(below) => below,
                // Not a directory, so there was another reason.
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(cannot(refused)),
                Err(Errno::XDEV) => {
                    return Err(DriverError::Conflict(
                        "another file system is mounted in a tree in the trash: unmount it first".into(),
                    ));
                }
                Err(error) => return Err(cannot(error)),
            };
            (self.ours)(below.as_fd())?;
            if depth < DEEPEST {
                self.directory(directory, name, below.as_fd(), depth + 1)?;
            } else {
                self.lift(directory, name, below.as_fd())?;
            }
        }
        Ok(found)
    }

    /// Renames a directory to the top of the tree, under an unused name.
    fn lift(&mut self, above: BorrowedFd<'_>, name: &CStr, directory: BorrowedFd<'_>) -> Result<(), DriverError> {
        let mut has_same_project = false;
        loop {
            let free = format!(".deep-{}", self.lifted);
            match rustix::fs::renameat(above, name, self.top, free.as_str()) {
                Ok(()) => return Ok(()),
                // Left by a killed call, or a user's. Replacing an empty directory does no harm.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => self.lifted += 1,
                Err(Errno::XDEV) if !has_same_project => {
                    (self.same_project)(above)?;
                    (self.same_project)(directory)?;
                    has_same_project = true;
                }
                Err(error) => {
                    return Err(temporary_error("a directory too deep in the trash cannot be renamed", error));
                }
            }
        }
    }
}

/// Changes the owner of a directory, so that processes that have it open cannot create files in it. If that fails, the number of
/// rounds is limited.
fn close(directory: BorrowedFd<'_>) {
    let _ = rustix::fs::fchown(directory, Some(rustix::process::geteuid()), None);
    let _ = rustix::fs::fchmod(directory, Mode::RWXU);
}

fn cannot(error: Errno) -> DriverError {
    match error {
        Errno::PERM => temporary_error(
            "a file or directory in the trash may not be deleted; if it is immutable or append-only, as `lsattr` shows, \
             run `chattr -R -i -a` on the tree",
            error,
        ),
        error => temporary_error("a directory in the trash cannot be read or deleted", error),
    }
}

#[cfg(test)]
mod tests;
