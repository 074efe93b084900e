//! Finds the pairs of corresponding items.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::naming::{self, Renamed};
use crate::peer::{DATA_TYPE, ID, KIND, MOUNT, SYSTEM, text};

/// Positions of corresponding items, and of those that only they have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    /// Our positions, ascending, with theirs.
    pub(super) both: Vec<(usize, usize)>,
    pub(super) only_theirs: Vec<usize>,
}

/// Computes the key that identifies an item; `None` if it has no such key.
type Key = fn(&Value, &[Renamed]) -> Option<[String; 4]>;

/// The keys, the most reliable first. Tenants and customers have one ID for all storage systems and data types.
const KEYS: [Key; 4] = [
    |item, renamed| Some([text(item, ID).into(), text(item, KIND).into(), system(item, renamed), data_type(item)]),
    |item, _| match text(item, KIND) {
        kind @ ("tenant" | "customer") => Some([text(item, ID).into(), kind.into(), String::new(), data_type(item)]),
        _ => Some([text(item, ID).into(), String::new(), String::new(), String::new()]),
    },
    |item, renamed| {
        let mount = text(item, MOUNT);
        (!mount.is_empty())
            .then(|| [text(item, KIND).into(), system(item, renamed), data_type(item), with_our_name(mount, renamed)])
    },
    |item, renamed| {
        let mount = text(item, MOUNT);
        (!mount.is_empty())
            .then(|| [text(item, ID).into(), with_our_name(mount, renamed), String::new(), String::new()])
    },
];

/// Pairs the items: first by `itemId`, then by kind, data type and mount point.
pub(super) fn pair(ours: &[Value], theirs: &[Value], renamed: &[Renamed]) -> Pairs {
    let mut both = Vec::new();
    let mut here: Vec<usize> = (0..ours.len()).collect();
    let mut there: Vec<usize> = (0..theirs.len()).collect();
    for key in KEYS {
        let mut waiting: HashMap<_, VecDeque<usize>> = HashMap::new();
        for at in &there {
            if let Some(key) = key(&theirs[*at], renamed) {
                waiting.entry(key).or_default().push_back(*at);
            }
        }
        let before = both.len();
        here.retain(|at| {
            // Our items already have our names.
            let partner = key(&ours[*at], &[]).and_then(|key| waiting.get_mut(&key)?.pop_front());
            both.extend(partner.map(|partner| (*at, partner)));
            partner.is_none()
        });
        let found: HashSet<_> = both[before..].iter().map(|(_, partner)| *partner).collect();
        there.retain(|at| !found.contains(at));
    }
    both.sort_unstable();
    Pairs { both, only_theirs: there }
}

fn system(item: &Value, renamed: &[Renamed]) -> String {
    naming::here(text(item, SYSTEM), renamed)
}

fn data_type(item: &Value) -> String {
    text(item, DATA_TYPE).to_owned()
}

/// Their path, with our name of the storage system.
pub(super) fn with_our_name(path: &str, renamed: &[Renamed]) -> String {
    let first = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
    let found = renamed.iter().find(|system| system.there == first);
    found.map_or_else(|| path.to_owned(), |system| format!("/{}{}", system.here, &path[1 + first.len()..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(id: &str, kind: &str, system: &str, data_type: &str) -> Value {
        json!({
            "itemId": id, "target": {"targetType": kind}, "storageSystem": {"key": system},
            "storageDataType": {"key": data_type}, "mountPoint": {"default": format!("/{system}/{data_type}/{kind}")},
        })
    }

    #[test]
    fn nodes_with_the_same_id_are_distinguished() {
        let ours = [item("c", "customer", "a", "store"), item("c", "customer", "b", "store")];
        let theirs = [item("c", "customer", "b", "store"), item("c", "customer", "a", "store")];
        assert_eq!(pair(&ours, &theirs, &[]).both, [(0, 1), (1, 0)]);
        let one = [item("c", "customer", "a", "scratch"), item("c", "customer", "a", "store")];
        let pairs = pair(&ours, &one, &[]);
        assert_eq!(pairs, Pairs { both: vec![(0, 1)], only_theirs: vec![0] });
    }

    #[test]
    fn renamed_systems_are_recognized() {
        let renamed =
            [Renamed { here: "a".into(), there: "b".into() }, Renamed { here: "b".into(), there: "c".into() }];
        let ours = [item("c", "customer", "a", "store"), item("c", "customer", "b", "store")];
        let theirs = [item("c", "customer", "c", "store"), item("c", "customer", "b", "store")];
        assert_eq!(pair(&ours, &theirs, &renamed).both, [(0, 1), (1, 0)]);
    }

    #[test]
    fn items_are_paired_by_id_or_by_mount_point() {
        let ours = [item("1", "project", "a", "store"), item("2", "project", "a", "archive")];
        let theirs = [item("3", "project", "a", "archive"), item("1", "user", "b", "scratch")];
        assert_eq!(pair(&ours, &theirs, &[]).both, [(0, 1), (1, 0)]);
        let theirs = [item("3", "project", "a", "users")];
        assert_eq!(pair(&ours, &theirs, &[]), Pairs { both: vec![], only_theirs: vec![0] });
    }

    #[test]
    fn only_the_first_component_of_a_path_is_the_system() {
        let renamed = [Renamed { here: "a".into(), there: "b".into() }];
        assert_eq!(with_our_name("/b/store/b/x", &renamed), "/a/store/b/x");
        assert_eq!(with_our_name("/bb/store", &renamed), "/bb/store");
        assert_eq!(with_our_name("b/store", &renamed), "b/store");
    }
}
