//! The published document: one item a tenant, customer, project or user.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::order::CallbackLinks;
use crate::quota::Quota;
use crate::resource::Status;
use crate::target::{self, TargetItem, TargetType};

/// One item of the document, as provisioners read it. Keys are never added here (decision D15).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    /// UUID of the offering (tenant), the customer or the resource.
    pub item_id: Uuid,
    /// What is to be done, or was.
    pub status: Status,
    /// Where the directory is.
    pub mount_point: MountPoint<'a>,
    /// Mode of the directory.
    pub permission: Permission<'a>,
    /// The storage system.
    pub storage_system: Arc<Named>,
    /// The kind of file system.
    pub storage_file_system: Arc<Named>,
    /// The data type.
    pub storage_data_type: Arc<Named>,
    /// Whom the directory is for.
    pub target: Target<'a>,
    /// The quotas that apply now.
    pub quotas: Option<[Quota; 4]>,
    /// The quotas before the update order in progress.
    pub old_quotas: Option<[Quota; 4]>,
    /// The quotas after the update order in progress.
    pub new_quotas: Option<[Quota; 4]>,
    /// Item of the customer or tenant above.
    pub parent_item_id: Option<Uuid>,
    /// Where to report.
    #[serde(flatten)]
    pub links: CallbackLinks,
}

/// Where a directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPoint<'a> {
    /// Path of the directory.
    pub default: Cow<'a, str>,
}

/// Mode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission<'a> {
    /// Three or four octal digits.
    pub value: &'a str,
    /// Always `octal`.
    pub permission_type: &'static str,
}

impl<'a> Permission<'a> {
    pub(crate) fn octal(value: &'a str) -> Self {
        Self { value, permission_type: "octal" }
    }
}

/// A storage system, file system or data type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// UUIDv5 of the name in its scope.
    pub item_id: Uuid,
    /// The name in lower case.
    pub key: String,
    /// The name in upper case.
    pub name: String,
    /// Always true.
    pub active: bool,
    /// Empty; the key for a data type.
    pub path: String,
}

impl Named {
    pub(crate) fn new(scope: &str, name: &str) -> Self {
        let key = name.to_lowercase();
        let path = if scope == "storage_data_type" { key.clone() } else { String::new() };
        Self { item_id: target::id(scope, name), key, name: name.to_uppercase(), active: true, path }
    }
}

/// Whom a directory is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target<'a> {
    /// Kind of target.
    pub target_type: TargetType,
    /// The target itself.
    pub target_item: TargetOf<'a>,
}

/// The target of a node or of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TargetOf<'a> {
    /// A tenant or customer.
    Node(NodeTarget<'a>),
    /// A project or user, made for this item.
    Made(TargetItem),
    /// A project or user, as the back-end left it in `backend_metadata`.
    Given(&'a TargetItem),
}

/// A tenant or customer as a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTarget<'a> {
    /// The same as the item's.
    pub item_id: Uuid,
    /// The slug; of a tenant in lower case.
    pub key: Cow<'a, str>,
    /// The name.
    pub name: Cow<'a, str>,
}
