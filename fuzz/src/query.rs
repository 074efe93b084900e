//! Query strings: the response is an error, or a page of valid JSON whose items match the filter.

use std::sync::{Arc, LazyLock};

use catalog::{Policy, Resource, build, customers_of_resources};
use proxy::snapshot::Snapshot;
use serde_json::json;
use serde_json::value::to_raw_value;
use uuid::Uuid;

static POLICY: LazyLock<Policy> = LazyLock::new(|| crate::policy(true));

/// Resources of all systems, all states and some data types.
static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let resource = |number: u128| {
        let pick = |of: &[&'static str]| of[number as usize % of.len()];
        let record = json!({
            "uuid": Uuid::from_u128(number), "slug": format!("resource-{number}"), "customer_slug": "customer",
            "customer_uuid": Uuid::from_u128(7), "provider_slug": "cscs", "project_slug": pick(&["a", "b"]),
            "offering_uuid": Uuid::from_u128(8), "offering_slug": pick(&["capstor", "vast", "iopsstor"]),
            "state": pick(&["OK", "Creating", "Erred", "Terminated", "Terminating", "Updating", "Else"]),
            "attributes": {"storage_data_type": pick(&["store", "scratch", "users", "archive"])},
            "limits": {"storage": 1},
        });
        Arc::new(Resource::parse(&to_raw_value(&record).expect("JSON")).expect("a resource"))
    };
    let resources: Vec<_> = (0..600).map(resource).collect();
    let customers = customers_of_resources(resources.iter().map(AsRef::as_ref));
    let catalogue = build(&resources, customers.into(), Arc::default(), POLICY.clone().into(), None);
    Snapshot::render(&catalogue, Vec::new(), None).expect("JSON")
});

/// Requests a listing with the query.
pub fn check(data: &[u8]) {
    let Ok(query) = str::from_utf8(data) else { return };
    match proxy::api::fuzzing::listing(query, &SNAPSHOT, &POLICY) {
        Ok((body, filter, page_size)) => {
            let body = crate::json(&body);
            let items = body["resources"].as_array().expect("a list");
            assert!((1..=500).contains(&page_size) && items.len() <= usize::from(page_size));
            for item in items {
                assert!(filter.status.is_none_or(|status| item["status"] == status.as_str()));
                assert!(filter.data_type.as_ref().is_none_or(|kind| item["storageDataType"]["key"] == **kind));
            }
        }
        Err(errors) => {
            let errors = crate::json(&errors);
            let errors = errors.as_array().expect("a list");
            assert!((1..=5).contains(&errors.len()));
        }
    }
}
