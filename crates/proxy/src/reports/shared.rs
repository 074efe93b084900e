//! Shares the reports between replicas, through the server of `cache.shared_url`, so that each replica shows all of them, and
//! a restart loses none.
//!
//! The server has two hashes with the same fields: for each provisioner its report, and its samples, which change less often.
//! One hash has the values, the other their *stamps*, which say which of two values is newer. Each replica polls the stamps,
//! fetches the values that it has not seen, and then publishes what it has and the server lacks. A value replaces only the one
//! that was seen, so two replicas cannot overwrite each other's.
//!
//! Keys and values depend on Waldur's URL and token only: neither an upgrade nor a changed setting of the catalogue loses a
//! report. Names of provisioners and times are visible to others with access to the server; reports are not, and cannot be
//! forged, see `seal`.

mod item;
mod scripts;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use provisioner_report::{MAX_BYTES, Report};
use redis::Cmd;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::item::{Item, Stamp, merge_samples, pack_samples, unpack_samples};
use super::{Entry, FORGOTTEN_AFTER, MAX_AHEAD, MAX_PROVISIONERS, Received, Rejected, Reports, Sample, keep};
use crate::config::Settings;
use crate::seal::Seal;
use crate::shared_cache::{MAX_VALUE, Server, SetupError, TIMEOUT, TRANSFER_TIMEOUT};
use crate::shared_cache::{derive, keys, millis, script, unpack};

/// Version of the stored data. Replicas with different ones share nothing.
const FORMAT: u32 = 1;
/// Interval between polls.
const POLL: Duration = Duration::from_secs(5);
/// Pause after a large value could not be transferred, so that it does not load the server again at once.
const TRANSFER_PAUSE: Duration = Duration::from_secs(30);
/// Number of fields from which all of them are removed: only others can have written so many.
const MAX_FIELDS: usize = 8 * MAX_PROVISIONERS;
/// Maximum length of a field's name and of a stamp, in bytes.
const MAX_NAME: usize = 80;

/// The reports on the server.
pub(crate) struct SharedReports {
    /// A connection of its own, because large reports would delay readings.
    server: Server,
    seal: Arc<Seal>,
    /// The hashes with the stamps and with the values.
    keys: [String; 2],
}

impl fmt::Debug for SharedReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReports").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// What a replica remembers between polls.
#[derive(Debug, Default)]
struct Memory {
    /// The stamps of the values that this replica fetched or published last.
    seen: HashMap<Item, Stamp>,
    /// Whether a value from the future has been logged.
    warned: bool,
}

/// What came of a value on the server.
#[derive(Debug)]
enum Taken {
    /// It need not be fetched again.
    Seen,
    /// Another replica has replaced it meanwhile, or its report is not accepted.
    Skipped,
    /// It was forged or forgotten, and removed from the server.
    Removed,
}

/// What came of a fetched value.
#[derive(Debug)]
enum Outcome {
    /// It is kept, or not newer than what is.
    Done,
    /// It was not sealed by a replica as this item with this stamp.
    Forged,
    /// This replica does not accept it.
    Rejected(Rejected),
}

impl SharedReports {
    /// The reports on the server of the settings, if configured. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// None for validated settings.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, SetupError> {
        let Some(server) = Server::new(settings, "reports")? else { return Ok(None) };
        let context = format!("reports {FORMAT} {}", settings.waldur_api.api_url);
        let (seal, namespace) = derive(settings, &context).map_err(|_| SetupError::Key)?;
        Ok(Some(Self { server, seal: Arc::new(seal), keys: keys(&namespace, ["stamps", "reports"]) }))
    }

    /// Shares the reports. Never resolves.
    pub(crate) async fn run(&self, reports: &Arc<Reports>) -> Infallible {
        let mut memory = Memory::default();
        loop {
            let pause = match self.exchange(reports, &mut memory).await {
                Ok(()) => POLL,
                // The server has logged it.
                Err(pause) => pause,
            };
            // A report that arrives is published at once.
            let _ = timeout(pause, reports.arrived.notified()).await;
        }
    }

    /// Fetches what this replica lacks, and publishes what the server lacks. Returns a longer pause after a failure.
    async fn exchange(&self, reports: &Arc<Reports>, memory: &mut Memory) -> Result<(), Duration> {
        let (mut on_server, forged) = self.poll().await?;
        for (field, stamp) in forged {
            warn!("a stamp of a report in the shared cache was not written by a replica; it is removed");
            self.discard(&field, &stamp).await?;
        }
        let now = reports.now();
        memory.seen.retain(|item, _| on_server.contains_key(item));
        let is_future = |stamp: &Stamp| stamp.is_after(now + MAX_AHEAD);
        let ahead = on_server.iter().find(|(_, stamp)| is_future(stamp));
        if let Some((item, _)) = ahead
            && !memory.warned
        {
            warn!(
                provisioner = item.provisioner(),
                "a report in the shared cache is from the future, and ignored: set the clocks of the replicas' hosts"
            );
        }
        memory.warned = ahead.is_some();
        // Reports come before samples.
        for (item, stamp) in on_server.clone().into_iter().filter(|(_, stamp)| !is_future(stamp)) {
            let is_forgotten = match &item {
                Item::Report(_) => now - stamp.received_at() > FORGOTTEN_AFTER,
                Item::Samples(name) => {
                    !on_server.contains_key(&Item::Report(name.clone())) && !reports.lock().contains_key(name)
                }
            };
            let taken = if is_forgotten {
                self.discard(item.to_string().as_bytes(), stamp.to_string().as_bytes()).await?;
                Taken::Removed
            } else if memory.seen.get(&item) == Some(&stamp) {
                continue;
            } else {
                self.take(reports, &item, stamp).await?
            };
            match taken {
                Taken::Seen => drop(memory.seen.insert(item, stamp)),
                Taken::Skipped => {}
                Taken::Removed => drop(on_server.remove(&item)),
            }
        }
        let kept: Vec<_> =
            reports.lock().values().map(|entry| (Arc::clone(&entry.received), Arc::clone(&entry.packed))).collect();
        for (received, packed) in kept {
            let items = [Item::Report(received.name.clone()), Item::Samples(received.name.clone())];
            for item in items {
                let Some(stamp) = item.stamp(&received) else { continue };
                let before = on_server.get(&item);
                if before.is_some_and(|before| !is_future(before) && *before >= stamp) || is_future(&stamp) {
                    continue;
                }
                if self.publish(&item, stamp, before, &received, &packed).await? {
                    memory.seen.insert(item, stamp);
                }
            }
        }
        Ok(())
    }

    /// The stamps on the server, and those that no replica wrote.
    async fn poll(&self) -> Result<(BTreeMap<Item, Stamp>, Vec<(Vec<u8>, Vec<u8>)>), Duration> {
        let mut poll = self.script(scripts::POLL);
        poll.arg(MAX_FIELDS).arg(MAX_NAME);
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = self.server.send(&poll, TIMEOUT).await.map_err(|_| POLL)?;
        let (mut known, mut forged) = (BTreeMap::new(), Vec::new());
        for (field, stamp) in pairs {
            match (Item::parse(&field), Stamp::parse(&stamp)) {
                (Some(item), Some(stamp)) => {
                    known.insert(item, stamp);
                }
                _ => forged.push((field, stamp)),
            }
        }
        Ok((known, forged))
    }

    /// Fetches and takes over a value.
    async fn take(&self, reports: &Arc<Reports>, item: &Item, stamp: Stamp) -> Result<Taken, Duration> {
        match item {
            Item::Report(name) if reports.lock().get(name).is_some_and(|entry| Stamp::of(&entry.received) >= stamp) => {
                return Ok(Taken::Seen);
            }
            // Its report is not accepted.
            Item::Samples(name) if !reports.lock().contains_key(name) => return Ok(Taken::Skipped),
            // Older samples can complete the own ones.
            _ => {}
        }
        let (field, text) = (item.to_string(), stamp.to_string());
        let mut fetch = self.script(scripts::FETCH);
        fetch.arg(&field).arg(&text).arg(MAX_VALUE);
        let fetched: Option<Vec<u8>> = self.server.send(&fetch, TRANSFER_TIMEOUT).await.map_err(|_| TRANSFER_PAUSE)?;
        let Some(sealed) = fetched else { return Ok(Taken::Skipped) };
        // The same limit as for reports that arrive. Never closed.
        let permit = Arc::clone(&reports.receiving).acquire_owned().await;
        let (seal, reports, item) = (Arc::clone(&self.seal), Arc::clone(reports), item.clone());
        let taking = spawn_blocking(move || {
            let outcome = match seal.open(&kind(&item, stamp), &sealed) {
                Some(packed) => adopt(&reports, &item, stamp, packed),
                None => Outcome::Forged,
            };
            drop(permit);
            outcome
        });
        match taking.await {
            Ok(Outcome::Forged) => {
                warn!(field, "a report in the shared cache was not written by a replica; it is removed");
                self.discard(field.as_bytes(), text.as_bytes()).await?;
                return Ok(Taken::Removed);
            }
            Ok(Outcome::Rejected(reason)) => {
                warn!(field, %reason, "a report in the shared cache is not accepted");
            }
            // The panic hook has reported a panic.
            Ok(Outcome::Done) | Err(_) => {}
        }
        Ok(Taken::Seen)
    }

    /// Publishes a value in place of the one that was seen. Returns whether that was still there.
    async fn publish(
        &self,
        item: &Item,
        stamp: Stamp,
        before: Option<&Stamp>,
        received: &Arc<Received>,
        packed: &Arc<[u8]>,
    ) -> Result<bool, Duration> {
        let (seal, kind) = (Arc::clone(&self.seal), kind(item, stamp));
        let (is_report, received, packed) = (matches!(item, Item::Report(_)), Arc::clone(received), Arc::clone(packed));
        let sealing = spawn_blocking(move || {
            let value = if is_report { packed.to_vec() } else { pack_samples(&received.samples)? };
            seal.close(&kind, value).filter(|sealed| sealed.len() <= MAX_VALUE)
        });
        let Ok(Some(sealed)) = sealing.await else {
            debug!(field = %item, "a report cannot be shared");
            return Ok(false);
        };
        let mut publish = self.script(scripts::PUBLISH);
        publish.arg(item.to_string()).arg(before.map(Stamp::to_string).unwrap_or_default());
        publish.arg(stamp.to_string()).arg(sealed).arg(millis(FORGOTTEN_AFTER));
        let published: bool = self.server.send(&publish, TRANSFER_TIMEOUT).await.map_err(|_| TRANSFER_PAUSE)?;
        if published {
            self.server.accepted();
        }
        Ok(published)
    }

    fn script(&self, text: &str) -> Cmd {
        script(&format!("{}{text}", scripts::CLEAN), &self.keys)
    }

    /// Removes a field, if it still has this stamp.
    async fn discard(&self, field: &[u8], stamp: &[u8]) -> Result<(), Duration> {
        let mut discard = self.script(scripts::DISCARD);
        discard.arg(field).arg(stamp);
        self.server.send::<bool>(&discard, TIMEOUT).await.map(drop).map_err(|_| POLL)
    }
}

/// The kind as which a value is sealed.
fn kind(item: &Item, stamp: Stamp) -> String {
    format!("{item} {stamp}")
}

/// Keeps a value of another replica, if it is newer.
fn adopt(reports: &Reports, item: &Item, stamp: Stamp, packed: Vec<u8>) -> Outcome {
    let replaced = match item {
        Item::Report(name) => {
            // A longer one is rejected when it is parsed.
            let Ok(json) = unpack(&packed, MAX_BYTES as u64 + 1) else { return Outcome::Forged };
            let report = match Report::parse(&json) {
                Ok(report) => report,
                // A replica of a later version may have accepted it.
                Err(error) => return Outcome::Rejected(error.into()),
            };
            adopt_report(reports, name, report, stamp, (packed.into(), json.len()))
        }
        Item::Samples(name) => {
            let Some(samples) = unpack_samples(&packed) else { return Outcome::Forged };
            adopt_samples(reports, name, &samples);
            Ok(None)
        }
    };
    match replaced {
        // Dropped here, without the lock.
        Ok(_) | Err(Rejected::Older { .. }) => Outcome::Done,
        Err(reason) => Outcome::Rejected(reason),
    }
}

fn adopt_report(
    reports: &Reports,
    name: &str,
    report: Report,
    stamp: Stamp,
    (packed, bytes): (Arc<[u8]>, usize),
) -> Result<Option<Entry>, Rejected> {
    let now = reports.now();
    let mut kept = reports.lock();
    let before = kept.get(name).map(|entry| &entry.received);
    if before.is_some_and(|before| Stamp::of(before) >= stamp) {
        return Ok(None);
    }
    let samples = before.map(|before| before.samples.clone()).unwrap_or_default();
    let received = Received { name: name.to_owned(), received_at: stamp.received_at(), report, samples };
    keep(&mut kept, Entry { received: Arc::new(received), packed, bytes }, now)
}

fn adopt_samples(reports: &Reports, name: &str, samples: &[Arc<Sample>]) {
    loop {
        let Some(before) = reports.lock().get(name).map(|entry| Arc::clone(&entry.received)) else { return };
        let merged = merge_samples(&before.samples, samples);
        if merged.iter().map(|it| it.at).eq(before.samples.iter().map(|it| it.at)) {
            return;
        }
        // Takes a while for a large report.
        let received = Arc::new(Received { samples: merged, ..(*before).clone() });
        if let Some(entry) = reports.lock().get_mut(name)
            && Arc::ptr_eq(&entry.received, &before)
        {
            entry.received = received;
            return;
        }
        // Another report has arrived meanwhile.
    }
}

#[cfg(test)]
mod tests;
