//! Cache of recent results, so that a repeated token costs a hash instead of a signature verification.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest as hash};

use super::Caller;
use super::claims::has_expired;
use super::refusal::AuthError;
use program::lock;

/// SHA-256 of a token: tokens themselves are not stored.
pub(super) type Digest = [u8; 32];

/// Capacity. Only tokens with a valid signature are cached, so strangers cannot fill it.
const CAPACITY: usize = 4096;

/// The result for a token with a valid signature. Never [`AuthError::Unavailable`].
pub(super) type Verdict = Result<Caller, AuthError>;

#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<HashMap<Digest, Entry>>);

#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    /// Generation of the keys that verified the signature.
    generation: u64,
    /// `exp` of the token.
    expires: i64,
    until: Instant,
}

pub(super) fn digest(token: &str) -> Digest {
    let hash = hash(&SHA256, token.as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.as_ref());
    digest
}

impl Verdicts {
    /// The cached result and the generation of its keys; `now` is in seconds since 1970.
    pub(super) fn get(&self, token: &Digest, instant: Instant, now: i64) -> Option<(Verdict, u64)> {
        let entries = lock(&self.0);
        let entry = entries.get(token)?;
        let holds = instant < entry.until && !has_expired(entry.expires, now);
        holds.then(|| (entry.verdict.clone(), entry.generation))
    }

    pub(super) fn put(
        &self,
        token: Digest,
        verdict: Verdict,
        generation: u64,
        expires: i64,
        (now, until): (Instant, Instant),
    ) {
        let mut entries = lock(&self.0);
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= CAPACITY {
            entries.clear();
        }
        entries.insert(token, Entry { verdict, generation, expires, until });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Refusal;

    #[test]
    fn the_cache_is_bounded() {
        let (verdicts, now) = (Verdicts::default(), Instant::now());
        for number in 0..3 * CAPACITY {
            let token = digest(&number.to_string());
            verdicts.put(token, Err(Refusal::Inactive.into()), 1, i64::MAX, (now, now + Duration::from_mins(1)));
            assert!(verdicts.get(&token, now, 0).is_some());
        }
        assert!(verdicts.0.lock().unwrap().len() <= CAPACITY);
    }
}
