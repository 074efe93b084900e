//! Several replicas that share snapshots through a real Valkey or Redis server.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use simulator::{Fault, Latency, Simulator, World};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Answer, Proxy, Valve, free_address, skipped, start_with, until};
use crate::waiting::{BRISK, change, tag, wait, wait_for_waiting};

const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";
const LISTING: &str = "/api/storage-resources/?page_size=500";
const NO_CACHE: [(&str, &str); 1] = [("Cache-Control", "no-cache")];
const AWAY: &str = "the shared cache is unavailable for readings";

/// A Valkey or Redis server, as a process. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    program: &'static str,
    address: SocketAddr,
    directory: TempDir,
    /// A second port, with TLS.
    secure: Option<SocketAddr>,
}

impl Server {
    /// `None`, with a message, if neither is installed; continuous integration requires one.
    pub(crate) async fn start() -> Option<Self> {
        let installed = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        let Some(program) = ["valkey-server", "redis-server"].into_iter().find(installed) else {
            assert!(std::env::var_os("CI").is_none(), "neither valkey-server nor redis-server is installed");
            skipped("valkey-server or redis-server");
            return None;
        };
        let (address, directory) = (free_address().await, TempDir::new().unwrap());
        let child = Self::spawn(program, address, &directory, None);
        let server = Self { child, program, address, directory, secure: None };
        server.listens().await;
        Some(server)
    }

    /// The same with TLS as well; returns the path of the certificate.
    async fn start_secure() -> Option<(Self, String)> {
        let mut server = Self::start().await?;
        server.stop();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
        let certificate = server.directory.path().join("certificate.pem");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(server.directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        server.secure = Some(free_address().await);
        server.start_again().await;
        Some((server, certificate.to_str().unwrap().to_owned()))
    }

    fn spawn(program: &str, address: SocketAddr, directory: &TempDir, secure: Option<SocketAddr>) -> Child {
        let port = address.port().to_string();
        let mut command = Command::new(program);
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--requirepass",
            "pa55",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        if let Some(secure) = secure {
            command.args(["--tls-port", &secure.port().to_string(), "--tls-auth-clients", "no"]);
            let files = ["--tls-cert-file", "certificate.pem", "--tls-ca-cert-file", "certificate.pem"];
            command.args(files).args(["--tls-key-file", "key.pem"]);
        }
        command.current_dir(directory.path()).stdout(Stdio::null()).spawn().unwrap()
    }

    async fn listens(&self) {
        until("the server listens", async || tokio::net::TcpStream::connect(self.address).await.is_ok()).await;
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        self.child = Self::spawn(self.program, self.address, &self.directory, self.secure);
        self.listens().await;
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn url(&self) -> String {
        format!("redis://:pa55@{}/0", self.address)
    }

    /// The server's reply to a command.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]).query_async(&mut connection).await.unwrap()
    }

    /// The key with this suffix.
    pub(crate) async fn key(&self, end: &str) -> Option<String> {
        self.ask::<Vec<String>>(&["KEYS", &format!("hpc-storage-proxy:*:{end}")]).await.pop()
    }

    pub(crate) async fn replica(&self, simulator: &Simulator, more: &[(&str, &str)]) -> Proxy {
        let url = self.url();
        start_with(simulator, &[&[("CACHE_SHARED_URL", url.as_str())], more].concat()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn readings(simulator: &Simulator) -> usize {
    // The first page of all resources, not of changed ones.
    let first_page = |request: &simulator::Received| {
        let is_first = request.path == PROVIDER_LIST && request.query_all("page") == ["1"];
        is_first && request.query_all("modified").is_empty()
    };
    simulator.requests().iter().filter(|request| first_page(request)).count()
}

fn is_for_gids(request: &simulator::Received) -> bool {
    request.path.ends_with("/export/waldur/projects")
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

fn slow(simulator: &Simulator, page: Duration) {
    simulator.set_latency(Latency { page, item: Duration::ZERO, concurrency: None });
}

const LASTING: (&str, &str) = ("CACHE_MAX_AGE", "3600");

#[tokio::test(flavor = "multi_thread")]
async fn waldur_is_read_once_for_all_replicas() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::large(1000)).await;
    slow(&simulator, Duration::from_millis(200));
    let replicas = join_all((0..3).map(|_| server.replica(&simulator, &[LASTING]))).await;
    let answers = join_all(replicas.iter().map(|replica| replica.get(LISTING))).await;
    // On a busy machine the server may respond too slowly at the start, so that a replica works without it.
    let alone = replicas.iter().filter(|replica| replica.log().contains(AWAY)).count();
    assert!(readings(&simulator) <= 1 + alone, "{} readings, {alone} alone", readings(&simulator));
    let before = readings(&simulator);
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (200, &answers[0].text));
        for name in ["etag", "last-modified"] {
            assert_eq!(header(answer, name), header(&answers[0], name));
        }
    }
    // Each page may come from another replica.
    let mut walked = Vec::new();
    for (page, replica) in (1..).zip(replicas.iter().cycle()) {
        let answer = replica.get(&format!("/api/storage-resources/?page_size=300&page={page}")).await;
        assert_eq!(header(&answer, "etag"), header(&answers[0], "etag"));
        walked.extend(answer.items().to_vec());
        if answer.body["pagination"]["has_next"] == false {
            assert_eq!(walked.len() as u64, answer.body["pagination"]["total"].as_u64().unwrap());
            break;
        }
    }
    // Another replica that starts later, and filters that need the index.
    let late = server.replica(&simulator, &[LASTING]).await;
    for query in ["?status=active&page_size=7", "?state=OK&data_type=scratch", "?storage_system=vast&page=2"] {
        assert_eq!(late.list(query).await.text, replicas[0].list(query).await.text);
    }
    assert_eq!(readings(&simulator), before);
    let numbers = late.get("/metrics").await.text;
    assert!(numbers.contains("\nhpc_storage_proxy_shared_cache_up 1\n"), "{numbers}");
    assert!(numbers.contains("\nhpc_storage_proxy_shared_cache_exchanges_total{outcome=\"success\"}"), "{numbers}");
    assert!(numbers.contains("\nhpc_storage_proxy_readings_taken_total 1\n"), "{numbers}");
    assert!(
        !numbers.contains("\nhpc_storage_proxy_refresh_duration_seconds_count"),
        "a snapshot from another replica is not a refresh: {numbers}"
    );
    assert_eq!(late.get("/health/ready").await.body["shared_cache"], "in use");
    let log = late.log();
    assert!(log.contains("using the catalogue of another replica") && !log.contains("pa55"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_sees_changes_on_every_replica() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let valve = Valve::start(&simulator).await;
    let settings = [LASTING, ("WALDUR_API_URL", &valve.waldur()), ("WALDUR_TIMEOUT", "60")];
    let one = server.replica(&simulator, &settings).await;
    let before = one.get(LISTING).await;
    let other = server.replica(&simulator, &settings).await;
    assert_eq!(other.get(LISTING).await.text, before.text);
    let asked = simulator.requests().iter().filter(|request| is_for_gids(request)).count();
    assert!(asked > 0);

    simulator.world(|world| drop(world.resources.shift_remove_index(0)));
    let fresh = other.get_with(LISTING, &NO_CACHE).await;
    assert_ne!(fresh.text, before.text);
    assert_eq!(readings(&simulator), 2);
    // Only projects without a GID are requested again; the others are known from the other replica.
    let skipped = fresh.body["skipped"].to_string();
    for request in simulator.requests().iter().filter(|request| is_for_gids(request)).skip(asked) {
        for project in request.query_all("projects") {
            assert!(skipped.contains(&format!("'gid for {project}'")), "{project} was requested again");
        }
    }
    assert_eq!(one.get_with(LISTING, &NO_CACHE).await.text, fresh.text, "a client never sees older data");

    // A refresh that started after a request arrived serves it, on whichever replica.
    valve.hold();
    let before = readings(&simulator);
    let all = join_all([&one, &other].into_iter().cycle().take(20).map(|replica| replica.get_with(LISTING, &NO_CACHE)));
    let all_wait = async {
        one.wait_for_running(10).await;
        other.wait_for_running(10).await;
        valve.release();
    };
    let (all, ()) = futures::future::join(all, all_wait).await;
    assert!(all.iter().all(|answer| answer.text == fresh.text));
    let more = readings(&simulator) - before;
    assert!(more <= 4, "{more} refreshes for twenty concurrent requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_every_replica_wait_for_the_same_change() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let replicas = join_all((0..2).map(|_| server.replica(&simulator, &BRISK))).await;
    let tag = tag(&replicas[0].get(LISTING).await);
    assert_eq!(header(&replicas[1].get(LISTING).await, "etag"), tag);
    let changed = async {
        join_all(replicas.iter().map(|replica| wait_for_waiting(replica, 3))).await;
        change(&simulator, 31_000);
    };
    let waits = replicas.iter().cycle().take(6).map(|replica| wait(replica, LISTING, &tag, 300));
    let (answers, ()) = futures::join!(join_all(waits), changed);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text == answers[0].text));
    // A client that waits at another replica next, for example after its own one stopped, misses nothing.
    let late = wait(&replicas[1], LISTING, &tag, 300).await;
    assert_eq!((late.status, late.text), (200, answers[0].text.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_if_one_dies_during_a_refresh() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    slow(&simulator, Duration::from_mins(1));
    let first = server.replica(&simulator, &[LASTING]).await;
    until("the first replica reads Waldur", async || readings(&simulator) == 1).await;
    let second = server.replica(&simulator, &[LASTING]).await;
    let waiting = second.get(LISTING);
    let death = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(readings(&simulator), 1, "the second replica waits for the first");
        slow(&simulator, Duration::ZERO);
        drop(first);
        Instant::now()
    };
    let (answer, died) = futures::future::join(waiting, death).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(died.elapsed() < Duration::from_secs(30), "{:?}", died.elapsed());
    assert_eq!(readings(&simulator), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_each_replica_works_alone_until_it_is_back() {
    let Some(mut server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let replicas = join_all((0..2).map(|_| server.replica(&simulator, &[]))).await;
    for replica in &replicas {
        assert_eq!(replica.get(LISTING).await.status, 200);
    }
    server.stop();
    for _ in 0..3 {
        for replica in &replicas {
            let before = readings(&simulator);
            assert_eq!(replica.get_with(LISTING, &NO_CACHE).await.status, 200);
            assert_eq!(readings(&simulator), before + 1);
        }
    }
    for replica in &replicas {
        assert_eq!(replica.log().matches(AWAY).count(), 1, "{}", replica.log());
        assert!(!replica.log().contains("pa55"));
        let numbers = replica.get("/metrics").await.text;
        assert!(numbers.contains("\nhpc_storage_proxy_shared_cache_up 0\n"), "{numbers}");
        assert!(numbers.contains("\nhpc_storage_proxy_shared_cache_exchanges_total{outcome=\"failed\"}"), "{numbers}");
        let ready = replica.get("/health/ready").await;
        assert_eq!((ready.status, &ready.body["shared_cache"]), (200, &"away".into()));
    }
    server.start_again().await;
    for replica in &replicas {
        until("it uses the server again", async || {
            assert_eq!(replica.get(LISTING).await.status, 200);
            replica.log().matches("using the shared cache for readings").count() == 2
        })
        .await;
    }
    until("it is published again", async || server.key("snapshot").await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_delays_requests_only_briefly() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let replica = server.replica(&simulator, &[]).await;
    assert_eq!(replica.get(LISTING).await.status, 200);
    server.signal(Signal::STOP);
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(replica.get(LISTING).await.status, 200);
    }
    let took = start.elapsed();
    server.signal(Signal::CONT);
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(replica.log().matches(AWAY).count(), 1, "{}", replica.log());
    // A replica that starts while the server hangs.
    server.signal(Signal::STOP);
    let late = server.replica(&simulator, &[LASTING]).await;
    assert_eq!(late.get(LISTING).await.status, 200);
    server.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_foreign_or_missing_data_counts_as_absent() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let right = {
        let replica = server.replica(&simulator, &[LASTING]).await;
        let right = replica.get(LISTING).await;
        until("it is published", async || server.key("snapshot").await.is_some()).await;
        right
    };
    let key = server.key("snapshot").await.unwrap();
    let head: Vec<u8> = server.ask(&["HGET", &key, "head"]).await;
    let body: Vec<u8> = server.ask(&["HGET", &key, "body"]).await;
    assert!(!String::from_utf8_lossy(&body).contains("itemId"));
    for spoil in [
        &["HSET", &key, "head", "nonsense"][..],
        &["HSET", &key, "head", ""],
        &["HSET", &key, "body", "nonsense"],
        &["HSET", &key, "body", ""],
        &["HDEL", &key, "body"],
        &["HSET", &key, "identities", "nonsense"],
        &["HDEL", &key, "head"],
        &["DEL", &key],
    ] {
        let before = readings(&simulator);
        let _: i64 = server.ask(spoil).await;
        let replica = server.replica(&simulator, &[LASTING]).await;
        assert_eq!(replica.get(LISTING).await.text, right.text, "{spoil:?}");
        let own = usize::from(!spoil.contains(&"identities"));
        assert_eq!(readings(&simulator), before + own, "{spoil:?}");
        // The data is repaired for the next replica.
        until("it is published again", async || {
            let (head, body): (Vec<u8>, Vec<u8>) = server.ask(&["HMGET", &key, "head", "body"]).await;
            head.len() > 20 && body.len() > 1000
        })
        .await;
    }
    // Swapped values are rejected, because each is sealed for its own field.
    let _: i64 = server.ask(&["COPY", &key, "kept"]).await;
    let mut connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let swap = redis::cmd("HSET").arg(&key).arg("head").arg(&body).arg("body").arg(&head).to_owned();
    let _: i64 = swap.query_async(&mut connection).await.unwrap();
    let before = readings(&simulator);
    let replica = server.replica(&simulator, &[LASTING]).await;
    assert_eq!(replica.get(LISTING).await.text, right.text);
    assert_eq!(readings(&simulator), before + 1);
    // A key of another type.
    let _: i64 = server.ask(&["DEL", &key]).await;
    let _: String = server.ask(&["SET", &key, "text"]).await;
    let replica = server.replica(&simulator, &[LASTING]).await;
    assert_eq!(replica.get(LISTING).await.text, right.text);
    until("it is published again", async || server.ask::<String>(&["TYPE", &key]).await == "hash").await;
    assert!(!replica.log().contains(AWAY), "{}", replica.log());
}

/// Anyone with write access to the server can create values as large as it allows.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_values_are_not_fetched() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let first = server.replica(&simulator, &[]).await;
    let right = first.get(LISTING).await;
    until("it is published", async || server.key("snapshot").await.is_some()).await;
    drop(first);
    let key = server.key("snapshot").await.unwrap();
    for field in ["head", "body", "identities"] {
        let grow = "redis.call('HSET', KEYS[1], ARGV[1], string.rep(string.rep('x', 65536), 1280))";
        let _: Option<i64> = server.ask(&["EVAL", grow, "1", &key, field]).await;
        let length = async || server.ask::<usize>(&["HSTRLEN", &key, field]).await;
        assert!(length().await > 64 << 20);
        let settings = if field == "identities" { ("CACHE_MAX_AGE", "0") } else { LASTING };
        let replica = server.replica(&simulator, &[settings]).await;
        assert_eq!(replica.get(LISTING).await.text, right.text, "{field}");
        until("it is published again", async || length().await < 1 << 20).await;
        let most = replica.most_memory() >> 20;
        assert!(most < 100, "{most} MiB after {field}");
        assert!(!replica.log().contains(AWAY), "{field}: {}", replica.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_lease_is_ignored() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let replica = server.replica(&simulator, &[]).await;
    assert_eq!(replica.get(LISTING).await.status, 200);
    until("it is published", async || server.key("snapshot").await.is_some()).await;
    let lease = server.key("snapshot").await.unwrap().replace("snapshot", "lease");
    for command in [&["SET", &lease, "x"][..], &["SET", &lease, "x", "PX", "3600000"], &["RPUSH", &lease, "x"]] {
        until("the lease is released", async || server.ask::<i64>(&["EXISTS", &lease]).await == 0).await;
        let _: redis::Value = server.ask(command).await;
        let start = Instant::now();
        assert_eq!(replica.get(LISTING).await.status, 200);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?} after {command:?}", start.elapsed());
    }
    // A lease that is renewed forever delays a request only for a part of its timeout.
    let impatient = server.replica(&simulator, &[("SERVER_REQUEST_TIMEOUT", "4")]).await;
    assert_eq!(impatient.get(LISTING).await.status, 200);
    until("the lease is released", async || server.ask::<i64>(&["EXISTS", &lease]).await == 0).await;
    let renewing = async {
        loop {
            let _: String = server.ask(&["SET", &lease, "x", "PX", "1900"]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let asking = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        assert_eq!(impatient.get(LISTING).await.status, 200);
        start.elapsed()
    };
    let took = tokio::select! {
        took = asking => took,
        () = renewing => unreachable!("it never ends"),
    };
    // Its status shows that it took less than the request timeout of 4 seconds.
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

/// Older identities, restored by someone with write access to the server, would restore older GIDs.
#[tokio::test(flavor = "multi_thread")]
async fn identities_are_valid_only_with_the_head_of_their_publication() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(30_999)));
    {
        let replica = server.replica(&simulator, &[]).await;
        assert!(replica.get(LISTING).await.text.contains("30999"));
        until("it is published", async || server.key("snapshot").await.is_some()).await;
    }
    let key = server.key("snapshot").await.unwrap();
    let old: Vec<u8> = server.ask(&["HGET", &key, "identities"]).await;
    let _: i64 = server.ask(&["DEL", &key]).await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    let right = {
        let replica = server.replica(&simulator, &[]).await;
        let right = replica.get(LISTING).await;
        assert!(right.text.contains("31000"), "{}", right.text);
        until("it is published", async || server.key("snapshot").await.is_some()).await;
        right
    };
    let mut connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let put_back = redis::cmd("HSET").arg(&key).arg("identities").arg(&old).to_owned();
    let _: i64 = put_back.query_async(&mut connection).await.unwrap();
    let replica = server.replica(&simulator, &[]).await;
    assert_eq!(replica.get(LISTING).await.text, right.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_different_settings_share_nothing() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let one = server.replica(&simulator, &[LASTING]).await;
    assert_eq!(one.get(LISTING).await.status, 200);
    let other = server.replica(&simulator, &[LASTING, ("STORAGE_FILE_SYSTEM", "gpfs")]).await;
    let answer = other.get(LISTING).await;
    assert_eq!(answer.items()[0]["storageFileSystem"]["key"], "gpfs");
    assert_eq!(readings(&simulator), 2);
    until("both are published", async || {
        server.ask::<Vec<String>>(&["KEYS", "hpc-storage-proxy:*:snapshot"]).await.len() == 2
    })
    .await;
    let kept: i64 = server.ask(&["PTTL", &server.key("snapshot").await.unwrap()]).await;
    assert!((1..=3_600_000).contains(&kept), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_while_waldur_is_down_uses_the_shared_snapshot() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let settings = [("CACHE_MAX_STALE", "3600")];
    let one = server.replica(&simulator, &settings).await;
    let right = one.get(LISTING).await;
    until("it is published", async || server.key("snapshot").await.is_some()).await;
    simulator.set_fault("GET /api/*", Fault::status(503));
    let late = server.replica(&simulator, &settings).await;
    let answer = late.get(LISTING).await;
    assert_eq!((answer.status, &answer.text), (200, &right.text));
    assert!(answer.headers.contains_key("warning"));
    let strict = server.replica(&simulator, &[]).await;
    strict.get(LISTING).await.assert_upstream_error("503");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_the_servers_certificate_is_verified() {
    let Some((server, certificate)) = Server::start_secure().await else { return };
    let url = format!("rediss://:pa55@{}/0", server.secure.unwrap());
    let simulator = Simulator::start(World::demo()).await;
    let distrustful = start_with(&simulator, &[("CACHE_SHARED_URL", &url), LASTING]).await;
    assert_eq!(distrustful.get(LISTING).await.status, 200);
    assert!(distrustful.log().contains(AWAY), "{}", distrustful.log());
    assert_eq!(server.key("snapshot").await, None);

    let trusting = [("CACHE_SHARED_URL", url.as_str()), ("SSL_CERT_FILE", &certificate), LASTING];
    let replica = start_with(&simulator, &trusting).await;
    until("it is published", async || {
        assert_eq!(replica.get_with(LISTING, &NO_CACHE).await.status, 200);
        server.key("snapshot").await.is_some()
    })
    .await;
}

/// A fake server: `answer` returns the reply to each script about snapshots; these scripts are counted.
async fn fake_server(
    answer: impl Fn(&[Vec<u8>], usize) -> String + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let (scripts, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counter = Arc::clone(&scripts);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (scripts, answer) = (Arc::clone(&counter), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(command) = command(&mut stream).await {
                    let reply = match command.get(3) {
                        Some(key) if key.ends_with(b":snapshot") => {
                            answer(&command, scripts.fetch_add(1, Ordering::Relaxed))
                        }
                        // No reports.
                        Some(key) if key.ends_with(b":stamps") => "*0\r\n".to_owned(),
                        _ => "+OK\r\n".to_owned(),
                    };
                    if stream.write_all(reply.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (url, scripts)
}

/// The next command; `None` at the end.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    for _ in 0..number(stream).await? {
        let mut part = vec![0; number(stream).await? + 2];
        stream.read_exact(&mut part).await.ok()?;
        part.truncate(part.len() - 2);
        parts.push(part);
    }
    Some(parts)
}

/// The number in a line such as `*3` or `$5`.
async fn number(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim().get(1..)?.parse().ok()
}

/// The reply to a poll: no lease, and this head.
fn head(text: &str) -> String {
    format!("*5\r\n:1800000000\r\n:0\r\n${}\r\n{text}\r\n:0\r\n:0\r\n", text.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_head_at_every_poll_delays_requests_only_briefly() {
    let (url, scripts) = fake_server(|_, number| head(&number.to_string())).await;
    let simulator = Simulator::start(World::demo()).await;
    // A replica waits for a quarter of this time.
    let settings = [("CACHE_SHARED_URL", url.as_str()), ("SERVER_REQUEST_TIMEOUT", "4")];
    let replica = start_with(&simulator, &settings).await;
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(replica.get_with(LISTING, &NO_CACHE).await.status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    let scripts = scripts.load(Ordering::Relaxed);
    assert!((3..60).contains(&scripts), "{scripts} scripts");
    let log = replica.log();
    assert_eq!(log.matches(AWAY).count(), 1, "{log}");
    assert!(log.contains("it returns another head at every poll"), "{log}");
    assert!(replica.get("/metrics").await.text.contains("\nhpc_storage_proxy_shared_cache_up 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_rejects_writes_is_logged_once() {
    let (url, scripts) = fake_server(|command, _| {
        // The second poll would take the lease.
        if command[5].is_empty() {
            head("x")
        } else {
            "-READONLY You can't write against a read only replica.\r\n".into()
        }
    })
    .await;
    let simulator = Simulator::start(World::demo()).await;
    let replica = start_with(&simulator, &[("CACHE_SHARED_URL", url.as_str()), ("CACHE_MAX_AGE", "0")]).await;
    until("it was tried three times", async || {
        assert_eq!(replica.get(LISTING).await.status, 200);
        scripts.load(Ordering::Relaxed) >= 6
    })
    .await;
    let log = replica.log();
    assert_eq!(log.matches(AWAY).count(), 1, "{log}");
    assert!(log.matches("using the shared cache for readings").count() <= 1, "{log}");
    assert!(replica.get("/metrics").await.text.contains("\nhpc_storage_proxy_shared_cache_up 0\n"));
}
