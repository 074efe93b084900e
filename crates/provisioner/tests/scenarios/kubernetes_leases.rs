//! Leases on a Kubernetes API server: who has one, with clocks that the tests set.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use program::{Clock, error_chain, lock};
use provisioner::config::{KubernetesSettings, LeaseSettings};
use provisioner::lease::{LeaseError, LeaseStore, Leases};
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Fault, NAMESPACE};

const SYSTEM: &str = "capstor";
const OBJECT: &str = "hpc-storage-provisioner-capstor";

/// A provisioner's view of the server. Each has clocks of its own, which go at the same speed.
struct Host {
    name: String,
    store: LeaseStore,
    credentials: PathBuf,
}

/// The time that passes everywhere, in milliseconds.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn pass(&self, seconds: f64) {
        let millis = Duration::from_secs_f64(seconds).as_millis().try_into().unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Host {
    fn new(server: &ApiServer, time: &Time, name: &str) -> Self {
        Self::with_wall(server, time, name, || SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_886_625))
    }

    fn with_wall(
        server: &ApiServer,
        time: &Time,
        name: &str,
        wall: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let credentials = server.account(name);
        let settings = KubernetesSettings {
            api: format!("https://{}/", server.address).parse().unwrap(),
            namespace: NAMESPACE.into(),
            credentials: credentials.clone(),
        };
        // Each machine started at another time.
        let (time, booted) = (time.clone(), Duration::from_secs(1000 * name.len() as u64));
        let clock = Clock::from_fn(wall).with_uptime(move || booted + time.now());
        let store = LeaseStore::new(&LeaseSettings::Kubernetes(settings), &clock);
        Self { name: name.to_owned(), store, credentials }
    }

    fn take(&self) -> Result<Leases, LeaseError> {
        self.take_all(&[SYSTEM])
    }

    fn take_all(&self, systems: &[&str]) -> Result<Leases, LeaseError> {
        let systems: Vec<_> = systems.iter().map(|system| (*system).to_owned()).collect();
        self.store.take(&systems, &PathBuf::new())
    }

    fn is_kept_away(&self) -> bool {
        match self.take() {
            Ok(_) => false,
            Err(LeaseError::Held { .. }) => true,
            Err(error) => panic!("{}", error_chain(&error)),
        }
    }

    /// As if the process were killed: nothing reaches the server, and nothing is released.
    fn kill(&self, server: &ApiServer, leases: Leases) {
        server.forget(&self.name);
        std::mem::forget(leases);
    }
}

fn token(leases: &Leases) -> u64 {
    leases.tokens[SYSTEM]
}

fn holder(server: &ApiServer) -> String {
    server.lease(OBJECT)["spec"]["holderIdentity"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn a_released_lease_is_free_at_once_and_keeps_what_others_wrote() {
    let (server, time) = (ApiServer::start(), Time::default());
    let [one, other] = ["one", "other"].map(|name| Host::new(&server, &time, name));
    let first = one.take().unwrap();
    let lease = server.lease(OBJECT);
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 10);
    assert_eq!(lease["spec"]["renewTime"], "2026-11-28T17:23:45.000000Z");
    let error = other.take().unwrap_err();
    assert!(error.to_string().contains(&holder(&server)), "it names the holder: {error}");
    server.edit(OBJECT, |lease| {
        lease["metadata"]["labels"] = json!({"team": "storage"});
        lease["metadata"]["annotations"] = json!({"note": "a"});
        lease["spec"]["strategy"] = json!("OldestEmulationVersion");
        lease["spec"]["preferredHolder"] = json!("somebody");
        lease["spec"]["futureField"] = json!({"a": [1]});
    });
    time.pass(1.0);
    first.hold(SYSTEM).unwrap();
    drop(first);
    assert_eq!(holder(&server), "");
    let second = other.take().unwrap();
    assert_eq!(token(&second), 2);
    let lease = server.lease(OBJECT);
    assert_eq!(lease["metadata"]["labels"], json!({"team": "storage"}));
    assert_eq!(lease["metadata"]["annotations"], json!({"note": "a"}));
    assert_eq!(lease["metadata"]["uid"], "uid-1");
    for (key, value) in [
        ("strategy", json!("OldestEmulationVersion")),
        ("preferredHolder", json!("somebody")),
        ("futureField", json!({"a": [1]})),
    ] {
        assert_eq!(lease["spec"][key], value, "{key}");
    }
    drop(second);
    let names = [(), ()].map(|()| {
        let leases = one.take().unwrap();
        (holder(&server), token(&leases))
    });
    assert!(names[0].0 != names[1].0 && names[0].1 < names[1].1, "a new holder each time: {names:?}");
}

#[test]
fn a_killed_holder_is_replaced_ten_seconds_after_its_last_sign_of_life() {
    let (server, time) = (ApiServer::start(), Time::default());
    let [one, other] = ["one", "other"].map(|name| Host::new(&server, &time, name));
    let first = one.take().unwrap();
    assert!(other.is_kept_away());
    time.pass(9.0);
    // Renewed just before the end.
    server.edit(OBJECT, |lease| lease["spec"]["renewTime"] = json!("2026-11-28T17:23:54.000000Z"));
    one.kill(&server, first);
    assert!(other.is_kept_away());
    time.pass(9.9);
    assert!(other.is_kept_away());
    // Seen for the first time.
    let late = Host::new(&server, &time, "late");
    assert!(late.is_kept_away());
    time.pass(0.1);
    assert!(late.is_kept_away());
    let second = other.take().unwrap();
    assert_eq!(token(&second), 2);
    assert!(late.is_kept_away());
}

#[test]
fn a_holder_that_cannot_reach_the_server_stops_before_another_one_begins() {
    let (server, time) = (ApiServer::start(), Time::default());
    let [one, other] = ["one", "other"].map(|name| Host::new(&server, &time, name));
    let first = one.take().unwrap();
    assert!(other.is_kept_away());
    server.hook(|_, _, token| (token == "one").then_some(Fault::Reset));
    time.pass(6.9);
    first.hold(SYSTEM).unwrap();
    time.pass(0.1);
    let error = first.hold(SYSTEM).unwrap_err().to_string();
    assert!(
        error.contains("the lease of capstor is lost: it could not be renewed: the Kubernetes API server"),
        "{error}"
    );
    assert!(other.is_kept_away(), "the margin is for a side effect that has just begun");
    time.pass(3.0);
    let second = other.take().unwrap();
    server.clear_hook();
    assert!(first.hold(SYSTEM).is_err(), "a lost lease stays lost");
    drop(first);
    time.pass(1.0);
    second.hold(SYSTEM).unwrap();
    assert_eq!(token(&second), 2);
}

#[test]
fn wrong_clocks_take_no_lease_from_anybody() {
    let (server, time) = (ApiServer::start(), Time::default());
    // A clock that stands still, and others that are decades off and jump.
    let one = Host::new(&server, &time, "one");
    let jumps = AtomicU64::new(0);
    let other = Host::with_wall(&server, &time, "other", move || {
        let jump = jumps.fetch_add(1, Ordering::SeqCst) % 2;
        SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000 * jump)
    });
    let first = one.take().unwrap();
    let mut times = vec![];
    for _ in 0..60 {
        time.pass(1.0);
        first.hold(SYSTEM).unwrap();
        times.push(server.lease(OBJECT)["spec"]["renewTime"].clone());
        assert!(other.is_kept_away());
    }
    assert!(times.windows(2).all(|pair| pair[0] != pair[1]), "each renewal is a change");
    drop(first);
    let second = other.take().unwrap();
    for _ in 0..30 {
        time.pass(1.0);
        second.hold(SYSTEM).unwrap();
        assert!(one.is_kept_away());
    }
    other.kill(&server, second);
    assert!(one.is_kept_away());
    time.pass(10.0);
    assert_eq!(token(&one.take().unwrap()), 3);
}

#[test]
fn a_lease_that_somebody_took_by_force_is_lost_within_a_second() {
    let (server, time) = (ApiServer::start(), Time::default());
    let [one, other] = ["one", "other"].map(|name| Host::new(&server, &time, name));
    for (by_force, waits) in [("an administrator", true), ("", false)] {
        let first = one.take().unwrap();
        server.edit(OBJECT, |lease| lease["spec"]["holderIdentity"] = by_force.into());
        time.pass(1.0);
        let error = first.hold(SYSTEM).unwrap_err().to_string();
        assert!(error.contains("lost: somebody else took or deleted it"), "{error}");
        let before = token(&first);
        drop(first);
        assert_eq!(holder(&server), by_force, "what is no longer ours is not released");
        if waits {
            assert!(other.is_kept_away());
            time.pass(10.0);
        }
        assert_eq!(token(&other.take().unwrap()), before + 1);
    }
    // The holder says how long its lease is valid.
    let first = one.take().unwrap();
    server.edit(OBJECT, |lease| lease["spec"]["leaseDurationSeconds"] = json!(15));
    one.kill(&server, first);
    assert!(other.is_kept_away());
    time.pass(14.9);
    assert!(other.is_kept_away());
    time.pass(0.1);
    other.take().unwrap();
}

#[test]
fn a_lease_that_somebody_shortened_is_taken_from_nobody() {
    let (server, time) = (ApiServer::start(), Time::default());
    let [one, other] = ["one", "other"].map(|name| Host::new(&server, &time, name));
    // Kubernetes refuses what is below 1.
    for seconds in [json!(1), json!(0), json!(-1), Value::Null] {
        let first = one.take().unwrap();
        server.edit(OBJECT, |lease| lease["spec"]["leaseDurationSeconds"] = seconds.clone());
        assert!(other.is_kept_away());
        // The holder cannot reach the server, and goes on.
        server.hook(|_, _, token| (token == "one").then_some(Fault::Reset));
        time.pass(6.9);
        first.hold(SYSTEM).unwrap();
        assert!(other.is_kept_away(), "{seconds}");
        server.clear_hook();
        first.hold(SYSTEM).unwrap();
        assert_eq!(server.lease(OBJECT)["spec"]["leaseDurationSeconds"], 10, "the next renewal corrects it");
    }
}

#[test]
fn tokens_grow_after_the_lease_was_deleted_or_its_count_lowered() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    for _ in 0..4 {
        one.take().unwrap();
    }
    let fifth = one.take().unwrap();
    server.delete(OBJECT);
    time.pass(1.0);
    assert!(fifth.hold(SYSTEM).is_err());
    drop(fifth);
    assert!(server.lease(OBJECT).is_null(), "a deleted lease is not made again to release it");
    assert_eq!(token(&one.take().unwrap()), 6);
    server.edit(OBJECT, |lease| lease["spec"]["leaseTransitions"] = json!(1));
    assert_eq!(token(&one.take().unwrap()), 7);
    let eighth = one.take().unwrap();
    server.edit(OBJECT, |lease| lease["spec"]["leaseTransitions"] = json!(1));
    time.pass(1.0);
    eighth.hold(SYSTEM).unwrap();
    drop(eighth);
    let other = Host::new(&server, &time, "other");
    assert_eq!(token(&other.take().unwrap()), 9, "also for a host that has not seen the right count");
    // The most that Kubernetes stores.
    server.edit(OBJECT, |lease| lease["spec"]["leaseTransitions"] = json!(i32::MAX));
    let error = one.take().unwrap_err().to_string();
    assert!(error.contains("2147483647 holders"), "{error}");
}

#[test]
fn all_leases_are_taken_or_none() {
    let (server, time) = (ApiServer::start(), Time::default());
    let [one, other] = ["one", "other"].map(|name| Host::new(&server, &time, name));
    let first = one.take_all(&["vast"]).unwrap();
    drop(one.take().unwrap());
    let before = server.lease(OBJECT);
    assert!(matches!(other.take_all(&[SYSTEM, "vast"]), Err(LeaseError::Held { system, .. }) if system == "vast"));
    assert_eq!(server.lease(OBJECT), before, "the free one is not touched");
    drop(first);
    let both = other.take_all(&[SYSTEM, "vast"]).unwrap();
    assert_eq!(both.tokens.len(), 2);
    time.pass(1.0);
    both.hold("vast").unwrap();
    assert!(both.hold("scratch").is_err());
    // Losing one of them is losing all.
    server.delete("hpc-storage-provisioner-vast");
    time.pass(1.0);
    assert!(both.hold(SYSTEM).is_err());
    drop(both);
    let both = other.take_all(&[SYSTEM, "vast"]).unwrap();
    assert!(one.take_all(&[SYSTEM, "vast"]).is_err());
    other.kill(&server, both);
    time.pass(10.0);
    assert_eq!(one.take_all(&[SYSTEM, "vast"]).unwrap().tokens.len(), 2, "the time of all counts from the first look");
}

#[test]
fn changes_whose_answer_is_lost_are_ours_all_the_same() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    let lose = |verb: &'static str| {
        let left = AtomicU64::new(1);
        server.hook(move |it, _, _| {
            let is_first = it == verb && left.swap(0, Ordering::SeqCst) == 1;
            is_first.then_some(Fault::Lost)
        });
    };
    lose("create");
    let error = one.take().unwrap_err();
    assert!(!error.is_held() && error_chain(&error).contains("cannot be reached"), "{}", error_chain(&error));
    assert_eq!(holder(&server), "", "it was created, and is released");
    lose("update");
    assert!(one.take().is_err());
    assert_eq!(holder(&server), "");
    let leases = one.take().unwrap();
    lose("update");
    time.pass(1.0);
    // Renewed on the server, but nobody knows.
    leases.hold(SYSTEM).unwrap();
    time.pass(6.0);
    // The next renewal conflicts with the last one.
    leases.hold(SYSTEM).unwrap();
    time.pass(6.0);
    leases.hold(SYSTEM).unwrap();
    server.edit(OBJECT, |lease| lease["metadata"]["labels"] = json!({"a": "b"}));
    time.pass(1.0);
    leases.hold(SYSTEM).unwrap();
    assert_eq!(server.lease(OBJECT)["metadata"]["labels"]["a"], "b");
}

/// The responses that are not a lease, and what is said about each.
fn faults() -> Vec<(Fault, &'static str)> {
    let reply = |status, body: &str| Fault::Reply(status, "", body.to_owned());
    let status = |code: u16, reason: &str, message: &str| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "reason": reason, "message": message, "code": code});
        Fault::Reply(code, "", body.to_string())
    };
    let lease = |change: &dyn Fn(&mut Value)| {
        let mut lease = json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": OBJECT, "namespace": NAMESPACE, "resourceVersion": "1"}, "spec": {},
        });
        change(&mut lease);
        Fault::Reply(200, "", lease.to_string())
    };
    vec![
        (
            status(400, "BadRequest", "no"),
            "answers 400 Bad Request to get of the Lease hpc-storage-provisioner-capstor: no",
        ),
        (status(401, "Unauthorized", "Unauthorized"), "token (401); is its service account still there?"),
        (
            status(403, "Forbidden", "User cannot get"),
            "may not get the Lease hpc-storage-provisioner-capstor in the namespace storage (403): User cannot get; a Role",
        ),
        (reply(404, "404 page not found"), "answers 404 Not Found"),
        (status(409, "Conflict", "modified"), "answers 409 Conflict to a GET"),
        (status(422, "Invalid", "spec: Invalid value"), "answers 422 Unprocessable Entity to get"),
        (status(429, "TooManyRequests", "wait"), "answers 429 Too Many Requests: wait"),
        (
            reply(500, "<html>no</html>"),
            "answers 500 Internal Server Error to get of the Lease hpc-storage-provisioner-capstor: it gives no reason",
        ),
        (reply(502, ""), "answers 502"),
        (
            status(503, "ServiceUnavailable", "etcdserver:\nleader changed\u{1b}"),
            "answers 503 Service Unavailable: etcdserver:",
        ),
        (status(504, "Timeout", "request did not complete"), "answers 504 Gateway Timeout"),
        (
            Fault::Reply(302, "location: https://elsewhere.example.org/\r\n", String::new()),
            "a redirect, which is not followed",
        ),
        (Fault::Reset, "cannot be reached"),
        (Fault::Lost, "cannot be reached"),
        (Fault::Hang(Duration::from_secs(5)), "cannot be reached"),
        (reply(200, ""), "answers 200 OK without JSON"),
        (reply(200, "<html>log in</html>"), "answers 200 OK without JSON"),
        (reply(200, &"x".repeat(3 << 20)), "larger than 2097152 bytes"),
        (reply(200, "[]"), "with something else"),
        (lease(&|lease| lease["kind"] = "LeaseList".into()), "with something else"),
        (lease(&|lease| lease["apiVersion"] = "coordination.k8s.io/v9".into()), "with something else"),
        (lease(&|lease| lease["metadata"]["name"] = "another".into()), "with something else"),
        (lease(&|lease| lease["metadata"]["resourceVersion"] = "".into()), "with something else"),
        (lease(&|lease| lease["spec"] = "text".into()), "with something else"),
        (lease(&|lease| lease["spec"]["holderIdentity"] = json!(7)), "with something else"),
        (lease(&|lease| lease["spec"]["leaseTransitions"] = json!(-1)), "with something else"),
    ]
}

#[test]
fn every_fault_of_the_server_has_a_message_and_takes_no_lease() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    drop(one.take().unwrap());
    for (fault, text) in faults() {
        let shared = fault.clone();
        server.hook(move |_, _, _| Some(shared.clone()));
        let error = one.take().unwrap_err();
        let message = error_chain(&error);
        assert!(message.contains(text), "{fault:?}:\n{message}");
        assert!(!error.is_held() && !message.contains(char::is_control), "{message:?}");
        server.clear_hook();
        assert_eq!(holder(&server), "");
        drop(one.take().unwrap());
    }
}

#[test]
fn every_fault_of_the_server_leaves_a_lease_until_it_ends() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    for (fault, _) in faults() {
        let leases = one.take().unwrap();
        let shared = fault.clone();
        server.hook(move |_, _, _| Some(shared.clone()));
        time.pass(6.9);
        leases.hold(SYSTEM).unwrap();
        server.clear_hook();
        // After an answer with `Retry-After`, and after all others.
        time.pass(0.05);
        leases.hold(SYSTEM).unwrap();
        let shared = fault.clone();
        server.hook(move |_, _, _| Some(shared.clone()));
        time.pass(7.0);
        assert!(leases.hold(SYSTEM).is_err(), "{fault:?}");
        server.clear_hook();
        drop(leases);
        assert_eq!(holder(&server), "", "{fault:?}");
    }
}

#[test]
fn the_server_is_left_alone_for_as_long_as_it_says() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    let leases = one.take().unwrap();
    let asked = Arc::new(Mutex::new(vec![]));
    let (times, clock) = (Arc::clone(&asked), time.clone());
    server.hook(move |_, _, _| {
        lock(&times).push(clock.now());
        Some(Fault::Reply(429, "retry-after: 3\r\n", String::new()))
    });
    for _ in 0..13 {
        time.pass(0.5);
        leases.hold(SYSTEM).unwrap();
    }
    let asked = lock(&asked).clone();
    assert!(asked.len() > 1 && asked.windows(2).all(|pair| pair[1] >= pair[0] + Duration::from_secs(3)), "{asked:?}");
    server.clear_hook();
    // No answer counts for longer than a lease is valid.
    drop(leases);
    drop(one.take().unwrap());
}

#[test]
fn a_missing_namespace_is_named() {
    let (server, time) = (ApiServer::start(), Time::default());
    let credentials = Host::new(&server, &time, "one").credentials;
    let api = format!("https://{}/", server.address).parse().unwrap();
    let settings = KubernetesSettings { api, namespace: "strage".into(), credentials };
    let store = LeaseStore::new(&LeaseSettings::Kubernetes(settings), &Clock::system());
    let error = store.take(&[SYSTEM.to_owned()], &PathBuf::new()).unwrap_err().to_string();
    assert!(
        error.contains("in the namespace strage (404)") && error.contains("check lease.kubernetes_namespace"),
        "{error}"
    );
}

#[test]
fn tokens_and_certificates_are_read_again() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    let leases = one.take().unwrap();
    server.forget("one");
    server.allow("rotated", &["get", "update"]);
    std::fs::write(one.credentials.join("token"), "rotated\n").unwrap();
    time.pass(1.0);
    leases.hold(SYSTEM).unwrap();
    drop(leases);
    drop(one.take().unwrap());

    // The certificate of another server.
    let pem = std::fs::read(ApiServer::start().account("x").join("ca.crt")).unwrap();
    let right = std::fs::read(one.credentials.join("ca.crt")).unwrap();
    std::fs::write(one.credentials.join("ca.crt"), pem).unwrap();
    let error = error_chain(&one.take().unwrap_err());
    assert!(error.contains("certificate"), "{error}");
    std::fs::write(one.credentials.join("ca.crt"), "nothing").unwrap();
    let error = error_chain(&one.take().unwrap_err());
    assert!(error.contains("ca.crt cannot be used"), "{error}");
    std::fs::write(one.credentials.join("ca.crt"), right).unwrap();
    drop(one.take().unwrap());

    std::fs::remove_file(one.credentials.join("token")).unwrap();
    let error = error_chain(&one.take().unwrap_err());
    assert!(
        error.contains("token cannot be read (no such file)") && error.contains("automountServiceAccountToken"),
        "{error}"
    );
    std::fs::write(one.credentials.join("token"), "a\nb").unwrap();
    assert!(error_chain(&one.take().unwrap_err()).contains("contains no token"));
}

#[test]
fn check_names_what_the_service_account_may_not_do() {
    let (server, time) = (ApiServer::start(), Time::default());
    let one = Host::new(&server, &time, "one");
    let check = || one.store.check(&[SYSTEM.to_owned()]).unwrap();
    let detail = check().unwrap();
    assert!(detail.contains("in the namespace storage: hpc-storage-provisioner-capstor"), "{detail}");
    assert!(server.lease(OBJECT).is_null(), "it changes nothing");
    server.allow("one", &["get"]);
    let error = check().unwrap_err().to_string();
    assert!(error.contains("may not create or update the Lease hpc-storage-provisioner-capstor"), "{error}");
    assert!(error.contains("RoleBinding"), "{error}");
    server.allow("one", &["get", "update"]);
    let error = one.take().unwrap_err().to_string();
    assert!(error.contains("may not create the Lease") && error.contains("cannot create resource"), "{error}");
    server.forget("one");
    assert!(check().is_err());
}

/// A time with a lease, as its holder sees it.
#[derive(Debug)]
struct Turn {
    token: u64,
    /// When a check succeeded, and when the side effect after it was over.
    effects: Vec<(Duration, Duration)>,
}

#[test]
fn there_are_never_two_holders() {
    const HOSTS: u64 = 6;
    let (server, time) = (ApiServer::start(), Time::default());
    // Time passes while requests are under way, and some of them fail.
    let (passes, seed) = (time.clone(), AtomicU64::new(1));
    let random = move |below: u64| {
        let next = |seed: u64| seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seed = seed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |seed| Some(next(seed))).unwrap();
        (next(seed) >> 33) % below
    };
    let random = Arc::new(random);
    let dice = Arc::clone(&random);
    server.hook(move |_, _, _| {
        passes.0.fetch_add(dice(1000), Ordering::SeqCst);
        match dice(40) {
            0 => Some(Fault::Reset),
            1 => Some(Fault::Lost),
            2 => Some(Fault::Reply(503, "", String::new())),
            _ => None,
        }
    });
    let turns = Mutex::new(Vec::<Turn>::new());
    std::thread::scope(|scope| {
        for number in 0..HOSTS {
            let (server, time, turns, random) = (&server, &time, &turns, &random);
            scope.spawn(move || {
                let start = |life| Host::new(server, time, &format!("host-{number}-{life}"));
                let mut host = start(0);
                // Until there were enough turns: how many attempts succeed depends on the other threads.
                for life in (1..=5000).take_while(|_| lock(turns).len() < 40) {
                    let Ok(leases) = host.take() else { continue };
                    let mut turn = Turn { token: token(&leases), effects: vec![] };
                    for _ in 0..random(6) {
                        if leases.hold(SYSTEM).is_err() {
                            break;
                        }
                        let checked = time.now();
                        std::thread::yield_now();
                        turn.effects.push((checked, time.now()));
                    }
                    lock(turns).push(turn);
                    if random(4) == 0 {
                        host.kill(server, leases);
                        host = start(life);
                    }
                }
            });
        }
    });
    let mut turns = turns.into_inner().unwrap();
    assert!(turns.len() >= 40, "{}", turns.len());
    turns.sort_by_key(|turn| turn.token);
    assert!(turns.windows(2).all(|pair| pair[0].token < pair[1].token), "tokens are unique: {turns:?}");
    // A thread that is paused for longer than the margin is too late, which no lease can prevent.
    let timely = |(checked, done): &(Duration, Duration)| *done <= *checked + Duration::from_secs(3);
    let mut last = (0, Duration::ZERO);
    for Turn { token, effects } in &turns {
        for (checked, done) in effects.iter().filter(|effect| timely(effect)) {
            assert!(*checked >= last.1 || *token == last.0, "{token} began at {checked:?}, {last:?} was not over");
            last = (*token, last.1.max(*done));
        }
    }
}
