//! The same with the real drivers.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use driver_posix::quotas::Quotas;
use driver_posix::quotas::declared::Declared;
use driver_posix::quotas::kernel::Kernel;
use driver_posix::simulated::{ceph, ceph_root, lustre};
use driver_posix::tree::{Rules, Tree};
use driver_scale::simulated as scale;
use driver_vast::simulated as vast;
use storage_driver::conformance::directories;

use super::*;

const UNPRIVILEGED: Rules = Rules { must_be_mounted: false, change_owner: false, acl: None };
const AS_ROOT: Rules = Rules { must_be_mounted: true, change_owner: true, acl: None };

pub(super) fn posix_world() -> Fresh {
    let root = tempfile::tempdir().unwrap();
    let driver = Box::new(Tree::new(root.path().to_owned(), Declared::new("user"), UNPRIVILEGED));
    Fresh { driver, projects: 100, census: Box::new(move || directories(root.path())) }
}

#[test]
fn posix() {
    kill_everywhere(posix_world);
}

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn posix_as_root() {
    let made = || {
        let root = tempfile::tempdir().unwrap();
        let rules = Rules { must_be_mounted: false, ..AS_ROOT };
        let driver = Tree::new(root.path().to_owned(), Declared::new("trusted"), rules);
        (root, driver)
    };
    if !rustix::process::geteuid().is_root() || made().1.ready().is_err() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    kill_everywhere(|| {
        let (root, driver) = made();
        Fresh { driver: Box::new(driver), projects: 100, census: Box::new(move || directories(root.path())) }
    });
}

#[test]
fn cephfs() {
    kill_after_every_write(|| {
        let root = ceph_root();
        let driver = Box::new(ceph(&root));
        Fresh { driver, projects: 100, census: Box::new(move || directories(root.path())) }
    });
}

#[test]
fn scale() {
    for of in [scale::scale, scale::unlinking] {
        kill_after_every_write_one_by_one(|| {
            let simulated = scale::Simulated::start();
            let driver = Box::new(of(&simulated));
            Fresh { driver, projects: 100, census: Box::new(move || simulated.world().census()) }
        });
    }
}

#[test]
fn vast() {
    for follows in [false, true] {
        kill_after_every_write_one_by_one(|| {
            let simulated = vast::Simulated::start();
            simulated.world().follows = follows;
            let driver = Box::new(vast::vast(&simulated));
            Fresh { driver, projects: 100, census: Box::new(move || simulated.world().census()) }
        });
    }
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn lustre_on_xfs() {
    let above = tempfile::tempdir_in(mounted("KERNEL_XFS")).unwrap();
    kill_after_every_write_one_by_one(|| {
        let root = tempfile::tempdir_in(&above).unwrap();
        let (folder, lustre) = lustre(root.path(), &[]);
        let driver = Box::new(Tree::new(root.path().to_owned(), lustre, AS_ROOT));
        let census = move || {
            let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let limits = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("limits."));
            let shown = |path: PathBuf| format!("{:?}: {}", path.file_name(), fs::read_to_string(&path).unwrap());
            limits.map(shown).chain(directories(root.path())).collect()
        };
        Fresh { driver, projects: 100, census: Box::new(census) }
    });
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn xfs() {
    kernel_quotas(&mounted("KERNEL_XFS"));
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn ext4() {
    kernel_quotas(&mounted("KERNEL_EXT4"));
}

fn mounted(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is set only by .ci/kernel")))
}

fn kernel_quotas(mount: &Path) {
    /// More than one round needs.
    const PROJECTS: u32 = 20;
    let round = AtomicU32::new(0);
    kill_after_every_write(|| {
        let round = round.fetch_add(1, Ordering::Relaxed);
        // Limits remain when a tree is deleted, so each round has its own project IDs.
        let projects = 10_000 + PROJECTS * round;
        let root = mount.join(format!("killed-{round}"));
        fs::create_dir(&root).unwrap();
        let quotas = || Kernel::of(File::open(&root).unwrap().as_fd()).unwrap();
        let (driver, quotas) = (Box::new(Tree::new(root.clone(), quotas(), AS_ROOT)), quotas());
        let census = move || {
            let directory = File::open(&root).unwrap();
            let of = |n: u32| format!("project {n}: {:?}", quotas.read(directory.as_fd(), projects + n).unwrap());
            (0..PROJECTS).map(of).chain(directories(&root)).collect()
        };
        Fresh { driver, projects, census: Box::new(census) }
    });
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn a_lost_record_on_xfs_is_completed_with_the_ids_on_disk() {
    let root = mounted("KERNEL_XFS").join("lost-record");
    fs::create_dir(&root).unwrap();
    let fresh = || {
        let quotas = Kernel::of(File::open(&root).unwrap().as_fd()).unwrap();
        let (driver, projects) = (Box::new(Tree::new(root.clone(), quotas, AS_ROOT)), 9_000);
        Fresh { driver, projects, census: Box::new(Vec::new) }
    };
    let site = Site::new(&in_use_and_new(), fresh(), false);
    fs::remove_file(root.join(driver_posix::record::NAME)).unwrap();
    is_completed(&site, 9_000);
    // Trees that are not in the document count, too.
    let other = Site { systems: system(fresh().driver, 9_000), ..site };
    fs::remove_file(root.join(driver_posix::record::NAME)).unwrap();
    let model = Model::new([creation(4)]);
    let report = other.host(EMPTY, |host| Harness { model: &model, ..host }.pass()).unwrap();
    assert!(report.failed.is_empty() && report.ended.len() == 1, "{report:?}");
    assert_eq!(assigned_once(&other.systems[0]).into_values().collect::<Vec<_>>(), [9_004]);
}
