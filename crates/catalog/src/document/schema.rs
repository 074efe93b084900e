//! OpenAPI schemas that cannot be derived from the published types, for the feature `schema`.

#![expect(dead_code, reason = "only the derived schemas use these types")]

use utoipa::ToSchema;

use super::NodeTarget;
use crate::target::{ProjectTarget, UserTarget};

/// The owner of the directory. `targetType` determines the shape of `targetItem`.
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

/// Notation of a mode: octal digits.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PermissionType {
    Octal,
}

/// Why a resource is skipped.
#[derive(ToSchema)]
pub(crate) enum SkippedError {
    MissingIdentityError,
    MalformedResourceError,
}
