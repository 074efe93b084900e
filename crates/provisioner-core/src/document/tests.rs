use serde_json::{Value, json};

use super::*;

const ID: &str = "11111111-2222-4333-8444-555555555555";

pub(crate) fn resource(n: u128, status: Status) -> Resource {
    Resource {
        id: Uuid::from_u128(n),
        system: "capstor".into(),
        path: format!("/capstor/store/p{n}"),
        status,
        kind: Kind::Project,
        name: None,
        mode: Mode(0o770),
        gid: Some(30_000),
        uid: None,
        quotas: Some(Quotas { space: [1.0; 2], inodes: [100.0; 2] }),
        new_quotas: None,
        quota_problem: None,
        order: None,
        links: Links::default(),
        unclaimed: false,
    }
}

fn item(id: &str) -> Value {
    let quota = |kind: &str, unit: &str, enforcement: &str, quota: f64| json!({"type": kind, "quota": quota, "unit": unit, "enforcementType": enforcement});
    json!({
        "itemId": id, "status": "pending",
        "mountPoint": {"default": "/capstor/store/cscs/customer/project"},
        "permission": {"value": "2770", "permissionType": "octal"},
        "storageSystem": {"itemId": id, "key": "capstor", "name": "CAPSTOR", "active": true, "path": ""},
        "target": {"targetType": "project", "targetItem": {"itemId": id, "name": "project", "unixGid": 30500, "status": "open"}},
        "quotas": [quota("space", "tera", "soft", 10.0), quota("space", "tera", "hard", 11.0),
                   quota("inodes", "none", "soft", 10.0), quota("inodes", "none", "hard", 20.0)],
        "oldQuotas": null, "newQuotas": null, "parentItemId": null,
        "set_state_done_url": "https://waldur.example.org/api/marketplace-orders/1/set_state_done/",
    })
}

fn page(resources: &[Value], total: usize) -> Value {
    json!({
        "status": "success", "resources": resources,
        "pagination": {"current": 1, "limit": 100, "offset": 0, "pages": 1, "total": total},
        "orders": {ID: {"uuid": ID, "type": "Create", "state": "executing", "offeringType": "Marketplace.Slurm"}},
    })
}

fn parsed(pages: &[Value]) -> Result<Document, DocumentError> {
    parse(&pages.iter().map(|page| page.to_string().into_bytes()).collect::<Vec<_>>(), false)
}

fn one(item: Value) -> Document {
    parsed(&[page(&[item], 1)]).unwrap()
}

#[test]
fn an_item_is_parsed_with_its_order() {
    let document = one(item(ID));
    let [resource] = &document.resources[..] else { panic!("{document:?}") };
    assert_eq!((resource.gid, resource.mode), (Some(30500), Mode(0o2770)));
    assert_eq!(resource.quotas, Some(Quotas { space: [10.0, 11.0], inodes: [10.0, 20.0] }));
    let order = resource.order.as_ref().unwrap();
    assert_eq!(
        (order.kind, order.state, order.offering),
        (OrderKind::Create, OrderState::Executing, Offering::SiteAgent)
    );
    assert!(resource.links.done.is_some() && resource.links.approve.is_none());
}

#[test]
fn an_item_with_an_invalid_value_is_rejected() {
    for (pointer, value) in [
        ("/status", json!("frozen")),
        ("/permission/value", json!("77")),
        ("/permission/value", json!("+77")),
        ("/permission/permissionType", json!("acl")),
        ("/target/targetType", json!("planet")),
        ("/target/targetItem/unixGid", json!(-1)),
        ("/quotas/0/unit", json!("tebi")),
        ("/quotas/3/type", json!("files")),
        ("/quotas", json!([])),
        ("/mountPoint", json!(null)),
    ] {
        let mut invalid = item(ID);
        *invalid.pointer_mut(pointer).unwrap() = value;
        let document = one(invalid);
        assert!(document.resources.is_empty() && document.rejected.len() == 1, "{pointer}: {document:?}");
        assert_eq!(document.rejected[0].id, Some(ID.parse().unwrap()), "{pointer}");
    }
}

#[test]
fn two_items_with_the_same_id_are_both_rejected() {
    let document = parsed(&[page(&[item(ID), item(ID)], 2)]).unwrap();
    assert!(document.resources.is_empty() && document.rejected.len() == 1, "{document:?}");
}

#[test]
fn an_incomplete_document_is_an_error() {
    assert!(matches!(parsed(&[page(&[item(ID)], 2)]), Err(DocumentError::Changed { read: 1, total: 2 })));
    assert!(matches!(parsed(&[]), Err(DocumentError::Changed { .. })));
    let other = "21111111-2222-4333-8444-555555555555";
    let moved = [page(&[item(ID)], 2), page(&[item(other)], 3)];
    assert!(matches!(parsed(&moved), Err(DocumentError::Changed { .. })));
    assert!(matches!(parse(&[b"<html>".to_vec()], false), Err(DocumentError::Page { page: 1, .. })));
}

#[test]
fn a_document_without_orders_or_with_mock_gids_is_an_error() {
    let mut older = page(&[item(ID)], 1);
    older.as_object_mut().unwrap().remove("orders");
    assert!(matches!(parsed(&[older]), Err(DocumentError::NoOrders)));
    let mut mock = page(&[item(ID)], 1);
    mock["mock_identities"] = json!(true);
    assert!(matches!(parsed(&[mock]), Err(DocumentError::MockIdentities)));
}

#[test]
fn two_items_with_the_same_id_are_both_rejected_even_if_one_is_invalid() {
    let mut invalid = item(ID);
    invalid["permission"]["value"] = "rwx".into();
    let mut unreadable = item(ID);
    unreadable["status"] = "asleep".into();
    for other in [item(ID), invalid, unreadable] {
        for pair in [[item(ID), other.clone()], [other.clone(), item(ID)]] {
            let document = parsed(&[page(&pair, 2)]).unwrap();
            assert!(document.resources.is_empty() && !document.rejected.is_empty(), "{document:?}");
        }
    }
}

#[test]
fn an_unreadable_entry_rejects_one_item_only() {
    type Change<'a> = &'a dyn Fn(&mut Value);
    let other = "21111111-2222-4333-8444-555555555555";
    let raw = |change: Change<'_>, spelled: (&str, &str)| {
        let mut page = page(&[item(ID), item(other)], 2);
        change(&mut page);
        page.to_string().replace(spelled.0, spelled.1)
    };
    let key = |page: &mut Value| page["orders"]["no-uuid"] = json!({});
    let twice = |page: &mut Value| page["orders"][ID.replace('-', "")] = json!({"type": "Terminate"});
    let same_key = |page: &mut Value| page["orders"]["same-key"] = json!({"type": "Terminate"});
    let state = |page: &mut Value| page["orders"][ID]["state"] = json!("on-hold");
    let no_state = |page: &mut Value| page["orders"][ID]["state"] = json!(null);
    let long = |page: &mut Value| page["resources"][0]["mountPoint"]["default"] = json!("/x".repeat(4096));
    let number = |page: &mut Value| page["resources"][0]["quotas"][0]["quota"] = json!(123_456);
    let options = |page: &mut Value| page["orders"][ID]["newOptions"] = json!({"x": 123_456});
    let skipped = |page: &mut Value| page["skipped"] = json!([7, {"itemId": 5}, {"error": "E", "detail": "d"}]);
    let problems = |page: &mut Value| page["quotaProblems"] = json!({"no-uuid": 1});
    let cases: [(&str, Change<'_>, usize); 10] = [
        ("a key of orders", &key, 2),
        ("two orders of an item", &twice, 1),
        ("two orders of an item with the same key", &same_key, 1),
        ("an order in an unknown state", &state, 1),
        ("an order without a state", &no_state, 1),
        ("a path that is too long", &long, 1),
        ("a number out of range", &number, 1),
        ("a number out of range in an order", &options, 1),
        ("entries of skipped", &skipped, 2),
        ("a key of quotaProblems", &problems, 2),
    ];
    for (name, change, left) in cases {
        let body = raw(change, ("123456", "1e400")).replace("same-key", ID);
        let document = parse(&[body.into_bytes()], false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(document.resources.len(), left, "{name}: {document:?}");
        assert!(!document.rejected.is_empty() || document.skipped.len() == 3, "{name}: {document:?}");
    }
}

#[test]
fn long_texts_are_truncated() {
    let mut page = page(&[item(ID)], 1);
    let text = "ä".repeat(1 << 20);
    page["quotaProblems"] = json!({ID: {"code": "zero_limit", "detail": text}});
    page["skipped"] = json!([{"error": "E", "detail": text}]);
    page["resources"].as_array_mut().unwrap().push(json!({"status": text}));
    page["pagination"]["total"] = json!(2);
    let document = parsed(&[page]).unwrap();
    let problem = document.resources[0].quota_problem.clone().unwrap().detail;
    for text in [&problem, &document.skipped[0].reason, &document.rejected[0].reason] {
        assert!(text.chars().count() <= 1001, "{}", text.len());
    }
}

#[test]
fn quota_problems_belong_to_their_items_even_if_unknown() {
    for (entry, zero_ordered, words) in [
        (json!({"code": "zero_ordered", "detail": "the storage limit is 0"}), true, "storage limit is 0"),
        (json!({"code": "pinned_by_option", "detail": "an option"}), false, "an option"),
        (json!({"code": "of a newer proxy", "detail": "something"}), false, "something"),
        (json!(["zero_ordered"]), false, "cannot be read"),
    ] {
        let mut page = page(&[item(ID)], 1);
        page["quotaProblems"] = json!({ID: entry});
        let document = parsed(&[page]).unwrap();
        let problem = document.resources[0].quota_problem.clone().unwrap();
        assert!(problem.zero_ordered == zero_ordered && problem.detail.contains(words), "{problem:?}");
    }
}
