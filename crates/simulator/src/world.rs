//! What the simulated services hold: plain data that a test builds, changes and asserts on.
//!
//! A [`World`] knows nothing of HTTP. Rows are kept as JSON maps, as a Waldur database would answer them; what a row
//! shows of its offering, project and customer is joined when it is answered, so a renamed project is renamed
//! everywhere at once, as in Waldur.

mod demo;
mod golden;
mod large;
mod ordering;
mod rows;
mod stamp;
mod state;
mod transitions;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use ordering::NewResource;
pub use rows::{Customer, Offering, OfferingType, Order, Project, Provider, Resource, Role, Usage, User};
pub use stamp::Stamp;
pub use state::{OrderState, OrderType, Release, ResourceState};
pub use transitions::Refusal;

/// Token of the user `storage-proxy` of every built world: a service provider's user, as the proxy is configured with.
pub const PROVIDER_TOKEN: &str = "0123456789abcdef0123456789abcdef01234567";

/// In which order a list answers its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// As asked with `o=`, by `created` without it; rows that are equal by that keep the world's order.
    #[default]
    Asked,
    /// As asked, but rows that are equal by that come in another order on every page, as a database may give them.
    AskedWithoutTieBreak,
    /// As they stand in the world, whatever `o=` and `visible_to_providers=` say: for recorded cases, whose upstream
    /// knew neither.
    AsGiven,
}

/// Everything that Waldur and the HPC User API know.
#[expect(clippy::struct_excessive_bools, reason = "independent ways in which Waldurs differ")]
#[derive(Debug, Clone)]
pub struct World {
    /// Which release's semantics Waldur follows.
    pub release: Release,
    /// The simulated Waldur's clock; every change moves it on by a millisecond.
    pub now: Stamp,
    /// In which order lists answer.
    pub rows: RowOrder,
    /// Organisations that own offerings.
    pub providers: IndexMap<Uuid, Provider>,
    /// What is sold.
    pub offerings: IndexMap<Uuid, Offering>,
    /// Organisations that buy.
    pub customers: IndexMap<Uuid, Customer>,
    /// Projects of the customers.
    pub projects: IndexMap<Uuid, Project>,
    /// Waldur's users, each with a token.
    pub users: Vec<User>,
    /// Marketplace resources, in the order they were made.
    pub resources: IndexMap<Uuid, Resource>,
    /// Marketplace orders, in the order they were made.
    pub orders: IndexMap<Uuid, Order>,
    /// Reported usage, one a resource, component and month.
    pub usages: Vec<Usage>,
    /// What the HPC User API knows.
    pub hpc: Hpc,
    /// Whether newer releases have the call `set_state_ok` of resources; 7.0.x never has.
    pub has_set_state_ok: bool,
    /// Whether newer releases end an order of options when it is approved.
    pub options_end_on_approval: bool,
    /// Whether `set_backend_id` refuses an id that another resource of the offering has.
    pub unique_backend_ids: bool,
    /// Whether the background worker lags: an approval then leaves the rest to [`World::run_worker`], which overwrites whatever
    /// the resource has become since.
    pub worker_lags: bool,
    /// What the worker still has to do, oldest first.
    queued: Vec<Queued>,
    ids: u64,
}

/// What an approval leaves to the background worker.
#[derive(Debug, Clone, Copy)]
enum Queued {
    /// Set this state of a resource.
    State(Uuid, ResourceState),
    /// Complete this order, if it is still executing.
    Finish(Uuid),
}

/// What the HPC User API knows, and what it accepts.
#[derive(Debug, Clone)]
pub struct Hpc {
    /// Rows of `projects`, normally `{"posixName", "unixGid"}`. A GID may be null; a name may be there twice.
    pub projects: Vec<Value>,
    /// Answers of the user endpoint, by user name.
    pub users: IndexMap<String, Value>,
    /// Opaque bearer tokens that are accepted beside the realm's own, each with the Unix time at which it expires.
    pub tokens: IndexMap<String, Option<u64>>,
    /// A longer request line, in bytes, is answered with 414.
    pub request_line_limit: usize,
}

impl Default for Hpc {
    fn default() -> Self {
        Self { projects: Vec::new(), users: IndexMap::new(), tokens: IndexMap::new(), request_line_limit: 8192 }
    }
}

impl Hpc {
    /// Adds a project; `None` is a project that has no GID yet.
    pub fn add_project(&mut self, slug: &str, gid: Option<u32>) {
        self.projects.push(json!({ "posixName": slug, "unixGid": gid }));
    }

    /// Gives every row of this project another GID, or adds the project.
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
    /// A Waldur without offerings, customers and resources. It has users: `staff`, `support`, `stranger`, `inactive`
    /// (deactivated), `expired` (its token has expired), and `storage-proxy` with [`PROVIDER_TOKEN`] and no role yet.
    pub fn empty() -> Self {
        let mut world = Self {
            release: Release::Newer,
            now: Stamp::parse("2026-01-01T00:00:00Z").unwrap_or_default(),
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

    /// A fresh identifier; the same sequence in every run.
    pub fn next_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("simulator:{}", self.ids).as_bytes())
    }

    /// Moves the clock on by a millisecond and answers the new time.
    pub fn tick(&mut self) -> Stamp {
        self.now = self.now.plus_micros(1_000);
        self.now
    }

    /// A point in time as this release writes it: `…+00:00`, in 7.0.x `…Z`.
    pub fn written(&self, stamp: Stamp) -> String {
        let text = stamp.text();
        match self.release {
            Release::Newer => text,
            Release::V7_0 => text.replace("+00:00", "Z"),
        }
    }

    /// Adds a user without any role; the token is 40 hexadecimal digits that follow from the name.
    pub fn add_user(&mut self, username: &str) -> &mut User {
        let uuid = self.next_id();
        self.users.push(User::new(uuid, username));
        let last = self.users.len() - 1;
        &mut self.users[last]
    }

    /// The user of this name, to look at or to change.
    pub fn user_mut(&mut self, username: &str) -> Option<&mut User> {
        self.users.iter_mut().find(|user| user.username == username)
    }

    /// The token of this user.
    pub fn token(&self, username: &str) -> Option<String> {
        self.users.iter().find(|user| user.username == username).map(|user| user.token.clone())
    }

    /// Gives a user a role; an unknown user is left alone.
    pub fn grant(&mut self, username: &str, role: Role) {
        if let Some(user) = self.user_mut(username) {
            user.roles.push(role);
        }
    }

    /// Adds an organisation that owns offerings.
    pub fn add_provider(&mut self, slug: &str, name: &str) -> Uuid {
        let uuid = self.next_id();
        self.providers.insert(uuid, Provider { uuid, slug: slug.to_owned(), name: name.to_owned() });
        uuid
    }

    /// Adds an offering of a provider.
    pub fn add_offering(&mut self, provider: Uuid, slug: &str, name: &str, kind: OfferingType) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick();
        self.offerings.insert(uuid, Offering::new(uuid, provider, slug, name, kind, created));
        uuid
    }

    /// Adds an organisation that buys.
    pub fn add_customer(&mut self, slug: &str, name: &str) -> Uuid {
        let uuid = self.next_id();
        let created = self.tick();
        self.customers.insert(uuid, Customer::new(uuid, slug, name, created));
        uuid
    }

    /// Adds a project of a customer.
    pub fn add_project(&mut self, customer: Uuid, slug: &str, name: &str) -> Uuid {
        let uuid = self.next_id();
        self.projects.insert(
            uuid,
            Project { uuid, customer, slug: slug.to_owned(), name: name.to_owned(), expired: false, end_date: None },
        );
        uuid
    }

    /// Puts a resource into the world in this state, as if its order had been done long ago.
    ///
    /// `record` holds what the row says beyond name, slug and state: `limits`, `attributes`, `options`, `backend_id`
    /// and so on, and any field that is to be shown otherwise than Waldur would (a malformed value, say).
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

    /// The offering with this slug.
    pub fn offering_by_slug(&self, slug: &str) -> Option<&Offering> {
        self.offerings.values().find(|offering| offering.slug == slug)
    }

    /// The first resource with this slug.
    pub fn resource_by_slug(&self, slug: &str) -> Option<&Resource> {
        self.resources.values().find(|resource| resource.text("slug") == slug)
    }

    /// The first resource with this slug, to change it.
    pub fn resource_by_slug_mut(&mut self, slug: &str) -> Option<&mut Resource> {
        self.resources.values_mut().find(|resource| resource.text("slug") == slug)
    }

    /// The resource's oldest order that is still open, if any.
    pub fn order_in_progress(&self, resource: &Resource) -> Option<&Order> {
        resource
            .orders
            .iter()
            .filter_map(|uuid| self.orders.get(uuid))
            .find(|order| order.state().is_some_and(OrderState::in_progress))
    }
}
