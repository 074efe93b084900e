//! Filters, single items, and other routes.

use serde_json::{Value, json};

use crate::support::{Proxy, demo, demo_with};

fn ids(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["itemId"].as_str().unwrap()).collect()
}

async fn all(proxy: &Proxy) -> Vec<Value> {
    proxy.list("?page_size=500").await.items().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_and_never_change_an_item() {
    let (simulator, proxy) = demo().await;
    let everything = all(&proxy).await;
    for query in ["status=pending", "status=active", "state=OK", "storage_system=vast&data_type=store", "state=Erred"] {
        let answer = proxy.list(&format!("?page_size=500&{query}")).await;
        assert!(!answer.items().is_empty(), "{query} selects something");
        assert!(answer.items().len() < everything.len(), "{query} selects not everything");
        for item in answer.items() {
            assert!(everything.contains(item), "{query} changed {item}");
        }
    }
    // Waldur is never queried by state: rows that leave the state while pages are read would hide others.
    let requests = simulator.requests();
    let mut lists = requests.iter().filter(|request| request.path.ends_with("-resources/"));
    assert!(lists.all(|request| request.query_all("state").is_empty()));
    let erred = proxy.list("?state=Erred&page_size=500").await;
    let statuses: Vec<_> = erred.items().iter().filter(|item| item["target"]["targetType"] == "project").collect();
    assert!(!statuses.is_empty() && statuses.iter().all(|item| item["status"] == "error"), "{}", erred.text);
    assert!(erred.items().iter().any(|item| item["target"]["targetType"] == "tenant"), "with their tenants");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_works_with_and_without_a_slash_and_without_a_redirect() {
    let (_simulator, proxy) = demo().await;
    let (with, without) = (proxy.get("/api/storage-resources/").await, proxy.get("/api/storage-resources").await);
    assert_eq!((with.status, without.status), (200, 200));
    assert_eq!(with.body, without.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_item_is_the_same_as_in_the_listing() {
    let (_simulator, proxy) = demo().await;
    let everything = all(&proxy).await;
    for item in &everything {
        let id = item["itemId"].as_str().unwrap();
        // Nodes of several data types share an ID: the first one is returned.
        let first = everything.iter().find(|other| other["itemId"] == item["itemId"]).unwrap();
        for path in [format!("/api/storage-resources/{id}/"), format!("/api/storage-resources/{}", id.replace('-', ""))]
        {
            let answer = proxy.get(&path).await;
            assert_eq!((answer.status, &answer.body), (200, first), "{path}");
        }
        if everything.len() > 20 && item == &everything[20] {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_resources_are_in_the_listing_and_single_ones_return_500() {
    let (simulator, proxy) = demo().await;
    let answer = proxy.list("").await;
    let skipped = answer.body["skipped"].as_array().unwrap();
    let errors: Vec<_> = skipped.iter().map(|skipped| skipped["error"].as_str().unwrap()).collect();
    assert!(errors.contains(&"MissingIdentityError") && errors.contains(&"MalformedResourceError"), "{errors:?}");
    for skipped in skipped {
        let id = skipped["itemId"].as_str().unwrap();
        let one = proxy.get(&format!("/api/storage-resources/{id}/")).await;
        assert_eq!(one.status, 500, "{}", one.text);
        assert_eq!(one.body["error"], "ResourceProcessingError");
        assert_eq!(one.body["detail"], skipped["detail"]);
        assert_eq!(one.body["message"], "Failed to process storage resource.");
    }
    assert!(proxy.log().contains("a resource is skipped"), "{}", proxy.log());

    // Once the project has a GID its item appears, without a restart.
    let missing = |answer: &crate::support::Answer| {
        let skipped = answer.body["skipped"].as_array().unwrap().iter();
        skipped.filter(|skipped| skipped["detail"].as_str().unwrap().contains("gid for mch-p2")).count()
    };
    assert!(missing(&answer) > 0);
    simulator.world(|world| world.hpc.set_gid("mch-p2", Some(31_000)));
    assert_eq!(missing(&proxy.list("").await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_listing_can_be_configured_to_fail() {
    let (_simulator, proxy) = demo_with(&[("ON_PROCESSING_ERROR", "fail")]).await;
    let answer = proxy.list("").await;
    assert_eq!((answer.status, &answer.body["error"]), (500, &json!("ResourceProcessingError")), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_contain_names_of_systems_or_slugs_of_offerings() {
    let systems = ("STORAGE_SYSTEMS", r#"{"cap": "capstor", "fast": "vast"}"#);
    for (identifier, segment, warned) in
        [(None, "/cap/", true), (Some("storage_system"), "/cap/", false), (Some("offering_slug"), "/capstor/", false)]
    {
        let mut settings = vec![systems];
        settings.extend(identifier.map(|identifier| ("SYSTEM_IDENTIFIER", identifier)));
        let (_simulator, proxy) = demo_with(&settings).await;
        let answer = proxy.list("?storage_system=cap&page_size=500").await;
        assert_eq!(answer.body["filters_applied"]["offering_slugs"], json!(["capstor"]));
        let tenant = &answer.items()[0];
        let paths = ids(answer.items()).len();
        assert!(paths > 3 && tenant["storageSystem"]["key"] == segment.trim_matches('/'), "{tenant}");
        let generated =
            answer.items().iter().any(|item| item["mountPoint"]["default"].as_str().unwrap().starts_with(segment));
        assert!(generated, "{identifier:?}");
        assert_eq!(
            proxy.log().contains("set backend_settings.system_identifier"),
            warned,
            "{identifier:?}\n{}",
            proxy.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_routes_respond_in_the_format_of_the_python_proxy() {
    let (_simulator, proxy) = demo().await;
    let version = proxy.get("/api/version").await;
    assert_eq!((version.status, &version.body), (200, &json!({"version": env!("CARGO_PKG_VERSION")})));
    for path in ["/nowhere", "/api/", "/api/storage-resources/00000000-0000-4000-8000-000000000000/"] {
        let answer = proxy.get(path).await;
        assert_eq!((answer.status, &answer.body), (404, &json!({"detail": "Not Found"})), "{path}");
    }
    for id in ["nonsense", "%ff", "%20"] {
        let answer = proxy.get(&format!("/api/storage-resources/{id}/")).await;
        assert_eq!(answer.status, 422, "{id}");
        assert_eq!(answer.body["detail"][0]["loc"], json!(["path", "itemId"]));
    }
    let far = proxy.get("/api/storage-resources/?page=18446744073709551616").await;
    assert_eq!((far.status, far.items().len()), (200, 0), "a page past the end is empty");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let method: reqwest::Method = method.parse().unwrap();
        let url = format!("{}/api/storage-resources/", proxy.base);
        let response = reqwest::Client::new().request(method, url).send().await.unwrap();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET, HEAD");
        assert_eq!(response.json::<Value>().await.unwrap(), json!({"detail": "Method Not Allowed"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_needs_no_token() {
    let (_simulator, proxy) = demo_with(&[("DISABLE_AUTH", "false")]).await;
    let document = proxy.get("/openapi.json").await;
    assert_eq!((document.status, &document.body["openapi"]), (200, &json!("3.1.0")));
    let parameters = &document.body["paths"]["/api/storage-resources/"]["get"]["parameters"];
    assert_eq!(parameters[0]["schema"]["enum"], json!(["capstor", "vast", "iopsstor"]));
    for page in ["/docs", "/redoc"] {
        let page = proxy.get(page).await;
        assert_eq!(page.status, 200);
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    }
}
