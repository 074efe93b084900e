//! The schemas of all bodies, as the derive gives them, then made exact.

use std::borrow::Cow;
use std::collections::BTreeMap;

use catalog::{Item, State};
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::bodies;

/// The name of a state that clients may filter by. [`State`] itself also stands for those that this version does not know.
pub(super) struct StateName;

impl PartialSchema for StateName {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(State::KNOWN.map(State::as_str))).into()
    }
}

impl ToSchema for StateName {}

/// Objects that may gain keys (decision D15); all others are closed.
const OPEN: [&str; 8] =
    ["Listing", "Pagination", "Version", "NotAdmitted", "NothingHere", "BadRequest", "Failed", "UpstreamFailed"];

/// All schemas by name.
pub(super) fn all() -> BTreeMap<String, RefOr<Schema>> {
    let mut found = Vec::new();
    add::<bodies::Listing<'_>>(&mut found);
    add::<Item<'_>>(&mut found);
    add::<bodies::Version>(&mut found);
    add::<bodies::NotAdmitted>(&mut found);
    add::<bodies::NothingHere>(&mut found);
    add::<bodies::BadRequest>(&mut found);
    add::<bodies::Failed>(&mut found);
    add::<bodies::UpstreamFailed>(&mut found);
    found.into_iter().collect()
}

fn add<T: ToSchema>(found: &mut Vec<(String, RefOr<Schema>)>) {
    T::schemas(found);
    found.push((T::name().into_owned(), T::schema()));
}
