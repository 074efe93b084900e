//! Deleting trees for good, however deep they are: whoever makes a tree must not be able to keep it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;

use crate::tree::handle::{open_below, passing};
#[cfg(test)]
use crate::tree::injected::{self, Moment};
use storage_driver::DriverError;
use storage_driver::walked::Walked;

/// How many levels down it goes by itself: each holds two handles, and a piece of the stack.
const DEEPEST: usize = 64;
/// How often a directory is read anew because something is in it again.
const ROUNDS: u32 = 64;
/// The same for the top of a tree, whither what is deep is lifted: each round goes [`DEEPEST`] levels down.
const ROUNDS_OF_TOP: u32 = 1 << 14;

/// Deletes a tree in the trash, by handles: no symlink is followed, no mount crossed, and nothing is gone up by `..`. Killed
/// midway, it is taken up by the next call.
///
/// What lies deeper than [`DEEPEST`] is lifted: renamed to the top of the tree itself, where it lies high enough to be
/// deleted. File systems with project quotas refuse that to a directory whose project ID is not the top's; `alike` gives it
/// that ID.
/// Each directory is shown to `ours` before anything in it is deleted.
pub fn delete(
    trash: &OwnedFd,
    name: &str,
    (alike, ours): (Alike<'_>, Alike<'_>),
    walked: &Walked,
) -> Result<(), DriverError> {
    let name = CString::new(name).map_err(|error| DriverError::passing("a name in the trash", error))?;
    let top = match open_below(trash, &*name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(cannot(error)),
    };
    Deletion { top: &top, alike, ours, walked, lifted: 0 }.directory(trash.as_fd(), &name, top.as_fd(), 0)
}

/// Gives a directory the project ID of the top one, or tells whether it is the resource's own.
pub type Alike<'a> = &'a dyn Fn(BorrowedFd<'_>) -> Result<(), DriverError>;

struct Deletion<'a> {
    top: &'a OwnedFd,
    alike: Alike<'a>,
    ours: Alike<'a>,
    walked: &'a Walked,
    /// How many names for what is lifted were tried.
    lifted: u64,
}

impl Deletion<'_> {
    /// Deletes a directory, that has this name in the one above, with all that is in it.
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
            match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {
                    self.walked.one();
                    return Ok(());
                }
                // What was lifted hither, or missed by a reading while entries went away. Each time some have gone.
                Err(Errno::NOTEMPTY | Errno::EXIST) if found => close(directory),
                Err(error) => return Err(cannot(error)),
            }
        }
        Err(DriverError::unclear(
            "a directory in the trash does not become empty: somebody has it open and makes files in it, or its file system \
             does not show them; the rest of the tree is still there",
        ))
    }

    /// Deletes or lifts what one reading of a directory finds; whether that was anything.
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
                    self.walked.one();
                    continue;
                }
                // Which of them says that it is a directory.
                Err(error @ (Errno::ISDIR | Errno::PERM)) => error,
                Err(error) => return Err(cannot(error)),
            };
            let below = match open_below(directory, name) {
                Ok(below) => below,
                // No directory, so it was refused for another reason.
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

    /// Renames a directory to the top of the tree, under a name that is free there.
    fn lift(&mut self, above: BorrowedFd<'_>, name: &CStr, directory: BorrowedFd<'_>) -> Result<(), DriverError> {
        let mut alike = false;
        loop {
            let free = format!(".deep-{}", self.lifted);
            match rustix::fs::renameat(above, name, self.top, free.as_str()) {
                Ok(()) => return Ok(()),
                // A call that was killed left it, or it is the users'. An empty directory is replaced, and no loss.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => self.lifted += 1,
                Err(Errno::XDEV) if !alike => {
                    (self.alike)(above)?;
                    (self.alike)(directory)?;
                    alike = true;
                }
                Err(error) => return Err(passing("a directory too deep in the trash cannot be renamed", error)),
            }
        }
    }
}

/// Takes a directory away from its owner: who has it open makes nothing more in it. Where that cannot be done, the number
/// of rounds is the bound.
fn close(directory: BorrowedFd<'_>) {
    let _ = rustix::fs::fchown(directory, Some(rustix::process::geteuid()), None);
    let _ = rustix::fs::fchmod(directory, Mode::RWXU);
}

fn cannot(error: Errno) -> DriverError {
    match error {
        Errno::PERM => passing(
            "a file or directory in the trash may not be deleted; if it is immutable or append-only, as `lsattr` shows, \
             run `chattr -R -i -a` on the tree",
            error,
        ),
        error => passing("a directory in the trash cannot be read or deleted", error),
    }
}

#[cfg(test)]
mod tests;
