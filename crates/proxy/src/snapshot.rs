//! The catalogue as served, with each item rendered to JSON once.

mod entries;
mod packed;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use catalog::{Callbacks, Catalogue, Count, Filter, Index, QuotaProblemCode, Selection, Skipped};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use entries::Entries;
pub use packed::FORMAT;
use program::lock;
use text::Text;

/// An immutable, rendered catalogue.
#[derive(Debug)]
pub struct Snapshot {
    items: Text,
    orders: Entries,
    quota_problems: Entries,
    resource_links: Entries,
    problem_counts: BTreeMap<QuotaProblemCode, usize>,
    /// Callbacks that may be relayed to Waldur.
    callbacks: Vec<Callbacks>,
    index: Index,
    /// Skipped because an identity is missing.
    skipped: Vec<Skipped>,
    /// Skipped because the record is malformed.
    malformed: Vec<Skipped>,
    /// Both lists of skipped resources, rendered.
    rendered_skipped: Bytes,
    fingerprint: u64,
    /// Cached selections of filters.
    selections: Mutex<HashMap<Filter, Arc<Selected>>>,
}

/// Maximum number of cached selections. Few filters are useful.
const SELECTIONS: usize = 64;

/// The selection of a filter, with a hash of its content.
#[derive(Debug)]
struct Selected {
    selection: Selection,
    content: u64,
}

/// The result of a search by id.
#[derive(Debug)]
pub enum Found<'a> {
    /// The rendered item.
    Item(Bytes),
    /// A skipped resource, with the reason.
    Skipped(&'a Skipped),
    Nothing,
}

/// A page of the items that a filter selects.
#[derive(Debug)]
pub struct Page<'a> {
    /// Number of items on all pages.
    pub total: usize,
    /// The rendered items: slices of one or more items, in order, to be joined by commas.
    pub items: Vec<Bytes>,
    /// The orders in progress of these items, as entries of a map by `itemId`: slices to be joined by commas.
    pub orders: Vec<Bytes>,
    /// The quota problems of these items, likewise.
    pub quota_problems: Vec<Bytes>,
    /// The links of those in transition without an order, likewise.
    pub resource_links: Vec<Bytes>,
    /// Skipped resources that the filter selects.
    pub skipped: Vec<&'a Skipped>,
}

impl Snapshot {
    /// Renders a catalogue. `malformed` are records that could not be parsed. Unchanged parts are shared with `before`.
    ///
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
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
        let Catalogue { index, skipped, malformed: more, .. } = catalogue;
        malformed.extend(more);
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
        let rendered_skipped = serde_json::to_vec(&skipped.iter().chain(&malformed).collect::<Vec<_>>())?;
        let mut hasher = Xxh3::new();
        items.blocks().for_each(|block| hasher.update(block));
        for entries in [&orders, &quota_problems, &resource_links] {
            hasher.update(entries.text());
            hasher.update(&[0]);
        }
        hasher.update(&rendered_skipped);
        // Items do not contain their state, but filters select by it.
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
            rendered_skipped: rendered_skipped.into(),
            fingerprint: hasher.digest(),
            selections: Mutex::default(),
        })
    }

    /// Equal for two snapshots with the same content.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.len() == 0
    }

    /// All skipped resources, rendered as a list.
    pub fn rendered_skipped(&self) -> &Bytes {
        &self.rendered_skipped
    }

    /// All skipped resources.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.skipped.iter().chain(&self.malformed)
    }

    /// Number of items with this quota problem.
    pub fn quota_problems(&self, code: QuotaProblemCode) -> usize {
        self.problem_counts.get(&code).copied().unwrap_or_default()
    }

    /// Callbacks that may be relayed to Waldur.
    pub fn callbacks(&self) -> &[Callbacks] {
        &self.callbacks
    }

    /// Searches by id. If nodes of several data types share the id, returns the first.
    pub fn find(&self, id: Uuid) -> Found<'_> {
        if let Some(item) = self.items.find(id) {
            return Found::Item(item);
        }
        self.skipped().find(|skipped| skipped.item_id == Some(id)).map_or(Found::Nothing, Found::Skipped)
    }

    /// Size of the rendered JSON, in bytes.
    pub fn bytes(&self) -> usize {
        let maps = [&self.orders, &self.quota_problems, &self.resource_links].map(|entries| entries.text().len());
        self.items.blocks().map(Bytes::len).sum::<usize>() + maps.iter().sum::<usize>() + self.rendered_skipped.len()
    }

    pub fn counts(&self) -> Vec<Count> {
        self.index.counts()
    }

    /// At most `limit` of the items that `filter` selects, from `offset`.
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
        let selected = self.select(filter);
        let selection = &selected.selection;
        let mut runs: Vec<Range<usize>> = Vec::new();
        for position in selection.items.iter().skip(offset).take(limit).map(|position| *position as usize) {
            match runs.last_mut() {
                // Adjacent items form one slice, with the comma between them.
                Some(last) if last.end == position => last.end += 1,
                _ => runs.push(position..position + 1),
            }
        }
        let slices = |entries: &Entries| runs.iter().filter_map(|run| entries.slice(run)).collect();
        let [orders, quota_problems, resource_links] =
            [&self.orders, &self.quota_problems, &self.resource_links].map(slices);
        let items = runs.into_iter().flat_map(|run| self.items.slices(run)).collect();
        // Malformed records are not in the index; every filter selects them.
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        let skipped = skipped.chain(&self.malformed).collect();
        Page { total: selection.items.len(), items, orders, quota_problems, resource_links, skipped }
    }

    /// Equal for two snapshots in which `filter` selects the same content, on all pages together.
    pub fn content(&self, filter: &Filter) -> u64 {
        if *filter == Filter::default() { self.fingerprint } else { self.select(filter).content }
    }

    fn select(&self, filter: &Filter) -> Arc<Selected> {
        if let Some(selected) = lock(&self.selections).get(filter) {
            return Arc::clone(selected);
        }
        let selection = self.index.select(filter);
        let content = self.hash(filter, &selection);
        let selected = Arc::new(Selected { selection, content });
        let mut selections = lock(&self.selections);
        if selections.len() < SELECTIONS {
            selections.insert(filter.clone(), Arc::clone(&selected));
        }
        selected
    }

    fn hash(&self, filter: &Filter, selection: &Selection) -> u64 {
        let mut hasher = Xxh3::new();
        filter.hash(&mut hasher);
        for position in selection.items.iter().map(|position| *position as usize) {
            let item = position..position + 1;
            self.items.slices(item.clone()).iter().for_each(|text| hasher.update(text));
            for entries in [&self.orders, &self.quota_problems, &self.resource_links] {
                entries.slice(&item).iter().for_each(|text| hasher.update(text));
                hasher.update(&[0]);
            }
        }
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        skipped.chain(&self.malformed).for_each(|skipped| skipped.hash(&mut hasher));
        hasher.digest()
    }
}
