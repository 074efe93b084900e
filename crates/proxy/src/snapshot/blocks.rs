//! Items rendered to JSON in blocks, so that several threads can render, and a snapshot shares unchanged blocks with the one before.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use catalog::{Callbacks, Catalogue, Details, QuotaProblemCode, Run};
use program::lock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::entries::{Entries, Writer};

/// Maximum number of items in a block. Small in tests, so that small worlds have many blocks.
const BLOCK: usize = if cfg!(test) { 16 } else { 128 };
/// Estimated size of an item; real items take about 1,300 bytes.
const USUAL_ITEM: usize = 1400;
/// Maximum number of rendering threads, to leave processors for requests.
const THREADS: usize = 4;
/// Fewer blocks are not worth a thread.
const BLOCKS_PER_THREAD: usize = 16;

/// The rendered items of a catalogue.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    list: Vec<Arc<Block>>,
    /// Position of the first item of each block.
    starts: Vec<usize>,
    len: usize,
}

/// Up to [`BLOCK`] items in catalogue order, with all that is published about them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    /// The items, separated by commas.
    #[serde(skip)]
    text: Bytes,
    ids: Box<[Uuid]>,
    /// End of each item in the text.
    ends: Box<[u32]>,
    /// Hash of each item, with its entries and callbacks.
    #[serde(skip)]
    hashes: Box<[u64]>,
    orders: Entries,
    quota_problems: Entries,
    resource_links: Entries,
    /// The codes of the quota problems.
    problem_codes: Box<[QuotaProblemCode]>,
    /// Callbacks, each with the position of its item in the block.
    callbacks: Box<[(u32, Callbacks)]>,
    /// What the items do not show; the default value for tenants and customers. Not published, and therefore not in the hash.
    details: Box<[Details]>,
}

/// Adjacent items: an unchanged block, or the positions of items that need a new one.
enum Part<'a> {
    Shared(&'a Arc<Block>),
    New(Range<usize>),
}

impl Blocks {
    /// Renders all items of a catalogue. Unchanged blocks are shared with `before`: usually little has changed, so two
    /// snapshots take little more memory than one. The items of `before` in `unchanged` are not rendered again; if there are
    /// none, equal blocks are found after they are rendered.
    ///
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
    pub(super) fn render(
        catalogue: &Catalogue,
        before: Option<&Self>,
        unchanged: &[Run],
    ) -> Result<Self, serde_json::Error> {
        let reused = Reused { before: before.filter(|_| !unchanged.is_empty()), unchanged };
        let parts = reused.parts(catalogue.len());
        let new = parts.iter().filter_map(|part| match part {
            Part::New(positions) => Some(positions.clone()),
            Part::Shared(_) => None,
        });
        let new: Vec<_> = new.collect();
        let next = AtomicUsize::new(0);
        let rendered = Mutex::new(new.iter().map(|_| None).collect::<Vec<_>>());
        let render = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(positions) = new.get(number) else { return };
                let block = Block::render(catalogue, positions.clone(), &reused);
                lock(&rendered)[number] = Some(block);
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
        thread::scope(|scope| {
            for _ in 1..threads.min(new.len().div_ceil(BLOCKS_PER_THREAD)) {
                scope.spawn(render);
            }
            render();
        });
        let mut rendered = rendered.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten();
        let equal = Equal::to(before.filter(|_| unchanged.is_empty()));
        let mut blocks = Self::default();
        for part in parts {
            match part {
                Part::Shared(block) => blocks.push(Arc::clone(block)),
                Part::New(_) => {
                    if let Some(block) = rendered.next() {
                        blocks.push(equal.or_new(block?));
                    }
                }
            }
        }
        Ok(blocks)
    }

    /// Rebuilds the blocks from their serialized form and their text; `None` if these are inconsistent. Unchanged blocks are shared
    /// with `before`.
    pub(super) fn restore(all: Vec<Block>, mut text: &[u8], before: Option<&Self>) -> Option<Self> {
        let equal = Equal::to(before);
        let mut blocks = Self::default();
        for mut block in all {
            let (own, rest) = text.split_at_checked(*block.ends.last()? as usize)?;
            text = rest;
            block.text = Bytes::copy_from_slice(own);
            if !block.is_consistent() {
                return None;
            }
            block.hashes = block.hash_items();
            blocks.push(equal.or_new(block));
        }
        text.is_empty().then_some(blocks)
    }

    fn push(&mut self, block: Arc<Block>) {
        self.starts.push(self.len);
        self.len += block.ids.len();
        self.list.push(block);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.list.iter().map(|block| &**block)
    }

    /// The first item with this id.
    pub(super) fn find(&self, id: Uuid) -> Option<Bytes> {
        // Comparing 100,000 ids takes about 50 µs; building a table would take milliseconds at each refresh.
        self.iter().find_map(|block| {
            let item = block.ids.iter().position(|own| *own == id)?;
            Some(block.slice(item..item + 1))
        })
    }

    /// The blocks that contain the items at these positions, each with the positions within the block.
    pub(super) fn within(&self, positions: Range<usize>) -> impl Iterator<Item = (&Block, Range<usize>)> {
        let Range { start: from, end: to } = positions;
        let first = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let blocks = self.starts.iter().zip(self.iter()).skip(first);
        blocks.take_while(move |(start, _)| **start < to).filter_map(move |(start, block)| {
            let items = from.saturating_sub(*start)..(to - start).min(block.ids.len());
            (items.start < items.end).then_some((block, items))
        })
    }

    /// Adds the hash of each item to `hasher`.
    pub(super) fn hash_all(&self, hasher: &mut Xxh3) {
        let mut bytes = Vec::with_capacity(BLOCK * size_of::<u64>());
        for block in self.iter() {
            bytes.clear();
            bytes.extend(block.hashes.iter().flat_map(|hash| hash.to_le_bytes()));
            hasher.update(&bytes);
        }
    }

    /// The hash of the item at `position`, with its order, quota problem, links and callbacks.
    pub(super) fn hash_of(&self, position: usize) -> u64 {
        self.within(position..position + 1).map(|(block, items)| block.hashes[items.start]).next().unwrap_or_default()
    }
}

/// The items that a catalogue shares with the blocks before.
struct Reused<'a> {
    before: Option<&'a Blocks>,
    /// In ascending order of position.
    unchanged: &'a [Run],
}

impl<'a> Reused<'a> {
    /// Divides `len` items into shared and new blocks.
    fn parts(&self, len: usize) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut end = 0;
        let add_new = |parts: &mut Vec<Part<'a>>, positions: Range<usize>| match parts.last_mut() {
            _ if positions.is_empty() => {}
            Some(Part::New(last)) => last.end = positions.end,
            _ => parts.push(Part::New(positions)),
        };
        for (start, block) in self.blocks() {
            add_new(&mut parts, end..start);
            end = start + block.ids.len();
            match parts.last_mut() {
                // Blocks must not get smaller with every change, so a small new one replaces its neighbour.
                Some(Part::New(small)) if small.len() < BLOCK / 2 => small.end = end,
                _ => parts.push(Part::Shared(block)),
            }
        }
        if let Some(Part::Shared(last)) = parts.last()
            && (1..BLOCK / 2).contains(&(len - end))
        {
            end -= last.ids.len();
            parts.pop();
        }
        add_new(&mut parts, end..len);
        parts.into_iter().flat_map(Part::split).collect()
    }

    /// The blocks of which all items are unchanged, each with the position of its first item.
    fn blocks(&self) -> impl Iterator<Item = (usize, &'a Arc<Block>)> {
        let before = self.before.into_iter();
        before.flat_map(|before| self.unchanged.iter().map(move |run| (before, run))).flat_map(|(before, run)| {
            let first = before.starts.partition_point(|start| *start < run.before);
            let blocks = before.starts.iter().zip(&before.list).skip(first);
            let blocks = blocks.map(|(start, block)| (run.start + start - run.before, block));
            blocks.take_while(|(start, block)| start + block.ids.len() <= run.start + run.len)
        })
    }

    /// The id and the text of an unchanged item.
    fn item(&self, position: usize) -> Option<(Uuid, Bytes)> {
        let after = self.unchanged.partition_point(|run| run.start <= position);
        let run = self.unchanged.get(after.checked_sub(1)?)?;
        let offset = position - run.start;
        let before = run.before + offset;
        let (block, items) = self.before?.within(before..before + 1).next().filter(|_| offset < run.len)?;
        Some((block.ids[items.start], block.slice(items)))
    }
}

impl Part<'_> {
    /// Splits new items into blocks.
    fn split(self) -> Vec<Self> {
        let Self::New(mut rest) = self else { return vec![self] };
        let mut parts = Vec::new();
        while !rest.is_empty() {
            // The last two blocks are of the same size.
            let size =
                if (BLOCK + 1..2 * BLOCK).contains(&rest.len()) { rest.len() / 2 } else { BLOCK.min(rest.len()) };
            parts.push(Self::New(rest.start..rest.start + size));
            rest.start += size;
        }
        parts
    }
}

/// Finds equal blocks, by the hash of the first item.
struct Equal<'a>(HashMap<u64, &'a Arc<Block>>);

impl<'a> Equal<'a> {
    fn to(before: Option<&'a Blocks>) -> Self {
        Self(before.iter().flat_map(|before| &before.list).map(|block| (block.hashes[0], block)).collect())
    }

    fn or_new(&self, block: Block) -> Arc<Block> {
        match self.0.get(&block.hashes[0]) {
            Some(equal) if ***equal == block => Arc::clone(equal),
            _ => Arc::new(block),
        }
    }
}

impl Block {
    #[expect(clippy::cast_possible_truncation, reason = "an item is far smaller than 4 GiB / 128")]
    fn render(catalogue: &Catalogue, positions: Range<usize>, reused: &Reused<'_>) -> Result<Self, serde_json::Error> {
        let mut text = Vec::with_capacity(positions.len() * USUAL_ITEM);
        let mut ends = Vec::with_capacity(positions.len());
        let mut ids = Vec::with_capacity(positions.len());
        let [mut orders, mut quota_problems, mut resource_links] = [(); 3].map(|()| Writer::default());
        let (mut problem_codes, mut callbacks) = (Vec::new(), Vec::new());
        let mut details = Vec::with_capacity(positions.len());
        for (number, position) in (0..).zip(positions) {
            if number > 0 {
                text.push(b',');
            }
            let id = if let Some((id, item)) = reused.item(position) {
                text.extend_from_slice(&item);
                id
            } else {
                let item = catalogue.item(position);
                serde_json::to_writer(&mut text, &item)?;
                item.item_id
            };
            ends.push(text.len() as u32);
            ids.push(id);
            if let Some(order) = catalogue.order(position) {
                orders.add(number, id, &order)?;
            }
            if let Some(problem) = catalogue.quota_problem(position) {
                quota_problems.add(number, id, &problem)?;
                problem_codes.push(problem.code);
            }
            if let Some(links) = catalogue.resource_links(position) {
                resource_links.add(number, id, &links)?;
            }
            details.push(catalogue.details(position).unwrap_or_default());
            callbacks.extend(catalogue.callbacks(position).map(|callbacks| (number, callbacks)));
        }
        text.shrink_to_fit();
        let mut block = Self {
            text: text.into(),
            ids: ids.into(),
            ends: ends.into(),
            hashes: Box::default(),
            orders: orders.finish(),
            quota_problems: quota_problems.finish(),
            resource_links: resource_links.finish(),
            problem_codes: problem_codes.into(),
            callbacks: callbacks.into(),
            details: details.into(),
        };
        block.hashes = block.hash_items();
        Ok(block)
    }

    /// Whether the parts of a restored block fit together; its text has the right length.
    fn is_consistent(&self) -> bool {
        let Self { ids, ends, orders, quota_problems, resource_links, problem_codes, details, .. } = self;
        let ascending = ends.is_sorted_by(|one, next| one < next) && ends.first().is_some_and(|end| *end > 0);
        ids.len() == ends.len()
            && ids.len() == details.len()
            && ascending
            && [orders, quota_problems, resource_links].iter().all(|entries| entries.fit(ids.len()))
            && problem_codes.len() == quota_problems.len()
    }

    fn hash_items(&self) -> Box<[u64]> {
        let mut callbacks = self.callbacks.iter().peekable();
        let mut hash = |number: u32| {
            let item = number as usize..number as usize + 1;
            let mut hash = xxh3_64(&self.slice(item.clone()));
            for (kind, entries) in (1..).zip(self.entries()) {
                if let Some(entry) = entries.slice(&item) {
                    hash = xxh3_64_with_seed(&entry, hash.wrapping_add(kind));
                }
            }
            if let Some((_, callbacks)) = callbacks.next_if(|(own, _)| *own == number) {
                let mut hasher = Xxh3::with_seed(hash);
                callbacks.hash(&mut hasher);
                hash = hasher.digest();
            }
            hash
        };
        (0..).zip(&self.ids).map(|(number, _)| hash(number)).collect()
    }

    /// The orders, quota problems and links.
    pub(super) fn entries(&self) -> [&Entries; 3] {
        [&self.orders, &self.quota_problems, &self.resource_links]
    }

    /// The items, each with what it does not show.
    pub(super) fn items(&self) -> impl Iterator<Item = (&[u8], &Details)> {
        let start = |item: usize| item.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        let texts = self.ends.iter().enumerate().map(move |(item, end)| &self.text[start(item)..*end as usize]);
        texts.zip(&self.details)
    }

    /// The items, separated by commas.
    pub(super) fn text(&self) -> &Bytes {
        &self.text
    }

    pub(super) fn problem_codes(&self) -> &[QuotaProblemCode] {
        &self.problem_codes
    }

    pub(super) fn callbacks(&self) -> impl Iterator<Item = &Callbacks> {
        self.callbacks.iter().map(|(_, callbacks)| callbacks)
    }

    /// The items at these positions within the block.
    pub(super) fn slice(&self, positions: Range<usize>) -> Bytes {
        let start = positions.start.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        self.text.slice(start..self.ends[positions.end - 1] as usize)
    }
}

#[cfg(test)]
mod tests;
