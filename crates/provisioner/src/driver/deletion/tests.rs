use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::*;

/// How many handles the process has in which [`begin`] deletes, with those of the test's harness.
const FEW: u64 = 160;
const LEVELS: usize = 5_000;

/// A folder to be a trash, and in it the beginning of a tree.
fn trash() -> (tempfile::TempDir, OwnedFd, OwnedFd) {
    // In memory if it can be: on disks thousands of directories take seconds.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    fs::create_dir(folder.path().join("tree")).unwrap();
    let trash = OwnedFd::from(File::open(folder.path()).unwrap());
    let tree = open_below(&trash, "tree").unwrap();
    (folder, trash, tree)
}

/// Makes a chain of directories, each with a file.
fn chain(top: &OwnedFd, levels: usize) {
    let mut last = top.try_clone().unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&last, "directory", Mode::RWXU).unwrap();
        last = open_below(&last, "directory").unwrap();
        rustix::fs::openat(&last, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    }
}

fn all(trash: &OwnedFd) -> Result<(), Fault> {
    delete(trash, "tree", &|_| panic!("all has one project ID"), &Walked::default())
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Has a process of its own, with few handles, delete the tree in this folder: the test below, started once more.
fn begin(folder: &Path) -> Child {
    let test = "driver::deletion::tests::a_deep_tree_goes_by_few_handles_and_little_stack";
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {FEW} && exec \"$0\" --exact {test}")]).arg(std::env::current_exe().unwrap());
    shell.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_deep_tree_goes_by_few_handles_and_little_stack() {
    if getrlimit(Resource::Nofile).current == Some(FEW) {
        let trash = OwnedFd::from(File::open(".").unwrap());
        let little = std::thread::Builder::new().stack_size(256 << 10);
        return little.spawn(move || all(&trash).unwrap()).unwrap().join().unwrap();
    }
    let (folder, _, tree) = trash();
    chain(&tree, LEVELS);
    assert!(begin(folder.path()).wait().unwrap().success());
    assert!(is_empty(folder.path()));
}

#[test]
fn a_deletion_that_was_killed_is_taken_up() {
    let (folder, trash, _) = trash();
    // Again where it was killed too late.
    let midway = (0..20).any(|_| {
        fs::create_dir_all(folder.path().join("tree")).unwrap();
        chain(&open_below(&trash, "tree").unwrap(), LEVELS);
        let mut begun = begin(folder.path());
        while !folder.path().join("tree/.deep-0").exists() && begun.try_wait().unwrap().is_none() {}
        begun.kill().unwrap();
        begun.wait().unwrap().code().is_none()
    });
    assert!(midway && !is_empty(folder.path()));
    all(&trash).unwrap();
    assert!(is_empty(folder.path()));
    all(&trash).unwrap();
}

#[test]
fn names_of_our_own_that_are_taken_stop_nothing() {
    let (folder, trash, tree) = trash();
    chain(&tree, 200);
    let top = folder.path().join("tree");
    fs::write(top.join(".deep-0"), "a file").unwrap();
    fs::create_dir(top.join(".deep-1")).unwrap();
    chain(&open_below(&tree, ".deep-1").unwrap(), 200);
    symlink("/", top.join(".deep-2")).unwrap();
    fs::create_dir(top.join(".deep-3")).unwrap();
    // As wide as it is deep, just where it is lifted.
    let wide = std::iter::repeat_n("directory", DEEPEST).collect::<Vec<_>>().join("/");
    for name in 0..50 {
        fs::create_dir_all(top.join(&wide).join(format!("wide-{name}/below"))).unwrap();
    }
    all(&trash).unwrap();
    assert!(is_empty(folder.path()));
}
