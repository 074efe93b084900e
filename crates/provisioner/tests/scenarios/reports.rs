//! Reports to the proxy.

use std::fs;
use std::time::Duration;

use provisioner_report::{HoldKind, Observed, Turn};
use simulator::Fault;

use crate::run::Loop;
use crate::support::{SLURM, Site, wait_until};

#[test]
fn the_proxy_knows_each_pass() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let work = Loop::start(&mut site, "3600");
    let resource = |site: &Site| site.report()?.report.resources.iter().find(|it| it.id == made.resource).cloned();
    wait_until("the task is reported", || resource(&site).is_some_and(|it| it.task.is_some()));
    let received = site.report().unwrap();
    assert_eq!(received.name, "capstor-tape");
    assert!(received.report.pass.error.is_none());
    let systems: Vec<_> = received.report.systems.iter().map(|system| &*system.name).collect();
    assert_eq!(systems, ["capstor", "tape"]);
    let task = resource(&site).unwrap().task.unwrap();
    assert_eq!((&*task.action, task.changes[0].what.as_str()), ("create", "directory"));
    assert!(task.steps.iter().any(|step| step.starts_with("ensure")), "{task:?}");

    // The next passes find the directory, and what happened is in the history.
    wait_until("the directory is reported", || {
        work.ask("POST", "/nudge");
        resource(&site).is_some_and(|it| it.observed == Observed::Present && it.task.is_none())
    });
    let found = resource(&site).unwrap();
    assert!(found.detail.contains("mode 2770"), "{found:?}");
    assert!(found.history.iter().any(|event| event.text.starts_with("begun by run")), "{found:?}");
    assert!(found.history.iter().any(|event| event.text == "ended"), "{found:?}");

    // A missing directory is held; the command that is given for it works.
    let path = site.at(&found.path);
    fs::remove_dir(&path).unwrap();
    wait_until("the hold is reported", || {
        work.ask("POST", "/nudge");
        resource(&site).is_some_and(|it| it.hold.is_some())
    });
    let hold = resource(&site).unwrap().hold.unwrap();
    assert_eq!((hold.kind, hold.turn), (HoldKind::Drift, Turn::Operator));
    let [command] = &hold.commands[..] else { panic!("{hold:?}") };
    let arguments: Vec<_> = command.split(' ').collect();
    assert_eq!(arguments[0], "hpc-storage-provisioner");
    site.run(&arguments[1..]).exits_with(0);
    assert!(path.is_dir());
    assert!(work.metric("hpc_storage_provisioner_reports_total{outcome=\"accepted\"}").unwrap() >= 3.0);
    work.stop();
}

#[test]
fn a_failed_pass_is_reported_with_the_last_complete_one() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let work = Loop::start(&mut site, "0.3");
    let of = |site: &Site| site.report().filter(|it| it.report.resources.iter().any(|it| it.id == made.resource));
    wait_until("a complete pass", || of(&site).is_some());
    site.simulator.set_fault("GET /api/*", Fault::status(503));
    wait_until("the failed pass", || of(&site).is_some_and(|it| it.report.pass.error.is_some()));
    let error = site.report().unwrap().report.pass.error.clone().unwrap();
    assert!(error.contains("the document cannot be read"), "{error}");
    site.simulator.clear_faults();
    wait_until("a complete pass again", || of(&site).is_some_and(|it| it.report.pass.error.is_none()));
    work.stop();
}

#[test]
fn reports_can_be_turned_off_and_named() {
    let mut site = Site::new();
    site.set("PROVISIONER_REPORT_ENABLED", "false");
    let work = Loop::start(&mut site, "0.3");
    wait_until("three passes", || work.passes() >= 3.0);
    std::thread::sleep(Duration::from_millis(500));
    assert!(site.report().is_none());
    work.stop();
    site.unset("PROVISIONER_REPORT_ENABLED");
    site.set("PROVISIONER_REPORT_NAME", "alps");
    let work = Loop::start(&mut site, "0.3");
    wait_until("a report", || site.report().is_some());
    assert_eq!(site.report().unwrap().name, "alps");
    work.stop();
    site.set("PROVISIONER_REPORT_NAME", "a/b");
    let refused = site.run(&["config"]).exits_with(78);
    assert!(refused.err.contains("report.name"), "{refused:?}");
}
