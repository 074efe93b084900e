//! Tokens judged a moment ago, so that a caller who comes again costs a hash, not a signature.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest as hash};
use tokio::time::Instant;

use super::Caller;
use super::claims::has_expired;
use super::refusal::{AuthError, Refusal};

/// SHA-256 of a token, so that no token is kept.
pub(super) type Digest = [u8; 32];

/// Most verdicts kept. Only tokens that the realm signed get here, so that strangers cannot fill it.
const MOST: usize = 4096;

/// What came out.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Admitted(Caller),
    /// Well signed, but the realm has revoked it.
    Inactive,
}

#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<HashMap<Digest, Entry>>);

#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    /// Of the key set that verified the signature.
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

impl Verdict {
    pub(super) fn outcome(self) -> Result<Caller, AuthError> {
        match self {
            Self::Admitted(caller) => Ok(caller),
            Self::Inactive => Err(Refusal::Inactive.into()),
        }
    }
}

impl Verdicts {
    /// A verdict that still holds at `now` (seconds since 1970), if its keys, of this generation, still do.
    pub(super) fn recall(&self, token: &Digest, now: i64) -> Option<(Verdict, u64)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(token)?;
        let holds = Instant::now() < entry.until && !has_expired(entry.expires, now);
        holds.then(|| (entry.verdict.clone(), entry.generation))
    }

    pub(super) fn remember(&self, token: Digest, verdict: Verdict, generation: u64, expires: i64, lasting: Duration) {
        let now = Instant::now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(token, Entry { verdict, generation, expires, until: now + lasting });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_kept_is_bounded() {
        let verdicts = Verdicts::default();
        for number in 0..3 * MOST {
            let token = digest(&number.to_string());
            verdicts.remember(token, Verdict::Inactive, 1, i64::MAX, Duration::from_mins(1));
            assert!(verdicts.recall(&token, 0).is_some());
        }
        assert!(verdicts.0.lock().unwrap().len() <= MOST);
    }
}
