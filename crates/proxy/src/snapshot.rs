//! The catalogue as served, with each item rendered to JSON once.

mod blocks;
mod entries;
mod packed;

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use catalog::{
    Callbacks, Catalogue, Count, Details, Filter, Index, Indexed, Outcome, QuotaProblemCode, Selection, Skipped,
};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use blocks::{Block, Blocks};
pub use packed::FORMAT;
use program::lock;

/// An immutable, rendered catalogue.
#[derive(Debug)]
pub struct Snapshot {
    items: Blocks,
    index: Arc<Index>,
    /// Skipped because an identity is missing.
    skipped: Vec<Skipped>,
    /// What is known of these, in the same order.
    skipped_details: Vec<Details>,
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

/// A resource of Waldur that the snapshot contains.
#[derive(Debug)]
pub struct Described<'a> {
    pub indexed: Indexed<'a>,
    /// Its item as JSON, or why it has none.
    pub item: Result<&'a [u8], &'a Skipped>,
    pub details: &'a Details,
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
    /// Renders a catalogue. `malformed` are records that could not be parsed. Unchanged parts are shared with `before`; they are not even
    /// rendered if the catalogue was built from that of `before`.
    ///
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
    pub fn render(
        catalogue: &Catalogue,
        mut malformed: Vec<Skipped>,
        before: Option<&Self>,
    ) -> Result<Self, serde_json::Error> {
        let unchanged = before.map_or(&[][..], |before| catalogue.unchanged_since(&before.index));
        let items = Blocks::render(catalogue, before.map(|before| &before.items), unchanged)?;
        malformed.extend_from_slice(&catalogue.malformed);
        let skipped = (catalogue.skipped.clone(), catalogue.details_of_skipped().collect());
        Self::of(items, Arc::clone(&catalogue.index), skipped, malformed)
    }

    fn of(
        items: Blocks,
        index: Arc<Index>,
        (skipped, skipped_details): (Vec<Skipped>, Vec<Details>),
        malformed: Vec<Skipped>,
    ) -> Result<Self, serde_json::Error> {
        let rendered_skipped = serde_json::to_vec(&skipped.iter().chain(&malformed).collect::<Vec<_>>())?;
        let mut hasher = Xxh3::new();
        items.hash_all(&mut hasher);
        hasher.update(&rendered_skipped);
        // Items do not contain their state, but filters select by it.
        index.hash(&mut hasher);
        Ok(Self {
            items,
            index,
            skipped,
            skipped_details,
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
        self.len() == 0
    }

    /// All skipped resources, rendered as a list.
    pub fn rendered_skipped(&self) -> &Bytes {
        &self.rendered_skipped
    }

    /// All skipped resources.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.skipped.iter().chain(&self.malformed)
    }

    /// The rendered tenants and customers.
    pub fn nodes(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().flat_map(Block::items).map(|(item, _)| item).take(self.index.nodes())
    }

    /// All resources except malformed records.
    pub fn resources(&self) -> impl Iterator<Item = Described<'_>> {
        let mut items = self.items.iter().flat_map(Block::items).skip(self.index.nodes());
        self.index.resources().filter_map(move |indexed| match indexed.outcome {
            Outcome::Item(_) => items.next().map(|(item, details)| Described { indexed, item: Ok(item), details }),
            Outcome::Skipped(position) => {
                let position = position as usize;
                let item = Err(&self.skipped[position]);
                Some(Described { indexed, item, details: &self.skipped_details[position] })
            }
        })
    }

    /// Records that cannot be parsed, and those that break the mapping rules.
    pub fn malformed(&self) -> &[Skipped] {
        &self.malformed
    }

    /// Number of items with this quota problem.
    pub fn quota_problems(&self, code: QuotaProblemCode) -> usize {
        self.items.iter().flat_map(Block::problem_codes).filter(|own| **own == code).count()
    }

    /// Callbacks that may be relayed to Waldur.
    pub fn callbacks(&self) -> impl Iterator<Item = &Callbacks> {
        self.items.iter().flat_map(Block::callbacks)
    }

    /// Searches by id. If nodes of several data types share the id, returns the first.
    pub fn find(&self, id: Uuid) -> Found<'_> {
        if let Some(item) = self.items.find(id) {
            return Found::Item(item);
        }
        self.skipped().find(|skipped| skipped.item_id == Some(id)).map_or(Found::Nothing, Found::Skipped)
    }

    /// Size of the rendered JSON, in bytes, with a comma after each item and entry.
    pub fn bytes(&self) -> usize {
        let texts = |block: &Block| [block.text().len()].into_iter().chain(block.entries().map(|it| it.text().len()));
        let texts = self.items.iter().flat_map(texts).filter(|len| *len > 0).map(|len| len + 1);
        texts.sum::<usize>() + self.rendered_skipped.len()
    }

    pub fn counts(&self) -> Vec<Count> {
        self.index.counts()
    }

    /// At most `limit` of the items that `filter` selects, from `offset`.
    pub fn page(&self, filter: &Filter, offset: usize, limit: usize) -> Page<'_> {
        if *filter == Filter::default() {
            let end = offset.saturating_add(limit).min(self.len());
            return self.page_of(self.len(), std::slice::from_ref(&(offset..end)), self.skipped().collect());
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
        // Malformed records are not in the index; every filter selects them.
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        self.page_of(selection.items.len(), &runs, skipped.chain(&self.malformed).collect())
    }

    /// The page with the items at these positions.
    fn page_of<'a>(&'a self, total: usize, runs: &[Range<usize>], skipped: Vec<&'a Skipped>) -> Page<'a> {
        let mut items = Vec::new();
        let mut entries = [(); 3].map(|()| Vec::new());
        for (block, positions) in runs.iter().flat_map(|run| self.items.within(run.clone())) {
            for (slices, entries) in entries.iter_mut().zip(block.entries()) {
                slices.extend(entries.slice(&positions));
            }
            items.push(block.slice(positions));
        }
        let [orders, quota_problems, resource_links] = entries;
        Page { total, items, orders, quota_problems, resource_links, skipped }
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
        for position in &selection.items {
            hasher.update(&self.items.hash_of(*position as usize).to_le_bytes());
        }
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        skipped.chain(&self.malformed).for_each(|skipped| skipped.hash(&mut hasher));
        hasher.digest()
    }
}
