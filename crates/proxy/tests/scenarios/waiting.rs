//! Waiting for a listing to change: `Prefer: wait=N` with `If-None-Match`.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::process::Signal;
use simulator::{Simulator, World};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Proxy, demo_with, start_with, until};

const LISTING: &str = "/api/storage-resources/?page_size=500";
/// A snapshot that is refreshed often, so that a change is seen soon.
pub(crate) const BRISK: [(&str, &str); 2] = [("CACHE_MAX_AGE", "0.2"), ("CACHE_REFRESH_INTERVAL", "0.1")];

pub(crate) fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

/// Requests the path, and waits for up to `seconds` until it differs from `tag`.
pub(crate) async fn wait(proxy: &Proxy, path: &str, tag: &str, seconds: u32) -> Answer {
    let prefer = format!("wait={seconds}");
    proxy.get_with(path, &[("If-None-Match", tag), ("Prefer", &prefer)]).await
}

pub(crate) async fn wait_for_waiting(proxy: &Proxy, count: usize) {
    let line = format!("\nhpc_storage_proxy_requests_waiting {count}\n");
    until("the requests wait", async || proxy.get("/metrics").await.text.contains(&line)).await;
}

pub(crate) fn change(simulator: &Simulator, gid: u32) {
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(gid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_304_after_its_time() {
    let (_simulator, proxy) = demo_with(&BRISK).await;
    let tag = tag(&proxy.get(LISTING).await);
    let began = Instant::now();
    let answer = wait(&proxy, LISTING, &tag, 1).await;
    assert_eq!(answer.status, 304, "{}", answer.text);
    assert_eq!(answer.headers["preference-applied"], "wait=1");
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_the_listing_changes() {
    // Without a refresh interval: the waiting client is why the snapshot is refreshed.
    let (simulator, proxy) = demo_with(&[("CACHE_MAX_AGE", "0.2")]).await;
    let before = proxy.get(LISTING).await;
    let changed = async {
        wait_for_waiting(&proxy, 1).await;
        change(&simulator, 31_000);
    };
    let etag = tag(&before);
    let (answer, ()) = futures::join!(wait(&proxy, LISTING, &etag, 300), changed);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["preference-applied"], "wait=300");
    assert_ne!(answer.text, before.text);
    // What changed before the request is not missed.
    let at_once = wait(&proxy, LISTING, &tag(&before), 300).await;
    assert_eq!(at_once.text, answer.text);
    wait_for_waiting(&proxy, 0).await;
    let durations = proxy.get("/metrics").await.text;
    assert!(durations.contains("le=\"60\"") && proxy.log().contains("waited_ms"), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_http2_connection_wait_independently() {
    let (simulator, proxy) = demo_with(&BRISK).await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let get = async |query: &str, tag: &str| {
        let request = client.get(format!("{}/api/storage-resources/{query}", proxy.base));
        let answer = request.header("If-None-Match", tag).header("Prefer", "wait=3").send().await.unwrap();
        (answer.status().as_u16(), answer.version())
    };
    let filters = ["?storage_system=capstor", "?storage_system=vast"];
    let tags = join_all(filters.map(async |query| tag(&proxy.list(query).await))).await;
    let changed = async {
        wait_for_waiting(&proxy, 20).await;
        change(&simulator, 31_000);
    };
    let capstor = join_all((0..10).map(|_| get(filters[0], &tags[0])));
    let vast = join_all((0..10).map(|_| get(filters[1], &tags[1])));
    let (capstor, vast, ()) = futures::join!(capstor, vast, changed);
    assert!(capstor.iter().all(|answer| *answer == (200, reqwest::Version::HTTP_2)), "{capstor:?}");
    assert!(vast.iter().all(|answer| *answer == (304, reqwest::Version::HTTP_2)), "{vast:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_filter_ends_only_when_its_selection_changes() {
    let (simulator, proxy) = demo_with(&BRISK).await;
    let (vast, capstor) = (format!("{LISTING}&storage_system=vast"), format!("{LISTING}&storage_system=capstor"));
    let [vast_tag, capstor_tag] = [tag(&proxy.get(&vast).await), tag(&proxy.get(&capstor).await)];
    assert_ne!(vast_tag, capstor_tag);
    let changed = async {
        wait_for_waiting(&proxy, 2).await;
        change(&simulator, 31_000);
    };
    let (one, other, ()) =
        futures::join!(wait(&proxy, &vast, &vast_tag, 3), wait(&proxy, &capstor, &capstor_tag, 300), changed);
    assert_eq!((one.status, other.status), (304, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_have_a_limit_of_their_own() {
    let limits = [BRISK[0], BRISK[1], ("SERVER_MAX_REQUESTS", "1"), ("SERVER_MAX_WAITING", "3")];
    let (_simulator, proxy) = demo_with(&limits).await;
    let tag = tag(&proxy.get(LISTING).await);
    let waiting = join_all((0..3).map(|_| wait(&proxy, LISTING, &tag, 3)));
    let others = async {
        wait_for_waiting(&proxy, 3).await;
        let refused = wait(&proxy, LISTING, &tag, 3).await;
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.headers.contains_key("retry-after"));
        assert_eq!(proxy.get(LISTING).await.status, 200);
    };
    let (answers, ()) = futures::join!(waiting, others);
    assert!(answers.iter().all(|answer| answer.status == 304));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_survives_changed_settings() {
    let (simulator, proxy) = demo_with(&BRISK).await;
    let tag = tag(&proxy.get(LISTING).await);
    let changed = async {
        wait_for_waiting(&proxy, 1).await;
        std::fs::write(proxy.directory().join(".env"), "CACHE_MAX_STALE=7\n").unwrap();
        proxy.signal(Signal::HUP);
        until("the settings are in force", async || proxy.log().contains("the settings are in force")).await;
        wait_for_waiting(&proxy, 1).await;
        change(&simulator, 31_000);
    };
    let (answer, ()) = futures::join!(wait(&proxy, LISTING, &tag, 300), changed);
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rules_for_authentication_end_a_wait() {
    let (_simulator, proxy) = demo_with(&BRISK).await;
    let tag = tag(&proxy.get(LISTING).await);
    let changed = async {
        wait_for_waiting(&proxy, 1).await;
        std::fs::write(proxy.directory().join(".env"), "CSCS_KEYCLOAK_REQUIRED_ROLES=storage\n").unwrap();
        proxy.signal(Signal::HUP);
    };
    let (answer, ()) = futures::join!(wait(&proxy, LISTING, &tag, 300), changed);
    assert_eq!(answer.status, 304, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_all_waits_with_304() {
    let (_simulator, proxy) = demo_with(&BRISK).await;
    let tag = tag(&proxy.get(LISTING).await);
    let stopped = async {
        wait_for_waiting(&proxy, 10).await;
        proxy.signal(Signal::TERM);
        Instant::now()
    };
    let (answers, stopped) = futures::join!(join_all((0..10).map(|_| wait(&proxy, LISTING, &tag, 300))), stopped);
    assert!(answers.iter().all(|answer| answer.status == 304));
    assert!(stopped.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_in_which_the_upstreams_fail_ends_with_their_error() {
    let simulator = Simulator::start(World::demo()).await;
    let proxy = start_with(&simulator, &BRISK).await;
    let tag = tag(&proxy.get(LISTING).await);
    let failing = async {
        wait_for_waiting(&proxy, 1).await;
        simulator.set_fault("GET /api/marketplace-*", simulator::Fault::status(503));
    };
    let (answer, ()) = futures::join!(wait(&proxy, LISTING, &tag, 2), failing);
    answer.assert_upstream_error("");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_gone_do_not_wait() {
    let (_simulator, proxy) = demo_with(&BRISK).await;
    let tag = tag(&proxy.get(LISTING).await);
    let request = format!("GET {LISTING} HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\nprefer: wait=300\r\n\r\n");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = TcpStream::connect(proxy.base.strip_prefix("http://").unwrap()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        clients.push(client);
    }
    wait_for_waiting(&proxy, 3).await;
    let [closed, mut half_closed, reset] = clients.try_into().unwrap();
    drop(closed);
    half_closed.shutdown().await.unwrap();
    reset.set_zero_linger().unwrap();
    drop(reset);
    wait_for_waiting(&proxy, 0).await;
    assert_eq!(proxy.log().matches("cancelled by the client").count(), 3, "{}", proxy.log());
}
