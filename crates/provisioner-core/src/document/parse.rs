//! Builds the document from the pages that the proxy returned.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use storage_driver::Mode;
use uuid::Uuid;

use super::wire::{self, Entries, Item, ItemId, Page, ResourceLinks, Skipped};
use super::{
    Document, DocumentError, Kind, Node, Offering, Order, OrderKind, OrderState, QuotaProblem, Quotas, RejectedItem,
    Resource, Status,
};

/// Maximum length of the proxy's texts about an item, in characters. The rest is cut off.
const MAX_TEXT: usize = 1000;
/// The longest path in bytes: the kernel's `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// The number of pages that the document has, according to its first one.
pub fn page_count(first: &[u8]) -> Result<usize, DocumentError> {
    parse_page(1, first).map(|page| page.pagination.pages)
}

/// Parses the document from the bodies of all its pages, in order.
///
/// `mock_identities` accepts the invented GIDs of a proxy in development mode.
pub fn parse(bodies: &[Vec<u8>], mock_identities: bool) -> Result<Document, DocumentError> {
    let mut document = Document::default();
    let (mut occurrences, mut read, mut total) = (BTreeMap::new(), 0, None);
    for (number, body) in (1..).zip(bodies) {
        let page = parse_page(number, body)?;
        let orders = page.orders.ok_or(DocumentError::NoOrders)?;
        if page.mock_identities && !mock_identities {
            return Err(DocumentError::MockIdentities);
        }
        if *total.get_or_insert(page.pagination.total) != page.pagination.total {
            return Err(DocumentError::Changed { read, total: page.pagination.total });
        }
        read += page.resources.len();
        let maps = Maps {
            orders: by_item(orders, "orders", &mut document.rejected),
            quota_problems: by_item(page.quota_problems, "quotaProblems", &mut document.rejected),
            resource_links: by_item(page.resource_links, "resourceLinks", &mut document.rejected),
        };
        for raw in page.resources {
            add_item(raw, &maps, &mut occurrences, &mut document);
        }
        if number == 1 {
            document.skipped = page.skipped.into_iter().map(skipped).collect();
        }
    }
    // Of several items with the same UUID, none can be trusted.
    occurrences.retain(|_, count| *count > 1);
    document.resources.retain(|resource| !occurrences.contains_key(&resource.id));
    let repeated = |id: Uuid| RejectedItem { id: Some(id), reason: "two items have this itemId".into() };
    document.rejected.extend(occurrences.into_keys().map(repeated));
    match total {
        Some(total) if total == read => Ok(document),
        total => Err(DocumentError::Changed { read, total: total.unwrap_or_default() }),
    }
}

fn parse_page(number: usize, body: &[u8]) -> Result<Page<'_>, DocumentError> {
    // The position of the error may be logged, the text there may not: it can be anything.
    serde_json::from_slice(body).map_err(|error| DocumentError::Page {
        page: number,
        reason: format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()),
    })
}

/// The maps of a page by `itemId`; `None` for an item with several entries.
struct Maps<'a> {
    orders: BTreeMap<Uuid, Option<&'a RawValue>>,
    quota_problems: BTreeMap<Uuid, Option<&'a RawValue>>,
    resource_links: BTreeMap<Uuid, Option<&'a RawValue>>,
}

/// The entries of a map by item. A key that is not a UUID is rejected by itself, because it belongs to no item.
fn by_item<'a>(
    entries: Entries<'a>,
    name: &str,
    rejected: &mut Vec<RejectedItem>,
) -> BTreeMap<Uuid, Option<&'a RawValue>> {
    let mut by_item = BTreeMap::new();
    for (key, entry) in entries.0 {
        match Uuid::try_parse(&key) {
            // A UUID can occur twice in different spellings.
            Ok(id) => _ = by_item.entry(id).and_modify(|entry| *entry = None).or_insert(Some(entry)),
            Err(_) => {
                rejected.push(RejectedItem { id: None, reason: format!("a key of the map `{name}` is not a UUID") });
            }
        }
    }
    by_item
}

fn skipped(raw: &RawValue) -> RejectedItem {
    match serde_json::from_str::<Skipped>(raw.get()) {
        Ok(it) => RejectedItem { id: it.item_id, reason: truncated(&format!("{}: {}", it.error, it.detail)) },
        Err(_) => RejectedItem { id: None, reason: "an entry of the list `skipped` cannot be read".to_owned() },
    }
}

/// Cuts a text from the proxy to [`MAX_TEXT`], because it is repeated in logs, in plans and to customers.
fn truncated(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Adds one item to the document.
fn add_item(raw: &RawValue, maps: &Maps<'_>, occurrences: &mut BTreeMap<Uuid, usize>, document: &mut Document) {
    let item: Item = match serde_json::from_str(raw.get()) {
        Ok(item) => item,
        Err(error) => {
            let id = serde_json::from_str::<ItemId>(raw.get()).ok().map(|item| item.id);
            if let Some(id) = id {
                *occurrences.entry(id).or_default() += 1;
            }
            document.rejected.push(RejectedItem { id, reason: truncated(&error.to_string()) });
            return;
        }
    };
    let id = item.id;
    // Tenants and customers may be repeated: they are not provisioned.
    let is_node = matches!(item.target.target_type.as_str(), "tenant" | "customer");
    *occurrences.entry(id).or_default() += usize::from(!is_node);
    match parse_item(item, maps) {
        Ok(Parsed::Node(node)) => document.nodes.push(node),
        Ok(Parsed::Resource(resource)) => document.resources.push(*resource),
        Err(reason) => document.rejected.push(RejectedItem { id: Some(id), reason: reason.to_owned() }),
    }
}

enum Parsed {
    Node(Node),
    Resource(Box<Resource>),
}

fn parse_item(item: Item, maps: &Maps<'_>) -> Result<Parsed, &'static str> {
    let id = item.id;
    let mode = Mode::parse(&item.permission.value).filter(|_| item.permission.permission_type == "octal");
    let mode = mode.ok_or("the permission is not three or four octal digits")?;
    let (system, path) = (item.storage_system.key.to_lowercase(), item.mount_point.default);
    if path.len() > MAX_PATH {
        return Err("the path is longer than 4096 bytes");
    }
    let kind = match item.target.target_type.as_str() {
        "tenant" | "customer" => return Ok(Parsed::Node(Node { system, path, mode })),
        "project" => Kind::Project,
        "user" => Kind::User,
        _ => return Err("the target is not a tenant, customer, project or user"),
    };
    let parse_four =
        |quotas: Option<Vec<wire::Quota>>, reason| quotas.map(parse_quotas).transpose().map_err(|()| reason);
    let quotas = parse_four(item.quotas, "the quotas are not soft and hard space and soft and hard inodes")?;
    let new_quotas =
        parse_four(item.new_quotas, "the new quotas are not soft and hard space and soft and hard inodes")?;
    let order = maps.orders.get(&id).map(|raw| {
        let order = raw.and_then(parse_order);
        order.ok_or("the order in progress cannot be understood: check its UUID, state and options in Waldur")
    });
    let order = order.transpose()?;
    let quota_problem =
        maps.quota_problems.get(&id).map(|raw| raw.map_or_else(QuotaProblem::unreadable, parse_quota_problem));
    let (target, mut links) = (item.target.target_item, item.links);
    // An unreadable entry counts as absent. The resource is then held for an operator.
    let entry = maps.resource_links.get(&id).copied().flatten();
    let entry: ResourceLinks = entry.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    links.ok = links.ok.or(entry.set_state_ok_url);
    let unclaimed = item.status == Status::Pending && order.is_none() && entry.backend_id == Some(Value::Null);
    let gid = match kind {
        Kind::Project => target.unix_gid,
        Kind::User => target.primary_project.and_then(|project| project.unix_gid),
    };
    let (name, uid, status) = (target.name, target.unix_uid, item.status);
    Ok(Parsed::Resource(Box::new(Resource {
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
    })))
}

/// Parses soft space, hard space, soft inodes and hard inodes, in this order.
fn parse_quotas(quotas: Vec<wire::Quota>) -> Result<Quotas, ()> {
    let expected =
        [("space", "tera", "soft"), ("space", "tera", "hard"), ("inodes", "none", "soft"), ("inodes", "none", "hard")];
    let quotas: [wire::Quota; 4] = quotas.try_into().map_err(|_| ())?;
    let fits = |(quota, expected): (&wire::Quota, (&str, &str, &str))| {
        (quota.kind.as_str(), quota.unit.as_str(), quota.enforcement_type.as_str()) == expected
    };
    if !quotas.iter().zip(expected).all(fits) {
        return Err(());
    }
    let [space_soft, space_hard, inodes_soft, inodes_hard] = quotas.map(|quota| quota.value);
    Ok(Quotas { space: [space_soft, space_hard], inodes: [inodes_soft, inodes_hard] })
}

impl QuotaProblem {
    fn unreadable() -> Self {
        let detail = "the proxy reports a problem with the quotas, but its report cannot be read".to_owned();
        Self { zero_ordered: false, detail }
    }
}

/// Parses an entry of `quotaProblems`. An entry with an unknown code also counts as a problem.
fn parse_quota_problem(raw: &RawValue) -> QuotaProblem {
    match serde_json::from_str::<wire::QuotaProblem>(raw.get()) {
        Ok(it) => QuotaProblem { zero_ordered: it.code == "zero_ordered", detail: truncated(&it.detail) },
        Err(_) => QuotaProblem::unreadable(),
    }
}

fn parse_order(raw: &RawValue) -> Option<Order> {
    let order: wire::Order = serde_json::from_str(raw.get()).ok()?;
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
            // It is unknown which party has to act next.
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
