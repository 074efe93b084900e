//! Liveness and readiness.

use std::time::Duration;

use serde_json::Value;
use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};

use crate::support::{Answer, Proxy, Valve, demo, start_with};

const LIST: &str = "GET /api/marketplace-provider-resources/";

/// Polls until the expected status.
async fn until(proxy: &Proxy, status: u16) -> Answer {
    for _ in 0..6000 {
        let answer = proxy.get("/health/ready").await;
        if answer.status == status {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("/health/ready never returns {status}:\n{}", proxy.log());
}

fn upstream<'a>(answer: &'a Answer, name: &str) -> &'a Value {
    answer.body["upstreams"].as_array().unwrap().iter().find(|upstream| upstream["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_ready_once_it_has_read_everything() {
    let simulator = Simulator::start(World::demo()).await;
    let valve = Valve::start(&simulator).await;
    valve.hold();
    let url = valve.waldur();
    let settings = [("WALDUR_API_URL", url.as_str()), ("WALDUR_TIMEOUT", "60")];
    let proxy = start_with(&simulator, &settings).await;
    let early = proxy.get("/health/ready").await;
    assert_eq!((early.status, &early.body["ready"]), (503, &Value::Bool(false)), "{}", early.text);
    assert_eq!(early.body["reasons"][0], "the first refresh is still running");
    assert_eq!(early.body["snapshot"]["age_s"], Value::Null);
    assert_eq!(proxy.get("/health/live").await.status, 200);
    valve.release();
    let ready = until(&proxy, 200).await;
    assert_eq!(ready.body["ready"], true);
    assert_eq!(ready.body["reasons"].as_array().unwrap().len(), 0);
    assert_eq!(ready.body["snapshot"]["last_refresh"], "succeeded");
    assert!(ready.body["snapshot"]["age_s"].is_number());
    assert_eq!(ready.body["keys"], Value::Null, "authentication is disabled");
    for name in ["Waldur", "HPC User API", "HPC User API's token endpoint"] {
        let upstream = upstream(&ready, name);
        assert!(upstream["last_success_s"].is_number() && upstream["last_failure_s"].is_null(), "{upstream}");
        assert_eq!(upstream["breaker"], "closed");
    }
    assert_eq!(ready.headers["cache-control"], "no-store");
    assert_eq!(ready.headers["x-content-type-options"], "nosniff");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_requests_becomes_ready_when_waldur_is_back() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault(LIST, Fault::status(500));
    let proxy = start_with(&simulator, &[]).await;
    while !proxy.log().contains("cannot be read") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let down = proxy.get("/health/ready").await;
    assert_eq!(down.status, 503, "{}", down.text);
    assert_eq!(down.body["reasons"][0], "no refresh has succeeded yet");
    assert!(upstream(&down, "Waldur")["last_failure_s"].is_number(), "{}", down.text);
    assert_eq!(proxy.get("/health/live").await.status, 200, "a restart would not help");
    simulator.clear_faults();
    // Without API requests and without an interval: the probes suffice.
    until(&proxy, 200).await;
    assert!(!proxy.log().contains("/health"), "probes are not in the log: {}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_failure_does_not_make_the_proxy_unready() {
    let (simulator, proxy) = demo().await;
    simulator.set_fault(LIST, Fault::status(500));
    assert_eq!(proxy.list("").await.status, 502);
    let answer = proxy.get("/health/ready").await;
    assert_eq!((answer.status, &answer.body["snapshot"]["last_refresh"]), (200, &Value::from("failed")));
    assert!(upstream(&answer, "Waldur")["last_failure_s"].is_number());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_of_the_realm_the_proxy_is_not_ready() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault("GET /auth/*", Fault::status(500));
    let proxy = start_with(&simulator, &[("DISABLE_AUTH", "false")]).await;
    while !proxy.log().contains("the catalogue is read") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = proxy.get("/health/ready").await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.body["reasons"], serde_json::json!(["the realm's keys have not been fetched yet"]));
    simulator.clear_faults();
    let answer = until(&proxy, 200).await;
    assert_eq!(answer.body["keys"]["usable"], true);
    assert!(upstream(&answer, "Keycloak")["last_success_s"].is_number());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_work_at_the_request_limit_and_show_no_secrets() {
    let simulator = Simulator::start(World::demo()).await;
    let valve = Valve::start(&simulator).await;
    let url = valve.waldur();
    let settings = [("WALDUR_API_URL", url.as_str()), ("WALDUR_TIMEOUT", "60"), ("SERVER_MAX_REQUESTS", "1")];
    let proxy = start_with(&simulator, &settings).await;
    assert_eq!(proxy.list("").await.status, 200);
    valve.hold();
    let (slow, probes) = tokio::join!(proxy.list(""), async {
        proxy.wait_for_running(1).await;
        assert_eq!(proxy.list("").await.status, 503);
        let probes = (proxy.get("/health/live").await, proxy.get("/health/ready/").await, proxy.get("/metrics").await);
        valve.release();
        probes
    });
    assert_eq!(slow.status, 200, "{}", slow.text);
    for answer in [probes.0, probes.1, probes.2] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        for secret in [PROVIDER_TOKEN, "hpc-secret", "http://", "127.0.0.1"] {
            assert!(!answer.text.contains(secret), "{secret} is in {}", answer.text);
        }
        let projects: Vec<_> =
            simulator.world(|world| world.projects.values().map(|project| project.slug.clone()).collect());
        assert!(projects.len() > 3);
        for project in projects {
            assert!(!answer.text.contains(&project), "{project} is in {}", answer.text);
        }
    }
}
