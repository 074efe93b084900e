//! Records of Waldur as its list holds them, with what belongs to them: the same every time.

use catalog::{Customer, Customers, Identities, InodeRule, Policy, Resource, System};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

const SYSTEMS: [&str; 3] = ["capstor", "vast", "iopsstor"];
const DATA_TYPES: [&str; 4] = ["store", "scratch", "archive", "users"];
const ORDER_STATES: [&str; 3] = ["pending-consumer", "pending-provider", "executing"];
/// Resources of one project, and of one customer.
const OF_PROJECT: usize = 4;
const OF_CUSTOMER: usize = 40;

/// All that a catalogue is made of.
pub(crate) struct World {
    pub(crate) resources: Vec<Resource>,
    pub(crate) customers: Customers,
    pub(crate) identities: Identities,
    pub(crate) policy: Policy,
}

/// A world with so many resources.
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
        customers: customers.collect(),
        identities: Identities { gids: gids.collect(), ..Identities::default() },
        policy: Policy {
            systems: SYSTEMS.map(system).into(),
            file_system: "lustre".into(),
            inodes: InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 },
            ignore_metadata_targets: false,
            development_mode: false,
            relay: None,
            waldur: "https://waldur.example.org/api".into(),
        },
    }
}

/// So many records. Every tenth has options, every twentieth an order in progress.
pub(crate) fn records(count: usize) -> Vec<Box<RawValue>> {
    (0..count).map(record).collect()
}

/// Reads records, all of which can be read.
#[expect(clippy::expect_used, reason = "records that cannot be read are a fault of this file")]
pub(crate) fn parse(records: &[Box<RawValue>]) -> Vec<Resource> {
    records.iter().map(|record| Resource::parse(record).expect("a record that can be read")).collect()
}

#[expect(clippy::expect_used, reason = "a literal of JSON has nothing that JSON cannot say")]
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
    serde_json::value::to_raw_value(&record).expect("a record that can be written")
}

fn uuid(kind: u128, number: usize) -> Uuid {
    // Spread over all bits, as real ones are.
    Uuid::from_u128((kind << 64 | number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}
