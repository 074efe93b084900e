//! The names of storage systems in each listing: those of the settings, or the slugs of their offerings (decision D2).

use serde_json::Value;

use crate::config::StorageSystem;
use crate::peer::{SYSTEM, text};

/// A storage system with different names in the two listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Our name.
    pub here: String,
    /// Their name.
    pub there: String,
}

/// The storage systems with different names in the two listings.
pub(super) fn renamed(systems: &[StorageSystem], ours: &[Value], theirs: &[Value]) -> Vec<Renamed> {
    let (here, there) = (naming(systems, ours), naming(systems, theirs));
    let renamed = systems.iter().map(|system| Renamed { here: here(system), there: there(system) });
    renamed.filter(|Renamed { here, there }| here != there).collect()
}

/// How a listing names a system: by slug if all its names are slugs but not all are names, otherwise by name.
fn naming(systems: &[StorageSystem], items: &[Value]) -> fn(&StorageSystem) -> String {
    let keys = || items.iter().map(|item| text(item, SYSTEM));
    let is = |key: &str, name: fn(&StorageSystem) -> &String| {
        systems.iter().any(|system| name(system).to_lowercase() == key)
    };
    let by_name = keys().all(|key| is(key, |system| &system.name));
    let by_slug = keys().all(|key| is(key, |system| &system.offering_slug));
    if !by_name && by_slug { |system| system.offering_slug.clone() } else { |system| system.name.clone() }
}

/// Our name for a system, by their key.
pub(super) fn here(key: &str, renamed: &[Renamed]) -> String {
    let found = renamed.iter().find(|system| system.there.to_lowercase() == key);
    found.map_or_else(|| key.to_owned(), |system| system.here.to_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_slugs_are_distinguished() {
        let system = |name: &str, slug: &str| StorageSystem { name: name.into(), offering_slug: slug.into() };
        let systems = [system("A", "b"), system("b", "c"), system("same", "same")];
        let items = |keys: &[&str]| keys.iter().map(|key| json!({"storageSystem": {"key": key}})).collect::<Vec<_>>();
        let pairs = |ours: &[&str], theirs: &[&str]| {
            let renamed = renamed(&systems, &items(ours), &items(theirs));
            renamed.into_iter().map(|Renamed { here, there }| (here, there)).collect::<Vec<_>>()
        };
        let pair = |here: &str, there: &str| (here.to_owned(), there.to_owned());
        assert_eq!(pairs(&["a", "b", "same"], &["b", "c", "same"]), [pair("A", "b"), pair("b", "c")]);
        assert_eq!(pairs(&["c"], &["a"]), [pair("b", "A"), pair("c", "b")]);
        assert!(pairs(&["a", "b"], &["a", "b"]).is_empty());
        assert!(pairs(&["b", "c"], &["c"]).is_empty());
        assert!(pairs(&["a"], &["unknown"]).is_empty() && pairs(&[], &[]).is_empty());
    }
}
