//! Project IDs: which tree has which, so that no two trees on a system ever share one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Where project IDs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectIds {
    /// The directory's GID: right only where each GID has one tree on the system. A second tree is refused.
    Gid,
    /// The number after the highest that was ever given, from this one on.
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
    /// No number is left.
    #[error("no project ID is free from {0} on")]
    Exhausted(u32),
}

impl Ledger {
    /// The ledger in this file; empty where there is none yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        let entries = match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is no ledger ({error}): bring it back from a backup", path.display()),
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: Some(path.to_owned()), entries, changed: false })
    }

    /// The project ID of a resource's tree: the one it has, or a new one.
    pub fn project(&mut self, system: &str, resource: Uuid, gid: u32, ids: ProjectIds) -> Result<u32, NoProject> {
        let entries = &mut self.entries.entry(system.to_owned()).or_default().0;
        if let Some(id) = entries.get(&resource) {
            return Ok(*id);
        }
        let id = match ids {
            ProjectIds::Gid => match entries.iter().find(|(_, id)| **id == gid) {
                Some((other, _)) => return Err(NoProject::Taken { id: gid, other: *other }),
                None => gid,
            },
            ProjectIds::From(first) => {
                let highest = entries.values().copied().max().map_or(0, |id| id.saturating_add(1));
                // 0 and the highest number mean "none" to Lustre.
                let id = first.max(1).max(highest);
                if id == u32::MAX {
                    return Err(NoProject::Exhausted(first));
                }
                id
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

    #[test]
    fn a_number_is_never_given_twice_and_never_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let mut ledger = Ledger::open(&path).unwrap();
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(ledger.project("capstor", a, 500, ProjectIds::From(7)).unwrap(), 7);
        assert_eq!(ledger.project("capstor", b, 500, ProjectIds::From(7)).unwrap(), 8);
        assert_eq!(ledger.project("vast", a, 500, ProjectIds::From(7)).unwrap(), 7);
        ledger.save().unwrap();
        let mut again = Ledger::open(&path).unwrap();
        assert_eq!(again.project("capstor", b, 500, ProjectIds::From(7)).unwrap(), 8);
        assert_eq!(again.project("capstor", c, 500, ProjectIds::From(7)).unwrap(), 9);
    }

    #[test]
    fn two_trees_of_one_gid_do_not_share_a_project() {
        let mut ledger = Ledger::default();
        let [a, b] = [1, 2].map(Uuid::from_u128);
        assert_eq!(ledger.project("capstor", a, 500, ProjectIds::Gid).unwrap(), 500);
        assert_eq!(ledger.project("capstor", a, 500, ProjectIds::Gid).unwrap(), 500);
        assert!(matches!(ledger.project("capstor", b, 500, ProjectIds::Gid), Err(NoProject::Taken { id: 500, .. })));
    }

    #[test]
    fn a_broken_ledger_stops_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        fs::write(&path, "{\"capstor\": ").unwrap();
        assert!(Ledger::open(&path).is_err());
    }
}
