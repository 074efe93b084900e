//! Counts items by storage system, target type and status.

use crate::select::{Index, NODE_STATUS, Outcome};
use crate::status::Status;
use crate::target::TargetType;

/// The number of items with one storage system, target type and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub system: String,
    pub target_type: TargetType,
    pub status: Status,
    /// Number of items; may be 0.
    pub items: usize,
}

impl Index {
    /// All counts, zero included, ordered by system, target type and status.
    pub fn counts(&self) -> Vec<Count> {
        let target_types_and_statuses = target_types_and_statuses();
        let mut counts: Vec<_> = self
            .systems
            .iter()
            .flat_map(|system| {
                target_types_and_statuses.iter().map(|&(target_type, status)| Count {
                    system: system.clone(),
                    target_type,
                    status,
                    items: 0,
                })
            })
            .collect();
        let mut add = |system: u32, target_type, status| {
            if let Some(pair) = target_types_and_statuses.iter().position(|pair| *pair == (target_type, status)) {
                counts[system as usize * target_types_and_statuses.len() + pair].items += 1;
            }
        };
        let mut is_counted = vec![false; self.nodes as usize];
        for leaf in &self.leaves {
            let kinds = [TargetType::Tenant, TargetType::Customer, TargetType::Tenant];
            for (node, kind) in leaf.above.into_iter().zip(kinds) {
                // A node belongs to the system of any resource below it.
                if let Some(node) = node
                    && !std::mem::replace(&mut is_counted[node as usize], true)
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

/// The possible pairs of target type and status within a system.
fn target_types_and_statuses() -> Vec<(TargetType, Status)> {
    let nodes = [TargetType::Tenant, TargetType::Customer].map(|kind| (kind, NODE_STATUS));
    let of_resources =
        |kind| Status::ALL.into_iter().filter(|s| *s != Status::Unknown).map(move |status| (kind, status));
    nodes.into_iter().chain([TargetType::Project, TargetType::User].into_iter().flat_map(of_resources)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use crate::testing::{build, customers, identities, policy, resource};

    #[test]
    fn every_item_is_counted_once() {
        let resources = [
            json!({}),
            json!({"project_slug": "proj-2"}),
            json!({"state": "Erred"}),
            json!({"attributes": {"storage_data_type": "users"}, "provider_slug": "eth"}),
            json!({"offering_slug": "vast", "customer_slug": "stranger"}),
            // This resource is skipped, but its nodes are counted.
            json!({"offering_slug": "vast", "project_slug": "lost", "provider_slug": "eth"}),
        ]
        .map(resource);
        let (customers, identities, policy) = (customers(), identities(), policy());
        let catalogue = build(&resources, &customers, &identities, &policy);
        let mut expected: HashMap<_, usize> = HashMap::new();
        for item in catalogue.items() {
            let key = (item.storage_system.key.clone(), item.target.target_type.as_str(), item.status.as_str());
            *expected.entry(key).or_default() += 1;
        }
        let counts = catalogue.index.counts();
        assert_eq!(counts.len(), 2 * 14, "zero counts are included");
        let nonzero = counts.iter().filter(|count| count.items > 0);
        let nonzero = nonzero.map(|c| ((c.system.clone(), c.target_type.as_str(), c.status.as_str()), c.items));
        assert_eq!(nonzero.collect::<HashMap<_, _>>(), expected);
        assert_eq!(expected[&("capstor".to_owned(), "project", "active")], 2);
        assert_eq!(expected.values().sum::<usize>(), catalogue.len());
    }
}
