//! From Waldur's record to the plan: no order is rejected because something in a record is missing or invalid.
#![expect(clippy::unwrap_used, reason = "a test")]

use catalog::{Customer, Customers, Identities, InodeRule, Policy as Mapping, Resource, System};
use proptest::prelude::*;
use provisioner_core::document::{self, Document};
use provisioner_core::plan::{Case, Consent, Plan, Policy, Recent, Step, plan};
use provisioner_core::preflight::{self, SystemRules};
use serde_json::{Map, Value, json};
use storage_driver::Observed;
use storage_driver::limits::Terabyte;
use uuid::Uuid;

const URL: &str = "https://waldur.example.org/api/marketplace-orders/cdcbd52d778a5c9095c238b9b172d04a/";

/// A record of Waldur with an order that can be carried out.
fn record(kind: &str, order_state: &str, offering_type: &str) -> Value {
    let (state, attributes, limits) = match kind {
        "Create" => ("Creating", json!({}), json!({"storage": 10})),
        "Update" => ("Updating", json!({"old_limits": {"storage": 10}}), json!({"storage": 20})),
        "Options" => (
            "Updating",
            json!({"old_options": {"hard_quota_space": 12}, "new_options": {"hard_quota_space": 15, "permissions": "2770"}}),
            json!({}),
        ),
        "Switch" => ("Updating", json!({}), json!({"storage": 10})),
        _ => ("Terminating", json!({}), json!({})),
    };
    let order_type = if matches!(kind, "Options" | "Switch") { "Update" } else { kind };
    json!({
        "uuid": "f26dd9910af75f82be64d2bdde8d622f", "slug": "storage-0", "state": state, "backend_id": "",
        "offering_uuid": "21bade026a6a4768b2ed66ffdcc99396", "offering_slug": "capstor", "offering_type": offering_type,
        "project_slug": "project", "customer_uuid": "6102dd7063e8440e9dd8904f07489671", "customer_name": "Customer",
        "customer_slug": "customer", "provider_slug": "cscs", "provider_name": "CSCS",
        "attributes": {"storage_data_type": "store"}, "limits": {"storage": 10}, "options": {"hard_quota_space": 12},
        "backend_metadata": {},
        "order_in_progress": {
            "uuid": "cdcbd52d778a5c9095c238b9b172d04a", "url": URL, "type": order_type, "state": order_state,
            "attributes": attributes, "limits": limits,
        },
    })
}

/// The document that the proxy builds from one record; `None` if it skips the record.
fn document_of(record: &Value) -> Option<Document> {
    let raw = serde_json::value::to_raw_value(record).unwrap();
    let resource = Resource::parse(&raw).ok()?;
    let mapping = Mapping {
        systems: vec![System { name: "capstor".into(), identifier: "capstor".into(), offering_slug: "capstor".into() }],
        file_system: "lustre".into(),
        inodes: InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 },
        ignore_metadata_targets: false,
        development_mode: false,
        relay: None,
        waldur: "https://waldur.example.org/api".into(),
    };
    let customers = Customers::from([(
        "customer".to_owned(),
        Customer { uuid: Uuid::from_u128(7), name: Some("Customer".into()) },
    )]);
    let mut identities = Identities::default();
    identities.gids.insert("project".into(), Ok(30_500));
    let catalogue = catalog::build([&resource.into()], customers.into(), identities.into(), mapping.into(), None);
    let entries = |entry: &dyn Fn(usize) -> Option<Value>| {
        let pairs = catalogue.items().enumerate();
        pairs.filter_map(|(position, item)| Some((item.item_id.to_string(), entry(position)?))).collect::<Map<_, _>>()
    };
    let page = json!({
        "resources": catalogue.items().collect::<Vec<_>>(),
        "pagination": {"pages": 1, "total": catalogue.len()},
        "skipped": catalogue.skipped,
        "orders": entries(&|position| catalogue.order(position).map(|order| json!(order))),
        "quotaProblems": entries(&|position| catalogue.quota_problem(position).map(|problem| json!(problem))),
    });
    Some(document::parse(&[page.to_string().into_bytes()], false).unwrap())
}

/// The plan for one record with nothing on the storage.
fn planned(record: &Value, policy: Policy) -> Plan {
    let Some(document) = document_of(record) else { return Plan::default() };
    let rules = SystemRules {
        published_root: "/capstor".into(),
        terabyte: Terabyte::Binary,
        owner_uid: 0,
        lowest_id: 1000,
        modes: preflight::Modes::default(),
    };
    let resources: Vec<_> = document.resources.iter().collect();
    let desired = preflight::check(&resources, &document, "capstor", &rules, &|_| false);
    let case = |(resource, desired): (&document::Resource, Result<preflight::Unnumbered, _>)| Case {
        resource: resource.clone(),
        desired: desired.map(|desired| desired.with_project(resource.gid)),
        observed: Ok(Observed::Absent),
        unfinished: false,
        last_order: None,
    };
    let cases = resources.into_iter().zip(desired);
    plan(&cases.map(case).collect::<Vec<_>>(), policy, Consent::Needed(&Recent::new()))
}

fn rejects(plan: &Plan) -> bool {
    plan.tasks.iter().flat_map(|task| &task.steps).any(|step| matches!(step, Step::Reject(_) | Step::Erred(_)))
}

/// Whether the order itself requests something impossible: a limit of 0, or permissions that are not octal.
fn requests_the_impossible(record: &Value) -> bool {
    let order = &record["order_in_progress"];
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    let zero = number(&order["limits"]["storage"]).is_some_and(|storage| storage.abs() < f64::EPSILON);
    let permissions = &order["attributes"]["new_options"]["permissions"];
    let octal = |text: &str| matches!(text.len(), 3 | 4) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    // A cleared option is an empty string.
    zero || permissions.as_str().is_some_and(|text| !text.trim().is_empty() && !octal(text))
}

/// JSON pointers to everything in a value.
fn pointers(value: &Value, pointer: String, all: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (key, value) in map {
            pointers(value, format!("{pointer}/{key}"), all);
        }
    }
    if !pointer.is_empty() {
        all.push(pointer);
    }
}

/// Removes or replaces a value of a record, or adds a key next to it.
fn change(record: &mut Value, at: prop::sample::Index, action: u8, other: Value) {
    let mut all = Vec::new();
    pointers(record, String::new(), &mut all);
    let (parent, key) = at.get(&all).rsplit_once('/').unwrap();
    let Some(Value::Object(parent)) = record.pointer_mut(parent) else { return };
    match action {
        0 => _ = parent.remove(key),
        1 => _ = parent.insert("surprise".to_owned(), other),
        _ => _ = parent.insert(key.to_owned(), other),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let values = [
        json!(null),
        json!(0),
        json!(0.0),
        json!(-1),
        json!(0.3),
        json!(1e300),
        json!(30),
        json!(""),
        json!("0"),
        json!("20"),
        json!("much"),
        json!(true),
        json!(false),
        json!([]),
        json!([1]),
        json!({}),
        json!({"storage": 0}),
        json!({"storage_tb": 5}),
        json!({"hard_quota_space": ""}),
        json!({"hard_quota_space": 1}),
        json!("hpc-proj-10"),
        json!("/vast/x"),
        json!(".."),
        json!("2770"),
        json!("rwx"),
    ];
    prop::sample::select(values.to_vec())
}

fn any_record() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["Create", "Update", "Options", "Switch", "Terminate", "Restore"]);
    let state = prop::sample::select(vec!["pending-provider", "executing"]);
    let offering = prop::sample::select(vec!["Marketplace.Slurm", "Marketplace.Basic"]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any_value()), 0..4);
    (kind, state, offering, changes).prop_map(|(kind, state, offering, changes)| {
        let mut record = record(kind, state, offering);
        for (at, action, other) in changes {
            change(&mut record, at, action, other);
        }
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(4096), ..ProptestConfig::default() })]

    #[test]
    fn no_order_is_rejected_by_default(record in any_record()) {
        prop_assert!(!rejects(&planned(&record, Policy::default())));
    }

    #[test]
    fn with_the_policy_only_impossible_orders_are_rejected(record in any_record()) {
        let plan = planned(&record, Policy { refuse: true, ..Policy::default() });
        prop_assert!(!rejects(&plan) || requests_the_impossible(&record), "{:?}", plan);
    }
}

/// Changes to a record and the resulting plan.
#[test]
fn invalid_orders_are_held_with_the_reason() {
    let of = |kind: &str, changes: &[(&str, Value)]| {
        let mut record = record(kind, "pending-provider", "Marketplace.Slurm");
        for (pointer, value) in changes {
            *record.pointer_mut(pointer).unwrap() = value.clone();
        }
        // Not rejected with the policy, either.
        let plan = planned(&record, Policy { refuse: true, ..Policy::default() });
        let held = plan.held.iter().map(|held| held.reason.clone());
        let steps = plan.tasks.iter().flat_map(|task| task.steps.iter().map(|step| step.name().to_owned()));
        held.chain(steps).collect::<Vec<_>>().join(", ")
    };
    let create = "approve, ensure, set_backend_id, done";
    assert_eq!(of("Create", &[]), create);
    // Fractions are rounded up.
    assert_eq!(of("Create", &[("/limits/storage", json!(0.3)), ("/options", json!({}))]), create);
    assert_eq!(of("Create", &[("/options", json!({"hard_quota_space": 10.333_333_333_333_334}))]), create);
    let missing = "the limits have no component storage (present: storage_tb)";
    assert_eq!(of("Create", &[("/limits", json!({"storage_tb": 10}))]), missing);
    let missing = "the limits have no component storage (present: nothing)";
    assert_eq!(of("Create", &[("/limits", json!({}))]), missing);
    assert_eq!(of("Create", &[("/limits", json!(null))]), missing);
    let pinned = "resource option hard_quota_space (12 TB) pins the hard quota below the new limit (20 TB)";
    assert_eq!(of("Update", &[]), pinned);
    let cleared = json!({"old_options": {"hard_quota_space": 20}, "new_options": {"hard_quota_space": ""}});
    let unreadable = "the order's new_options.hard_quota_space is not a number";
    assert_eq!(of("Options", &[("/order_in_progress/attributes", cleared)]), unreadable);
    let foreign = "backend_id in Waldur (hpc-proj-10) is not a path of this system; clear it there";
    assert_eq!(of("Create", &[("/backend_id", json!("hpc-proj-10"))]), foreign);
    // A plan switch and a renewal change no quotas. They are held because these tests have no directory.
    let renewed = json!({"action": "renew", "old_limits": {"storage": 10}});
    let no_directory = of("Switch", &[]);
    assert!(no_directory.contains("there is no directory"), "{no_directory}");
    assert_eq!(of("Switch", &[("/order_in_progress/attributes", renewed)]), no_directory);
    // The order itself requests 0.
    let zero = json!({"storage": 0});
    let zero = [("/limits", zero.clone()), ("/order_in_progress/limits", zero), ("/options", json!({}))];
    assert_eq!(of("Create", &zero), "reject");
}
