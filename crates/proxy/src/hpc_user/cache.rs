//! What an upstream has said, by name, and when to ask again. Time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// Values that stay in use until a later answer replaces them, however old they are.
#[derive(Debug)]
pub(super) struct Cache<V>(HashMap<String, Entry<V>>);

#[derive(Debug)]
struct Entry<V> {
    value: V,
    ask_again: Instant,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> Cache<V> {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value, of any age.
    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.0.get(name).map(|entry| &entry.value)
    }

    /// Those of `names` to ask about now: without a value, or with one that is due.
    pub(super) fn due<'a>(&self, names: &'a BTreeSet<String>, now: Instant) -> Vec<&'a str> {
        let fresh = |name: &&str| self.0.get(*name).is_some_and(|entry| now < entry.ask_again);
        names.iter().map(String::as_str).filter(|name| !fresh(name)).collect()
    }

    /// Sets a value, and when it is due.
    pub(super) fn put(&mut self, name: &str, value: V, ask_again: Instant) {
        self.0.insert(name.to_owned(), Entry { value, ask_again });
    }

    /// Leaves a value that is due in peace until `ask_again`.
    pub(super) fn leave_until(&mut self, name: &str, ask_again: Instant, now: Instant) {
        if let Some(entry) = self.0.get_mut(name).filter(|entry| entry.ask_again <= now) {
            entry.ask_again = ask_again;
        }
    }

    /// Drops a value.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Everything, each with how long it is not due yet.
    pub(super) fn entries(&self, now: Instant) -> impl Iterator<Item = (&String, &V, Duration)> {
        self.0.iter().map(move |(name, entry)| (name, &entry.value, entry.ask_again.saturating_duration_since(now)))
    }

    /// Drops all but `names`, which bounds the cache.
    pub(super) fn retain(&mut self, names: &HashSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_is_used_beyond_its_time_and_asked_for_again() {
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
        cache.leave_until("a", start + 3 * second, start + second);
        assert_eq!(cache.due(&names, start + 2 * second), ["b"]);
        cache.leave_until("a", start + 9 * second, start + 2 * second);
        assert_eq!(cache.due(&names, start + 3 * second), ["a", "b"], "a value that is not due is not put off");
        cache.remove("a");
        assert_eq!(cache.get("a"), None);
    }
}
