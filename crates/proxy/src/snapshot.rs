//! The catalogue as it is served: every item rendered to JSON once.

mod entries;
mod packed;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use catalog::{Callbacks, Catalogue, Count, Filter, Index, QuotaProblemCode, Selection, Skipped};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use entries::Entries;
pub use packed::FORM;
use text::Text;

/// An immutable, rendered catalogue.
#[derive(Debug)]
pub struct Snapshot {
    items: Text,
    orders: Entries,
    quota_problems: Entries,
    resource_links: Entries,
    problem_counts: BTreeMap<QuotaProblemCode, usize>,
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
    /// The quota problems of these items, likewise.
    pub quota_problems: Vec<Bytes>,
    /// The links of those in transition without an order, likewise.
    pub resource_links: Vec<Bytes>,
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
        let orders = Entries::render(catalogue.orders())?;
        let quota_problems = Entries::render(catalogue.quota_problems())?;
        let resource_links = Entries::render(catalogue.resource_links())?;
        let mut problem_counts = BTreeMap::new();
        for (_, _, problem) in catalogue.quota_problems() {
            *problem_counts.entry(problem.code).or_default() += 1;
        }
        let callbacks = catalogue.callbacks();
        let Catalogue { index, skipped, malformed: unmappable, .. } = catalogue;
        malformed.extend(unmappable);
        Self::of(items, [orders, quota_problems, resource_links], problem_counts, callbacks, index, skipped, malformed)
    }

    fn of(
        items: Text,
        [orders, quota_problems, resource_links]: [Entries; 3],
        problem_counts: BTreeMap<QuotaProblemCode, usize>,
        callbacks: Vec<Callbacks>,
        index: Index,
        skipped: Vec<Skipped>,
        malformed: Vec<Skipped>,
    ) -> Result<Self, serde_json::Error> {
        let left_out = serde_json::to_vec(&skipped.iter().chain(&malformed).collect::<Vec<_>>())?;
        let mut hasher = Xxh3::new();
        items.blocks().for_each(|block| hasher.update(block));
        for entries in [&orders, &quota_problems, &resource_links] {
            hasher.update(entries.text());
            hasher.update(&[0]);
        }
        hasher.update(&left_out);
        // A state that no item shows makes a difference to a filter.
        index.hash(&mut hasher);
        callbacks.hash(&mut hasher);
        Ok(Self {
            items,
            orders,
            quota_problems,
            resource_links,
            problem_counts,
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

    /// How many items have a quota problem of this kind.
    pub fn quota_problems(&self, code: QuotaProblemCode) -> usize {
        self.problem_counts.get(&code).copied().unwrap_or_default()
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

    /// Size of the items, of the maps beside them and of the list of what is left out, as JSON.
    pub fn bytes(&self) -> usize {
        let beside = [&self.orders, &self.quota_problems, &self.resource_links].map(|entries| entries.text().len());
        self.items.blocks().map(Bytes::len).sum::<usize>() + beside.iter().sum::<usize>() + self.left_out.len()
    }

    /// The number of items of each sort.
    pub fn counts(&self) -> Vec<Count> {
        self.index.counts()
    }

    /// The items from `offset` on, at most `limit`, of those that `filter` selects.
    pub fn page(&self, filter: &Filter, offset: usize, limit: usize) -> Page<'_> {
        if *filter == Filter::default() {
            let end = offset.saturating_add(limit).min(self.len());
            let slice = |entries: &Entries| entries.slice(&(offset..end)).into_iter().collect();
            return Page {
                total: self.len(),
                items: self.items.slices(offset..end),
                orders: slice(&self.orders),
                quota_problems: slice(&self.quota_problems),
                resource_links: slice(&self.resource_links),
                skipped: self.skipped().collect(),
            };
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
        let slices = |entries: &Entries| runs.iter().filter_map(|run| entries.slice(run)).collect();
        let [orders, quota_problems, resource_links] =
            [&self.orders, &self.quota_problems, &self.resource_links].map(slices);
        let items = runs.into_iter().flat_map(|run| self.items.slices(run)).collect();
        // A malformed record has no place in the index; no filter can tell that it is not meant.
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        let skipped = skipped.chain(&self.malformed).collect();
        Page { total: selection.items.len(), items, orders, quota_problems, resource_links, skipped }
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
