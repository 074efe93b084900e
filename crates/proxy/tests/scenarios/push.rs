//! Waldur's events. No refresh is due within an hour, so whatever is visible earlier was announced, or follows a connection.

use rustix::process::Signal;
use serde_json::json;
use simulator::{BrokerMode, Fault, PROVIDER_TOKEN, Simulator, World};
use uuid::Uuid;

use crate::support::{Proxy, start_with, until};

const LISTING: &str = "/api/storage-resources/?page_size=500";
const REGISTER: &str = "POST /api/event-consumers/register/";
const ORDERS: &str = "/api/marketplace-orders/";
const RESOURCES: &str = "/api/marketplace-provider-resources/";
const PUSH: [(&str, &str); 5] = [
    ("WALDUR_PUSH", "true"),
    ("CACHE_MAX_AGE", "3600"),
    ("CACHE_REFRESH_INTERVAL", "3000"),
    ("CACHE_FULL_INTERVAL", "7200"),
    ("DEBUG", "true"),
];
/// Refreshes are due when a request comes.
const POLLING: [(&str, &str); 3] = [("WALDUR_PUSH", "true"), ("CACHE_MAX_AGE", "1"), ("DEBUG", "true")];

type Act<'a> = &'a dyn Fn(&Simulator);

async fn running(settings: &[(&str, &str)], prepare: impl FnOnce(&Simulator)) -> (Simulator, Proxy) {
    let mut world = World::demo();
    world.run_clock();
    let simulator = Simulator::start(world).await;
    prepare(&simulator);
    let proxy = start_with(&simulator, settings).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    (simulator, proxy)
}

async fn metric(proxy: &Proxy, name: &str) -> Option<f64> {
    let text = proxy.get("/metrics").await.text;
    let prefix = format!("hpc_storage_proxy_push_{name} ");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).map(|value| value.parse().unwrap())
}

/// Waits until events are received, and until the refreshes that follow a connection are over.
async fn until_quiet(simulator: &Simulator, proxy: &Proxy) {
    until("connected", async || simulator.broker_sessions() == 1 && metric(proxy, "connected").await == Some(1.0))
        .await;
    let refreshes = || simulator.requests().iter().filter(|request| request.path == ORDERS).count();
    let before = refreshes();
    // One at once, if it is not over yet, and one a little later.
    until("the refresh after the connection", async || refreshes() > before).await;
    proxy.get_with(LISTING, &[("cache-control", "no-cache")]).await;
}

fn resource(simulator: &Simulator, slug: &str) -> Uuid {
    simulator.world(|world| world.resource_by_slug(slug).unwrap().uuid)
}

/// Orders a new limit; returns the order.
fn order(simulator: &Simulator, limit: u32) -> Uuid {
    let id = resource(simulator, "capstor-store-1");
    simulator.world(|world| {
        let order = world.order_update_limits(id, json!({"storage": limit})).unwrap();
        world.consumer_approve(order).unwrap();
        order
    })
}

async fn is_visible(proxy: &Proxy, order: Uuid) -> bool {
    proxy.get(LISTING).await.text.contains(&order.simple().to_string())
}

/// Orders, waits until the order is visible, and completes it.
async fn assert_pushed(simulator: &Simulator, proxy: &Proxy, limit: u32) {
    let order = order(simulator, limit);
    until("the order", async || is_visible(proxy, order).await).await;
    simulator.world(|world| {
        world.approve(order, serde_json::Map::new()).unwrap();
        world.set_done(order).unwrap();
    });
    until("its end", async || !is_visible(proxy, order).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_makes_an_order_visible() {
    let (simulator, proxy) = running(&PUSH, |_| {}).await;
    until_quiet(&simulator, &proxy).await;
    assert_pushed(&simulator, &proxy, 71).await;
    assert!(metric(&proxy, "events_total").await.unwrap() >= 2.0);
    assert_eq!(metric(&proxy, "reconnects_total").await, Some(0.0));
    assert_eq!(proxy.get("/health/ready").await.body["push"], "connected");

    // A client that waits is answered.
    let tag = proxy.get(LISTING).await.headers["etag"].to_str().unwrap().to_owned();
    let order = order(&simulator, 72);
    let mut answer = proxy.get_with(LISTING, &[("if-none-match", &tag), ("prefer", "wait=300")]).await;
    // The first event of several may be answered first.
    while !answer.text.contains(&order.simple().to_string()) {
        let tag = answer.headers["etag"].to_str().unwrap().to_owned();
        answer = proxy.get_with(LISTING, &[("if-none-match", &tag), ("prefer", "wait=300")]).await;
    }

    let registrations: Vec<_> =
        simulator.requests().into_iter().filter(|request| request.path.ends_with("/register/")).collect();
    let body: serde_json::Value = serde_json::from_str(&registrations[0].body).unwrap();
    let scopes = body["scopes"].as_array().unwrap();
    assert!(!scopes.is_empty() && scopes.iter().all(|scope| scope["type"] == "offering"), "{body}");
    assert_eq!(body["object_types"], json!(["order", "resource"]));
    assert_eq!(registrations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_before_its_change_is_visible_is_not_lost() {
    let (simulator, proxy) = running(&PUSH, |_| {}).await;
    until_quiet(&simulator, &proxy).await;
    until_idle(&simulator).await;
    let before = proxy.get(LISTING).await.headers["etag"].clone();
    let id = resource(&simulator, "capstor-store-1");
    // The change is visible only after the refresh that its event causes.
    simulator.after_answer(&format!("GET {RESOURCES}"), move |world| {
        let now = world.tick().text();
        let row = world.resources.get_mut(&id).unwrap();
        row.set("limits", json!({"storage": 4321}));
        row.set("modified", now);
    });
    simulator.world(|world| world.announce_resource(id));
    until("the second refresh", async || proxy.get(LISTING).await.headers["etag"] != before).await;
}

/// Waits until no request came for longer than the pause before the second refresh.
async fn until_idle(simulator: &Simulator) {
    loop {
        let before = simulator.requests().len();
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        if simulator.requests().len() == before {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_replaced_and_its_events_are_made_up_for() {
    let (simulator, proxy) = running(&PUSH, |_| {}).await;
    until_quiet(&simulator, &proxy).await;
    let endings: [Act<'_>; 3] = [
        &|simulator| simulator.end_broker_sessions(None),
        &|simulator| simulator.end_broker_sessions(Some(PROVIDER_TOKEN)),
        &Simulator::delete_queues,
    ];
    for (round, end) in endings.into_iter().enumerate() {
        end(&simulator);
        until("disconnected", async || simulator.broker_sessions() == 0).await;
        // Its event is lost with a deleted queue.
        let order = order(&simulator, 80);
        until("the order", async || is_visible(&proxy, order).await).await;
        until("connected", async || simulator.broker_sessions() == 1).await;
        simulator.world(|world| world.cancel(order).unwrap());
        assert_pushed(&simulator, &proxy, 90 + u32::try_from(round).unwrap()).await;
    }
    assert!(metric(&proxy, "reconnects_total").await.unwrap() >= 3.0);
    let log = proxy.log();
    assert!(log.contains("the broker refuses: no reason given"), "{log}");
    assert!(log.contains("the broker refuses: Server cancelled subscription"), "{log}");
    assert!(!log.contains(PROVIDER_TOKEN), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_as_before_while_the_broker_is_away() {
    let faults: [(Act<'_>, &str); 6] = [
        (&|simulator| simulator.set_broker(BrokerMode::RefusesLogins), "the broker refuses: Bad CONNECT"),
        (
            &|simulator| simulator.set_fault(REGISTER, Fault::status(404)),
            "this Waldur has no events for this token (404 Not Found); update Waldur",
        ),
        (&|simulator| simulator.set_fault(REGISTER, Fault::status(403)), "(403 Forbidden)"),
        (&|simulator| simulator.set_fault(REGISTER, Fault::ok("application/json", "{}")), "cannot register for events"),
        (
            &|simulator| simulator.set_fault("GET /rmqws-stomp", Fault::status(404)),
            "is not a WebSocket with the protocol v12.stomp (it answered 404 Not Found)",
        ),
        (
            &|simulator| simulator.set_fault("GET /rmqws-stomp", Fault::redirect("http://127.0.0.1:1/")),
            "(it answered 302 Found)",
        ),
    ];
    for (fault, reason) in faults {
        let (simulator, proxy) = running(&POLLING, fault).await;
        until(reason, async || proxy.log().contains(reason)).await;
        let order = order(&simulator, 75);
        until("the order by polling", async || is_visible(&proxy, order).await).await;
        let ready = proxy.get("/health/ready").await;
        assert_eq!((ready.status, &ready.body["push"]), (200, &json!("away")));
        assert_eq!(metric(&proxy, "connected").await, Some(0.0));
        let log = proxy.log();
        assert_eq!(log.matches("no events from Waldur; changes are found by polling").count(), 1, "{log}");
        assert!(!log.contains(PROVIDER_TOKEN), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_replaces_the_session() {
    let (simulator, proxy) = running(&PUSH, |_| {}).await;
    until_quiet(&simulator, &proxy).await;
    let sessions = || simulator.requests().iter().filter(|request| request.path == "/rmqws-stomp").count();
    assert_eq!(sessions(), 1);
    std::fs::write(proxy.directory().join(".env"), "SERVER_MAX_WAITING=77\n").unwrap();
    proxy.signal(Signal::HUP);
    until("a second session", async || sessions() == 2 && simulator.broker_sessions() == 1).await;
    assert_pushed(&simulator, &proxy, 76).await;
    std::fs::write(proxy.directory().join(".env"), "SERVER_MAX_WAITING=78\n").unwrap();
    proxy.signal(Signal::TERM);
    until("its end", async || simulator.broker_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nothing_is_registered() {
    let (simulator, proxy) = running(&PUSH[1..], |_| {}).await;
    let order = order(&simulator, 77);
    assert!(!is_visible(&proxy, order).await);
    assert_eq!(metric(&proxy, "connected").await, None);
    assert_eq!(proxy.get("/health/ready").await.body["push"], json!(null));
    assert!(!simulator.requests().iter().any(|request| request.path.contains("event-consumers")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_cause_few_refreshes() {
    let (simulator, proxy) = running(&PUSH, |_| {}).await;
    until_quiet(&simulator, &proxy).await;
    until_idle(&simulator).await;
    simulator.clear_requests();
    let id = resource(&simulator, "capstor-store-1");
    let begun = std::time::Instant::now();
    let mut answers = 0;
    while begun.elapsed() < std::time::Duration::from_secs(3) {
        simulator.world(|world| world.announce_resource(id));
        assert_eq!(proxy.get(LISTING).await.status, 200);
        answers += 1;
    }
    let refreshes = simulator.requests().iter().filter(|request| request.path == ORDERS).count();
    // One for each half second.
    assert!(refreshes <= 8, "{refreshes} refreshes, {answers} answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_after_each_event_are_opened_at_growing_intervals() {
    let (simulator, proxy) = running(&PUSH, |_| {}).await;
    until_quiet(&simulator, &proxy).await;
    let id = resource(&simulator, "capstor-store-1");
    let begun = std::time::Instant::now();
    for events in 1..=4 {
        simulator.world(|world| world.announce_resource(id));
        until("the event", async || metric(&proxy, "events_total").await == Some(f64::from(events))).await;
        simulator.end_broker_sessions(None);
        until("disconnected", async || simulator.broker_sessions() == 0).await;
        if events < 4 {
            until("connected", async || simulator.broker_sessions() == 1).await;
        }
    }
    // At least 1, 2 and 4 s.
    assert!(begun.elapsed() >= std::time::Duration::from_secs(7), "{:?}", begun.elapsed());
}
