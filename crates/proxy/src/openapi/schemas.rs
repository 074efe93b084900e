//! The derived schemas of all bodies: exact ones, and those that are published.

use std::collections::BTreeMap;

use catalog::{Item, State};
use provisioner_report::Report;
use utoipa::openapi::schema::{AdditionalProperties, Discriminator, SchemaType};
use utoipa::openapi::{Object, ObjectBuilder, Ref, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::bodies;

/// The name of a state in a filter. [`State`] itself also includes states unknown to this version.
pub(super) struct StateName;

impl PartialSchema for StateName {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("State of a resource in Waldur."))
            .enum_values(Some(State::KNOWN.map(State::as_str)))
            .into()
    }
}

impl ToSchema for StateName {}

/// Objects that may get new keys: the responses themselves, and `pagination` (decision D15). All others are closed.
const OPEN: [&str; 11] = [
    "Listing",
    "Pagination",
    "Version",
    "NotAdmitted",
    "NothingHere",
    "CallbackEnded",
    "ReportRejected",
    "BadRequest",
    "Failed",
    "UpstreamFailed",
    "Overloaded",
];

/// Kinds of targets, in the order of the variants of `Target`.
pub(super) const TARGET_TYPES: [&str; 4] = ["tenant", "customer", "project", "user"];

/// All schemas by name, as they are published: the values of enumerations are only examples, because later versions may have others, and
/// a client that was generated from the document must not reject them.
pub(super) fn published() -> BTreeMap<String, RefOr<Schema>> {
    let mut schemas = responses();
    for schema in schemas.values_mut() {
        if let RefOr::T(Schema::Object(object)) = schema
            && let Some(known) = object.enum_values.take()
        {
            object.examples = known;
        }
    }
    schemas.extend(report());
    schemas
}

/// All schemas by name. Those of responses describe exactly what this version returns.
#[cfg(test)]
pub(super) fn exact() -> BTreeMap<String, RefOr<Schema>> {
    let mut schemas = responses();
    schemas.extend(report());
    schemas
}

/// The schemas of a provisioner's report. Other values of its enumerations are rejected.
fn report() -> BTreeMap<String, RefOr<Schema>> {
    let mut found = Vec::new();
    add::<Report>(&mut found);
    for (_, schema) in &mut found {
        if let RefOr::T(Schema::Object(object)) = schema {
            object.properties.values_mut().for_each(describe_whole);
        }
    }
    found.into_iter().collect()
}

fn responses() -> BTreeMap<String, RefOr<Schema>> {
    let mut found = Vec::new();
    add::<bodies::Listing<'_>>(&mut found);
    add::<Item<'_>>(&mut found);
    add::<bodies::Version>(&mut found);
    add::<bodies::NotAdmitted>(&mut found);
    add::<bodies::NothingHere>(&mut found);
    add::<bodies::CallbackEnded>(&mut found);
    add::<bodies::ReportRejected>(&mut found);
    add::<bodies::BadRequest>(&mut found);
    add::<bodies::Failed>(&mut found);
    add::<bodies::UpstreamFailed>(&mut found);
    add::<bodies::Overloaded>(&mut found);
    let mut schemas: BTreeMap<_, _> = found.into_iter().collect();
    for (name, schema) in &mut schemas {
        make_exact(schema, OPEN.contains(&name.as_str()));
    }
    name_targets(&mut schemas);
    schemas
}

/// Makes each kind of target a schema with a name, and adds the discriminator, for generated clients.
fn name_targets(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let Some(RefOr::T(Schema::OneOf(target))) = schemas.get_mut("Target") else { return };
    let names = ["TargetTenant", "TargetCustomer", "TargetProject", "TargetUser"];
    let references = names.map(|name| RefOr::Ref(Ref::from_schema_name(name)));
    let kinds = std::mem::replace(&mut target.items, references.into());
    let locations = names.map(|name| format!("#/components/schemas/{name}"));
    target.discriminator = Some(Discriminator::with_mapping("targetType", TARGET_TYPES.into_iter().zip(locations)));
    schemas.extend(names.map(str::to_owned).into_iter().zip(kinds));
}

fn add<T: ToSchema>(found: &mut Vec<(String, RefOr<Schema>)>) {
    T::schemas(found);
    found.push((T::name().into_owned(), T::schema()));
}

fn make_exact(schema: &mut RefOr<Schema>, open: bool) {
    let RefOr::T(inner) = schema else { return };
    match inner {
        Schema::Object(object) => exact_object(object, open),
        Schema::OneOf(variants) => {
            for variant in &mut variants.items {
                make_exact(variant, open);
            }
        }
        _ => {}
    }
}

/// An `Option` is rendered as null, so its key is always present; optional keys are marked as not nullable.
fn exact_object(object: &mut Object, open: bool) {
    if object.properties.is_empty() {
        return;
    }
    let Object { required, properties, .. } = &mut *object;
    for (name, property) in properties.iter_mut() {
        if is_nullable(property) && !required.contains(name) {
            required.push(name.clone());
        }
        describe_whole(property);
        if let RefOr::T(Schema::Object(tag)) = property
            && name == "targetType"
        {
            tag.description = Some("Kind of target.".to_owned());
        }
    }
    if !open {
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    }
}

fn is_nullable(schema: &RefOr<Schema>) -> bool {
    let null = |schema_type: &SchemaType| match schema_type {
        SchemaType::Type(one) => *one == Type::Null,
        SchemaType::Array(several) => several.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => null(&object.schema_type),
        RefOr::T(Schema::Array(array)) => null(&array.schema_type),
        RefOr::T(Schema::OneOf(variants)) => variants.items.iter().any(is_nullable),
        _ => false,
    }
}

/// Moves the description of a nullable schema from its variant to the whole.
fn describe_whole(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::OneOf(variants)) = schema {
        for variant in &mut variants.items {
            if let RefOr::Ref(something) = variant {
                variants.description = Some(std::mem::take(&mut something.description));
            }
        }
    }
}
