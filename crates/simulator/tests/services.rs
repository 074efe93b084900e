//! Waldur's lists, and the server.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use simulator::world::Release;
use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

async fn get(sim: &Simulator, token: &str, path: &str) -> Response {
    let url = format!("{}{path}", sim.base_url());
    client().get(url).header("Authorization", format!("Token {token}")).send().await.unwrap()
}

async fn json_of(sim: &Simulator, token: &str, path: &str) -> Value {
    let response = get(sim, token, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.json().await.unwrap()
}

fn names<'a>(rows: &'a Value, key: &str) -> Vec<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_cover_every_resource_once() {
    let sim = Simulator::start(World::large(730)).await;
    let mut seen = std::collections::HashSet::new();
    for page in 1..=3 {
        let path = format!("/api/marketplace-provider-resources/?page_size=500&page={page}&field=uuid");
        let response = get(&sim, PROVIDER_TOKEN, &path).await;
        assert_eq!(response.headers()["x-result-count"], "730");
        let links = response.headers()["link"].to_str().unwrap().to_owned();
        assert_eq!(links.contains("rel=\"next\""), page < 3);
        let rows: Value = response.json().await.unwrap();
        assert!(rows.as_array().unwrap().len() <= 300);
        seen.extend(names(&rows, "uuid").into_iter().map(str::to_owned));
    }
    assert_eq!(seen.len(), 730);
    let beyond = get(&sim, PROVIDER_TOKEN, "/api/marketplace-provider-resources/?page_size=500&page=4").await;
    assert_eq!(beyond.status(), StatusCode::NOT_FOUND);
    assert_eq!(beyond.json::<Value>().await.unwrap(), json!({ "detail": "Invalid page." }));
}

#[tokio::test]
async fn rows_with_ties_can_be_missed_between_pages() {
    let mut world = World::large(200);
    world.rows = simulator::world::RowOrder::AskedWithoutTieBreak;
    for row in world.resources.values_mut() {
        row.set("created", "2026-01-01T00:00:00.000000+00:00");
    }
    let sim = Simulator::start(world).await;
    let distinct = async |ordering: &str| {
        let mut seen = std::collections::HashSet::new();
        for page in 1..=4 {
            let path = format!("/api/marketplace-provider-resources/?page_size=50&page={page}&field=uuid{ordering}");
            let rows = json_of(&sim, PROVIDER_TOKEN, &path).await;
            seen.extend(names(&rows, "uuid").into_iter().map(str::to_owned));
        }
        seen.len()
    };
    assert!(distinct("").await < 200);
    assert_eq!(distinct("&o=created,name").await, 200);
}

#[tokio::test]
async fn fields_also_filter_the_nested_order() {
    let sim = Simulator::start(World::demo()).await;
    let list = "/api/marketplace-provider-resources/?page_size=300&field=slug&field=order_in_progress";
    let order_of = |rows: &Value| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["slug"] == "limits-executing").unwrap()["order_in_progress"].clone()
    };
    let rows = json_of(&sim, PROVIDER_TOKEN, &format!("{list}&field=state")).await;
    assert_eq!(order_of(&rows), json!({ "state": "executing" }));
    let rows = json_of(&sim, PROVIDER_TOKEN, &format!("{list}&field=state&field=type&field=url")).await;
    let order = order_of(&rows);
    assert_eq!(order["type"], "Update");
    let url = order["url"].as_str().unwrap();
    assert!(url.starts_with(&sim.base_url()), "{url}");
    let path = url.strip_prefix(&sim.base_url()).unwrap();
    assert_eq!(json_of(&sim, PROVIDER_TOKEN, path).await["state"], "executing");
}

#[tokio::test]
async fn the_provider_sees_nothing_on_the_consumers_side() {
    let sim = Simulator::start(World::demo()).await;
    let staff = sim.world(|world| world.token("staff")).unwrap();
    let count = async |token: &str, family: &str| {
        json_of(&sim, token, &format!("/api/{family}/?page_size=300&field=uuid")).await.as_array().unwrap().len()
    };
    let all = sim.world(|world| world.resources.len());
    assert_eq!(count(PROVIDER_TOKEN, "marketplace-provider-resources").await, all);
    assert_eq!(count(PROVIDER_TOKEN, "marketplace-resources").await, 0);
    assert_eq!(count(&staff, "marketplace-resources").await, all);
    let owner = sim.world(|world| world.token("cscs-owner")).unwrap();
    let own = count(&owner, "marketplace-provider-resources").await;
    assert!(0 < own && own < all);
}

#[tokio::test]
async fn slugs_filter_in_newer_releases_only() {
    let sim = Simulator::start(World::demo()).await;
    let path =
        "/api/marketplace-provider-resources/?page_size=300&field=offering_slug&field=uuid&offering_slug=vast,capstor";
    let rows = json_of(&sim, PROVIDER_TOKEN, path).await;
    let slugs = names(&rows, "offering_slug");
    assert!(slugs.contains(&"vast") && slugs.contains(&"capstor") && !slugs.contains(&"iopsstor"));
    let rows = json_of(&sim, PROVIDER_TOKEN, &format!("{path}&offering_slug=iopsstor")).await;
    assert!(names(&rows, "offering_slug").iter().all(|slug| *slug == "iopsstor"), "the last value applies");
    sim.world(|world| world.release = Release::V7_0);
    let rows = json_of(&sim, PROVIDER_TOKEN, path).await;
    assert_eq!(rows.as_array().unwrap().len(), sim.world(|world| world.resources.len()));
    assert!(rows[0].get("offering_slug").is_none());
}

#[tokio::test]
async fn resources_pending_consumer_approval_can_be_hidden() {
    let sim = Simulator::start(World::demo()).await;
    let all = "/api/marketplace-provider-resources/?page_size=300&field=slug";
    let slugs = async |path: &str| -> Vec<String> {
        let rows = json_of(&sim, PROVIDER_TOKEN, path).await;
        names(&rows, "slug").into_iter().map(str::to_owned).collect()
    };
    let shown = slugs(&format!("{all}&visible_to_providers=true")).await;
    let hidden: Vec<String> = slugs(all).await.into_iter().filter(|slug| !shown.contains(slug)).collect();
    assert_eq!(hidden, ["create-pending-consumer", "create-pending-project", "create-pending-start-date"]);
    assert_eq!(
        slugs(&format!("{all}&visible_to_providers=True")).await.len(),
        shown.len() + 3,
        "only `true` has an effect"
    );
}

#[tokio::test]
async fn consumers_see_their_own_orders() {
    let sim = Simulator::start(World::demo()).await;
    let count = async |user: &str| {
        let token = sim.world(|world| world.token(user)).unwrap();
        let path = "/api/marketplace-orders/?page_size=300&field=customer_slug";
        let rows = json_of(&sim, &token, path).await;
        assert!(user != "alpha-owner" || names(&rows, "customer_slug").iter().all(|slug| *slug == "uni-alpha"));
        rows.as_array().unwrap().len()
    };
    let all = sim.world(|world| world.orders.len());
    assert_eq!((count("storage-proxy").await, count("support").await, count("stranger").await), (all, all, 0));
    let own = count("alpha-owner").await;
    assert!(0 < own && own < all);
}

#[tokio::test]
async fn offerings_are_found_by_slug() {
    let sim = Simulator::start(World::demo()).await;
    let rows = json_of(&sim, PROVIDER_TOKEN, "/api/marketplace-provider-offerings/?slug=vast&field=slug").await;
    assert_eq!(rows, json!([{ "slug": "vast" }]));
}

#[tokio::test]
async fn a_repeated_report_overwrites_the_month() {
    let sim = Simulator::start(World::demo()).await;
    let resource = sim.world(|world| world.resource_by_slug("capstor-store-0").unwrap().uuid);
    let report = async |component: &str, amount: f64| {
        let url = format!("{}/api/marketplace-component-usages/set_usage/", sim.base_url());
        let body = json!({ "resource": resource.simple(), "usages": [{ "type": component, "amount": amount }] });
        let request = client().post(url).header("Authorization", format!("Token {PROVIDER_TOKEN}")).json(&body);
        request.send().await.unwrap()
    };
    assert_eq!(report("storage", 7.5).await.status(), StatusCode::CREATED);
    assert_eq!(report("storage", -1.0).await.status(), StatusCode::CREATED);
    let path = format!("/api/marketplace-component-usages/?resource_uuid={resource}&field=usage");
    assert_eq!(json_of(&sim, PROVIDER_TOKEN, &path).await, json!([{ "usage": "-1.00" }]));
    let path = format!("/api/marketplace-provider-resources/{resource}/?field=current_usages");
    let shown = json_of(&sim, PROVIDER_TOKEN, &path).await;
    assert_eq!(shown, json!({ "current_usages": { "storage": "-1.00" } }));
    let unknown = report("nonsense", 1.0).await;
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
    let expected = json!({ "non_field_errors": ["These components are invalid: nonsense."] });
    assert_eq!(unknown.json::<Value>().await.unwrap(), expected);
}

#[tokio::test]
async fn customers_are_those_with_resources() {
    let sim = Simulator::start(World::demo()).await;
    let id = sim.world(|world| world.offering_by_slug("tape-basic").unwrap().uuid);
    let path = format!("/api/marketplace-provider-offerings/{}/customers/", id.simple());
    let rows = json_of(&sim, PROVIDER_TOKEN, &path).await;
    assert_eq!(names(&rows, "slug"), ["uni-alpha"]);
    let manager = sim.world(|world| world.token("capstor-manager")).unwrap();
    assert_eq!(get(&sim, &manager, &path).await.status(), StatusCode::NOT_FOUND);
    let capstor = sim.world(|world| world.offering_by_slug("capstor").unwrap().uuid);
    let path = format!("/api/marketplace-provider-offerings/{capstor}/customers/");
    assert_eq!(get(&sim, &manager, &path).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn costs_are_counted_by_path() {
    let sim = Simulator::start(World::large(120)).await;
    let id = sim.world(|world| world.resources.keys().next().unwrap().simple().to_string());
    let (list, mut bytes) = ("/api/marketplace-provider-resources/", 0);
    for query in ["?page_size=100&field=uuid", "?page_size=100&field=uuid&field=order_in_progress", "?page_size=100"] {
        bytes += get(&sim, PROVIDER_TOKEN, &format!("{list}{query}")).await.bytes().await.unwrap().len();
    }
    get(&sim, PROVIDER_TOKEN, &format!("{list}{id}/?field=uuid")).await;
    let beyond = get(&sim, PROVIDER_TOKEN, "/api/marketplace-orders/?page=9&field=uuid").await;
    assert_eq!(beyond.status(), StatusCode::NOT_FOUND);
    let costs = format!("{}/_simulator/costs", sim.base_url());
    let all: Value = client().get(&costs).send().await.unwrap().json().await.unwrap();
    let paths: Vec<&String> = all.as_object().unwrap().keys().collect();
    let [orders, resources, single] = [
        "GET /api/marketplace-orders/",
        "GET /api/marketplace-provider-resources/",
        "GET /api/marketplace-provider-resources/{uuid}/",
    ];
    assert_eq!(paths, [orders, resources, single]);
    let expected = json!({ "requests": 3, "rows": 300, "bytes": bytes, "queries": 3131.0, "seconds": 4.84 });
    assert_eq!(all[resources], expected);
    assert_eq!((&all[single]["rows"], &all[single]["seconds"]), (&json!(1), &json!(0.0225)));
    assert_eq!((&all[orders]["rows"], &all[orders]["queries"]), (&json!(0), &json!(7.0)));
    assert_eq!(client().delete(&costs).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(client().get(&costs).send().await.unwrap().json::<Value>().await.unwrap(), json!({}));
}

#[tokio::test]
async fn requests_are_logged_with_their_connection() {
    let sim = Simulator::start(World::demo()).await;
    let client = client();
    for _ in 0..3 {
        let request = client.get(format!("{}/api/version/?a=b", sim.base_url())).header("User-Agent", "tester/1");
        request.header("Authorization", format!("Token {PROVIDER_TOKEN}")).send().await.unwrap().bytes().await.unwrap();
    }
    let log = sim.requests();
    assert_eq!(log.len(), 3);
    assert_eq!(log[0].header("user-agent"), Some("tester/1"));
    assert_eq!(log[0].query_all("a"), ["b"]);
    assert_eq!(log[2].status, Some(200));
    assert_eq!(log[0].connection, log[2].connection);
    assert_eq!(sim.connections(), 1);
}

#[tokio::test]
async fn an_outage_closes_connections_and_the_port_is_reused() {
    let mut sim = Simulator::start(World::empty()).await;
    let client = client();
    let url = format!("{}/api/version/", sim.base_url());
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    sim.stop();
    assert!(client.get(&url).send().await.is_err());
    assert!(self::client().get(&url).send().await.unwrap_err().is_connect(), "the port is closed");
    sim.restart().unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(sim.requests().len(), 2);
}

#[tokio::test]
async fn a_fault_applies_the_given_number_of_times() {
    let sim = Simulator::start(World::empty()).await;
    sim.set_fault_times("GET /api/*", Fault::retry_after(503, 7), 1);
    let first = get(&sim, PROVIDER_TOKEN, "/api/version/").await;
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(first.headers()["retry-after"], "7");
    assert_eq!(get(&sim, PROVIDER_TOKEN, "/api/version/").await.status(), StatusCode::OK);
    assert!(sim.faults().is_empty());
}
