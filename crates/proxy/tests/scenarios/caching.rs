//! The shared snapshot: ages of responses, waiting for refreshes, and conditional requests.

use std::time::Duration;

use futures::future::join_all;
use simulator::{Fault, Simulator, World};
use tokio::sync::oneshot;

use crate::support::{Answer, Proxy, Valve, demo_with, start_with, until};

const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";

const LISTING: &str = "/api/storage-resources/?page_size=500";
const NO_CACHE: [(&str, &str); 1] = [("Cache-Control", "no-cache")];

fn readings(simulator: &Simulator) -> usize {
    // The first page of all resources, not of changed ones.
    let first_page = |request: &simulator::Received| {
        let is_first = request.path == PROVIDER_LIST && request.query_all("page") == ["1"];
        is_first && request.query_all("modified").is_empty()
    };
    simulator.requests().iter().filter(|request| first_page(request)).count()
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

/// The demo with a snapshot that stays valid for the whole test.
async fn lasting() -> (Simulator, Proxy) {
    demo_with(&[("CACHE_MAX_AGE", "3600")]).await
}

/// The same with a valve in front of Waldur.
async fn lasting_with_valve() -> (Simulator, Valve, Proxy) {
    let simulator = Simulator::start(World::demo()).await;
    let valve = Valve::start(&simulator).await;
    let settings = [("CACHE_MAX_AGE", "3600"), ("WALDUR_API_URL", &valve.waldur()), ("WALDUR_TIMEOUT", "60")];
    let proxy = start_with(&simulator, &settings).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    (simulator, valve, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_refresh_does_not_wait_for_the_first_request() {
    let (simulator, proxy) = lasting().await;
    assert_eq!(readings(&simulator), 1);
    assert_eq!(proxy.get(LISTING).await.status, 200);
    assert_eq!(readings(&simulator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_snapshot_serves_all_requests_except_with_no_cache() {
    let (simulator, proxy) = lasting().await;
    let before = proxy.get(LISTING).await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    let young = proxy.get(LISTING).await;
    assert_eq!(young.text, before.text);
    assert_eq!(header(&young, "etag"), header(&before, "etag"));
    let fresh = proxy.get_with(LISTING, &NO_CACHE).await;
    assert_eq!(readings(&simulator), 2);
    assert_ne!(fresh.text, before.text);
    assert_ne!(header(&fresh, "etag"), header(&before, "etag"));
    assert_eq!(header(&fresh, "age"), "0");
    assert_eq!(proxy.get(LISTING).await.text, fresh.text, "the new snapshot serves all later requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_share_one_refresh() {
    let (simulator, valve, proxy) = lasting_with_valve().await;
    valve.hold();
    let requests = join_all((0..20).map(|_| proxy.get_with(LISTING, &NO_CACHE)));
    let all_wait = async {
        proxy.wait_for_running(20).await;
        valve.release();
    };
    let (answers, ()) = futures::future::join(requests, all_wait).await;
    let readings = readings(&simulator);
    // Requests that arrive during a refresh wait for the next one, which starts after they arrived.
    assert_eq!(readings, 3, "one at the start, one for the first request, one for all others");
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text == answers[0].text));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_of_a_fresh_response_is_older_than_its_request() {
    let (simulator, valve, proxy) = lasting_with_valve().await;
    let before = proxy.get(LISTING).await;
    simulator.clear_requests();
    valve.hold();
    // The change happens after Waldur has sent the page for the early request.
    let (changed, was_changed) = oneshot::channel();
    simulator.after_answer(&format!("GET {PROVIDER_LIST}"), |world| {
        world.resources.shift_remove_index(0);
        changed.send(()).unwrap();
    });
    let early = proxy.get_with(LISTING, &NO_CACHE);
    let late = async {
        was_changed.await.unwrap();
        let late = proxy.get_with(LISTING, &NO_CACHE);
        let both_wait = async {
            proxy.wait_for_running(2).await;
            valve.release();
        };
        futures::future::join(late, both_wait).await.0
    };
    let (early, late) = futures::future::join(early, late).await;
    assert_eq!(early.body["pagination"]["total"], before.body["pagination"]["total"]);
    assert_ne!(late.text, early.text, "a client sees its own earlier changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_waiting_does_not_stop_the_refresh() {
    let (simulator, valve, proxy) = lasting_with_valve().await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    let before = proxy.get(LISTING).await;
    valve.hold();
    tokio::select! {
        _ = proxy.get_with(LISTING, &NO_CACHE) => panic!("the refresh is held back"),
        () = until("the refresh has started", async || readings(&simulator) == 2) => {}
    }
    valve.release();
    until("the refresh finishes", async || proxy.get(LISTING).await.text != before.text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_current_representation_is_not_sent_again() {
    let (simulator, proxy) = lasting().await;
    let whole = proxy.get(LISTING).await;
    let etag = header(&whole, "etag");
    let same = proxy.get_with(LISTING, &[("If-None-Match", etag)]).await;
    assert_eq!((same.status, same.text.as_str()), (304, ""));
    assert_eq!(header(&same, "etag"), etag);
    for page in 1..=2 {
        let page = proxy.get(&format!("/api/storage-resources/?page_size=1&page={page}")).await;
        assert_eq!(header(&page, "etag"), etag, "all pages of a snapshot have the same tag");
    }
    let fresh = [("If-None-Match", etag), NO_CACHE[0]];
    let read_again = proxy.get_with(LISTING, &fresh).await;
    assert_eq!(read_again.status, 304, "nothing has changed in Waldur");
    assert_eq!(header(&read_again, "last-modified"), header(&whole, "last-modified"));
    assert_eq!(readings(&simulator), 2);
    assert_eq!(proxy.get_with(LISTING, &[("If-None-Match", "\"another\"")]).await.status, 200);
    // An invalid query is still an error.
    assert_eq!(proxy.get_with("/api/storage-resources/?page=0", &[("If-None-Match", "*")]).await.status, 422);
    let id = whole.items()[0]["itemId"].as_str().unwrap();
    let one = format!("/api/storage-resources/{id}/");
    assert_eq!(proxy.get_with(&one, &[("If-None-Match", etag)]).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_is_served_only_if_configured() {
    let (simulator, proxy) = demo_with(&[("CACHE_MAX_STALE", "3600")]).await;
    let right = proxy.get(LISTING).await;
    assert!(!right.headers.contains_key("warning"));
    simulator.set_fault("GET /api/*", Fault::status(503));
    let stale = proxy.get_with(LISTING, &NO_CACHE).await;
    assert_eq!((stale.status, &stale.text), (200, &right.text));
    assert!(header(&stale, "warning").starts_with("110 "), "{:?}", stale.headers);
    assert!(header(&stale, "age").parse::<u64>().is_ok());
    assert!(proxy.log().contains("an upstream cannot be read"), "{}", proxy.log());
    simulator.clear_faults();
    assert!(!proxy.get(LISTING).await.headers.contains_key("warning"), "no warning once Waldur is back");

    let (simulator, proxy) = demo_with(&[]).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    simulator.set_fault("GET /api/*", Fault::status(503));
    proxy.get(LISTING).await.assert_upstream_error("503");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_only_briefly_if_an_old_snapshot_may_be_served() {
    let settings = [("CACHE_MAX_STALE", "3600"), ("WALDUR_TIMEOUT", "20"), ("SERVER_REQUEST_TIMEOUT", "7")];
    let (simulator, proxy) = demo_with(&settings).await;
    let right = proxy.get(LISTING).await;
    simulator.set_fault("GET /api/*", Fault::Silence);
    let ask = async |headers: &[(&str, &str)]| {
        let start = std::time::Instant::now();
        let answer = proxy.get_with(LISTING, headers).await;
        assert_eq!((answer.status, &answer.text), (200, &right.text));
        assert!(header(&answer, "warning").starts_with("110 "), "{:?}", answer.headers);
        start.elapsed()
    };
    // A request with no-cache uses all its time. It runs until the two others have their responses.
    let (insisting, (first, next)) = futures::future::join(ask(&NO_CACHE), async {
        proxy.wait_for_running(1).await;
        let first = ask(&[]).await;
        let next = ask(&[]).await;
        proxy.wait_for_running(1).await;
        (first, next)
    })
    .await;
    assert!(insisting > Duration::from_secs(5), "{insisting:?}");
    assert!(next < first, "the first request waits a moment for the refresh, later ones do not: {next:?}, {first:?}");

    // While the circuit breaker is open.
    let (simulator, proxy) = demo_with(&settings[..1]).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    simulator.set_fault("GET /api/*", Fault::retry_after(503, 3600));
    assert_eq!(proxy.get(LISTING).await.status, 200);
    simulator.clear_requests();
    let stale = proxy.get(LISTING).await;
    assert!(stale.headers.contains_key("warning"));
    assert_eq!(readings(&simulator), 0, "nothing to wait for");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_depend_on_the_offerings_too() {
    let systems = |slug| format!(r#"{{"capstor": "capstor", "new": "{slug}"}}"#);
    let simulator = Simulator::start(World::demo()).await;
    let mut answers = Vec::new();
    for slug in ["one", "two", "one"] {
        answers.push(start_with(&simulator, &[("STORAGE_SYSTEMS", &systems(slug))]).await.get(LISTING).await);
    }
    assert_eq!(answers[0].body["filters_applied"]["offering_slugs"][1], "one");
    assert_ne!(header(&answers[0], "etag"), header(&answers[1], "etag"));
    assert_eq!(header(&answers[0], "etag"), header(&answers[2], "etag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_interval_the_snapshot_is_refreshed_without_requests() {
    let (simulator, proxy) = demo_with(&[("CACHE_MAX_AGE", "3600"), ("CACHE_REFRESH_INTERVAL", "0.05")]).await;
    let before = proxy.get(LISTING).await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    until("the change is visible", async || proxy.get(LISTING).await.text != before.text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_snapshot_are_consistent() {
    let simulator = Simulator::start(World::large(1000)).await;
    let proxy = start_with(&simulator, &[("CACHE_MAX_AGE", "3600")]).await;
    let mut walked = Vec::new();
    for page in 1.. {
        let answer = proxy.get(&format!("/api/storage-resources/?page_size=300&page={page}")).await;
        walked.extend(answer.items().to_vec());
        // Changes in Waldur have no effect.
        simulator.world(|world| drop(world.resources.shift_remove_index(0)));
        if answer.body["pagination"]["has_next"] == false {
            assert_eq!(answer.body["pagination"]["total"], walked.len());
            break;
        }
    }
    let ids: std::collections::HashSet<_> = walked.iter().map(ToString::to_string).collect();
    assert_eq!(ids.len(), walked.len(), "no item twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_compressed_on_request() {
    let (_simulator, proxy) = lasting().await;
    let plain = reqwest::Client::builder().no_gzip().no_zstd().no_proxy().build().unwrap();
    let get = async |accept: &str| {
        let request = plain.get(format!("{}{LISTING}", proxy.base)).header("Accept-Encoding", accept);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["vary"], "Accept-Encoding");
        let coding = response.headers().get("content-encoding").map(|coding| coding.to_str().unwrap().to_owned());
        (coding, response.bytes().await.unwrap())
    };
    let (none, whole) = get("identity").await;
    assert_eq!(none, None);
    for coding in ["gzip", "zstd"] {
        let (named, body) = get(coding).await;
        assert_eq!(named.as_deref(), Some(coding));
        assert!(body.len() * 5 < whole.len(), "{coding}: {} of {}", body.len(), whole.len());
    }
    // The client of the other tests uses compression.
    assert_eq!(proxy.get(LISTING).await.text.as_bytes(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_system_invisible_to_the_token_is_logged_as_an_error() {
    let systems = ("STORAGE_SYSTEMS", r#"{"capstor": "capstor", "typo": "capstr"}"#);
    let (_simulator, proxy) = demo_with(&[systems]).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    let log = proxy.log();
    let count = log.lines().filter(|line| line.contains("the token can see no offering with this slug")).count();
    assert_eq!(count, 1, "once, not with each refresh: {log}");
    assert!(log.contains("capstr"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_like_get_without_the_body() {
    let (_simulator, proxy) = demo_with(&[("CACHE_MAX_AGE", "3600")]).await;
    let client = reqwest::Client::builder().no_proxy().no_gzip().no_zstd().build().unwrap();
    let item = proxy.list("").await.items()[0]["itemId"].as_str().unwrap().to_owned();
    for path in [
        "/api/storage-resources/",
        "/api/storage-resources",
        &format!("/api/storage-resources/{item}/"),
        "/api/storage-resources/?page=0",
        "/api/version",
        "/openapi.json",
        "/docs",
        "/docs/swagger-ui.css",
        "/redoc",
        "/health/live",
        "/health/ready",
        "/nothing",
        "/",
    ] {
        let url = format!("{}{path}", proxy.base);
        let get = client.get(&url).send().await.unwrap();
        let head = client.head(&url).send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        for name in ["content-type", "content-length", "etag", "vary", "cache-control", "content-security-policy"] {
            // The ages in this body change.
            if (path, name) != ("/health/ready", "content-length") {
                assert_eq!(head.headers().get(name), get.headers().get(name), "{path} {name}");
            }
        }
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
    }
}
