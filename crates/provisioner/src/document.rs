//! The document that the proxy publishes, read as strictly as a program must that runs as root.
//!
//! What an item says and cannot be understood makes that item [`Odd`]: it is held for a person, never guessed. What the
//! document lacks as a whole makes it unreadable: a list that is not complete is no list.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
pub use storage_driver::Mode;
use thiserror::Error;
use uuid::Uuid;

/// The longest text about an item that is shown whole, in characters.
const LONGEST_TEXT: usize = 1000;
/// The longest path that is taken for one, in bytes: the kernel's `PATH_MAX`.
const LONGEST_PATH: usize = 4096;

/// All that the proxy publishes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// Projects and users, in the document's order; each UUID once.
    pub resources: Vec<Resource>,
    /// Paths of tenants and customers with the mode that they have.
    pub nodes: Vec<Node>,
    /// Items that cannot be understood.
    pub odd: Vec<Odd>,
    /// Resources that the proxy itself leaves out, with its reason.
    pub skipped: Vec<Odd>,
    /// How long ago the proxy began to read it from Waldur.
    pub age: Duration,
}

/// A tenant's or customer's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Key of the storage system, in lower case.
    pub system: String,
    /// As published.
    pub path: String,
    /// Mode of the directory.
    pub mode: Mode,
}

/// A project's or user's directory as it shall be, and what Waldur is doing about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// UUID of the Waldur resource.
    pub id: Uuid,
    /// Key of the storage system, in lower case.
    pub system: String,
    /// As published.
    pub path: String,
    /// Status as published.
    pub status: Status,
    /// Whether it is a project's or a user's.
    pub kind: Kind,
    /// The slug it is known by, where there is one.
    pub name: Option<String>,
    /// Mode of the directory.
    pub mode: Mode,
    /// Group of the directory; `None` where none is known.
    pub gid: Option<u32>,
    /// Owner of a user's directory; `None` where none is known.
    pub uid: Option<u32>,
    /// Quotas that apply.
    pub quotas: Option<Quotas>,
    /// Quotas that the order in progress asks for; `None` where it changes none (decision D26).
    pub new_quotas: Option<Quotas>,
    /// Why the quotas cannot be trusted, as the proxy says.
    pub quota_problem: Option<QuotaProblem>,
    /// The order in progress.
    pub order: Option<Order>,
    /// Where to report.
    pub links: Links,
    /// Whether it is Creating in Waldur without an order and a backend ID: it has no claim to its path.
    pub unclaimed: bool,
}

/// Why quotas cannot be trusted: the document shows a number that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaProblem {
    /// Whether the order itself asks for a quota of 0: the only one of these problems that an order is to blame for.
    pub zero_ordered: bool,
    /// The cause, as the proxy says.
    pub detail: String,
}

/// Four numbers as published: TB and inodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quotas {
    /// Soft and hard space in TB, whatever that is on the system.
    pub space: [f64; 2],
    /// Soft and hard inodes.
    pub inodes: [f64; 2],
}

/// Status of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Is being made.
    Pending,
    /// Is in use.
    Active,
    /// Is being changed.
    Updating,
    /// Is asked to go. Alone it touches nothing.
    Removing,
    /// Is gone in Waldur.
    Removed,
    /// Failed.
    Error,
}

/// Whom a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A project's group.
    Project,
    /// One person.
    User,
}

/// An order in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its UUID.
    pub id: Uuid,
    /// What it does.
    pub kind: OrderKind,
    /// How far it is.
    pub state: OrderState,
    /// How Waldur treats orders of this offering.
    pub offering: Offering,
    /// The options that it asks for, which its approval says again (specification 8.2).
    pub new_options: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What an order does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// Makes a resource.
    Create,
    /// Brings a terminated resource back.
    Restore,
    /// Changes quotas or options.
    Update,
    /// Ends a resource.
    Terminate,
    /// Anything else: not understood, left alone.
    Other,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderState {
    /// Waits for the provider: for us.
    PendingProvider,
    /// Approved, not yet carried out.
    Executing,
    /// Waits for another party: the customer, the project or a date.
    Other,
}

/// How Waldur treats orders of an offering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Offering {
    /// Approval leads to executing; `done` ends the order (`Marketplace.Slurm`, the type for outside agents).
    SiteAgent,
    /// Approval ends the order (`Marketplace.Basic`).
    Basic,
    /// Not understood: left alone.
    Other,
}

/// Where to report, as far as the order's state allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Links {
    /// Accepts the order.
    #[serde(rename = "approve_by_provider_url")]
    pub approve: Option<String>,
    /// Refuses the order.
    #[serde(rename = "reject_by_provider_url")]
    pub reject: Option<String>,
    /// Says that the order is carried out.
    #[serde(rename = "set_state_done_url")]
    pub done: Option<String>,
    /// Says that the order failed for good.
    #[serde(rename = "set_state_erred_url")]
    pub erred: Option<String>,
    /// Tells Waldur the path.
    #[serde(rename = "set_backend_id_url")]
    pub backend_id: Option<String>,
    /// Says that the resource is in use.
    #[serde(rename = "set_state_ok_url")]
    pub ok: Option<String>,
}

impl Links {
    /// Every link that there is.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        [&self.approve, &self.reject, &self.done, &self.erred, &self.backend_id, &self.ok]
            .into_iter()
            .flatten()
            .map(|link| &**link)
    }
}

/// An item that is held for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// Its `itemId`, where that can be read.
    pub id: Option<Uuid>,
    /// What is odd about it.
    pub reason: String,
}

/// Why there is no document.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// Not what a proxy answers.
    #[error("page {page} of the proxy's answer is not the document: {reason}")]
    Page {
        /// Which page, from 1.
        page: usize,
        /// What is wrong, without any of the answer's text.
        reason: String,
    },
    /// An older proxy, or the Python one.
    #[error(
        "the document has no map `orders`, without which nothing can be approved or removed safely: it needs \
         hpc-storage-proxy 0.1.0 or newer as its source"
    )]
    NoOrders,
    /// The development mode of a proxy.
    #[error("the document's GIDs are invented (the proxy runs in development mode): nothing is made of them")]
    MockIdentities,
    /// The list changed while it was read.
    #[error("the document changed while its pages were read: {read} items of {total}")]
    Changed {
        /// Items read, each once.
        read: usize,
        /// Items there should be.
        total: usize,
    },
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    resources: Vec<&'a RawValue>,
    pagination: Pagination,
    #[serde(borrow, default)]
    orders: Option<Entries<'a>>,
    #[serde(borrow, default, rename = "quotaProblems")]
    quota_problems: Entries<'a>,
    #[serde(borrow, default, rename = "resourceLinks")]
    resource_links: Entries<'a>,
    #[serde(borrow, default)]
    skipped: Vec<&'a RawValue>,
    #[serde(default)]
    mock_identities: bool,
}

/// The entries of a map in their order, also those whose key comes twice.
#[derive(Default)]
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// What the document says of a resource in transition without an order.
#[derive(Deserialize, Default)]
struct ResourceLinks {
    set_state_ok_url: Option<String>,
    /// Null where Waldur has none; absent where the proxy does not say.
    #[serde(default, deserialize_with = "present")]
    backend_id: Option<Value>,
}

/// A value that is there, null or not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct WireProblem {
    code: String,
    detail: String,
}

#[derive(Deserialize)]
struct Pagination {
    total: usize,
    pages: usize,
}

#[derive(Deserialize, Default)]
struct Skipped {
    #[serde(rename = "itemId")]
    item_id: Option<Uuid>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(rename = "itemId")]
    id: Uuid,
    status: Status,
    mount_point: MountPoint,
    permission: Permission,
    storage_system: Named,
    target: Target,
    quotas: Option<Vec<Quota>>,
    new_quotas: Option<Vec<Quota>>,
    #[serde(flatten)]
    links: Links,
}

#[derive(Deserialize)]
struct MountPoint {
    default: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Permission {
    value: String,
    permission_type: String,
}

#[derive(Deserialize)]
struct Named {
    key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    target_type: String,
    target_item: TargetItem,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetItem {
    name: Option<String>,
    unix_gid: Option<u32>,
    unix_uid: Option<u32>,
    primary_project: Option<PrimaryProject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrimaryProject {
    unix_gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quota {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "quota")]
    value: f64,
    unit: String,
    enforcement_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOrder {
    uuid: Option<Uuid>,
    #[serde(rename = "type")]
    kind: Option<String>,
    state: Option<String>,
    offering_type: Option<String>,
    new_options: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How many pages the walk has, as the first one says.
pub fn pages(first: &[u8]) -> Result<usize, Unreadable> {
    page(0, first).map(|page| page.pagination.pages)
}

/// The document from the bodies of all its pages, in their order; complete, or an error.
///
/// With `mock_identities` the invented GIDs of a proxy in development mode are taken for real ones.
pub fn assemble(bodies: &[Vec<u8>], mock_identities: bool) -> Result<Document, Unreadable> {
    let mut document = Document::default();
    let (mut seen, mut read, mut total) = (BTreeMap::new(), 0, None);
    for (at, body) in bodies.iter().enumerate() {
        let page = page(at, body)?;
        let orders = page.orders.ok_or(Unreadable::NoOrders)?;
        if page.mock_identities && !mock_identities {
            return Err(Unreadable::MockIdentities);
        }
        if *total.get_or_insert(page.pagination.total) != page.pagination.total {
            return Err(Unreadable::Changed { read, total: page.pagination.total });
        }
        read += page.resources.len();
        let beside = Beside {
            orders: by_item(orders, "orders", &mut document.odd),
            quota_problems: by_item(page.quota_problems, "quotaProblems", &mut document.odd),
            resource_links: by_item(page.resource_links, "resourceLinks", &mut document.odd),
        };
        for raw in page.resources {
            take(raw, &beside, &mut seen, &mut document);
        }
        if at == 0 {
            document.skipped = page.skipped.into_iter().map(skipped).collect();
        }
    }
    // Of items with one UUID none can be trusted.
    let is_double = |id: &Uuid| seen.get(id).is_some_and(|count| *count > 1);
    document.resources.retain(|resource| !is_double(&resource.id));
    let doubles = seen.keys().filter(|id| is_double(id));
    let odd = |id: &Uuid| Odd { id: Some(*id), reason: "two items have this itemId".into() };
    document.odd.extend(doubles.map(odd));
    match total {
        Some(total) if total == read => Ok(document),
        total => Err(Unreadable::Changed { read, total: total.unwrap_or_default() }),
    }
}

fn page(at: usize, body: &[u8]) -> Result<Page<'_>, Unreadable> {
    // Where it stops being the document may be told, what stands there may not: it is not ours to print.
    serde_json::from_slice(body).map_err(|error| Unreadable::Page {
        page: at + 1,
        reason: format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()),
    })
}

/// What stands beside the items of a page, by `itemId`; `None` for an item with several entries.
struct Beside<'a> {
    orders: BTreeMap<Uuid, Option<&'a RawValue>>,
    quota_problems: BTreeMap<Uuid, Option<&'a RawValue>>,
    resource_links: BTreeMap<Uuid, Option<&'a RawValue>>,
}

/// The entries of a map by the item that they are for. A key that is no UUID is for no item that can be named: only itself is
/// reported.
fn by_item<'a>(entries: Entries<'a>, name: &str, odd: &mut Vec<Odd>) -> BTreeMap<Uuid, Option<&'a RawValue>> {
    let mut by_item = BTreeMap::new();
    for (key, entry) in entries.0 {
        match Uuid::try_parse(&key) {
            // One UUID twice, be it in two spellings.
            Ok(id) => _ = by_item.entry(id).and_modify(|entry| *entry = None).or_insert(Some(entry)),
            Err(_) => odd.push(Odd { id: None, reason: format!("a key of the map `{name}` is not a UUID") }),
        }
    }
    by_item
}

fn skipped(raw: &RawValue) -> Odd {
    match serde_json::from_str::<Skipped>(raw.get()) {
        Ok(it) => Odd { id: it.item_id, reason: short(&format!("{}: {}", it.error, it.detail)) },
        Err(_) => Odd { id: None, reason: "an entry of the list `skipped` cannot be read".to_owned() },
    }
}

/// A text of the proxy's, cut where it is longer than any that it writes: it is repeated in logs, in plans and to customers.
fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Puts one item where it belongs.
fn take(raw: &RawValue, beside: &Beside<'_>, seen: &mut BTreeMap<Uuid, usize>, document: &mut Document) {
    let item: Item = match serde_json::from_str(raw.get()) {
        Ok(item) => item,
        Err(error) => {
            let id = serde_json::from_str::<Id>(raw.get()).ok().map(|id| id.item_id);
            *seen.entry(id.unwrap_or_default()).or_default() += usize::from(id.is_some());
            document.odd.push(Odd { id, reason: short(&format!("the item cannot be understood: {error}")) });
            return;
        }
    };
    let id = item.id;
    // Tenants and customers may repeat themselves: nothing is done for them.
    let is_node = matches!(item.target.target_type.as_str(), "tenant" | "customer");
    *seen.entry(id).or_default() += usize::from(!is_node);
    let mut odd = |reason: &str| document.odd.push(Odd { id: Some(id), reason: reason.to_owned() });
    let mode = Mode::parse(&item.permission.value).filter(|_| item.permission.permission_type == "octal");
    let Some(mode) = mode else { return odd("the permission is not three or four octal digits") };
    let (system, path) = (item.storage_system.key.to_lowercase(), item.mount_point.default);
    if path.len() > LONGEST_PATH {
        return odd("its path is longer than any that a system has");
    }
    let kind = match item.target.target_type.as_str() {
        "tenant" | "customer" => return document.nodes.push(Node { system, path, mode }),
        "project" => Kind::Project,
        "user" => Kind::User,
        _ => return odd("the target is neither a tenant nor a customer, project or user"),
    };
    let Ok(quotas) = item.quotas.map(four).transpose() else {
        return odd("the quotas are not the four that they should be");
    };
    let Ok(new_quotas) = item.new_quotas.map(four).transpose() else {
        return odd("the new quotas are not the four that they should be");
    };
    let order = match beside.orders.get(&id).map(|raw| raw.and_then(order)) {
        Some(None) => return odd("the order in progress cannot be understood: its UUID, its state or its options"),
        Some(order) => order,
        None => None,
    };
    let quota_problem =
        beside.quota_problems.get(&id).map(|raw| raw.map_or_else(QuotaProblem::unreadable, quota_problem));
    let (target, mut links) = (item.target.target_item, item.links);
    // What cannot be read there is not there: the resource waits for a person.
    let entry = beside.resource_links.get(&id).copied().flatten();
    let of_resource: ResourceLinks = entry.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    links.ok = links.ok.or(of_resource.set_state_ok_url);
    let unclaimed = item.status == Status::Pending && order.is_none() && of_resource.backend_id == Some(Value::Null);
    let gid = match kind {
        Kind::Project => target.unix_gid,
        Kind::User => target.primary_project.and_then(|project| project.unix_gid),
    };
    let (name, uid, status) = (target.name, target.unix_uid, item.status);
    document.resources.push(Resource {
        id,
        system,
        path,
        status,
        kind,
        name,
        mode,
        gid,
        uid,
        quotas,
        new_quotas,
        quota_problem,
        order,
        links,
        unclaimed,
    });
}

#[derive(Deserialize)]
struct Id {
    #[serde(rename = "itemId")]
    item_id: Uuid,
}

/// Soft space, hard space, soft inodes, hard inodes: exactly these.
fn four(quotas: Vec<Quota>) -> Result<Quotas, ()> {
    let expected =
        [("space", "tera", "soft"), ("space", "tera", "hard"), ("inodes", "none", "soft"), ("inodes", "none", "hard")];
    let quotas: [Quota; 4] = quotas.try_into().map_err(|_| ())?;
    let fits = |(quota, expected): (&Quota, (&str, &str, &str))| {
        (quota.kind.as_str(), quota.unit.as_str(), quota.enforcement_type.as_str()) == expected
    };
    if !quotas.iter().zip(expected).all(fits) {
        return Err(());
    }
    let [space_soft, space_hard, inodes_soft, inodes_hard] = quotas.map(|quota| quota.value);
    Ok(Quotas { space: [space_soft, space_hard], inodes: [inodes_soft, inodes_hard] })
}

impl QuotaProblem {
    /// An entry that says that there is a problem, but not which.
    fn unreadable() -> Self {
        Self {
            zero_ordered: false,
            detail: "the proxy reports a problem with the quotas, but it cannot be read".to_owned(),
        }
    }
}

/// An entry of `quotaProblems`. A code that is not known here is a problem all the same.
fn quota_problem(raw: &RawValue) -> QuotaProblem {
    match serde_json::from_str::<WireProblem>(raw.get()) {
        Ok(WireProblem { code, detail }) => {
            QuotaProblem { zero_ordered: code == "zero_ordered", detail: short(&detail) }
        }
        Err(_) => QuotaProblem::unreadable(),
    }
}

fn order(raw: &RawValue) -> Option<Order> {
    let order: WireOrder = serde_json::from_str(raw.get()).ok()?;
    Some(Order {
        id: order.uuid?,
        kind: match order.kind.as_deref() {
            Some("Create") => OrderKind::Create,
            Some("Restore") => OrderKind::Restore,
            Some("Update") => OrderKind::Update,
            Some("Terminate") => OrderKind::Terminate,
            _ => OrderKind::Other,
        },
        state: match order.state.as_deref() {
            Some("pending-provider") => OrderState::PendingProvider,
            Some("executing") => OrderState::Executing,
            Some("pending-consumer" | "pending-project" | "pending-start-date") => OrderState::Other,
            // Nobody knows whose turn it is: a person looks.
            _ => return None,
        },
        offering: match order.offering_type.as_deref() {
            Some("Marketplace.Slurm" | "Marketplace.SiteAgent") => Offering::SiteAgent,
            Some("Marketplace.Basic") => Offering::Basic,
            _ => Offering::Other,
        },
        new_options: order.new_options,
    })
}

#[cfg(test)]
mod tests;
