//! `tree`: the catalogue as the hierarchy of directories that it is.
//!
//! The nodes above an item are shown whatever their own status, which is always `pending`: a filter by status selects
//! projects and users, and a tree of them needs its trunk.

use std::collections::HashMap;

use catalog::{Filter, Skipped};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::row::{self, Branch, Rank};
use super::{Entry, entries, tell_skipped};
use crate::cli::Failure;
use crate::cli::terminal::{self, Terminal};
use crate::config::Loaded;

/// The tree as a script gets it.
#[derive(Serialize)]
struct Document<'a> {
    tree: Vec<Node<'a>>,
    skipped: &'a [&'a Skipped],
}

/// An item, as the API shows it, and those below it.
#[derive(Serialize)]
struct Node<'a> {
    item: &'a RawValue,
    children: Vec<Node<'a>>,
}

/// Positions of the items without a parent, and of those below each item.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
}

/// Shows what the filter selects. Whether the API answers at all.
pub(in crate::cli) async fn run(
    loaded: &Loaded,
    filter: &Filter,
    json: bool,
    terminal: Terminal,
) -> Result<bool, Failure> {
    let snapshot = super::read(loaded, terminal).await?;
    let mut entries = entries(&snapshot.page(&Filter { status: None, ..filter.clone() }, 0, usize::MAX))?;
    if let Some(status) = filter.status {
        entries.retain(|(_, item)| item.rank() != Rank::Leaf || item.status == status.as_str());
        let shape = shape(&entries);
        let bears: Vec<_> = (0..entries.len()).map(|position| shape.bears(&entries, position)).collect();
        entries = entries.into_iter().zip(bears).filter_map(|(entry, bears)| bears.then_some(entry)).collect();
    }
    let skipped = snapshot.page(filter, 0, 0).skipped;
    let shape = shape(&entries);
    if json {
        let tree = shape.roots.iter().map(|root| shape.node(&entries, *root)).collect();
        terminal::print_json(&Document { tree, skipped: &skipped })?;
    } else if entries.is_empty() {
        terminal::tell("There are no such storage resources.");
    } else {
        let rows = shape.guided().into_iter().map(|(guide, position)| (guide, &entries[position].1));
        terminal::print(&row::table(rows, false, terminal))?;
    }
    Ok(tell_skipped(&skipped, loaded))
}

/// Finds the place of each item.
///
/// Tenants and customers of several systems and data types share one id, and tenants of one offering too, so the branch
/// decides, and after it the path.
fn shape(entries: &[Entry]) -> Shape {
    let mut nodes: HashMap<(Uuid, Branch<'_>), Vec<usize>> = HashMap::new();
    for (position, (_, item)) in entries.iter().enumerate() {
        if item.rank() != Rank::Leaf {
            nodes.entry((item.id, item.branch())).or_default().push(position);
        }
    }
    let mut shape = Shape { roots: Vec::new(), children: vec![Vec::new(); entries.len()] };
    for (position, (_, item)) in entries.iter().enumerate() {
        let candidates = item.parent_item_id.and_then(|parent| nodes.get(&(parent, item.branch())));
        let candidates = || {
            let above = |candidate: &&usize| entries[**candidate].1.rank() < item.rank();
            candidates.into_iter().flatten().filter(above)
        };
        let holds = |candidate: &&usize| is_below(item.mount_point(), entries[**candidate].1.mount_point());
        match candidates().find(holds).or_else(|| candidates().next()) {
            Some(parent) => shape.children[*parent].push(position),
            None => shape.roots.push(position),
        }
    }
    shape
}

fn is_below(path: &str, node: &str) -> bool {
    path.strip_prefix(node).is_some_and(|rest| rest.starts_with('/'))
}

impl Shape {
    /// Whether a project or user is at this position or below it.
    fn bears(&self, entries: &[Entry], position: usize) -> bool {
        entries[position].1.rank() == Rank::Leaf
            || self.children[position].iter().any(|child| self.bears(entries, *child))
    }

    fn node<'a>(&self, entries: &'a [Entry], position: usize) -> Node<'a> {
        let children = self.children[position].iter().map(|child| self.node(entries, *child)).collect();
        Node { item: &entries[position].0, children }
    }

    /// All positions from the top, each with the guide before it.
    fn guided(&self) -> Vec<(String, usize)> {
        let mut rows = Vec::new();
        for root in &self.roots {
            rows.push((String::new(), *root));
            self.guide_children(*root, "", &mut rows);
        }
        rows
    }

    fn guide_children(&self, position: usize, trunk: &str, rows: &mut Vec<(String, usize)>) {
        let children = &self.children[position];
        for (number, child) in children.iter().enumerate() {
            let (branch, below) =
                if number + 1 < children.len() { ("├── ", "│   ") } else { ("└── ", "    ") };
            rows.push((format!("{trunk}{branch}"), *child));
            self.guide_children(*child, &format!("{trunk}{below}"), rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(kind: &str, id: u128, parent: Option<u128>, (system, path): (&str, &str)) -> Entry {
        let item = json!({
            "itemId": Uuid::from_u128(id), "status": "active", "mountPoint": {"default": path},
            "permission": {"value": "775"}, "storageSystem": {"key": system}, "storageDataType": {"key": "store"},
            "target": {"targetType": kind, "targetItem": {}}, "quotas": null, "newQuotas": null,
            "parentItemId": parent.map(Uuid::from_u128),
        });
        let raw = RawValue::from_string(item.to_string()).unwrap();
        (raw, serde_json::from_value(item).unwrap())
    }

    #[test]
    fn nodes_that_share_an_id_are_told_apart_by_system_and_path() {
        let entries = [
            entry("tenant", 1, None, ("a", "/a/store/t")),
            entry("customer", 2, Some(1), ("a", "/a/store/t/c")),
            entry("tenant", 1, None, ("b", "/b/store/t")),
            entry("customer", 2, Some(1), ("b", "/b/store/t/c")),
            entry("tenant", 1, None, ("b", "/b/store/u")),
            entry("customer", 3, Some(1), ("b", "/b/store/u/d")),
            entry("project", 4, Some(2), ("b", "/b/store/t/c/p")),
            entry("project", 5, Some(2), ("a", "/elsewhere")),
            entry("project", 6, None, ("a", "/a/store/t/x/p")),
        ];
        let shape = shape(&entries);
        assert_eq!(shape.roots, [0, 2, 4, 8]);
        let guided: Vec<_> =
            shape.guided().into_iter().map(|(guide, at)| guide + entries[at].1.mount_point()).collect();
        let tree = [
            "/a/store/t",
            "└── /a/store/t/c",
            "    └── /elsewhere",
            "/b/store/t",
            "└── /b/store/t/c",
            "    └── /b/store/t/c/p",
            "/b/store/u",
            "└── /b/store/u/d",
            "/a/store/t/x/p",
        ];
        assert_eq!(guided, tree);
    }

    #[test]
    fn a_node_is_never_its_own_parent() {
        let entries = [entry("customer", 1, Some(1), ("a", "/a/c")), entry("project", 2, Some(1), ("a", "/a/c/p"))];
        assert_eq!(shape(&entries), Shape { roots: vec![0], children: vec![vec![1], vec![]] });
    }
}
