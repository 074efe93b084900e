//! Against a simulated `lfs`, started as the real one would be.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::driver::conformance::Bench;
use crate::driver::tree::{Rules, Tree};
use crate::limits::{Bytes, Inodes};
use crate::pass::told;
use crate::place::Place;

/// A file system at `mount` that behaves in this `odd` way.
fn lustre(mount: &Path, odd: &Value) -> (TempDir, Lustre) {
    let folder = tempfile::tempdir().unwrap();
    let mut state = json!({ "mount": mount.to_str().unwrap(), "limits": {} });
    state.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
    fs::write(folder.path().join("state"), state.to_string()).unwrap();
    let lfs = folder.path().join("lfs");
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lfs"), &lfs).unwrap();
    let lustre = Lustre::new(Program::find(lfs.to_str().unwrap()).unwrap(), mount.to_str().unwrap()).unwrap();
    (folder, lustre)
}

fn limits() -> Limits {
    Limits::new([Bytes(10 << 20), Bytes(11 << 20)], [Inodes(100), Inodes(110)]).unwrap()
}

#[test]
fn what_is_set_is_read_whatever_the_version_prints() {
    let mount = tempfile::tempdir().unwrap();
    let root = File::open(mount.path()).unwrap();
    let usage = |kib: u64, inodes| Usage { space: Bytes(kib << 10), inodes: Inodes(inodes) };
    for odd in [json!({}), json!({ "wrap": true }), json!({ "usage": { "7": [1 << 20, 110] }, "expired": true })] {
        let (_folder, lustre) = lustre(mount.path(), &odd);
        lustre.ready(root.as_fd()).unwrap();
        let used = if odd["usage"].is_null() { usage(4, 1) } else { usage(1 << 20, 110) };
        assert_eq!(lustre.read(root.as_fd(), 7).unwrap(), (None, Some(used)));
        lustre.set(root.as_fd(), 7, &limits()).unwrap();
        assert_eq!(lustre.read(root.as_fd(), 7).unwrap(), (Some(limits()), Some(used)));
        lustre.clear(root.as_fd(), 7).unwrap();
        assert_eq!(lustre.read(root.as_fd(), 7).unwrap(), (None, Some(used)));
        assert!(matches!(lustre.set(root.as_fd(), 0, &limits()), Err(Fault::Conflict(_))));
    }
}

#[test]
fn what_is_not_known_is_a_fault_that_says_why() {
    let mount = tempfile::tempdir().unwrap();
    let root = File::open(mount.path()).unwrap();
    let fault = |odd: Value| {
        let (_folder, lustre) = lustre(mount.path(), &odd);
        told(&lustre.ready(root.as_fd()).unwrap_err())
    };
    let off = fault(json!({ "off": true }));
    assert!(
        off.contains("quota.mdt=ugp") && off.contains("lfs ended with exit code 3: prj quotas are not enabled."),
        "{off}"
    );
    let inaccurate = fault(json!({ "inaccurate": true }));
    assert!(inaccurate.contains("exit code 5"), "{inaccurate}");
    let default = lustre(mount.path(), &json!({ "default": true, "limits": { "7": [1, 1, 1, 1] } }));
    assert_eq!(default.1.read(root.as_fd(), 7).unwrap().0, None);
}

#[test]
fn another_file_system_is_never_limited_by_mistake() {
    let mount = tempfile::tempdir().unwrap();
    let (_folder, lustre) = lustre(mount.path(), &json!({}));
    let elsewhere = File::open("/proc").unwrap();
    let fault = lustre.set(elsewhere.as_fd(), 7, &limits()).unwrap_err().to_string();
    assert!(fault.contains("does not lie on the file system at"), "{fault}");
    for mount in ["", "lustre", "/mnt/two words", "/mnt/lustre\n"] {
        assert!(Lustre::new(Program::find("true").unwrap(), mount).is_err(), "{mount}");
    }
}

/// The ioctls are those of XFS; the limits are a file's.
#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn conforms() {
    let root = Path::new(&std::env::var_os("KERNEL_XFS").unwrap()).join("lustre");
    fs::create_dir(&root).unwrap();
    let (_folder, lustre) = lustre(&root, &json!({ "wrap": true }));
    let driver = Tree::new(root.clone(), lustre, Rules { must_be_mounted: true, change_owner: true });
    let make_unmarked = |place: &Place| fs::create_dir_all(root.join(place.to_string())).unwrap();
    Bench { driver: &driver, ids: (20_000, 30_500), make_unmarked: &make_unmarked }.all();
}
