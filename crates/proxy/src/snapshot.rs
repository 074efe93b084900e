//! The catalogue as it is served: every item rendered to JSON once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use catalog::{Catalogue, Filter, Index, Selection, Skipped};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// An immutable, rendered catalogue.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The items in catalogue order, rendered, with a comma between each two.
    items: Bytes,
    /// Where each item stands in `items`.
    spans: Vec<Range<usize>>,
    index: Index,
    /// First item or skipped resource with an id.
    places: HashMap<Uuid, Place>,
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

#[derive(Debug, Clone, Copy)]
enum Place {
    Item(usize),
    Skipped(usize),
    Malformed(usize),
}

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
    /// Resources that the filter selects and that are not in the catalogue.
    pub skipped: Vec<&'a Skipped>,
}

impl Snapshot {
    /// Renders a catalogue, with the records that did not get as far as the catalogue.
    ///
    /// # Errors
    ///
    /// None in practice: an item has nothing that JSON cannot say.
    pub fn render(catalogue: &Catalogue<'_>, mut malformed: Vec<Skipped>) -> Result<Self, serde_json::Error> {
        malformed.extend(catalogue.malformed.iter().cloned());
        // Items of real catalogues take some 1,500 bytes.
        let mut items = Vec::with_capacity(catalogue.items.len() * 1536);
        let mut spans = Vec::with_capacity(catalogue.items.len());
        let mut places = HashMap::with_capacity(catalogue.items.len());
        for (position, item) in catalogue.items.iter().enumerate() {
            if position > 0 {
                items.push(b',');
            }
            let start = items.len();
            serde_json::to_writer(&mut items, item)?;
            spans.push(start..items.len());
            places.entry(item.item_id).or_insert(Place::Item(position));
        }
        let skipped = catalogue.skipped.clone();
        let out = |list: &[Skipped], place: fn(usize) -> Place| -> Vec<_> {
            list.iter().enumerate().filter_map(|(at, skipped)| Some((skipped.item_id?, place(at)))).collect()
        };
        for (id, place) in out(&skipped, Place::Skipped).into_iter().chain(out(&malformed, Place::Malformed)) {
            places.entry(id).or_insert(place);
        }
        let mut hasher = Xxh3::new();
        hasher.update(&items);
        let left_out = serde_json::to_vec(&skipped.iter().chain(&malformed).collect::<Vec<_>>())?;
        hasher.update(&left_out);
        items.shrink_to_fit();
        Ok(Self {
            items: items.into(),
            spans,
            index: catalogue.index.clone(),
            places,
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
        self.spans.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// All resources that are not in the catalogue, rendered as a list.
    pub fn left_out(&self) -> &Bytes {
        &self.left_out
    }

    /// All resources that are not in the catalogue.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.skipped.iter().chain(&self.malformed)
    }

    /// What an id leads to. Nodes of several data types may share one id: the first is found.
    pub fn find(&self, id: Uuid) -> Found<'_> {
        match self.places.get(&id) {
            Some(Place::Item(position)) => Found::Item(self.items.slice(self.spans[*position].clone())),
            Some(Place::Skipped(position)) => Found::Skipped(&self.skipped[*position]),
            Some(Place::Malformed(position)) => Found::Skipped(&self.malformed[*position]),
            None => Found::Nothing,
        }
    }

    /// The items from `offset` on, at most `limit`, of those that `filter` selects.
    pub fn page(&self, filter: &Filter, offset: usize, limit: usize) -> Page<'_> {
        if *filter == Filter::default() {
            let end = offset.saturating_add(limit).min(self.len());
            let items = if offset < end {
                vec![self.items.slice(self.spans[offset].start..self.spans[end - 1].end)]
            } else {
                Vec::new()
            };
            return Page { total: self.len(), items, skipped: self.skipped().collect() };
        }
        let selection = self.select(filter);
        let mut items: Vec<Range<usize>> = Vec::new();
        for position in selection.items.iter().skip(offset).take(limit) {
            let span = self.spans[*position as usize].clone();
            match items.last_mut() {
                // Neighbours go as one slice, with the comma between them.
                Some(last) if last.end + 1 == span.start => last.end = span.end,
                _ => items.push(span),
            }
        }
        let items = items.into_iter().map(|span| self.items.slice(span)).collect();
        // A malformed record has no place in the index; no filter can tell that it is not meant.
        let skipped = selection.skipped.iter().map(|position| &self.skipped[*position as usize]);
        Page { total: selection.items.len(), items, skipped: skipped.chain(&self.malformed).collect() }
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
