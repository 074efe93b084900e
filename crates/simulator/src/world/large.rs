//! Worlds of any size, for benchmarks.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{OfferingType, OrderState, ResourceState, Role, World};

const SYSTEMS: [&str; 3] = ["capstor", "vast", "iopsstor"];
const DATA_TYPES: [&str; 4] = ["store", "scratch", "archive", "users"];

impl World {
    /// `n` resources of three offerings (`capstor`, `vast`, `iopsstor`), n/4 projects (each with a GID) and n/40 customers;
    /// every twentieth resource has an order in progress. Deterministic.
    pub fn large(n: usize) -> Self {
        Self::large_with_orders(n, n)
    }

    /// Like [`World::large`], but at most this many resources have an order in progress.
    pub fn large_with_orders(n: usize, orders: usize) -> Self {
        let mut world = Self::empty();
        let provider = world.add_provider("cscs", "CSCS");
        world.grant("storage-proxy", Role::ProviderOwner(provider));
        let offerings: Vec<Uuid> = SYSTEMS
            .iter()
            .map(|system| world.add_offering(provider, system, &format!("{system} storage"), OfferingType::Slurm))
            .collect();
        let customers: Vec<Uuid> = (0..(n / 40).max(1))
            .map(|number| world.add_customer(&format!("customer-{number}"), &format!("Customer {number}")))
            .collect();
        let projects: Vec<Uuid> = (0..(n / 4).max(1))
            .map(|number| {
                let slug = format!("project-{number}");
                let gid = u32::try_from(30_000 + number).unwrap_or(u32::MAX);
                world.hpc.add_project(&slug, Some(gid));
                world.add_project(customers[number % customers.len()], &slug, &format!("Project {number}"))
            })
            .collect();
        for number in 0..n {
            let place = (offerings[number % offerings.len()], projects[number % projects.len()]);
            let resource = world.add_resource(place, &format!("resource-{number}"), ResourceState::Ok, row(number));
            if number % 20 == 19 && number / 20 < orders {
                world.add_open_order(resource, number);
            }
        }
        world
    }

    fn add_open_order(&mut self, resource: Uuid, number: usize) {
        let state = [OrderState::PendingConsumer, OrderState::PendingProvider, OrderState::Executing][number / 20 % 3];
        let order = if number / 20 % 4 == 3 {
            self.order_terminate(resource)
        } else {
            self.order_update_limits(resource, json!({ "storage": 2 * (number % 100) + 1 }))
        };
        if let Some(order) = order {
            self.force_order(order, state);
        }
    }
}

fn row(number: usize) -> Map<String, Value> {
    let mut record = Map::new();
    let data_type = DATA_TYPES[number / SYSTEMS.len() % DATA_TYPES.len()];
    record.insert("attributes".into(), json!({ "storage_data_type": data_type, "permissions": "2770" }));
    record.insert("limits".into(), json!({ "storage": number % 100 + 1 }));
    if number.is_multiple_of(10) {
        record.insert("options".into(), json!({ "hard_quota_space": number % 100 + 11 }));
    }
    record
}
