//! Records of Waldur, one per line, processed up to the listing.
//!
//! For any input, the catalogue is complete, its output is JSON, filters select correctly, and no mount point that is built
//! from slugs leads out of its directory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use catalog::{
    Catalogue, Customers, Filter, Identities, Resource, Skipped, State, Status, build, customers_of_resources,
};
use proxy::snapshot::{Found, Snapshot};
use serde_json::Value;
use serde_json::value::RawValue;

/// Reads the records and checks the rules.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (mut resources, mut rejected) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for record in text.lines().filter_map(|line| serde_json::from_str::<&RawValue>(line).ok()) {
        match Resource::parse(record) {
            // The reader of lists removes duplicate resources.
            Ok(resource) if seen.insert(resource.uuid) => resources.push(Arc::new(resource)),
            Ok(_) => {}
            Err(error) => rejected.push(Skipped::malformed(&error)),
        }
    }
    let customers = Arc::new(customers_of_resources(resources.iter().map(AsRef::as_ref)));
    let mut identities = Identities::default();
    for (number, resource) in resources.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        let gid = u32::try_from(number).map_err(|_| String::new());
        identities.gids.insert(resource.project_slug.clone(), gid);
    }
    let identities = Arc::new(identities);
    for development_mode in [false, true] {
        check_catalogue(&resources, &customers, &identities, &rejected, development_mode);
    }
}

fn check_catalogue(
    resources: &[Arc<Resource>],
    customers: &Arc<Customers>,
    identities: &Arc<Identities>,
    rejected: &[Skipped],
    development_mode: bool,
) {
    let policy = crate::policy(development_mode);
    let ours =
        |resource: &&Arc<Resource>| policy.systems.iter().any(|system| system.offering_slug == resource.offering_slug);
    let build = |resources: &[Arc<Resource>], before| {
        build(resources, Arc::clone(customers), Arc::clone(identities), policy.clone().into(), before)
    };
    let catalogue = build(resources, None);
    let leaves = resources.iter().filter(ours).count() - catalogue.skipped.len() - catalogue.malformed.len();
    let nodes = catalogue.len() - leaves;
    assert!(!development_mode || catalogue.skipped.is_empty(), "identities are generated");
    let items: Vec<Value> =
        catalogue.items().map(|item| crate::json(&serde_json::to_vec(&item).expect("an item is JSON"))).collect();
    paths(&items[nodes..], resources);
    selections(&catalogue, &items, nodes, &policy.systems.iter().map(|system| &system.name).collect::<Vec<_>>());

    let left_out = catalogue.skipped.len() + catalogue.malformed.len() + rejected.len();
    let first = Snapshot::render(&catalogue, rejected.to_vec(), None).expect("a catalogue is JSON");
    // Some resources are new, the others are shared.
    let changed = |(number, resource): (usize, &Arc<Resource>)| match number % 3 {
        0 => Arc::new(Resource::clone(resource)),
        _ => Arc::clone(resource),
    };
    let copies: Vec<_> = resources.iter().enumerate().map(changed).collect();
    let again = build(&copies, Some(build(&resources[resources.len() / 2..], None)));
    let second = Snapshot::render(&again, rejected.to_vec(), Some(&first)).expect("a catalogue is JSON");
    let again = build(&copies, Some(catalogue));
    let third = Snapshot::render(&again, rejected.to_vec(), Some(&first)).expect("a catalogue is JSON");
    assert_eq!(first.fingerprint(), third.fingerprint(), "equal catalogues have equal fingerprints");
    assert_eq!(first.fingerprint(), second.fingerprint(), "equal catalogues have equal fingerprints");
    assert_eq!(crate::json(first.rendered_skipped()).as_array().map(Vec::len), Some(left_out));
    let text = first.page(&Filter::default(), 0, usize::MAX).items.join(&b',');
    assert_eq!(crate::json(&[b"[", text.as_slice(), b"]"].concat()), Value::Array(items.clone()));
    for resource in resources {
        let lost = matches!(first.find(resource.uuid), Found::Nothing);
        assert!(!lost || !ours(&resource), "{} is missing", resource.uuid);
    }
}

/// Checks that the items of resources have unique IDs, and paths within their directories.
fn paths(leaves: &[Value], resources: &[Arc<Resource>]) {
    let ids: HashSet<_> = leaves.iter().map(|item| item["itemId"].as_str()).collect();
    assert_eq!(ids.len(), leaves.len(), "duplicate ID");
    let by_id: HashMap<_, _> = resources.iter().map(|resource| (resource.uuid.to_string(), resource)).collect();
    for item in leaves {
        let resource = by_id[item["itemId"].as_str().expect("an id")];
        let path = item["mountPoint"]["default"].as_str().expect("a path");
        if let Some(backend_id) = &resource.backend_id {
            assert_eq!(path, backend_id);
            continue;
        }
        let names: Vec<_> = path.split('/').collect();
        assert_eq!((names[0], names.len()), ("", 6), "{path}");
        assert!(!names.iter().any(|name| matches!(*name, "." | "..") || name.contains('\0')), "{path}");
    }
}

/// Checks that a filter selects the items that match, in order, and that all values of a filter together select every item.
fn selections(catalogue: &Catalogue, items: &[Value], nodes: usize, systems: &[&String]) {
    let all = catalogue.index.select(&Filter::default());
    assert!(all.items.iter().map(|position| *position as usize).eq(0..items.len()));
    let pick = |filter: Filter| {
        let picked = catalogue.index.select(&filter);
        assert!(picked.items.is_sorted_by(|a, b| a < b) && picked.items.iter().all(|at| (*at as usize) < items.len()));
        picked
    };
    let mut leaves = 0;
    for status in Status::ALL {
        let picked = pick(Filter { status: Some(status), ..Filter::default() });
        assert!(picked.items.iter().all(|at| items[*at as usize]["status"] == status.as_str()));
        leaves += picked.items.iter().filter(|at| **at as usize >= nodes).count();
    }
    assert_eq!(leaves, items.len() - nodes, "each resource has a status");
    leaves = 0;
    for system in systems {
        let picked = pick(Filter { storage_system: Some((*system).clone()), ..Filter::default() });
        leaves += picked.items.iter().filter(|at| **at as usize >= nodes).count();
    }
    assert_eq!(leaves, items.len() - nodes, "each resource has a system");
    let types: HashSet<_> = items.iter().map(|item| item["storageDataType"]["key"].as_str().expect("a key")).collect();
    for data_type in types {
        let picked = pick(Filter { data_type: Some(data_type.to_owned()), ..Filter::default() });
        assert!(picked.items.iter().all(|at| items[*at as usize]["storageDataType"]["key"] == data_type));
    }
    for state in State::KNOWN {
        pick(Filter { state: Some(state), ..Filter::default() });
    }
}
