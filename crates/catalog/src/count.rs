//! How many items there are of each sort.

use crate::resource::Status;
use crate::select::{Index, NODE_STATUS, Outcome};
use crate::target::TargetType;

/// Items of one sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Name of the storage system.
    pub system: String,
    /// What the items are for.
    pub target_type: TargetType,
    /// Their status.
    pub status: Status,
    /// How many there are, perhaps none.
    pub items: usize,
}

impl Index {
    /// The number of items of each sort that there can be, in the order of systems, target types and statuses.
    pub fn counts(&self) -> Vec<Count> {
        let sorts = sorts();
        let mut counts: Vec<_> = self
            .systems
            .iter()
            .flat_map(|system| {
                sorts.iter().map(|&(target_type, status)| Count {
                    system: system.clone(),
                    target_type,
                    status,
                    items: 0,
                })
            })
            .collect();
        let mut add = |system: u32, target_type, status| {
            if let Some(sort) = sorts.iter().position(|sort| *sort == (target_type, status)) {
                counts[system as usize * sorts.len() + sort].items += 1;
            }
        };
        let mut met = vec![false; self.nodes as usize];
        for leaf in &self.leaves {
            let kinds = [TargetType::Tenant, TargetType::Customer, TargetType::Tenant];
            for (node, kind) in leaf.above.into_iter().zip(kinds) {
                // A node is of the system of any resource below it.
                if let Some(node) = node
                    && !std::mem::replace(&mut met[node as usize], true)
                {
                    add(leaf.system, kind, NODE_STATUS);
                }
            }
            if let Outcome::Item(_) = leaf.outcome {
                let data_type = &self.data_types[leaf.data_type as usize];
                add(leaf.system, TargetType::of_data_type(data_type), leaf.status);
            }
        }
        counts
    }
}

/// The sorts of items within a system.
fn sorts() -> Vec<(TargetType, Status)> {
    let nodes = [TargetType::Tenant, TargetType::Customer].map(|kind| (kind, NODE_STATUS));
    let of_resources =
        |kind| Status::ALL.into_iter().filter(|s| *s != Status::Unknown).map(move |status| (kind, status));
    nodes.into_iter().chain([TargetType::Project, TargetType::User].into_iter().flat_map(of_resources)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use crate::build;
    use crate::testing::{customers, identities, policy, resource};

    #[test]
    fn every_item_is_counted_once_where_it_belongs() {
        let resources = [
            json!({}),
            json!({"project_slug": "proj-2"}),
            json!({"state": "Erred"}),
            json!({"attributes": {"storage_data_type": "users"}, "provider_slug": "eth"}),
            json!({"offering_slug": "vast", "customer_slug": "stranger"}),
            // Its nodes are there, it is not.
            json!({"offering_slug": "vast", "project_slug": "lost", "provider_slug": "eth"}),
        ]
        .map(resource);
        let (customers, identities, policy) = (customers(), identities(), policy());
        let catalogue = build(&resources, &customers, &identities, &policy);
        let mut expected: HashMap<_, usize> = HashMap::new();
        for item in catalogue.items() {
            let sort = (item.storage_system.key.clone(), item.target.target_type.as_str(), item.status.as_str());
            *expected.entry(sort).or_default() += 1;
        }
        let counts = catalogue.index.counts();
        assert_eq!(counts.len(), 2 * 14, "also those of which there is none");
        let found = counts.iter().filter(|count| count.items > 0);
        let found = found.map(|c| ((c.system.clone(), c.target_type.as_str(), c.status.as_str()), c.items));
        assert_eq!(found.collect::<HashMap<_, _>>(), expected);
        assert_eq!(expected[&("capstor".to_owned(), "project", "active")], 2);
        assert_eq!(expected.values().sum::<usize>(), catalogue.len());
    }
}
