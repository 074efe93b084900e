//! Upstreams that return wrong data, hang, or close the connection early. Each fault has a defined outcome, and the next request
//! works again.

use serde_json::{Value, json};
use simulator::{Fault, Simulator, World};

use crate::support::{demo, demo_with, start_with, until};

const RESOURCES: &str = "GET /api/marketplace-provider-resources/";
const CUSTOMERS: &str = "GET /api/marketplace-provider-offerings/*/customers/";
const ORDERS: &str = "GET /api/marketplace-orders/";
const GIDS: &str = "GET /hpc/*";
const TOKEN: &str = "POST */token";

/// Faults that make every request fail with an upstream error, and a part of the error's text.
fn faults() -> Vec<(Fault, &'static str)> {
    vec![
        (Fault::Reset, ""),
        (Fault::CutOff { after: 5 }, "before the answer was complete"),
        (Fault::not_json(), "not the expected JSON"),
        (Fault::wrong_type(), ""),
        (Fault::status(500), "500"),
        (Fault::status(502), "502"),
        (Fault::status(503), "503"),
        (Fault::retry_after(429, 1), "429"),
        (Fault::redirect("https://elsewhere.example.com/x"), "redirects to https://elsewhere.example.com/x"),
        (Fault::redirect("/api/another/path/"), "redirects to http://127.0.0.1"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_answer_of_waldur_is_never_served_as_a_listing() {
    let (simulator, proxy) = demo().await;
    let expected = proxy.list("?page_size=500").await;
    for route in [RESOURCES, CUSTOMERS, ORDERS] {
        for (fault, words) in faults() {
            simulator.set_fault(route, fault);
            proxy.list("").await.assert_upstream_error(words);
            simulator.clear_faults();
            assert_eq!(proxy.list("?page_size=500").await.items(), expected.items(), "after {words} on {route}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_request_for_customers_is_retried_and_the_pages_are_kept() {
    let simulator = Simulator::start(World::large(700)).await;
    let proxy = start_with(&simulator, &[("WALDUR_TIMEOUT", "3")]).await;
    let expected = proxy.list("?page_size=500").await;
    for fault in [Fault::Silence, Fault::not_json(), Fault::status(501)] {
        simulator.clear_requests();
        simulator.set_fault_times(CUSTOMERS, fault.clone(), 1);
        let fresh = proxy.get_with("/api/storage-resources/?page_size=500", &[("cache-control", "no-cache")]).await;
        assert_eq!((fresh.status, fresh.items()), (200, expected.items()), "{fault:?}: {}", fresh.text);
        let requests = simulator.requests();
        let count = |part: &str| requests.iter().filter(|request| request.path.contains(part)).count();
        let offerings = simulator.world(|world| world.offerings.len());
        assert_eq!(count("/customers/"), offerings + 1, "{fault:?}");
        // The pages are read once; then those that changed meanwhile, which are all: the clock stands still.
        assert_eq!(count("/marketplace-provider-resources/"), 2 * 3, "{fault:?}: the pages are read once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_waldur_token_is_reported_with_the_remedy() {
    let (simulator, proxy) = demo().await;
    for status in [401, 403] {
        simulator.set_fault(RESOURCES, Fault::status(status));
        proxy.list("").await.assert_upstream_error("check WALDUR_API_TOKEN");
        simulator.clear_faults();
    }
    for user in ["inactive", "expired"] {
        let token = simulator.world(|world| world.token(user)).unwrap();
        let proxy = start_with(&simulator, &[("WALDUR_API_TOKEN", &token)]).await;
        proxy.list("").await.assert_upstream_error("check WALDUR_API_TOKEN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_never_followed_with_a_credential() {
    let simulator = Simulator::start(World::demo()).await;
    let thief = Simulator::start(World::demo()).await;
    for route in [RESOURCES, CUSTOMERS, GIDS, TOKEN] {
        simulator.set_fault(route, Fault::redirect(&format!("{}/api/marketplace-resources/", thief.base_url())));
        // A new process has no machine token yet.
        let proxy = start_with(&simulator, &[]).await;
        proxy.list("").await.assert_upstream_error("redirects to");
        simulator.clear_faults();
    }
    assert!(thief.requests().is_empty(), "{:?}", thief.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_or_slow_upstream_times_out() {
    let simulator = Simulator::start(World::demo()).await;
    for route in [RESOURCES, GIDS, TOKEN] {
        for fault in [Fault::Silence, Fault::Dribble { millis: 100 }] {
            simulator.set_fault(route, fault);
            let proxy = start_with(&simulator, &[("WALDUR_TIMEOUT", "0.5"), ("HPC_USER_TIMEOUT", "0.5")]).await;
            proxy.list("").await.assert_upstream_error("no complete answer in time");
            simulator.clear_faults();
            // On a slow machine these timeouts are short even for a healthy upstream.
            until("it recovers", async || proxy.list("").await.status == 200).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_bodies_and_lists_are_limited() {
    let (simulator, proxy) = demo().await;
    let expected = proxy.list("?page_size=500").await;
    simulator.set_fault(GIDS, Fault::EndlessBody);
    proxy.list("").await.assert_upstream_error("larger than");
    simulator.clear_faults();
    simulator.set_fault(RESOURCES, Fault::EndlessBody);
    proxy.list("").await.assert_upstream_error("");
    simulator.clear_faults();
    // The list ends at its count, even if there are links to further pages.
    simulator.set_fault(RESOURCES, Fault::EndlessPages);
    assert_eq!(proxy.list("?page_size=500").await.items(), expected.items());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_records_are_an_error_and_the_last_snapshot_stays() {
    let (simulator, proxy) = demo_with(&[("CACHE_MAX_STALE", "3600")]).await;
    let strict = start_with(&simulator, &[]).await;
    let expected = proxy.list("?page_size=500").await;
    assert!(expected.items().len() > 40, "{}", expected.items().len());
    for rows in ["[1, 2, null]", "[[[]]]", r#"[{"uuid": "\ud800"}]"#, r#"[{"slug": "capstor-store-1"}]"#] {
        simulator.set_fault(RESOURCES, Fault::ok("application/json", rows));
        strict.list("").await.assert_upstream_error("row 1 is not a record");
        let stale = proxy.get_with("/api/storage-resources/?page_size=500", &[("cache-control", "no-cache")]).await;
        assert_eq!((stale.status, stale.items()), (200, expected.items()), "{rows}");
        assert!(stale.headers.contains_key("warning"), "{rows}");
        simulator.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_malformed_record_never_fails_the_listing() {
    let (simulator, proxy) = demo().await;
    let expected = proxy.list("?page_size=500").await;
    let slug = "capstor-store-1";
    let original = simulator.world(|world| world.resource_by_slug(slug).unwrap().clone());
    let id = original.uuid.to_string();
    for (key, value) in [
        ("limits", json!("plenty")),
        ("attributes", json!([1, 2])),
        ("options", json!({"permissions": "rwxrwxr-x"})),
        ("state", json!(5)),
        ("project_slug", json!("../../etc")),
        ("backend_metadata", json!({"project_item": {"itemId": "x"}, "user_item": {"itemId": "x"}})),
    ] {
        simulator.world(|world| world.resource_by_slug_mut(slug).unwrap().set(key, value.clone()));
        let answer = proxy.list("?page_size=500").await;
        assert_eq!(answer.status, 200, "{key}: {}", answer.text);
        let skipped = answer.body["skipped"].as_array().unwrap();
        let named =
            skipped.iter().any(|skipped| skipped["itemId"] == id && skipped["error"] == "MalformedResourceError");
        assert!(named, "{key} {value}: {skipped:?}");
        assert!(answer.items().iter().all(|item| item["itemId"] != id), "{key}: the whole record is skipped");
        // The items of all other resources stay.
        let resource = |item: &&Value| matches!(item["target"]["targetType"].as_str(), Some("project" | "user"));
        for other in expected.items().iter().filter(resource).filter(|item| item["itemId"] != id) {
            assert!(answer.items().contains(other), "{key}: {other} stays");
        }
        simulator.world(|world| *world.resource_by_slug_mut(slug).unwrap() = original.clone());
    }
    for metadata in [json!("a bare text"), json!([1, 2]), json!(7)] {
        simulator.world(|world| world.resource_by_slug_mut(slug).unwrap().set("backend_metadata", metadata));
        assert_eq!(proxy.list("?page_size=500").await.items(), expected.items(), "metadata of any type is accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_recovers_without_a_restart_after_an_upstream_was_unreachable() {
    let (mut simulator, proxy) = demo().await;
    assert_eq!(proxy.list("").await.status, 200);
    simulator.stop();
    proxy.list("").await.assert_upstream_error("Waldur returned no usable answer");
    simulator.restart().unwrap();
    assert_eq!(proxy.list("").await.status, 200);
}
