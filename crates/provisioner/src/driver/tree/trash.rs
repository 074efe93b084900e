//! Where trees wait to be deleted, below the root: `.trash/UUID.SECONDS`.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode};
use rustix::io::Errno;
use uuid::Uuid;

use super::handle::{obstructed, open_below, passing, sync};
use crate::driver::{Fault, Trashed};

pub(super) const TRASH: &str = ".trash";

pub(super) fn list(root: &OwnedFd) -> Result<Vec<Trashed>, Fault> {
    let trash = match open_below(root, TRASH) {
        Ok(trash) => trash,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(passing("the trash cannot be opened", error)),
    };
    let unreadable = |error| passing("the trash cannot be read", error);
    let mut found = Vec::new();
    for entry in Dir::read_from(&trash).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        found.extend(entry.file_name().to_str().ok().and_then(trashed));
    }
    found.sort_by_key(|trashed: &Trashed| (trashed.id, trashed.since));
    Ok(found)
}

/// The trash, for root alone, with whether it was made now.
pub(super) fn open(root: &OwnedFd) -> Result<(OwnedFd, bool), Fault> {
    let made = match rustix::fs::mkdirat(root, TRASH, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(passing("the trash cannot be made", error)),
    };
    if made {
        sync(root)?;
    }
    Ok((open_below(root, TRASH).map_err(|error| obstructed(TRASH, error))?, made))
}

/// The name in the trash: `UUID.SECONDS`.
pub(super) fn name(trashed: &Trashed) -> String {
    format!("{}.{}", trashed.id, trashed.since)
}

/// A name in the trash for what was put there under this one and is not the resource's: [`list`] takes it for nobody's.
pub(super) fn nobodys(name: &str) -> String {
    format!("exchanged-{name}")
}

/// What a name in the trash says: `UUID.SECONDS`.
fn trashed(text: &str) -> Option<Trashed> {
    let (id, since) = text.split_once('.')?;
    let trashed = Trashed { id: Uuid::try_parse(id).ok()?, since: since.parse().ok()? };
    // Written as we write it, and in no other way: the name is made anew from these.
    (name(&trashed) == text).then_some(trashed)
}
