//! The fields of a marketplace order.

use serde_json::{Value, json};

use super::{Cell, hex, resource};
use crate::World;
use crate::world::{Order, OrderState, OrderType, Release, Resource};

const RECORDED: [&str; 62] = [
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
    "type",
    "resource_uuid",
    "resource_type",
    "resource_name",
    "cost",
    "state",
    "output",
    "marketplace_resource_uuid",
    "error_message",
    "error_traceback",
    "callback_url",
    "consumer_reviewed_by",
    "consumer_reviewed_by_full_name",
    "consumer_reviewed_at",
    "provider_reviewed_by",
    "provider_reviewed_by_full_name",
    "provider_reviewed_at",
    "created_by_full_name",
    "created_by_civil_number",
    "customer_name",
    "customer_uuid",
    "customer_slug",
    "project_name",
    "project_uuid",
    "project_description",
    "project_slug",
    "new_plan_name",
    "new_plan_uuid",
    "old_cost_estimate",
    "new_cost_estimate",
    "can_terminate",
    "fixed_price",
    "activation_price",
    "termination_comment",
    "backend_id",
    "issue",
];

const NEWER: [&str; 6] =
    ["url", "order_subtype", "created_by_username", "offering_slug", "provider_slug", "provider_rejection_comment"];

/// The fields of an order in this release.
pub(super) fn fields(release: Release) -> Vec<&'static str> {
    let newer: &[&str] = if release == Release::Newer { &NEWER } else { &[] };
    RECORDED.iter().chain(newer).copied().collect()
}

/// An order with the values joined from its resource and other rows.
pub(super) struct Joined<'a> {
    base: &'a str,
    row: &'a Order,
    resource: Option<(&'a Resource, resource::Joined<'a>)>,
}

impl<'a> Joined<'a> {
    pub(super) fn new(world: &'a World, base: &'a str, row: &'a Order) -> Self {
        let resource = world.resources.get(&row.resource);
        Self { base, row, resource: resource.map(|found| (found, resource::Joined::new(world, base, found))) }
    }

    pub(super) fn cell(&self, field: &str) -> Cell<'a> {
        if let Some(value) = self.row.record.get(field) {
            return match value {
                Value::String(text) => Cell::Text(text),
                value => Cell::Row(value),
            };
        }
        // An order that terminates a resource has no plan: `plan` is null and the fields derived from it are absent.
        let ends = self.row.kind() == Some(OrderType::Terminate);
        if ends && field == "plan" {
            return Cell::Value(Value::Null);
        }
        if ends && (field.starts_with("plan_") || field.starts_with("new_plan_")) {
            return Cell::Absent;
        }
        self.own_cell(field).unwrap_or_else(|| self.joined_cell(field))
    }

    fn own_cell(&self, field: &str) -> Option<Cell<'a>> {
        let state = self.row.state();
        let consumer_pending = state == Some(OrderState::PendingConsumer);
        let provider_pending = consumer_pending || matches!(state, Some(OrderState::PendingProvider));
        Some(match field {
            "uuid" => Cell::Value(hex(self.row.uuid).into()),
            "url" => Cell::Value(json!(format!("{}/api/marketplace-orders/{}/", self.base, hex(self.row.uuid)))),
            "marketplace_resource_uuid" | "resource_uuid" => Cell::Value(hex(self.row.resource).into()),
            "resource_type" => Cell::Text("SLURM.Allocation"),
            "resource_name" => Cell::Text(self.resource.as_ref().map_or("", |(row, _)| row.text("name"))),
            "output" | "error_message" | "error_traceback" | "backend_id" | "provider_rejection_comment" => {
                Cell::Text("")
            }
            "cost" if self.row.kind() != Some(OrderType::Terminate) => Cell::Text("100.0000000000"),
            "old_cost_estimate" | "new_cost_estimate" if self.row.kind() != Some(OrderType::Terminate) => {
                Cell::Value(json!(100.0))
            }
            "old_cost_estimate" => Cell::Value(json!(100.0)),
            "order_subtype" if self.row.kind() == Some(OrderType::Update) => {
                Cell::Text(if self.row.is_options_order() { "options" } else { "limits" })
            }
            "consumer_reviewed_by" | "consumer_reviewed_by_full_name" if consumer_pending => Cell::Absent,
            "provider_reviewed_by" | "provider_reviewed_by_full_name" if provider_pending => Cell::Absent,
            "consumer_reviewed_at" if !consumer_pending => Cell::Text(self.row.text("created")),
            "provider_reviewed_at" if !provider_pending => Cell::Text(self.row.text("modified")),
            "consumer_reviewed_by" | "created_by_username" => Cell::Text("consumer-owner"),
            "provider_reviewed_by" => Cell::Text("provider-owner"),
            "consumer_reviewed_by_full_name" | "created_by_full_name" => Cell::Text("Consumer User"),
            "provider_reviewed_by_full_name" => Cell::Text("Provider User"),
            "new_plan_name" => Cell::Text("Default"),
            "new_plan_uuid" => Cell::Text("d66590090864468494fc78ffbe271a24"),
            "can_terminate" => Cell::Value(false.into()),
            "fixed_price" | "activation_price" => Cell::Value(0.into()),
            "cost"
            | "new_cost_estimate"
            | "order_subtype"
            | "callback_url"
            | "created_by_civil_number"
            | "consumer_reviewed_at"
            | "provider_reviewed_at"
            | "termination_comment"
            | "issue" => Cell::Value(Value::Null),
            _ => return None,
        })
    }

    fn joined_cell(&self, field: &str) -> Cell<'a> {
        self.resource
            .as_ref()
            .and_then(|(_, joined)| joined.offering_cell(field).or_else(|| joined.consumer_cell(field)))
            .unwrap_or(Cell::Value(Value::Null))
    }
}
