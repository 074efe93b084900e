//! Finds marks of other resources above and below a directory: directories of resources must not be nested.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use uuid::Uuid;

use crate::handle::{Mark, open_below, temporary_error};
#[cfg(test)]
use crate::injected;
use storage_driver::place::Place;
use storage_driver::walked::Walked;
use storage_driver::{DriverError, Marked, nested};

/// How many entries of a tree are searched for marks, level by level from the top. Places have few levels, so marks of this
/// program are near the top; a tree with millions of files must not delay a pass.
const MOST: usize = 100_000;

/// The marks of parent directories by path, as far as they were read.
pub(super) type Above = RefCell<BTreeMap<String, Option<Uuid>>>;

/// Why the place is inside another resource's directory, if it is.
pub(super) fn above(
    root: &OwnedFd,
    mark: &Mark,
    (place, id): (&Place, Uuid),
    known: &Above,
) -> Result<Option<String>, DriverError> {
    let mut path = String::new();
    for name in place.parents() {
        path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let read = known.borrow().get(&path).copied();
        let found = match read {
            Some(found) => found,
            None => match opened(root, &*path)
                .map_err(|error| temporary_error(format!("{path} cannot be opened"), error))?
            {
                Some(directory) => mark.read(&directory)?,
                // Absent or obstructed, which is reported elsewhere.
                None => None,
            },
        };
        known.borrow_mut().insert(path.clone(), found);
        if let Some(other) = found.filter(|other| *other != id) {
            return Ok(Some(nested(&path, other)));
        }
    }
    Ok(None)
}

/// Opens a directory; `None` if it does not exist, is not accessible or is too deep for a path. Any other failure (no handle
/// left, an I/O error) is an error, because the directory could have a mark.
fn opened(above: &OwnedFd, path: impl rustix::path::Arg + Copy) -> Result<Option<OwnedFd>, Errno> {
    #[cfg(test)]
    injected::before_opening()?;
    match open_below(above, path) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists the marked directories up to `levels` below the root. Skips hidden directories and the content of marked ones.
pub(super) fn marked(root: &OwnedFd, mark: &Mark, levels: usize, walked: &Walked) -> Result<Vec<Marked>, DriverError> {
    let mut found = Vec::new();
    let top = root
        .try_clone()
        .map_err(|error| DriverError::temporary_from("a directory handle cannot be duplicated", error))?;
    each_level(&top, "", mark, (levels, walked), &mut found)?;
    found.sort();
    Ok(found)
}

fn each_level(
    above: &OwnedFd,
    path: &str,
    mark: &Mark,
    (levels, walked): (usize, &Walked),
    found: &mut Vec<Marked>,
) -> Result<(), DriverError> {
    let unreadable = |error| temporary_error(format!("{path:?} below the root cannot be read"), error);
    for entry in Dir::read_from(above).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Names in places are restricted to these characters.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') || !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            continue;
        }
        walked.one();
        let directory = match open_below(above, name) {
            Ok(directory) => directory,
            // Deleted or swapped in the meantime, not a directory, or on another file system.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        match mark.read(&directory)? {
            Some(id) => found.push(Marked { id, path }),
            None if levels > 1 => each_level(&directory, &path, mark, (levels - 1, walked), found)?,
            None => {}
        }
    }
    Ok(())
}

/// Returns a conflict if a directory below this one has the mark of another resource.
pub(super) fn below(top: &OwnedFd, mark: &Mark, (place, id): (&str, Uuid)) -> Result<(), DriverError> {
    let unreadable = |error| temporary_error(format!("{place} cannot be read"), error);
    let (mut left, mut levels) = (MOST, VecDeque::from([CString::default()]));
    while let Some(path) = levels.pop_front() {
        // Deleted or swapped in the meantime, on another file system, or not accessible.
        let directory = if path.is_empty() {
            Some(
                top.try_clone()
                    .map_err(|error| DriverError::temporary_from("a directory handle cannot be duplicated", error))?,
            )
        } else {
            opened(top, &*path).map_err(unreadable)?
        };
        let Some(directory) = directory else { continue };
        if let Some(other) = mark.read(&directory)?.filter(|other| *other != id) {
            let path = path.to_string_lossy();
            return Err(DriverError::Conflict(format!(
                "{path:?} in {place} has the mark of another resource, {other}: move it out of there first"
            )));
        }
        for entry in Dir::read_from(&directory).map_err(unreadable)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT) => break,
                Err(error) => return Err(unreadable(error)),
            };
            left = match left.checked_sub(1) {
                Some(left) => left,
                None => return Ok(()),
            };
            let name = entry.file_name().to_bytes();
            if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) && !matches!(name, b"." | b"..") {
                let between: &[u8] = if path.is_empty() { b"" } else { b"/" };
                levels.extend(CString::new([path.to_bytes(), between, name].concat()));
            }
        }
    }
    Ok(())
}
