//! `run`: pass after pass, and what it shows of itself.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use simulator::Fault;
use simulator::world::OrderState;

use crate::support::{Running, SLURM, Site, until};

/// A loop, and where it listens.
pub(crate) struct Loop {
    pub(crate) running: Running,
    socket: String,
}

impl Loop {
    pub(crate) fn start(site: &mut Site, interval: &str) -> Self {
        Self::start_with(site, Some(interval))
    }

    /// Without an interval the setting is what other sources say.
    pub(crate) fn start_with(site: &mut Site, interval: Option<&str>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = listener.local_addr().unwrap().to_string();
        drop(listener);
        site.set("PROVISIONER_LISTEN", &socket);
        if let Some(interval) = interval {
            site.set("PROVISIONER_RUN_INTERVAL", interval);
        }
        let running = site.spawn(&["run"]);
        let this = Self { running, socket };
        until("it listens", || std::net::TcpStream::connect(&this.socket).is_ok());
        this
    }

    /// Status and body.
    pub(crate) fn ask(&self, method: &str, path: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.socket).unwrap();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn ready(&self) -> bool {
        self.ask("GET", "/health/ready").0 == 200
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.running.child), signal).unwrap();
    }

    /// The value of a metric's line that begins so; none where there is no such line.
    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let (status, text) = self.ask("GET", "/metrics");
        assert_eq!(status, 200);
        text.lines().find_map(|said| said.strip_prefix(line)?.trim().parse().ok())
    }

    pub(crate) fn passes(&self) -> f64 {
        self.metric("hpc_storage_provisioner_passes_total{outcome=\"whole\"}").unwrap_or_default()
    }

    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.running.ends(Duration::from_secs(5)), Some(0), "{}", self.running.said());
    }
}

#[test]
fn a_pass_comes_each_interval_and_at_once_when_nudged() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "0.3");
    until("three passes", || work.passes() >= 3.0);
    let made = site.order(SLURM, 0, 10);
    until("the order is done", || site.states(made).0 == OrderState::Done);
    work.stop();

    let work = Loop::start(&mut site, "3600");
    until("the first pass", || work.ready());
    let made = site.order(SLURM, 1, 10);
    assert_eq!(work.ask("POST", "/nudge").0, 202);
    until("the order is done", || site.states(made).0 == OrderState::Done);
    let made = site.order(SLURM, 2, 10);
    work.signal(Signal::USR1);
    until("the order is done", || site.states(made).0 == OrderState::Done);
    assert_eq!(work.ask("GET", "/nudge").0, 405);
    assert_eq!(work.ask("GET", "/").0, 404);
    assert_eq!(work.ask("GET", "/health/live").0, 200);
    let begun = Instant::now();
    work.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn every_metric_of_the_documents_is_there() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    let work = Loop::start(&mut site, "3600");
    until("the first pass", || work.ready());
    let (_, text) = work.ask("GET", "/metrics");
    for (name, ..) in provisioner::metrics::METRICS {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing:\n{text}");
    }
    assert_eq!(work.metric("hpc_storage_provisioner_resources{system=\"capstor\"}"), Some(1.0));
    assert_eq!(work.metric("hpc_storage_provisioner_tasks_total{outcome=\"ended\"}"), Some(1.0));
    assert_eq!(work.metric("hpc_storage_provisioner_steps_total{step=\"ensure\"}"), Some(1.0));
    let done = "hpc_storage_provisioner_callbacks_total{action=\"set_state_done\",outcome=\"accepted\"}";
    assert_eq!(work.metric(done), Some(1.0), "{text}");
    assert_eq!(work.metric("hpc_storage_provisioner_pending{age=\"5m\"}"), Some(0.0), "{text}");
    assert_eq!(work.metric("hpc_storage_provisioner_held{system=\"capstor\",hold=\"refused\"}"), Some(0.0), "{text}");
    let ready: Value = serde_json::from_str(&work.ask("GET", "/health/ready").1).unwrap();
    assert_eq!(ready["pending"], 0);
    work.stop();
}

#[test]
fn without_waldur_or_the_proxy_nothing_is_touched_and_it_goes_on_when_they_are_back() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "0.3");
    until("a pass", || work.ready());
    let calls = site.calls().len();
    site.simulator.set_fault("GET /api/*", Fault::status(503));
    until("it is not ready", || !work.ready());
    let made = site.order(SLURM, 0, 10);
    until("it is told", || work.running.said().contains("no pass: the document cannot be read; nothing was touched"));
    site.simulator.clear_faults();
    until("the order is done", || site.states(made).0 == OrderState::Done);
    until("it is ready again", || work.ready());
    assert!(site.calls().len() > calls);

    site.stop_proxy();
    until("it is not ready", || !work.ready());
    let made = site.order(SLURM, 1, 10);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    site.start_proxy();
    until("the order is done", || site.states(made).0 == OrderState::Done);
    until("it is ready again", || work.ready());
    work.stop();
}

#[test]
fn a_signal_stops_a_pass_before_its_next_effect() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::delay(Duration::from_secs(1)));
    let work = Loop::start(&mut site, "3600");
    until("it is at work", || !site.calls().is_empty());
    work.stop();
    assert_eq!(site.states(made).0, OrderState::Executing);
    assert!(crate::support::names(&site.root(SLURM)).is_empty());
    site.apply().says("1 done");
}

#[test]
fn a_signal_while_the_document_is_read_is_no_failure() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.simulator.set_fault("GET /api/*", Fault::delay(Duration::from_secs(1)));
    let mut work = Loop::start(&mut site, "3600");
    let reads = |request: &simulator::Received| request.path.starts_with("/api/marketplace-provider-resources");
    until("it reads", || site.simulator.requests().iter().any(reads));
    work.signal(Signal::TERM);
    assert_eq!(work.running.ends(Duration::from_secs(15)), Some(0), "{}", work.running.said());
    let said = work.running.said();
    assert!(said.contains("the pass was stopped by a signal") && !said.contains("ERROR"), "{said}");
}

#[test]
fn a_person_works_between_two_passes() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "3600");
    until("the first pass", || work.ready());
    let made = site.order(SLURM, 0, 10);
    site.apply().says("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
    let other = site.run(&["run"]).ends_with(1);
    assert!(other.err.contains("run.listen") && other.err.contains("in use"), "{}", other.err);
    work.stop();
}

#[test]
fn the_log_tells_what_was_done_and_once_what_cannot_be() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "0.2");
    let made = site.order(SLURM, 0, 10);
    until("the order is done", || site.states(made).0 == OrderState::Done);
    let done = "Create order pending-provider: approve, ensure, set_backend_id, done";
    until("it is told", || work.running.said().contains(done));
    assert!(work.running.said().contains("/capstor/store/cscs/uni/p0"), "{}", work.running.said());
    std::fs::rename(site.root(SLURM), site.directory.path().join("away")).unwrap();
    until("it is told", || work.running.said().contains("the storage cannot be read"));
    let passes = work.passes();
    until("more passes", || work.passes() >= passes + 2.0);
    assert_eq!(work.running.said().matches("the storage cannot be read").count(), 1, "{}", work.running.said());
    std::fs::rename(site.directory.path().join("away"), site.root(SLURM)).unwrap();
    until("it is told", || work.running.said().contains("nothing is held any more"));
    work.stop();
}

#[test]
fn the_loop_waits_before_it_tries_again_what_waldur_refuses_and_counts_it() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| {
        let project = world.resources[&made.resource].project;
        let customer = world.projects[&project].customer;
        world.customers.get_mut(&customer).unwrap().blocked = true;
    });
    let work = Loop::start(&mut site, "0.1");
    let refused = r#"hpc_storage_provisioner_refused_by_waldur{system="capstor",reason="blocked_organization"}"#;
    until("it is counted", || work.metric(refused).is_some_and(|count| count > 0.0));
    let held = r#"hpc_storage_provisioner_held{system="capstor",hold="declined"}"#;
    until("it is held", || work.metric(held).is_some_and(|count| count > 0.0));
    let passes = work.passes();
    until("more passes", || work.passes() > passes);
    let (calls, said) = (site.calls(), work.running.said());
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(said.contains("Waldur refuses approve_by_provider: Blocked organization is not available."), "{said}");
    assert!(!work.ask("GET", "/metrics").1.contains("Blocked organization"), "a text is no label");
}
