//! Operations on a mounted file system that a management interface does not offer: owners, modes, names. Paths are resolved
//! from an open handle of the root, without symlinks and `..`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode as Bits, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use crate::creation;
use crate::handle::{open_root, root_error};
use storage_driver::Mode;
use storage_driver::place::Place;
use storage_driver::{Desired, DriverError, Guard};

/// File system type of Storage Scale in `fstatfs`: "GPFS".
pub const GPFS: i64 = 0x4750_4653;
/// File system type of NFS in `fstatfs`.
pub const NFS: i64 = 0x6969;

/// The mounted root of a system, with its file system type.
#[derive(Debug, Clone)]
pub struct Mount {
    path: PathBuf,
    kind: i64,
}

/// What exists under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Directory {
        uid: u32,
        gid: u32,
        mode: Mode,
    },
    /// A file or a symlink, or a path through one.
    Other,
}

impl Mount {
    pub fn new(path: &Path, kind: i64) -> Self {
        Self { path: path.to_owned(), kind }
    }

    /// Opens the root. Fails if the file system is not mounted there.
    pub fn root(&self) -> Result<OwnedFd, DriverError> {
        let what = format!("`mount` ({})", self.path.display());
        let root = open_root(&what, &self.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let unread = |error| DriverError::temporary_from(format!("{what} cannot be read"), error);
        let kind = rustix::fs::fstatfs(&root).map_err(unread)?.f_type;
        if kind != self.kind {
            return Err(DriverError::temporary(format!(
                "`mount` ({}) has the wrong file system type ({kind:#x} instead of {:#x}): is it mounted?",
                self.path.display(),
                self.kind
            )));
        }
        Ok(root)
    }
}

/// Opens a directory below `root`.
pub fn open(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, name, flags, Bits::empty(), resolve)
}

/// Finds what exists at a path below `root`.
pub fn find(root: BorrowedFd<'_>, name: &str) -> Result<Found, DriverError> {
    match open(root, name).and_then(rustix::fs::fstat) {
        Ok(Stat { st_uid: uid, st_gid: gid, st_mode, .. }) => {
            Ok(Found::Directory { uid, gid, mode: Mode(st_mode & 0o7777) })
        }
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Found::Other),
        Err(error) => Err(DriverError::temporary_from(format!("{name} cannot be read"), error)),
    }
}

/// Creates missing parent directories. A crash leaves no directory with a wrong mode.
pub fn make_parents(root: BorrowedFd<'_>, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
    let root = root
        .try_clone_to_owned()
        .map_err(|error| DriverError::temporary_from("a directory handle cannot be duplicated", error))?;
    let open = |above: &OwnedFd, name: &str| open(above.as_fd(), name);
    creation::open_or_create_parent(&root, desired, (&open, &|_, _| Ok(())), guard).map(drop)
}

/// Creates a directory that only the user of this program can access.
pub fn make_private(root: BorrowedFd<'_>, place: &Place) -> Result<(), DriverError> {
    let what = |error| DriverError::temporary_from(format!("the directory {place} cannot be created"), error);
    let above = place.parent().map_or_else(|| ".".to_owned(), |above| above.to_string());
    let above = open(root, &above).map_err(what)?;
    rustix::fs::mkdirat(&above, place.name(), Bits::RWXU).map_err(what)?;
    rustix::fs::fsync(&above).map_err(what)
}

/// Sets owner, group and mode of the directory if they differ.
pub fn set_owner_and_mode(root: BorrowedFd<'_>, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
    let (place, owner) = (&desired.place, (desired.uid, desired.gid));
    let (directory, there) = directory(root, place)?;
    if owner != (there.st_uid, there.st_gid) {
        guard(&format!("set owner {} and group {} of {place}", owner.0, owner.1))?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        rustix::fs::fchown(&directory, Some(uid), Some(gid))
            .map_err(|error| root_error(format!("the owner of {place} cannot be set"), "run as root", error))?;
    }
    // After the owner, because changing it can clear bits of the mode.
    set_mode(root, place, desired.mode, guard)
}

/// Removes all access to the directory. Changes the owner first, because the owner could otherwise restore the mode.
pub fn revoke_access(root: BorrowedFd<'_>, place: &Place, guard: Guard<'_>) -> Result<(), DriverError> {
    let (directory, there) = directory(root, place)?;
    let user = rustix::process::geteuid();
    if there.st_uid != user.as_raw() {
        guard(&format!("change the owner of {place} to this program's user"))?;
        rustix::fs::fchown(&directory, Some(user), None)
            .map_err(|error| root_error(format!("the owner of {place} cannot be changed"), "run as root", error))?;
    }
    set_mode(root, place, Mode(0), guard)
}

/// Sets the mode of the directory if it differs.
pub fn set_mode(root: BorrowedFd<'_>, place: &Place, mode: Mode, guard: Guard<'_>) -> Result<(), DriverError> {
    let (directory, there) = directory(root, place)?;
    if there.st_mode & 0o7777 == mode.0 {
        return Ok(());
    }
    guard(&format!("set mode {:o} of {place}", mode.0))?;
    rustix::fs::fchmod(&directory, Bits::from_raw_mode(mode.0))
        .map_err(|error| root_error(format!("the mode of {place} cannot be set"), "run as root", error))
}

fn directory(root: BorrowedFd<'_>, place: &Place) -> Result<(OwnedFd, Stat), DriverError> {
    let opened = open(root, &place.to_string());
    let read = opened.and_then(|directory| rustix::fs::fstat(&directory).map(|stat| (directory, stat)));
    read.map_err(|error| DriverError::temporary_from(format!("{place} cannot be opened"), error))
}

/// Lists the names in a directory, without `.` and `..`.
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

    use uuid::Uuid;

    use super::*;
    use crate::creation::temporary_name;
    use crate::injected::{self, Moment};

    fn kind(path: &Path) -> i64 {
        rustix::fs::statfs(path).unwrap().f_type
    }

    #[test]
    fn an_unmounted_root_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Mount::new(folder.path(), kind(folder.path())).root().is_ok());
        let fault = Mount::new(folder.path(), GPFS).root().unwrap_err();
        assert!(fault.to_string().contains("is it mounted"), "{fault}");
    }

    fn desired() -> Desired {
        let place = Place::parse("/sys/store/cscs/project", "/sys").unwrap();
        let limits = storage_driver::limits::QuotaLimits::minimum();
        let (id, parents) = (Uuid::from_u128(1), vec![Mode(0o755), Mode(0o755)]);
        Desired { id, place, parents, uid: 0, gid: 0, mode: Mode(0o700), limits, project: None }
    }

    #[test]
    fn a_directory_planted_under_the_temporary_name_does_not_get_the_mode() {
        for before in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let root = Mount::new(folder.path(), kind(folder.path())).root().unwrap();
            let (desired, store) = (desired(), folder.path().join("store"));
            std::fs::create_dir(&store).unwrap();
            let (victim, temporary) = (store.join("victim"), store.join(temporary_name(desired.id)));
            std::fs::create_dir(&victim).unwrap();
            std::fs::write(victim.join("data"), "data").unwrap();
            std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o700)).unwrap();
            if before {
                std::fs::rename(&victim, &temporary).unwrap();
            }
            let swapped = (victim.clone(), temporary.clone());
            let _hook = injected::on_each_moment(move |moment| {
                if moment == Moment::Created && swapped.0.exists() {
                    std::fs::remove_dir(&swapped.1).unwrap();
                    std::fs::rename(&swapped.0, &swapped.1).unwrap();
                }
            });
            let made = make_parents(root.as_fd(), &desired, &|_| Ok(()));
            assert!(matches!(made, Err(DriverError::Conflict(_))), "{made:?}");
            assert_eq!(std::fs::metadata(&temporary).unwrap().mode() & 0o7777, 0o700);
            assert!(temporary.join("data").exists() && !store.join("cscs").exists());
        }
    }

    #[test]
    fn temporary_directories_left_by_a_crash_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Mount::new(folder.path(), kind(folder.path())).root().unwrap();
        let desired = desired();
        std::fs::create_dir_all(folder.path().join("store").join(temporary_name(desired.id))).unwrap();
        std::fs::create_dir(folder.path().join("store/cscs")).unwrap();
        std::fs::create_dir(folder.path().join(temporary_name(desired.id))).unwrap();
        make_parents(root.as_fd(), &desired, &|_| Ok(())).unwrap();
        assert_eq!(names(root.as_fd()).unwrap(), ["store"]);
        assert_eq!(names(open(root.as_fd(), "store").unwrap().as_fd()).unwrap(), ["cscs"]);
    }

    #[test]
    fn symlinks_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
        let root = Mount::new(folder.path(), kind(folder.path())).root().unwrap();
        assert!(matches!(find(root.as_fd(), "real").unwrap(), Found::Directory { .. }));
        for name in ["link", "out", "out/etc"] {
            assert_eq!(find(root.as_fd(), name).unwrap(), Found::Other, "{name}");
        }
        assert_eq!(find(root.as_fd(), "none").unwrap(), Found::Nothing);
        assert!(open(root.as_fd(), "../").is_err());
    }
}
