//! Transfers the caches to another replica.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cache::Cache;
use super::{GID_MAX_AGE, HpcUserApi, UserIdentity};
use program::lock;

/// The entries of a cache: name, value, and milliseconds until the value is due.
type Entries<V> = Vec<(String, V, u64)>;

/// The caches of a replica.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Export {
    gids: Entries<u32>,
    users: Entries<UserIdentity>,
}

impl HpcUserApi {
    pub fn export(&self) -> Export {
        let now = Instant::now();
        Export { gids: entries(&lock(&self.gids), now), users: entries(&lock(&self.users), now) }
    }

    /// Replaces the caches by those that another replica exported this long ago. Replicas that read by turns then give the
    /// same answers: a GID that one of them knows to be withdrawn does not come back with the next.
    pub fn adopt(&self, export: Export, ago: Duration) {
        let now = Instant::now();
        *lock(&self.gids) = cache(export.gids, ago, now);
        *lock(&self.users) = cache(export.users, ago, now);
    }
}

fn entries<V: Clone>(cache: &Cache<V>, now: Instant) -> Entries<V> {
    let millis = |rest: Duration| u64::try_from(rest.as_millis()).unwrap_or_default();
    cache.entries(now).map(|(name, value, rest)| (name.clone(), value.clone(), millis(rest))).collect()
}

fn cache<V>(entries: Entries<V>, ago: Duration, now: Instant) -> Cache<V> {
    let mut cache = Cache::default();
    for (name, value, rest) in entries {
        let rest = Duration::from_millis(rest).min(GID_MAX_AGE).saturating_sub(ago);
        cache.put(&name, value, now + rest);
    }
    cache
}
