//! Leases: one provisioner at a time may change a system. Each lease has a fencing token, which only grows.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use thiserror::Error;

use program::{Clock, error_chain, lock};
use storage_driver::DriverError;

use crate::config::LeaseSettings;

mod file;
mod kubernetes;
mod redis;

pub use file::StateLock;

// These times replace a killed provisioner within 15 s. Another one that waits looks every second, so it has seen the last
// renewal a second later at most, takes the lease 10 s after that, and has 4 s left until its first side effect.
/// How long a lease on a server is valid without being renewed.
const LIFE: Duration = Duration::from_secs(10);
/// How long before its end a lease is no longer trusted: the time that a side effect may take after its check.
///
/// The guard is called before each request and before each few system calls, and in a walk over a tree for each file, so
/// that this is the time of a few calls. Some take longer, on a file system that hangs for minutes or with a slow management
/// server. Meanwhile the lease is renewed in the background. So a side effect happens after the end of its lease only if it
/// is slow and the server with the lease cannot be reached, or if the process is paused. It is one side effect for each thread
/// that works: the next check fails.
const MARGIN: Duration = Duration::from_secs(3);
/// How often leases are renewed. Two renewals can fail before a lease is no longer trusted.
const RENEWED: Duration = Duration::from_secs(2);
/// Age from which on a renewal is repeated before a side effect. A lease that somebody deleted or took by force is noticed
/// this late. A driver that calls its guard for each file does not wait for the server each time.
const FRESH: Duration = Duration::from_secs(1);
/// Timeout of one exchange with the server.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
pub enum LeaseError {
    #[error("another provisioner{} holds the lease of {system}, until its pass or command ends", named(.holder))]
    Held {
        system: String,
        /// The identity of the holder; empty if unknown.
        holder: String,
    },
    #[error(
        "another provisioner uses the state directory {path}, until its pass or command ends; provisioners for different \
         systems each need their own `state_directory`"
    )]
    State { path: String },
    #[error("the lease {path} cannot be taken")]
    File { path: String, source: io::Error },
    #[error("the server for leases (lease.url) cannot be reached")]
    Server(#[source] ::redis::RedisError),
    #[error("{what}")]
    Kubernetes {
        /// What failed, and what to do.
        what: String,
        /// How long the server wants no further requests.
        retry_after: Duration,
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

fn named(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(" ({holder})") }
}

impl LeaseError {
    fn held(name: &str) -> Self {
        Self::Held { system: name.to_owned(), holder: String::new() }
    }

    /// Whether another provisioner has it and will release it.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::State { .. })
    }

    fn retry_after(&self) -> Duration {
        if let Self::Kubernetes { retry_after, .. } = self { *retry_after } else { Duration::ZERO }
    }
}

/// The fencing token of each lease: higher than those of all earlier holders.
pub type Tokens = BTreeMap<String, u64>;

/// The name of the lease that `purge` holds for a system. No system has such a name.
pub fn for_purge(system: &str) -> String {
    format!("{PURGE}{system}")
}

const PURGE: &str = "purge:";

/// Where the leases are.
#[derive(Debug)]
pub struct LeaseStore {
    place: Place,
    clock: Clock,
}

#[derive(Debug)]
enum Place {
    Files,
    Redis(SecretString),
    Kubernetes(Arc<kubernetes::Api>),
}

impl LeaseStore {
    pub fn new(settings: &LeaseSettings, clock: &Clock) -> Self {
        let place = match settings {
            LeaseSettings::Files => Place::Files,
            LeaseSettings::Redis(url) => Place::Redis(url.clone()),
            LeaseSettings::Kubernetes(settings) => {
                Place::Kubernetes(Arc::new(kubernetes::Api::new(settings.clone(), clock.clone())))
            }
        };
        Self { place, clock: clock.clone() }
    }

    /// Takes the leases with these names, or none. `directory`: where leases are files.
    pub fn take(&self, names: &[String], directory: &Path) -> Result<Leases, LeaseError> {
        let sent = self.clock.uptime();
        let (tokens, server) = match &self.place {
            Place::Files => {
                let (tokens, files) = file::take(names, directory)?;
                return Ok(Leases { tokens, held: Held::Files(files) });
            }
            Place::Redis(url) => redis::take(names, url)?,
            Place::Kubernetes(api) => kubernetes::take(api, names)?,
        };
        let renewed = Renewed {
            server,
            clock: self.clock.clone(),
            sent,
            until: sent + LIFE,
            not_before: Duration::ZERO,
            problem: String::new(),
        };
        let renewed = Arc::new(Mutex::new(renewed));
        keep_renewed(&renewed);
        Ok(Leases { tokens, held: Held::Server(renewed) })
    }

    /// Checks that leases with these names can be taken, for the command `check`. `None` if they are files.
    pub fn check(&self, names: &[String]) -> Option<Result<String, LeaseError>> {
        match &self.place {
            Place::Files => None,
            Place::Redis(url) => Some(redis::ping(url).map(|()| "the server answers".to_owned())),
            Place::Kubernetes(api) => Some(api.check(names)),
        }
    }
}

/// The leases of all systems, until they are dropped.
#[derive(Debug)]
pub struct Leases {
    /// Fencing token of each system's lease.
    pub tokens: Tokens,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// File locks, which end with the process.
    Files(#[expect(dead_code, reason = "held, never read")] Vec<File>),
    Server(Arc<Mutex<Renewed>>),
}

/// Leases on a server.
trait ServerLeases: Send {
    /// Renews all of them. Returns whether they were still ours.
    fn renew(&mut self) -> Result<bool, LeaseError>;

    /// Releases those that are still ours. One that cannot be released ends by itself.
    fn release(&mut self);
}

/// Leases on a server that are renewed until they are released or lost. Times are uptimes of this machine.
struct Renewed {
    server: Box<dyn ServerLeases>,
    clock: Clock,
    /// When the last successful renewal was sent.
    sent: Duration,
    /// Until when the leases are certainly valid.
    until: Duration,
    /// The server wants no request before.
    not_before: Duration,
    /// Why the last renewal failed.
    problem: String,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}

impl Renewed {
    /// Renews all leases. If one is no longer ours, they are lost at once. While the server does not answer, they stay
    /// valid until they end.
    fn renew(&mut self) {
        let sent = self.clock.uptime();
        // A lost lease stays lost: another provisioner may have had it in between.
        if sent >= self.until || sent < self.not_before {
            return;
        }
        match self.server.renew() {
            Ok(true) => (self.sent, self.until) = (sent, sent + LIFE),
            Ok(false) => {
                self.until = sent;
                self.problem = ": somebody else took or deleted it".into();
            }
            Err(error) => {
                self.not_before = sent + error.retry_after();
                self.problem = format!(": it could not be renewed: {}", error_chain(&error));
            }
        }
    }
}

/// Renews the leases in the background: observing a large system can take longer than a lease is valid.
fn keep_renewed(renewed: &Arc<Mutex<Renewed>>) {
    let renewed = Arc::downgrade(renewed);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(RENEWED);
            let Some(renewed) = renewed.upgrade() else { break };
            lock(&renewed).renew();
        }
    });
}

impl Leases {
    /// Fails if the lease of a system is lost. Called before each side effect. Renews leases on a server unless that was
    /// done just now.
    pub fn hold(&self, system: &str) -> Result<(), DriverError> {
        let lost = |why: &str| DriverError::Stopped(format!("the lease of {system} is lost{why}"));
        if !self.tokens.contains_key(system) {
            return Err(lost(""));
        }
        let Held::Server(renewed) = &self.held else { return Ok(()) };
        let mut renewed = lock(renewed);
        if renewed.clock.uptime() >= renewed.sent + FRESH {
            renewed.renew();
        }
        if renewed.clock.uptime() + MARGIN < renewed.until { Ok(()) } else { Err(lost(&renewed.problem)) }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Held::Server(renewed) = &self.held {
            let renewed = &mut *lock(renewed);
            renewed.until = Duration::ZERO;
            renewed.server.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_tokens_grow() {
        let folder = tempfile::tempdir().unwrap();
        let systems = ["capstor".to_owned(), "vast".to_owned()];
        let store = LeaseStore::new(&LeaseSettings::Files, &Clock::system());
        let take = || store.take(&systems, folder.path());
        let first = take().unwrap();
        assert!(matches!(take(), Err(LeaseError::Held { .. })));
        assert!(first.hold("vast").is_ok() && first.hold("other").is_err());
        let before = first.tokens.clone();
        drop(first);
        let second = take().unwrap();
        assert!(before.iter().all(|(system, token)| second.tokens[system] > *token));
    }
}
