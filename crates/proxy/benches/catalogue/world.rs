//! Records as in Waldur's lists, with customers and identities. Deterministic.

use std::sync::Arc;

use catalog::{Catalogue, Customer, Customers, Identities, InodeRule, Policy, Resource, System};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

const SYSTEMS: [&str; 3] = ["capstor", "vast", "iopsstor"];
const DATA_TYPES: [&str; 4] = ["store", "scratch", "archive", "users"];
const ORDER_STATES: [&str; 3] = ["pending-consumer", "pending-provider", "executing"];
/// Number of resources of one project, and of one customer.
const OF_PROJECT: usize = 4;
const OF_CUSTOMER: usize = 40;

/// The input of a catalogue.
pub(crate) struct World {
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) customers: Arc<Customers>,
    pub(crate) identities: Arc<Identities>,
    pub(crate) policy: Arc<Policy>,
}

impl World {
    pub(crate) fn build(&self, before: Option<Catalogue>) -> Catalogue {
        let Self { resources, customers, identities, policy } = self;
        catalog::build(resources, Arc::clone(customers), Arc::clone(identities), Arc::clone(policy), before)
    }
}

/// A world with `count` resources.
pub(crate) fn world(count: usize) -> World {
    let customers = (0..count.div_ceil(OF_CUSTOMER)).map(|number| {
        let customer = Customer { uuid: uuid(2, number), name: Some(format!("Customer {number}")) };
        (format!("customer-{number}"), customer)
    });
    let gids = (0..count.div_ceil(OF_PROJECT))
        .map(|number| (format!("project-{number}"), u32::try_from(30_000 + number).map_err(|error| error.to_string())));
    let system = |name: &str| System { name: name.into(), identifier: name.into(), offering_slug: name.into() };
    World {
        resources: parse(&records(count)),
        customers: Arc::new(customers.collect()),
        identities: Arc::new(Identities { gids: gids.collect(), ..Identities::default() }),
        policy: Arc::new(Policy {
            systems: SYSTEMS.map(system).into(),
            file_system: "lustre".into(),
            inodes: InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 },
            ignore_metadata_targets: false,
            development_mode: false,
            relay: None,
            waldur: "https://waldur.example.org/api".into(),
        }),
    }
}

/// `count` records. Every tenth has options, every twentieth an order in progress.
pub(crate) fn records(count: usize) -> Vec<Box<RawValue>> {
    (0..count).map(record).collect()
}

/// Parses valid records.
#[expect(clippy::expect_used, reason = "an invalid record is a bug in this file")]
pub(crate) fn parse(records: &[Box<RawValue>]) -> Vec<Arc<Resource>> {
    records.iter().map(|record| Arc::new(Resource::parse(record).expect("a valid record"))).collect()
}

#[expect(clippy::expect_used, reason = "a JSON literal is always valid JSON")]
fn record(number: usize) -> Box<RawValue> {
    let system = number % SYSTEMS.len();
    let project = number / OF_PROJECT;
    let customer = number / OF_CUSTOMER;
    let storage = number % 100 + 1;
    let options = number.is_multiple_of(10).then(|| json!({ "hard_quota_space": storage + 10 }));
    let order = (number % 20 == 19).then(|| {
        let id = uuid(4, number).simple();
        json!({
            "uuid": id,
            "type": "Update",
            "state": ORDER_STATES[number / 20 % ORDER_STATES.len()],
            "url": format!("https://waldur.example.com/api/marketplace-orders/{id}/"),
            "attributes": { "old_limits": { "storage": storage } },
            "limits": { "storage": 2 * storage },
        })
    });
    let record = json!({
        "uuid": uuid(1, number).simple(),
        "slug": format!("resource-{number}"),
        "state": if order.is_some() { "Updating" } else { "OK" },
        "backend_id": "",
        "offering_uuid": uuid(3, system).simple(),
        "offering_slug": SYSTEMS[system],
        "offering_type": "Marketplace.Slurm",
        "project_slug": format!("project-{project}"),
        "customer_uuid": uuid(2, customer).simple(),
        "customer_name": format!("Customer {customer}"),
        "customer_slug": format!("customer-{customer}"),
        "provider_slug": "cscs",
        "provider_name": "CSCS",
        "attributes": {
            "storage_data_type": DATA_TYPES[number / SYSTEMS.len() % DATA_TYPES.len()],
            "permissions": "2770",
        },
        "limits": { "storage": storage },
        "options": options,
        "backend_metadata": {},
        "order_in_progress": order,
    });
    serde_json::value::to_raw_value(&record).expect("a record can be serialized")
}

fn uuid(kind: u128, number: usize) -> Uuid {
    // Spread over all bits, like real UUIDs.
    Uuid::from_u128((kind << 64 | number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}
