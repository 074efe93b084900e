//! The ledger of project IDs: which tree has which one, so that no two trees of a system ever share an ID.
//!
//! An ID is assigned only if it is free in the ledger and on the storage: IDs that the ledger does not contain (because
//! an old backup was restored, or other programs assigned them) still have usage or limits there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use storage_driver::DriverError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectIds {
    /// The directory's GID. Only for systems where each GID has one tree; a second tree is rejected.
    Gid,
    /// The next ID after the highest one ever assigned on any system, starting here.
    From(u32),
}

/// The project ID of each resource, by system. Entries are kept forever, so that an ID is never assigned twice.
#[derive(Debug, Default)]
pub struct Ledger {
    path: Option<PathBuf>,
    entries: BTreeMap<String, BTreeMap<Uuid, u32>>,
    /// The highest ID ever assigned on any system.
    highest: Option<u32>,
    changed: bool,
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
    /// Empty if there is no file yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        let entries = match fs::read(path) {
            Ok(text) => {
                let broken = |what: &dyn std::fmt::Display| {
                    let text = format!("{} is not a ledger ({what}): restore it from a backup", path.display());
                    io::Error::new(io::ErrorKind::InvalidData, text)
                };
                let entries: BTreeMap<String, BTreeMap<Uuid, u32>> =
                    serde_json::from_slice(&text).map_err(|error| broken(&error))?;
                for (system, entries) in &entries {
                    let numbers: BTreeSet<_> = entries.values().collect();
                    if numbers.len() != entries.len() || numbers.contains(&0) {
                        return Err(broken(&format!("{system} has a project ID twice, or the ID 0")));
                    }
                }
                entries
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let highest = entries.values().flat_map(BTreeMap::values).copied().max();
        Ok(Self { path: Some(path.to_owned()), entries, highest, changed: false })
    }

    pub fn known(&self, system: &str, resource: Uuid) -> Option<u32> {
        self.entries.get(system)?.get(&resource).copied()
    }

    /// Whether another resource of the system has this ID.
    pub fn is_anothers(&self, system: &str, resource: Uuid, id: u32) -> bool {
        self.holder(system, id).is_some_and(|holder| holder != resource)
    }

    fn holder(&self, system: &str, id: u32) -> Option<Uuid> {
        self.entries.get(system)?.iter().find(|(_, taken)| **taken == id).map(|(resource, _)| *resource)
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
        self.entries.entry(system.to_owned()).or_default().insert(resource, id);
        self.highest = self.highest.max(Some(id));
        self.changed = true;
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
        Ok(id)
    }

    /// Makes the GID of a purged tree available again.
    pub fn forget(&mut self, system: &str, resource: Uuid) {
        let entries = self.entries.get_mut(system);
        self.changed |= entries.is_some_and(|entries| entries.remove(&resource).is_some());
    }

    /// Makes all entries durable; called before an ID is used. Writes a new file, syncs it, and renames it.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else { return Ok(()) };
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(&self.entries)?;
        fs::write(&new, text)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the signature of a driver")]
    fn free(_: u32) -> Result<bool, DriverError> {
        Ok(true)
    }

    #[test]
    fn an_id_is_never_assigned_twice_and_never_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let mut ledger = Ledger::open(&path).unwrap();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        assert_eq!(ledger.project("capstor", a, 500, ids, &free).unwrap(), 7);
        assert_eq!(ledger.project("capstor", b, 500, ids, &free).unwrap(), 8);
        ledger.save().unwrap();
        let mut again = Ledger::open(&path).unwrap();
        assert_eq!(again.project("capstor", b, 500, ids, &free).unwrap(), 8);
        assert_eq!(again.project("capstor", c, 500, ids, &free).unwrap(), 9);
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
