//! The trash of a mounted tree: `.trash` below its root, accessible to this program's user only, with one directory
//! `UUID.SECONDS` for each tree.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode as Bits, Stat};
use rustix::io::Errno;

use driver_posix::deletion::{self, EachFile};
use driver_posix::mount::{names, open};
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

/// Prefix of the names of trees that a purge has claimed.
const CLAIMED_PREFIX: &str = "purge-";

fn claimed_name(trashed: &Trashed) -> String {
    format!("{CLAIMED_PREFIX}{}", name(trashed))
}

/// Everything in the trash: unclaimed trees, and trees that a purge has claimed.
pub(super) fn list(root: BorrowedFd<'_>) -> Result<[Vec<Trashed>; 2], DriverError> {
    match open(root, TRASH).and_then(|trash| names(trash.as_fd())) {
        Ok(names) => {
            let claimed = |name: &String| parse(name.strip_prefix(CLAIMED_PREFIX)?);
            Ok([names.iter().filter_map(|name| parse(name)).collect(), names.iter().filter_map(claimed).collect()])
        }
        Err(Errno::NOENT) => Ok([Vec::new(), Vec::new()]),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: Errno) -> DriverError {
    DriverError::temporary_from("cannot read the trash", error)
}

/// The inode of a tree in the trash.
pub(super) fn inode(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<u64, DriverError> {
    stat(root, trashed).map(|stat| stat.st_ino)
}

/// When a tree in the trash was last changed, by the clock of the storage system.
pub(super) fn changed(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<u64, DriverError> {
    // A time before 1970 can only be wrong.
    stat(root, trashed).map(|stat| u64::try_from(stat.st_ctime).unwrap_or_default())
}

/// Does not open the tree, because its mode may deny access even to this program's user.
fn stat(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<Stat, DriverError> {
    let stat = open(root, TRASH).and_then(|trash| rustix::fs::statat(&trash, name(trashed), AtFlags::SYMLINK_NOFOLLOW));
    stat.map_err(|error| DriverError::temporary_from(format!("cannot look at {} in the trash", name(trashed)), error))
}

/// Renames the directory into the trash.
pub(super) fn put(root: BorrowedFd<'_>, desired: &Desired, now: u64) -> Result<(), DriverError> {
    let failed = |error| DriverError::temporary_from(format!("cannot put {} into the trash", desired.place), error);
    match rustix::fs::mkdirat(root, TRASH, Bits::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let trash = open(root, TRASH).map_err(failed)?;
    let parent = open_parent(root, desired).map_err(failed)?;
    let name = name(&Trashed { id: desired.id, since: now });
    rename(parent.as_fd(), desired.place.name(), trash.as_fd(), &name).map_err(failed)
}

/// Renames the directory from the trash to its place, where nothing may exist.
pub(super) fn take_out(root: BorrowedFd<'_>, desired: &Desired, since: u64) -> Result<(), DriverError> {
    let failed = |error| DriverError::temporary_from(format!("cannot take {} out of the trash", desired.place), error);
    let (trash, parent) = (open(root, TRASH).map_err(failed)?, open_parent(root, desired).map_err(failed)?);
    let name = name(&Trashed { id: desired.id, since });
    rename(trash.as_fd(), &name, parent.as_fd(), desired.place.name()).map_err(failed)
}

fn open_parent(root: BorrowedFd<'_>, desired: &Desired) -> Result<OwnedFd, Errno> {
    open(root, &desired.place.parent().map_or_else(|| ".".to_owned(), |above| above.to_string()))
}

fn rename(from: BorrowedFd<'_>, old: &str, to: BorrowedFd<'_>, new: &str) -> Result<(), Errno> {
    rustix::fs::renameat(from, old, to, new)?;
    rustix::fs::fsync(to)?;
    rustix::fs::fsync(from)
}

/// Renames a tree in the trash, so that only a purge finds it.
pub(super) fn claim(root: BorrowedFd<'_>, trashed: &Trashed) -> Result<(), DriverError> {
    let failed = |error| DriverError::temporary_from(format!("cannot rename {} in the trash", name(trashed)), error);
    let trash = open(root, TRASH).map_err(failed)?;
    rustix::fs::renameat(&trash, name(trashed), &trash, claimed_name(trashed)).map_err(failed)?;
    rustix::fs::fsync(&trash).map_err(failed)
}

/// Deletes a claimed tree.
pub(super) fn delete(root: BorrowedFd<'_>, trashed: &Trashed, one: EachFile<'_>) -> Result<(), DriverError> {
    let trash = match open(root, TRASH) {
        Err(Errno::NOENT) => return Ok(()),
        trash => trash.map_err(unreadable)?,
    };
    // VAST has no project IDs.
    deletion::delete(&trash, &claimed_name(trashed), (&|_| Ok(()), &|_| Ok(())), one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_notation_of_names_is_parsed() {
        let trashed = Trashed { id: uuid::Uuid::from_u128(7), since: 12 };
        assert_eq!(parse(&name(&trashed)), Some(trashed));
        for invalid in ["", "x.1", "00000000-0000-0000-0000-000000000007", "00000000000000000000000000000007.12"] {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
    }
}
