//! Mutual exclusion of provisioners, by a lock in the state directory or by leases on a server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use simulator::world::OrderState;

use crate::api_server::{ApiServer, Fault, NAMESPACE};
use crate::support::{BASIC, SLURM, Site, wait_until};

/// Another place of the leases than the state directory.
trait Place {
    /// The settings of the provisioner.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// The holder of the lease of `capstor`; empty if nobody has it.
    fn holder(&self) -> String;

    /// Gives the lease to another holder; empty: to nobody.
    fn give(&self, holder: &str);

    fn token(&self) -> u64;

    /// What the log says when the server is gone.
    fn unreachable(&self) -> &'static str;
}

/// A Valkey or Redis server. Dropping it kills it.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// `None` if neither is installed. In CI, that is a failure.
    #[expect(clippy::print_stderr, reason = "skipped tests are reported")]
    fn start() -> Option<Self> {
        let installed = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        let Some(program) = ["valkey-server", "redis-server"].into_iter().find(installed) else {
            assert!(std::env::var_os("CI").is_none(), "neither valkey-server nor redis-server is installed");
            eprintln!("SKIPPED: valkey-server or redis-server is not installed");
            return None;
        };
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--requirepass", "pa55"]);
        let child = command.args(["--save", "", "--appendonly", "no"]).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { child, address };
        wait_until("the server listens", || TcpStream::connect(address).is_ok());
        Some(server)
    }

    fn url(&self) -> String {
        format!("redis://:pa55@{}/0", self.address)
    }

    fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).unwrap()
    }
}

const KEY: &str = "hpc-storage-provisioner:lease:capstor";
const OBJECT: &str = "hpc-storage-provisioner-capstor";

impl Place for Server {
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("PROVISIONER_LEASE_URL", self.url())]
    }

    fn holder(&self) -> String {
        self.ask::<Option<String>>(&["GET", KEY]).unwrap_or_default()
    }

    fn give(&self, holder: &str) {
        if holder.is_empty() {
            let _: i64 = self.ask(&["DEL", KEY]);
        } else {
            let _: String = self.ask(&["SET", KEY, holder]);
        }
    }

    fn token(&self) -> u64 {
        self.ask(&["GET", &format!("{KEY}:token")])
    }

    fn unreachable(&self) -> &'static str {
        "the server for leases (lease.url) cannot be reached"
    }
}

impl Place for ApiServer {
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PROVISIONER_LEASE_KUBERNETES_NAMESPACE", NAMESPACE.to_owned()),
            ("PROVISIONER_LEASE_KUBERNETES_CREDENTIALS", self.account("provisioner").display().to_string()),
            ("KUBERNETES_SERVICE_HOST", self.address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.address.port().to_string()),
        ]
    }

    fn holder(&self) -> String {
        self.lease(OBJECT)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    fn give(&self, holder: &str) {
        self.edit(OBJECT, |lease| lease["spec"]["holderIdentity"] = holder.into());
    }

    fn token(&self) -> u64 {
        self.lease(OBJECT)["spec"]["leaseTransitions"].as_u64().unwrap()
    }

    fn unreachable(&self) -> &'static str {
        "the Kubernetes API server"
    }
}

fn site_with(place: &dyn Place) -> Site {
    let mut site = Site::with(&[("PROVISIONER_TIMEOUT", "120"), ("PROVISIONER_RUN_INTERVAL", "3600")]);
    for (key, value) in place.settings() {
        site.set(key, &value);
    }
    site
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of calls of this kind.
fn calls(site: &Site, what: &str) -> usize {
    site.calls().iter().filter(|path| path.ends_with(what)).count()
}

/// `elsewhere`: the second one has a state directory of its own.
fn second_is_refused(site: &mut Site, elsewhere: bool, why: &str) {
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", simulator::Fault::Silence);
    let mut first = site.spawn(&["apply"]);
    wait_until("the first has begun", || calls(site, "approve_by_provider/") == 1);
    let state = site.state("");
    if elsewhere {
        site.set("PROVISIONER_STATE_DIRECTORY", &site.directory.path().join("other").display().to_string());
    }
    let output = site.run(&["apply"]).exits_with(4).stderr_has(why);
    site.set("PROVISIONER_STATE_DIRECTORY", &state.display().to_string());
    assert!(output.out.is_empty(), "{}", output.out);
    // Read-only commands need no lease.
    site.run(&["plan"]).exits_with(0);
    assert_eq!(calls(site, "approve_by_provider/"), 1);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    site.simulator.clear_faults();
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}

#[test]
fn of_two_processes_the_second_is_refused() {
    let mut site = Site::new();
    site.set("PROVISIONER_TIMEOUT", "120");
    second_is_refused(&mut site, false, "another provisioner uses the state directory");
    site.apply().stdout_has("1 done");
}

#[test]
fn two_processes_for_different_systems_need_separate_state_directories() {
    let site = Site::with(&[("PROVISIONER_TIMEOUT", "120")]);
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 1, 10)];
    site.simulator.set_fault("POST /api/*approve_by_provider/", simulator::Fault::Silence);
    let mut first = site.spawn(&["apply", "--system", SLURM]);
    wait_until("the first has begun", || calls(&site, "approve_by_provider/") == 1);
    site.run(&["apply", "--system", BASIC]).exits_with(4).stderr_has("each need their own `state_directory`");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    site.simulator.clear_faults();
    site.run(&["apply", "--system", "Tape"]).exits_with(0).stdout_has("1 done");
    assert_eq!(made.map(|made| site.states(made).0), [OrderState::PendingProvider, OrderState::Done]);
    site.run(&["plan", "--system", "scratch"]).exits_with(2).stderr_has("no such system; they have capstor, tape");
}

fn of_two_hosts_the_second_is_refused(place: &dyn Place) {
    let mut site = site_with(place);
    second_is_refused(&mut site, true, "holds the lease of");
    assert!(!place.holder().is_empty(), "a killed process does not return its lease");
    let first = place.token();
    // The command waits until the lease has expired.
    site.apply().stdout_has("1 done");
    let second = place.token();
    assert!(second > first, "the token increases: {first}, {second}");
    assert_eq!(place.holder(), "", "the lease is returned at the end");
    site.run(&["check"]).exits_with(0).stdout_has("leases: ");
    place.give("another");
    site.run(&["plan"]).exits_with(0);
    place.give("");
}

#[test]
fn of_two_hosts_with_redis_the_second_is_refused() {
    let Some(server) = Server::start() else { return };
    of_two_hosts_the_second_is_refused(&server);
    let mut site = site_with(&server);
    site.set("PROVISIONER_TIMEOUT", "5");
    let text = server.unreachable();
    drop(server);
    site.run(&["apply"]).exits_with(1).stderr_has(text);
    site.run(&["check"]).exits_with(1).stdout_has(text);
}

#[test]
fn of_two_pods_the_second_is_refused() {
    let server = ApiServer::start();
    of_two_hosts_the_second_is_refused(&server);
    let site = site_with(&server);
    server.forget("provisioner");
    site.run(&["apply"]).exits_with(1).stderr_has("refuses the token");
    site.run(&["check"]).exits_with(1).stdout_has("refuses the token");
    server.hook(|_, _, _| Some(Fault::Reset));
    site.run(&["apply"]).exits_with(1).stderr_has(server.unreachable());
}

fn a_lost_lease_stops_the_pass_before_the_next_side_effect(place: &dyn Place) {
    let site = site_with(place);
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", simulator::Fault::delay(Duration::from_secs(2)));
    let mut apply = site.spawn(&["apply"]);
    wait_until("it has begun", || calls(&site, "approve_by_provider/") == 1);
    // Another process takes the lease.
    place.give("another");
    assert_eq!(apply.wait(Duration::from_secs(20)), Some(1), "{}", apply.output());
    assert!(apply.output().contains("the lease of capstor is lost"), "{}", apply.output());
    assert_eq!(site.states(made).0, OrderState::Executing);
    assert!(crate::support::names(&site.root(SLURM)).is_empty(), "nothing was made afterwards");
    assert_eq!(calls(&site, "set_state_done/"), 0);
    assert_eq!(place.holder(), "another", "the lease of another process is not returned");
    place.give("");
    site.simulator.clear_faults();
    site.apply();
    assert_eq!(site.states(made).0, OrderState::Done);
}

#[test]
fn a_lease_that_is_lost_on_redis_stops_the_pass() {
    let Some(server) = Server::start() else { return };
    a_lost_lease_stops_the_pass_before_the_next_side_effect(&server);
}

#[test]
fn a_lease_that_is_lost_on_kubernetes_stops_the_pass() {
    a_lost_lease_stops_the_pass_before_the_next_side_effect(&ApiServer::start());
}

/// The second `run` takes over long before its next pass is due.
fn a_killed_run_is_replaced(place: &dyn Place) {
    let mut site = site_with(place);
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", simulator::Fault::Silence);
    let mut first = site.spawn(&["run"]);
    wait_until("the first has begun", || calls(&site, "approve_by_provider/") == 1);
    site.set("PROVISIONER_STATE_DIRECTORY", &site.directory.path().join("other").display().to_string());
    let second = site.spawn(&["run"]);
    wait_until("the second is kept away", || second.output().contains("holds the lease of"));
    let (token, holder) = (place.token(), place.holder());
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    site.simulator.clear_faults();
    wait_until("the second has the lease", || place.holder() != holder);
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
    wait_until("the lease is returned", || place.holder().is_empty());
    assert_eq!(place.token(), token + 1);
    assert_eq!(second.output().matches("no pass:").count(), 1, "{}", second.output());
}

#[test]
fn a_killed_run_with_redis_is_replaced() {
    let Some(server) = Server::start() else { return };
    a_killed_run_is_replaced(&server);
}

#[test]
fn a_killed_run_in_kubernetes_is_replaced() {
    a_killed_run_is_replaced(&ApiServer::start());
}

/// While the server does not answer, there is no pass; afterwards there is one soon.
#[test]
fn a_pass_follows_soon_after_an_outage_of_the_api_server() {
    let server = ApiServer::start();
    let site = site_with(&server);
    server.hook(|_, _, _| Some(Fault::Reply(503, "", String::new())));
    let made = site.order(SLURM, 0, 10);
    let run = site.spawn(&["run"]);
    wait_until("it is logged", || run.output().contains("no pass: the Kubernetes API server"));
    assert_eq!(calls(&site, "approve_by_provider/"), 0);
    server.clear_hook();
    wait_until("the order is done", || site.states(made).0 == OrderState::Done);
}
