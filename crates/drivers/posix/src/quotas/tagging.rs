//! Sets the project ID of whole trees on XFS, ext4 and Lustre.
//!
//! Each directory is tagged before its content, so that files that users create in the meantime inherit the ID. The top is
//! tagged last, so that its ID proves that the whole tree has it. A walk that was killed starts again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use project_quota::Project;
use project_quota::tag::{self, Tag};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use storage_driver::DriverError;

use crate::deletion::EachFile;

/// Maximum depth of a tree. Each level needs one or two handles.
const DEEPEST: usize = 200;
/// Attempts to open a file while users rename directories or have a lease on it.
const TRIES: u32 = 64;

/// The project ID of a directory, 0 if it has none.
pub(super) fn project(directory: BorrowedFd<'_>) -> Result<u32, DriverError> {
    let tag = read(directory)?;
    // If new files do not inherit the ID, the directory is not limited.
    Ok(tag.project.filter(|_| tag.inherit).map_or(0, Project::get))
}

/// The project ID that new files in a directory inherit, possibly 0; `None` without inheritance.
pub(super) fn inherited_project(directory: BorrowedFd<'_>) -> Result<Option<u32>, DriverError> {
    let tag = read(directory)?;
    Ok(tag.inherit.then(|| tag.project.map_or(0, Project::get)))
}

/// Removes the project ID of a directory and its inheritance.
pub(super) fn untag(directory: BorrowedFd<'_>) -> Result<(), DriverError> {
    tag::set(directory, Tag { project: None, inherit: false })
        .map_err(|error| DriverError::temporary_from("the project ID of a directory cannot be removed", error))
}

fn read(directory: BorrowedFd<'_>) -> Result<Tag, DriverError> {
    tag::get(directory)
        .map_err(|error| DriverError::temporary_from("the project ID of a directory cannot be read", error))
}

/// Sets the project ID of a directory and, with `within`, of its content.
///
/// Skips symlinks and special files, which cannot be opened safely. They count for no project.
pub(super) fn tag(
    directory: BorrowedFd<'_>,
    project: Project,
    within: Option<EachFile<'_>>,
) -> Result<(), DriverError> {
    if let Some(one) = within {
        below(directory, project, Below::All, one, 0)?;
    }
    set(directory, project, true)?;
    if let Some(one) = within {
        // Files that were created in the top directory during the walk.
        below(directory, project, Below::Untagged, one, 0)?;
    }
    Ok(())
}

/// Which directories a walk descends into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    All,
    Untagged,
}

fn below(
    directory: BorrowedFd<'_>,
    project: Project,
    which: Below,
    one: EachFile<'_>,
    depth: usize,
) -> Result<(), DriverError> {
    if depth > DEEPEST {
        return Err(DriverError::temporary(format!(
            "the tree is deeper than {DEEPEST} directories: its project ID is not set"
        )));
    }
    let unreadable = |error| temporary_error("a directory cannot be read", error);
    for entry in Dir::read_from(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Some((opened, kind)) = open(directory, name)? else { continue };
        one()?;
        let is_directory = kind.is_dir();
        let was = tag::get(opened.as_fd()).map_err(|error| untaggable(name, error))?;
        let desired = Tag { project: Some(project), inherit: is_directory };
        if was != desired {
            tag::set(opened.as_fd(), desired).map_err(|error| untaggable(name, error))?;
        }
        if is_directory && (which == Below::All || was != desired) {
            below(opened.as_fd(), project, which, one, depth + 1)?;
        }
    }
    Ok(())
}

/// Opens a file or directory to read and set its project ID; `None` for special files, and if it was deleted.
fn open(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Option<(OwnedFd, FileType)>, DriverError> {
    let unopened = |error| temporary_error(format!("{name:?} cannot be opened for its project ID"), error);
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let open = |flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        (0..TRIES)
            .map(|_| rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve))
            .find(|opened| !matches!(opened, Err(Errno::AGAIN | Errno::INTR)))
            .unwrap_or(Err(Errno::AGAIN))
    };
    // O_PATH has no side effect, even on a device. Mount points are refused, because the handle would be on the mounted file
    // system.
    let looked = match open(OFlags::PATH) {
        Ok(looked) => looked,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::XDEV) => {
            return Err(DriverError::Conflict(format!(
                "another file system is mounted at {name:?}, inside the tree: unmount it, or do not adopt the tree"
            )));
        }
        Err(error) => return Err(unopened(error)),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&looked).map_err(unopened)?.st_mode);
    if !kind.is_dir() && !kind.is_file() {
        return Ok(None);
    }
    match open(OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(opened) => {
            let opened_kind = FileType::from_raw_mode(rustix::fs::fstat(&opened).map_err(unopened)?.st_mode);
            Ok((opened_kind == kind).then_some((opened, kind)))
        }
        // Deleted, or replaced by a symlink or a device in the meantime.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(error) => Err(unopened(error)),
    }
}

fn set(directory: BorrowedFd<'_>, project: Project, inherit: bool) -> Result<(), DriverError> {
    tag::set(directory, Tag { project: Some(project), inherit }).map_err(|error| {
        DriverError::temporary_from(format!("the project ID {} cannot be set on a directory", project.get()), error)
    })
}

fn untaggable(name: &std::ffi::CStr, error: project_quota::Error) -> DriverError {
    match error.errno() {
        Some(Errno::NOSPC | Errno::DQUOT) => DriverError::temporary_from(
            format!("{name:?} does not fit: the tree is larger than the project's limits"),
            error,
        ),
        _ => DriverError::temporary_from(format!("the project ID of {name:?} cannot be set"), error),
    }
}

fn temporary_error(what: impl Into<String>, error: Errno) -> DriverError {
    DriverError::temporary_from(what, std::io::Error::from(error))
}
