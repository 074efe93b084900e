//! A directory held by a handle: what was judged is what is changed, whatever is put under its name meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode as Bits, Stat, Uid};
use rustix::io::Errno;

use driver_posix::mount::{names, open};
use driver_posix::tree::handle::only_root;
use storage_driver::Mode;
use storage_driver::place::Place;
use storage_driver::{Desired, DriverError, Guard};

/// What is found at a place.
pub(super) enum Found {
    Nothing,
    Directory(Held),
    /// A file, a symlink, or a way that leads through one.
    Other,
}

pub(super) struct Held {
    handle: OwnedFd,
    place: Place,
    stat: Stat,
}

pub(super) fn look(root: BorrowedFd<'_>, place: &Place) -> Result<Found, DriverError> {
    let opened = open(root, &place.to_string());
    match opened.and_then(|handle| rustix::fs::fstat(&handle).map(|stat| (handle, stat))) {
        Ok((handle, stat)) => Ok(Found::Directory(Held { handle, place: place.clone(), stat })),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Found::Other),
        Err(error) => Err(DriverError::passing(format!("{place} cannot be looked at"), error)),
    }
}

impl Held {
    pub(super) fn inode(&self) -> u64 {
        self.stat.st_ino
    }

    pub(super) fn owner(&self) -> (u32, u32) {
        (self.stat.st_uid, self.stat.st_gid)
    }

    pub(super) fn mode(&self) -> Mode {
        Mode(self.stat.st_mode & 0o7777)
    }

    /// Whether it is this program's user's, and holds nothing.
    pub(super) fn is_new(&self) -> Result<bool, DriverError> {
        if self.stat.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(false);
        }
        let names = names(self.handle.as_fd());
        names
            .map(|names| names.is_empty())
            .map_err(|error| DriverError::passing(format!("{} cannot be read", self.place), error))
    }

    /// Whether it is one that was begun here and holds nothing: new, and closed.
    pub(super) fn is_begun(&self) -> Result<bool, DriverError> {
        // The directory above may hand down its set-group-ID bit.
        Ok(self.mode().0 & 0o5077 == 0 && self.is_new()?)
    }

    /// Gives it its owner, group and mode; tells `guard` where that changes something.
    pub(super) fn give(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let owner = (desired.uid, desired.gid);
        if owner != self.owner() {
            guard(&format!("owner {}, group {} of {}", owner.0, owner.1, self.place))?;
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::fchown(&self.handle, Some(uid), Some(gid)).map_err(|error| self.cannot("owner", error))?;
        }
        // Always after the owner: a change of owner may take bits away.
        self.set_mode(desired.mode, guard)
    }

    /// Gives it a mode; tells `guard` where that changes something.
    pub(super) fn set_mode(&self, mode: Mode, guard: Guard<'_>) -> Result<(), DriverError> {
        let there = rustix::fs::fstat(&self.handle).map_err(|error| self.cannot("mode", error))?;
        if there.st_mode & 0o7777 == mode.0 {
            return Ok(());
        }
        guard(&format!("mode {:o} of {}", mode.0, self.place))?;
        rustix::fs::fchmod(&self.handle, Bits::from_raw_mode(mode.0)).map_err(|error| self.cannot("mode", error))
    }

    fn cannot(&self, what: &str, error: Errno) -> DriverError {
        only_root(format!("{} cannot be given its {what}", self.place), "run as root", error)
    }
}
