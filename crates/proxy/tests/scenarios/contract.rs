//! The published description of the API and of the document, compared with real responses; and the examples in `docs/examples`, which
//! are real exchanges.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};
use simulator::world::{NewResource, OfferingType, ResourceState, Role};
use simulator::{PROVIDER_TOKEN, Simulator, TokenSpec, World};
use uuid::Uuid;

use crate::support::{Proxy, demo_with, start_with, until};

const LISTING: &str = "/api/storage-resources/";
const ITEM: &str = "/api/storage-resources/{itemId}/";
/// Headers of HTTP itself, which are not described for each response.
const GENERAL: [&str; 8] = [
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "vary",
    "x-content-type-options",
];
/// Headers that are described and only sometimes present.
const SOMETIMES: [&str; 2] = ["preference-applied", "warning"];

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The described headers of a response, in lower case.
fn described(document: &Value, path: &str, status: u16) -> BTreeSet<String> {
    let operation = document["paths"][path].as_object().unwrap().values().next().unwrap();
    let mut response = &operation["responses"][status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(&reference[1..]).unwrap();
    }
    let headers = response["headers"].as_object().unwrap_or_else(|| panic!("{path} {status} is not described"));
    headers.keys().map(|name| name.to_ascii_lowercase()).collect()
}

#[track_caller]
fn assert_described(document: &Value, path: &str, status: u16, headers: &HeaderMap) {
    let described = described(document, path, status);
    let sent: BTreeSet<_> =
        headers.keys().map(ToString::to_string).filter(|name| !GENERAL.contains(&name.as_str())).collect();
    let undescribed: Vec<_> = sent.difference(&described).collect();
    assert!(undescribed.is_empty(), "{path} {status}: {undescribed:?}");
    let missing = described.difference(&sent).filter(|name| !SOMETIMES.contains(&name.as_str()));
    assert_eq!(missing.count(), 0, "{path} {status} should have {described:?}: {headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_described() {
    let settings = [("DISABLE_AUTH", "false"), ("SERVER_MAX_WAITING", "1"), ("CACHE_MAX_AGE", "3600")];
    let (simulator, proxy) = demo_with(&settings).await;
    let document = proxy.get("/openapi.json").await.body;
    let bearer = format!("Bearer {}", simulator.realm().mint(&TokenSpec::user("alpha-member")));
    let authorized = [("Authorization", bearer.as_str())];
    let listing = proxy.get_with(LISTING, &authorized).await;
    let tag = listing.headers["etag"].to_str().unwrap();
    let item = format!("{LISTING}{}/", listing.items()[0]["itemId"].as_str().unwrap());
    let nothing = format!("{LISTING}{}/", Uuid::nil());
    let known = ("If-None-Match", tag);
    for (described, path, more, status) in [
        (LISTING, LISTING, vec![], 200),
        (LISTING, LISTING, vec![known], 304),
        (LISTING, LISTING, vec![known, ("Prefer", "wait=1")], 304),
        (LISTING, "/api/storage-resources/?page=0", vec![], 422),
        (ITEM, &item, vec![], 200),
        (ITEM, &item, vec![known], 304),
        (ITEM, &nothing, vec![], 404),
        ("/api/version", "/api/version", vec![], 200),
    ] {
        let answer = proxy.get_with(path, &[&authorized, more.as_slice()].concat()).await;
        assert_eq!(answer.status, status, "{path} {more:?}: {}", answer.text);
        assert_described(&document, described, status, &answer.headers);
    }
    let anonymous = proxy.get(LISTING).await;
    assert_eq!(anonymous.status, 401);
    assert_described(&document, LISTING, 401, &anonymous.headers);

    let waiting = [authorized[0], known, ("Prefer", "wait=2")];
    let second = async {
        let count = "\nhpc_storage_proxy_requests_waiting 1\n";
        until("a request waits", async || proxy.get("/metrics").await.text.contains(count)).await;
        proxy.get_with(LISTING, &waiting).await
    };
    let (first, second) = futures::join!(proxy.get_with(LISTING, &waiting), second);
    assert_eq!((first.status, second.status), (304, 503));
    assert_described(&document, LISTING, 503, &second.headers);
}

/// A site with one storage system and one project, whose requests and callbacks are recorded.
struct Flow {
    simulator: Simulator,
    proxy: Proxy,
    place: (Uuid, Uuid),
    exchanges: Vec<Value>,
}

/// The public addresses in the examples.
const PROXY: &str = "https://storage-proxy.example.org";
const WALDUR: &str = "https://waldur.example.org";
const DIRECTORY: &str = "/capstor/store/cscs/uni-alpha/climate";

fn attributes() -> Value {
    json!({"storage_data_type": "store", "permissions": "2770"})
}

/// A resource in use.
fn record() -> Map<String, Value> {
    Map::from_iter([
        ("limits".to_owned(), json!({"storage": 10})),
        ("attributes".to_owned(), attributes()),
        ("backend_id".to_owned(), DIRECTORY.into()),
    ])
}

impl Flow {
    async fn new(kind: OfferingType) -> Self {
        let mut world = World::empty();
        let provider = world.add_provider("cscs", "Storage Centre");
        world.grant("storage-proxy", Role::ProviderOwner(provider));
        let offering = world.add_offering(provider, "capstor", "Capstor", kind);
        let customer = world.add_customer("uni-alpha", "University Alpha");
        let project = world.add_project(customer, "climate", "Climate");
        world.hpc.add_project("climate", Some(30_500));
        let simulator = Simulator::start(world).await;
        let proxy = start_with(&simulator, &[("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#)]).await;
        Self { simulator, proxy, place: (offering, project), exchanges: Vec::new() }
    }

    /// Adds a resource in this state, and places an order with `order`, which the customer approves.
    fn ordered(&self, state: ResourceState, order: impl FnOnce(&mut World, Uuid) -> Option<Uuid>) {
        let place = self.place;
        self.simulator.world(|world| {
            let resource = world.add_resource(place, "climate-store", state, record());
            let order = order(world, resource).unwrap();
            world.consumer_approve(order).unwrap();
        });
    }

    /// Orders a new resource with these limits.
    fn created(&self, limits: Value) {
        let (offering, project) = self.place;
        self.simulator.world(|world| {
            let slug = "climate-store".to_owned();
            let order = world.order_create(NewResource { offering, project, slug, limits, attributes: attributes() });
            world.consumer_approve(order).unwrap();
        });
    }

    fn record(&mut self, comment: &str, method: &str, url: &str, sent: Option<&Value>, status: u16, body: &Value) {
        let mut request = json!({"method": method, "url": url});
        if let Some(sent) = sent {
            request["body"] = sent.clone();
        }
        let mut response = json!({"status": status});
        if !body.is_null() {
            response["body"] = body.clone();
        }
        self.exchanges.push(json!({"comment": comment, "request": request, "response": response}));
    }

    /// Reads the listing; returns the last item and the body.
    async fn list(&mut self, comment: &str, query: &str) -> (Value, Value) {
        let answer = self.proxy.list(query).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        self.record(comment, "GET", &format!("{PROXY}{LISTING}{query}"), None, 200, &answer.body);
        let item = answer.items().last().cloned().unwrap_or_default();
        (item, answer.body)
    }

    /// Calls a link of an item.
    async fn call(&mut self, comment: &str, item: &Value, link: &str, body: Value) {
        let url = item[link].as_str().unwrap_or_else(|| panic!("no {link} in {item}"));
        let response = reqwest::Client::new()
            .post(url)
            .header("Authorization", format!("Token {PROVIDER_TOKEN}"))
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        self.record(comment, "POST", url, Some(&body), status, &serde_json::from_str(&text).unwrap_or_default());
    }

    /// The exchanges, with public addresses.
    fn text(self) -> String {
        let text = serde_json::to_string_pretty(&self.exchanges).unwrap() + "\n";
        text.replace(&self.simulator.base_url(), WALDUR)
    }
}

async fn create() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    flow.created(json!({"storage": 10}));
    let (item, _) = flow.list("The customer has approved an order for a new directory.", "").await;
    flow.call("The provisioner approves it.", &item, "approve_by_provider_url", json!({})).await;
    let (item, _) = flow.list("It is executing.", "").await;
    let path = json!({"backend_id": DIRECTORY});
    flow.call("The directory exists and has been verified.", &item, "set_backend_id_url", path).await;
    flow.call("This completes the order.", &item, "set_state_done_url", json!({})).await;
    flow.list("The directory is in use.", "?status=active").await;
    flow.text()
}

async fn create_basic() -> String {
    let mut flow = Flow::new(OfferingType::Basic).await;
    flow.created(json!({"storage": 10}));
    let (item, _) = flow.list("The customer has approved an order for a new directory.", "").await;
    let path = json!({"backend_id": DIRECTORY});
    flow.call("The directory exists and has been verified.", &item, "set_backend_id_url", path).await;
    flow.call("The approval completes the order.", &item, "approve_by_provider_url", json!({})).await;
    flow.list("The directory is in use.", "?status=active").await;
    flow.text()
}

async fn resize_limits() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    flow.ordered(ResourceState::Ok, |world, resource| world.order_update_limits(resource, json!({"storage": 25})));
    let (item, _) = flow.list("The customer has approved an order for more space.", "?status=updating").await;
    flow.call("The provisioner approves it.", &item, "approve_by_provider_url", json!({})).await;
    let (item, _) = flow.list("It is executing: set `newQuotas`.", "?status=updating").await;
    flow.call("The quotas are set and have been read back.", &item, "set_state_done_url", json!({})).await;
    flow.list("The new quotas are in force.", "?status=active").await;
    flow.text()
}

async fn resize_options() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    let options = Map::from_iter([("hard_quota_space".to_owned(), json!(12.5))]);
    flow.ordered(ResourceState::Ok, |world, resource| world.order_update_options(resource, &options));
    let comment = "The customer has approved an order that sets an option; `orders` has the new options.";
    let (item, body) = flow.list(comment, "?status=updating").await;
    let id = item["itemId"].as_str().unwrap();
    let approval = json!({"attributes": {"new_options": body["orders"][id]["newOptions"]}});
    let comment = "The provisioner approves it. This Waldur completes orders of options on approval.";
    flow.call(comment, &item, "approve_by_provider_url", approval).await;
    flow.list("The new quotas are in force.", "?status=active").await;
    flow.text()
}

async fn terminate() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    flow.ordered(ResourceState::Ok, World::order_terminate);
    let comment =
        "The customer has approved a termination. The directory stays untouched until the provider approves it too.";
    let (item, _) = flow.list(comment, "?status=removing").await;
    flow.call("The provisioner approves it.", &item, "approve_by_provider_url", json!({})).await;
    let (item, _) = flow.list("It is executing: freeze the directory, move it to a trash.", "?status=removing").await;
    flow.call("The directory is in the trash.", &item, "set_state_done_url", json!({})).await;
    flow.list("The resource is terminated.", "?status=removed").await;
    flow.text()
}

async fn terminate_basic() -> String {
    let mut flow = Flow::new(OfferingType::Basic).await;
    flow.ordered(ResourceState::Ok, World::order_terminate);
    let comment =
        "The customer has approved a termination. The directory stays untouched until the resource is `removed`.";
    let (item, _) = flow.list(comment, "?status=removing").await;
    flow.call("The approval completes the order.", &item, "approve_by_provider_url", json!({})).await;
    flow.list("The resource is terminated: freeze the directory, move it to a trash.", "?status=removed").await;
    flow.text()
}

async fn restore() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    flow.ordered(ResourceState::Terminated, World::order_restore);
    let (item, _) = flow.list("The customer has approved the restoration of a terminated resource.", "").await;
    flow.call("The provisioner approves it.", &item, "approve_by_provider_url", json!({})).await;
    let (item, _) = flow.list("It is executing: move the directory back from the trash.", "").await;
    let path = json!({"backend_id": DIRECTORY});
    flow.call("The directory is back and has been verified.", &item, "set_backend_id_url", path).await;
    flow.call("This completes the order.", &item, "set_state_done_url", json!({})).await;
    flow.list("The directory is in use.", "?status=active").await;
    flow.text()
}

async fn skipped() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    let place = flow.place;
    flow.simulator.world(|world| {
        world.hpc.set_gid("climate", None);
        world.add_resource(place, "climate-store", ResourceState::Ok, record());
        let mut malformed = record();
        malformed.insert("limits".into(), json!({"storage": "a lot"}));
        world.add_resource(place, "climate-archive", ResourceState::Ok, malformed);
    });
    flow.list("Two resources cannot be processed. This does not mean that their directories are to be deleted.", "")
        .await;
    flow.text()
}

async fn quota_problem() -> String {
    let mut flow = Flow::new(OfferingType::Slurm).await;
    flow.created(json!({}));
    flow.list("The order has no limit `storage`: do not set its quotas, and do not reject it.", "?status=pending")
        .await;
    flow.text()
}

/// The name is what `just docs` runs.
#[tokio::test(flavor = "multi_thread")]
async fn generated_documents_contain_real_exchanges() {
    let examples = [
        ("examples/create.json", create().await),
        ("examples/create-basic.json", create_basic().await),
        ("examples/resize-limits.json", resize_limits().await),
        ("examples/resize-options.json", resize_options().await),
        ("examples/terminate.json", terminate().await),
        ("examples/terminate-basic.json", terminate_basic().await),
        ("examples/restore.json", restore().await),
        ("examples/skipped.json", skipped().await),
        ("examples/quota-problem.json", quota_problem().await),
    ];
    let schema: Value =
        serde_json::from_slice(&std::fs::read(documents().join("document.schema.json")).unwrap()).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    for (name, text) in &examples {
        let exchanges: Vec<Value> = serde_json::from_str(text).unwrap();
        let listings = exchanges.iter().filter(|exchange| exchange["request"]["method"] == "GET");
        for listing in listings.clone() {
            if let Err(error) = schema.validate(&listing["response"]["body"]) {
                panic!("{name}: {error} at {}", error.instance_path());
            }
        }
        assert!(listings.count() > 0, "{name}");
    }
    std::fs::create_dir_all(documents().join("examples")).unwrap();
    program::documents::check(&documents(), &examples);
}
