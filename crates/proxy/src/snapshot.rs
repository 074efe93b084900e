//! The catalogue as it is served: every item rendered to JSON once.

mod orders;
mod packed;
mod text;

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use catalog::{Callbacks, Catalogue, Count, Filter, Index, Selection, Skipped};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use orders::Orders;
pub use packed::FORM;
use text::Text;

/// An immutable, rendered catalogue.
#[derive(Debug)]
pub struct Snapshot {
    items: Text,
    orders: Orders,
    /// What may be relayed to Waldur.
    callbacks: Vec<Callbacks>,
    index: Index,
    /// Left out for want of an identity.
    skipped: Vec<Skipped>,
    /// Left out because they cannot be mapped.
    malformed: Vec<Skipped>,
    /// Both of these, rendered as a list.
    left_out: Bytes,
    fingerprint: u64,
    /// What filters have selected so far.
    selections: Mutex<HashMap<Filter, Arc<Selection>>>,
}

/// Filters whose selection is remembered. There are only so many that make sense.
const SELECTIONS: usize = 64;

/// What an id leads to.
#[derive(Debug)]
pub enum Found<'a> {
    /// The rendered item.
    Item(Bytes),
    /// A resource that is not in the catalogue, and why.
    Skipped(&'a Skipped),
    /// Nothing.
    Nothing,
}

/// One page of what a filter selects.
#[derive(Debug)]
pub struct Page<'a> {
    /// Items that the filter selects on all pages together.
    pub total: usize,
    /// The rendered items of the page: slices to be joined by commas, each of one or more items, in order.
    pub items: Vec<Bytes>,
    /// The orders in progress of these items, as entries of a map by `itemId`: slices to be joined by commas.
    pub orders: Vec<Bytes>,
    /// Resources that the filter selects and that are not in the catalogue.
    pub skipped: Vec<&'a Skipped>,
}

impl Snapshot {
    /// Renders a catalogue, with the records that did not get as far as the catalogue. What says the same as in the
    /// snapshot `before` is shared with it.
    ///
    /// # Errors
    ///
    /// None in practice: an item has nothing that JSON cannot say.
    pub fn render(
        catalogue: Catalogue<'_>,
        mut malformed: Vec<Skipped>,
        before: Option<&Self>,
    ) -> Result<Self, serde_json::Error> {
        let items = Text::render(&catalogue, before.map(|before| &before.items))?;
        let orders = Orders::render(&catalogue)?;
        let callbacks = catalogue.callbacks();
        let Catalogue { index, skipped, malformed: unmappable, .. } = catalogue;
        malformed.extend(unmappable);
        Self::of(items, orders, callbacks, index, skipped, malformed)
    }

    fn of(
        items: Text,
        orders: Orders,
        callbacks: Vec<Callbacks>,
        index: Index,
        skipped: Vec<Skipped>,
        malformed: Vec<Skipped>,
    ) -> Result<Self, serde_json::Error> {
        let left_out = serde_json::to_vec(&skipped.iter().chain(&malformed).collect::<Vec<_>>())?;
        let mut hasher = Xxh3::new();
        items.blocks().for_each(|block| hasher.update(block));
        hasher.update(orders.text());
        hasher.update(&left_out);
        // A state that no item shows makes a difference to a filter.
        index.hash(&mut hasher);
        callbacks.hash(&mut hasher);
        Ok(Self {
            items,
            orders,
            callbacks,
            index,
            skipped,
            malformed,
            left_out: left_out.into(),
            fingerprint: hasher.digest(),
            selections: Mutex::default(),
        })
    }

    /// The same for two snapshots that say the same.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.len() == 0
    }

    /// All resources that are not in the catalogue, rendered as a list.
    pub fn left_out(&self) -> &Bytes {
        &self.left_out
    }

    /// All resources that are not in the catalogue.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.skipped.iter().chain(&self.malformed)
    }

    /// What may be relayed to Waldur.
    pub fn callbacks(&self) -> &[Callbacks] {
        &self.callbacks
    }

    /// What an id leads to. Nodes of several data types may share one id: the first is found.
    pub fn find(&self, id: Uuid) -> Found<'_> {
        if let Some(item) = self.items.find(id) {
            return Found::Item(item);
        }
        self.skipped().find(|skipped| skipped.item_id == Some(id)).map_or(Found::Nothing, Found::Skipped)
    }

    /// Size of the items, of their orders and of the list of what is left out, as JSON.
    pub fn bytes(&self) -> usize {
        self.items.blocks().map(Bytes::len).sum::<usize>() + self.orders.text().len() + self.left_out.len()
    }

    /// The number of items of each sort.
    pub fn counts(&self) -> Vec<Count> {
        self.index.counts()
    }

    /// The items from `offset` on, at most `limit`, of those that `filter` selects.
    pub fn page(&self, filter: &Filter, offset: usize, limit: usize) -> Page<'_> {
        if *filter == Filter::default() {
            let end = offset.saturating_add(limit).min(self.len());
            let orders = self.orders.slice(&(offset..end)).into_iter().collect();
            let items = self.items.slices(offset..end);
            return Page { total: self.len(), items, orders, skipped: self.skipped().collect() };
        }
        let selection = self.select(filter);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for position in selection.items.iter().skip(offset).take(limit).map(|position| *position as usize) {
            match runs.last_mut() {
                // Neighbours go as one slice, with the comma between them.
                Some(last) if last.end == position => last.end += 1,
                _ => runs.push(position..position + 1),
            }
        }
        let orders = runs.iter().filter_map(|run| self.orders.slice(run)).collect();
        let items = runs.into_iter().flat_map(|run| self.items.slices(run)).collect();
        // A malformed record has no place in the index; no filter can tell that it is not meant.
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        Page { total: selection.items.len(), items, orders, skipped: skipped.chain(&self.malformed).collect() }
    }

    fn select(&self, filter: &Filter) -> Arc<Selection> {
        let lock = || self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(selection) = lock().get(filter) {
            return Arc::clone(selection);
        }
        let selection = Arc::new(self.index.select(filter));
        let mut selections = lock();
        if selections.len() < SELECTIONS {
            selections.insert(filter.clone(), Arc::clone(&selection));
        }
        selection
    }
}
