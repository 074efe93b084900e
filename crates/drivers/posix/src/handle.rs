//! Handles below a root, operations on them, and the mark of a resource's directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use uuid::Uuid;

use storage_driver::DriverError;

/// Attempts to resolve a path while users rename directories.
const TRIES: u32 = 64;

/// Opens the root of a system; `what` names it. Uses the system call with which everything below is opened, so that its absence is
/// found here.
pub(crate) fn open_root(what: &str, path: &Path, flags: OFlags) -> Result<OwnedFd, DriverError> {
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).map_err(|error| {
        root_open_error(what, error, || rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).is_ok())
    })
}

/// `opens`: whether the root can be opened by an older system call. Filters answer ENOSYS or, the older ones, EPERM.
fn root_open_error(what: &str, error: Errno, opens: impl FnOnce() -> bool) -> DriverError {
    let what = format!("{what} cannot be opened");
    if matches!(error, Errno::NOSYS | Errno::PERM) && opens() {
        let why = "the system call openat2 is missing or blocked. It needs Linux 5.6 or newer (RHEL 8 has 4.18); \
                   `RestrictSUIDSGID=` in a systemd unit and old container runtimes block it";
        return temporary_error(format!("{what}: {why}"), error);
    }
    if error == Errno::NOENT {
        return temporary_error(format!("{what}: mount the file system, or correct the path in the settings"), error);
    }
    temporary_error(what, error)
}

/// Opens a directory below another one. Fails for symlinks, mount points and `..`.
pub(crate) fn open_below(above: impl AsFd, path: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..TRIES {
        match rustix::fs::openat2(above.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// An extended attribute with the resource's UUID.
#[derive(Debug)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new(namespace: &str) -> Self {
        Self(format!("{namespace}.hpc-storage.resource"))
    }

    pub(crate) fn read(&self, directory: impl AsFd) -> Result<Option<Uuid>, DriverError> {
        let mut text = [0; 64];
        let length = match rustix::fs::fgetxattr(directory, self.0.as_str(), &mut text) {
            Ok(length) => length,
            Err(Errno::NODATA) => return Ok(None),
            Err(error) => return Err(privilege_error(format!("the mark {} cannot be read", self.0), error)),
        };
        let id = text.get(..length).and_then(|text| Uuid::try_parse_ascii(text).ok());
        id.map(Some).ok_or_else(|| DriverError::Conflict(format!("the mark {} of a directory is not a UUID", self.0)))
    }

    pub(crate) fn write(&self, directory: impl AsFd, id: Uuid) -> Result<(), DriverError> {
        let text = id.hyphenated().to_string();
        rustix::fs::fsetxattr(directory, self.0.as_str(), text.as_bytes(), XattrFlags::empty())
            .map_err(|error| privilege_error(format!("the mark {} cannot be set", self.0), error))
    }
}

pub(crate) fn temporary_error(what: impl Into<String>, error: Errno) -> DriverError {
    DriverError::temporary_from(what, std::io::Error::from(error))
}

/// The error of an operation that needs root if `change_owner` is set.
pub(crate) fn privilege_error(what: impl Into<String>, error: Errno) -> DriverError {
    root_error(what, "run as root, or set `change_owner: false` for this system", error)
}

/// The error of an operation that only root may perform. `remedy`: what to do if permission is denied.
pub fn root_error(what: impl Into<String>, remedy: &str, error: Errno) -> DriverError {
    let what = what.into();
    match error {
        Errno::PERM | Errno::ACCESS => temporary_error(
            format!("{what}: {remedy}; user namespaces and root_squash of an NFS server remove the privileges of root"),
            error,
        ),
        error => temporary_error(what, error),
    }
}

pub(crate) fn stat(directory: &OwnedFd) -> Result<Stat, DriverError> {
    rustix::fs::fstat(directory).map_err(|error| temporary_error("a directory cannot be read", error))
}

pub(crate) fn chmod(directory: &OwnedFd, mode: storage_driver::Mode) -> Result<(), DriverError> {
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode.0))
        .map_err(|error| privilege_error(format!("mode {:o} cannot be set", mode.0), error))
}

pub(crate) fn sync(directory: &OwnedFd) -> Result<(), DriverError> {
    rustix::fs::fsync(directory).map_err(|error| temporary_error("a directory cannot be synced", error))
}

/// Checks that a directory under a temporary name is in the state in which it was created: own, private and empty. Otherwise
/// a user put it there.
pub(crate) fn check_new(directory: &OwnedFd, name: &str) -> Result<(), DriverError> {
    let mut entries =
        Dir::read_from(directory).map_err(|error| temporary_error(format!("{name} cannot be read"), error))?;
    let empty = entries.all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
    if stat(directory)?.st_uid == rustix::process::geteuid().as_raw() && empty {
        return Ok(());
    }
    Err(DriverError::Conflict(format!(
        "{name} already exists and was not created by this program: check its content and move it away"
    )))
}

/// The error of a directory that cannot be opened.
pub(crate) fn open_error(path: &str, error: Errno) -> DriverError {
    match error {
        Errno::NOTDIR | Errno::LOOP => DriverError::Conflict(format!("{path} is a file or a symlink, or is below one")),
        Errno::XDEV => DriverError::Conflict(format!("{path} is on a different file system from the root")),
        Errno::NOENT => DriverError::Conflict(format!("the directory {path} does not exist")),
        error => temporary_error(format!("{path} cannot be opened"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_blocked_openat2_is_named() {
        let text = |error, opens| storage_driver::error_chain(&root_open_error("the root /x", error, || opens));
        for error in [Errno::NOSYS, Errno::PERM] {
            let named = text(error, true);
            assert!(named.starts_with("the root /x cannot be opened: ") && named.contains("openat2"), "{named}");
            assert!(named.contains("Linux 5.6") && named.contains("RestrictSUIDSGID="), "{named}");
        }
        // The cause is another one.
        for (error, opens) in [(Errno::PERM, false), (Errno::ACCESS, true), (Errno::NOENT, false)] {
            assert!(!text(error, opens).contains("openat2"), "{error}");
        }
        assert!(text(Errno::NOENT, false).contains("mount the file system"));
    }
}
