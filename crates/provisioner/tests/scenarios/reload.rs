//! New secrets and settings while `run` is running.

use std::fs;

use rustix::process::Signal;
use simulator::world::OrderState;

use crate::run::Loop;
use crate::support::{CLIENT_SECRET, SLURM, Site, WALDUR_TOKEN, wait_until};

/// How many token requests of the provisioner's client were refused.
fn refusals(site: &Site) -> usize {
    let token = site.simulator.token_url();
    let refused = |request: &simulator::Received| token.ends_with(&request.path) && request.status != Some(200);
    site.simulator.requests().iter().filter(|request| refused(request)).count()
}

#[test]
fn a_wrong_secret_is_sent_once_and_a_new_one_is_used_without_a_restart() {
    let mut site = Site::new();
    let file = site.directory.path().join("client-secret");
    fs::write(&file, "pa55-of-yesterday\n").unwrap();
    site.unset("PROVISIONER_CLIENT_SECRET");
    site.set("PROVISIONER_CLIENT_SECRET_FILE", &file.display().to_string());
    let work = Loop::start(&mut site, "0.2");
    let failed = || work.metric("hpc_storage_provisioner_passes_total{outcome=\"failed\"}").unwrap_or_default();
    wait_until("three passes failed", || failed() >= 3.0);
    assert_eq!(refusals(&site), 1);
    wait_until("the reason is logged", || {
        work.running.output().contains("check proxy.client_id and proxy.client_secret")
    });

    // An invalid file changes nothing.
    fs::write(&file, "").unwrap();
    wait_until("the file is refused", || {
        work.running.output().contains("client-secret is empty; write the secret into the file")
    });
    assert_eq!(refusals(&site), 1);

    fs::write(&file, CLIENT_SECRET).unwrap();
    wait_until("the new secret is used", || work.ready());
    assert_eq!(refusals(&site), 1);
    work.stop();
}

#[test]
fn sighup_reloads_the_settings_and_invalid_ones_change_nothing() {
    let mut site = Site::new();
    let file = site.directory.path().join("provisioner.yaml");
    fs::write(&file, "drift:\n  heal: true\n").unwrap();
    site.set("PROVISIONER_CONFIG", &file.display().to_string());
    let work = Loop::start_with(&mut site, None);
    wait_until("the first pass", || work.ready());
    let before = work.passes();

    fs::write(&file, "run:\n  interval: soon\n").unwrap();
    work.signal(Signal::HUP);
    wait_until("they are refused", || work.running.output().contains("the old ones stay in force: run.interval"));

    fs::write(&file, "run:\n  interval: 0.2\nlog:\n  format: json\n").unwrap();
    work.signal(Signal::HUP);
    wait_until("passes at the new interval", || work.passes() >= before + 4.0);
    let output = work.running.output();
    assert!(output.contains("run.interval = 0.2") && output.contains("was 60"), "{output}");
    assert!(output.contains("this setting takes effect at the next start"), "{output}");
    work.stop();
}

#[test]
fn a_wrong_waldur_token_is_sent_once_and_a_new_one_is_used_without_a_restart() {
    let mut site = Site::without_relay();
    let file = site.directory.path().join("waldur-token");
    fs::write(&file, "0000000000000000000000000000000000000000").unwrap();
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN_FILE", &file.display().to_string());
    let made = site.order(SLURM, 0, 10);
    let work = Loop::start(&mut site, "0.2");
    wait_until("three passes", || work.passes() >= 3.0);
    assert_eq!(site.calls().len(), 1, "{:?}", site.calls());
    wait_until("the reason is logged", || work.running.output().contains("check waldur.api_token"));

    fs::write(&file, WALDUR_TOKEN).unwrap();
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    work.stop();
}
