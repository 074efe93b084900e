use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use storage_driver::conformance::Bench;
use storage_driver::place::Place;
use storage_driver::registration::SystemSettings;
use storage_driver::walked::Walked;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::suite::{Calls, run};

/// An example of the repository.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/drivers").join(name)
}

/// Python with this script, by its real path.
fn python(script: &Path) -> Command {
    let path = Path::new("/usr/bin/python3").canonicalize().unwrap();
    Command { path, arguments: vec!["-BS".into(), script.display().to_string()] }
}

/// A shell with this script, by its real path.
fn sh(script: &Path) -> Command {
    let path = Path::new("/bin/sh").canonicalize().unwrap();
    Command { path, arguments: vec![script.display().to_string()] }
}

fn open(command: Command, root: &Path, environment: &[(&str, &str)]) -> Result<Exec, DriverError> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Exec::open(command, root.to_owned(), environment, Timeouts::default())
}

/// User ID and group ID that tests can assign.
fn ids() -> (u32, u32) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() { (20_000, 30_500) } else { (uid.as_raw(), gid.as_raw()) }
}

/// Runs the suite; returns the names of the failed checks with their failures, and how often the program was killed.
fn check(exec: &Exec, root: &Path, calls: Calls, make: Option<&dyn Fn(&Place)>) -> (Vec<String>, usize) {
    let make_directory = |place: &Place| fs::create_dir_all(root.join(place.to_string())).unwrap();
    let bench = Bench { driver: exec, ids: ids(), make_unmarked: make.unwrap_or(&make_directory) };
    let mut failures = Vec::new();
    let killed = run(&bench, exec, calls, &mut |_, _, failure| failures.extend(failure.map(|it| it.to_string())));
    (failures, killed.unwrap())
}

/// Whether root can set the marks of the examples here.
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn has_trusted_attributes(root: &Path) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let set = rustix::fs::setxattr(root, "trusted.test", b"1", rustix::fs::XattrFlags::empty());
    if is_root && set.is_err() {
        eprintln!("SKIPPED: root cannot set attributes in {}", root.display());
    }
    !is_root || set.is_ok()
}

#[test]
fn the_example_with_directories_conforms_also_if_it_is_killed() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    let exec = open(python(&example("directories.py")), root.path(), &[]).unwrap();
    let (failures, killed) = check(&exec, root.path(), Calls::Killed(1), None);
    assert_eq!(failures, Vec::<String>::new());
    assert!(killed > 20, "{killed}");
}

/// Kills each verb with side effects before each line of the example, repeats it, and compares the end with that of a verb that was not
/// killed. Prints the number of kills.
const KILLED_EVERYWHERE: &str = r#"
import os, signal, sys, traceback
examples, root, uid, gid = sys.argv[1:]
sys.path.insert(0, examples)
import directories

def run(verb, fields):
    return directories.Directories(verb, root, **fields).answer()

def killed(verb, fields, at):
    """Whether it was killed before the line of this number."""
    child = os.fork()
    if child == 0:
        lines = 0
        def trace(frame, event, _):
            nonlocal lines
            if frame.f_code.co_filename != directories.__file__:
                return None
            lines += event == "line"
            if lines == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        try:
            run(verb, fields)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"{verb} failed with the status {status}"
    return status != 0

count = 0

def wanted(size):
    limits = dict.fromkeys(["space_soft", "space_hard", "inodes_soft", "inodes_hard"], size)
    parents = [{"path": "store", "mode": "755"}, {"path": f"store/customer-{count}", "mode": "775"}]
    return {"id": f"00000000-0000-0000-0000-{count:012}", "path": f"store/customer-{count}/project", "parents": parents,
            "uid": int(uid), "gid": int(gid), "mode": "2770", "limits": limits}

def end(verb, before, at):
    """The state of a new resource after a verb that was killed, and whether it was killed."""
    global count
    count += 1
    for each in before:
        if each == "mkdir":
            os.makedirs(f"{root}/{wanted(1)['path']}")
        else:
            run(each, {"directory": wanted(1), "now": 5})
    trashed = {"id": wanted(1)["id"], "since": 5}
    fields = {"trashed": trashed} if verb in ("claim", "purge") else {"directory": wanted(2), "now": 5}
    if verb == "purge":
        run("claim", fields)
    was_killed = at and killed(verb, fields, at)
    run(verb, fields)
    path = f"{root}/{wanted(1)['path']}"
    mark = directories.mark(path)["id"] == wanted(1)["id"]
    return [run("observe", {"directories": [wanted(2)]})["directories"][0] | {"id": None}, mark], was_killed

kills = 0
for verb, before in [("ensure", []), ("ensure", ["ensure"]), ("adopt", ["mkdir"]), ("retire", ["ensure"]), ("restore", ["ensure", "retire"]),
                     ("claim", ["ensure", "retire"]), ("purge", ["ensure", "retire"])]:
    expected, at = end(verb, before, 0)[0], 1
    while True:
        found, was_killed = end(verb, before, at)
        assert found == expected, f"{verb} killed before its line {at}: {found} instead of {expected}"
        if not was_killed:
            break
        kills, at = kills + 1, at + 1
left = [name for name in os.listdir(root) if name not in (".trash", "store")]
assert not left, f"left over: {left}"
print(kills)
"#;

#[test]
fn the_example_with_directories_can_be_killed_before_each_of_its_lines() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    let (uid, gid) = ids();
    let mut python = std::process::Command::new("/usr/bin/python3");
    python
        .args(["-BS", "-c", KILLED_EVERYWHERE])
        .arg(example(""))
        .arg(root.path())
        .args([uid, gid].map(|id| id.to_string()));
    let output = python.output().unwrap();
    let kills = String::from_utf8_lossy(&output.stdout).trim().parse::<usize>();
    assert!(kills.is_ok_and(|kills| kills > 200), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_example_with_zfs_conforms_with_a_simulated_zfs() {
    let folder = tempfile::tempdir().unwrap();
    let (root, state) = (folder.path().join("tank"), folder.path().join("state"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir(&state).unwrap();
    let pool = json!({
        "tank": {"number": 1, "set": {"mountpoint": "none"}}, "tank/base": {"number": 2, "set": {"mountpoint": root}},
    });
    fs::write(state.join("pool.json"), pool.to_string()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let path = format!("{}:/usr/bin:/bin", tests.display());
    let variables = [("PATH", &*path), ("ZFS_STATE", state.to_str().unwrap())];
    let exec = open(python(&example("zfs.py")), &root, &variables).unwrap();
    let zfs = |arguments: &[&str]| {
        let mut zfs = std::process::Command::new(tests.join("zfs"));
        assert!(zfs.args(arguments).env("ZFS_STATE", &state).status().unwrap().success(), "{arguments:?}");
    };
    // `zfs create -p`.
    let create = |place: &Place| {
        let above: Vec<_> = std::iter::successors(place.parent(), Place::parent).collect();
        for place in above.iter().rev().chain([place]).filter(|place| !root.join(place.to_string()).exists()) {
            zfs(&["create", &format!("tank/base/{place}")]);
        }
    };
    let (failures, _) = check(&exec, &root, Calls::Once, Some(&create));
    assert_eq!(failures, Vec::<String>::new());
}

/// Runs the suite on the example for XFS.
fn xfs(calls: Calls) {
    let root = std::env::var_os("KERNEL_XFS_EXEC").map(PathBuf::from).unwrap();
    let exec = open(python(&example("xfs.py")), &root, &[]).unwrap();
    let (failures, killed) = check(&exec, &root, calls, None);
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(killed > 0, calls != Calls::Once, "{killed}");
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn kernel_the_example_with_xfs_conforms() {
    xfs(Calls::Once);
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel killed_the_example runs it, for minutes"]
fn killed_the_example_with_xfs_conforms() {
    xfs(Calls::Killed(1));
}

#[test]
fn a_program_that_cannot_be_killed_everywhere_fails() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    // A directory appears without its mark, and is then taken for somebody else's.
    let aside = r#"(path if os.path.isdir(path) else f"{self.root}/.new-{want['id']}")"#;
    let marks = r#"        set_mark(source, id=want["id"])"#;
    let text = fs::read_to_string(example("directories.py")).unwrap();
    assert!(text.contains(aside) && text.contains(marks), "the example has changed");
    let faulty = text.replace(aside, "path").replace(marks, &format!("        __import__('time').sleep(0.2)\n{marks}"));
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("faulty.py");
    fs::write(&script, faulty).unwrap();
    let exec = open(python(&script), root.path(), &[]).unwrap();
    let bench = Bench {
        driver: &exec,
        ids: ids(),
        make_unmarked: &|place| fs::create_dir_all(root.path().join(place.to_string())).unwrap(),
    };
    let mut failures = Vec::new();
    // Directories without marks are left over.
    let _ = run(&bench, &exec, Calls::Killed(3), &mut |_, _, failure| failures.extend(failure));
    assert!(failures.iter().any(|failure| failure.check == "create" || failure.check == "stopped"), "{failures:?}");
}

#[test]
fn a_program_that_deletes_files_fails() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    // It deletes instead of moving to the trash, and creates an empty directory to restore.
    let freezes = "        os.chmod(path, 0o700)\n";
    let text = fs::read_to_string(example("directories.py")).unwrap();
    assert!(text.contains(freezes), "the example has changed");
    let faulty = text.replace(freezes, &format!("{freezes}        os.system(f'find {{path}} -mindepth 1 -delete')\n"));
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("faulty.py");
    fs::write(&script, faulty).unwrap();
    let exec = open(python(&script), root.path(), &[]).unwrap();
    let (failures, _) = check(&exec, root.path(), Calls::Once, None);
    assert!(
        matches!(&failures[..], [one] if one.contains("check `contents`, after retire and restore: expected an unchanged file")),
        "{failures:?}"
    );
}

#[test]
fn a_kill_leaves_no_parent_directory_with_a_wrong_mode() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("killed.py");
    let example = example("directories.py");
    let text = format!(
        "import os, sys\nsys.path.insert(0, {})\nimport directories\nos.umask(0o077)\n\
         os.chmod = lambda *_: os._exit(9)\ndirectories.main(directories.Directories)\n",
        json!(example.parent())
    );
    fs::write(&script, text).unwrap();
    let desired = desired();
    assert!(open(python(&script), root.path(), &[]).unwrap().ensure(&desired, &|_| Ok(())).is_err());
    open(python(&example), root.path(), &[]).unwrap().ensure(&desired, &|_| Ok(())).unwrap();
    for (path, mode) in [("store", 0o755), ("store/cscs", 0o775), ("store/cscs/customer", 0o775)] {
        let found = root.path().join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{path}: {found:o}");
    }
}

#[test]
fn a_deep_tree_can_be_counted_and_deleted() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    let exec = open(python(&example("directories.py")), root.path(), &[]).unwrap();
    let desired = desired();
    exec.ensure(&desired, &|_| Ok(())).unwrap();
    let nest = "import os\nfor _ in range(3000): os.mkdir('x'); os.chdir('x')";
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.args(["-c", nest]).current_dir(root.path().join(desired.place.to_string()));
    assert!(python.status().unwrap().success());
    let [usage] = &exec.usage(&[&desired])[..] else { panic!() };
    assert_eq!(usage.as_ref().unwrap().unwrap().inodes.0, 3001);
    exec.retire(&desired, 1000, &|_| Ok(())).unwrap();
    exec.purge(&Trashed { id: desired.id, since: 1000 }, None, &|_| Ok(())).unwrap();
    assert_eq!(exec.observe(&[&desired]).remove(0).unwrap(), Observed::Absent);
}

#[test]
fn a_system_that_is_in_use_is_not_tested() {
    let root = tempfile::tempdir().unwrap();
    if !has_trusted_attributes(root.path()) {
        return;
    }
    let exec = open(python(&example("directories.py")), root.path(), &[]).unwrap();
    let bench = Bench { driver: &exec, ids: ids(), make_unmarked: &|_| {} };
    let used = Desired { id: Uuid::from_u128(u128::MAX), ..bench.desired(1) };
    exec.ensure(&used, &|_| Ok(())).unwrap();
    let error = run(&bench, &exec, Calls::Once, &mut |_, _, _| panic!("no check may run")).unwrap_err();
    assert!(error.to_string().contains("never on one in use"), "{error}");
    assert!(bench.is_as_desired(&used));
}

/// A program in a shell script that answers `capabilities`, and does this for other verbs.
fn shell(script: &str) -> (Exec, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driver");
    let start = "request=$(cat)\ncase $request in *'\"capabilities\"'*) echo '{\"version\": 1, \"block\": 4096}'; exit;; esac\n";
    fs::write(&path, format!("{start}{script}\n")).unwrap();
    (open(sh(&path), folder.path(), &[("POOL", "a b")]).unwrap(), folder)
}

fn desired() -> Desired {
    let (exec, _folder) = shell("");
    Bench { driver: &exec, ids: ids(), make_unmarked: &|_| {} }.desired(1)
}

fn observe(script: &str) -> Result<Observed, String> {
    shell(script).0.observe(&[&desired()]).remove(0).map_err(|error| storage_driver::error_chain(&error))
}

#[test]
fn exit_codes_are_errors_of_drivers() {
    let desired = desired();
    let ensure = |script: &str| shell(script).0.ensure(&desired, &|_| Ok(())).unwrap_err();
    let error = ensure("echo 'the pool is busy' >&2; exit 75");
    assert!(matches!(error, DriverError::Temporary { .. }) && error.to_string().ends_with(" ensure: the pool is busy"));
    let error = ensure("echo 'in the way' >&2; exit 73");
    assert!(matches!(error, DriverError::Conflict(_)) && error.to_string().ends_with(" ensure: in the way"), "{error}");
    let error = ensure("exit 64");
    assert!(error.to_string().ends_with(" does not support `ensure`: no error message"), "{error}");
    let error = ensure("echo first >&2; echo last >&2; exit 1");
    assert!(error.to_string().ends_with(" ensure: first; last (it failed with exit code 1)"), "{error}");
    let error = ensure("kill -9 $$");
    assert!(error.to_string().ends_with("(it failed with signal 9)"), "{error}");
    assert!(shell("echo '{}'").0.ensure(&desired, &|_| Ok(())).is_ok());
    assert!(ensure("true").to_string().contains("its answer is invalid"), "silence is not success");
}

#[test]
fn texts_of_a_program_are_bounded_and_escaped() {
    let error = observe("printf 'a\\033[2J\\tb \\342\\200\\256 \"c\"' >&2; exit 1").unwrap_err();
    assert!(error.contains(r#": a\u{1b}[2J\tb \u{202e} "c" (it failed"#), "{error}");
    let error = observe("head -c 100000 /dev/zero | tr '\\0' x >&2; echo ' the end' >&2; exit 1").unwrap_err();
    assert!(error.len() < 1200 && error.contains("…xxx") && error.contains("xxx the end"), "{error}");
    let error = observe("yes").unwrap_err();
    assert!(error.contains("printed more than"), "{error}");
}

#[test]
fn a_program_gets_its_request_and_a_clean_environment() {
    let (exec, folder) =
        shell("printf %s \"$request\" > \"$0.request\"; { pwd; env; } > \"$0.environment\"; echo '{}'");
    let desired = desired();
    exec.retire(&desired, 1234, &|_| Ok(())).unwrap();
    let written = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let request: Value = serde_json::from_str(&written("driver.request")).unwrap();
    let expected = json!({
        "version": 1, "verb": "retire", "root": folder.path(), "now": 1234,
        "directory": {
            "id": desired.id, "path": "store/cscs/customer/project-1", "uid": ids().0, "gid": ids().1, "mode": "2770",
            "parents": [{"path": "store", "mode": "755"}, {"path": "store/cscs", "mode": "775"},
                        {"path": "store/cscs/customer", "mode": "775"}],
            "limits": {"space_soft": 10_000_000_000_000_u64, "space_hard": 11_000_000_000_000_u64,
                       "inodes_soft": 1_000_000, "inodes_hard": 1_500_000},
        },
    });
    // The limits are rounded up to blocks.
    let mut expected = expected;
    for name in ["space_soft", "space_hard"] {
        let bytes = expected["directory"]["limits"][name].as_u64().unwrap();
        expected["directory"]["limits"][name] = json!(bytes.div_ceil(4096) * 4096);
    }
    assert_eq!(request, expected);
    let environment = written("driver.environment");
    assert!(environment.starts_with("/\n"), "{environment}");
    let mut names: Vec<_> = environment.lines().skip(1).filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    // The shell sets PWD itself.
    names.retain(|name| *name != "PWD" && *name != "_" && *name != "SHLVL");
    assert_eq!(names, ["LC_ALL", "PATH", "POOL"], "{environment}");
}

#[test]
fn answers_that_are_not_understood_are_errors() {
    let id = desired().id;
    let ours = r#""state": "ours", "uid": 1, "gid": 2, "mode": "2770""#;
    let answer = |fields: &str| observe(&format!("echo '{{\"directories\": [{{\"id\": \"{id}\", {fields}}}]}}'"));
    assert!(
        matches!(answer(ours), Ok(Observed::Ours(present)) if present.limits.is_none() && present.mode.0 == 0o2770)
    );
    assert_eq!(answer(r#""state": "trashed", "since": 5"#), Ok(Observed::Trashed { since: 5 }));
    assert_eq!(answer(r#""state": "obstructed", "why": "a\u001bb""#), Ok(Observed::Obstructed(r"a\u{1b}b".into())));
    assert_eq!(answer(r#""state": "unknown", "why": "not mounted""#), Err("not mounted".into()));
    for (fields, why) in [
        (r#""state": "trashed""#, "has no `since`"),
        (r#""state": "ours""#, "has no `mode`"),
        (&format!("{ours}, \"limit\": 7"), "unknown field `limit`"),
        (
            &format!(
                "{ours}, \"limits\": {{\"space_soft\": 0, \"space_hard\": 1, \"inodes_soft\": 1, \"inodes_hard\": 1}}"
            ),
            "is 0",
        ),
        (&ours.replace("2770", "92770"), "invalid digit"),
        (&ours.replace("2770", "172770"), "has no `mode`"),
        (r#""state": "gone""#, "unknown variant `gone`"),
    ] {
        let error = answer(fields).unwrap_err();
        assert!(error.contains(why) && error.contains("observe: its answer is invalid"), "{fields}: {error}");
    }
    let other = Uuid::from_u128(7);
    for answer in [
        r#"{"directories": []}"#.to_owned(),
        format!(r#"{{"directories": [{{"id": "{other}", "state": "absent"}}]}}"#),
        format!(r#"{{"directories": [{{"id": "{id}", "state": "absent"}}, {{"id": "{other}", "state": "absent"}}]}}"#),
    ] {
        assert!(observe(&format!("echo '{answer}'")).unwrap_err().contains("one entry for each"), "{answer}");
    }
    for output in ["", "null", "[]", "{}", "{\"directories\": []} x"] {
        assert!(observe(&format!("echo '{output}'")).is_err(), "{output}");
    }
}

#[test]
fn many_directories_are_observed_in_batches() {
    let one = desired();
    let script = "echo x >> \"$0.calls\"; printf '{\"directories\": ['; printf %s \"$request\" | grep -o '\"id\":\"[^\"]*\"' | \
                  sed 's/.*/{&, \"state\": \"absent\"}/' | paste -sd, ; echo ']}'";
    let (exec, folder) = shell(script);
    let all: Vec<_> = (0..2500).map(|n| Desired { id: Uuid::from_u128(n), ..one.clone() }).collect();
    let observed = exec.observe(&all.iter().collect::<Vec<_>>());
    assert_eq!(observed.iter().filter(|it| matches!(it, Ok(Observed::Absent))).count(), 2500, "{:?}", observed[0]);
    assert_eq!(fs::read_to_string(folder.path().join("driver.calls")).unwrap().lines().count(), 3);
}

#[test]
fn usage_of_a_program_without_that_verb_comes_with_the_state() {
    let id = desired().id;
    let state = format!(
        r#"{{"id": "{id}", "state": "ours", "uid": 1, "gid": 2, "mode": "770", "usage": {{"space": 5, "inodes": 6}}}}"#
    );
    let script = format!("case $request in *'\"usage\"'*) exit 64;; esac; echo '{{\"directories\": [{state}]}}'");
    let usage = shell(&script).0.usage(&[&desired()]).remove(0).unwrap().unwrap();
    assert_eq!((usage.space.0, usage.inodes.0), (5, 6));
    assert!(shell("exit 1").0.usage(&[&desired()]).remove(0).is_err());
}

#[test]
fn a_program_is_killed_when_its_work_has_to_stop() {
    let (exec, folder) = shell("sleep 300 & echo $! > \"$0.pid\"; wait");
    let calls = AtomicUsize::new(0);
    let guard = |_: &str| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(DriverError::Stopped("the lease is lost".into())),
    };
    let begun = Instant::now();
    let error = exec.ensure(&desired(), &guard).unwrap_err();
    assert!(matches!(error, DriverError::Stopped(_)) && begun.elapsed() < Duration::from_mins(1), "{error}");
    let pid = fs::read_to_string(folder.path().join("driver.pid")).unwrap();
    let path = format!("/proc/{}/stat", pid.trim());
    let is_alive = || fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z "));
    while is_alive() && begun.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!is_alive(), "its child processes are killed as well");
    // A verb that never begins is not run.
    let refused = exec.ensure(&desired(), &|_| Err(DriverError::Stopped("no".into())));
    assert!(matches!(refused, Err(DriverError::Stopped(_))));
}

#[test]
fn a_slow_program_is_killed() {
    let (exec, _folder) = shell("sleep 300");
    let exec = exec.killed_after(Duration::from_millis(200));
    let error = storage_driver::error_chain(&exec.trash().unwrap_err());
    assert!(error.contains("did not exit within 0.2 s") && exec.timed_out.into_inner() == 1, "{error}");
}

#[test]
fn other_versions_and_capabilities_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driver");
    let opened = |answer: &str| {
        fs::write(&path, format!("echo '{answer}'\n")).unwrap();
        open(sh(&path), folder.path(), &[]).map(drop).map_err(|error| error.to_string())
    };
    assert!(opened(r#"{"version": 1}"#).is_ok());
    assert!(opened(r#"{"version": 2}"#).unwrap_err().contains("version 2 of the protocol"));
    assert!(opened(r#"{"version": 1, "block": 0}"#).unwrap_err().contains("`block` is 0"));
    assert!(opened(r#"{"version": 1, "quotas": true}"#).unwrap_err().contains("unknown field `quotas`"));
    assert!(opened(r#"{"block": 1}"#).unwrap_err().contains("missing field `version`"));
    fs::write(&path, "echo '{\"version\": 1, \"block\": 512, \"soft_limits\": false}'\n").unwrap();
    let exec = open(sh(&path), folder.path(), &[]).unwrap();
    let [limits, stored] = [desired().limits, exec.stored_limits(desired().limits)];
    assert_eq!((stored.space_soft(), stored.space_hard()), (limits.space_hard(), limits.space_hard()));
}

#[test]
fn a_program_that_others_can_replace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let path = real.join("driver");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    let check = |mode: u32, above: u32| {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(&real, Permissions::from_mode(above)).unwrap();
        trust::check(&path).map_err(|error| error.to_string())
    };
    assert_eq!(check(0o755, 0o755), Ok(()));
    assert!(check(0o775, 0o755).unwrap_err().contains("others can write to"));
    assert!(check(0o757, 0o755).unwrap_err().contains("(mode 757), and could replace the driver"));
    assert!(check(0o755, 0o775).unwrap_err().contains("chmod go-w"));
    assert_eq!(check(0o755, 0o1777), Ok(()), "as in /tmp");
    let link = real.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = trust::check(&link).unwrap_err().to_string();
    assert!(error.contains("write its real path in the settings") && error.contains("/driver"), "{error}");
    assert!(trust::check(&real.join("missing")).is_err());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert!(check(0o755, 0o755).unwrap_err().contains("belongs to user 4711"));
    }
}

#[test]
fn settings_are_validated() {
    let configured = |values: Value| {
        let Value::Object(values) = values else { panic!() };
        (DRIVERS[0].configure)(SystemSettings { root: "/r".into(), values }).map_err(|error| error.to_string())
    };
    let program = "/usr/local/lib/storage/mydriver";
    let open = configured(json!({"command": [program, "--pool", "tank"], "environment": ["A=b=c", "B="]})).unwrap();
    assert!(open.open(&Walked::default()).unwrap_err().to_string().contains(program), "it does not exist");
    for (values, why) in [
        (json!({}), "missing field `command`"),
        (json!({"command": []}), "absolute path"),
        (json!({"command": ["mydriver"]}), "absolute path"),
        (json!({"command": program}), "wrong type"),
        (json!({"command": [program], "environment": ["1A=b"]}), "is not `NAME=VALUE`"),
        (json!({"command": [program], "environment": ["A"]}), "is not `NAME=VALUE`"),
        (json!({"command": [program], "timeout_seconds": 0}), "`timeout_seconds` is not between"),
        (json!({"command": [program], "walk_timeout_seconds": 1_u64 << 40}), "`walk_timeout_seconds` is not between"),
        (json!({"command": [program], "shell": true}), "unknown field `shell`"),
    ] {
        let error = configured(values.clone()).unwrap_err();
        assert!(error.contains(why), "{values}: {error}");
    }
}
