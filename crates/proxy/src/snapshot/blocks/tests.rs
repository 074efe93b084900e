use catalog::{Customer, Customers, Filter, Identities, Policy, Resource, State, Status};
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::*;
use crate::snapshot::{Found, Snapshot};
use crate::testing::policy;

/// What the records of these tests differ in.
#[derive(Debug, Clone, Copy)]
struct Kind {
    customer: u8,
    data_type: &'static str,
    state: &'static str,
    order: Option<&'static str>,
    has_gid: bool,
    has_limit: bool,
}

const USUAL: Kind = Kind { customer: 0, data_type: "store", state: "OK", order: None, has_gid: true, has_limit: true };

fn resource(number: usize, slug: &str, kind: Kind) -> Arc<Resource> {
    let record = json!({
        "uuid": Uuid::from_u128(number as u128), "slug": slug, "state": kind.state,
        "attributes": {"storage_data_type": kind.data_type},
        "offering_uuid": Uuid::from_u128(1), "offering_slug": "capstor", "provider_slug": "provider",
        "customer_slug": format!("customer-{}", kind.customer), "project_slug": if kind.has_gid { "known" } else { "unknown" },
        "limits": if kind.has_limit { json!({"storage": 1}) } else { json!({}) },
        "order_in_progress": kind.order.map(|state| json!({
            "uuid": Uuid::from_u128(number as u128 + 1), "type": "Update", "state": state,
            "url": format!("https://waldur.example.org/api/marketplace-orders/{number}/"),
        })),
    });
    Arc::new(Resource::parse(&to_raw_value(&record).unwrap()).unwrap())
}

fn resources(count: usize) -> Vec<Arc<Resource>> {
    (0..count).map(|number| resource(number, &format!("resource-{number}"), USUAL)).collect()
}

struct Inputs {
    customers: Arc<Customers>,
    identities: Arc<Identities>,
    policy: Arc<Policy>,
}

impl Inputs {
    fn new() -> Self {
        let customer = |number: u8| {
            let customer = Customer { uuid: Uuid::from_u128(number.into()), name: None };
            (format!("customer-{number}"), customer)
        };
        let gids = [("known".to_owned(), Ok(30_000)), ("unknown".to_owned(), Err("unknown".to_owned()))].into();
        Self {
            customers: Arc::new((0..6).map(customer).collect()),
            identities: Arc::new(Identities { gids, ..Identities::default() }),
            policy: Arc::new(Policy { relay: Some("https://proxy.example.org".into()), ..policy() }),
        }
    }

    fn build(&self, resources: &[Arc<Resource>], before: Option<Catalogue>) -> Catalogue {
        let Self { customers, identities, policy } = self;
        catalog::build(resources, Arc::clone(customers), Arc::clone(identities), Arc::clone(policy), before)
    }
}

fn render(catalogue: &Catalogue, before: Option<&Snapshot>) -> Snapshot {
    Snapshot::render(catalogue, Vec::new(), before).unwrap()
}

/// The tenant and the customer are two more items.
#[test]
fn slices_cross_blocks() {
    let resources = resources(2 * BLOCK + 8);
    let items = render(&Inputs::new().build(&resources, None), None).items;
    assert_eq!(items.iter().map(|block| block.ids.len()).collect::<Vec<_>>(), [BLOCK, BLOCK / 2 + 5, BLOCK / 2 + 5]);
    for (positions, blocks) in [
        (0..items.len(), 3),
        (BLOCK - 1..BLOCK + 1, 2),
        (BLOCK..BLOCK + BLOCK / 2 + 5, 1),
        (5..5, 0),
        (items.len() - 1..items.len(), 1),
        (items.len()..items.len() + 1, 0),
    ] {
        let within: Vec<_> = items.within(positions.clone()).collect();
        assert_eq!(within.len(), blocks, "{positions:?}");
        let texts: Vec<_> = within.into_iter().map(|(block, positions)| block.slice(positions)).collect();
        let whole = [&b"["[..], &texts.join(&b','), b"]"].concat();
        let values: Vec<serde_json::Value> = serde_json::from_slice(&whole).unwrap();
        let ids: Vec<Uuid> = values.iter().map(|item| item["itemId"].as_str().unwrap().parse().unwrap()).collect();
        let all = items.iter().flat_map(|block| &block.ids).copied();
        assert_eq!(ids, all.skip(positions.start).take(positions.len()).collect::<Vec<_>>());
    }
    assert!(items.find(resources[BLOCK].uuid).is_some());
    assert!(items.find(Uuid::from_u128(u128::MAX)).is_none());
}

/// For each block, whether it is shared with the snapshot before.
fn shared(after: &Snapshot, before: &Snapshot) -> Vec<bool> {
    let is_shared = |block: &Arc<Block>| before.items.list.iter().any(|other| Arc::ptr_eq(block, other));
    after.items.list.iter().map(is_shared).collect()
}

#[test]
fn unchanged_blocks_are_shared() {
    let inputs = Inputs::new();
    // Three full blocks: a tenant and a customer are two items.
    let all = resources(3 * BLOCK - 2);
    let catalogue = inputs.build(&all, None);
    let before = render(&catalogue, None);
    // The same without the catalogue before, and for equal resources that are not the same.
    let copies: Vec<_> = all.iter().map(|resource| Arc::new(Resource::clone(resource))).collect();
    assert_eq!(shared(&render(&inputs.build(&copies, None), Some(&before)), &before), [true; 3]);

    let mut changed = all.clone();
    changed[BLOCK] = resource(BLOCK, "renamed", USUAL);
    let catalogue = inputs.build(&changed, Some(catalogue));
    let after = render(&catalogue, Some(&before));
    assert_eq!(shared(&after, &before), [true, false, true]);
    // The snapshot before does not belong to the catalogue before.
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    let other = render(&inputs.build(&reversed, None), None);
    assert_eq!(render(&inputs.build(&all, Some(catalogue)), Some(&other)).fingerprint(), before.fingerprint());

    // A new customer at the front moves all items by two.
    let catalogue = inputs.build(&all, None);
    let before = render(&catalogue, None);
    let mut moved = all.clone();
    moved.insert(0, resource(1000, "new", Kind { customer: 1, ..USUAL }));
    let after = render(&inputs.build(&moved, Some(catalogue)), Some(&before));
    assert_eq!(shared(&after, &before), [false, false, true, true]);
}

#[test]
fn orders_and_callbacks_change_the_fingerprint() {
    let inputs = Inputs::new();
    let fingerprint = |edit: &dyn Fn(&mut Resource)| {
        let mut changed = Resource::clone(&resource(3, "name", Kind { order: Some("executing"), ..USUAL }));
        edit(&mut changed);
        let snapshot = render(&inputs.build(&[Arc::new(changed)], None), None);
        (snapshot.page(&Filter::default(), 0, 9).items, snapshot.fingerprint())
    };
    let usual = fingerprint(&|_| {});
    let renamed = fingerprint(&|resource| resource.order.as_mut().unwrap().kind_name = Some("Another".to_owned()));
    let url = || Some("https://another.example.org/marketplace-orders/3/".to_owned());
    let moved = fingerprint(&|resource| resource.order.as_mut().unwrap().url = url());
    // The items are the same: links lead to the relay.
    assert!(usual.0 == renamed.0 && usual.0 == moved.0);
    assert!(usual.1 != renamed.1 && usual.1 != moved.1 && renamed.1 != moved.1);
    assert_eq!(usual, fingerprint(&|_| {}));
}

/// New resources are usually the last ones.
#[test]
fn blocks_stay_large() {
    let inputs = Inputs::new();
    let mut all = resources(BLOCK);
    let mut catalogue = inputs.build(&all, None);
    let mut snapshot = render(&catalogue, None);
    let mut check = |all: &[Arc<Resource>]| {
        catalogue = inputs.build(all, Some(std::mem::replace(&mut catalogue, inputs.build(&[], None))));
        snapshot = render(&catalogue, Some(&snapshot));
        let sizes: Vec<_> = snapshot.items.iter().map(|block| block.ids.len()).collect();
        assert!(sizes.iter().all(|size| (BLOCK / 2..=BLOCK).contains(size)), "{sizes:?}");
    };
    for number in 0..5 * BLOCK {
        all.push(resource(1000 + number, "new", USUAL));
        check(&all);
    }
    for number in 0..4 * BLOCK {
        all.remove(number * 7 % all.len());
        check(&all);
    }
}

#[derive(Debug, Clone, Copy)]
enum Edit {
    Change(usize, Kind),
    Insert(usize, Kind),
    Remove(usize),
    Move(usize, usize),
    /// Replaces a resource with an equal one.
    Copy(usize),
    Gid(bool),
    Customer(u8, bool),
}

fn kind() -> impl Strategy<Value = Kind> {
    let data_type = prop::sample::select(vec!["store", "users"]);
    let state = prop::sample::select(vec!["OK", "OK", "Creating", "Erred"]);
    let order = prop::option::weighted(0.3, prop::sample::select(vec!["pending-provider", "executing"]));
    let often = || prop::bool::weighted(0.9);
    (0..4_u8, data_type, state, order, often(), often()).prop_map(
        |(customer, data_type, state, order, has_gid, has_limit)| Kind {
            customer,
            data_type,
            state,
            order,
            has_gid,
            has_limit,
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0..200_usize;
    prop_oneof![
        3 => (at(), kind()).prop_map(|(at, kind)| Edit::Change(at, kind)),
        3 => (at(), kind()).prop_map(|(at, kind)| Edit::Insert(at, kind)),
        2 => at().prop_map(Edit::Remove),
        2 => (at(), at()).prop_map(|(from, to)| Edit::Move(from, to)),
        1 => at().prop_map(Edit::Copy),
        1 => any::<bool>().prop_map(Edit::Gid),
        1 => (0..4_u8, any::<bool>()).prop_map(|(number, exists)| Edit::Customer(number, exists)),
    ]
}

fn apply(all: &mut Vec<Arc<Resource>>, inputs: &mut Inputs, edit: Edit, number: usize) {
    let len = all.len();
    let at = |position: usize| position % len.max(1);
    match edit {
        Edit::Insert(position, kind) => all.insert(position % (all.len() + 1), resource(number, "new", kind)),
        Edit::Gid(known) => {
            let gid = if known { Ok(30_001) } else { Err("unknown".to_owned()) };
            drop(Arc::make_mut(&mut inputs.identities).gids.insert("unknown".to_owned(), gid));
        }
        Edit::Customer(number, exists) => {
            let customers = Arc::make_mut(&mut inputs.customers);
            let slug = format!("customer-{number}");
            if exists {
                customers.insert(slug, Customer { uuid: Uuid::from_u128(500), name: Some("renamed".to_owned()) });
            } else {
                customers.remove(&slug);
            }
        }
        _ if all.is_empty() => {}
        Edit::Change(position, kind) => {
            let changed = &mut all[at(position)];
            *changed = resource(usize::try_from(changed.uuid.as_u128()).unwrap(), "changed", kind);
        }
        Edit::Remove(position) => drop(all.remove(at(position))),
        Edit::Move(from, to) => {
            let (from, to) = (at(from), at(to));
            let moved = all.remove(from);
            all.insert(to, moved);
        }
        Edit::Copy(position) => {
            let copied = &mut all[at(position)];
            *copied = Arc::new(Resource::clone(copied));
        }
    }
}

/// What clients can see of a snapshot.
fn observed(snapshot: &Snapshot) -> Vec<String> {
    let filters = [
        Filter::default(),
        Filter { state: Some(State::Ok), ..Filter::default() },
        Filter { status: Some(Status::Updating), ..Filter::default() },
        Filter { data_type: Some("users".to_owned()), ..Filter::default() },
    ];
    let page = |filter: &Filter, offset, limit| {
        let page = snapshot.page(filter, offset, limit);
        let parts = [page.items, page.orders, page.quota_problems, page.resource_links];
        let parts = parts.map(|slices| String::from_utf8(slices.join(&b',')).unwrap());
        format!("{} {parts:?} {:?}", page.total, page.skipped)
    };
    let ids = snapshot.items.iter().flat_map(|block| &block.ids).copied();
    let found = ids.map(|id| match snapshot.find(id) {
        Found::Item(item) => String::from_utf8(item.into()).unwrap(),
        other => format!("{other:?}"),
    });
    let mut observed: Vec<_> = found.collect();
    for filter in &filters {
        observed.extend([page(filter, 0, usize::MAX), page(filter, 5, 20), snapshot.content(filter).to_string()]);
    }
    observed.push(format!("{:?} {:?}", snapshot.callbacks().collect::<Vec<_>>(), snapshot.counts()));
    observed.push(format!("{:?}", QuotaProblemCode::ALL.map(|code| snapshot.quota_problems(code))));
    observed.push(format!("{} {:?} {}", snapshot.bytes(), snapshot.rendered_skipped(), snapshot.fingerprint()));
    observed
}

/// The first difference.
fn difference(one: Vec<String>, other: &[String]) -> Option<(String, String)> {
    assert_eq!(one.len(), other.len());
    one.into_iter().zip(other.iter().cloned()).find(|(one, other)| one != other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_snapshot_does_not_depend_on_the_one_before(
        kinds in prop::collection::vec(kind(), 0..100),
        refreshes in prop::collection::vec(prop::collection::vec(edit(), 0..4), 1..5),
    ) {
        let mut inputs = Inputs::new();
        let mut all: Vec<_> =
            kinds.into_iter().enumerate().map(|(number, kind)| resource(number, "old", kind)).collect();
        let mut number = 1000;
        let mut catalogue = inputs.build(&all, None);
        let mut snapshot = render(&catalogue, None);
        for edits in refreshes {
            for edit in edits {
                number += 1;
                apply(&mut all, &mut inputs, edit, number);
            }
            let fresh = render(&inputs.build(&all, None), None);
            catalogue = inputs.build(&all, Some(catalogue));
            let after = render(&catalogue, Some(&snapshot));
            let expected = observed(&fresh);
            prop_assert_eq!(difference(observed(&after), &expected), None);
            prop_assert_eq!(&after.index, &fresh.index);
            let unpacked = Snapshot::unpack(&after.pack().unwrap(), Some(&snapshot)).unwrap();
            prop_assert_eq!(difference(observed(&unpacked), &expected), None);
            snapshot = after;
        }
    }
}

/// Details follow their resources, also those of skipped ones and of unchanged blocks.
#[test]
fn details_belong_to_their_resources() {
    let mut resources = resources(3 * BLOCK);
    resources[5] = resource(5, "resource-5", Kind { has_gid: false, ..USUAL });
    resources[7] = resource(7, "resource-7", Kind { order: Some("executing"), ..USUAL });
    let inputs = Inputs::new();
    let catalogue = inputs.build(&resources, None);
    let before = render(&catalogue, None);
    resources.remove(2);
    let after = render(&inputs.build(&resources, Some(catalogue)), Some(&before));
    assert!(before.items.iter().any(|block| after.items.iter().any(|other| std::ptr::eq(block, other))));
    let described: Vec<_> = after.resources().collect();
    assert_eq!(described.len(), resources.len());
    for (described, resource) in described.iter().zip(&resources) {
        assert_eq!((&described.details.slug, &described.details.project), (&resource.slug, &resource.project_slug));
        let order = described.details.order.as_deref().map(|order| (order.uuid, order.state.as_deref()));
        let expected = resource.order.as_deref().map(|order| (order.uuid, order.state_name.as_deref()));
        assert_eq!(order, expected, "{}", resource.slug);
        match described.item {
            Ok(item) => assert!(str::from_utf8(item).unwrap().contains(&format!("\"{}\"", resource.slug))),
            Err(skipped) => assert_eq!(skipped.item_id, Some(resource.uuid)),
        }
    }
    assert_eq!(after.nodes().count(), 2);
}
