//! The trash of a mounted tree: `.trash` below its root, closed to all but this program's user, with one directory
//! `UUID.SECONDS` for each tree.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode as Bits, Stat};
use rustix::io::Errno;

use driver_posix::deletion;
use driver_posix::mount::{names, open};
use storage_driver::walked::Walked;
use storage_driver::{Desired, DriverError, Trashed};

const TRASH: &str = ".trash";

fn name(trashed: &Trashed) -> String {
    format!("{}.{}", trashed.id, trashed.since)
}

fn parse(text: &str) -> Option<Trashed> {
    let (id, since) = text.split_once('.')?;
    let trashed = Trashed { id: id.parse().ok()?, since: since.parse().ok()? };
    (name(&trashed) == text).then_some(trashed)
}

/// What the names of trees begin with that a purge has claimed.
const CLAIMED: &str = "purge-";

fn claimed_name(trashed: &Trashed) -> String {
    format!("{CLAIMED}{}", name(trashed))
}

/// Everything in the trash: first what waits there, then what a purge has claimed.
pub(super) fn list(root: BorrowedFd<'_>) -> Result<[Vec<Trashed>; 2], DriverError> {
    let fault = |error| DriverError::passing("the trash cannot be read", error);
    match open(root, TRASH).and_then(|trash| names(trash.as_fd())) {
        Ok(names) => {
            let claimed = |name: &String| parse(name.strip_prefix(CLAIMED)?);
            Ok([names.iter().filter_map(|name| parse(name)).collect(), names.iter().filter_map(claimed).collect()])
        }
        Err(Errno::NOENT) => Ok([Vec::new(), Vec::new()]),
        Err(error) => Err(fault(error)),
    }
}

/// The inode of a tree in the trash.
pub(super) fn inode(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<u64, DriverError> {
    stat(root, trashed).map(|stat| stat.st_ino)
}

/// When a tree in the trash was last changed, by the clock of the storage system.
pub(super) fn changed(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<u64, DriverError> {
    // Before 1970 is wrong in any case.
    stat(root, trashed).map(|stat| u64::try_from(stat.st_ctime).unwrap_or_default())
}

/// Trees are closed, perhaps to this program's user, too: it is not opened.
fn stat(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<Stat, DriverError> {
    let stat = open(root, TRASH).and_then(|trash| rustix::fs::statat(&trash, name(trashed), AtFlags::SYMLINK_NOFOLLOW));
    stat.map_err(|error| DriverError::passing(format!("{} in the trash", name(trashed)), error))
}

/// Renames the directory into the trash.
pub(super) fn put(root: BorrowedFd<'_>, desired: &Desired, now: u64) -> Result<(), DriverError> {
    let fault = |error| DriverError::passing(format!("{} cannot be put into the trash", desired.place), error);
    match rustix::fs::mkdirat(root, TRASH, Bits::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(fault(error)),
    }
    let trash = open(root, TRASH).map_err(fault)?;
    let above = above(root, desired).map_err(fault)?;
    let name = name(&Trashed { id: desired.id, since: now });
    moved(above.as_fd(), desired.place.name(), trash.as_fd(), &name).map_err(fault)
}

/// Renames the directory from the trash to its place, which is free.
pub(super) fn take_out(root: BorrowedFd<'_>, desired: &Desired, since: u64) -> Result<(), DriverError> {
    let fault = |error| DriverError::passing(format!("{} cannot be taken out of the trash", desired.place), error);
    let (trash, above) = (open(root, TRASH).map_err(fault)?, above(root, desired).map_err(fault)?);
    let name = name(&Trashed { id: desired.id, since });
    moved(trash.as_fd(), &name, above.as_fd(), desired.place.name()).map_err(fault)
}

fn above(root: BorrowedFd<'_>, desired: &Desired) -> Result<OwnedFd, Errno> {
    open(root, &desired.place.parent().map_or_else(|| ".".to_owned(), |above| above.to_string()))
}

fn moved(from: BorrowedFd<'_>, old: &str, to: BorrowedFd<'_>, new: &str) -> Result<(), Errno> {
    rustix::fs::renameat(from, old, to, new)?;
    rustix::fs::fsync(to)?;
    rustix::fs::fsync(from)
}

/// Renames a tree in the trash, so that nothing but a purge finds it any more.
pub(super) fn claim(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<(), DriverError> {
    let fault = |error| DriverError::passing(format!("{} in the trash cannot be renamed", name(trashed)), error);
    let trash = open(root, TRASH).map_err(fault)?;
    rustix::fs::renameat(&trash, name(trashed), &trash, claimed_name(trashed)).map_err(fault)?;
    rustix::fs::fsync(&trash).map_err(fault)
}

/// Deletes a claimed tree for good.
pub(super) fn delete(root: BorrowedFd<'_>, trashed: &Trashed, walked: &Walked) -> Result<(), DriverError> {
    let trash = match open(root, TRASH) {
        Err(Errno::NOENT) => return Ok(()),
        trash => trash.map_err(|error| DriverError::passing("the trash cannot be read", error))?,
    };
    // No project IDs here.
    deletion::delete(&trash, &claimed_name(trashed), (&|_| Ok(()), &|_| Ok(())), walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_read() {
        let trashed = Trashed { id: uuid::Uuid::from_u128(7), since: 12 };
        assert_eq!(parse(&name(&trashed)), Some(trashed));
        for odd in ["", "x.1", "00000000-0000-0000-0000-000000000007", "00000000000000000000000000000007.12"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
