//! Reads all resources.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::{Depth, Identities, Inventory, Missed, Resource, Watermark};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::held::Held;
use super::related::{Dependencies, Related};
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

/// All resources as Waldur listed them, without the changes since.
#[derive(Debug)]
pub(super) struct Listed {
    began: Instant,
    ended: Instant,
    in_background: bool,
    nested: bool,
    listing: Listing,
    related: Related,
    identities: Arc<Identities>,
}

impl Listed {
    #[cfg(test)]
    pub(super) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.listing.resources()
    }

    /// The time since the last answer.
    pub(super) fn age(&self) -> Duration {
        self.ended.elapsed()
    }
}

/// A full reading in the background. Dropping it ends it.
pub(super) type Renewal = AbortOnDropHandle<Result<Listed, SourceError>>;

impl Source {
    pub(super) async fn read_all(&self, known: Option<Held>) -> Result<Held, SourceError> {
        loop {
            let reading = async {
                let listed = self.list_all(listed(known.as_ref()), false).await?;
                self.complete(listed, known.as_ref()).await
            };
            // If the list of orders cannot be used, the next attempt reads resources with their orders.
            if let Some(held) = spans::within("read", reading).await? {
                return Ok(Held { catalogue: known.and_then(|known| known.catalogue), ..held });
            }
        }
    }

    /// Lists all resources while refreshes of `held` go on.
    pub(super) fn renew(self: &Arc<Self>, held: &Held) -> Renewal {
        let (source, known) = (Arc::clone(self), listed(Some(held)));
        AbortOnDropHandle::new(tokio::spawn(async move { source.list_all(known, true).await }))
    }

    /// Lists all resources, and requests their customers and identities meanwhile. Shares each resource that equals the `known`
    /// one as soon as it is parsed, so that two copies of all resources are never in memory.
    pub(super) async fn list_all(
        &self,
        known: HashMap<Uuid, Arc<Resource>>,
        in_background: bool,
    ) -> Result<Listed, SourceError> {
        let began = Instant::now();
        let nested = self.reads_nested_orders();
        let slugs = self.slugs();
        let (sender, found) = mpsc::unbounded_channel();
        let listing = async {
            let found = |resource: &mut Arc<Resource>| {
                if let Some(known) = known.get(&resource.uuid).filter(|known| *known == resource) {
                    resource.clone_from(known);
                }
                // Fails if a dependent request has failed already.
                let _ = sender.send(Dependencies::of(resource, &self.policy));
            };
            let which = if nested { Which::WithOrders } else { Which::All { in_background } };
            let listing = self.waldur.resources(&slugs, which, &found).await?;
            drop(sender);
            Ok(listing)
        };
        let (listing, (related, identities)) = tokio::try_join!(listing, self.related(found))?;
        if listing.lacks_offering_slugs && !self.too_old.swap(true, Ordering::Relaxed) {
            error!("{}", waldur::TOO_OLD);
        }
        Ok(Listed { began, ended: Instant::now(), in_background, nested, listing, related, identities })
    }

    /// Adds what changed since the resources were listed; `None` if the list of orders cannot be used.
    pub(super) async fn complete(&self, listed: Listed, known: Option<&Held>) -> Result<Option<Held>, SourceError> {
        let Listed { began, in_background, nested, listing, mut related, identities, .. } = listed;
        let Some((mut inventory, watermark)) = self.inventory(listing, nested).await? else { return Ok(None) };
        let changed = inventory.take_changed();
        let customers = Arc::new(related.customers(&inventory));
        let mut inputs = Inputs { inventory, customers, identities };
        // In the background, refreshes may have found identities meanwhile.
        self.update_related(&mut related, &mut inputs, &changed, in_background).await?;
        self.check_empty_offerings(&inputs.inventory).await;
        self.identities.keep_only(&related.projects, &related.names);
        let mut is_same = false;
        if let Some(known) = known {
            let since = known.watermark.since(Depth::Deep);
            report_missed(&inputs.inventory.replace(&known.inputs.inventory, since));
            // Shared, so that they need not be compared again to build the catalogue.
            let are_same = share(&mut inputs.customers, &known.inputs.customers)
                & share(&mut inputs.identities, &known.inputs.identities);
            is_same = inputs.inventory.take_changed().is_empty() && are_same;
        }
        let snapshot = known.filter(|_| is_same).map(|known| known.snapshot.clone()).unwrap_or_default();
        metrics::reading("full");
        let inputs = Arc::new(inputs);
        Ok(Some(Held { inputs, related, watermark, full: began, snapshot, renewal: None, catalogue: None }))
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

/// The resources of the last reading.
fn listed(known: Option<&Held>) -> HashMap<Uuid, Arc<Resource>> {
    known.map(|known| known.inputs.inventory.listed()).unwrap_or_default()
}

/// Replaces `new` with `known` if both are equal; returns whether they are.
fn share<T: PartialEq>(new: &mut Arc<T>, known: &Arc<T>) -> bool {
    let is_same = new == known;
    if is_same {
        new.clone_from(known);
    }
    is_same
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
