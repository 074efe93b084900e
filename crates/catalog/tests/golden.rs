//! Reproduces the recorded answers of the Python proxy item by item.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::{Customer, Customers, Filter, Identities, InodeRule, Policy, Resource, System, build};
use serde_json::Value;
use serde_json::value::RawValue;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contract/golden");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 5, "the golden cases are missing");
    cases
}

fn json(case: &Path, file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(case.join(file)).unwrap()).unwrap()
}

/// Development mode is off: the Python proxy generates UIDs and e-mail addresses of users, but the recordings contain null in
/// their place (decision D5).
fn policy() -> Policy {
    let system = |name: &str| System { name: name.into(), identifier: name.into(), offering_slug: name.into() };
    Policy {
        systems: ["capstor", "vast", "iopsstor"].map(system).into(),
        file_system: "lustre".into(),
        inodes: InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 },
        ignore_metadata_targets: false,
        development_mode: false,
        relay: None,
        waldur: "https://waldur.example.org/api".into(),
    }
}

fn resources(upstream: &Value) -> Vec<Arc<Resource>> {
    upstream["marketplace_resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| {
            let raw = RawValue::from_string(record.to_string()).unwrap();
            Arc::new(Resource::parse(&raw).unwrap_or_else(|rejected| panic!("{rejected:?}")))
        })
        .collect()
}

fn customers(upstream: &Value) -> Customers {
    upstream["offering_customers"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|customers| customers.as_array().unwrap())
        .map(|customer| {
            let text = |key: &str| customer[key].as_str().unwrap().to_owned();
            (text("slug"), Customer { uuid: text("uuid").parse().unwrap(), name: Some(text("name")) })
        })
        .collect()
}

fn identities(upstream: &Value) -> Identities {
    let gid = |project: &Value| {
        let gid = u32::try_from(project["unixGid"].as_u64().unwrap()).unwrap();
        (project["posixName"].as_str().unwrap().to_owned(), Ok(gid))
    };
    let gids: HashMap<_, _> = upstream["hpc_projects"].as_array().unwrap().iter().map(gid).collect();
    Identities { gids, ..Identities::default() }
}

/// Compares JSON; numbers are equal if their values are.
fn is_equal(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn filter(query: &str) -> Filter {
    let mut filter = Filter::default();
    for (key, value) in query.trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "storage_system" => filter.storage_system = Some(value.into()),
            "data_type" => filter.data_type = Filter::data_type_of(value),
            _ => {}
        }
    }
    filter
}

#[test]
fn every_recorded_listing_is_reproduced() {
    for case in cases() {
        let upstream = json(&case, "upstream.json");
        let (resources, customers) = (resources(&upstream), customers(&upstream));
        let catalogue = build(&resources, customers.into(), identities(&upstream).into(), policy().into(), None);
        assert!(catalogue.malformed.is_empty());
        let answers = json(&case, "answers.json");
        let mut compared = 0;
        for answer in answers.as_array().unwrap() {
            let query = answer["query"].as_str().unwrap();
            // Paging and invalid queries are tested with the proxy.
            if answer["status"] != 200 || !query.ends_with("page_size=500") {
                continue;
            }
            let selected = catalogue.index.select(&filter(query)).items;
            let theirs = answer["body"]["resources"].as_array().unwrap();
            assert_eq!(selected.len(), theirs.len(), "{} {query}", case.display());
            for (position, theirs) in selected.into_iter().zip(theirs) {
                let ours = serde_json::to_value(catalogue.item(position as usize)).unwrap();
                assert!(is_equal(&ours, theirs), "{} {query}\nours:   {ours}\ntheirs: {theirs}", case.display());
                compared += 1;
            }
        }
        assert!(compared > 0 || resources.is_empty(), "nothing was compared in {}", case.display());
    }
}
