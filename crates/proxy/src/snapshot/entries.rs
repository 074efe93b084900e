//! Maps by `itemId` for orders in progress, quota problems and links, rendered to JSON once. Entries are stored in the order
//! of the items of a block, so the entries of a page are slices.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Entries of a map by `itemId`, for some of the items of a block.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entries {
    places: Box<[Place]>,
    /// The entries of the JSON map, separated by commas.
    #[serde(serialize_with = "as_str", deserialize_with = "from_string")]
    text: Bytes,
}

/// Position of an entry. Both fields are ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Position of the item.
    item: u32,
    /// End of the entry in the text.
    end: u32,
}

/// Entries in the making.
#[derive(Debug, Default)]
pub(super) struct Writer {
    places: Vec<Place>,
    text: Vec<u8>,
}

impl Writer {
    /// Adds the entry of an item, which must follow the items before; `id` is the id of the item.
    ///
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
    #[expect(clippy::cast_possible_truncation, reason = "a block has few items, and an entry takes some 200 bytes")]
    pub(super) fn add(&mut self, item: u32, id: Uuid, entry: &impl Serialize) -> Result<(), serde_json::Error> {
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, &id)?;
        self.text.push(b':');
        serde_json::to_writer(&mut self.text, entry)?;
        self.places.push(Place { item, end: self.text.len() as u32 });
        Ok(())
    }

    pub(super) fn finish(mut self) -> Entries {
        self.text.shrink_to_fit();
        Entries { places: self.places.into(), text: self.text.into() }
    }
}

fn as_str<S: Serializer>(text: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(text))
}

fn from_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    String::deserialize(deserializer).map(Bytes::from)
}

impl Entries {
    /// Whether places and text fit together, in a block of `items` items.
    pub(super) fn fit(&self, items: usize) -> bool {
        let Self { places, text } = self;
        let ascending = places.is_sorted_by(|one, next| one.item < next.item && one.end + 1 < next.end);
        let last = places.last().copied().unwrap_or(Place { item: 0, end: 0 });
        let fits = places.is_empty() || (last.item as usize) < items && places[0].end > 0;
        ascending && fits && last.end as usize == text.len()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn text(&self) -> &Bytes {
        &self.text
    }

    /// The entries of the items at these positions; `None` if there are none.
    pub(super) fn slice(&self, items: &Range<usize>) -> Option<Bytes> {
        let before = |position: usize| self.places.partition_point(|place| (place.item as usize) < position);
        let (first, past) = (before(items.start), before(items.end));
        let last = self.places.get(first..past)?.last()?;
        let start = first.checked_sub(1).map_or(0, |before| self.places[before].end as usize + 1);
        Some(self.text.slice(start..last.end as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Entries {
        let places = [(1, 1), (4, 3), (5, 5)].map(|(item, end)| Place { item, end });
        Entries { places: places.into(), text: Bytes::from_static(b"a,b,c") }
    }

    #[test]
    fn slices_are_the_entries_of_the_items() {
        let all = entries();
        for (items, entries) in [
            (0..6, Some("a,b,c")),
            (0..1, None),
            (1..2, Some("a")),
            (2..4, None),
            (1..5, Some("a,b")),
            (4..6, Some("b,c")),
            (5..6, Some("c")),
            (6..6, None),
            // A page past the end.
            (Range { start: 9, end: 6 }, None),
        ] {
            let slice = all.slice(&items);
            assert_eq!(slice.as_deref(), entries.map(str::as_bytes), "{items:?}");
        }
        assert_eq!(Entries::default().slice(&(0..10)), None);
    }

    #[test]
    fn inconsistent_data_does_not_fit() {
        assert!(entries().fit(6) && !entries().fit(5) && Entries::default().fit(0));
        for (places, text, items) in [
            (&[(1, 1)][..], "a", 1),
            (&[(1, 1)], "ab", 2),
            (&[(1, 2)], "a", 2),
            (&[(1, 0)], "", 2),
            (&[(1, 1), (1, 3)], "a,b", 2),
            (&[(0, 1), (1, 2)], "a,", 2),
            (&[], "a", 2),
        ] {
            let places = places.iter().map(|(item, end)| Place { item: *item, end: *end }).collect();
            let entries = Entries { places, text: Bytes::from_static(text.as_bytes()) };
            assert!(!entries.fit(items), "{text:?} of {items} items");
        }
    }
}
