//! Filters (decisions D3 and D4). A filter selects items and never changes their content.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::resource;
use crate::status::{State, Status};

/// A client's filter. `None` matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    pub storage_system: Option<String>,
    /// Data type, normalized by [`Filter::data_type_of`].
    pub data_type: Option<String>,
    /// Status of the item.
    pub status: Option<Status>,
    /// State of the resource in Waldur.
    pub state: Option<State>,
}

impl Filter {
    /// Normalizes a data type: trimmed and in lower case; `None`, which matches everything, if blank.
    pub fn data_type_of(text: &str) -> Option<String> {
        resource::normalize_data_type(text)
    }
}

/// What filters need of a catalogue, without the items.
///
/// Positions follow the catalogue: first the nodes (tenants and customers), then the resources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Index {
    pub(crate) systems: Vec<String>,
    pub(crate) data_types: Vec<String>,
    pub(crate) nodes: u32,
    pub(crate) leaves: Vec<Leaf>,
}

/// A resource in the index. A resource that is skipped because an identity is missing keeps its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaf {
    pub(crate) system: u32,
    pub(crate) data_type: u32,
    pub(crate) state: State,
    pub(crate) status: Status,
    /// Positions of the nodes above: its tenant, its customer, and the customer's own tenant.
    pub(crate) above: [Option<u32>; 3],
    pub(crate) outcome: Outcome,
}

/// Whether a resource has an item or is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Position among the items.
    Item(u32),
    /// Position among the skipped resources.
    Skipped(u32),
}

/// A resource in the index, with names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed<'a> {
    /// Name of the storage system.
    pub system: &'a str,
    pub data_type: &'a str,
    /// State in Waldur.
    pub state: State,
    /// Status that is published, or would be.
    pub status: Status,
    /// Position of its customer among the items, if it has one.
    pub customer: Option<u32>,
    pub outcome: Outcome,
}

/// The positions that a filter selects, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Positions among the items.
    pub items: Vec<u32>,
    /// Positions among the skipped resources.
    pub skipped: Vec<u32>,
}

/// Status of every tenant and customer.
pub(crate) const NODE_STATUS: Status = Status::Pending;

/// Several times as fast as the derived implementation, because each leaf is one write.
impl Hash for Index {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.systems, &self.data_types, self.nodes, self.leaves.len()).hash(hasher);
        for Leaf { system, data_type, state, status, above, outcome } in &self.leaves {
            let [tenant, customer, customers_tenant] = above.map(|node| node.map_or(u32::MAX, u32::from));
            let (kind, position) = match outcome {
                Outcome::Item(position) => (0, *position),
                Outcome::Skipped(position) => (1, *position),
            };
            let kinds = u32::from_le_bytes([*state as u8, *status as u8, kind, 0]);
            let numbers = [*system, *data_type, tenant, customer, customers_tenant, position, kinds];
            let mut bytes = [0; size_of::<[u32; 7]>()];
            for (bytes, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
                *bytes = number.to_le_bytes();
            }
            hasher.write(&bytes);
        }
    }
}

impl Index {
    /// Whether the index belongs to a catalogue with this number of items and of skipped resources.
    pub fn fits(&self, items: usize, skipped: usize) -> bool {
        let below = |position: u32, count: usize| (position as usize) < count;
        let fits = |leaf: &Leaf| {
            below(leaf.system, self.systems.len())
                && below(leaf.data_type, self.data_types.len())
                && leaf.above.into_iter().flatten().all(|node| node < self.nodes)
                && match leaf.outcome {
                    Outcome::Item(position) => position >= self.nodes && below(position, items),
                    Outcome::Skipped(position) => below(position, skipped),
                }
        };
        self.nodes as usize <= items && self.leaves.iter().all(fits)
    }

    /// Number of tenants and customers.
    pub fn nodes(&self) -> usize {
        self.nodes as usize
    }

    /// All resources, in the order of the document.
    pub fn resources(&self) -> impl Iterator<Item = Indexed<'_>> {
        self.leaves.iter().map(|leaf| Indexed {
            system: &self.systems[leaf.system as usize],
            data_type: &self.data_types[leaf.data_type as usize],
            state: leaf.state,
            status: leaf.status,
            customer: leaf.above[1],
            outcome: leaf.outcome,
        })
    }

    /// Selects the matching items and skipped resources.
    pub fn select(&self, filter: &Filter) -> Selection {
        let system = filter.storage_system.as_deref().map(|name| position(&self.systems, name));
        let data_type = filter.data_type.as_deref().map(|name| position(&self.data_types, name));
        let mut nodes = vec![false; self.nodes as usize];
        let mut selection = Selection::default();
        for leaf in &self.leaves {
            let selected = system.is_none_or(|system| system == Some(leaf.system))
                && data_type.is_none_or(|data_type| data_type == Some(leaf.data_type))
                && filter.state.is_none_or(|state| state == leaf.state)
                && filter.status.is_none_or(|status| status == leaf.status);
            if selected {
                for node in leaf.above.into_iter().flatten() {
                    nodes[node as usize] = true;
                }
                match leaf.outcome {
                    Outcome::Item(position) => selection.items.push(position),
                    Outcome::Skipped(position) => selection.skipped.push(position),
                }
            }
        }
        if filter.status.is_none_or(|status| status == NODE_STATUS) {
            let nodes = (0..self.nodes).filter(|node| nodes[*node as usize]);
            selection.items.splice(..0, nodes);
        }
        selection
    }
}

fn position(names: &[String], name: &str) -> Option<u32> {
    names.iter().position(|known| known == name).and_then(|position| u32::try_from(position).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn the_hash_covers_everything() {
        let leaf = Leaf {
            system: 0,
            data_type: 0,
            state: State::Ok,
            status: Status::Active,
            above: [Some(0); 3],
            outcome: Outcome::Item(0),
        };
        let leaves = [
            leaf,
            Leaf { system: 1, ..leaf },
            Leaf { data_type: 1, ..leaf },
            Leaf { state: State::Erred, ..leaf },
            Leaf { status: Status::Error, ..leaf },
            Leaf { above: [Some(1), Some(0), Some(0)], ..leaf },
            Leaf { above: [Some(0), Some(1), Some(0)], ..leaf },
            Leaf { above: [Some(0), Some(0), Some(1)], ..leaf },
            Leaf { above: [Some(0), None, None], ..leaf },
            Leaf { outcome: Outcome::Item(1), ..leaf },
            Leaf { outcome: Outcome::Skipped(0), ..leaf },
        ];
        let names = || vec!["name".to_owned()];
        let mut indexes: Vec<_> = leaves.map(|leaf| Index { leaves: vec![leaf], ..Index::default() }).into();
        indexes.push(Index { leaves: vec![leaf; 2], ..Index::default() });
        indexes.push(Index { nodes: 1, ..Index::default() });
        indexes.push(Index { systems: names(), ..Index::default() });
        indexes.push(Index { data_types: names(), ..Index::default() });
        let state = RandomState::new();
        let distinct: HashSet<_> = indexes.iter().map(|index| state.hash_one(index)).collect();
        assert_eq!(distinct.len(), indexes.len());
    }
}
