//! `list --watch`, on a running proxy.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use simulator::world::ResourceState;
use simulator::{Simulator, World};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::support::{Proxy, command, demo_with, settings, start_with, until};
use crate::waiting::BRISK;

/// A running `list --watch` and what it has written so far. Dropping it kills it.
struct Watch {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Watch {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let arguments = [&["list", "--watch", url], arguments].concat();
        let mut list = command(&std::env::temp_dir(), &[], &arguments);
        let mut child = list.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    async fn shows(&self, text: &str) {
        let appears = until(text, async || self.stdout.lock().unwrap().contains(text));
        let shown = timeout(Duration::from_secs(50), appears).await;
        assert!(shown.is_ok(), "{text} is missing:\n{}", self.stdout.lock().unwrap());
    }

    async fn reports(&self, text: &str) {
        until(text, async || self.stderr.lock().unwrap().contains(text)).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            written.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    text
}

/// Its project has no GID at first.
const SLUG: &str = "project-without-gid";

fn give_gid(simulator: &Simulator) {
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
}

fn set_state(simulator: &Simulator, state: ResourceState) {
    simulator.world(|world| world.resource_by_slug_mut(SLUG).unwrap().set_state(state));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_shown_also_after_an_outage() {
    let (simulator, proxy) = demo_with(&BRISK).await;
    let watch = Watch::start(&proxy.base, &["--data-type", "store"]);
    watch.reports("Changes follow").await;
    let items = proxy.list("?data_type=store&page_size=500").await.items().len();
    assert_eq!(watch.stdout.lock().unwrap().lines().count(), 1 + items);
    let path = "/capstor/store/cscs/mch/mch-p2";
    give_gid(&simulator);
    watch.shows(&format!("{path}  new: STATUS active, ")).await;
    set_state(&simulator, ResourceState::Erred);
    watch.shows(&format!("{path}  STATUS active → error\n")).await;

    let address = proxy.base.trim_start_matches("http://").to_owned();
    drop(proxy);
    watch.reports("; trying again\n").await;
    set_state(&simulator, ResourceState::Ok);
    let brisk = BRISK.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let settings = [settings(&simulator), brisk.to_vec()].concat();
    let _again = Proxy::start_at(&address, &settings);
    watch.shows(&format!("{path}  STATUS error → active\n")).await;
    simulator.world(|world| world.resources.retain(|_, resource| resource.text("slug") != SLUG));
    watch.shows(&format!("{path}  gone\n")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_one_listing_per_line() {
    let (simulator, proxy) = demo_with(&BRISK).await;
    let watch = Watch::start(&proxy.base, &["--json"]);
    watch.shows("\n").await;
    give_gid(&simulator);
    until("a second listing", async || watch.stdout.lock().unwrap().matches("}\n").count() == 2).await;
    watch.shows("}\n{").await;
    let last = watch.stdout.lock().unwrap().lines().last().unwrap().to_owned();
    let listing: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(listing["resources"], proxy.list("?page_size=500").await.body["resources"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_every_wait_at_once_gets_few_requests() {
    const LISTING: &str = r#"{"resources":[],"pagination":{"total":0}}"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let waits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&waits);
    tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.is_ok_and(|read| read > 0) {}
            let (status, body) = if head.contains("if-none-match") {
                counted.fetch_add(1, Ordering::Relaxed);
                ("304 Not Modified\r\npreference-applied: wait=45".to_owned(), "")
            } else {
                (format!("200 OK\r\ncontent-length: {}", LISTING.len()), LISTING)
            };
            let answer = format!("HTTP/1.1 {status}\r\netag: \"a\"\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let watch = Watch::start(&url, &[]);
    watch.reports("Changes follow").await;
    let began = Instant::now();
    sleep(Duration::from_secs(3)).await;
    let (waits, seconds) = (waits.load(Ordering::Relaxed), began.elapsed().as_secs());
    assert!((1..=seconds + 2).contains(&waits), "{waits} requests in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_last_end_it() {
    let simulator = Simulator::start(World::demo()).await;
    let open = start_with(&simulator, &[]).await;
    let closed = start_with(&simulator, &[("DISABLE_AUTH", "false")]).await;
    for (url, arguments, code, reason) in [
        (open.base.as_str(), &["--storage-system", "other"][..], 1, "it does not know the storage system"),
        (&closed.base, &[], 1, "a token is required, use --token-file"),
        ("http://127.0.0.1:1", &[], 1, "cannot connect"),
        ("ftp://127.0.0.1", &[], 2, "neither http nor https"),
    ] {
        let arguments = [&["list", "--watch", url], arguments].concat();
        let ended = command(&std::env::temp_dir(), &[], &arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(code) && stderr.contains(reason), "{url}: {:?} {stderr}", ended.status);
    }
    let ended = command(&std::env::temp_dir(), &[], &["list", "--token-file", "token"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2), "a token is only for --watch");
}
