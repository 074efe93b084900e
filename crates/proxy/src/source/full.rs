//! Reads all resources.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::{Depth, Identities, Inventory, Missed, Resource, Watermark};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::held::Held;
use super::related::Dependencies;
use super::update::Updated;
use super::{Inputs, Source, SourceError};
use crate::metrics;
use crate::telemetry::spans;
use crate::waldur::{self, Listing, Which};
use program::lock;

/// Resources that are named in a log line.
const NAMED: usize = 5;
/// How long resources are read with their orders before the list of orders is tried again.
const NESTED_FOR: Duration = Duration::from_mins(10);

impl Source {
    pub(super) async fn read_all(&self, known: Option<Held>) -> Result<Held, SourceError> {
        loop {
            // If the orders cannot be read apart, the next attempt reads them nested.
            if let Some(held) = self.read_pages(known.as_ref()).await? {
                metrics::reading("full");
                return Ok(held);
            }
        }
    }

    /// Reads all resources; `None` if their orders could not be read apart.
    async fn read_pages(&self, known: Option<&Held>) -> Result<Option<Held>, SourceError> {
        let began = Instant::now();
        let nested = self.reads_nested_orders();
        let slugs = self.slugs();
        let (sender, found) = mpsc::unbounded_channel();
        let listing = async {
            let found = |resource: &Resource| {
                // Fails if a dependent request has failed already.
                let _ = sender.send(Dependencies::of(resource, &self.policy));
            };
            let which = if nested { Which::WithOrders } else { Which::All };
            let listing = self.waldur.resources(&slugs, which, &found).await?;
            if listing.lacks_offering_slugs && !self.too_old.swap(true, Ordering::Relaxed) {
                error!("{}", waldur::TOO_OLD);
            }
            let Some((mut inventory, watermark)) = self.inventory(listing, nested).await? else { return Ok(None) };
            // Resources that changed or appeared during the reading.
            let changed = inventory.take_changed();
            changed.iter().filter_map(|uuid| inventory.resource(*uuid)).for_each(|resource| found(resource));
            drop(sender);
            Ok(Some((inventory, watermark)))
        };
        let reading = async {
            let (read, (related, identities)) = tokio::try_join!(listing, self.related(found))?;
            let Some((inventory, watermark)) = read else { return Ok(None) };
            self.check_empty_offerings(&inventory).await;
            Ok::<_, SourceError>(Some((inventory, watermark, related, identities)))
        };
        let Some((mut inventory, watermark, related, identities)) = spans::within("read", reading).await? else {
            return Ok(None);
        };
        if let Some(known) = known {
            let since = known.watermark.since(Depth::Deep);
            report_missed(&inventory.replace(&known.inputs.inventory, since));
        }
        let customers = related.customers(&inventory);
        self.identities.keep_only(&related.projects, &related.names);
        let is_same = known.is_some_and(|known| {
            let Inputs { customers: before, identities: Identities { gids, users }, .. } = &*known.inputs;
            *before == customers && *gids == identities.gids && *users == identities.users
        });
        let is_unchanged = inventory.take_changed().is_empty() && is_same;
        let snapshot = known.filter(|_| is_unchanged).map(|known| known.snapshot.clone()).unwrap_or_default();
        let inputs = Arc::new(Inputs { inventory, customers, identities });
        Ok(Some(Held { inputs, related, watermark, full: began, snapshot }))
    }

    /// The inventory of a full reading; `None` if the orders could not be read.
    async fn inventory(&self, listing: Listing, nested: bool) -> Result<Option<(Inventory, Watermark)>, SourceError> {
        let mut watermark = Watermark::new(self.overlap_micros());
        let modified = listing.pages.iter().flatten().filter_map(|row| row.modified);
        watermark.record(Depth::Deep, listing.date, modified);
        let mut inventory = Inventory::new(listing.pages.into_iter().flatten(), nested);
        let updated =
            if nested { Updated::Complete } else { self.update(&mut inventory, &mut watermark, Depth::Deep).await? };
        if updated == Updated::Vanished {
            self.switch_to_nested_orders("Waldur lists a resource that cannot be read on its own");
        }
        Ok((updated == Updated::Complete).then_some((inventory, watermark)))
    }

    /// Whether resources are read with their orders, which costs Waldur much more.
    pub(super) fn reads_nested_orders(&self) -> bool {
        lock(&self.nested_until).is_some_and(|until| Instant::now() < until)
    }

    /// From now on, resources are read with their orders, for some time.
    pub(super) fn switch_to_nested_orders(&self, reason: &'static str) {
        let until = Instant::now() + NESTED_FOR;
        if lock(&self.nested_until).replace(until).is_none() {
            warn!(reason, "reading all resources together with their orders, which costs Waldur several times as much");
        }
    }
}

fn report_missed(missed: &Missed) {
    metrics::missed(missed.unexpected.len());
    if missed.expected > 0 {
        debug!(resources = missed.expected, "renames, moves and deletions in Waldur are visible now");
    }
    if !missed.unexpected.is_empty() {
        let resources: Vec<_> = missed.unexpected.iter().take(NAMED).map(ToString::to_string).collect();
        warn!(
            count = missed.unexpected.len(),
            resources = resources.join(" "),
            "the refreshes since the last full reading missed changes; report this, and lower cache.full_interval"
        );
    }
}
