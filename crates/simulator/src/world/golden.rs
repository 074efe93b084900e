//! A world from a recorded case: the rows stay exactly as they were recorded.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{OfferingType, Order, Project, Resource, Role, RowOrder, World};

impl World {
    /// Loads `{"marketplace_resources": […], "offering_customers": {offering: […]}, "hpc_projects": […]}`.
    ///
    /// Rows are answered verbatim and in the file's order, each with the order it carries, in whatever state that is.
    /// These orders are in the list of orders too. The user `storage-proxy` ([`super::PROVIDER_TOKEN`]) owns every
    /// offering. What is not there is taken as empty.
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
        // A row recorded twice, or one without an identifier, is still a row of its own.
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
