//! The orders in progress in the listing.

use serde_json::{Map, Value};
use simulator::world::OrderState;
use simulator::{Simulator, World};
use uuid::Uuid;

use crate::support::{Answer, Proxy, demo, demo_with};

fn orders(answer: &Answer) -> &Map<String, Value> {
    answer.body["orders"].as_object().unwrap()
}

/// The orders in Waldur of the items in a response.
fn expected(simulator: &Simulator, answer: &Answer) -> Map<String, Value> {
    let ids = answer.items().iter().map(|item| item["itemId"].as_str().unwrap().parse::<Uuid>().unwrap());
    let entry = |world: &World, id: Uuid| {
        let resource = world.resources.get(&id)?;
        let order = world.order_in_progress(resource)?;
        let kind = world.offerings[&resource.offering].kind.as_str();
        let mut entry = serde_json::json!({
            "uuid": order.uuid, "type": order.text("type"), "state": order.text("state"), "offeringType": kind,
        });
        if let Some(options) = order.record["attributes"].get("new_options") {
            entry["newOptions"] = options.clone();
        }
        Some((id.to_string(), entry))
    };
    simulator.world(|world| ids.filter_map(|id| entry(world, id)).collect())
}

async fn assert_orders(simulator: &Simulator, proxy: &Proxy, query: &str) -> usize {
    let answer = proxy.list(query).await;
    assert_eq!(*orders(&answer), expected(simulator, &answer), "{query}");
    orders(&answer).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_has_the_orders_of_its_items_with_any_filter() {
    let (simulator, proxy) = demo().await;
    let all = assert_orders(&simulator, &proxy, "?page_size=500").await;
    assert!(all > 5, "{all} orders");
    let pages = proxy.list("?page_size=7").await.body["pagination"]["pages"].as_u64().unwrap();
    let mut on_pages = 0;
    for page in 1..=pages + 1 {
        on_pages += assert_orders(&simulator, &proxy, &format!("?page_size=7&page={page}")).await;
    }
    assert_eq!(on_pages, all);
    let mut by_status = 0;
    for status in ["pending", "active", "removing", "removed", "error", "updating", "unknown"] {
        by_status += assert_orders(&simulator, &proxy, &format!("?page_size=500&status={status}")).await;
    }
    assert_eq!(by_status, all);
    assert!(assert_orders(&simulator, &proxy, "?page_size=3&storage_system=vast&data_type=store").await <= 3);
    assert_eq!(assert_orders(&simulator, &proxy, "?status=removed").await, 0, "the map is present and empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_order_changes_the_tag_even_if_no_item_changes() {
    let (simulator, proxy) = demo_with(&[("CACHE_MAX_AGE", "3600")]).await;
    let path = "/api/storage-resources/?page_size=500";
    let before = proxy.get(path).await;
    let etag = before.headers["etag"].to_str().unwrap();
    let of_items = |world: &World| {
        let resource = world.resource_by_slug("limits-pending-consumer").unwrap();
        world.order_in_progress(resource).unwrap().uuid
    };
    // Neither state has links or a status of its own.
    simulator.world(|world| world.force_order(of_items(world), OrderState::PendingProject));
    let headers = [("If-None-Match", etag), ("Cache-Control", "no-cache")];
    let after = proxy.get_with(path, &headers).await;
    assert_eq!(after.status, 200);
    assert_ne!(after.headers["etag"], before.headers["etag"]);
    assert_eq!(*orders(&after), expected(&simulator, &after));
}
