//! What is broken around the provisioner, and what it says of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use simulator::Fault;
use simulator::world::OrderState;

use crate::support::{BASIC, SLURM, Said, Site};

#[test]
fn check_finds_nothing_wrong_where_nothing_is() {
    let site = Site::new();
    // The state directory is made by the first command that works.
    site.apply();
    site.order(SLURM, 0, 10);
    let said = site.run(&["check"]).ends_with(0).says("ok      callbacks");
    assert!(!said.out.contains("FAILED"), "{}", said.out);
    let rows = site.json(&["check"]);
    assert!(rows.as_array().unwrap().iter().all(|row| row["ok"] == true), "{rows:#}");
}

/// `check` must fail for this one thing, and say this of it.
fn fails(site: &Site, what: &str, words: &str) {
    let said = site.run(&["check"]).ends_with(1);
    let failed: Vec<_> = said.out.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(
        failed.len() == 1 && failed[0].contains(what) && failed[0].contains(words),
        "{what}, {words}: {}",
        said.out
    );
    let rows: Value = serde_json::from_str(&site.run(&["check", "--json"]).ends_with(1).out).unwrap();
    assert_eq!(rows.as_array().unwrap().iter().filter(|row| row["ok"] == false).count(), 1);
}

#[test]
fn check_tells_each_thing_that_is_broken() {
    let mut site = Site::new();
    site.apply();
    site.order(SLURM, 0, 10);
    site.simulator.set_fault("GET /api/*", Fault::status(503));
    fails(&site, "document", "the proxy answers 502");
    site.simulator.clear_faults();

    site.simulator.set_fault("POST /auth/*", Fault::status(500));
    fails(&site, "document", "the token endpoint");
    site.simulator.clear_faults();

    site.stop_proxy();
    fails(&site, "document", "cannot be reached");
    site.start_proxy();

    fs::rename(site.root(SLURM), site.directory.path().join("away")).unwrap();
    fails(&site, "system capstor", "the root ");
    fs::rename(site.directory.path().join("away"), site.root(SLURM)).unwrap();

    fs::rename(site.directory.path().join("state"), site.directory.path().join("old")).unwrap();
    assert!(site.run(&["check"]).ends_with(0).out.contains("not there yet"));
    fs::write(site.directory.path().join("state"), "").unwrap();
    fails(&site, "state directory", "is no directory");
    fs::remove_file(site.directory.path().join("state")).unwrap();
    fs::rename(site.directory.path().join("old"), site.directory.path().join("state")).unwrap();

    let systems = serde_json::json!({"castor": {
        "driver": "posix", "terabyte": "TB", "root": site.root(SLURM), "must_be_mounted": false, "change_owner": false,
    }});
    site.set("PROVISIONER_SYSTEMS", &systems.to_string());
    fails(&site, "system castor", "but of capstor");
    let systems = serde_json::json!({"capstor": {"driver": "posix", "terabyte": "TB", "root": "/proc"}});
    site.set("PROVISIONER_SYSTEMS", &systems.to_string());
    site.run(&["check"]).ends_with(1).says("FAILED  system capstor");
}

#[test]
fn a_root_that_is_not_mounted_is_no_empty_system() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let ended = site.order_end(made.resource);
    fs::rename(site.root(SLURM), site.directory.path().join("away")).unwrap();
    site.run(&["apply"]).ends_with(1).says("the storage cannot be read").says("0 to do, 1 held");
    assert_eq!(site.states(ended).0, OrderState::PendingProvider, "what cannot be read is not gone");
}

/// A file or directory as which nobody can write, not even the superuser.
fn unwritable(site: &Site) -> Said {
    let state = site.directory.path().join("state");
    fs::write(&state, "a file").unwrap();
    let said = site.run(&["apply"]);
    fs::remove_file(&state).unwrap();
    said
}

#[test]
fn without_a_state_directory_nothing_is_done() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    unwritable(&site).ends_with(1).told("`state_directory` must be writable");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    assert!(site.calls().is_empty());
    fs::create_dir(site.directory.path().join("state")).unwrap();
    if rustix::process::geteuid().is_root() {
        // Permissions keep root from nothing; a directory in the file's place does.
        fs::create_dir(site.state("journal")).unwrap();
        site.run(&["apply"]).ends_with(1).told("the journal").told("cannot be opened");
        fs::remove_dir(site.state("journal")).unwrap();
    } else {
        fs::set_permissions(site.directory.path().join("state"), Permissions::from_mode(0o500)).unwrap();
        site.run(&["apply"]).ends_with(1).told("cannot be taken");
        fs::set_permissions(site.directory.path().join("state"), Permissions::from_mode(0o700)).unwrap();
    }
    assert!(site.calls().is_empty());
    site.apply().says("1 done");
}

#[test]
fn a_broken_journal_stops_everything_but_looking() {
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
    site.run(&["apply"]).ends_with(1).told("is broken at line 1").told("move it aside");
    assert_eq!((site.states(other).0, site.calls().len()), (OrderState::PendingProvider, calls));
    fails(&site, "state directory", "is broken at line 1");
    site.run(&["plan"]).ends_with(0).says("1 to do").told("is broken at line 1");
    fs::remove_file(site.state("journal")).unwrap();
    site.apply().says("1 done");
    // A line that a crash cut off was followed by nothing.
    let mut journal = fs::read_to_string(site.state("journal")).unwrap();
    journal.truncate(journal.len() - 10);
    fs::write(site.state("journal"), journal).unwrap();
    site.apply();
    site.run(&["check"]).ends_with(0).says("a journal of");
}

#[test]
fn a_ledger_that_cannot_be_read_is_not_begun_anew() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    fs::write(site.state("ledger.json"), "{").unwrap();
    let other = site.order(SLURM, 1, 10);
    site.run(&["apply"]).ends_with(1).told("ledger.json");
    assert_eq!(site.states(other).0, OrderState::PendingProvider);
    site.run(&["plan"]).ends_with(0).told("the ledger cannot be read");
    fails(&site, "state directory", "ledger");
}

#[test]
fn a_ledger_that_is_gone_or_was_never_needed_stops_nothing() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply().says("1 done");
    let numbered = serde_json::json!({"driver": "lustre", "terabyte": "TB", "root": site.root(BASIC)});
    let mut systems: serde_json::Value = serde_json::from_str(&site.setting("PROVISIONER_SYSTEMS")).unwrap();
    systems[BASIC] = numbered;
    site.set("PROVISIONER_SYSTEMS", &systems.to_string());
    fs::remove_file(site.state("ledger.json")).unwrap_or_default();
    site.order(SLURM, 1, 10);
    site.apply().says("1 done");
}
