//! Several replicas share what one of them has read, through a Valkey or Redis server (`cache.shared_url`).
//!
//! Whoever needs a reading that nobody has published takes a lease, reads, and publishes; the others wait for that. What is
//! published is a *head*, which says when the reading began by the server's clock, the one clock that all replicas can
//! compare; a *body*, the snapshot; and the *identities*, so that the next reader asks nobody for what the last one knew.
//! While nothing changes in Waldur, only the head does, and whoever has the body already fetches nothing else.
//!
//! The server is a convenience: without it, or when it does not answer within a moment, each replica stands alone. It is
//! trusted to keep time and to keep promises, not to keep secrets or to tell the truth: see `seal`.

mod link;
mod scripts;
mod seal;
mod turn;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::Cmd;
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};
use url::Url;
use uuid::Uuid;

use crate::config::Settings;
use crate::hpc_user::{GID_MAX_AGE, Known};
use crate::reading::Reading;
use crate::snapshot::Snapshot;
use crate::upstream::public_part;
pub use link::Away;
use link::Link;
use seal::Seal;
use turn::Moment;
pub use turn::{Head, Lease, Taken, Turn};

/// The longest wait for an answer of the server.
const MOMENT: Duration = Duration::from_millis(250);
/// The longest wait for a whole snapshot to go there or come from there.
const TRANSFER: Duration = Duration::from_secs(1);
/// How long a lease lasts unless it is renewed: when its holder dies, another replica reads after this time.
const LEASE: Duration = Duration::from_secs(2);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(500);
/// Pause of a waiting replica between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long one replica waits for another's reading before it reads for itself: the other's way to Waldur may be the one
/// that is broken. At most a quarter of the time that a request has.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest value that is published or fetched, in bytes as sealed.
const LARGEST: usize = 64 << 20;
/// The largest head, likewise: it is looked at again and again.
const LARGEST_HEAD: usize = 4096;

const HEAD: &str = "head";
const BODY: &str = "body";
const IDENTITIES: &str = "identities";

/// What replicas share.
pub struct SharedCache {
    link: Link,
    seal: Arc<Seal>,
    /// The hash of what is published, and the lease.
    keys: [String; 2],
    /// How long it is kept.
    kept: Duration,
    /// How long another replica's reading is waited for.
    patience: Duration,
    /// This replica, so that it knows its own publications again.
    own: Uuid,
}

impl fmt::Debug for SharedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCache").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Sharing that cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The address of the server.
    #[error("cache.shared_url cannot be used")]
    Url,
    /// The key: a fault of this program.
    #[error("no key can be derived")]
    Key,
}

impl SharedCache {
    /// Sets the sharing up, if the settings ask for it. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// None for settings that were judged.
    pub fn new(settings: &Settings) -> Result<Option<Arc<Self>>, SetupError> {
        let Some(url) = &settings.shared_cache else { return Ok(None) };
        let url = url.expose_secret();
        let place = public_part(&Url::parse(url).map_err(|_| SetupError::Url)?);
        let seal = Seal::new(settings).map_err(|_| SetupError::Key)?;
        // The braces keep both keys on one node of a cluster.
        let keys = ["snapshot", "lease"].map(|what| format!("hpc-storage-proxy:{{{}}}:{what}", seal.namespace));
        Ok(Some(Arc::new(Self {
            link: Link::new(url, place).map_err(|_| SetupError::Url)?,
            seal: Arc::new(seal),
            keys,
            kept: settings.cache.max_stale.max(GID_MAX_AGE),
            patience: PATIENCE.min(settings.server.request_timeout / 4),
            own: Uuid::new_v4(),
        })))
    }

    /// Whether the server does what is asked of it; nothing is changed there. The server as it may be shown.
    ///
    /// # Errors
    ///
    /// It does not.
    pub async fn check(&self) -> Result<&str, Away> {
        // No head is like this, so that no lease is granted.
        let looked = self.look(b"none", "none").await;
        looked.map(|_| self.link.place.as_str())
    }

    /// Whether the server did what was last asked of it; `None` before the first exchange.
    pub fn works(&self) -> Option<bool> {
        self.link.works()
    }

    /// What to do for a reading that was at most `max_age` old when it was `asked` for, and that is younger than the `newest`
    /// of this replica: nobody is to see what has changed and then not see it.
    pub async fn turn(&self, asked: Instant, max_age: Duration, newest: Option<&Reading>) -> Turn {
        let token = Uuid::new_v4().to_string();
        let waits_until = Instant::now() + self.patience;
        let (mut seen, mut head, mut sound) = (Vec::new(), None, true);
        let (mut looks, mut heads) = (0_usize, 0_usize);
        loop {
            // The first look shows the head; the second, without a pause, may get the lease. All others wait for a change.
            if looks > 1 {
                sleep(LOOK).await;
            }
            looks += 1;
            let own = Instant::now();
            let looked = self.look(&seen, &token).await;
            let Ok((seconds, micros, sealed, length, granted)) = looked else { return Turn::Alone };
            let at = Moment { server: seconds.saturating_mul(1_000_000).saturating_add(micros), own };
            if granted {
                self.link.accepted();
                return Turn::Read(Lease { token, at, head, sound });
            }
            if own >= waits_until {
                // Each reading publishes one head, and takes many looks.
                if heads > looks / 2 {
                    self.link.distrust("it shows another head at every look");
                } else {
                    info!("another replica is still reading; this one reads for itself");
                }
                return Turn::Alone;
            }
            if sealed == seen {
                continue;
            }
            heads += 1;
            head = self.head(&sealed);
            sound = head.is_some() && (1..=LARGEST).contains(&length);
            if let Some(head) = head.as_ref().filter(|_| sound)
                && at.since(head.began).is_some_and(|age| age <= own.saturating_duration_since(asked) + max_age)
                && is_younger(at.own(head.began), newest)
            {
                if let Some(reading) = self.take(head, at, newest).await {
                    return Turn::Take(reading);
                }
                sound = false;
            }
            seen = sealed;
        }
    }

    /// What was published when the lease was granted, if it is younger than the `newest` of this replica.
    pub async fn last(&self, lease: &Lease, newest: Option<&Reading>) -> Option<Taken> {
        let head = lease.head.as_ref().filter(|_| lease.sound)?;
        if !is_younger(lease.at.own(head.began), newest) {
            return None;
        }
        self.take(head, lease.at, newest).await
    }

    /// The identities that another replica knew, and how long ago.
    pub async fn identities(&self, lease: &Lease) -> Option<(Known, Duration)> {
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

    /// Does some work and renews the lease meanwhile.
    pub async fn keeping<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> T {
        let renewing = async {
            loop {
                sleep(RENEWAL).await;
                let mut renew = self.script(scripts::RENEW);
                renew.arg(&lease.token).arg(millis(LEASE));
                // When it fails, others may read as well.
                let _: Result<bool, Away> = self.link.ask(&renew, MOMENT).await;
            }
        };
        tokio::select! {
            done = work => done,
            never = renewing => { let never: Infallible = never; match never {} }
        }
    }

    /// Gives the lease back without a reading.
    pub async fn release(&self, lease: Lease) {
        let mut release = self.script(scripts::RELEASE);
        release.arg(&lease.token);
        // When it fails, the lease ends by itself.
        let _: Result<bool, Away> = self.link.ask(&release, MOMENT).await;
    }

    /// Publishes what was read under the lease, with the identities that belong to it.
    pub async fn publish(&self, lease: Lease, snapshot: Arc<Snapshot>, modified: SystemTime, identities: Known) {
        let content = snapshot.fingerprint();
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (began, by) = (lease.at.server, self.own);
        let is_there = lease.sound && lease.head.as_ref().is_some_and(|head| head.content == content);
        for whole in if is_there { &[false, true][..] } else { &[true] } {
            let seal = Arc::clone(&self.seal);
            let snapshot = whole.then(|| Arc::clone(&snapshot));
            let known = serde_json::to_vec(&identities);
            let sealing = spawn_blocking(move || {
                let known = seal.close(IDENTITIES, &known.ok()?)?;
                let head = Head { began, modified, content, by, identities: seal::digest(&known) };
                let head = seal.close(HEAD, &serde_json::to_vec(&head).ok()?)?;
                let body = snapshot.map(|snapshot| seal.close(BODY, &snapshot.pack().ok()?));
                let body = match body {
                    Some(body) => Some(body?),
                    None => None,
                };
                Some((head, known, body))
            });
            let Ok(Some((head, known, body))) = self.keeping(&lease, sealing).await else { break };
            if body.as_ref().is_some_and(|body| body.len() > LARGEST) {
                debug!("the snapshot is too large to be shared");
                break;
            }
            let mut publish = self.script(scripts::PUBLISH);
            publish.arg(&lease.token).arg(millis(self.kept)).arg(head).arg(known);
            if let Some(body) = body {
                publish.arg(body);
            }
            match self.link.ask::<bool>(&publish, TRANSFER).await {
                Ok(true) => return,
                // The body is gone: once more, with it.
                Ok(false) => {}
                Err(_) => break,
            }
        }
        self.release(lease).await;
    }

    /// What is published, at the moment of `head` or later; `None` for what is not understood.
    async fn take(&self, head: &Head, at: Moment, newest: Option<&Reading>) -> Option<Taken> {
        let mut head = head.clone();
        let newest = newest.map(|newest| &newest.snapshot);
        let known = newest.filter(|newest| newest.fingerprint() == head.content).map(Arc::clone);
        let snapshot = if let Some(newest) = known {
            newest
        } else {
            let [sealed, body] = self.fetch([HEAD, BODY]).await?;
            // A newer one may have come meanwhile, and goes with the body.
            head = self.head(&sealed).filter(|now| now.began >= head.began)?;
            let (seal, before) = (Arc::clone(&self.seal), newest.map(Arc::clone));
            let opening = spawn_blocking(move || Snapshot::unpack(&seal.open(BODY, &body)?, before.as_deref()));
            Arc::new(opening.await.ok()?.filter(|snapshot| snapshot.fingerprint() == head.content)?)
        };
        // What began since the moment is not older than it.
        let began = at.own(head.began.min(at.server))?;
        let modified = head.modified(head.content)?;
        Some(Taken { snapshot, began, modified })
    }

    /// The server's time, the head, the length of the body, and whether the lease is granted.
    async fn look(&self, seen: &[u8], token: &str) -> Result<(u64, u64, Vec<u8>, usize, bool), Away> {
        let mut look = self.script(scripts::LOOK);
        look.arg(seen).arg(token).arg(millis(LEASE)).arg(LARGEST_HEAD);
        self.link.ask(&look, MOMENT).await
    }

    /// What is published, as sealed; `None` if any of it is too large.
    async fn fetch<const FIELDS: usize>(&self, fields: [&str; FIELDS]) -> Option<[Vec<u8>; FIELDS]> {
        let mut fetch = self.script(scripts::FETCH);
        fetch.arg(LARGEST).arg(&fields[..]);
        self.link.ask::<Vec<Vec<u8>>>(&fetch, TRANSFER).await.ok()?.try_into().ok()
    }

    fn head(&self, sealed: &[u8]) -> Option<Head> {
        serde_json::from_slice(&self.seal.open(HEAD, sealed)?).ok()
    }

    fn script(&self, text: &str) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(self.keys.len()).arg(&self.keys[..]);
        command
    }
}

/// Whether a reading that began then is younger than the newest one.
fn is_younger(began: Option<Instant>, newest: Option<&Reading>) -> bool {
    began.is_some_and(|began| newest.is_none_or(|newest| began > newest.began()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
