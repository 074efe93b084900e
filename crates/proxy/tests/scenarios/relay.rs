//! Callbacks that the proxy relays to Waldur.

use serde_json::{Value, json};
use simulator::world::OrderState;
use simulator::{Client, Fault, PROVIDER_TOKEN, Simulator, TokenSpec};
use uuid::Uuid;

use crate::support::{Answer, Proxy, demo_with};

const PUBLIC: &str = "https://storage.example.org/proxy";
const RELAY: [(&str, &str); 4] = [
    ("DISABLE_AUTH", "false"),
    ("CALLBACKS_RELAY", "true"),
    ("SERVER_PUBLIC_URL", "https://storage.example.org/proxy/"),
    ("CACHE_MAX_AGE", "3600"),
];

/// A proxy that relays callbacks, and a provisioner without a token of Waldur.
struct Site {
    simulator: Simulator,
    proxy: Proxy,
    bearer: String,
}

impl Site {
    async fn new(more: &[(&str, &str)]) -> Self {
        let (simulator, proxy) = demo_with(&[&RELAY, more].concat()).await;
        simulator.realm().register(Client::new("provisioner", "secret"));
        let token = simulator.realm().mint(&TokenSpec::service_account("provisioner"));
        Self { simulator, proxy, bearer: format!("Bearer {token}") }
    }

    async fn listing(&self) -> Answer {
        self.proxy.get_with("/api/storage-resources/?page_size=500", &[("Authorization", &self.bearer)]).await
    }

    /// The item of a resource, and the UUIDs of the resource and its order.
    async fn item(&self, slug: &str) -> (Value, Uuid, Uuid) {
        let (resource, order) = self.simulator.world(|world| {
            let resource = world.resource_by_slug(slug).unwrap();
            (resource.uuid, world.order_in_progress(resource).unwrap().uuid)
        });
        let listing = self.listing().await;
        let item = listing.items().iter().find(|item| item["itemId"] == json!(resource)).unwrap();
        (item.clone(), resource, order)
    }

    /// Follows a link of an item as a provisioner would.
    async fn follow(&self, link: &Value, body: &str) -> Answer {
        self.post(link.as_str().unwrap().strip_prefix(PUBLIC).unwrap(), body).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.proxy.post_with(path, &[("Authorization", &self.bearer)], body).await
    }

    /// Number of calls received by Waldur that change something.
    fn calls(&self) -> usize {
        let changes = |request: &simulator::Received| request.method == "POST" && request.path.starts_with("/api/");
        self.simulator.requests().iter().filter(|request| changes(request)).count()
    }

    fn state(&self, order: Uuid) -> Option<OrderState> {
        self.simulator.world(|world| world.orders[&order].state())
    }
}

const ORDERED: &str = "create-pending-provider";

#[tokio::test(flavor = "multi_thread")]
async fn an_order_can_be_completed_with_only_a_token_of_the_realm() {
    let site = Site::new(&[]).await;
    let (item, resource, order) = site.item(ORDERED).await;
    assert_eq!(item["approve_by_provider_url"], format!("{PUBLIC}/api/callbacks/orders/{order}/approve_by_provider/"));
    assert!(!site.listing().await.text.contains("/api/marketplace-"), "no link leads to Waldur");

    let approved = site.follow(&item["approve_by_provider_url"], r#"{"attributes": {"note": "s3cret note"}}"#).await;
    assert_eq!((approved.status, &approved.body), (200, &json!({"detail": "Order has been approved."})));
    // The snapshot would be valid for an hour, but the callback invalidates it.
    let (item, ..) = site.item(ORDERED).await;
    assert!(item.get("approve_by_provider_url").is_none() && item.get("set_state_done_url").is_some(), "{item}");
    let attributes = site.simulator.world(|world| world.orders[&order].record["attributes"].clone());
    assert_eq!(attributes["note"], "s3cret note", "the body is passed on unchanged");

    let link = &item["set_backend_id_url"];
    assert_eq!(*link, format!("{PUBLIC}/api/callbacks/resources/{resource}/set_backend_id/"));
    assert_eq!(site.follow(link, r#"{"backend_id": "/capstor/made"}"#).await.status, 200);
    let done = site.follow(&item["set_state_done_url"], "").await;
    assert_eq!((done.status, &done.body), (200, &json!({"detail": "Waldur accepted the callback."})));
    assert_eq!(site.state(order), Some(OrderState::Done));
    let listing = site.listing().await;
    let item = listing.items().iter().find(|item| item["itemId"] == json!(resource)).unwrap();
    assert_eq!((&item["status"], &item["mountPoint"]["default"]), (&json!("active"), &json!("/capstor/made")));

    let log = site.proxy.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("proxy::callbacks")).collect();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for line in &lines {
        assert!(line.contains("service-account-provisioner") && line.contains(&order.to_string()), "{line}");
    }
    assert!(lines[0].contains("relaying a callback") && lines[0].contains("approve_by_provider"), "{}", lines[0]);
    assert!(lines[1].contains("callback finished") && lines[1].contains("outcome=\"done\""), "{}", lines[1]);
    assert!(!log.contains("s3cret note") && !log.contains(PROVIDER_TOKEN), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_callbacks_are_rejected_without_contacting_waldur() {
    let site = Site::new(&[]).await;
    let (_, resource, order) = site.item(ORDERED).await;
    let approve = format!("/api/callbacks/orders/{order}/approve_by_provider/");
    let anonymous = site.proxy.post_with(&approve, &[], "").await;
    assert_eq!(
        (anonymous.status, &anonymous.body["error"]),
        (401, &json!("AuthenticationError")),
        "{}",
        anonymous.text
    );
    let forged = site.proxy.post_with(&approve, &[("Authorization", &format!("Token {PROVIDER_TOKEN}"))], "").await;
    assert_eq!(forged.status, 401);

    let made_up = Uuid::from_u128(7);
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(64 << 10));
    for (path, body, status, words) in [
        (format!("/api/callbacks/orders/{made_up}/approve_by_provider/"), "", 404, "no order in progress"),
        (format!("/api/callbacks/orders/{resource}/approve_by_provider/"), "", 404, "no order in progress"),
        ("/api/callbacks/orders/nonsense/approve_by_provider/".into(), "", 404, "no order in progress"),
        ("/api/callbacks/orders/%ff/approve_by_provider/".into(), "", 404, "Not Found"),
        (format!("/api/callbacks/resources/{made_up}/set_backend_id/"), "", 404, "no resource with an order"),
        (format!("/api/callbacks/resources/{order}/set_backend_id/"), "", 404, "no resource with an order"),
        (format!("/api/callbacks/orders/{order}/cancel/"), "", 404, "Not Found"),
        (format!("/api/callbacks/orders/{order}/set_backend_id/"), "", 404, "Not Found"),
        (format!("/api/callbacks/orders/{order}/..%2fcancel/"), "", 404, "Not Found"),
        (format!("/api/callbacks/orders/{order}/set_state_erred/"), "", 409, "the order is pending-provider"),
        (approve.clone(), "[1]", 400, "JSON object"),
        (approve.clone(), "{", 400, "JSON object"),
        (approve.clone(), &large, 413, "larger than 65536 bytes"),
    ] {
        let answer = site.post(&path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{path}: {}", answer.text);
    }
    let read = site.proxy.get_with(&approve, &[("Authorization", &site.bearer)]).await;
    assert_eq!((read.status, read.headers["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(site.calls(), 0);
    assert_eq!(site.state(order), Some(OrderState::PendingProvider));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_can_be_required_for_callbacks_only() {
    let site = Site::new(&[("CALLBACKS_REQUIRED_ROLES", "provisioner")]).await;
    let (item, _, order) = site.item(ORDERED).await;
    let link = &item["approve_by_provider_url"];
    let refused = site.follow(link, "").await;
    assert_eq!((refused.status, &refused.body["error"]), (403, &json!("AuthorizationError")), "{}", refused.text);
    assert_eq!((site.calls(), site.state(order)), (0, Some(OrderState::PendingProvider)));
    let token = site.simulator.realm().mint(&TokenSpec::service_account("provisioner").role("provisioner"));
    let site = Site { bearer: format!("Bearer {token}"), ..site };
    assert_eq!(site.follow(link, "").await.status, 200);
    assert!(!site.proxy.log().contains("no role is required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_another_host_is_never_followed() {
    let site = Site::new(&[]).await;
    let other = Simulator::start(simulator::World::empty()).await;
    let (_, _, order) = site.item(ORDERED).await;
    let url = format!("{}/api/marketplace-orders/{}/", other.base_url(), order.simple());
    site.simulator.world(|world| world.orders.get_mut(&order).unwrap().set("url", url));
    // Only a nested order has a URL of its own.
    site.simulator.set_fault("GET /api/marketplace-orders/", simulator::Fault::status(403));
    let fresh = [("Authorization", site.bearer.as_str()), ("Cache-Control", "no-cache")];
    assert_eq!(site.proxy.get_with("/api/storage-resources/", &fresh).await.status, 200);
    let answer = site.post(&format!("/api/callbacks/orders/{order}/approve_by_provider/"), "").await;
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert!(answer.text.contains("WALDUR_API_URL"), "{}", answer.text);
    assert_eq!((site.calls(), other.requests().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_reported_and_nothing_is_sent_twice() {
    let site = Site::new(&[("SERVER_REQUEST_TIMEOUT", "10")]).await;
    let (item, _, order) = site.item(ORDERED).await;
    let link = &item["approve_by_provider_url"];
    for (calls, fault) in [Fault::Silence, Fault::Reset, Fault::status(504)].into_iter().enumerate() {
        site.simulator.set_fault_times("POST /api/*", fault.clone(), 1);
        let answer = site.follow(link, "{}").await;
        assert_eq!(answer.status, 504, "{fault:?}: {}", answer.text);
        assert!(
            answer.text.contains("is unknown") && answer.text.contains("Read the listing again"),
            "{}",
            answer.text
        );
        assert_eq!(site.calls(), calls + 1, "{fault:?}");
        site.simulator.clear_faults();
    }
    assert!(site.proxy.log().contains("outcome=\"unknown\""));
    assert_eq!(site.state(order), Some(OrderState::PendingProvider));
    assert_eq!(site.follow(link, "{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_are_passed_on_with_reasons_but_failures_without_waldurs_text() {
    let site = Site::new(&[]).await;
    let (item, _, order) = site.item(ORDERED).await;
    let link = &item["approve_by_provider_url"];
    let json_answer = |status: u16, body: &str| Fault::Answer {
        status,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: body.into(),
    };
    let with_token = format!(r#"{{"detail": "Token {PROVIDER_TOKEN} may not"}}"#);
    for (fault, status, words) in [
        (json_answer(409, r#"{"detail": "Valid states for operation: x."}"#), 409, "Valid states for operation: x."),
        (json_answer(400, r#"{"attributes": ["They are odd."]}"#), 400, "attributes: They are odd."),
        (json_answer(400, r#"["Project 'x' is expired."]"#), 400, "Project 'x' is expired."),
        (json_answer(403, &with_token), 403, "Waldur rejected the callback (403 Forbidden)."),
        (Fault::status(404), 404, "Waldur rejected the callback (404 Not Found)."),
        (Fault::status(405), 405, "Waldur rejected the callback (405 Method Not Allowed)."),
        (json_answer(401, r#"{"detail": "Invalid token."}"#), 502, "check WALDUR_API_TOKEN"),
        (Fault::status(500), 502, "Waldur answered 500"),
        (Fault::redirect("https://evil.example/"), 502, "redirects are not followed"),
    ] {
        let before = site.calls();
        site.simulator.set_fault_times("POST /api/*", fault.clone(), 1);
        let answer = site.follow(link, "").await;
        assert_eq!(answer.status, status, "{fault:?}: {}", answer.text);
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{fault:?}: {}", answer.text);
        assert!(!answer.text.contains(PROVIDER_TOKEN) && !answer.text.contains("simulated fault"), "{}", answer.text);
        assert_eq!(site.calls(), before + 1, "{fault:?}");
        site.simulator.clear_faults();
    }
    assert_eq!(site.state(order), Some(OrderState::PendingProvider));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_callbacks_one_succeeds() {
    let site = Site::new(&[]).await;
    let (item, _, order) = site.item(ORDERED).await;
    let link = &item["approve_by_provider_url"];
    let (one, other) = futures::join!(site.follow(link, ""), site.follow(link, ""));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", one.text, other.text);
    assert_eq!(site.state(order), Some(OrderState::Executing));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_missing_in_the_snapshot_causes_one_refresh() {
    let site = Site::new(&[]).await;
    let resource = site.simulator.world(|world| world.resource_by_slug("create-pending-consumer").unwrap().uuid);
    assert!(!site.listing().await.text.contains(&resource.to_string()), "Waldur hides it from providers");
    // Approved by the consumer after the snapshot was created.
    let order = site.simulator.world(|world| {
        let order = world.order_in_progress(&world.resources[&resource]).unwrap().uuid;
        world.consumer_approve(order).unwrap();
        order
    });
    let approved = site.post(&format!("/api/callbacks/orders/{}/approve_by_provider", order.simple()), "").await;
    assert_eq!(approved.status, 200, "{}", approved.text);
    assert_eq!(site.state(order), Some(OrderState::Executing));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_links_lead_to_waldur_and_nothing_is_relayed() {
    let (simulator, proxy) = demo_with(&[("SERVER_PUBLIC_URL", PUBLIC)]).await;
    let listing = proxy.list("?page_size=500").await;
    assert!(listing.text.contains(&format!("{}/api/marketplace-orders/", simulator.base_url())));
    assert!(!listing.text.contains("/api/callbacks/"));
    let orders = listing.body["orders"].as_object().unwrap();
    let order = orders.values().find(|order| order["state"] == "pending-provider").unwrap()["uuid"].as_str().unwrap();
    let answer = proxy.post_with(&format!("/api/callbacks/orders/{order}/approve_by_provider/"), &[], "").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn relaying_without_a_required_role_is_logged_as_a_warning() {
    let site = Site::new(&[]).await;
    assert!(site.proxy.log().contains("no role is required"), "{}", site.proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_without_an_order_can_only_be_set_ok() {
    let site = Site::new(&[]).await;
    let (_, resource, order) = site.item(ORDERED).await;
    site.simulator.world(|world| world.delete_order(order).unwrap());
    let fresh = [("Authorization", site.bearer.as_str()), ("Cache-Control", "no-cache")];
    let listing = site.proxy.get_with("/api/storage-resources/?page_size=500", &fresh).await;
    let item = listing.items().iter().find(|item| item["itemId"] == json!(resource)).unwrap();
    assert!(
        item.as_object().unwrap().keys().all(|key| !key.ends_with("_url")),
        "items have no links without an order (D14): {item}"
    );
    let links = &listing.body["resourceLinks"][resource.to_string()];
    let url = format!("{PUBLIC}/api/callbacks/resources/{resource}/set_state_ok/");
    assert_eq!(*links, json!({"set_state_ok_url": url, "backend_id": null}));

    let other = site.post(&format!("/api/callbacks/resources/{resource}/set_backend_id/"), "{}").await;
    assert_eq!(other.status, 409, "{}", other.text);
    assert!(other.text.contains("no order in progress"), "{}", other.text);
    site.simulator.world(|world| world.has_set_state_ok = false);
    assert_eq!(site.follow(&links["set_state_ok_url"], "").await.status, 404);
    site.simulator.world(|world| world.has_set_state_ok = true);
    assert_eq!(site.follow(&links["set_state_ok_url"], "").await.status, 200);
    let state = site.simulator.world(|world| world.resources[&resource].state());
    assert_eq!(state, Some(simulator::world::ResourceState::Ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_causes_status_408() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let site = Site::new(&[("SERVER_REQUEST_TIMEOUT", "4")]).await;
    let (_, _, order) = site.item(ORDERED).await;
    let mut stream = tokio::net::TcpStream::connect(site.proxy.base.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /api/callbacks/orders/{order}/approve_by_provider/ HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
         content-length: 100\r\n\r\n{{",
        site.bearer
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("the body is incomplete after 1.8 s"), "{answer}");
    assert_eq!(site.calls(), 0);
    let numbers = site.proxy.get("/metrics").await.text;
    assert!(numbers.contains("status=\"408\"") && !numbers.contains("status=\"504\""), "{numbers}");
}
