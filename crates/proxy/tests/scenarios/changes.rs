//! Refreshes that read only what changed in Waldur.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use simulator::world::{OrderState, Release, Resource, ResourceState};
use simulator::{Fault, Received, Simulator, World};
use uuid::Uuid;

use crate::support::{Answer, Proxy, demo, demo_with, start_with, until};

const LISTING: &str = "/api/storage-resources/?page_size=500";
const NO_CACHE: [(&str, &str); 1] = [("cache-control", "no-cache")];
const ORDERS: &str = "/api/marketplace-orders/";
const RESOURCES: &str = "/api/marketplace-provider-resources/";
/// The interval of full readings is longer than any test.
const CHANGES: (&str, &str) = ("CACHE_FULL_INTERVAL", "3600");
/// Each refresh reads everything.
const FULL: (&str, &str) = ("CACHE_FULL_INTERVAL", "0");

/// Waldur's clock runs, so that refreshes need not read old changes again.
async fn running(mut world: World, more: &[(&str, &str)]) -> (Simulator, Proxy) {
    world.run_clock();
    let simulator = Simulator::start(world).await;
    let proxy = start_with(&simulator, &[&[CHANGES], more].concat()).await;
    assert_eq!(proxy.get(LISTING).await.status, 200);
    (simulator, proxy)
}

async fn fresh(proxy: &Proxy) -> Answer {
    proxy.get_with(LISTING, &NO_CACHE).await
}

/// Paths of the requests to Waldur since the last call.
fn requests(simulator: &Simulator) -> Vec<String> {
    let requests = simulator.requests();
    simulator.clear_requests();
    let waldur = requests.iter().filter(|request| request.path.starts_with("/api/"));
    waldur.map(|request| request.path.clone()).collect()
}

fn is_full(request: &Received) -> bool {
    request.path == RESOURCES && request.query_all("modified").is_empty()
}

fn resource(simulator: &Simulator, slug: &str) -> Uuid {
    simulator.world(|world| world.resource_by_slug(slug).unwrap().uuid)
}

fn item(answer: &Answer, id: Uuid) -> Option<Value> {
    answer.items().iter().find(|item| item["itemId"] == id.to_string()).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_without_changes_is_two_requests() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    let before = fresh(&proxy).await;
    requests(&simulator);
    for _ in 0..3 {
        let after = fresh(&proxy).await;
        assert_eq!(after.headers["etag"], before.headers["etag"]);
        assert_eq!(requests(&simulator), [ORDERS, RESOURCES]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_without_changed_settings_reads_everything() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    let id = resource(&simulator, "capstor-store-1");
    simulator.world(|world| {
        let project = world.resources[&id].project;
        world.projects[&project].slug = String::from("renamed");
        world.hpc.add_project("renamed", Some(4711));
    });
    let path = |answer: &Answer| item(answer, id).unwrap()["mountPoint"]["default"].as_str().unwrap().to_owned();
    assert!(!path(&fresh(&proxy).await).contains("renamed"), "a refresh can see the new slug");
    proxy.signal(Signal::HUP);
    until("the settings are in force", async || proxy.log().contains("the settings are in force")).await;
    // Also for a client that accepts older data.
    assert!(path(&proxy.get(LISTING).await).contains("renamed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_read_once_more_when_its_order_changes() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    let id = resource(&simulator, "capstor-store-1");
    fresh(&proxy).await;
    requests(&simulator);
    let order = simulator.world(|world| world.order_update_limits(id, json!({"storage": 77})).unwrap());
    simulator.world(|world| world.force_order(order, OrderState::PendingProvider));
    let ordered = item(&fresh(&proxy).await, id).unwrap();
    assert!(ordered["approve_by_provider_url"].as_str().unwrap().contains(&order.simple().to_string()), "{ordered}");
    assert_eq!(requests(&simulator), [ORDERS.to_owned(), RESOURCES.to_owned(), format!("{RESOURCES}{}/", id.simple())]);
    simulator.world(|world| world.approve(order, Map::new()).unwrap());
    let approved = item(&fresh(&proxy).await, id).unwrap();
    assert_eq!((&approved["status"], &approved["approve_by_provider_url"]), (&json!("updating"), &Value::Null));
    simulator.world(|world| world.set_done(order).unwrap());
    let done = item(&fresh(&proxy).await, id).unwrap();
    assert_eq!((&done["status"], &done["set_state_done_url"]), (&json!("active"), &Value::Null), "{done}");
    assert!(!simulator.requests().iter().any(is_full));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_deletions_are_visible_after_a_full_reading() {
    let (simulator, proxy) = running(World::demo(), &[("CACHE_FULL_INTERVAL", "3")]).await;
    let id = resource(&simulator, "capstor-store-1");
    simulator.world(|world| world.resources.shift_remove(&id));
    assert!(item(&fresh(&proxy).await, id).is_some(), "no change shows that a resource is deleted");
    until("a full reading", async || item(&fresh(&proxy).await, id).is_none()).await;
    assert!(!proxy.log().contains("missed changes"), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_no_refresh_could_see_are_reported() {
    let (simulator, proxy) = running(World::demo(), &[("CACHE_FULL_INTERVAL", "2")]).await;
    let id = resource(&simulator, "capstor-store-1");
    simulator.world(|world| {
        let row = world.resources.get_mut(&id).unwrap();
        row.set("modified", "2020-01-01T00:00:00+00:00");
        row.set("limits", json!({"storage": 4321}));
    });
    until("the warning", async || {
        fresh(&proxy).await;
        proxy.log().contains("missed changes")
    })
    .await;
    assert!(proxy.log().contains(&id.to_string()), "{}", proxy.log());
    assert!(proxy.get("/metrics").await.text.contains("hpc_storage_proxy_missed_changes_total 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_read_with_the_resources_if_waldur_does_not_list_them() {
    let (_control, expected) = demo().await;
    let expected = expected.get(LISTING).await;
    for status in [403, 404] {
        let (simulator, proxy) = demo_with(&[CHANGES]).await;
        assert_eq!(proxy.get(LISTING).await.items().len(), expected.items().len());
        simulator.set_fault(&format!("GET {ORDERS}"), Fault::status(status));
        simulator.clear_requests();
        assert_eq!(fresh(&proxy).await.items().len(), expected.items().len(), "{status}");
        let nested = |request: &Received| is_full(request) && request.query_all("field").contains(&"order_in_progress");
        assert!(simulator.requests().iter().any(nested), "{status}");
        fresh(&proxy).await;
        let tried = simulator.requests().iter().filter(|request| request.path == ORDERS).count();
        assert_eq!(tried, 1, "{status}: the list is not requested again at once");
        assert_eq!(proxy.log().matches("together with their orders").count(), 1, "{}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_orders_that_lacks_orders_is_not_used() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    let before = fresh(&proxy).await;
    let empty = Fault::ok("application/json", "[]");
    simulator.set_fault(&format!("GET {ORDERS}"), empty);
    for _ in 0..4 {
        let answer = fresh(&proxy).await;
        assert_eq!(answer.items(), before.items());
    }
    assert!(proxy.log().contains("lacks orders"), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_resource_that_cannot_be_read_on_its_own_is_not_lost() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    let id = resource(&simulator, "capstor-store-1");
    fresh(&proxy).await;
    simulator.set_fault(&format!("GET {RESOURCES}*/"), Fault::status(404));
    simulator.world(|world| {
        let order = world.order_update_limits(id, json!({"storage": 77})).unwrap();
        world.force_order(order, OrderState::PendingProvider);
    });
    let ordered = item(&fresh(&proxy).await, id).unwrap();
    assert!(ordered["approve_by_provider_url"].is_string(), "{ordered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_deleted_with_its_order_is_gone_at_once() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    let gone = resource(&simulator, "capstor-store-1");
    // Any other one that has a directory.
    let other = simulator.world(|world| {
        let mut in_use = world.resources.values().filter(|row| row.state() == Some(ResourceState::Ok));
        in_use.find(|row| row.uuid != gone && row.text("slug").contains("store")).unwrap().uuid
    });
    let order = simulator.world(|world| world.order_update_limits(gone, json!({"storage": 77})).unwrap());
    assert!(item(&fresh(&proxy).await, gone).is_some());
    simulator.world(|world| {
        world.resources.shift_remove(&gone);
        world.orders.shift_remove(&order);
        world.change(other, "backend_id", json!("/elsewhere"));
    });
    let after = fresh(&proxy).await;
    assert!(item(&after, gone).is_none());
    assert!(item(&after, other).unwrap().to_string().contains("/elsewhere"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waldur_that_cannot_list_changes_is_read_completely() {
    let mut world = World::demo();
    world.release = Release::V7_0;
    let (simulator, proxy) = running(world, &[]).await;
    fresh(&proxy).await;
    simulator.clear_requests();
    fresh(&proxy).await;
    assert!(simulator.requests().iter().any(is_full));
    assert_eq!(proxy.log().matches("cannot list changed resources").count(), 1, "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_read_after_an_error() {
    let (simulator, proxy) = running(World::demo(), &[]).await;
    for route in [ORDERS, RESOURCES] {
        fresh(&proxy).await;
        simulator.clear_requests();
        simulator.set_fault(&format!("GET {route}"), Fault::status(501));
        fresh(&proxy).await.assert_upstream_error("501");
        assert!(!simulator.requests().iter().any(is_full), "{route}");
        simulator.clear_faults();
        assert_eq!(fresh(&proxy).await.status, 200);
        assert!(simulator.requests().iter().any(is_full), "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_commits_are_found_although_clocks_differ_by_a_minute() {
    const SECOND: i64 = 1_000_000;
    for ahead in [60 * SECOND, -60 * SECOND] {
        let mut world = World::demo();
        world.date_ahead = ahead;
        let (simulator, proxy) = running(world, &[]).await;
        let [quick, slow, other] =
            ["capstor-store-0", "vast-store-8", "capstor-store-1"].map(|slug| resource(&simulator, slug));
        let began = simulator.world(|world| world.time());
        for (late, after) in [(quick, 5), (slow, 100)] {
            simulator.commit_after(Duration::from_secs(after), move |world| {
                assert!(world.change(late, "backend_id", json!("/late")));
            });
        }
        let at = |seconds| simulator.world(|world| world.now = began.plus_micros(seconds * SECOND));
        let shows = |answer: &Answer, id, path| item(answer, id).unwrap().to_string().contains(path);
        // A later change that is visible earlier.
        at(4);
        simulator.world(|world| assert!(world.change(other, "backend_id", json!("/other"))));
        let before = fresh(&proxy).await;
        assert!(shows(&before, other, "/other") && !shows(&before, quick, "/late"), "{ahead}");
        simulator.clear_requests();
        at(6);
        let after = fresh(&proxy).await;
        assert!(shows(&after, quick, "/late") && !shows(&after, slow, "/late"), "{ahead}");
        // Most refreshes do not look back that far.
        for seconds in [101, 200] {
            at(seconds);
            fresh(&proxy).await;
        }
        assert!(shows(&fresh(&proxy).await, slow, "/late"), "{ahead}");
        assert!(!simulator.requests().iter().any(is_full), "{ahead}");
    }
}

/// A generator of numbers that needs no dependency: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap() % bound
    }
}

/// A random change of an order or a resource; refused ones change nothing.
fn change(world: &mut World, numbers: &mut Numbers) -> String {
    let resources: Vec<Uuid> = world.resources.keys().copied().collect();
    let resource = resources[numbers.below(resources.len())];
    let open: Vec<Uuid> = world
        .orders
        .iter()
        .filter(|(_, order)| order.state().is_some_and(OrderState::in_progress))
        .map(|(uuid, _)| *uuid)
        .collect();
    let order = open[numbers.below(open.len())];
    let size = numbers.below(500) + 1;
    let kind = numbers.below(10);
    match kind {
        0 | 1 => drop(world.order_update_limits(resource, json!({ "storage": size }))),
        2 => drop(world.order_terminate(resource)),
        3 => drop(world.consumer_approve(order)),
        4 | 5 => drop(world.approve(order, Map::new())),
        6 => drop(world.set_done(order)),
        7 => drop(world.provider_reject(order, "no")),
        8 => drop(world.set_erred(order, "broken", "")),
        _ => drop(world.change(resource, "backend_id", json!(format!("/path/{size}")))),
    }
    format!("{kind} of resource {resource} or order {order}")
}

/// Two proxies read the same Waldur: one reads changes, the other everything.
#[tokio::test(flavor = "multi_thread")]
async fn changes_lead_to_the_same_document_as_full_readings() {
    let seed = 20_261_129;
    let mut numbers = Numbers(seed);
    let (simulator, proxy) = running(World::large(60), &[]).await;
    let control = start_with(&simulator, &[FULL]).await;
    fresh(&proxy).await;
    simulator.clear_requests();
    for step in 0..300 {
        let what = simulator.world(|world| {
            // Longer than changes are requested again.
            if numbers.below(4) == 0 {
                world.now = world.now.plus_micros(600_000_000);
            }
            change(world, &mut numbers)
        });
        if numbers.below(3) == 0 {
            continue;
        }
        if numbers.below(40) == 0 {
            simulator.set_fault_times(&format!("GET {ORDERS}"), Fault::status(501), 1);
            fresh(&proxy).await.assert_upstream_error("501");
        }
        let (changes, full) = (fresh(&proxy).await, fresh(&control).await);
        assert_eq!(changes.items(), full.items(), "seed {seed}, step {step}: {what}");
        assert_eq!(changes.headers["etag"], full.headers["etag"], "seed {seed}, step {step}: {what}");
    }
    let states: std::collections::HashSet<_> = simulator.world(|world| {
        let states = world.resources.values().filter_map(Resource::state);
        states.map(ResourceState::as_str).collect()
    });
    assert!(states.len() >= 4, "the resources reach only the states {states:?}");
}
