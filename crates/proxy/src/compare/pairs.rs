//! Which item here is which item there.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::naming::{self, Renamed};

pub(super) const ID: &str = "/itemId";
pub(super) const KIND: &str = "/target/targetType";
pub(super) const MOUNT: &str = "/mountPoint/default";
pub(super) const SYSTEM: &str = "/storageSystem/key";
const DATA_TYPE: &str = "/storageDataType/key";

/// The text at a place of an item; blank where there is none.
pub(super) fn text<'a>(item: &'a Value, at: &str) -> &'a str {
    item.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// Positions of the items that belong together, and of those that stand alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    /// Here, ascending, and there.
    pub(super) both: Vec<(usize, usize)>,
    pub(super) only_theirs: Vec<usize>,
}

/// What an item is recognised by; `None`: not in this way.
type Mark = fn(&Value, &[Renamed]) -> Option<[String; 4]>;

/// The marks, the surest first. Tenants and customers share an id over storage systems and data types.
const MARKS: [Mark; 4] = [
    |item, renamed| Some([text(item, ID).into(), text(item, KIND).into(), system(item, renamed), data_type(item)]),
    |item, _| match text(item, KIND) {
        kind @ ("tenant" | "customer") => Some([text(item, ID).into(), kind.into(), String::new(), data_type(item)]),
        _ => Some([text(item, ID).into(), String::new(), String::new(), String::new()]),
    },
    |item, renamed| {
        let mount = text(item, MOUNT);
        (!mount.is_empty())
            .then(|| [text(item, KIND).into(), system(item, renamed), data_type(item), as_here(mount, renamed)])
    },
    |item, renamed| {
        let mount = text(item, MOUNT);
        (!mount.is_empty()).then(|| [text(item, ID).into(), as_here(mount, renamed), String::new(), String::new()])
    },
];

/// Finds each item's partner: first by `itemId`, then by kind, data type and mount point.
pub(super) fn pair(ours: &[Value], theirs: &[Value], renamed: &[Renamed]) -> Pairs {
    let mut both = Vec::new();
    let mut here: Vec<usize> = (0..ours.len()).collect();
    let mut there: Vec<usize> = (0..theirs.len()).collect();
    for mark in MARKS {
        let mut waiting: HashMap<_, VecDeque<usize>> = HashMap::new();
        for at in &there {
            if let Some(mark) = mark(&theirs[*at], renamed) {
                waiting.entry(mark).or_default().push_back(*at);
            }
        }
        let before = both.len();
        here.retain(|at| {
            // Ours are called what they are called here.
            let partner = mark(&ours[*at], &[]).and_then(|mark| waiting.get_mut(&mark)?.pop_front());
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

/// A path of theirs with the storage system as it is called here.
pub(super) fn as_here(path: &str, renamed: &[Renamed]) -> String {
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
    fn nodes_with_one_id_are_told_apart() {
        let ours = [item("c", "customer", "a", "store"), item("c", "customer", "b", "store")];
        let theirs = [item("c", "customer", "b", "store"), item("c", "customer", "a", "store")];
        assert_eq!(pair(&ours, &theirs, &[]).both, [(0, 1), (1, 0)]);
        let one = [item("c", "customer", "a", "scratch"), item("c", "customer", "a", "store")];
        let pairs = pair(&ours, &one, &[]);
        assert_eq!(pairs, Pairs { both: vec![(0, 1)], only_theirs: vec![0] });
    }

    #[test]
    fn what_is_called_otherwise_is_still_the_same() {
        let renamed =
            [Renamed { here: "a".into(), there: "b".into() }, Renamed { here: "b".into(), there: "c".into() }];
        let ours = [item("c", "customer", "a", "store"), item("c", "customer", "b", "store")];
        let theirs = [item("c", "customer", "c", "store"), item("c", "customer", "b", "store")];
        assert_eq!(pair(&ours, &theirs, &renamed).both, [(0, 1), (1, 0)]);
    }

    #[test]
    fn a_resource_keeps_its_id_and_a_place_its_item() {
        let ours = [item("1", "project", "a", "store"), item("2", "project", "a", "archive")];
        let theirs = [item("3", "project", "a", "archive"), item("1", "user", "b", "scratch")];
        assert_eq!(pair(&ours, &theirs, &[]).both, [(0, 1), (1, 0)]);
        let theirs = [item("3", "project", "a", "users")];
        assert_eq!(pair(&ours, &theirs, &[]), Pairs { both: vec![], only_theirs: vec![0] });
    }

    #[test]
    fn only_the_first_part_of_a_path_is_the_system() {
        let renamed = [Renamed { here: "a".into(), there: "b".into() }];
        assert_eq!(as_here("/b/store/b/x", &renamed), "/a/store/b/x");
        assert_eq!(as_here("/bb/store", &renamed), "/bb/store");
        assert_eq!(as_here("b/store", &renamed), "b/store");
    }
}
