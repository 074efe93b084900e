//! The JSON of the document.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Links, Status};

#[derive(Deserialize)]
pub(super) struct Page<'a> {
    #[serde(borrow)]
    pub(super) resources: Vec<&'a RawValue>,
    pub(super) pagination: Pagination,
    #[serde(borrow, default)]
    pub(super) orders: Option<Entries<'a>>,
    #[serde(borrow, default, rename = "quotaProblems")]
    pub(super) quota_problems: Entries<'a>,
    #[serde(borrow, default, rename = "resourceLinks")]
    pub(super) resource_links: Entries<'a>,
    #[serde(borrow, default)]
    pub(super) skipped: Vec<&'a RawValue>,
    #[serde(default)]
    pub(super) mock_identities: bool,
}

/// The entries of a map in order, including those with a repeated key.
#[derive(Default)]
pub(super) struct Entries<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[derive(Deserialize)]
pub(super) struct Pagination {
    pub(super) total: usize,
    pub(super) pages: usize,
}

/// An entry of `resourceLinks`: a resource in transition without an order.
#[derive(Deserialize, Default)]
pub(super) struct ResourceLinks {
    pub(super) set_state_ok_url: Option<String>,
    /// Null if Waldur has none; absent if the proxy does not publish it.
    #[serde(default, deserialize_with = "present")]
    pub(super) backend_id: Option<Value>,
}

/// Reads null as `Some`, to distinguish it from an absent value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
pub(super) struct QuotaProblem {
    pub(super) code: String,
    pub(super) detail: String,
}

#[derive(Deserialize, Default)]
pub(super) struct Skipped {
    #[serde(rename = "itemId")]
    pub(super) item_id: Option<Uuid>,
    #[serde(default)]
    pub(super) error: String,
    #[serde(default)]
    pub(super) detail: String,
}

/// The only field that is read of an item that cannot be parsed.
#[derive(Deserialize)]
pub(super) struct ItemId {
    #[serde(rename = "itemId")]
    pub(super) id: Uuid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    #[serde(rename = "itemId")]
    pub(super) id: Uuid,
    pub(super) status: Status,
    pub(super) mount_point: MountPoint,
    pub(super) permission: Permission,
    pub(super) storage_system: StorageSystem,
    pub(super) target: Target,
    pub(super) quotas: Option<Vec<Quota>>,
    pub(super) new_quotas: Option<Vec<Quota>>,
    #[serde(flatten)]
    pub(super) links: Links,
}

#[derive(Deserialize)]
pub(super) struct MountPoint {
    pub(super) default: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Permission {
    pub(super) value: String,
    pub(super) permission_type: String,
}

#[derive(Deserialize)]
pub(super) struct StorageSystem {
    pub(super) key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    pub(super) target_type: String,
    pub(super) target_item: TargetItem,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetItem {
    pub(super) name: Option<String>,
    pub(super) unix_gid: Option<u32>,
    pub(super) unix_uid: Option<u32>,
    pub(super) primary_project: Option<PrimaryProject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PrimaryProject {
    pub(super) unix_gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Quota {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "quota")]
    pub(super) value: f64,
    pub(super) unit: String,
    pub(super) enforcement_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    pub(super) uuid: Option<Uuid>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) state: Option<String>,
    pub(super) offering_type: Option<String>,
    pub(super) new_options: Option<Map<String, Value>>,
}
