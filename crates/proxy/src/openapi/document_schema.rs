//! The JSON Schema of the document, for clients that validate it, published as `docs/document.schema.json`.
//!
//! Keys and values that this version does not know are valid, so that it also fits the documents of later versions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::schemas::{self, TARGET_TYPES};

const DESCRIPTION: &str = "\
A page of the document that `hpc-storage-proxy` publishes (docs/specification.md); `#/$defs/Item` is one item of it. Keys and \
values that this version does not know are valid: ignore such keys, and do not act on an item with such a value.";

/// The schema as pretty-printed JSON, with a final line break.
#[expect(clippy::missing_panics_doc, reason = "the schemas are always JSON")]
pub fn json_schema() -> String {
    let components = serde_json::to_value(schemas::published()).expect("JSON");
    let mut found = BTreeMap::new();
    let mut missing = BTreeSet::from(["Listing".to_owned()]);
    while let Some(name) = missing.pop_first() {
        let mut schema = components[&name].clone();
        adapt(&mut schema, &mut missing);
        found.insert(name, schema);
        missing.retain(|name| !found.contains_key(name));
    }
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
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Storage resources",
        "description": DESCRIPTION,
        "$ref": "#/$defs/Listing",
        "$defs": found,
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
