//! Records and policies for tests.
#![expect(clippy::needless_pass_by_value, reason = "JSON literals are easier to read by value")]

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Catalogue, Customer, Customers, Identities, InodeRule, Policy, Rejected, Resource, System};

pub(crate) const OFFERING: &str = "21bade026a6a4768b2ed66ffdcc99396";
pub(crate) const ORDER: &str = "https://waldur.example.com/api/marketplace-orders/80110fb8582d424b87480b28b1914e55/";

/// A record of Waldur's resource list, with some fields changed.
pub(crate) fn record(changes: Value) -> Value {
    let mut record = json!({
        "uuid": "e9a462ce0fa040a0b210d3dbe88f40a2",
        "slug": "res",
        "state": "OK",
        "backend_id": "",
        "offering_uuid": OFFERING,
        "offering_slug": "capstor",
        "project_slug": "proj",
        "customer_uuid": "6102dd7063e8440e9dd8904f07489671",
        "customer_name": "Customer",
        "customer_slug": "cust",
        "provider_slug": "cscs",
        "provider_name": "CSCS",
        "attributes": {"storage_data_type": "store"},
        "limits": {"storage": 10},
        "options": {},
        "backend_metadata": {},
        "order_in_progress": null,
    });
    for (key, value) in changes.as_object().unwrap() {
        record[key] = value.clone();
    }
    record
}

pub(crate) fn parse(record: &Value) -> Result<Resource, Rejected> {
    Resource::parse(&RawValue::from_string(record.to_string()).unwrap())
}

pub(crate) fn resource(changes: Value) -> Resource {
    parse(&record(changes)).unwrap()
}

/// Two systems, production mode.
pub(crate) fn policy() -> Policy {
    let system = |name: &str| System { name: name.into(), identifier: name.into(), offering_slug: name.into() };
    Policy {
        systems: ["capstor", "vast"].map(system).into(),
        file_system: "lustre".into(),
        inodes: InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 },
        ignore_metadata_targets: false,
        development_mode: false,
        relay: None,
        waldur: "https://waldur.example.org/api".into(),
    }
}

/// One customer, `cust`.
pub(crate) fn customers() -> Customers {
    let customer = Customer { uuid: Uuid::from_u128(7), name: Some("Customer".into()) };
    Customers::from([("cust".into(), customer)])
}

/// GIDs of `proj` and `proj-2`; `lost` has none.
pub(crate) fn identities() -> Identities {
    let mut identities = Identities::default();
    identities.gids.insert("proj".into(), Ok(30500));
    identities.gids.insert("proj-2".into(), Ok(30501));
    identities.gids.insert("lost".into(), Err("the HPC User API does not know it".into()));
    identities
}

/// A catalogue built without one before.
pub(crate) fn build<'a>(
    resources: impl IntoIterator<Item = &'a Resource>,
    customers: &Customers,
    identities: &Identities,
    policy: &Policy,
) -> Catalogue {
    let resources: Vec<_> = resources.into_iter().cloned().map(Arc::new).collect();
    crate::build(&resources, customers.clone().into(), identities.clone().into(), policy.clone().into(), None)
}
