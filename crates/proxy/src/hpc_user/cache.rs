//! Values by name, and when to request them again. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// Values that remain in use, at any age, until they are replaced.
#[derive(Debug)]
pub(super) struct Cache<V>(HashMap<String, Entry<V>>);

#[derive(Debug)]
struct Entry<V> {
    value: V,
    due: Instant,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> Cache<V> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.0.get(name).map(|entry| &entry.value)
    }

    /// The `names` to request now: those without a value, or with one that is due.
    pub(super) fn due<'a>(&self, names: &'a BTreeSet<String>, now: Instant) -> Vec<&'a str> {
        let fresh = |name: &&str| self.0.get(*name).is_some_and(|entry| now < entry.due);
        names.iter().map(String::as_str).filter(|name| !fresh(name)).collect()
    }

    /// The names whose values are due.
    pub(super) fn expired(&self, now: Instant) -> Vec<String> {
        self.0.iter().filter(|(_, entry)| entry.due <= now).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn put(&mut self, name: &str, value: V, due: Instant) {
        self.0.insert(name.to_owned(), Entry { value, due });
    }

    /// Postpones a value that is due.
    pub(super) fn postpone(&mut self, name: &str, due: Instant, now: Instant) {
        if let Some(entry) = self.0.get_mut(name).filter(|entry| entry.due <= now) {
            entry.due = due;
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// All entries with the time until they are due.
    pub(super) fn entries(&self, now: Instant) -> impl Iterator<Item = (&String, &V, Duration)> {
        self.0.iter().map(move |(name, entry)| (name, &entry.value, entry.due.saturating_duration_since(now)))
    }

    /// Drops all values but those of `names`.
    pub(super) fn retain(&mut self, names: &HashSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_values_remain_in_use_and_are_requested_again() {
        let names: BTreeSet<String> = ["a", "b"].map(String::from).into();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut cache = Cache::default();
        cache.put("a", 1, start + second);
        cache.put("gone", 2, start + second);
        cache.retain(&names.iter().cloned().collect());
        assert_eq!(cache.get("gone"), None);
        assert_eq!(cache.due(&names, start), ["b"]);
        assert_eq!(cache.due(&names, start + second), ["a", "b"]);
        assert_eq!(cache.get("a"), Some(&1));
        cache.postpone("a", start + 3 * second, start + second);
        assert_eq!(cache.due(&names, start + 2 * second), ["b"]);
        cache.postpone("a", start + 9 * second, start + 2 * second);
        assert_eq!(cache.due(&names, start + 3 * second), ["a", "b"], "a value that is not due is not postponed");
        cache.remove("a");
        assert_eq!(cache.get("a"), None);
    }
}
