//! When Waldur dates a change, when the change becomes visible, and what the filter `modified` returns.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Map, Value, json};
use simulator::world::{Release, Stamp};
use simulator::{Simulator, World};
use uuid::Uuid;

const RESOURCES: &str = "/api/marketplace-provider-resources/";
const ORDERS: &str = "/api/marketplace-orders/";
const SLUG: &str = "capstor-store-0";
const SECOND: i64 = 1_000_000;

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

fn token(sim: &Simulator) -> String {
    format!("Token {}", sim.world(|world| world.token("staff").unwrap()))
}

async fn get(sim: &Simulator, path: &str) -> Response {
    client().get(format!("{}{path}", sim.base_url())).header("Authorization", token(sim)).send().await.unwrap()
}

async fn rows(sim: &Simulator, path: &str) -> Vec<Value> {
    get(sim, path).await.json().await.unwrap()
}

async fn post(sim: &Simulator, path: &str, body: Value) {
    let request = client().post(format!("{}/api/{path}/", sim.base_url())).header("Authorization", token(sim));
    let status = request.json(&body).send().await.unwrap().status();
    assert!(status.is_success(), "{path}: {status}");
}

fn resource(sim: &Simulator) -> Uuid {
    sim.world(|world| world.resource_by_slug(SLUG).unwrap().uuid)
}

fn modified(sim: &Simulator) -> String {
    sim.world(|world| world.resource_by_slug(SLUG).unwrap().text("modified").to_owned())
}

/// A pending order that changes the limits.
fn pending_update(sim: &Simulator, id: Uuid, size: u32) -> Uuid {
    sim.world(|world| {
        let order = world.order_update_limits(id, json!({ "storage": size })).unwrap();
        world.consumer_approve(order).unwrap();
        order
    })
}

#[tokio::test]
async fn only_some_changes_are_dated() {
    for release in [Release::V7_0, Release::Newer] {
        let mut world = World::demo();
        world.release = release;
        let sim = Simulator::start(world).await;
        let id = resource(&sim);
        let mut before = modified(&sim);
        let mut changed = |step: &str, expected: bool| {
            let now = modified(&sim);
            assert_eq!(now != before, expected, "{release:?}: {step}");
            before = now;
        };
        // Newer releases set the state when the order is placed.
        let on_order = release == Release::Newer;
        let order = pending_update(&sim, id, 77);
        changed("a new Update order", on_order);
        post(&sim, &format!("marketplace-orders/{order}/approve_by_provider"), json!({})).await;
        changed("approve", true);
        post(&sim, &format!("marketplace-orders/{order}/set_state_done"), json!({})).await;
        changed("done", true);
        let provider = format!("marketplace-provider-resources/{id}");
        for (expected, path) in [(true, "/x"), (false, "/x"), (true, "/y")] {
            post(&sim, &format!("{provider}/set_backend_id"), json!({ "backend_id": path })).await;
            changed("backend_id", expected);
        }
        post(&sim, &format!("{provider}/set_backend_metadata"), json!({ "backend_metadata": { "a": 1 } })).await;
        changed("metadata", true);
        let options = json!({ "options": { "hard_quota_space": 5 } });
        post(&sim, &format!("marketplace-resources/{id}/update_options"), options).await;
        changed("options", true);
        let usage = json!({ "resource": id, "usages": [{ "type": "storage", "amount": 7.5 }] });
        post(&sim, "marketplace-component-usages/set_usage", usage).await;
        changed("usage", true);
        let order = pending_update(&sim, id, 78);
        changed("a second Update order", on_order);
        post(&sim, &format!("marketplace-orders/{order}/reject_by_provider"), json!({})).await;
        changed("a rejection", false);
        assert_eq!(sim.world(|world| world.resources[&id].text("state").to_owned()), "OK");
        sim.world(|world| {
            world.projects.values_mut().for_each(|row| row.name.push_str(" (renamed)"));
            world.customers.values_mut().for_each(|row| row.name.push_str(" (renamed)"));
        });
        changed("renames", false);
        let order = sim.world(|world| {
            let order = world.order_terminate(id).unwrap();
            world.consumer_approve(order).unwrap();
            order
        });
        changed("a new Terminate order", on_order);
        post(&sim, &format!("marketplace-orders/{order}/approve_by_provider"), json!({})).await;
        changed("approve of a Terminate order", true);
        post(&sim, &format!("marketplace-orders/{order}/set_state_done"), json!({})).await;
        changed("done of a Terminate order", true);
    }
}

#[tokio::test]
async fn the_clock_of_dates_can_differ_from_that_of_rows() {
    for ahead in [60, -60] {
        let sim = Simulator::start(World::demo()).await;
        let change = json!({ "change": "clocks", "date_ahead": ahead }).to_string();
        let sent = client().post(format!("{}/_simulator/changes", sim.base_url())).body(change).send().await.unwrap();
        assert_eq!(sent.status(), 204);
        // A whole second, because `Date` has no fractions.
        let now = sim.world(|world| {
            world.now = Stamp::parse("2026-03-01T12:00:00Z").unwrap();
            world.now
        });
        let date = get(&sim, RESOURCES).await.headers()["date"].to_str().unwrap().to_owned();
        assert_eq!(date, now.plus_micros(ahead * SECOND).http_date());
        let id = resource(&sim);
        sim.world(|world| assert!(world.change(id, "backend_id", "/new".into())));
        assert_eq!(modified(&sim), now.plus_micros(1_000).text(), "rows have the other clock");
    }
}

#[tokio::test]
async fn a_transaction_is_dated_when_it_begins_and_visible_when_it_ends() {
    let sim = Simulator::start(World::demo()).await;
    let id = resource(&sim);
    let began = sim.world(|world| world.now);
    sim.commit_after(Duration::from_secs(30), move |world| {
        let order = world.order_update_limits(id, json!({ "storage": 77 })).unwrap();
        world.consumer_approve(order).unwrap();
        world.approve(order, Map::new()).unwrap();
    });
    let orders = format!("{ORDERS}?resource_uuid={id}");
    let changed = format!("{RESOURCES}?modified={}", began.plus_micros(1).text().replace("+00:00", "Z"));
    for wait in [0, 29] {
        sim.world(|world| world.now = began.plus_micros(wait * SECOND));
        assert_eq!(rows(&sim, &orders).await, [] as [Value; 0], "after {wait} s");
        assert_eq!(rows(&sim, &changed).await, [] as [Value; 0], "after {wait} s");
    }
    sim.world(|world| world.now = began.plus_micros(30 * SECOND));
    let order = &rows(&sim, &orders).await[0];
    assert_eq!(order["state"], "executing");
    let row = &rows(&sim, &changed).await[0];
    assert_eq!((&row["slug"], &row["state"]), (&json!(SLUG), &json!("Updating")));
    for dated in [&order["created"], &order["modified"], &row["modified"]] {
        let dated = Stamp::parse(dated.as_str().unwrap()).unwrap();
        assert!(began < dated && dated < began.plus_micros(SECOND), "{dated:?}");
    }
    assert_eq!(sim.world(|world| world.now), began.plus_micros(30 * SECOND), "the clock is not set back");
}

#[tokio::test]
async fn a_single_row_is_filtered_like_a_list() {
    let sim = Simulator::start(World::demo()).await;
    let id = resource(&sim);
    for (query, status) in [
        ("", 200),
        ("?offering_slug=vast,capstor", 200),
        ("?offering_slug=vast", 404),
        ("?modified=2020-01-01T00:00:00Z", 200),
        ("?modified=2030-01-01T00:00:00Z", 404),
        ("?state=OK", 200),
        ("?state=Erred", 404),
        ("?state=ok", 400),
    ] {
        let answer = get(&sim, &format!("{RESOURCES}{}/{query}", id.simple())).await;
        assert_eq!(answer.status(), status, "{query}");
    }
}
