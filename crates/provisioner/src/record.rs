//! The record of a storage system: what neither the directories nor Waldur show, and what the next provisioner must know even if its
//! state directory is empty. It lives with the storage (see [`Driver::read_record`]).
//!
//! It has one JSON object a line and is only appended to. The first line that claims a project ID wins, so all readers agree on whose
//! it is, even if two provisioners wrote at the same time. Each append begins with a line `~`, which also ends a line that a crash cut
//! off: lines that end in `~` are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use provisioner_core::document::OrderKind;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use storage_driver::{Driver, DriverError};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Entry {
    /// A resource gets a project ID, unless it has one or the ID belongs to another resource.
    Project { resource: Uuid, id: NonZeroU32 },
    /// The project ID of a purged tree is available again.
    Released { resource: Uuid },
    /// Work begins that later passes could not distinguish from a change that somebody else made.
    Begun {
        resource: Uuid,
        #[serde(flatten)]
        work: Begun,
    },
    /// That work is complete.
    Ended { resource: Uuid },
}

/// Work that was begun on a resource and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The order whose approval is sent first, so that it can end before the work does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// Seconds since 1970.
    pub at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    pub order: Uuid,
    pub kind: OrderKind,
}

/// What the lines say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    projects: BTreeMap<Uuid, u32>,
    owners: BTreeMap<u32, Uuid>,
    /// The highest ID ever claimed.
    highest: Option<u32>,
    released: BTreeSet<Uuid>,
    begun: BTreeMap<Uuid, Begun>,
}

#[derive(Debug, Error)]
enum Unreadable {
    #[error(
        "the record on the storage is damaged at line {line}: it is not a line of a record. Restore it from a backup, or move it away: \
         the next pass makes a new one with the project IDs of the directories (see \"The record is damaged or gone\" in the runbook)"
    )]
    Damaged { line: usize },
    #[error(
        "the record on the storage was written by a newer version of the provisioner (line {line}): run that version or a newer one. \
         Do not remove it"
    )]
    Newer { line: usize },
}

/// The events of this version.
const EVENTS: [&str; 4] = ["project", "released", "begun", "ended"];

impl Unreadable {
    fn new(line: usize, text: &[u8]) -> Self {
        let value = serde_json::from_slice::<serde_json::Value>(text).unwrap_or_default();
        match value["event"].as_str() {
            Some(event) if !EVENTS.contains(&event) => Self::Newer { line },
            _ => Self::Damaged { line },
        }
    }
}

impl Record {
    fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let mut record = Self::default();
        let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        // The last one has no line break: it is empty, or was cut off.
        lines.pop();
        for (line, text) in (1..).zip(lines) {
            if text.last() != Some(&b'~') {
                let entry = serde_json::from_slice(text);
                record.apply(&entry.map_err(|_| Unreadable::new(line, text))?);
            }
        }
        Ok(record)
    }

    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Project { resource, id } => {
                let id = id.get();
                if !self.projects.contains_key(resource) && !self.owners.contains_key(&id) {
                    self.projects.insert(*resource, id);
                    self.owners.insert(id, *resource);
                    self.highest = self.highest.max(Some(id));
                }
            }
            Entry::Released { resource } => {
                if let Some(id) = self.projects.remove(resource) {
                    self.owners.remove(&id);
                }
                self.released.insert(*resource);
            }
            Entry::Begun { resource, work } => {
                // Work that continues after the order has ended keeps its order.
                let before = self.begun.remove(resource).and_then(|before| before.approved);
                let approved = work.approved.clone().or(before);
                self.begun.insert(*resource, Begun { approved, at: work.at });
            }
            Entry::Ended { resource } => _ = self.begun.remove(resource),
        }
    }

    pub fn project(&self, resource: Uuid) -> Option<u32> {
        self.projects.get(&resource).copied()
    }

    /// The resource with this project ID.
    pub fn owner(&self, id: u32) -> Option<Uuid> {
        self.owners.get(&id).copied()
    }

    pub fn highest(&self) -> Option<u32> {
        self.highest
    }

    /// Whether the resource had a project ID that is available again.
    pub fn has_released(&self, resource: Uuid) -> bool {
        self.released.contains(&resource)
    }

    pub fn begun(&self) -> &BTreeMap<Uuid, Begun> {
        &self.begun
    }
}

/// Reads the record of a system; `None` if its driver keeps none.
pub fn read(driver: &dyn Driver) -> Result<Option<Record>, DriverError> {
    let Some(text) = driver.read_record()? else { return Ok(None) };
    let parsed = Record::parse(&text).map_err(|unreadable| DriverError::Conflict(unreadable.to_string()))?;
    Ok(Some(parsed))
}

/// Makes these entries durable.
pub fn append(driver: &dyn Driver, entries: &[Entry]) -> Result<(), DriverError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut text = b"~\n".to_vec();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)
            .map_err(|error| DriverError::temporary_from("the record cannot be written", error))?;
        text.push(b'\n');
    }
    #[cfg(test)]
    let last = crate::killed::before_write().map_err(|killed| DriverError::Stopped(killed.into()))?;
    driver.append_to_record(&text)?;
    #[cfg(test)]
    if last {
        return Err(DriverError::Stopped("killed".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_driver::memory::Memory;

    fn claim(resource: u128, id: u32) -> Entry {
        Entry::Project { resource: Uuid::from_u128(resource), id: NonZeroU32::new(id).unwrap() }
    }

    fn begun(resource: u128, order: Option<u128>) -> Entry {
        let approved = order.map(|order| Approved { order: Uuid::from_u128(order), kind: OrderKind::Terminate });
        Entry::Begun { resource: Uuid::from_u128(resource), work: Begun { approved, at: 7 } }
    }

    #[test]
    fn the_first_claim_wins_and_a_released_id_is_available_again() {
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let memory = Memory::default();
        append(&memory, &[claim(1, 7), claim(2, 7), claim(1, 8)]).unwrap();
        let record = read(&memory).unwrap().unwrap();
        assert_eq!((record.project(a), record.project(b), record.owner(8)), (Some(7), None, None));
        append(&memory, &[Entry::Released { resource: a }, claim(2, 7)]).unwrap();
        let record = read(&memory).unwrap().unwrap();
        assert_eq!((record.project(a), record.project(b), record.owner(7)), (None, Some(7), Some(b)));
        assert!(record.has_released(a) && record.highest() == Some(7));
    }

    #[test]
    fn work_that_continues_keeps_its_order_until_it_ends() {
        let memory = Memory::default();
        let of = |memory: &Memory| read(memory).unwrap().unwrap().begun.get(&Uuid::from_u128(1)).cloned();
        append(&memory, &[begun(1, Some(5)), begun(1, None)]).unwrap();
        assert_eq!(of(&memory).unwrap().approved.unwrap().order, Uuid::from_u128(5));
        append(&memory, &[Entry::Ended { resource: Uuid::from_u128(1) }]).unwrap();
        assert_eq!(of(&memory), None);
    }

    #[test]
    fn a_crash_at_any_byte_of_an_append_loses_only_that_append() {
        let whole = Memory::default();
        append(&whole, &[claim(1, 7)]).unwrap();
        let before = whole.read_record().unwrap().unwrap();
        append(&whole, &[claim(2, 8), begun(2, Some(5))]).unwrap();
        let after = whole.read_record().unwrap().unwrap();
        // A power loss can also leave zeros instead of the end.
        let lengths = (before.len()..=after.len()).flat_map(|length| [(length, 0), (length, 9)]);
        for (length, zeros) in lengths {
            let memory = Memory::default();
            memory.replace_record(&[&after[..length], &vec![0; zeros]].concat());
            let cut = read(&memory).unwrap().unwrap();
            append(&memory, &[claim(3, 9)]).unwrap();
            let mut expected = cut.clone();
            expected.apply(&claim(3, 9));
            assert_eq!(read(&memory).unwrap().unwrap(), expected, "cut at byte {length}");
            assert_eq!(cut.owner(7), Some(Uuid::from_u128(1)));
        }
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        for text in [
            "x\n",
            "~\n{}\n",
            "\0\0\0\n",
            "\0{\"event\":\"ended\"}\n",
            "{\"event\":\"project\",\"resource\":\"7\"}\n",
            "\n",
        ] {
            let memory = Memory::default();
            memory.replace_record(text.as_bytes());
            let fault = read(&memory).unwrap_err().to_string();
            assert!(fault.contains("damaged at line"), "{text:?}: {fault}");
        }
        for event in ["archived", "project2"] {
            let newer = Memory::default();
            append(&newer, &[claim(1, 7)]).unwrap();
            newer.append_to_record(format!("{{\"event\":\"{event}\",\"resource\":7}}\n").as_bytes()).unwrap();
            let fault = read(&newer).unwrap_err().to_string();
            assert!(fault.contains("newer version") && fault.contains("(line 3)"), "{fault}");
        }
        let zero = Memory::default();
        append(&zero, &[claim(1, 7)]).unwrap();
        let text = String::from_utf8(zero.read_record().unwrap().unwrap()).unwrap().replace(":7}", ":0}");
        zero.replace_record(text.as_bytes());
        assert!(read(&zero).is_err(), "0 is no project ID");
    }
}
