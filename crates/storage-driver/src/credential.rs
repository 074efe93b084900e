//! Refused credentials are not sent again, because wrong passwords lock accounts.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::DriverError;

/// Remembers that a credential was refused, so that it is not sent again.
///
/// It belongs to one client with one secret. When settings are reloaded (on SIGHUP, and when a file with a secret has
/// changed), every client is created again with the new secret and a `CredentialGuard` that remembers nothing.
#[derive(Debug, Default)]
pub struct CredentialGuard {
    refused: Mutex<Option<(Instant, String)>>,
    /// After this time the same credential is tried again; `None`: never.
    pause: Option<Duration>,
}

impl CredentialGuard {
    /// A refused credential is tried again after this time. For credentials whose wrong use locks no account.
    pub fn lasting(pause: Duration) -> Self {
        Self { pause: Some(pause), ..Self::default() }
    }

    /// Records a refusal. `why`: who refused which setting, and what to check. It must hold no secret.
    pub fn record(&self, why: impl Into<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), why.into()));
    }

    /// Whether the credential may be sent: an error if it was refused. To be called before each exchange.
    pub fn check(&self) -> Result<(), DriverError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, why)) = &*refused else { return Ok(()) };
        if self.pause.is_some_and(|pause| since.elapsed() >= pause) {
            *refused = None;
            return Ok(());
        }
        let again = match self.pause {
            Some(pause) => {
                format!("; otherwise it is tried again {} min after the refusal", pause.as_secs().div_ceil(60))
            }
            None => String::new(),
        };
        Err(DriverError::temporary(format!(
            "{why}. It is not sent again: correct the secret. `run` notices when the file of a secret changes; after any \
             other change, reload it (SIGHUP){again}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_credential_is_not_sent_again() {
        let guard = CredentialGuard::default();
        assert!(guard.check().is_ok());
        guard.record("the server refuses `password` (401)");
        let fault = guard.check().unwrap_err().to_string();
        assert!(fault.starts_with("the server refuses `password` (401). It is not sent again"), "{fault}");
        assert!(guard.check().is_err(), "however often it is asked");
    }

    #[test]
    fn where_no_account_is_locked_it_is_tried_again_after_a_pause() {
        let guard = CredentialGuard::lasting(Duration::from_mins(15));
        guard.record("refused");
        assert!(guard.check().unwrap_err().to_string().contains("again 15 min after"));
        let over = CredentialGuard::lasting(Duration::ZERO);
        over.record("refused");
        assert!(over.check().is_ok());
    }
}
