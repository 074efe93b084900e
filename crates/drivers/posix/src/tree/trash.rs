//! The trash below the root: removed directories in `.trash/UUID.SECONDS`.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;
use uuid::Uuid;

use crate::handle::{open_below, open_error, stat, sync, temporary_error};
use storage_driver::{DriverError, Trashed};

pub(super) const TRASH: &str = ".trash";

/// Prefix of the names of directories that a purge has claimed.
const CLAIMED: &str = "purge-";

/// Lists the directories in the trash by UUID and time, without those that a purge has claimed.
pub(super) fn list(root: &OwnedFd) -> Result<Vec<Trashed>, DriverError> {
    read(root).map(|trash| trash.waiting)
}

/// The directories in the trash, sorted by UUID and time.
#[derive(Debug, Default)]
pub(super) struct Trash {
    pub(super) waiting: Vec<Trashed>,
    /// Claimed by a purge.
    pub(super) claimed: Vec<Trashed>,
}

impl Trash {
    /// Adds the directory with this name, if the name is valid.
    fn take(&mut self, text: &str) {
        match text.strip_prefix(CLAIMED) {
            Some(text) => self.claimed.extend(trashed(text)),
            None => self.waiting.extend(trashed(text)),
        }
    }
}

pub(super) fn read(root: &OwnedFd) -> Result<Trash, DriverError> {
    let trash = match open_below(root, TRASH) {
        Ok(trash) => trash,
        Err(Errno::NOENT) => return Ok(Trash::default()),
        Err(error) => return Err(temporary_error("the trash cannot be opened", error)),
    };
    let unreadable = |error| temporary_error("the trash cannot be read", error);
    let mut found = Trash::default();
    for entry in Dir::read_from(&trash).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if let Ok(name) = entry.file_name().to_str() {
            found.take(name);
        }
    }
    for trees in [&mut found.waiting, &mut found.claimed] {
        trees.sort_by_key(|trashed| (trashed.id, trashed.since));
    }
    Ok(found)
}

/// Opens or creates the trash, accessible only for root; returns whether it was created.
pub(super) fn open(root: &OwnedFd) -> Result<(OwnedFd, bool), DriverError> {
    let made = match rustix::fs::mkdirat(root, TRASH, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(temporary_error("the trash cannot be created", error)),
    };
    if made {
        sync(root)?;
    }
    let trash = open_below(root, TRASH).map_err(|error| open_error(TRASH, error))?;
    // Its owner could rename and hide its content.
    if stat(&trash)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(DriverError::Conflict(format!(
            "{TRASH} below the root belongs to another user: check its content and move it away"
        )));
    }
    Ok((trash, made))
}

/// The name in the trash: `UUID.SECONDS`.
pub(super) fn name(trashed: &Trashed) -> String {
    format!("{}.{}", trashed.id, trashed.since)
}

/// When a directory was last changed, by the clock of the file system: at the latest when it was moved here.
pub(super) fn changed(root: &OwnedFd, trashed: &Trashed) -> Result<u64, DriverError> {
    let unreadable = |error| temporary_error(format!("{} in the trash cannot be read", name(trashed)), error);
    let trash = open_below(root, TRASH).map_err(unreadable)?;
    let stat = rustix::fs::statat(&trash, name(trashed), AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)?;
    // Times before 1970 are wrong.
    Ok(u64::try_from(stat.st_ctime).unwrap_or_default())
}

/// The name after a purge has claimed it.
pub(super) fn claimed_name(trashed: &Trashed) -> String {
    format!("{CLAIMED}{}", name(trashed))
}

/// A name in the trash for a directory that is not the resource's. [`list`] skips it.
pub(super) fn unowned_name(name: &str) -> String {
    format!("exchanged-{name}")
}

/// Parses a name in the trash: `UUID.SECONDS`.
fn trashed(text: &str) -> Option<Trashed> {
    let (id, since) = text.split_once('.')?;
    let trashed = Trashed { id: Uuid::try_parse(id).ok()?, since: since.parse().ok()? };
    // Only the canonical form, because the name is formatted again from the parsed values.
    (name(&trashed) == text).then_some(trashed)
}
