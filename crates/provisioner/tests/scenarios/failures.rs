//! Failures around the provisioner, and how they are reported.

use std::fs;

use serde_json::Value;
use simulator::Fault;
use simulator::world::OrderState;

use crate::support::{BASIC, Output, SLURM, Site, set_mode};

#[test]
fn check_succeeds_if_all_is_well() {
    let site = Site::new();
    // `apply` creates the state directory.
    site.apply();
    site.order(SLURM, 0, 10);
    let output = site.run(&["check"]).exits_with(0).stdout_has("ok      callbacks");
    assert!(!output.out.contains("FAILED"), "{}", output.out);
    let rows = site.json(&["check"]);
    assert!(rows.as_array().unwrap().iter().all(|row| row["ok"] == true), "{rows:#}");
}

/// Asserts that exactly one check fails, `what`, with this text.
fn check_fails(site: &Site, what: &str, text: &str) {
    let output = site.run(&["check"]).exits_with(1);
    let failed: Vec<_> = output.out.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(
        failed.len() == 1 && failed[0].contains(what) && failed[0].contains(text),
        "{what}, {text}: {}",
        output.out
    );
    let rows: Value = serde_json::from_str(&site.run(&["check", "--json"]).exits_with(1).out).unwrap();
    assert_eq!(rows.as_array().unwrap().iter().filter(|row| row["ok"] == false).count(), 1);
}

#[test]
fn check_reports_each_failure() {
    let mut site = Site::new();
    site.apply();
    site.order(SLURM, 0, 10);
    site.simulator.set_fault("GET /api/*", Fault::status(503));
    check_fails(&site, "document", "the proxy answers 502");
    site.simulator.clear_faults();

    site.simulator.set_fault("POST /auth/*", Fault::status(500));
    check_fails(&site, "document", "the token endpoint");
    site.simulator.clear_faults();

    site.stop_proxy();
    check_fails(&site, "document", "cannot be reached");
    site.start_proxy();

    fs::rename(site.root(SLURM), site.directory.path().join("away")).unwrap();
    check_fails(&site, "system capstor", "the root ");
    fs::rename(site.directory.path().join("away"), site.root(SLURM)).unwrap();

    fs::rename(site.directory.path().join("state"), site.directory.path().join("old")).unwrap();
    assert!(site.run(&["check"]).exits_with(0).out.contains("does not exist yet"));
    fs::write(site.directory.path().join("state"), "").unwrap();
    check_fails(&site, "state directory", "is not a directory");
    fs::remove_file(site.directory.path().join("state")).unwrap();
    fs::rename(site.directory.path().join("old"), site.directory.path().join("state")).unwrap();

    let systems = serde_json::json!({"castor": {
        "driver": "posix", "terabyte": "TB", "root": site.root(SLURM), "must_be_mounted": false, "change_owner": false,
    }});
    site.set("PROVISIONER_SYSTEMS", &systems.to_string());
    check_fails(&site, "system castor", "but has some on capstor");
    let systems = serde_json::json!({"capstor": {"driver": "posix", "terabyte": "TB", "root": "/proc"}});
    site.set("PROVISIONER_SYSTEMS", &systems.to_string());
    site.run(&["check"]).exits_with(1).stdout_has("FAILED  system capstor");
}

#[test]
fn a_missing_root_is_not_an_empty_system() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let ended = site.order_end(made.resource);
    fs::rename(site.root(SLURM), site.directory.path().join("away")).unwrap();
    site.run(&["apply"]).exits_with(1).stdout_has("the storage cannot be read").stdout_has("0 to do, 1 held");
    assert_eq!(site.states(ended).0, OrderState::PendingProvider, "a directory that cannot be read is not gone");
}

/// Runs `apply` with a state directory that not even root can write to.
fn apply_without_state(site: &Site) -> Output {
    let state = site.directory.path().join("state");
    fs::write(&state, "a file").unwrap();
    let output = site.run(&["apply"]);
    fs::remove_file(&state).unwrap();
    output
}

#[test]
fn without_a_state_directory_nothing_is_done() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    apply_without_state(&site).exits_with(1).stderr_has("`state_directory` must be writable");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    assert!(site.calls().is_empty());
    fs::create_dir(site.directory.path().join("state")).unwrap();
    if rustix::process::geteuid().is_root() {
        // Root ignores permissions, so a directory takes the place of the file.
        fs::create_dir(site.state("journal")).unwrap();
        site.run(&["apply"]).exits_with(1).stderr_has("the journal").stderr_has("cannot be opened");
        fs::remove_dir(site.state("journal")).unwrap();
    } else {
        set_mode(&site.directory.path().join("state"), 0o500);
        site.run(&["apply"]).exits_with(1).stderr_has("cannot be taken");
        set_mode(&site.directory.path().join("state"), 0o700);
    }
    assert!(site.calls().is_empty());
    site.apply().stdout_has("1 done");
}

#[test]
fn with_a_broken_journal_only_read_only_commands_work() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    let journal = fs::read_to_string(site.state("journal")).unwrap();
    let (first, rest) = journal.split_once('\n').unwrap();
    let changed = first.replacen("\"seq\":", "seq:", 1);
    assert_ne!(changed, first);
    fs::write(site.state("journal"), format!("{changed}\n{rest}")).unwrap();
    let other = site.order(SLURM, 1, 10);
    let calls = site.calls().len();
    site.run(&["apply"]).exits_with(1).stderr_has("is broken at line 1").stderr_has("move it aside");
    assert_eq!((site.states(other).0, site.calls().len()), (OrderState::PendingProvider, calls));
    check_fails(&site, "state directory", "is broken at line 1");
    site.run(&["plan"]).exits_with(0).stdout_has("1 to do").stderr_has("is broken at line 1");
    fs::remove_file(site.state("journal")).unwrap();
    site.apply().stdout_has("1 done");
    // An incomplete last line is left by a crash.
    let mut journal = fs::read_to_string(site.state("journal")).unwrap();
    journal.truncate(journal.len() - 10);
    fs::write(site.state("journal"), journal).unwrap();
    site.apply();
    site.run(&["check"]).exits_with(0).stdout_has("a journal of");
}

#[test]
fn an_unreadable_ledger_is_not_replaced() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    fs::write(site.state("ledger.json"), "{").unwrap();
    let other = site.order(SLURM, 1, 10);
    site.run(&["apply"]).exits_with(1).stderr_has("ledger.json");
    assert_eq!(site.states(other).0, OrderState::PendingProvider);
    site.run(&["plan"]).exits_with(0).stderr_has("the ledger cannot be read");
    check_fails(&site, "state directory", "ledger");
}

#[test]
fn work_continues_without_a_ledger() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply().stdout_has("1 done");
    let numbered = serde_json::json!({"driver": "lustre", "terabyte": "TB", "root": site.root(BASIC)});
    let mut systems: serde_json::Value = serde_json::from_str(&site.setting("PROVISIONER_SYSTEMS")).unwrap();
    systems[BASIC] = numbered;
    site.set("PROVISIONER_SYSTEMS", &systems.to_string());
    fs::remove_file(site.state("ledger.json")).unwrap_or_default();
    site.order(SLURM, 1, 10);
    site.apply().stdout_has("1 done");
}
