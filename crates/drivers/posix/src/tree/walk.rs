//! Counts the usage of a tree file by file, on file systems without accounting.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::handle::{open_below, temporary_error};
use storage_driver::DriverError;
use storage_driver::limits::{Bytes, Inodes, Usage};
use storage_driver::walked::Walked;

struct Walk<'a> {
    usage: Usage,
    linked: BTreeSet<(u64, u64)>,
    walked: &'a Walked,
}

/// A directory on the way down.
struct Level {
    device: u64,
    inode: u64,
    /// Subdirectories that are not counted yet.
    left: Vec<CString>,
}

/// Disk space and inodes of a tree. A file with several names counts once; symlinks are not followed.
///
/// Trees of any depth are possible: one directory is open at a time, and the walk returns by `..`, which must be the directory
/// from which it came.
pub(super) fn usage(directory: BorrowedFd<'_>, walked: &Walked) -> Result<Usage, DriverError> {
    let nothing = Usage { space: Bytes(0), inodes: Inodes(0) };
    let mut walk = Walk { usage: nothing, linked: BTreeSet::new(), walked };
    let top = rustix::fs::fstat(directory).map_err(unreadable)?;
    walk.count(&top);
    let mut current = rustix::io::fcntl_dupfd_cloexec(directory, 0).map_err(unreadable)?;
    let mut way = vec![walk.level(&current, &top)?];
    while let Some(level) = way.last_mut() {
        if let Some(name) = level.left.pop() {
            let below = match open_below(&current, &*name) {
                Ok(below) => below,
                // Deleted or swapped in the meantime, or on another file system.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
                Err(error) => return Err(unreadable(error)),
            };
            let stat = rustix::fs::fstat(&below).map_err(unreadable)?;
            way.push(walk.level(&below, &stat)?);
            current = below;
        } else {
            way.pop();
            if let Some(above) = way.last() {
                current = up(&current, above)?;
            }
        }
    }
    Ok(walk.usage)
}

/// Opens the parent, if it is still the directory from which the walk came.
fn up(directory: &OwnedFd, above: &Level) -> Result<OwnedFd, DriverError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, "..", flags, Mode::empty()).map_err(unreadable)?;
    let stat = rustix::fs::fstat(&opened).map_err(unreadable)?;
    if (stat.st_dev, stat.st_ino) == (above.device, above.inode) {
        return Ok(opened);
    }
    Err(DriverError::temporary("a directory was moved while the tree was counted: repeat the command"))
}

fn unreadable(error: Errno) -> DriverError {
    temporary_error("a directory cannot be read", error)
}

impl Walk<'_> {
    /// Counts the content of a directory.
    fn level(&mut self, directory: &OwnedFd, stat: &Stat) -> Result<Level, DriverError> {
        let mut level = Level { device: stat.st_dev, inode: stat.st_ino, left: Vec::new() };
        for entry in Dir::read_from(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Deleted in the meantime.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(unreadable(error)),
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            if stat.st_nlink > 1 && !is_directory && !self.linked.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            self.count(&stat);
            if is_directory {
                level.left.push(name.to_owned());
            }
        }
        Ok(level)
    }

    fn count(&mut self, stat: &Stat) {
        let space = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
        self.usage.space.0 = self.usage.space.0.saturating_add(space);
        self.usage.inodes.0 += 1;
        self.walked.one();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn trees_of_any_depth_are_counted() {
        const LEVELS: u64 = 3_000;
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let top = OwnedFd::from(File::open(folder.path()).unwrap());
        let mut last = top.try_clone().unwrap();
        for _ in 0..LEVELS {
            rustix::fs::mkdirat(&last, "below", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&last, "beside", Mode::RWXU).unwrap();
            last = open_below(&last, "below").unwrap();
        }
        let little = std::thread::Builder::new().stack_size(128 << 10);
        let counted = little.spawn(move || usage(top.as_fd(), &Walked::default()).unwrap()).unwrap().join().unwrap();
        assert_eq!(counted.inodes, Inodes(2 * LEVELS + 1));
        crate::deletion::delete(
            &OwnedFd::from(File::open(folder.path()).unwrap()),
            "below",
            (&|_| Ok(()), &|_| Ok(())),
            &|| Ok(()),
        )
        .unwrap();
    }
}
