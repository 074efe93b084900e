//! Items rendered to JSON, in blocks: each is made on its own, so that several threads can render at a time, and no
//! text has to grow to the size of the whole.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use catalog::Catalogue;
use uuid::Uuid;

/// Items of a block.
const BLOCK: usize = 1024;
/// Items of real catalogues take some 1,300 bytes.
const USUAL_ITEM: usize = 1400;
/// Threads that render at one time, at most: more would leave no processor to those that serve.
const THREADS: usize = 4;

/// The items of a catalogue, rendered.
#[derive(Debug, Default)]
pub(super) struct Text {
    blocks: Vec<Block>,
    /// The id of each item.
    ids: Vec<Uuid>,
}

/// Up to [`BLOCK`] items in catalogue order, with a comma between each two.
#[derive(Debug)]
struct Block {
    text: Bytes,
    /// Where each item ends.
    ends: Vec<u32>,
}

impl Text {
    /// Renders all items of a catalogue.
    ///
    /// # Errors
    ///
    /// None in practice: an item has nothing that JSON cannot say.
    pub(super) fn render(catalogue: &Catalogue<'_>) -> Result<Self, serde_json::Error> {
        let count = catalogue.len().div_ceil(BLOCK);
        let next = AtomicUsize::new(0);
        let rendered = Mutex::new((0..count).map(|_| None).collect::<Vec<_>>());
        let render = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let block = block(catalogue, number * BLOCK..catalogue.len().min((number + 1) * BLOCK));
                rendered.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(block);
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

    /// Number of items.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The first item with this id.
    pub(super) fn find(&self, id: Uuid) -> Option<Bytes> {
        // Comparing a hundred thousand ids takes some 50 µs, a table of them some milliseconds at each refresh.
        self.ids.iter().position(|own| *own == id).and_then(|position| self.slices(position..position + 1).pop())
    }

    /// All of it, block by block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Bytes> {
        self.blocks.iter().map(|block| &block.text)
    }

    /// The items at these positions: slices to be joined by commas.
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
fn block(catalogue: &Catalogue<'_>, positions: Range<usize>) -> Result<(Block, Vec<Uuid>), serde_json::Error> {
    let mut text = Vec::with_capacity(positions.len() * USUAL_ITEM);
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
    text.shrink_to_fit();
    Ok((Block { text: text.into(), ends }, ids))
}
