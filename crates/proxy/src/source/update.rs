//! Reads what changed since the last reading: two requests if nothing did.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use catalog::{Depth, Inventory, Watermark};
use futures::stream::{self, StreamExt, TryStreamExt};
use http::StatusCode;
use tracing::{debug, warn};

use super::held::Held;
use super::{Source, SourceError};
use crate::metrics;
use crate::telemetry::spans;
use crate::upstream::UpstreamError;
use crate::waldur::{Listing, WaldurError, Which};
use program::error_chain;

/// Refreshes wait for a full reading if the last one is longer ago than this multiple of `cache.full_interval`.
const LATEST: f64 = 1.25;
/// Single resources are read this many at a time; the client may allow fewer requests.
const AT_ONCE: usize = 8;

/// The result of an update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Updated {
    Complete,
    /// A resource of the inventory cannot be read any more: it is gone, or Waldur contradicts its own list.
    Vanished,
    /// The list of orders cannot be used.
    NoOrders,
}

impl Source {
    /// Reads everything, or only what changed.
    pub(super) async fn advance(self: &Arc<Self>, known: Option<Held>) -> Result<Held, SourceError> {
        let full_next = self.full_next.swap(false, Ordering::Relaxed);
        match known {
            Some(known) if !full_next && self.reads_changes() => self.advance_held(known).await,
            known => self.read_all(known).await,
        }
    }

    /// Reads what changed. A full reading that is due runs in the background, and its result replaces `held` once it has
    /// ended, so that no refresh takes much longer than usual.
    async fn advance_held(self: &Arc<Self>, mut held: Held) -> Result<Held, SourceError> {
        let age = held.full.elapsed();
        if age < self.full_interval {
            return self.read_changes(held).await;
        }
        let is_late = age >= self.full_interval.mul_f64(LATEST);
        let renewal = held.renewal.take().unwrap_or_else(|| self.renew(&held));
        if !renewal.is_finished() && !is_late {
            held.renewal = Some(renewal);
            return self.read_changes(held).await;
        }
        match renewal.await {
            Ok(Ok(listed)) if listed.age() < self.full_interval => {
                if let Some(renewed) = self.complete(listed, Some(&held)).await? {
                    return Ok(Held { catalogue: held.catalogue, ..renewed });
                }
            }
            // The next refresh tries again.
            Ok(Err(error)) if !is_late => {
                debug!(error = error_chain(&error), "cannot read all resources in the background");
                return self.read_changes(held).await;
            }
            // It keeps failing, or it ended long ago and nothing was requested since.
            _ => {}
        }
        self.read_all(Some(held)).await
    }

    /// Whether readings between the full ones read changes only.
    pub fn reads_changes(&self) -> bool {
        !self.full_interval.is_zero() && self.lists_changes.load(Ordering::Relaxed) && !self.reads_nested_orders()
    }

    async fn read_changes(&self, mut held: Held) -> Result<Held, SourceError> {
        // Restored below if nothing has changed. After an incomplete update, a full reading must not reuse it for other inputs.
        let snapshot = std::mem::take(&mut held.snapshot);
        let Held { inputs, related, watermark, .. } = &mut held;
        // Copied only if a cancelled reading still renders them.
        let inputs = Arc::make_mut(inputs);
        let depth = watermark.next();
        let reading = async {
            if self.update(&mut inputs.inventory, watermark, depth).await? != Updated::Complete {
                return Ok(None);
            }
            let changed = inputs.inventory.take_changed();
            let is_renewed = self.update_related(related, inputs, &changed, true).await?;
            Ok::<_, SourceError>(Some((changed.len(), is_renewed)))
        };
        let Some((changed, is_renewed)) = spans::within("read", reading).await? else {
            return self.read_all(Some(held)).await;
        };
        if changed > 0 {
            self.found_changes.notify_one();
        }
        if changed == 0 && !is_renewed {
            held.snapshot = snapshot;
        }
        metrics::reading("changes");
        debug!(changed, ?depth, "read what changed in Waldur");
        Ok(held)
    }

    pub(super) fn overlap_micros(&self) -> i64 {
        i64::try_from(self.overlap.as_micros()).unwrap_or(i64::MAX)
    }

    /// Updates an inventory by open orders and changed resources.
    pub(super) async fn update(
        &self,
        inventory: &mut Inventory,
        watermark: &mut Watermark,
        depth: Depth,
    ) -> Result<Updated, SourceError> {
        let slugs = self.slugs();
        let Some((orders, date)) = self.waldur.open_orders(&slugs).await? else {
            self.switch_to_nested_orders(
                "Waldur does not list orders for this token; its user needs the role of a service provider's owner",
            );
            return Ok(Updated::NoOrders);
        };
        let listing = match watermark.since(depth) {
            Some(since) => match self.waldur.resources(&slugs, Which::ModifiedSince(since), &|_| {}).await {
                Err(WaldurError::Exchange(error))
                    if matches!(error.cause, UpstreamError::Status(StatusCode::BAD_REQUEST)) =>
                {
                    if self.lists_changes.swap(false, Ordering::Relaxed) {
                        warn!("this Waldur cannot list changed resources; each refresh reads all of them");
                    }
                    Listing::default()
                }
                listing => {
                    let listing = listing?;
                    self.lists_changes.store(true, Ordering::Relaxed);
                    listing
                }
            },
            None => Listing::default(),
        };
        watermark.record(depth, date, listing.pages.iter().flatten().filter_map(|row| row.modified));
        let uncertain = inventory.update(orders, depth, listing.pages.into_iter().flatten().collect());
        let read = |uuid| {
            let slugs = &slugs;
            async move { Ok::<_, SourceError>((uuid, self.waldur.resource(slugs, uuid).await?)) }
        };
        let mut reading = stream::iter(uncertain).map(read).buffer_unordered(AT_ONCE);
        let mut vanished = false;
        while let Some((uuid, row)) = reading.try_next().await? {
            vanished |= row.is_none() && inventory.contains(uuid);
            inventory.settle(uuid, row);
        }
        if inventory.lacks_orders() {
            self.switch_to_nested_orders(
                "the list of orders lacks orders of resources; the token's user needs the role of a service provider's owner",
            );
            return Ok(Updated::NoOrders);
        }
        Ok(if vanished { Updated::Vanished } else { Updated::Complete })
    }
}
