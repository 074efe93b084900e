//! Validates recorded responses with the document.

use std::fs;
use std::path::Path;

use http::HeaderMap;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{assert_described, validator};
use crate::auth::{AuthError, Verifier};
use crate::config::Auth;
use program::Clock;

const LISTING: &str = "/api/storage-resources/";
const ITEM: &str = "/api/storage-resources/{itemId}/";
/// An item with an order in progress.
const ORDERED: &str = "e9a462ce-0fa0-40a0-b210-d3dbe88f40a2";

/// Status and body of every recorded response. Recordings lack `version`, `orders`, `quotaProblems` and `resourceLinks`, and come from a proxy that skips nothing.
fn recorded() -> Vec<(u16, Value)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contract/golden");
    let cases = fs::read_dir(golden).unwrap().map(|case| case.unwrap().path().join("answers.json"));
    let answers = cases.flat_map(|case| -> Vec<Value> { serde_json::from_slice(&fs::read(case).unwrap()).unwrap() });
    answers
        .map(|mut answer| {
            let status = answer["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap();
            let mut body = answer["body"].take();
            if status == 200 {
                body["version"] = "0.0.0".into();
                body["skipped"] = json!([
                    {"itemId": "83b80494-96af-48f3-94ee-913e4a8f4c01", "error": "MissingIdentityError", "detail": "No GID."},
                    {"itemId": null, "error": "MalformedResourceError", "detail": "uuid is missing"},
                ]);
                body["orders"] = json!({ORDERED: {
                    "uuid": "80110fb8-582d-424b-8748-0b28b1914e55", "type": "Create", "state": "pending-provider",
                    "offeringType": "Marketplace.Slurm",
                }});
                body["quotaProblems"] = json!({ORDERED: {
                    "code": "missing_component", "detail": "the limits have no component storage (present: nothing)",
                }});
                body["resourceLinks"] = json!({ORDERED: {
                    "set_state_ok_url": "https://waldur.example.org/api/", "backend_id": null,
                }});
            }
            (status, body)
        })
        .collect()
}

#[test]
fn recorded_responses_match_the_document() {
    let recorded = recorded();
    for status in [200, 422] {
        assert!(recorded.iter().any(|(recorded, _)| *recorded == status), "{status} was recorded");
    }
    let (listing, faults) = (validator(LISTING, 200), validator(LISTING, 422));
    for (status, body) in &recorded {
        let validator = if *status == 200 { &listing } else { &faults };
        if let Err(fault) = validator.validate(body) {
            panic!("{status}: {fault} at {}\n{body}", fault.instance_path());
        }
    }
}

/// JSON pointers of all values.
fn places(value: &Value, place: &str, all: &mut Vec<String>) {
    all.push(place.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{place}/{key}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| places(value, &format!("{place}/{at}"), all));
        }
        _ => {}
    }
}

/// Alters `body` in every place, one at a time: each change must be detected unless it is allowed.
fn alter_everywhere(validator: &Validator, body: &Value, open: &[&str], optional: impl Fn(&str) -> bool) -> usize {
    let mut all = Vec::new();
    places(body, "", &mut all);
    for place in &all {
        let mut altered = body.clone();
        let value = altered.pointer_mut(place).unwrap();
        *value = if value.is_object() { json!(5) } else { json!({"surprise": 1}) };
        assert!(!validator.is_valid(&altered), "{place} of another type");

        let mut altered = body.clone();
        if let Some(map) = altered.pointer_mut(place).unwrap().as_object_mut() {
            map.insert("surprise".into(), json!(1));
            assert_eq!(validator.is_valid(&altered), open.contains(&place.as_str()), "{place} with a surprise");
        }

        let (parent, key) = place.rsplit_once('/').unwrap_or_default();
        let mut altered = body.clone();
        if let Some(map) = altered.pointer_mut(parent).unwrap().as_object_mut() {
            map.remove(key);
            assert!(key.is_empty() || validator.is_valid(&altered) == optional(place), "without {place}");
        }
    }
    all.len()
}

/// One item of each kind: by type of target, links and changed quotas.
fn sample() -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let kind = |item: &Value| {
        let links = item.as_object().unwrap().keys().filter(|key| key.ends_with("_url")).count();
        (item["target"]["targetType"].clone(), links, item["quotas"].is_null(), item["newQuotas"].is_null())
    };
    for (_, mut body) in recorded().into_iter().filter(|(status, _)| *status == 200) {
        let Value::Array(resources) = body["resources"].take() else { panic!("no list") };
        for item in resources {
            if !items.iter().any(|known| kind(known) == kind(&item)) {
                items.push(item);
            }
        }
    }
    items
}

#[test]
fn altered_items_do_not_match_the_document() {
    let items = sample();
    for target in ["tenant", "customer", "project", "user"] {
        assert!(items.iter().any(|item| item["target"]["targetType"] == target), "{target}");
    }
    let validator = validator(ITEM, 200);
    let links = |place: &str| place.ends_with("_url");
    for item in &items {
        assert!(validator.is_valid(item), "{item}");
        assert!(alter_everywhere(&validator, item, &[], links) > 20);
        let mut other = item.clone();
        other["target"]["targetType"] = if item["target"]["targetType"] == "user" { "project" } else { "user" }.into();
        assert!(!validator.is_valid(&other), "a target of another kind than it says");
    }
}

#[test]
fn altered_responses_do_not_match_the_document() {
    let mut listing = recorded().into_iter().find(|(status, _)| *status == 200).unwrap().1;
    listing["resources"] = json!([]);
    let filters = json!({"storage_system": "a", "data_type": "b", "status": "active", "state": "OK"});
    listing["filters_applied"].as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
    listing["filters_applied"]["offering_slugs"] = json!(["a"]);
    let filter = |place: &str| place.strip_prefix("/filters_applied/").is_some_and(|key| filters.get(key).is_some());
    let entries = ["orders", "quotaProblems", "resourceLinks"].map(|map| format!("/{map}/{ORDERED}"));
    let optional = |place: &str| filter(place) || entries.contains(&place.to_owned());
    alter_everywhere(&validator(LISTING, 200), &listing, &["", "/pagination"], optional);
    for unknown in ["uuid", "type", "state", "offeringType"] {
        listing["orders"][ORDERED][unknown] = Value::Null;
        assert!(validator(LISTING, 200).is_valid(&listing), "{unknown}");
    }

    let faults = validator(LISTING, 422);
    for (_, mut body) in recorded().into_iter().filter(|(status, _)| *status == 422) {
        // The content of `ctx` depends on the type of error.
        let context = body["detail"][0].as_object_mut().unwrap().remove("ctx");
        assert!(context.is_none_or(|context| context.is_object()));
        alter_everywhere(&faults, &body, &[""], |_| false);
    }
}

/// Documents of later versions may have other values and other keys.
#[test]
fn documents_of_later_versions_match_the_published_schema() {
    let schema: Value = serde_json::from_str(&crate::openapi::json_schema()).unwrap();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    let (published, exact) = (jsonschema::draft202012::new(&schema).unwrap(), validator(LISTING, 200));
    let listings: Vec<_> = recorded().into_iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert!(listings.iter().all(|listing| published.is_valid(listing)));

    let is_project = |item: &Value| item["target"]["targetType"] == "project" && item["quotas"].is_array();
    let mut listing = listings[0].clone();
    let items = listings.iter().flat_map(|listing| listing["resources"].as_array().unwrap());
    listing["resources"] = json!([items.clone().find(|item| is_project(item)).unwrap()]);
    let order = format!("/orders/{ORDERED}");
    let changed = |place: &str, value: &Value| {
        let mut changed = listing.clone();
        *changed.pointer_mut(place).unwrap_or_else(|| panic!("{place} is missing")) = value.clone();
        changed
    };
    for place in [
        "/status",
        "/resources/0/status",
        "/resources/0/permission/permissionType",
        "/resources/0/target/targetType",
        "/resources/0/target/targetItem/status",
        "/resources/0/quotas/0/type",
        "/resources/0/quotas/0/unit",
        "/resources/0/quotas/0/enforcementType",
        "/skipped/0/error",
        &format!("/quotaProblems/{ORDERED}/code"),
    ] {
        let later = changed(place, &json!("later"));
        assert!(published.is_valid(&later), "{place}");
        assert!(!exact.is_valid(&later), "{place} has only known values in this version");
        assert!(!published.is_valid(&changed(place, &json!(5))), "{place} of another type");
    }
    for place in ["", "/resources/0", "/resources/0/quotas/0", "/resources/0/target/targetItem", &order, "/skipped/0"] {
        let mut later = listing.clone();
        later.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("later".into(), json!(1));
        assert!(published.is_valid(&later), "{place}");
    }
    for (parent, key) in
        [("", "orders"), ("/resources/0", "newQuotas"), ("/resources/0/target", "targetItem"), (&order, "state")]
    {
        let mut broken = listing.clone();
        broken.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        assert!(!published.is_valid(&broken), "without {parent}/{key}");
    }
}

#[tokio::test]
async fn rejections_match_the_document() {
    let auth = Auth {
        disable_auth: false,
        keycloak_url: "http://127.0.0.1:9/".parse().unwrap(),
        keycloak_realm: "test".into(),
        keycloak_client_id: None,
        keycloak_client_secret: None,
        introspection: false,
        required_roles: vec!["reader".into()],
        callback_roles: Vec::new(),
        report_roles: Vec::new(),
        verify_ssl: true,
        socks_proxy: None,
    };
    let verifier = Verifier::new(&auth, Clock::system()).unwrap();
    let unauthenticated = verifier.caller(&HeaderMap::new()).await.unwrap_err();
    let forbidden = AuthError::Forbidden { missing: vec!["reader".into()] };
    for (error, status) in [(unauthenticated, 401), (forbidden, 403)] {
        let rejection = verifier.rejection(&error);
        assert_eq!(rejection.status, status);
        assert!(rejection.headers.contains_key("WWW-Authenticate"));
        assert_described(LISTING, status, &rejection.body);
        assert_described(ITEM, status, &rejection.body);
    }
}
