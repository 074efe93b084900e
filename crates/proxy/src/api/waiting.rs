//! Waiting for a listing to change: `Prefer: wait=N` (RFC 7240) together with `If-None-Match`.
//!
//! The wait is level-triggered: it compares the client's tag with the newest snapshot, so a change that happens between two requests
//! is not missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::server::Patience;
use crate::store::{Served, Store, StoreError};

/// Longest wait; longer ones are shortened.
const MAX_WAIT: Duration = Duration::from_mins(5);
/// Clients are answered over this time for each waiting client, at most [`MAX_SPREAD`], so that they do not all come back at once.
const SPREAD: Duration = Duration::from_micros(100);
const MAX_SPREAD: Duration = Duration::from_secs(1);
/// Number of different delays within the spread.
const DELAYS: u32 = 1024;

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The header that confirms the preference.
pub(super) const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a client wants to wait; `None` if it does not, or has no tag to compare with.
pub(super) fn requested(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::IF_NONE_MATCH)?;
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let wait = values.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    let is_number = !wait.is_empty() && wait.bytes().all(|byte| byte.is_ascii_digit());
    // Only a number that is too large cannot be parsed.
    let seconds = is_number.then(|| wait.parse().unwrap_or(u64::MAX))?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(MAX_WAIT))
}

/// The value of [`APPLIED`].
pub(super) fn applied(wait: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).unwrap_or(HeaderValue::from_static("wait"))
}

/// A request extension that receives how long the request has waited, in microseconds, for the log and the metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct WaitedSlot(Arc<AtomicU64>);

impl WaitedSlot {
    pub(super) fn waited(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// What clients wait for.
#[derive(Debug, Clone)]
struct Awaited {
    store: Arc<Store>,
    /// Counts the events that end all waits.
    ended: usize,
    /// No client waits any more.
    stopped: bool,
}

/// The clients that wait for other content.
#[derive(Debug)]
pub struct Waiting {
    /// Each waiting client is a receiver.
    awaited: watch::Sender<Awaited>,
    /// Number of waits so far.
    waits: AtomicU32,
}

impl Waiting {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let awaited = watch::Sender::new(Awaited { store, ended: 0, stopped: false });
        Self { awaited, waits: AtomicU32::new(0) }
    }

    /// Clients wait for another store from now on; unless `keep`, the current waits end.
    pub(super) fn replace(&self, store: &Arc<Store>, keep: bool) {
        self.awaited.send_modify(|awaited| {
            awaited.store = Arc::clone(store);
            awaited.ended += usize::from(!keep);
        });
    }

    /// Ends all waits, now and from now on.
    pub fn stop(&self) {
        self.awaited.send_modify(|awaited| awaited.stopped = true);
    }

    /// Number of clients that wait.
    pub(super) fn clients(&self) -> usize {
        self.awaited.receiver_count()
    }

    /// Waits for at most `wait` until a snapshot is not current any more, beginning with the given one. Returns that snapshot, or
    /// the last one. `request` are its extensions: its [`WaitedSlot`], and with HTTP/1 its [`Patience`].
    ///
    /// # Errors
    ///
    /// After the whole wait, there is no snapshot that can be served.
    pub(super) async fn wait(
        &self,
        wait: Duration,
        (mut store, mut served): (Arc<Store>, Served),
        is_current: impl Fn(&Store, &Served) -> bool,
        request: &Extensions,
    ) -> Result<(Arc<Store>, Served), StoreError> {
        if !is_current(&store, &served) {
            return Ok((store, served));
        }
        let began = Instant::now();
        let _recorded = request.get().map(|slot| Recorded { slot, began });
        let _cancelled = request.get().map(Patience::wait);
        let mut awaited = self.awaited.subscribe();
        let ended = awaited.borrow().ended;
        let mut content = store.subscribe();
        loop {
            {
                let now = awaited.borrow_and_update();
                if now.stopped || now.ended != ended {
                    break;
                }
                if !Arc::ptr_eq(&now.store, &store) {
                    store = Arc::clone(&now.store);
                    content = store.subscribe();
                }
            }
            if let Some(reading) = store.newest() {
                served = Served { reading, stale: false };
            }
            if !is_current(&store, &served) {
                sleep(self.delay()).await;
                break;
            }
            // Neither sender is dropped: `self` and `store` hold them.
            tokio::select! {
                _ = content.changed() => {}
                _ = awaited.changed() => {}
                () = sleep_until(began + wait) => {
                    let served = store.get(false).await?;
                    return Ok((store, served));
                }
            }
        }
        Ok((store, served))
    }

    /// A delay within the spread, another one for each wait.
    fn delay(&self) -> Duration {
        let number = self.waits.fetch_add(1, Ordering::Relaxed) % DELAYS;
        let clients = u32::try_from(self.clients()).unwrap_or(u32::MAX);
        let spread = SPREAD.saturating_mul(clients).min(MAX_SPREAD);
        spread * number / DELAYS
    }
}

/// Records the time of a wait when dropped, however the wait ends.
struct Recorded<'a> {
    slot: &'a WaitedSlot,
    began: Instant,
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slot.0.store(waited, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_of(tag: bool, prefer: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        if tag {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"a\""));
        }
        for value in prefer {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        requested(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_requested_by_a_preference_and_a_tag() {
        for (prefer, wait) in [
            (&["wait=10"][..], Some(10)),
            (&["WAIT = \"10\"; foo=\"bar\", respond-async"], Some(10)),
            (&["respond-async", "wait=10, wait=20"], Some(10)),
            (&["wait=100000"], Some(300)),
            (&["wait=99999999999999999999999"], Some(300)),
            (&["wait=0"], None),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["wait"], None),
            (&["wait="], None),
            (&["await=10"], None),
            (&[], None),
        ] {
            assert_eq!(wait_of(true, prefer), wait, "{prefer:?}");
            assert_eq!(wait_of(false, prefer), None, "{prefer:?}");
        }
    }
}
