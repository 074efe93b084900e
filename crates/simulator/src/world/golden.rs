//! Loads a world from a recorded case, without changing its rows.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{OfferingType, Order, Project, Resource, Role, RowOrder, World};

impl World {
    /// Loads `{"marketplace_resources": […], "offering_customers": {offering: […]}, "hpc_projects": […]}`.
    ///
    /// Rows are returned verbatim and in the file's order, each with the order it contains, in any state. These orders are
    /// also in the list of orders. The user `storage-proxy` ([`super::PROVIDER_TOKEN`]) owns every offering. Missing keys
    /// are treated as empty.
    pub fn from_golden(case: &Value) -> Self {
        let mut world = Self::empty();
        world.rows = RowOrder::AsGiven;
        for row in case["marketplace_resources"].as_array().into_iter().flatten() {
            if let Value::Object(record) = row {
                world.load_resource(record);
            }
        }
        for (offering, rows) in case["offering_customers"].as_object().into_iter().flatten() {
            let Ok(uuid) = Uuid::try_parse(offering) else { continue };
            world.load_offering(uuid, &Map::new());
            if let Some(offering) = world.offerings.get_mut(&uuid) {
                offering.customers = Some(rows.as_array().cloned().unwrap_or_default());
            }
        }
        world.hpc.projects = case["hpc_projects"].as_array().cloned().unwrap_or_default();
        let providers: Vec<Uuid> = world.providers.keys().copied().collect();
        for provider in providers {
            world.grant("storage-proxy", Role::ProviderOwner(provider));
        }
        world
    }

    fn load_resource(&mut self, record: &Map<String, Value>) {
        // A duplicate row, or one without an identifier, is still a separate row.
        let stated = identifier(record, "uuid");
        let uuid = stated.filter(|uuid| !self.resources.contains_key(uuid)).unwrap_or_else(|| self.next_id());
        let offering = identifier(record, "offering_uuid").unwrap_or(Uuid::nil());
        self.load_offering(offering, record);
        let project = identifier(record, "project_uuid").unwrap_or(Uuid::nil());
        let customer = identifier(record, "customer_uuid").unwrap_or(Uuid::nil());
        let now = self.now;
        self.customers.entry(customer).or_insert_with(|| {
            super::Customer::new(customer, text(record, "customer_slug"), text(record, "customer_name"), now)
        });
        self.projects.entry(project).or_insert_with(|| Project {
            uuid: project,
            customer,
            slug: text(record, "project_slug").to_owned(),
            name: text(record, "project_name").to_owned(),
            expired: false,
            end_date: None,
        });
        let mut orders = Vec::new();
        if let Some(Value::Object(nested)) = record.get("order_in_progress")
            && let Some(order) = identifier(nested, "uuid").filter(|order| !self.orders.contains_key(order))
        {
            orders.push(order);
            self.orders.insert(order, Order { uuid: order, resource: uuid, verbatim: true, record: nested.clone() });
        }
        self.resources
            .insert(uuid, Resource { uuid, offering, project, orders, verbatim: true, record: record.clone() });
    }

    fn load_offering(&mut self, uuid: Uuid, record: &Map<String, Value>) {
        if self.offerings.contains_key(&uuid) {
            return;
        }
        let slug = text(record, "provider_slug");
        let known = self.providers.values().find(|provider| provider.slug == slug).map(|provider| provider.uuid);
        let provider = known.unwrap_or_else(|| self.add_provider(slug, text(record, "provider_name")));
        let kind = match text(record, "offering_type") {
            "Marketplace.Basic" => OfferingType::Basic,
            _ => OfferingType::Slurm,
        };
        let (slug, name) = (text(record, "offering_slug"), text(record, "offering_name"));
        self.offerings.insert(uuid, super::Offering::new(uuid, provider, slug, name, kind, self.now));
    }
}

fn text<'a>(record: &'a Map<String, Value>, key: &str) -> &'a str {
    record.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn identifier(record: &Map<String, Value>, key: &str) -> Option<Uuid> {
    Uuid::try_parse(text(record, key)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use crate::world::{OrderState, RowOrder, World};

    fn case() -> Value {
        let row = |uuid: &str, order: Value| {
            json!({ "uuid": uuid, "slug": "r", "state": "Updating", "limits": { "storage": "odd" },
                "offering_uuid": "a10b05d758ae42fea58fdce14684e71d", "offering_slug": "capstor",
                "provider_slug": "cscs", "customer_uuid": "06e2151085504e749678086c30cf8885",
                "project_uuid": "b721b921339443f3882757ec24e9539f", "project_slug": "p", "order_in_progress": order })
        };
        let order = json!({ "uuid": "80110fb8582d424b87480b28b1914e55", "type": "Update", "state": "pending-provider",
            "attributes": { "old_limits": { "storage": 5 } }, "limits": { "storage": 10 } });
        let uuid = "4e24fc5611604b298094f852ef35f7dd";
        json!({ "marketplace_resources": [row(uuid, order), row(uuid, Value::Null), row("no uuid", json!("odd"))],
            "offering_customers": { "a10b05d758ae42fea58fdce14684e71d": [{ "slug": "c" }] },
            "hpc_projects": [{ "posixName": "p", "unixGid": null }] })
    }

    #[test]
    fn rows_are_returned_as_recorded() {
        let case = case();
        let world = World::from_golden(&case);
        let rows: Vec<Value> = world.resources.values().map(|row| Value::Object(row.record.clone())).collect();
        assert_eq!(Value::Array(rows), case["marketplace_resources"], "rows with the same identifier are kept too");
        assert_eq!(world.rows, RowOrder::AsGiven);
        assert_eq!(world.offerings.len(), 1);
        assert_eq!(world.offering_by_slug("capstor").unwrap().customers, Some(vec![json!({ "slug": "c" })]));
        assert_eq!(world.hpc.projects, [json!({ "posixName": "p", "unixGid": null })]);
    }

    #[test]
    fn a_recorded_order_can_continue() {
        let mut world = World::from_golden(&case());
        let (order, resource) = world.orders.values().map(|order| (order.uuid, order.resource)).next().unwrap();
        world.approve(order, Map::new()).unwrap();
        assert_eq!(world.resources[&resource].record["order_in_progress"]["state"], "executing");
        world.set_done(order).unwrap();
        assert_eq!(world.resources[&resource].record["order_in_progress"], Value::Null);
        assert_eq!(world.resources[&resource].text("state"), "OK");
        assert_eq!(world.resources[&resource].record["limits"], json!({ "storage": 10 }));
        assert_eq!(world.orders[&order].state(), Some(OrderState::Done));
    }

    #[test]
    fn an_empty_case_is_an_empty_world() {
        let world = World::from_golden(&json!({}));
        assert!(world.resources.is_empty() && world.offerings.is_empty() && world.hpc.projects.is_empty());
    }
}
