//! Two listings held against each other, item by item: what a site that moves from one proxy to another wants to know
//! before any client does.
//!
//! All of it is pure but for `peer`, which reads the listing of a proxy that runs.

mod changes;
mod known;
mod naming;
mod order;
mod pairs;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

pub use known::{KNOWN, Known};
pub use naming::Renamed;
pub use order::Order;
pub use peer::{Credential, Peer, PeerError};

use crate::config::StorageSystem;

/// A listing in one piece: the items of all pages, and what was left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// The items in their order.
    pub items: Vec<Value>,
    /// Entries of `skipped`; none where a proxy knows no such list.
    pub skipped: Vec<Value>,
}

/// What is known about the two listings beside what they say.
#[derive(Debug, Default)]
pub struct Context {
    /// The storage systems that the two call by different names.
    pub renamed: Vec<Renamed>,
    /// Whether identities may be invented here (development mode).
    pub development_mode: bool,
    /// Why resources are left out here, by their `itemId`.
    skipped: HashMap<String, String>,
}

impl Context {
    /// What the settings and the listings themselves tell.
    pub fn new(systems: &[StorageSystem], development_mode: bool, ours: &Document, theirs: &Document) -> Self {
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let skipped = ours.skipped.iter().filter_map(|entry| Some((text(entry, "itemId")?, text(entry, "error")?)));
        Self {
            renamed: naming::renamed(systems, &ours.items, &theirs.items),
            development_mode,
            skipped: skipped.collect(),
        }
    }

    /// The error for which a resource is left out here.
    pub fn skipped(&self, item_id: &str) -> Option<&str> {
        self.skipped.get(item_id).map(String::as_str)
    }
}

/// Something that the two say differently about one item.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference<'a> {
    /// `itemId` of the item.
    pub item_id: &'a str,
    /// Its `target.targetType`.
    pub target_type: &'a str,
    /// Its mount point.
    pub mount_point: &'a str,
    /// JSON path within the item; empty: one of the two has no such item.
    pub path: String,
    /// What is said here; `None`: nothing at all, which is not the same as null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<&'a Value>,
    /// What is said there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<&'a Value>,
    /// Why they differ, where that is known and no reason to worry.
    pub known: Option<&'static Known>,
}

/// What came of a comparison.
#[derive(Debug)]
pub struct Report<'a> {
    /// Items that both have.
    pub compared: usize,
    /// Every difference: of the items in our order, then what only they have.
    pub differences: Vec<Difference<'a>>,
    /// How the order of the items that both have differs.
    pub order: Order<'a>,
}

/// Holds two listings against each other.
pub fn compare<'a>(ours: &'a Document, theirs: &'a Document, context: &Context) -> Report<'a> {
    let pairs = pairs::pair(&ours.items, &theirs.items, &context.renamed);
    let mut differences = Vec::new();
    let mut tell = |item: &'a Value, path: String, ours: Option<&'a Value>, theirs: Option<&'a Value>| {
        let [item_id, target_type, mount_point] =
            [pairs::ID, pairs::KIND, pairs::MOUNT].map(|at| pairs::text(item, at));
        let mut difference = Difference { item_id, target_type, mount_point, path, ours, theirs, known: None };
        difference.known = KNOWN.iter().find(|known| known.explains(&difference, context));
        differences.push(difference);
    };
    let partners: HashMap<usize, usize> = pairs.both.iter().copied().collect();
    for (at, item) in ours.items.iter().enumerate() {
        match partners.get(&at) {
            None => tell(item, String::new(), Some(item), None),
            Some(there) => {
                for change in changes::changes(item, &theirs.items[*there]) {
                    tell(item, change.path, change.ours, change.theirs);
                }
            }
        }
    }
    for at in &pairs.only_theirs {
        let item = &theirs.items[*at];
        tell(item, String::new(), None, Some(item));
    }
    let order = order::order(&pairs.both, &ours.items);
    Report { compared: pairs.both.len(), differences, order }
}

impl Report<'_> {
    /// The differences without a known reason.
    pub fn unexplained(&self) -> impl Iterator<Item = &Difference<'_>> {
        self.differences.iter().filter(|difference| difference.known.is_none())
    }

    /// How many differences have each known reason, in the order of [`KNOWN`]; those that have none are left out.
    pub fn explained(&self) -> Vec<(&'static Known, usize)> {
        let count = |known: &'static Known| {
            let with = |difference: &&Difference<'_>| difference.known.is_some_and(|other| std::ptr::eq(other, known));
            (known, self.differences.iter().filter(with).count())
        };
        KNOWN.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}
