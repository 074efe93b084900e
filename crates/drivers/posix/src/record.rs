//! The record of a system ([`storage_driver::Driver::read_record`]): a file below the root that only this program's user can access. It is
//! only appended to, so no provisioner can overwrite what another one has written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use storage_driver::DriverError;

/// The name of the file. No resource's directory can have it, because of the dot.
pub const NAME: &str = ".hpc-storage-record";

/// Reads the record below this root; empty if there is none yet.
pub fn read(root: BorrowedFd<'_>) -> Result<Vec<u8>, DriverError> {
    let mut text = Vec::new();
    match open(root, OFlags::RDONLY) {
        Ok(file) => owned(file)?.read_to_end(&mut text).map_err(|error| failed("read", error))?,
        Err(Errno::NOENT) => 0,
        Err(error) => return Err(failed("opened", error.into())),
    };
    Ok(text)
}

/// Appends to the record below this root, which is created if it does not exist, and syncs it.
pub fn append(root: BorrowedFd<'_>, text: &[u8]) -> Result<(), DriverError> {
    let flags = OFlags::WRONLY | OFlags::APPEND;
    let opened = match open(root, flags) {
        Err(Errno::NOENT) => match open(root, flags | OFlags::CREATE | OFlags::EXCL) {
            Err(Errno::EXIST) => open(root, flags),
            made => made,
        },
        opened => opened,
    };
    let mut file = owned(opened.map_err(|error| failed("opened", error.into()))?)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    written.map_err(|error| failed("written", error))?;
    // Always: an earlier call that created the file can have been killed before it synced the root.
    rustix::fs::fsync(root).map_err(|error| failed("synced", error.into()))
}

/// A note for the command `check` if users can write to the root: they could remove the record, or put a file in its place.
pub fn exposed(root: BorrowedFd<'_>) -> Option<String> {
    let stat = rustix::fs::fstat(root).ok()?;
    let (mode, owner) = (Mode::from_raw_mode(stat.st_mode), stat.st_uid);
    let by_owner = owner != 0 && owner != rustix::process::geteuid().as_raw();
    let by_group = mode.contains(Mode::WGRP) && stat.st_gid != 0;
    (by_owner || by_group || mode.contains(Mode::WOTH)).then(|| {
        format!(
            "users can write to the directory with {NAME}, which records project IDs and interrupted work (owner {owner}:{}, mode \
             {:o}): they can remove it, or block it with a file of their own. Make root the owner, with mode 755",
            stat.st_gid,
            stat.st_mode & 0o7777
        )
    })
}

fn open(root: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    // Nonblocking, because opening a FIFO would block.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, NAME, flags, mode, resolve)
}

/// Checks that nobody else could have written the file, or put it there.
fn owned(file: OwnedFd) -> Result<File, DriverError> {
    let stat = rustix::fs::fstat(file.as_fd()).map_err(|error| failed("read", error.into()))?;
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1;
    let is_open = Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if is_file && !is_open && stat.st_uid == rustix::process::geteuid().as_raw() {
        return Ok(File::from(file));
    }
    Err(DriverError::Conflict(format!(
        "{NAME} below the root is not a file that only this program's user can access (mode 600, no hard links): check who \
         changed it, and correct its owner and mode, or move it away"
    )))
}

fn failed(verb: &str, error: io::Error) -> DriverError {
    let what = format!("the record {NAME} below the root cannot be {verb}");
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return DriverError::Conflict(format!("{what}: it is a symlink; check who made it, and move it away"));
    }
    DriverError::temporary_from(what, error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    /// Something that a user puts at this path.
    type Put<'a> = (&'a str, &'a dyn Fn(&Path));

    fn root(folder: &Path) -> OwnedFd {
        File::open(folder).unwrap().into()
    }

    #[test]
    fn what_is_appended_is_read_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let root = root(folder.path());
        assert_eq!(read(root.as_fd()).unwrap(), b"");
        append(root.as_fd(), b"one\n").unwrap();
        append(root.as_fd(), b"two").unwrap();
        assert_eq!(read(root.as_fd()).unwrap(), b"one\ntwo");
        assert_eq!(fs::metadata(folder.path().join(NAME)).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn appends_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let root = root(folder.path());
                scope.spawn(move || {
                    for n in 0..25 {
                        append(root.as_fd(), format!("{writer} {n}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = String::from_utf8(read(root(folder.path()).as_fd()).unwrap()).unwrap();
        let lines: std::collections::BTreeSet<_> = text.lines().collect();
        assert_eq!((lines.len(), text.lines().count()), (100, 100));
    }

    #[test]
    fn a_root_that_users_can_write_to_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, expected) in [(0o700, false), (0o755, false), (0o757, true), (0o1777, true)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let note = exposed(root(folder.path()).as_fd());
            assert_eq!(note.is_some_and(|note| note.contains(&format!("mode {mode:o}"))), expected, "{mode:o}");
        }
    }

    #[test]
    fn what_a_user_put_there_is_neither_read_nor_written() {
        let victim = tempfile::NamedTempFile::new().unwrap();
        fs::write(victim.path(), "victim").unwrap();
        let put: [Put<'_>; 5] = [
            ("symlink", &|path| symlink(victim.path(), path).unwrap()),
            ("directory", &|path| fs::create_dir(path).unwrap()),
            ("FIFO", &|path| {
                rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
            }),
            ("hard link", &|path| {
                fs::write(path, "victim").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
                fs::hard_link(path, path.with_file_name("other")).unwrap();
            }),
            ("group", &|path| {
                fs::write(path, "victim").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o660)).unwrap();
            }),
        ];
        for (what, put) in put {
            let folder = tempfile::tempdir().unwrap();
            put(&folder.path().join(NAME));
            let root = root(folder.path());
            assert!(read(root.as_fd()).is_err(), "{what}");
            assert!(append(root.as_fd(), b"lost\n").is_err(), "{what}");
            assert_eq!(fs::read_to_string(victim.path()).unwrap(), "victim", "{what}");
        }
    }
}
