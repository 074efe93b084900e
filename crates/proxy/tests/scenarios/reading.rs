//! Reading Waldur: few requests, complete data, with the tokens of a service provider or of staff.

use std::collections::HashSet;

use simulator::world::Release;
use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};

use crate::support::{demo, demo_with, start_with};

const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";
const STAFF_LIST: &str = "/api/marketplace-resources/";

#[tokio::test(flavor = "multi_thread")]
async fn only_needed_fields_are_requested_over_few_connections() {
    let simulator = Simulator::start(World::large(1000)).await;
    let proxy = start_with(&simulator, &[("WALDUR_AGENT_HEADER", "our-centre/1")]).await;
    // The first request shares the refresh at the start, or comes after it.
    assert_eq!(proxy.list("").await.status, 200);
    // Pages of all resources, not of changed ones.
    let is_page =
        |request: &&simulator::Received| request.path == PROVIDER_LIST && request.query_all("modified").is_empty();
    let at_start = simulator.requests().iter().filter(is_page).count();
    for _ in 0..2 {
        assert_eq!(proxy.list("").await.status, 200);
    }
    let requests = simulator.requests();
    let pages: Vec<_> = requests.iter().filter(is_page).collect();
    assert_eq!(pages.len() - at_start, 2 * 4, "1,000 resources are four pages of 300");
    for page in &pages {
        assert_eq!(page.query_all("page_size"), ["300"]);
        assert_eq!(page.query_all("o"), ["created,name"]);
        assert_eq!(page.query_all("visible_to_providers"), ["true"]);
        assert_eq!(page.query_all("offering_slug"), ["capstor,vast,iopsstor"]);
        assert!(!page.query_all("field").contains(&"order_in_progress"), "orders are read from their own list");
        assert!(!page.query_all("field").contains(&"report"));
        assert_eq!(page.header("authorization"), Some(format!("Token {PROVIDER_TOKEN}").as_str()));
        assert_eq!(page.header("user-agent"), Some("our-centre/1"));
    }
    let connections: HashSet<_> = requests.iter().map(|request| request.connection).collect();
    assert!(connections.len() <= 16, "{} requests over {} connections", requests.len(), connections.len());
    let tokens = requests.iter().filter(|request| request.path.ends_with("/token")).count();
    assert_eq!(tokens, 1, "one machine token for all requests");
    let hpc: Vec<_> = requests.iter().filter(|request| request.path.starts_with("/hpc/")).collect();
    assert!(!hpc.is_empty() && hpc.len() <= 250_usize.div_ceil(25), "GIDs come in batches, and once: {}", hpc.len());
    assert!(hpc.iter().all(|request| request.header("user-agent").unwrap().starts_with("hpc-storage-proxy/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_providers_token_is_sufficient_and_a_staff_token_works_too() {
    let (simulator, proxy) = demo().await;
    let provider = proxy.list("?page_size=500").await;
    assert!(provider.items().len() > 40, "{}", provider.items().len());
    assert!(simulator.requests().iter().all(|request| request.path != STAFF_LIST));
    let token = simulator.world(|world| world.token("staff")).unwrap();
    let proxy = start_with(&simulator, &[("WALDUR_API_TOKEN", &token)]).await;
    assert_eq!(proxy.list("?page_size=500").await.items(), provider.items());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_provider_endpoint_the_staff_endpoint_is_used() {
    let simulator = Simulator::start(World::demo()).await;
    let token = simulator.world(|world| world.token("staff")).unwrap();
    let before = start_with(&simulator, &[("WALDUR_API_TOKEN", &token)]).await.list("?page_size=500").await;
    simulator.set_fault(&format!("GET {PROVIDER_LIST}"), Fault::status(404));
    let proxy = start_with(&simulator, &[("WALDUR_API_TOKEN", &token)]).await;
    let after = proxy.list("?page_size=500").await;
    assert_eq!(after.items(), before.items());
    assert!(proxy.log().contains("no provider endpoint"), "{}", proxy.log());
    // A provider's own token sees nothing there.
    let proxy = start_with(&simulator, &[]).await;
    assert_eq!(proxy.list("").await.items().len(), 0);
    assert!(proxy.log().contains("the staff endpoint lists no resources"), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_outdated_waldur_are_all_skipped() {
    let mut world = World::demo();
    world.release = Release::V7_0;
    let simulator = Simulator::start(world).await;
    let proxy = start_with(&simulator, &[]).await;
    let answer = proxy.list("").await;
    assert_eq!((answer.status, answer.items().len()), (200, 0));
    let skipped = answer.body["skipped"].as_array().unwrap();
    assert!(skipped.len() > 20);
    assert!(skipped.iter().all(|skipped| skipped["error"] == "MalformedResourceError"), "{}", answer.text);
    assert_eq!(proxy.get_with("/api/storage-resources/", &[("cache-control", "no-cache")]).await.status, 200);
    assert_eq!(proxy.log().matches("this Waldur is too old").count(), 1, "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_between_pages_cause_another_read() {
    let simulator = Simulator::start(World::large(1000)).await;
    // Sequential pages, so that the later ones are read after the change.
    let proxy = start_with(&simulator, &[("WALDUR_PAGES_AT_ONCE", "1")]).await;
    // The refresh at the start must not see the fault.
    assert_eq!(proxy.list("").await.status, 200);
    simulator.clear_requests();
    simulator.set_fault_times(&format!("GET {PROVIDER_LIST}"), Fault::LoseRows { rows: 10 }, 1);
    let answer = proxy.list("").await;
    assert_eq!(answer.status, 200);
    let pages = simulator.requests().iter().filter(|request| request.path == PROVIDER_LIST).count();
    assert!(pages > 4, "the list was read again: {pages} pages");
    let fresh = proxy.list("").await;
    assert_eq!(answer.body["pagination"]["total"], fresh.body["pagination"]["total"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_changes_at_every_read_is_an_error() {
    let simulator = Simulator::start(World::large(1000)).await;
    let proxy = start_with(&simulator, &[("WALDUR_PAGES_AT_ONCE", "1")]).await;
    assert_eq!(proxy.list("").await.status, 200);
    simulator.set_fault(&format!("GET {PROVIDER_LIST}"), Fault::LoseRows { rows: 1 });
    proxy.list("").await.assert_upstream_error("changed while it was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_that_waldur_does_not_list_are_taken_from_the_resources() {
    let (simulator, proxy) = demo().await;
    let listed = proxy.list("?page_size=500").await;
    for status in [403, 404] {
        simulator.set_fault("GET /api/marketplace-provider-offerings/*/customers/", Fault::status(status));
        let derived = proxy.list("?page_size=500").await;
        assert_eq!(derived.items(), listed.items(), "{status}");
        simulator.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_debug_the_log_shows_mapping_and_exchanges_and_no_secret() {
    let (_simulator, proxy) = demo_with(&[("DEBUG", "true")]).await;
    assert_eq!(proxy.list("").await.status, 200);
    let log = proxy.log();
    assert!(log.contains("mapped") && log.contains("/capstor/"), "{log}");
    assert!(log.contains("upstream exchange") && log.contains(PROVIDER_LIST), "{log}");
    for secret in [PROVIDER_TOKEN, "hpc-secret", "eyJ"] {
        assert!(!log.contains(secret), "the log shows {secret}");
    }
}
