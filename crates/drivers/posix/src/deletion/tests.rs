use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::*;

/// Limit of open files in the process of [`begin`], including those of the test harness.
const FEW: u64 = 160;
const LEVELS: usize = 5_000;

/// Creates a trash with the top directory of a tree.
fn trash() -> (tempfile::TempDir, OwnedFd, OwnedFd) {
    // In memory if possible, because thousands of directories take seconds on disks.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    fs::create_dir(folder.path().join("tree")).unwrap();
    let trash = OwnedFd::from(File::open(folder.path()).unwrap());
    let tree = open_below(&trash, "tree").unwrap();
    (folder, trash, tree)
}

/// Creates a chain of directories, each with a file.
fn chain(top: &OwnedFd, levels: usize) {
    let mut last = top.try_clone().unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&last, "directory", Mode::RWXU).unwrap();
        last = open_below(&last, "directory").unwrap();
        rustix::fs::openat(&last, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    }
}

fn all(trash: &OwnedFd) -> Result<(), DriverError> {
    delete(trash, "tree", (&|_| panic!("all directories have the same project ID"), &|_| Ok(())), &|| Ok(()))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Deletes the tree in this folder in another process with few handles, by running the test below there.
fn begin(folder: &Path) -> Child {
    let test = "deletion::tests::a_deep_tree_is_deleted_with_few_handles_and_a_small_stack";
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {FEW} && exec \"$0\" --exact {test}")]).arg(std::env::current_exe().unwrap());
    shell.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_deep_tree_is_deleted_with_few_handles_and_a_small_stack() {
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
fn a_killed_deletion_is_continued() {
    let (folder, trash, _) = trash();
    // Repeated if it was killed too late.
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
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn a_user_with_an_open_directory_cannot_prevent_its_deletion() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let (folder, trash, tree) = trash();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let held = folder.path().join("tree/held");
    fs::create_dir(&held).unwrap();
    chown(&held, Some(20_000), Some(30_500)).unwrap();
    let mut user = Command::new("sh");
    user.args(["-c", "while read name; do mkdir $name 2>&- && echo made || echo refused; done"]).current_dir(&held);
    let mut user = user.uid(20_000).gid(30_500).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ask, mut answers) = (user.stdin.take().unwrap(), BufReader::new(user.stdout.take().unwrap()).lines());
    let mut tries = 0;
    let (said, says) = std::sync::mpsc::channel();
    // A file for the first round.
    fs::write(held.join("file"), "").unwrap();
    let on_each_moment = injected::on_each_moment(move |_| {
        tries += 1;
        assert!(tries < 1000, "it never ends");
        writeln!(ask, "again-{tries}").unwrap();
        said.send(answers.next().unwrap().unwrap()).unwrap();
    });
    drop(tree);
    all(&trash).unwrap();
    drop(on_each_moment);
    user.wait().unwrap();
    assert_eq!(says.try_iter().take(2).collect::<Vec<_>>(), ["made", "refused"]);
    assert!(is_empty(folder.path()));
}

#[test]
fn a_directory_that_never_becomes_empty_is_an_error() {
    let (folder, trash, _) = trash();
    let filled = folder.path().join("tree/filled");
    fs::create_dir_all(filled.join("below")).unwrap();
    let mut tries = 0;
    let on_each_moment = injected::on_each_moment(move |_| {
        tries += 1;
        assert!(tries < 10_000, "it never ends");
        let _ = fs::write(filled.join("again"), "");
    });
    assert!(all(&trash).unwrap_err().to_string().contains("does not become empty"));
    drop(on_each_moment);
    all(&trash).unwrap();
    assert!(is_empty(folder.path()));
}

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn an_immutable_file_is_reported_with_the_remedy() {
    let (folder, trash, tree) = trash();
    let file = folder.path().join("tree/file");
    fs::write(&file, "").unwrap();
    let chattr = |what: &str| Command::new("chattr").arg(what).arg(&file).status().is_ok_and(|ended| ended.success());
    if !chattr("+i") {
        eprintln!("SKIPPED: needs root, chattr and a file system with immutable files");
        return;
    }
    drop(tree);
    let fault = all(&trash).unwrap_err();
    assert!(chattr("-i"));
    assert!(
        storage_driver::error_chain(&fault).contains("chattr -R -i -a") && fault_is(&fault, Errno::PERM),
        "{fault:?}"
    );
    all(&trash).unwrap();
}

fn fault_is(fault: &DriverError, errno: Errno) -> bool {
    let DriverError::Temporary { source: Some(source), .. } = fault else { return false };
    let error = source.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[test]
fn temporary_names_that_exist_do_no_harm() {
    let (folder, trash, tree) = trash();
    chain(&tree, 200);
    let top = folder.path().join("tree");
    fs::write(top.join(".deep-0"), "a file").unwrap();
    fs::create_dir(top.join(".deep-1")).unwrap();
    chain(&open_below(&tree, ".deep-1").unwrap(), 200);
    symlink("/", top.join(".deep-2")).unwrap();
    fs::create_dir(top.join(".deep-3")).unwrap();
    // Wide at the depth at which directories are lifted.
    let wide = std::iter::repeat_n("directory", DEEPEST).collect::<Vec<_>>().join("/");
    for name in 0..50 {
        fs::create_dir_all(top.join(&wide).join(format!("wide-{name}/below"))).unwrap();
    }
    all(&trash).unwrap();
    assert!(is_empty(folder.path()));
}
