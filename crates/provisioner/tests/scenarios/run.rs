//! `run`: passes, signals, metrics and readiness.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use simulator::Fault;
use simulator::world::OrderState;

use crate::support::{Running, SLURM, Site, wait_until};

/// A running `run`, and the address that it listens on.
pub(crate) struct Loop {
    pub(crate) running: Running,
    socket: String,
}

impl Loop {
    pub(crate) fn start(site: &mut Site, interval: &str) -> Self {
        Self::start_with(site, Some(interval))
    }

    /// Without an interval, the setting is not changed.
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
        wait_until("it listens", || std::net::TcpStream::connect(&this.socket).is_ok());
        this
    }

    /// Sends a request. Returns status and body.
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

    /// The value of the line of `/metrics` that begins with `line`.
    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let (status, text) = self.ask("GET", "/metrics");
        assert_eq!(status, 200);
        text.lines().find_map(|it| it.strip_prefix(line)?.trim().parse().ok())
    }

    pub(crate) fn passes(&self) -> f64 {
        self.metric("hpc_storage_provisioner_passes_total{outcome=\"whole\"}").unwrap_or_default()
    }

    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.running.wait(Duration::from_secs(5)), Some(0), "{}", self.running.output());
    }
}

#[test]
fn a_pass_runs_every_interval_and_on_request() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "0.3");
    wait_until("three passes", || work.passes() >= 3.0);
    let made = site.order(SLURM, 0, 10);
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    work.stop();

    let work = Loop::start(&mut site, "3600");
    wait_until("the first pass", || work.ready());
    let made = site.order(SLURM, 1, 10);
    assert_eq!(work.ask("POST", "/nudge").0, 202);
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    let made = site.order(SLURM, 2, 10);
    work.signal(Signal::USR1);
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    assert_eq!(work.ask("GET", "/nudge").0, 405);
    assert_eq!(work.ask("GET", "/").0, 404);
    assert_eq!(work.ask("GET", "/health/live").0, 200);
    let begun = Instant::now();
    work.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_pass_runs_as_soon_as_the_document_changes() {
    let mut site = Site::new();
    site.stop_proxy();
    site.refreshes = true;
    site.start_proxy();
    let work = Loop::start(&mut site, "3600");
    wait_until("the first pass", || work.ready());
    for number in 0..3 {
        let made = site.order(SLURM, number, 10);
        wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    }
    // After the last order the document changes once more or twice; then there is nothing to do.
    let passes = work.passes();
    std::thread::sleep(Duration::from_secs(5));
    assert!(work.passes() <= passes + 2.0, "{} passes, then {}", passes, work.passes());
    // An outage of the proxy ends the wait; the next pass starts it again.
    site.stop_proxy();
    site.start_proxy();
    work.signal(Signal::USR1);
    wait_until("a pass after the outage", || work.passes() > passes);
    let made = site.order(SLURM, 3, 10);
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    work.stop();
}

#[test]
fn every_documented_metric_is_served() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    let work = Loop::start(&mut site, "3600");
    wait_until("the first pass", || work.ready());
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
fn an_outage_of_waldur_or_the_proxy_pauses_work() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "0.3");
    wait_until("a pass", || work.ready());
    let calls = site.calls().len();
    site.simulator.set_fault("GET /api/*", Fault::status(503));
    wait_until("it is not ready", || !work.ready());
    let made = site.order(SLURM, 0, 10);
    wait_until("it is logged", || {
        work.running.output().contains("no pass: the document cannot be read; nothing was touched")
    });
    site.simulator.clear_faults();
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    wait_until("it is ready again", || work.ready());
    assert!(site.calls().len() > calls);

    site.stop_proxy();
    wait_until("it is not ready", || !work.ready());
    let made = site.order(SLURM, 1, 10);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    site.start_proxy();
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    wait_until("it is ready again", || work.ready());
    work.stop();
}

#[test]
fn a_signal_stops_a_pass_before_its_next_side_effect() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::delay(Duration::from_secs(1)));
    let work = Loop::start(&mut site, "3600");
    wait_until("it has begun", || !site.calls().is_empty());
    work.stop();
    assert_eq!(site.states(made).0, OrderState::Executing);
    assert!(crate::support::names(&site.root(SLURM)).is_empty());
    site.apply().stdout_has("1 done");
}

#[test]
fn a_signal_while_the_document_is_read_is_not_a_failure() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.simulator.set_fault("GET /api/*", Fault::delay(Duration::from_secs(1)));
    let mut work = Loop::start(&mut site, "3600");
    let reads = |request: &simulator::Received| request.path.starts_with("/api/marketplace-provider-resources");
    wait_until("it reads", || site.simulator.requests().iter().any(reads));
    work.signal(Signal::TERM);
    assert_eq!(work.running.wait(Duration::from_secs(15)), Some(0), "{}", work.running.output());
    let output = work.running.output();
    assert!(output.contains("the pass was stopped by a signal") && !output.contains("ERROR"), "{output}");
}

#[test]
fn commands_work_between_two_passes() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "3600");
    wait_until("the first pass", || work.ready());
    let made = site.order(SLURM, 0, 10);
    site.apply().stdout_has("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
    let other = site.run(&["run"]).exits_with(1);
    assert!(other.err.contains("run.listen") && other.err.contains("in use"), "{}", other.err);
    work.stop();
}

#[test]
fn completed_work_is_logged_and_held_work_is_logged_once() {
    let mut site = Site::new();
    let work = Loop::start(&mut site, "0.2");
    let made = site.order(SLURM, 0, 10);
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    let done = "Create order pending-provider: approve, ensure, set_backend_id, done";
    wait_until("it is logged", || work.running.output().contains(done));
    assert!(work.running.output().contains("/capstor/store/cscs/uni/p0"), "{}", work.running.output());
    std::fs::rename(site.root(SLURM), site.directory.path().join("away")).unwrap();
    wait_until("it is logged", || work.running.output().contains("the storage cannot be read"));
    let passes = work.passes();
    wait_until("more passes", || work.passes() >= passes + 2.0);
    assert_eq!(work.running.output().matches("the storage cannot be read").count(), 1, "{}", work.running.output());
    std::fs::rename(site.directory.path().join("away"), site.root(SLURM)).unwrap();
    wait_until("it is logged", || work.running.output().contains("nothing is held any more"));
    work.stop();
}

#[test]
fn refused_calls_are_counted_and_retried_after_a_pause() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| {
        let project = world.resources[&made.resource].project;
        let customer = world.projects[&project].customer;
        world.customers.get_mut(&customer).unwrap().blocked = true;
    });
    let work = Loop::start(&mut site, "0.1");
    let refused = r#"hpc_storage_provisioner_refused_by_waldur{system="capstor",reason="blocked_organization"}"#;
    wait_until("it is counted", || work.metric(refused).is_some_and(|count| count > 0.0));
    let held = r#"hpc_storage_provisioner_held{system="capstor",hold="declined"}"#;
    wait_until("it is held", || work.metric(held).is_some_and(|count| count > 0.0));
    let passes = work.passes();
    wait_until("more passes", || work.passes() > passes);
    let (calls, log) = (site.calls(), work.running.output());
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(log.contains("Waldur refuses approve_by_provider: Blocked organization is not available."), "{log}");
    assert!(!work.ask("GET", "/metrics").1.contains("Blocked organization"), "a reason is not a label");
}
