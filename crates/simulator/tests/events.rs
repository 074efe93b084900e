//! Registration for Waldur's events. Sessions are tested by the proxy's scenarios.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};
use simulator::world::Release;
use simulator::{PROVIDER_TOKEN, Simulator, World};

async fn register(simulator: &Simulator, token: &str, body: &Value) -> (u16, Value) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/event-consumers/register/", simulator.base_url());
    let request = client.post(url).header("authorization", format!("Token {token}")).body(body.to_string());
    let answer = request.header("content-type", "application/json").send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

#[tokio::test]
async fn a_user_gets_the_same_queue_for_the_same_offerings() {
    let mut world = World::demo();
    let offerings: Vec<_> = world.offerings.keys().copied().collect();
    let stranger = world.token("stranger").unwrap();
    world.release = Release::Newer;
    let simulator = Simulator::start(world).await;
    let body = |offerings: &[uuid::Uuid]| {
        let scope = |uuid: &uuid::Uuid| json!({ "type": "offering", "uuid": uuid });
        json!({ "object_types": ["order"], "scopes": offerings.iter().map(scope).collect::<Vec<_>>() })
    };
    let (status, first) = register(&simulator, PROVIDER_TOKEN, &body(&offerings)).await;
    assert_eq!(status, 201, "{first}");
    let mut reversed = offerings.clone();
    reversed.reverse();
    assert_eq!(register(&simulator, PROVIDER_TOKEN, &body(&reversed)).await, (200, first.clone()));
    let (_, other) = register(&simulator, PROVIDER_TOKEN, &body(&offerings[1..])).await;
    assert_ne!(other["queue_name"], first["queue_name"]);
    assert_eq!(other["vhost"], first["vhost"]);
    assert_eq!(register(&simulator, PROVIDER_TOKEN, &body(&[])).await.0, 403);
    assert_eq!(register(&simulator, &stranger, &body(&offerings)).await.0, 403);
    assert_eq!(register(&simulator, "0", &body(&offerings)).await.0, 401);
    simulator.world(|world| world.release = Release::V7_0);
    assert_eq!(register(&simulator, PROVIDER_TOKEN, &body(&offerings)).await.0, 404);
}
