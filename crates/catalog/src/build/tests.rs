#![expect(clippy::needless_pass_by_value, reason = "JSON literals are easier to read by value")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::order::{OrderState, OrderType};
use crate::select::Filter;
use crate::testing::{ORDER, build, customers, identities, parse, policy, record, resource};

fn build_json(resources: &[Resource]) -> Vec<Value> {
    let customers = customers();
    let (identities, policy) = (identities(), policy());
    let catalogue = build(resources, &customers, &identities, &policy);
    catalogue.items().map(|item| serde_json::to_value(item).unwrap()).collect()
}

fn mounts(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["mountPoint"]["default"].as_str().unwrap()).collect()
}

/// The item of a resource, without its tenant and customer.
fn leaf(changes: Value) -> Value {
    build_json(&[resource(changes)]).pop().unwrap()
}

fn order(state: &str, kind: &str, attributes: Value, limits: Value) -> Value {
    json!({"url": ORDER, "state": state, "type": kind, "attributes": attributes, "limits": limits})
}

fn callbacks_of(catalogue: &Catalogue) -> Vec<Callbacks> {
    (0..catalogue.len()).filter_map(|position| catalogue.callbacks(position)).collect()
}

fn amounts(quotas: &Value) -> Option<Vec<f64>> {
    Some(quotas.as_array()?.iter().map(|quota| quota["quota"].as_f64().unwrap()).collect())
}

#[test]
fn nodes_come_first_in_order_of_first_mention() {
    let items = build_json(&[
        resource(json!({"uuid": Uuid::from_u128(1), "attributes": {"storage_data_type": "users"}})),
        resource(json!({"uuid": Uuid::from_u128(2)})),
        resource(json!({"uuid": Uuid::from_u128(3), "project_slug": "proj-2"})),
    ]);
    assert_eq!(
        mounts(&items),
        [
            "/capstor/users/cscs",
            "/capstor/users/cscs/cust",
            "/capstor/store/cscs",
            "/capstor/store/cscs/cust",
            "/capstor/users/cscs/cust/proj",
            "/capstor/store/cscs/cust/proj",
            "/capstor/store/cscs/cust/proj-2",
        ]
    );
    assert_eq!(items[6]["parentItemId"], items[3]["itemId"]);
    assert_eq!(items[3]["parentItemId"], items[2]["itemId"]);
    assert_eq!(items[2]["parentItemId"], Value::Null);
}

#[test]
fn the_first_resource_decides_the_mount_points_above_it() {
    let first = json!({"uuid": Uuid::from_u128(1), "backend_id": "/scratch/mch/proj"});
    let second = json!({"uuid": Uuid::from_u128(2)});
    let items = build_json(&[resource(first.clone()), resource(second.clone())]);
    assert_eq!(mounts(&items), ["/scratch", "/scratch/mch", "/scratch/mch/proj", "/capstor/store/cscs/cust/proj"]);
    let items = build_json(&[resource(second), resource(first)]);
    assert_eq!(mounts(&items)[..2], ["/capstor/store/cscs", "/capstor/store/cscs/cust"]);
}

#[test]
fn a_customer_missing_from_the_offering_has_no_node() {
    let items = build_json(&[resource(json!({"customer_slug": "stranger"}))]);
    assert_eq!(mounts(&items), ["/capstor/store/cscs", "/capstor/store/cscs/stranger/proj"]);
    assert_eq!(items[1]["parentItemId"], Value::Null);
}

#[test]
fn a_project_without_a_gid_is_skipped_and_its_nodes_stay() {
    let resources = [resource(json!({"project_slug": "lost"})), resource(json!({"project_slug": ""}))];
    let customers = customers();
    let (identities, policy) = (identities(), policy());
    let catalogue = build(&resources, &customers, &identities, &policy);
    assert_eq!(catalogue.len(), 2);
    let reasons: Vec<_> = catalogue.skipped.iter().map(|skipped| (skipped.error, skipped.detail.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (
                "MissingIdentityError",
                "Could not resolve identity 'gid for lost' for resource e9a462ce-0fa0-40a0-b210-d3dbe88f40a2: \
                 the HPC User API does not know it (resource 'res', offering 'capstor')"
            ),
            (
                "MissingIdentityError",
                "Could not resolve identity 'gid for ' for resource e9a462ce-0fa0-40a0-b210-d3dbe88f40a2: \
                 the resource names no project (resource 'res', offering 'capstor')"
            ),
        ]
    );
    // Filters that would select the resource select its nodes.
    let vast = Filter { storage_system: Some("vast".into()), ..Filter::default() };
    assert!(catalogue.index.select(&vast).items.is_empty());
    let capstor = Filter { storage_system: Some("capstor".into()), ..Filter::default() };
    assert_eq!(catalogue.index.select(&capstor).items, [0, 1]);
    assert_eq!(catalogue.index.select(&capstor).skipped, [0, 1]);
}

#[test]
fn a_record_with_quotas_out_of_range_adds_nothing() {
    let resources = [resource(json!({"limits": {"storage": 1e308}}))];
    let customers = customers();
    let (identities, policy) = (identities(), policy());
    let catalogue = build(&resources, &customers, &identities, &policy);
    assert_eq!((catalogue.len(), catalogue.malformed.len()), (0, 1));
    let Skipped { error, detail, .. } = &catalogue.malformed[0];
    let expected =
        "limits.storage is too large for an inode limit (resource 'res', project 'proj', offering 'capstor')";
    assert_eq!((*error, detail.as_str()), ("MalformedResourceError", expected));
}

#[test]
fn development_mode_generates_the_same_identities_every_time() {
    let resources = [
        resource(json!({"project_slug": "lost"})),
        resource(json!({"project_slug": "", "attributes": {"storage_data_type": "users"}})),
    ];
    let customers = customers();
    let policy = Policy { development_mode: true, ..policy() };
    let identities = identities();
    let catalogue = build(&resources, &customers, &identities, &policy);
    let targets: Vec<_> =
        catalogue.items().skip(4).map(|item| serde_json::to_value(&item.target.target_item).unwrap()).collect();
    assert_eq!(targets[0]["unixGid"], identity::mock_gid("lost"));
    assert_eq!(targets[1]["primaryProject"]["name"], "default-project");
    assert_eq!(targets[1]["unixUid"], identity::mock_uid("res"));
    assert_eq!(targets[1]["email"], "user-res@example.com");
}

#[test]
fn user_identities_are_published_if_known_and_never_generated_in_production() {
    let resources = [resource(json!({"attributes": {"storage_data_type": "scratch"}}))];
    let customers = customers();
    let mut identities = identities();
    let target = |identities: &Identities| {
        let policy = policy();
        let catalogue = build(&resources, &customers, identities, &policy);
        serde_json::to_value(&catalogue.item(2).target.target_item).unwrap()
    };
    let unknown = target(&identities);
    assert_eq!((&unknown["unixUid"], &unknown["email"]), (&Value::Null, &Value::Null));
    let user = crate::UserIdentity { uid: Some(20001), email: Some("u@example.com".into()) };
    identities.users.insert("res".into(), user);
    let known = target(&identities);
    assert_eq!((&known["unixUid"], &known["email"]), (&json!(20001), &json!("u@example.com")));
}

#[test]
fn metadata_replaces_the_target_unless_it_is_ignored() {
    let item = json!({"itemId": Uuid::from_u128(9), "unixGid": 4242});
    let resources = [resource(json!({"project_slug": "lost", "backend_metadata": {"project_item": item}}))];
    assert_eq!(identity::project_to_resolve(&resources[0], &policy()), None);
    let customers = customers();
    let identities = identities();
    assert_eq!(build(&resources, &customers, &identities, &policy()).len(), 3);
    let ignoring = Policy { ignore_metadata_targets: true, ..policy() };
    assert_eq!(identity::project_to_resolve(&resources[0], &ignoring), Some("lost"));
    assert_eq!(build(&resources, &customers, &identities, &ignoring).skipped.len(), 1);
}

#[test]
fn an_update_of_limits_shows_old_and_new_quotas() {
    let order = order("executing", "Update", json!({"old_limits": {"storage": 10}}), json!({"storage": 20}));
    let item = leaf(json!({"state": "Updating", "order_in_progress": order}));
    assert_eq!(amounts(&item["oldQuotas"]), Some(vec![10.0, 10.0, 13_300_000.0, 20_000_000.0]));
    assert_eq!(amounts(&item["newQuotas"]), Some(vec![20.0, 20.0, 26_600_000.0, 40_000_000.0]));
}

#[test]
fn an_update_of_options_falls_back_to_the_resource() {
    let attributes = json!({"old_options": {}, "new_options": {"hard_quota_space": 9, "soft_quota_inodes": "77"}});
    let order = order("pending-provider", "Update", attributes, json!({}));
    let item = leaf(json!({"options": {"hard_quota_space": 5}, "order_in_progress": order}));
    assert_eq!(amounts(&item["oldQuotas"]), Some(vec![10.0, 5.0, 13_300_000.0, 20_000_000.0]));
    assert_eq!(amounts(&item["newQuotas"]), Some(vec![10.0, 9.0, 77.0, 20_000_000.0]));
}

#[test]
fn an_update_treats_python_false_values_as_absent() {
    for nothing in [json!(null), json!({}), json!([]), json!(""), json!(0), json!(0.0), json!(false)] {
        let order = order("executing", "Update", json!({"old_limits": nothing}), json!({"storage": 20}));
        let item = leaf(json!({"order_in_progress": order}));
        assert_eq!(amounts(&item["oldQuotas"]), Some(vec![10.0, 10.0, 13_300_000.0, 20_000_000.0]), "{nothing}");
        assert_eq!(amounts(&item["newQuotas"]), Some(vec![20.0, 20.0, 26_600_000.0, 40_000_000.0]), "{nothing}");
    }
}

#[test]
fn an_update_without_readable_quotas_keeps_the_resource() {
    for (kind, attributes, limits) in [
        ("Create", json!({"old_limits": {"storage": 1}}), json!({"storage": 2})),
        ("Update", json!({}), json!({"storage": 2})),
        ("Update", json!("old_limits"), json!({"storage": 2})),
        ("Update", json!({"unrelated": 1}), json!({"storage": 2})),
        ("Update", json!({"old_limits": {}}), json!({})),
        ("Update", json!({"old_limits": {"storage": -1}}), json!({"storage": 2})),
        ("Update", json!({"old_limits": {"storage": 1}}), json!("much")),
        ("Update", json!({"new_options": {"hard_quota_space": "wide"}}), json!({})),
        ("Update", json!({"old_limits": {"storage": 1}}), json!({"storage": 1e308})),
    ] {
        let item = leaf(json!({"order_in_progress": order("executing", kind, attributes.clone(), limits)}));
        assert_eq!((&item["oldQuotas"], &item["newQuotas"]), (&Value::Null, &Value::Null), "{kind} {attributes}");
        assert!(item["quotas"].is_array());
    }
}

#[test]
fn links_follow_the_order_state_and_the_effective_state() {
    const ALL: [&str; 7] = [
        "approve_by_provider_url",
        "reject_by_provider_url",
        "set_state_done_url",
        "set_state_erred_url",
        "set_backend_id_url",
        "update_resource_options_url",
        "set_state_ok_url",
    ];
    for (state, order_state, expected) in [
        ("OK", "pending-provider", vec![0, 1, 2, 4, 5]),
        ("Creating", "pending-provider", vec![0, 1, 2, 4, 5, 6]),
        ("Updating", "executing", vec![2, 3, 4, 6]),
        ("Updating", "pending-consumer", vec![4]),
        ("Erred", "done", vec![4, 6]),
    ] {
        let order = order(order_state, "Update", json!({}), json!({}));
        let item = leaf(json!({"state": state, "order_in_progress": order}));
        let links: Vec<_> = (0..ALL.len()).filter(|link| item.get(ALL[*link]).is_some()).collect();
        assert_eq!(links, expected, "{state} {order_state}");
    }
    let item =
        leaf(json!({"state": "Creating", "order_in_progress": order("executing", "Create", json!({}), json!({}))}));
    assert_eq!(item["set_state_done_url"], format!("{ORDER}set_state_done/"));
    assert_eq!(
        item["set_backend_id_url"],
        "https://waldur.example.com/api/marketplace-provider-resources/e9a462ce-0fa0-40a0-b210-d3dbe88f40a2/\
         set_backend_id/"
    );
}

#[test]
fn relayed_links_point_to_the_proxy_and_keep_waldurs_links() {
    let uuid = "80110fb8582d424b87480b28b1914e55";
    let mut order = order("pending-provider", "Create", json!({}), json!({}));
    order["uuid"] = json!(uuid);
    let with_uuid = resource(json!({"state": "Creating", "order_in_progress": order}));
    order["uuid"] = json!("nonsense");
    let without = resource(json!({"uuid": Uuid::from_u128(2), "state": "Creating", "order_in_progress": order}));
    let resources = [with_uuid, without];
    let policy = Policy { relay: Some("https://proxy.example.org/prefix".into()), ..policy() };
    let (customers, identities) = (customers(), identities());
    let catalogue = build(&resources, &customers, &identities, &policy);

    let item = serde_json::to_value(catalogue.item(2)).unwrap();
    let links: Vec<_> = item.as_object().unwrap().iter().filter(|(key, _)| key.ends_with("_url")).collect();
    let base = "https://proxy.example.org/prefix/api/callbacks";
    let of_order = format!("{base}/orders/80110fb8-582d-424b-8748-0b28b1914e55");
    let of_resource = format!("{base}/resources/e9a462ce-0fa0-40a0-b210-d3dbe88f40a2");
    let expected = json!({
        "approve_by_provider_url": format!("{of_order}/approve_by_provider/"),
        "reject_by_provider_url": format!("{of_order}/reject_by_provider/"),
        "set_state_done_url": format!("{of_order}/set_state_done/"),
        "set_backend_id_url": format!("{of_resource}/set_backend_id/"),
        "update_resource_options_url": format!("{of_resource}/update_options_direct/"),
        "set_state_ok_url": format!("{of_resource}/set_state_ok/"),
    });
    assert_eq!(json!(links.into_iter().collect::<std::collections::BTreeMap<_, _>>()), expected);
    let item = serde_json::to_value(catalogue.item(3)).unwrap();
    assert!(item.get("approve_by_provider_url").is_none() && item.get("set_backend_id_url").is_some(), "{item}");

    let callbacks = callbacks_of(&catalogue);
    assert_eq!(callbacks.iter().map(|callbacks| callbacks.order).collect::<Vec<_>>(), [uuid.parse().ok(), None]);
    assert_eq!(callbacks[0].resource, resources[0].uuid);
    assert_eq!(callbacks[0].links.len(), 6);
    assert_eq!(callbacks[0].links["approve_by_provider"], format!("{ORDER}approve_by_provider/"));
    let direct = Policy { relay: None, ..policy };
    assert!(callbacks_of(&build(&resources, &customers, &identities, &direct)).is_empty());
}

#[test]
fn an_order_without_a_url_has_no_links() {
    let item = leaf(json!({"order_in_progress": {"state": "executing", "type": "Create", "url": null}}));
    assert!(item.as_object().unwrap().keys().all(|key| !key.ends_with("_url")));
}

#[test]
fn orders_keep_waldurs_spelling_and_the_position_of_their_item() {
    let order = |changes: Value| {
        let mut order = order("executing", "Update", json!({}), json!({}));
        order["uuid"] = json!("80110fb8582d424b87480b28b1914e55");
        order.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        order
    };
    let resources: Vec<_> = [
        json!({"order_in_progress": order(json!({})), "offering_type": "Marketplace.Slurm"}),
        json!({}),
        json!({"order_in_progress": order(json!({"uuid": 5, "type": "Restore", "state": null})), "offering_type": 5}),
        json!({"order_in_progress": order(json!({})), "project_slug": "lost"}),
        json!({"order_in_progress": {}, "uuid": Uuid::from_u128(9)}),
    ]
    .map(resource)
    .into();
    let (customers, identities, policy) = (customers(), identities(), policy());
    let catalogue = build(&resources, &customers, &identities, &policy);
    let orders = (0..catalogue.len()).filter_map(|at| Some((at, serde_json::to_value(catalogue.order(at)?).unwrap())));
    let uuid = "80110fb8-582d-424b-8748-0b28b1914e55";
    assert_eq!(
        orders.collect::<Vec<_>>(),
        [
            (2, json!({"uuid": uuid, "type": "Update", "state": "executing", "offeringType": "Marketplace.Slurm"})),
            (4, json!({"uuid": null, "type": "Restore", "state": null, "offeringType": null})),
            (5, json!({"uuid": null, "type": null, "state": null, "offeringType": null})),
        ]
    );
}

/// Resources that differ in every field that filters use.
fn any_resources() -> impl Strategy<Value = Vec<Resource>> {
    let system = prop::sample::select(vec!["capstor", "vast"]);
    let data_type = prop::sample::select(vec!["store", "users", "archive"]);
    let state = prop::sample::select(vec!["OK", "Creating", "Updating", "Terminating", "Erred", "Terminated"]);
    let provider = prop::sample::select(vec!["cscs", "eth"]);
    let customer = prop::sample::select(vec!["cust", "stranger"]);
    let project = prop::sample::select(vec!["proj", "proj-2", "lost"]);
    let one = (system, data_type, state, provider, customer, project).prop_map(
        |(system, data_type, state, provider, customer, project)| {
            json!({
                "offering_slug": system, "attributes": {"storage_data_type": data_type}, "state": state,
                "provider_slug": provider, "customer_slug": customer, "project_slug": project,
            })
        },
    );
    prop::collection::vec(one, 0..12).prop_map(|records| {
        let number = |(number, mut record): (usize, Value)| {
            record["uuid"] = json!(Uuid::from_u128(number as u128 + 100));
            resource(record)
        };
        records.into_iter().enumerate().map(number).collect()
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    (
        prop::option::of(prop::sample::select(vec!["capstor", "vast"])),
        prop::option::of(prop::sample::select(vec!["store", "users", "archive", "scratch"])),
        prop::option::of(prop::sample::select(Status::ALL.to_vec())),
        prop::option::of(prop::sample::select(crate::State::KNOWN.to_vec())),
    )
        .prop_map(|(system, data_type, status, state)| Filter {
            storage_system: system.map(String::from),
            data_type: data_type.map(String::from),
            status,
            state,
        })
}

proptest! {
    #[test]
    fn no_filter_selects_everything(resources in any_resources()) {
        let customers = customers();
        let (identities, policy) = (identities(), policy());
        let catalogue = build(&resources, &customers, &identities, &policy);
        let selection = catalogue.index.select(&Filter::default());
        let everything: Vec<u32> = (0..catalogue.len()).map(to_u32).collect();
        prop_assert_eq!(selection.items, everything);
        prop_assert_eq!(selection.skipped.len(), catalogue.skipped.len());
        prop_assert_eq!(catalogue.index.leaves.len(), resources.len());
    }

    #[test]
    fn a_filter_selects_matching_items_and_their_parents(resources in any_resources(), filter in filters()) {
        let customers = customers();
        let (identities, policy) = (identities(), policy());
        let catalogue = build(&resources, &customers, &identities, &policy);
        let items: Vec<_> = catalogue.items().map(|item| serde_json::to_value(item).unwrap()).collect();
        let selection = catalogue.index.select(&filter).items;
        prop_assert!(selection.is_sorted_by(|a, b| a < b));
        let chosen: Vec<_> = selection.iter().map(|position| &items[*position as usize]).collect();
        for item in &chosen {
            if let Some(system) = &filter.storage_system {
                prop_assert_eq!(&item["storageSystem"]["key"], system);
            }
            if let Some(data_type) = &filter.data_type {
                prop_assert_eq!(&item["storageDataType"]["key"], data_type);
            }
            if let Some(status) = filter.status {
                prop_assert_eq!(&item["status"], status.as_str());
            }
            // An item selected without a status filter is selected with its parents.
            if filter.status.is_none() && !item["parentItemId"].is_null() {
                prop_assert!(chosen.iter().any(|parent| parent["itemId"] == item["parentItemId"]));
            }
        }
        let leaves = chosen.iter().filter(|item| matches!(item["target"]["targetType"].as_str(), Some("project" | "user")));
        let matching = resources.iter().filter(|resource| {
            filter.storage_system.as_ref().is_none_or(|system| *system == resource.offering_slug)
                && filter.data_type.as_ref().is_none_or(|data_type| *data_type == resource.data_type)
                && filter.status.is_none_or(|status| status == resource.status())
                && filter.state.is_none_or(|state| state == resource.state)
                && resource.project_slug != "lost"
        });
        prop_assert_eq!(leaves.count(), matching.count());
    }

    #[test]
    fn the_item_of_a_resource_does_not_depend_on_other_resources(resources in any_resources()) {
        let together = build_json(&resources);
        for resource in resources.iter().filter(|resource| resource.project_slug != "lost") {
            let alone = build_json(std::slice::from_ref(resource)).pop().unwrap();
            let found = together.iter().find(|item| item["itemId"] == alone["itemId"]).unwrap();
            prop_assert_eq!(found, &alone);
        }
    }
}

#[test]
fn resources_in_transition_without_an_order_have_links() {
    let of = |n: u128, changes: Value| {
        let mut record = json!({"uuid": Uuid::from_u128(n), "order_in_progress": null, "backend_id": ""});
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        resource(record)
    };
    let resources = [
        of(1, json!({"state": "Creating"})),
        of(2, json!({"state": "Updating", "backend_id": "/capstor/made"})),
        of(3, json!({"state": "Terminating"})),
        of(4, json!({"state": "Erred"})),
        of(5, json!({"state": "OK"})),
        of(6, json!({"state": "Terminated"})),
        of(7, json!({"state": "Creating", "order_in_progress": order("executing", "Create", json!({}), json!({}))})),
    ];
    let (customers, identities) = (customers(), identities());
    let policies = [Policy { relay: Some("https://proxy.example.org".into()), ..policy() }, policy()];
    let [relayed, direct] = policies.each_ref().map(|policy| build(&resources, &customers, &identities, policy));
    let base = format!("{}/marketplace-provider-resources", policies[1].waldur);
    let links_of = |catalogue: &Catalogue| -> Vec<_> {
        let leaves = (0..catalogue.resources.len()).map(|leaf| (leaf, leaf + catalogue.nodes.len()));
        let links = leaves
            .filter_map(|(leaf, at)| Some((leaf, catalogue.item(at).item_id.as_u128(), catalogue.resource_links(at)?)));
        links.map(|(at, id, links)| (at, id, links.set_state_ok_url, links.backend_id.map(ToOwned::to_owned))).collect()
    };
    let expected = |link: &dyn Fn(Uuid) -> String| {
        let backend_id = |n| (n == 2).then(|| "/capstor/made".to_owned());
        (1..=4).map(|n| (n - 1, n as u128, link(Uuid::from_u128(n as u128)), backend_id(n))).collect::<Vec<_>>()
    };
    assert_eq!(links_of(&direct), expected(&|id| format!("{base}/{id}/set_state_ok/")));
    let relay = "https://proxy.example.org/api/callbacks/resources";
    assert_eq!(links_of(&relayed), expected(&|id| format!("{relay}/{id}/set_state_ok/")));
    let callbacks = callbacks_of(&relayed);
    assert_eq!(callbacks.len(), 5);
    for (n, callbacks) in (1..=4).zip(&callbacks) {
        let link = format!("{base}/{}/set_state_ok/", Uuid::from_u128(n));
        assert_eq!((callbacks.order, &callbacks.state), (None, &None));
        assert_eq!(callbacks.links, [("set_state_ok".to_owned(), link)].into());
    }
}

/// Any value that a field may hold; most are unusual.
fn value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(0),
        json!(-0.0),
        json!("0"),
        json!(" 5 "),
        json!(5),
        json!(10),
        json!(10),
        json!(20),
        json!(1e-9),
        json!(0.4),
        json!("1e400"),
        json!(1e300),
        json!(1e308),
        json!(-1),
        json!("-0.2"),
        json!(true),
        json!([]),
        json!({}),
        json!(""),
        json!("much"),
    ])
}

/// A map with some of these keys, or another value.
fn map(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let pairs = prop::collection::btree_map(prop::sample::select(keys), value(), 0..3);
    prop_oneof![
        8 => pairs.prop_map(|pairs| json!(pairs)),
        1 => value(),
    ]
}

fn unusual_changes() -> impl Strategy<Value = Value> {
    const LIMITS: &[&str] = &["storage", "storage", "storage", "tb"];
    const OPTIONS: &[&str] = &["hard_quota_space", "soft_quota_inodes", "hard_quota_inodes", "other"];
    let attributes = (map(LIMITS), map(OPTIONS), map(OPTIONS), 0..16_u8).prop_map(|(limits, old, new, which)| {
        let mut attributes = json!({});
        for (bit, name, value) in [
            (1, "old_limits", limits.clone()),
            (2, "old_options", old),
            (4, "new_options", new),
            (8, "new_limits", limits),
        ] {
            if which & bit != 0 {
                attributes[name] = value;
            }
        }
        attributes
    });
    let order = (
        prop::sample::select(vec!["Create", "Update", "Update", "Update", "Terminate", "Restore"]),
        prop::sample::select(vec!["pending-consumer", "pending-provider", "executing", "pending-project"]),
        prop_oneof![8 => attributes, 1 => value()],
        map(LIMITS),
    );
    let states = vec!["OK", "Creating", "Updating", "Erred", "Terminating", "Terminated", "Odd"];
    let order = prop::option::of(order.prop_map(|(kind, state, attributes, limits)| {
        json!({"uuid": Uuid::from_u128(5), "url": ORDER, "type": kind, "state": state, "attributes": attributes, "limits": limits})
    }));
    (map(LIMITS), map(OPTIONS), prop::sample::select(states), order).prop_map(|(limits, options, state, order)| {
        json!({"limits": limits, "options": options, "state": state, "order_in_progress": order})
    })
}

fn is_untrustworthy(quotas: Option<[Quota; 4]>) -> bool {
    quotas.map(|quotas| quotas.map(|quota| quota.quota)).is_none_or(|[space, hard_space, inodes, hard_inodes]| {
        [space, hard_space, inodes, hard_inodes].iter().any(|quota| *quota <= 0.0)
            || space > hard_space
            || inodes > hard_inodes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn every_untrustworthy_quota_has_a_problem(changes in unusual_changes()) {
        let Ok(resource) = parse(&record(changes)) else { return Ok(()) };
        let (customers, identities, policy) = (customers(), identities(), policy());
        let catalogue = build([&resource], &customers, &identities, &policy);
        let Some(item) = catalogue.items().find(|item| item.item_id == resource.uuid) else { return Ok(()) };
        let order = resource.order.as_deref().filter(|order| order.state != OrderState::PendingConsumer);
        let is_ending = order.is_some_and(|order| order.kind == OrderType::Terminate);
        if is_ending || matches!(item.status, Status::Removing | Status::Removed) {
            return Ok(());
        }
        let changes = order.is_some_and(|order| order.update.is_some() || order.new_options.is_some());
        let quotas = if changes { item.new_quotas } else { item.quotas };
        let problem = (0..catalogue.len()).find_map(|position| catalogue.quota_problem(position));
        prop_assert!(problem.is_some() || !is_untrustworthy(quotas), "{:?} {:?} {:?}", item.quotas, item.old_quotas, item.new_quotas);
    }
}
