//! A catalogue that was built from another equals one built from scratch.

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::build::{Customer, build};
use crate::identity::UserIdentity;
use crate::testing::{ORDER, customers, identities, policy, resource};

/// What a catalogue is built from.
#[derive(Debug, Clone)]
struct World {
    resources: Vec<Arc<Resource>>,
    customers: Arc<Customers>,
    identities: Arc<Identities>,
    policy: Arc<Policy>,
}

impl World {
    fn build(&self, before: Option<Catalogue>) -> Catalogue {
        let Self { resources, customers, identities, policy } = self;
        build(resources, Arc::clone(customers), Arc::clone(identities), Arc::clone(policy), before)
    }
}

/// A change of the world; positions count modulo the number of resources.
#[derive(Debug, Clone)]
enum Edit {
    Change(usize, Value),
    /// Replaces a resource with an equal one.
    Copy(usize),
    Insert(usize, Value),
    Remove(usize),
    Move(usize, usize),
    Customer(&'static str, Option<&'static str>),
    Gid(&'static str, Option<Result<u32, String>>),
    User(&'static str, Option<u32>),
    /// Replaces customers and identities with equal ones.
    CopyInputs,
    Relay(bool),
    DevelopmentMode(bool),
}

fn apply(world: &mut World, edit: Edit, number: u128) {
    let World { resources, customers, identities, policy } = world;
    let at = |position: usize| position.checked_rem(resources.len());
    match edit {
        Edit::Change(position, mut record) => {
            if let Some(at) = at(position) {
                record["uuid"] = json!(resources[at].uuid);
                resources[at] = Arc::new(resource(record));
            }
        }
        Edit::Copy(position) => {
            if let Some(at) = at(position) {
                resources[at] = Arc::new(Resource::clone(&resources[at]));
            }
        }
        Edit::Insert(position, mut record) => {
            record["uuid"] = json!(Uuid::from_u128(number));
            resources.insert(position % (resources.len() + 1), Arc::new(resource(record)));
        }
        Edit::Remove(position) => drop(at(position).map(|at| resources.remove(at))),
        Edit::Move(from, to) => {
            if let (Some(from), Some(to)) = (at(from), at(to)) {
                let moved = resources.remove(from);
                resources.insert(to, moved);
            }
        }
        Edit::Customer(slug, name) => {
            let customers = Arc::make_mut(customers);
            match name {
                Some(name) => {
                    let customer = Customer { uuid: Uuid::from_u128(name.len() as u128), name: Some(name.to_owned()) };
                    customers.insert(slug.to_owned(), customer);
                }
                None => drop(customers.remove(slug)),
            }
        }
        Edit::Gid(slug, gid) => {
            let gids = &mut Arc::make_mut(identities).gids;
            match gid {
                Some(gid) => drop(gids.insert(slug.to_owned(), gid)),
                None => drop(gids.remove(slug)),
            }
        }
        Edit::User(slug, uid) => {
            let users = &mut Arc::make_mut(identities).users;
            match uid {
                Some(_) => drop(users.insert(slug.to_owned(), UserIdentity { uid, email: None })),
                None => drop(users.remove(slug)),
            }
        }
        Edit::CopyInputs => {
            *customers = Arc::new(Customers::clone(customers));
            *identities = Arc::new(Identities::clone(identities));
        }
        Edit::Relay(on) => Arc::make_mut(policy).relay = on.then(|| "https://proxy.example.org".to_owned()),
        Edit::DevelopmentMode(on) => Arc::make_mut(policy).development_mode = on,
    }
}

fn any_record() -> impl Strategy<Value = Value> {
    let select = |values: &[&'static str]| prop::sample::select(values.to_vec());
    let names = (
        select(&["capstor", "vast", "capstor", "vast", "elsewhere"]),
        select(&["store", "users", "archive"]),
        select(&["OK", "Creating", "Updating", "Erred", "Terminated"]),
        select(&["cscs", "eth"]),
        select(&["cust", "cust-2", "stranger", ""]),
        select(&["proj", "proj-2", "lost", ""]),
        select(&["res", "res-2"]),
    );
    let values = (
        prop::sample::select(vec![json!(10), json!(10), json!(0), json!(null), json!(1e308)]),
        prop::sample::select(vec!["", "", "", "/scratch/mch/proj"]),
        prop::option::weighted(0.2, select(&["pending-provider", "executing"])),
        prop::bool::weighted(0.1),
        1..3_u128,
    );
    (names, values).prop_map(
        |(
            (system, data_type, state, provider, customer, project, slug),
            (storage, path, order, has_target, offering),
        )| {
            let target = json!({"itemId": Uuid::from_u128(9), "unixGid": 4242});
            json!({
                "offering_slug": system, "attributes": {"storage_data_type": data_type}, "state": state,
                "offering_uuid": Uuid::from_u128(offering),
                "provider_slug": provider, "provider_name": provider, "customer_slug": customer,
                "project_slug": project, "slug": slug, "limits": {"storage": storage}, "backend_id": path,
                "backend_metadata": if has_target { json!({"project_item": target}) } else { json!({}) },
                "order_in_progress": order.map(|state| json!({
                    "uuid": Uuid::from_u128(5), "url": ORDER, "type": "Update", "state": state,
                    "attributes": {"old_limits": {"storage": 1}}, "limits": {"storage": 2},
                })),
            })
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0..64_usize;
    let customer = prop::sample::select(vec!["cust", "cust-2"]);
    let name = prop::option::of(prop::sample::select(vec!["Customer", "A renamed customer"]));
    let project = prop::sample::select(vec!["proj", "proj-2", "lost"]);
    let gid = prop_oneof![Just(None), (1..3_u32).prop_map(|gid| Some(Ok(gid))), Just(Some(Err("none".to_owned())))];
    prop_oneof![
        4 => (at(), any_record()).prop_map(|(at, record)| Edit::Change(at, record)),
        1 => at().prop_map(Edit::Copy),
        3 => (at(), any_record()).prop_map(|(at, record)| Edit::Insert(at, record)),
        3 => at().prop_map(Edit::Remove),
        3 => (at(), at()).prop_map(|(from, to)| Edit::Move(from, to)),
        2 => (customer, name).prop_map(|(slug, name)| Edit::Customer(slug, name)),
        2 => (project, gid).prop_map(|(slug, gid)| Edit::Gid(slug, gid)),
        2 => (prop::sample::select(vec!["res", "res-2"]), prop::option::of(1..3_u32)).prop_map(|(slug, uid)| Edit::User(slug, uid)),
        1 => Just(Edit::CopyInputs),
        1 => any::<bool>().prop_map(Edit::Relay),
        1 => any::<bool>().prop_map(Edit::DevelopmentMode),
    ]
}

/// All that is published about each item.
fn published(catalogue: &Catalogue) -> Vec<Value> {
    let item = |position| {
        let (item, order) = (catalogue.item(position), catalogue.order(position));
        let (problem, links) = (catalogue.quota_problem(position), catalogue.resource_links(position));
        json!([item, order, problem, links, catalogue.callbacks(position)])
    };
    (0..catalogue.len()).map(item).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_catalogue_does_not_depend_on_the_one_before(
        records in prop::collection::vec(any_record(), 0..24),
        refreshes in prop::collection::vec(prop::collection::vec(edit(), 0..4), 1..5),
    ) {
        let (customers, identities) = (Arc::new(customers()), Arc::new(identities()));
        let mut world = World { resources: Vec::new(), customers, identities, policy: Arc::new(policy()) };
        let mut number = 100;
        for record in records {
            number += 1;
            apply(&mut world, Edit::Insert(usize::MAX, record), number);
        }
        let mut before = world.build(None);
        for edits in refreshes {
            for edit in edits {
                number += 1;
                apply(&mut world, edit, number);
            }
            let (old_index, old) = (Arc::clone(&before.index), published(&before));
            let after = world.build(Some(before));
            let fresh = world.build(None);
            let new = published(&after);
            prop_assert_eq!(&new, &published(&fresh));
            prop_assert_eq!(&after.index, &fresh.index);
            prop_assert_eq!(&after.skipped, &fresh.skipped);
            prop_assert_eq!(&after.malformed, &fresh.malformed);
            let unchanged = after.unchanged_since(&old_index);
            let mut end = 0;
            for Run { start, before, len } in unchanged {
                prop_assert!(*len > 0 && *start >= end);
                prop_assert_eq!(&new[*start..start + len], &old[*before..before + len]);
                end = start + len;
            }
            prop_assert!(after.unchanged_since(&after.index).is_empty() && fresh.unchanged_since(&old_index).is_empty());
            before = after;
        }
    }
}

/// A world of 40 resources of two customers, in pairs of one project.
fn world() -> World {
    let record = |number: u128| {
        let customer = if number < 20 { "cust" } else { "cust-2" };
        resource(json!({"uuid": Uuid::from_u128(number), "slug": format!("res-{number}"), "customer_slug": customer}))
    };
    let mut customers = customers();
    customers.insert("cust-2".to_owned(), Customer { uuid: Uuid::from_u128(8), name: None });
    World {
        resources: (0..40).map(|number| Arc::new(record(number))).collect(),
        customers: Arc::new(customers),
        identities: Arc::new(identities()),
        policy: Arc::new(policy()),
    }
}

/// The unchanged items after some edits, as start, position before, and length.
fn unchanged_after(edits: Vec<Edit>) -> Vec<(usize, usize, usize)> {
    let mut world = world();
    let before = world.build(None);
    let index = Arc::clone(&before.index);
    for edit in edits {
        apply(&mut world, edit, 1000);
    }
    let after = world.build(Some(before));
    after.unchanged_since(&index).iter().map(|run| (run.start, run.before, run.len)).collect()
}

#[test]
fn only_what_changed_is_built_again() {
    // A tenant and two customers precede the resources.
    assert_eq!(unchanged_after(Vec::new()), [(0, 0, 43)]);
    assert_eq!(unchanged_after(vec![Edit::CopyInputs]), [(0, 0, 43)]);
    assert_eq!(unchanged_after(vec![Edit::Change(7, json!({}))]), [(0, 0, 10), (11, 11, 32)]);
    assert_eq!(unchanged_after(vec![Edit::Insert(7, json!({}))]), [(0, 0, 10), (11, 10, 33)]);
    assert_eq!(unchanged_after(vec![Edit::Remove(7)]), [(0, 0, 10), (10, 11, 32)]);
    assert_eq!(unchanged_after(vec![Edit::Remove(7), Edit::Remove(7)]), [(0, 0, 10), (10, 12, 31)]);
    assert_eq!(unchanged_after(vec![Edit::Move(7, 30)]), [(0, 0, 10), (10, 11, 23), (34, 34, 9)]);
    // The second customer and its resources.
    assert_eq!(unchanged_after(vec![Edit::Customer("cust-2", Some("renamed"))]), [(0, 0, 2), (3, 3, 20)]);
    assert_eq!(unchanged_after(vec![Edit::Gid("another", Some(Ok(1)))]), [(0, 0, 43)]);
    // All resources are of this project; tenants and customers are built with the first of theirs.
    assert_eq!(unchanged_after(vec![Edit::Gid("proj", Some(Ok(1)))]), []);
    assert_eq!(unchanged_after(vec![Edit::User("res-7", Some(1))]), [(0, 0, 10), (11, 11, 32)]);
    assert_eq!(unchanged_after(vec![Edit::Relay(true)]), []);
    // A new tenant and a new customer at the front move everything else.
    let new = json!({"provider_slug": "eth", "customer_slug": "new"});
    let edits = vec![Edit::Customer("new", Some("New")), Edit::Insert(0, new)];
    assert_eq!(unchanged_after(edits), [(2, 0, 3), (6, 3, 40)]);
}
