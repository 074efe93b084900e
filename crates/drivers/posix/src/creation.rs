//! Creates directories under temporary names.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use uuid::Uuid;

use crate::handle::{check_new, chmod, open_error, sync, temporary_error};
#[cfg(test)]
use crate::injected::{self, Moment};
use crate::renaming::{Renamed, rename};
use storage_driver::{Desired, DriverError, Guard};

/// The name of the directory of this resource until it is complete.
pub(crate) fn temporary_name(id: Uuid) -> String {
    format!(".new-{}", id.simple())
}

/// Checks that directories can be created in, and renamed into, the directory with this path.
pub(crate) type Check<'a> = &'a dyn Fn(&OwnedFd, &str) -> Result<(), DriverError>;

/// Opens a directory with this name in another one.
pub(crate) type Open<'a> = &'a dyn Fn(&OwnedFd, &str) -> Result<OwnedFd, Errno>;

/// Opens or creates the parent directories. Checks existing ones before creating anything in them.
pub(crate) fn open_or_create_parent(
    root: &OwnedFd,
    desired: &Desired,
    (open, check): (Open<'_>, Check<'_>),
    guard: Guard<'_>,
) -> Result<OwnedFd, DriverError> {
    let mut above = root
        .try_clone()
        .map_err(|error| DriverError::temporary_from("a directory handle cannot be duplicated", error))?;
    let mut path = String::new();
    for (name, mode) in desired.place.parents().iter().zip(&desired.parents) {
        path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        above = match open(&above, name) {
            Ok(directory) => {
                // Left by a crash, if another task created the directory since then. Removed only if it is empty.
                let _ = rustix::fs::unlinkat(&above, temporary_name(desired.id), AtFlags::REMOVEDIR);
                check(&directory, &path)?;
                directory
            }
            Err(Errno::NOENT) => {
                guard(&format!("create {path}, mode {:o}", mode.0))?;
                create_with_mode(&above, name, desired.id, *mode, open)?;
                open(&above, name).map_err(|error| open_error(&path, error))?
            }
            Err(error) => return Err(open_error(&path, error)),
        };
    }
    Ok(above)
}

/// Opens or creates the directory with the temporary name. Users who can write in the parent can swap it at any time, even just after it was
/// created, so the caller must check the opened directory.
pub(crate) fn open_or_create_temporary(
    above: &OwnedFd,
    temporary: &str,
    open: Open<'_>,
) -> Result<OwnedFd, DriverError> {
    match rustix::fs::mkdirat(above, temporary, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(temporary_error(format!("{temporary} cannot be created"), error)),
    }
    #[cfg(test)]
    injected::at(Moment::Created);
    open(above, temporary).map_err(|error| open_error(temporary, error))
}

/// Creates a directory with its mode under a temporary name and renames it, so that a crash leaves no directory with a wrong
/// mode.
fn create_with_mode(
    above: &OwnedFd,
    name: &str,
    id: Uuid,
    mode: storage_driver::Mode,
    open: Open<'_>,
) -> Result<(), DriverError> {
    let temporary = temporary_name(id);
    let cannot = |error| temporary_error(format!("{name} cannot be created"), error);
    let directory = open_or_create_temporary(above, &temporary, open)?;
    check_new(&directory, &temporary)?;
    chmod(&directory, mode)?;
    match rename(&directory, [above, above], [&temporary, name])? {
        // Another task has just created it.
        Renamed::Taken => rustix::fs::unlinkat(above, temporary.as_str(), AtFlags::REMOVEDIR).map_err(cannot)?,
        renamed => renamed.or_conflict(name)?,
    }
    sync(above)
}
