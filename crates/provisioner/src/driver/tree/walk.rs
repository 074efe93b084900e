//! What a tree takes, counted file by file, on systems that do not count.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::handle::{open_below, passing};
use crate::driver::Fault;
use crate::driver::walked::Walked;
use crate::limits::{Bytes, Inodes, Usage};

/// How deep a tree may be: each level holds a handle.
const DEEPEST: usize = 500;

struct Walk<'a> {
    usage: Usage,
    linked: BTreeSet<(u64, u64)>,
    walked: &'a Walked,
}

/// Space on disk and inodes of a tree; a file with several names counts once. No symlink is followed.
pub(super) fn usage(directory: BorrowedFd<'_>, walked: &Walked) -> Result<Usage, Fault> {
    let nothing = Usage { space: Bytes(0), inodes: Inodes(0) };
    let mut walk = Walk { usage: nothing, linked: BTreeSet::new(), walked };
    let top = rustix::fs::fstat(directory).map_err(|error| passing("a directory cannot be read", error))?;
    walk.count(&top);
    walk.directory(directory, 0)?;
    Ok(walk.usage)
}

impl Walk<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(Fault::unclear(format!("a tree is deeper than {DEEPEST} directories: not counted")));
        }
        let unreadable = |error| passing("a directory cannot be read", error);
        for entry in Dir::read_from(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Deleted meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(unreadable(error)),
            };
            if stat.st_nlink > 1
                && !FileType::from_raw_mode(stat.st_mode).is_dir()
                && !self.linked.insert((stat.st_dev, stat.st_ino))
            {
                continue;
            }
            self.count(&stat);
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                match open_below(directory, name) {
                    Ok(below) => self.directory(std::os::fd::AsFd::as_fd(&below), depth + 1)?,
                    // Deleted or exchanged meanwhile, or another file system's.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                    Err(error) => return Err(unreadable(error)),
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, stat: &rustix::fs::Stat) {
        let space = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
        self.usage.space.0 = self.usage.space.0.saturating_add(space);
        self.usage.inodes.0 += 1;
        self.walked.one();
    }
}
