//! Serializes snapshots, so that another replica can use them without building or rendering.
//!
//! The format: eight bytes with the length of the head, the head as JSON, and the rendered items.

use std::borrow::Cow;
use std::sync::Arc;

use catalog::{Details, Index, Skipped};
use serde::{Deserialize, Serialize};

use super::Snapshot;
use super::blocks::Blocks;

/// Version of the format.
pub const FORMAT: u32 = 6;

#[derive(Serialize, Deserialize)]
struct Head<'a, B> {
    index: Cow<'a, Index>,
    skipped: Cow<'a, [Skipped]>,
    skipped_details: Cow<'a, [Details]>,
    malformed: Cow<'a, [Skipped]>,
    blocks: Vec<B>,
}

impl Snapshot {
    /// # Errors
    ///
    /// None in practice: all values can be represented in JSON.
    pub fn pack(&self) -> Result<Vec<u8>, serde_json::Error> {
        let head = serde_json::to_vec(&Head {
            index: Cow::Borrowed(&*self.index),
            skipped: Cow::Borrowed(&self.skipped),
            skipped_details: Cow::Borrowed(&self.skipped_details),
            malformed: Cow::Borrowed(&self.malformed),
            blocks: self.items.iter().collect(),
        })?;
        let mut packed = (head.len() as u64).to_le_bytes().to_vec();
        packed.reserve(head.len() + self.items.iter().map(|block| block.text().len()).sum::<usize>());
        packed.extend(head);
        self.items.iter().for_each(|block| packed.extend_from_slice(block.text()));
        Ok(packed)
    }

    /// Restores a packed snapshot; `None` for invalid bytes. Unchanged parts are shared with `before`.
    pub fn unpack(packed: &[u8], before: Option<&Self>) -> Option<Self> {
        let (length, packed) = packed.split_first_chunk()?;
        let (head, text) = packed.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let Head { index, skipped, skipped_details, malformed, blocks } = serde_json::from_slice(head).ok()?;
        let items = Blocks::restore(blocks, text, before.map(|before| &before.items))?;
        if !index.fits(items.len(), skipped.len()) || skipped_details.len() != skipped.len() {
            return None;
        }
        let skipped = (skipped.into_owned(), skipped_details.into_owned());
        Self::of(items, Arc::new(index.into_owned()), skipped, malformed.into_owned()).ok()
    }
}

#[cfg(test)]
mod tests {
    use catalog::{Filter, Identities, Policy, QuotaProblemCode, Resource, State};
    use serde_json::json;
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;
    use crate::testing::policy;

    fn snapshot(count: u128, state: &str) -> Snapshot {
        with_orders(count, state, "executing")
    }

    fn with_orders(count: u128, state: &str, order: &str) -> Snapshot {
        let record = |number: u128| {
            let record = json!({
                "uuid": Uuid::from_u128(number), "slug": format!("resource-{number}"), "state": state,
                "offering_uuid": Uuid::from_u128(1), "offering_slug": "capstor", "provider_slug": "provider",
                "customer_slug": "customer",
                "project_slug": if number.is_multiple_of(2) { "known" } else { "unknown" },
                "limits": if number.is_multiple_of(6) { json!({}) } else { json!({"storage": 1}) },
                "order_in_progress": number.is_multiple_of(4).then(|| json!({
                    "uuid": Uuid::from_u128(number + 1), "type": "Update", "state": order,
                    "url": format!("https://waldur.example.org/api/marketplace-orders/{number}/"),
                })),
            });
            Arc::new(Resource::parse(&to_raw_value(&record).unwrap()).unwrap())
        };
        let resources: Vec<_> = (0..count).map(record).collect();
        let policy = Policy { relay: Some("https://proxy.example.org".into()), ..policy() };
        let gids = [("known", Ok(30_000)), ("unknown", Err("unknown".to_owned()))];
        let gids = gids.map(|(project, gid)| (project.to_owned(), gid)).into();
        let identities = Identities { gids, ..Identities::default() };
        let catalogue = catalog::build(&resources, Arc::default(), identities.into(), policy.into(), None);
        let malformed = Skipped { item_id: None, error: "MalformedResourceError", detail: "no uuid".into() };
        Snapshot::render(&catalogue, Vec::from([malformed]), None).unwrap()
    }

    #[test]
    fn unpacking_restores_the_snapshot() {
        for count in [0, 1, 3000] {
            let snapshot = snapshot(count, "OK");
            let again = Snapshot::unpack(&snapshot.pack().unwrap(), None).unwrap();
            assert_eq!(again.fingerprint(), snapshot.fingerprint());
            assert_eq!(again.rendered_skipped(), snapshot.rendered_skipped());
            assert!(again.callbacks().eq(snapshot.callbacks()));
            let missing = |snapshot: &Snapshot| snapshot.quota_problems(QuotaProblemCode::MissingComponent);
            assert_eq!((missing(&again), missing(&snapshot)), (missing(&snapshot), count.div_ceil(6) as usize));
            assert_eq!(snapshot.callbacks().count(), usize::try_from(count.div_ceil(4)).unwrap());
            for state in [None, Some(State::Ok), Some(State::Erred)] {
                let filter = Filter { state, ..Filter::default() };
                let described =
                    |snapshot: &Snapshot| snapshot.resources().map(|it| format!("{it:?}")).collect::<Vec<_>>();
                assert_eq!(described(&again), described(&snapshot));
                let (again, snapshot) = (again.page(&filter, 0, 5000), snapshot.page(&filter, 0, 5000));
                assert_eq!(
                    (again.total, again.items, again.orders, again.quota_problems, again.skipped),
                    (snapshot.total, snapshot.items, snapshot.orders, snapshot.quota_problems, snapshot.skipped)
                );
            }
        }
    }

    #[test]
    fn unchanged_blocks_are_shared() {
        let before = snapshot(3000, "OK");
        let again = Snapshot::unpack(&before.pack().unwrap(), Some(&before)).unwrap();
        assert!(again.items.iter().zip(before.items.iter()).all(|(one, other)| std::ptr::eq(one, other)));
    }

    #[test]
    fn data_outside_the_items_changes_the_fingerprint() {
        assert_ne!(snapshot(2, "a state").fingerprint(), snapshot(2, "Creating").fingerprint());
        let snapshot = |order| with_orders(2, "OK", order);
        assert_eq!(snapshot("pending-consumer").fingerprint(), snapshot("pending-consumer").fingerprint());
        assert_ne!(snapshot("pending-consumer").fingerprint(), snapshot("pending-project").fingerprint());
    }

    #[test]
    fn invalid_bytes_are_refused() {
        let packed = snapshot(3, "OK").pack().unwrap();
        for end in 0..packed.len() {
            assert!(Snapshot::unpack(&packed[..end], None).is_none(), "the first {end} bytes");
        }
        assert!(Snapshot::unpack(&[&packed[..], b" "].concat(), None).is_none());
        let text = String::from_utf8_lossy(&packed[8..]).into_owned();
        for (is, other) in [
            ("\"nodes\":1", "\"nodes\":9"),
            ("\"Skipped\":0", "\"Skipped\":1"),
            ("\"Item\":1", "\"Item\":0"),
            ("\"system\":0", "\"system\":1"),
            ("\"ids\":[", "\"ids\":[\"00000000-0000-0000-0000-000000000000\","),
            ("\"ends\":[", "\"ends\":[1,"),
            ("\"problem_codes\":[", "\"problem_codes\":[\"zero_limit\","),
            ("MissingIdentityError", "AnotherError"),
            ("\"orders\":{\"places\":[{\"item\":1,", "\"orders\":{\"places\":[{\"item\":9,"),
            ("\"quota_problems\":{\"places\":[{\"item\":1,", "\"quota_problems\":{\"places\":[{\"item\":9,"),
            ("\"text\":\"", "\"text\":\" "),
        ] {
            let changed = text.replacen(is, other, 1);
            assert_ne!(changed, text, "{is}");
            let head = packed[..8].iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
            let length = head + changed.len() as u64 - text.len() as u64;
            let changed = [&length.to_le_bytes()[..], changed.as_bytes()].concat();
            assert!(Snapshot::unpack(&changed, None).is_none(), "{is} → {other}");
        }
    }
}
