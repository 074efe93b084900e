//! Quotas of CephFS: extended attributes of the directory. There are no project IDs.
//!
//! **Never tested with a real CephFS.** Written from Ceph's manual, and tested with attributes of the same names in the
//! namespace `user` of other file systems.
//!
//! CephFS has no soft limits: the hard limits are set and reported as both ([`Quotas::stored_limits`]). Clients enforce them
//! cooperatively and some seconds late; usage is delayed as well.

use std::os::fd::BorrowedFd;

use rustix::fs::{Dir, XattrFlags};
use rustix::io::Errno;

use super::Quotas;
use crate::handle::open_below;
use storage_driver::DriverError;
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};

/// Limits: bytes, and number of files and directories.
const LIMITS: [&str; 2] = ["ceph.quota.max_bytes", "ceph.quota.max_files"];
/// Number of snapshots of the directory and everything below it; not in older versions.
const SNAPSHOTS: &str = "ceph.dir.rsnaps";
/// The directory with the snapshots of a directory.
const SNAPSHOT_DIRECTORY: &str = ".snap";
/// Recursive usage: bytes, and number of files and directories.
pub(crate) const USED: [&str; 2] = ["ceph.dir.rbytes", "ceph.dir.rentries"];

/// Quotas of CephFS, mounted with the kernel or `ceph-fuse`.
#[derive(Debug, Default)]
pub struct Ceph {
    /// Prefix of attribute names; empty except in tests.
    prefix: &'static str,
}

impl Ceph {
    /// Uses attributes of the same names in the namespace `user`, which any file system has.
    #[cfg(any(test, feature = "simulated"))]
    pub(crate) const fn simulated() -> Self {
        Self { prefix: "user." }
    }

    /// Reads an attribute; `None` if it is not set.
    fn number(&self, directory: BorrowedFd<'_>, name: &str) -> Result<Option<u64>, DriverError> {
        let mut text = [0; 64];
        match rustix::fs::fgetxattr(directory, format!("{}{name}", self.prefix).as_str(), &mut text) {
            Ok(length) => number(&text[..length.min(text.len())])
                .map(Some)
                .ok_or_else(|| DriverError::temporary(format!("the attribute {name} of a directory is not a number"))),
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(DriverError::temporary_from(format!("the attribute {name} cannot be read"), error)),
        }
    }

    fn both(&self, directory: BorrowedFd<'_>, names: [&str; 2]) -> Result<Option<[u64; 2]>, DriverError> {
        let [first, second] = names;
        Ok(self.number(directory, first)?.zip(self.number(directory, second)?).map(<[u64; 2]>::from))
    }
}

/// Parses an attribute; some versions end it with a zero byte.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

impl Quotas for Ceph {
    fn ready(&self, root: BorrowedFd<'_>) -> Result<(), DriverError> {
        match self.both(root, USED) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(DriverError::temporary(format!(
                "the root has no attribute {}, so it is not on CephFS: mount it, or choose another driver for this system",
                USED[0]
            ))),
            Err(fault) => Err(fault),
        }
    }

    fn inspect(&self, root: BorrowedFd<'_>) -> Vec<Result<String, DriverError>> {
        match self.is_quota_realm(root) {
            Ok(false) => Vec::new(),
            Ok(true) => vec![Ok("the root has a quota of its own, which limits all resources together".to_owned())],
            Err(fault) => vec![Err(fault)],
        }
    }

    /// The kernel client and ceph-fuse refuse to rename from one quota realm to another (EXDEV). A realm is everything below a
    /// directory with a quota.
    fn is_quota_realm(&self, directory: BorrowedFd<'_>) -> Result<bool, DriverError> {
        for name in LIMITS {
            if self.number(directory, name)?.is_some_and(|limit| limit != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn snapshots(&self, directory: BorrowedFd<'_>) -> Result<u64, DriverError> {
        if let Some(all) = self.number(directory, SNAPSHOTS)? {
            return Ok(all);
        }
        let unreadable = |error| DriverError::temporary_from("the snapshots of a directory cannot be read", error);
        let shown = match open_below(directory, SNAPSHOT_DIRECTORY) {
            Ok(shown) => shown,
            Err(Errno::NOENT) => return Ok(0),
            Err(error) => return Err(unreadable(error)),
        };
        let mut count = 0;
        for entry in Dir::read_from(&shown).map_err(unreadable)? {
            // Names that begin with `_` are snapshots of a parent directory.
            let own = !matches!(entry.map_err(unreadable)?.file_name().to_bytes().first(), Some(b'.' | b'_') | None);
            count += u64::from(own);
        }
        Ok(count)
    }

    fn why_renames_fail(&self) -> Option<&'static str> {
        Some(
            "CephFS renames nothing from one quota realm or subvolume to another: no directory between the root and the \
             resource may have a quota of its own (`getfattr -n ceph.quota.max_bytes DIRECTORY`) or be a subvolume",
        )
    }

    fn block(&self) -> u64 {
        1
    }

    fn stored_limits(&self, limits: &QuotaLimits) -> QuotaLimits {
        limits.only_hard()
    }

    fn read(&self, directory: BorrowedFd<'_>, _: u32) -> Result<(Option<QuotaLimits>, Option<Usage>), DriverError> {
        // Newer versions report 0 for a limit that is not set.
        let limits = self
            .both(directory, LIMITS)?
            .and_then(|[space, inodes]| QuotaLimits::new([Bytes(space); 2], [Inodes(inodes); 2]).ok());
        let used = self.both(directory, USED)?;
        Ok((limits, used.map(|[space, inodes]| Usage { space: Bytes(space), inodes: Inodes(inodes) })))
    }

    fn set(&self, directory: BorrowedFd<'_>, _: u32, limits: &QuotaLimits) -> Result<(), DriverError> {
        for (name, limit) in LIMITS.into_iter().zip([limits.space_hard().0, limits.inodes_hard().0]) {
            let attribute = format!("{}{name}", self.prefix);
            rustix::fs::fsetxattr(directory, attribute.as_str(), limit.to_string().as_bytes(), XattrFlags::empty())
                .map_err(|error| match error {
                    Errno::PERM | Errno::ACCESS => DriverError::temporary_from(
                        format!(
                            "{name} cannot be set: the client's capability for the MDS needs `p`, as in `allow rwp`"
                        ),
                        error,
                    ),
                    error => DriverError::temporary_from(format!("{name} cannot be set"), error),
                })?;
        }
        Ok(())
    }

    /// Nothing to do: the limits were deleted with the directory.
    fn clear(&self, _: BorrowedFd<'_>, _: u32) -> Result<(), DriverError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;
    use crate::injected;
    use crate::simulated::{ceph as driver, ceph_root as root};
    use storage_driver::Driver as _;
    use storage_driver::conformance::{Bench, assert_conforms};
    use storage_driver::place::Place;

    const USER: Ceph = Ceph::simulated();

    fn put(directory: &File, name: &str, value: &str) {
        rustix::fs::fsetxattr(directory, format!("user.{name}").as_str(), value.as_bytes(), XattrFlags::empty())
            .unwrap();
    }

    #[test]
    fn only_unsigned_integers_are_numbers() {
        assert_eq!(number(b"100000000"), Some(100_000_000));
        assert_eq!(number(b"7\0"), Some(7));
        for text in ["", "\0", "+1", "-1", "1 ", "1K", "0x1", "18446744073709551616"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn hard_limits_are_read_as_soft_and_hard_limits() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let agreed = QuotaLimits::new([Bytes(1), Bytes(1_000_001)], [Inodes(1), Inodes(9)]).unwrap();
        assert_eq!(USER.read(directory.as_fd(), 0).unwrap(), (None, None));
        USER.set(directory.as_fd(), 0, &agreed).unwrap();
        let held = QuotaLimits::new([Bytes(1_000_001); 2], [Inodes(9); 2]).unwrap();
        assert_eq!(USER.stored_limits(&agreed), held);
        put(&directory, "ceph.dir.rbytes", "5");
        put(&directory, "ceph.dir.rentries", "3");
        let used = Usage { space: Bytes(5), inodes: Inodes(3) };
        assert_eq!(USER.read(directory.as_fd(), 0).unwrap(), (Some(held), Some(used)));
        put(&directory, "ceph.quota.max_files", "0");
        assert_eq!(USER.read(directory.as_fd(), 0).unwrap().0, None);
        put(&directory, "ceph.quota.max_files", "many");
        assert!(USER.read(directory.as_fd(), 0).is_err());
    }

    #[test]
    fn another_file_system_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        assert!(USER.ready(directory.as_fd()).unwrap_err().to_string().contains("is not on CephFS"));
        assert!(Ceph::default().ready(directory.as_fd()).is_err());
    }

    #[expect(clippy::unnecessary_wraps, reason = "the signature of a guard")]
    fn allow(_: &str) -> Result<(), DriverError> {
        Ok(())
    }

    /// Reported before any change, and by `inspect`.
    #[test]
    fn a_quota_of_a_directory_above_is_found_before_anything_is_frozen() {
        let root = root();
        let driver = driver(&root);
        let bench = Bench { driver: &driver, ids: (1000, 1000), make_unmarked: &|_| {} };
        let desired = bench.desired(1);
        driver.ensure(&desired, &allow).unwrap();
        let above: Vec<_> = std::iter::successors(desired.place.parent(), Place::parent).collect();
        assert!(driver.inspect(&above).is_empty());
        for place in &above {
            let directory = File::open(root.path().join(place.to_string())).unwrap();
            put(&directory, "ceph.quota.max_files", "9");
            let [Err(found)] = &driver.inspect(&above)[..] else { panic!("{:?}", driver.inspect(&above)) };
            let fault = driver.retire(&desired, 5, &|what| panic!("{what}")).unwrap_err();
            for fault in [found, &fault] {
                let text = fault.to_string();
                assert!(text.contains(&format!("/{place} has a quota of its own")), "{text}");
            }
            assert!(bench.is_as_desired(&desired), "nothing is frozen");
            put(&directory, "ceph.quota.max_files", "0");
        }
        // A quota of the root does not separate directories below it.
        put(&File::open(root.path()).unwrap(), "ceph.quota.max_bytes", "1000");
        assert!(matches!(&driver.inspect(&above)[..], [Ok(note)] if note.contains("limits all resources together")));
        driver.retire(&desired, 5, &allow).unwrap();
        let parent = File::open(root.path().join(above[0].to_string())).unwrap();
        put(&parent, "ceph.quota.max_files", "9");
        let fault = driver.restore(&desired, &allow).unwrap_err().to_string();
        assert!(fault.contains("has a quota of its own"), "{fault}");
    }

    #[test]
    fn a_directory_with_snapshots_is_neither_frozen_nor_purged() {
        let root = root();
        let driver = driver(&root);
        let bench = Bench { driver: &driver, ids: (1000, 1000), make_unmarked: &|_| {} };
        let desired = bench.desired(1);
        driver.ensure(&desired, &allow).unwrap();
        let path = root.path().join(desired.place.to_string());
        let refused = || {
            let fault = driver.retire(&desired, 5, &|what| panic!("{what}")).unwrap_err().to_string();
            assert!(fault.contains("has snapshots (2)") && bench.is_as_desired(&desired), "{fault}");
        };
        put(&File::open(&path).unwrap(), SNAPSHOTS, "2");
        refused();
        rustix::fs::removexattr(&path, format!("user.{SNAPSHOTS}").as_str()).unwrap();
        for name in ["daily", "weekly", "_of-the-root_1"] {
            fs::create_dir_all(path.join(".snap").join(name)).unwrap();
        }
        refused();
        fs::remove_dir_all(path.join(".snap")).unwrap();
        driver.retire(&desired, 5, &allow).unwrap();
        let trashed = storage_driver::Trashed { id: desired.id, since: 5 };
        let tree = root.path().join(format!(".trash/{}.5", desired.id));
        put(&File::open(&tree).unwrap(), SNAPSHOTS, "1");
        let fault = driver.purge(&trashed, None, &|what| panic!("{what}")).unwrap_err().to_string();
        assert!(fault.contains("has snapshots (1)") && tree.exists(), "{fault}");
        put(&File::open(&tree).unwrap(), SNAPSHOTS, "0");
        driver.purge(&trashed, None, &allow).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_refused_rename_names_the_quota_realms() {
        let root = root();
        let driver = driver(&root);
        let desired = Bench { driver: &driver, ids: (1000, 1000), make_unmarked: &|_| {} }.desired(1);
        driver.ensure(&desired, &allow).unwrap();
        let _hook = injected::refuse_renames(Errno::XDEV);
        let fault = driver.retire(&desired, 5, &allow).unwrap_err().to_string();
        assert!(fault.contains("from one quota realm or subvolume to another"), "{fault}");
    }

    #[test]
    fn conforms_with_user_attributes() {
        let root = root();
        let driver = driver(&root);
        let make_unmarked = |place: &Place| fs::create_dir_all(root.path().join(place.to_string())).unwrap();
        assert_conforms(&Bench { driver: &driver, ids: (1000, 1000), make_unmarked: &make_unmarked });
    }

    #[test]
    fn conforms_without_renaming_without_replacing() {
        let _hook = injected::refuse_renames(Errno::INVAL);
        conforms_with_user_attributes();
    }
}
