//! Deadlines and the request limit.

use std::time::{Duration, Instant};

use futures::future::join_all;
use simulator::{Client, Fault, Simulator, World};

use crate::bench::until;
use crate::support::{demo_with, start_with};
use crate::table::Upstream;

const LISTING: &str = "/api/storage-resources/?page_size=500";
const FRESH: [(&str, &str); 1] = [("Cache-Control", "no-cache")];
/// Much longer than the deadline of one second, and shorter than the timeout of an exchange.
const SOON: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_within_their_deadline() {
    let settings = [("SERVER_REQUEST_TIMEOUT", "1"), ("WALDUR_TIMEOUT", "600")];
    let (simulator, strict) = demo_with(&settings).await;
    let lenient = start_with(&simulator, &[&settings[..], &[("CACHE_MAX_STALE", "3600")]].concat()).await;
    let right = lenient.get_with(LISTING, &[]).await;
    assert_eq!(right.status, 200, "{}", right.text);
    simulator.set_fault(Upstream::Resources.route(), Fault::Silence);
    let begin = Instant::now();
    let late = strict.get_with(LISTING, &FRESH).await;
    assert_eq!((late.status, &late.body["error"]), (504, &"UpstreamServiceError".into()), "{}", late.text);
    assert!(late.text.contains("server.request_timeout"), "{}", late.text);
    let stale = lenient.get_with(LISTING, &FRESH).await;
    assert_eq!((stale.status, stale.items()), (200, right.items()), "{}", stale.text);
    assert!(stale.headers["warning"].to_str().unwrap().starts_with("110 "));
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_above_the_limit_gets_retry_after() {
    let (simulator, proxy) = demo_with(&[("SERVER_MAX_REQUESTS", "2"), ("WALDUR_TIMEOUT", "60")]).await;
    simulator.set_fault(Upstream::Resources.route(), Fault::Hold);
    let waiting = join_all([proxy.get_with(LISTING, &FRESH), proxy.get_with(LISTING, &FRESH)]);
    let refused = async {
        // A probe that arrives before both of them would take the place of one.
        while !proxy.get_with("/metrics", &[]).await.text.contains("hpc_storage_proxy_requests_running 2") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = proxy.get_with("/api/storage-resources/?page=0", &[]).await;
        simulator.clear_faults();
        refused
    };
    let (served, refused) = futures::future::join(waiting, refused).await;
    assert!(served.iter().all(|answer| answer.status == 200), "the requests within the limit are served");
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body["error"], "ServiceOverloaded", "{}", refused.text);
    assert_eq!(proxy.list("").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_token_that_expires_between_two_readings_is_replaced() {
    let simulator = Simulator::start(World::demo()).await;
    // Tokens expire after a second and do not say so: the proxy learns it from the refusal.
    let client = Client { returns_lifetime: false, ..Client::new("hpc-client", "hpc-secret").lifetime(1) };
    simulator.realm().register(client);
    let proxy = start_with(&simulator, &[]).await;
    let right = proxy.list("?page_size=500").await;
    assert_eq!(right.status, 200, "{}", right.text);
    let token = |request: &simulator::Received| {
        request.path.starts_with("/hpc/").then(|| request.header("authorization").unwrap().replace("Bearer ", ""))
    };
    // On a slow machine the first token may have expired and been replaced already.
    let last = simulator.requests().iter().rev().find_map(token).unwrap();
    until("the token to expire", || !simulator.realm().is_active(&last)).await;
    simulator.clear_requests();
    assert_eq!(proxy.list("?page_size=500").await.items(), right.items());
    let statuses: Vec<_> =
        simulator.requests().iter().filter(|request| token(request).is_some()).map(|request| request.status).collect();
    assert_eq!(statuses, [Some(401), Some(200)], "refused once, then accepted with a new token");
}
