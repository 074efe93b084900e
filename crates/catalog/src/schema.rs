//! Shapes that the published types' own definitions do not tell, for the schemas of the feature `schema`.

#![expect(dead_code, reason = "these types are read by the derived schemas, never made")]

use utoipa::ToSchema;

use crate::document::NodeTarget;
use crate::target::{ProjectTarget, UserTarget};

/// Whom the directory is for: `targetItem` has the shape that `targetType` names.
#[derive(ToSchema)]
#[serde(tag = "targetType", content = "targetItem", rename_all = "lowercase")]
pub(crate) enum Target<'a> {
    /// A tenant: the provider at the top of the hierarchy.
    Tenant(NodeTarget<'a>),
    /// A customer of the provider.
    Customer(NodeTarget<'a>),
    /// A project of the customer.
    Project(ProjectTarget),
    /// A user within a project.
    User(UserTarget),
}

/// Notation of a permission: octal digits.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PermissionType {
    Octal,
}

/// Why a resource is left out.
#[derive(ToSchema)]
pub(crate) enum SkippedError {
    MissingIdentityError,
    MalformedResourceError,
}
