//! Tests of the document, and validation of real responses for other tests.

mod responses;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// Asserts that the document describes `body` as a response to the only method of `path` (as in the document).
#[track_caller]
pub(crate) fn assert_described(path: &str, status: u16, body: &Value) {
    if let Err(fault) = validator(path, status).validate(body) {
        panic!("{path}, {status}: {fault} at {}\n{body}", fault.instance_path());
    }
}

/// Validates bodies of responses to the only method of `path`.
#[track_caller]
fn validator(path: &str, status: u16) -> Validator {
    let document = exact();
    let operation = document["paths"][path].as_object().unwrap().values().next().unwrap();
    let response = &operation["responses"][status.to_string()];
    let response = match response["$ref"].as_str() {
        Some(reference) => resolve(&document, reference).unwrap(),
        None => response,
    };
    let mut schema = response["content"]["application/json"]["schema"].as_object().expect("it is described").clone();
    schema.insert("components".into(), document["components"].clone());
    jsonschema::draft202012::new(&Value::Object(schema)).unwrap()
}

fn parsed() -> Value {
    serde_json::from_str(&super::json(&[])).unwrap()
}

/// The document with schemas that exclude values that this version does not know.
fn exact() -> Value {
    serde_json::to_value(super::document(super::schemas::exact(), &[])).unwrap()
}

fn resolve<'a>(document: &'a Value, reference: &str) -> Option<&'a Value> {
    document.pointer(reference.strip_prefix('#')?)
}

#[test]
fn the_document_is_openapi() {
    // The schema of OpenAPI 3.1 documents as its authors publish it (Apache License 2.0).
    let schema: Value = serde_json::from_str(include_str!("tests/oas-3.1.schema.json")).unwrap();
    let openapi = jsonschema::draft202012::new(&schema).unwrap();
    let document = parsed();
    if let Err(error) = openapi.validate(&document) {
        panic!("{error} at {}", error.instance_path());
    }
    let mut broken = document.clone();
    broken["components"]["responses"]["NotFound"].as_object_mut().unwrap().remove("description");
    assert!(!openapi.is_valid(&broken), "a response without a description is not OpenAPI");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name} is not a schema");
    }
}

/// Visits every map of a document with its path.
fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(path, map);
            for (key, value) in map {
                walk(value, &format!("{path}/{key}"), visit);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                walk(value, &format!("{path}/{at}"), visit);
            }
        }
        _ => {}
    }
}

/// Errors that the schema of OpenAPI does not detect.
fn faults(document: &Value) -> Vec<String> {
    let described = |value: &Value| value["description"].as_str().is_some_and(|text| text.len() > 3);
    let mut faults = Vec::new();
    let mut operations = Vec::new();
    walk(document, "", &mut |path, map| {
        if let Some(reference) = map.get("$ref").and_then(Value::as_str)
            && resolve(document, reference).is_none()
        {
            faults.push(format!("{path}: {reference} has no target"));
        }
        let parameters = map.get("parameters").and_then(Value::as_array).into_iter().flatten();
        let parts = ["properties", "responses", "schemas", "headers", "securitySchemes"]
            .into_iter()
            .filter_map(|part| map.get(part)?.as_object())
            .flat_map(Map::values)
            .chain(parameters);
        for part in parts {
            // A reference to a response or header cannot have a description of its own.
            let place = part["$ref"].as_str().and_then(|to| to.rsplit_once('/')).map(|(place, _)| place);
            if !described(part) && !matches!(place, Some("#/components/responses" | "#/components/headers")) {
                faults.push(format!("{path}: {part} has no description"));
            }
        }
        if let Some(id) = map.get("operationId") {
            if !described(&Value::Object(map.clone())) || !map.contains_key("summary") {
                faults.push(format!("{path} has no summary or no description"));
            }
            operations.push(id.clone());
        }
        if let Some(properties) = map.get("properties").and_then(Value::as_object) {
            let required = map.get("required").and_then(Value::as_array).into_iter().flatten();
            for name in required.filter_map(Value::as_str).filter(|name| !properties.contains_key(*name)) {
                faults.push(format!("{path}: {name} is required and not described"));
            }
        }
    });
    let methods = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap()).count();
    operations.sort_by_key(ToString::to_string);
    operations.dedup();
    if operations.len() != methods {
        faults.push("an operation has no unique ID".to_owned());
    }
    faults
}

#[test]
fn everything_is_described_and_every_reference_has_a_target() {
    let document = parsed();
    assert_eq!(faults(&document), [""; 0]);
    for (place, broken) in [
        ("/components/schemas/Item/properties/itemId", json!({"type": "string"})),
        ("/components/schemas/Item/properties/status/$ref", json!("#/components/schemas/Stat")),
        ("/paths/~1api~1version/get/operationId", json!("list_storage_resources")),
        ("/paths/~1api~1version/get/description", json!("")),
        ("/paths/~1api~1storage-resources~1/get/parameters/0/description", json!("")),
        ("/components/responses/NotFound/description", json!("")),
        ("/components/schemas/Version/required/0", json!("versoin")),
    ] {
        let mut altered = document.clone();
        *altered.pointer_mut(place).unwrap() = broken;
        assert_eq!(faults(&altered).len(), 1, "{place}");
    }
}

#[test]
fn the_parameters_are_those_of_a_listing() {
    let parameters = |document: &Value| {
        let parameters = document["paths"]["/api/storage-resources/"]["get"]["parameters"].as_array().unwrap().clone();
        parameters.into_iter().map(|mut parameter| {
            let name = format!("{} {}", parameter["in"].as_str().unwrap(), parameter["name"].as_str().unwrap());
            (name, parameter["schema"].take())
        })
    };
    let names: Vec<_> = parameters(&parsed()).map(|(name, _)| name).collect();
    let query =
        ["storage_system", "data_type", "status", "state", "page", "page_size"].map(|name| format!("query {name}"));
    let headers = ["If-None-Match", "Cache-Control", "Prefer"].map(|name| format!("header {name}"));
    assert_eq!(names, [&query[..], &headers].concat());

    let served: Value = serde_json::from_str(&super::json(&["capstor", "vast"])).unwrap();
    let schema = |document: &Value, name: &str| parameters(document).find(|(known, _)| known == name).unwrap().1;
    assert_eq!(schema(&served, "query storage_system"), json!({"type": "string", "enum": ["capstor", "vast"]}));
    assert_eq!(schema(&parsed(), "query storage_system"), json!({"type": "string", "minLength": 1}));
    assert_eq!(schema(&served, "query status")["enum"], json!(catalog::Status::ALL.map(catalog::Status::as_str)));
}
