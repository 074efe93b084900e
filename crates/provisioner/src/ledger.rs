//! The ledger of project IDs: which tree has which one, so that no two trees of a system ever share an ID. It is kept in the record of
//! each system.
//!
//! An ID is assigned only if it is free in the ledger and on the storage: IDs that the ledger does not contain (because
//! an old backup was restored, or other programs assigned them) still have usage or limits there.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use storage_driver::{Driver, DriverError};

use crate::record::{self, Begun, Entry, Record};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectIds {
    /// The directory's GID. Only for systems where each GID has one tree; a second tree is rejected.
    Gid,
    /// The next ID after the highest one ever assigned on any system, starting here.
    From(u32),
}

/// The project ID of each resource, by system, from the record of each system. Entries are kept forever, so that an ID is never
/// assigned twice.
#[derive(Debug, Default)]
pub struct Ledger {
    systems: BTreeMap<String, Record>,
    /// Assignments that earlier versions wrote into the state directory, by system.
    earlier: BTreeMap<String, BTreeMap<Uuid, NonZeroU32>>,
    /// The file of the earlier versions.
    path: PathBuf,
    /// The highest ID ever assigned on any system.
    highest: Option<u32>,
    /// Entries that are not in the record yet.
    unsaved: BTreeMap<String, Vec<Entry>>,
    /// Resources with a new ID.
    new: BTreeMap<String, BTreeSet<Uuid>>,
}

#[derive(Debug, Error)]
pub enum NoProject {
    #[error(
        "the project ID {id} (its GID) already belongs to {other} on this system: set `project_ids: {{from: N}}` for systems \
         where a group has more than one directory"
    )]
    Taken { id: u32, other: Uuid },
    #[error(
        "the project ID {0} (its GID) is in use on the storage by a tree that is not in the ledger: both would share one quota. \
         Remove the ID from that tree, or set `project_ids: {{from: N}}`"
    )]
    Used(u32),
    #[error("no project ID is free from {0} on")]
    Exhausted(u32),
    #[error(
        "all project IDs that were tried from {0} on are in use on the storage by trees that are not in the ledger: set \
         `project_ids: {{from: N}}` to a range that nothing else uses"
    )]
    Crowded(u32),
    #[error("cannot read whether a project ID is free")]
    Unknown(#[source] DriverError),
}

/// How many IDs are tried for one tree: first consecutive ones, then unpredictable ones, because any user of a file
/// system can assign the next IDs to small files.
const TRIES: (u32, u32) = (16, 48);
/// How far ahead the unpredictable ones may be.
const LEAP: u32 = 1 << 16;
/// How far above all known IDs an ID found on a tree may be to be adopted: the tree's owner can choose it.
const FAR: u32 = 1 << 20;

impl Ledger {
    /// Reads the file of earlier versions at this path, if there is one. The records are read by [`Ledger::load`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let earlier = match fs::read(path) {
            Ok(text) => {
                let broken = |what: &dyn std::fmt::Display| {
                    let text = format!("{} is not a ledger ({what}): restore it from a backup", path.display());
                    io::Error::new(io::ErrorKind::InvalidData, text)
                };
                let earlier: BTreeMap<String, BTreeMap<Uuid, NonZeroU32>> =
                    serde_json::from_slice(&text).map_err(|error| broken(&error))?;
                for (system, entries) in &earlier {
                    if entries.values().collect::<BTreeSet<_>>().len() != entries.len() {
                        return Err(broken(&format!("{system} has a project ID twice")));
                    }
                }
                earlier
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let highest = earlier.values().flat_map(BTreeMap::values).map(|id| id.get()).max();
        Ok(Self { earlier, path: path.to_owned(), highest, ..Self::default() })
    }

    /// Reads the record of a system.
    pub fn load(&mut self, system: &str, driver: &dyn Driver) -> Result<(), DriverError> {
        self.take(system, record::read(driver)?.unwrap_or_default())
    }

    /// Takes the record of a system, and adds what only the file of earlier versions contains. Fails if they contradict each other.
    pub fn take(&mut self, system: &str, mut record: Record) -> Result<(), DriverError> {
        let mut added = Vec::new();
        for (&resource, &id) in self.earlier.get(system).into_iter().flatten() {
            let entry = Entry::Project { resource, id };
            match (record.project(resource), record.owner(id.get())) {
                (Some(known), _) if known == id.get() => {}
                _ if record.has_released(resource) => {}
                (None, None) => {
                    record.apply(&entry);
                    added.push(entry);
                }
                (known, owner) => return Err(DriverError::Conflict(self.contradiction(resource, id, known, owner))),
            }
        }
        self.highest = self.highest.max(record.highest());
        self.systems.insert(system.to_owned(), record);
        self.unsaved.insert(system.to_owned(), added);
        self.new.remove(system);
        Ok(())
    }

    fn contradiction(&self, resource: Uuid, id: NonZeroU32, known: Option<u32>, owner: Option<Uuid>) -> String {
        let other = match (known, owner) {
            (Some(known), _) => format!("the record on the storage has {known} for it"),
            (None, owner) => format!("the record on the storage has this ID for {}", owner.unwrap_or_default()),
        };
        format!(
            "{} of an earlier version has the project ID {id} for {resource}, but {other}. Compare with the ID of the directory; if the \
             record is right, move {} away",
            self.path.display(),
            self.path.display()
        )
    }

    /// Makes all new entries of a system durable; called before an ID is used. Fails also if another provisioner has assigned one of the
    /// IDs at the same time.
    pub fn save(&mut self, system: &str, driver: &dyn Driver) -> Result<(), DriverError> {
        let entries = self.unsaved.remove(system).unwrap_or_default();
        if entries.is_empty() {
            return Ok(());
        }
        record::append(driver, &entries)?;
        // The driver keeps no record: nothing else is known.
        let Some(saved) = record::read(driver)? else { return Ok(()) };
        let lost = entries.iter().find_map(|entry| match entry {
            Entry::Project { resource, id } if saved.project(*resource) != Some(id.get()) => Some(*id),
            _ => None,
        });
        self.systems.insert(system.to_owned(), saved);
        lost.map_or(Ok(()), |id| {
            Err(DriverError::temporary(format!(
                "another provisioner has assigned the project ID {id} at the same time: check that both use the same lease"
            )))
        })
    }

    /// Whether entries of a system are not saved yet.
    pub fn has_unsaved(&self, system: &str) -> bool {
        self.unsaved.get(system).is_some_and(|entries| !entries.is_empty())
    }

    /// Resources that got an ID since [`Ledger::load`].
    pub fn new_ids(&self, system: &str) -> impl Iterator<Item = Uuid> {
        self.new.get(system).into_iter().flatten().copied()
    }

    pub fn known(&self, system: &str, resource: Uuid) -> Option<u32> {
        self.systems.get(system)?.project(resource)
    }

    /// Work that was begun and has not ended, according to the record.
    pub fn begun(&self, system: &str) -> impl Iterator<Item = (Uuid, &Begun)> {
        self.systems.get(system).into_iter().flat_map(Record::begun).map(|(resource, begun)| (*resource, begun))
    }

    /// Forgets the order of begun work, because the order was cancelled. What is left to do is to undo the work.
    pub fn forget_order(&mut self, system: &str, resource: Uuid, at: u64) {
        self.add(system, Entry::Ended { resource });
        self.add(system, Entry::Begun { resource, work: Begun { approved: None, at } });
    }

    /// Ends work that the record shows as begun, if it does.
    pub fn end(&mut self, system: &str, resource: Uuid) {
        if self.begun(system).any(|(begun, _)| begun == resource) {
            self.add(system, Entry::Ended { resource });
        }
    }

    /// Whether another resource of the system has this ID.
    pub fn is_anothers(&self, system: &str, resource: Uuid, id: u32) -> bool {
        self.holder(system, id).is_some_and(|holder| holder != resource)
    }

    fn holder(&self, system: &str, id: u32) -> Option<Uuid> {
        self.systems.get(system)?.owner(id)
    }

    /// Adds the project ID that was found on a resource's tree, unless the resource has one, the ID belongs to another
    /// resource, or it is far outside of the range that was assigned so far. `first`: the lowest ID.
    pub fn learn(&mut self, system: &str, resource: Uuid, id: u32, first: u32) {
        let known = first.max(1)..=self.highest.unwrap_or_default().max(first).saturating_add(FAR);
        if self.known(system, resource).is_none() && !self.is_anothers(system, resource, id) && known.contains(&id) {
            self.insert(system, resource, id);
        }
    }

    fn insert(&mut self, system: &str, resource: Uuid, id: u32) {
        let Some(id) = NonZeroU32::new(id) else { return };
        self.add(system, Entry::Project { resource, id });
        self.highest = self.highest.max(Some(id.get()));
    }

    fn add(&mut self, system: &str, entry: Entry) {
        self.systems.entry(system.to_owned()).or_default().apply(&entry);
        self.unsaved.entry(system.to_owned()).or_default().push(entry);
    }

    /// The project ID of a resource, or else a new one that `is_free` on the storage.
    pub fn project(
        &mut self,
        system: &str,
        resource: Uuid,
        gid: u32,
        ids: ProjectIds,
        is_free: &dyn Fn(u32) -> Result<bool, DriverError>,
    ) -> Result<u32, NoProject> {
        if let Some(id) = self.known(system, resource) {
            return Ok(id);
        }
        let id = match ids {
            ProjectIds::Gid => match self.holder(system, gid) {
                Some(other) => return Err(NoProject::Taken { id: gid, other }),
                None if is_free(gid).map_err(NoProject::Unknown)? => gid,
                None => return Err(NoProject::Used(gid)),
            },
            ProjectIds::From(first) => {
                // Above the IDs of all systems, because two of them may be on one file system. Lustre reads 0 and the
                // highest number as "none".
                let lowest = first.max(1).max(self.highest.map_or(0, |id| id.saturating_add(1)));
                let (near, far) = TRIES;
                // From the UUID, which is unknown before the resource exists.
                let leap = |n| u32::try_from(resource.as_u128() >> n & 0xffff).unwrap_or_default() % LEAP;
                let offsets = (0..near).chain((0..far).map(|n| near + leap(n)));
                let mut candidates = offsets.filter_map(|n| lowest.checked_add(n)).filter(|id| *id != u32::MAX);
                match candidates.find_map(|id| is_free(id).map(|free| free.then_some(id)).transpose()) {
                    Some(id) => id.map_err(NoProject::Unknown)?,
                    None if u32::MAX - lowest < near => return Err(NoProject::Exhausted(first)),
                    None => return Err(NoProject::Crowded(lowest)),
                }
            }
        };
        self.insert(system, resource, id);
        self.new.entry(system.to_owned()).or_default().insert(resource);
        Ok(id)
    }

    /// Makes the GID of a purged tree available again.
    pub fn release(&mut self, system: &str, resource: Uuid) {
        self.add(system, Entry::Released { resource });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_driver::memory::Memory;

    #[expect(clippy::unnecessary_wraps, reason = "the signature of a driver")]
    fn free(_: u32) -> Result<bool, DriverError> {
        Ok(true)
    }

    /// The ledger of a provisioner whose state directory has this file, or is empty.
    fn loaded(earlier: &Path, storage: &Memory) -> Result<Ledger, DriverError> {
        let mut ledger = Ledger::open(earlier).unwrap();
        ledger.load("capstor", storage).map(|()| ledger)
    }

    #[test]
    fn an_id_is_never_assigned_twice_and_never_lost() {
        let storage = Memory::default();
        let mut ledger = loaded(Path::new("/none"), &storage).unwrap();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        assert_eq!(ledger.project("capstor", a, 500, ids, &free).unwrap(), 7);
        assert_eq!(ledger.project("capstor", b, 500, ids, &free).unwrap(), 8);
        assert_eq!(ledger.new_ids("capstor").collect::<Vec<_>>(), [a, b]);
        ledger.save("capstor", &storage).unwrap();
        // Another host.
        let mut again = loaded(Path::new("/none"), &storage).unwrap();
        assert_eq!(again.project("capstor", b, 500, ids, &free).unwrap(), 8);
        assert_eq!(again.project("capstor", c, 500, ids, &free).unwrap(), 9);
    }

    #[test]
    fn of_two_provisioners_that_assign_an_id_at_the_same_time_one_fails() {
        let storage = Memory::default();
        let [mut first, mut second] = [(); 2].map(|()| loaded(Path::new("/none"), &storage).unwrap());
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        assert_eq!(first.project("capstor", a, 500, ids, &free).unwrap(), 7);
        assert_eq!(second.project("capstor", b, 500, ids, &free).unwrap(), 7);
        first.save("capstor", &storage).unwrap();
        assert!(second.save("capstor", &storage).unwrap_err().to_string().contains("at the same time"));
        let mut next = loaded(Path::new("/none"), &storage).unwrap();
        assert_eq!(next.known("capstor", a), Some(7));
        assert_eq!(next.project("capstor", b, 500, ids, &free).unwrap(), 8);
    }

    #[test]
    fn the_ledger_of_an_earlier_version_moves_to_the_storage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let [a, b] = [1, 2].map(Uuid::from_u128);
        fs::write(&path, format!(r#"{{"capstor": {{"{a}": 7}}, "scratch": {{"{b}": 30}}}}"#)).unwrap();
        let storage = Memory::default();
        let mut ledger = loaded(&path, &storage).unwrap();
        assert_eq!((ledger.known("capstor", a), ledger.highest), (Some(7), Some(30)));
        ledger.save("capstor", &storage).unwrap();
        assert_eq!(loaded(Path::new("/none"), &storage).unwrap().known("capstor", a), Some(7));
        // The file stays, and no longer matters: a GID that was released since is not taken again.
        let mut again = loaded(&path, &storage).unwrap();
        assert!(!again.has_unsaved("capstor"));
        again.release("capstor", a);
        again.save("capstor", &storage).unwrap();
        assert_eq!(loaded(&path, &storage).unwrap().known("capstor", a), None);
    }

    #[test]
    fn a_ledger_that_contradicts_the_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let storage = Memory::default();
        let mut ledger = loaded(Path::new("/none"), &storage).unwrap();
        ledger.learn("capstor", a, 7, 7);
        ledger.save("capstor", &storage).unwrap();
        for text in [format!(r#"{{"capstor": {{"{a}": 8}}}}"#), format!(r#"{{"capstor": {{"{b}": 7}}}}"#)] {
            fs::write(&path, text).unwrap();
            let fault = loaded(&path, &storage).unwrap_err().to_string();
            assert!(fault.contains("ledger.json") && fault.contains("the record on the storage has"), "{fault}");
        }
    }

    #[test]
    fn an_id_in_use_on_the_storage_is_not_assigned() {
        let mut ledger = Ledger::default();
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        let others = |id: u32| Ok(id > 9);
        assert_eq!(ledger.project("capstor", a, 500, ids, &others).unwrap(), 10);
        assert_eq!(ledger.project("capstor", a, 500, ids, &|_| panic!("it has one")).unwrap(), 10);
        let unread = ledger.project("capstor", b, 500, ids, &|_| Err(DriverError::temporary("away")));
        assert!(matches!(unread, Err(NoProject::Unknown(_))), "{unread:?}");
        let crowded = ledger.project("capstor", b, 500, ids, &|_| Ok(false));
        assert!(matches!(crowded, Err(NoProject::Crowded(11))), "{crowded:?}");
        let exhausted = ledger.project("capstor", b, 500, ProjectIds::From(u32::MAX - 3), &|_| Ok(false));
        assert!(matches!(exhausted, Err(NoProject::Exhausted(_))), "{exhausted:?}");
        assert_eq!(ledger.known("capstor", b), None);
    }

    #[test]
    fn taking_the_next_ids_blocks_nobody() {
        let mut ledger = Ledger::default();
        let resource = Uuid::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788);
        let taken = |id: u32| Ok(id > 1007);
        let id = ledger.project("capstor", resource, 500, ProjectIds::From(7), &taken).unwrap();
        assert!((1008..0x2_0000).contains(&id), "{id}");
    }

    #[test]
    fn an_id_found_on_a_tree_is_adopted_but_never_taken_from_another_one() {
        let mut ledger = Ledger::default();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        for (resource, id) in [(a, 12), (a, 13), (b, 12), (b, 6), (b, 0), (b, u32::MAX - 1)] {
            ledger.learn("capstor", resource, id, 7);
        }
        assert_eq!(["capstor", "vast"].map(|system| ledger.known(system, a)), [Some(12), None]);
        assert_eq!(ledger.known("capstor", b), None);
        assert_eq!(ledger.project("capstor", c, 500, ProjectIds::From(7), &free).unwrap(), 13);
    }

    #[test]
    fn systems_that_may_be_on_one_file_system_do_not_share_an_id() {
        let mut ledger = Ledger::default();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        assert_eq!(ledger.project("capstor", a, 500, ids, &free).unwrap(), 7);
        assert_eq!(ledger.project("scratch", b, 500, ids, &free).unwrap(), 8);
        assert_eq!(ledger.project("capstor", c, 500, ids, &free).unwrap(), 9);
        assert_eq!(ledger.project("scratch", b, 500, ids, &free).unwrap(), 8);
    }

    #[test]
    fn two_trees_of_one_gid_do_not_share_a_project_id() {
        let mut ledger = Ledger::default();
        let [a, b] = [1, 2].map(Uuid::from_u128);
        assert_eq!(ledger.project("capstor", a, 500, ProjectIds::Gid, &free).unwrap(), 500);
        assert_eq!(ledger.project("capstor", a, 500, ProjectIds::Gid, &free).unwrap(), 500);
        let second = ledger.project("capstor", b, 500, ProjectIds::Gid, &free);
        assert!(matches!(second, Err(NoProject::Taken { id: 500, .. })));
        let foreign = ledger.project("capstor", b, 501, ProjectIds::Gid, &|_| Ok(false));
        assert!(matches!(foreign, Err(NoProject::Used(501))));
    }

    #[test]
    fn a_broken_ledger_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let [a, b] = [1, 2].map(Uuid::from_u128);
        for text in [
            "{\"capstor\": ".to_owned(),
            format!(r#"{{"capstor": {{"{a}": 7, "{b}": 7}}}}"#),
            format!(r#"{{"capstor": {{"{a}": 0}}}}"#),
        ] {
            fs::write(&path, &text).unwrap();
            assert!(Ledger::open(&path).is_err(), "{text}");
        }
    }
}
