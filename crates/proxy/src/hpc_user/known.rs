//! What the API has said, for another replica that goes on from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cache::Cache;
use super::{GID_MAX_AGE, HpcUserApi, UserIdentity, lock};

/// The caches of a replica: each name with its value, and the milliseconds until it is asked for again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Known {
    gids: Vec<(String, u32, u64)>,
    users: Vec<(String, UserIdentity, u64)>,
}

impl HpcUserApi {
    /// All that is cached.
    pub fn known(&self) -> Known {
        let now = Instant::now();
        Known { gids: told(&lock(&self.gids), now), users: told(&lock(&self.users), now) }
    }

    /// Takes what another replica knew so long ago in place of what is cached. Replicas that take turns then answer alike:
    /// a GID that one of them knows to be gone does not come back with the next.
    pub fn go_on_from(&self, known: Known, ago: Duration) {
        let now = Instant::now();
        *lock(&self.gids) = cache(known.gids, ago, now);
        *lock(&self.users) = cache(known.users, ago, now);
    }
}

fn told<V: Clone>(cache: &Cache<V>, now: Instant) -> Vec<(String, V, u64)> {
    let millis = |rest: Duration| u64::try_from(rest.as_millis()).unwrap_or_default();
    cache.entries(now).map(|(name, value, rest)| (name.clone(), value.clone(), millis(rest))).collect()
}

fn cache<V>(told: Vec<(String, V, u64)>, ago: Duration, now: Instant) -> Cache<V> {
    let mut cache = Cache::default();
    for (name, value, rest) in told {
        let rest = Duration::from_millis(rest).min(GID_MAX_AGE).saturating_sub(ago);
        cache.put(&name, value, now + rest);
    }
    cache
}
