use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::injected;
use crate::quotas::declared::Declared;
use storage_driver::Difference;
use storage_driver::conformance::directories;
use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::place::Place;
use uuid::Uuid;

const RULES: Rules = Rules { must_be_mounted: false, change_owner: false, acl: None };

fn posix(root: &Path) -> Tree<Declared> {
    Tree::new(root.to_owned(), Declared::new("user"), RULES)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a guard")]
fn allow(_: &str) -> Result<(), DriverError> {
    Ok(())
}

fn bench<'a>(driver: &'a Tree<Declared>, make_unmarked: &'a dyn Fn(&Place)) -> Bench<'a> {
    Bench { driver, ids: (1000, 1000), make_unmarked }
}

#[test]
fn conforms() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let make_unmarked = |place: &Place| fs::create_dir_all(root.path().join(place.to_string())).unwrap();
    assert_conforms(&bench(&driver, &make_unmarked));
}

#[test]
fn conforms_without_renaming_without_replacing() {
    for error in [Errno::INVAL, Errno::NOSYS] {
        let _hook = injected::refuse_renames(error);
        let root = tempfile::tempdir().unwrap();
        let driver = posix(root.path());
        let make_unmarked = |place: &Place| fs::create_dir_all(root.path().join(place.to_string())).unwrap();
        assert_conforms(&bench(&driver, &make_unmarked));
    }
}

#[test]
fn nothing_is_replaced_without_renaming_without_replacing() {
    let _hook = injected::refuse_renames(Errno::INVAL);
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let desired = bench(&driver, &|_| {}).desired(1);
    let top = root.path().join(desired.place.to_string());
    for file in [false, true] {
        let planted = |what: &str| {
            if what.contains("in place") {
                if file { fs::write(&top, "").unwrap() } else { fs::create_dir(&top).unwrap() }
            }
            Ok(())
        };
        let fault = driver.ensure(&desired, &planted).unwrap_err();
        assert!(matches!(&fault, DriverError::Conflict(why) if why.contains("exists already")), "{fault}");
        assert!(fs::remove_dir(&top).or_else(|_| fs::remove_file(&top)).is_ok());
    }
    driver.ensure(&desired, &allow).unwrap();
}

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn root_sets_owner_and_group_and_closes_the_trash() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let driver = Tree::new(root.path().to_owned(), Declared::new("trusted"), Rules { change_owner: true, ..RULES });
    if let Err(fault) = driver.ready() {
        eprintln!("SKIPPED: {fault:?}");
        return;
    }
    let make_unmarked = |place: &Place| fs::create_dir_all(root.path().join(place.to_string())).unwrap();
    let bench = Bench { driver: &driver, ids: (20_000, 30_500), make_unmarked: &make_unmarked };
    assert_conforms(&bench);
    let desired = bench.desired(900);
    driver.ensure(&desired, &allow).unwrap();
    let made = fs::metadata(root.path().join(desired.place.to_string())).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (20_000, 30_500, 0o2770));
    driver.retire(&desired, 5, &allow).unwrap();
    let gone = fs::metadata(root.path().join(format!(".trash/{}.5", desired.id))).unwrap();
    assert_eq!((gone.mode() & 0o7777, gone.uid()), (0, 0), "the former owner could set the mode with an open handle");
    assert_eq!(fs::metadata(root.path().join(".trash")).unwrap().mode() & 0o777, 0o700);
    driver.restore(&desired, &allow).unwrap();
    assert!(bench.is_as_desired(&desired), "{:?}", bench.observed(&desired));
}

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn a_trash_of_another_user_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let trash = root.path().join(".trash");
    fs::create_dir(&trash).unwrap();
    std::os::unix::fs::chown(&trash, Some(20_000), None).unwrap();
    let fault = driver.retire(&desired, 5, &allow).unwrap_err();
    assert!(matches!(&fault, DriverError::Conflict(why) if why.contains("belongs to another user")), "{fault}");
    fs::remove_dir(&trash).unwrap();
    driver.retire(&desired, 5, &allow).unwrap();
}

/// In its own thread, because privileges belong to a thread.
#[test]
fn missing_privileges_are_reported_with_the_remedy() {
    std::thread::spawn(|| {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut held = capabilities(None).unwrap();
        held.effective -= CapabilitySet::CHOWN;
        set_capabilities(None, held).unwrap();
        let root = tempfile::tempdir().unwrap();
        let driver = Tree::new(root.path().to_owned(), Declared::new("user"), Rules { change_owner: true, ..RULES });
        let desired = Bench { driver: &driver, ids: (20_000, 30_500), make_unmarked: &|_| {} }.desired(1);
        let text = storage_driver::error_chain(&driver.ensure(&desired, &allow).unwrap_err());
        assert!(text.contains("cannot be set: run as root, or set `change_owner: false`"), "{text}");
        assert!(text.contains("not permitted"), "{text}");
    })
    .join()
    .unwrap();
    assert!(maps_every_id("         0          0 4294967295\n") && !maps_every_id("0 1000 1\n"));
}

/// A driver with these ACL entries; `None` if the file system has no ACLs.
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn with_acls(root: &Path, texts: &[&str]) -> Option<Tree<Declared>> {
    let named = AclEntries::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let driver = Tree::new(root.to_owned(), Declared::new("user"), Rules { acl: Some(named), ..RULES });
    driver.ready().inspect_err(|fault| eprintln!("SKIPPED: {fault}")).ok().map(|()| driver)
}

fn open(path: impl AsRef<Path>) -> fs::File {
    fs::File::open(path).unwrap()
}

fn differences(bench: &Bench<'_>, desired: &Desired) -> Vec<&'static str> {
    let Observed::Ours(present) = bench.observed(desired) else { panic!("{:?}", bench.observed(desired)) };
    present.differences(desired).iter().map(Difference::name).collect()
}

#[test]
fn conforms_with_acls() {
    let root = tempfile::tempdir().unwrap();
    let Some(driver) = with_acls(root.path(), &["u:900:r-x", "default:g:901:rwx"]) else { return };
    // New files here inherit other entries.
    let inherited = AclEntries::parse(&["default:u:7:rwx".into()]).unwrap().with(storage_driver::Mode(0o777));
    attributes::write(open(root.path()), &inherited).unwrap();
    let make_unmarked = |place: &Place| fs::create_dir_all(root.path().join(place.to_string())).unwrap();
    assert_conforms(&bench(&driver, &make_unmarked));
}

#[test]
fn acls_are_set_with_the_directory_and_drift_is_corrected() {
    let root = tempfile::tempdir().unwrap();
    let Some(driver) = with_acls(root.path(), &["u:900:r-x", "g:901:rwx", "default:g:901:rwx"]) else { return };
    let bench = bench(&driver, &|_| {});
    let mut desired = bench.desired(1);
    let path = root.path().join(desired.place.to_string());
    let in_place = |what: &str| {
        if what.contains("in place") {
            let temporary = path.with_file_name(format!(".new-{}", desired.id.simple()));
            let found = attributes::read(open(temporary)).unwrap().to_string();
            assert!(found.starts_with("u:900:r-x,g::rwx,g:901:rwx,default:"), "{found}");
        }
        Ok(())
    };
    driver.ensure(&desired, &in_place).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2770);
    assert_eq!(attributes::read(open(path.parent().unwrap())).unwrap().to_string(), "", "parents get no entries");
    fs::write(path.join("inherits"), "").unwrap();
    assert_eq!(attributes::read(open(path.join("inherits"))).unwrap().to_string(), "g::rwx,g:901:rwx");

    // A change of the mode changes the mask.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2750)).unwrap();
    assert_eq!(differences(&bench, &desired), ["mode"]);
    driver.ensure(&desired, &allow).unwrap();
    for texts in
        [&[][..], &["u:900:rwx", "g:901:rwx", "default:g:901:rwx"], &["u:900:r-x", "g:901:rwx"], &["default:u:1:rwx"]]
    {
        let other = AclEntries::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        attributes::write(open(&path), &other.with(desired.mode)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2770)).unwrap();
        assert_eq!(differences(&bench, &desired), ["ACL"], "{texts:?}");
        driver.ensure(&desired, &allow).unwrap();
        assert!(bench.is_as_desired(&desired), "{texts:?}: {:?}", bench.observed(&desired));
    }
    desired.mode = storage_driver::Mode(0o2750);
    driver.ensure(&desired, &allow).unwrap();
    assert!(bench.is_as_desired(&desired), "{:?}", bench.observed(&desired));
    driver.retire(&desired, 7, &allow).unwrap();
    driver.restore(&desired, &allow).unwrap();
    assert!(bench.is_as_desired(&desired), "{:?}", bench.observed(&desired));
}

#[test]
fn acls_do_not_change_without_the_setting_and_are_cleared_by_an_empty_one() {
    let root = tempfile::tempdir().unwrap();
    let (Some(names), Some(clears)) = (with_acls(root.path(), &["u:900:r-x"]), with_acls(root.path(), &[])) else {
        return;
    };
    let leaves = posix(root.path());
    let desired = bench(&leaves, &|_| {}).desired(1);
    let found = || attributes::read(open(root.path().join(desired.place.to_string()))).unwrap().to_string();
    names.ensure(&desired, &allow).unwrap();
    leaves.ensure(&desired, &allow).unwrap();
    assert_eq!(found(), "u:900:r-x,g::rwx");
    let Observed::Ours(present) = bench(&leaves, &|_| {}).observed(&desired) else { panic!() };
    assert_eq!((present.acl, present.mode), (None, desired.mode));
    clears.ensure(&desired, &allow).unwrap();
    assert_eq!(found(), "");
    assert!(bench(&clears, &|_| {}).is_as_desired(&desired));
}

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn acl_entries_give_access_until_the_directory_is_retired() {
    let root = tempfile::tempdir().unwrap();
    let Some(driver) = with_acls(root.path(), &["u:900:r-x", "g:901:r-x", "default:u:900:rwx"]) else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let desired = bench(&driver, &|_| {}).desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let enters = |path: &Path, uid: u32, gid: u32| {
        let mut list = Command::new("ls");
        list.arg(path).uid(uid).gid(gid).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let (path, trash) = (root.path().join(desired.place.to_string()), root.path().join(".trash"));
    fs::create_dir(path.join("folder")).unwrap();
    assert!(enters(&path, 900, 902) && enters(&path, 902, 901) && !enters(&path, 902, 902));
    assert!(enters(&path.join("folder"), 900, 902));
    let frozen = |what: &str| {
        if what.contains("into the trash") {
            assert!(!enters(&path, 900, 902) && !enters(&path, 902, 901) && !enters(&path.join("folder"), 900, 902));
        }
        Ok(())
    };
    driver.retire(&desired, 7, &frozen).unwrap();
    // The mode of the directory must deny access, regardless of the mode of the trash.
    fs::set_permissions(&trash, fs::Permissions::from_mode(0o777)).unwrap();
    let gone = trash.join(format!("{}.7", desired.id));
    assert!(!enters(&gone, 900, 902) && !enters(&gone, 902, 901) && !enters(&gone.join("folder"), 900, 902));
}

#[test]
fn a_file_system_without_acls_is_not_ready_if_acls_are_set() {
    let named = AclEntries::parse(&["u:900:r-x".into()]).unwrap();
    let tree = Tree::new("/proc".into(), Declared::new("user"), Rules { acl: Some(named), ..RULES });
    let fault = tree.ready().unwrap_err();
    assert!(fault.to_string().contains("has no POSIX ACLs"), "{fault}");
}

#[test]
fn symlinks_are_not_followed_at_any_level() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    let path = desired.place.to_string();
    for at in [path.as_str(), "store/cscs/customer", "store/cscs", "store"] {
        let link = root.path().join(at);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(outside.path(), &link).unwrap();
        assert!(matches!(bench.observed(&desired), Observed::Obstructed(_)), "{at}");
        for fault in
            [driver.ensure(&desired, &allow), driver.adopt(&desired, &allow), driver.retire(&desired, 1, &allow)]
        {
            assert!(matches!(fault, Err(DriverError::Conflict(_))), "{at}: {fault:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{at}");
        fs::remove_file(&link).unwrap();
        let _ = fs::remove_dir_all(root.path().join("store"));
    }
}

#[test]
fn purge_deletes_symlinks_and_not_their_targets() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("kept"), "data").unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    symlink(outside.path(), root.path().join(desired.place.to_string()).join("link")).unwrap();
    driver.retire(&desired, 7, &allow).unwrap();
    driver.purge(&Trashed { id: desired.id, since: 7 }, None, &allow).unwrap();
    assert!(outside.path().join("kept").exists() && driver.trash().unwrap().is_empty());
}

#[test]
fn a_directory_swapped_during_retire_is_moved_back() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let top = root.path().join(desired.place.to_string());
    fs::write(top.join("data"), "data").unwrap();
    let exchange = |what: &str| {
        if what.contains("into the trash") {
            fs::rename(&top, top.with_file_name("kept")).unwrap();
            fs::create_dir(&top).unwrap();
        }
        Ok(())
    };
    assert!(matches!(driver.retire(&desired, 7, &exchange), Err(DriverError::Conflict(_))));
    assert!(top.exists() && top.with_file_name("kept").join("data").exists());
    assert!(driver.trash().unwrap().is_empty());
}

#[test]
fn a_directory_planted_under_the_temporary_name_is_not_used() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    let planted = root.path().join(format!("store/cscs/customer/.new-{}", desired.id.simple()));
    fs::create_dir_all(&planted).unwrap();
    fs::write(planted.join("trap"), "").unwrap();
    assert!(matches!(driver.ensure(&desired, &allow), Err(DriverError::Conflict(_))));
    fs::remove_file(planted.join("trap")).unwrap();
    driver.ensure(&desired, &allow).unwrap();
    assert!(bench.is_as_desired(&desired));
}

#[test]
fn a_swapped_directory_that_cannot_be_moved_back_stays_in_the_trash_without_a_resource() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (desired, other) = (bench.desired(1), bench.desired(2));
    for desired in [&desired, &other] {
        driver.ensure(desired, &allow).unwrap();
    }
    let [ours, theirs] = [&desired, &other].map(|desired| root.path().join(desired.place.to_string()));
    fs::write(theirs.join("data"), "data").unwrap();
    let exchange = {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        move |what: &str| {
            if what.contains("into the trash") {
                fs::rename(&ours, ours.with_file_name("kept")).unwrap();
                fs::rename(&theirs, &ours).unwrap();
            }
            Ok(())
        }
    };
    let again = ours.clone();
    let _hook = injected::on_each_moment(move |moment| {
        if moment == injected::Moment::Renamed && !again.exists() {
            fs::create_dir(&again).unwrap();
        }
    });
    let fault = driver.retire(&desired, 7, &exchange).unwrap_err();
    let name = format!("exchanged-{}.7", desired.id);
    assert!(matches!(&fault, DriverError::Conflict(why) if why.contains(&name)), "{fault}");
    assert!(root.path().join(".trash").join(name).join("data").exists());
    assert_eq!(driver.trash().unwrap(), []);
}

#[test]
fn something_at_the_place_does_not_hide_the_trash_and_blocks_restore() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (desired, other) = (bench.desired(1), bench.desired(2));
    let top = root.path().join(desired.place.to_string());
    let in_the_way: [(&dyn Fn(), &str); 3] = [
        (&|| fs::create_dir(&top).unwrap(), "has no mark"),
        (&|| fs::write(&top, "").unwrap(), "is a file or a symlink"),
        (
            &|| driver.ensure(&Desired { place: desired.place.clone(), ..other.clone() }, &allow).unwrap(),
            "has the mark of",
        ),
    ];
    for (put, named) in in_the_way {
        driver.ensure(&desired, &allow).unwrap();
        fs::write(top.join("data"), "data").unwrap();
        driver.retire(&desired, 7, &allow).unwrap();
        put();
        assert_eq!(bench.observed(&desired), Observed::Trashed { since: 7 }, "{named}");
        let fault = driver.restore(&desired, &allow).unwrap_err();
        assert!(matches!(&fault, DriverError::Conflict(why) if why.contains(named) && why.contains("move")), "{fault}");
        assert_eq!(bench.observed(&desired), Observed::Trashed { since: 7 });
        fs::remove_file(&top).or_else(|_| fs::remove_dir(&top)).unwrap();
        driver.restore(&desired, &allow).unwrap();
        assert!(bench.is_as_desired(&desired) && top.join("data").exists());
    }
}

#[test]
fn a_directory_in_the_trash_with_another_mark_is_neither_purged_nor_restored() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (desired, other) = (bench.desired(1), bench.desired(2));
    driver.ensure(&other, &allow).unwrap();
    fs::create_dir(root.path().join(".trash")).unwrap();
    let trashed = root.path().join(format!(".trash/{}.7", desired.id));
    fs::rename(root.path().join(other.place.to_string()), &trashed).unwrap();
    let tries: [&dyn Fn() -> Result<(), DriverError>; 2] =
        [&|| driver.restore(&desired, &allow), &|| driver.purge(&Trashed { id: desired.id, since: 7 }, None, &allow)];
    for tried in tries {
        let fault = tried().unwrap_err();
        assert!(matches!(&fault, DriverError::Conflict(why) if why.contains(&other.id.to_string())), "{fault}");
    }
    rustix::fs::removexattr(&trashed, "user.hpc-storage.resource").unwrap();
    for tried in tries {
        assert!(matches!(tried(), Err(DriverError::Conflict(why)) if why.contains("no mark")));
    }
    assert!(trashed.exists() && !root.path().join(desired.place.to_string()).exists());
}

#[test]
fn an_empty_directory_with_another_mark_is_not_used() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (desired, other) = (bench.desired(1), bench.desired(2));
    driver.ensure(&other, &allow).unwrap();
    let theirs = root.path().join(other.place.to_string());
    fs::rename(&theirs, theirs.with_file_name(creation::temporary_name(desired.id))).unwrap();
    let fault = driver.ensure(&desired, &allow).unwrap_err();
    assert!(matches!(&fault, DriverError::Conflict(why) if why.contains(&other.id.to_string())), "{fault}");
    fs::rename(theirs.with_file_name(creation::temporary_name(desired.id)), &theirs).unwrap();
    assert!(bench.is_as_desired(&other));
}

#[test]
fn a_directory_swapped_just_after_it_was_created_is_not_used() {
    for (above, mode) in [("store/cscs/customer", 0o2770), ("store/cscs", 0o700)] {
        let root = tempfile::tempdir().unwrap();
        let driver = posix(root.path());
        let bench = bench(&driver, &|_| {});
        let desired = bench.desired(1);
        let temporary = root.path().join(above).join(creation::temporary_name(desired.id));
        let victim = temporary.with_file_name("victim");
        fs::create_dir_all(&victim).unwrap();
        fs::write(victim.join("data"), "data").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(mode)).unwrap();
        let swapped = (temporary.clone(), victim.clone());
        let _hook = injected::on_each_moment(move |moment| {
            if moment == injected::Moment::Created && swapped.0.exists() {
                fs::remove_dir(&swapped.0).unwrap();
                fs::rename(&swapped.1, &swapped.0).unwrap();
            }
        });
        assert!(matches!(driver.ensure(&desired, &allow), Err(DriverError::Conflict(_))), "{above}");
        assert_eq!(fs::metadata(&temporary).unwrap().mode() & 0o7777, mode);
        assert!(temporary.join("data").exists() && bench.observed(&desired) == Observed::Absent);
    }
}

#[test]
fn temporary_directories_left_by_a_crash_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (first, broken_off) = (bench.desired(1), bench.desired(2));
    driver.ensure(&first, &allow).unwrap();
    for above in ["", "store", "store/cscs", "store/cscs/customer"] {
        fs::create_dir(root.path().join(above).join(creation::temporary_name(broken_off.id))).unwrap();
    }
    driver.ensure(&broken_off, &allow).unwrap();
    assert!(bench.is_as_desired(&broken_off));
    let all = directories(root.path());
    assert!(!all.iter().any(|name| name.contains(".new-")), "{all:?}");
}

#[test]
fn usage_counts_each_file_once_and_follows_no_symlinks() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("large"), vec![1; 1 << 20]).unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let top = root.path().join(desired.place.to_string());
    fs::create_dir(top.join("sub")).unwrap();
    fs::write(top.join("sub/file"), vec![1; 100_000]).unwrap();
    fs::hard_link(top.join("sub/file"), top.join("again")).unwrap();
    symlink(outside.path(), top.join("link")).unwrap();
    let usage = driver.usage(&[&desired]).pop().unwrap().unwrap().unwrap();
    assert_eq!(usage.inodes.0, 4, "top, sub, file, link: {usage:?}");
    assert!((100_000..1 << 19).contains(&usage.space.0), "{usage:?}");
}

#[test]
fn an_unmounted_root_is_an_error() {
    let root = tempfile::tempdir_in("/").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let rules = Rules { must_be_mounted: true, ..RULES };
    let tree = |path: &Path| Tree::new(path.to_owned(), Declared::new("user"), rules.clone());
    if fs::metadata(root.path()).unwrap().dev() == fs::metadata("/").unwrap().dev() {
        let driver = tree(root.path());
        assert!(driver.ready().is_err());
        // It can be unmounted after `ready`.
        let desired = bench(&driver, &|_| {}).desired(1);
        for tried in
            [driver.ensure(&desired, &allow), driver.retire(&desired, 7, &allow), driver.restore(&desired, &allow)]
        {
            assert!(tried.unwrap_err().to_string().contains("nothing is mounted"));
        }
        assert!(driver.observe(&[&desired]).remove(0).is_err() && driver.trash().is_err());
        assert_eq!(directories(root.path()), [""; 0]);
    }
    assert!(tree(Path::new("/nonexistent")).ready().is_err());
}

#[test]
fn the_umask_does_not_change_modes() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("store"), mode("store/cscs"), mode(&desired.place.to_string())), (0o755, 0o775, 0o2770));
}

#[test]
fn the_trash_is_read_only_for_absent_directories_and_the_newest_counts() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (there, gone) = (bench.desired(1), bench.desired(2));
    driver.ensure(&there, &allow).unwrap();
    let trash = root.path().join(".trash");
    for name in [format!("{}.3", gone.id), format!("{}.9", gone.id), format!("{}.11", there.id)] {
        fs::create_dir_all(trash.join(name)).unwrap();
    }
    assert_eq!(bench.observed(&gone), Observed::Trashed { since: 9 });
    // A file, so that reading the trash fails.
    fs::remove_dir_all(&trash).unwrap();
    fs::write(&trash, "").unwrap();
    assert!(matches!(bench.observed(&there), Observed::Ours(_)));
    assert!(driver.observe(&[&gone]).pop().unwrap().is_err());
}

/// Marks a directory as another resource's, as an earlier version could have done.
fn mark_as_anothers(directory: &Path) {
    let other = Uuid::from_u128(0xbad).hyphenated().to_string();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(directory, "user.hpc-storage.resource", other.as_bytes(), flags).unwrap();
}

#[test]
fn a_directory_with_another_resources_inside_is_neither_retired_nor_purged() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let top = root.path().join(desired.place.to_string());
    let inner = top.join("deeper/inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("data"), "precious").unwrap();
    mark_as_anothers(&inner);
    let fault = driver.retire(&desired, 5, &allow).unwrap_err();
    assert!(matches!(&fault, DriverError::Conflict(why) if why.contains("deeper/inner")), "{fault}");
    assert!(bench.is_as_desired(&desired), "nothing is frozen");

    // An earlier version could have moved it into the trash.
    fs::create_dir(root.path().join(".trash")).unwrap();
    fs::rename(&top, root.path().join(format!(".trash/{}.5", desired.id))).unwrap();
    let trashed = Trashed { id: desired.id, since: 5 };
    let fault = driver.purge(&trashed, None, &allow).unwrap_err();
    assert!(matches!(fault, DriverError::Conflict(_)), "{fault}");
    let found = root.path().join(format!(".trash/{}.5/deeper/inner", desired.id));
    assert_eq!(fs::read_to_string(found.join("data")).unwrap(), "precious");
    fs::rename(&found, root.path().join("inner")).unwrap();
    driver.purge(&trashed, None, &allow).unwrap();
    assert_eq!(driver.trash().unwrap(), []);
}

#[test]
fn a_directory_that_cannot_be_opened_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    let inner = root.path().join(desired.place.to_string()).join("deeper/inner");
    fs::create_dir_all(&inner).unwrap();
    mark_as_anothers(&inner);
    for opened in 0..2 {
        let _hook = injected::run_out_of_handles_after(opened);
        let fault = driver.retire(&desired, 5, &allow).unwrap_err();
        assert!(matches!(fault, DriverError::Temporary { .. }), "{opened}: {fault}");
        assert!(bench.is_as_desired(&desired), "{opened}: nothing is frozen");
    }
    let within =
        Desired { place: Place::parse(&format!("/r/{}/sub", desired.place), "/r").unwrap(), ..bench.desired(2) };
    let depth = u32::try_from(within.place.parents().len()).unwrap();
    {
        let _hook = injected::run_out_of_handles_after(depth - 1);
        assert!(driver.observe(&[&within]).remove(0).is_err(), "it could be inside another resource's directory");
    }
    let _hook = injected::run_out_of_handles_after(depth - 1);
    assert!(matches!(driver.ensure(&within, &allow), Err(DriverError::Temporary { .. })));
    assert!(!root.path().join(within.place.to_string()).exists());
}

#[test]
fn deletion_stops_at_another_resources_directory() {
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("tree/inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("data"), "precious").unwrap();
    let trash = open_below(OwnedFd::from(fs::File::open(root.path()).unwrap()), ".").unwrap();
    let stops = |_: BorrowedFd<'_>| Err(DriverError::Conflict("another's".into()));
    let fault = delete(&trash, "tree", (&|_| Ok(()), &stops), &|| Ok(())).unwrap_err();
    assert!(matches!(fault, DriverError::Conflict(_)), "{fault}");
    assert!(inner.join("data").exists());
}

/// A lost lease or a signal stops work on a large tree.
#[test]
fn walks_stop_when_the_guard_refuses_and_complete_when_repeated() {
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("tree");
    for number in 0..10 {
        fs::create_dir_all(tree.join(format!("{number}/below"))).unwrap();
        fs::write(tree.join(format!("{number}/file")), "").unwrap();
    }
    let trash = open_below(OwnedFd::from(fs::File::open(root.path()).unwrap()), ".").unwrap();
    let left = std::cell::Cell::new(0);
    let one = || match left.get() {
        0 => Err(DriverError::Stopped("the next file".into())),
        some => {
            left.set(some - 1);
            Ok(())
        }
    };
    let mut calls = 0;
    while tree.exists() {
        left.set(4);
        let deleted = delete(&trash, "tree", (&|_| Ok(()), &|_| Ok(())), &one);
        assert_eq!(deleted.is_ok(), !tree.exists());
        calls += 1;
    }
    assert!(calls > 7, "{calls}");
}

#[test]
fn a_directory_inside_another_resources_is_neither_adopted_nor_restored() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let desired = bench.desired(1);
    driver.ensure(&desired, &allow).unwrap();
    driver.retire(&desired, 5, &allow).unwrap();
    let above = root.path().join(desired.place.parent().unwrap().to_string());
    mark_as_anothers(&above);
    assert!(matches!(driver.restore(&desired, &allow), Err(DriverError::Conflict(_))));
    assert!(matches!(bench.observed(&desired), Observed::Trashed { .. }));
    fs::create_dir(root.path().join(desired.place.to_string())).unwrap();
    let other = Desired { id: Uuid::from_u128(7), ..desired };
    assert!(matches!(driver.adopt(&other, &allow), Err(DriverError::Conflict(_))));
    assert!(matches!(bench.observed(&other), Observed::Obstructed(_)));
}
