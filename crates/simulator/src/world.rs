//! The data of the simulated services, which a test builds, changes and asserts on.
//!
//! A [`World`] does not depend on HTTP. Rows are JSON maps, as Waldur returns them. Values of a row's offering, project and
//! customer are joined when it is returned, so renaming a project renames it everywhere at once, as in Waldur.

mod demo;
mod events;
mod golden;
mod large;
mod ordering;
mod rows;
mod stamp;
mod state;
mod transitions;

use std::time::Instant;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(crate) use events::{Event, Events};
pub use ordering::NewResource;
pub use rows::{Customer, Offering, OfferingType, Order, Project, Provider, Resource, Role, Usage, User};
pub use stamp::Stamp;
pub use state::{OrderState, OrderType, Release, ResourceState};
pub use transitions::Refusal;

/// Token of the user `storage-proxy` of every built world: a service provider's user, as configured in the proxy.
pub const PROVIDER_TOKEN: &str = "0123456789abcdef0123456789abcdef01234567";

/// Order of a list's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// By `o=`, or by `created` without it; ties keep the order of the world.
    #[default]
    Asked,
    /// As requested, but ties are in a different order on every page, as a database may return them.
    AskedWithoutTieBreak,
    /// In the order of the world, ignoring `o=` and `visible_to_providers=`: for recorded cases, whose Waldur had neither.
    AsGiven,
}

/// The data of Waldur and of the HPC User API.
#[expect(clippy::struct_excessive_bools, reason = "independent differences between Waldur releases")]
#[derive(Debug, Clone)]
pub struct World {
    /// The release to simulate.
    pub release: Release,
    /// The simulated Waldur's clock; every change advances it by a millisecond. See [`World::run_clock`].
    pub now: Stamp,
    /// When the clock began to run, and what it showed then; `None` while it stands still between changes.
    running: Option<(Instant, Stamp)>,
    /// By how much the clock that sets the header `Date` is ahead of the clock that dates rows, in microseconds; negative if it
    /// is behind. Waldur's hosts may differ.
    pub date_ahead: i64,
    pub rows: RowOrder,
    /// Organizations that own offerings.
    pub providers: IndexMap<Uuid, Provider>,
    pub offerings: IndexMap<Uuid, Offering>,
    /// Organizations that buy.
    pub customers: IndexMap<Uuid, Customer>,
    pub projects: IndexMap<Uuid, Project>,
    pub users: Vec<User>,
    /// Marketplace resources, in order of creation.
    pub resources: IndexMap<Uuid, Resource>,
    /// Marketplace orders, in order of creation.
    pub orders: IndexMap<Uuid, Order>,
    /// Reported usage, one row per resource, component and month.
    pub usages: Vec<Usage>,
    pub hpc: Hpc,
    /// Whether newer releases have `set_state_ok` of resources; 7.0.x never has it.
    pub has_set_state_ok: bool,
    /// Whether newer releases complete an order of options on approval.
    pub options_end_on_approval: bool,
    /// Whether `set_backend_id` rejects an ID that another resource of the offering has.
    pub unique_backend_ids: bool,
    /// Whether the background worker lags: an approval then defers the rest to [`World::run_worker`], which overwrites later
    /// changes of the resource.
    pub worker_lags: bool,
    /// Deferred tasks of the worker, oldest first.
    queued: Vec<Queued>,
    pub(crate) events: Events,
    ids: u64,
}

/// A task that an approval defers to the background worker.
#[derive(Debug, Clone, Copy)]
enum Queued {
    /// Set the state of a resource.
    State(Uuid, ResourceState),
    /// Complete the order if it is still executing.
    Finish(Uuid),
}

/// The data of the HPC User API, and the tokens it accepts.
#[derive(Debug, Clone)]
pub struct Hpc {
    /// Rows of `projects`, normally `{"posixName", "unixGid"}`. A GID may be null; names may repeat.
    pub projects: Vec<Value>,
    /// Answers of the user endpoint, by user name.
    pub users: IndexMap<String, Value>,
    /// Opaque bearer tokens that are accepted in addition to the realm's, each with the Unix time of its expiry.
    pub tokens: IndexMap<String, Option<u64>>,
    /// Maximum length of a request line in bytes; a longer one returns 414.
    pub request_line_limit: usize,
}

impl Default for Hpc {
    fn default() -> Self {
        Self { projects: Vec::new(), users: IndexMap::new(), tokens: IndexMap::new(), request_line_limit: 8192 }
    }
}

impl Hpc {
    /// Adds a project; `None` if it has no GID yet.
    pub fn add_project(&mut self, slug: &str, gid: Option<u32>) {
        self.projects.push(json!({ "posixName": slug, "unixGid": gid }));
    }

    /// Changes the GID in every row of this project, or adds the project.
    pub fn set_gid(&mut self, slug: &str, gid: Option<u32>) {
        let mut found = false;
        for row in self.projects.iter_mut().filter(|row| row["posixName"] == slug) {
            row["unixGid"] = json!(gid);
            found = true;
        }
        if !found {
            self.add_project(slug, gid);
        }
    }
}

impl World {
    /// A Waldur without offerings, customers and resources. Its users are `staff`, `support`, `stranger`, `inactive`
    /// (deactivated), `expired` (with an expired token), and `storage-proxy` with [`PROVIDER_TOKEN`] and without a role.
    pub fn empty() -> Self {
        let mut world = Self {
            release: Release::Newer,
            now: Stamp::parse("2026-01-01T00:00:00Z").unwrap_or_default(),
            running: None,
            date_ahead: 0,
            rows: RowOrder::Asked,
            providers: IndexMap::new(),
            offerings: IndexMap::new(),
            customers: IndexMap::new(),
            projects: IndexMap::new(),
            users: Vec::new(),
            resources: IndexMap::new(),
            orders: IndexMap::new(),
            usages: Vec::new(),
            hpc: Hpc::default(),
            has_set_state_ok: true,
            options_end_on_approval: true,
            unique_backend_ids: false,
            worker_lags: false,
            queued: Vec::new(),
            events: Events::default(),
            ids: 0,
        };
        world.add_user("staff").is_staff = true;
        world.add_user("support").is_support = true;
        world.add_user("stranger");
        world.add_user("inactive").is_active = false;
        world.add_user("expired").token_expired = true;
        PROVIDER_TOKEN.clone_into(&mut world.add_user("storage-proxy").token);
        world
    }

    /// A new identifier; the sequence is the same in every run.
    pub fn next_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("simulator:{}", self.ids).as_bytes())
    }

    /// Lets the clock run from here on, an hour later than the last change.
    pub fn run_clock(&mut self) {
        self.now = self.now.plus_micros(3_600_000_000);
        self.running = Some((Instant::now(), self.now));
    }

    /// The time by the simulated Waldur's clock.
    pub fn time(&self) -> Stamp {
        let run = self
            .running
            .map(|(since, then)| then.plus_micros(i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX)));
        run.map_or(self.now, |time| time.max(self.now))
    }

    /// Makes a change whose rows are dated `then`, although it becomes visible only now.
    pub(crate) fn commit(&mut self, then: Stamp, change: impl FnOnce(&mut Self)) {
        let (now, running) = (self.now, self.running.take());
        self.now = then;
        change(self);
        self.now = self.now.max(now);
        self.running = running;
    }

    /// Advances the clock by at least a millisecond and returns the new time.
    pub fn tick(&mut self) -> Stamp {
        self.now = self.time().max(self.now.plus_micros(1_000));
        self.now
    }

    /// Formats a time as this release does: `…+00:00`, in 7.0.x `…Z`.
    pub fn written(&self, stamp: Stamp) -> String {
        let text = stamp.text();
        match self.release {
            Release::Newer => text,
            Release::V7_0 => text.replace("+00:00", "Z"),
        }
    }

    /// Adds a user without roles; the token is 40 hexadecimal digits derived from the name.
    pub fn add_user(&mut self, username: &str) -> &mut User {
        let uuid = self.next_id();
        self.users.push(User::new(uuid, username));
        let last = self.users.len() - 1;
        &mut self.users[last]
    }

    pub fn user_mut(&mut self, username: &str) -> Option<&mut User> {
        self.users.iter_mut().find(|user| user.username == username)
    }

    pub fn token(&self, username: &str) -> Option<String> {
        self.users.iter().find(|user| user.username == username).map(|user| user.token.clone())
    }

    /// Gives a user a role; does nothing for an unknown user.
    pub fn grant(&mut self, username: &str, role: Role) {
        if let Some(user) = self.user_mut(username) {
            user.roles.push(role);
        }
    }

    /// Adds an organization that owns offerings.
    pub fn add_provider(&mut self, slug: &str, name: &str) -> Uuid {
        let uuid = self.next_id();
        self.providers.insert(uuid, Provider { uuid, slug: slug.to_owned(), name: name.to_owned() });
        uuid
    }

    pub fn add_offering(&mut self, provider: Uuid, slug: &str, name: &str, kind: OfferingType) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick();
        self.offerings.insert(uuid, Offering::new(uuid, provider, slug, name, kind, created));
        uuid
    }

    /// Adds an organization that buys.
    pub fn add_customer(&mut self, slug: &str, name: &str) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick();
        self.customers.insert(uuid, Customer::new(uuid, slug, name, created));
        uuid
    }

    pub fn add_project(&mut self, customer: Uuid, slug: &str, name: &str) -> Uuid {
        let uuid = self.next_id();
        self.projects.insert(
            uuid,
            Project { uuid, customer, slug: slug.to_owned(), name: name.to_owned(), expired: false, end_date: None },
        );
        uuid
    }

    /// Adds a resource in this state, as if its order had been completed long ago.
    ///
    /// `record` holds the fields other than name, slug and state: `limits`, `attributes`, `options`, `backend_id` and so on,
    /// and overrides of fields that Waldur would return differently (a malformed value, for example).
    pub fn add_resource(
        &mut self,
        (offering, project): (Uuid, Uuid),
        slug: &str,
        state: ResourceState,
        record: Map<String, Value>,
    ) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick();
        let mut resource = Resource::new(uuid, offering, project, slug, state, created);
        resource.record.extend(record);
        self.resources.insert(uuid, resource);
        uuid
    }

    pub fn offering_by_slug(&self, slug: &str) -> Option<&Offering> {
        self.offerings.values().find(|offering| offering.slug == slug)
    }

    /// The first resource with this slug.
    pub fn resource_by_slug(&self, slug: &str) -> Option<&Resource> {
        self.resources.values().find(|resource| resource.text("slug") == slug)
    }

    /// The first resource with this slug.
    pub fn resource_by_slug_mut(&mut self, slug: &str) -> Option<&mut Resource> {
        self.resources.values_mut().find(|resource| resource.text("slug") == slug)
    }

    /// The resource's oldest open order.
    pub fn order_in_progress(&self, resource: &Resource) -> Option<&Order> {
        resource
            .orders
            .iter()
            .filter_map(|uuid| self.orders.get(uuid))
            .find(|order| order.state().is_some_and(OrderState::in_progress))
    }
}
