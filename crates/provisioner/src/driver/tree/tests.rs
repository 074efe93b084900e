use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::driver::conformance::Bench;
use crate::driver::quotas::declared::Declared;
use crate::pass::kills::{Fresh, directories, same_end_wherever_it_is_killed};
use crate::place::Place;

const RULES: Rules = Rules { must_be_mounted: false, change_owner: false };

fn posix(root: &Path) -> Tree<Declared> {
    Tree::new(root.to_owned(), Declared::new("user"), RULES)
}

#[expect(clippy::unnecessary_wraps, reason = "what drivers ask before each effect")]
fn go(_: &str) -> Result<(), Fault> {
    Ok(())
}

fn bench<'a>(driver: &'a Tree<Declared>, make_unmarked: &'a dyn Fn(&Place)) -> Bench<'a> {
    Bench { driver, ids: (1000, 1000), make_unmarked }
}

#[test]
fn posix_does_what_every_driver_must() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let make_unmarked = |place: &Place| fs::create_dir_all(root.path().join(place.to_string())).unwrap();
    bench(&driver, &make_unmarked).all();
}

#[test]
fn killed_at_every_line_of_the_journal_posix_comes_to_the_same_end() {
    same_end_wherever_it_is_killed(|| {
        let root = tempfile::tempdir().unwrap();
        let driver = Box::new(posix(root.path()));
        Fresh { driver, projects: 100, census: Box::new(move || directories(root.path())) }
    });
}

#[test]
#[expect(clippy::print_stderr, reason = "what is skipped is said aloud")]
fn with_rights_owner_and_group_are_set_and_nobody_enters_the_trash() {
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
    bench.all();
    let wanted = bench.wanted(900);
    driver.ensure(&wanted, &go).unwrap();
    let made = fs::metadata(root.path().join(wanted.place.to_string())).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (20_000, 30_500, 0o2770));
    driver.retire(&wanted, 5, &go).unwrap();
    let gone = fs::metadata(root.path().join(format!(".trash/{}.5", wanted.id))).unwrap();
    assert_eq!(gone.mode() & 0o7777, 0);
    assert_eq!(fs::metadata(root.path().join(".trash")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn no_symlink_leads_out_wherever_it_is() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let wanted = bench.wanted(1);
    let path = wanted.place.to_string();
    for at in [path.as_str(), "store/cscs/customer", "store/cscs", "store"] {
        let link = root.path().join(at);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(outside.path(), &link).unwrap();
        assert!(matches!(bench.seen(&wanted), Seen::Obstructed(_)), "{at}");
        for fault in [driver.ensure(&wanted, &go), driver.adopt(&wanted, &go), driver.retire(&wanted, 1, &go)] {
            assert!(matches!(fault, Err(Fault::Conflict(_))), "{at}: {fault:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{at}");
        fs::remove_file(&link).unwrap();
        let _ = fs::remove_dir_all(root.path().join("store"));
    }
}

#[test]
fn a_symlink_in_the_trash_is_deleted_and_what_it_points_to_stays() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("kept"), "data").unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let wanted = bench.wanted(1);
    driver.ensure(&wanted, &go).unwrap();
    symlink(outside.path(), root.path().join(wanted.place.to_string()).join("link")).unwrap();
    driver.retire(&wanted, 7, &go).unwrap();
    driver.purge(&Trashed { id: wanted.id, since: 7 }, &go).unwrap();
    assert!(outside.path().join("kept").exists() && driver.trash().unwrap().is_empty());
}

#[test]
fn what_was_exchanged_while_it_was_being_removed_is_put_back() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let wanted = bench.wanted(1);
    driver.ensure(&wanted, &go).unwrap();
    let top = root.path().join(wanted.place.to_string());
    fs::write(top.join("data"), "data").unwrap();
    let exchange = |what: &str| {
        if what.contains("into the trash") {
            fs::rename(&top, top.with_file_name("kept")).unwrap();
            fs::create_dir(&top).unwrap();
        }
        Ok(())
    };
    assert!(matches!(driver.retire(&wanted, 7, &exchange), Err(Fault::Conflict(_))));
    assert!(top.exists() && top.with_file_name("kept").join("data").exists());
    assert!(driver.trash().unwrap().is_empty());
}

#[test]
fn what_somebody_planted_aside_is_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let wanted = bench.wanted(1);
    let planted = root.path().join(format!("store/cscs/customer/.new-{}", wanted.id.simple()));
    fs::create_dir_all(&planted).unwrap();
    fs::write(planted.join("trap"), "").unwrap();
    assert!(matches!(driver.ensure(&wanted, &go), Err(Fault::Conflict(_))));
    fs::remove_file(planted.join("trap")).unwrap();
    driver.ensure(&wanted, &go).unwrap();
    assert!(bench.is_as_wanted(&wanted));
}

#[test]
fn what_a_crash_left_aside_of_a_directory_that_another_task_made_is_taken_away() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (first, broken_off) = (bench.wanted(1), bench.wanted(2));
    driver.ensure(&first, &go).unwrap();
    for above in ["", "store", "store/cscs", "store/cscs/customer"] {
        fs::create_dir(root.path().join(above).join(aside(broken_off.id))).unwrap();
    }
    driver.ensure(&broken_off, &go).unwrap();
    assert!(bench.is_as_wanted(&broken_off));
    let all = directories(root.path());
    assert!(!all.iter().any(|name| name.contains(".new-")), "{all:?}");
}

#[test]
fn usage_counts_each_file_once_and_follows_nothing() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("large"), vec![1; 1 << 20]).unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let wanted = bench.wanted(1);
    driver.ensure(&wanted, &go).unwrap();
    let top = root.path().join(wanted.place.to_string());
    fs::create_dir(top.join("sub")).unwrap();
    fs::write(top.join("sub/file"), vec![1; 100_000]).unwrap();
    fs::hard_link(top.join("sub/file"), top.join("again")).unwrap();
    symlink(outside.path(), top.join("link")).unwrap();
    let usage = driver.usage(&[&wanted], &|_| {}).pop().unwrap().unwrap().unwrap();
    assert_eq!(usage.inodes.0, 4, "top, sub, file, link: {usage:?}");
    assert!((100_000..1 << 19).contains(&usage.space.0), "{usage:?}");
}

#[test]
fn a_root_that_is_not_mounted_is_no_empty_system() {
    let root = tempfile::tempdir_in("/").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let rules = Rules { must_be_mounted: true, ..RULES };
    let tree = |path: &Path| Tree::new(path.to_owned(), Declared::new("user"), rules);
    if fs::metadata(root.path()).unwrap().dev() == fs::metadata("/").unwrap().dev() {
        assert!(tree(root.path()).ready().is_err());
    }
    assert!(tree(Path::new("/nonexistent")).ready().is_err());
}

#[test]
fn the_mode_is_set_whole_whatever_the_umask() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let wanted = bench.wanted(1);
    driver.ensure(&wanted, &go).unwrap();
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("store"), mode("store/cscs"), mode(&wanted.place.to_string())), (0o755, 0o775, 0o2770));
}

#[test]
fn a_full_trash_is_read_for_what_is_missing_alone_and_the_newest_counts() {
    let root = tempfile::tempdir().unwrap();
    let driver = posix(root.path());
    let bench = bench(&driver, &|_| {});
    let (there, gone) = (bench.wanted(1), bench.wanted(2));
    driver.ensure(&there, &go).unwrap();
    let trash = root.path().join(".trash");
    for name in [format!("{}.3", gone.id), format!("{}.9", gone.id), format!("{}.11", there.id)] {
        fs::create_dir_all(trash.join(name)).unwrap();
    }
    assert_eq!(bench.seen(&gone), Seen::Trashed { since: 9 });
    // No directory: whoever reads it fails.
    fs::remove_dir_all(&trash).unwrap();
    fs::write(&trash, "").unwrap();
    assert!(matches!(bench.seen(&there), Seen::Ours(_)));
    assert!(driver.observe(&[&gone]).pop().unwrap().is_err());
}
