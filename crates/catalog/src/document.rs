//! The published document: one item for each tenant, customer, project or user.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use crate::quota::Quota;
use crate::status::Status;
use crate::target::{self, TargetItem, TargetType};

#[cfg(feature = "schema")]
pub(crate) mod schema;

/// One item of the document: a directory with its owner, its quotas and its callback links.
// Do not add keys here (decision D15).
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    /// UUID of the offering (for a tenant), of the customer, or of the resource (for a project or user). A tenant or
    /// customer has one item for each storage system and data type, all with the same UUID.
    pub item_id: Uuid,
    /// What must be done, or has been done, to the directory; always `pending` for a tenant or customer.
    pub status: Status,
    /// Path of the directory.
    pub mount_point: MountPoint<'a>,
    /// Mode of the directory.
    pub permission: Permission<'a>,
    /// The storage system.
    #[serde(serialize_with = "rendered")]
    pub storage_system: Arc<Named>,
    /// The file system.
    #[serde(serialize_with = "rendered")]
    pub storage_file_system: Arc<Named>,
    /// The data type.
    #[serde(serialize_with = "rendered")]
    pub storage_data_type: Arc<Named>,
    /// The owner of the directory.
    #[cfg_attr(feature = "schema", schema(value_type = schema::Target<'a>))]
    pub target: Target<'a>,
    /// The current quotas: soft space, hard space, soft inodes, hard inodes. Null for a tenant or customer, and if no space
    /// is granted.
    #[cfg_attr(feature = "schema", schema(min_items = 4, max_items = 4))]
    pub quotas: Option<[Quota; 4]>,
    /// The quotas before the order in progress, in the same order. Null unless that order changes them.
    #[cfg_attr(feature = "schema", schema(min_items = 4, max_items = 4))]
    pub old_quotas: Option<[Quota; 4]>,
    /// The quotas after the order in progress, in the same order. Null unless that order changes them.
    #[cfg_attr(feature = "schema", schema(min_items = 4, max_items = 4))]
    pub new_quotas: Option<[Quota; 4]>,
    /// `itemId` of the parent: the customer of a project or user, the tenant of a customer. Null if there is none.
    pub parent_item_id: Option<Uuid>,
    /// POST to this URL accepts the order.
    #[serde(rename = "approve_by_provider_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub approve_by_provider_url: Option<String>,
    /// POST to this URL rejects the order.
    #[serde(rename = "reject_by_provider_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub reject_by_provider_url: Option<String>,
    /// POST to this URL reports that the order has been carried out.
    #[serde(rename = "set_state_done_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub set_state_done_url: Option<String>,
    /// POST to this URL reports that the order failed permanently.
    #[serde(rename = "set_state_erred_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub set_state_erred_url: Option<String>,
    /// POST to this URL sets the resource's path in the storage system.
    #[serde(rename = "set_backend_id_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub set_backend_id_url: Option<String>,
    /// POST to this URL changes the resource's options without an order.
    #[serde(rename = "update_resource_options_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub update_resource_options_url: Option<String>,
    /// POST to this URL sets the resource's state back to OK.
    #[serde(rename = "set_state_ok_url", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = "uri", nullable = false))]
    pub set_state_ok_url: Option<String>,
}

/// The order in progress for a project's or user's item, as Waldur spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrderInProgress<'a> {
    /// UUID of the order, with dashes; null if Waldur does not return it.
    pub uuid: Option<Uuid>,
    /// Type of the order: `Create`, `Update`, `Terminate` or another one; null if Waldur does not return it.
    #[serde(rename = "type")]
    pub kind: Option<&'a str>,
    /// State of the order, for example `pending-provider` or `executing`; null if Waldur does not return it.
    pub state: Option<&'a str>,
    /// Type of the offering, for example `Marketplace.Slurm`; null if Waldur does not return it.
    pub offering_type: Option<&'a str>,
    /// The options that an order of type Update requests, as Waldur returns them; absent if it requests none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>, nullable = false))]
    pub new_options: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// Path of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MountPoint<'a> {
    /// Absolute path of the directory, or the path stored in Waldur for the resource, unchanged.
    pub default: Cow<'a, str>,
}

/// Mode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Permission<'a> {
    /// Three or four octal digits.
    #[cfg_attr(feature = "schema", schema(pattern = "^[0-7]{3,4}$"))]
    pub value: &'a str,
    /// Notation of `value`: always `octal`.
    #[cfg_attr(feature = "schema", schema(value_type = schema::PermissionType))]
    pub permission_type: &'static str,
}

impl<'a> Permission<'a> {
    pub(crate) fn octal(value: &'a str) -> Self {
        Self { value, permission_type: "octal" }
    }
}

/// A storage system, a file system or a data type.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// UUIDv5 of the kind and the name; it never changes.
    pub item_id: Uuid,
    /// The name in lower case.
    pub key: String,
    /// The name in upper case.
    pub name: String,
    /// Always true.
    pub active: bool,
    /// The key of a data type; empty for a storage system or file system.
    pub path: String,
    /// The other fields as JSON, rendered once, because these objects make up a third of each item.
    #[serde(skip)]
    json: Box<RawValue>,
}

impl Named {
    /// `scope` is the kind: `storage_system`, `storage_file_system` or `storage_data_type`.
    #[expect(clippy::missing_panics_doc, reason = "the serialization cannot fail")]
    pub fn new(scope: &str, name: &str) -> Self {
        let key = name.to_lowercase();
        let path = if scope == "storage_data_type" { key.clone() } else { String::new() };
        let mut named = Self {
            item_id: target::id(scope, name),
            key,
            name: name.to_uppercase(),
            active: true,
            path,
            json: RawValue::NULL.to_owned(),
        };
        #[expect(clippy::expect_used, reason = "texts, a UUID and a boolean are always JSON")]
        let json = to_raw_value(&named).expect("JSON");
        named.json = json;
        named
    }
}

fn rendered<S: Serializer>(named: &Arc<Named>, serializer: S) -> Result<S::Ok, S::Error> {
    named.json.serialize(serializer)
}

/// The owner of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target<'a> {
    pub target_type: TargetType,
    pub target_item: TargetOf<'a>,
}

/// The target of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TargetOf<'a> {
    /// A tenant or customer.
    Node(NodeTarget<'a>),
    /// A project or user, built for this item.
    Built(TargetItem),
    /// A project or user from `backend_metadata`.
    FromMetadata(&'a TargetItem),
}

/// A tenant or customer as a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeTarget<'a> {
    /// `itemId` of the item.
    pub item_id: Uuid,
    /// The slug; a tenant's in lower case.
    pub key: Cow<'a, str>,
    /// The name; a tenant without a name has its slug in upper case.
    pub name: Option<Cow<'a, str>>,
}
