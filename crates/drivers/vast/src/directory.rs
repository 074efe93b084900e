//! An open directory. Changes apply to the directory that was checked, even if another one is renamed to its path in the
//! meantime.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode as Bits, Stat, Uid};
use rustix::io::Errno;

use driver_posix::handle::root_error;
use driver_posix::mount::{names, open};
use storage_driver::Mode;
use storage_driver::place::Place;
use storage_driver::{Desired, DriverError, Guard};

pub(super) enum Found {
    Nothing,
    Directory(OpenDirectory),
    /// A file or a symlink, at the place or instead of one of its parents.
    Other,
}

pub(super) struct OpenDirectory {
    handle: OwnedFd,
    place: Place,
    stat: Stat,
}

pub(super) fn find(root: BorrowedFd<'_>, place: &Place) -> Result<Found, DriverError> {
    let opened = open(root, &place.to_string());
    match opened.and_then(|handle| rustix::fs::fstat(&handle).map(|stat| (handle, stat))) {
        Ok((handle, stat)) => Ok(Found::Directory(OpenDirectory { handle, place: place.clone(), stat })),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Found::Other),
        Err(error) => Err(DriverError::temporary_from(format!("cannot open {place}"), error)),
    }
}

impl OpenDirectory {
    pub(super) fn inode(&self) -> u64 {
        self.stat.st_ino
    }

    pub(super) fn owner(&self) -> (u32, u32) {
        (self.stat.st_uid, self.stat.st_gid)
    }

    pub(super) fn mode(&self) -> Mode {
        Mode(self.stat.st_mode & 0o7777)
    }

    /// Whether it belongs to this program's user and is empty.
    pub(super) fn is_new(&self) -> Result<bool, DriverError> {
        if self.stat.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(false);
        }
        let names = names(self.handle.as_fd());
        names
            .map(|names| names.is_empty())
            .map_err(|error| DriverError::temporary_from(format!("cannot read {}", self.place), error))
    }

    /// Whether its creation here is incomplete: new, and inaccessible to others.
    pub(super) fn is_incomplete(&self) -> Result<bool, DriverError> {
        // The set-group-ID bit is ignored, because it may be inherited from the parent.
        Ok(self.mode().0 & 0o5077 == 0 && self.is_new()?)
    }

    /// Sets owner, group and mode. Calls `guard` for what changes.
    pub(super) fn set_owner_and_mode(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let owner = (desired.uid, desired.gid);
        if owner != self.owner() {
            guard(&format!("set the owner of {} to {}:{}", self.place, owner.0, owner.1))?;
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::fchown(&self.handle, Some(uid), Some(gid)).map_err(|error| self.cannot("owner", error))?;
        }
        // Always after the owner, because changing that may clear bits of the mode.
        self.set_mode(desired.mode, guard)
    }

    /// Sets the mode. Calls `guard` if it changes.
    pub(super) fn set_mode(&self, mode: Mode, guard: Guard<'_>) -> Result<(), DriverError> {
        let current = rustix::fs::fstat(&self.handle).map_err(|error| self.cannot("mode", error))?;
        if current.st_mode & 0o7777 == mode.0 {
            return Ok(());
        }
        guard(&format!("set the mode of {} to {:o}", self.place, mode.0))?;
        rustix::fs::fchmod(&self.handle, Bits::from_raw_mode(mode.0)).map_err(|error| self.cannot("mode", error))
    }

    fn cannot(&self, what: &str, error: Errno) -> DriverError {
        root_error(format!("cannot set the {what} of {}", self.place), "run as root", error)
    }
}
