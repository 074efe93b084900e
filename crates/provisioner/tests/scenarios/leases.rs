//! Mutual exclusion of provisioners, by a lock in the state directory or by leases on a server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use simulator::Fault;
use simulator::world::OrderState;

use crate::support::{BASIC, SLURM, Site, wait_until};

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
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::Silence);
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
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::Silence);
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

#[test]
fn of_two_hosts_the_second_is_refused() {
    let Some(server) = Server::start() else { return };
    let mut site = Site::with(&[("PROVISIONER_LEASE_URL", &server.url()), ("PROVISIONER_TIMEOUT", "120")]);
    second_is_refused(&mut site, true, "is driven by another provisioner");
    // A killed process does not return its lease; the lease expires.
    let left: i64 = server.ask(&["PTTL", "hpc-storage-provisioner:lease:capstor"]);
    assert!((1..=60_000).contains(&left), "{left}");
    for system in ["capstor", "tape"] {
        let _: i64 = server.ask(&["DEL", &format!("hpc-storage-provisioner:lease:{system}")]);
    }
    let first: u64 = server.ask(&["GET", "hpc-storage-provisioner:lease:capstor:token"]);
    site.apply().stdout_has("1 done");
    let second: u64 = server.ask(&["GET", "hpc-storage-provisioner:lease:capstor:token"]);
    assert!(second > first, "the token increases: {first}, {second}");
    let free: bool = server.ask(&["EXISTS", "hpc-storage-provisioner:lease:capstor"]);
    assert!(!free, "the lease is returned at the end");

    drop(server);
    site.set("PROVISIONER_TIMEOUT", "5");
    site.run(&["apply"]).exits_with(1).stderr_has("the server for leases (lease.url) cannot be reached");
}

#[test]
fn a_lost_lease_stops_the_pass_before_the_next_side_effect() {
    let Some(server) = Server::start() else { return };
    let site = Site::with(&[("PROVISIONER_LEASE_URL", &server.url())]);
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::delay(Duration::from_secs(2)));
    let mut apply = site.spawn(&["apply"]);
    wait_until("it has begun", || calls(&site, "approve_by_provider/") == 1);
    // Another process takes the lease.
    let _: String = server.ask(&["SET", "hpc-storage-provisioner:lease:capstor", "another"]);
    assert_eq!(apply.wait(Duration::from_secs(20)), Some(1), "{}", apply.output());
    assert!(apply.output().contains("the lease of capstor is lost"), "{}", apply.output());
    assert_eq!(site.states(made).0, OrderState::Executing);
    assert!(crate::support::names(&site.root(SLURM)).is_empty(), "nothing was made afterwards");
    assert_eq!(calls(&site, "set_state_done/"), 0);
    let owner: String = server.ask(&["GET", "hpc-storage-provisioner:lease:capstor"]);
    assert_eq!(owner, "another", "the lease of another process is not returned");
    let _: i64 = server.ask(&["DEL", "hpc-storage-provisioner:lease:capstor"]);
    site.simulator.clear_faults();
    site.apply();
    assert_eq!(site.states(made).0, OrderState::Done);
}
