//! Compares recorded listings with themselves, with altered copies, and with intended differences of the Python proxy.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

/// The recorded listing without filters.
fn golden(case: &str) -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../contract/golden/{case}/answers.json"));
    let answers: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let answer = answers.as_array().unwrap().iter().find(|answer| answer["query"] == "?page_size=500").unwrap();
    Document { items: answer["body"]["resources"].as_array().unwrap().clone(), ..Document::default() }
}

/// Paths of the differences, each with the decision that explains it.
fn differences(ours: &Document, theirs: &Document, systems: &[StorageSystem]) -> Vec<(String, Option<&'static str>)> {
    let context = Context::new(systems, false, ours, theirs);
    let differences = compare(ours, theirs, &context).differences;
    differences.into_iter().map(|difference| (difference.path, difference.known.map(|known| known.decision))).collect()
}

fn user(document: &mut Document) -> &mut Value {
    document.items.iter_mut().find(|item| item["target"]["targetType"] == "user").unwrap()
}

#[test]
fn a_listing_does_not_differ_from_itself() {
    for case in ["plain", "missing-gids", "odd-values", "one-project", "empty"] {
        let document = golden(case);
        let context = Context::new(&[], false, &document, &document);
        let report = compare(&document, &document, &context);
        assert_eq!(report.compared, document.items.len(), "{case}");
        assert!(report.differences.is_empty(), "{case}: {:?}", report.differences);
        assert_eq!(report.order, Order { out_of_place: 0, first: None }, "{case}");
    }
}

/// JSON pointers of all values in an item other than maps and lists.
fn leaves(at: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                leaves(&format!("{at}/{key}"), value, out);
            }
        }
        Value::Array(list) => {
            for (key, value) in list.iter().enumerate() {
                leaves(&format!("{at}/{key}"), value, out);
            }
        }
        _ => out.push(at.to_owned()),
    }
}

#[test]
fn every_changed_field_is_reported_with_its_path_in_both_directions() {
    let document = golden("plain");
    let kinds = ["tenant", "customer", "project", "user"];
    let at = kinds.map(|kind| document.items.iter().position(|item| item["target"]["targetType"] == kind).unwrap());
    let mut changed = 0;
    for at in at {
        let mut pointers = Vec::new();
        leaves("", &document.items[at], &mut pointers);
        for pointer in pointers {
            let mut altered = document.clone();
            *altered.items[at].pointer_mut(&pointer).unwrap() = json!("altered");
            let context = Context::default();
            let there = compare(&document, &altered, &context).differences;
            let back = compare(&altered, &document, &context).differences;
            let id = document.items[at]["itemId"].as_str().unwrap();
            let path = pointer[1..].split('/').fold(String::new(), |path, step| match step.parse::<usize>() {
                Ok(_) => format!("{path}[{step}]"),
                Err(_) if path.is_empty() => step.to_owned(),
                Err(_) => format!("{path}.{step}"),
            });
            let [difference] = &there[..] else { panic!("{pointer}: {there:?}") };
            assert_eq!((difference.item_id, &difference.path), (id, &path));
            assert!(difference.known.is_none(), "{pointer}");
            let [mirrored] = &back[..] else { panic!("{pointer}: {back:?}") };
            assert_eq!((&mirrored.path, mirrored.ours, mirrored.theirs), (&path, difference.theirs, difference.ours));
            changed += 1;
        }
    }
    assert!(changed > 60, "{changed}");
}

#[test]
fn a_missing_item_is_one_difference() {
    let (document, mut less) = (golden("plain"), golden("plain"));
    let gone = less.items.remove(3);
    for (ours, theirs) in [(&document, &less), (&less, &document)] {
        let context = Context::new(&[], false, ours, theirs);
        let report = compare(ours, theirs, &context);
        let [difference] = &report.differences[..] else { panic!("{:?}", report.differences) };
        assert_eq!((difference.item_id, difference.path.as_str()), (gone["itemId"].as_str().unwrap(), ""));
        assert_eq!(difference.ours.is_some(), ours.items.len() == document.items.len());
        assert_eq!(report.order.out_of_place, 0);
    }
}

#[test]
fn another_order_is_not_a_difference_of_items() {
    let (document, mut turned) = (golden("plain"), golden("plain"));
    turned.items.rotate_left(1);
    let context = Context::new(&[], false, &document, &turned);
    let report = compare(&document, &turned, &context);
    assert!(report.differences.is_empty());
    assert_eq!(report.order, Order { out_of_place: 1, first: document.items[0]["itemId"].as_str() });
}

#[test]
fn invented_identities_of_the_python_proxy_are_known() {
    let (ours, mut theirs) = (golden("plain"), golden("plain"));
    let target = &mut user(&mut theirs)["target"]["targetItem"];
    target["unixUid"] = json!(27_321);
    target["email"] = json!("user-some-slug@example.com");
    let path = |field: &str| format!("target.targetItem.{field}");
    assert_eq!(differences(&ours, &theirs, &[]), [(path("email"), Some("D5")), (path("unixUid"), Some("D5"))]);
    let target = &mut user(&mut theirs)["target"]["targetItem"];
    target["unixUid"] = json!(1000);
    target["email"] = json!("somebody@example.org");
    assert_eq!(differences(&ours, &theirs, &[]), [(path("email"), None), (path("unixUid"), None)]);
}

#[test]
fn systems_by_name_and_by_slug_are_matched() {
    let system = |name: &str, slug: &str| StorageSystem { name: name.into(), offering_slug: slug.into() };
    let systems = [system("capstor", "Offering-C"), system("vast", "offering-v"), system("iopsstor", "iopsstor")];
    let (ours, mut theirs) = (golden("plain"), golden("plain"));
    for item in &mut theirs.items {
        for StorageSystem { name, offering_slug } in &systems {
            if item["storageSystem"]["key"] == *name {
                item["storageSystem"] = json!({
                    "itemId": Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("storage_system:{offering_slug}").as_bytes()),
                    "key": offering_slug.to_lowercase(), "name": offering_slug.to_uppercase(), "active": true, "path": "",
                });
                let path = item["mountPoint"]["default"].as_str().unwrap();
                let path = path.replacen(&format!("/{name}/"), &format!("/{offering_slug}/"), 1);
                item["mountPoint"]["default"] = json!(path);
            }
        }
    }
    let known = differences(&ours, &theirs, &systems);
    assert!(known.len() > 4 * 10 && known.iter().all(|(_, known)| *known == Some("D2")), "{known:?}");
    // Without the settings they cannot be matched.
    let unknown = differences(&ours, &theirs, &[]);
    assert_eq!(unknown.len(), known.len());
    assert!(unknown.iter().all(|(_, known)| known.is_none()));
    // A path that differs in another way is not explained by names.
    theirs.items[0]["mountPoint"]["default"] = json!("/elsewhere");
    let altered = differences(&ours, &theirs, &systems);
    assert_eq!(altered.iter().filter(|(path, known)| path == "mountPoint.default" && known.is_none()).count(), 1);
}

#[test]
fn resources_skipped_here_are_known_differences() {
    let (mut ours, theirs) = (golden("plain"), golden("plain"));
    let [one, other] = [0, 0].map(|_| ours.items.pop().unwrap()["itemId"].clone());
    assert_eq!(differences(&ours, &theirs, &[]).len(), 2);
    ours.skipped = vec![
        json!({"itemId": one, "error": "MissingIdentityError", "detail": "no GID"}),
        json!({"itemId": other, "error": "MalformedResourceError", "detail": "limits"}),
        json!({"itemId": null, "error": "MalformedResourceError", "detail": "no UUID"}),
    ];
    let mut known: Vec<_> = differences(&ours, &theirs, &[]).into_iter().map(|(_, known)| known).collect();
    known.sort_unstable();
    assert_eq!(known, [Some("D7"), Some("D8")]);
    // Resources that only they skip are not.
    assert!(differences(&theirs, &ours, &[]).iter().all(|(_, known)| known.is_none()));
}

#[test]
fn invented_gids_are_known_only_in_development_mode() {
    let (mut ours, mut theirs) = (golden("plain"), golden("plain"));
    for (document, gid) in [(&mut ours, 31_111), (&mut theirs, 39_999)] {
        user(document)["target"]["targetItem"]["primaryProject"]["unixGid"] = json!(gid);
    }
    for (development_mode, decision) in [(true, Some("D6")), (false, None)] {
        let context = Context::new(&[], development_mode, &ours, &theirs);
        let differences = compare(&ours, &theirs, &context).differences;
        let [difference] = &differences[..] else { panic!("{differences:?}") };
        assert_eq!(difference.known.map(|known| known.decision), decision);
    }
}

#[test]
fn only_differences_in_the_last_digits_are_rounding() {
    let (ours, mut theirs) = (golden("plain"), golden("plain"));
    let quota = user(&mut theirs).pointer_mut("/quotas/0/quota").unwrap();
    let size = quota.as_f64().unwrap();
    assert!(size > 0.0);
    *quota = json!(size * (1.0 + 1e-15));
    assert_eq!(differences(&ours, &theirs, &[]), [("quotas[0].quota".to_owned(), Some("contract"))]);
    *user(&mut theirs).pointer_mut("/quotas/0/quota").unwrap() = json!(size * 1.000_001);
    assert_eq!(differences(&ours, &theirs, &[]), [("quotas[0].quota".to_owned(), None)]);
}

#[test]
fn relayed_links_are_known_if_they_have_the_same_action() {
    let (mut ours, theirs) = (golden("plain"), golden("plain"));
    let item = ours.items.iter_mut().find(|item| item.get("approve_by_provider_url").is_some()).unwrap();
    let relayed =
        "https://proxy.example/api/callbacks/orders/80110fb8-582d-424b-8748-0b28b1914e55/approve_by_provider/";
    item["approve_by_provider_url"] = json!(relayed);
    assert_eq!(differences(&ours, &theirs, &[]), [("approve_by_provider_url".to_owned(), Some("D14"))]);
    let item = ours.items.iter_mut().find(|item| item.get("approve_by_provider_url").is_some()).unwrap();
    item["approve_by_provider_url"] = json!(relayed.replace("approve", "reject"));
    assert_eq!(differences(&ours, &theirs, &[]), [("approve_by_provider_url".to_owned(), None)]);
}

#[test]
fn every_known_reason_is_in_the_migration_guide() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/migration.md");
    let document = fs::read_to_string(path).unwrap();
    for known in KNOWN {
        assert!(document.contains(&format!("| {} |", known.decision)), "{}", known.decision);
    }
}
