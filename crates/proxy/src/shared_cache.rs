//! Shares readings between replicas, through a Valkey or Redis server (`cache.shared_url`). `reports/shared` shares reports.
//!
//! A replica that needs a reading takes a lease, reads the upstreams, and publishes the result; the others wait for it. A
//! publication consists of a *head*, which contains the time at which the reading began, by the server's clock, which is the
//! same for all replicas; a *body*, the snapshot; and the *identities*, so that the next reader need not request them again.
//! While nothing changes in Waldur, only the head changes, and replicas that have the body fetch nothing else.
//!
//! The server is optional at run time: when it does not answer quickly, each replica reads for itself. Its clock and its
//! leases are trusted, but not its confidentiality or integrity: see `seal`.

mod scripts;
mod seal;
mod server;
mod turn;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::Cmd;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};
use uuid::Uuid;

use crate::config::Settings;
use crate::hpc_user::{Export, GID_MAX_AGE};
use crate::reading::Reading;
use crate::snapshot::Snapshot;
use seal::Seal;
pub(crate) use seal::{derive, pack, unpack};
pub(crate) use server::Server;
pub use server::Unavailable;
use turn::Moment;
pub use turn::{Head, Lease, Shared, Turn};

/// Timeout of a command.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(250);
/// Timeout for transferring a large value.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a lease lasts unless it is renewed. When its holder dies, another replica reads after this time.
const LEASE: Duration = Duration::from_secs(2);
/// Interval between renewals of a lease.
const RENEWAL: Duration = Duration::from_millis(500);
/// Interval between polls of a waiting replica.
const POLL: Duration = Duration::from_millis(50);
/// How long a replica waits for another's reading before it reads for itself: the other's connection to Waldur may be
/// broken. At most a quarter of the request timeout.
const PATIENCE: Duration = Duration::from_secs(15);
/// Size limit of a published value, in bytes as sealed.
pub(crate) const MAX_VALUE: usize = 64 << 20;
/// Size limit of a head, which is polled.
const MAX_HEAD: usize = 4096;

const HEAD: &str = "head";
const BODY: &str = "body";
const IDENTITIES: &str = "identities";

pub struct SharedCache {
    server: Server,
    seal: Arc<Seal>,
    /// The hash with the publication, and the lease.
    keys: [String; 2],
    /// How long a publication is kept.
    kept: Duration,
    /// How long to wait for another replica's reading.
    patience: Duration,
    /// Identifies the publications of this replica.
    own: Uuid,
}

impl fmt::Debug for SharedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCache").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// The shared cache cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error("invalid cache.shared_url")]
    Url,
    /// A bug in this program.
    #[error("cannot derive the key of the shared cache")]
    Key,
}

impl SharedCache {
    /// Creates the shared cache, if configured. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// None for validated settings.
    pub fn new(settings: &Settings) -> Result<Option<Arc<Self>>, SetupError> {
        let Some(server) = Server::new(settings, "readings")? else { return Ok(None) };
        let seal = Seal::new(settings).map_err(|_| SetupError::Key)?;
        let keys = keys(&seal.namespace, ["snapshot", "lease"]);
        Ok(Some(Arc::new(Self {
            server,
            seal: Arc::new(seal),
            keys,
            kept: settings.cache.max_stale.max(GID_MAX_AGE),
            patience: PATIENCE.min(settings.server.request_timeout / 4),
            own: Uuid::new_v4(),
        })))
    }

    /// Tests the server without changing anything there; returns its address without credentials.
    pub async fn check(&self) -> Result<&str, Unavailable> {
        // No head is equal to this, so no lease is granted.
        let polled = self.poll(b"none", "none").await;
        polled.map(|_| self.server.address.as_str())
    }

    /// Whether the last command succeeded; `None` before the first one.
    pub fn works(&self) -> Option<bool> {
        self.server.works()
    }

    /// What to do to get a reading that was at most `max_age` old at the time of the request, and that is younger than the
    /// `newest` of this replica, so that clients never see older data after newer.
    pub async fn turn(&self, requested: Instant, max_age: Duration, newest: Option<&Reading>) -> Turn {
        let token = Uuid::new_v4().to_string();
        let waits_until = Instant::now() + self.patience;
        let (mut seen, mut head, mut sound) = (Vec::new(), None, true);
        let (mut polls, mut heads) = (0_usize, 0_usize);
        loop {
            // The first poll gets the head; the second, without a pause, may get the lease. All others wait for a new head.
            if polls > 1 {
                sleep(POLL).await;
            }
            polls += 1;
            let own = Instant::now();
            let polled = self.poll(&seen, &token).await;
            let Ok((seconds, micros, sealed, length, granted)) = polled else { return Turn::Alone };
            let at = Moment { server: seconds.saturating_mul(1_000_000).saturating_add(micros), own };
            if granted {
                self.server.accepted();
                return Turn::Read(Lease { token, at, head, sound });
            }
            if own >= waits_until {
                // A reading publishes one head and takes many polls.
                if heads > polls / 2 {
                    self.server.distrust("it returns another head at every poll");
                } else {
                    info!("another replica is still reading; reading the upstreams independently");
                }
                return Turn::Alone;
            }
            if sealed == seen {
                continue;
            }
            heads += 1;
            head = self.head(&sealed);
            sound = head.is_some() && (1..=MAX_VALUE).contains(&length);
            if let Some(head) = head.as_ref().filter(|_| sound)
                && at.since(head.began).is_some_and(|age| age <= own.saturating_duration_since(requested) + max_age)
                && is_younger(at.own(head.began), newest)
            {
                if let Some(shared) = self.take(head, at, newest).await {
                    return Turn::Take(shared);
                }
                sound = false;
            }
            seen = sealed;
        }
    }

    /// What was published when the lease was granted, if it is younger than the `newest` of this replica.
    pub async fn last(&self, lease: &Lease, newest: Option<&Reading>) -> Option<Shared> {
        let head = lease.head.as_ref().filter(|_| lease.sound)?;
        if !is_younger(lease.at.own(head.began), newest) {
            return None;
        }
        self.take(head, lease.at, newest).await
    }

    /// The identities that another replica published, and how long ago.
    pub async fn identities(&self, lease: &Lease) -> Option<(Export, Duration)> {
        let head = lease.head.as_ref().filter(|head| head.by != self.own)?;
        let ago = lease.at.since(head.began)?;
        let [sealed] = self.fetch([IDENTITIES]).await?;
        if seal::digest(&sealed) != head.identities {
            return None;
        }
        let seal = Arc::clone(&self.seal);
        let opening = spawn_blocking(move || serde_json::from_slice(&seal.open(IDENTITIES, &sealed)?).ok());
        Some((opening.await.ok()??, ago))
    }

    /// Runs `work` and renews the lease meanwhile.
    pub async fn keeping<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> T {
        let renewing = async {
            loop {
                sleep(RENEWAL).await;
                let mut renew = self.script(scripts::RENEW);
                renew.arg(&lease.token).arg(millis(LEASE));
                // After a failure, others may read too.
                let _: Result<bool, Unavailable> = self.server.send(&renew, TIMEOUT).await;
            }
        };
        tokio::select! {
            done = work => done,
            never = renewing => { let never: Infallible = never; match never {} }
        }
    }

    /// Releases the lease without publishing.
    pub async fn release(&self, lease: Lease) {
        let mut release = self.script(scripts::RELEASE);
        release.arg(&lease.token);
        // After a failure, the lease expires.
        let _: Result<bool, Unavailable> = self.server.send(&release, TIMEOUT).await;
    }

    /// Publishes a reading with its identities, and releases the lease.
    pub async fn publish(&self, lease: Lease, snapshot: Arc<Snapshot>, modified: SystemTime, identities: Export) {
        let content = snapshot.fingerprint();
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (began, by) = (lease.at.server, self.own);
        let published = lease.sound && lease.head.as_ref().is_some_and(|head| head.content == content);
        for with_body in if published { &[false, true][..] } else { &[true] } {
            let seal = Arc::clone(&self.seal);
            let snapshot = with_body.then(|| Arc::clone(&snapshot));
            let identities = serde_json::to_vec(&identities);
            let sealing = spawn_blocking(move || {
                let identities = seal.close(IDENTITIES, &identities.ok()?)?;
                let head = Head { began, modified, content, by, identities: seal::digest(&identities) };
                let head = seal.close(HEAD, &serde_json::to_vec(&head).ok()?)?;
                let body = snapshot.map(|snapshot| seal.close(BODY, &snapshot.pack().ok()?));
                let body = match body {
                    Some(body) => Some(body?),
                    None => None,
                };
                Some((head, identities, body))
            });
            let Ok(Some((head, identities, body))) = self.keeping(&lease, sealing).await else { break };
            if body.as_ref().is_some_and(|body| body.len() > MAX_VALUE) {
                debug!("the snapshot is too large for the shared cache");
                break;
            }
            let mut publish = self.script(scripts::PUBLISH);
            publish.arg(&lease.token).arg(millis(self.kept)).arg(head).arg(identities);
            if let Some(body) = body {
                publish.arg(body);
            }
            match self.server.send::<bool>(&publish, TRANSFER_TIMEOUT).await {
                Ok(true) => return,
                // The body is missing: try again with it.
                Ok(false) => {}
                Err(_) => break,
            }
        }
        self.release(lease).await;
    }

    /// The publication with this head or a later one; `None` if it is invalid.
    async fn take(&self, head: &Head, at: Moment, newest: Option<&Reading>) -> Option<Shared> {
        let mut head = head.clone();
        let newest = newest.map(|newest| &newest.snapshot);
        let known = newest.filter(|newest| newest.fingerprint() == head.content).map(Arc::clone);
        let snapshot = if let Some(newest) = known {
            newest
        } else {
            let [sealed, body] = self.fetch([HEAD, BODY]).await?;
            // A newer head may have been published with the body meanwhile.
            head = self.head(&sealed).filter(|now| now.began >= head.began)?;
            let (seal, before) = (Arc::clone(&self.seal), newest.map(Arc::clone));
            let opening = spawn_blocking(move || Snapshot::unpack(&seal.open(BODY, &body)?, before.as_deref()));
            Arc::new(opening.await.ok()?.filter(|snapshot| snapshot.fingerprint() == head.content)?)
        };
        // If the reading began after `at`, `at` is used instead.
        let began = at.own(head.began.min(at.server))?;
        let modified = head.modified(head.content)?;
        Some(Shared { snapshot, began, modified })
    }

    /// The server's time, the head, the length of the body, and whether the lease is granted.
    async fn poll(&self, seen: &[u8], token: &str) -> Result<(u64, u64, Vec<u8>, usize, bool), Unavailable> {
        let mut poll = self.script(scripts::POLL);
        poll.arg(seen).arg(token).arg(millis(LEASE)).arg(MAX_HEAD);
        self.server.send(&poll, TIMEOUT).await
    }

    /// Published values, as sealed; `None` if one is too large.
    async fn fetch<const FIELDS: usize>(&self, fields: [&str; FIELDS]) -> Option<[Vec<u8>; FIELDS]> {
        let mut fetch = self.script(scripts::FETCH);
        fetch.arg(MAX_VALUE).arg(&fields[..]);
        self.server.send::<Vec<Vec<u8>>>(&fetch, TRANSFER_TIMEOUT).await.ok()?.try_into().ok()
    }

    fn head(&self, sealed: &[u8]) -> Option<Head> {
        serde_json::from_slice(&self.seal.open(HEAD, sealed)?).ok()
    }

    fn script(&self, text: &str) -> Cmd {
        script(text, &self.keys)
    }
}

/// A command that runs a script with these keys; its arguments are still to be added.
pub(crate) fn script(text: &str, keys: &[String; 2]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(&keys[..]);
    command
}

/// Two keys of a namespace. The braces keep them on one node of a cluster.
pub(crate) fn keys(namespace: &str, names: [&str; 2]) -> [String; 2] {
    names.map(|name| format!("hpc-storage-proxy:{{{namespace}}}:{name}"))
}

/// Whether a reading that began then is younger than the newest one.
fn is_younger(began: Option<Instant>, newest: Option<&Reading>) -> bool {
    began.is_some_and(|began| newest.is_none_or(|newest| began > newest.began()))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
