//! Every fault as a client sees it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use simulator::{Fault, Latency, PROVIDER_TOKEN, Simulator, World};

const LIST: &str = "/api/marketplace-provider-resources/";

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

async fn list(sim: &Simulator, query: &str) -> reqwest::Result<Response> {
    let url = format!("{}{LIST}?page_size=10&field=uuid{query}", sim.base_url());
    client().get(url).header("Authorization", format!("Token {PROVIDER_TOKEN}")).send().await
}

async fn started(fault: Fault) -> Simulator {
    let sim = Simulator::start(World::large(100)).await;
    sim.set_fault(&format!("GET {LIST}"), fault);
    sim
}

/// The answer without the fault: ten rows.
async fn normal_answer(sim: &Simulator) -> Vec<u8> {
    sim.clear_faults();
    list(sim, "").await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn answer_replaces_the_normal_answer() {
    let sim = started(Fault::not_json()).await;
    let answer = list(&sim, "").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.json::<Value>().await.is_err());
    sim.set_fault("*", Fault::wrong_type());
    assert_eq!(list(&sim, "").await.unwrap().json::<Value>().await.unwrap(), json!(42));
    sim.set_fault("*", Fault::redirect("http://127.0.0.1:1/elsewhere/"));
    let answer = list(&sim, "").await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.headers()["location"], "http://127.0.0.1:1/elsewhere/");
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&normal_answer(&sim).await).unwrap().len(), 10);
}

#[tokio::test]
async fn a_pattern_with_a_query_matches_one_page() {
    let sim = Simulator::start(World::large(100)).await;
    sim.set_fault("*?*page=2*", Fault::status(500));
    assert_eq!(list(&sim, "&page=1").await.unwrap().status(), 200);
    assert_eq!(list(&sim, "&page=2").await.unwrap().status(), 500);
    assert_eq!(list(&sim, "&page=3").await.unwrap().status(), 200);
}

#[tokio::test]
async fn silence_never_answers() {
    let sim = started(Fault::Silence).await;
    let answer = tokio::time::timeout(Duration::from_millis(300), list(&sim, "")).await;
    assert!(answer.is_err(), "there was an answer");
    assert_eq!(sim.requests()[0].status, None);
}

#[tokio::test]
async fn delay_postpones_the_normal_answer() {
    let sim = started(Fault::delay(Duration::from_millis(200))).await;
    let began = tokio::time::Instant::now();
    let body = list(&sim, "").await.unwrap().bytes().await.unwrap().to_vec();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(body, normal_answer(&sim).await);
}

#[tokio::test]
async fn dribble_sends_single_bytes() {
    let sim = started(Fault::Dribble { millis: 1 }).await;
    let answer = list(&sim, "&page=10").await.unwrap();
    let length = answer.content_length().unwrap();
    let mut chunks = answer.bytes_stream();
    let (mut bytes, mut number) = (0, 0_u64);
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.unwrap().len() as u64;
        number += 1;
    }
    assert_eq!(bytes, length);
    assert!(number > 10, "{number} pieces of {length} bytes");
}

#[tokio::test]
async fn cut_off_closes_the_connection_within_the_body() {
    let sim = started(Fault::CutOff { after: 25 }).await;
    let answer = list(&sim, "").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.content_length().unwrap() > 25);
    let mut chunks = answer.bytes_stream();
    assert_eq!(chunks.next().await.unwrap().unwrap().len(), 25);
    assert!(chunks.next().await.unwrap().is_err());
}

#[tokio::test]
async fn reset_sends_no_answer() {
    let sim = started(Fault::Reset).await;
    let error = list(&sim, "").await.unwrap_err();
    assert!(error.is_request() && !error.is_connect() && !error.is_timeout(), "{error:?}");
    assert!(!normal_answer(&sim).await.is_empty());
}

#[tokio::test]
async fn an_endless_body_does_not_end() {
    let sim = started(Fault::EndlessBody).await;
    let mut chunks = list(&sim, "").await.unwrap().bytes_stream();
    let mut bytes = 0;
    while bytes < 5_000_000 {
        bytes += chunks.next().await.unwrap().unwrap().len();
    }
}

#[tokio::test]
async fn endless_pages_always_have_a_next() {
    let sim = started(Fault::EndlessPages).await;
    for page in [1, 10, 11, 5_000] {
        let answer = list(&sim, &format!("&page={page}")).await.unwrap();
        assert_eq!(answer.status(), 200);
        let link = answer.headers()["link"].to_str().unwrap().to_owned();
        assert!(link.contains(&format!("page={}&page_size=10>; rel=\"next\"", page + 1)), "{link}");
        assert_eq!(answer.json::<Vec<Value>>().await.unwrap().len(), 10);
    }
}

#[tokio::test]
async fn removed_rows_make_a_reader_miss_others() {
    let sim = Simulator::start(World::large(100)).await;
    let uuids: Vec<String> = sim.world(|world| world.resources.keys().map(|id| id.simple().to_string()).collect());
    sim.set_fault_times(LIST, Fault::LoseRows { rows: 10 }, 1);
    assert_eq!(list(&sim, "&page=1").await.unwrap().headers()["x-result-count"], "100");
    let second = list(&sim, "&page=2").await.unwrap();
    assert_eq!(second.headers()["x-result-count"], "90");
    let second: Vec<Value> = second.json().await.unwrap();
    assert_eq!(second[0]["uuid"], uuids[20].as_str(), "rows 11 to 20 were skipped");
}

#[tokio::test]
async fn latency_depends_on_pages_rows_and_workers() {
    let sim = Simulator::start(World::large(100)).await;
    let latency = Latency { page: Duration::from_millis(30), item: Duration::from_millis(2), concurrency: Some(1) };
    sim.set_latency(latency);
    let began = tokio::time::Instant::now();
    let (a, b) = tokio::join!(list(&sim, "&page=1"), list(&sim, "&page=2"));
    assert!(a.unwrap().status() == 200 && b.unwrap().status() == 200);
    assert!(began.elapsed() >= Duration::from_millis(100), "one worker takes 50 ms for each of two pages");
}

#[tokio::test]
async fn a_shell_can_set_and_clear_faults() {
    let sim = Simulator::start(World::large(10)).await;
    let faults = format!("{}/_simulator/faults", sim.base_url());
    let rule = json!({ "route": "GET /api/*", "times": 5,
        "fault": { "kind": "answer", "status": 503, "headers": [["Retry-After", "2"]] } });
    assert_eq!(client().post(&faults).body(rule.to_string()).send().await.unwrap().status(), 204);
    let answer = list(&sim, "").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    let listed: Value = client().get(&faults).send().await.unwrap().json().await.unwrap();
    assert_eq!(listed[0]["times"], 4);
    assert_eq!(client().delete(&faults).send().await.unwrap().status(), 204);
    assert_eq!(list(&sim, "").await.unwrap().status(), 200);

    let wrong = client().post(&faults).body(r#"{"route": "*", "fault": {"kind": "earthquake"}}"#).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    let answer: Value = wrong.json().await.unwrap();
    assert!(answer["detail"].as_str().unwrap().contains("earthquake") && answer["example"].is_object());

    let log: Value =
        client().get(format!("{}/_simulator/requests", sim.base_url())).send().await.unwrap().json().await.unwrap();
    let statuses: Vec<&Value> = log.as_array().unwrap().iter().map(|request| &request["status"]).collect();
    assert_eq!(statuses, [503, 200], "requests below /_simulator/ are not logged");

    let before = sim.realm().kids();
    let rotate = format!("{}/_simulator/rotate-keys", sim.base_url());
    let answer: Value = client().post(rotate).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["kept_old"], false);
    assert_eq!(sim.realm().kids(), [answer["kid"].as_str().unwrap()]);
    assert_ne!(sim.realm().kids(), before);
}

#[tokio::test]
async fn the_world_can_change_between_two_pages() {
    let sim = Simulator::start(World::large(100)).await;
    sim.after_answer("*?*page=1*", |world| {
        for row in world.resources.values_mut().take(10) {
            row.set_state(simulator::world::ResourceState::Erred);
        }
    });
    let count = async |page: u32| {
        let answer = list(&sim, &format!("&state=OK&page={page}")).await.unwrap();
        answer.headers()["x-result-count"].to_str().unwrap().parse::<usize>().unwrap()
    };
    let (first, second, again) = (count(1).await, count(2).await, count(1).await);
    assert_eq!((first - 10, second), (second, again), "changed once, after the first page");
}
