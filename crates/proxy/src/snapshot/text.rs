//! Items rendered to JSON in blocks, so that several threads can render, and without one large buffer that grows.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use catalog::Catalogue;
use uuid::Uuid;

use program::lock;

/// Items per block.
const BLOCK: usize = 1024;
/// Estimated size of an item; real items take about 1,300 bytes.
const USUAL_ITEM: usize = 1400;
/// Maximum number of rendering threads, to leave processors for requests.
const THREADS: usize = 4;

/// The rendered items of a catalogue.
#[derive(Debug, Default)]
pub(super) struct Text {
    blocks: Vec<Block>,
    /// The id of each item.
    ids: Vec<Uuid>,
}

/// Up to [`BLOCK`] items in catalogue order, separated by commas.
#[derive(Debug, Clone)]
struct Block {
    text: Bytes,
    /// End of each item in the text.
    ends: Arc<[u32]>,
}

impl Text {
    /// Renders all items of a catalogue. Unchanged blocks are shared with `before`: usually little has changed, so two
    /// catalogues take little more memory than one.
    ///
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
    pub(super) fn render(catalogue: &Catalogue<'_>, before: Option<&Self>) -> Result<Self, serde_json::Error> {
        let count = catalogue.len().div_ceil(BLOCK);
        let next = AtomicUsize::new(0);
        let rendered = Mutex::new((0..count).map(|_| None).collect::<Vec<_>>());
        let render = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let before = before.and_then(|text| text.blocks.get(number));
                let block = block(catalogue, number * BLOCK..catalogue.len().min((number + 1) * BLOCK), before);
                lock(&rendered)[number] = Some(block);
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(count);
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(render);
            }
            render();
        });
        let mut text = Self { blocks: Vec::with_capacity(count), ids: Vec::with_capacity(catalogue.len()) };
        for block in rendered.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten() {
            let (block, ids) = block?;
            text.blocks.push(block);
            text.ids.extend(ids);
        }
        Ok(text)
    }

    /// Rebuilds the items from [`ids`](Self::ids), [`ends`](Self::ends) and [`blocks`](Self::blocks); `None` if they are
    /// inconsistent. Unchanged blocks are shared with `before`.
    pub(super) fn restore(ids: Vec<Uuid>, ends: Vec<Vec<u32>>, mut text: &[u8], before: Option<&Self>) -> Option<Self> {
        let sizes = (0..ids.len()).step_by(BLOCK).map(|start| BLOCK.min(ids.len() - start));
        if !ends.iter().map(Vec::len).eq(sizes) {
            return None;
        }
        let mut blocks = Vec::with_capacity(ends.len());
        for (number, ends) in ends.into_iter().enumerate() {
            let ascending = ends.is_sorted_by(|one, next| one < next) && *ends.first()? > 0;
            let (own, rest) = text.split_at_checked(*ends.last()? as usize).filter(|_| ascending)?;
            text = rest;
            let before = before.and_then(|text| text.blocks.get(number));
            let before = before.filter(|before| before.text == own && *before.ends == *ends);
            let made = || Block { text: Bytes::copy_from_slice(own), ends: ends.as_slice().into() };
            blocks.push(before.cloned().unwrap_or_else(made));
        }
        text.is_empty().then_some(Self { blocks, ids })
    }

    pub(super) fn ids(&self) -> &[Uuid] {
        &self.ids
    }

    /// The end of each item, by block.
    pub(super) fn ends(&self) -> impl Iterator<Item = &[u32]> {
        self.blocks.iter().map(|block| &*block.ends)
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The first item with this id.
    pub(super) fn find(&self, id: Uuid) -> Option<Bytes> {
        // Comparing 100,000 ids takes about 50 µs; building a table would take milliseconds at each refresh.
        self.ids.iter().position(|own| *own == id).and_then(|position| self.slices(position..position + 1).pop())
    }

    /// The text of each block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Bytes> {
        self.blocks.iter().map(|block| &block.text)
    }

    /// The items at these positions, as slices to be joined by commas.
    pub(super) fn slices(&self, positions: Range<usize>) -> Vec<Bytes> {
        let mut slices = Vec::new();
        let mut start = positions.start;
        while start < positions.end {
            let block = &self.blocks[start / BLOCK];
            let end = positions.end.min((start / BLOCK + 1) * BLOCK);
            slices.push(block.slice(start % BLOCK..start % BLOCK + (end - start)));
            start = end;
        }
        slices
    }
}

impl Block {
    fn slice(&self, positions: Range<usize>) -> Bytes {
        let start = positions.start.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        self.text.slice(start..self.ends[positions.end - 1] as usize)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an item is far smaller than 4 GiB / 1024")]
fn block(
    catalogue: &Catalogue<'_>,
    positions: Range<usize>,
    before: Option<&Block>,
) -> Result<(Block, Vec<Uuid>), serde_json::Error> {
    let usual = before.map_or(positions.len() * USUAL_ITEM, |before| before.text.len());
    let mut text = Vec::with_capacity(usual);
    let mut ends = Vec::with_capacity(positions.len());
    let mut ids = Vec::with_capacity(positions.len());
    for position in positions {
        if !ends.is_empty() {
            text.push(b',');
        }
        let item = catalogue.item(position);
        serde_json::to_writer(&mut text, &item)?;
        ends.push(text.len() as u32);
        ids.push(item.item_id);
    }
    if let Some(before) = before.filter(|before| before.text == text && *before.ends == ends) {
        return Ok((before.clone(), ids));
    }
    text.shrink_to_fit();
    Ok((Block { text: text.into(), ends: ends.into() }, ids))
}

#[cfg(test)]
mod tests {
    use catalog::{Customers, Identities, Policy, Resource};
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::testing::policy;

    fn resources(count: usize) -> Vec<Resource> {
        let record = |number: usize| {
            let record = json!({
                "uuid": Uuid::from_u128(number as u128), "slug": format!("resource-{number}"), "state": "OK",
                "offering_uuid": Uuid::from_u128(1), "offering_slug": "capstor", "project_slug": "project",
                "customer_slug": "customer", "provider_slug": "provider", "limits": {"storage": 1},
            });
            Resource::parse(&to_raw_value(&record).unwrap()).unwrap()
        };
        (0..count).map(record).collect()
    }

    fn text(resources: &[Resource], before: Option<&Text>) -> Text {
        let policy = Policy { development_mode: true, ..policy() };
        let (customers, identities) = (Customers::new(), Identities::default());
        Text::render(&catalog::build(resources, &customers, &identities, &policy), before).unwrap()
    }

    /// The tenant is one more item.
    #[test]
    fn slices_cross_blocks() {
        let resources = resources(2 * BLOCK + 10);
        let text = text(&resources, None);
        assert_eq!((text.len(), text.blocks.len()), (2 * BLOCK + 11, 3));
        for (positions, slices) in [
            (0..text.len(), 3),
            (BLOCK - 1..BLOCK + 1, 2),
            (BLOCK..2 * BLOCK, 1),
            (5..5, 0),
            (2 * BLOCK + 10..2 * BLOCK + 11, 1),
        ] {
            let parts = text.slices(positions.clone());
            assert_eq!(parts.len(), slices, "{positions:?}");
            let whole = [&b"["[..], &parts.join(&b','), b"]"].concat();
            let items: Vec<serde_json::Value> = serde_json::from_slice(&whole).unwrap();
            let ids: Vec<Uuid> = items.iter().map(|item| item["itemId"].as_str().unwrap().parse().unwrap()).collect();
            assert_eq!(ids, text.ids[positions]);
        }
        assert!(text.find(resources[BLOCK].uuid).is_some());
        assert!(text.find(Uuid::from_u128(u128::MAX)).is_none());
    }

    #[test]
    fn unchanged_blocks_are_kept() {
        let mut resources = resources(3 * BLOCK);
        let before = text(&resources, None);
        resources[BLOCK + 5].slug = String::from("renamed");
        resources.truncate(2 * BLOCK + 7);
        let after = text(&resources, Some(&before));
        let kept = after.blocks.iter().zip(&before.blocks).map(|(a, b)| a.text.as_ptr() == b.text.as_ptr());
        assert_eq!(kept.collect::<Vec<_>>(), [true, false, false]);
        let fresh = text(&resources, None);
        assert!(after.blocks().eq(fresh.blocks()) && after.ids == fresh.ids);
    }
}
