use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{ORDER, parse, record, resource};

fn error(changes: Value) -> &'static str {
    let rejected = parse(&record(changes)).unwrap_err();
    assert!(rejected.uuid.is_some(), "the record's uuid was readable");
    rejected.error.field
}

#[test]
fn a_malformed_field_is_named() {
    for (changes, field) in [
        (json!({"slug": null}), "slug"),
        (json!({"slug": 5}), "slug"),
        (json!({"state": null}), "state"),
        (json!({"offering_uuid": "nope"}), "offering_uuid"),
        (json!({"offering_slug": []}), "offering_slug"),
        (json!({"project_slug": null}), "project_slug"),
        (json!({"project_slug": "../etc"}), "project_slug"),
        (json!({"customer_slug": ".."}), "customer_slug"),
        (json!({"provider_slug": "a/b"}), "provider_slug"),
        (json!({"provider_name": 5}), "provider_name"),
        (json!({"attributes": 5}), "attributes"),
        (json!({"attributes": ["store"]}), "attributes"),
        (json!({"attributes": {"storage_data_type": "../x"}}), "attributes.storage_data_type"),
        (json!({"attributes": {"permissions": "rwx"}}), "attributes.permissions"),
        (json!({"attributes": {"permissions": 775}}), "attributes.permissions"),
        (json!({"attributes": {"permissions": "77"}}), "attributes.permissions"),
        (json!({"attributes": {"permissions": "07755"}}), "attributes.permissions"),
        (json!({"attributes": {"permissions": "789"}}), "attributes.permissions"),
        (json!({"attributes": {"permissions": "789"}, "options": {"permissions": "775"}}), "attributes.permissions"),
        (json!({"options": {"permissions": ""}}), "options.permissions"),
        (json!({"options": "none"}), "options"),
        (json!({"options": {"hard_quota_space": -1}}), "options.hard_quota_space"),
        (json!({"options": {"soft_quota_inodes": "many"}}), "options.soft_quota_inodes"),
        (json!({"options": {"hard_quota_inodes": -5}}), "options.hard_quota_inodes"),
        (json!({"limits": {"storage": -1}}), "limits.storage"),
        (json!({"limits": {"storage": "a lot"}}), "limits.storage"),
        (json!({"limits": [10]}), "limits"),
        (json!({"order_in_progress": "yes"}), "order_in_progress"),
        (json!({"order_in_progress": {"state": 5}}), "order_in_progress.state"),
        (json!({"backend_metadata": {"project_item": {}}}), "backend_metadata.project_item or user_item"),
    ] {
        assert_eq!(error(changes.clone()), field, "{changes}");
    }
}

#[test]
fn a_record_without_a_readable_uuid_is_rejected_without_one() {
    for record in [json!(null), json!(5), json!([]), json!({}), record(json!({"uuid": 5}))] {
        assert_eq!(parse(&record).unwrap_err().uuid, None, "{record}");
    }
}

#[test]
fn empty_null_and_unknown_values_have_defaults() {
    let resource = resource(json!({
        "attributes": null, "limits": null, "options": null, "backend_metadata": "text", "backend_id": null,
        "provider_name": null, "surprise": {"any": "thing"},
    }));
    assert_eq!(resource.data_type, "store");
    assert_eq!(resource.permission.as_str(), "775");
    assert_eq!(resource.limits, ResourceLimits::default());
    assert_eq!(resource.options, Options::default());
    assert_eq!(resource.backend_id, None);
}

#[test]
fn data_types_ignore_case_and_surrounding_space() {
    for (value, data_type, target) in [
        (json!(" Scratch\t"), "scratch", TargetType::User),
        (json!("USERS"), "users", TargetType::User),
        (json!("archive"), "archive", TargetType::Project),
        (json!("workspace"), "workspace", TargetType::Project),
        (json!("  "), "store", TargetType::Project),
        (json!(5), "store", TargetType::Project),
        (json!(null), "store", TargetType::Project),
    ] {
        let resource = resource(json!({"attributes": {"storage_data_type": value}}));
        assert_eq!((resource.data_type.as_str(), resource.target_type()), (data_type, target), "{value}");
    }
}

#[test]
fn options_take_precedence_over_attributes() {
    let resource = resource(json!({"attributes": {"permissions": "700"}, "options": {"permissions": "2775"}}));
    assert_eq!(resource.permission.as_str(), "2775");
}

#[test]
fn an_unapproved_change_does_not_affect_the_state() {
    for (state, order_state, status) in [
        ("Updating", "pending-consumer", Status::Active),
        ("Terminating", "pending-consumer", Status::Active),
        ("Creating", "pending-consumer", Status::Pending),
        ("Erred", "pending-consumer", Status::Error),
        ("Updating", "pending-provider", Status::Updating),
        ("Terminating", "executing", Status::Removing),
        ("Terminated", "done", Status::Removed),
        ("Hibernating", "executing", Status::Pending),
    ] {
        let order = json!({"state": order_state, "type": "Update", "url": ORDER});
        let resource = resource(json!({"state": state, "order_in_progress": order}));
        assert_eq!(resource.status(), status, "{state} {order_state}");
    }
}

/// Any JSON value of limited depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_parsed_or_rejected(field in prop::sample::select(FIELDS.as_slice()), value in any_json()) {
        if let Ok(resource) = parse(&record(json!({field: value}))) {
            prop_assert!(resource.limits.storage.is_none_or(|storage| storage >= 0.0));
            prop_assert!(matches!(resource.permission.as_str().len(), 3 | 4));
            prop_assert!(!resource.data_type.is_empty());
            prop_assert!(!resource.project_slug.contains('/') && resource.project_slug != "..");
        }
    }

    #[test]
    fn any_json_is_parsed_or_rejected(value in any_json()) {
        let _ = parse(&value);
    }
}
