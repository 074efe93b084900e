//! Directories made aside and put in place whole.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use uuid::Uuid;

use super::handle::{bare, chmod, obstructed, open_below, passing, sync};
#[cfg(test)]
use super::injected::{self, Moment};
use super::renaming::{Renamed, rename};
use storage_driver::{Desired, DriverError, Guard};

/// Under what name a directory is made aside.
pub(super) fn aside(id: Uuid) -> String {
    format!(".new-{}", id.simple())
}

/// Whether something can be made and renamed in a directory, which has this path.
pub(super) type Takes<'a> = &'a dyn Fn(&OwnedFd, &str) -> Result<(), DriverError>;

/// The directory above, made if it is not there. What is there already is judged before anything is made in it.
pub(super) fn parent(
    root: &OwnedFd,
    desired: &Desired,
    takes: Takes<'_>,
    guard: Guard<'_>,
) -> Result<OwnedFd, DriverError> {
    let mut above = root.try_clone().map_err(|error| DriverError::passing("a handle cannot be copied", error))?;
    let mut path = String::new();
    for (name, mode) in desired.place.parents().iter().zip(&desired.parents) {
        path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        above = match open_below(&above, name) {
            Ok(directory) => {
                // A crash may have left it behind before somebody else's task made this directory: empty, or it stays.
                let _ = rustix::fs::unlinkat(&above, aside(desired.id), AtFlags::REMOVEDIR);
                takes(&directory, &path)?;
                directory
            }
            Err(Errno::NOENT) => {
                guard(&format!("make {path}, mode {:o}", mode.0))?;
                make_whole(&above, name, desired.id, *mode)?;
                open_below(&above, name).map_err(|error| obstructed(&path, error))?
            }
            Err(error) => return Err(obstructed(&path, error)),
        };
    }
    Ok(above)
}

/// The directory that is being made aside, made if it is not there. Whoever may write above can put another one in its
/// place at any time: that it was made a moment ago proves nothing, and the caller has to judge what was opened.
pub(super) fn begin(above: &OwnedFd, aside: &str) -> Result<OwnedFd, DriverError> {
    match rustix::fs::mkdirat(above, aside, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(passing(format!("{aside} cannot be made"), error)),
    }
    #[cfg(test)]
    injected::at(Moment::Made);
    open_below(above, aside).map_err(|error| obstructed(aside, error))
}

/// Makes a directory aside and puts it in place with its mode, so that a crash leaves none with a wrong one.
fn make_whole(above: &OwnedFd, name: &str, id: Uuid, mode: storage_driver::Mode) -> Result<(), DriverError> {
    let aside = aside(id);
    let cannot = |error| passing(format!("{name} cannot be made"), error);
    let directory = begin(above, &aside)?;
    bare(&directory, &aside)?;
    chmod(&directory, mode)?;
    match rename(&directory, [above, above], [&aside, name])? {
        // Somebody else's task made it a moment ago.
        Renamed::Taken => rustix::fs::unlinkat(above, aside.as_str(), AtFlags::REMOVEDIR).map_err(cannot)?,
        renamed => renamed.or_conflict(name)?,
    }
    sync(above)
}
