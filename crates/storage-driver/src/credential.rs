//! Prevents that refused credentials are sent again, because repeated wrong passwords can lock accounts.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::DriverError;

/// Remembers that a credential was refused, so that it is not sent again.
///
/// It belongs to one client with one secret. When settings are reloaded (on SIGHUP, and when a file with a secret has
/// changed), every client is created again with the new secret and an empty `CredentialGuard`.
#[derive(Debug, Default)]
pub struct CredentialGuard {
    refused: Mutex<Option<(Instant, String)>>,
    /// After this time the same credential is tried again; `None`: never.
    pause: Option<Duration>,
}

impl CredentialGuard {
    /// A guard that allows a refused credential again after this time. For credentials that lock no account.
    pub fn lasting(pause: Duration) -> Self {
        Self { pause: Some(pause), ..Self::default() }
    }

    /// Records a refusal. `why` names the server, the refused setting and what to check. It must not contain a secret.
    pub fn record(&self, why: impl Into<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), why.into()));
    }

    /// Returns an error if the credential was refused. To be called before each exchange.
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
        let error = guard.check().unwrap_err().to_string();
        assert!(error.starts_with("the server refuses `password` (401). It is not sent again"), "{error}");
        assert!(guard.check().is_err(), "every check fails");
    }

    #[test]
    fn a_lasting_refusal_ends_after_the_pause() {
        let guard = CredentialGuard::lasting(Duration::from_mins(15));
        guard.record("refused");
        assert!(guard.check().unwrap_err().to_string().contains("again 15 min after"));
        let over = CredentialGuard::lasting(Duration::ZERO);
        over.record("refused");
        assert!(over.check().is_ok());
    }
}
