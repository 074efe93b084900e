//! `tree`: the catalogue as a hierarchy of directories.
//!
//! The status of tenants and customers is always `pending`, so a filter by status applies to projects and users only;
//! the nodes above them are shown as well.

use std::collections::HashMap;

use catalog::{Filter, Item, Skipped, TargetType};
use serde::Serialize;
use uuid::Uuid;

use super::{report_skipped, row, values};
use crate::cli::Failure;
use crate::cli::terminal::{self, Terminal};
use crate::config::Loaded;

/// The tree for scripts.
#[derive(Serialize)]
struct Document<'a> {
    tree: Vec<Node<'a>>,
    skipped: &'a [Skipped],
}

/// An item, as in the API, and those below it.
#[derive(Serialize)]
struct Node<'a> {
    item: &'a Item<'a>,
    children: Vec<Node<'a>>,
}

/// What determines the place of an item in the tree.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    id: Uuid,
    parent: Option<Uuid>,
    rank: Rank,
    /// Storage system and data type, which distinguish nodes with the same ID.
    branch: (&'a str, &'a str),
    path: &'a str,
}

/// Level in the hierarchy; the parent of an item has a lower rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Tenant,
    Customer,
    Leaf,
}

impl Rank {
    fn of(item: &Item<'_>) -> Self {
        match item.target.target_type {
            TargetType::Tenant => Self::Tenant,
            TargetType::Customer => Self::Customer,
            TargetType::Project | TargetType::User => Self::Leaf,
        }
    }
}

/// Positions of the items without a parent, and of the children of each item.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
}

/// Shows what the filter selects. Returns false if the API fails because of skipped resources.
pub(in crate::cli) async fn run(
    loaded: &Loaded,
    filter: &Filter,
    json: bool,
    terminal: Terminal,
) -> Result<bool, Failure> {
    let reading = super::read(loaded, terminal).await?;
    let catalogue = reading.catalogue();
    let (mut items, _) = reading.select(&catalogue, &Filter { status: None, ..filter.clone() });
    if let Some(status) = filter.status {
        items.retain(|item| Rank::of(item) != Rank::Leaf || item.status == status);
        let shape = shape(&places(&items));
        let has_leaf: Vec<_> = (0..items.len()).map(|position| shape.has_leaf(&items, position)).collect();
        items = items.into_iter().zip(has_leaf).filter_map(|(item, has_leaf)| has_leaf.then_some(item)).collect();
    }
    let (_, skipped) = reading.select(&catalogue, filter);
    let shape = shape(&places(&items));
    if json {
        let tree = shape.roots.iter().map(|root| shape.node(&items, *root)).collect();
        terminal::print_json(&Document { tree, skipped: &skipped })?;
    } else if items.is_empty() {
        terminal::note("No storage resources match.");
    } else {
        let items = values(&items)?;
        let rows = shape.guided().into_iter().map(|(guide, position)| (guide, &items[position]));
        terminal::print(&row::table(rows, false, terminal))?;
    }
    Ok(report_skipped(&skipped, loaded))
}

fn places<'a>(items: &'a [Item<'_>]) -> Vec<Place<'a>> {
    let place = |item: &'a Item<'_>| Place {
        id: item.item_id,
        parent: item.parent_item_id,
        rank: Rank::of(item),
        branch: (&item.storage_system.key, &item.storage_data_type.key),
        path: &item.mount_point.default,
    };
    items.iter().map(place).collect()
}

/// Finds the parent of each item.
///
/// Tenants and customers of several storage systems and data types share an ID, and so do tenants of one offering.
/// Therefore the branch decides, and then the path.
fn shape(places: &[Place<'_>]) -> Shape {
    let mut nodes: HashMap<_, Vec<usize>> = HashMap::new();
    for (position, place) in places.iter().enumerate().filter(|(_, place)| place.rank != Rank::Leaf) {
        nodes.entry((place.id, place.branch)).or_default().push(position);
    }
    let mut shape = Shape { roots: Vec::new(), children: vec![Vec::new(); places.len()] };
    for (position, place) in places.iter().enumerate() {
        let candidates = place.parent.and_then(|parent| nodes.get(&(parent, place.branch)));
        let above = |candidate: &&usize| places[**candidate].rank < place.rank;
        let candidates = || candidates.into_iter().flatten().filter(above);
        match candidates().find(|candidate| is_below(place.path, places[**candidate].path)).or(candidates().next()) {
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
    fn has_leaf(&self, items: &[Item<'_>], position: usize) -> bool {
        Rank::of(&items[position]) == Rank::Leaf
            || self.children[position].iter().any(|child| self.has_leaf(items, *child))
    }

    fn node<'a>(&self, items: &'a [Item<'a>], position: usize) -> Node<'a> {
        let children = self.children[position].iter().map(|child| self.node(items, *child)).collect();
        Node { item: &items[position], children }
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
    use super::*;

    fn place(
        rank: Rank,
        id: u128,
        parent: Option<u128>,
        (system, path): (&'static str, &'static str),
    ) -> Place<'static> {
        let (id, parent) = (Uuid::from_u128(id), parent.map(Uuid::from_u128));
        Place { id, parent, rank, branch: (system, "store"), path }
    }

    #[test]
    fn nodes_with_the_same_id_are_distinguished_by_system_and_path() {
        let places = [
            place(Rank::Tenant, 1, None, ("a", "/a/store/t")),
            place(Rank::Customer, 2, Some(1), ("a", "/a/store/t/c")),
            place(Rank::Tenant, 1, None, ("b", "/b/store/t")),
            place(Rank::Customer, 2, Some(1), ("b", "/b/store/t/c")),
            place(Rank::Tenant, 1, None, ("b", "/b/store/u")),
            place(Rank::Customer, 3, Some(1), ("b", "/b/store/u/d")),
            place(Rank::Leaf, 4, Some(2), ("b", "/b/store/t/c/p")),
            place(Rank::Leaf, 5, Some(2), ("a", "/elsewhere")),
            place(Rank::Leaf, 6, None, ("a", "/a/store/t/x/p")),
        ];
        let shape = shape(&places);
        assert_eq!(shape.roots, [0, 2, 4, 8]);
        let guided: Vec<_> = shape.guided().into_iter().map(|(guide, at)| guide + places[at].path).collect();
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
        let places = [place(Rank::Customer, 1, Some(1), ("a", "/a/c")), place(Rank::Leaf, 2, Some(1), ("a", "/a/c/p"))];
        assert_eq!(shape(&places), Shape { roots: vec![0], children: vec![vec![1], vec![]] });
    }
}
