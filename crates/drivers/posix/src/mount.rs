//! A mounted file system, for what a management interface cannot say or do: owners, modes, names. Everything is named
//! from an open handle of its root, never through a symlink and never above it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode as Bits, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use uuid::Uuid;

use crate::tree::handle::{bare, obstructed, only_root};
#[cfg(test)]
use crate::tree::injected::{self, Moment};
use crate::tree::renaming::{Renamed, rename};
use storage_driver::Mode;
use storage_driver::place::Place;
use storage_driver::{Desired, DriverError, Guard};

/// What `fstatfs` says of Storage Scale: "GPFS".
pub const GPFS: i64 = 0x4750_4653;
/// What `fstatfs` says of NFS.
pub const NFS: i64 = 0x6969;

/// Where a system's root is mounted, and as what kind of file system.
#[derive(Debug, Clone)]
pub struct Mount {
    path: PathBuf,
    kind: i64,
}

/// What is found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Directory {
        uid: u32,
        gid: u32,
        mode: Mode,
    },
    /// A file, a symlink, or a way that leads through one.
    Other,
}

impl Mount {
    pub fn new(path: &Path, kind: i64) -> Self {
        Self { path: path.to_owned(), kind }
    }

    /// A handle of the root. Where the file system is not mounted the directory beneath is not taken for it.
    pub fn root(&self) -> Result<OwnedFd, DriverError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let what = || format!("`mount` ({}) cannot be opened", self.path.display());
        let root =
            rustix::fs::open(&self.path, flags, Bits::empty()).map_err(|error| DriverError::passing(what(), error))?;
        let kind = rustix::fs::fstatfs(&root).map_err(|error| DriverError::passing(what(), error))?.f_type;
        if kind != self.kind {
            return Err(DriverError::unclear(format!(
                "`mount` ({}) is no file system of the right kind ({kind:#x} instead of {:#x}): is it mounted?",
                self.path.display(),
                self.kind
            )));
        }
        Ok(root)
    }
}

/// A handle of the directory with this name below `root`.
pub fn open(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, name, flags, Bits::empty(), resolve)
}

/// What is at this place below `root`.
pub fn look(root: BorrowedFd<'_>, name: &str) -> Result<Found, DriverError> {
    match open(root, name).and_then(rustix::fs::fstat) {
        Ok(Stat { st_uid: uid, st_gid: gid, st_mode, .. }) => {
            Ok(Found::Directory { uid, gid, mode: Mode(st_mode & 0o7777) })
        }
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Found::Other),
        Err(error) => Err(DriverError::passing(format!("{name} cannot be looked at"), error)),
    }
}

/// Makes those of the directories above that are missing, each whole at once: a crash leaves none with a wrong mode.
pub fn make_parents(root: BorrowedFd<'_>, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
    let mut above = root.try_clone_to_owned().map_err(|error| DriverError::passing("no handle is left", error))?;
    for (name, mode) in desired.place.parents().iter().zip(&desired.parents) {
        let what =
            |error| DriverError::passing(format!("the directory {name} above {} cannot be made", desired.place), error);
        above = match open(above.as_fd(), name) {
            Err(Errno::NOENT) => {
                guard(&format!("make the directory {name} above {}", desired.place))?;
                make(&above, name, desired.id, *mode)?;
                open(above.as_fd(), name).map_err(what)?
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(DriverError::Conflict(format!("{name} above {} is no directory", desired.place)));
            }
            Err(error) => return Err(what(error)),
            Ok(directory) => {
                // A crash may have left it behind before somebody else's task made this directory: empty, or it stays.
                let _ = rustix::fs::unlinkat(&above, aside(desired.id), AtFlags::REMOVEDIR);
                directory
            }
        };
    }
    Ok(())
}

/// Under what name a directory is made aside.
fn aside(id: Uuid) -> String {
    format!(".new-{}", id.simple())
}

/// A directory built aside and renamed. Whoever made it in the meantime made it first.
///
/// What was opened is judged, even if it was made a moment ago: who may write above can exchange it.
fn make(above: &OwnedFd, name: &str, id: Uuid, mode: Mode) -> Result<(), DriverError> {
    let aside = aside(id);
    let cannot = |error| DriverError::passing(format!("the directory {name} cannot be made"), error);
    match rustix::fs::mkdirat(above, &aside, Bits::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(cannot(error)),
    }
    #[cfg(test)]
    injected::at(Moment::Made);
    let directory = open(above.as_fd(), &aside).map_err(|error| obstructed(&aside, error))?;
    bare(&directory, &aside)?;
    rustix::fs::fchmod(&directory, Bits::from_raw_mode(mode.0)).map_err(cannot)?;
    match rename(&directory, [above, above], [&aside, name])? {
        Renamed::Taken => rustix::fs::unlinkat(above, &aside, AtFlags::REMOVEDIR).map_err(cannot)?,
        renamed => renamed.or_conflict(name)?,
    }
    rustix::fs::fsync(above).map_err(cannot)
}

/// Makes a directory at a place, closed to all but this program's user.
pub fn make_private(root: BorrowedFd<'_>, place: &Place) -> Result<(), DriverError> {
    let what = |error| DriverError::passing(format!("the directory {place} cannot be made"), error);
    let above = place.parent().map_or_else(|| ".".to_owned(), |above| above.to_string());
    let above = open(root, &above).map_err(what)?;
    rustix::fs::mkdirat(&above, place.name(), Bits::RWXU).map_err(what)?;
    rustix::fs::fsync(&above).map_err(what)
}

/// Gives the directory at a place its owner, group and mode; tells `guard` where that changes something.
pub fn give(root: BorrowedFd<'_>, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
    let (place, owner) = (&desired.place, (desired.uid, desired.gid));
    let (directory, there) = directory(root, place)?;
    if owner != (there.st_uid, there.st_gid) {
        guard(&format!("owner {}, group {} of {place}", owner.0, owner.1))?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        rustix::fs::fchown(&directory, Some(uid), Some(gid))
            .map_err(|error| only_root(format!("{place} cannot be given its owner"), "run as root", error))?;
    }
    // Always after the owner: a change of owner may take bits away.
    set_mode(root, place, desired.mode, guard)
}

/// Takes the directory at a place away from its owner, who could open it again, and closes it to all.
pub fn close(root: BorrowedFd<'_>, place: &Place, guard: Guard<'_>) -> Result<(), DriverError> {
    let (directory, there) = directory(root, place)?;
    let user = rustix::process::geteuid();
    if there.st_uid != user.as_raw() {
        guard(&format!("take {place} away from its owner"))?;
        rustix::fs::fchown(&directory, Some(user), None)
            .map_err(|error| only_root(format!("{place} cannot be taken away from its owner"), "run as root", error))?;
    }
    set_mode(root, place, Mode(0), guard)
}

/// Gives the directory at a place a mode; tells `guard` where that changes something.
pub fn set_mode(root: BorrowedFd<'_>, place: &Place, mode: Mode, guard: Guard<'_>) -> Result<(), DriverError> {
    let (directory, there) = directory(root, place)?;
    if there.st_mode & 0o7777 == mode.0 {
        return Ok(());
    }
    guard(&format!("mode {:o} of {place}", mode.0))?;
    rustix::fs::fchmod(&directory, Bits::from_raw_mode(mode.0))
        .map_err(|error| only_root(format!("{place} cannot be given its mode"), "run as root", error))
}

fn directory(root: BorrowedFd<'_>, place: &Place) -> Result<(OwnedFd, Stat), DriverError> {
    let opened = open(root, &place.to_string());
    let read = opened.and_then(|directory| rustix::fs::fstat(&directory).map(|stat| (directory, stat)));
    read.map_err(|error| DriverError::passing(format!("{place} cannot be opened"), error))
}

/// Names in a directory, without `.` and `..`.
pub fn names(directory: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn kind(path: &Path) -> i64 {
        rustix::fs::statfs(path).unwrap().f_type
    }

    #[test]
    fn what_is_not_mounted_is_not_taken_for_the_system() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Mount::new(folder.path(), kind(folder.path())).root().is_ok());
        let fault = Mount::new(folder.path(), GPFS).root().unwrap_err();
        assert!(fault.to_string().contains("is it mounted"), "{fault}");
    }

    fn desired() -> Desired {
        let place = Place::parse("/sys/store/cscs/project", "/sys").unwrap();
        let limits = storage_driver::limits::QuotaLimits::least();
        let (id, parents) = (Uuid::from_u128(1), vec![Mode(0o755), Mode(0o755)]);
        Desired { id, place, parents, uid: 0, gid: 0, mode: Mode(0o700), limits, project: None }
    }

    #[test]
    fn what_somebody_planted_aside_before_or_just_after_it_was_made_is_not_opened_to_all() {
        for before in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let root = Mount::new(folder.path(), kind(folder.path())).root().unwrap();
            let (desired, store) = (desired(), folder.path().join("store"));
            std::fs::create_dir(&store).unwrap();
            let (victim, aside) = (store.join("victim"), store.join(aside(desired.id)));
            std::fs::create_dir(&victim).unwrap();
            std::fs::write(victim.join("data"), "data").unwrap();
            std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o700)).unwrap();
            if before {
                std::fs::rename(&victim, &aside).unwrap();
            }
            let exchanged = (victim.clone(), aside.clone());
            let _happens = injected::happens(move |moment| {
                if moment == Moment::Made && exchanged.0.exists() {
                    std::fs::remove_dir(&exchanged.1).unwrap();
                    std::fs::rename(&exchanged.0, &exchanged.1).unwrap();
                }
            });
            let made = make_parents(root.as_fd(), &desired, &|_| Ok(()));
            assert!(matches!(made, Err(DriverError::Conflict(_))), "{made:?}");
            assert_eq!(std::fs::metadata(&aside).unwrap().mode() & 0o7777, 0o700);
            assert!(aside.join("data").exists() && !store.join("cscs").exists());
        }
    }

    #[test]
    fn what_a_crash_left_aside_of_a_directory_that_another_task_made_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let root = Mount::new(folder.path(), kind(folder.path())).root().unwrap();
        let desired = desired();
        std::fs::create_dir_all(folder.path().join("store").join(aside(desired.id))).unwrap();
        std::fs::create_dir(folder.path().join("store/cscs")).unwrap();
        std::fs::create_dir(folder.path().join(aside(desired.id))).unwrap();
        make_parents(root.as_fd(), &desired, &|_| Ok(())).unwrap();
        assert_eq!(names(root.as_fd()).unwrap(), ["store"]);
        assert_eq!(names(open(root.as_fd(), "store").unwrap().as_fd()).unwrap(), ["cscs"]);
    }

    #[test]
    fn no_symlink_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
        let root = Mount::new(folder.path(), kind(folder.path())).root().unwrap();
        assert!(matches!(look(root.as_fd(), "real").unwrap(), Found::Directory { .. }));
        for name in ["link", "out", "out/etc"] {
            assert_eq!(look(root.as_fd(), name).unwrap(), Found::Other, "{name}");
        }
        assert_eq!(look(root.as_fd(), "none").unwrap(), Found::Nothing);
        assert!(open(root.as_fd(), "../").is_err());
    }
}
