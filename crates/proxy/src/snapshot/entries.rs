//! Maps by `itemId` for orders in progress, quota problems and links, rendered to JSON once. Entries are stored in the order
//! of the items, so the entries of a page are slices.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Entries of a map by `itemId`, for some of the items.
#[derive(Debug, Default)]
pub(super) struct Entries {
    places: Vec<Place>,
    /// The entries of the JSON map, separated by commas.
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

impl Entries {
    /// Renders entries, each with the position and the id of its item, in the order of the items.
    ///
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer than 2^32 items, and an entry takes some 200 bytes"
    )]
    pub(super) fn render(
        entries: impl Iterator<Item = (usize, Uuid, impl Serialize)>,
    ) -> Result<Self, serde_json::Error> {
        let (mut places, mut text) = (Vec::new(), Vec::new());
        for (item, id, entry) in entries {
            if !text.is_empty() {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &id)?;
            text.push(b':');
            serde_json::to_writer(&mut text, &entry)?;
            places.push(Place { item: item as u32, end: text.len() as u32 });
        }
        text.shrink_to_fit();
        Ok(Self { places, text: text.into() })
    }

    /// Rebuilds the entries from [`places`](Self::places) and [`text`](Self::text), for a catalogue of `items` items; `None`
    /// if they are inconsistent.
    pub(super) fn restore(places: Vec<Place>, text: String, items: usize) -> Option<Self> {
        let ascending = places.is_sorted_by(|one, next| one.item < next.item && one.end + 1 < next.end);
        let last = places.last().copied().unwrap_or(Place { item: 0, end: 0 });
        let fits = places.is_empty() || (last.item as usize) < items && places[0].end > 0;
        (ascending && fits && last.end as usize == text.len()).then(|| Self { places, text: text.into() })
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
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
        Entries::restore(places.into(), "a,b,c".to_owned(), 6).unwrap()
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
    fn inconsistent_data_cannot_be_restored() {
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
            assert!(Entries::restore(places, text.to_owned(), items).is_none(), "{text:?} of {items} items");
        }
    }
}
