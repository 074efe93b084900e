//! Project IDs: which tree has which, so that no two trees on a system ever share one.
//!
//! A number is given only if neither the ledger nor the storage knows it: what the ledger forgot (an old backup was put
//! back), and what others than this program numbered, still counts or is limited there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::driver::DriverError;

/// Where project IDs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectIds {
    /// The directory's GID: right only where each GID has one tree on the system. A second tree is refused.
    Gid,
    /// The number after the highest that was ever given on any system, from this one on.
    From(u32),
}

/// Who has which project ID, by system; kept for ever: a number is never given twice.
#[derive(Debug, Default)]
pub struct Ledger {
    path: Option<PathBuf>,
    entries: BTreeMap<String, Entries>,
    changed: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Entries(BTreeMap<Uuid, u32>);

/// Why a tree has no project ID.
#[derive(Debug, Error)]
pub enum NoProject {
    /// The GID is taken.
    #[error(
        "the project ID {id} (its GID) belongs to {other} on this system already: set `project_ids: {{from: N}}` for \
         systems where a group has more than one directory"
    )]
    Taken {
        /// The number.
        id: u32,
        /// The resource that has it.
        other: Uuid,
    },
    /// The GID counts on the storage already.
    #[error(
        "the project ID {0} (its GID) is in use on the storage, by a tree that is not in the ledger: its quota would be this \
         one's, too. Take the ID from that tree, or set `project_ids: {{from: N}}`"
    )]
    Used(u32),
    /// No number is left.
    #[error("no project ID is free from {0} on")]
    Exhausted(u32),
    /// Numbers that others gave.
    #[error(
        "all project IDs that were tried from {0} on are in use on the storage, and not by trees of this ledger: set \
         `project_ids: {{from: N}}` to a range that nobody else uses"
    )]
    Crowded(u32),
    /// The storage does not say.
    #[error("whether a project ID is free cannot be read")]
    Unknown(#[source] DriverError),
}

/// How many numbers are looked at for one tree, one after the other, and then how many that nobody can tell beforehand: any
/// user of a file system can have small files count under the next numbers.
const TRIES: (u32, u32) = (16, 48);
/// How far those may lie.
const LEAP: u32 = 1 << 16;
/// How far beyond all known numbers one that is found on a tree may lie to be learned: its owner can choose it.
const FAR: u32 = 1 << 20;

impl Ledger {
    /// The ledger in this file; empty where there is none yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        let entries = match fs::read(path) {
            Ok(text) => {
                let broken = |what: &dyn std::fmt::Display| {
                    let text = format!("{} is no ledger ({what}): bring it back from a backup", path.display());
                    io::Error::new(io::ErrorKind::InvalidData, text)
                };
                let entries: BTreeMap<String, Entries> =
                    serde_json::from_slice(&text).map_err(|error| broken(&error))?;
                for (system, Entries(entries)) in &entries {
                    let numbers: BTreeSet<_> = entries.values().collect();
                    if numbers.len() != entries.len() || numbers.contains(&0) {
                        return Err(broken(&format!("{system} has a project ID twice, or 0")));
                    }
                }
                entries
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: Some(path.to_owned()), entries, changed: false })
    }

    /// The project ID that a resource's tree has.
    pub fn known(&self, system: &str, resource: Uuid) -> Option<u32> {
        self.entries.get(system)?.0.get(&resource).copied()
    }

    /// Whether another resource of the system has this number.
    pub fn is_anothers(&self, system: &str, resource: Uuid, id: u32) -> bool {
        let entries = self.entries.get(system).map(|entries| &entries.0);
        entries.is_some_and(|entries| entries.iter().any(|(other, taken)| *other != resource && *taken == id))
    }

    /// Enters the project ID that was found on a resource's tree, unless the tree has one here, the number is another's, or it
    /// lies where none was given yet, `first` being the lowest.
    pub fn learn(&mut self, system: &str, resource: Uuid, id: u32, first: u32) {
        let known = first.max(1)..=self.highest().unwrap_or_default().max(first).saturating_add(FAR);
        if self.known(system, resource).is_none() && !self.is_anothers(system, resource, id) && known.contains(&id) {
            self.entries.entry(system.to_owned()).or_default().0.insert(resource, id);
            self.changed = true;
        }
    }

    fn highest(&self) -> Option<u32> {
        self.entries.values().flat_map(|entries| entries.0.values()).copied().max()
    }

    /// The project ID of a resource's tree: the one it has, or a new one that `is_free` on the storage.
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
        let highest = self.highest();
        let entries = &mut self.entries.entry(system.to_owned()).or_default().0;
        let id = match ids {
            ProjectIds::Gid => match entries.iter().find(|(_, id)| **id == gid) {
                Some((other, _)) => return Err(NoProject::Taken { id: gid, other: *other }),
                None if is_free(gid).map_err(NoProject::Unknown)? => gid,
                None => return Err(NoProject::Used(gid)),
            },
            ProjectIds::From(first) => {
                // Above those of all systems: two of them may lie on one file system. 0 and the highest number mean "none" to
                // Lustre.
                let lowest = first.max(1).max(highest.map_or(0, |id| id.saturating_add(1)));
                let (near, far) = TRIES;
                // Told from the UUID, which nobody knows before there is the resource.
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
        entries.insert(resource, id);
        self.changed = true;
        Ok(id)
    }

    /// Gives a GID free for another tree: the one that had it is purged.
    pub fn forget(&mut self, system: &str, resource: Uuid) {
        let entries = self.entries.get_mut(system);
        self.changed |= entries.is_some_and(|entries| entries.0.remove(&resource).is_some());
    }

    /// Makes what was entered last: called before a number is used. Written aside, synced, then put in place.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else { return Ok(()) };
        let aside = path.with_extension("new");
        let text = serde_json::to_vec_pretty(&self.entries)?;
        fs::write(&aside, text)?;
        fs::File::open(&aside)?.sync_all()?;
        fs::rename(&aside, path)?;
        let directory = rustix::fs::open(
            path.parent().unwrap_or(Path::new("/")),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        rustix::fs::fsync(directory)?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as a driver answers")]
    fn free(_: u32) -> Result<bool, DriverError> {
        Ok(true)
    }

    #[test]
    fn a_number_is_never_given_twice_and_never_lost() {
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
    fn a_number_that_counts_on_the_storage_is_nobodys_to_give() {
        let mut ledger = Ledger::default();
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        let others = |id: u32| Ok(id > 9);
        assert_eq!(ledger.project("capstor", a, 500, ids, &others).unwrap(), 10);
        assert_eq!(ledger.project("capstor", a, 500, ids, &|_| panic!("it has one")).unwrap(), 10);
        let unread = ledger.project("capstor", b, 500, ids, &|_| Err(DriverError::unclear("away")));
        assert!(matches!(unread, Err(NoProject::Unknown(_))), "{unread:?}");
        let crowded = ledger.project("capstor", b, 500, ids, &|_| Ok(false));
        assert!(matches!(crowded, Err(NoProject::Crowded(11))), "{crowded:?}");
        let exhausted = ledger.project("capstor", b, 500, ProjectIds::From(u32::MAX - 3), &|_| Ok(false));
        assert!(matches!(exhausted, Err(NoProject::Exhausted(_))), "{exhausted:?}");
        assert_eq!(ledger.known("capstor", b), None);
    }

    #[test]
    fn somebody_who_takes_the_next_numbers_stops_nobody() {
        let mut ledger = Ledger::default();
        let resource = Uuid::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788);
        let taken = |id: u32| Ok(id > 1007);
        let id = ledger.project("capstor", resource, 500, ProjectIds::From(7), &taken).unwrap();
        assert!((1008..0x2_0000).contains(&id), "{id}");
    }

    #[test]
    fn what_is_found_on_a_tree_is_learned_and_never_taken_from_another() {
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
    fn systems_that_may_lie_on_one_file_system_do_not_share_a_number() {
        let mut ledger = Ledger::default();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let ids = ProjectIds::From(7);
        assert_eq!(ledger.project("capstor", a, 500, ids, &free).unwrap(), 7);
        assert_eq!(ledger.project("scratch", b, 500, ids, &free).unwrap(), 8);
        assert_eq!(ledger.project("capstor", c, 500, ids, &free).unwrap(), 9);
        assert_eq!(ledger.project("scratch", b, 500, ids, &free).unwrap(), 8);
    }

    #[test]
    fn two_trees_of_one_gid_do_not_share_a_project() {
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
    fn a_broken_ledger_stops_the_program() {
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
