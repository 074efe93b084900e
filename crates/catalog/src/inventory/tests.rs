//! Random histories of a Waldur, followed by updates. After each update, the inventory equals a full reading with nested
//! orders, except for what no update can see, and for late commits until the next deep update. Each resource has the order that it had
//! at some moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::order::Update;
use crate::quota::ResourceLimits;
use crate::row::OPEN_STATES;
use crate::testing;
use crate::{Depth, Order, OrderState, OrderType, State, Watermark};

/// What happens next. Numbers select a resource, an order or a duration.
#[derive(Debug, Clone)]
enum Event {
    Wait(u8),
    Create,
    Limits(usize, u8),
    Terminate(usize),
    /// The order of a resource takes the next step.
    Advance(usize),
    Reject(usize),
    Erred(usize),
    /// A user deletes a pending order.
    DeleteOrder(usize),
    SetOk(usize),
    BackendId(usize, u8),
    /// `modified` changes, and nothing else.
    Usage(usize),
    /// A late worker sets the state of a resource without an order.
    LateWorker(usize),
    /// Changes that no update can see.
    Rename(usize),
    DeleteResource(usize),
    /// The next event is dated now, and visible this many seconds later.
    Late(u8),
    /// The update, with an event after the orders, and one before the single resources.
    Update(Option<Box<Event>>, Option<Box<Event>>),
    FullReading,
    /// An update fails, or the program is restarted.
    Forget,
}

fn change() -> impl Strategy<Value = Event> {
    let any = || any::<usize>();
    let number = || proptest::num::u8::ANY;
    prop_oneof![
        2 => (1..60_u8).prop_map(Event::Wait),
        2 => Just(Event::Create),
        3 => (any(), number()).prop_map(|(resource, limit)| Event::Limits(resource, limit)),
        2 => any().prop_map(Event::Terminate),
        8 => any().prop_map(Event::Advance),
        2 => any().prop_map(Event::Reject),
        1 => any().prop_map(Event::Erred),
        1 => any().prop_map(Event::DeleteOrder),
        1 => any().prop_map(Event::SetOk),
        2 => (any(), number()).prop_map(|(resource, path)| Event::BackendId(resource, path)),
        1 => any().prop_map(Event::Usage),
        1 => any().prop_map(Event::LateWorker),
        1 => any().prop_map(Event::Rename),
        1 => any().prop_map(Event::DeleteResource),
        2 => (1..100_u8).prop_map(Event::Late),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let between = || proptest::option::weighted(0.3, change().prop_map(Box::new));
    prop_oneof![
        12 => change(),
        6 => (between(), between()).prop_map(|(one, other)| Event::Update(one, other)),
        1 => Just(Event::FullReading),
        1 => Just(Event::Forget),
    ]
}

const SECOND: i64 = 1_000_000;
/// Longer than the longest transaction, 100 s, and the duration of a request.
const OVERLAP: i64 = 120 * SECOND;

#[derive(Debug, Clone)]
struct Stored {
    created: Stamp,
    modified: Stamp,
    resource: Resource,
    /// The order: its row, and as it is nested.
    order: Option<OpenOrder>,
}

/// A transaction that has not ended.
#[derive(Debug)]
struct Transaction {
    ends: i64,
    resource: Uuid,
    result: Stored,
}

#[derive(Debug)]
struct World {
    now: i64,
    /// The clock that sets `modified` is behind by this much.
    lag: i64,
    /// Whether a new order changes `modified` of its resource: not in every release.
    dates_orders: bool,
    stored: BTreeMap<Uuid, Stored>,
    transactions: Vec<Transaction>,
    late: Option<u8>,
    ids: u128,
    /// Changed in a way that no update can see, since the last full reading.
    unseen: BTreeSet<Uuid>,
    /// Changed in a long transaction since the last deep update.
    late_commits: BTreeSet<Uuid>,
    /// The open orders of the last update.
    listed: BTreeSet<Uuid>,
    /// Everything that a resource was, at any moment.
    past: BTreeMap<Uuid, Vec<Option<Resource>>>,
}

impl World {
    fn new(lag: i64, dates_orders: bool) -> Self {
        Self {
            now: 1_000_000 * SECOND,
            lag,
            dates_orders,
            stored: BTreeMap::new(),
            transactions: Vec::new(),
            late: None,
            ids: 0,
            unseen: BTreeSet::new(),
            late_commits: BTreeSet::new(),
            listed: BTreeSet::new(),
            past: BTreeMap::new(),
        }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn wait(&mut self, micros: i64) {
        self.now += micros;
        let now = self.now;
        for transaction in self.transactions.extract_if(.., |transaction| transaction.ends <= now).collect::<Vec<_>>() {
            // Shorter ones are found by shallow updates too.
            if transaction.result.modified.0 + self.lag < now - 4 * SECOND {
                self.late_commits.insert(transaction.resource);
            }
            self.commit(transaction.resource, Some(transaction.result));
        }
    }

    fn commit(&mut self, uuid: Uuid, stored: Option<Stored>) {
        self.past
            .entry(uuid)
            .or_default()
            .push(stored.as_ref().filter(|stored| stored.is_visible()).map(Stored::nested));
        match stored {
            Some(stored) => drop(self.stored.insert(uuid, stored)),
            None => drop(self.stored.remove(&uuid)),
        }
    }

    fn is_locked(&self, uuid: Uuid) -> bool {
        self.transactions.iter().any(|transaction| transaction.resource == uuid)
    }

    /// Changes a resource, now or in a transaction that ends later. A row in a transaction is locked.
    fn change(&mut self, uuid: Uuid, mut result: Stored, dated: bool) {
        if self.is_locked(uuid) {
            return;
        }
        self.now += 1_000;
        if dated {
            result.modified = Stamp(self.now - self.lag);
        }
        match self.late.take() {
            Some(seconds) => {
                let ends = self.now + i64::from(seconds) * SECOND;
                self.transactions.push(Transaction { ends, resource: uuid, result });
            }
            None => self.commit(uuid, Some(result)),
        }
    }

    fn pick(&self, number: usize, fits: impl Fn(&Stored) -> bool) -> Option<(Uuid, Stored)> {
        let fitting: Vec<_> = self.stored.iter().filter(|(_, stored)| fits(stored)).collect();
        let (uuid, stored) = fitting.get(number.checked_rem(fitting.len())?)?;
        Some((**uuid, (*stored).clone()))
    }

    fn order(&mut self, resource: Uuid, kind: &str, state: &str, limit: Option<ResourceLimits>) -> OpenOrder {
        let uuid = self.id();
        let kind_type = match kind {
            "Create" => OrderType::Create,
            "Update" => OrderType::Update,
            _ => OrderType::Terminate,
        };
        let order = Order {
            uuid: Some(uuid),
            url: Some(format!("https://w/api/marketplace-orders/{}/", uuid.simple())),
            state: state_of(state),
            state_name: Some(state.to_owned()),
            kind: kind_type,
            kind_name: Some(kind.to_owned()),
            update: limit.map(|limit| Update { new_limits: Some(limit), ..Update::default() }),
            unreadable: None,
            storage: None,
            new_options: None,
            created: None,
        };
        OpenOrder { uuid, resource, created: Some(Stamp(self.now)), order: Ok(order) }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
    fn apply(&mut self, event: &Event) {
        let is_open = |stored: &Stored| stored.order.is_some();
        let is_ok = |stored: &Stored| stored.order.is_none() && stored.resource.state == State::Ok;
        match event {
            Event::Wait(seconds) => self.wait(i64::from(*seconds) * SECOND),
            Event::Late(seconds) => self.late = Some(*seconds),
            Event::Create => {
                let uuid = self.id();
                let created = Stamp(self.now - self.lag);
                let state = OPEN_STATES[uuid.as_u128() as usize % 4];
                let order = Some(self.order(uuid, "Create", state, None));
                let resource = Resource { uuid, state: State::Creating, ..TEMPLATE.clone() };
                self.past.entry(uuid).or_default().push(None);
                self.change(uuid, Stored { created, modified: created, resource, order }, true);
            }
            Event::Limits(number, limit) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_ok) else { return };
                let limits = limits(*limit);
                stored.order = Some(self.order(uuid, "Update", "pending-provider", Some(limits)));
                stored.resource.state = State::Updating;
                self.change(uuid, stored, self.dates_orders);
            }
            Event::Terminate(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_ok) else { return };
                stored.order = Some(self.order(uuid, "Terminate", "pending-consumer", None));
                stored.resource.state = State::Terminating;
                self.change(uuid, stored, self.dates_orders);
            }
            Event::Advance(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_open) else { return };
                let open = stored.order.as_mut().unwrap();
                let order = open.order.as_mut().unwrap();
                let next = match order.state_name.as_deref() {
                    Some("pending-consumer" | "pending-project" | "pending-start-date") => "pending-provider",
                    Some("pending-provider") => "executing",
                    _ => {
                        // Done.
                        let update = order.update.take().and_then(|update| update.new_limits);
                        stored.resource.state = match order.kind {
                            OrderType::Terminate => State::Terminated,
                            _ => State::Ok,
                        };
                        stored.resource.limits = update.unwrap_or(stored.resource.limits);
                        stored.order = None;
                        return self.change(uuid, stored, true);
                    }
                };
                (order.state, order.state_name) = (state_of(next), Some(next.to_owned()));
                let dated = next == "executing";
                self.change(uuid, stored, dated);
            }
            Event::Reject(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_open) else { return };
                let order = stored.order.take().unwrap().order.unwrap();
                let is_new = order.kind == OrderType::Create;
                stored.resource.state = if is_new { State::Terminated } else { State::Ok };
                // The rejection of an Update does not change `modified`.
                self.change(uuid, stored, is_new);
            }
            Event::Erred(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_open) else { return };
                stored.order = None;
                stored.resource.state = State::Erred;
                self.change(uuid, stored, true);
            }
            Event::DeleteOrder(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_open) else { return };
                let order = stored.order.take().unwrap();
                if !self.dates_orders && !self.listed.contains(&order.uuid) && !self.is_locked(uuid) {
                    // It came and went between two updates, and left the resource in transition with the old `modified`.
                    self.unseen.insert(uuid);
                }
                self.change(uuid, stored, false);
            }
            Event::SetOk(number) => {
                let stuck = |stored: &Stored| stored.order.is_none() && stored.resource.state != State::Terminated;
                let Some((uuid, mut stored)) = self.pick(*number, stuck) else { return };
                stored.resource.state = State::Ok;
                self.change(uuid, stored, true);
            }
            Event::BackendId(number, path) => {
                let Some((uuid, mut stored)) = self.pick(*number, |_| true) else { return };
                stored.resource.backend_id = Some(path.to_string());
                self.change(uuid, stored, true);
            }
            Event::Usage(number) => {
                let Some((uuid, stored)) = self.pick(*number, |_| true) else { return };
                self.change(uuid, stored, true);
            }
            Event::LateWorker(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, is_ok) else { return };
                stored.resource.state = State::Updating;
                self.change(uuid, stored, true);
            }
            Event::Rename(number) => {
                let Some((uuid, mut stored)) = self.pick(*number, |_| true) else { return };
                stored.resource.project_slug.push('x');
                if !self.is_locked(uuid) {
                    self.unseen.insert(uuid);
                    self.commit(uuid, Some(stored));
                }
            }
            Event::DeleteResource(number) => {
                let Some((uuid, _)) = self.pick(*number, |stored| stored.order.is_none()) else { return };
                if !self.is_locked(uuid) {
                    self.unseen.insert(uuid);
                    self.commit(uuid, None);
                }
            }
            Event::Update(..) | Event::FullReading | Event::Forget => {}
        }
    }

    fn orders(&mut self) -> Vec<OpenOrder> {
        let orders: Vec<_> = self.stored.values().filter_map(|stored| stored.order.clone()).collect();
        self.listed = orders.iter().map(|order| order.uuid).collect();
        orders
    }

    fn rows(&self, since: Option<Stamp>) -> Vec<Row> {
        let visible = self.stored.values().filter(|stored| stored.is_visible());
        let mut rows: Vec<_> =
            visible.filter(|stored| since.is_none_or(|since| stored.modified >= since)).map(Stored::row).collect();
        rows.sort_by_key(|row| row.created);
        rows
    }

    /// A full reading with nested orders.
    fn truth(&self) -> Vec<Resource> {
        let mut stored: Vec<_> = self.stored.values().filter(|stored| stored.is_visible()).collect();
        stored.sort_by_key(|stored| stored.created);
        stored.into_iter().map(Stored::nested).collect()
    }
}

static TEMPLATE: LazyLock<Resource> = LazyLock::new(|| testing::resource(json!({})));

fn limits(storage: u8) -> ResourceLimits {
    static LIMITS: LazyLock<[ResourceLimits; 3]> =
        LazyLock::new(|| [1, 2, 3].map(|storage| testing::resource(json!({"limits": {"storage": storage}})).limits));
    LIMITS[usize::from(storage) % LIMITS.len()].clone()
}

fn state_of(name: &str) -> OrderState {
    match name {
        "pending-consumer" => OrderState::PendingConsumer,
        "pending-provider" => OrderState::PendingProvider,
        "executing" => OrderState::Executing,
        _ => OrderState::Other,
    }
}

impl Stored {
    /// Waldur hides new resources that are not approved on the customer's side.
    fn is_visible(&self) -> bool {
        let hidden = self.order.as_ref().is_some_and(OpenOrder::hides_resource);
        !(hidden && self.resource.state == State::Creating)
    }

    fn row(&self) -> Row {
        let Self { created, modified, resource, .. } = self.clone();
        Row { uuid: resource.uuid, created: Some(created), modified: Some(modified), resource: Ok(Arc::new(resource)) }
    }

    fn nested(&self) -> Resource {
        let order = self.order.as_ref().map(|order| Box::new(order.order.clone().unwrap()));
        Resource { order, ..self.resource.clone() }
    }
}

/// The client: what the proxy does over HTTP.
struct Client {
    inventory: Option<Inventory>,
    watermark: Watermark,
}

impl Client {
    fn new() -> Self {
        Self { inventory: None, watermark: Watermark::new(OVERLAP) }
    }

    fn update(&mut self, world: &mut World, full: bool, one: Option<&Event>, other: Option<&Event>) {
        let date = |world: &World| Some(Stamp(world.now / SECOND * SECOND));
        let before = if full { self.inventory.take() } else { None };
        let since = self.watermark.since(Depth::Deep);
        let mut depth = self.watermark.next();
        if full || self.inventory.is_none() {
            let rows = world.rows(None);
            depth = Depth::Deep;
            self.watermark = Watermark::new(OVERLAP);
            self.watermark.record(depth, date(world), rows.iter().filter_map(|row| row.modified));
            self.inventory = Some(Inventory::new(rows, false));
            world.unseen.clear();
        }
        let mut inventory = self.inventory.take().unwrap();
        let changed_since = self.watermark.since(depth);
        let orders = world.orders();
        let date = date(world);
        if let Some(event) = one {
            world.apply(event);
        }
        let rows = world.rows(changed_since);
        if depth == Depth::Deep {
            world.late_commits.clear();
        }
        let modified: Vec<_> = rows.iter().filter_map(|row| row.modified).collect();
        let uncertain = inventory.update(orders, depth, rows);
        if let Some(event) = other {
            world.apply(event);
        }
        for uuid in uncertain {
            let stored = world.stored.get(&uuid).filter(|stored| stored.is_visible());
            inventory
                .settle(uuid, stored.map(|stored| Row { resource: Ok(Arc::new(stored.nested())), ..stored.row() }));
        }
        self.watermark.record(depth, date, modified.into_iter());
        if let Some(before) = &before {
            let missed = inventory.replace(before, since);
            assert_eq!(missed.unexpected, Vec::<Uuid>::new(), "the updates missed a change");
        }
        assert!(!inventory.lacks_orders());
        self.inventory = Some(inventory);
    }

    fn resources(&self) -> Vec<Resource> {
        self.inventory.as_ref().unwrap().resources().map(|resource| Resource::clone(resource)).collect()
    }
}

fn follow(events: &[Event], lag: i64, dates_orders: bool) {
    let mut world = World::new(lag * SECOND, dates_orders);
    let mut client = Client::new();
    for event in events {
        world.apply(event);
        let quiet = match event {
            Event::Update(one, other) => {
                client.update(&mut world, false, one.as_deref(), other.as_deref());
                one.is_none() && other.is_none()
            }
            Event::FullReading => {
                client.update(&mut world, true, None, None);
                true
            }
            Event::Forget => {
                client.inventory = None;
                continue;
            }
            _ => continue,
        };
        let shown = client.resources();
        for resource in &shown {
            let without_names = |resource: &Resource| Resource { project_slug: String::new(), ..resource.clone() };
            let past = world.past[&resource.uuid].iter().flatten();
            assert!(past.map(without_names).any(|past| past == without_names(resource)), "never was: {resource:?}");
        }
        if quiet {
            let is_known = |uuid: &Uuid| !world.unseen.contains(uuid) && !world.late_commits.contains(uuid);
            let known = |resources: Vec<Resource>| -> Vec<Resource> {
                resources.into_iter().filter(|resource| is_known(&resource.uuid)).collect()
            };
            assert_eq!(known(shown), known(world.truth()));
        }
    }
}

#[test]
fn a_late_commit_is_never_missing_beside_a_later_step_of_the_order() {
    use Event::*;
    let update = || Update(None, None);
    let before = [Create, Advance(0), Advance(0), Advance(0), update(), Terminate(0), update()];
    let after = [Late(50), BackendId(0, 7), Wait(30), update(), Wait(25), update(), Advance(0), update()];
    follow(&[&before[..], &after].concat(), 0, false);
}

/// A resource that is being updated, and its order in the list, which contradicts the one that is nested.
#[test]
fn a_lasting_contradiction_is_read_three_times() {
    let mut world = World::new(0, false);
    let uuid = world.id();
    let order = |world: &mut World, state| world.order(uuid, "Update", state, None);
    let (mut listed, nested) = (order(&mut world, "executing"), order(&mut world, "executing"));
    let resource = Resource { uuid, state: State::Updating, ..TEMPLATE.clone() };
    let stored = Stored { created: Stamp(1), modified: Stamp(1), resource, order: Some(nested) };
    for malformed in [false, true] {
        if malformed {
            listed.order = crate::field::malformed("limits", "is not a map");
        }
        let mut inventory = Inventory::new([stored.row()], false);
        let mut reads = |order: &OpenOrder, depth| {
            let uncertain = inventory.update(vec![order.clone()], depth, Vec::new());
            for uuid in &uncertain {
                let row = Row { resource: Ok(Arc::new(stored.nested())), ..stored.row() };
                inventory.settle(*uuid, Some(row));
            }
            uncertain.len()
        };
        reads(&listed, Depth::Deep);
        let again: Vec<_> = (0..4).map(|_| reads(&listed, Depth::Shallow)).collect();
        assert_eq!(again[2..], [0, 0], "{again:?}");
        // Another order in the list is read.
        let other = order(&mut world, "executing");
        assert_eq!(reads(&other, Depth::Shallow), 1);
    }
}

proptest! {
    #[test]
    fn random_histories_are_followed(
        events in proptest::collection::vec(event(), 1..60),
        lag in -20..20_i64,
        dates_orders: bool,
    ) {
        follow(&events, lag, dates_orders);
    }
}
