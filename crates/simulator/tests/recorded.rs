//! Replays the recorded answers of Waldur 7.0.7: status, headers, the shape of bodies (keys and types), the rows and their
//! order, the texts of errors, and the states before and after an action.
//!
//! Not replayed because not simulated: password login, `OPTIONS` metadata, `plan_periods/`, usage by plan period, the
//! filter `visible_to_username`, and the types that an offering prescribes for `update_options`. Also not replayed:
//! requests whose recorded text was shortened, reads after an action whose effect is asserted with the action itself,
//! and exchanges that only repeat a shape. Of an offering's detail, only the fields that storage services use are
//! compared.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "recorded/exchange.rs"]
mod exchange;
#[path = "recorded/scene.rs"]
mod scene;

use exchange::{Exchange, assert_answer, assert_same_shape, client, load, send};
use scene::{Place, recorded_world};
use serde_json::{Value, json};
use simulator::Simulator;
use simulator::world::{OfferingType, OrderState, OrderType, Release, ResourceState};

/// Replays the exchanges in a file. `prepare` sets up the world for each, or returns false to skip it.
async fn replay(file: &str, prepare: impl Fn(&Simulator, &Exchange) -> bool) -> usize {
    let sim = Simulator::start(recorded_world()).await;
    let mut replayed = 0;
    for exchange in load(file) {
        if !prepare(&sim, &exchange) {
            continue;
        }
        let answer = send(&sim, &exchange.request(&sim)).await;
        assert_answer(&sim, file, &exchange, &answer);
        if let Some(after) = exchange.value.get("state_after") {
            let order = scene::order_of(&exchange);
            assert_eq!(scene::states(&sim, order), scene::stated(after), "{file} {}: states after", exchange.name());
        }
        replayed += 1;
    }
    replayed
}

#[tokio::test]
async fn authentication() {
    let replayed = replay("auth", |sim, exchange| {
        let expired = exchange.name().starts_with("expired");
        sim.world(|world| world.user_mut("stranger").unwrap().token_expired = expired);
        true
    });
    assert_eq!(replayed.await, 12);
}

#[tokio::test]
async fn resources() {
    assert_eq!(replay("resources", |_, _| true).await, 79);
}

#[tokio::test]
async fn orders() {
    assert_eq!(replay("orders", |_, _| true).await, 29);
}

#[tokio::test]
async fn offerings() {
    assert_eq!(replay("offerings", |_, _| true).await, 9);
}

#[tokio::test]
async fn order_actions() {
    let replayed = replay("order-actions", |sim, exchange| {
        let name = exchange.name();
        if name.ends_with("order-after") || name.ends_with("resource-after") {
            return false;
        }
        let (order, resource) = exchange
            .value
            .get("state_before")
            .map_or((OrderState::PendingProvider, ResourceState::Creating), scene::stated);
        let kind = match name {
            name if name.contains("terminate") => OrderType::Terminate,
            name if name.contains("update") => OrderType::Update,
            _ => OrderType::Create,
        };
        let place = Place { basic: name.contains("basic"), kind, order, resource };
        let unknown = name.contains("unknown-uuid") || name.contains("bad-uuid");
        sim.world(|world| {
            if !unknown {
                scene::put_order(world, scene::order_of(exchange), place);
            }
            for project in world.projects.values_mut() {
                project.expired = name.contains("expired-project");
            }
            for customer in world.customers.values_mut() {
                customer.blocked = name.contains("blocked-customer");
            }
            // The recorded error names this expired project.
            if name.contains("expired-project") {
                scene::rename_all(world, "Laboratory Gamma Project 1", "Laboratory Gamma");
            }
        });
        true
    });
    assert_eq!(replayed.await, 63);
}

#[tokio::test]
async fn resource_actions() {
    let replayed = replay("resource-actions", |sim, exchange| {
        if !exchange.name().contains("unknown-uuid") {
            let state =
                if exchange.name().contains("terminated") { ResourceState::Terminated } else { ResourceState::Ok };
            sim.world(|world| {
                scene::put_resource(world, scene::order_of(exchange), state);
                if exchange.name().ends_with("same") {
                    world.change(scene::order_of(exchange), "backend_id", "capstor-1234".into());
                }
            });
        }
        true
    });
    assert_eq!(replayed.await, 32);
}

#[tokio::test]
async fn usage() {
    let sim = Simulator::start(recorded_world()).await;
    let mut exchanges = load("usage");
    // Report usage before reading it.
    exchanges.sort_by_key(|exchange| exchange.name() != "set_usage-ok");
    for exchange in &exchanges {
        let resource = "f7368f812453401c9aeba5133fd54bad".parse().unwrap();
        sim.world(|world| scene::put_resource(world, resource, ResourceState::Ok));
        let answer = send(&sim, &exchange.request(&sim)).await;
        assert_answer(&sim, "usage", exchange, &answer);
    }
    assert_eq!(sim.world(|world| format!("{:.1}", world.usages[0].amount)), "7.5");
}

#[tokio::test]
async fn every_action_in_every_state() {
    let sim = Simulator::start(recorded_world()).await;
    let token = sim.world(|world| world.token("provider-owner")).unwrap();
    let client = client();
    let rows = exchange::lines("order-action-matrix");
    assert_eq!(rows.len(), 174);
    for row in rows {
        let (order, resource) = scene::stated(&row["before"]);
        let place = Place {
            basic: row["offering_type"] == OfferingType::Basic.as_str(),
            kind: OrderType::parse(row["order_type"].as_str().unwrap()).unwrap(),
            order,
            resource,
        };
        let id = sim.world(|world| {
            let id = world.next_id();
            scene::put_order(world, id, place);
            id
        });
        let action = row["action"].as_str().unwrap();
        let url = format!("{}/api/marketplace-orders/{}/{action}/", sim.base_url(), id.simple());
        for expected in [&row, &row["repeat"]] {
            let what = format!("{place:?} {action} repeat={}", expected.get("repeat").is_none());
            let mut request = client.post(&url).header("Authorization", format!("Token {token}"));
            if !row["request_body"].is_null() {
                request = request.json(&row["request_body"]);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status().as_u16(), expected["status"], "{what}");
            let text = response.text().await.unwrap();
            let body = match &expected["response_body"] {
                Value::Object(body) if body.contains_key("_html") => {
                    assert!(text.contains("Server Error (500)"), "{what}: {text}");
                    body["_html"].clone()
                }
                body => body.clone(),
            };
            if body.is_object() {
                assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), body, "{what}");
            }
            assert_eq!(scene::states(&sim, id), scene::stated(&expected["after"]), "{what}: states after");
        }
    }
}

/// One of four simultaneous calls succeeds, as recorded in twelve runs of each action.
#[tokio::test]
async fn one_of_several_simultaneous_calls_succeeds() {
    let sim = Simulator::start(recorded_world()).await;
    let token = sim.world(|world| world.token("provider-owner")).unwrap();
    for (action, order) in [
        ("approve_by_provider", OrderState::PendingProvider),
        ("set_state_done", OrderState::Executing),
        ("reject_by_provider", OrderState::PendingProvider),
    ] {
        let id = sim.world(|world| {
            let id = world.next_id();
            let place = Place { basic: false, kind: OrderType::Create, order, resource: ResourceState::Creating };
            scene::put_order(world, id, place);
            id
        });
        let url = format!("{}/api/marketplace-orders/{}/{action}/", sim.base_url(), id.simple());
        let client = client();
        let call = || client.post(&url).header("Authorization", format!("Token {token}")).send();
        let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
        let mut statuses = [a, b, c, d].map(|response| response.unwrap().status().as_u16());
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409], "{action}");
    }
}

/// The recorded steps of one resource's life: which of them change `modified`, and the states after each.
#[tokio::test]
async fn recorded_steps_change_modified() {
    let sim = Simulator::start(recorded_world()).await;
    let id = "0f0f0f0f0f0f4f0f8f0f0f0f0f0f0f0f".parse().unwrap();
    let order = sim.world(|world| {
        let order = world.next_id();
        let place = Place {
            basic: false,
            kind: OrderType::Create,
            order: OrderState::PendingProvider,
            resource: ResourceState::Creating,
        };
        scene::put_order_of(world, order, id, place);
        order
    });
    let changed = |step: &dyn Fn(&mut simulator::World)| {
        sim.world(|world| {
            let before = world.resources[&id].text("modified").to_owned();
            step(world);
            before != world.resources[&id].text("modified")
        })
    };
    assert!(changed(&|world| world.approve(order, serde_json::Map::new()).unwrap()));
    assert!(changed(&|world| assert!(world.change(id, "backend_id", "x".into()))));
    assert!(!changed(&|world| assert!(!world.change(id, "backend_id", "x".into()))));
    assert!(changed(&|world| world.set_done(order).unwrap()));
    assert!(!changed(&|world| {
        let update = world.order_update_limits(id, json!({ "storage": 20 })).unwrap();
        world.consumer_approve(update).unwrap();
    }));
    let update = sim.world(|world| *world.resources[&id].orders.last().unwrap());
    assert!(changed(&|world| world.approve(update, serde_json::Map::new()).unwrap()));
    assert!(changed(&|world| world.set_done(update).unwrap()));
    assert_eq!(sim.world(|world| world.resources[&id].record["limits"].clone()), json!({ "storage": 20 }));
    assert!(!changed(&|world| {
        let update = world.order_update_limits(id, json!({ "storage": 30 })).unwrap();
        world.consumer_approve(update).unwrap();
        world.provider_reject(update, "").unwrap();
    }));
    assert!(!changed(&|world| scene::rename_all(world, "Renamed", "Renamed too")));
    assert!(!changed(&|world| {
        world.order_terminate(id).unwrap();
    }));
    assert_eq!(sim.world(|world| world.release), Release::V7_0);
}

#[test]
fn the_comparison_of_shapes_finds_differences() {
    let differ = |a: Value, b: Value| std::panic::catch_unwind(|| assert_same_shape("x", &a, &b)).is_err();
    assert!(differ(json!({ "a": 1 }), json!({ "a": "1" })));
    assert!(differ(json!({ "a": 1 }), json!({ "a": 1, "b": 2 })));
    assert!(differ(json!({ "a": 1, "b": 2 }), json!({ "a": 1 })));
    assert!(differ(json!([{ "a": 1 }]), json!([{ "b": 1 }])));
    assert!(differ(json!([]), json!({})));
    assert!(!differ(json!({ "a": 1 }), json!({ "a": 2.5 })));
    assert!(!differ(json!({ "a": null }), json!({ "a": "text" })));
}
