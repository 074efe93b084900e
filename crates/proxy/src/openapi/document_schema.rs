//! The JSON Schemas of the document and of a provisioner's report, published as `docs/document.schema.json` and
//! `docs/provisioner-report.schema.json`.
//!
//! In the document, keys and values that this version does not know are valid, so that it also fits the documents of later versions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::schemas::{self, TARGET_TYPES};

const DESCRIPTION: &str = "\
A page of the document that `hpc-storage-proxy` publishes (docs/specification.md); `#/$defs/Item` is one item of it. Keys and \
values that this version does not know are valid: ignore such keys, and do not act on an item with such a value.";

const REPORT_DESCRIPTION: &str = "\
The report that a provisioner sends to `hpc-storage-proxy` after each pass (docs/conformance.md): `PUT \
/api/provisioners/{name}/status`. Keys that the proxy does not know are ignored.";

/// The schema as pretty-printed JSON, with a final line break.
pub fn json_schema() -> String {
    let mut found = with_references("Listing");
    if let Some(Value::Array(kinds)) = found.get_mut("Target").and_then(|target| target.get_mut("oneOf")) {
        kinds.push(json!({
            "type": "object",
            "description": "A kind of target that this version does not know.",
            "required": ["targetType", "targetItem"],
            "properties": {
                "targetType": {"type": "string", "not": {"enum": TARGET_TYPES}},
                "targetItem": {"type": "object"},
            },
        }));
    }
    render("Storage resources", DESCRIPTION, "Listing", &found)
}

/// The schema of a provisioner's report as pretty-printed JSON, with a final line break.
pub fn report_schema() -> String {
    const NAME: &str = "ProvisionerReport";
    render("Report of a provisioner", REPORT_DESCRIPTION, NAME, &with_references(NAME))
}

/// A schema and those that it references, by name.
fn with_references(name: &str) -> BTreeMap<String, Value> {
    let components = serde_json::to_value(schemas::published()).expect("JSON");
    let mut found = BTreeMap::new();
    let mut missing = BTreeSet::from([name.to_owned()]);
    while let Some(name) = missing.pop_first() {
        let mut schema = components[&name].clone();
        adapt(&mut schema, &mut missing);
        found.insert(name, schema);
        missing.retain(|name| !found.contains_key(name));
    }
    found
}

fn render(title: &str, description: &str, name: &str, schemas: &BTreeMap<String, Value>) -> String {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "$ref": format!("#/$defs/{name}"),
        "$defs": schemas,
    });
    serde_json::to_string_pretty(&schema).expect("JSON") + "\n"
}

/// Removes what only OpenAPI knows and what excludes unknown keys, and adds the names of the referenced schemas to `names`.
fn adapt(schema: &mut Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            map.remove("discriminator");
            if map.get("additionalProperties") == Some(&Value::Bool(false)) {
                map.remove("additionalProperties");
            }
            reference(map, names);
            map.values_mut().for_each(|value| adapt(value, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| adapt(value, names)),
        _ => {}
    }
}

fn reference(map: &mut Map<String, Value>, names: &mut BTreeSet<String>) {
    if let Some(Value::String(reference)) = map.get_mut("$ref")
        && let Some(name) = reference.strip_prefix("#/components/schemas/")
    {
        names.insert(name.to_owned());
        *reference = format!("#/$defs/{name}");
    }
}
