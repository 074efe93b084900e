//! One snapshot for all: how old answers are, who waits for whom, and what conditional requests get.

use std::time::Duration;

use futures::future::join_all;
use simulator::{Fault, Latency, Simulator, World};

use crate::support::{Answer, Proxy, demo_with, start_with};

const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";
const LISTING: &str = "/api/storage-resources/?page_size=500";
const NO_CACHE: [(&str, &str); 1] = [("Cache-Control", "no-cache")];

fn readings(simulator: &Simulator) -> usize {
    let first_page =
        |request: &simulator::Received| request.path == PROVIDER_LIST && request.query_all("page") == ["1"];
    simulator.requests().iter().filter(|request| first_page(request)).count()
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

/// The demo with a snapshot that lasts for the whole test.
async fn lasting() -> (Simulator, Proxy) {
    demo_with(&[("CACHE_MAX_AGE", "3600")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_reading_does_not_wait_for_the_first_request() {
    let (simulator, proxy) = lasting().await;
    assert_eq!(readings(&simulator), 1);
    assert_eq!(proxy.get(LISTING).await.status, 200);
    assert_eq!(readings(&simulator), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_snapshot_serves_all_and_no_cache_asks_for_a_new_one() {
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
    assert_eq!(proxy.get(LISTING).await.text, fresh.text, "the new one serves all from now on");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_share_one_reading() {
    let (simulator, proxy) = lasting().await;
    simulator.set_latency(Latency { page: Duration::from_millis(300), item: Duration::ZERO, concurrency: None });
    let answers = join_all((0..20).map(|_| proxy.get_with(LISTING, &NO_CACHE))).await;
    let readings = readings(&simulator);
    // Those who come while a reading is under way wait for the next one, which is younger than they are.
    assert!(readings <= 3, "one at the start, one for the first, one for all others: {readings}");
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text == answers[0].text));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_fresh_answer_is_older_than_its_request() {
    let (simulator, proxy) = lasting().await;
    let before = proxy.get(LISTING).await;
    simulator.clear_requests();
    simulator.set_latency(Latency { page: Duration::from_millis(300), item: Duration::ZERO, concurrency: None });
    let early = proxy.get_with(LISTING, &NO_CACHE);
    let late = async {
        // The reading for the early one has the resources already.
        while readings(&simulator) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        simulator.world(|world| drop(world.resources.shift_remove_index(0)));
        proxy.get_with(LISTING, &NO_CACHE).await
    };
    let (early, late) = futures::future::join(early, late).await;
    assert_eq!(early.body["pagination"]["total"], before.body["pagination"]["total"]);
    assert_ne!(late.text, early.text, "whoever changes something and asks again sees the change");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_stops_no_reading() {
    let (simulator, proxy) = lasting().await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    let before = proxy.get(LISTING).await;
    simulator.set_latency(Latency { page: Duration::from_millis(300), item: Duration::ZERO, concurrency: None });
    let impatient = proxy.get_with(LISTING, &NO_CACHE);
    assert!(tokio::time::timeout(Duration::from_millis(100), impatient).await.is_err(), "it was still waiting");
    for _ in 0..100 {
        if proxy.get(LISTING).await.text != before.text {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the reading that nobody waited for was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_is_not_sent_again() {
    let (simulator, proxy) = lasting().await;
    let whole = proxy.get(LISTING).await;
    let etag = header(&whole, "etag");
    let same = proxy.get_with(LISTING, &[("If-None-Match", etag)]).await;
    assert_eq!((same.status, same.text.as_str()), (304, ""));
    assert_eq!(header(&same, "etag"), etag);
    for page in 1..=2 {
        let page = proxy.get(&format!("/api/storage-resources/?page_size=1&page={page}")).await;
        assert_eq!(header(&page, "etag"), etag, "all pages of one reading have one tag");
    }
    let fresh = [("If-None-Match", etag), NO_CACHE[0]];
    let read_again = proxy.get_with(LISTING, &fresh).await;
    assert_eq!(read_again.status, 304, "nothing has changed in Waldur");
    assert_eq!(header(&read_again, "last-modified"), header(&whole, "last-modified"));
    assert_eq!(readings(&simulator), 2);
    assert_eq!(proxy.get_with(LISTING, &[("If-None-Match", "\"another\"")]).await.status, 200);
    // A bad query and a bad token are told all the same.
    assert_eq!(proxy.get_with("/api/storage-resources/?page=0", &[("If-None-Match", "*")]).await.status, 422);
    let id = whole.items()[0]["itemId"].as_str().unwrap();
    let one = format!("/api/storage-resources/{id}/");
    assert_eq!(proxy.get_with(&one, &[("If-None-Match", etag)]).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_stands_in_only_where_the_site_allows_it() {
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
    assert!(!proxy.get(LISTING).await.headers.contains_key("warning"), "as soon as Waldur is back");

    let (simulator, proxy) = demo_with(&[]).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    simulator.set_fault("GET /api/*", Fault::status(503));
    proxy.get(LISTING).await.assert_upstream_error("503");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_long_for_waldur_while_an_old_snapshot_may_stand_in() {
    let settings = [("CACHE_MAX_STALE", "3600"), ("WALDUR_TIMEOUT", "20"), ("SERVER_REQUEST_TIMEOUT", "7")];
    let (simulator, proxy) = demo_with(&settings).await;
    let right = proxy.get(LISTING).await;
    simulator.set_fault("GET /api/*", Fault::Silence);
    for (what, headers, longest) in [
        ("the first one waits for the reading that it begins", &[][..], 3),
        ("the next one finds that it takes long", &[], 1),
        ("one that insists has its time", &NO_CACHE, 7),
    ] {
        let start = std::time::Instant::now();
        let answer = proxy.get_with(LISTING, headers).await;
        let took = start.elapsed();
        assert_eq!((answer.status, &answer.text), (200, &right.text), "{what}");
        assert!(header(&answer, "warning").starts_with("110 "), "{what}");
        assert!(took < Duration::from_secs(longest), "{what}: {took:?}");
        assert_eq!(took > Duration::from_secs(5), longest == 7, "{what}: {took:?}");
    }

    // While Waldur is left alone.
    let (simulator, proxy) = demo_with(&settings[..1]).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    simulator.set_fault("GET /api/*", Fault::retry_after(503, 3600));
    assert_eq!(proxy.get(LISTING).await.status, 200);
    let start = std::time::Instant::now();
    let stale = proxy.get(LISTING).await;
    assert!(stale.headers.contains_key("warning"));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_tell_of_the_offerings_too() {
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
async fn with_an_interval_nobody_waits() {
    let (simulator, proxy) = demo_with(&[("CACHE_MAX_AGE", "3600"), ("CACHE_REFRESH_INTERVAL", "0.05")]).await;
    let before = proxy.get(LISTING).await;
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    for _ in 0..200 {
        if proxy.get(LISTING).await.text != before.text {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the change did not come by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_the_pages_is_consistent() {
    let simulator = Simulator::start(World::large(1000)).await;
    let proxy = start_with(&simulator, &[("CACHE_MAX_AGE", "3600")]).await;
    let mut walked = Vec::new();
    for page in 1.. {
        let answer = proxy.get(&format!("/api/storage-resources/?page_size=300&page={page}")).await;
        walked.extend(answer.items().to_vec());
        // Whatever happens in Waldur meanwhile.
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
async fn answers_are_compressed_for_those_who_ask() {
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
    // The scenarios' own client asks for both and reads them.
    assert_eq!(proxy.get(LISTING).await.text.as_bytes(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_system_that_the_token_does_not_see_is_an_error_in_the_log() {
    let systems = ("STORAGE_SYSTEMS", r#"{"capstor": "capstor", "typo": "capstr"}"#);
    let (_simulator, proxy) = demo_with(&[systems]).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    let log = proxy.log();
    let told = log.lines().filter(|line| line.contains("the token can see no offering with this slug")).count();
    assert_eq!(told, 1, "once, not with each reading: {log}");
    assert!(log.contains("capstr"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_like_get_without_the_body() {
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
