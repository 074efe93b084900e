//! Simulated file systems for tests on any machine.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::XattrFlags;
use tempfile::TempDir;

use crate::command::Program;
use crate::quotas::ceph::{Ceph, USED};
use crate::quotas::lustre::Lustre;
use crate::tree::{Rules, Tree};

/// A root with the attributes of CephFS, for [`ceph`].
pub fn ceph_root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let directory = File::open(root.path()).unwrap();
    for name in USED {
        rustix::fs::fsetxattr(&directory, format!("user.{name}").as_str(), b"0", XattrFlags::empty()).unwrap();
    }
    root
}

/// The driver of CephFS, with quotas in user attributes.
pub fn ceph(root: &TempDir) -> Tree<Ceph> {
    let rules = Rules { must_be_mounted: false, change_owner: false, acl: None };
    Tree::new(root.path().to_owned(), Ceph::simulated(), rules)
}

/// Quotas of the file system at `mount`, with a script in place of `lfs`. The script keeps its state in the returned folder;
/// `variations` are files in it that change the script's output.
pub fn lustre(mount: &Path, variations: &[(&str, &str)]) -> (TempDir, Lustre) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in variations.iter().chain(&[("mount", mount.to_str().unwrap())]) {
        fs::write(folder.path().join(name), format!("{text}\n")).unwrap();
    }
    let lfs = folder.path().join("lfs");
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lfs"), &lfs).unwrap();
    let lustre = Lustre::new(Program::find(lfs.to_str().unwrap()).unwrap(), mount.to_str().unwrap()).unwrap();
    (folder, lustre)
}
