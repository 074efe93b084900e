//! Compares two listings, item by item, to find differences before a migration from one proxy to another.

mod changes;
mod known;
mod naming;
mod order;
mod pairs;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

pub use known::{KNOWN, Known};
pub use naming::Renamed;
pub use order::Order;

use crate::config::StorageSystem;
use crate::peer::{self, Document};

/// Additional information about the two listings.
#[derive(Debug, Default)]
pub struct Context {
    /// The storage systems that have different names in the two listings.
    pub renamed: Vec<Renamed>,
    /// Whether our identities may be invented (development mode).
    pub development_mode: bool,
    /// The errors of our skipped resources, by `itemId`.
    skipped: HashMap<String, String>,
}

impl Context {
    /// Derives the context from the settings and the listings.
    pub fn new(systems: &[StorageSystem], development_mode: bool, ours: &Document, theirs: &Document) -> Self {
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let skipped = ours.skipped.iter().filter_map(|entry| Some((text(entry, "itemId")?, text(entry, "error")?)));
        Self {
            renamed: naming::renamed(systems, &ours.items, &theirs.items),
            development_mode,
            skipped: skipped.collect(),
        }
    }

    /// The error for which a resource is skipped here.
    pub fn skipped(&self, item_id: &str) -> Option<&str> {
        self.skipped.get(item_id).map(String::as_str)
    }
}

/// A difference of one item.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference<'a> {
    /// `itemId` of the item.
    pub item_id: &'a str,
    /// Its `target.targetType`.
    pub target_type: &'a str,
    /// Its mount point.
    pub mount_point: &'a str,
    /// JSON path within the item; empty if one listing lacks the item.
    pub path: String,
    /// Our value; `None` if absent, which is different from null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<&'a Value>,
    /// Their value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<&'a Value>,
    /// The reason, if it is known and harmless.
    pub known: Option<&'static Known>,
}

/// The result of a comparison.
#[derive(Debug)]
pub struct Report<'a> {
    /// Number of items in both listings.
    pub compared: usize,
    /// All differences: those of our items in order, then items that only they have.
    pub differences: Vec<Difference<'a>>,
    /// How the order of the common items differs.
    pub order: Order<'a>,
}

/// Compares two listings.
pub fn compare<'a>(ours: &'a Document, theirs: &'a Document, context: &Context) -> Report<'a> {
    let pairs = pairs::pair(&ours.items, &theirs.items, &context.renamed);
    let mut differences = Vec::new();
    let mut add = |item: &'a Value, path: String, ours: Option<&'a Value>, theirs: Option<&'a Value>| {
        let [item_id, target_type, mount_point] = [peer::ID, peer::KIND, peer::MOUNT].map(|at| peer::text(item, at));
        let mut difference = Difference { item_id, target_type, mount_point, path, ours, theirs, known: None };
        difference.known = KNOWN.iter().find(|known| known.explains(&difference, context));
        differences.push(difference);
    };
    let partners: HashMap<usize, usize> = pairs.both.iter().copied().collect();
    for (at, item) in ours.items.iter().enumerate() {
        match partners.get(&at) {
            None => add(item, String::new(), Some(item), None),
            Some(there) => {
                for change in changes::changes(item, &theirs.items[*there]) {
                    add(item, change.path, change.ours, change.theirs);
                }
            }
        }
    }
    for at in &pairs.only_theirs {
        let item = &theirs.items[*at];
        add(item, String::new(), None, Some(item));
    }
    let order = order::order(&pairs.both, &ours.items);
    Report { compared: pairs.both.len(), differences, order }
}

impl Report<'_> {
    /// The differences without a known reason.
    pub fn unexplained(&self) -> impl Iterator<Item = &Difference<'_>> {
        self.differences.iter().filter(|difference| difference.known.is_none())
    }

    /// The number of differences for each known reason, in the order of [`KNOWN`]; reasons without differences are omitted.
    pub fn explained(&self) -> Vec<(&'static Known, usize)> {
        let count = |known: &'static Known| {
            let with = |difference: &&Difference<'_>| difference.known.is_some_and(|other| std::ptr::eq(other, known));
            (known, self.differences.iter().filter(with).count())
        };
        KNOWN.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}
