//! Tests on a real kernel: `.ci/kernel` boots one and sets variables with the mount points.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use project_quota::tag;

use super::*;
use crate::deletion;
use crate::tree::{Rules, Tree};
use project_quota::Project;
use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::place::Place;
use storage_driver::{Desired, Driver as _, Trashed};

#[test]
fn a_kernel_without_quotas_and_a_mount_without_them_give_different_errors() {
    // The kernel has no quotas for this file system, even if it supports them for others.
    let proc = File::open("/proc").unwrap();
    let kernel = Kernel { system: System::Xfs, block: 4096 };
    let without = kernel.read(proc.as_fd(), 7).unwrap_err().to_string();
    assert!(without.contains("this kernel has no quota support") && !without.contains("prjquota"), "{without}");
    let other = project_quota::Error::Kernel { call: "Q_XGETQUOTA", errno: Errno::IO };
    assert_eq!(quota_error(proc.as_fd(), "it cannot be read", other).to_string(), "it cannot be read");
}

/// Owner and group of the files. Not root, because ext4 does not enforce limits for root.
const IDS: (u32, u32) = (20_000, 30_500);
const MIB: u64 = 1 << 20;

/// The mount point of the file system.
fn mounted(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| panic!("only .ci/kernel sets {variable}")))
}

/// A new directory of the file system.
fn folder(variable: &str, name: &str) -> (PathBuf, Kernel) {
    let path = mounted(variable).join(name);
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(IDS.0), Some(IDS.1)).unwrap();
    let quotas = Kernel::of(File::open(&path).unwrap().as_fd()).unwrap();
    (path, quotas)
}

fn limits(space: u64, inodes: u64) -> QuotaLimits {
    QuotaLimits::new([Bytes(space); 2], [Inodes(inodes); 2]).unwrap()
}

fn used(quotas: &Kernel, directory: &File, project: u32) -> Usage {
    quotas.read(directory.as_fd(), project).unwrap().1.unwrap()
}

/// Runs a command as the owner of the files. Returns its stderr if it fails.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("LC_ALL", "C").uid(IDS.0).gid(IDS.1).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

fn is_at_the_limit(result: Result<(), String>) {
    let stderr = result.unwrap_err();
    assert!(stderr.contains("No space left on device") || stderr.contains("Disk quota exceeded"), "{stderr}");
}

/// Creates a root and its driver, with a second handle of the quotas.
fn tree(root: &Path) -> (Tree<Kernel>, Kernel) {
    fs::create_dir(root).unwrap();
    let quotas = || Kernel::of(File::open(root).unwrap().as_fd()).unwrap();
    let rules = Rules { must_be_mounted: true, change_owner: true, acl: None };
    (Tree::new(root.to_owned(), quotas(), rules), quotas())
}

fn passes_the_conformance_suite(variable: &str) {
    let root = mounted(variable).join("conforms");
    let (driver, _) = tree(&root);
    let make_unmarked = |place: &Place| {
        let path = root.join(place.to_string());
        fs::create_dir_all(path.join("with/data")).unwrap();
        fs::write(path.join("with/data/file"), "data").unwrap();
    };
    assert_conforms(&Bench { driver: &driver, ids: IDS, make_unmarked: &make_unmarked });
}

fn stops_at_the_limit(variable: &str) {
    let (path, quotas) = folder(variable, "stops");
    let directory = File::open(&path).unwrap();
    quotas.tag(directory.as_fd(), 7001, None).unwrap();
    assert_eq!(quotas.project(directory.as_fd()).unwrap(), Some(7001));
    assert_eq!(quotas.read(directory.as_fd(), 7001).unwrap().0, None);
    let before = used(&quotas, &directory, 7001);
    assert_eq!(before.inodes, Inodes(1));
    let limits = limits(10 * MIB, 12);
    quotas.set(directory.as_fd(), 7001, &limits).unwrap();
    assert_eq!(quotas.read(directory.as_fd(), 7001).unwrap().0, Some(limits));

    let file = path.join("file");
    is_at_the_limit(run("dd", &["if=/dev/zero", &format!("of={}", file.display()), "bs=64K", "count=400"]));
    let written = fs::metadata(&file).unwrap().len();
    File::open(&file).unwrap().sync_all().unwrap();
    let after = used(&quotas, &directory, 7001);
    assert_eq!(after.inodes, Inodes(2));
    match quotas.system {
        System::Xfs => assert_eq!((written, after.space), (10 * MIB, Bytes(10 * MIB))),
        // ext4 reserves some blocks for metadata of the file.
        System::Ext4 => {
            let room = 10 * MIB - before.space.0;
            assert!(
                (room - 16 * 1024..=room).contains(&written) && after.space.0 <= 10 * MIB,
                "{written} of {room}, {after:?}"
            );
        }
    }

    fs::remove_file(&file).unwrap();
    let names: Vec<String> = (0..20).map(|n| path.join(n.to_string()).display().to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    is_at_the_limit(run("touch", &names));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 11);
    assert_eq!(used(&quotas, &directory, 7001).inodes, Inodes(12));

    quotas.clear(directory.as_fd(), 7001).unwrap();
    assert_eq!(quotas.read(directory.as_fd(), 7001).unwrap().0, None);
    run("touch", &names).unwrap();
}

fn limits_are_read_as_stored_limits_predicts(variable: &str) {
    let (path, quotas) = folder(variable, "holds");
    let directory = File::open(&path).unwrap();
    quotas.tag(directory.as_fd(), 7002, None).unwrap();
    for space in [1, 1000, 4097, 10_000_000_000_001, (1 << 60) + 1] {
        let limits = limits(space, u64::from(u32::MAX) + 3).in_blocks_of(quotas.block());
        quotas.set(directory.as_fd(), 7002, &limits).unwrap();
        assert_eq!(quotas.read(directory.as_fd(), 7002).unwrap().0, Some(limits));
    }
    quotas.clear(directory.as_fd(), 7099).unwrap();
    assert_eq!(quotas.read(directory.as_fd(), 7099).unwrap().0, None);
    for invalid in [0, u32::MAX] {
        assert!(matches!(quotas.set(directory.as_fd(), invalid, &limits(4096, 1)), Err(DriverError::Conflict(_))));
    }
}

fn retires_and_restores(variable: &str) {
    let (path, quotas) = folder(variable, "goes");
    let (trash, _) = folder(variable, "goes-to");
    let (tagged, there) = (path.join("tagged"), trash.join("tagged"));
    fs::create_dir(&tagged).unwrap();
    let directory = File::open(&tagged).unwrap();
    quotas.tag(directory.as_fd(), 7003, None).unwrap();
    fs::write(tagged.join("file"), vec![1; 100_000]).unwrap();
    File::open(tagged.join("file")).unwrap().sync_all().unwrap();
    let before = used(&quotas, &directory, 7003);
    for (from, to) in [(&tagged, &there), (&there, &tagged)] {
        fs::rename(from, to).unwrap();
        assert_eq!(quotas.project(directory.as_fd()).unwrap(), Some(7003));
        assert_eq!(used(&quotas, &directory, 7003), before);
    }
    let untagged = path.join("untagged");
    fs::write(&untagged, "").unwrap();
    assert_eq!(fs::rename(&untagged, tagged.join("in")).unwrap_err().kind(), std::io::ErrorKind::CrossesDevices);
}

/// The owner of a directory can set another's project ID.
fn limits_of_a_stolen_project_id_do_not_change(variable: &str) {
    let root = mounted(variable).join("stolen");
    let (driver, quotas) = tree(&root);
    let bench = Bench { driver: &driver, ids: IDS, make_unmarked: &|_| {} };
    let [thief, owner] = [1, 2].map(|n| Desired { project: Some(7020 + n), ..bench.desired(n) });
    for desired in [&thief, &owner] {
        driver.ensure(desired, &|_| Ok(())).unwrap();
    }
    let directory = File::open(root.join(thief.place.to_string())).unwrap();
    tag::set(directory.as_fd(), tag::Tag { project: Project::new(owner.project.unwrap()), inherit: true }).unwrap();
    let limits = |desired: &Desired| quotas.read(directory.as_fd(), desired.project.unwrap()).unwrap().0;
    assert!(driver.usage(&[&thief]).remove(0).is_err(), "the usage of another project is not reported");
    driver.retire(&thief, 5, &|_| Ok(())).unwrap();
    assert_eq!(limits(&owner), Some(owner.limits), "the other directory is not frozen");
    driver.purge(&Trashed { id: thief.id, since: 5 }, thief.project, &|_| Ok(())).unwrap();
    assert_eq!([limits(&thief), limits(&owner)], [None, Some(owner.limits)]);
}

/// Two systems on one file system, with project IDs that were free when they were assigned.
fn a_project_id_that_is_no_longer_free_is_not_used(variable: &str) {
    let roots = ["one-system", "other-system"].map(|name| mounted(variable).join(name));
    let [(one, quotas), (other, _)] = roots.each_ref().map(|root| tree(root));
    let bench = Bench { driver: &one, ids: IDS, make_unmarked: &|_| {} };
    let desired = Desired { project: Some(7030), ..bench.desired(1) };
    one.ensure(&desired, &|_| Ok(())).unwrap();
    let second = Desired { limits: limits(MIB, 5), id: uuid::Uuid::from_u128(9), ..desired.clone() };
    let fault = other.ensure(&second, &|_| Ok(())).unwrap_err();
    assert!(fault.to_string().contains("project ID 7030"), "{fault}");
    let directory = File::open(&roots[0]).unwrap();
    assert_eq!(quotas.read(directory.as_fd(), 7030).unwrap().0, Some(desired.limits));
}

fn adopts_a_tree(variable: &str) {
    let (path, quotas) = folder(variable, "adopts");
    let (other, _) = folder(variable, "adopts-not");
    let (deep, outside) = (path.join("a/b/c"), other.join("outside"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "data").unwrap();
    fs::write(&outside, "data").unwrap();
    symlink(&outside, deep.join("link")).unwrap();
    symlink(&other, path.join("link")).unwrap();
    run("mkfifo", &[&path.join("fifo").display().to_string()]).unwrap();
    let directory = File::open(&path).unwrap();
    // An unfinished tree: an untagged file below a tagged directory.
    quotas.tag(File::open(path.join("a")).unwrap().as_fd(), 7004, None).unwrap();
    for _ in 0..2 {
        quotas.tag(directory.as_fd(), 7004, Some(&|| Ok(()))).unwrap();
        for (path, inherit) in [(&path, true), (&path.join("a"), true), (&deep, true), (&deep.join("file"), false)] {
            let found = tag::get(File::open(path).unwrap().as_fd()).unwrap();
            assert_eq!(found, tag::Tag { project: Project::new(7004), inherit }, "{}", path.display());
        }
        for path in [&outside, &other] {
            assert_eq!(tag::get(File::open(path).unwrap().as_fd()).unwrap().project, None, "{}", path.display());
        }
    }
    assert_eq!(used(&quotas, &directory, 7004).inodes, Inodes(5));

    // An ID that is not inherited limits nothing.
    let not_inherited = tag::Tag { project: Project::new(7004), inherit: false };
    tag::set(File::open(&deep).unwrap().as_fd(), not_inherited).unwrap();
    assert_eq!(quotas.project(File::open(&deep).unwrap().as_fd()).unwrap(), Some(0));

    // The same file system, mounted inside the tree, so that `st_dev` is equal.
    let within = path.join("a/within");
    fs::create_dir(&within).unwrap();
    let mount = |arguments: &[&Path]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&[Path::new("--bind"), &other, &within]);
    let fault = quotas.tag(directory.as_fd(), 7005, Some(&|| Ok(())));
    assert!(Command::new("umount").arg(&within).status().unwrap().success());
    assert!(matches!(fault, Err(DriverError::Conflict(_))), "{fault:?}");
    assert_eq!(tag::get(File::open(&outside).unwrap().as_fd()).unwrap().project, None);
    assert_eq!(quotas.project(directory.as_fd()).unwrap(), Some(7004), "the top is tagged last");
}

/// The owner of a directory can set another project ID, and deep directories must be deleted anyway.
fn deletes_deep_directories_with_another_project_id(variable: &str) {
    let (path, quotas) = folder(variable, "deletes");
    let directory = File::open(&path).unwrap();
    quotas.tag(directory.as_fd(), 7006, None).unwrap();
    let deep = path.join(vec!["deep"; 70].join("/"));
    fs::create_dir_all(&deep).unwrap();
    for above in deep.ancestors().take(10) {
        quotas.tag(File::open(above).unwrap().as_fd(), 7007, None).unwrap();
    }
    let trash = OwnedFd::from(File::open(path.parent().unwrap()).unwrap());
    let refused = deletion::delete(
        &trash,
        "deletes",
        (&|_| Err(DriverError::temporary("other project ID")), &|_| Ok(())),
        &|| Ok(()),
    );
    assert_eq!(refused.unwrap_err().to_string(), "other project ID");
    deletion::delete(&trash, "deletes", (&|other| quotas.tag(other, 7006, None), &|_| Ok(())), &|| Ok(())).unwrap();
    assert!(!path.exists());
}

/// If new files in the trash or a parent directory inherit a project ID, renames fail with EXDEV.
fn an_inherited_project_id_is_reported_with_the_remedy_before_anything_is_frozen(variable: &str) {
    let root = mounted(variable).join("inherits");
    let (driver, quotas) = tree(&root);
    let bench = Bench { driver: &driver, ids: IDS, make_unmarked: &|_| {} };
    let [there, new] = [1, 2].map(|n| Desired { project: Some(7030 + n), ..bench.desired(n) });
    let allow = |_: &str| Ok(());
    driver.ensure(&there, &allow).unwrap();
    driver.retire(&there, 4, &allow).unwrap();
    driver.restore(&there, &allow).unwrap();
    let apply_remedy = |fault: DriverError, path: &Path| {
        let remedy = format!("chattr -P -p 0 {}", path.display());
        assert!(fault.to_string().contains(&format!("`{remedy}`")), "{fault}");
        assert!(Command::new("sh").args(["-c", &remedy]).status().unwrap().success());
    };
    for project in [Project::new(7030), None] {
        let tag_inherited = |path: &Path| {
            tag::set(File::open(path).unwrap().as_fd(), tag::Tag { project, inherit: true }).unwrap();
        };
        let parent = root.join(there.place.parent().unwrap().to_string());
        tag_inherited(&parent);
        assert!(driver.retire(&there, 5, &allow).is_err() && bench.is_as_desired(&there));
        apply_remedy(driver.ensure(&new, &allow).unwrap_err(), &parent);
        tag_inherited(&root.join(".trash"));
        apply_remedy(driver.retire(&there, 5, &allow).unwrap_err(), &root.join(".trash"));
        assert!(bench.is_as_desired(&there));
        tag_inherited(&root);
        fs::remove_dir(root.join(".trash")).unwrap();
        // A new trash does not keep an inherited project ID.
        driver.retire(&there, 5, &allow).unwrap();
        let trash = File::open(root.join(".trash")).unwrap();
        assert_eq!(
            (quotas.inherited_project(trash.as_fd()).unwrap(), quotas.project(trash.as_fd()).unwrap()),
            (None, Some(0))
        );
        apply_remedy(driver.ready().unwrap_err(), &root);
        driver.ready().unwrap();
        driver.restore(&there, &allow).unwrap();
        driver.ensure(&new, &allow).unwrap();
        driver.retire(&new, 6, &allow).unwrap();
        driver.purge(&Trashed { id: new.id, since: 6 }, new.project, &allow).unwrap();
    }
}

fn error_says_how_to_enable_quotas(variable: &str, remedy: &str) {
    let root = File::open(mounted(variable)).unwrap();
    let fault = Kernel::of(root.as_fd()).unwrap().ready(root.as_fd()).unwrap_err();
    assert!(fault.to_string().contains(remedy), "{fault}");
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod xfs {
            $(
                #[test]
                #[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
                fn $test() {
                    super::$test("KERNEL_XFS");
                }
            )*
        }
        mod ext4 {
            $(
                #[test]
                #[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
                fn $test() {
                    super::$test("KERNEL_EXT4");
                }
            )*
        }
    };
}

on_both! {
    passes_the_conformance_suite stops_at_the_limit limits_are_read_as_stored_limits_predicts retires_and_restores
    an_inherited_project_id_is_reported_with_the_remedy_before_anything_is_frozen
    a_project_id_that_is_no_longer_free_is_not_used
    adopts_a_tree limits_of_a_stolen_project_id_do_not_change deletes_deep_directories_with_another_project_id
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn file_systems_without_quotas_are_not_ready() {
    error_says_how_to_enable_quotas("KERNEL_XFS_OFF", "-o prjquota");
    error_says_how_to_enable_quotas("KERNEL_EXT4_OFF", "tune2fs -O project,quota");
    error_says_how_to_enable_quotas("KERNEL_EXT4_COUNTED", "not enforced");
}

#[test]
fn other_file_systems_are_rejected() {
    let proc = File::open("/proc").unwrap();
    let fault = Kernel::of(proc.as_fd()).unwrap_err();
    assert!(fault.to_string().contains("0x9fa0, which is neither XFS nor ext4"), "{fault}");
}
