//! The program as a whole, with a proxy that only logs that it listens.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

struct Rig {
    directory: TempDir,
    proxy: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        let listens = r#"{"message":"listening","address":"127.0.0.1:9"}"#;
        let script = format!("echo $$ > '{}/proxy.pid'; echo '{listens}'; exec sleep 600", directory.path().display());
        let proxy = program(&directory.path().join("proxy"), &script);
        Self { directory, proxy }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str], command: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_hpc-storage-conformance"))
            .args(["run", "--jobs", "1", "--proxy"])
            .arg(&self.proxy)
            .args(arguments)
            .arg("--")
            .args(command)
            .env("TMPDIR", self.path("tmp"))
            .env("DIRECTORY", self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn ends(&self, arguments: &[&str], command: &[&str]) -> Output {
        self.run(arguments, command).wait_with_output().unwrap()
    }

    /// Whether the process that has written this file runs.
    fn runs(&self, name: &str) -> bool {
        let pid = fs::read_to_string(self.path(name)).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }
}

fn program(path: &Path, script: &str) -> PathBuf {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let rig = Rig::new();
        let script = "trap '' TERM; setsid sleep 600 & echo $! > $DIRECTORY/child.pid; echo $$ > $DIRECTORY/command.new; mv $DIRECTORY/command.new $DIRECTORY/command.pid; while :; do sleep 1; done";
        let suite = rig.run(&["--only", "create/site-agent", "--timeout", "600"], &["sh", "-c", script]);
        let begun = Instant::now();
        while !rig.path("command.pid").exists() {
            assert!(begun.elapsed() < Duration::from_mins(2), "the command was not started");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&suite), signal).unwrap();
        let output = suite.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains("error: interrupted"), "{signal:?} {error}");
        for name in ["command.pid", "child.pid", "proxy.pid"] {
            assert!(!rig.runs(name), "{signal:?}: {name} still runs");
        }
        let left: Vec<_> = fs::read_dir(rig.path("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn wrong_usage_is_named_before_anything_starts() {
    let rig = Rig::new();
    let script = rig.path("not-executable");
    fs::write(&script, "").unwrap();
    let script = script.to_str().unwrap();
    for (arguments, command, part) in [
        (&["--only", "create", "--only", "crate"][..], "true", "no case matches --only \"crate\""),
        (&[], "no-such-program", "there is no program \"no-such-program\""),
        (&[], script, "there is no program"),
        (&[], "/", "there is no program \"/\""),
        (&["--probe", "zfs"], "true", "--probe \"zfs\" is neither json, posix, xfs nor a program"),
        (&["--jobs", "0"], "true", "--jobs"),
        (&["--junit", "/no/such/folder/junit.xml"], "true", "cannot write /no/such/folder/junit.xml"),
    ] {
        let output = rig.ends(arguments, &[command]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(part), "{arguments:?} {command}: {error}");
        assert!(!rig.path("proxy.pid").exists(), "{arguments:?}");
    }
}

#[test]
fn a_command_that_exits_is_started_once_and_fails_the_case() {
    let rig = Rig::new();
    let output =
        rig.ends(&["--json", "--only", "create/site-agent"], &["sh", "-c", "echo x >> $DIRECTORY/starts; exit 3"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seen = report["cases"][0]["seen"].as_str().unwrap();
    assert_eq!(
        seen.matches("the command exited with code 3; it has to run until it gets SIGTERM").count(),
        1,
        "{seen}"
    );
    assert_eq!(fs::read_to_string(rig.path("starts")).unwrap(), "x\n");
}

#[test]
fn a_probe_that_fails_is_no_failed_case() {
    let rig = Rig::new();
    let probe = program(&rig.path("probe"), "echo the array does not answer >&2; exit 1");
    let arguments =
        ["--json", "--only", "paths/foreign*directory", "--only", "create/never-half-made-basic", "--probe"];
    let output = rig.ends(&[&arguments[..], &[probe.to_str().unwrap()]].concat(), &["sleep", "600"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{report}");
    let case = |name: &str| report["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let broken = case("create/never-half-made-basic");
    assert_eq!(broken["result"], "broken");
    assert!(broken["seen"].as_str().unwrap().ends_with("the array does not answer"), "{broken}");
    assert_eq!(case("paths/foreign-directory")["result"], "skipped");
}
