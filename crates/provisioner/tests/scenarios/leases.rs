//! One provisioner at a time, by a lock in the state directory or by leases on a server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use simulator::Fault;
use simulator::world::OrderState;

use crate::support::{BASIC, SLURM, Site, until};

/// A Valkey or Redis server. Dropping it kills it.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// `None`, said aloud, where neither is installed; in continuous integration one must be.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
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
        until("the server listens", || TcpStream::connect(address).is_ok());
        Some(server)
    }

    fn url(&self) -> String {
        format!("redis://:pa55@{}/0", self.address)
    }

    /// What the server answers to a command.
    fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often an order has been asked to be approved.
fn asked(site: &Site, what: &str) -> usize {
    site.calls().iter().filter(|path| path.ends_with(what)).count()
}

/// `elsewhere`: the second one has a state directory of its own.
fn second_is_kept_away(site: &mut Site, elsewhere: bool, why: &str) {
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::Silence);
    let mut first = site.spawn(&["apply"]);
    until("the first is at work", || asked(site, "approve_by_provider/") == 1);
    let state = site.state("");
    if elsewhere {
        site.set("PROVISIONER_STATE_DIRECTORY", &site.directory.path().join("other").display().to_string());
    }
    let said = site.run(&["apply"]).ends_with(4).told(why);
    site.set("PROVISIONER_STATE_DIRECTORY", &state.display().to_string());
    assert!(said.out.is_empty(), "{}", said.out);
    // Looking needs no lease.
    site.run(&["plan"]).ends_with(0);
    assert_eq!(asked(site, "approve_by_provider/"), 1);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    site.simulator.clear_faults();
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}

#[test]
fn of_two_at_once_the_second_is_kept_away() {
    let mut site = Site::new();
    site.set("PROVISIONER_TIMEOUT", "120");
    second_is_kept_away(&mut site, false, "another provisioner uses the state directory");
    site.apply().says("1 done");
}

#[test]
fn of_two_for_different_systems_the_second_is_kept_away_from_the_first_ones_journal() {
    let site = Site::with(&[("PROVISIONER_TIMEOUT", "120")]);
    let made = [site.order(SLURM, 0, 10), site.order(BASIC, 1, 10)];
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::Silence);
    let mut first = site.spawn(&["apply", "--system", SLURM]);
    until("the first is at work", || asked(&site, "approve_by_provider/") == 1);
    site.run(&["apply", "--system", BASIC]).ends_with(4).told("each need their own `state_directory`");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    site.simulator.clear_faults();
    site.run(&["apply", "--system", "Tape"]).ends_with(0).says("1 done");
    assert_eq!(made.map(|made| site.states(made).0), [OrderState::PendingProvider, OrderState::Done]);
    site.run(&["plan", "--system", "scratch"]).ends_with(2).told("no such system, but capstor, tape");
}

#[test]
fn of_two_hosts_at_once_the_second_is_kept_away() {
    let Some(server) = Server::start() else { return };
    let mut site = Site::with(&[("PROVISIONER_LEASE_URL", &server.url()), ("PROVISIONER_TIMEOUT", "120")]);
    second_is_kept_away(&mut site, true, "is driven by another provisioner");
    // What was killed gave nothing back; its lease ends by itself.
    let left: i64 = server.ask(&["PTTL", "hpc-storage-provisioner:lease:capstor"]);
    assert!((1..=60_000).contains(&left), "{left}");
    for system in ["capstor", "tape"] {
        let _: i64 = server.ask(&["DEL", &format!("hpc-storage-provisioner:lease:{system}")]);
    }
    let first: u64 = server.ask(&["GET", "hpc-storage-provisioner:lease:capstor:token"]);
    site.apply().says("1 done");
    let second: u64 = server.ask(&["GET", "hpc-storage-provisioner:lease:capstor:token"]);
    assert!(second > first, "the token grows: {first}, {second}");
    let free: bool = server.ask(&["EXISTS", "hpc-storage-provisioner:lease:capstor"]);
    assert!(!free, "a lease is given back at the end");

    drop(server);
    site.set("PROVISIONER_TIMEOUT", "5");
    site.run(&["apply"]).ends_with(1).told("the server for leases (lease.url) cannot be reached");
}

#[test]
fn a_lease_that_is_lost_stops_before_the_next_effect() {
    let Some(server) = Server::start() else { return };
    let site = Site::with(&[("PROVISIONER_LEASE_URL", &server.url())]);
    let made = site.order(SLURM, 0, 10);
    site.simulator.set_fault("POST /api/*approve_by_provider/", Fault::delay(Duration::from_secs(2)));
    let mut apply = site.spawn(&["apply"]);
    until("it is at work", || asked(&site, "approve_by_provider/") == 1);
    // Another one has it now.
    let _: String = server.ask(&["SET", "hpc-storage-provisioner:lease:capstor", "another"]);
    assert_eq!(apply.ends(Duration::from_secs(20)), Some(1), "{}", apply.said());
    assert!(apply.said().contains("the lease of capstor is lost"), "{}", apply.said());
    assert_eq!(site.states(made).0, OrderState::Executing);
    assert!(crate::support::names(&site.root(SLURM)).is_empty(), "nothing was made after that");
    assert_eq!(asked(&site, "set_state_done/"), 0);
    let owner: String = server.ask(&["GET", "hpc-storage-provisioner:lease:capstor"]);
    assert_eq!(owner, "another", "what is another's is not given back");
    let _: i64 = server.ask(&["DEL", "hpc-storage-provisioner:lease:capstor"]);
    site.simulator.clear_faults();
    site.apply();
    assert_eq!(site.states(made).0, OrderState::Done);
}
