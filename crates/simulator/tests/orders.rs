//! Orders and resources of newer Waldur releases. Their answers were not recorded; the expectations follow Waldur's source code.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use reqwest::Client;
use serde_json::{Map, Value, json};
use simulator::world::{NewResource, OfferingType, OrderState, ResourceState};
use simulator::{PROVIDER_TOKEN, Simulator, World};
use uuid::Uuid;

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

async fn post(sim: &Simulator, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/api/{path}/", sim.base_url());
    let request = client().post(url).header("Authorization", format!("Token {PROVIDER_TOKEN}"));
    let response = request.json(&body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
}

async fn act(sim: &Simulator, order: Uuid, action: &str, body: Value) -> u16 {
    post(sim, &format!("marketplace-orders/{}/{action}", order.simple()), body).await.0
}

/// States of the order and of its resource.
fn states(sim: &Simulator, order: Uuid) -> (OrderState, ResourceState) {
    sim.world(|world| {
        let order = &world.orders[&order];
        (order.state().unwrap(), world.resources[&order.resource].state().unwrap())
    })
}

fn new_resource(world: &mut World) -> Uuid {
    let offering = world.offering_by_slug("capstor").unwrap().uuid;
    let project = *world.projects.keys().next().unwrap();
    let order = world.order_create(NewResource {
        offering,
        project,
        slug: "fresh".to_owned(),
        limits: json!({ "storage": 10 }),
        attributes: json!({ "storage_data_type": "store" }),
    });
    world.consumer_approve(order).unwrap();
    order
}

fn field(sim: &Simulator, order: Uuid, key: &str) -> Value {
    sim.world(|world| world.resources[&world.orders[&order].resource].record[key].clone())
}

#[tokio::test]
async fn a_new_resource_from_order_to_ok() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(new_resource);
    assert_eq!(states(&sim, order), (OrderState::PendingProvider, ResourceState::Creating));
    let body = json!({ "attributes": { "permissions": "2770" } });
    assert_eq!(act(&sim, order, "approve_by_provider", body).await, 200);
    assert_eq!(states(&sim, order), (OrderState::Executing, ResourceState::Creating));
    let attributes = sim.world(|world| world.orders[&order].record["attributes"].clone());
    assert_eq!(attributes, json!({ "storage_data_type": "store", "permissions": "2770" }));
    let resource = sim.world(|world| world.orders[&order].resource);
    let path = format!("marketplace-provider-resources/{resource}/set_backend_id");
    let (status, body) = post(&sim, &path, json!({ "backend_id": "/capstor/store/fresh" })).await;
    assert_eq!((status, body), (200, json!({ "status": "Resource backend_id has been changed." })));
    assert_eq!(act(&sim, order, "set_state_done", json!({})).await, 200);
    assert_eq!(states(&sim, order), (OrderState::Done, ResourceState::Ok));
    assert_eq!(act(&sim, order, "set_state_done", json!({})).await, 409);
    assert_eq!(field(&sim, order, "backend_id"), "/capstor/store/fresh");
}

#[tokio::test]
async fn a_failed_creation_keeps_a_resource_with_a_backend_id() {
    let sim = Simulator::start(World::demo()).await;
    let body = json!({ "error_message": "no space", "error_traceback": "" });
    let unnamed = sim.world(new_resource);
    assert_eq!(act(&sim, unnamed, "set_state_erred", body.clone()).await, 200);
    assert_eq!(states(&sim, unnamed), (OrderState::Erred, ResourceState::Terminated));
    let named = sim.world(new_resource);
    sim.world(|world| world.change(world.orders[&named].resource, "backend_id", "/there".into()));
    assert_eq!(act(&sim, named, "set_state_erred", body).await, 200);
    assert_eq!(states(&sim, named), (OrderState::Erred, ResourceState::Erred));
    assert_eq!(field(&sim, named, "error_message"), "no space");
    let resource = sim.world(|world| world.orders[&named].resource);
    let path = format!("marketplace-provider-resources/{}/set_state_ok", resource.simple());
    assert_eq!(post(&sim, &path, json!({})).await.0, 200);
    assert_eq!(states(&sim, named), (OrderState::Erred, ResourceState::Ok), "the order does not change");
    assert_eq!(post(&sim, &path, json!({})).await.0, 409);
}

#[tokio::test]
async fn ordering_changes_the_state_and_a_rejection_reverts_it() {
    let sim = Simulator::start(World::demo()).await;
    let id = sim.world(|world| world.resource_by_slug("capstor-store-0").unwrap().uuid);
    let end = sim.world(|world| world.order_terminate(id).unwrap());
    assert_eq!(states(&sim, end), (OrderState::PendingConsumer, ResourceState::Terminating));
    sim.world(|world| world.consumer_approve(end).unwrap());
    let body = json!({ "provider_rejection_comment": "still mounted" });
    assert_eq!(act(&sim, end, "reject_by_provider", body).await, 200);
    assert_eq!(states(&sim, end), (OrderState::Rejected, ResourceState::Ok));
    assert_eq!(sim.world(|world| world.orders[&end].text("provider_rejection_comment").to_owned()), "still mounted");
}

#[tokio::test]
async fn limits_take_effect_when_the_order_is_done() {
    let sim = Simulator::start(World::demo()).await;
    let id = sim.world(|world| world.resource_by_slug("capstor-store-0").unwrap().uuid);
    let update = sim.world(|world| {
        let update = world.order_update_limits(id, json!({ "storage": 99 })).unwrap();
        world.consumer_approve(update).unwrap();
        update
    });
    assert_eq!(
        sim.world(|world| world.orders[&update].record["attributes"].clone()),
        json!({ "old_limits": { "storage": 10 } })
    );
    assert_eq!(act(&sim, update, "approve_by_provider", json!({})).await, 200);
    assert_eq!(field(&sim, update, "limits"), json!({ "storage": 10 }));
    assert_eq!(act(&sim, update, "set_state_done", json!({})).await, 200);
    assert_eq!(states(&sim, update), (OrderState::Done, ResourceState::Ok));
    assert_eq!(field(&sim, update, "limits"), json!({ "storage": 99 }));
}

#[tokio::test]
async fn options_take_effect_on_approval_and_a_pending_order_blocks_direct_updates() {
    let sim = Simulator::start(World::demo()).await;
    let id = sim.world(|world| world.resource_by_slug("capstor-store-1").unwrap().uuid);
    let direct = format!("marketplace-provider-resources/{id}/update_options_direct");
    let options = json!({ "options": { "permissions": "2775" } });
    assert_eq!(post(&sim, &direct, options.clone()).await.0, 200);
    let new = Map::from_iter([("hard_quota_space".to_owned(), json!(50))]);
    let update = sim.world(|world| {
        let update = world.order_update_options(id, &new).unwrap();
        world.consumer_approve(update).unwrap();
        update
    });
    assert_eq!(post(&sim, &direct, options).await.0, 409);
    assert_eq!(act(&sim, update, "approve_by_provider", json!({})).await, 200);
    assert_eq!(states(&sim, update), (OrderState::Done, ResourceState::Ok));
    assert_eq!(field(&sim, update, "options"), json!({ "permissions": "2775", "hard_quota_space": 50 }));
}

#[tokio::test]
async fn approval_completes_orders_of_type_basic() {
    let sim = Simulator::start(World::demo()).await;
    let end = sim.world(|world| {
        let id = world.resource_by_slug("tape-1").unwrap().uuid;
        let end = world.order_terminate(id).unwrap();
        world.consumer_approve(end).unwrap();
        end
    });
    assert_eq!(act(&sim, end, "approve_by_provider", json!({})).await, 200);
    assert_eq!(states(&sim, end), (OrderState::Done, ResourceState::Terminated));
    assert_eq!(act(&sim, end, "set_state_done", json!({})).await, 409);
    assert_eq!(act(&sim, end, "set_state_erred", json!({})).await, 405);
}

#[tokio::test]
async fn state_is_checked_before_content() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(new_resource);
    assert_eq!(act(&sim, order, "approve_by_provider", json!({ "attributes": 5 })).await, 400);
    assert_eq!(states(&sim, order), (OrderState::PendingProvider, ResourceState::Creating));
    assert_eq!(act(&sim, order, "approve_by_provider", json!({})).await, 200);
    assert_eq!(act(&sim, order, "approve_by_provider", json!({ "attributes": 5 })).await, 409);
}

#[tokio::test]
async fn orders_can_be_placed_over_http() {
    let sim = Simulator::start(World::demo()).await;
    let client = client();
    let order = async |body: Value| {
        let url = format!("{}/_simulator/orders", sim.base_url());
        let response = client.post(url).body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    for (request, state) in [
        (
            json!({ "order": "create", "offering": "vast", "project": "mch-p1", "slug": "new", "limits": { "storage": 1 } }),
            "Creating",
        ),
        (json!({ "order": "update_limits", "resource": "vast-store-8", "limits": { "storage": 50 } }), "Updating"),
        (
            json!({ "order": "update_options", "resource": "vast-store-9", "options": { "permissions": "700" } }),
            "Updating",
        ),
        (json!({ "order": "terminate", "resource": "vast-scratch-10" }), "Terminating"),
    ] {
        let (status, answer) = order(request.clone()).await;
        assert_eq!((status, &answer["state"]), (201, &json!("pending-provider")), "{request}: {answer}");
        let id = answer["resource"].as_str().unwrap().parse::<Uuid>().unwrap();
        assert_eq!(sim.world(|world| world.resources[&id].text("state").to_owned()), state);
    }
    let waiting = json!({ "order": "terminate", "resource": "vast-scratch-11", "pending_consumer": true });
    assert_eq!(order(waiting).await.1["state"], "pending-consumer");
    assert_eq!(order(json!({ "order": "terminate", "resource": "nothing" })).await.0, 404);
    assert_eq!(order(json!({ "order": "paint", "resource": "vast-scratch-11" })).await.0, 400);
    let cancelled = order(json!({ "order": "cancel", "resource": "vast-scratch-10" })).await;
    assert_eq!((cancelled.0, &cancelled.1["state"]), (201, &json!("canceled")));
    assert_eq!(order(json!({ "order": "cancel", "resource": "vast-scratch-10" })).await.0, 404, "no open order");
}

#[tokio::test]
async fn the_world_can_be_changed_and_read_over_http() {
    let sim = Simulator::start(World::demo()).await;
    let (client, base) = (client(), format!("{}/_simulator", sim.base_url()));
    for (change, status) in [
        (json!({ "change": "new_project", "customer": "mch", "slug": "mch-p3", "gid": 31_003 }), 204),
        (json!({ "change": "slug", "project": "mch-p1", "slug": "renamed" }), 204),
        (json!({ "change": "gid", "project": "renamed", "gid": 31_000 }), 204),
        (json!({ "change": "project", "resource": "capstor-store-0", "project": "renamed" }), 204),
        (json!({ "change": "state", "resource": "vast-store-8", "state": "Erred" }), 204),
        (json!({ "change": "expired", "project": "renamed", "expired": true }), 204),
        (json!({ "change": "blocked", "customer": "mch", "blocked": true }), 204),
        (json!({ "change": "worker_lags", "lags": true }), 204),
        (json!({ "change": "expired", "project": "mch-p1", "expired": true }), 404),
        (json!({ "change": "colour", "project": "mch-p1" }), 400),
    ] {
        let sent = client.post(format!("{base}/changes")).body(change.to_string()).send().await.unwrap();
        assert_eq!(sent.status(), status, "{change}");
    }
    let rows: Vec<Value> = client.get(format!("{base}/world")).send().await.unwrap().json().await.unwrap();
    let row = rows.iter().find(|row| row["slug"] == "capstor-store-0").unwrap();
    assert_eq!((&row["project"], &row["gid"], &row["orders"]), (&json!("renamed"), &json!(31_000), &json!([])));
    assert!(sim.world(|world| world.worker_lags && world.projects.values().any(|project| project.expired)));
}

/// A pending order that changes the limits of the demo resource with this slug.
fn pending_update(world: &mut World, slug: &str) -> Uuid {
    let id = world.resource_by_slug(slug).unwrap().uuid;
    let order = world.order_update_limits(id, json!({ "storage": 99 })).unwrap();
    world.consumer_approve(order).unwrap();
    order
}

#[tokio::test]
async fn a_lagging_worker_overwrites_later_changes() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(|world| {
        world.worker_lags = true;
        pending_update(world, "capstor-store-0")
    });
    assert_eq!(act(&sim, order, "approve_by_provider", json!({})).await, 200);
    assert_eq!(act(&sim, order, "set_state_done", json!({})).await, 200);
    assert_eq!(states(&sim, order), (OrderState::Done, ResourceState::Ok));
    sim.world(World::run_worker);
    assert_eq!(states(&sim, order), (OrderState::Done, ResourceState::Updating));
    let resource = sim.world(|world| world.orders[&order].resource);
    assert!(sim.world(|world| world.order_in_progress(&world.resources[&resource]).is_none()));
    let path = format!("marketplace-provider-resources/{}/set_state_ok", resource.simple());
    sim.world(|world| world.has_set_state_ok = false);
    assert_eq!(post(&sim, &path, json!({})).await.0, 404);
    sim.world(|world| world.has_set_state_ok = true);
    assert_eq!(post(&sim, &path, json!({})).await.0, 200);
    sim.world(World::run_worker);
    assert_eq!(states(&sim, order).1, ResourceState::Ok, "the worker runs each task once");
}

#[tokio::test]
async fn an_order_completed_on_approval_stays_executing_until_the_worker_runs() {
    for by_hand in [false, true] {
        let sim = Simulator::start(World::demo()).await;
        let order = sim.world(|world| {
            world.worker_lags = true;
            let basic = world.offerings.values().find(|it| it.kind == OfferingType::Basic).unwrap().uuid;
            let resource = world.resources.values().find(|it| it.offering == basic).unwrap().uuid;
            let order = world.order_terminate(resource).unwrap();
            world.consumer_approve(order).unwrap();
            order
        });
        assert_eq!(act(&sim, order, "approve_by_provider", json!({})).await, 200);
        assert_eq!(states(&sim, order), (OrderState::Executing, ResourceState::Terminating));
        if by_hand {
            assert_eq!(act(&sim, order, "set_state_done", json!({})).await, 200, "for a task that the worker has lost");
        }
        sim.world(World::run_worker);
        assert_eq!(states(&sim, order), (OrderState::Done, ResourceState::Terminated));
        assert_eq!(act(&sim, order, "set_state_done", json!({})).await, 409);
    }
}

#[tokio::test]
async fn permanent_refusals_have_three_forms() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(|world| pending_update(world, "capstor-store-0"));
    let approve = format!("marketplace-orders/{}/approve_by_provider", order.simple());
    let (project, customer, resource) = sim.world(|world| {
        let resource = world.orders[&order].resource;
        let project = world.resources[&resource].project;
        (project, world.projects[&project].customer, resource)
    });
    sim.world(|world| world.projects.get_mut(&project).unwrap().expired = true);
    let (status, body) = post(&sim, &approve, json!({})).await;
    assert_eq!(status, 400);
    assert!(body[0].as_str().unwrap().ends_with("is expired."), "{body}");
    sim.world(|world| world.customers.get_mut(&customer).unwrap().blocked = true);
    assert_eq!(post(&sim, &approve, json!({})).await, (400, json!(["Blocked organization is not available."])));

    sim.world(|world| {
        world.unique_backend_ids = true;
        let other = world.resource_by_slug("capstor-store-1").unwrap().uuid;
        world.change(other, "backend_id", "/taken".into());
    });
    let set = format!("marketplace-provider-resources/{}/set_backend_id", resource.simple());
    let (status, body) = post(&sim, &set, json!({ "backend_id": "/taken" })).await;
    assert!(status == 400 && body["backend_id"][0].as_str().unwrap().contains("not unique"), "{status} {body}");
    assert_eq!(post(&sim, &set, json!({ "backend_id": "/own" })).await.0, 200);

    let done = post(&sim, &format!("marketplace-orders/{}/set_state_done", order.simple()), json!({})).await;
    assert!(done.0 == 409 && done.1["detail"].is_string(), "{done:?}");
    assert_eq!(states(&sim, order).0, OrderState::PendingProvider);
}

#[tokio::test]
async fn a_user_deletes_a_pending_order_and_the_resource_stays_creating() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(new_resource);
    let (resource, customer) = sim.world(|world| {
        let resource = &world.resources[&world.orders[&order].resource];
        (resource.uuid, world.projects[&resource.project].customer)
    });
    let token = sim.world(|world| {
        world.add_user("buyer");
        world.grant("buyer", simulator::world::Role::CustomerOwner(customer));
        world.token("buyer").unwrap()
    });
    let url = format!("{}/api/marketplace-orders/{}/", sim.base_url(), order.simple());
    let delete = async |token: &str| {
        let request = client().delete(&url).header("Authorization", format!("Token {token}"));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete(PROVIDER_TOKEN).await, 403);
    assert_eq!(delete(&token).await, 204);
    assert_eq!(delete(&token).await, 404);
    sim.world(|world| {
        let row = &world.resources[&resource];
        assert_eq!((row.state(), row.text("backend_id")), (Some(ResourceState::Creating), ""));
        assert!(row.orders.is_empty() && world.order_in_progress(row).is_none());
    });
}

#[tokio::test]
async fn an_offering_manager_can_list_but_not_approve() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(|world| pending_update(world, "capstor-store-0"));
    let token = sim.world(|world| {
        let offering = world.offering_by_slug("capstor").unwrap().uuid;
        world.add_user("manager");
        world.grant("manager", simulator::world::Role::OfferingManager(offering));
        world.token("manager").unwrap()
    });
    let token = format!("Token {token}");
    let list = format!("{}/api/marketplace-provider-resources/", sim.base_url());
    let rows: Vec<Value> =
        client().get(list).header("Authorization", &token).send().await.unwrap().json().await.unwrap();
    assert!(!rows.is_empty());
    let approve = format!("{}/api/marketplace-orders/{}/approve_by_provider/", sim.base_url(), order.simple());
    let refused = client().post(approve).header("Authorization", &token).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 403);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["detail"], "You do not have permission to perform this action.");
    assert_eq!(states(&sim, order).0, OrderState::PendingProvider);
}

#[tokio::test]
async fn usage_has_at_most_two_decimals() {
    let sim = Simulator::start(World::demo()).await;
    let resource = sim.world(|world| world.resource_by_slug("capstor-store-0").unwrap().uuid);
    for (amount, status) in
        [(json!(7.25), 201), (json!("7.250"), 400), (json!(1.234_567), 400), (json!(0.000_001), 400)]
    {
        let body =
            json!({ "resource": resource.simple().to_string(), "usages": [{ "type": "storage", "amount": amount }] });
        let (answered, body) = post(&sim, "marketplace-component-usages/set_usage", body).await;
        assert_eq!(answered, status, "{amount}: {body}");
        if status == 400 {
            let text = "Ensure that there are no more than 2 decimal places.";
            assert_eq!(body, json!({ "usages": [{ "amount": [text] }] }), "{amount}");
        }
    }
    assert_eq!(sim.world(|world| world.usages.iter().map(|usage| usage.amount).collect::<Vec<_>>()), [7.25]);
}

#[tokio::test]
async fn usage_is_accepted_only_for_resources_in_use() {
    let sim = Simulator::start(World::demo()).await;
    let resource = sim.world(|world| world.resource_by_slug("capstor-store-0").unwrap().uuid);
    for (state, status) in
        [("OK", 201), ("Updating", 201), ("Terminating", 201), ("Creating", 400), ("Erred", 400), ("Terminated", 400)]
    {
        sim.world(|world| world.resource_by_slug_mut("capstor-store-0").unwrap().set("state", state));
        let body = json!({ "resource": resource.simple().to_string(), "usages": [{ "type": "storage", "amount": 1 }] });
        let (answered, body) = post(&sim, "marketplace-component-usages/set_usage", body).await;
        assert_eq!(answered, status, "{state}: {body}");
        if status == 400 {
            assert_eq!(body, json!({ "resource": ["Resource is not in valid state."] }), "{state}");
        }
    }
}

#[tokio::test]
async fn a_restore_order_restores_a_terminated_resource() {
    let sim = Simulator::start(World::demo()).await;
    let order = sim.world(|world| {
        let id = world.resource_by_slug("capstor-store-0").unwrap().uuid;
        let end = world.order_terminate(id).unwrap();
        world.consumer_approve(end).unwrap();
        world.approve(end, Map::new()).unwrap();
        world.set_done(end).unwrap();
        let order = world.order_restore(id).unwrap();
        world.consumer_approve(order).unwrap();
        order
    });
    assert_eq!(states(&sim, order), (OrderState::PendingProvider, ResourceState::Creating));
    assert_eq!(act(&sim, order, "approve_by_provider", json!({})).await, 200);
    assert_eq!(act(&sim, order, "set_state_done", json!({})).await, 200);
    assert_eq!(states(&sim, order), (OrderState::Done, ResourceState::Ok));
}
