//! Targets: the project or user that an item is for, and the stable UUIDs of named objects.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::field::{Malformed, malformed};
use crate::status::Status;

/// What kind of owner an item has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    /// The provider at the top of the hierarchy.
    Tenant,
    /// A customer of the provider.
    Customer,
    /// A project of the customer.
    Project,
    /// A user within a project.
    User,
}

impl TargetType {
    /// The target type as published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Customer => "customer",
            Self::Project => "project",
            Self::User => "user",
        }
    }

    /// The target type for a data type: user for `users` and `scratch`, project for all others.
    pub fn of_data_type(data_type: &str) -> Self {
        match data_type {
            "users" | "scratch" => Self::User,
            _ => Self::Project,
        }
    }
}

/// A project as a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProjectTarget {
    /// UUIDv5 of the resource's slug, or the value from the target item in `backend_metadata`.
    pub item_id: Uuid,
    /// Null unless the target item in `backend_metadata` has it.
    pub key: Option<String>,
    /// Slug of the resource; null only if a target item in `backend_metadata` lacks it.
    pub name: Option<String>,
    /// Status of the item; null only if a target item in `backend_metadata` lacks it.
    pub status: Option<Status>,
    /// Unix GID of the project; null only if a target item in `backend_metadata` lacks it.
    pub unix_gid: Option<i64>,
    /// Whether the status is `active`; null only if a target item in `backend_metadata` lacks it.
    pub active: Option<bool>,
}

/// A user as a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct UserTarget {
    /// UUIDv5 of the resource's slug, or the value from the target item in `backend_metadata`.
    pub item_id: Uuid,
    /// Null unless the target item in `backend_metadata` has it.
    pub key: Option<String>,
    /// Null unless the target item in `backend_metadata` has it.
    pub name: Option<String>,
    /// Status of the item; null only if a target item in `backend_metadata` lacks it.
    pub status: Option<Status>,
    /// E-mail address; null if unknown.
    // Never generated in production (decision D5).
    pub email: Option<String>,
    /// Unix UID; null if unknown.
    // Never generated in production (decision D5).
    pub unix_uid: Option<i64>,
    /// The project whose group the user works in; null only if a target item in `backend_metadata` lacks it.
    pub primary_project: Option<PrimaryProject>,
    /// Whether the status is `active`; null only if a target item in `backend_metadata` lacks it.
    pub active: Option<bool>,
}

/// The project whose group a user works in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PrimaryProject {
    /// Slug of the project.
    pub name: String,
    /// Unix GID of the project.
    pub unix_gid: i64,
    /// Whether the status is `active`.
    pub active: bool,
}

/// A publishable target item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TargetItem {
    Project(ProjectTarget),
    User(UserTarget),
}

/// A stable UUID for a scope and a name: UUIDv5 in the OID namespace.
pub(crate) fn id(scope: &str, name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{scope}:{name}").as_bytes())
}

/// The target item for `target_type` in `backend_metadata`, if present.
pub(crate) fn from_metadata(target_type: TargetType, metadata: &Value) -> Result<Option<TargetItem>, Malformed> {
    // Ignore metadata that is not a map: it belongs to other software.
    let Value::Object(metadata) = metadata else { return Ok(None) };
    let key = if target_type == TargetType::User { "user_item" } else { "project_item" };
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(item)) if target_type == TargetType::User => user(item).map(TargetItem::User).map(Some),
        Some(Value::Object(item)) => project(item).map(TargetItem::Project).map(Some),
        Some(_) => malformed(PROJECT_OR_USER, "is not a map"),
    }
}

const PROJECT_OR_USER: &str = "backend_metadata.project_item or user_item";

fn project(item: &Map<String, Value>) -> Result<ProjectTarget, Malformed> {
    Ok(ProjectTarget {
        item_id: item_id(item)?,
        key: text(item, "key")?,
        name: text(item, "name")?,
        status: status(item)?,
        unix_gid: integer(item, "unixGid")?,
        active: boolean(item, "active")?,
    })
}

fn user(item: &Map<String, Value>) -> Result<UserTarget, Malformed> {
    let primary_project = match item.get("primaryProject") {
        None | Some(Value::Null) => None,
        Some(Value::Object(project)) => {
            match (text(project, "name")?, integer(project, "unixGid")?, boolean(project, "active")?) {
                (Some(name), Some(unix_gid), Some(active)) => Some(PrimaryProject { name, unix_gid, active }),
                _ => return malformed("backend_metadata.user_item.primaryProject", "lacks name, unixGid or active"),
            }
        }
        Some(_) => return malformed("backend_metadata.user_item.primaryProject", "is not a map"),
    };
    Ok(UserTarget {
        item_id: item_id(item)?,
        key: text(item, "key")?,
        name: text(item, "name")?,
        status: status(item)?,
        email: text(item, "email")?,
        unix_uid: integer(item, "unixUid")?,
        primary_project,
        active: boolean(item, "active")?,
    })
}

fn item_id(item: &Map<String, Value>) -> Result<Uuid, Malformed> {
    match item.get("itemId").and_then(Value::as_str).map(Uuid::parse_str) {
        Some(Ok(uuid)) => Ok(uuid),
        _ => malformed(PROJECT_OR_USER, "has no itemId, or one that is not a UUID"),
    }
}

fn text(item: &Map<String, Value>, key: &str) -> Result<Option<String>, Malformed> {
    match item.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => malformed(PROJECT_OR_USER, "has a field that must be text"),
    }
}

fn status(item: &Map<String, Value>) -> Result<Option<Status>, Malformed> {
    match text(item, "status")?.map(|status| status.parse()) {
        None => Ok(None),
        Some(Ok(status)) => Ok(Some(status)),
        Some(Err(())) => malformed(PROJECT_OR_USER, "has an unknown status"),
    }
}

/// Reads an integer, a string that contains one, or a float without a fraction, like the Python proxy.
fn integer(item: &Map<String, Value>, key: &str) -> Result<Option<i64>, Malformed> {
    let integer = match item.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().and_then(integral)),
        Some(Value::String(text)) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.strip_suffix(".0").and_then(|whole| whole.parse().ok()))
        }
        Some(_) => None,
    };
    integer.map_or_else(|| malformed(PROJECT_OR_USER, "has a field that must be an integer"), |i| Ok(Some(i)))
}

#[expect(clippy::cast_possible_truncation, reason = "the value is integral and within 53 bits")]
fn integral(number: f64) -> Option<i64> {
    (number.fract().abs() < f64::EPSILON && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// Reads a boolean in any spelling that the Python proxy accepts.
fn boolean(item: &Map<String, Value>, key: &str) -> Result<Option<bool>, Malformed> {
    let boolean = match item.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(boolean)) => Some(*boolean),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(1.0) => Some(true),
            Some(0.0) => Some(false),
            _ => None,
        },
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        Some(_) => None,
    };
    boolean.map_or_else(|| malformed(PROJECT_OR_USER, "has a field that must be true or false"), |b| Ok(Some(b)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0668ddb8-1068-48e6-81bf-4914b926f46a";

    #[test]
    fn ids_equal_those_of_the_python_proxy() {
        assert_eq!(id("project", "project-storage").to_string(), "d5141c78-1ca4-5fc9-bc3d-4682ad514860");
        assert_eq!(id("storage_system", "capstor").to_string(), "4b4a996a-8d6b-556d-ad60-202cefa6ecc3");
    }

    #[test]
    fn metadata_without_an_item_for_the_target_type_is_ignored() {
        for metadata in [
            json!({}),
            json!("a bare text"),
            json!([1]),
            json!(null),
            json!({"user_item": {"itemId": "no uuid"}}),
            json!({"project_item": null}),
            json!({"tenant_item": 5}),
        ] {
            assert_eq!(from_metadata(TargetType::Project, &metadata), Ok(None), "{metadata}");
        }
    }

    #[test]
    fn metadata_keeps_only_known_fields() {
        let metadata = json!({"project_item": {"itemId": ID, "unixGid": "4242", "active": "yes", "surprise": 1}});
        let Ok(Some(TargetItem::Project(project))) = from_metadata(TargetType::Project, &metadata) else { panic!() };
        assert_eq!((project.unix_gid, project.active, project.name), (Some(4242), Some(true), None));
    }

    #[test]
    fn malformed_metadata_makes_the_record_malformed() {
        for item in [
            json!(5),
            json!({}),
            json!({"itemId": "nope"}),
            json!({"itemId": ID, "unixGid": 1.5}),
            json!({"itemId": ID, "unixGid": true}),
            json!({"itemId": ID, "active": "perhaps"}),
            json!({"itemId": ID, "status": "sleeping"}),
            json!({"itemId": ID, "name": 5}),
        ] {
            assert!(from_metadata(TargetType::Project, &json!({"project_item": item})).is_err(), "{item}");
        }
        let user = json!({"user_item": {"itemId": ID, "primaryProject": {"name": "p", "unixGid": 5}}});
        assert!(from_metadata(TargetType::User, &user).is_err());
    }
}
