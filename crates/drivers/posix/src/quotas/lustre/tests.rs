//! Tests with a simulated `lfs`.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use super::*;
use crate::simulated::lustre;
use crate::tree::{Rules, Tree};
use storage_driver::Driver as _;
use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::error_chain;
use storage_driver::limits::{Bytes, Inodes};
use storage_driver::place::Place;

const RULES: Rules = Rules { must_be_mounted: false, change_owner: false, acl: None };

fn limits() -> QuotaLimits {
    QuotaLimits::new([Bytes(10 << 20), Bytes(11 << 20)], [Inodes(100), Inodes(110)]).unwrap()
}

#[test]
fn limits_are_read_from_the_output_of_all_versions() {
    let mount = tempfile::tempdir().unwrap();
    let root = File::open(mount.path()).unwrap();
    let usage = |kib: u64, inodes| Usage { space: Bytes(kib << 10), inodes: Inodes(inodes) };
    let over = [("usage.7", "1048576 110"), ("expired", "")];
    let (nothing, little, much) = (usage(0, 0), usage(4, 1), usage(1 << 20, 110));
    for (odd, unlimited, used) in [(&[][..], nothing, little), (&[("wrap", "")], nothing, little), (&over, much, much)]
    {
        let (_folder, lustre) = lustre(mount.path(), odd);
        lustre.ready(root.as_fd()).unwrap();
        assert_eq!(lustre.read(root.as_fd(), 7).unwrap(), (None, Some(unlimited)));
        lustre.set(root.as_fd(), 7, &limits()).unwrap();
        assert_eq!(lustre.read(root.as_fd(), 7).unwrap(), (Some(limits()), Some(used)));
        lustre.clear(root.as_fd(), 7).unwrap();
        assert_eq!(lustre.read(root.as_fd(), 7).unwrap(), (None, Some(unlimited)));
        assert!(matches!(lustre.set(root.as_fd(), 0, &limits()), Err(DriverError::Conflict(_))));
    }
}

#[test]
fn unknown_quotas_are_an_error_with_the_reason() {
    let mount = tempfile::tempdir().unwrap();
    let root = File::open(mount.path()).unwrap();
    let fault = |odd: &str| {
        let (_folder, lustre) = lustre(mount.path(), &[(odd, "")]);
        error_chain(&lustre.ready(root.as_fd()).unwrap_err())
    };
    let off = fault("off");
    assert!(
        off.contains("quota.mdt=ugp") && off.contains("lfs failed with exit code 3: prj quotas are not enabled."),
        "{off}"
    );
    let inaccurate = fault("inaccurate");
    assert!(inaccurate.contains("inaccurate numbers because some servers do not answer"), "{inaccurate}");
    assert!(inaccurate.contains("exit code 5"), "{inaccurate}");
    let default = lustre(mount.path(), &[("default", ""), ("limits.7", "1 1 1 1")]);
    assert_eq!(default.1.read(root.as_fd(), 7).unwrap().0, None);
}

#[test]
fn an_unused_project_with_the_default_quota_is_free_and_inspect_reports_the_default() {
    let mount = tempfile::tempdir().unwrap();
    let root = File::open(mount.path()).unwrap();
    let (folder, lustre) = lustre(mount.path(), &[("default-quota", "1000 2000 100 200")]);
    let shown = QuotaLimits::new([Bytes(1000 << 10), Bytes(2000 << 10)], [Inodes(100), Inodes(200)]).unwrap();
    assert_eq!(lustre.read(root.as_fd(), 7).unwrap().0, Some(shown));
    let driver = Tree::new(mount.path().to_owned(), lustre, RULES);
    assert!(driver.is_free(7).unwrap());
    fs::write(folder.path().join("usage.8"), "4 1\n").unwrap();
    fs::write(folder.path().join("limits.9"), "1000 2000 100 201\n").unwrap();
    assert!(!driver.is_free(8).unwrap() && !driver.is_free(9).unwrap(), "used, and other limits");
    let [Ok(note)] = &driver.inspect(&[])[..] else { panic!("{:?}", driver.inspect(&[])) };
    assert!(note.contains("a default project quota is set (space 1000/2000 KiB, inodes 100/200"), "{note}");
    // The next pass reads a changed default.
    fs::write(folder.path().join("default-quota"), "1 1 1 1\n").unwrap();
    driver.ready().unwrap();
    assert!(driver.is_free(7).unwrap() && !driver.is_free(9).unwrap());
    fs::remove_file(folder.path().join("default-quota")).unwrap();
    driver.ready().unwrap();
    assert!(driver.is_free(7).unwrap() && driver.inspect(&[]).is_empty());
}

#[test]
fn inspect_and_errors_explain_renames_between_metadata_servers() {
    let mount = tempfile::tempdir().unwrap();
    fs::create_dir_all(mount.path().join("store/cscs")).unwrap();
    let (folder, lustre) = lustre(mount.path(), &[]);
    let driver = Tree::new(mount.path().to_owned(), lustre, RULES);
    let above = [Place::parse("/sys/store/cscs", "/sys").unwrap(), Place::parse("/sys/none", "/sys").unwrap()];
    assert!(driver.inspect(&above).is_empty());
    fs::write(folder.path().join("mdt"), "cscs\n").unwrap();
    let [Ok(note)] = &driver.inspect(&above)[..] else { panic!("{:?}", driver.inspect(&above)) };
    assert!(note.contains("(MDT 0, 1)") && note.contains("mdt.*.enable_remote_rename"), "{note}");
    let refused = driver.explain_rename_error(DriverError::temporary_from(
        "a cannot be renamed to b",
        std::io::Error::from(Errno::XDEV),
    ));
    assert!(refused.to_string().contains("mdt.*.enable_remote_rename"), "{refused}");
    let other = driver
        .explain_rename_error(DriverError::temporary_from("a cannot be renamed to b", std::io::Error::from(Errno::IO)));
    assert_eq!(other.to_string(), "a cannot be renamed to b");
}

#[test]
fn limits_are_never_set_on_another_file_system() {
    let mount = tempfile::tempdir().unwrap();
    let (_folder, lustre) = lustre(mount.path(), &[]);
    let elsewhere = File::open("/proc").unwrap();
    let fault = lustre.set(elsewhere.as_fd(), 7, &limits()).unwrap_err().to_string();
    assert!(fault.contains("is not on the file system at"), "{fault}");
    for mount in ["", "lustre", "/mnt/two words", "/mnt/lustre\n"] {
        assert!(Lustre::new(Program::find("true").unwrap(), mount).is_err(), "{mount}");
    }
}

/// With the ioctls of XFS, and limits in a file.
#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn conforms() {
    let root = Path::new(&std::env::var_os("KERNEL_XFS").unwrap()).join("lustre");
    fs::create_dir(&root).unwrap();
    let (_folder, lustre) = lustre(&root, &[("wrap", ""), ("default-quota", "1000 2000 100 200")]);
    let driver = Tree::new(root.clone(), lustre, Rules { must_be_mounted: true, change_owner: true, acl: None });
    let make_unmarked = |place: &Place| fs::create_dir_all(root.join(place.to_string())).unwrap();
    assert_conforms(&Bench { driver: &driver, ids: (20_000, 30_500), make_unmarked: &make_unmarked });
}
