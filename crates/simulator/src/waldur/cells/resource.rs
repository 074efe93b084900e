//! The fields of a marketplace resource.

use serde_json::{Value, json};

use super::{Cell, hex};
use crate::World;
use crate::world::{Customer, Offering, OrderType, Project, Provider, Release, Resource};

const RECORDED: [&str; 63] = [
    "offering",
    "offering_name",
    "offering_uuid",
    "offering_description",
    "offering_image",
    "offering_thumbnail",
    "offering_type",
    "offering_terms_of_service",
    "offering_shared",
    "offering_billable",
    "offering_plugin_options",
    "provider_name",
    "provider_uuid",
    "category_title",
    "category_uuid",
    "category_icon",
    "plan",
    "plan_unit",
    "plan_name",
    "plan_uuid",
    "plan_description",
    "attributes",
    "limits",
    "uuid",
    "created",
    "modified",
    "url",
    "scope",
    "description",
    "state",
    "resource_uuid",
    "backend_id",
    "effective_id",
    "resource_type",
    "project",
    "project_uuid",
    "project_name",
    "project_description",
    "project_end_date",
    "project_end_date_requested_by",
    "customer_uuid",
    "customer_name",
    "backend_metadata",
    "is_usage_based",
    "is_limit_based",
    "name",
    "slug",
    "current_usages",
    "can_terminate",
    "report",
    "end_date",
    "end_date_requested_by",
    "username",
    "limit_usage",
    "downscaled",
    "restrict_member_access",
    "paused",
    "endpoints",
    "error_message",
    "error_traceback",
    "offering_customer_uuid",
    "options",
    "available_actions",
];

const NEWER: [&str; 7] = [
    "offering_slug",
    "project_slug",
    "customer_slug",
    "provider_slug",
    "last_sync",
    "order_in_progress",
    "creation_order",
];

/// The fields of a list in this release.
pub(super) fn fields(release: Release) -> Vec<&'static str> {
    let newer: &[&str] = if release == Release::Newer { &NEWER } else { &[] };
    RECORDED.iter().chain(newer).copied().collect()
}

/// A resource with the values joined from other rows.
pub(super) struct Joined<'a> {
    world: &'a World,
    base: &'a str,
    row: &'a Resource,
    offering: Option<&'a Offering>,
    provider: Option<&'a Provider>,
    project: Option<&'a Project>,
    customer: Option<&'a Customer>,
}

impl<'a> Joined<'a> {
    pub(super) fn new(world: &'a World, base: &'a str, row: &'a Resource) -> Self {
        let offering = world.offerings.get(&row.offering);
        let project = world.projects.get(&row.project);
        Self {
            world,
            base,
            row,
            offering,
            provider: offering.and_then(|offering| world.providers.get(&offering.provider)),
            project,
            customer: project.and_then(|project| world.customers.get(&project.customer)),
        }
    }

    /// The value of a field. The record takes precedence over joined values.
    pub(super) fn cell(&self, field: &str) -> Cell<'a> {
        if let Some(value) = self.row.record.get(field) {
            return match value {
                Value::String(text) => Cell::Text(text),
                value => Cell::Row(value),
            };
        }
        self.offering_cell(field).or_else(|| self.consumer_cell(field)).unwrap_or_else(|| self.own_cell(field))
    }

    pub(super) fn offering_cell(&self, field: &str) -> Option<Cell<'a>> {
        let url = |what: &str, uuid| json!(format!("{}/api/{what}/{}/", self.base, hex(uuid)));
        Some(match field {
            "offering" => Cell::Value(url("marketplace-public-offerings", self.row.offering)),
            "offering_uuid" => Cell::Value(hex(self.row.offering).into()),
            "offering_name" => text(self.offering.map(|offering| offering.name.as_str())),
            "offering_slug" => text(self.offering.map(|offering| offering.slug.as_str())),
            "offering_type" => text(self.offering.map(|offering| offering.kind.as_str())),
            "offering_description" | "offering_terms_of_service" | "plan_description" => Cell::Text(""),
            "offering_shared" | "offering_billable" => Cell::Value(true.into()),
            "offering_plugin_options" => Cell::Value(json!({ "service_provider_can_create_offering_user": true })),
            "provider_name" => text(self.provider.map(|provider| provider.name.as_str())),
            "provider_slug" => text(self.provider.map(|provider| provider.slug.as_str())),
            "provider_uuid" | "offering_customer_uuid" => {
                Cell::Value(json!(self.provider.map(|provider| hex(provider.uuid))))
            }
            "category_title" => Cell::Text("Storage"),
            "category_uuid" => Cell::Text("3633a08f4e51424ab00ab6380cc2442f"),
            "category_icon" => Cell::Value(json!(format!("{}/api/media/3c2b9539168f4ff596347afa12d5df56/", self.base))),
            "plan" => Cell::Value(json!(format!(
                "{}/api/marketplace-public-offerings/{}/plans/d66590090864468494fc78ffbe271a24/",
                self.base,
                hex(self.row.offering)
            ))),
            "plan_unit" => Cell::Text("month"),
            "plan_name" => Cell::Text("Default"),
            "plan_uuid" => Cell::Text("d66590090864468494fc78ffbe271a24"),
            _ => return None,
        })
    }

    pub(super) fn consumer_cell(&self, field: &str) -> Option<Cell<'a>> {
        Some(match field {
            "project" => {
                Cell::Value(json!(self.project.map(|row| format!("{}/api/projects/{}/", self.base, hex(row.uuid)))))
            }
            "project_uuid" => Cell::Value(json!(self.project.map(|project| hex(project.uuid)))),
            "project_name" => text(self.project.map(|project| project.name.as_str())),
            "project_slug" => text(self.project.map(|project| project.slug.as_str())),
            "project_description" => Cell::Text(""),
            "project_end_date" => text(self.project.and_then(|project| project.end_date.as_deref())),
            "customer_uuid" => Cell::Value(json!(self.customer.map(|customer| hex(customer.uuid)))),
            "customer_name" => text(self.customer.map(|customer| customer.name.as_str())),
            "customer_slug" => text(self.customer.map(|customer| customer.slug.as_str())),
            _ => return None,
        })
    }

    fn own_cell(&self, field: &str) -> Cell<'a> {
        match field {
            // In 7.0.x the inner object has its own identifier, which nothing depends on.
            "uuid" | "resource_uuid" => Cell::Value(hex(self.row.uuid).into()),
            "url" => Cell::Value(json!(format!("{}/api/marketplace-resources/{}/", self.base, hex(self.row.uuid)))),
            "scope" => Cell::Value(json!(format!("{}/api/slurm-allocations/{}/", self.base, hex(self.row.uuid)))),
            "resource_type" => Cell::Text("SLURM.Allocation"),
            "description" | "effective_id" | "error_message" | "error_traceback" => Cell::Text(""),
            "is_usage_based" | "downscaled" | "restrict_member_access" | "paused" => Cell::Value(false.into()),
            "is_limit_based" => Cell::Value(true.into()),
            "can_terminate" => {
                let open = self.world.order_in_progress(self.row).is_some();
                Cell::Value((!open && matches!(self.row.text("state"), "OK" | "Erred")).into())
            }
            "current_usages" => Cell::Value(json!({})),
            "limit_usage" => Cell::Value(json!({ "storage": null })),
            "endpoints" | "available_actions" => Cell::Value(json!([])),
            "last_sync" => text(self.row.record.get("modified").and_then(Value::as_str)),
            "order_in_progress" => Cell::Order(self.world.order_in_progress(self.row)),
            "creation_order" => {
                let mut orders = self.row.orders.iter().filter_map(|uuid| self.world.orders.get(uuid));
                Cell::Order(orders.find(|order| order.kind() == Some(OrderType::Create)))
            }
            _ => Cell::Value(Value::Null),
        }
    }
}

fn text(text: Option<&str>) -> Cell<'_> {
    text.map_or(Cell::Value(Value::Null), Cell::Text)
}
